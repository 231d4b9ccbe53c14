"""`perfusio-jax bench`: what this machine does, in a minute or two."""

import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from rich.table import Table

from perfusio_jax import __version__
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE
from perfusio_jax.hybrid import HybridStateSpaceModel, untrained_model
from perfusio_jax.mechanistic import (
    CHOPerfusionModel,
    Reactor,
    Tolerances,
    integrate,
    make_plan,
)
from perfusio_jax.simulator import initial_state, virtual_kinetics
from perfusio_jax.study import foresee, hybrid_paths, prepare

_DAYS = 28
_FACE = (10.0, 97.0, 4.0, 3.0, 0.8, 8.0, 2.0, 0.8, 200.0)


class Speed(NamedTuple):
    """One figure."""

    what: str
    unit: str
    n: int
    """Units of a call."""
    first_s: float
    """First call, compiling included [s]."""
    warm_s: float
    """Middle of the others [s]."""
    spread_s: float
    """Slowest less fastest of them [s]."""

    @property
    def rate(self) -> float:
        """Units per second."""
        return self.n / self.warm_s


def machine() -> dict[str, Any]:
    """What figures were measured on."""
    device = jax.devices()[0]
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "device": f"{device.platform}:{device.device_kind}",
        "python": platform.python_version(),
        "perfusio_jax": __version__,
        "jax": jax.__version__,
        "numpy": np.__version__,
        "threads": os.environ.get("OMP_NUM_THREADS", "not set"),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def measured(what: str, unit: str, n: int, call: Callable[[], Any], repeats: int) -> Speed:
    """Seconds of a first call and of some more."""
    times = []
    for _ in range(repeats + 1):
        begun = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - begun)
    warm = np.array(times[1:])
    return Speed(what, unit, n, times[0], float(np.median(warm)), float(np.ptp(warm)))


def quick_figures(console: Any, *, n: int = 512, repeats: int = 5) -> list[Speed]:
    """A few figures of this machine.

    Args:
        console: Where to say what is measured.
        n: Runs and paths of a call.
        repeats: Warm calls of each.
    """
    found = []
    for what, make in (("plant, 28-day runs", _plant), ("same, gradient", _gradient)):
        with console.status(what):
            found.append(measured(what, "runs/s", n, make(n), repeats))
    with console.status("mechanism with noise, 28-day paths"):
        found.append(_paths(n, repeats))
    return found


def _runs(n: int) -> tuple[Reactor, Any]:
    rng = np.random.default_rng(0)
    lo, hi = (np.asarray(b) for b in DEFAULT_AMBR250_DESIGN_SPACE.bounds_array)
    controls = jnp.asarray(lo + (hi - lo) * rng.random((n, len(lo))))
    reactor = Reactor(kinetics=virtual_kinetics("CloneX"))
    start = jnp.tile(initial_state(), (n, 1))
    return reactor, make_plan(reactor, start, controls, jnp.full(_DAYS, 24.0))


def _plant(n: int) -> Callable[[], Any]:
    reactor, plan = _runs(n)
    run = eqx.filter_jit(lambda r, p: integrate(r, p, Tolerances()).concentrations)
    return lambda: run(reactor, plan)


def _gradient(n: int) -> Callable[[], Any]:
    reactor, plan = _runs(n)

    def total(reactor: Reactor, plan: Any) -> Any:
        return jnp.sum(integrate(reactor, plan, Tolerances()).concentrations[:, -1, 9])

    slope = eqx.filter_jit(eqx.filter_grad(total))
    return lambda: slope(reactor, plan)


def _paths(n: int, repeats: int) -> Speed:
    """By the streamed roll-out, whose cost is told as before a job."""
    model: HybridStateSpaceModel = untrained_model(CHOPerfusionModel())
    controls = np.tile([1.0, 0.15, 4.0, 36.5, 850.0, 1.0], (_DAYS, 1))
    lanes = hybrid_paths(model, np.array(_FACE), controls, species=["VCD", "Titer"])
    begun = time.perf_counter()
    job = prepare(lanes, n * repeats, devices=1, rows=n)
    first = time.perf_counter() - begun
    cost = foresee(job, clock=time.perf_counter)
    what = "mechanism with noise, 28-day paths"
    return Speed(what, "paths/s", n, first, cost.step_s, cost.spread_s)


def tell_figures(found: list[Speed], console: Any, out: Path | None) -> None:
    """Show figures, and write them with what they were measured on."""
    here = machine()
    console.print(", ".join(f"{k} {v}" for k, v in here.items()), soft_wrap=True)
    table = Table()
    table.add_column("what")
    for name in ("n", "first [s]", "warm [s]", "spread [s]", "rate", ""):
        table.add_column(name, justify="right")
    for one in found:
        numbers = (one.first_s, one.warm_s, one.spread_s, one.rate)
        table.add_row(one.what, str(one.n), *(f"{v:.3g}" for v in numbers), one.unit)
    console.print(table)
    if out is not None:
        rows = [{**one._asdict(), "rate": one.rate} for one in found]
        out.write_text(
            json.dumps({"machine": here, "figures": rows}, indent=1) + "\n", encoding="utf-8"
        )
        console.print(f"written: {out}", soft_wrap=True)
