"""One decision for one reactor, as a pure function: forecast model in, set-points out.

Every candidate meets the same paths of the hybrid model (common random numbers). The incumbent
is the better of the set-points in force and the last plan *in the present state*, and
improvement is counted path by path against it, so that what no set-point can change (the
uncertain state, disturbances to come) cancels.

Expected improvement of a squared distance still rewards spread: with a well-placed incumbent
it steps away from the optimum by about 1.2 epistemic deviations, every day. In a closed loop
that is jitter, not learning. `exploration` therefore scales the spread between paths before
the acquisition sees it: 0 maximises the mean objective (near-greedy tracking), 1 is the plain
acquisition. The default 0.1 costs about 1.5 % of the epistemic variance in tracking.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import Array, ArrayLike, Bool, ConfigError, Float, Int, Key
from perfusio_jax.bed import montecarlo
from perfusio_jax.bed.constraints import (
    ChanceConstraint,
    ControlCost,
    ControlLimits,
    probability_kept,
)
from perfusio_jax.bed.draws import Draws
from perfusio_jax.bed.objectives import Rollout, TargetTrackingOFV
from perfusio_jax.bed.polytope import Polytope, make_polytope
from perfusio_jax.bed.sampling import sobol_points
from perfusio_jax.bed.search import (
    SearchInfo,
    SearchSettings,
    choose_starts,
    climb,
    raw_points,
    to_unit,
)
from perfusio_jax.bed.surrogates import RolloutSurrogate

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

Derivatives: a roll-out goes through the stiff integrator of the mechanistic prior. Measured on
one core without a Gaussian process, 64 paths x 3 days x 6 controls: one roll-out 1.1 ms (8 s to
trace and compile); six differences 10 ms (10 s); six tangents forward 13 ms (32 s); reverse mode
2.4 s (minutes). With common random numbers the score is a smooth function of the set-points, so
one-sided differences are good to about 1e-5, far below the search's tolerance; `forward` gives
exact derivatives at the same speed once compiled. With a fitted model (90 rows) a roll-out takes
3 ms and a decision 1.8 s, 20 s the first time; 4 + 1 starts, 128 raw points and 25 rounds take
2.8 s and lower the expected sum of squares by 4 % more.
"""

SINGLE_OBJECTIVE = ("PI", "EI", "LogEI", "UCB", "qEI", "qLogEI", "qUCB")
"""Acquisitions a policy that tracks targets can use."""


def _scalar(value: Any) -> Array:
    return jnp.asarray(value, float)


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
    """Expected plain sum of squares, lower is better."""
    target_errors: Float[Array, "T"]
    """Each target's part of it, in squared units of its species."""
    score: Float[Array, ""]
    """Mean scaled score [-], costs of set-points left out, higher is better."""
    probability_kept: Float[Array, ""]
    """Share of paths that keep the chance constraint on every day [-]; 1 if there is none."""


class RecommendInfo(NamedTuple):
    """Diagnostics of one decision; arrays, so that it passes through `jit` and `vmap`."""

    acquisition: Float[Array, ""]
    """Value at the recommendation."""
    incumbent: Int[Array, ""]
    """0 if the set-points in force were the incumbent, 1 if the last plan was."""
    incumbent_score: Float[Array, ""]
    """Mean scaled score of the incumbent, costs included [-]."""
    recommended: Outlook
    """Forecast under the recommendation."""
    unchanged: Outlook
    """Forecast if the set-points in force stayed."""
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
    is_fallback: Bool[Array, ""]
    """True if nothing finite was found and the set-points in force are kept."""
    search: SearchInfo
    """Diagnostics of the optimiser."""


