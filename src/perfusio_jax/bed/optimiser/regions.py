"""Narrower boxes: fixed set-points, a trust region, the largest change from the read-back."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import Array, ConfigError, Float

_LARGEST, _SMALLEST, _FIRST = 1.6, 0.5**7, 0.8
_PATIENCE = 3


class TrustRegion(eqx.Module):
    """A box around the best point so far, wider after successes, narrower after failures.

    Reference:
        Eriksson et al. (2019), Scalable global optimization via local Bayesian optimization
        (TuRBO), whose lengths and counts are kept.
    """

    centre: Float[Array, "d"]
    """Middle of the box, unit of the set-points."""
    side: float = _FIRST
    """Side as a share of every set-point's range [-]."""
    n_successes: int = 0
    """Improvements in a row."""
    n_failures: int = 0
    """Rounds without one in a row."""

    @property
    def is_spent(self) -> bool:
        """Whether the box has become so small that one should start elsewhere."""
        return self.side < _SMALLEST

    def bounds(self, lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The box within bounds; a centre outside them is moved to their edge.

        Args:
            lower: Lower bounds `(d,)`.
            upper: Upper bounds `(d,)`.

        Returns:
            Lower and upper edges.

        Raises:
            ConfigError: If the centre does not fit or the side is not above zero.
        """
        centre = np.asarray(self.centre, float)
        if centre.shape != lower.shape or not np.isfinite(centre).all() or not self.side > 0:
            raise ConfigError(
                f"a trust region of centre {centre.tolist()} and side {self.side} was given; it "
                f"needs {lower.size} finite numbers and a side above zero."
            )
        centre = np.clip(centre, lower, upper)
        half = 0.5 * self.side * (upper - lower)
        return np.maximum(lower, centre - half), np.minimum(upper, centre + half)

    def after(self, improved: bool, centre: Any = None) -> "TrustRegion":
        """The region after a round.

        Args:
            improved: Whether the round found a better point.
            centre: That point.

        Returns:
            Next region: twice as wide after three improvements in a row, half as wide after
            as many failures as there are set-points (at least four).
        """
        d = np.asarray(self.centre).size
        successes = self.n_successes + 1 if improved else 0
        failures = 0 if improved else self.n_failures + 1
        side = self.side
        if successes >= _PATIENCE:
            side, successes = min(2.0 * side, _LARGEST), 0
        elif failures >= max(4, d):
            side, failures = 0.5 * side, 0
        middle = self.centre if centre is None else jnp.asarray(centre, float)
        return TrustRegion(middle, side, successes, failures)


def narrowed_bounds(
    bounds: tuple[np.ndarray, np.ndarray],
    fixed: Mapping[int, float],
    trust_region: TrustRegion | None,
    rate_limit: tuple[Any, Any] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """What is left of a box.

    Args:
        bounds: Lower and upper bounds `(d,)`.
        fixed: Set-points held at a value, by position.
        trust_region: Box candidates may not leave.
        rate_limit: Set-points in force and the largest change of each.

    Returns:
        Lower and upper bounds; equal where a set-point is fixed.

    Raises:
        ConfigError: If nothing is left, or something does not fit.
    """
    lower, upper = bounds
    if trust_region is not None:
        lower, upper = trust_region.bounds(lower, upper)
    if rate_limit is not None:
        lower, upper = _near(lower, upper, rate_limit)
    for index, value in fixed.items():
        if not 0 <= index < lower.size or not lower[index] <= value <= upper[index]:
            allowed = (
                f"between {lower[index]} and {upper[index]}"
                if 0 <= index < lower.size
                else f"a position from 0 to {lower.size - 1}"
            )
            raise ConfigError(f"fixed feature {index}={value} is not usable; it must be {allowed}.")
        lower[index] = upper[index] = value
    return lower, upper


def _near(
    lower: np.ndarray, upper: np.ndarray, rate_limit: tuple[Any, Any]
) -> tuple[np.ndarray, np.ndarray]:
    now, change = (np.asarray(v, float) for v in rate_limit)
    change = np.broadcast_to(change, now.shape)
    if now.shape != lower.shape or not np.isfinite(now).all() or not (change >= 0).all():
        raise ConfigError(
            f"rate_limit of read-back {now.tolist()} and largest change {change.tolist()} was "
            f"given; both need {lower.size} numbers, finite, and the change not below zero."
        )
    low, high = np.maximum(lower, now - change), np.minimum(upper, now + change)
    bad = np.flatnonzero(low > high)
    if bad.size:
        k = int(bad[0])
        raise ConfigError(
            f"set-point {k} was read back as {now[k]} and may change by {change[k]}, but its "
            f"bounds are {lower[k]} to {upper[k]}: no step reaches them. Allow a larger change "
            "or bring the set-point back first."
        )
    return low, high
