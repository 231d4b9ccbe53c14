"""A mechanism of one's own: rates of the quantities it knows, and constants that data may move.

A mechanism is an `equinox` module whose fields are its constants. What can be learned of one is
said where it is declared:

    class Yeast(Mechanism):
        mu_max: Array = constant(0.2, unit="1/h", log_sd=0.5, source="a guess")
        yield_XS: Array = constant(0.4, unit="g/g", log_sd=0.3)

        def rates(self, state, environment):
            growth = self.mu_max * state["S"] / (0.1 + state["S"]) * state["X"]
            return {"X": growth, "S": -growth / self.yield_XS}
"""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from perfusio_jax._core import ConfigError

_HOW = "perfusio_jax.constant"


class Told(NamedTuple):
    """What is told of a constant beside its value."""

    unit: str
    """Its unit."""
    log_sd: ArrayLike | None
    """Prior standard deviation of its logarithm [-]; for constants that keep their sign."""
    sd: ArrayLike | None
    """Prior standard deviation [its unit]."""
    source: str
    """Where the value is from."""
    of: str = ""
    """Static field that names the entries of a vector; empty where they have numbers only."""


def _array(value: Any) -> Array:
    return jnp.asarray(value, float)


def constant(
    value: ArrayLike | None = None,
    *,
    unit: str,
    log_sd: ArrayLike | None = None,
    sd: ArrayLike | None = None,
    source: str = "",
    of: str = "",
) -> Any:
    """A field that holds a constant.

    Args:
        value: Its value; to be given to the class if None.
        unit: Its unit, for people.
        log_sd: Prior standard deviation of its logarithm [-]: data may move it by factors.
        sd: Prior standard deviation [unit]: data may move it by amounts. With neither it stays.
        source: Where the value is from.
        of: Static field that names the entries of a vector, for people.

    Raises:
        ConfigError: If both deviations are given, or one is not positive.
    """
    given = [d for d in (log_sd, sd) if d is not None]
    if len(given) > 1 or any(bool(np.any(np.asarray(d) <= 0.0)) for d in given):
        raise ConfigError(
            f"a constant in {unit} has log_sd={log_sd!r} and sd={sd!r}; at most one, above zero."
        )
    metadata = {_HOW: Told(unit, log_sd, sd, source, of)}
    if value is None:
        return eqx.field(converter=_array, metadata=metadata)
    return eqx.field(converter=_array, metadata=metadata, default=value)


class Mechanism(eqx.Module):
    """Rates of a culture by what is known of it; a pure function of state and environment."""

    @abc.abstractmethod
    def rates(
        self, state: Mapping[str, Array], environment: Mapping[str, Array]
    ) -> Mapping[str, Array]:
        """Volumetric rates of the quantities it knows.

        Args:
            state: Value of every state of the process, scalars in their units, not negative.
            environment: Value of every control, and `volume_L`.

        Returns:
            Rate by name [unit of the quantity / h], scalars; what is not named has none.
        """


def told_constants(mechanism: Mechanism) -> dict[str, Told]:
    """What is told of a mechanism's constants, by field.

    Args:
        mechanism: The mechanism; its values do not matter.

    Returns:
        Units, prior spreads and sources, in the order of the fields; fields that were not made
        by `constant` are left out.
    """
    return {f.name: f.metadata[_HOW] for f in dataclasses.fields(mechanism) if _HOW in f.metadata}


def entry_names(mechanism: eqx.Module, field: str) -> list[str]:
    """Names of a constant's entries: its own, or `a[S]` of a vector.

    Args:
        mechanism: The mechanism.
        field: The constant.
    """
    value = getattr(mechanism, field)
    if np.ndim(value) == 0:
        return [field]
    size = int(np.size(value))
    told = told_constants(mechanism)[field]  # pyright: ignore[reportArgumentType]
    of = getattr(mechanism, told.of, ()) if told.of else ()
    names = of if len(of) == size else range(1, size + 1)
    return [f"{field}[{name}]" for name in names]


def constant_places(mechanism: Any) -> dict[str, tuple[str, int]]:
    """Field and place in it of every constant, by name.

    Args:
        mechanism: A `Mechanism`, or `CHOKinetics`, all fields of which are constants.
    """
    if not isinstance(mechanism, Mechanism):
        return {f.name: (f.name, 0) for f in dataclasses.fields(mechanism)}
    return {
        name: (field, k)
        for field in told_constants(mechanism)
        for k, name in enumerate(entry_names(mechanism, field))
    }


