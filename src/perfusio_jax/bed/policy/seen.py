"""What was seen of recipes that were rolled out, and the tables it is kept in."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import Array, Bool, ConfigError, Float
from perfusio_jax._core.programs import compiled
from perfusio_jax.bed.goal.constraints import Chance, each_constraint, worst_margin
from perfusio_jax.bed.goal.criteria import ProcessOFV
from perfusio_jax.bed.optimiser.progress import compiling
from perfusio_jax.bed.surrogate.surrogates import RolloutSurrogate, plain_score

_CAPACITY = 32
"""Step in which the table of runs grows, so that a campaign of some batches compiles once."""


class Table(NamedTuple):
    """What was seen of some recipes."""

    points: Float[Array, "N d"]
    """Recipes, unit of the set-points."""
    scores: Float[Array, "N S m"]
    """Scaled score of each objective on every path [-], more is better."""
    margins: Float[Array, "N c S"]
    """Smallest distance to each limit; one row of ones if there is none."""
    means: Float[Array, "N k"]
    """Mean of each criterion over the paths, in its unit."""


class Rows(NamedTuple):
    """Runs to be improved upon, in a table of fixed size."""

    table: Table
    """What was seen of them."""
    is_used: Bool[Array, "N"]
    """Which rows hold a run."""


def look_at(surrogate: RolloutSurrogate, x: Array) -> tuple[Array, Array, Array]:
    """Roll one recipe out.

    Args:
        surrogate: What forecasts and scores.
        x: Recipe `(d,)`.

    Returns:
        Scores `(S,m)`, worst margins `(c,S)`, mean of each criterion `(k,)`.
    """
    Y, u = surrogate.trajectories(x), surrogate.full(x)
    scores = plain_score(surrogate.ofv, Y, u)
    scores = scores[:, None] if scores.ndim == 1 else scores
    limits = each_constraint(surrogate.chance)
    # without a limit one row of ones stands in, so that no array is empty
    rows = [worst_margin(Y[:, None], limit, u)[:, 0] for limit in limits]
    margins = jnp.stack(rows or [jnp.ones(Y.shape[0])])
    return scores, margins, jnp.mean(values_of(surrogate, Y, u), axis=0)


@compiled
def look(surrogate: RolloutSurrogate, points: Array, batch: int) -> Table:
    """Roll recipes out.

    Args:
        surrogate: What forecasts and scores.
        points: Recipes `(N,d)`.
        batch: Rolled out at once.
    """
    compiling(f"the forecast of {points.shape[0]} recipes")
    seen = jax.lax.map(lambda x: look_at(surrogate, x), points, batch_size=batch)
    return Table(points, *seen)


def look_few(surrogate: RolloutSurrogate, points: Array, batch: int) -> Table | None:
    """`look` at any number of points, padded so that it compiles for one size.

    Args:
        surrogate: What forecasts and scores.
        points: Recipes `(N,d)`.
        batch: Rolled out at once.

    Returns:
        What was seen; nothing of no recipes.
    """
    n = points.shape[0]
    if n == 0:
        return None
    padded = jnp.concatenate([points, jnp.repeat(points[-1:], -n % batch, axis=0)])
    parts = [look(surrogate, padded[i : i + batch], batch) for i in range(0, n, batch)]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[:n], *parts)


def values_of(surrogate: RolloutSurrogate, Y: Array, u: Array) -> Float[Array, "S k"]:
    """Criteria in their own units.

    Args:
        surrogate: Holds the criteria.
        Y: Trajectories `(S,H,K)`.
        u: Full control vector.

    Raises:
        ConfigError: If the objective has no criteria.
    """
    if not isinstance(surrogate.ofv, ProcessOFV):
        raise ConfigError("a campaign is judged by a ProcessOFV; other objectives name no values.")
    return surrogate.ofv.values(Y, u)


@compiled
def rows_for(like: Table, known: Table | None, n: int) -> Rows:
    """A table with room for n runs, those known in front.

    Args:
        like: A table of the same shapes.
        known: Runs that go in front.
        n: Runs there is to be room for.
    """
    size = -(-n // _CAPACITY) * _CAPACITY
    empty = jax.tree.map(lambda v: jnp.zeros((size, *v.shape[1:]), v.dtype), like)
    if known is None:
        return Rows(empty, jnp.zeros(size, bool))
    k = known.points.shape[0]
    filled = jax.tree.map(lambda all_, new: all_.at[:k].set(new), empty, known)
    return Rows(filled, jnp.arange(size) < k)


@compiled
def put(rows: Rows, one: Table, place: Array | int) -> Rows:
    """One run more.

    Args:
        rows: Runs so far.
        one: A table of it alone.
        place: Its row.
    """
    table = jax.tree.map(lambda all_, new: all_.at[place].set(new[0]), rows.table, one)
    return Rows(table, rows.is_used.at[place].set(True))


@compiled
def join(a: Table, b: Table) -> Table:
    """Two tables in one.

    Args:
        a: The first rows.
        b: Those after them.
    """
    return jax.tree.map(lambda x, y: jnp.concatenate([x, y]), a, b)


@compiled
def roomy(others: Table) -> Table:
    """Runs with empty places after them, so that a campaign of some batches compiles once.

    Args:
        others: Runs.
    """
    room = -others.points.shape[0] % _CAPACITY

    def fill(leaf: Array, value: float) -> Array:
        return jnp.concatenate([leaf, jnp.full((room, *leaf.shape[1:]), value, leaf.dtype)])

    # without a finite score a place is nobody's parent
    return Table(
        fill(others.points, 0.0),
        fill(others.scores, jnp.nan),
        fill(others.margins, 1.0),
        fill(others.means, 0.0),
    )


def keeps(chance: Chance, table: Table) -> Array:
    """Which points keep which constraint with its probability, `(N,c)`.

    Args:
        chance: Constraints.
        table: What was seen of the points.
    """
    limits = each_constraint(chance)
    if not limits:
        return jnp.ones((table.points.shape[0], 0), bool)
    share = jnp.mean(jnp.asarray(table.margins >= 0, float), axis=-1)
    asked = jnp.stack([limit.probability for limit in limits])
    return share >= asked[None, :] - 1e-9


@compiled
def all_kept(chance: Chance, table: Table) -> Array:
    """Which points keep every constraint, `(N,)`.

    Args:
        chance: Constraints.
        table: What was seen of the points.
    """
    return jnp.all(keeps(chance, table), axis=1)


def count_lost(table: Table) -> int:
    """Points whose forecast was not finite.

    Args:
        table: What was seen of the first points.

    Raises:
        ConfigError: If it is all of them.
    """
    is_lost = ~np.isfinite(np.asarray(table.scores)).all(axis=(1, 2))
    if is_lost.all():
        raise ConfigError(
            f"the forecast was not finite for any of {is_lost.size} recipes; check the model, its "
            "paths and the state the runs start from for NaN."
        )
    return int(is_lost.sum())


@compiled
def share_feasible(chance: Chance, table: Table) -> Array:
    """Share of the points that keep each constraint with its probability [-], `(c,)`.

    Args:
        chance: Constraints.
        table: What was seen of the points.
    """
    return jnp.mean(jnp.asarray(keeps(chance, table), float), axis=0)
