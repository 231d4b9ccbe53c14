"""How the next recipe is found: where to look, which is best, and its last improvement."""

import jax
import jax.numpy as jnp

from perfusio_jax._core import Array, Key
from perfusio_jax._core.programs import compiled
from perfusio_jax.bed.optimiser.polytope import Polytope
from perfusio_jax.bed.optimiser.progress import compiling
from perfusio_jax.bed.optimiser.search import SearchSettings, climb, raw_points, to_unit
from perfusio_jax.bed.policy.campaign_settings import CampaignSettings
from perfusio_jax.bed.policy.seen import Table, all_kept
from perfusio_jax.bed.policy.worth import Worth, log_feasibility, scalarise, worths


@compiled
def fold(box: Polytope, raw: Array) -> Array:
    """Points of the unit cube as recipes.

    Args:
        box: Where recipes may lie.
        raw: Points `(N,1,d)`.
    """
    return raw_points(box, raw)[:, 0, :]


@compiled
def children(
    worth: Worth, table: Table, width: Array, key: Key, settings: CampaignSettings
) -> Array:
    """Points around the most promising ones, by acquisition and by mean with and without limits.

    Args:
        worth: Acquisition.
        table: What was seen of the recipes.
        width: Spread, as a share of each range [-].
        key: Draws them.
        settings: Sizes of the search.
    """
    scores = worths(worth, table)
    legal = jax.vmap(lambda m: log_feasibility(worth.surrogate.chance, m))(table.margins)
    scaled = (jnp.mean(table.scores, axis=1) - worth.unit[0][None, :]) / worth.unit[1][None, :]
    by_mean = scalarise(scaled, jnp.ones(scaled.shape[-1]))
    quarter = settings.n_parents // 4
    # the best without the limits is looked for too: what a limit costs is part of the answer
    wanted = (
        (scores, settings.n_parents - 2 * quarter),
        (by_mean + legal, quarter),
        (by_mean, quarter),
    )
    chosen = [jax.lax.top_k(jnp.nan_to_num(v, nan=-jnp.inf), k)[1] for v, k in wanted]
    parents = to_unit(worth.box, table.points[jnp.concatenate(chosen)])
    n = settings.n_children
    step_key, mask_key = jax.random.split(key)
    step = width * jax.random.normal(step_key, (n, parents.shape[1]))
    # about half of the set-points move at a time
    moved = jax.random.bernoulli(mask_key, 0.5, step.shape)
    z = parents[jnp.arange(n) % parents.shape[0]] + jnp.where(moved, step, 0.0)
    low, high = worth.box.lower, worth.box.upper
    points = low[None, :] + jnp.clip(z, 0.0, 1.0) * (high - low)[None, :]
    return jax.vmap(worth.box.project)(points)


@compiled
def best_of(worth: Worth, table: Table) -> tuple[Array, Array, Array]:
    """Best recipe, its value, and whether it keeps every limit, as it does if one can.

    The acquisition weighs limits smoothly, for the climb's sake; here the paths are counted.

    Args:
        worth: Acquisition.
        table: What was seen of the recipes.
    """
    scores = worths(worth, table)
    scores = jnp.where(jnp.isfinite(scores), scores, -jnp.inf)
    apart = worth.place(table.points)[:, None, :] - worth.state.picked[None, :, :]
    gap = jnp.mean(apart**2, axis=-1)
    is_apart = jnp.all(gap >= (0.5 * worth.distance) ** 2, axis=1)
    legal = all_kept(worth.surrogate.chance, table) & is_apart & (scores > -jnp.inf)
    is_legal = jnp.any(legal)
    i = jnp.argmax(jnp.where(legal | ~is_legal, scores, -jnp.inf))
    return table.points[i], scores[i], is_legal


@compiled
def improve(
    worth: Worth, start: Array, before: Array, settings: SearchSettings
) -> tuple[Array, Array]:
    """A recipe and its value after a short climb, or as they were.

    Args:
        worth: Acquisition.
        start: Recipe.
        before: Its value.
        settings: Sizes and tolerances of the climb.
    """
    compiling("the improvement of a recipe")
    z = to_unit(worth.box, start)[None, None, :]
    found, value, _ = climb(worth, worth.box, z, before[None], settings=settings)
    is_better = value > before
    return jnp.where(is_better, found[0], start), jnp.where(is_better, value, before)
