"""A few figures of a machine: how fast a plant, its gradient and a model's paths are."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

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

from .cost import foresee
from .job import prepare
from .lanes import hybrid_paths

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


def measured(
    what: str,
    unit: str,
    n: int,
    call: Callable[[], Any],
    repeats: int,
    *,
    clock: Callable[[], float],
) -> Speed:
    """Seconds of a first call and of some more."""
    times = []
    for _ in range(repeats + 1):
        begun = clock()
        jax.block_until_ready(call())
        times.append(clock() - begun)
    warm = np.array(times[1:])
    return Speed(what, unit, n, times[0], float(np.median(warm)), float(np.ptp(warm)))


def quick_figures(
    say: Callable[[str], AbstractContextManager[Any]],
    clock: Callable[[], float],
    *,
    n: int = 512,
    repeats: int = 5,
) -> list[Speed]:
    """A few figures of this machine.

    Args:
        say: Says what is measured while it is.
        clock: Seconds.
        n: Runs and paths of a call.
        repeats: Warm calls of each.
    """
    found = []
    for what, make in (("plant, 28-day runs", _plant), ("same, gradient", _gradient)):
        with say(what):
            found.append(measured(what, "runs/s", n, make(n), repeats, clock=clock))
    with say("mechanism with noise, 28-day paths"):
        found.append(_paths(n, repeats, clock))
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


def _paths(n: int, repeats: int, clock: Callable[[], float]) -> Speed:
    """By the streamed roll-out, whose cost is told as before a job."""
    model: HybridStateSpaceModel = untrained_model(CHOPerfusionModel())
    controls = np.tile([1.0, 0.15, 4.0, 36.5, 850.0, 1.0], (_DAYS, 1))
    lanes = hybrid_paths(model, np.array(_FACE), controls, species=["VCD", "Titer"])
    begun = clock()
    job = prepare(lanes, n * repeats, devices=1, rows=n)
    first = clock() - begun
    cost = foresee(job, clock=clock)
    what = "mechanism with noise, 28-day paths"
    return Speed(what, "paths/s", n, first, cost.step_s, cost.spread_s)
