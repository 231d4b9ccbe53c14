"""A twin as a program: `python -m tests.faults.process FOLDER DAYS`, to be killed at will.

The device is a file beside the run folder: one line per write, the last one in force.
"""

import asyncio
import json
import os
import sys
from pathlib import Path

from perfusio_jax.connectors.base import BioreactorConnectorBase
from perfusio_jax.twin import LoopSettings, ReactorLoop, system_runtime
from perfusio_jax.twin.records.run_files import open_run

from .plant import BOUNDS, LEVELS, START, STATE_ORDER
from .thinking import LightBrain
from .world import LIMITS


class FileDevice(BioreactorConnectorBase):
    """Set-points in a file; samples out of thin air, the same every time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def is_alive(self) -> bool:
        return True

    async def read_sample(self, day):
        return {n: v * (1.0 + 0.01 * day) for n, v in zip(STATE_ORDER, LEVELS, strict=True)}

    async def write_setpoints(self, setpoints) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(setpoints) + "\n")
            file.flush()
            os.fsync(file.fileno())

    async def read_setpoints(self):
        known = dict(START)
        if self.path.exists():
            for line in self.path.read_text().splitlines():
                known.update(json.loads(line))
        return known


def main(folder: Path, n_days: int) -> None:
    runtime = system_runtime()
    files = open_run(folder / "run", run_id="killed", runtime=runtime, may_write=True)
    loop = ReactorLoop(
        FileDevice(folder / "device.jsonl"),
        LightBrain(lambda day: ""),
        folder=None,
        records=files.records,
        audit=files.audit,
        limits=LIMITS,
        settings=LoopSettings(
            allow_write=True,
            initial_controls=dict(START),
            species_bounds=BOUNDS,
            poll_seconds=0.1,
            patience_seconds=5.0,
            beat_seconds=0.05,
        ),
        runtime=runtime,
    )
    loop.take_lease("killed", force=True)
    print("ready", flush=True)
    asyncio.run(loop.run(n_days))
    loop.release_lease()
    files.close()
    print("done", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
