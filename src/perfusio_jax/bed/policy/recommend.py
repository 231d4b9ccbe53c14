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
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import Array, ArrayLike, Bool, ConfigError, Float, Int
from perfusio_jax._core.programs import compiled
from perfusio_jax.bed.goal.constraints import (
    Chance,
    ControlCost,
    ControlLimits,
    chance_feasibility,
    each_constraint,
    probability_all_kept,
    probability_kept,
)
from perfusio_jax.bed.goal.criteria import ProcessOFV
from perfusio_jax.bed.goal.objectives import Rollout, TargetTrackingOFV
from perfusio_jax.bed.goal.steps import closed
from perfusio_jax.bed.optimiser.polytope import Polytope, make_polytope
from perfusio_jax.bed.optimiser.progress import compiling, rollout_seconds
from perfusio_jax.bed.optimiser.sampling import sobol_points
from perfusio_jax.bed.optimiser.search import (
    SearchInfo,
    SearchSettings,
    choose_starts,
    climb,
    raw_points,
    to_unit,
)
from perfusio_jax.bed.policy.incumbents import SEVERAL_OBJECTIVES as SEVERAL_OBJECTIVES
from perfusio_jax.bed.policy.incumbents import SINGLE_OBJECTIVE as SINGLE_OBJECTIVE
from perfusio_jax.bed.policy.incumbents import (
    Held,
    Rule,
    Sampled,
    acquisition_of,
    check_acquisition,
    check_numbers,
    compare_with,
    draw_weights,
)
from perfusio_jax.bed.surrogate.surrogates import RolloutSurrogate, plain_score

ROLLOUT_SETTINGS = SearchSettings(
    n_restarts=3,
    n_raw_samples=64,
    max_rounds=15,
    memory=6,
    raw_batch=16,
    gradient_tolerance=1e-3,
    value_tolerance=1e-4,
    derivative="difference",
    is_sequential=True,
)
"""Sizes for roll-outs, where one evaluation costs paths x days. The set-points in force, and the
last plan where there is one, are further starts.

Derivatives: one-sided differences. With the prior's exponential predictor-corrector exact ones
are within reach but no faster: 64 paths over 14 days with 448 rows in the process take 17 ms on
one core, seven of them 120 ms, all six tangents in forward mode 117 ms (2 s to compile), reverse
mode 133 ms (4 s to compile), because the kernel's rows are read once more per tangent. Under
common random numbers the score is a smooth function of the set-points, so that differences are
good to about 1e-5, far below the search's tolerance, and they are only taken at points that are
kept.
"""


def _scalar(value: Any) -> Array:
    return jnp.asarray(value, float)


N_ALTERNATIVES = 3
"""Other good recipes named with every decision."""

SCAN_ROUNDS = 6
"""Value-and-gradient evaluations per start on the paths a search is begun on."""

SCAN_LANES = 4
"""Starts that climb side by side there: few paths alone leave the machine waiting."""

NUDGE = 1e-6
"""Step of the slopes of the OFV, as a share of each range [-]."""


class Preferences(eqx.Module):
    """What a decision weighs beside the targets; all traced."""

    exploration: Float[Array, ""] = eqx.field(converter=_scalar, default=0.1)
    """Share of the spread between paths the acquisition sees [-], 0 to 1."""
    move_weight: Float[Array, ""] = eqx.field(converter=_scalar, default=1e-3)
    """Cost of moving one control across its range, in scaled score [-]: 1e-3 is a target
    missed by 3 % on one day."""
    soft_weight: Float[Array, ""] = eqx.field(converter=_scalar, default=10.0)
    """Cost of crossing a soft bound by a whole range, in scaled score [-]."""
    feasibility_weight: Float[Array, ""] = eqx.field(converter=_scalar, default=1e-2)
    """Scaled score per unit of log feasibility of the chance constraint [-]."""
    beta: Float[Array, ""] = eqx.field(converter=_scalar, default=0.2)
    """Weight of exploration of UCB kinds [-]."""
    ref_point: Float[Array, "m"] | None = eqx.field(
        converter=lambda v: None if v is None else _scalar(v), default=None
    )
    """Reference point of the hypervolume kinds, one scaled score per target [-]: -0.01 is a target
    missed by 10 % on one day. By default a tenth worse than the worst known value."""


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


