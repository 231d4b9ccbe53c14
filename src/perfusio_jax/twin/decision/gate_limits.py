"""What a reactor tolerates, whatever anyone recommends: limits of the gate, checked when made."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Final

from perfusio_jax._core import HOURS_PER_DAY, ConfigError
from perfusio_jax.process import Process, VolumeBalance, volume_balance

from .balancing import excess, row_of, too_much
from .grid import Grid, exact, is_number, nearest, no_finer

DEFAULT_RESOLUTION: Final[Mapping[str, float]] = MappingProxyType(
    {
        "perfusion_rate": 0.01,
        "bleed_rate": 0.005,
        "glucose_setpoint": 0.1,
        "temperature": 0.1,
        "agitation": 5.0,
        "pyruvate_feed": 0.1,
    }
)
"""Smallest step a bench-top device takes [vvd, vvd, g/L, degC, rpm, mmol/L]; a choice of ours,
where neither a person nor the device says another."""


@dataclass(frozen=True, slots=True)
class GateLimits:
    """What the reactor tolerates, whatever anyone recommends.

    Mappings are keyed by control name; units are the control's own.

    Raises:
        ConfigError: For limits that contradict each other or could never be met.
    """

    lower: Mapping[str, float]
    """Hard lower limit of each control."""
    upper: Mapping[str, float]
    """Hard upper limit of each control; the same names as `lower`."""
    max_rate: Mapping[str, float] = field(default_factory=dict)
    """Largest change per day [unit/d], measured from the read-back; absent: not limited."""
    resolution: Mapping[str, float] = field(default_factory=dict)
    """Step of the device's set-point grid; absent: continuous."""
    origin: Mapping[str, float] = field(default_factory=dict)
    """A value of that grid; 0 where absent. Whole kelvins are no whole degrees Celsius."""
    assumed: frozenset[str] = frozenset()
    """Controls whose resolution nobody has told us: what the device says of it counts."""
    max_data_age_h: float = 30.0
    """Oldest sample [h] a decision may rest on."""
    fallback_after_h: float = 48.0
    """T1 [h] without good data: the fallback recipe."""
    disarm_after_h: float = 96.0
    """T2 [h] without good data: disarm and alarm."""
    fallback_recipe: Mapping[str, float] = field(default_factory=dict)
    """Set-points that keep an unobserved culture alive; empty: hold instead."""
    balance: tuple[str, str] | None = ("bleed_rate", "perfusion_rate")
    """(outflow, inflow): the first may never exceed the second; `None` switches it off."""
    flows: VolumeBalance | None = None
    """What set-points of a described culture must keep, so that no more leaves than enters and is
    there; `None`: none of them can break it."""

    def __post_init__(self) -> None:
        for name in ("lower", "upper", "max_rate", "resolution", "origin", "fallback_recipe"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))
        _check_limits(self)

    @property
    def controls(self) -> tuple[str, ...]:
        """Names of the controls the gate knows."""
        return tuple(self.lower)

    def reach(self, hours: float) -> dict[str, float]:
        """Largest change of each control that is limited, after so many hours [h]."""
        share = min(hours, HOURS_PER_DAY) / HOURS_PER_DAY
        return {name: rate * share for name, rate in self.max_rate.items()}

    @property
    def grids(self) -> dict[str, Grid]:
        """Grid of each control that has one."""
        return {n: Grid(step, self.origin.get(n, 0.0)) for n, step in self.resolution.items()}

    def with_device(self, found: Mapping[str, Grid]) -> tuple["GateLimits", list[str]]:
        """These limits on the grid a device says it has.

        Where a person told the step, it stays. Where it was assumed, it becomes the smallest
        multiple of the device's that is no finer.

        Args:
            found: Grid by control, as far as the device says.

        Returns:
            The limits, and a sentence for whatever cannot be as the device says.
        """
        limits, notes = self, []
        for name, grid in found.items():
            if name not in self.lower:
                continue
            step = self.resolution.get(name)
            if step is not None and name not in self.assumed:
                shift = exact(self.origin.get(name, 0.0)) - exact(grid.origin)
                if any(v % exact(grid.step) for v in (exact(step), shift)):
                    notes.append(
                        f"{name} is told to have steps of {step:g}; the device says "
                        f"{grid.step:g} from {grid.origin:g}"
                    )
                continue
            fine = grid if step is None else no_finer(grid, step)
            try:
                limits = replace(
                    limits,
                    resolution={**limits.resolution, name: fine.step},
                    origin={**limits.origin, name: fine.origin},
                )
            except ConfigError as error:
                notes.append(f"the device says steps of {grid.step:g} for {name}: {error}")
        return limits, notes

    @classmethod
    def from_design_space(
        cls,
        design_space: Any,
        *,
        max_change_fraction: float = 0.5,
        device_steps: Mapping[str, float] | None = None,
        **overrides: Any,
    ) -> "GateLimits":
        """Limits from a design space's control bounds.

        Args:
            design_space: Anything with `control_bounds`, a mapping of name to an object
                with `lo` and `hi`.
            max_change_fraction: Largest change per day as a fraction of each range.
            device_steps: Resolution of controls as a person tells it, in canonical units; the
                others have the default ones, as long as the device says nothing else.
            **overrides: Any field of this class; replaces what would be derived.

        Returns:
            Limits with the default device resolution of each known control.

        Raises:
            ConfigError: If the design space has no controls.
        """
        bounds = design_space.control_bounds
        if not bounds:
            raise ConfigError("The design space has no controls, so there is nothing to gate.")
        fields: dict[str, Any] = {
            "lower": {name: float(b.lo) for name, b in bounds.items()},
            "upper": {name: float(b.hi) for name, b in bounds.items()},
            "max_rate": {
                name: max_change_fraction * (float(b.hi) - float(b.lo))
                for name, b in bounds.items()
                if b.hi > b.lo
            },
            "resolution": {
                **{n: r for n, r in DEFAULT_RESOLUTION.items() if n in bounds},
                **dict(device_steps or {}),
            },
        }
        if "resolution" not in overrides:
            told = set(device_steps or {})
            fields["assumed"] = frozenset(n for n in DEFAULT_RESOLUTION if n in bounds) - told
        return cls(**(fields | overrides))

    @classmethod
    def from_process(
        cls,
        process: Process,
        *,
        hours: float = HOURS_PER_DAY,
        max_change: Mapping[str, float] | None = None,
        max_change_fraction: float = 0.5,
        device_steps: Mapping[str, float] | None = None,
        **overrides: Any,
    ) -> "GateLimits":
        """Limits of a described culture.

        Args:
            process: The culture; boluses are given and not held, so the gate lets none through.
            hours: Time between two decisions [h].
            max_change: Largest change per day by control, in its unit, where it is not the share.
            max_change_fraction: Largest change per day as a fraction of each range.
            device_steps: Resolution of controls as a person tells it; the others have
                `usual_step` of their range, as long as the device says nothing else.
            **overrides: Any field of this class; replaces what would be derived.

        Raises:
            ConfigError: If there is nothing to set, or a number is unusable.
        """
        held = [c for c in process.controls if c.role != "bolus"]
        if not held:
            raise ConfigError(f"process {process.name} has no control that is held.")
        wide = [c for c in held if c.hi > c.lo]
        for what, told in (("max_change", max_change), ("resolution", device_steps)):
            for name in told or {}:
                process.control(name)
                if name not in {c.name for c in held}:
                    raise ConfigError(f"{what} names {name}, a bolus, which is not held.")
        steps = {c.name: usual_step(c.hi - c.lo) for c in wide} | dict(device_steps or {})
        rates = {c.name: max_change_fraction * (c.hi - c.lo) for c in wide}
        fields: dict[str, Any] = {
            "lower": {c.name: c.lo for c in held},
            "upper": {c.name: c.hi for c in held},
            "max_rate": rates | dict(max_change or {}),
            "resolution": steps,
            "assumed": frozenset(steps) - set(device_steps or {}),
            "balance": None,
            "flows": volume_balance(process, hours),
        }
        return cls(**(fields | overrides))


