"""Maximising an acquisition function over set-points, pure: many starts at once, one compile.

`search` holds the calls people make; here is what they compile.

Sobol points are scored, starts are drawn among them by a Boltzmann rule, and all starts climb
together by projected L-BFGS (`lbfgs`), jointly over the candidates of a batch. Coordinates are
normalised to the box; bounds hold exactly and linear constraints to rounding throughout.

The acquisition is an argument of the compiled function: one with new data, a new incumbent or
other bounds, but the same shapes, does not compile again.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import Array, Bool, ConfigError, Float, Int, Key, Result
from perfusio_jax._core.programs import compiled
from perfusio_jax.bed.optimiser.lbfgs import Ends, Tolerances, minimise_lanes
from perfusio_jax.bed.optimiser.maximand import WithDecisions, n_extra_of
from perfusio_jax.bed.optimiser.polytope import Polytope
from perfusio_jax.bed.optimiser.progress import compiling

DUPLICATE_DISTANCE = 1e-3
"""Largest normalised coordinate difference of two ends that count as one optimum [-]."""

_SHAKES = (0.02, 0.004)
"""Deviations by which the best batch is moved before it climbs again, normalised [-]."""

_LAST_ENDS = 6
"""Best ends that climb on at last: coarse climbs do not always rank them rightly."""

_BASES = 3
"""Best batches, different in value, whose places are tried in an exchange."""

DIFFERENCE_STEP = 1e-5
"""Step of the one-sided differences, normalised coordinates [-]; for 64-bit floats."""


class SearchSettings(NamedTuple):
    """Sizes and tolerances of a search; a change of any of them compiles anew."""

    n_restarts: int = 10
    """Starts that climb."""
    n_raw_samples: int = 512
    """Sobol points scored first."""
    max_rounds: int = 400
    """Value-and-gradient evaluations per start, at most."""
    memory: int = 10
    """Curvature pairs kept."""
    raw_batch: int = 64
    """Raw points evaluated at once: memory against speed."""
    eta: float = 1.0
    """Sharpness of the Boltzmann rule [-]; 0 draws uniformly."""
    gradient_tolerance: float = 1e-7
    """Largest projected gradient entry at the end, per unit of value spread."""
    value_tolerance: float = 1e-11
    """Relative increase that counts as progress [-]."""
    derivative: str = "reverse"
    """`reverse` or `forward` mode, or `difference`: one-sided differences of `DIFFERENCE_STEP`
    in normalised coordinates, for acquisitions that run fast but compile slowly."""
    is_sequential: bool = False
    """Evaluate the starts one after the other, whatever `n_lanes` says."""
    n_lanes: int = 4
    """Starts evaluated at once; one that stops makes room for the next."""
    coarse_tolerance: float = 1e-4
    """As `value_tolerance`, for the first climb of all starts; the best ends climb on. Not with
    `is_sequential`, where every start climbs once."""
    n_second: int = 10
    """Ends or replacements that climb on in a later round, at most."""
    n_exchanges: int = 3
    """How often, at most, candidates of the best batches are replaced by those of other ends and
    of good raw points, and the best replacements climb; for batches only, and not with
    `is_sequential`."""
    exchange_pool: int = 64
    """Candidates that are tried in every place, half of them from ends."""


class SearchInfo(NamedTuple):
    """Diagnostics of one search; arrays, so that it passes through `jit` and `vmap`."""

    candidates: Float[Array, "R q d"]
    """Where every start ended, unit of the set-points."""
    values: Float[Array, "R"]
    """Acquisition there; NaN where the start was lost."""
    codes: Int[Array, "R"]
    """Result code of every start, `Result`."""
    n_steps: Int[Array, "R"]
    """Accepted steps of every start."""
    gradient_norms: Float[Array, "R"]
    """Largest entry of the projected gradient at the end, normalised coordinates."""
    n_converged: Int[Array, ""]
    """Starts that met a tolerance."""
    n_duplicates: Int[Array, ""]
    """Starts that ended where a better one did."""
    n_rounds: Int[Array, ""]
    """Rounds of value-and-gradient evaluations."""
    n_evals: Int[Array, ""]
    """Acquisition evaluations in all, raw ones and those the starts used; one with its gradient
    counts once."""
    n_raw_nonfinite: Int[Array, ""]
    """Raw points whose value was NaN or infinite; masked, never chosen."""
    is_flat: Bool[Array, ""]
    """Whether all finite raw values were equal: the result is then only a feasible point."""
    best: Int[Array, ""]
    """Index of the start that won."""
    violation: Float[Array, ""]
    """Largest amount by which the result exceeds any limit, normalised coordinates."""
    gradient: Float[Array, "q d"]
    """Gradient of the acquisition at the result, per whole range of each set-point."""
    n_starts_moved: Int[Array, ""] = np.zeros((), int)  # type: ignore[assignment]
    """Given starts outside the limits: they were projected onto them."""
    n_rounded: Int[Array, ""] = np.zeros((), int)  # type: ignore[assignment]
    """Discrete settings tried after rounding; 0 if every set-point is continuous."""


def maximise(
    acqf: Callable[[Array], Array],
    box: Polytope,
    raw: Float[Array, "N q d"],
    starts: Float[Array, "s q d"] | None = None,
    *,
    key: Key,
    settings: SearchSettings,
) -> tuple[Float[Array, "q d"], Float[Array, ""], SearchInfo]:
    """Pure core of the search, for callers that compile it themselves.

    Args:
        acqf: Batch of candidates `(q,d)` in, one number out.
        box: Limits, unit of the set-points.
        raw: Points of the unit cube, scored before the climb.
        starts: Further starts in the unit of the set-points, used beside `n_restarts` drawn
            ones; projected onto the limits first.
        key: Draws the starts, and where the best batch is moved to.
        settings: Sizes and tolerances.

    Returns:
        Best batch, its value, diagnostics. If no evaluation was finite the value is NaN and
        the batch the inner point of the limits.
    """
    unit, to_physical = _normalise(box)
    points = jax.vmap(jax.vmap(unit.fold))(raw)
    if isinstance(acqf, WithDecisions):
        points = to_unit(box, acqf.arrange(jax.vmap(to_physical)(points)))
    batch_size = _divisor(raw.shape[0], settings.raw_batch)
    scores = jax.lax.map(lambda z: acqf(to_physical(z)), points, batch_size=batch_size)
    z0 = points[choose_starts(scores, settings, key=key)]
    if starts is not None:
        z0 = jnp.concatenate([to_unit(box, starts), z0], axis=0)
    good = jnp.argsort(jnp.where(jnp.isfinite(scores), -scores, jnp.inf))
    pool = points[good[: settings.exchange_pool]].reshape(-1, points.shape[-1])
    return climb(acqf, box, z0, scores, settings=settings, pool=pool, key=key)


def raw_points(box: Polytope, raw: Float[Array, "N q d"]) -> Float[Array, "N q d"]:
    """Points of the unit cube as feasible set-points.

    Args:
        box: Limits.
        raw: Points of the unit cube.

    Returns:
        Candidates in their own units.
    """
    unit, to_physical = _normalise(box)
    return jax.vmap(to_physical)(jax.vmap(jax.vmap(unit.fold))(raw))


def climb(
    acqf: Callable[[Array], Array],
    box: Polytope,
    starts: Float[Array, "R q d"],
    scores: Float[Array, "N"],
    *,
    settings: SearchSettings,
    pool: Float[Array, "K d"] | None = None,
    key: Key | None = None,
) -> tuple[Float[Array, "q d"], Float[Array, ""], SearchInfo]:
    """Second half of `maximise`: from starting points to the best end.

    Args:
        acqf: Batch of candidates `(q,d)` in, one number out.
        box: Limits, unit of the set-points.
        starts: Starting points in normalised coordinates; projected onto the limits first.
        scores: Acquisition at the raw points: sets the scale of the tolerances.
        settings: Sizes and tolerances.
        pool: Feasible candidates in normalised coordinates, good ones first, that batches may
            take in an exchange.
        key: Draws where the best batch is moved to before it climbs again. A single candidate,
            or a sequential search, needs none.

    Returns:
        Best batch, its value, diagnostics, as `maximise`.

    Raises:
        ConfigError: If a batch is to climb in rounds and there is no key.
    """
    unit, to_physical = _normalise(box)
    z0 = jax.vmap(_per_candidate(unit)(lambda limits, z: limits.project(z)))(starts)
    moved = jnp.max(jnp.abs(z0 - starts), axis=(1, 2))
    R, q, d = z0.shape
    if key is None and q > 1 and not settings.is_sequential:
        raise ConfigError(
            f"a batch of {q} candidates is to climb without a key; give `key`, which draws where "
            "the best batch is moved to, or set is_sequential."
        )
    is_finite = jnp.isfinite(scores)
    high = jnp.max(jnp.where(is_finite, scores, -jnp.inf))
    low = jnp.min(jnp.where(is_finite, scores, jnp.inf))
    has_spread = jnp.any(is_finite) & (high > low)
    objective = _differentiated(lambda z: -acqf(to_physical(z)), settings)
    scale = jnp.where(has_spread, jnp.minimum(high - low, 1.0), 1.0)

    def descend(starts: Array, n_starts: Array, value_tolerance: Array) -> Ends:
        return minimise_lanes(
            objective,
            unit,
            starts,
            tolerances=Tolerances(
                jnp.asarray(settings.gradient_tolerance, z0.dtype), value_tolerance, scale
            ),
            memory=settings.memory,
            max_rounds=settings.max_rounds,
            n_lanes=1 if settings.is_sequential else settings.n_lanes,
            n_starts=n_starts,
        )

    if settings.is_sequential:
        fine = jnp.asarray(settings.value_tolerance, z0.dtype)
        ends, n_swaps = descend(z0, jnp.asarray(R), fine), jnp.zeros((), int)
    else:
        is_batch = q > 1 and unit.lower.ndim == 1 and not n_extra_of(acqf)
        n_exchanges = settings.n_exchanges if is_batch else 0
        value_of = _only_value(lambda z: -acqf(to_physical(z)))
        project = jax.vmap(_per_candidate(unit)(lambda limits, z: limits.project(z)))
        evaluate, given = (value_of, project), (z0, pool)
        ends, n_swaps = _in_rounds(descend, evaluate, given, n_exchanges, settings, key=key)
    lost = ~jnp.isfinite(ends.f)
    values = jnp.where(lost, jnp.nan, -ends.f)
    best = jnp.argmax(jnp.where(lost, -jnp.inf, values))
    inner = jnp.broadcast_to(unit.inner if unit.inner.ndim == 2 else unit.inner[None, :], (q, d))
    winner = jnp.where(lost[best], inner, ends.z[best])
    each = _per_candidate(unit)
    tangent = jax.vmap(each(lambda limits, z, g: limits.tangent(z, g)[0]))
    norms = jnp.max(jnp.abs(tangent(ends.z, ends.g)), axis=(1, 2))
    info = SearchInfo(
        candidates=jax.vmap(to_physical)(ends.z),
        values=values,
        codes=ends.code,
        n_steps=ends.n_steps,
        gradient_norms=jnp.where(lost, jnp.nan, norms),
        n_converged=jnp.sum(jnp.asarray(ends.code == Result.SUCCESS.value, int)),
        n_duplicates=_count_duplicates(ends.z.reshape(R, -1), values),
        n_rounds=ends.n_rounds,
        n_evals=scores.shape[0] + jnp.sum(ends.n_evals) + n_swaps,
        n_raw_nonfinite=jnp.sum(jnp.asarray(~is_finite, int)),
        is_flat=jnp.any(is_finite) & ~has_spread,
        best=best,
        violation=jnp.max(each(lambda limits, z: limits.violation(z))(winner)),
        gradient=-ends.g[best],
        n_starts_moved=jnp.sum(jnp.asarray(moved > 1e-9, int)),
        n_rounded=jnp.zeros((), int),
    )
    # in their own units the rows hold to a rounding error of those units
    settled = _per_candidate(box)(lambda limits, x: limits.settle(x))(to_physical(winner))
    return settled, values[best], info


def _only_value(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    def values(batches: Array) -> Array:
        size = _divisor(batches.shape[0], 64)
        found = jax.lax.map(function, batches, batch_size=size)
        return jnp.where(jnp.isfinite(found), found, jnp.inf)

    return values


def _in_rounds(
    descend: Callable[[Array, Array, Array], Ends],
    evaluate: tuple[Callable[[Array], Array], Callable[[Array], Array]],
    given: tuple[Float[Array, "R q d"], Float[Array, "K d"] | None],
    n_exchanges: int,
    settings: SearchSettings,
    *,
    key: Key | None,
) -> tuple[Ends, Int[Array, ""]]:
    """All starts climb coarsely, batches exchange candidates, the best ends climb on.

    A batch is as good as its members together: ends that stopped in different optima hold
    members the best one lacks. Candidates of other ends and of raw points are tried in every
    place of the three best batches, the best replacements climb, and so on while that helps. One
    loop body serves all rounds, so that it compiles once.
    """
    z0, others = given
    values, project = evaluate
    R, q, d = z0.shape
    n_ends = min(R * q, settings.exchange_pool // (1 if others is None else 2))
    n_next = min(settings.n_second, R)
    fine = settings.value_tolerance
    coarse = max(fine, settings.coarse_tolerance)
    between = max(fine, 1e-3 * coarse)

    def more(carry: tuple[Any, ...]) -> Array:
        return carry[4] < 3

    def body(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        ends, starts, n_starts, k, phase, n_swaps = carry
        is_first = phase == 0
        tolerance = jnp.asarray([coarse, between, fine], z0.dtype)[phase]
        new = descend(starts, n_starts, tolerance)
        top, best = jnp.argmin(new.f), jnp.argmin(ends.f)
        gained = is_first | (new.f[top] < ends.f[best])
        helped = is_first | (new.f[top] < ends.f[best] - 1e-6 * (1.0 + jnp.abs(ends.f[best])))
        ends = _merged(ends, new, (is_first, gained, best, top))
        # phases: 0 all starts, 1 exchanges, 2 the last climb, 3 the end
        exchanges = (phase < 2) & helped & (k < n_exchanges)
        phase = jnp.where(exchanges, 1, jnp.where(phase < 2, 2, 3))
        order = jnp.argsort(ends.f)
        batches = ends.z[order]

        def shaken() -> Array:
            # samples make kinks on which a climb can come to rest: start from nearby, too
            noise = jax.random.normal(jax.random.fold_in(key, k), (2, q, d))  # pyright: ignore
            return project(batches[:1] + jnp.asarray(_SHAKES, z0.dtype)[:, None, None] * noise)

        def filled(chosen: Array) -> tuple[Array, Array]:
            chosen = chosen[:n_next]
            n = jnp.asarray(chosen.shape[0])
            return jnp.zeros_like(z0).at[: chosen.shape[0]].set(chosen), n

        def finish() -> tuple[Array, Array, Array]:
            chosen = batches[:_LAST_ENDS]
            if q > 1:
                chosen = jnp.concatenate([chosen[:1], shaken(), chosen[1:]])
            return (*filled(chosen), jnp.zeros((), int))

        def exchange() -> tuple[Array, Array, Array]:
            pool = batches.reshape(R * q, d)[:n_ends]
            if others is not None:
                pool = jnp.concatenate([pool, others[: settings.exchange_pool - n_ends]])
            # the best end, the best one that is another, and so on
            chosen, level = [batches[0]], ends.f[order[0]]
            for _ in range(_BASES - 1):
                is_other = ends.f > level + 1e-6 * (1.0 + jnp.abs(level))
                next_best = jnp.argmin(jnp.where(is_other, ends.f, jnp.inf))
                chosen.append(ends.z[next_best])
                level = ends.f[next_best]
            bases = jnp.stack(chosen)
            place = jnp.eye(q, dtype=bool)[None, :, None, :, None]
            tried = jnp.where(place, pool[None, None, :, None, :], bases[:, None, None])
            found = values(tried.reshape(-1, q, d)).reshape(_BASES * q, -1)
            # the best replacement in every place: several of one place end in one optimum
            each = jnp.argmin(found, axis=1)
            swapped = tried.reshape(_BASES * q, -1, q, d)[jnp.arange(_BASES * q), each]
            ranked = swapped[jnp.argsort(jnp.min(found, axis=1))]
            starts = jnp.concatenate([bases[:1], ranked[:2], shaken(), ranked[2:]])
            return (*filled(starts), jnp.asarray(found.size))

        if n_exchanges:
            starts, n_starts, n_new = jax.lax.cond(exchanges, exchange, finish)
        else:
            starts, n_starts, n_new = finish()
        return ends, starts, n_starts, k + 1, phase, n_swaps + jnp.where(phase < 3, n_new, 0)

    zero = jnp.zeros((), int)
    blank = jax.eval_shape(descend, z0, zero, jnp.zeros((), z0.dtype))
    blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), blank)
    first = (blank, z0, jnp.asarray(R), zero, zero, zero)
    ends, *_, n_swaps = jax.lax.while_loop(more, body, first)
    return ends, n_swaps


def _merged(old: Ends, new: Ends, rule: tuple[Array, ...]) -> Ends:
    """The first round's ends, or the old ones with the best replaced where something is better."""
    is_first, gained, best, top = rule

    def one(before: Array, after: Array) -> Array:
        replaced = before.at[best].set(after[top]) if before.ndim else before
        return jnp.where(is_first, after, jnp.where(gained, replaced, before))

    merged = jax.tree.map(one, old, new)
    spent = old.n_evals.at[best].add(jnp.sum(new.n_evals))
    return eqx.tree_at(
        lambda e: (e.n_evals, e.n_rounds),
        merged,
        (jnp.where(is_first, new.n_evals, spent), old.n_rounds + new.n_rounds),
    )


