"""What a culture is made of: quantities, controls and streams."""

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from perfusio_jax._core import ConfigError
from perfusio_jax._core.configmodel import ConfigModel
from perfusio_jax._core.unit_text import parse_unit

UNITLESS = ("1", "-", "pH")
"""Units of what has no dimension."""

REST = "rest"
"""Flow of the stream that keeps the volume: what the others leave of the balance."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_MOST = 40


def _name(text: str) -> str:
    if not _NAME.fullmatch(text) or len(text) > _MOST or text == REST:
        raise ConfigError(
            f"{text[:60]!r} is no name; a name begins with a letter, goes on with letters, digits "
            f"and _, has at most {_MOST} characters, and is not {REST!r}."
        )
    return text


def dimensions(unit: str) -> dict[str, int]:
    """Powers of a unit's dimensions; empty for what has none.

    Args:
        unit: As people write it, `"g/L"`; `"1"`, `"-"` and `"pH"` have no dimension.

    Returns:
        Power by dimension, without those that cancel: mass 1 and length -3 of `"g/L"`.

    Raises:
        UnitError: If it is no unit.
    """
    return {} if unit in UNITLESS else dict(parse_unit(unit).dimensions)


def _unit(text: str) -> str:
    dimensions(text)
    return text


Name = Annotated[str, AfterValidator(_name)]
UnitText = Annotated[str, AfterValidator(_unit)]


class Part(ConfigModel):
    """A part of a process; equal ones have equal hashes, so they can be static under `jit`."""

    came_later: ClassVar[tuple[str, ...]] = ()
    """Fields that are not written while they say the usual: digests stay as they were without."""

    @model_serializer(mode="wrap")
    def _without_what_came_later(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        said, fields = plain(self), type(self).model_fields
        usual = {n for n in self.came_later if getattr(self, n) == fields[n].default}
        return {name: value for name, value in said.items() if name not in usual}

    def __hash__(self) -> int:
        """Of everything it says."""
        return hash((type(self).__name__, self.model_dump_json()))


class Quantity(Part):
    """One quantity of a culture.

    Example:
        >>> Quantity(name="X", unit="g/L", hi=60.0).kind
        'carried'

    Raises:
        ConfigError: For a range that is none, an assay without noise, or a carried quantity whose
            unit is no concentration.
        UnitError: For a unit nobody knows.
    """

    came_later = ("is_online",)

    name: Name
    """Name of its column."""
    unit: UnitText
    """Unit of its values; "1", "-" or "pH" where it has no dimension."""
    kind: Literal["carried", "level", "derived"] = "carried"
    """How it is seen. "carried": a concentration that streams bring and take. "level": a state
    that streams do not carry, as pH or dissolved oxygen. "derived": a function of others."""
    label: str = ""
    """Name for people."""
    lo: float = 0.0
    """No plausible value is below."""
    hi: float
    """No plausible value is above."""
    cv: float = Field(default=0.07, ge=0.0, le=1.0)
    """Coefficient of variation of its assay [-]."""
    floor: float = Field(default=0.0, ge=0.0)
    """Deviation of its assay at zero, in its unit."""
    start: float | None = None
    """Its value at the start of a run where nobody tells; None: the usual one."""
    is_measured: bool = True
    """Whether somebody reads it; what nobody reads stays a latent state."""
    is_online: bool = False
    """Whether a probe reads it all the time, between samples, too."""
    formula: Literal["", "viability"] = ""
    """How a derived quantity follows from others. "viability": `100 a / (a + b)` of the two that
    `of` names. Empty: nobody says, and it is measured but not modelled."""
    of: tuple[str, ...] = ()
    """The quantities its formula is of, in the formula's order."""

    @model_validator(mode="after")
    def _fits(self) -> "Quantity":
        self._check_formula()
        if self.start is not None and not self.lo <= self.start <= self.hi:
            raise ValueError(
                f"{self.name}: start {self.start:g} lies outside {self.lo:g} to {self.hi:g}."
            )
        if not self.lo < self.hi:
            raise ValueError(f"{self.name}: lo {self.lo:g} is not below hi {self.hi:g}.")
        if self.is_online and not self.is_measured:
            raise ValueError(
                f"{self.name}: is_online = true and is_measured = false; what a probe reads is "
                "measured."
            )
        if self.is_measured and self.cv == 0.0 and self.floor == 0.0:
            raise ValueError(f"{self.name}: cv and floor are both 0; no assay is without noise.")
        if self.kind == "carried":
            powers = dimensions(self.unit)
            if powers.get("length") != -3 or len(powers) != 2:
                raise ValueError(
                    f"{self.name}: {self.unit!r} is no concentration, which a carried quantity has "
                    "(g/L, mmol/L, 1e6 cells/mL); what streams do not carry is a level."
                )
            if self.lo < 0.0:
                raise ValueError(f"{self.name}: lo is {self.lo:g}; no concentration is below 0.")
        return self

    def _check_formula(self) -> None:
        if (self.formula or self.of) and self.kind != "derived":
            raise ValueError(
                f"{self.name}: a {self.kind} quantity has no formula; only a derived one follows "
                "from others."
            )
        wanted = 2 if self.formula else 0
        if len(self.of) != wanted or len(set(self.of)) != wanted:
            what = (
                f"{self.formula} is of two others" if wanted else "without a formula it is of none"
            )
            raise ValueError(
                f"{self.name}: of names {', '.join(self.of) or 'nothing'}; {what}"
                f"{' (viable cells, dead cells)' if wanted else ''}."
            )


