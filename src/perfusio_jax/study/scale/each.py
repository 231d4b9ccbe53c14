"""Lanes one by one, computed on one device or many."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from perfusio_jax._core import ConfigError
from perfusio_jax._core.devices import Device

from .job import prepare, run_blocks
from .lanes import Lanes
from .spread import LANES_AT_ONCE, Step


class Each(NamedTuple):
    """Every lane."""

    names: tuple[str, ...]
    """The outputs."""
    values: Float[np.ndarray, "N O"]
    """Their values; NaN where a lane failed."""
    result: Int[np.ndarray, " N"]
    """Result codes."""


def each_lane(
    lanes: Lanes,
    n: int,
    *,
    seed: int = 0,
    devices: int | Sequence[Device] | None = None,
    rows: int = LANES_AT_ONCE,
) -> Each:
    """Make lanes and keep them all.

    A lane is the same to the last bit on one device and on many.

    Args:
        lanes: What is made; see `given_runs`, `random_runs` and `hybrid_paths`.
        n: How many.
        seed: Of all random numbers, if any are drawn.
        devices: How many of this process, or which; all of this process if None.
        rows: Lanes that a device computes at once.

    Returns:
        Their outputs and codes, in their order.

    Raises:
        ConfigError: If a size or the devices cannot be used, or devices are those of several
            processes: no process would see all lanes.
    """
    job = prepare(
        lanes, n, devices=jax.local_devices() if devices is None else devices, rows=rows, bits=0,
        is_kept=True,
    )  # fmt: skip
    if len({d.process_index for d in job.mesh.devices.flat}) > 1:
        raise ConfigError(
            "the lanes of several processes are asked for one by one; ask each process for its own "
            "rows, or `stream` for what all of them come to."
        )
    values = np.full((job.n_blocks * rows, job.shape.n_outputs), np.nan)
    result = np.zeros(job.n_blocks * rows, np.int64)

    def take(block: int, part: Step) -> None:
        if part.lanes is not None:
            found, codes = part.lanes
            at = slice(block * rows, (block + 1) * rows)
            values[at] = np.where(codes[:, None] == 0, found, np.nan)
            result[at] = codes

    run_blocks(job, seed, take)
    return Each(job.names, values[:n], result[:n])
