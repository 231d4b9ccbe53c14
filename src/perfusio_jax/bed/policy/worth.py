"""What one more run is worth beside those already made, pending or picked."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import Array, Bool, Float, Key
from perfusio_jax._core.programs import compiled
from perfusio_jax.bed.acquisition.boxes import BoxDecomposition, nondominated_boxes
from perfusio_jax.bed.acquisition.smooth import log_fatplus, log_mean_exp
from perfusio_jax.bed.goal.constraints import Chance, each_constraint, margin_feasibility
from perfusio_jax.bed.optimiser.polytope import Polytope
from perfusio_jax.bed.optimiser.search import to_unit
from perfusio_jax.bed.policy.seen import Rows, Table, look_at
from perfusio_jax.bed.surrogate.surrogates import RolloutSurrogate

FAR = 1e3
"""Unit coordinates of a pick that is not there [-]."""

_LOW = -3.0
"""Worst value that counts, in spreads below the middle of the design space [-]."""


class Before(eqx.Module):
    """What a further run has to add to."""

    best: Float[Array, "S"]
    """Best value of each path so far, scaled [-]."""
    boxes: BoxDecomposition | None
    """Region not dominated on each path; with two objectives only."""
    weights: Float[Array, "m"]
    """Weight of each objective in a scalarisation [-]."""
    picked: Float[Array, "Q d"]
    """Picks so far, as `Worth.place` says where; far away where there is none."""
    is_expected: Bool[Array, ""]
    """Whether this run is chosen for its mean."""


class Worth(eqx.Module):
    """Acquisition of one recipe."""

    surrogate: RolloutSurrogate
    """What forecasts and scores."""
    state: Before
    """What the recipe has to add to."""
    unit: Float[Array, "2 m"]
    """Centre and spread that bring the objectives to one scale."""
    box: Polytope
    """Where recipes may lie."""
    distance: Float[Array, ""]
    """Recipes closer than about this share of the ranges repel each other [-]."""

    def __call__(self, X: Float[Array, "1 d"]) -> Float[Array, ""]:
        """Value of a recipe, which is rolled out first."""
        scores, margins, _ = look_at(self.surrogate, X[0])
        return self.of(X[0], scores, margins)

    def of(self, x: Array, scores: Array, margins: Array) -> Float[Array, ""]:
        """Value of a recipe whose roll-outs are known."""
        scaled = (scores - self.unit[0][None, :]) / self.unit[1][None, :]
        state = self.state
        if state.boxes is None:
            flat = scalarise(scaled, state.weights)
            improvement = log_mean_exp(log_fatplus(flat - state.best, 1e-2))
            value = jnp.where(state.is_expected, jnp.mean(flat), improvement)
        else:
            edge = jnp.minimum(scaled[:, None, :], state.boxes.upper) - state.boxes.lower
            volume = jnp.sum(jnp.prod(jnp.maximum(edge, 0.0), axis=-1), axis=-1)
            value = jnp.log(jnp.mean(volume) + 1e-9)
        gap = jnp.mean((self.place(x)[None, :] - state.picked) ** 2, axis=-1)
        repelled = jnp.log(-jnp.expm1(-gap / (2.0 * self.distance**2)) + 1e-9)
        return value + log_feasibility(self.surrogate.chance, margins) + jnp.sum(repelled)

    def place(self, x: Float[Array, "... d"]) -> Float[Array, "... p"]:
        """Where recipes lie, in coordinates that are the nearer the more alike two recipes are.

        Args:
            x: A recipe, or one per row.
        """
        profile = self.surrogate.profile
        if profile is None:
            return to_unit(self.box, x)
        if x.ndim == 2:
            return jax.vmap(self.place)(x)
        return profile.place(profile.plan(x))


@compiled
def worths(worth: Worth, table: Table) -> Float[Array, "N"]:
    """Acquisition of recipes whose roll-outs are known.

    Args:
        worth: Acquisition.
        table: What was seen of them.
    """
    return jax.lax.map(
        lambda row: worth.of(*row), (table.points, table.scores, table.margins), batch_size=64
    )


@compiled
def units(table: Table) -> tuple[Array, Array]:
    """Centre and spread to scale by, and the spread itself, of the finite means.

    Args:
        table: What was seen of the first points.
    """
    mean = jnp.mean(table.scores, axis=1)
    mean = jnp.where(jnp.isfinite(mean), mean, jnp.nan)
    centre, spread = jnp.nanmean(mean, axis=0), jnp.nanstd(mean, axis=0)
    return jnp.stack([centre, jnp.where(spread > 0, spread, 1.0)]), spread


def is_flat(unit: Array, spread: Array) -> Array:
    """Whether every first point is worth the same; of what `units` gives."""
    return jnp.asarray((np.asarray(spread) <= 1e-9 * (1 + np.abs(unit[0]))).all())


def directions(m: int, q: int, key: Key) -> Array:
    """Weights of the objectives per pick; ones unless there are three or more.

    Args:
        m: Objectives.
        q: Picks.
        key: Draws them.
    """
    if m < 3:
        return jnp.ones((q, m))
    return jax.random.dirichlet(key, jnp.ones(m), (q,))


def scalarise(scaled: Array, weights: Array) -> Array:
    """One number per path; the augmented Chebyshev value for several objectives.

    Args:
        scaled: Scaled scores `(...,m)`.
        weights: Weight of each objective `(m,)`.
    """
    if scaled.shape[-1] == 1:
        return scaled[..., 0]
    weighted = scaled * weights.reshape((1,) * (scaled.ndim - 1) + (-1,))
    return jnp.min(weighted, axis=-1) + 0.05 * jnp.sum(weighted, axis=-1)


def log_feasibility(chance: Chance, margins: Array) -> Array:
    """Logarithm of how likely a recipe keeps its limits, smooth, for a climb's sake.

    Args:
        chance: Constraints.
        margins: Its worst margins `(c,S)`.
    """
    each = [
        margin_feasibility(margins[k][:, None], limit)[0]
        for k, limit in enumerate(each_constraint(chance))
    ]
    return sum(each, start=jnp.zeros(()))


@compiled
def compare(rows: Rows, unit: Array, weights: Array) -> tuple[Array, BoxDecomposition | None]:
    """Best value, or region not dominated, of each path among runs that keep the limits there.

    Args:
        rows: Runs to be improved upon.
        unit: Centre and spread that bring the objectives to one scale.
        weights: Weight of each objective.
    """
    scaled = (rows.table.scores - unit[0][None, None, :]) / unit[1][None, None, :]
    kept = jnp.all(rows.table.margins >= 0, axis=1) & rows.is_used[:, None]
    flat = jnp.where(kept, scalarise(scaled, weights), _LOW)
    best = jnp.maximum(jnp.max(flat, axis=0), _LOW)
    if unit.shape[1] != 2:
        return best, None
    low = jnp.full(2, _LOW)
    legal = jnp.where(kept[:, :, None], scaled, low[None, None, :])
    return best, jax.vmap(nondominated_boxes, (1, None))(legal, low)