class Control(Part):
    """One thing a person or a twin sets.

    Example:
        >>> Control(name="dilution", unit="1/h", role="flow", lo=0.0, hi=1.0, default=0.1).role
        'flow'

    Raises:
        ConfigError: For a range that is none, a default outside it, or a flow whose unit is none.
        UnitError: For a unit nobody knows.
    """

    name: Name
    """Name of its column."""
    unit: UnitText
    """Unit of its values."""
    role: Literal["flow", "composition", "target", "bolus", "environment"]
    """What it does. "flow": sets the flow of a stream. "composition": sets what a stream carries.
    "target": a pump holds a quantity there. "bolus": an amount, or a volume of a feed, given at a
    sample. "environment": what cells live in, as temperature or light."""
    label: str = ""
    """Name for people."""
    lo: float
    """Lowest value that may be set."""
    hi: float
    """Highest value that may be set."""
    default: float
    """Value where nobody tells."""
    quantity: str | None = None
    """What a target holds, or a composition or bolus adds; none of a bolus that is a volume."""
    brings: dict[str, float] = Field(default_factory=dict)
    """Of a bolus: concentration of each quantity in what is given, in the quantity's unit. The
    volume that comes with it follows; without this an amount comes in no volume."""
    gain: float | None = Field(default=None, gt=0.0)
    """Of a target: rate per deviation at which its pump brings the quantity back [1/h]; 2."""
    most: float | None = Field(default=None, gt=0.0)
    """Of a target: most that its pump lets flow [vessel volumes / h]; 0.05."""

    @model_validator(mode="after")
    def _fits(self) -> "Control":
        if not self.lo <= self.hi:
            raise ValueError(f"{self.name}: lo {self.lo:g} is above hi {self.hi:g}.")
        if not self.lo <= self.default <= self.hi:
            raise ValueError(
                f"{self.name}: default {self.default:g} lies outside {self.lo:g} to {self.hi:g}."
            )
        if self.role != "target" and (self.gain, self.most) != (None, None):
            raise ValueError(
                f"{self.name}: gain and most are of a pump that holds a target; a control of role "
                f"{self.role} has none."
            )
        if self.role == "flow":
            if not is_per_cell(self.unit):
                litres_per_hour(1.0, 1.0, self.unit, self.name)
            if self.lo < 0.0:
                raise ValueError(f"{self.name}: lo is {self.lo:g}; no flow is below 0.")
        self._check_feed()
        needs = self.role in ("composition", "target", "bolus") and not self.brings
        if needs and self.quantity is None:
            raise ValueError(f"{self.name}: a {self.role} names its quantity.")
        if self.role in ("flow", "environment") and self.quantity is not None:
            raise ValueError(f"{self.name}: a control of role {self.role} has no quantity.")
        return self

    @property
    def given(self) -> tuple[str, ...]:
        """Quantities that a bolus brings; none of another role."""
        if self.role != "bolus":
            return ()
        only = () if self.quantity is None else (self.quantity,)
        return tuple(dict.fromkeys((*only, *(n for n, c in self.brings.items() if c > 0.0))))

    def _check_feed(self) -> None:
        """What a bolus brings, as its unit needs it."""
        if not self.brings:
            return
        if self.role != "bolus":
            raise ValueError(
                f"{self.name}: brings is of a bolus; what a stream carries stands there."
            )
        for name, value in self.brings.items():
            if not value >= 0.0:
                raise ValueError(f"{self.name}: {name} is {value:g}; no concentration is below 0.")
        if dimensions(self.unit) == {"length": 3}:
            if self.quantity is not None:
                raise ValueError(
                    f"{self.name}: a volume of what brings {', '.join(self.brings)} has no "
                    "quantity of its own; leave it out."
                )
        elif self.quantity is None or not self.brings.get(self.quantity, 0.0) > 0.0:
            raise ValueError(
                f"{self.name}: an amount [{self.unit}] is one of a quantity, and brings holds its "
                "concentration in what is given; a unit of volume needs no quantity."
            )


