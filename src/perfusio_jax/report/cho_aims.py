"""Wishes for CHO perfusion as the reference API has it: design space, objective, limits."""

import math
from pathlib import Path

from pydantic import ValidationError

from perfusio_jax._core import FORECAST_SPECIES, HOURS_PER_DAY, ConfigError
from perfusio_jax._core.limits import read_toml
from perfusio_jax.bed import ChanceConstraint, control_limits
from perfusio_jax.bed.goal.cho_by_name import cho_goal, cho_limits, is_by_name
from perfusio_jax.bed.goal.criteria import (
    Criterion,
    FinalValue,
    MediumPerGram,
    ProcessOFV,
    SpaceTimeYield,
    TrackingError,
)
from perfusio_jax.bed.policy.recipes import recipe_box
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE, DesignSpace
from perfusio_jax.process import CHO_PERFUSION
from perfusio_jax.report.wishes import GOALS, Wishes

_AMMONIUM = FORECAST_SPECIES.index("Amm")


def check_wishes(wishes: Wishes, design: DesignSpace) -> dict[int, float]:
    """Everything about set-points that can be refused before the work.

    Args:
        wishes: What is wanted.
        design: Design space.

    Returns:
        Set-points held at a value, by position.

    Raises:
        ConfigError: If a set-point is unknown or outside its bounds, or too many are held.
    """
    names = list(design.control_names)
    wrong = [n for n in wishes.fixed if n not in names]
    if wrong:
        raise ConfigError(f"--set names unknown controls {wrong}; allowed are {names}.")
    needed = list(CHO_PERFUSION.control_names)
    if sorted(names) != sorted(needed):
        raise ConfigError(
            f"the design space has the controls {names}; all of {needed} are needed. "
            "Hold one with --set name=value."
        )
    fixed = {names.index(name): value for name, value in wishes.fixed.items()}
    limits = control_limits(design)
    recipe_box(limits, fixed, q=max(wishes.n_runs, 1), control_names=names)
    return fixed


def read_space(path: Path | None) -> DesignSpace:
    """Design space of a TOML file.

    Args:
        path: The file; the default space if None.

    Raises:
        ConfigError: If there is no usable table `[design_space]`.
    """
    if path is None:
        return DEFAULT_AMBR250_DESIGN_SPACE
    if not path.is_file():
        raise ConfigError(f"{path} is not a file; name a TOML file with a table [design_space].")
    try:
        tables = read_toml(path)
        if "design_space" not in tables:
            raise ConfigError(f"{path} holds no table [design_space].")
        return DesignSpace(**tables["design_space"])
    except (ValidationError, TypeError) as error:
        raise ConfigError(f"{path}: {error}") from None


def objective(
    wishes: Wishes, design: DesignSpace, days: int, *, step_h: float = HOURS_PER_DAY
) -> ProcessOFV:
    """The goal as an objective over a whole run.

    Args:
        wishes: The goal and its target.
        design: Design space, with targets of its own.
        days: Length of a run [d].
        step_h: Length of a roll-out's step [h].

    Raises:
        ConfigError: If the goal is unknown, or has no target.
    """
    if days < 1 or wishes.n_runs < 1:
        raise ConfigError(f"{wishes.n_runs} runs of {days} days; both must be at least 1.")
    if wishes.goals:
        return cho_goal(
            wishes.goals, days, step_h=step_h, weights=wishes.weights, is_front=wishes.is_front
        )
    if is_by_name(wishes.goal):
        if wishes.target is not None:
            raise ConfigError(
                f"--target is of goal vcv; goal {wishes.goal!r} says itself what is to be reached."
            )
        return cho_goal([wishes.goal], days, step_h=step_h)
    if wishes.goal not in GOALS:
        raise ConfigError(
            f"goal {wishes.goal!r} is unknown; choose from {', '.join(GOALS)}, or say 'max NAME', "
            "'min NAME' or 'NAME=value'."
        )
    settled = days // 2
    if wishes.goal == "front":
        both = [FinalValue("Titer"), FinalValue("Amm", direction=-1)]
        return ProcessOFV(both, horizon=days, is_pareto=True, step_h=step_h)
    target = design.vcv_target if wishes.target is None else wishes.target
    if wishes.goal == "vcv" and (target is None or not math.isfinite(target) or target <= 0):
        raise ConfigError(f"goal vcv needs a target above 0; given: {target}. Use --target.")
    one: Criterion = {
        "titre": lambda: FinalValue("Titer"),
        "vcv": lambda: TrackingError("VCV", target or 0.0, from_day=settled),
        "yield": lambda: SpaceTimeYield(settled),
        "medium": lambda: MediumPerGram(settled),
    }[wishes.goal]()
    return ProcessOFV([one], horizon=days, step_h=step_h)


def limits_of(wishes: Wishes, design: DesignSpace) -> tuple[ChanceConstraint, ...]:
    """Limits to be kept on every day.

    Args:
        wishes: Limits and with which probability they are to be kept.
        design: Design space, with a limit of its own.

    Raises:
        ConfigError: If one is unusable.
    """
    low = design.viability_min if wishes.viability is None else wishes.viability
    if not 0.0 <= low < 100.0:
        raise ConfigError(f"--viability {low:g} must lie from 0 to below 100 %.")
    if not 0.0 < wishes.probability < 1.0:
        raise ConfigError(f"--probability {wishes.probability:g} must lie between 0 and 1.")
    limits = [ChanceConstraint(low, wishes.probability)]
    if wishes.ammonium is not None:
        if not wishes.ammonium > 0.0:
            raise ConfigError(f"--ammonium {wishes.ammonium:g} must be above 0 mmol/L.")
        limits.append(
            ChanceConstraint(
                wishes.ammonium,
                wishes.probability,
                species_index=_AMMONIUM,
                is_upper=True,
                temperature=0.05,
                backoff=0.15,
            )
        )
    return (*limits, *cho_limits(wishes.limits, wishes.probability))
