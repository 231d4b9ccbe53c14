"""Maximising an acquisition function over set-points: the calls people make.

`optimise_acquisition` searches for a whole batch jointly; `optimise_sequentially` chooses a
large batch one candidate after the other; `choose_from_pool` picks from a finite list. Limits
are a box, narrowed by fixed features, a trust region and the largest change from the read-back,
and cut by linear constraints; set-points that take only some values are rounded and the others
climb again. The climb itself is `ascent`.

The acquisition is an argument of the compiled function: one with new data, a new incumbent or
other bounds, but the same shapes, does not compile again.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import Array, ArrayLike, ConfigError, Float, Result
from perfusio_jax.bed.optimiser.ascent import DUPLICATE_DISTANCE as DUPLICATE_DISTANCE
from perfusio_jax.bed.optimiser.ascent import SearchInfo as SearchInfo
from perfusio_jax.bed.optimiser.ascent import _maximise
from perfusio_jax.bed.optimiser.ascent import climb as climb
from perfusio_jax.bed.optimiser.ascent import maximise as maximise
from perfusio_jax.bed.optimiser.batches import score as score
from perfusio_jax.bed.optimiser.coordinates import raw_points as raw_points
from perfusio_jax.bed.optimiser.coordinates import to_unit as to_unit
from perfusio_jax.bed.optimiser.discrete import check_levels, settle_levels
from perfusio_jax.bed.optimiser.maximand import n_extra_of
from perfusio_jax.bed.optimiser.polytope import make_polytope
from perfusio_jax.bed.optimiser.regions import TrustRegion, narrowed_bounds
from perfusio_jax.bed.optimiser.sampling import sobol_points
from perfusio_jax.bed.optimiser.settings import SearchSettings as SearchSettings
from perfusio_jax.bed.optimiser.slopes import DIFFERENCE_STEP as DIFFERENCE_STEP
from perfusio_jax.bed.optimiser.starts import choose_starts as choose_starts


def optimise_acquisition(
    acqf: Callable[[Array], Array],
    design_space: Any,
    q: int = 1,
    n_restarts: int = 10,
    n_raw_samples: int = 512,
    fixed_features: Mapping[int, float] | None = None,
    seed: int | None = None,
    dtype: Any = None,
    device: Any = None,
    **options: Any,
) -> tuple[Float[Array, "q d"], Float[Array, "q"]]:
    """Find the batch of set-points with the best acquisition value.

    Args:
        acqf: Acquisition: a batch `(q,d)` in, one number out, more is better. Best an
            `equinox` module, whose arrays may change without a new compile.
        design_space: A `config.DesignSpace`, or bounds `(lower, upper)`.
        q: Candidates in the batch, optimised jointly.
        n_restarts: Starts that climb.
        n_raw_samples: Sobol points scored first.
        fixed_features: Set-points held at a value, by position.
        seed: Seed of Sobol points and starts; None is 0, so that a result can be repeated.
        dtype: Floating type of the coordinates; JAX's default float if None.
        device: JAX device to compute on; the default one if None.
        **options: As `optimise_acquisition_with_info`.

    Returns:
        Candidates `(q,d)`, and the value of the batch as a whole, once per candidate `(q,)`.

    Raises:
        ConfigError: If sizes, limits or fixed features are unusable, or the acquisition was
            not finite anywhere.
    """
    candidates, values, _ = optimise_acquisition_with_info(
        acqf,
        design_space,
        q,
        n_restarts,
        n_raw_samples=n_raw_samples,
        fixed_features=fixed_features,
        seed=seed,
        dtype=dtype,
        device=device,
        **options,
    )
    return candidates, values


def optimise_acquisition_with_info(
    acqf: Callable[[Array], Array],
    design_space: Any,
    q: int = 1,
    n_restarts: int = 10,
    *,
    n_raw_samples: int = 512,
    fixed_features: Mapping[int, float] | None = None,
    seed: int | None = None,
    dtype: Any = None,
    device: Any = None,
    linear_constraints: tuple[ArrayLike, ArrayLike] | None = None,
    initial_points: ArrayLike | None = None,
    settings: SearchSettings | None = None,
    trust_region: TrustRegion | None = None,
    rate_limit: tuple[ArrayLike, ArrayLike] | None = None,
    discrete: Mapping[int, ArrayLike] | None = None,
) -> tuple[Float[Array, "q d"], Float[Array, "q"], SearchInfo]:
    """As `optimise_acquisition`, with diagnostics.

    Args:
        acqf: Acquisition, as there.
        design_space: A `config.DesignSpace`, or bounds `(lower, upper)`.
        q: Candidates in the batch.
        n_restarts: Starts that climb.
        n_raw_samples: Sobol points scored first.
        fixed_features: Set-points held at a value, by position.
        seed: Seed of Sobol points and starts; None is 0.
        dtype: Floating type of the coordinates; JAX's default float if None.
        device: JAX device to compute on.
        linear_constraints: `(A, b)`: every candidate keeps `A u <= b`.
        initial_points: Further starts `(s,q,d)`, or `(s,d)` for q = 1. One outside the limits
            is projected onto them, and counted in `n_starts_moved`.
        settings: Remaining sizes and tolerances; its `n_restarts` and `n_raw_samples` are
            replaced by the arguments above.
        trust_region: Box around a good point that candidates may not leave.
        rate_limit: `(read_back (d,), largest_change (d,))`, unit of the set-points: candidates
            stay that close to the set-points in force. Infinite entries set no limit.
        discrete: Values a set-point may take, by position; for integers `range(low, high + 1)`.
            The continuous optimum is rounded, the other set-points climb again, and the values
            next to the chosen ones are tried.

    Returns:
        Candidates `(q,d)`, the batch's value once per candidate `(q,)`, and diagnostics.

    Raises:
        ConfigError: If sizes, limits or fixed features are unusable, or the acquisition was
            not finite anywhere.
    """
    if q < 1 or n_restarts < 1 or n_raw_samples < n_restarts:
        raise ConfigError(
            f"q={q}, n_restarts={n_restarts}, n_raw_samples={n_raw_samples} were given; q and "
            "n_restarts must be at least 1 and n_raw_samples at least n_restarts."
        )
    lower, upper = narrowed_bounds(
        _bounds(design_space), fixed_features or {}, trust_region, rate_limit
    )
    levels = check_levels(discrete or {}, lower, upper, q, fixed_features or {})
    A, b = (None, None) if linear_constraints is None else linear_constraints
    box = make_polytope(lower, upper, A, b)
    d = lower.size
    n_rows = q + n_extra_of(acqf)
    number = 0 if seed is None else int(seed)
    raw = sobol_points(n_raw_samples, n_rows * d, seed=number).reshape(-1, n_rows, d)
    starts = _starts(initial_points, n_rows, d)
    chosen = (settings or SearchSettings())._replace(
        n_restarts=n_restarts, n_raw_samples=n_raw_samples
    )
    if dtype is not None:
        box, raw, starts = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), (box, raw, starts))
    if device is not None:
        box, raw, starts = jax.device_put((box, raw, starts), device)
    found = _maximise(acqf, box, raw, starts, np.asarray(number), chosen)
    candidates, values, value, info = found
    if not np.isfinite(np.asarray(value)):
        raise ConfigError(
            f"the acquisition was not finite at any of {n_raw_samples} raw points and "
            f"{info.codes.shape[0]} starts; check the surrogate and the incumbent for NaN."
        )
    if not levels:
        return candidates, values, info
    full, value, n_tried = settle_levels(
        acqf, box, levels, info, chosen, key=jax.random.key(number)
    )
    info = info._replace(n_rounded=np.asarray(n_tried))
    return full[:q], jnp.full((q,), value), info


def optimise_sequentially(
    build: Callable[[Float[np.ndarray, "p d"]], Callable[[Array], Array]],
    design_space: Any,
    q: int,
    n_restarts: int = 10,
    *,
    seed: int | None = None,
    **options: Any,
) -> tuple[Float[Array, "q d"], Float[Array, "q"], tuple[SearchInfo, ...]]:
    """Choose a large batch one candidate after the other, those before it pending.

    The price of a joint search grows with the square of q and more; this one's grows with q.
    Greedy choices are within `1 - 1/e` of the best batch for submodular acquisitions such as
    qEI and qEHVI.

    Args:
        build: Makes the acquisition for one candidate from the pending points `(q-1,d)`, of
            which rows of NaN are empty places: `lambda P: build_acquisition("qLogEI", model,
            best_f=best, X_pending=P)`. The shape never changes, so that one compile serves all.
        design_space: As `optimise_acquisition`.
        q: Candidates in the batch.
        n_restarts: Starts that climb for every candidate.
        seed: Seed; candidate k searches with `seed + k`.
        **options: As `optimise_acquisition_with_info`.

    Returns:
        Candidates `(q,d)`, the acquisition of each given those before it `(q,)`, diagnostics.

    Raises:
        ConfigError: As `optimise_acquisition_with_info`.

    Reference:
        Wilson, Hutter, Deisenroth (2018), section 3.
    """
    if q < 1:
        raise ConfigError(f"q={q} was given; a batch has at least one candidate.")
    d = _bounds(design_space)[0].size
    pending = np.full((max(q - 1, 1), d), np.nan)
    number = 0 if seed is None else int(seed)
    chosen, values, infos = [], [], []
    for k in range(q):
        one, value, info = optimise_acquisition_with_info(
            build(pending.copy()), design_space, 1, n_restarts, seed=number + k, **options
        )
        chosen.append(one[0])
        values.append(value[0])
        infos.append(info)
        if k < q - 1:
            pending[k] = np.asarray(one[0])
    return jnp.stack(chosen), jnp.stack(values), tuple(infos)


def choose_from_pool(
    build: Callable[[Float[np.ndarray, "p d"]], Callable[[Array], Array]],
    pool: ArrayLike,
    q: int = 1,
    *,
    batch_size: int = 64,
) -> tuple[Float[Array, "q d"], Float[Array, "q"], tuple[int, ...]]:
    """Choose from a finite list of candidates, one after the other, none twice.

    Args:
        build: As in `optimise_sequentially`.
        pool: Candidates `(N,d)`.
        q: How many to choose.
        batch_size: Candidates evaluated at once: memory against speed.

    Returns:
        Candidates `(q,d)`, the acquisition of each given those before it, their rows.

    Raises:
        ConfigError: If q exceeds the number of different candidates, or the acquisition is not
            finite at any that is left.
    """
    points = np.atleast_2d(np.asarray(pool, float))
    first = np.sort(np.unique(points, axis=0, return_index=True)[1])
    if not 1 <= q <= first.size:
        raise ConfigError(
            f"q={q} was asked of a pool of {first.size} different candidates "
            f"({points.shape[0]} rows); choose at least 1 and at most that many."
        )
    pending = np.full((max(q - 1, 1), points.shape[1]), np.nan)
    free = np.zeros(points.shape[0], bool)
    free[first] = True
    rows: list[int] = []
    values: list[float] = []
    for k in range(q):
        found = np.array(score(build(pending.copy()), jnp.asarray(points[:, None]), batch_size))
        found[~free | ~np.isfinite(found)] = -np.inf
        best = int(np.argmax(found))
        if not np.isfinite(found[best]):
            raise ConfigError(
                f"the acquisition was not finite at any of the {int(free.sum())} candidates left "
                "in the pool; check the surrogate and the incumbent for NaN."
            )
        rows.append(best)
        values.append(float(found[best]))
        free[best] = False
        if k < q - 1:
            pending[k] = points[best]
    return jnp.asarray(points[rows]), jnp.asarray(values), tuple(rows)


def describe_search(info: SearchInfo) -> tuple[str, ...]:
    """What a search did, in sentences; fallbacks first.

    Args:
        info: Diagnostics.

    Returns:
        Sentences; the last one counts starts.
    """
    said = []
    n = len(np.asarray(info.codes))
    if bool(info.is_flat):
        said.append(
            "The acquisition was the same at every raw point: the result is only a feasible point."
        )
    if int(info.n_raw_nonfinite):
        said.append(f"{int(info.n_raw_nonfinite)} raw points were not finite and were left out.")
    if int(info.n_starts_moved):
        said.append(f"{int(info.n_starts_moved)} starts lay outside the limits and were moved in.")
    lost = int(np.sum(np.asarray(info.codes) == Result.NONFINITE.value))
    if lost:
        said.append(f"{lost} starts were lost to values that are not finite.")
    if int(info.n_rounded):
        said.append(f"{int(info.n_rounded)} settings of the discrete set-points were tried.")
    said.append(
        f"{int(info.n_converged)} of {n} starts converged, {int(info.n_duplicates)} of them where "
        f"a better one had; {int(info.n_evals)} evaluations."
    )
    return tuple(said)


def _starts(initial_points: ArrayLike | None, n_rows: int, d: int) -> Array | None:
    if initial_points is None:
        return None
    starts = jnp.asarray(initial_points, float)
    starts = starts[:, None, :] if starts.ndim == 2 and n_rows == 1 else starts
    if starts.shape[1:] != (n_rows, d):
        raise ConfigError(
            f"initial_points of shape {starts.shape} were given; they must be (s, {n_rows}, {d})."
        )
    if not bool(jnp.all(jnp.isfinite(starts))):
        raise ConfigError("initial_points hold NaN or infinite values; leave such rows out.")
    return starts


def _bounds(design_space: Any) -> tuple[np.ndarray, np.ndarray]:
    if hasattr(design_space, "bounds_array"):
        lower, upper = design_space.bounds_array
    else:
        try:
            lower, upper = design_space
        except (TypeError, ValueError):
            raise ConfigError(
                f"design_space is a {type(design_space).__name__}; give a DesignSpace, or bounds "
                "as a pair (lower, upper)."
            ) from None
    return np.asarray(lower, float).copy(), np.asarray(upper, float).copy()
