"""One pass over many runs in bounded memory: sums by block, and intervals from the blocks.

Base samples come in chunks of one size, so that one program serves all of them; chunks are spread
over the cores and added up in their order, so that the sums are the same on any machine. Every sum
is kept for each of some 64 blocks of consecutive samples. A bootstrap that draws whole blocks costs
nothing then, however many outputs there are; and as consecutive Sobol points are even among
themselves, it does not take their evenness for luck.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from perfusio_jax._core import ConfigError, Result, SimulationError
from perfusio_jax._core.progress import tell
from perfusio_jax._core.results import describe

N_BLOCKS = 64
"""Most blocks that sums are kept for."""
ROWS = 512
"""Runs side by side: enough to amortise a pass of the integrator, few enough for the cache."""

Evaluated = tuple[Float[Array, "B O"], Int[Array, " B"]]
Model = Callable[[Float[Array, "B P"]], Evaluated]
"""Rows of inputs to outputs and result codes, 0 where a row is good; for `jit`. What is not finite
counts as failed, whatever its code."""


class Lost(NamedTuple):
    """What could not be used."""

    n_runs: int
    """Runs made."""
    n_failed: int
    """Runs that failed."""
    by_code: dict[int, int]
    """How many, by result code."""
    n_samples: int
    """Base samples asked for."""
    n_left_out: int
    """Base samples left out, because a run of theirs failed."""

    def lines(self) -> list[str]:
        """In words; empty if nothing was lost."""
        if not self.n_failed:
            return []
        causes = "; ".join(f"{n} times {describe(code)}" for code, n in self.by_code.items())
        return [
            f"{self.n_failed} of {self.n_runs} runs failed ({causes}) With them "
            f"{self.n_left_out} of {self.n_samples} samples were left out: what is said holds "
            "where the culture can be run."
        ]


class Chunk(NamedTuple):
    """What one chunk adds."""

    sums: Any
    """Sums over its samples; a tree of arrays."""
    n_used: Int[Array, ""]
    """Samples in them."""
    codes: Int[Array, " C"]
    """How many rows ended with each result code."""


class Blocks(NamedTuple):
    """Sums of all blocks."""

    sums: Any
    """The same tree, a leading axis of blocks."""
    n_used: Float[np.ndarray, " G"]
    """Samples in each block."""
    lost: Lost

    def total(self, weights: np.ndarray | None = None) -> tuple[Any, float]:
        """Sums over blocks that count as often as the weights say, and how many samples."""
        w = np.ones(self.n_used.size) if weights is None else weights
        add = lambda v: np.tensordot(w, v, axes=1)  # noqa: E731
        return jax.tree.map(add, self.sums), float(w @ self.n_used)


def chunk_size(n: int, rows_per_sample: int) -> int:
    """Base samples in a chunk: a power of two, about `ROWS` runs, at least `N_BLOCKS` chunks."""
    size = 1
    while size * 2 * rows_per_sample <= ROWS and size * 2 * min(N_BLOCKS, n) <= n:
        size *= 2
    return size


def n_outputs(model: Model, n_inputs: int) -> int:
    """How many outputs a model has; nothing is computed for it."""
    like = jax.ShapeDtypeStruct((1, n_inputs), jnp.result_type(float))
    return int(eqx.filter_eval_shape(model, like)[0].shape[-1])


def count_codes(codes: Int[Array, " B"]) -> Int[Array, " C"]:
    """How many rows ended with each result code; traced."""
    kinds = jnp.arange(len(Result))
    return jnp.sum(codes[None] == kinds[:, None], axis=1)


def streamed(
    add: Callable[[Any], Chunk],
    chunks: Iterator[Any],
    n_chunks: int,
    *,
    n_samples: int,
    rows_per_sample: int,
) -> Blocks:
    """Sums of all chunks by block.

    Args:
        add: What one chunk adds; called from several threads.
        chunks: What it is given, chunk by chunk; made as they are needed.
        n_chunks: How many there are.
        n_samples: Base samples in all of them.
        rows_per_sample: Runs of each.

    Raises:
        SimulationError: If nothing can be used.
    """
    n_blocks = min(N_BLOCKS, n_chunks)
    sums: Any = None
    used = np.zeros(n_blocks)
    codes = np.zeros(len(Result), int)
    said = 0
    for k, chunk in enumerate(_in_order(add, chunks)):
        part = jax.tree.map(np.asarray, chunk.sums)
        if sums is None:
            sums = jax.tree.map(lambda v: np.zeros((n_blocks, *v.shape)), part)
        block = k * n_blocks // n_chunks
        for whole, new in zip(jax.tree.leaves(sums), jax.tree.leaves(part), strict=True):
            whole[block] += new
        used[block] += int(chunk.n_used)
        codes += np.asarray(chunk.codes)
        tenth = 10 * (k + 1) // n_chunks
        if tenth > said:
            said = tenth
            tell(f"{10 * tenth} % of {n_samples * rows_per_sample} runs")
    lost = Lost(
        n_samples * rows_per_sample,
        int(codes[1:].sum()),
        {c: int(n) for c, n in enumerate(codes) if c and n},
        n_samples,
        n_samples - int(used.sum()),
    )
    if used.sum() < 2:
        raise SimulationError(
            f"nothing can be said: hardly a sample of {n_samples} has all its runs. "
            f"{' '.join(lost.lines())} Narrow the ranges."
        )
    return Blocks(sums, used, lost)


def _in_order(add: Callable[[Any], Chunk], chunks: Iterator[Any]) -> Iterator[Chunk]:
    """Results in the order of the chunks, a few ahead of who takes them."""
    first = next(chunks)
    yield jax.block_until_ready(add(first))  # compiles once, not in every thread
    workers = (os.cpu_count() or 1) if jax.default_backend() == "cpu" else 1
    is_x64 = jax.config.read("jax_enable_x64")
    with ThreadPoolExecutor(workers) as pool:
        # settings made by a context manager end at the thread's border
        if pool.submit(jax.config.read, "jax_enable_x64").result() != is_x64:
            yield from map(add, chunks)
            return
        waiting: list[Future[Chunk]] = []
        for chunk in chunks:
            waiting.append(pool.submit(lambda c: jax.block_until_ready(add(c)), chunk))
            if len(waiting) > 2 * workers:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()


def half_widths(
    blocks: Blocks,
    estimate: Callable[[Any, float], Sequence[np.ndarray]],
    *,
    n_resamples: int,
    level: float,
    seed: int,
) -> list[np.ndarray]:
    """Half-widths of intervals: a normal's, by the spread of estimates over resampled blocks.

    Args:
        blocks: The sums.
        estimate: Arrays from sums and a number of samples.
        n_resamples: How often blocks are drawn.
        level: What the intervals are to cover [-].
        seed: Of the draws.

    Returns:
        One array for each of the estimate's; NaN where there are too few blocks.

    Raises:
        ConfigError: If the level is no probability, or there are fewer than two resamples.
    """
    from scipy.special import ndtri

    if not 0.0 < level < 1.0 or n_resamples < 2:
        raise ConfigError(
            f"intervals of {level:g} from {n_resamples} resamples; a level between 0 and 1 and two "
            "resamples or more are needed."
        )
    rng = np.random.default_rng(seed)
    full = blocks.n_used > 0
    n = int(full.sum())
    mean: list[np.ndarray] = []
    spread: list[np.ndarray] = []
    for k in range(n_resamples):
        weights = np.zeros(full.size)
        weights[full] = rng.multinomial(n, np.full(n, 1.0 / n))
        for i, value in enumerate(estimate(*blocks.total(weights))):
            if k == 0:
                mean.append(value)
                spread.append(np.zeros_like(value))
            else:  # Welford's running moments: no resample is kept
                away = value - mean[i]
                mean[i] = mean[i] + away / (k + 1)
                spread[i] += away * (value - mean[i])
    if n < 4:
        return [np.full_like(v, np.nan) for v in mean]
    # n blocks drawn n times spread by (n - 1) / n of what n blocks do
    factor = float(ndtri(0.5 + 0.5 * level)) * np.sqrt(n / (n - 1.0) / (n_resamples - 1.0))
    return [factor * np.sqrt(v) for v in spread]
