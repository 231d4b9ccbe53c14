"""Quantiles of a stream, from counts that add up in any order.

A value falls into a bucket by its sign, its exponent and the first bits of its mantissa, as
DDSketch's logarithms would have it but without a logarithm, and so the same on every device. What
is kept are counts: sketches of two devices, processes or machines merge by adding whole numbers,
and the merged sketch is bit for bit that of one pass over everything. Sketches with smaller errors
in rank (KLL, t-digest) draw random numbers or depend on the order of merging, which would make the
answer depend on the number of devices.

Error: with `bits` bits of the mantissa a quantile is within a factor `1 +- 2**-(bits + 1)` of the
value of that rank (0.4 % with 7 bits), for any distribution; values nearer to zero than `2**-40`
count as zero.

Reference:
    Masson, Rim, Lee (2019), DDSketch, for the guarantee on the value instead of the rank.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from perfusio_jax._core import ConfigError

BITS = 7
"""Bits of the mantissa that are kept, if nobody says otherwise."""
SMALLEST, LARGEST = -40, 56
"""Exponents of two between which values are told apart: 1e-12 to 7e16."""
_MANTISSA, _BIAS = 23, 127


def check_bits(bits: int) -> None:
    """Refuse a resolution that no sketch has.

    Raises:
        ConfigError: If it is outside 1 to 14.
    """
    if not 1 <= bits <= 14:
        raise ConfigError(
            f"a sketch of {bits} bits; 1 to 14 are possible. 7 keep quantiles to 0.4 %, each "
            "further one halves the error and doubles the memory."
        )


def n_buckets(bits: int) -> int:
    """Buckets of one sketch: both signs, zero, and one beyond the range at either end."""
    return 2 * (_n_signed(bits) + 1) + 1


def relative_error(bits: int) -> float:
    """Bound on the relative error of a quantile [-]; the last term is of 32-bit rounding."""
    return 2.0 ** -(bits + 1) + 2.0**-24


def empty(n_outputs: int, bits: int) -> Int[np.ndarray, "O K"]:
    """A sketch of nothing, one row for each output."""
    return np.zeros((n_outputs, n_buckets(bits)), np.int32)


def bucket_of(values: Float[Array, "..."], bits: int) -> Int[Array, "..."]:
    """Bucket of each value, rising with the value; traced. Of what is not finite it is any."""
    word = jax.lax.bitcast_convert_type(jnp.asarray(jnp.abs(values), jnp.float32), jnp.int32)
    code = (word >> (_MANTISSA - bits)) - ((SMALLEST + _BIAS) << bits)
    code = jnp.clip(code, -1, _n_signed(bits)) + 1
    middle = _n_signed(bits) + 1
    return jnp.where(values < 0, middle - code, middle + code)


def added(
    counts: Int[Array, "O K"],
    values: Float[Array, "B O"],
    is_used: Bool[Array, " B"],
    bits: int,
) -> Int[Array, "O K"]:
    """Counts with the rows that are used counted in; traced."""
    size = counts.shape[1]
    bucket = jnp.where(is_used[:, None], bucket_of(values, bits), size)
    output = jnp.broadcast_to(jnp.arange(counts.shape[0])[None], bucket.shape)
    return counts.at[output, bucket].add(1, mode="drop")


def quantiles(
    counts: Int[np.ndarray, "O K"], levels: tuple[float, ...], bits: int
) -> Float[np.ndarray, "L O"]:
    """Quantiles of what was counted.

    Args:
        counts: The sketch.
        levels: Shares of the values [-].
        bits: Its resolution.

    Returns:
        For each level the value of the smallest rank that reaches it (NumPy's `inverted_cdf`),
        within `relative_error(bits)`; infinite where that value is beyond the range, NaN where
        nothing was counted.
    """
    counts = np.asarray(counts, np.int64)
    total = np.cumsum(counts, axis=1)
    found = np.full((len(levels), counts.shape[0]), np.nan)
    middles = _middles(bits)
    for k, level in enumerate(levels):
        for output, rising in enumerate(total):
            n = int(rising[-1])
            if n:
                # rounded up to a rank, but not past one that it misses by rounding only
                rank = min(max(1, int(np.ceil(level * n * (1.0 - 1e-15)))), n)
                found[k, output] = middles[np.searchsorted(rising, rank)]
    return found


def _n_signed(bits: int) -> int:
    return (LARGEST - SMALLEST) << bits


def _middles(bits: int) -> Float[np.ndarray, " K"]:
    """What stands for each bucket: where both ends are the same factor away."""
    edges = np.arange(_n_signed(bits) + 1)
    lower = (1.0 + (edges & ((1 << bits) - 1)) * 2.0**-bits) * 2.0 ** ((edges >> bits) + SMALLEST)
    a, b = lower[:-1], lower[1:]
    positive = np.append(2.0 * a * b / (a + b), np.inf)
    return np.concatenate([-positive[::-1], [0.0], positive])