def with_constants(mechanism: Any, values: Mapping[str, ArrayLike]) -> Any:
    """The mechanism with constants at other values.

    Args:
        mechanism: The mechanism.
        values: By name, as `entry_names` has them [units of the constants].

    Returns:
        The same mechanism with other numbers; traces.

    Raises:
        ConfigError: If it has no such constant.
    """
    places = constant_places(mechanism)
    unknown = [name for name in values if name not in places]
    if unknown:
        raise ConfigError(
            f"{type(mechanism).__name__} has no constant {', '.join(unknown)}; it has "
            f"{', '.join(places)}."
        )
    fields = list(dict.fromkeys(places[name][0] for name in values))
    found = {field: jnp.ravel(getattr(mechanism, field)) for field in fields}
    for name, value in values.items():
        field, k = places[name]
        found[field] = found[field].at[k].set(value)
    shaped = [found[field].reshape(jnp.shape(getattr(mechanism, field))) for field in fields]
    return eqx.tree_at(lambda m: [getattr(m, field) for field in fields], mechanism, shaped)


def movable(mechanism: Mechanism) -> dict[str, Told]:
    """Constants that data may move, by field.

    Args:
        mechanism: The mechanism.

    Returns:
        Of `told_constants` those with a prior spread, in their order.
    """
    return {
        name: told
        for name, told in told_constants(mechanism).items()
        if told.log_sd is not None or told.sd is not None
    }


def n_movable(mechanism: Mechanism) -> int:
    """How many numbers data may move: the length P of what `moved` takes.

    Args:
        mechanism: The mechanism; every entry of a vector counts.
    """
    return sum(int(np.size(getattr(mechanism, name))) for name in movable(mechanism))


def moved(mechanism: Any, z: Float[Array, " P"]) -> Any:
    """The mechanism with its constants moved.

    Args:
        mechanism: The mechanism; its constants are the prior's centre.
        z: Prior standard deviations by which each number moves, in the order of the fields.

    Returns:
        The same mechanism with other numbers; traces.
    """
    values, at = [], 0
    names = list(movable(mechanism))
    for name in names:
        told, old = movable(mechanism)[name], getattr(mechanism, name)
        part = z[at : at + old.size].reshape(old.shape)
        at += old.size
        if told.log_sd is not None:
            values.append(old * jnp.exp(jnp.asarray(told.log_sd, float) * part))
        else:
            values.append(old + jnp.asarray(told.sd, float) * part)
    return eqx.tree_at(lambda m: [getattr(m, name) for name in names], mechanism, values)


def check_rates(
    mechanism: Mechanism, states: tuple[str, ...], controls: tuple[str, ...]
) -> tuple[str, ...]:
    """Refuse a mechanism whose rates do not fit a process.

    Args:
        mechanism: The mechanism.
        states: Names of the states there are.
        controls: Names of the controls.

    Returns:
        Names of the quantities it gives rates of.

    Raises:
        ConfigError: If it asks for something that is not there, names a quantity the process
            lacks, or returns anything but finite scalars.
    """
    kind = type(mechanism).__name__
    state = {name: jnp.asarray(1.0, float) for name in states}
    environment = {name: jnp.asarray(1.0, float) for name in (*controls, "volume_L")}
    try:
        found = mechanism.rates(state, environment)
    except KeyError as error:
        raise ConfigError(
            f"{kind} asks for {error}; there are the states {', '.join(states)} and the controls "
            f"{', '.join(controls) or 'none'}."
        ) from None
    if not isinstance(found, Mapping):
        raise ConfigError(
            f"{kind}.rates returned {type(found).__name__}; it returns rates by name, a mapping."
        )
    unknown = [name for name in found if name not in states]
    if unknown:
        raise ConfigError(
            f"{kind} gives a rate of {', '.join(map(str, unknown))}; the process has "
            f"{', '.join(states)}."
        )
    for name, rate in found.items():
        if not eqx.is_array(rate):
            raise ConfigError(
                f"{kind}: the rate of {name} is a {type(rate).__name__}; a traced number is needed "
                "(jax.numpy), or it could not depend on anything."
            )
        if jnp.shape(rate) != ():
            raise ConfigError(
                f"{kind}: the rate of {name} has the shape {jnp.shape(rate)}; it is one number."
            )
        if not bool(jnp.isfinite(rate)):
            raise ConfigError(
                f"{kind}: the rate of {name} is {float(rate)} where every state is 1; rates are "
                "finite wherever states are not negative."
            )
    return tuple(found)
