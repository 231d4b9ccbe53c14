"""Between the latent state and what an analyser shows."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float

from perfusio_jax._core import FORECAST_SPECIES, STATE_ORDER, Scalar, on_device
from perfusio_jax.chemistry import DEFAULT_CV, from_balanced, report, to_balanced
from perfusio_jax.hybrid.layout import CHO, Layout

_REFERENCE_DEAD = 0.1
"""Dead fraction [-] at which the assay's CV of viability is stated."""


def _leaf(value: Any) -> Array:
    return jnp.asarray(value, float)


class LatentMap(eqx.Module):
    """Balanced concentrations to the space the filter works in: `log(c + offset)`."""

    offset: Float[Array, " 9"] = eqx.field(converter=_leaf)
    """Keeps the logarithm finite at zero [unit of the species]."""
    layout: Layout = eqx.field(static=True, default=CHO)
    """What the columns are."""

    def forward(self, state: Float[Array, "... 9"]) -> Float[Array, "... 9"]:
        """Concentrations to latent."""
        wide = (1,) * (state.ndim - 1) + (-1,)
        return jnp.log(jnp.maximum(state, 0.0) + self.offset.reshape(wide))

    def inverse(self, latent: Float[Array, "... 9"]) -> Float[Array, "... 9"]:
        """Latent to concentrations, never negative."""
        wide = (1,) * (latent.ndim - 1) + (-1,)
        return jnp.maximum(jnp.exp(latent) - self.offset.reshape(wide), 1e-9)


def to_latent(latent: LatentMap, state: Float[ArrayLike, "... 9"]) -> Float[Array, "... 9"]:
    """`LatentMap.forward`, on the host where nothing is traced: no program is made for it."""
    if isinstance(latent.offset, Tracer) or isinstance(state, Tracer):
        return latent.forward(jnp.asarray(state, float))
    return on_device(np.log(np.maximum(np.asarray(state), 0.0) + np.asarray(latent.offset)))


class AssayNoise(eqx.Module):
    """Noise of one sample.

    Concentrations carry a relative error and a small absolute one; viability carries a
    binomial-like error of the dead fraction, constant on the arcsine scale.
    """

    cv: Float[Array, " 9"] = eqx.field(converter=_leaf, default=DEFAULT_CV)
    """Coefficients of variation in `STATE_ORDER` [-]; viability's at 90 %."""
    floor: Float[Array, " 9"] = eqx.field(converter=_leaf, default=(0.01,) * 9)
    """Absolute standard deviation [unit of the species]; viability's entry is unused."""
    feed_cv: Scalar = eqx.field(converter=_leaf, default=0.04)
    """Coefficient of variation of the totalised glucose feed [-], the pump law's own error
    included."""
    via: int | None = eqx.field(static=True, default=CHO.via)
    """Column that holds viability, if one does."""

    @property
    def dead_sd(self) -> Scalar:
        """Standard deviation of `arcsin(sqrt(dead fraction))` [-]."""
        return 0.5 * self.cv[self.via] * jnp.sqrt((1.0 - _REFERENCE_DEAD) / _REFERENCE_DEAD)


def to_states(layout: Layout, face: Float[Array, "... K"]) -> Float[Array, "... K"]:
    """Measured faces to states; NaN where nothing tells."""
    if layout.is_cho:
        return to_balanced(face)
    states = face - _wide(layout.lower, face)
    if layout.pair is None:
        return states
    live, dead = layout.pair
    via = jnp.clip(face[..., dead], 1e-3, 100.0)
    return states.at[..., dead].set(states[..., live] * (100.0 - via) / via)


def to_face(layout: Layout, states: Float[Array, "... K"]) -> Float[Array, "... K"]:
    """States to measured faces, without noise."""
    if layout.is_cho:
        return from_balanced(states)
    face = states + _wide(layout.lower, states)
    if layout.pair is None:
        return face
    live, dead = layout.pair
    total = jnp.maximum(states[..., live] + states[..., dead], 1e-12)
    return face.at[..., dead].set(100.0 * states[..., live] / total)


