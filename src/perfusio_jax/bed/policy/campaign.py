"""Which runs to make next: constant set-points for whole runs, in batches, from a fitted model.

Every candidate recipe is rolled out over the whole run on the same paths of the hybrid model
(common random numbers). A first set of Sobol points is refined around what looks best, the runs
already made among it. The batch is then chosen one by one: each run is picked for what it adds,
path by path, to the runs already made, the runs still pending and the runs picked before it,
among the recipes that keep every limit if there are any. One objective: noisy expected
improvement in its logarithm; two: expected hypervolume improvement; more: one random Chebyshev
scalarisation per run. The first run of a batch with one objective is the model's best guess, so
that a batch is never only exploration. Recipes that change within a run are searched by `profiles`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import HOURS_PER_DAY, Array, ArrayLike, ConfigError, Float
from perfusio_jax.bed.goal.constraints import Chance, ControlLimits, each_constraint
from perfusio_jax.bed.goal.criteria import ProcessOFV
from perfusio_jax.bed.goal.objectives import Rollout
from perfusio_jax.bed.goal.profile import make_profile, profile_bounds
from perfusio_jax.bed.goal.steps import closed, n_steps_of
from perfusio_jax.bed.optimiser.polytope import Polytope, make_polytope
from perfusio_jax.bed.optimiser.progress import Say, in_words, rollout_seconds, tell, telling
from perfusio_jax.bed.optimiser.sampling import sobol_points
from perfusio_jax.bed.optimiser.search import to_unit
from perfusio_jax.bed.policy.campaign_settings import CLIMB, CampaignSettings, count_rollouts
from perfusio_jax.bed.policy.expectations import CampaignInfo, describe, held_back, looked_at
from perfusio_jax.bed.policy.picking import best_of, children, fold, improve
from perfusio_jax.bed.policy.profiles import plans_of, search_profiles
from perfusio_jax.bed.policy.recipes import plan_table, recipe_box, recipe_table
from perfusio_jax.bed.policy.seen import (
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
from perfusio_jax.bed.policy.worth import FAR, Before, Worth, compare, directions, is_flat, units
from perfusio_jax.bed.surrogate.surrogates import RolloutSurrogate


def propose_runs(
    model: Any,
    paths: Any,
    c0: Float[Array, "9"],
    runs: Float[Array, "n d"] | Float[Array, "n H d"],
    *,
    ofv: ProcessOFV,
    limits: ControlLimits,
    q: int = 8,
    chance: Chance = None,
    pending: Float[ArrayLike, "p d"] | Float[ArrayLike, "p H d"] | None = None,
    settings: CampaignSettings | None = None,
    seed: int = 0,
    rollout: Rollout | None = None,
    template: ArrayLike | None = None,
    positions: tuple[int, ...] = (),
    fixed: dict[int, float] | None = None,
    profile: int = 0,
    daily: tuple[int, ...] = (),
    say: Say | None = None,
) -> tuple[Float[Array, "q d"] | Float[Array, "q H d"], CampaignInfo]:
    """Choose the recipes of the next q runs.

    Pure: the same inputs give the same bytes.

    Args:
        model: Fitted hybrid model.
        paths: Paths drawn from it by `draw_paths`, for at least `ofv.n_steps` steps.
        c0: Latent state after inoculation, `BALANCED` order, or one per path.
        runs: Recipes already run, one per row; may be empty. With a profile they may be set-points
            of every step.
        ofv: What a run is worth; its horizon is the length of a run.
        limits: What set-points must keep; rate limits do not apply between runs, but to changes
            within one.
        q: Runs to propose.
        chance: Constraints on the latent trajectory.
        pending: Recipes running at present, whose results are not in the model.
        settings: Sizes of the search.
        seed: Seed of the search.
        rollout: Roll-out function in place of that of `perfusio_jax.hybrid`.
        template: Full control vector, if a recipe is only a part of it.
        positions: Where a recipe's entries sit in it.
        fixed: Set-points held at a value, by position.
        profile: Changes of every set-point within a run, at most; 0 holds them. They come at the
            ends of steps.
        daily: Positions of what is given once a day, with a profile.
        say: Called with a line before it begins (about how long it takes), whenever something
            compiles, and after every part.

    Returns:
        Recipes, one per row, and what is expected of them. With a profile, set-points of every
        step.

    Raises:
        ConfigError: If sizes or limits are unusable.
    """
    settings = CampaignSettings() if settings is None else settings
    if profile < 0:
        raise ConfigError(f"profile={profile} was given; changes within a run are 0 or more.")
    if q < 1:
        raise ConfigError(f"q={q} was given; at least one run is to be proposed.")
    if settings.n_raw % settings.batch or settings.n_children % settings.batch:
        raise ConfigError(
            f"n_raw={settings.n_raw} and n_children={settings.n_children} must be multiples of "
            f"batch={settings.batch}."
        )
    ofv = closed(ofv, model)
    box = recipe_box(limits, fixed or {}, q=q)
    d = box.lower.shape[0]
    n_steps = getattr(paths, "n_steps", None)
    needed = n_steps_of(ofv)
    if n_steps is not None and n_steps < needed:
        what = "days" if needed == ofv.horizon else "steps"
        raise ConfigError(
            f"the paths were drawn for {n_steps} {what} and a run takes {needed}; draw them "
            f"with max_steps={needed}."
        )
    surrogate = RolloutSurrogate(
        model=model,
        paths=paths,
        c0=jnp.asarray(c0, float),
        ofv=ofv,
        day0=0.0,
        chance=each_constraint(chance),
        template=None if template is None else jnp.asarray(template, float),
        positions=positions,
        rollout=rollout,
    )
    n_paths = getattr(paths, "n_paths", None) or jax.tree.leaves(paths)[0].shape[0]
    each = rollout_seconds(model, n_paths, needed)
    given = () if pending is None else pending
    with telling(say):
        if profile == 0:
            known, waiting = recipe_table("runs", runs, d), recipe_table("pending", given, d)
            seconds = count_rollouts(settings, q, d) * each
            tell(f"searching for {q} runs: {in_words(seconds)}")
            U, seen = _search(surrogate, (known, waiting), box, q, settings, seed)
            return U, CampaignInfo(**describe(surrogate, U), **held_back(U, box, limits), **seen)
        shape = make_profile(
            limits, profile, needed, fixed=fixed, daily=daily, step_h=ofv.step_h or HOURS_PER_DAY
        )
        space = make_polytope(*profile_bounds(shape, np.asarray(limits.A), np.asarray(limits.b)))
        plans = plan_table("runs", runs, needed, d), plan_table("pending", given, needed, d)
        n_times = shape.n_changes * len(shape.strides)
        seconds = count_rollouts(settings, q, shape.size, n_times) * each
        tell(f"searching for {q} runs with {profile} changes: {in_words(seconds)}")
        X, seen = search_profiles(surrogate, shape, plans, (box, space), q, settings, seed)
        U = plans_of(shape, X)
        return U, CampaignInfo(**describe(surrogate, U), **held_back(U, box, limits), **seen)


def _search(
    surrogate: RolloutSurrogate,
    given: tuple[Array, Array],
    box: Polytope,
    q: int,
    settings: CampaignSettings,
    seed: int,
) -> tuple[Array, dict[str, Array]]:
    """The recipes, and what was seen on the way."""
    (known, waiting), d = given, box.lower.shape[0]
    raw = jnp.asarray(sobol_points(settings.n_raw, d, seed=seed)[:, None, :])
    keys = jax.random.split(jax.random.key(seed), len(settings.widths) + 1)

    table = look(surrogate, fold(box, raw), settings.batch)
    n_lost = count_lost(table)
    share = share_feasible(surrogate.chance, table)
    unit, spread = units(table)
    m = unit.shape[1]
    n, p = known.shape[0], waiting.shape[0]
    others = look_few(surrogate, jnp.concatenate([known, waiting]), settings.batch)
    rows = rows_for(table, others, n + p + q)
    weights = directions(m, q, keys[-1])
    picked = jnp.full((q + p, d), FAR).at[:p].set(to_unit(box, waiting))

    def worth(j: int) -> Worth:
        expected = m == 1 and j < settings.n_expected
        best, boxes = compare(rows, unit, weights[j])
        state = Before(best, boxes, weights[j], picked, jnp.asarray(expected))
        return Worth(surrogate, state, unit, box, jnp.asarray(settings.distance))

    first = worth(min(settings.n_expected, q - 1))
    tell(f"{settings.n_raw} recipes looked at")
    # runs already made are no candidates, but what lies around the best of them is looked at
    pool = table if others is None else join(table, roomy(others))
    for key, width in zip(keys, settings.widths, strict=False):
        around = children(first, pool, jnp.asarray(width), key, settings)
        seen = look(surrogate, around, settings.batch)
        table, pool = join(table, seen), join(pool, seen)

    values, picks, mines = [], [], []
    for j in range(q):
        now = worth(j)
        x, value, is_legal = best_of(now, table)
        mine = None
        if settings.climb_rounds > 0:
            rounds = CLIMB._replace(max_rounds=settings.climb_rounds)
            higher, worth_there = improve(now, x, value, rounds)
            mine = look(surrogate, higher[None, :], 1)
            # the climb weighs a limit, it does not count paths: what it lost is not worth it
            if bool(is_legal) and not bool(all_kept(surrogate.chance, mine)[0]):
                mine = None
            else:
                x, value = higher, worth_there
        mine = look(surrogate, x[None, :], 1) if mine is None else mine
        rows = put(rows, mine, n + p + j)
        mines.append(mine)
        picked = picked.at[p + j].set(to_unit(box, x))
        picks.append(x)
        values.append(value)
        tell(f"{j + 1} of {q} runs chosen")
    table = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), table, *mines)
    return jnp.stack(picks), {
        **looked_at(surrogate.chance, table, rows.table.means[:n], n + p),
        "acquisition": jnp.stack(values),
        "share_feasible": share,
        "n_nonfinite": jnp.asarray(n_lost),
        "is_flat": is_flat(unit, spread),
    }
