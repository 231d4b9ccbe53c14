"""Constants of any mechanism, moved towards the rates of a campaign."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optimistix
from jaxtyping import Array, Bool, Float

from perfusio_jax._core.programs import compiled
from perfusio_jax._core.progress import compiling
from perfusio_jax.hybrid.layout import VOLUME, Layout
from perfusio_jax.mechanistic.mechanism import Mechanism, moved, n_movable

_ALIKE = 4.0
"""Intervals of a run resemble each other: so many count as one [-]."""
_BEND = 2.0
"""Scaled gap at which the loss turns from square to linear [-]."""
_ROUNDS = 3
"""Times that the spread of what is left is taken anew."""
_STEPS = 60
_NORMAL = 1.4826
"""Standard deviation over the median of the absolute value, of a normal variable [-]."""
_LEAST = 0.02
"""Spread below which rates do not weigh more [units of the rates]."""


class Rates(NamedTuple):
    """What a campaign says of rates, row by row."""

    states: Float[Array, "N K"]
    """States in the middle of intervals, as the mechanism reads them."""
    controls: Float[Array, "N M"]
    """Control columns of the layout."""
    rates: Float[Array, "N K"]
    """Volumetric rates [unit/h]."""
    unit: Float[Array, "N K"]
    """What a rate is judged in [unit/h]."""
    is_used: Bool[Array, " N"]
    """Rows that hold data."""


class Moved(NamedTuple):
    """How the constants were moved."""

    z: Float[np.ndarray, " P"]
    """Prior standard deviations by which each moved [-]."""
    before: Float[np.ndarray, " K"]
    """Root mean square of what the mechanism misses, before [units of the rates]."""
    after: Float[np.ndarray, " K"]
    """The same after."""


def rates_at(
    mechanism: Mechanism,
    layout: Layout,
    states: Float[Array, " K"],
    controls: Float[Array, " M"],
    volume_L: Float[Array, ""],
) -> Float[Array, " K"]:
    """A mechanism's volumetric rates of every state; zero for what it does not know.

    Args:
        mechanism: The mechanism.
        layout: Names of the columns.
        states: Values in the quantities' own units, not negative for concentrations.
        controls: Control columns.
        volume_L: Volume in the vessel [L].

    Returns:
        Rates [unit/h].
    """
    environment = {name: controls[i] for i, name in enumerate(layout.controls)}
    environment.setdefault(VOLUME, volume_L)
    found = mechanism.rates({n: states[k] for k, n in enumerate(layout.states)}, environment)
    kind = states.dtype
    return jnp.stack([jnp.asarray(found.get(name, 0.0), kind) for name in layout.states])


def fit_constants(
    mechanism: Mechanism, layout: Layout, data: Rates, volume_L: Array
) -> tuple[Mechanism, Moved]:
    """The mechanism with its constants where rates and prior agree best.

    A robust maximum a posteriori estimate: what is left counts square up to two of its own
    spreads and linear beyond, so a few wrong samples do not decide.

    Args:
        mechanism: The mechanism; its constants are the prior's centre.
        layout: Names of the columns.
        data: Rates of a campaign.
        volume_L: Volume in the vessel [L].

    Returns:
        The mechanism, and how it was moved.
    """
    if n_movable(mechanism) == 0:
        nothing = np.full(layout.n, np.nan)
        return mechanism, Moved(np.zeros(0), nothing, nothing)
    z, before, after = _search(mechanism, data, jnp.asarray(volume_L), layout)
    z = jnp.where(jnp.isfinite(z), z, 0.0)
    return moved(mechanism, z), Moved(*(np.asarray(v) for v in (z, before, after)))


@compiled
def _search(
    mechanism: Any, data: Rates, volume_L: Array, layout: Layout
) -> tuple[Array, Array, Array]:
    compiling("the search for the mechanism's constants")
    used = data.is_used[:, None].astype(data.rates.dtype)

    def gaps(z: Array) -> Array:
        mine = moved(mechanism, z)
        made = jax.vmap(lambda c, u: rates_at(mine, layout, c, u, volume_L))(
            data.states, data.controls
        )
        return jnp.nan_to_num((made - data.rates) / data.unit) * used

    def spread(found: Array) -> Array:
        # by the middle one of what is left, so that a few rows do not widen it
        size = jnp.where(data.is_used[:, None], jnp.abs(found), jnp.nan)
        return _NORMAL * jnp.nan_to_num(jnp.nanmedian(size, axis=0)) + _LEAST

    def residual(z: Array, scale: Array) -> tuple[Array, Array]:
        f = gaps(z) / scale[None, :]
        bent = _BEND * jnp.sqrt(2.0 * (jnp.sqrt(1.0 + (f / _BEND) ** 2 + 1e-12) - 1.0))
        return bent / jnp.sqrt(_ALIKE), z

    solver = optimistix.LevenbergMarquardt(rtol=1e-4, atol=1e-4)
    z = jnp.zeros(n_movable(mechanism))
    before = spread(gaps(z))

    def turn(z: Array, _: None) -> tuple[Array, None]:
        found = optimistix.least_squares(
            residual, solver, z, args=spread(gaps(z)), max_steps=_STEPS, throw=False
        )
        better = jnp.all(jnp.isfinite(found.value))
        return jnp.where(better, found.value, z), None

    z, _ = jax.lax.scan(turn, z, None, length=_ROUNDS)
    return z, before, spread(gaps(z))
