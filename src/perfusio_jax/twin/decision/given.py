"""What a twin is given, checked, and what it takes where nobody gave anything. Pure."""

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from perfusio_jax._core import CONTROL_NAMES, HOURS_PER_DAY, ConfigError
from perfusio_jax._core.plausible import unlikely
from perfusio_jax.bed import BEDPolicy
from perfusio_jax.config import DesignSpace
from perfusio_jax.hybrid import DrawnMechanisms, HybridStateSpaceModel, parts_of
from perfusio_jax.hybrid.drawn import refuse_undrawable
from perfusio_jax.mechanistic import DEFAULT_CONTROLS
from perfusio_jax.process import Process

from .cadence import Cadence
from .described_objective import Objective
from .gate_limits import GateLimits


def default_policy(
    model: HybridStateSpaceModel,
    space: DesignSpace,
    limits: GateLimits,
    *,
    cadence: Cadence,
    acqf_name: str,
    allow_write: bool = False,
) -> BEDPolicy:
    """The policy of a twin nobody gave one: the targets of its design space.

    Args:
        model: Hybrid model.
        space: Controls, bounds and targets.
        limits: Of the gate, whose rates hold from one decision to the next.
        cadence: When samples are due.
        acqf_name: Acquisition.
        allow_write: Whether set-points may be written.

    Raises:
        ConfigError: If the acquisition cannot work on roll-outs of these targets.
    """
    reach = limits.reach(cadence.interval_h)
    made = BEDPolicy(
        model,
        space,
        acqf_name=acqf_name,
        allow_write=allow_write,
        max_change={n: r for n, r in reach.items() if n in space.control_names},
        step_h=cadence.interval_h / parts_of(model, cadence.interval_h),
    )
    # here, not on the first morning: a twin forecasts with roll-outs
    made.settings.check_rollouts()
    return made


def limits_of_process(
    process: Process,
    cadence: Cadence,
    *,
    device_steps: Mapping[str, float] | None = None,
    max_change: Mapping[str, float] | None = None,
) -> GateLimits:
    """Limits of the gate for a twin of a described culture.

    Args:
        process: The culture.
        cadence: When samples are due.
        device_steps: Steps of the device's set-points, as far as a person tells them.
        max_change: Largest change per day by control, where it is not half of its range.

    Raises:
        ConfigError: If there is nothing to set, or a number is unusable.
    """
    return GateLimits.from_process(
        process,
        hours=cadence.interval_h,
        device_steps=device_steps,
        max_change=max_change,
        **ages(cadence),
    )


def agree(connector: Any, cadence: Cadence) -> None:
    """Tell a connector how far samples lie apart.

    Raises:
        ConfigError: If it does not serve samples that are due then.
    """
    told = getattr(connector, "sample_every", None)
    if told is not None:
        told(cadence.interval_h)
    elif not all(cadence.hours(k) % HOURS_PER_DAY == 0.0 for k in range(1, 3)):
        raise ConfigError(
            f"{type(connector).__name__} gives whole days; sampling_interval_hours is "
            f"{cadence.interval_h:g}. Set it to 24 or whole multiples of it, or give the "
            "connector a method sample_every(hours) and fractions of days."
        )


def ages(cadence: Cadence) -> dict[str, Any]:
    """How old data may be where samples come less often than daily [h].

    Args:
        cadence: When samples are due.
    """
    share = cadence.interval_h / HOURS_PER_DAY
    names = ("max_data_age_h", "fallback_after_h", "disarm_after_h")
    daily: dict[str, Any] = {f.name: f.default for f in fields(GateLimits) if f.name in names}
    return {name: share * age for name, age in daily.items()} if share > 1.0 else {}


def check_drawn(model: HybridStateSpaceModel | None, drawn: DrawnMechanisms) -> None:
    """Refuse draws of constants that are not those of a model's mechanism.

    Args:
        model: The model; None for a twin without one.
        drawn: The draws.

    Raises:
        ConfigError: If the model has no mechanism of a described culture, or another one.
    """
    if model is None:
        raise ConfigError(
            "draws of constants were given without a model; a posterior is of a described culture, "
            "whose model `hybrid` is."
        )
    if model.layout.process is None:
        raise ConfigError(
            "draws of constants are of a described culture; a twin of CHO perfusion as the "
            "reference API has it decides with the constants of its fit."
        )
    refuse_undrawable(model)
    mine, theirs = model.mech_model.kinetics, drawn.kinetics
    if type(mine) is not type(theirs):
        raise ConfigError(
            f"draws of constants of {type(theirs).__name__} were given, and the mechanism of the "
            f"model is {type(mine).__name__}."
        )


