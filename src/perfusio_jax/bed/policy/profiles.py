"""The search for recipes that change within a run: times by trial, values by their slopes.

Times are whole steps and values are numbers, so the search is mixed. A population of recipes is
refined as that of held ones is, its times rounded: half of it begins at held set-points, so that
what a change is worth is seen against not changing. Then for every pick

1. values and times climb together on the roll-out, times as real numbers (see `Profile`);
2. the times are rounded, and every change is tried a step earlier and a step later;
3. with the best of these times held the values climb again;

and 2 and 3 repeat until no time moves and no value gains, or the rounds are used up, which is
told. Every recipe that is answered was rolled out with whole times.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import Array, Bool, Float, Int
from perfusio_jax._core.programs import compiled
from perfusio_jax.bed.goal.profile import Profile
from perfusio_jax.bed.optimiser.polytope import Polytope
from perfusio_jax.bed.optimiser.progress import tell
from perfusio_jax.bed.optimiser.sampling import sobol_points
from perfusio_jax.bed.policy.campaign_settings import CLIMB, CampaignSettings
from perfusio_jax.bed.policy.expectations import best_means, looked_at
from perfusio_jax.bed.policy.picking import best_of, children, fold, improve
from perfusio_jax.bed.policy.seen import (
    Table,
    all_kept,
    count_lost,
    join,
    look,
    look_few,
    put,
    roomy,
    rows_for,
    share_feasible,
)
from perfusio_jax.bed.policy.worth import (
    FAR,
    Before,
    Worth,
    compare,
    directions,
    is_flat,
    units,
    worths,
)
from perfusio_jax.bed.surrogate.surrogates import RolloutSurrogate

_GAIN = 1e-6
"""Gain that counts as one [acquisition]."""


class ProfileInfo(NamedTuple):
    """How profiles were found, pick by pick."""

    n_moves: Int[Array, "q"]
    """Changes that were moved to another step after the first climb."""
    n_rounds: Int[Array, "q"]
    """Rounds of moves and climbs."""
    is_settled: Bool[Array, "q"]
    """Whether the last round gained nothing: no change one step earlier or later is better."""
    rounding: Float[Array, "q"]
    """What rounding the times of the first climb took from its value [acquisition]."""
    held_mean: Float[Array, "m"]
    """Mean of each criterion at the best recipe looked at that changes nothing and keeps every
    limit; NaN if none does."""


def search_profiles(
    surrogate: RolloutSurrogate,
    profile: Profile,
    given: tuple[Array, Array],
    box: tuple[Polytope, Polytope],
    q: int,
    settings: CampaignSettings,
    seed: int,
) -> tuple[Array, dict[str, Any]]:
    """The recipes of the next runs, and what was seen on the way.

    Args:
        surrogate: What forecasts and scores, without a profile.
        profile: How recipes may change.
        given: Plans of the runs so far and of pending runs, `(n,H,d)`.
        box: Where held set-points may lie, and the numbers of a recipe.
        q: Runs to propose.
        settings: Sizes of the search.
        seed: Seed of the search.

    Returns:
        Recipes, as numbers, and fields of a `CampaignInfo`.

    Raises:
        ConfigError: If no forecast is finite.
    """
    (known, waiting), (held_box, space) = given, box
    shaped = eqx.tree_at(lambda s: s.profile, surrogate, profile, is_leaf=lambda v: v is None)
    keys = jax.random.split(jax.random.key(seed), len(settings.widths) + 1)

    def seen_of(X: Array) -> Table:
        return _look(surrogate, profile, X, settings.batch)

    first = _first_points(profile, held_box, space, settings.n_raw, seed)
    table = seen_of(first)
    n_lost = count_lost(table)
    share = share_feasible(surrogate.chance, table)
    unit, spread = units(table)
    m, n, p = unit.shape[1], known.shape[0], waiting.shape[0]
    others = _look_plans(surrogate, profile, jnp.concatenate([known, waiting]), settings.batch)
    rows = rows_for(table, others, n + p + q)
    weights = directions(m, q, keys[-1])
    width = profile.n_steps * profile.d
    picked = jnp.full((q + p, width), FAR).at[:p].set(_places(profile, waiting))

    def worth(j: int) -> Worth:
        best, boxes = compare(rows, unit, weights[j])
        is_expected = m == 1 and j < settings.n_expected
        state = Before(best, boxes, weights[j], picked, jnp.asarray(is_expected))
        return Worth(shaped, state, unit, space, jnp.asarray(settings.distance))

    guess = worth(min(settings.n_expected, q - 1))
    tell(f"{settings.n_raw} recipes looked at, {settings.n_raw // 2} of them held throughout")
    pool = table if others is None else join(table, roomy(others))
    for key, spread_of in zip(keys, settings.widths, strict=False):
        around = children(guess, pool, jnp.asarray(spread_of), key, settings)
        seen = seen_of(_snapped(profile, around))
        table, pool = join(table, seen), join(pool, seen)

    picks, values, told, extra = [], [], [], []
    for j in range(q):
        x, value, mine, looked, how = _settle(worth(j), profile, table, seen_of, settings)
        rows = put(rows, mine, n + p + j)
        picked = picked.at[p + j].set(profile.place(profile.plan(x)))
        picks.append(x)
        values.append(value)
        told.append(how)
        extra += looked
        tell(f"{j + 1} of {q} runs chosen")
    table = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), table, *extra)
    constant, *_ = best_means(
        surrogate.chance, jax.tree.map(lambda v: v[: settings.n_raw // 2], table)
    )
    return jnp.stack(picks), {
        **looked_at(surrogate.chance, table, rows.table.means[:n], n + p),
        "acquisition": jnp.stack(values),
        "share_feasible": share,
        "n_nonfinite": jnp.asarray(n_lost),
        "is_flat": is_flat(unit, spread),
        "profile": ProfileInfo(
            n_moves=jnp.asarray([how[0] for how in told]),
            n_rounds=jnp.asarray([how[1] for how in told]),
            is_settled=jnp.asarray([how[2] for how in told]),
            rounding=jnp.asarray([how[3] for how in told]),
            held_mean=constant,
        ),
    }


def _settle(
    now: Worth, profile: Profile, table: Table, seen_of: Any, settings: CampaignSettings
) -> tuple[Array, Array, Table, list[Table], tuple[int, int, bool, float]]:
    """The next recipe: the best of the table, climbed, its times moved and climbed again.

    Returns:
        The recipe, its value, what was seen of it, what was seen of all that were tried, and the
        first four entries of a `ProfileInfo`.
    """
    x, value, is_legal = best_of(now, table)
    mine = seen_of(x[None, :])
    looked = [mine]
    if settings.climb_rounds == 0:
        return x, value, mine, looked, (0, 0, False, 0.0)
    rounds = CLIMB._replace(max_rounds=settings.climb_rounds)
    worth_now = float(value)

    def best_among(X: Array) -> tuple[float, Table]:
        """The best of some recipes that may be taken in place of the last one."""
        seen = seen_of(X)
        looked.append(seen)
        # the climb weighs a limit, it does not count paths: what it lost is not worth it
        allowed = np.asarray(all_kept(now.surrogate.chance, seen)) | (not bool(is_legal))
        found = np.asarray(worths(now, seen), float)
        found = np.where(allowed & np.isfinite(found), found, -np.inf)
        best = int(np.argmax(found))
        return float(found[best]), jax.tree.map(lambda v: v[best : best + 1], seen)

    higher, relaxed = improve(now, x, value, rounds)
    reached, tried = best_among(_snapped(profile, higher[None, :]))
    rounding = float(relaxed) - reached
    if reached > worth_now:
        worth_now, mine = reached, tried
    n_moves, n_rounds, is_settled = 0, 0, False
    while n_rounds < settings.n_time_rounds and not is_settled:
        n_rounds += 1
        before = worth_now
        near = profile.neighbours(mine.points[0])
        if len(near):
            # one number of rows, so that one program serves
            most = 2 * len(profile.strides) * profile.n_changes
            near = np.concatenate([near, np.repeat(near[-1:], most - len(near), axis=0)])
            reached, tried = best_among(jnp.asarray(near))
            if reached > worth_now + _GAIN:
                worth_now, mine, n_moves = reached, tried, n_moves + 1
        x = mine.points[0]
        climbed, _ = improve(_with_times(now, profile, x), x, jnp.asarray(worth_now), rounds)
        reached, tried = best_among(_snapped(profile, climbed[None, :]))
        if reached > worth_now:
            worth_now, mine = reached, tried
        is_settled = worth_now <= before + _GAIN * (1.0 + abs(before))
    how = (n_moves, n_rounds, is_settled, rounding)
    return mine.points[0], jnp.asarray(worth_now), mine, looked, how


def _with_times(now: Worth, profile: Profile, x: Array) -> Worth:
    """The same acquisition where the times stay as they are."""
    n = (profile.n_changes + 1) * profile.d
    ends = [side.at[n:].set(x[n:]) for side in (now.box.lower, now.box.upper, now.box.inner)]
    return eqx.tree_at(lambda w: (w.box.lower, w.box.upper, w.box.inner), now, tuple(ends))


def _first_points(
    profile: Profile, held_box: Polytope, space: Polytope, n_raw: int, seed: int
) -> Array:
    """Recipes to begin with: held ones, and as many that change."""
    n_held = n_raw // 2
    still = jnp.asarray(sobol_points(n_held, profile.d, seed=seed)[:, None, :])
    moving = jnp.asarray(sobol_points(n_raw - n_held, profile.size, seed=seed)[:, None, :])
    held = _held(profile, fold(held_box, still))
    return jnp.concatenate([held, _snapped(profile, fold(space, moving))])


@compiled
def _held(profile: Profile, U: Array) -> Array:
    return jax.vmap(profile.held)(U)


@compiled
def _snapped(profile: Profile, X: Array) -> Array:
    return jax.vmap(profile.snapped)(X)


@compiled
def plans_of(profile: Profile, X: Array) -> Float[Array, "N H d"]:
    """Set-points of every step of recipes.

    Args:
        profile: The profile.
        X: Recipes, one per row.
    """
    return jax.vmap(profile.plan)(X)


def _places(profile: Profile, plans: Array) -> Array:
    return jax.vmap(profile.place)(plans)


def _look(surrogate: RolloutSurrogate, profile: Profile, X: Array, batch: int) -> Table:
    """Roll recipes out, at least one; any number of them shares one program."""
    plans = plans_of(profile, X)
    padded = jnp.concatenate([plans, jnp.repeat(plans[-1:], -len(plans) % batch, axis=0)])
    parts = [look(surrogate, padded[i : i + batch], batch) for i in range(0, len(plans), batch)]
    seen = jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[: len(plans)], *parts)
    return seen._replace(points=X)


def _look_plans(
    surrogate: RolloutSurrogate, profile: Profile, plans: Array, batch: int
) -> Table | None:
    """Roll runs out as they were made; where they are parents, the nearest recipe stands for it."""
    found = look_few(surrogate, plans, batch)
    if found is None:
        return None
    nearest = np.stack([profile.of_plan(plan) for plan in np.asarray(plans)])
    return found._replace(points=jnp.asarray(nearest))
