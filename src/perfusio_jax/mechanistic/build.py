"""What a mechanism is made as: its class, its names, and every number it was made with.

Two mechanisms of one class may mean different things by constants of one name: a rate in units of a
pace, an effect per spread of a control. What is kept here tells them apart, and brings one back.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import ConfigError
from perfusio_jax.mechanistic.mechanism import constant_places

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_LONGEST = 400
"""Of what a field without numbers says; what is longer is told apart by its start."""


class Build(NamedTuple):
    """How a mechanism was made."""

    kind: str
    """Name of its class."""
    texts: Mapping[str, str]
    """What its fields without numbers say, as names of quantities."""
    numbers: Mapping[str, np.ndarray]
    """Its arrays by field, constants among them [their units]."""

    def as_json(self) -> dict[str, Any]:
        """The same in values that JSON has."""
        numbers = {name: np.asarray(v, float).tolist() for name, v in self.numbers.items()}
        return {"kind": self.kind, "texts": dict(self.texts), "numbers": numbers}


def build_of(mechanism: eqx.Module) -> Build:
    """How a mechanism is made.

    Args:
        mechanism: The mechanism.
    """
    texts, numbers = {}, {}
    for field in dataclasses.fields(mechanism):
        value = getattr(mechanism, field.name)
        if field.metadata.get("static", False):
            texts[field.name] = _ADDRESS.sub("", repr(value))[:_LONGEST]
        elif eqx.is_array_like(value):
            numbers[field.name] = np.asarray(value, float)
        else:  # a part with arrays of its own
            leaves, tree = jax.tree.flatten(value)
            texts[field.name] = _ADDRESS.sub("", str(tree))[:_LONGEST]
            numbers |= {f"{field.name}.{k}": np.asarray(v, float) for k, v in enumerate(leaves)}
    return Build(type(mechanism).__name__, texts, numbers)


def read_build(told: Mapping[str, Any]) -> Build:
    """A build out of values that JSON has.

    Args:
        told: What `Build.as_json` gave.

    Raises:
        KeyError: If it is none.
    """
    numbers = {str(n): np.asarray(v, float) for n, v in told["numbers"].items()}
    return Build(str(told["kind"]), {str(n): str(v) for n, v in told["texts"].items()}, numbers)


def differs_in_kind(one: Build, other: Build) -> list[str]:
    """In what two builds are no mechanism of one kind, one sentence each; empty if they are.

    Args:
        one: A build.
        other: Another.
    """
    if one.kind != other.kind:
        return [f"they are {one.kind} and {other.kind}"]
    found = [
        f"{name} is {one.texts.get(name, 'nothing')} and {other.texts.get(name, 'nothing')}"
        for name in sorted({*one.texts, *other.texts})
        if one.texts.get(name) != other.texts.get(name)
    ]
    shapes = [{n: v.shape for n, v in b.numbers.items()} for b in (one, other)]
    found += [
        f"{name} has the shape {shapes[0].get(name)} and {shapes[1].get(name)}"
        for name in sorted({*shapes[0], *shapes[1]})
        if shapes[0].get(name) != shapes[1].get(name)
    ]
    return found


def differing_units(mechanism: Any, build: Build) -> list[str]:
    """Fields that are no constants and differ: what its constants are counted in.

    Args:
        mechanism: The mechanism.
        build: Another of its kind.
    """
    mine = build_of(mechanism).numbers
    told = {field for field, _ in constant_places(mechanism).values()}
    return [
        name
        for name, value in mine.items()
        if name not in told and not np.array_equal(value, build.numbers[name])
    ]


def as_built(mechanism: Any, build: Build) -> Any:
    """A mechanism with every number as it was made elsewhere.

    Args:
        mechanism: One of the same kind.
        build: Where the numbers are from.

    Returns:
        The mechanism; parts of it that have arrays of their own stay.

    Raises:
        ConfigError: If the build is of another kind.
    """
    differs = differs_in_kind(build_of(mechanism), build)
    if differs:
        raise ConfigError(f"the mechanisms are not of one kind: {'; '.join(differs)}.")
    names = [f.name for f in dataclasses.fields(mechanism) if f.name in build.numbers]
    values = [jnp.asarray(np.asarray(build.numbers[name], float)) for name in names]
    return eqx.tree_at(lambda m: [getattr(m, name) for name in names], mechanism, values)