def space_of(design_space: DesignSpace | None) -> DesignSpace:
    """The design space of a twin of CHO perfusion, which needs one.

    Args:
        design_space: What was given.

    Raises:
        ConfigError: If it is none.
    """
    if design_space is None:
        raise ConfigError(
            "the twin needs a design space; config.DEFAULT_AMBR250_DESIGN_SPACE is one."
        )
    return design_space


def check_kind(
    process: Process | None,
    objective: Objective | None,
    max_change: Mapping[str, float] | None,
    of_cho: tuple[DesignSpace | None, BEDPolicy | None],
) -> None:
    """Refuse what is of CHO perfusion beside a described culture, and the reverse.

    Args:
        process: The culture of the model; None for CHO perfusion.
        objective: Goals of a described culture.
        max_change: Largest change per day by control, of one too.
        of_cho: Design space and policy.

    Raises:
        ConfigError: If they do not belong together.
    """
    if process is None:
        if objective is not None or max_change is not None:
            raise ConfigError(
                "objective and max_change are of a culture that is described; without a model of "
                "one the twin drives CHO perfusion, whose design space has targets and ranges."
            )
        space_of(of_cho[0])
    elif objective is None:
        raise ConfigError(
            f"the model is of {process.name}; a twin of it needs an objective, as "
            "Objective(goals=('NAME = value',))."
        )
    elif of_cho != (None, None):
        raise ConfigError(
            f"the model is of {process.name}, whose process says what can be set and how far; "
            "design_space and bed_policy are of CHO perfusion. Leave them out."
        )


def settings_of_cho(space: DesignSpace, initial: Mapping[str, float] | None) -> dict[str, Any]:
    """Settings of the loop that follow from a culture of CHO perfusion.

    Args:
        space: Its design space.
        initial: Set-points in force at the start, where the connector cannot say.
    """
    return {
        "initial_controls": {**DEFAULT_CONTROLS, **dict(initial or {})},
        "species_bounds": {n: (b.lo, b.hi) for n, b in space.species_bounds.items()},
    }


def settings_of_process(process: Process, initial: Mapping[str, float] | None) -> dict[str, Any]:
    """The same of a described culture.

    Args:
        process: The culture.
        initial: Set-points in force at the start, where the connector cannot say.

    Raises:
        ConfigError: If it cannot have one of them.
    """
    held = {c.name: c for c in process.controls if c.role != "bolus"}
    check_initial(process, initial or {})
    return {
        "controls": tuple(held),
        "given": process.boluses,
        "measured": process.readings,
        "keeps_volume": not process.is_constant_volume,
        "odds": "limits_probability",
        "initial_controls": {n: c.default for n, c in held.items()} | dict(initial or {}),
        "species_bounds": {q.name: (q.lo, q.hi) for q in process.quantities if q.is_measured},
    }


def check_initial(process: Process, initial: Mapping[str, Any]) -> None:
    """Refuse set-points to begin with that a described culture cannot have.

    Args:
        process: The culture.
        initial: Value by control.

    Raises:
        ConfigError: If one is no control of it or a bolus, or lies outside what may be set.
    """
    for name, value in initial.items():
        control = process.control(name)
        if control.role == "bolus":
            raise ConfigError(f"initial_controls: {name} is a bolus, which is given and not held.")
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not control.lo <= value <= control.hi:
            raise ConfigError(
                f"initial_controls: {name} is {value!r}; a number from {control.lo:g} to "
                f"{control.hi:g} {control.unit} is needed, as process {process.name} says."
            )


def check_controls(space: DesignSpace, initial: Mapping[str, float] | None) -> None:
    """Refuse a design space, or set-points to begin with, that CHO perfusion cannot have.

    Args:
        space: Controls and their bounds.
        initial: Value by control.

    Raises:
        ConfigError: If there is nothing to decide, a control is unknown, or a value unlikely.
    """
    names = space.control_names
    if not names:
        raise ConfigError(f"design space {space.name!r} has no controls to decide.")
    unknown = [n for n in names if n not in CONTROL_NAMES]
    if unknown:
        raise ConfigError(
            f"design space {space.name!r} names unknown controls {unknown}; the twin "
            f"knows {list(CONTROL_NAMES)}."
        )
    for name, value in (initial or {}).items():
        if name not in CONTROL_NAMES:
            raise ConfigError(
                f"initial_controls names unknown controls {[name]}; the twin knows "
                f"{list(CONTROL_NAMES)}."
            )
        if not math.isfinite(value):
            raise ConfigError(f"initial_controls: {name} is {value!r}; it must be finite.")
        bounds = space.control_bounds.get(name)
        why = unlikely(name, value, None if bounds is None else (bounds.lo, bounds.hi))
        if why:
            raise ConfigError(f"initial_controls: {name} is {value:g}, {why}")
