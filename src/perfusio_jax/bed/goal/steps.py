"""The steps of a roll-out: how long each one is, and to which day of the horizon it belongs.

A horizon is told in days. Where samples come more or less often than daily, the steps are as
long as the time between two samples; the last one is shorter where they do not fill the days.

An objective made without a model does not know them: its step is open (`step_h` is None) until a
policy, a surrogate or a campaign closes it with the model it forecasts with.
"""

import copy
import inspect
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from perfusio_jax._core import HOURS_PER_DAY, Array, ConfigError, Float

_ROUNDING_H = 1e-6


def step_hours(horizon: float, step_h: float = HOURS_PER_DAY) -> Float[np.ndarray, "H"]:
    """Length of each step.

    Args:
        horizon: Days ahead [d].
        step_h: Length of a whole step [h].

    Returns:
        Lengths [h] that add up to the horizon.

    Example:
        >>> step_hours(3, 48.0).tolist()
        [48.0, 24.0]
    """
    total = HOURS_PER_DAY * horizon
    n = int(np.ceil((total - _ROUNDING_H) / step_h))
    ends = np.minimum(step_h * np.arange(1, n + 1), total)
    ends[-1] = total
    return np.diff(ends, prepend=0.0)


def native_step(model: Any) -> float:
    """A day [h], in as many parts as the samples of a day a model learned from.

    Args:
        model: Hybrid model; one that says nothing, or none, takes a day as one step.
    """
    if model is None:
        return HOURS_PER_DAY
    from perfusio_jax.hybrid import parts_of  # here: who needs no model need not load its room

    return HOURS_PER_DAY / parts_of(model)


def open_step(model: Any, step_h: float | None) -> float | None:
    """Step of a new objective [h]: the one given, else the model's own; None without a model.

    Args:
        model: Hybrid model, or None.
        step_h: Length that was asked for [h], or None.

    Raises:
        ConfigError: If it is no number above zero.
    """
    if step_h is not None:
        return check_step(step_h)
    return None if model is None else native_step(model)


def is_open(ofv: Any) -> bool:
    """Whether an objective's step is still to be taken from a model."""
    return getattr(ofv, "step_h", HOURS_PER_DAY) is None


def closed(ofv: Any, model: Any) -> Any:
    """An objective whose step is known: the same one, or one with the model's own step.

    Args:
        ofv: Objective.
        model: Hybrid model that forecasts, outside of jit; none takes a day as one step.

    Returns:
        The objective.

    Raises:
        ConfigError: If the targets do not fit the step, or the model is traced.
    """
    if not is_open(ofv):
        return ofv
    if isinstance(getattr(model, "dt_hours", None), Tracer):
        raise ConfigError(
            f"the step of this {type(ofv).__name__} is open and the model is traced, so that its "
            "own step is not known; give the objective `step_h`, or close it outside of jit."
        )
    return with_step(ofv, native_step(model))


def with_step(ofv: Any, step_h: float) -> Any:
    """The same objective with steps of another length.

    Args:
        ofv: Objective.
        step_h: Length of a whole step [h].

    Returns:
        A copy.

    Raises:
        ConfigError: If the length is no number above zero, or does not fit the objective.
    """
    new = copy.copy(ofv)
    object.__setattr__(new, "step_h", check_step(step_h))
    if hasattr(new, "check_steps"):
        new.check_steps()
    return new


def steps_of(ofv: Any) -> Float[np.ndarray, "H"] | None:
    """Length of each step of an objective's roll-outs [h]; `None`: a day each.

    Raises:
        ConfigError: If the step is open.
    """
    step_h = getattr(ofv, "step_h", HOURS_PER_DAY)
    if step_h is None:
        raise ConfigError(
            f"the step of this {type(ofv).__name__} is open: it was made without a model. Give it "
            "`step_h` [h] or a model, or hand it to a policy or surrogate that has one."
        )
    return None if step_h == HOURS_PER_DAY else step_hours(ofv.horizon, float(step_h))


def rows_of(ofv: Any, n_rows: int) -> Float[np.ndarray, "H"] | None:
    """Length of the step each row of a trajectory ends [h]; `None`: a day each.

    An objective with an open step takes one row per day of its horizon.

    Args:
        ofv: Objective.
        n_rows: Rows of the trajectory.

    Raises:
        ConfigError: If the step is open and there are not as many rows as days.
    """
    if not is_open(ofv):
        return steps_of(ofv)
    if n_rows != ofv.horizon:
        raise ConfigError(
            f"a trajectory of {n_rows} rows meets a horizon of {ofv.horizon} days and an open "
            f"step: how long a row lasts is not known. Give this {type(ofv).__name__} `step_h` [h] "
            "or a model."
        )
    return None


def n_steps_of(ofv: Any) -> int:
    """Steps of an objective's roll-outs [-]."""
    hours = steps_of(ofv)
    return int(ofv.horizon) if hours is None else hours.size


def along(values: Float[Array, "*D"], hours: Float[np.ndarray, "H"]) -> Float[Array, "H"]:
    """One value per step, of one for all or of one per day: what a day has, all its steps have.

    Args:
        values: One value, or one per day of the horizon.
        hours: Length of each step [h].
    """
    if values.ndim == 0 or values.shape[0] == 1:
        return jnp.broadcast_to(values, hours.shape)
    ends = np.cumsum(hours)
    return values[np.ceil((ends - _ROUNDING_H) / HOURS_PER_DAY).astype(int) - 1]


def check_takes_hours(rollout: Callable[..., Any]) -> None:
    """Refuse a roll-out that knows only days.

    Raises:
        ConfigError: If it has no argument `dt_h`.
    """
    taken = inspect.signature(rollout).parameters
    if "dt_h" not in taken and all(p.kind is not p.VAR_KEYWORD for p in taken.values()):
        raise ConfigError(
            f"the roll-out {getattr(rollout, '__name__', rollout)!r} has no argument dt_h, the "
            "length of each step [h]; with a step other than 24 h it needs one."
        )


def check_step(step_h: float) -> float:
    """The length of a step.

    Raises:
        ConfigError: If it is no number above zero.
    """
    if not (np.isfinite(step_h) and step_h > 0.0):
        raise ConfigError(f"step_h={step_h} was given; hours above 0 are needed.")
    return float(step_h)
