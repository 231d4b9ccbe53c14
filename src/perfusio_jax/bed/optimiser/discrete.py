"""Set-points that take only some values: round, climb again, look next door.

The search runs over continuous set-points first. Its best ends are rounded, every different
setting of the discrete set-points becomes a problem in the others alone, and the values next to
the best setting are tried until none is better.
"""

from collections.abc import Mapping
from itertools import combinations, islice, product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import Array, ConfigError, Key
from perfusio_jax._core.programs import compiled
from perfusio_jax.bed.optimiser.ascent import SearchInfo, climb
from perfusio_jax.bed.optimiser.coordinates import to_unit
from perfusio_jax.bed.optimiser.polytope import Polytope, make_polytope
from perfusio_jax.bed.optimiser.settings import SearchSettings

Levels = dict[int, np.ndarray]

_ENDS, _CORNERS, _SWEEPS, _NEIGHBOURS = 4, 16, 8, 64
"""Best ends rounded; roundings tried when the nearest breaks a limit; looks next door, and at
how many neighbours each."""


def check_levels(
    discrete: Mapping[int, Any],
    lower: np.ndarray,
    upper: np.ndarray,
    q: int,
    fixed: Mapping[int, float],
) -> Levels:
    """Values within the bounds, sorted.

    Args:
        discrete: Values a set-point may take, by position.
        lower: Lower bounds.
        upper: Upper bounds.
        q: Candidates in a batch.
        fixed: Positions held at a value: they are left out here.

    Returns:
        Values by position.

    Raises:
        ConfigError: If a position does not exist, no value lies within the bounds, or there are
            fewer settings than candidates.
    """
    levels: Levels = {}
    for index, values in discrete.items():
        if not 0 <= index < lower.size:
            raise ConfigError(
                f"discrete set-point {index} does not exist; positions are 0 to {lower.size - 1}."
            )
        all_values = np.unique(np.asarray(list(values), float))
        allowed = all_values[(all_values >= lower[index]) & (all_values <= upper[index])]
        if index in fixed:
            if fixed[index] not in all_values:
                raise ConfigError(
                    f"fixed feature {index}={fixed[index]} is none of its values "
                    f"{all_values.tolist()}."
                )
            continue
        if allowed.size == 0:
            raise ConfigError(
                f"no value of discrete set-point {index} ({all_values.tolist()}) lies between "
                f"{lower[index]} and {upper[index]}."
            )
        levels[index] = allowed
    is_free = [k for k in range(lower.size) if k not in levels and lower[k] < upper[k]]
    if levels and not is_free:
        n_settings = int(np.prod([float(v.size) for v in levels.values()]))
        if q > n_settings:
            raise ConfigError(
                f"q={q} candidates were asked for, but the discrete set-points have only "
                f"{n_settings} settings; ask for fewer or allow more values."
            )
    return levels


def settle_levels(
    acqf: Any,
    box: Polytope,
    levels: Levels,
    info: SearchInfo,
    settings: SearchSettings,
    *,
    key: Key,
) -> tuple[Array, float, int]:
    """From the continuous search's ends to a batch of allowed values.

    Args:
        acqf: Acquisition.
        box: Limits.
        levels: Values by position.
        info: Diagnostics of the continuous search.
        settings: Sizes and tolerances.
        key: Moves batches that climb again, all by the same draws.

    Returns:
        Best batch with all its rows, its value, how many settings were tried.

    Raises:
        ConfigError: If no rounding of the best ends keeps the limits.
    """
    values = np.asarray(info.values)
    ends = np.asarray(info.candidates)
    order = np.argsort(np.where(np.isfinite(values), -values, np.inf), kind="stable")
    tried: dict[bytes, tuple[float, np.ndarray]] = {}
    for row in order[:_ENDS]:
        rounded = _round(ends[row], levels, box)
        if rounded is not None:
            _try(acqf, box, levels, rounded, (settings, key), tried)
    if not tried:
        raise ConfigError(
            "no rounding of the discrete set-points keeps the linear constraints near the "
            "optimum; allow more values or loosen a constraint."
        )
    for _ in range(_SWEEPS):
        best_value, best = max(tried.values(), key=lambda pair: pair[0])
        # two values at a time only where one at a time does not help: ridges may be oblique
        for n_moved in (1, 2):
            for neighbour in _next_door(best, levels, n_moved):
                _try(acqf, box, levels, neighbour, (settings, key), tried)
            if max(value for value, _ in tried.values()) > best_value:
                break
        else:
            break
    value, best = max(tried.values(), key=lambda pair: pair[0])
    if not np.isfinite(value):
        raise ConfigError("the acquisition was not finite at any rounded set-points.")
    return jnp.asarray(best), value, len(tried)


