"""Policies of an in-silico campaign: what they are given of runs side by side, and who they are."""

import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float

from perfusio_jax._core import REGISTRY, ConfigError
from perfusio_jax._core.hints import did_you_mean
from perfusio_jax.chemistry import bleed_trigger
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE

from .plan import CONTROLS, PolicyPlan

_BLEED = CONTROLS.index("bleed_rate")
_VCV = REGISTRY.index("VCV")


class Seen(NamedTuple):
    """What a policy is given, of runs side by side."""

    day: int
    """Culture day [d]."""
    readings: Float[np.ndarray, "L R"]
    """Noisy readings in the order of `reading_names`; NaN where lost, or where a run has failed."""
    set_points: Float[np.ndarray, "L M"]
    """Those in force, in the order of `control_names`; of a bolus, what the design gives now."""
    design: Float[np.ndarray, "L M"]
    """Those the run began with; of a bolus, what the design gives over the whole run."""
    hour: float
    """Time of the sample [h]."""
    reading_names: tuple[str, ...]
    """What is read: of CHO perfusion the registry's species, else the readings of the process."""
    control_names: tuple[str, ...]
    """What is set."""
    volume_L: Float[np.ndarray, " L"] | None = None
    """Volume in each vessel [L]; None for CHO perfusion, where it stays."""

    def reading(self, name: str) -> Float[np.ndarray, " L"]:
        """Readings of one quantity.

        Raises:
            ConfigError: If nothing of that name is read.
        """
        return self.readings[:, _place(name, self.reading_names, "reading")]

    def set_point(self, name: str) -> Float[np.ndarray, " L"]:
        """Set-points of one control.

        Raises:
            ConfigError: If there is no such control.
        """
        return self.set_points[:, _place(name, self.control_names, "control")]

    def with_set_points(self, **values: ArrayLike) -> Float[np.ndarray, "L M"]:
        """The set-points with some at other values, as a policy returns them.

        Args:
            **values: By name of control, one for each run or one for all [unit of the control].

        Raises:
            ConfigError: If there is no such control.
        """
        found = self.set_points.copy()
        for name, value in values.items():
            found[:, _place(name, self.control_names, "control")] = value
        return found


Policy = Callable[[Seen], Float[np.ndarray, "L M"]]
"""Set-points until the next sample. Runs are in rows, and a row depends on its own row alone. A
flow that a vessel cannot have, for the stream that keeps its volume would run backwards, is held at
what it can have and counted (`n_held`)."""


def policy_of(plan: PolicyPlan) -> Policy:
    """The function that a policy of a plan names.

    Raises:
        ConfigError: If it cannot be found.
    """
    if plan.kind == "fixed":
        return lambda seen: seen.set_points
    if plan.kind == "bleed":
        return lambda seen: _bleeding(plan, seen)
    module, name = plan.kind.split(":")
    here = str(Path.cwd())  # as a mechanism's
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        function: Any = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"policy {plan.name!r}: {plan.kind} cannot be had ({error}). Its module has to be "
            "installed, in the present folder or in one of PYTHONPATH, on every machine."
        ) from None
    if callable(function):
        return cast(Policy, function)
    raise ConfigError(f"policy {plan.name!r}: {plan.kind} is no function.")


def checked_shape(
    plan: PolicyPlan, given: Any, before: Float[np.ndarray, "L M"]
) -> Float[np.ndarray, "L M"]:
    """Set-points of a policy, a row for each run.

    Raises:
        ConfigError: If it gave anything else.
    """
    try:
        found = np.array(given, float)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"policy {plan.name!r} gave a {type(given).__name__} that is no table of numbers "
            f"({error}); it has to give set-points, a row for each run."
        ) from None
    if found.shape != before.shape:
        raise ConfigError(
            f"policy {plan.name!r} gave set-points of shape {found.shape} for runs of shape "
            f"{before.shape}; it has to give as many."
        )
    return found


def _bleeding(plan: PolicyPlan, seen: Seen) -> Float[np.ndarray, "L 6"]:
    """Bleed rises from the design's with the cell volume; a lost reading leaves it as it is."""
    found = seen.set_points.copy()
    vcv = seen.readings[:, _VCV]
    most = max(float(DEFAULT_AMBR250_DESIGN_SPACE.bounds_array[1][_BLEED]), found[:, _BLEED].max())
    least = seen.design[:, _BLEED]
    wanted = bleed_trigger(
        jnp.asarray(vcv), plan.target, jnp.asarray(least), jnp.full_like(least, most), plan.gain
    )
    known = np.isfinite(vcv)
    found[known, _BLEED] = np.asarray(wanted)[known]
    return found


def _place(name: str, names: Sequence[str], what: str) -> int:
    if name not in names:
        raise ConfigError(
            f"a policy asks for the {what} {name!r}{did_you_mean([name], names)}; there are "
            f"{', '.join(names) or 'none'}."
        )
    return list(names).index(name)
