"""One decision for one reactor, as a pure function: forecast model in, set-points out.

Every candidate meets the same paths of the hybrid model (common random numbers). The incumbent
is the better of the set-points in force and the last plan *in the present state*, and
improvement is counted path by path against it, so that what no set-point can change (the
uncertain state, disturbances to come) cancels. Acquisitions of several objectives see the targets
side by side, and the front that the known set-points make (`incumbents`).

Expected improvement of a squared distance still rewards spread: with a well-placed incumbent
it steps away from the optimum by about 1.2 epistemic deviations, every day. In a closed loop
that is jitter, not learning. `exploration` therefore scales the spread between paths before
the acquisition sees it: 0 maximises the mean objective (near-greedy tracking), 1 is the plain
acquisition. The default 0.1 costs about 1.5 % of the epistemic variance in tracking.
"""

from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import Array, ArrayLike, ConfigError, Float
from perfusio_jax._core.programs import compiled
from perfusio_jax.bed.goal.constraints import Chance, ControlCost, ControlLimits
from perfusio_jax.bed.goal.criteria import ProcessOFV
from perfusio_jax.bed.goal.objectives import Rollout, TargetTrackingOFV
from perfusio_jax.bed.goal.steps import closed
from perfusio_jax.bed.optimiser.polytope import Polytope, make_polytope
from perfusio_jax.bed.optimiser.sampling import sobol_points
from perfusio_jax.bed.optimiser.search import SearchSettings, raw_points
from perfusio_jax.bed.policy.climbing import both, climb_on_rollouts
from perfusio_jax.bed.policy.diagnostics import RecommendInfo as RecommendInfo
from perfusio_jax.bed.policy.diagnostics import report, second_table
from perfusio_jax.bed.policy.effort import ROLLOUT_SETTINGS as ROLLOUT_SETTINGS
from perfusio_jax.bed.policy.effort import SCAN_LANES, SCAN_ROUNDS
from perfusio_jax.bed.policy.effort import decision_seconds as decision_seconds
from perfusio_jax.bed.policy.incumbents import SEVERAL_OBJECTIVES as SEVERAL_OBJECTIVES
from perfusio_jax.bed.policy.incumbents import SINGLE_OBJECTIVE as SINGLE_OBJECTIVE
from perfusio_jax.bed.policy.incumbents import Rule, check_acquisition, check_numbers, draw_weights
from perfusio_jax.bed.policy.outlook import Outlook as Outlook
from perfusio_jax.bed.policy.outlook import forecasts, table_of
from perfusio_jax.bed.policy.preferences import Preferences as Preferences
from perfusio_jax.bed.surrogate.surrogates import RolloutSurrogate


def recommend(
    model: Any,
    paths: Any,
    c0: Float[Array, "S 9"],
    u_now: Float[Array, "d"],
    *,
    ofv: TargetTrackingOFV | ProcessOFV,
    limits: ControlLimits,
    day0: ArrayLike = 0.0,
    u_plan: ArrayLike | None = None,
    chance: Chance = None,
    preferences: Preferences | None = None,
    acquisition: str = "qLogEI",
    best_f: ArrayLike | None = None,
    settings: SearchSettings = ROLLOUT_SETTINGS,
    seed: int = 0,
    rollout: Rollout | None = None,
    template: ArrayLike | None = None,
    positions: tuple[int, ...] = (),
    fixed: dict[int, float] | None = None,
    scan: tuple[Any, Float[Array, "R 9"]] | None = None,
    taught: Float[Array, "S p"] | None = None,
) -> tuple[Float[Array, "d"], RecommendInfo]:
    """Choose the next set-points of one reactor.

    Pure: the same inputs give the same bytes. Compiled once per set of sizes.

    Args:
        model: Fitted hybrid model.
        paths: Paths drawn from it by `draw_paths`, S of them.
        c0: Samples of the current latent state, `BALANCED` order, or one state `(9,)`.
        u_now: Set-points read back from the device.
        ofv: Targets and horizon.
        limits: What set-points must keep, rate limits from `u_now` included.
        day0: Process day of the current state [d].
        u_plan: Last plan, if it differs from what is in force.
        chance: Constraint on the latent trajectory, several, or None.
        preferences: What is weighed beside the targets; the defaults if None.
        acquisition: One of `SINGLE_OBJECTIVE`, or with two targets or criteria and more one of
            `SEVERAL_OBJECTIVES`; evaluated by Monte Carlo. `u_now` and `u_plan` are what is
            known; the weights of qNParEGO come from the seed.
        best_f: Incumbent in scaled score, in place of the better of `u_now` and `u_plan`; not for
            the acquisitions that compare with known points.
        settings: Sizes of the search.
        seed: Seed of the search.
        rollout: Roll-out function in place of that of `perfusio_jax.hybrid`.
        template: Full control vector, if the candidate is only a part of it.
        positions: Where the candidate's entries sit in it.
        fixed: Set-points the operator holds at a value, by position; within the bounds and
            rate limits.
        scan: Fewer paths and as many states, on which the search is begun; all ends are then
            compared, and the best one improved, on the full set.
        taught: See `RolloutSurrogate.taught`.

    Returns:
        Recommended set-points and diagnostics.

    Raises:
        ConfigError: If the acquisition is unknown here or does not suit the objective, or no
            set-points keep the limits.
    """
    preferences = Preferences() if preferences is None else preferences
    m = n_parts_of(ofv)
    check_acquisition(acquisition, m, getattr(ofv, "is_pareto", False))
    check_numbers(acquisition, m, best_f, preferences.ref_point)
    ofv = suited(closed(ofv, model), acquisition)
    u_now = jnp.asarray(u_now, float)
    lower, upper = (np.array(bound) for bound in _box(limits, u_now))
    for index, value in (fixed or {}).items():
        if not 0 <= index < lower.size or not lower[index] <= value <= upper[index]:
            allowed = (
                f"{lower[index]:g} to {upper[index]:g}, what bounds and rate limit leave"
                if 0 <= index < lower.size
                else f"a position from 0 to {lower.size - 1}"
            )
            raise ConfigError(f"set-point {index} cannot be held at {value:g}; allowed: {allowed}.")
        lower[index] = upper[index] = value
    box = make_polytope(lower, upper, limits.A, limits.b)
    d = lower.size
    raw = jnp.asarray(sobol_points(settings.n_raw_samples, d, seed=seed)[:, None, :])
    surrogate = RolloutSurrogate(
        model=model,
        paths=paths,
        c0=jnp.asarray(c0, float),
        ofv=ofv,
        day0=day0,
        control_cost=ControlCost(
            reference=u_now,
            width=limits.upper - limits.lower,
            lower=limits.lower,
            upper=limits.upper,
            move_weight=preferences.move_weight,
            soft_weight=preferences.soft_weight,
        ),
        chance=chance,
        exploration=preferences.exploration,
        feasibility_weight=preferences.feasibility_weight,
        template=None if template is None else jnp.asarray(template, float),
        positions=positions,
        rollout=rollout,
        taught=taught,
    )
    known = u_now[None, :]
    if u_plan is not None:
        known = jnp.stack([u_now, jnp.asarray(u_plan, float)])
    weights = None
    if acquisition == "qNParEGO":
        weights = jnp.asarray(draw_weights(m, seed))
    rule = Rule(
        beta=preferences.beta,
        best_f=None if best_f is None else jnp.asarray(best_f, float),
        key=jax.random.key(seed),
        kind=acquisition.removeprefix("q"),
        ref_point=preferences.ref_point,
        weights=weights,
    )
    quick = None
    if scan is not None:
        quick = eqx.tree_at(
            lambda m: (m.paths, m.c0, m.taught),
            surrogate,
            (scan[0], jnp.asarray(scan[1], float), None),
            is_leaf=lambda leaf: leaf is None,
        )
    return _decide((surrogate, quick), (box, limits, raw), known, rule, settings)


