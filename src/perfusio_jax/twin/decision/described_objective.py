"""What a twin of a described culture is to do, in the words of a person, and the policy from it."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from perfusio_jax._core import HOURS_PER_DAY, ConfigError
from perfusio_jax._core.hints import did_you_mean
from perfusio_jax.bed.goal.by_name import Words, daily_goal, limits_of
from perfusio_jax.bed.goal.steps import native_step
from perfusio_jax.bed.policy.described import DescribedPolicy, refuse_unsettable
from perfusio_jax.bed.policy.incumbents import check_acquisition
from perfusio_jax.hybrid import HybridStateSpaceModel
from perfusio_jax.process import Process

from .cadence import Cadence
from .gate_limits import GateLimits

WORDS: Final = Words("goal in [objective]", "limit in [objective]", "probability in [objective]")


@dataclass(frozen=True)
class Objective:
    """What is wanted of a described culture from one sample to the next.

    Raises:
        ConfigError: If a number is none.
    """

    goals: tuple[str, ...]
    """Each `max NAME`, `min NAME` or `NAME = value`."""
    weights: tuple[float, ...] | None = None
    """Relative importance of each goal [-]; one by default."""
    limits: tuple[str, ...] = ()
    """As `Via >= 80`, to be kept at every step of the horizon."""
    probability: float = 0.9
    """With which limits are to be kept [-]."""
    horizon_days: float = 3
    """Days ahead [d]; part of one where samples come more often than daily."""
    controls: tuple[str, ...] | None = None
    """Controls the twin decides; all that are held and have a range, by default."""
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Where controls may lie, where it is less than the process allows."""

    def __post_init__(self) -> None:
        if not self.horizon_days > 0:
            raise ConfigError(
                f"horizon_days in [objective] is {self.horizon_days:g}; a number above 0 is needed."
            )


def controls_of(objective: Objective, process: Process) -> tuple[str, ...]:
    """Controls a twin decides, in the order of the process.

    Args:
        objective: What is wanted.
        process: The culture.

    Raises:
        ConfigError: If one is none of the process, nobody can set it, or there is none.
    """
    if objective.controls is None:
        found = [c for c in process.controls if c.role != "bolus" and c.lo < c.hi]
        if not found:
            raise ConfigError(
                f"nobody can set anything of process {process.name}: it has no control that is "
                "held and has a range."
            )
        return tuple(c.name for c in found)
    for name in objective.controls:
        refuse_unsettable(process, name)
    if not objective.controls or len(set(objective.controls)) != len(objective.controls):
        raise ConfigError(
            f"controls in [objective] is {list(objective.controls)}; it names those the twin "
            "decides, each once."
        )
    return tuple(n for n in process.control_names if n in objective.controls)


def must_be_read(objective: Objective, process: Process) -> tuple[str, ...]:
    """What a decision has to have as a reading: what goals and limits name, and the cells.

    Args:
        objective: What is wanted.
        process: The culture.

    Returns:
        Names of readings, in the order of the process; a derived one with what it is of.
    """
    said = " ".join((*objective.goals, *objective.limits))
    named = {n for n in process.readings if re.search(rf"\b{re.escape(n)}\b", said)}
    named |= {part for n in named for part in process.quantity(n).of}
    named |= set(process.growers)
    return tuple(n for n in process.readings if n in named)


def described_policy(
    model: HybridStateSpaceModel,
    objective: Objective,
    limits: GateLimits,
    *,
    cadence: Cadence,
    acqf_name: str = "qLogEI",
    allow_write: bool = False,
    **sizes: Any,
) -> DescribedPolicy:
    """The policy of a twin of a described culture.

    Args:
        model: Model of the culture.
        objective: What is wanted.
        limits: Of the gate, whose rates hold from one decision to the next.
        cadence: When samples are due.
        acqf_name: Acquisition.
        allow_write: Whether set-points may be written.
        **sizes: Further fields of the policy.

    Raises:
        ConfigError: If a goal or limit is of nothing that is forecast, a control cannot be set, a
            range lies outside the process's, or the acquisition does not suit the goals.
    """
    process, layout = _process_of(model), model.layout
    check_horizon(objective.horizon_days, cadence)
    names = controls_of(objective, process)
    ofv = daily_goal(
        objective.goals,
        process,
        layout,
        horizon=objective.horizon_days,
        step_h=native_step(model),
        weights=objective.weights,
        words=WORDS,
    )
    check_acquisition(acqf_name, len(ofv.criteria), ofv.is_pareto)
    reach = limits.reach(cadence.interval_h)
    return DescribedPolicy(
        process=process,
        ofv=ofv,
        controls=names,
        bounds=_ranges(objective, process, names),
        chance=limits_of(
            objective.limits, process, objective.probability, layout=layout, words=WORDS
        ),
        max_change={n: r for n, r in reach.items() if n in names},
        balance=limits.flows,
        acqf_name=acqf_name,
        allow_write=allow_write,
        **sizes,
    )


def check_horizon(days: float, cadence: Cadence) -> None:
    """Refuse to look ahead less far than to the next sample, or to parts of days if it is daily.

    Args:
        days: Horizon [d].
        cadence: When samples are due.

    Raises:
        ConfigError: With what is allowed.
    """
    least = min(cadence.interval_h / HOURS_PER_DAY, 1.0)
    if days < least - 1e-9 or (least >= 1.0 and days != int(days)):
        allowed = "whole days are" if least >= 1.0 else f"{least:g} days or more, an interval, are"
        raise ConfigError(
            f"horizon_days in [objective] is {days:g}, and samples come every "
            f"{cadence.interval_h:g} h; {allowed} needed."
        )


def _process_of(model: HybridStateSpaceModel) -> Process:
    if model.layout.process is None:
        raise ConfigError(
            "this model is of CHO perfusion; an objective by name is of a described culture."
        )
    return model.layout.process


def _ranges(
    objective: Objective, process: Process, names: tuple[str, ...]
) -> dict[str, tuple[float, float]]:
    """Range of each control that is decided."""
    unknown = [name for name in objective.ranges if name not in names]
    if unknown:
        raise ConfigError(
            f"ranges in [objective] names {unknown}{did_you_mean(unknown, names)}; the twin "
            f"decides {', '.join(names)}."
        )
    found = {}
    for name in names:
        control = process.control(name)
        low, high = objective.ranges.get(name, (control.lo, control.hi))
        if not (math.isfinite(low) and math.isfinite(high) and control.lo <= low < high):
            high = math.nan
        if not high <= control.hi:
            raise ConfigError(
                f"ranges in [objective] has {list(objective.ranges[name])} for {name}; a lower and "
                f"an upper end within {control.lo:g} to {control.hi:g} {control.unit} are needed."
            )
        found[name] = (float(low), float(high))
    return found
