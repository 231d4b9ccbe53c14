"""What the forecast says about set-points, one row of a table after the other."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from perfusio_jax._core import Array, Float
from perfusio_jax._core.programs import compiled
from perfusio_jax.bed.goal.constraints import (
    chance_feasibility,
    each_constraint,
    probability_all_kept,
    probability_kept,
)
from perfusio_jax.bed.optimiser.progress import compiling
from perfusio_jax.bed.policy.effort import room
from perfusio_jax.bed.surrogate.surrogates import RolloutSurrogate, plain_score


class Outlook(NamedTuple):
    """What the forecast says about some set-points held over the horizon."""

    mean: Float[Array, "H K"]
    """Mean forecast, `FORECAST_SPECIES` last, in their units."""
    q10: Float[Array, "H K"]
    """10 % quantile of the latent state."""
    q50: Float[Array, "H K"]
    """Median."""
    q90: Float[Array, "H K"]
    """90 % quantile."""
    ofv: Float[Array, ""]
    """Expected plain sum of squares, lower is better; the scaled cost of a `ProcessOFV`."""
    target_errors: Float[Array, "T"]
    """Each target's part of it, in squared units of its species; each criterion's."""
    score: Float[Array, ""]
    """Mean scaled score [-], costs of set-points left out, higher is better."""
    probability_kept: Float[Array, ""]
    """Share of paths that keep every chance constraint on every day [-]; 1 if there is none."""
    constraint_probability: Float[Array, "c"]
    """The same for each constraint."""
    constraint_scores: Float[Array, "c"]
    """What each constraint takes from the score the search sees [-], at most zero."""


@compiled
def table_of(known: Array, points: Array) -> tuple[Array, Array]:
    """Known set-points, then others, in a table with room for the last one too.

    Args:
        known: Set-points `(k,d)`.
        points: Others `(n,d)`.

    Returns:
        The table, and how many rows of it count.
    """
    rows = jnp.concatenate([known, points])
    return padded(rows, max(rows.shape[0], room(known.shape[1])))


def padded(points: Array, n: int) -> tuple[Array, Array]:
    """Points in a table of fixed size, and how many there are.

    Args:
        points: Set-points, one per row.
        n: Rows of the table.
    """
    table = jnp.zeros((n, points.shape[1]), points.dtype).at[: points.shape[0]].set(points)
    return table, jnp.asarray(points.shape[0])


@compiled
def forecasts(
    surrogate: RolloutSurrogate, points: tuple[Array, Array]
) -> tuple[Float[Array, "N S *m"], Float[Array, "N"], Outlook]:
    """Scores per path, log feasibilities and forecasts at the first points of a table.

    The rest stays zero.

    Args:
        surrogate: What forecasts and scores.
        points: Table of set-points, and how many rows of it count.
    """
    table, n = points
    compiling(f"the forecast{on_paths(surrogate)}")

    @jax.jit  # so that the shapes and the loop are of one trace
    def one(x: Array) -> tuple[Array, Array, Outlook]:
        trajectories = surrogate.trajectories(x)
        return (*surrogate.score_of(trajectories, x), _outlook(surrogate, trajectories, x))

    shapes = jax.eval_shape(one, table[0])
    empty = jax.tree.map(lambda s: jnp.zeros((table.shape[0], *s.shape), s.dtype), shapes)

    def fill(i: Array, filled: tuple[Array, Array, Outlook]) -> tuple[Array, Array, Outlook]:
        return jax.tree.map(lambda all_, new: all_.at[i].set(new), filled, one(table[i]))

    return jax.lax.fori_loop(0, n, fill, empty)


def _outlook(surrogate: RolloutSurrogate, trajectories: Array, x: Array) -> Outlook:
    quantiles = jnp.quantile(trajectories, jnp.asarray([0.1, 0.5, 0.9]), axis=0)
    u = surrogate.full(x)
    score = plain_score(surrogate.ofv, trajectories, u)
    errors = jnp.mean(surrogate.ofv.parts(trajectories, u), axis=0)  # pyright: ignore
    paths, limits = trajectories[:, None, :, :], each_constraint(surrogate.chance)
    nothing = jnp.zeros(0, trajectories.dtype)
    kept = [probability_kept(paths, limit)[0] for limit in limits]
    logs = [chance_feasibility(paths, limit)[0] for limit in limits]
    return Outlook(
        mean=jnp.mean(trajectories, axis=0),
        q10=quantiles[0],
        q50=quantiles[1],
        q90=quantiles[2],
        ofv=jnp.sum(errors),
        target_errors=errors,
        score=jnp.mean(score if score.ndim == 1 else jnp.sum(score, axis=-1)),
        probability_kept=probability_all_kept(paths, limits)[0],
        constraint_probability=jnp.stack(kept) if kept else nothing,
        constraint_scores=surrogate.feasibility_weight * (jnp.stack(logs) if logs else nothing),
    )


def on_paths(surrogate: RolloutSurrogate) -> str:
    """On how many paths, in words.

    Args:
        surrogate: Surrogate.
    """
    return f" on {surrogate.c0.shape[0]} paths" if surrogate.c0.ndim > 1 else ""
