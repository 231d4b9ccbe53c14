"""Statistics of any number of lanes in bounded memory, on one device or many."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from perfusio_jax._core import ConfigError, Result, SimulationError
from perfusio_jax._core.devices import Device
from perfusio_jax._core.progress import Say, tell, telling
from perfusio_jax._core.results import describe

from .cost import Clock, foresee
from .gather import from_all
from .job import Job, prepare, run_blocks
from .lanes import Lanes
from .moments import Tree
from .sketch import BITS, quantiles, relative_error
from .spread import LANES_AT_ONCE, Step, pieces

LEVELS = (0.05, 0.5, 0.95)
"""Quantiles, if nobody says which."""


class Summary(NamedTuple):
    """What lanes came to, by output."""

    names: tuple[str, ...]
    """The outputs."""
    n: int
    """Lanes made."""
    n_failed: int
    """Lanes that failed; none of their numbers is in what follows."""
    by_code: dict[int, int]
    """How many, by result code."""
    mean: Float[np.ndarray, " O"]
    """Means."""
    sd: Float[np.ndarray, " O"]
    """Standard deviations, the variance unbiased; NaN of a single lane."""
    least: Float[np.ndarray, " O"]
    """Smallest values."""
    most: Float[np.ndarray, " O"]
    """Largest values."""
    levels: tuple[float, ...]
    """Shares of the quantiles [-]."""
    quantiles: Float[np.ndarray, "L O"]
    """Values of those ranks."""
    relative_error: float
    """Bound on the relative error of a quantile [-]."""

    def lines(self) -> list[str]:
        """What was lost, in words; empty if nothing was."""
        if not self.n_failed:
            return []
        causes = "; ".join(f"{n} times {describe(code)}" for code, n in self.by_code.items())
        return [f"{self.n_failed} of {self.n} lanes failed and were left out ({causes})"]


def stream(
    lanes: Lanes,
    n: int,
    *,
    seed: int,
    devices: int | Sequence[Device] | None = None,
    rows: int = LANES_AT_ONCE,
    levels: Sequence[float] = LEVELS,
    bits: int = BITS,
    clock: Clock | None = None,
    say: Say | None = None,
) -> Summary:
    """Make lanes block by block, and keep what they come to.

    The same call serves one device, many, and the devices of several processes
    (`jax.distributed`): the numbers are the same to the last bit, in every process.

    Args:
        lanes: What is made; see `random_runs` and `hybrid_paths`.
        n: How many.
        seed: Of all random numbers.
        devices: How many of this process, or which; all of all processes if None.
        rows: Lanes that a device computes at once; results depend on it as on the seed.
        levels: Shares of the quantiles [-].
        bits: Their resolution: relative error below `2**-(bits+1)`; 0 leaves them out, and with
            them the larger part of the memory.
        clock: What tells seconds, such as `time.perf_counter`. Given one, the job's time and memory
            are said before it starts, and its time when it is done.
        say: Is called with every line that is said; `print`, for instance.

    Returns:
        The summary.

    Raises:
        ConfigError: If a size, a level or the devices cannot be used.
        SimulationError: If no lane ended well.

    Example:
        >>> from perfusio_jax.simulator import virtual_reactor
        >>> from perfusio_jax.study import cho_experiment, random_runs
        >>> run = cho_experiment(virtual_reactor(), 24.0 * np.arange(3))
        >>> seen = stream(random_runs(run, ["last VCD"], ["mu_max"]), 10, seed=1, rows=4)
        >>> seen.n, seen.n_failed, seen.names
        (10, 0, ('last VCD',))
    """
    asked = tuple(float(level) for level in levels) if bits else ()
    if any(not 0.0 <= level <= 1.0 for level in asked):
        raise ConfigError(f"quantiles at {asked}; shares from 0 to 1 are possible.")
    with telling(say):
        job = prepare(lanes, n, devices=devices, rows=rows, bits=bits)
        if clock is None:
            return run_job(job, seed, asked)
        cost = foresee(job, clock=clock)
        for line in cost.lines():
            tell(line)
        begun = clock()
        found = run_job(job, seed, asked)
        tell(f"took {clock() - begun:.3g} s; {cost.seconds:.3g} s had been foreseen")
        return found


def run_job(job: Job, seed: int, levels: tuple[float, ...]) -> Summary:
    """Run a prepared job; arguments as in `stream`."""
    tree, codes = Tree(job.shape.n_outputs), np.zeros(len(Result), np.int64)

    def take(block: int, part: Step) -> None:
        tree.add(block, part.moments)
        codes[:] += part.tally

    counts = run_blocks(job, seed, take)
    sketch = np.zeros((job.shape.n_outputs, counts.shape[-1]), np.int64)
    for part in pieces(job.mesh, counts).values():
        sketch += part
    if len({d.process_index for d in job.mesh.devices.flat}) > 1:
        others = Tree(job.shape.n_outputs)
        for nodes in from_all(tree.packed()):
            others.unpack(nodes)
        tree = others
        codes = np.sum(from_all(codes), axis=0)
        sketch = np.sum(from_all(sketch), axis=0)
    return _summary(job, tree, codes, sketch, levels)


def _summary(
    job: Job, tree: Tree, codes: np.ndarray, sketch: np.ndarray, levels: tuple[float, ...]
) -> Summary:
    whole = tree.total()
    n_used = int(whole.n)
    lost = {code: int(k) for code, k in enumerate(codes) if code and k}
    if not n_used:
        causes = "; ".join(f"{k} times {describe(code)}" for code, k in lost.items())
        raise SimulationError(f"none of {job.n} lanes ended well ({causes})")
    variance = whole.squares / (n_used - 1) if n_used > 1 else np.full_like(whole.mean, np.nan)
    found = np.zeros((0, job.shape.n_outputs))
    if levels:
        # a bucket's middle may lie beyond the outermost value in it
        found = np.clip(quantiles(sketch, levels, job.shape.bits), whole.least, whole.most)
    return Summary(
        names=job.names,
        n=job.n,
        n_failed=sum(lost.values()),
        by_code=lost,
        mean=whole.mean,
        sd=np.sqrt(variance),
        least=whole.least,
        most=whole.most,
        levels=levels,
        quantiles=found,
        relative_error=relative_error(job.shape.bits) if job.shape.bits else np.nan,
    )
