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

import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import Array, Bool, ConfigError, Float, Int, Key, Result
from perfusio_jax._core.programs import compiled
from perfusio_jax.bed.optimiser.batches import divisor, finite_or_worst
from perfusio_jax.bed.optimiser.coordinates import normalise, per_candidate, to_unit
from perfusio_jax.bed.optimiser.lbfgs import Ends, Tolerances, minimise_lanes
from perfusio_jax.bed.optimiser.maximand import WithDecisions, n_extra_of
from perfusio_jax.bed.optimiser.polytope import Polytope
from perfusio_jax.bed.optimiser.progress import compiling
from perfusio_jax.bed.optimiser.rounds import in_rounds
from perfusio_jax.bed.optimiser.settings import SearchSettings
from perfusio_jax.bed.optimiser.slopes import differentiated
from perfusio_jax.bed.optimiser.starts import choose_starts

DUPLICATE_DISTANCE = 1e-3
"""Largest normalised coordinate difference of two ends that count as one optimum [-]."""


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
    unit, to_physical = normalise(box)
    points = jax.vmap(jax.vmap(unit.fold))(raw)
    if isinstance(acqf, WithDecisions):
        points = to_unit(box, acqf.arrange(jax.vmap(to_physical)(points)))
    batch_size = divisor(raw.shape[0], settings.raw_batch)
    scores = jax.lax.map(lambda z: acqf(to_physical(z)), points, batch_size=batch_size)
    z0 = points[choose_starts(scores, settings, key=key)]
    if starts is not None:
        z0 = jnp.concatenate([to_unit(box, starts), z0], axis=0)
    good = jnp.argsort(jnp.where(jnp.isfinite(scores), -scores, jnp.inf))
    pool = points[good[: settings.exchange_pool]].reshape(-1, points.shape[-1])
    return climb(acqf, box, z0, scores, settings=settings, pool=pool, key=key)


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
    unit, to_physical = normalise(box)
    z0 = jax.vmap(per_candidate(unit)(lambda limits, z: limits.project(z)))(starts)
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
    objective = differentiated(lambda z: -acqf(to_physical(z)), settings)
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
        value_of = finite_or_worst(lambda z: -acqf(to_physical(z)))
        project = jax.vmap(per_candidate(unit)(lambda limits, z: limits.project(z)))
        evaluate, given = (value_of, project), (z0, pool)
        ends, n_swaps = in_rounds(descend, evaluate, given, n_exchanges, settings, key=key)
    lost = ~jnp.isfinite(ends.f)
    values = jnp.where(lost, jnp.nan, -ends.f)
    best = jnp.argmax(jnp.where(lost, -jnp.inf, values))
    inner = jnp.broadcast_to(unit.inner if unit.inner.ndim == 2 else unit.inner[None, :], (q, d))
    winner = jnp.where(lost[best], inner, ends.z[best])
    each = per_candidate(unit)
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
    settled = per_candidate(box)(lambda limits, x: limits.settle(x))(to_physical(winner))
    return settled, values[best], info


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


def _count_duplicates(ends: Array, values: Array) -> Array:
    """Ends within `DUPLICATE_DISTANCE` of one that is better, or equal and earlier."""
    R = ends.shape[0]
    close = jnp.max(jnp.abs(ends[:, None, :] - ends[None, :, :]), axis=-1) <= DUPLICATE_DISTANCE
    rank = jnp.argsort(jnp.argsort(jnp.where(jnp.isfinite(values), -values, jnp.inf)))
    earlier = rank[None, :] < rank[:, None]
    usable = jnp.isfinite(values)
    twin = jnp.any(close & earlier & usable[None, :], axis=1) & usable
    return jnp.sum(jnp.asarray(twin, int)) if R else jnp.zeros((), int)