def suited(ofv: TargetTrackingOFV | ProcessOFV, acquisition: str) -> TargetTrackingOFV | ProcessOFV:
    """An objective as an acquisition wants it: several objectives side by side, or as it is.

    Args:
        ofv: Objective.
        acquisition: Name of the acquisition.
    """
    if acquisition in SEVERAL_OBJECTIVES and not ofv.is_pareto:
        return replace(ofv, is_pareto=True)
    return ofv


def n_parts_of(ofv: Any) -> int:
    """Targets or criteria of an objective.

    Args:
        ofv: Objective.
    """
    return len(getattr(ofv, "criteria", getattr(ofv, "targets", ())))


def _decide(
    surrogates: tuple[RolloutSurrogate, RolloutSurrogate | None],
    region: tuple[Polytope, ControlLimits, Array],
    known: Array,
    rule: Rule,
    settings: SearchSettings,
) -> tuple[Array, RecommendInfo]:
    """Forecast the known and the raw points, climb, forecast the answer.

    Compiled in a few parts, so that a roll-out, which is slow to compile, is compiled once
    forwards and once with its derivatives, for each number of paths.
    """
    (surrogate, quick), (box, limits, raw) = surrogates, region
    first = surrogate if quick is None else quick
    # set-points in force may lie outside limits that were changed: what can be had is nearest
    near, points = _reachable(box, known, raw)
    table = table_of(near, points)
    samples, weights, _ = forecasts(first, table)
    coarse = settings
    if quick is not None:
        coarse = settings._replace(
            max_rounds=min(settings.max_rounds, SCAN_ROUNDS),
            is_sequential=False,
            n_lanes=SCAN_LANES,
        )
    found = climb_on_rollouts(first, box, (samples, weights), (near, points), rule, coarse)
    if quick is not None:
        ends = found.search.candidates[:, 0, :]
        table = table_of(near, ends)
        samples, weights, _ = forecasts(surrogate, table)
        again = settings._replace(n_restarts=1)
        last = climb_on_rollouts(
            surrogate, box, (samples, weights), (near[:0], ends, near), rule, again
        )
        found = last._replace(search=both(found.search, last.search), scores=found.scores)
    u, table, others, values = second_table(box, found, (known, points), table[0].shape[0])
    *_, outlooks = forecasts(surrogate, table)
    info = report((u, known[0], others, values), (limits, box), outlooks, found)
    return u, info if rule.weights is None else info._replace(weights=rule.weights)


@compiled
def _reachable(box: Polytope, known: Array, raw: Array) -> tuple[Array, Array]:
    """Known set-points brought into the limits, and the raw points in physical units."""
    return jax.vmap(box.project)(known), raw_points(box, raw)[:, 0, :]


@compiled
def _box(limits: ControlLimits, u_now: Array) -> tuple[Array, Array]:
    return limits.box(u_now)