def decision_seconds(
    model: Any, settings: SearchSettings, n_controls: int, n_paths: int, n_scan: int, horizon: int
) -> float:
    """About how long one decision takes on one core, once compiled [s].

    Args:
        model: Hybrid model.
        settings: Sizes of the search.
        n_controls: Set-points searched.
        n_paths: Paths.
        n_scan: Paths on which the search is begun; 0 if there is no such part.
        horizon: Steps ahead.
    """
    gradient = 1 + (n_controls if settings.derivative == "difference" else 3)
    ends, last = settings.n_restarts + 2, _room(n_controls)
    # about a third of the trial points are refused, and their differences not taken
    climb = 0.65 * gradient * settings.max_rounds
    if not n_scan:
        count = settings.n_raw_samples + ends * climb + last
        return count * rollout_seconds(model, n_paths, horizon)
    few = settings.n_raw_samples + 0.65 * gradient * ends * SCAN_ROUNDS
    return few * rollout_seconds(model, n_scan, horizon) + (ends + climb + last) * (
        rollout_seconds(model, n_paths, horizon)
    )


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
    samples, weights, _ = _forecasts(first, _table_of(near, points))
    coarse = settings
    if quick is not None:
        coarse = settings._replace(
            max_rounds=min(settings.max_rounds, SCAN_ROUNDS),
            is_sequential=False,
            n_lanes=SCAN_LANES,
        )
    found = _climb(first, box, (samples, weights), (near, points), rule, coarse)
    if quick is not None:
        ends = found.search.candidates[:, 0, :]
        samples, weights, _ = _forecasts(surrogate, _table_of(near, ends))
        again = settings._replace(n_restarts=1)
        last = _climb(surrogate, box, (samples, weights), (near[:0], ends, near), rule, again)
        found = last._replace(search=_both(found.search, last.search), scores=found.scores)
    u, table, others, values = _second_table(box, found, (known, points))
    *_, outlooks = _forecasts(surrogate, table)
    info = _report((u, known[0], others, values), (limits, box), outlooks, found)
    return u, info if rule.weights is None else info._replace(weights=rule.weights)


class _Found(NamedTuple):
    """What a climb left."""

    held: Held
    u: Array
    value: Array
    scores: Array
    search: SearchInfo


def _both(first: SearchInfo, last: SearchInfo) -> SearchInfo:
    """Diagnostics of a search in two parts: ends of the first, gradient of the last."""
    return first._replace(
        n_rounds=first.n_rounds + last.n_rounds,
        n_evals=first.n_evals + last.n_evals,
        gradient=last.gradient,
        violation=last.violation,
        n_converged=first.n_converged,
    )


@compiled
def _reachable(box: Polytope, known: Array, raw: Array) -> tuple[Array, Array]:
    """Known set-points brought into the limits, and the raw points in physical units."""
    return jax.vmap(box.project)(known), raw_points(box, raw)[:, 0, :]


@compiled
def _table_of(known: Array, points: Array) -> tuple[Array, Array]:
    """Known set-points, then others, in a table with room for the last one too."""
    rows = jnp.concatenate([known, points])
    return _padded(rows, max(rows.shape[0], _room(known.shape[1])))


def _room(d: int) -> int:
    """Rows of the last table: the answer, what is in force, 2 d variations, alternatives."""
    return 2 + 2 * d + N_ALTERNATIVES


def _padded(points: Array, n: int) -> tuple[Array, Array]:
    """Points in a table of fixed size, and how many there are."""
    table = jnp.zeros((n, points.shape[1]), points.dtype).at[: points.shape[0]].set(points)
    return table, jnp.asarray(points.shape[0])


