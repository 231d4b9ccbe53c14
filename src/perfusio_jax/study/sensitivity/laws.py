"""How uncertain the levers of a study are, as arrays: changed numbers compile nothing anew."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from jaxtyping import Array, Bool, Float

from perfusio_jax._core import ConfigError
from perfusio_jax._core.hints import did_you_mean
from perfusio_jax.study.experiment import Experiment, Law, Lever, uniform

_TAIL = 2.0**-32
"""Closest to 0 and 1 that a normal is looked up at; half of the finest Sobol point."""


class Laws(NamedTuple):
    """One law for each lever."""

    is_log: Bool[Array, " P"]
    """Whether the logarithm is spread."""
    is_normal: Bool[Array, " P"]
    """Whether it is normal rather than uniform."""
    a: Float[Array, " P"]
    """Middle, or lower end."""
    b: Float[Array, " P"]
    """Standard deviation, or width."""


def stacked(laws: Sequence[Law]) -> Laws:
    """Laws as arrays."""
    is_log, is_normal, a, b = zip(*laws, strict=True)
    return Laws(
        jnp.asarray(is_log, bool),
        jnp.asarray(is_normal, bool),
        jnp.asarray(a, float),
        jnp.asarray(b, float),
    )


def laws_of(
    experiment: Experiment,
    levers: Sequence[Lever],
    ranges: Mapping[str, Law | tuple[float, float]] | None = None,
) -> Laws:
    """How uncertain levers are.

    Args:
        experiment: The run.
        levers: Its levers.
        ranges: Law or `(lo, hi)` by the name of a lever; the usual one where nothing is said.

    Raises:
        ConfigError: If a name is no lever's, a range is none, or a lever has no usual law.
    """
    told = dict(ranges or {})
    names = [lever.name for lever in levers]
    unknown = [name for name in told if name not in names]
    if unknown:
        raise ConfigError(
            f"a range is given for {', '.join(unknown)}, which is not among the levers"
            f"{did_you_mean(unknown, names)}: {', '.join(names)}."
        )
    found = []
    for lever in levers:
        law = told.get(lever.name)
        law = experiment.usual_law(lever) if law is None else law
        if law is None:
            raise ConfigError(
                f"{lever.name} stands at {float(experiment.lever_values((lever,))[0]):g}, and "
                "nobody says how uncertain that is; give its range."
            )
        found.append(law if isinstance(law, Law) else uniform(*law))
    return stacked(found)


def from_unit(laws: Laws, u: Float[Array, "B P"], *, share: float = 1.0) -> Float[Array, "B P"]:
    """Points of the unit cube as values of the levers.

    Args:
        laws: How uncertain they are.
        u: Points, 0 to 1.
        share: Middle part of normal laws that 0 to 1 stands for [-]; a normal has no ends.
    """
    middle = jnp.clip(0.5 + share * (u - 0.5), _TAIL, 1.0 - _TAIL)
    z = jnp.where(laws.is_normal[None], ndtri(middle), u)
    y = laws.a[None] + laws.b[None] * z
    return jnp.where(laws.is_log[None], jnp.exp(y), y)


def unit_uniform(n: int) -> Laws:
    """Laws that leave the unit cube as it is."""
    return stacked([Law(False, False, 0.0, 1.0)] * n)


def ends(laws: Laws) -> Float[np.ndarray, "2 P"]:
    """Values at 2.5 and 97.5 % of each law, for people."""
    at = jnp.broadcast_to(jnp.asarray([[0.025], [0.975]]), (2, laws.a.size))
    return np.asarray(from_unit(laws, at))
