"""What the columns of a table may be called, and in which unit: ours, or those of a process."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from perfusio_jax._core import (
    AUXILIARY_TAGS,
    CONTROL_NAMES,
    REGISTRY,
    STREAM_TOTALS,
    UnitError,
)
from perfusio_jax._core.plausible import doubt
from perfusio_jax._core.unit_text import parse_unit
from perfusio_jax._core.units import CANONICAL_UNITS, Conversion, canonical_unit, conversion

if TYPE_CHECKING:
    from perfusio_jax.process import Process

TIMES: Final = ("time_h", "day")
UNITLESS: Final = ("1", "-", "pH")
"""Units of what has no dimension; nothing converts to them."""

OF_CELLS: Final[Mapping[str, str]] = MappingProxyType({"VCD": "Xv", "DCD": "Xd"})
"""What tables call the cells that a process has in its balance."""

_NEVER_BELOW: Final = ("flow", "composition", "target", "bolus")
"""Roles of controls whose values are no less than nothing."""


@dataclass(frozen=True)
class Vocabulary:
    """Names of columns of numbers, what they are for, and their units.

    What a process names has the process's unit; everything else has ours.
    """

    species: tuple[str, ...] = REGISTRY
    """What is measured, in the order of arrays."""
    controls: tuple[str, ...] = CONTROL_NAMES
    """What is set, in the order of arrays."""
    tags: tuple[str, ...] = AUXILIARY_TAGS
    """What else is recorded, in the order of arrays."""
    online: tuple[str, ...] = ()
    """Of what is measured: what a probe of the process reads between samples, too."""
    latent: tuple[str, ...] = ()
    """Quantities of the process that nobody reads; a column of that name is not used."""
    spans: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Plausible range of what the process names."""
    units: Mapping[str, str] = field(default_factory=dict)
    """Unit of what the process names."""
    signed: frozenset[str] = frozenset()
    """What the process names and may be below zero."""
    open: frozenset[str] = frozenset()
    """Names whose unit is whatever unit the table states, as long as it is one."""
    process: str = ""
    """Name of the process; empty for our own names."""

    @classmethod
    def of(cls, process: "Process | None") -> "Vocabulary":
        """The names of a process beside ours; ours alone for None."""
        if process is None:
            return OURS
        parts = (*process.quantities, *process.controls)
        named = {part.name for part in parts}
        totals = [s.total for s in process.streams if s.total]
        tags = [n for n in AUXILIARY_TAGS if n not in named]
        tags += [n for n in totals if n not in (*STREAM_TOTALS, *named, *tags)]
        signed = {q.name for q in process.quantities if q.kind != "carried"}
        signed |= {c.name for c in process.controls if c.role not in _NEVER_BELOW}
        return cls(
            species=process.readings,
            controls=process.control_names,
            tags=tuple(tags),
            online=process.online,
            latent=tuple(q.name for q in process.quantities if not q.is_measured),
            spans={part.name: (part.lo, part.hi) for part in parts},
            units={part.name: part.unit for part in parts}
            | {n: "L" for n in tags if n not in AUXILIARY_TAGS},
            signed=frozenset(signed),
            process=process.name,
        )

    @cached_property
    def folded(self) -> dict[str, str]:
        """What the process names, by the name in lower case."""
        return {name.casefold(): name for name in (*self.units,) if name not in self.latent}

    def is_numeric(self, name: str) -> bool:
        """Whether a column of this name holds numbers."""
        return name in self.numbers or name in TIMES or name == "value"

    def with_cells(self, names: list[str]) -> list[str]:
        """Names with those of cells as the process has them: a column VCD holds its Xv."""
        renamed = {
            ours: theirs
            for ours, theirs in OF_CELLS.items()
            if theirs in self.species and ours not in self.spans and theirs not in names
        }
        return [renamed.get(name, name) for name in names]

    @cached_property
    def numbers(self) -> tuple[str, ...]:
        """Every name of a column of numbers but the times."""
        known = ("volume_L", *REGISTRY, *CONTROL_NAMES, *STREAM_TOTALS, *AUXILIARY_TAGS)
        return tuple(dict.fromkeys((*known, *self.species, *self.controls, *self.tags)))

    @property
    def strange_controls(self) -> tuple[str, ...]:
        """Controls of ours that the process does not know."""
        known = {*self.controls, *self.species, *self.latent}
        return tuple(n for n in CONTROL_NAMES if n not in known)

    @property
    def strange_species(self) -> tuple[str, ...]:
        """Species of ours that the process does not have, or that nobody reads in it."""
        others = [n for n in REGISTRY if n not in (*self.species, *self.controls)]
        return tuple(dict.fromkeys((*others, *self.latent)))

    def unit(self, name: str) -> str:
        """The unit a column has once it is read.

        Raises:
            UnitError: If nothing has this name.
        """
        return self.units.get(name) or canonical_unit(name)

    def is_ours(self, name: str) -> bool:
        """Whether a column is one of ours in our unit, with all that is known of it."""
        return name in CANONICAL_UNITS and self.unit(name) == CANONICAL_UNITS[name]

    def conversion(self, unit: str, name: str) -> Conversion:
        """From a unit to the one a column has.

        Args:
            unit: As the table states it; empty for the column's own.
            name: The column.

        Raises:
            UnitError: If the unit cannot be read or is of something else.
        """
        return self.between(unit or self.unit(name), self.unit(name), name)

    def between(self, given: str, wanted: str, name: str) -> Conversion:
        """From one unit of a column to another.

        Raises:
            UnitError: If one cannot be read or does not fit the column.
        """
        if self.is_ours(name):
            return conversion(given, name).then(conversion(wanted, name).inverse)
        if name in self.open:
            if given.strip() not in UNITLESS:
                parse_unit(given)  # refuses what is no unit
            return _SAME
        if given.strip() == wanted:
            return _SAME
        if {given.strip(), wanted} & {*UNITLESS}:
            if {given.strip(), wanted} <= {*UNITLESS}:
                return _SAME
            raise self._refused(name, given, "one of them has no dimension")
        try:
            one = parse_unit(given)
        except UnitError as error:
            raise self._refused(name, given, str(error).rstrip(".")) from None
        other = parse_unit(wanted)
        if one.dimensions == other.dimensions:
            return Conversion(one.factor / other.factor, (one.zero - other.zero) / other.factor)
        if name in CANONICAL_UNITS:  # mass and amount of what has a molar mass
            try:
                return conversion(given, name).then(conversion(wanted, name).inverse)
            except UnitError:
                pass
        raise self._refused(name, given, f"they measure different things ({one} and {other})")

    def _refused(self, name: str, given: str, why: str) -> UnitError:
        wanted = self.unit(name)
        usual = (
            " and ".join(UNITLESS) if wanted in UNITLESS else f"{wanted} and what converts to it"
        )
        return UnitError(
            f"column '{name}' has unit '{given[:80]}', and process '{self.process}' has it in "
            f"'{wanted}': {why}. Allowed are {usual}."
        )

    def has_limits(self, name: str) -> bool:
        """Whether a quantity is read by an assay, which has limits, in contrast to a set-point."""
        return name in self.species

    def may_be_negative(self, name: str) -> bool | None:
        """Whether values below zero are values; None where the process does not say."""
        return name in self.signed if name in self.units else None

    def doubt(self, name: str, low: float, high: float) -> str:
        """What is implausible about the values of a column; empty where nothing is."""
        if name not in self.spans:
            return doubt(name, low, high)
        lo, hi = self.spans[name]
        if low >= lo and high <= hi:
            return ""
        return f"outside {lo:g} to {hi:g} {self.unit(name)}, the range of process '{self.process}'"


_SAME: Final = conversion("g/L", "Glc")

OURS: Final = Vocabulary()
"""The names of the campaign table."""
