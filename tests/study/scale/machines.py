"""What devices and processes of their own compute: `python -m tests.study.scale.machines WHAT`.

A process has as many devices as it was started with, so that other numbers need other processes.
Prints one line of JSON.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax

if __name__ == "__main__" and sys.argv[1] == "member":
    # before any array is made, and importing the rooms makes some
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{sys.argv[3]}", 2, int(sys.argv[2]))

import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import Result
from perfusio_jax._core.compiler_flags import threads_for
from perfusio_jax.study import Lanes, each_lane, given_runs, stream

ROOT = Path(__file__).parents[3]
N, ROWS = 203, 8
"""26 blocks, the last of 3 lanes: no number of devices here divides them."""


class Dice(Lanes):
    """Three outputs of which the laws are known; every 50th lane fails, every 70th is no number."""

    @property
    def names(self) -> tuple[str, ...]:
        return ("normal", "lognormal", "never")

    @property
    def n_most(self) -> None:
        return None

    def block(self, key, number):
        z = jax.random.normal(key, (number.size, 2))
        # transcendental functions and a reduction: what might round as the program's shape has it
        values = jnp.stack([z[:, 0], jnp.exp(3.0 * z[:, 1]), jnp.sum(jnp.sin(z), axis=1)], axis=1)
        values = jnp.where((number % 70 == 69)[:, None], jnp.nan, values)
        return values, jnp.where(number % 50 == 49, Result.MAX_STEPS.value, 0)


def fed_rows():
    """A fed-batch of the adaptive integrator at rows of set-points."""
    from tests.study.cultures import fed_batch

    run = fed_batch()
    x = np.linspace(0.1, 0.35, 21)[:, None]
    return given_runs(run, ["last X", "max S"], ["mu_max"], x), 21


def seen(summary) -> list[str]:
    """Every number of a summary, to the last bit."""
    arrays = (summary.mean, summary.sd, summary.least, summary.most, summary.quantiles)
    found = [float(v).hex() for a in arrays for v in np.ravel(a)]
    return [*found, str(summary.n_failed), str(summary.by_code)]


def devices() -> dict:
    """The same jobs on one, three and eight devices of this process."""
    rows, n = fed_rows()
    found: dict = {"each": []}
    for count in (1, 3, 8):
        found[str(count)] = seen(stream(Dice(), N, seed=7, devices=count, rows=ROWS))
    for count in (1, 8):
        each = each_lane(rows, n, devices=count, rows=2)
        found["each"].append([float(v).hex() for v in (*each.values.ravel(), *each.result)])
        found["spread"] = float(np.ptp(each.values[:, 0]))
    return found


def member(place: int, port: int) -> dict:
    """One of two processes of one job, with some devices each; has joined already."""
    found = {
        "place": [jax.process_index(), place],
        "devices": jax.device_count(),
        "stream": seen(stream(Dice(), N, seed=7, rows=ROWS)),
    }
    jax.distributed.shutdown()
    return found


def start(n_devices: int, *arguments: object) -> subprocess.Popen:
    """A process with so many devices."""
    given = os.environ.get("XLA_FLAGS", "")
    # with a thread to spare, as the message about devices says
    flags = f"{given} --xla_force_host_platform_device_count={n_devices}"
    return subprocess.Popen(
        [sys.executable, "-m", "tests.study.scale.machines", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": flags, "NPROC": threads_for(n_devices)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def told(process: subprocess.Popen) -> dict:
    """What it printed."""
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err[-3000:]
    return json.loads(out.splitlines()[-1])


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    what, *numbers = sys.argv[1:]
    job = {"devices": devices, "member": member}[what]
    print(json.dumps(job(*map(int, numbers))))
