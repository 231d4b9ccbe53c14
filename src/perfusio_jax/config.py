"""Configuration: what may be done to a reactor, how to compute, when to raise an alarm.

Every object is refused when it is made if it cannot be used: unknown keys, inverted bounds,
units that do not fit and set-points that contradict each other are named in the message.
Objects are immutable; `replace` makes a checked copy with changes.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, Self, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from pydantic import Field, field_validator, model_validator

from perfusio_jax._core import AUXILIARY_TAGS, CONTROL_NAMES, REGISTRY, ConfigError, Key, UnitError
from perfusio_jax._core.configmodel import ConfigModel
from perfusio_jax._core.devices import DEVICE_PATTERN, Device, resolve_device
from perfusio_jax._core.names import AlarmChannel
from perfusio_jax._core.plausible import PLAUSIBLE
from perfusio_jax._core.units import canonical_unit, is_canonical, to_canonical

AcquisitionName = Literal[
    "PI",
    "EI",
    "LogEI",
    "UCB",
    "qEI",
    "qLogEI",
    "qUCB",
    "qEHVI",
    "qNEHVI",
    "qNParEGO",
    "qLogNEI",
    "qLogNEHVI",
    "qKG",
]
"""Acquisition functions a run may ask for: those `bed.build_acquisition` knows. What does not suit
its targets, or roll-outs (qKG), is refused when its policy is made."""


_LARGEST: Final = 1e15
"""No quantity has a larger value, in any unit anybody uses."""
_NARROWEST: Final = 1e-9
"""Closest bounds, as a part of the larger or of one; no device and no search tells less apart."""
LARGEST_SEED: Final = 2**32 - 1
"""The largest seed, here as on the command line: what every precision takes as it is."""


class _Bounds(ConfigModel):
    """An interval with a unit."""

    lo: float
    """Lower limit, in `unit`."""
    hi: float
    """Upper limit, in `unit`; above `lo`."""
    unit: str
    """Unit of both limits, in any spelling of the canonical unit."""
    description: str = ""
    """Human-readable name, used on axes."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if max(abs(self.lo), abs(self.hi)) > _LARGEST:
            raise ConfigError(
                f"bounds are no range: lo={self.lo:g}, hi={self.hi:g}; no quantity has values "
                f"beyond {_LARGEST:g}."
            )
        if 0.0 < self.hi - self.lo < _NARROWEST * max(1.0, abs(self.lo), abs(self.hi)):
            raise ConfigError(
                f"bounds are too close to search between: lo={self.lo!r} and hi={self.hi!r} are "
                f"{self.hi - self.lo:.3g} apart, less than {_NARROWEST:g} of their size. To hold "
                "a variable at one value, leave it out here and fix it in the call."
            )
        if not self.lo < self.hi:
            raise ConfigError(
                f"bounds are inverted or empty: lo={self.lo:g} must be below hi={self.hi:g}. "
                "To hold a variable at one value, leave it out here and fix it in the call."
            )
        return self


class ControlBounds(_Bounds):
    """Bounds on one manipulated variable.

    A soft bound (`hard_lower` or `hard_upper` False) may be crossed by a margin at a penalty;
    a hard one never is.
    """

    hard_lower: bool = True
    """Whether `lo` may never be undercut."""
    hard_upper: bool = True
    """Whether `hi` may never be exceeded."""


class SpeciesBounds(_Bounds):
    """Physically plausible range of one measured species."""