def _wide(values: Any, like: Array) -> Array:
    """A vector over columns, with axes in front for a batch."""
    return jnp.asarray(values, float).reshape((1,) * (like.ndim - 1) + (-1,))


def dead_angle(state: Float[Array, "... K"], pair: tuple[int, int] = (0, 1)) -> Float[Array, "..."]:
    """`arcsin(sqrt(dead fraction))` of live and dead cells, which `pair` places [-]."""
    live, dead = jnp.maximum(state[..., pair[0]], 0.0), jnp.maximum(state[..., pair[1]], 0.0)
    fraction = (dead + 1e-9) / (live + dead + 1e-6)
    return jnp.arcsin(jnp.sqrt(jnp.minimum(fraction, 1.0 - 1e-9)))


def predict_reading(
    latent_map: LatentMap, state: Float[Array, "... 9"], feed_L: Float[Array, "..."], unit: Scalar
) -> Float[Array, "... 10"]:
    """Readings on the scale where their noise is close to Gaussian.

    Args:
        latent_map: Offsets of the logarithm.
        state: Balanced concentrations.
        feed_L: Concentrated glucose fed since the last sample [L].
        unit: Offset of the feed's logarithm [L].

    Returns:
        Nine species in `STATE_ORDER` (viability as dead angle), then the feed.
    """
    value = latent_map.forward(state)
    pair = latent_map.layout.pair
    if pair is not None:
        value = value.at[..., pair[1]].set(dead_angle(state, pair))
    fed = jnp.log(jnp.maximum(feed_L, 0.0) + unit)
    return jnp.concatenate([value, fed[..., None]], axis=-1)


def transform_reading(
    latent_map: LatentMap, face: Float[Array, " 9"], feed_L: Scalar, unit: Scalar
) -> Float[Array, " 10"]:
    """A measured face on the same scale; NaN stays NaN.

    Args:
        latent_map: Offsets of the logarithm.
        face: Measured values in `STATE_ORDER`; NaN if missing.
        feed_L: Totalised glucose feed [L]; NaN if unknown.
        unit: Offset of the feed's logarithm [L].

    Returns:
        Ten transformed readings.
    """
    layout = latent_map.layout
    above = face if layout.is_cho else face - layout.lower
    value = jnp.log(jnp.maximum(above, 0.0) + latent_map.offset)
    if layout.via is not None:
        dead = jnp.clip(1.0 - face[layout.via] / 100.0, 0.0, 1.0)
        value = value.at[layout.via].set(jnp.arcsin(jnp.sqrt(dead)))
    value = jnp.where(jnp.isnan(face), jnp.nan, value)
    fed = jnp.log(jnp.maximum(feed_L, 0.0) + unit)
    return jnp.concatenate([value, jnp.where(jnp.isnan(feed_L), jnp.nan, fed)[None]])


def transform_limits(
    latent_map: LatentMap, limits: Float[Array, "9 2"], unit: Scalar
) -> tuple[Float[Array, " 10"], Float[Array, " 10"]]:
    """Limits of assays on the scale of transformed readings.

    Args:
        latent_map: Offsets of the logarithm.
        limits: Below and above in `STATE_ORDER`; NaN where there is none.
        unit: Offset of the feed's logarithm [L].

    Returns:
        What transformed readings lie below, and above.
    """
    nothing = jnp.full((), jnp.nan)
    low, high = (transform_reading(latent_map, limits[:, k], nothing, unit) for k in (0, 1))
    via = latent_map.layout.via
    if via is None:
        return low, high
    # less alive is a larger angle of the dead
    return low.at[via].set(high[via]), high.at[via].set(low[via])


