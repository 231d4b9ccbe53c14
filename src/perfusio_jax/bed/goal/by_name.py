"""Goals, limits and ranges of a described culture, in the names of its process."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import HOURS_PER_DAY, ConfigError, DataError
from perfusio_jax._core.hints import did_you_mean
from perfusio_jax.bed.goal.constraints import ChanceConstraint, ControlLimits
from perfusio_jax.bed.goal.costs import Costs
from perfusio_jax.bed.goal.criteria import (
    FinalValue,
    ProcessOFV,
    SquaredDistance,
    TrackingError,
)
from perfusio_jax.bed.goal.expressions import Expression, RunForm, is_plain, parse_expression
from perfusio_jax.bed.goal.steps import step_hours
from perfusio_jax.hybrid.layout import Layout, layout_of
from perfusio_jax.process import Process, volume_balance

_GOAL = re.compile(r"\s*(max|min)(?:\s+|\s*:\s*)(\w+)\s*")
_TARGET = re.compile(r"\s*(\w+)\s*=\s*([-+.\deE]+)\s*")
_LIMIT = re.compile(r"\s*(\w+)\s*(<=|>=)\s*([-+.\deE]+)\s*")
_SEARCHED = re.compile(r"\s*(max|min)(?:\s*:\s*|\s+)(.+)", re.DOTALL)
_SIDES = re.compile(r"(.+?)(<=|>=)\s*([-+.\deE]+)\s*", re.DOTALL)
_SMOOTH = 0.005
"""Width of a limit's smooth step over the span of its quantity [-]."""


class Words(NamedTuple):
    """What a person calls the settings that messages are about."""

    goal: str = "goal"
    limit: str = "--limit"
    probability: str = "--probability"


class Goal(NamedTuple):
    """A goal in words, taken apart."""

    name: str
    """Quantity it is about."""
    direction: int
    """1 for the most of it, -1 for the least, 0 for a value to be held."""
    value: float | None
    """That value."""


class Limit(NamedTuple):
    """A limit in words, taken apart."""

    name: str
    """Quantity it is about."""
    is_upper: bool
    """Whether the value is not to be exceeded."""
    value: float
    """In the quantity's unit."""


def take_goal(text: str) -> Goal | None:
    """A goal of a name, taken apart; None if it says something else.

    Args:
        text: `max P`, `min P` or `P=12`.

    Raises:
        DataError: If the value is not finite.
    """
    one = _GOAL.fullmatch(text)
    if one is not None:
        return Goal(one[2], 1 if one[1] == "max" else -1, None)
    held = _TARGET.fullmatch(text)
    return None if held is None else Goal(held[1], 0, _value(held[2], text))


def take_limit(text: str) -> Limit | None:
    """A limit of a name, taken apart; None if it says something else.

    Args:
        text: As `Via>=80`.

    Raises:
        DataError: If the value is not finite.
    """
    parts = _LIMIT.fullmatch(text)
    return None if parts is None else Limit(parts[1], parts[2] == "<=", _value(parts[3], text))


def parse_goal(text: str, process: Process, layout: Layout, words: Words | None = None) -> Goal:
    """Take a goal in words apart.

    Args:
        text: `max P`, `min P` or `P=12`.
        process: The culture.
        layout: What is forecast of it.
        words: What messages call it.

    Raises:
        ConfigError: If it says something else, or of a quantity that is not forecast.
        DataError: If the value is not finite.
    """
    said = Words() if words is None else words
    found = take_goal(text)
    if found is None:
        raise ConfigError(
            f"{said.goal} {text!r} is unknown; allowed are 'max NAME' and 'min NAME' for the end "
            f"of a run, and 'NAME=value' to be held, with NAME out of {', '.join(layout.forecast)}."
        )
    _unit(found.name, process, layout)
    return found


def parse_limit(text: str, process: Process, layout: Layout, words: Words | None = None) -> Limit:
    """Take a limit in words apart.

    Args:
        text: As `Via>=80`.
        process: The culture.
        layout: What is forecast of it.
        words: What messages call it.

    Raises:
        ConfigError: If it says something else, or of a quantity that is not forecast.
        DataError: If the value is not finite.
    """
    said = Words() if words is None else words
    found = take_limit(text)
    if found is None:
        raise ConfigError(f"{said.limit} {text!r}: a limit is NAME>=value or NAME<=value.")
    _unit(found.name, process, layout)
    return found