class Stream(Part):
    """One way into the vessel or out of it.

    Raises:
        ConfigError: For contents of what leaves, a retention of what enters, or shares that are
            none.
    """

    name: Name
    """Name for people and records."""
    direction: Literal["in", "out"]
    """Whether it enters or leaves."""
    flow: str
    """What sets it: a control of role flow or target, or "rest" for the stream that keeps the
    volume."""
    carries: dict[str, float | str] = Field(default_factory=dict)
    """Concentration of each quantity in what enters, in the quantity's unit, or the control of role
    composition that sets it; what is not named is not in it."""
    adds: dict[str, str] = Field(default_factory=dict)
    """Controls of role composition that come on top of what `carries` says, by quantity."""
    passes: dict[str, float] = Field(default_factory=dict)
    """Share of each quantity that leaves with the stream [-]; 1 where not named, 0 for cells that
    a filter holds back."""
    total: str | None = None
    """Column that records how much flowed since the sample before [L]."""

    @model_validator(mode="after")
    def _fits(self) -> "Stream":
        if self.direction == "out" and (self.carries or self.adds):
            raise ValueError(
                f"{self.name}: what leaves has the vessel's concentrations; `passes` says what is "
                "held back."
            )
        if self.direction == "in" and self.passes:
            raise ValueError(f"{self.name}: nothing is held back of what enters; use `carries`.")
        for name, value in self.carries.items():
            if not isinstance(value, str) and value < 0.0:
                raise ValueError(f"{self.name}: {name} is {value:g}; no concentration is below 0.")
        for name, share in self.passes.items():
            if not 0.0 <= share <= 1.0:
                raise ValueError(f"{self.name}: {name} passes {share:g}; a share lies in 0 to 1.")
        return self


def is_per_cell(unit: str) -> bool:
    """Whether a flow's unit is one per cell or per biomass, as pL/cell/d or mL/g/h."""
    powers = dimensions(unit)
    return powers in (
        {"length": 3, "cell": -1, "time": -1},
        {"length": 3, "mass": -1, "time": -1},
    )


def flow_per_biomass(unit: str, biomass_unit: str, name: str) -> float:
    """What one unit of a flow per cell asks for at one unit of biomass [vessel volumes / h].

    Args:
        unit: Its unit, as pL/cell/d.
        biomass_unit: Unit of the biomass, as 1e6 cells/mL.
        name: Whose it is, for messages.

    Raises:
        ConfigError: If the two do not fit.

    Example:
        >>> round(24.0 * flow_per_biomass("pL/cell/d", "1e6 cells/mL", "cspr"), 9)
        0.001
    """
    both = dict(dimensions(unit))
    for name_of, power in dimensions(biomass_unit).items():
        both[name_of] = both.get(name_of, 0) + power
    if {k: v for k, v in both.items() if v} != {"time": -1}:
        raise ConfigError(
            f"{name}: {unit!r} is a flow per cell or biomass, and the biomass is in "
            f"{biomass_unit!r}; the two do not make vessel volumes per time."
        )
    return float(parse_unit(unit).factor) * float(parse_unit(biomass_unit).factor) * 3600.0


def litres_per_hour(value: float, volume_L: float, unit: str, name: str) -> float:
    """What a control of role flow asks for [L/h].

    Args:
        value: Its value; may be an array.
        volume_L: Volume in the vessel [L]; may be an array.
        unit: Its unit: a volume per time, or vessel volumes per time as vvd or 1/h.
        name: Whose it is, for messages.

    Raises:
        ConfigError: If the unit is none of a flow.
    """
    powers = dimensions(unit)
    if powers == {"time": -1}:
        return value * (float(parse_unit(unit).factor) * 3600.0) * volume_L
    if powers == {"length": 3, "time": -1}:
        return value * (float(parse_unit(unit).factor) * 3600.0 * 1000.0)
    raise ConfigError(
        f"{name}: {unit!r} is no flow; a stream's is a volume per time (L/h, mL/d), vessel "
        "volumes per time (vvd, 1/h), or a volume per cell and time (pL/cell/d)."
    )
