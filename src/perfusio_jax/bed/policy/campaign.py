"""Which runs to make next: constant set-points for whole runs, in batches, from a fitted model.

Every candidate recipe is rolled out over the whole run on the same paths of the hybrid model
(common random numbers). A first set of Sobol points is refined around what looks best, the runs
already made among it. The batch is then chosen one by one: each run is picked for what it adds,
path by path, to the runs already made, the runs still pending and the runs picked before it,
among the recipes that keep every limit if there are any. One objective: noisy expected
improvement in its logarithm; two: expected hypervolume improvement; more: one random Chebyshev
scalarisation per run. The first run of a batch with one objective is the model's best guess, so
that a batch is never only exploration.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import STATE_ORDER, Array, ArrayLike, Bool, ConfigError, Float, Int, Key
from perfusio_jax._core.programs import compiled
from perfusio_jax.bed.acquisition.boxes import BoxDecomposition, nondominated_boxes
from perfusio_jax.bed.acquisition.smooth import log_fatplus, log_mean_exp
from perfusio_jax.bed.goal.constraints import (
    Chance,
    ControlLimits,
    each_constraint,
    margin_feasibility,
    worst_margin,
)
from perfusio_jax.bed.goal.criteria import ProcessOFV
from perfusio_jax.bed.goal.objectives import Rollout
from perfusio_jax.bed.goal.steps import closed, n_steps_of
from perfusio_jax.bed.optimiser.polytope import Polytope, make_polytope
from perfusio_jax.bed.optimiser.progress import (
    Say,
    compiling,
    in_words,
    rollout_seconds,
    tell,
    telling,
)
from perfusio_jax.bed.optimiser.sampling import sobol_points
from perfusio_jax.bed.optimiser.search import SearchSettings, climb, raw_points, to_unit
from perfusio_jax.bed.surrogate.surrogates import RolloutSurrogate, plain_score


class CampaignSettings(NamedTuple):
    """Sizes of a search over recipes; a change of any of them but the widths compiles anew."""

    n_raw: int = 256
    """Sobol points looked at first; a multiple of `batch`."""
    n_children: int = 64
    """Points looked at in each refinement; a multiple of `batch`."""
    n_parents: int = 16
    """Points the next refinement spreads around."""
    widths: tuple[float, ...] = (0.2, 0.1, 0.05)
    """Spread of each refinement, as a share of each range [-]."""
    climb_rounds: int = 6
    """Value-and-gradient evaluations by which every pick is improved; 0 for none."""
    n_expected: int = 1
    """Runs of a batch with one objective that are chosen for their mean."""
    distance: float = 0.03
    """Runs of one batch closer than about this share of the ranges repel each other [-]."""
    batch: int = 16
    """Recipes rolled out at once: memory against speed."""


CLIMB = SearchSettings(
    n_restarts=1,
    n_raw_samples=1,
    memory=6,
    gradient_tolerance=1e-3,
    value_tolerance=1e-4,
    derivative="difference",
    is_sequential=True,
)
"""Tolerances of the last improvement. Differences: over 14 days one value takes 13 ms, its
differences, forward and reverse derivatives about 100, 117 and 133 ms on one core."""


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


_FAR = 1e3
"""Unit coordinates of a pick that is not there [-]."""
_LOW = -3.0
"""Worst value that counts, in spreads below the middle of the design space [-]."""
_CAPACITY = 32
"""Step in which the table of runs grows, so that a campaign of some batches compiles once."""


class _Table(NamedTuple):
    """What was seen of some recipes."""

    points: Float[Array, "N d"]
    scores: Float[Array, "N S m"]
    margins: Float[Array, "N c S"]
    """Smallest distance to each limit; one row of ones if there is none."""
    means: Float[Array, "N k"]


class _Rows(NamedTuple):
    """Runs to be improved upon, in a table of fixed size."""

    table: _Table
    is_used: Bool[Array, "N"]


class _State(eqx.Module):
    """What a further run has to add to."""

    best: Float[Array, "S"]
    boxes: BoxDecomposition | None
    weights: Float[Array, "m"]
    picked: Float[Array, "Q d"]
    """Picks so far in unit coordinates; far away where there is none."""
    is_expected: Bool[Array, ""]


class _Worth(eqx.Module):
    """Acquisition of one recipe."""

    surrogate: RolloutSurrogate
    state: _State
    unit: Float[Array, "2 m"]
    """Centre and spread that bring the objectives to one scale."""
    box: Polytope
    distance: Float[Array, ""]

    def __call__(self, X: Float[Array, "1 d"]) -> Float[Array, ""]:
        scores, margins, _ = _look_at(self.surrogate, X[0])
        return self.of(X[0], scores, margins)

    def of(self, x: Array, scores: Array, margins: Array) -> Float[Array, ""]:
        """Value of a recipe whose roll-outs are known."""
        scaled = (scores - self.unit[0][None, :]) / self.unit[1][None, :]
        state = self.state
        if state.boxes is None:
            flat = _scalarise(scaled, state.weights)
            improvement = log_mean_exp(log_fatplus(flat - state.best, 1e-2))
            value = jnp.where(state.is_expected, jnp.mean(flat), improvement)
        else:
            edge = jnp.minimum(scaled[:, None, :], state.boxes.upper) - state.boxes.lower
            volume = jnp.sum(jnp.prod(jnp.maximum(edge, 0.0), axis=-1), axis=-1)
            value = jnp.log(jnp.mean(volume) + 1e-9)
        gap = jnp.mean((to_unit(self.box, x)[None, :] - state.picked) ** 2, axis=-1)
        repelled = jnp.log(-jnp.expm1(-gap / (2.0 * self.distance**2)) + 1e-9)
        return value + _log_feasibility(self.surrogate.chance, margins) + jnp.sum(repelled)


def propose_runs(
    model: Any,
    paths: Any,
    c0: Float[Array, "9"],
    runs: Float[Array, "n d"],
    *,
    ofv: ProcessOFV,
    limits: ControlLimits,
    q: int = 8,
    chance: Chance = None,
    pending: Float[ArrayLike, "p d"] | None = None,
    settings: CampaignSettings | None = None,
    seed: int = 0,
    rollout: Rollout | None = None,
    template: ArrayLike | None = None,
    positions: tuple[int, ...] = (),
    fixed: dict[int, float] | None = None,
    say: Say | None = None,
) -> tuple[Float[Array, "q d"], CampaignInfo]:
    """Choose the recipes of the next q runs.

    Pure: the same inputs give the same bytes.

    Args:
        model: Fitted hybrid model.
        paths: Paths drawn from it by `draw_paths`, for at least `ofv.n_steps` steps.
        c0: Latent state after inoculation, `BALANCED` order, or one per path.
        runs: Recipes already run, one per row; may be empty.
        ofv: What a run is worth; its horizon is the length of a run.
        limits: What set-points must keep; rate limits do not apply between runs.
        q: Runs to propose.
        chance: Constraints on the latent trajectory.
        pending: Recipes running at present, whose results are not in the model.
        settings: Sizes of the search.
        seed: Seed of the search.
        rollout: Roll-out function in place of that of `perfusio_jax.hybrid`.
        template: Full control vector, if a recipe is only a part of it.
        positions: Where a recipe's entries sit in it.
        fixed: Set-points held at a value, by position.
        say: Called with a line before it begins (about how long it takes), whenever something
            compiles, and after every part.

    Returns:
        Recipes, one per row, and what is expected of them.

    Raises:
        ConfigError: If sizes or limits are unusable.
    """
    settings = CampaignSettings() if settings is None else settings
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
    known = _recipes("runs", runs, d)
    waiting = jnp.zeros((0, d)) if pending is None else _recipes("pending", pending, d)
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
    with telling(say):
        n_paths = getattr(paths, "n_paths", None) or jax.tree.leaves(paths)[0].shape[0]
        seconds = count_rollouts(settings, q, d) * rollout_seconds(model, n_paths, needed)
        tell(f"searching for {q} runs: {in_words(seconds)}")
        U, seen = _search(surrogate, (known, waiting), box, q, settings, seed)
        return U, CampaignInfo(**_describe(surrogate, U), **_held(U, box, limits), **seen)


def _recipes(name: str, values: Any, d: int) -> Float[Array, "n d"]:
    table = np.asarray(values, float)
    if table.size == 0:
        return jnp.zeros((0, d))
    if table.ndim != 2 or table.shape[1] != d or not np.isfinite(table).all():
        raise ConfigError(
            f"{name} of shape {table.shape} with {int((~np.isfinite(table)).sum())} entries that "
            f"are not finite were given; they must be (n, {d}), one recipe per row, only numbers."
        )
    return jnp.asarray(table)


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

    table = _look(surrogate, _fold(box, raw), settings.batch)
    n_lost = int((~np.isfinite(np.asarray(table.scores)).all(axis=(1, 2))).sum())
    if n_lost == settings.n_raw:
        raise ConfigError(
            f"the forecast was not finite for any of {n_lost} recipes; check the model, its paths "
            "and the state the runs start from for NaN."
        )
    share = _share_feasible(surrogate.chance, table)
    unit, spread = _units(table)
    m = unit.shape[1]
    n, p = known.shape[0], waiting.shape[0]
    others = _look_few(surrogate, jnp.concatenate([known, waiting]), settings.batch)
    rows = _rows(table, others, n + p + q)
    weights = _directions(m, q, keys[-1])
    picked = jnp.full((q + p, d), _FAR).at[:p].set(to_unit(box, waiting))

    def worth(j: int) -> _Worth:
        expected = m == 1 and j < settings.n_expected
        best, boxes = _compare(rows, unit, weights[j])
        state = _State(best, boxes, weights[j], picked, jnp.asarray(expected))
        return _Worth(surrogate, state, unit, box, jnp.asarray(settings.distance))

    first = worth(min(settings.n_expected, q - 1))
    tell(f"{settings.n_raw} recipes looked at")
    # runs already made are no candidates, but what lies around the best of them is looked at
    pool = table if others is None else _join(table, _roomy(others))
    for key, width in zip(keys, settings.widths, strict=False):
        children = _children(first, pool, jnp.asarray(width), key, settings)
        seen = _look(surrogate, children, settings.batch)
        table, pool = _join(table, seen), _join(pool, seen)

    values, picks, mines = [], [], []
    for j in range(q):
        now = worth(j)
        x, value, is_legal = _best_of(now, table)
        mine = None
        if settings.climb_rounds > 0:
            rounds = CLIMB._replace(max_rounds=settings.climb_rounds)
            higher, worth_there = _climb(now, x, value, rounds)
            mine = _look(surrogate, higher[None, :], 1)
            # the climb weighs a limit, it does not count paths: what it lost is not worth it
            if bool(is_legal) and not bool(_all_kept(surrogate.chance, mine)[0]):
                mine = None
            else:
                x, value = higher, worth_there
        mine = _look(surrogate, x[None, :], 1) if mine is None else mine
        rows = _put(rows, mine, n + p + j)
        mines.append(mine)
        picked = picked.at[p + j].set(to_unit(box, x))
        picks.append(x)
        values.append(value)
        tell(f"{j + 1} of {q} runs chosen")
    table = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), table, *mines)
    best, relaxed, probability, is_feasible = _best_means(surrogate.chance, table)
    return jnp.stack(picks), {
        "acquisition": jnp.stack(values),
        "share_feasible": share,
        "best_probability": probability,
        "best_mean": best,
        "relaxed_mean": relaxed,
        "runs_mean": rows.table.means[:n],
        "is_feasible": is_feasible,
        "n_rollouts": jnp.asarray(table.points.shape[0] + n + p),
        "n_nonfinite": jnp.asarray(n_lost),
        "is_flat": jnp.asarray((np.asarray(spread) <= 1e-9 * (1 + np.abs(unit[0]))).all()),
    }


def start_state(trajectories: Sequence[Any]) -> Float[np.ndarray, "9"]:
    """Latent state runs begin from: the geometric mean of what was read on their first day.

    Args:
        trajectories: Runs.

    Returns:
        State in `BALANCED` order.

    Raises:
        ConfigError: If a species was read on no first day.
    """
    from perfusio_jax.chemistry import to_balanced

    faces = np.stack(
        [np.asarray(t.select_species(STATE_ORDER, missing_ok=True))[0] for t in trajectories]
    )
    lost = [n for n, c in zip(STATE_ORDER, faces.T, strict=True) if not np.isfinite(c).any()]
    if lost:
        raise ConfigError(f"{', '.join(lost)} was not read on the first day of any run.")
    logs = np.log(np.maximum(faces, 1e-6))
    face = np.exp(np.nanmean(logs, axis=0))
    # nothing of it in most runs: the logarithm would make a trace of it
    face = np.where(np.nanmedian(faces, axis=0) <= 0, 0.0, face)
    face[STATE_ORDER.index("Via")] = min(face[STATE_ORDER.index("Via")], 100.0)
    return np.asarray(to_balanced(jnp.asarray(face)))


def recipe_box(
    limits: ControlLimits,
    fixed: dict[int, float],
    *,
    q: int = 1,
    control_names: Sequence[str] | None = None,
) -> Polytope:
    """Where recipes may lie; checks before any work what `propose_runs` is asked for.

    Args:
        limits: What set-points must keep.
        fixed: Set-points held at a value, by position.
        q: Runs to propose.
        control_names: Names of the set-points, for messages.

    Returns:
        The set of recipes.

    Raises:
        ConfigError: If a value lies outside its bounds, no recipe keeps the linear constraints,
            or more than one run is asked for and every set-point is held.
    """
    lower = np.array(limits.lower - limits.soft_margin_lower)
    upper = np.array(limits.upper + limits.soft_margin_upper)
    names = control_names or [f"set-point {index}" for index in range(lower.size)]
    for index, value in fixed.items():
        if not 0 <= index < lower.size:
            raise ConfigError(
                f"set-point {index} does not exist; positions are 0 to {lower.size - 1}."
            )
        if not lower[index] <= value <= upper[index]:
            raise ConfigError(
                f"{names[index]} is to be held at {value:g}; the design space allows "
                f"{lower[index]:g} to {upper[index]:g}."
            )
        lower[index] = upper[index] = value
    if q > 1 and (lower == upper).all():
        raise ConfigError(
            f"{q} different runs were asked for, and every set-point is held at a value; release "
            "one, or ask for a single run."
        )
    return make_polytope(lower, upper, np.asarray(limits.A), np.asarray(limits.b))


def _look_at(surrogate: RolloutSurrogate, x: Array) -> tuple[Array, Array, Array]:
    """Scores `(S,m)`, worst margins `(c,S)`, mean of each criterion `(k,)`."""
    Y, u = surrogate.trajectories(x), surrogate.full(x)
    scores = plain_score(surrogate.ofv, Y, u)
    scores = scores[:, None] if scores.ndim == 1 else scores
    limits = each_constraint(surrogate.chance)
    # without a limit one row of ones stands in, so that no array is empty
    rows = [worst_margin(Y[:, None], limit)[:, 0] for limit in limits]
    margins = jnp.stack(rows or [jnp.ones(Y.shape[0])])
    return scores, margins, jnp.mean(_values(surrogate, Y, u), axis=0)


def _values(surrogate: RolloutSurrogate, Y: Array, u: Array) -> Float[Array, "S k"]:
    """Criteria in their own units."""
    if not isinstance(surrogate.ofv, ProcessOFV):
        raise ConfigError("a campaign is judged by a ProcessOFV; other objectives name no values.")
    return surrogate.ofv.values(Y, u)


@compiled
def _look(surrogate: RolloutSurrogate, points: Array, batch: int) -> _Table:
    compiling(f"the forecast of {points.shape[0]} recipes")
    seen = jax.lax.map(lambda x: _look_at(surrogate, x), points, batch_size=batch)
    return _Table(points, *seen)


def _look_few(surrogate: RolloutSurrogate, points: Array, batch: int) -> _Table | None:
    """`_look` at any number of points, padded so that it compiles for one size."""
    n = points.shape[0]
    if n == 0:
        return None
    padded = jnp.concatenate([points, jnp.repeat(points[-1:], -n % batch, axis=0)])
    parts = [_look(surrogate, padded[i : i + batch], batch) for i in range(0, n, batch)]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[:n], *parts)


@compiled
def _rows(like: _Table, known: _Table | None, n: int) -> _Rows:
    """A table with room for n runs, those known in front."""
    size = -(-n // _CAPACITY) * _CAPACITY
    empty = jax.tree.map(lambda v: jnp.zeros((size, *v.shape[1:]), v.dtype), like)
    if known is None:
        return _Rows(empty, jnp.zeros(size, bool))
    k = known.points.shape[0]
    filled = jax.tree.map(lambda all_, new: all_.at[:k].set(new), empty, known)
    return _Rows(filled, jnp.arange(size) < k)


@compiled
def _put(rows: _Rows, one: _Table, place: Array | int) -> _Rows:
    table = jax.tree.map(lambda all_, new: all_.at[place].set(new[0]), rows.table, one)
    return _Rows(table, rows.is_used.at[place].set(True))


@compiled
def _fold(box: Polytope, raw: Array) -> Array:
    return raw_points(box, raw)[:, 0, :]


@compiled
def _join(a: _Table, b: _Table) -> _Table:
    return jax.tree.map(lambda x, y: jnp.concatenate([x, y]), a, b)


@compiled
def _roomy(others: _Table) -> _Table:
    """Runs with empty places after them, so that a campaign of some batches compiles once."""
    room = -others.points.shape[0] % _CAPACITY

    def fill(leaf: Array, value: float) -> Array:
        return jnp.concatenate([leaf, jnp.full((room, *leaf.shape[1:]), value, leaf.dtype)])

    # without a finite score a place is nobody's parent
    return _Table(
        fill(others.points, 0.0),
        fill(others.scores, jnp.nan),
        fill(others.margins, 1.0),
        fill(others.means, 0.0),
    )


@compiled
def _units(table: _Table) -> tuple[Array, Array]:
    """Centre and spread to scale by, and the spread itself, of the finite means."""
    mean = jnp.mean(table.scores, axis=1)
    mean = jnp.where(jnp.isfinite(mean), mean, jnp.nan)
    centre, spread = jnp.nanmean(mean, axis=0), jnp.nanstd(mean, axis=0)
    return jnp.stack([centre, jnp.where(spread > 0, spread, 1.0)]), spread


def _directions(m: int, q: int, key: Key) -> Array:
    """Weights of the objectives per pick; ones unless there are three or more."""
    if m < 3:
        return jnp.ones((q, m))
    return jax.random.dirichlet(key, jnp.ones(m), (q,))


def _scalarise(scaled: Array, weights: Array) -> Array:
    """One number per path; the augmented Chebyshev value for several objectives."""
    if scaled.shape[-1] == 1:
        return scaled[..., 0]
    weighted = scaled * weights.reshape((1,) * (scaled.ndim - 1) + (-1,))
    return jnp.min(weighted, axis=-1) + 0.05 * jnp.sum(weighted, axis=-1)


def _log_feasibility(chance: Chance, margins: Array) -> Array:
    each = [
        margin_feasibility(margins[k][:, None], limit)[0]
        for k, limit in enumerate(each_constraint(chance))
    ]
    return sum(each, start=jnp.zeros(()))


def _keeps(chance: Chance, table: _Table) -> Array:
    """Which points keep which constraint with its probability, `(N,c)`."""
    limits = each_constraint(chance)
    if not limits:
        return jnp.ones((table.points.shape[0], 0), bool)
    share = jnp.mean(jnp.asarray(table.margins >= 0, float), axis=-1)
    asked = jnp.stack([limit.probability for limit in limits])
    return share >= asked[None, :] - 1e-9


@compiled
def _all_kept(chance: Chance, table: _Table) -> Array:
    return jnp.all(_keeps(chance, table), axis=1)


@compiled
def _share_feasible(chance: Chance, table: _Table) -> Array:
    return jnp.mean(jnp.asarray(_keeps(chance, table), float), axis=0)


@compiled
def _compare(rows: _Rows, unit: Array, weights: Array) -> tuple[Array, BoxDecomposition | None]:
    """Best value, or region not dominated, of each path among runs that keep the limits there."""
    scaled = (rows.table.scores - unit[0][None, None, :]) / unit[1][None, None, :]
    kept = jnp.all(rows.table.margins >= 0, axis=1) & rows.is_used[:, None]
    flat = jnp.where(kept, _scalarise(scaled, weights), _LOW)
    best = jnp.maximum(jnp.max(flat, axis=0), _LOW)
    if unit.shape[1] != 2:
        return best, None
    low = jnp.full(2, _LOW)
    legal = jnp.where(kept[:, :, None], scaled, low[None, None, :])
    return best, jax.vmap(nondominated_boxes, (1, None))(legal, low)


@compiled
def _worths(worth: _Worth, table: _Table) -> Float[Array, "N"]:
    return jax.lax.map(
        lambda row: worth.of(*row), (table.points, table.scores, table.margins), batch_size=64
    )


@compiled
def _best_of(worth: _Worth, table: _Table) -> tuple[Array, Array, Array]:
    """Best recipe, its value, and whether it keeps every limit, as it does if one can.

    The acquisition weighs limits smoothly, for the climb's sake; here the paths are counted.
    """
    scores = _worths(worth, table)
    scores = jnp.where(jnp.isfinite(scores), scores, -jnp.inf)
    apart = to_unit(worth.box, table.points)[:, None, :] - worth.state.picked[None, :, :]
    gap = jnp.mean(apart**2, axis=-1)
    is_apart = jnp.all(gap >= (0.5 * worth.distance) ** 2, axis=1)
    legal = _all_kept(worth.surrogate.chance, table) & is_apart & (scores > -jnp.inf)
    is_legal = jnp.any(legal)
    i = jnp.argmax(jnp.where(legal | ~is_legal, scores, -jnp.inf))
    return table.points[i], scores[i], is_legal


@compiled
def _children(
    worth: _Worth, table: _Table, width: Array, key: Key, settings: CampaignSettings
) -> Array:
    """Points around the most promising ones, by acquisition and by mean with and without limits."""
    scores = _worths(worth, table)
    legal = jax.vmap(lambda m: _log_feasibility(worth.surrogate.chance, m))(table.margins)
    scaled = (jnp.mean(table.scores, axis=1) - worth.unit[0][None, :]) / worth.unit[1][None, :]
    by_mean = _scalarise(scaled, jnp.ones(scaled.shape[-1]))
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
def _climb(
    worth: _Worth, start: Array, before: Array, settings: SearchSettings
) -> tuple[Array, Array]:
    compiling("the improvement of a recipe")
    z = to_unit(worth.box, start)[None, None, :]
    found, value, _ = climb(worth, worth.box, z, before[None], settings=settings)
    is_better = value > before
    return jnp.where(is_better, found[0], start), jnp.where(is_better, value, before)


@compiled
def _best_means(chance: Chance, table: _Table) -> tuple[Array, Array, Array, Array]:
    """Best expected values with all constraints and with each one left out."""
    keeps = _keeps(chance, table)
    mean = jnp.mean(table.scores, axis=1)[:, 0]

    def best(legal: Array) -> Array:
        i = jnp.argmax(jnp.where(legal & jnp.isfinite(mean), mean, -jnp.inf))
        return jnp.where(jnp.any(legal), table.means[i], jnp.nan)

    c = keeps.shape[1]
    others = [jnp.all(jnp.delete(keeps, k, axis=1), axis=1) for k in range(c)]
    relaxed = (
        jnp.stack([best(rows) for rows in others]) if c else (jnp.zeros((0, table.means.shape[1])))
    )
    kept = jnp.mean(jnp.asarray(jnp.all(table.margins >= 0, axis=1), float), axis=-1)
    all_kept = jnp.all(keeps, axis=1)
    return best(all_kept), relaxed, jnp.max(kept), jnp.any(all_kept)


@compiled
def _describe(surrogate: RolloutSurrogate, U: Array) -> dict[str, Array]:
    compiling("the forecast of the answer")

    def one(x: Array) -> dict[str, Array]:
        Y, u = surrogate.trajectories(x), surrogate.full(x)
        values = _values(surrogate, Y, u)
        q10, q90 = jnp.quantile(values, jnp.asarray([0.1, 0.9]), axis=0)
        kept = [
            jnp.mean(jnp.asarray(worst_margin(Y[:, None], limit)[:, 0] >= 0, float))
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
def _held(U: Array, box: Polytope, limits: ControlLimits) -> dict[str, Array]:
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


def explain_campaign(
    info: CampaignInfo,
    ofv: ProcessOFV,
    chance: Chance,
    control_names: Sequence[str],
    run_ids: Sequence[str] | None = None,
) -> dict[str, Any]:
    """What is expected of proposed runs and why, as names and plain numbers.

    Args:
        info: From `propose_runs`.
        ofv: What a run is worth.
        chance: Constraints.
        control_names: Names of the set-points, in array order.
        run_ids: Names of the runs so far, in the order in which they were given.

    Returns:
        Nested dictionary, ready for JSON. `best_expected` is the best of the runs proposed here
        that keep every limit, by criterion; `best_looked_at` the best recipe of the search.
    """
    labels = [criterion.label for criterion in ofv.criteria]
    limits = each_constraint(chance)
    host = jax.device_get(info)

    def by_label(values: Any) -> dict[str, float]:
        return dict(zip(labels, np.asarray(values, float).tolist(), strict=True))

    def names(mask: Any) -> list[str]:
        return [n for n, held in zip(control_names, np.asarray(mask), strict=True) if held]

    asked = np.array([float(limit.probability) for limit in limits])
    kept = np.asarray(host.probability_kept) >= asked[None, :] - 1e-9
    is_kept: np.ndarray = np.all(kept, axis=1)
    runs = [
        {
            "expected": by_label(host.mean[k]),
            "sd": by_label(host.sd[k]),
            "q10": by_label(host.q10[k]),
            "q90": by_label(host.q90[k]),
            "probability_kept": np.asarray(host.probability_kept[k], float).tolist(),
            "at_lower_bound": names(host.at_lower[k]),
            "at_upper_bound": names(host.at_upper[k]),
            "linear_constraints_active": np.asarray(host.linear_active[k]).tolist(),
            "is_kept": bool(is_kept[k]),
        }
        for k in range(host.mean.shape[0])
    ]
    constraints = [
        {
            "limit": f"{limit.label} {float(limit.minimum):g}",
            "probability": float(limit.probability),
            "share_of_space": float(host.share_feasible[k]),
            "best_without": by_label(host.relaxed_mean[k]),
        }
        for k, limit in enumerate(limits)
    ]
    return {
        "runs": runs,
        "constraints": constraints,
        "fixed": names(host.is_fixed),
        "best_expected": _best_so_far(np.asarray(host.mean)[is_kept], ofv, labels)
        or by_label(np.full(len(labels), np.nan)),
        "best_looked_at": by_label(host.best_mean),
        "best_of_runs_so_far": _best_so_far(host.runs_mean, ofv, labels),
        "best_probability": float(host.best_probability),
        "is_feasible": bool(host.is_feasible),
        "n_rollouts": int(host.n_rollouts),
        "remarks": _remarks(host) + _short_of(runs, constraints) + _beaten(host, ofv, run_ids),
    }


def _short_of(runs: list[dict[str, Any]], constraints: list[dict[str, Any]]) -> list[str]:
    """Proposed runs that keep a limit less surely than was asked."""
    return [
        f"Run {k} of those proposed keeps {limit['limit']} with probability {kept:.2f} only; asked "
        f"was {limit['probability']:g}. No other recipe that keeps it was found far enough from "
        "the runs before it."
        for k, run in enumerate(runs, start=1)
        for limit, kept in zip(constraints, run["probability_kept"], strict=True)
        if kept < limit["probability"] - 1e-9
    ]


def _beaten(host: Any, ofv: ProcessOFV, run_ids: Sequence[str] | None) -> list[str]:
    """Whether a run already made is expected to be better than every one proposed."""
    values, mine = np.asarray(host.runs_mean, float), np.asarray(host.mean, float)
    if len(ofv.criteria) != 1 or len(values) == 0:
        return []
    sign, label = float(ofv.criteria[0].direction), ofv.criteria[0].label
    best = int(np.argmax(np.where(np.isfinite(values[:, 0]), sign * values[:, 0], -np.inf)))
    proposed = sign * float(np.max(sign * mine[:, 0]))
    if not sign * values[best, 0] > sign * proposed:
        return []
    name = f"number {best + 1}" if run_ids is None else run_ids[best]
    return [
        f"Run {name}, already made, is expected to be better than every run proposed: {label} "
        f"{values[best, 0]:.4g} against {proposed:.4g}."
    ]


def _remarks(host: Any) -> list[str]:
    """What was fallen back to, in sentences."""
    said = []
    if bool(host.is_flat):
        said.append("Every recipe is worth the same to this goal: the runs are merely apart.")
    if int(host.n_nonfinite):
        said.append(f"{int(host.n_nonfinite)} recipes had no finite forecast and were left out.")
    if not bool(host.is_feasible):
        said.append("No recipe keeps every limit: the runs are those that keep them best.")
    return said


def _best_so_far(values: Any, ofv: ProcessOFV, labels: list[str]) -> dict[str, float]:
    """The model's best value of each criterion among the runs so far."""
    if len(values) == 0:
        return {}
    signs = np.array([float(c.direction) for c in ofv.criteria])
    best = signs * np.max(signs[None, :] * np.asarray(values), axis=0)
    return dict(zip(labels, best.tolist(), strict=True))


def count_rollouts(settings: CampaignSettings, q: int, n_controls: int) -> int:
    """Roll-outs a search makes at most, for a time estimate.

    Args:
        settings: Sizes of the search.
        q: Runs to propose.
        n_controls: Set-points searched.

    Returns:
        Number of recipes rolled out, differences included.
    """
    pool = settings.n_raw + len(settings.widths) * settings.n_children
    return pool + q * (3 + settings.climb_rounds * (n_controls + 1))