def goal_of(
    text: str | Sequence[str],
    process: Process,
    days: int,
    *,
    step_h: float = HOURS_PER_DAY,
    layout: Layout | None = None,
    weights: Sequence[float] | None = None,
    is_front: bool = False,
    costs: Costs | None = None,
    per: str = "",
    start: Any = None,
) -> ProcessOFV:
    """Goals in words as an objective over a whole run.

    Args:
        text: `max P`, `min P` or `P=12`; or an expression in place of the name, see
            `goal.expressions`. Several are weighed against each other.
        process: The culture.
        days: Length of a run [d].
        step_h: Length of a roll-out's step [h].
        layout: Of the model that forecasts; without one, that of a model without a mechanism.
        weights: What a unit of each is worth [-]; one by default.
        is_front: Whether several goals are kept apart, for the front between them.
        costs: Prices, for what asks for the cost.
        per: `cost` or `day`: what there is to be most of counts per cost, or per day of the run.
        start: What is there when a run begins, as forecast.

    Raises:
        ConfigError: If one says something else, or is of something that is not forecast.
    """
    layout = layout_of(process) if layout is None else layout
    texts = [text] if isinstance(text, str) else list(text)
    if per not in ("", "cost", "day"):
        raise ConfigError(f"per {per!r} is unknown; cost or day.")
    if len(texts) == 1 and not (per or is_front) and _is_plain_goal(texts[0]):
        goal = parse_goal(texts[0], process, layout)
        unit, names = process.quantity(goal.name).unit, layout.forecast
        if goal.value is None:
            criterion = FinalValue(goal.name, direction=goal.direction, names=names, unit=unit)
            return ProcessOFV([criterion], horizon=days, step_h=step_h)
        tracked: Any = TrackingError(
            goal.name, goal.value, from_day=days // 2, names=names, unit=unit
        )
        return ProcessOFV([tracked], horizon=days, step_h=step_h)
    form = RunForm(process, layout, tuple(step_hours(days, step_h).tolist()))
    if not texts:
        raise ConfigError("there is no goal; give 'max EXPR', 'min EXPR' or 'EXPR = value'.")
    if is_front and len(texts) < 2:
        raise ConfigError("a front is between two goals or more; one was given.")
    shares = [1.0] * len(texts) if weights is None else [float(w) for w in weights]
    if len(shares) != len(texts) or not all(np.isfinite(shares)) or min(shares) <= 0.0:
        raise ConfigError(
            f"weights {shares} for {len(texts)} goals; one number above 0 is needed for each."
        )
    criteria: list[Any] = [_expressed(one, form, costs, per, start) for one in texts]
    return ProcessOFV(
        criteria,
        weights=np.asarray(shares),
        horizon=days,
        step_h=step_h,
        is_pareto=is_front,
        is_stepwise=True,
    )


def _is_plain_goal(text: str) -> bool:
    """Whether a goal is of a name alone; so is one that says nothing, which is refused there."""
    searched = _SEARCHED.fullmatch(text)
    if searched is not None:
        return is_plain(searched[2])
    return "(" not in text and not any(sign in text for sign in "*/")


def _expressed(text: str, form: RunForm, costs: Costs | None, per: str, start: Any) -> Expression:
    """A goal as an expression over a whole run."""
    searched = _SEARCHED.fullmatch(text)
    more: dict[str, Any] = {"costs": costs, "start": start}
    if searched is None:
        left, sign, right = text.rpartition("=")
        if not sign or per:
            raise ConfigError(
                f"goal {text!r} is unknown; allowed are 'max EXPR', 'min EXPR'"
                + (f", per {per}." if per else " and 'EXPR = value'.")
            )
        return parse_expression(left, form, direction=-1, target=_value(right, text), **more)
    body, direction = searched[2], 1 if searched[1] == "max" else -1
    if per:
        if direction < 0:
            raise ConfigError(f"goal {text!r} per {per}: what counts per {per} is to be most.")
        body = f"({body}) / {'cost' if per == 'cost' else 'days'}()"
    return parse_expression(body, form, direction=direction, **more)


def daily_goal(
    texts: Sequence[str],
    process: Process,
    layout: Layout,
    *,
    horizon: float,
    step_h: float,
    weights: Sequence[float] | None = None,
    words: Words | None = None,
) -> ProcessOFV:
    """Goals in words as the objective of a decision that is made anew at every sample.

    What is to be held counts at every step of the horizon, by the square of its distance in parts
    of its target (of its range, for a target of zero), a day as one. What there is to be most or
    least of counts at the end of the horizon, in parts of its range.

    Args:
        texts: Each `max P`, `min P` or `P=12`.
        process: The culture.
        layout: Of the model that forecasts.
        horizon: Days ahead [d]; a part of one, too.
        step_h: Length of a roll-out's step [h].
        weights: Relative importance of each [-]; one by default.
        words: What messages call them.

    Raises:
        ConfigError: If there is no goal, one says something else or is of a quantity that is not
            forecast, or the weights are not as many, or none above zero.
    """
    if not texts:
        raise ConfigError(
            f"there is no {(words or Words()).goal}; give 'max NAME', 'min NAME' or 'NAME=value', "
            f"with NAME out of {', '.join(layout.forecast)}."
        )
    shares = [1.0] * len(texts) if weights is None else [float(w) for w in weights]
    if len(shares) != len(texts) or not all(np.isfinite(shares)) or min(shares) <= 0.0:
        raise ConfigError(
            f"weights {shares} for {len(texts)} goals; one number above 0 is needed for each."
        )
    criteria, scales = [], []
    for text in texts:
        goal = parse_goal(text, process, layout, words)
        quantity, names = process.quantity(goal.name), layout.forecast
        span = quantity.hi - quantity.lo
        if goal.value is None:
            criteria.append(
                FinalValue(goal.name, direction=goal.direction, names=names, unit=quantity.unit)
            )
            scales.append(span)
            continue
        criteria.append(SquaredDistance(goal.name, goal.value, names=names, unit=quantity.unit))
        scales.append((abs(goal.value) or span) ** 2 / horizon)
    return ProcessOFV(
        criteria,
        weights=np.asarray(shares),
        scales=np.asarray(scales),
        horizon=horizon,
        step_h=step_h,
        is_stepwise=True,
    )


