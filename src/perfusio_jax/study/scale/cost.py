"""What a job will take, told before it starts: a small timed part, and what the compiler counts."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from .job import Job
from .spread import empty_counts, everywhere, one_each

_TIMED = 3
"""Steps that are timed; the fastest says least of what else the machine does, the rest how sure
that is."""
Clock = Callable[[], float]
"""Seconds since some moment; `time.perf_counter` of a caller outside the pure rooms."""


class Cost(NamedTuple):
    """Time and memory of a job."""

    n: int
    """Lanes."""
    n_devices: int
    n_steps: int
    """Blocks that the busiest device computes."""
    step_s: float
    """Middle time of a step on all devices [s]."""
    spread_s: float
    """Slowest less fastest of the timed steps [s]."""
    device_bytes: int
    """What the compiled step holds on each device: arrays, counts, results, working space [B]."""
    host_bytes: int
    """What is added up on the host [B]."""
    pass_flops: float
    """Arithmetic of a block as the compiler counts it; a loop of unknown length counts once."""
    pass_bytes: float
    """Memory traffic of a block, counted so [B]."""
    idle: float
    """Share of the devices' time for which there is no block [-]."""

    @property
    def seconds(self) -> float:
        """Time of the job [s]."""
        return self.n_steps * self.step_s

    @property
    def bytes(self) -> int:
        """Memory of the job beside what the process holds already, that of all devices [B]."""
        return self.n_devices * self.device_bytes + self.host_bytes

    def lines(self) -> list[str]:
        """In words."""
        give = self.n_steps * self.spread_s / 2.0
        said = [
            f"{self.n} lanes on {self.n_devices} device(s): {self.n_steps} steps of "
            f"{self.step_s:.3g} s, {_time(self.seconds)} +- {_time(give)}; "
            f"{self.bytes / 2**20:.0f} MiB, however many lanes"
        ]
        if self.idle > 0.1:
            said.append(
                f"{100.0 * self.idle:.0f} % of the devices' time has no block; fewer lanes at once "
                "or fewer devices would lose less"
            )
        return said


def foresee(job: Job, *, clock: Clock) -> Cost:
    """Time a few steps of a job, and add what the compiler says of it.

    Args:
        job: From `prepare`.
        clock: What tells seconds.

    Returns:
        Its cost. Lanes that take longer than those of the first blocks are not seen.
    """
    seed, n = everywhere(job.mesh, (np.uint32(0), np.int32(job.n)))
    counts = empty_counts(job.mesh, job.shape)
    times = []
    for step in range(_TIMED + 1):  # the first one warms up
        blocks = one_each(job.mesh, job.blocks(min(step, job.n_steps - 1)))
        begun = clock()
        done, counts = job.program(job.arrays, seed, blocks, n, counts)
        jax.block_until_ready((done, counts))
        times.append(clock() - begun)
    analysis = _first(job.program.cost_analysis())
    memory = job.program.memory_analysis()
    sketches = int(np.prod(counts.shape[1:])) * 8
    outputs = job.shape.n_outputs * 8 * 4
    waiting = 2 * int(np.ceil(np.log2(job.n_blocks + 1))) + 4
    return Cost(
        n=job.n,
        n_devices=job.mesh.size,
        n_steps=job.n_steps,
        step_s=float(np.median(times[1:])),
        spread_s=float(np.ptp(times[1:])),
        device_bytes=_held(memory),
        host_bytes=sketches + outputs * waiting * job.mesh.size,
        pass_flops=float(analysis.get("flops", np.nan)),
        pass_bytes=float(analysis.get("bytes accessed", np.nan)),
        idle=1.0 - job.n_blocks / (job.n_steps * job.mesh.size),
    )


def _first(analysis: Any) -> dict[str, float]:
    """What the compiler counts, of the program of one device."""
    if isinstance(analysis, list | tuple):
        analysis = analysis[0] if analysis else {}
    return dict(analysis or {})


def _held(memory: Any) -> int:
    """Memory of a program on one device [B]; what is passed through in place counts once."""
    parts = ("argument", "output", "temp", "generated_code")
    sizes = [int(getattr(memory, f"{part}_size_in_bytes", 0)) for part in parts]
    return sum(sizes) - int(getattr(memory, "alias_size_in_bytes", 0))


def _time(seconds: float) -> str:
    if seconds < 120.0:
        return f"{seconds:.2g} s"
    return f"{seconds / 60.0:.3g} min" if seconds < 7200.0 else f"{seconds / 3600.0:.3g} h"
