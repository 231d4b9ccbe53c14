"""Sobol's indices: shares of an output's variance, by inputs alone, with others, and by pairs.

Samples and estimators are those of SALib, which is what people compare with, so that the same
samples give the same values: rows A, A with one column of B, (B with one column of A,) B of a
scrambled Sobol sequence in twice as many dimensions;

    S_j  = mean(B (AB_j - A)) / var        T_j = mean((A - AB_j)^2) / (2 var)
    S_jk = mean(BA_j AB_k - A B) / var - S_j - S_k

with outputs counted from their mean over all rows and the variance over A and B. The samples are
SciPy's, which SALib's are too. SALib itself lays out all rows at once and evaluates one output at a
time; here they stream by, all outputs and times at once, and only sums are kept.

Reference:
    Saltelli et al. (2010), Comput. Phys. Commun. 181, 259; Saltelli (2002), ibid. 145, 280;
    Herman and Usher (2017), SALib, J. Open Source Softw. 2(9), 97.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from perfusio_jax._core import ConfigError, Result
from perfusio_jax._core.programs import compiled
from perfusio_jax._core.progress import compiling
from perfusio_jax.study.sensitivity.laws import Laws, from_unit
from perfusio_jax.study.sensitivity.streaming import (
    Blocks,
    Chunk,
    Lost,
    Model,
    chunk_size,
    count_codes,
    half_widths,
    n_outputs,
    streamed,
)

_NO_SPREAD = 1e-24
"""Variance over the mean's square below which an output is constant."""


class SobolIndices(NamedTuple):
    """Indices of every output `O` by every input `P`; NaN for an output that does not vary."""

    mean: Float[np.ndarray, " O"]
    """Mean of the outputs."""
    sd: Float[np.ndarray, " O"]
    """Their standard deviation."""
    first: Float[np.ndarray, "O P"]
    """Share of the variance that an input makes alone [-]."""
    total: Float[np.ndarray, "O P"]
    """Share that would be left if only it varied, interactions included [-]."""
    second: Float[np.ndarray, "O P P"] | None
    """Share that a pair makes beyond its two parts [-], above the diagonal; None if not asked."""
    first_half_width: Float[np.ndarray, "O P"]
    """Half-width of the first-order indices' intervals [-]."""
    total_half_width: Float[np.ndarray, "O P"]
    """Of the total ones."""
    second_half_width: Float[np.ndarray, "O P P"] | None
    """Of the second-order ones."""
    change: Float[np.ndarray, " O"]
    """Largest difference of a total index between the first half of the samples and all [-]."""
    lost: Lost
    """Runs that failed."""