def _round(batch: np.ndarray, levels: Levels, box: Polytope) -> np.ndarray | None:
    """Nearest allowed values, or the nearest combination that keeps the rows."""
    rounded = batch.copy()
    for i in range(batch.shape[0]):
        options = []
        for k, allowed in levels.items():
            nearest = np.argsort(np.abs(allowed - batch[i, k]), kind="stable")[:2]
            options.append([(k, float(allowed[j])) for j in nearest])
        for setting in islice(product(*options), _CORNERS):
            for k, value in setting:
                rounded[i, k] = value
            if _limits(box, levels, rounded[i]) is not None:
                break
        else:
            return None
    return rounded


def _limits(box: Polytope, levels: Levels, candidate: np.ndarray) -> Polytope | None:
    """Limits of a candidate whose discrete set-points are held, or None if nothing is left."""
    lower, upper = np.array(box.lower), np.array(box.upper)
    for k in levels:
        lower[k] = upper[k] = candidate[k]
    try:
        return make_polytope(lower, upper, np.asarray(box.A), np.asarray(box.b))
    except ConfigError:
        return None


def _next_door(batch: np.ndarray, levels: Levels, n_moved: int) -> list[np.ndarray]:
    """Batches in which one candidate has that many values replaced by the next ones."""
    found = []
    for i in range(batch.shape[0]):
        at = {k: int(np.argmin(np.abs(v - batch[i, k]))) for k, v in levels.items()}
        for places in combinations(levels, n_moved):
            for steps in product((-1, 1), repeat=n_moved):
                other = [at[k] + step for k, step in zip(places, steps, strict=True)]
                if all(0 <= j < levels[k].size for k, j in zip(places, other, strict=True)):
                    moved = batch.copy()
                    moved[i, list(places)] = [
                        levels[k][j] for k, j in zip(places, other, strict=True)
                    ]
                    found.append(moved)
    return found[:_NEIGHBOURS]


def _try(
    acqf: Any,
    box: Polytope,
    levels: Levels,
    batch: np.ndarray,
    how: tuple[SearchSettings, Key],
    tried: dict[bytes, tuple[float, np.ndarray]],
) -> None:
    """Climb in the continuous set-points with the discrete ones held."""
    name = batch[:, sorted(levels)].tobytes()
    if name in tried:
        return
    each = [_limits(box, levels, candidate) for candidate in batch]
    kept = [limits for limits in each if limits is not None]
    if len(kept) < len(each):
        return
    limits = jax.tree.map(lambda *leaves: jnp.stack(leaves), *kept)
    found, value = _climb_again(acqf, limits, jnp.asarray(batch), *how)
    result = np.array(found)
    for k in levels:
        result[:, k] = batch[:, k]
    tried[name] = (float(value) if np.isfinite(np.asarray(value)) else -np.inf, result)


@compiled
def _climb_again(
    acqf: Any, limits: Polytope, batch: Array, settings: SearchSettings, key: Key
) -> tuple[Array, Array]:
    start = jax.vmap(to_unit)(limits, batch)
    scores = jnp.zeros((2,))
    found, value, _ = climb(acqf, limits, start[None], scores, settings=settings, key=key)
    return found, value
