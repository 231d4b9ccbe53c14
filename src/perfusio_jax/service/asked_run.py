"""The run that a command asks about: of the CHO plant, or of any culture with its mechanism."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from jaxtyping import ArrayLike, Float

from perfusio_jax._core import HOURS_PER_DAY
from perfusio_jax.connectors.files.mechanisms import plant_mechanism
from perfusio_jax.mechanistic import Reactor
from perfusio_jax.process import CHO_PERFUSION, Process
from perfusio_jax.simulator import virtual_plant, virtual_reactor
from perfusio_jax.study import (
    DescribedExperiment,
    Experiment,
    cho_experiment,
    described_experiment,
)

_RTOL: Final = 1e-6
_ATOL: Final = 1e-9


def sample_hours(days: float, every_h: float) -> Float[np.ndarray, " T1"]:
    """Times of samples over a run, its start included [h].

    Args:
        days: Length of the run [d].
        every_h: Hours between samples [h]; the run is as many whole intervals as come nearest.

    Example:
        >>> sample_hours(1.0, 12.0).tolist()
        [0.0, 12.0, 24.0]
    """
    return every_h * np.arange(max(1, round(days * HOURS_PER_DAY / every_h)) + 1)


def is_cho(process: Process, mechanism: str | None) -> bool:
    """Whether a command means the CHO plant itself, which knows no other mechanism.

    Args:
        process: The culture.
        mechanism: What a person said of it; None for nothing.
    """
    return process == CHO_PERFUSION and mechanism is None


def run_of(
    process: Process,
    mechanism: str | None,
    hours: Float[ArrayLike, " T1"],
    *,
    clone: str | None = None,
    by_interval: bool = False,
    rtol: float = _RTOL,
    atol: float = _ATOL,
    **asked: Any,
) -> Experiment:
    """A run as a command asks for it.

    Args:
        process: The culture.
        mechanism: `monod`, `cho`, `module:Class` or a file of SBML; the culture's own, or Monod's,
            if None.
        hours: Times of the samples [h]; the first is the start.
        clone: Virtual clone of the CHO plant; its default constants if None.
        by_interval: Of the CHO plant, whether set-points of each interval are levers.
        rtol: Local error of the integrator of a described culture, in parts of a value [-].
        atol: The same near zero [unit of each quantity].
        **asked: `controls` and `start`, as `cho_experiment` and `described_experiment` take them.

    Raises:
        ConfigError: If the clone or the mechanism is unknown, or does not fit.
    """
    if is_cho(process, mechanism):
        reactor = Reactor() if clone is None else virtual_reactor(clone)
        return cho_experiment(reactor, hours, by_interval=by_interval, **asked)
    return described_run(process, mechanism, hours, rtol=rtol, atol=atol, **asked)


def described_run(
    process: Process,
    mechanism: str | None,
    hours: Float[ArrayLike, " T1"],
    *,
    rtol: float = _RTOL,
    atol: float = _ATOL,
    controls: Float[ArrayLike, "T M"] | Mapping[str, float] | None = None,
    start: Mapping[str, float] | None = None,
) -> DescribedExperiment:
    """A run of a culture by one of its mechanisms; arguments are those of `run_of`.

    Args:
        process: The culture.
        mechanism: What moves it.
        hours: Times of the samples [h].
        rtol: Local error, in parts of a value [-].
        atol: The same near zero [unit of each quantity].
        controls: Set-points by interval, or by name for the whole run.
        start: What it starts with, by name.

    Raises:
        ConfigError: If the mechanism is unknown or moves nothing.
    """
    plant = virtual_plant(process, plant_mechanism(process, mechanism), rtol=rtol, atol=atol)
    return described_experiment(plant, hours, controls=controls, start=start)
