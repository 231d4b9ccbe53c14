"""Units of derived numbers: per cell and day where cells are counted, else per hour."""

from perfusio_jax._core import HOURS_PER_DAY
from perfusio_jax._core.unit_text import parse_unit

from .description import Process
from .parts import dimensions

_COUNTED = {"cell": 1, "length": -3}
_PICO = 1e12
_PL_PER_M3 = 1e15


class DerivedUnits:
    """Units and factors of one process.

    Args:
        process: The culture.
    """

    def __init__(self, process: Process) -> None:
        self.process = process
        biomass = process.biomass
        self.biomass_unit = "" if biomass is None else process.quantity(biomass).unit
        self.is_counted = biomass is not None and dimensions(self.biomass_unit) == _COUNTED
        self.time = "d" if self.is_counted or biomass is None else "h"
        """In what times are told."""
        self.hours = HOURS_PER_DAY if self.time == "d" else 1.0
        """How long that is [h]."""
        self.per_cell = 0.0
        """From L/h of medium per L over biomass to pL/cell/d."""
        if self.is_counted:
            self.per_cell = HOURS_PER_DAY * _PL_PER_M3 / float(parse_unit(self.biomass_unit).factor)

    def label(self, name: str) -> str:
        """A quantity's name for people, inside a sentence."""
        text = self.process.quantity(name).label
        return text[:1].lower() + text[1:] if text else name

    def specific(self, name: str) -> tuple[str, float]:
        """Unit of a rate per biomass, and the factor from [unit/h per unit of biomass] to it."""
        unit = self.process.quantity(name).unit
        held, cells = parse_unit(unit), parse_unit(self.biomass_unit)
        kind = next((d for d in ("mass", "amount") if d in dict(held.dimensions)), "")
        if self.is_counted and kind:
            size = float(held.factor) / float(cells.factor)
            what = "pg" if kind == "mass" else "pmol"
            return f"{what}/cell/d", size * _PICO * HOURS_PER_DAY
        return f"{_over(unit, self.biomass_unit)}/{self.time}", self.hours

    def ratio(self, made: str, source: str) -> tuple[str, float]:
        """Unit of a yield, and the factor from the quotient of two rates to it."""
        return _over(self.process.quantity(made).unit, self.process.quantity(source).unit), 1.0


def _over(first: str, second: str) -> str:
    """The quotient of two concentrations as people write it."""
    above, below = (unit.removesuffix("/L") for unit in (first, second))
    if first.endswith("/L") and second.endswith("/L"):
        return f"{above}/{below}"
    if first == "1e6 cells/mL" and second.endswith("/L"):
        return f"1e9 cells/{below}"
    return f"({first})/({second})"
