"""Exact measurement noise of finite differences: neighbouring rates share a sample.

The rate of an interval is made of the samples at its two ends,

    rate_i = b_i c_end - a_i c_start,    noise_i = b_i e_end - a_i e_start,

and the sample that ends one interval starts the next. Along a run the noise is therefore
tridiagonal, `cov(noise_i, noise_(i-1)) = -a_i b_(i-1) var(e)`, not diagonal. It stays
separable over rows and tasks, so complete targets keep the Kronecker form.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from perfusio_jax._core import DataError


class SharedSamples(eqx.Module):
    """Noise of rows that share samples, relative to the learned noise of a task."""

    start_sd: Float[Array, " N"]
    """Contribution of the sample at the start, `a sd(e_start)` [-]."""
    end_sd: Float[Array, " N"]
    """Contribution of the sample at the end, `b sd(e_end)` [-]."""
    previous: Int[Array, " N"]
    """Row that ends with the sample this one starts with; -1 if none does."""
    run: Int[Array, " N"]
    """Run of each row; -1 in padding rows."""
    is_continued: Bool[Array, " N"]
    """Whether a row starts with the sample its run's row before ended with, if there is one; false
    after a gap. Kept for the first row of a run too: rows of the run may be put before it."""

    @property
    def variance(self) -> Float[Array, " N"]:
        """Noise variance per row [-]."""
        return self.start_sd**2 + self.end_sd**2

    def matrix(self) -> Float[Array, "N N"]:
        """Covariance of the noise over rows, as if all of them had targets [-]."""
        before = jnp.maximum(self.previous, 0)
        shared = jnp.where(self.previous >= 0, -self.start_sd * self.end_sd[before], 0.0)
        rows = jnp.arange(self.start_sd.shape[0])
        lower = jnp.zeros((rows.size, rows.size), self.start_sd.dtype).at[rows, before].add(shared)
        return jnp.diag(self.variance) + lower + lower.T


def finite_difference_noise(
    run_ids: Int[ArrayLike, " N"],
    *,
    start_sd: float | Float[ArrayLike, " N"] = 0.5**0.5,
    end_sd: float | Float[ArrayLike, " N"] = 0.5**0.5,
    is_continued: Int[ArrayLike, " N"] | None = None,
) -> SharedSamples:
    """Noise of rates that are differences of neighbouring samples.

    Args:
        run_ids: Run of each row, whole numbers from 0; the rows of a run in order of time,
            not necessarily next to each other.
        start_sd: `a sd(e_start)` per row, relative to the typical noise [-]; by default both
            ends contribute the same, as in an Euler difference of equally good samples.
        end_sd: `b sd(e_end)` per row [-].
        is_continued: Rows that start with the sample the run's row before ended with; false
            after a gap. All of them by default.

    Returns:
        The noise, to be handed in as `row_noise`.

    Raises:
        DataError: If sizes differ, a run is not a whole number from 0, or a spread is not
            above zero.
    """
    runs = np.asarray(run_ids)
    if runs.ndim != 1 or not np.all(runs == np.round(runs)) or np.any(runs < 0):
        raise DataError("run_ids must hold one whole number from 0 for each row.")
    try:
        start, end = (np.broadcast_to(np.asarray(v, float), runs.shape) for v in (start_sd, end_sd))
        follows = np.ones(runs.shape, bool) if is_continued is None else np.asarray(is_continued)
        follows = np.broadcast_to(follows.astype(bool), runs.shape)
    except ValueError:
        raise DataError(
            f"{runs.shape[0]} rows were given with other numbers of spreads or gaps."
        ) from None
    if not np.all(np.isfinite(start) & np.isfinite(end) & (start > 0) & (end > 0)):
        raise DataError("the spreads of finite differences must be finite and above zero.")
    return SharedSamples(
        start_sd=jnp.asarray(start),
        end_sd=jnp.asarray(end),
        previous=jnp.asarray(link(runs.astype(int), follows)),
        run=jnp.asarray(runs.astype(int)),
        is_continued=jnp.asarray(follows),
    )


def link(runs: np.ndarray, follows: np.ndarray) -> np.ndarray:
    """Row before each row in its run; -1 for the first, after a gap, and for run -1.

    Args:
        runs: Run per row; -1 for none.
        follows: Whether a row starts with the sample its predecessor ended with.

    Returns:
        Row numbers.
    """
    previous = np.full(runs.shape, -1)
    last: dict[int, int] = {}
    for row, run in enumerate(runs.tolist()):
        if run >= 0:
            previous[row] = last.get(run, -1) if follows[row] else -1
            last[run] = row
    return previous


def joined(one: SharedSamples, two: SharedSamples) -> SharedSamples:
    """Two tables' noise one after the other; runs of the second continue those of the first.

    Args:
        one: Earlier rows.
        two: Later rows; the first of a run follows the last of that run in `one`, unless it is
            said to come after a gap.

    Returns:
        Noise of all rows.
    """
    runs = np.concatenate([np.asarray(one.run), np.asarray(two.run)])
    follows = np.concatenate([np.asarray(one.is_continued), np.asarray(two.is_continued)])
    return SharedSamples(
        start_sd=jnp.concatenate([one.start_sd, two.start_sd]),
        end_sd=jnp.concatenate([one.end_sd, two.end_sd]),
        previous=jnp.asarray(link(runs, follows)),
        run=jnp.asarray(runs),
        is_continued=jnp.asarray(follows),
    )


def selected(noise: SharedSamples, rows: Int[np.ndarray, " M"]) -> SharedSamples:
    """Noise of some of the rows; what was shared with a row left out is shared no more.

    Args:
        noise: Noise of all rows.
        rows: Row numbers to keep, those of a run in their order.

    Returns:
        Noise of those rows, numbered anew.
    """
    previous, follows = np.asarray(noise.previous), np.asarray(noise.is_continued)
    is_kept = np.isin(np.arange(previous.size), rows)
    follows = (follows & ((previous < 0) | is_kept[previous]))[rows]
    runs = np.asarray(noise.run)[rows]
    return SharedSamples(
        start_sd=noise.start_sd[rows],
        end_sd=noise.end_sd[rows],
        previous=jnp.asarray(link(runs, follows)),
        run=jnp.asarray(runs),
        is_continued=jnp.asarray(follows),
    )


def padded(noise: SharedSamples, size: int) -> SharedSamples:
    """The same noise with padding rows of unit variance behind.

    Args:
        noise: Noise of N rows.
        size: Rows wanted, at least N.

    Returns:
        Noise of `size` rows.
    """
    extra = size - noise.run.shape[0]
    half = np.sqrt(0.5)
    return SharedSamples(
        start_sd=jnp.pad(noise.start_sd, (0, extra), constant_values=half),
        end_sd=jnp.pad(noise.end_sd, (0, extra), constant_values=half),
        previous=jnp.pad(noise.previous, (0, extra), constant_values=-1),
        run=jnp.pad(noise.run, (0, extra), constant_values=-1),
        is_continued=jnp.pad(noise.is_continued, (0, extra)),
    )