def recommend(
    model: Any,
    paths: Any,
    c0: Float[Array, "S 9"],
    u_now: Float[Array, "d"],
    *,
    ofv: TargetTrackingOFV,
    limits: ControlLimits,
    day0: ArrayLike = 0.0,
    u_plan: ArrayLike | None = None,
    chance: ChanceConstraint | None = None,
    preferences: Preferences | None = None,
    acquisition: str = "qLogEI",
    best_f: ArrayLike | None = None,
    settings: SearchSettings = ROLLOUT_SETTINGS,
    seed: int = 0,
    rollout: Rollout | None = None,
    template: ArrayLike | None = None,
    positions: tuple[int, ...] = (),
    fixed: dict[int, float] | None = None,
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
        chance: Constraint on the latent trajectory, or None.
        preferences: What is weighed beside the targets; the defaults if None.
        acquisition: One of `SINGLE_OBJECTIVE`; evaluated by Monte Carlo.
        best_f: Incumbent in scaled score, in place of the better of `u_now` and `u_plan`.
        settings: Sizes of the search.
        seed: Seed of the search.
        rollout: Roll-out function in place of that of `perfusio_jax.hybrid`.
        template: Full control vector, if the candidate is only a part of it.
        positions: Where the candidate's entries sit in it.
        fixed: Set-points the operator holds at a value, by position.

    Returns:
        Recommended set-points and diagnostics.

    Raises:
        ConfigError: If the acquisition is unknown here, or no set-points keep the limits.
    """
    if acquisition not in SINGLE_OBJECTIVE:
        raise ConfigError(
            f"acquisition {acquisition!r} cannot track targets; use one of "
            f"{', '.join(SINGLE_OBJECTIVE)}."
        )
    u_now = jnp.asarray(u_now, float)
    lower, upper = (np.array(bound) for bound in _box(limits, u_now))
    for index, value in (fixed or {}).items():
        lower[index] = upper[index] = value
    box = make_polytope(lower, upper, limits.A, limits.b)
    d = lower.size
    raw = jnp.asarray(sobol_points(settings.n_raw_samples, d, seed=seed)[:, None, :])
    preferences = Preferences() if preferences is None else preferences
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
    )
    known = u_now[None, :]
    if u_plan is not None:
        known = jnp.stack([u_now, jnp.asarray(u_plan, float)])
    rule = _Rule(
        beta=preferences.beta,
        best_f=None if best_f is None else jnp.asarray(best_f, float),
        key=jax.random.key(seed),
        kind=acquisition.removeprefix("q"),
    )
    return _decide(surrogate, (box, limits, raw), known, rule, settings)


class _Rule(eqx.Module):
    """Which acquisition, against what incumbent, with what key."""

    beta: Float[Array, ""]
    best_f: Float[Array, "*S"] | None
    key: Key
    kind: str = eqx.field(static=True)


def _decide(
    surrogate: RolloutSurrogate,
    region: tuple[Polytope, ControlLimits, Array],
    known: Array,
    rule: _Rule,
    settings: SearchSettings,
) -> tuple[Array, RecommendInfo]:
    """Forecast the known and the raw points, climb, forecast the answer.

    Two compiled functions, so that a roll-out, which is slow to compile, is compiled once
    forwards and once with its derivatives.
    """
    box, limits, raw = region
    samples, _ = _forecasts(surrogate, _first_table(box, raw, known))
    best_f, incumbent, batch, value, search = _climb(
        surrogate, (box, raw), samples, known, rule, settings
    )
    u, table = _second_table(box, batch[0], value, (known, raw))
    _, outlooks = _forecasts(surrogate, table)
    return u, _report(u, known[0], limits, outlooks, (best_f, incumbent, value, search))


def _padded(points: Array, n: int) -> tuple[Array, Array]:
    """Points in a table of fixed size, and how many there are."""
    table = jnp.zeros((n, points.shape[1]), points.dtype).at[: points.shape[0]].set(points)
    return table, jnp.asarray(points.shape[0])


@eqx.filter_jit
def _first_table(box: Polytope, raw: Array, known: Array) -> tuple[Array, Array]:
    """Known set-points, then the raw points."""
    n = max(known.shape[0] + raw.shape[0], known.shape[1] + 2)
    return _padded(jnp.concatenate([known, raw_points(box, raw)[:, 0, :]]), n)


@eqx.filter_jit
def _second_table(
    box: Polytope, found: Array, value: Array, sizes: tuple[Array, Array]
) -> tuple[Array, tuple[Array, Array]]:
    """The answer, the set-points in force, and the answer with each move taken back."""
    known, raw = sizes
    d = found.shape[0]
    u = jnp.where(jnp.isfinite(value), found, jnp.clip(known[0], box.lower, box.upper))
    kept = jnp.where(jnp.eye(d, dtype=bool), known[0][None, :], u[None, :])
    n = max(known.shape[0] + raw.shape[0], d + 2)
    return u, _padded(jnp.concatenate([jnp.stack([u, known[0]]), kept]), n)


@eqx.filter_jit
def _report(
    u: Array, u_now: Array, limits: ControlLimits, outlooks: Outlook, found: tuple[Any, ...]
) -> RecommendInfo:
    best_f, incumbent, value, search = found
    chosen, unchanged = (jax.tree.map(lambda leaf, i=i: leaf[i], outlooks) for i in (0, 1))
    tolerance = 1e-6 * (limits.upper - limits.lower)
    moved = jnp.abs(u - u_now)
    slack = limits.b - limits.A @ u
    return RecommendInfo(
        acquisition=value,
        incumbent=incumbent,
        incumbent_score=jnp.mean(best_f),
        recommended=chosen,
        unchanged=unchanged,
        move_gains=chosen.score - outlooks.score[2 : u.shape[0] + 2],
        at_lower=u <= limits.lower - limits.soft_margin_lower + tolerance,
        at_upper=u >= limits.upper + limits.soft_margin_upper - tolerance,
        at_rate_limit=(moved >= limits.max_change - tolerance) & (moved > 0),
        linear_active=slack <= 1e-6 * jnp.linalg.norm(limits.A, axis=1),
        is_fallback=~jnp.isfinite(value),
        search=search,
    )


@eqx.filter_jit
def _box(limits: ControlLimits, u_now: Array) -> tuple[Array, Array]:
    return limits.box(u_now)


@eqx.filter_jit
def _forecasts(
    surrogate: RolloutSurrogate, points: tuple[Array, Array]
) -> tuple[Float[Array, "N S"], Outlook]:
    """Scores per path and forecasts at the first points of a table; the rest stays zero."""
    table, n = points

    def one(x: Array) -> tuple[Array, Outlook]:
        trajectories = surrogate.trajectories(x)
        return surrogate.score_of(trajectories, x)[0], _outlook(surrogate, trajectories)

    shapes = jax.eval_shape(one, table[0])
    empty = jax.tree.map(lambda s: jnp.zeros((table.shape[0], *s.shape), s.dtype), shapes)

    def fill(i: Array, filled: tuple[Array, Outlook]) -> tuple[Array, Outlook]:
        return jax.tree.map(lambda all_, new: all_.at[i].set(new), filled, one(table[i]))

    return jax.lax.fori_loop(0, n, fill, empty)


@eqx.filter_jit
def _climb(
    surrogate: RolloutSurrogate,
    region: tuple[Polytope, Array],
    samples: Array,
    known: Array,
    rule: _Rule,
    settings: SearchSettings,
) -> tuple[Array, Array, Array, Array, SearchInfo]:
    """Incumbent, starts, and the climb; `samples` are those of known and raw points."""
    box, raw = region
    n_known, n_raw = known.shape[0], raw.shape[0]
    means = jnp.mean(samples[:n_known], axis=1)
    incumbent = jnp.argmax(jnp.where(jnp.isfinite(means), means, -jnp.inf))
    best_f = samples[incumbent] if rule.best_f is None else rule.best_f
    acqf = _acquisition(rule, surrogate, best_f)
    scores = jax.vmap(lambda s: _acquisition(rule, _Known(s), best_f)(jnp.zeros((1, 1))))(
        samples[n_known : n_known + n_raw]
    )
    first = to_unit(box, known)[:, None, :]
    drawn = to_unit(box, raw_points(box, raw))[choose_starts(scores, settings, key=rule.key)]
    starts = jnp.concatenate([first, drawn], axis=0)
    batch, value, search = climb(acqf, box, starts, scores, settings=settings)
    return best_f, incumbent, batch, value, search


class _Known(eqx.Module):
    """One candidate whose samples are known already, in the shape of a surrogate."""

    samples: Float[Array, "S"]

    def sample_and_feasibility(self, X: Array) -> tuple[Array, Array]:
        return self.samples[:, None], jnp.zeros((1,), self.samples.dtype)


def _acquisition(rule: _Rule, model: Any, best_f: Array) -> Callable[[Array], Array]:
    draws = Draws(model=model, base=None)
    # smooth on the scale of what can still be gained
    size = jnp.abs(jnp.mean(best_f)) + 1e-4
    if rule.kind == "LogEI":
        return montecarlo.MCLogExpectedImprovement(draws, best_f, 1e-4 * size)
    if rule.kind == "EI":
        return montecarlo.MCExpectedImprovement(draws, best_f)
    if rule.kind == "PI":
        return montecarlo.MCProbabilityOfImprovement(draws, best_f, 1e-2 * size)
    return montecarlo.MCUpperConfidenceBound(draws, rule.beta)


def _outlook(surrogate: RolloutSurrogate, trajectories: Array) -> Outlook:
    quantiles = jnp.quantile(trajectories, jnp.asarray([0.1, 0.5, 0.9]), axis=0)
    errors = jnp.stack([jnp.mean(t.squared_error(trajectories)) for t in surrogate.ofv.targets])
    kept = jnp.ones((), trajectories.dtype)
    if surrogate.chance is not None:
        kept = probability_kept(trajectories[:, None, :, :], surrogate.chance)[0]
    return Outlook(
        mean=jnp.mean(trajectories, axis=0),
        q10=quantiles[0],
        q50=quantiles[1],
        q90=quantiles[2],
        ofv=jnp.sum(errors),
        target_errors=errors,
        score=jnp.mean(surrogate.ofv.scaled_score(trajectories)),
        probability_kept=kept,
    )
