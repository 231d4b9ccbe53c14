"""What a decision says of itself: forecasts, alternatives, slopes, limits reached."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from perfusio_jax._core import Array, Bool, Float, Int
from perfusio_jax._core.programs import compiled
from perfusio_jax.bed.goal.constraints import ControlLimits
from perfusio_jax.bed.optimiser.polytope import Polytope
from perfusio_jax.bed.optimiser.search import SearchInfo, to_unit
from perfusio_jax.bed.policy.climbing import Found
from perfusio_jax.bed.policy.effort import N_ALTERNATIVES, room
from perfusio_jax.bed.policy.outlook import Outlook, padded

NUDGE = 1e-6
"""Step of the slopes of the OFV, as a share of each range [-]."""


class RecommendInfo(NamedTuple):
    """Diagnostics of one decision; arrays, so that it passes through `jit` and `vmap`."""

    acquisition: Float[Array, ""]
    """Value at the recommendation."""
    incumbent: Int[Array, ""]
    """0 if the set-points in force were the incumbent, 1 if the last plan was, 2 if both were: the
    better of each path, or their front."""
    incumbent_score: Float[Array, ""]
    """Mean scaled score of the incumbent, costs included [-]; of a front, of its best point."""
    recommended: Outlook
    """Forecast under the recommendation."""
    unchanged: Outlook
    """Forecast if the set-points in force stayed."""
    alternatives: Outlook
    """Forecasts of three other good recipes, arrays with a leading axis of three."""
    alternative_points: Float[Array, "3 d"]
    """Those recipes: local optima and scored points, at least a tenth of the ranges apart."""
    alternative_values: Float[Array, "3"]
    """Their acquisition, without the last climb; not finite where there is no other recipe."""
    gradient: Float[Array, "d"]
    """Slope of the expected OFV with respect to each set-point, per unit of the set-point."""
    move_gains: Float[Array, "d"]
    """Scaled score lost if this one set-point stayed as it is [-]."""
    at_lower: Bool[Array, "d"]
    """Set-points at their lower bound."""
    at_upper: Bool[Array, "d"]
    """Set-points at their upper bound."""
    at_rate_limit: Bool[Array, "d"]
    """Set-points that moved as far as the rate limit allows."""
    linear_active: Bool[Array, "m"]
    """Linear constraints that hold the recommendation back."""
    is_outside: Bool[Array, "d"]
    """Set-points in force outside the limits: they cannot stay."""
    is_fallback: Bool[Array, ""]
    """True if nothing finite was found and the set-points in force are kept."""
    search: SearchInfo
    """Diagnostics of the optimiser."""
    ref_point: Float[Array, "m"]
    """Reference point of a hypervolume, scaled score [-]; empty if there is none."""
    is_passed: Bool[Array, ""]
    """Whether a known point is better than it in every objective on some path."""
    weights: Float[Array, "m"]
    """Weights of a scalarisation [-]; empty if there is none."""


@compiled
def second_table(
    box: Polytope, found: Found, seen: tuple[Array, Array], n_rows: int
) -> tuple[Array, tuple[Array, Array], Array, Array]:
    """The answer, what is in force, each move taken back, each nudged, and alternatives.

    Args:
        box: Limits.
        found: What the climb left.
        seen: Known set-points and raw points.
        n_rows: Rows of the table that was forecast before on the same paths: with as many no other
            program is needed.

    Returns:
        The answer, the table with how many rows of it count, the alternatives and their values.
    """
    known, raw = seen
    d = found.u.shape[0]
    u = jnp.where(jnp.isfinite(found.value), found.u, box.project(known[0]))
    kept = jnp.where(jnp.eye(d, dtype=bool), known[0][None, :], u[None, :])
    nudged = u[None, :] + jnp.diag(_nudges(box, u))
    points = jnp.concatenate([found.search.candidates[:, 0, :], raw])
    values = jnp.concatenate([found.search.values, found.scores])
    others, worths = _alternatives(box, u, points, values)
    rows = jnp.concatenate([jnp.stack([u, known[0]]), kept, nudged, others])
    return u, padded(rows, max(n_rows, room(d))), others, worths


def _nudges(box: Polytope, u: Array) -> Array:
    """Step of each set-point for the slope of the OFV, towards the middle; never zero."""
    width = jnp.where(box.upper > box.lower, box.upper - box.lower, jnp.maximum(jnp.abs(u), 1.0))
    return jnp.where(u < 0.5 * (box.lower + box.upper), NUDGE, -NUDGE) * width


def _alternatives(box: Polytope, u: Array, points: Array, values: Array) -> tuple[Array, Array]:
    """Best points that are at least a tenth of some range from the answer and each other."""
    z = to_unit(box, points)
    chosen, worths = [], []
    values = jnp.where(jnp.isfinite(values), values, -jnp.inf)
    taken = to_unit(box, u)
    for _ in range(N_ALTERNATIVES):
        gap = jnp.max(jnp.abs(z - taken[None, :]), axis=1)
        values = jnp.where(gap >= 0.1, values, -jnp.inf)
        best = jnp.argmax(values)
        chosen.append(jnp.where(jnp.isfinite(values[best]), points[best], u))
        worths.append(values[best])
        taken = z[best]
    return jnp.stack(chosen), jnp.stack(worths)


@compiled
def report(
    answer: tuple[Array, Array, Array, Array],
    bounds: tuple[ControlLimits, Polytope],
    outlooks: Outlook,
    found: Found,
) -> RecommendInfo:
    """What a decision says of itself.

    Args:
        answer: Set-points recommended and in force, alternatives and their values.
        bounds: What set-points must keep, and where they were searched.
        outlooks: Forecasts of the rows of `second_table`.
        found: What the climb left.
    """
    (u, u_now, others, worths), (limits, box) = answer, bounds
    d = u.shape[0]

    def row(i: int) -> Outlook:
        return jax.tree.map(lambda leaf: leaf[i], outlooks)

    chosen, unchanged = row(0), row(1)
    span = limits.upper - limits.lower
    tolerance = 1e-6 * span
    moved = jnp.abs(u - u_now)
    slack = limits.b - limits.A @ u
    last = 2 + 2 * d
    return RecommendInfo(
        acquisition=found.value,
        incumbent=found.held.incumbent,
        incumbent_score=jnp.mean(found.held.best_f),
        recommended=chosen,
        unchanged=unchanged,
        alternatives=jax.tree.map(lambda leaf: leaf[last : last + N_ALTERNATIVES], outlooks),
        alternative_points=others,
        alternative_values=worths,
        gradient=(outlooks.ofv[d + 2 : last] - chosen.ofv) / _nudges(box, u),
        move_gains=chosen.score - outlooks.score[2 : d + 2],
        at_lower=u <= limits.lower - limits.soft_margin_lower + tolerance,
        at_upper=u >= limits.upper + limits.soft_margin_upper - tolerance,
        at_rate_limit=(moved >= limits.max_change - tolerance) & (moved > 0),
        linear_active=slack <= 1e-6 * jnp.linalg.norm(limits.A, axis=1),
        is_outside=(u_now < box.lower - tolerance) | (u_now > box.upper + tolerance),
        is_fallback=~jnp.isfinite(found.value),
        search=found.search,
        ref_point=jnp.asarray(found.held.ref_point),
        is_passed=jnp.asarray(found.held.is_passed),
        weights=jnp.zeros(0),
    )