def limits_of(
    texts: Sequence[str],
    process: Process,
    probability: float,
    *,
    layout: Layout | None = None,
    words: Words | None = None,
    hours: Sequence[float] | None = None,
    costs: Costs | None = None,
    start: Any = None,
) -> tuple[ChanceConstraint, ...]:
    """Limits in words as constraints of every day, or of a whole run.

    Args:
        texts: As `Via>=80` on every day, or with an expression in place of the name, as
            `used(feed) <= 3` or `highest(Lac, 4) <= 2`; see `goal.expressions`.
        process: The culture.
        probability: With which they are to be kept [-].
        layout: Of the model that forecasts; without one, that of a model without a mechanism.
        words: What messages call them.
        hours: Length of every step of a run [h]; without it, limits are of every day alone.
        costs: Prices, for what asks for the cost.
        start: What is there when a run begins, as forecast.

    Raises:
        ConfigError: If one says something else, or is of a quantity that is not forecast.
    """
    said = Words() if words is None else words
    if not 0.0 < probability < 1.0:
        raise ConfigError(f"{said.probability} {probability:g} must lie between 0 and 1.")
    layout = layout_of(process) if layout is None else layout
    found = []
    for text in texts:
        sides = _SIDES.fullmatch(text)
        is_of_run = sides is not None and (
            not is_plain(sides[1]) or sides[1].strip() in process.control_names
        )
        if is_of_run and hours is not None and sides is not None:
            form = RunForm(process, layout, tuple(float(h) for h in hours))
            value = _value(sides[3], text)
            of = parse_expression(sides[1], form, costs=costs, start=start, what=said.limit)
            width = _SMOOTH * max(abs(value), 1e-6)
            found.append(
                ChanceConstraint(
                    value,
                    probability,
                    temperature=width,
                    backoff=3.0 * width,
                    is_upper=sides[2] == "<=",
                    value=of,
                )
            )
            continue
        limit = parse_limit(text, process, layout, said)
        quantity = process.quantity(limit.name)
        at = layout.forecast.index(limit.name)
        found.append(kept(limit, probability, at, quantity.hi - quantity.lo))
    return tuple(found)


def kept(limit: Limit, probability: float, column: int, span: float) -> ChanceConstraint:
    """A limit of one column of a forecast, to be kept on every day.

    Args:
        limit: From `take_limit`.
        probability: With which it is to be kept [-].
        column: Which column of the forecast it is of.
        span: From the lowest to the highest value of that column [its unit].
    """
    width = _SMOOTH * span
    return ChanceConstraint(
        limit.value,
        probability,
        temperature=width,
        backoff=3.0 * width,
        species_index=column,
        is_upper=limit.is_upper,
        species=limit.name,
    )


def box_of(
    process: Process,
    fixed: Mapping[str, float],
    spans: Mapping[str, tuple[float, float]] | None = None,
) -> ControlLimits:
    """Where recipes of a culture may lie.

    Where a stream that leaves keeps the volume, what else leaves is not more than what enters.

    Args:
        process: The culture; bounds are those of its controls.
        fixed: Controls that are held, which may be so beyond their bounds.
        spans: Bounds by control in place of the process's.

    Returns:
        The limits.
    """
    ends = {c.name: (c.lo, c.hi) for c in process.controls} | dict(spans or {})
    held = {name: (value, value) for name, value in fixed.items()}
    both = [np.asarray([*ends[n], *held.get(n, ends[n])]) for n in process.control_names]
    lower = np.asarray([v.min() for v in both])
    upper = np.asarray([v.max() for v in both])
    d = lower.size
    balance = volume_balance(process, HOURS_PER_DAY)
    rows = np.zeros((0, d))
    if balance is not None and not balance.moves:
        weights, _ = balance.row()
        rows = np.asarray([[weights.get(name, 0.0) for name in process.control_names]])
    nothing = jnp.zeros(d)
    return ControlLimits(
        jnp.asarray(lower),
        jnp.asarray(upper),
        nothing,
        nothing,
        jnp.full(d, jnp.inf),
        jnp.asarray(rows),
        jnp.zeros(rows.shape[0]),
    )


def _unit(name: str, process: Process, layout: Layout) -> str:
    if name not in layout.forecast:
        raise ConfigError(
            f"{name!r} is not forecast{did_you_mean([name], layout.forecast)}; of {process.name} "
            f"are {', '.join(layout.forecast)}."
        )
    return process.quantity(name).unit


def _value(text: str, whole: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ConfigError(f"{whole!r}: {text!r} is no number.") from None
    if not np.isfinite(value):
        raise DataError(f"{whole!r}: {text!r} is not finite.")
    return value
