"""Goals and limits of CHO perfusion by name: of the twelve species that its model forecasts."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from perfusio_jax._core import FORECAST_SPECIES, HOURS_PER_DAY, ConfigError
from perfusio_jax._core.hints import did_you_mean
from perfusio_jax.bed.goal.by_name import kept, take_goal, take_limit
from perfusio_jax.bed.goal.constraints import ChanceConstraint
from perfusio_jax.bed.goal.criteria import FinalValue, ProcessOFV, TrackingError
from perfusio_jax.chemistry import SpeciesRegistry


def is_by_name(text: str) -> bool:
    """Whether a goal is of a species by name, and no word of its own.

    Args:
        text: As a person writes it.
    """
    return take_goal(text) is not None


def cho_goal(
    texts: Sequence[str],
    days: int,
    *,
    step_h: float = HOURS_PER_DAY,
    weights: Sequence[float] | None = None,
    is_front: bool = False,
) -> ProcessOFV:
    """Goals by name as an objective over a whole run.

    Args:
        texts: Each `max NAME` or `min NAME`, of the end of a run, or `NAME=value`, to be held from
            the middle of the run on.
        days: Length of a run [d].
        step_h: Length of a roll-out's step [h].
        weights: What a unit of each is worth [-]; one by default.
        is_front: Whether several are kept apart, for the front between them.

    Raises:
        ConfigError: If one says something else or is of nothing that is forecast, or the weights
            are not as many, or none above zero.

    Example:
        >>> cho_goal(["max Titer"], 14).criteria[0].label
        'final Titer [mg/L]'
    """
    criteria: list[Any] = []
    for text in texts:
        found = take_goal(text)
        if found is None:
            raise ConfigError(
                f"goal {text!r} is unknown; of CHO perfusion allowed are 'max NAME', 'min NAME' "
                f"and 'NAME=value', with NAME out of {', '.join(FORECAST_SPECIES)}. Arithmetic "
                "over a run, costs and flows are of cultures that are described (--process table)."
            )
        _known(found.name, f"goal {text!r}")
        if found.value is None:
            criteria.append(FinalValue(found.name, direction=found.direction))
        else:
            criteria.append(TrackingError(found.name, found.value, from_day=days // 2))
    if is_front and len(criteria) < 2:
        raise ConfigError("a front is between two goals or more; one was given.")
    shares = [1.0] * len(criteria) if weights is None else [float(w) for w in weights]
    if len(shares) != len(criteria) or not all(np.isfinite(shares)) or min(shares) <= 0.0:
        raise ConfigError(
            f"weights {shares} for {len(criteria)} goals; one number above 0 is needed for each."
        )
    return ProcessOFV(
        criteria, weights=np.asarray(shares), horizon=days, step_h=step_h, is_pareto=is_front
    )


def cho_limits(texts: Sequence[str], probability: float) -> tuple[ChanceConstraint, ...]:
    """Limits by name, to be kept on every day.

    Args:
        texts: Each `NAME>=value` or `NAME<=value`.
        probability: With which each is to be kept [-].

    Raises:
        ConfigError: If one says something else, or is of nothing that is forecast.
    """
    found = []
    for text in texts:
        limit = take_limit(text)
        if limit is None:
            raise ConfigError(f"--limit {text!r}: a limit is NAME>=value or NAME<=value.")
        _known(limit.name, f"--limit {text!r}")
        species = SpeciesRegistry.DEFAULT[limit.name]
        at = FORECAST_SPECIES.index(limit.name)
        found.append(kept(limit, probability, at, species.hi - species.lo))
    return tuple(found)


def _known(name: str, what: str) -> None:
    if name not in FORECAST_SPECIES:
        raise ConfigError(
            f"{what}: {name!r} is not forecast{did_you_mean([name], FORECAST_SPECIES)}; what is: "
            f"{', '.join(FORECAST_SPECIES)}."
        )