def reading_sd(
    noise: AssayNoise,
    latent_map: LatentMap,
    state: Float[Array, " 9"],
    feed_L: Scalar,
    unit: Scalar,
) -> Float[Array, " 10"]:
    """Standard deviation of the transformed readings at a state.

    Args:
        noise: Assay noise.
        latent_map: Offsets of the logarithm.
        state: Balanced concentrations, usually the forecast's mean.
        feed_L: Expected glucose feed [L].
        unit: Offset of the feed's logarithm [L].

    Returns:
        Ten standard deviations [-].
    """
    level = jnp.maximum(state, 0.0)
    layout = latent_map.layout
    # an assay's relative error is one of what it shows
    shown = level if layout.is_cho else level + layout.lower
    absolute = jnp.sqrt((noise.cv * shown) ** 2 + noise.floor**2)
    sd = absolute / (level + latent_map.offset)
    if layout.via is not None:
        sd = sd.at[layout.via].set(noise.dead_sd)
    fed = jnp.maximum(feed_L, 0.0)
    feed_sd = jnp.sqrt((noise.feed_cv * fed) ** 2 + (0.3 * unit) ** 2) / (fed + unit)
    return jnp.concatenate([sd, feed_sd[None]])


def forecast_report(
    state: Float[Array, "... 9"],
    diam_base: Scalar,
    diam_death_coeff: Scalar,
    noise: AssayNoise | None = None,
    draws: Float[Array, "... 12"] | None = None,
) -> Float[Array, "... 12"]:
    """The twelve reported species, with assay noise if draws are given.

    Args:
        state: Balanced concentrations.
        diam_base: Diameter at full viability [um].
        diam_death_coeff: Its increase per unit dead fraction [um].
        noise: Assay noise.
        draws: Standard normal numbers, one per reported species.

    Returns:
        Values in `FORECAST_SPECIES` order.
    """
    clean = report(state, diam_base, diam_death_coeff)
    if noise is None or draws is None:
        return clean
    column = {name: i for i, name in enumerate(FORECAST_SPECIES)}
    cv = np.zeros(len(FORECAST_SPECIES), int)
    for name, place in column.items():
        cv[place] = STATE_ORDER.index(name) if name in STATE_ORDER else 0
    spread = noise.cv[jnp.asarray(cv)]
    spread = spread.at[column["Diam"]].set(0.01)
    wide = (1,) * (clean.ndim - 1) + (-1,)
    noisy = clean * jnp.exp(spread.reshape(wide) * draws)
    angle = jnp.arcsin(jnp.sqrt(jnp.clip(1.0 - clean[..., column["Via"]] / 100.0, 1e-12, 1.0)))
    angle = jnp.clip(angle + noise.dead_sd * draws[..., column["Via"]], 0.0, 0.5 * jnp.pi)
    via = 100.0 * (1.0 - jnp.sin(angle) ** 2)
    noisy = noisy.at[..., column["Via"]].set(via)
    # derived columns follow from the noisy readings of the same sample
    cells, width = noisy[..., column["VCD"]], noisy[..., column["Diam"]]
    noisy = noisy.at[..., column["VCV"]].set(1e-4 * cells * jnp.pi / 6.0 * width**3)
    return noisy.at[..., column["DCD"]].set(cells * (100.0 - via) / jnp.maximum(via, 1e-3))


def reported(
    model: Any,
    states: Float[Array, "... K"],
    draws: Float[Array, "... F"] | None = None,
) -> Float[Array, "... F"]:
    """What a model's forecasts report of states, with assay noise if draws are given.

    Args:
        model: Hybrid model; its layout says which columns these are.
        states: States.
        draws: Standard normal numbers, one per reported column.

    Returns:
        Values in the order of `layout.forecast`.
    """
    layout: Layout = model.layout
    if layout.is_cho:
        noise = None if draws is None else model.assay
        return forecast_report(states, model.diam_base, model.diam_death_coeff, noise, draws)
    clean = to_face(layout, states)
    if draws is None:
        return clean
    noise = model.assay
    cv, floor = _wide(noise.cv, clean), _wide(noise.floor, clean)
    noisy = clean + jnp.sqrt((cv * clean) ** 2 + floor**2) * draws
    noisy = jnp.maximum(noisy, _wide(layout.lower, clean))
    if layout.via is None:
        return noisy
    via = layout.via
    angle = jnp.arcsin(jnp.sqrt(jnp.clip(1.0 - clean[..., via] / 100.0, 1e-12, 1.0)))
    angle = jnp.clip(angle + noise.dead_sd * draws[..., via], 0.0, 0.5 * jnp.pi)
    return noisy.at[..., via].set(100.0 * (1.0 - jnp.sin(angle) ** 2))