def sobol_samples(n: int, n_inputs: int, seed: int, chunk: int) -> Iterator[np.ndarray]:
    """Points of the unit cube `(chunk, 2 P)`, `n` in all: the first half of the columns is A's.

    Args:
        n: Base samples, a power of two.
        n_inputs: Number of inputs.
        seed: Of the scrambling.
        chunk: Points at a time.
    """
    from scipy.stats import qmc

    source = qmc.Sobol(2 * n_inputs, scramble=True, rng=np.random.default_rng(seed))
    for _ in range(n // chunk):
        yield source.random(chunk)


def cross_sampled(points: Float[Array, "b 2P"], is_second: bool) -> Float[Array, "b R P"]:
    """Rows of each base sample: A, AB_1..P, BA_1..P if asked for, B."""
    n_inputs = points.shape[1] // 2
    a, b = points[:, None, :n_inputs], points[:, None, n_inputs:]
    is_other = jnp.eye(n_inputs, dtype=bool)[None]
    rows = [a, jnp.where(is_other, b, a)]
    rows += [jnp.where(is_other, a, b)] if is_second else []
    return jnp.concatenate([*rows, b], axis=1)


def sobol_indices(
    model: Model,
    laws: Laws,
    n: int = 1024,
    *,
    seed: int = 0,
    is_second: bool = False,
    n_resamples: int = 100,
    level: float = 0.95,
) -> SobolIndices:
    """Sobol's indices of all outputs of a model, in one pass.

    Args:
        model: What is looked at; see `streaming.Model`.
        laws: How uncertain its inputs are; independent of each other.
        n: Base samples, a power of two; `n (P + 2)` runs are made, `n (2 P + 2)` with pairs.
        seed: Of the samples and of the resampling.
        is_second: Whether pairs are asked for.
        n_resamples: How often blocks are drawn for the intervals.
        level: What the intervals are to cover [-].

    Returns:
        Indices. A base sample of which a run failed is left out of all outputs, and counted.

    Raises:
        ConfigError: If the number of samples is no power of two.
        SimulationError: If nothing is left.
    """
    if n < 4 or n & (n - 1):
        near = 2 ** max(2, round(np.log2(max(n, 4))))
        raise ConfigError(
            f"{n} samples; a Sobol sequence is even at powers of two only. The nearest is {near}."
        )
    n_inputs = int(laws.a.size)
    rows = (2 * n_inputs if is_second else n_inputs) + 2
    size = chunk_size(n, rows)

    # outputs are counted from near their mean, or differences of large sums would lose digits
    begin = jnp.asarray(next(sobol_samples(n, n_inputs, seed, size)))
    begun = _summed(model, laws, begin, jnp.zeros(n_outputs(model, n_inputs)), is_second)
    count = np.maximum(float(begun.n_used) * rows, 1.0)
    centre = jnp.asarray(np.asarray(begun.sums["all"]) / count)

    def add(points: np.ndarray) -> Chunk:
        return _summed(model, laws, jnp.asarray(points), centre, is_second)

    blocks = streamed(
        add,
        sobol_samples(n, n_inputs, seed, size),
        n // size,
        n_samples=n,
        rows_per_sample=rows,
    )
    mean, sd, *found = _estimate(*blocks.total(), rows)
    half = _first_half(blocks, rows)
    change = np.max(np.abs(found[1] - half), axis=1)
    widths = half_widths(
        blocks,
        lambda sums, used: _estimate(sums, used, rows)[2:],
        n_resamples=n_resamples,
        level=level,
        seed=seed,
    )
    return SobolIndices(
        mean=mean + np.asarray(centre),
        sd=sd,
        first=found[0],
        total=found[1],
        second=found[2] if is_second else None,
        first_half_width=widths[0],
        total_half_width=widths[1],
        second_half_width=widths[2] if is_second else None,
        change=change,
        lost=blocks.lost,
    )


@compiled
def _summed(
    model: Any, laws: Laws, points: Float[Array, "b 2P"], centre: Array, is_second: bool
) -> Chunk:
    """What one chunk adds to the sums, by output."""
    compiling("the runs of a global sensitivity analysis")
    size, n_inputs = points.shape[0], points.shape[1] // 2
    rows = cross_sampled(points, is_second)
    n_rows = rows.shape[1]
    y, codes = model(from_unit(laws, rows.reshape(size * n_rows, n_inputs)))
    codes = jnp.where(
        (codes == 0) & ~jnp.all(jnp.isfinite(y), axis=-1), Result.NONFINITE.value, codes
    )
    is_good = (codes == 0).reshape(size, n_rows)
    is_used = jnp.all(is_good, axis=1)
    y = y.reshape(size, n_rows, -1) - centre[None, None]
    y = jnp.where(is_used[:, None, None], y, 0.0)
    a, b, ab = y[:, 0], y[:, -1], y[:, 1 : n_inputs + 1]
    sums = {
        "all": jnp.sum(y, axis=(0, 1)),
        "a": jnp.sum(a, axis=0),
        "squares": jnp.sum(a * a + b * b, axis=0),
        "a_and_b": jnp.sum(a + b, axis=0),
        "product": jnp.sum(a * b, axis=0),
        "ab": jnp.sum(ab, axis=0).T,
        "b_ab": jnp.einsum("no,njo->oj", b, ab),
        "gap": jnp.sum((a[:, None] - ab) ** 2, axis=0).T,
    }
    if is_second:
        ba = y[:, n_inputs + 1 : 2 * n_inputs + 1]
        sums["ba"] = jnp.sum(ba, axis=0).T
        sums["b"] = jnp.sum(b, axis=0)
        sums["ba_ab"] = jnp.einsum("njo,nko->ojk", ba, ab)
    return Chunk(sums, jnp.sum(is_used), count_codes(codes))


def _estimate(sums: dict[str, np.ndarray], n: float, rows: int) -> list[np.ndarray]:
    """Mean and deviation, then first, total and, if there are, second-order indices."""
    middle = sums["all"] / (n * rows)
    mean = sums["a_and_b"] / (2.0 * n)
    variance = sums["squares"] / (2.0 * n) - mean**2
    size = np.maximum(sums["squares"] / (2.0 * n), middle**2)
    varies = variance > _NO_SPREAD * size
    per = 1.0 / np.where(varies, variance, np.nan)
    m = middle[:, None]
    alone = (sums["b_ab"] - sums["product"][:, None]) - m * (sums["ab"] - sums["a"][:, None])
    first = alone / n * per[:, None]
    total = 0.5 * sums["gap"] / n * per[:, None]
    found = [mean, np.sqrt(np.where(varies, variance, 0.0)), first, total]
    if "ba_ab" in sums:
        both = sums["ba_ab"] - m[..., None] * (sums["ba"][:, :, None] + sums["ab"][:, None, :])
        plain = sums["product"] - middle * (sums["a"] + sums["b"])
        pair = (both - plain[:, None, None]) / n * per[:, None, None]
        pair = pair - first[:, :, None] - first[:, None, :]
        above = np.triu(np.ones(pair.shape[1:], bool), 1)
        found.append(np.where(above[None], pair, np.nan))
    return found


def _first_half(blocks: Blocks, rows: int) -> np.ndarray:
    """Total indices from the first half of the blocks."""
    n = blocks.n_used.size
    weights = (np.arange(n) < max(n // 2, 1)).astype(float)
    sums, used = blocks.total(weights)
    return _estimate(sums, max(used, 1.0), rows)[3]