class DesignSpace(ConfigModel):
    """The operating envelope: the single source of truth for every search over set-points.

    Units are checked against the canonical unit of each known control and species. A unit
    that fits but differs (kelvin for a temperature) is refused with the converted numbers in
    the message; nothing is converted behind the user's back.

    Example:
        >>> space = DesignSpace(
        ...     name="two_controls",
        ...     control_bounds={
        ...         "perfusion_rate": ControlBounds(lo=0.5, hi=2.0, unit="vvd"),
        ...         "bleed_rate": ControlBounds(lo=0.05, hi=0.30, unit="vvd"),
        ...     },
        ... )
        >>> space.control_names
        ['perfusion_rate', 'bleed_rate']
    """

    name: str = Field(min_length=1)
    """Name of the experiment, in logs and titles."""
    control_bounds: dict[str, ControlBounds] = Field(default_factory=dict)
    """Range per control, in the order of the search vector."""
    species_bounds: dict[str, SpeciesBounds] = Field(default_factory=dict)
    """Plausible range per species."""
    viability_min: float = Field(default=95.0, ge=0.0, le=100.0)
    """Lowest acceptable viability [%]."""
    vcv_target: float | None = Field(default=None, gt=0.0, le=100.0)
    """Target of the viable cell volume [%], if it is tracked."""
    titer_target: float | None = Field(default=None, gt=0.0)
    """Target product concentration [mg/L], if it is tracked."""

    @field_validator("control_bounds", "species_bounds")
    @classmethod
    def _units_fit(cls, bounds: dict[str, Any], info: Any) -> dict[str, Any]:
        is_control = info.field_name == "control_bounds"
        known = CONTROL_NAMES if is_control else REGISTRY + AUXILIARY_TAGS
        what = "control" if is_control else "species"
        for name, bound in bounds.items():
            _check_name_and_unit(what, name, bound, known)
        return bounds

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        perfusion = self.control_bounds.get("perfusion_rate")
        bleed = self.control_bounds.get("bleed_rate")
        if perfusion and bleed and (bleed.lo > perfusion.lo or bleed.hi > perfusion.hi):
            raise ConfigError(
                f"bleed above perfusion: bleed_rate {bleed.lo:g}-{bleed.hi:g} vvd against "
                f"perfusion_rate {perfusion.lo:g}-{perfusion.hi:g} vvd. What is bled must be "
                "fed: neither limit of the bleed may exceed that of the perfusion."
            )
        for name, target in (("VCV", self.vcv_target), ("Titer", self.titer_target)):
            bound = self.species_bounds.get(name)
            if bound and target is not None and not bound.lo <= target <= bound.hi:
                raise ConfigError(
                    f"{name.lower()}_target={target:g} lies outside the bounds of {name}, "
                    f"{bound.lo:g}-{bound.hi:g} {bound.unit}."
                )
        return self

    @property
    def bounds_array(self) -> tuple[Float[Array, " n_controls"], Float[Array, " n_controls"]]:
        """Lower and upper limits in the order of `control_names`, each in its own unit.

        Raises:
            ConfigError: If the design space has no controls.
        """
        if not self.control_bounds:
            raise ConfigError(
                f"design space '{self.name}' has no controls, so there is nothing to search over. "
                f"Give control_bounds for some of {', '.join(CONTROL_NAMES)}."
            )
        bounds = self.control_bounds.values()
        lower = jnp.asarray([b.lo for b in bounds], float)
        upper = jnp.asarray([b.hi for b in bounds], float)
        return lower, upper

    @property
    def control_names(self) -> list[str]:
        """Controls in the order of the search vector."""
        return list(self.control_bounds)

    @property
    def n_controls(self) -> int:
        """Number of controls."""
        return len(self.control_bounds)

    @property
    def species_names(self) -> list[str]:
        """Species with bounds, in the order given."""
        return list(self.species_bounds)

    @property
    def centre(self) -> dict[str, float]:
        """The recipe in the middle of every range, each control in its own unit."""
        return {name: 0.5 * (b.lo + b.hi) for name, b in self.control_bounds.items()}

    @property
    def needs_bleed_constraint(self) -> bool:
        """Whether some corner of the box bleeds more than it perfuses."""
        perfusion = self.control_bounds.get("perfusion_rate")
        bleed = self.control_bounds.get("bleed_rate")
        return bool(perfusion and bleed and bleed.hi > perfusion.lo)


class RunConfig(ConfigModel):
    """How a run computes and what it is allowed to do.

    An argument given explicitly to a constructor elsewhere beats the field here.
    """

    seed: int | None = Field(default=None, ge=0, le=LARGEST_SEED)
    """Seed of all random numbers, up to `LARGEST_SEED`; None draws a fresh one each time."""
    device: str = Field(default="cpu", pattern=DEVICE_PATTERN)
    """Where to compute: `cpu`, `gpu`, `cuda:0`, ..."""
    dtype: Literal["float32", "float64"] = "float64"
    """Floating type; fits demand `float64`."""
    n_mc_samples: int = Field(default=256, ge=1)
    """Paths of a Monte Carlo roll-out."""
    n_restarts: int = Field(default=10, ge=1)
    """Starts of the acquisition optimiser."""
    raw_samples: int = Field(default=512, ge=1)
    """Sobol points from which the starts are chosen."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severe message that is logged."""
    allow_write: bool = False
    """Whether set-points may reach a reactor at all."""
    duration_days: int = Field(default=14, ge=1)
    """Length of the run [d]."""
    sampling_interval_hours: float = Field(default=24.0, gt=0.0)
    """Time between samples [h]; the twin waits for one as often, and decides after each."""
    retrain_every: int = Field(default=1, ge=1)
    """Samples between two updates of the model."""
    acquisition: AcquisitionName = "qLogEI"
    """Acquisition function of the experimental design."""

    @property
    def jax_device(self) -> Device:
        """The device object.

        Raises:
            ConfigError: If this process has no such device.
        """
        return resolve_device(self.device)

    @property
    def jax_dtype(self) -> jnp.dtype:
        """The dtype object."""
        return jnp.dtype(self.dtype)

    def make_key(self) -> Key | None:
        """A random key from the seed.

        Returns:
            The key, or None if the seed is None.
        """
        return None if self.seed is None else jax.random.key(self.seed)