def _per_candidate(limits: Polytope) -> Callable[..., Any]:
    """Maps a function of limits and candidates over the candidates of a batch."""
    axis = 0 if limits.lower.ndim == 2 else None

    def mapped(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args: jax.vmap(function, in_axes=(axis, *(0 for _ in args)))(limits, *args)

    return mapped


def _differentiated(
    function: Callable[[Array], Array], settings: SearchSettings
) -> Callable[[Array, Array], tuple[Array, Array]]:
    """Value and gradient; differences are taken only below the ceiling, where they are used."""
    if settings.derivative == "reverse":
        pair = jax.value_and_grad(function)
        return lambda z, ceiling: pair(z)
    if settings.derivative == "forward":
        return lambda z, ceiling: _by_tangents(function, z)
    if settings.derivative == "difference":
        return lambda z, ceiling: _by_differences(function, z, ceiling)
    raise ConfigError(
        f"derivative={settings.derivative!r} is unknown; the modes are reverse, forward and "
        "difference."
    )


def _by_tangents(function: Callable[[Array], Array], z: Array) -> tuple[Array, Array]:
    basis = jnp.eye(z.size, dtype=z.dtype).reshape(-1, *z.shape)
    along = jax.vmap(lambda t: jax.jvp(function, (z,), (t,)), out_axes=(None, 0))
    value, slopes = along(basis)
    return value, slopes.reshape(z.shape)


def _by_differences(
    function: Callable[[Array], Array], z: Array, ceiling: Array
) -> tuple[Array, Array]:
    """One loop body for the value and every difference, so that the function compiles once."""
    n = z.size
    # step inwards, so that no point leaves the unit box
    step = jnp.where(z < 0.5, DIFFERENCE_STEP, -DIFFERENCE_STEP).astype(z.dtype)

    def more(carry: tuple[Array, Array, Array]) -> Array:
        i, value, _ = carry
        return (i == 0) | ((i <= n) & (value <= ceiling))

    def one(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        i, value, slopes = carry
        # round 0 evaluates the point itself
        moved = z.reshape(-1).at[i - 1].add(jnp.where(i > 0, step.reshape(-1)[i - 1], 0.0))
        found = function(moved.reshape(z.shape))
        slope = (found - value) / step.reshape(-1)[i - 1]
        slopes = jnp.where(i > 0, slopes.at[i - 1].set(slope), slopes)
        return i + 1, jnp.where(i > 0, value, found), slopes

    start = (jnp.zeros((), int), jnp.zeros((), z.dtype), jnp.zeros(n, z.dtype))
    _, value, slopes = jax.lax.while_loop(more, one, start)
    return value, slopes.reshape(z.shape)


@compiled
def _maximise(
    acqf: Any,
    box: Polytope,
    raw: Any,
    starts: Array | None,
    seed: Any,
    settings: SearchSettings,
) -> tuple[Array, Array, Array, SearchInfo]:
    compiling("the search")
    key = jax.random.key(seed)
    batch, value, info = maximise(acqf, box, raw, starts, key=key, settings=settings)
    q = raw.shape[1] - n_extra_of(acqf)
    return batch[:q], jnp.full((q,), value), value, info


@compiled
def score(acqf: Any, batches: Float[Array, "N q d"], batch_size: int) -> Float[Array, "N"]:
    """Acquisition of many batches.

    Args:
        acqf: Acquisition.
        batches: Batches in their own units.
        batch_size: Batches evaluated at once.

    Returns:
        Values.
    """
    return jax.lax.map(acqf, batches, batch_size=_divisor(batches.shape[0], batch_size))


def _divisor(n: int, limit: int) -> int:
    """Largest batch that divides `n` evenly: a remainder would be compiled a second time."""
    return next(size for size in range(min(limit, n), 0, -1) if n % size == 0)


def _normalise(box: Polytope) -> tuple[Polytope, Callable[[Array], Array]]:
    """The same limits in coordinates from 0 to 1, and the way back for a batch `(q,d)`."""

    def one(box: Polytope) -> Polytope:
        width = box.upper - box.lower
        safe = jnp.where(width > 0, width, 1.0)
        A = box.A * width[None, :]
        norm = jnp.linalg.norm(A, axis=1)
        norm = jnp.where(norm > 0, norm, 1.0)
        return Polytope(
            lower=jnp.zeros_like(width),
            upper=jnp.ones_like(width),
            A=A / norm[:, None],
            b=(box.b - box.A @ box.lower) / norm,
            inner=jnp.where(width > 0, (box.inner - box.lower) / safe, 0.5),
        )

    def to_physical(z: Array) -> Array:
        low, high = (v if v.ndim == 2 else v[None, :] for v in (box.lower, box.upper))
        return jnp.clip(low + z * (high - low), low, high)

    return (jax.vmap(one)(box) if box.lower.ndim == 2 else one(box)), to_physical


def to_unit(box: Polytope, x: Float[Array, "... d"]) -> Float[Array, "... d"]:
    """Set-points in coordinates from 0 to 1 of the box; fixed ones in the middle.

    Args:
        box: Limits.
        x: Set-points.

    Returns:
        Normalised coordinates, not clipped.
    """
    width = box.upper - box.lower
    shape = (1,) * (x.ndim - 1) + (-1,)
    safe = jnp.where(width > 0, width, 1.0).reshape(shape)
    inside = (x - box.lower.reshape(shape)) / safe
    return jnp.where((width > 0).reshape(shape), inside, 0.5)


def choose_starts(
    scores: Float[Array, "N"], settings: SearchSettings, *, key: Key
) -> Int[Array, "R"]:
    """Draw starts without replacement, better ones more often; the best one always.

    Adding Gumbel noise to the standardised scores and taking the largest draws without
    replacement with Boltzmann weights. Points that are not finite come last.

    Args:
        scores: Acquisition at the raw points.
        settings: `n_restarts` and the sharpness `eta`.
        key: Random key.

    Returns:
        Rows of the chosen points.
    """
    is_finite = jnp.isfinite(scores)
    n = jnp.maximum(jnp.sum(jnp.asarray(is_finite, scores.dtype)), 1.0)
    known = jnp.where(is_finite, scores, 0.0)
    mean = jnp.sum(known) / n
    spread = jnp.sqrt(jnp.sum(jnp.where(is_finite, (known - mean) ** 2, 0.0)) / n)
    standard = (known - mean) / jnp.where(spread > 0, spread, 1.0)
    noise = jax.random.gumbel(key, scores.shape, scores.dtype)
    ranking = jnp.where(is_finite, settings.eta * standard + noise, -jnp.inf)
    top = jnp.argmax(jnp.where(is_finite, scores, -jnp.inf))
    ranking = ranking.at[top].set(jnp.inf)
    return jax.lax.top_k(ranking, settings.n_restarts)[1]


def _count_duplicates(ends: Array, values: Array) -> Array:
    """Ends within `DUPLICATE_DISTANCE` of one that is better, or equal and earlier."""
    R = ends.shape[0]
    close = jnp.max(jnp.abs(ends[:, None, :] - ends[None, :, :]), axis=-1) <= DUPLICATE_DISTANCE
    rank = jnp.argsort(jnp.argsort(jnp.where(jnp.isfinite(values), -values, jnp.inf)))
    earlier = rank[None, :] < rank[:, None]
    usable = jnp.isfinite(values)
    twin = jnp.any(close & earlier & usable[None, :], axis=1) & usable
    return jnp.sum(jnp.asarray(twin, int)) if R else jnp.zeros((), int)