@compiled
def _second_table(
    box: Polytope, found: _Found, seen: tuple[Array, Array]
) -> tuple[Array, tuple[Array, Array], Array, Array]:
    """The answer, what is in force, each move taken back, each nudged, and alternatives."""
    known, raw = seen
    d = found.u.shape[0]
    u = jnp.where(jnp.isfinite(found.value), found.u, box.project(known[0]))
    kept = jnp.where(jnp.eye(d, dtype=bool), known[0][None, :], u[None, :])
    nudged = u[None, :] + jnp.diag(_nudges(box, u))
    points = jnp.concatenate([found.search.candidates[:, 0, :], raw])
    values = jnp.concatenate([found.search.values, found.scores])
    others, worths = _alternatives(box, u, points, values)
    rows = jnp.concatenate([jnp.stack([u, known[0]]), kept, nudged, others])
    return u, _padded(rows, max(known.shape[0] + raw.shape[0], _room(d))), others, worths


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
def _report(
    answer: tuple[Array, Array, Array, Array],
    bounds: tuple[ControlLimits, Polytope],
    outlooks: Outlook,
    found: _Found,
) -> RecommendInfo:
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


def _on_paths(surrogate: RolloutSurrogate) -> str:
    return f" on {surrogate.c0.shape[0]} paths" if surrogate.c0.ndim > 1 else ""


@compiled
def _box(limits: ControlLimits, u_now: Array) -> tuple[Array, Array]:
    return limits.box(u_now)


@compiled
def _forecasts(
    surrogate: RolloutSurrogate, points: tuple[Array, Array]
) -> tuple[Float[Array, "N S *m"], Float[Array, "N"], Outlook]:
    """Scores per path, log feasibilities and forecasts at the first points of a table.

    The rest stays zero.
    """
    table, n = points
    compiling(f"the forecast{_on_paths(surrogate)}")

    def one(x: Array) -> tuple[Array, Array, Outlook]:
        trajectories = surrogate.trajectories(x)
        return (*surrogate.score_of(trajectories, x), _outlook(surrogate, trajectories, x))

    shapes = jax.eval_shape(one, table[0])
    empty = jax.tree.map(lambda s: jnp.zeros((table.shape[0], *s.shape), s.dtype), shapes)

    def fill(i: Array, filled: tuple[Array, Array, Outlook]) -> tuple[Array, Array, Outlook]:
        return jax.tree.map(lambda all_, new: all_.at[i].set(new), filled, one(table[i]))

    return jax.lax.fori_loop(0, n, fill, empty)


@compiled
def _climb(
    surrogate: RolloutSurrogate,
    box: Polytope,
    worth: tuple[Array, Array],
    seen: tuple[Array, ...],
    rule: Rule,
    settings: SearchSettings,
) -> _Found:
    """Incumbent, starts, and the climb.

    `worth` holds scores and log feasibilities of the known points (the third entry of `seen`, if
    they are no starts) and of the others.
    """
    compiling(f"the search{_on_paths(surrogate)}")
    (samples, weights), starting, points = worth, seen[0], seen[1]
    n_known, n = seen[-1].shape[0] if len(seen) == 3 else starting.shape[0], points.shape[0]
    held = compare_with(rule, samples[:n_known], weights[:n_known])
    acqf = acquisition_of(rule, surrogate, held)

    def seen_worth(one: Array, weight: Array) -> Array:
        return acquisition_of(rule, Sampled(one, weight), held)(jnp.zeros((1, 1)))

    others = slice(n_known, n_known + n)
    scores = jax.vmap(seen_worth)(samples[others], weights[others])
    drawn = to_unit(box, points)[choose_starts(scores, settings, key=rule.key)]
    starts = jnp.concatenate([to_unit(box, starting), drawn], axis=0)[:, None, :]
    batch, value, search = climb(acqf, box, starts, scores, settings=settings)
    return _Found(held, batch[0], value, scores, search)


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