class AlarmConfig(ConfigModel):
    """Limits whose predicted violation raises an alarm, and where the alarm goes.

    Addresses and credentials are never part of a configuration: e-mail, Slack and webhook read them
    from the environment (`PERFUSIO_SMTP_*`, `PERFUSIO_SLACK_WEBHOOK_URL`, `PERFUSIO_WEBHOOK_URL`).
    """

    viability_warning: float = Field(default=97.0, ge=0.0, le=100.0)
    """Viability [%] below which a warning is raised."""
    viability_critical: float = Field(default=95.0, ge=0.0, le=100.0)
    """Viability [%] below which a critical alarm is raised."""
    ammonium_warning: float = Field(default=8.0, ge=0.0)
    """Ammonium [mmol/L] above which a warning is raised."""
    ammonium_critical: float = Field(default=12.0, ge=0.0)
    """Ammonium [mmol/L] above which a critical alarm is raised."""
    glucose_warning: float = Field(default=1.0, ge=0.0)
    """Glucose [g/L] below which a warning is raised."""
    glucose_critical: float = Field(default=0.3, ge=0.0)
    """Glucose [g/L] below which a critical alarm is raised."""
    notification_channel: AlarmChannel | tuple[AlarmChannel, ...] = "log"
    """Where alarms go, one channel or several; the log has them anyway."""
    alarm_file: Path | None = None
    """File alarms are appended to when a channel is `file`."""

    @field_validator("notification_channel", mode="before")
    @classmethod
    def _known_channels(cls, value: Any) -> Any:
        said = [value] if isinstance(value, str) else value
        known = get_args(AlarmChannel)
        if not (isinstance(said, list | tuple) and said and all(name in known for name in said)):
            raise ConfigError(
                f"AlarmConfig: 'notification_channel' was given {value!r}; allowed are "
                f"{', '.join(known)}, or a list of them."
            )
        return value if isinstance(value, str) else tuple(said)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for tag, warning, critical, falls in (
            ("viability", self.viability_warning, self.viability_critical, True),
            ("ammonium", self.ammonium_warning, self.ammonium_critical, False),
            ("glucose", self.glucose_warning, self.glucose_critical, True),
        ):
            if (warning < critical) if falls else (warning > critical):
                raise ConfigError(
                    f"{tag}_warning={warning:g} and {tag}_critical={critical:g} are inverted: "
                    f"the warning has to come before the critical alarm when {tag} "
                    f"{'falls' if falls else 'rises'}."
                )
        if "file" in self.channels and self.alarm_file is None:
            raise ConfigError(
                "notification_channel='file' needs alarm_file, the file to append to."
            )
        return self

    @property
    def channels(self) -> tuple[str, ...]:
        """Where alarms go."""
        said = self.notification_channel
        return (said,) if isinstance(said, str) else said


def alarm_limits(space: DesignSpace, given: Mapping[str, Any]) -> dict[str, float]:
    """Limits of alarms that do not contradict a design space.

    The critical viability is the lowest acceptable one (`viability_min`), and the warning comes
    2 % before it. Glucose alarms lie below the lowest set-point the search may choose, at a half
    and at 15 % of it, those of ammonium inside its bounds; no further out than by default.

    Args:
        space: Design space of the run.
        given: Limits somebody chose, by field of `AlarmConfig`; one of a pair bounds the other.

    Returns:
        All six limits, in the units of their fields.
    """
    limits = {name: float(AlarmConfig.model_fields[name].default) for name in _LIMITS}
    limits["viability_critical"] = space.viability_min
    limits["viability_warning"] = min(space.viability_min + 2.0, 100.0)
    lowest = space.control_bounds.get("glucose_setpoint")
    if lowest is not None:
        for name, share in (("glucose_warning", 0.5), ("glucose_critical", 0.15)):
            limits[name] = max(min(limits[name], share * lowest.lo), 0.0)
    ammonium = space.species_bounds.get("Amm")
    if ammonium is not None:
        for name in ("ammonium_warning", "ammonium_critical"):
            limits[name] = min(limits[name], ammonium.hi)
    for tag, falls in _TAGS.items():
        warning, critical = f"{tag}_warning", f"{tag}_critical"
        below, above = (critical, warning) if falls else (warning, critical)
        if _is_number(given.get(below)) and above not in given:
            limits[above] = max(limits[above], given[below])
        elif _is_number(given.get(above)) and below not in given:
            limits[below] = min(limits[below], given[above])
    return {**limits, **{n: v for n, v in given.items() if n in limits}}