def usual_step(span: float) -> float:
    """A step for a device of which nothing is known: 1, 2 or 5 of a decimal place.

    Args:
        span: Range of the control.

    Returns:
        The largest such number that is no more than a hundredth of the range.

    Example:
        >>> usual_step(0.5), usual_step(3.0), usual_step(10.0)
        (0.005, 0.02, 0.1)
    """
    share = exact(span) / 100
    power = math.floor(math.log10(span)) - 1
    while Fraction(10) ** power > share:
        power -= 1
    unit = Fraction(10) ** power
    return float(max(m * unit for m in (1, 2, 5) if m * unit <= share))


def _check_limits(limits: GateLimits) -> None:
    if not limits.lower:
        raise ConfigError("Gate limits need at least one control; none was given.")
    if set(limits.lower) != set(limits.upper):
        odd = ", ".join(sorted(set(limits.lower) ^ set(limits.upper)))
        raise ConfigError(f"Each control needs a lower and an upper limit; check {odd}.")
    for name in limits.lower:
        low, high = limits.lower[name], limits.upper[name]
        if not is_number(low) or not is_number(high) or low > high:
            raise ConfigError(
                f"Limits of {name} are {low!r} to {high!r}; two finite numbers, the lower first, "
                "are needed."
            )
    for label, table in (("max_rate", limits.max_rate), ("resolution", limits.resolution)):
        for name, value in table.items():
            if name not in limits.lower:
                raise ConfigError(f"{label} names {name}, which has no limits.")
            if not is_number(value) or value <= 0.0:
                raise ConfigError(f"{label} of {name} is {value!r}; it must be above zero.")
    for name, value in limits.origin.items():
        if name not in limits.resolution or not is_number(value):
            raise ConfigError(
                f"origin of {name} is {value!r}; a finite number, of a control with a resolution, "
                "is needed."
            )
    for name, step in limits.resolution.items():
        window = (exact(limits.lower[name]), exact(limits.upper[name]))
        if nearest(window[0], window, limits.grids[name]) is None:
            raise ConfigError(
                f"No multiple of the resolution {step:g} of {name} lies within its limits."
            )
    ages = (limits.max_data_age_h, limits.fallback_after_h, limits.disarm_after_h)
    if not all(is_number(age) and age > 0.0 for age in ages) or list(ages) != sorted(ages):
        raise ConfigError(
            "0 < max_data_age_h <= fallback_after_h <= disarm_after_h is needed [h]; given "
            + ", ".join(repr(age) for age in ages)
        )
    _check_recipe(limits)


def _check_recipe(limits: GateLimits) -> None:
    recipe = limits.fallback_recipe
    for name, value in recipe.items():
        if name not in limits.lower:
            raise ConfigError(f"The fallback recipe names {name}, which has no limits.")
        low, high = limits.lower[name], limits.upper[name]
        if not is_number(value) or not low <= value <= high:
            raise ConfigError(
                f"The fallback recipe sets {name} to {value!r}; allowed is {low:g} to {high:g}."
            )
    if limits.balance is not None:
        out, into = (recipe.get(name) for name in limits.balance)
        if out is not None and into is not None and out > into:
            raise ConfigError(
                f"The fallback recipe has {limits.balance[0]} {out:g} above "
                f"{limits.balance[1]} {into:g}; more would leave than enters."
            )
    if limits.flows is not None and not limits.flows.moves:
        row = row_of(limits.flows, None)
        if row is not None and all(name in recipe for name in row[0]):
            values = {name: exact(recipe[name]) for name in row[0]}
            if excess(values, *row) > 0:
                raise ConfigError(f"The fallback recipe: {too_much(limits.flows, values)}.")
