"""A job that is compiled and knows which block each device computes when."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Int

from perfusio_jax._core import ConfigError
from perfusio_jax._core.devices import Device
from perfusio_jax._core.progress import tell

from .lanes import Lanes
from .sketch import BITS, check_bits
from .spread import (
    LANES_AT_ONCE,
    Shape,
    Step,
    check_size,
    compiled_step,
    empty_counts,
    everywhere,
    mesh_of,
    one_each,
    pieces,
)

_AHEAD = 2
"""Steps that devices may be ahead of who takes their results: one that is done early goes on with
its next block."""


class Job(NamedTuple):
    """Lanes that are ready to run."""

    program: Any
    """JAX's compiled step."""
    arrays: Any
    """What it is given besides, on every device."""
    mesh: Mesh
    """The devices."""
    shape: Shape
    """Sizes of a block."""
    n: int
    """Lanes asked for."""
    names: tuple[str, ...]
    """The outputs."""

    @property
    def n_blocks(self) -> int:
        """Blocks of all devices; the last is filled up and masked."""
        return -(-self.n // self.shape.rows)

    @property
    def n_steps(self) -> int:
        """Blocks of the busiest device."""
        return -(-self.n_blocks // self.mesh.size)

    def blocks(self, step: int) -> np.ndarray:
        """Which block each device computes in a step.

        Every device has a stretch of its own, so that what it computes merges at once. One that
        has none left is given the block past the end, of which no lane counts.
        """
        at = np.arange(self.mesh.size) * self.n_steps + step
        return np.minimum(at, self.n_blocks).astype(np.int32)


def prepare(
    lanes: Lanes,
    n: int,
    *,
    devices: int | Sequence[Device] | None = None,
    rows: int = LANES_AT_ONCE,
    bits: int = BITS,
    is_kept: bool = False,
) -> Job:
    """Compile a job, or find its program among the last few.

    Args:
        lanes: What is made.
        n: How many lanes.
        devices: How many of this process, or which; all of all processes if None.
        rows: Lanes that a device computes at once; results depend on it as on the seed.
        bits: Resolution of the quantiles, see `sketch`; 0 leaves them out.
        is_kept: Whether each step hands its lanes on, too.

    Raises:
        ConfigError: If there are not so many devices, or a size cannot be used.
    """
    check_size(n, rows)
    if lanes.n_most is not None and n > lanes.n_most:
        raise ConfigError(f"{n} lanes were asked for, and {lanes.n_most} are given.")
    if bits:
        check_bits(bits)
    mesh = mesh_of(devices)
    program, arrays, shape = compiled_step(lanes, mesh, rows, bits, is_kept)
    return Job(program, arrays, mesh, shape, n, lanes.names)


def run_blocks(job: Job, seed: int, take: Callable[[int, Step], None]) -> Int[Array, "D O K"]:
    """Run a job.

    Args:
        job: From `prepare`.
        seed: Of all random numbers.
        take: Is given the number of a block and what it adds, for every block that devices of this
            process compute.

    Returns:
        The sketches, one for each device.
    """
    numbers = everywhere(job.mesh, (np.uint32(seed % 2**32), np.int32(job.n)))
    counts = empty_counts(job.mesh, job.shape)
    waiting: deque[tuple[np.ndarray, Step]] = deque()

    def taken() -> None:
        blocks, done = waiting.popleft()
        for place, part in pieces(job.mesh, done).items():
            if blocks[place] < job.n_blocks:
                take(int(blocks[place]), part)

    said = 0
    for step in range(job.n_steps):
        blocks = job.blocks(step)
        where = one_each(job.mesh, blocks)
        done, counts = job.program(job.arrays, numbers[0], where, numbers[1], counts)
        waiting.append((blocks, done))
        if len(waiting) > _AHEAD:
            taken()
        tenth = 10 * (step + 1) // job.n_steps
        if tenth > said:
            said = tenth
            tell(f"{10 * tenth} % of {job.n} lanes")
    while waiting:
        taken()
    return counts