_TAGS: Final = {"viability": True, "ammonium": False, "glucose": True}
"""What `AlarmConfig` has limits of, and whether falling is the trouble."""

_LIMITS: Final = tuple(f"{tag}_{kind}" for tag in _TAGS for kind in ("warning", "critical"))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


class TwinConfig(ConfigModel):
    """The `config.toml` of a run folder: one table per part."""

    design_space: DesignSpace
    """What may be done to the reactor."""
    run: RunConfig = Field(default_factory=RunConfig)
    """How to compute."""
    alarms: AlarmConfig = Field(default_factory=AlarmConfig, validate_default=True)
    """When to raise an alarm; limits that are not given follow the design space."""

    @field_validator("alarms", mode="wrap")
    @classmethod
    def _alarms_follow(cls, value: Any, check: Any, info: Any) -> Any:
        space, is_made = info.data.get("design_space"), isinstance(value, AlarmConfig)
        given = {n: getattr(value, n) for n in value.model_fields_set} if is_made else value
        if space is None or not isinstance(given, Mapping):
            return check(value)
        checked = check({**given, **alarm_limits(space, given)})
        return AlarmConfig.model_construct(_fields_set=set(given), **dict(checked))


def _check_name_and_unit(what: str, name: str, bound: _Bounds, known: Iterable[str]) -> None:
    """Refuse misspelled names and units that are not the canonical one."""
    names = list(known)
    if name not in names:
        near = _nearest(name, names)
        if near:
            raise ConfigError(f"{what} '{name}' is not known. Did you mean '{near}'?")
        if not bound.unit.strip():
            raise ConfigError(f"{what} '{name}' needs a unit.")
        return
    unit = canonical_unit(name)
    try:
        if is_canonical(bound.unit, name):
            return
        lo, hi = to_canonical([bound.lo, bound.hi], bound.unit, name)
    except UnitError as error:
        raise UnitError(f"{what} '{name}' is measured in '{unit}': {error}") from None
    raise UnitError(
        f"{what} '{name}' is given in '{bound.unit}'; its unit here is '{unit}'. "
        f"The same bounds are lo={lo:g}, hi={hi:g}, unit='{unit}'."
    )


def _nearest(name: str, known: Iterable[str]) -> str | None:
    """The name that was probably meant, if it is close enough to be a slip."""
    by_folded = {re.sub(r"[\s_-]", "", k).casefold(): k for k in known}
    folded = re.sub(r"[\s_-]", "", name).casefold()
    match = difflib.get_close_matches(folded, by_folded, n=1, cutoff=0.85)
    if not match and len(folded) >= 4:
        match = [k for k in by_folded if k.startswith(folded)]
    return by_folded[match[0]] if match else None


def _control(lo: float, hi: float, name: str, description: str) -> ControlBounds:
    return ControlBounds(lo=lo, hi=hi, unit=canonical_unit(name), description=description)


def _species(name: str, description: str) -> SpeciesBounds:
    known = PLAUSIBLE[name]
    return SpeciesBounds(
        lo=known.lo, hi=known.hi, unit=canonical_unit(name), description=description
    )


DEFAULT_AMBR250_DESIGN_SPACE: Final = DesignSpace(
    name="ambr250_default",
    control_bounds={
        "perfusion_rate": _control(0.5, 2.0, "perfusion_rate", "Perfusion rate"),
        "bleed_rate": _control(0.05, 0.30, "bleed_rate", "Bleed rate"),
        "glucose_setpoint": _control(2.0, 8.0, "glucose_setpoint", "Glucose set-point"),
        "temperature": _control(35.0, 37.5, "temperature", "Temperature"),
        "agitation": _control(700.0, 1050.0, "agitation", "Stirrer speed"),
        "pyruvate_feed": _control(0.0, 5.0, "pyruvate_feed", "Pyruvate in the perfusion medium"),
    },
    species_bounds={
        "VCD": _species("VCD", "Viable cell density"),
        "VCV": _species("VCV", "Viable cell volume"),
        "Via": _species("Via", "Viability"),
        "Diam": _species("Diam", "Mean cell diameter"),
        "Glc": _species("Glc", "Glucose"),
        "Gln": _species("Gln", "Glutamine"),
        "Glu": _species("Glu", "Glutamate"),
        "Lac": _species("Lac", "Lactate"),
        "Amm": _species("Amm", "Ammonium"),
        "Pyr": _species("Pyr", "Pyruvate"),
        "Titer": _species("Titer", "Product concentration"),
    },
    vcv_target=14.0,
)
"""A 250 mL vessel with six controls and a volume fraction that this plant can reach."""
