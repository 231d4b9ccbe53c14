"""What the model expects of proposed runs."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from perfusio_jax._core import Array, Bool, Float, Int
from perfusio_jax._core.programs import compiled
from perfusio_jax.bed.goal.constraints import Chance, ControlLimits, each_constraint, worst_margin
from perfusio_jax.bed.optimiser.polytope import Polytope
from perfusio_jax.bed.optimiser.progress import compiling
from perfusio_jax.bed.policy.seen import Table, keeps, values_of
from perfusio_jax.bed.surrogate.surrogates import RolloutSurrogate


class CampaignInfo(NamedTuple):
    """What the model expects of the proposed runs, and how they were found."""

    mean: Float[Array, "q m"]
    """Expected value of each criterion, in its unit."""
    sd: Float[Array, "q m"]
    """Its standard deviation over the paths."""
    q10: Float[Array, "q m"]
    """10 % quantile."""
    q90: Float[Array, "q m"]
    """90 % quantile."""
    probability_kept: Float[Array, "q c"]
    """Share of the paths that keep each constraint on every day [-]."""
    forecast: Float[Array, "q H K"]
    """Mean forecast, `FORECAST_SPECIES` last."""
    at_lower: Bool[Array, "q d"]
    """Set-points at their lower bound, fixed ones left out."""
    at_upper: Bool[Array, "q d"]
    """Set-points at their upper bound, fixed ones left out."""
    is_fixed: Bool[Array, "d"]
    """Set-points held at a value."""
    linear_active: Bool[Array, "q r"]
    """Linear constraints that hold a run back."""
    acquisition: Float[Array, "q"]
    """Value of each run when it was picked."""
    share_feasible: Float[Array, "c"]
    """Share of the first points that keep each constraint with its probability [-]."""
    best_probability: Float[Array, ""]
    """Largest probability of keeping all constraints that was found [-]."""
    best_mean: Float[Array, "m"]
    """Mean of each criterion at the best recipe looked at that keeps every constraint (by mean
    scaled score; the first objective's for a front). What was proposed is among them."""
    relaxed_mean: Float[Array, "c m"]
    """The same with one constraint left out."""
    runs_mean: Float[Array, "n m"]
    """What the model makes of the runs so far."""
    is_feasible: Bool[Array, ""]
    """Whether any recipe keeps every constraint with its probability. If not, the proposed
    runs are those that keep them best."""
    n_rollouts: Int[Array, ""]
    """Recipes rolled out, differences not counted."""
    n_nonfinite: Int[Array, ""]
    """Of the first points, those whose forecast was not finite; they are never chosen."""
    is_flat: Bool[Array, ""]
    """Whether every first point is worth the same: the proposed runs are then merely apart."""
    profile: Any = None
    """How changes within the runs were found, a `ProfileInfo`; None if set-points are held."""


@compiled
def best_means(chance: Chance, table: Table) -> tuple[Array, Array, Array, Array]:
    """Best expected values with all constraints and with each one left out.

    Args:
        chance: Constraints.
        table: What was seen of all recipes.

    Returns:
        Best means, the same without each constraint, largest probability of keeping all, and
        whether any recipe does.
    """
    each = keeps(chance, table)
    mean = jnp.mean(table.scores, axis=1)[:, 0]

    def best(legal: Array) -> Array:
        i = jnp.argmax(jnp.where(legal & jnp.isfinite(mean), mean, -jnp.inf))
        return jnp.where(jnp.any(legal), table.means[i], jnp.nan)

    c = each.shape[1]
    others = [jnp.all(jnp.delete(each, k, axis=1), axis=1) for k in range(c)]
    relaxed = (
        jnp.stack([best(rows) for rows in others]) if c else (jnp.zeros((0, table.means.shape[1])))
    )
    kept = jnp.mean(jnp.asarray(jnp.all(table.margins >= 0, axis=1), float), axis=-1)
    all_kept = jnp.all(each, axis=1)
    return best(all_kept), relaxed, jnp.max(kept), jnp.any(all_kept)


def looked_at(chance: Chance, table: Table, of_runs: Array, n_others: int) -> dict[str, Array]:
    """What a search has seen, as fields of a `CampaignInfo`.

    Args:
        chance: Constraints.
        table: What was seen of all recipes.
        of_runs: Means of the runs so far.
        n_others: How many others were rolled out: runs so far and pending ones.
    """
    best, relaxed, probability, is_feasible = best_means(chance, table)
    return {
        "best_probability": probability,
        "best_mean": best,
        "relaxed_mean": relaxed,
        "runs_mean": of_runs,
        "is_feasible": is_feasible,
        "n_rollouts": jnp.asarray(table.points.shape[0] + n_others),
    }


@compiled
def describe(surrogate: RolloutSurrogate, U: Array) -> dict[str, Array]:
    """Forecast of recipes, as fields of a `CampaignInfo`.

    Args:
        surrogate: What forecasts and scores.
        U: Recipes `(q,d)`, or set-points of every step `(q,H,d)`.
    """
    compiling("the forecast of the answer")

    def one(x: Array) -> dict[str, Array]:
        Y, u = surrogate.trajectories(x), surrogate.full(x)
        values = values_of(surrogate, Y, u)
        q10, q90 = jnp.quantile(values, jnp.asarray([0.1, 0.9]), axis=0)
        kept = [
            jnp.mean(jnp.asarray(worst_margin(Y[:, None], limit, u)[:, 0] >= 0, float))
            for limit in each_constraint(surrogate.chance)
        ]
        return {
            "mean": jnp.mean(values, axis=0),
            "sd": jnp.std(values, axis=0),
            "q10": q10,
            "q90": q90,
            "probability_kept": jnp.stack(kept) if kept else jnp.zeros(0),
            "forecast": jnp.mean(Y, axis=0),
        }

    return jax.lax.map(one, U)


@compiled
def held_back(U: Array, box: Polytope, limits: ControlLimits) -> dict[str, Array]:
    """Limits recipes have reached, as fields of a `CampaignInfo`.

    Args:
        U: Recipes `(q,d)`, or set-points of every step `(q,H,d)`: at a bound is then what is there
            at some step.
        box: Where they may lie.
        limits: What set-points must keep.
    """
    if U.ndim == 3:
        found = jax.vmap(lambda plan: held_back(plan, box, limits))(U)
        once = {name: jnp.any(mask, axis=1) for name, mask in found.items() if mask.ndim == 3}
        return {**once, "is_fixed": found["is_fixed"][0]}
    tolerance = 1e-6 * (limits.upper - limits.lower)[None, :]
    slack = limits.b[None, :] - U @ limits.A.T
    size = 1e-6 * jnp.linalg.norm(limits.A, axis=1)[None, :]
    is_fixed = box.lower == box.upper
    return {
        "at_lower": (U <= box.lower[None, :] + tolerance) & ~is_fixed[None, :],
        "at_upper": (U >= box.upper[None, :] - tolerance) & ~is_fixed[None, :],
        "is_fixed": is_fixed,
        "linear_active": slack <= size,
    }
