"""Carbon in quantities whose composition is known."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from perfusio_jax._core.unit_text import parse_unit
from perfusio_jax._core.units import MOLAR_MASS

from .description import Process

ATOMS: Final[Mapping[str, int]] = MappingProxyType(
    {"Glc": 6, "Gln": 5, "Glu": 5, "Lac": 3, "Pyr": 3}
)
"""Carbon atoms of a molecule."""

PROTEIN: Final = 0.53
"""Carbon in protein [g/g]; the average composition of proteins."""

CELL: Final = 10e-12
"""Carbon in a CHO cell [mol/cell]: 250 pg of dry mass, 48 % of it carbon. Published dry masses
lie between 170 and 320 pg (Szeliova et al. 2020), so this is good to about a third."""

_CARBON: Final = 12.011
_PROTEINS: Final = ("Titer",)
_CELLS: Final = ("Xv", "Xd", "VCD", "DCD")


def carbon_contents(process: Process, known: Sequence[str]) -> dict[str, float]:
    """Carbon in one unit of each quantity whose composition is known.

    Args:
        process: The culture.
        known: Carried quantities that are measured.

    Returns:
        Carbon [mmol/L] per unit of the quantity; empty where glucose or the cells are not among
        them, because then no balance says anything.
    """
    found = {}
    for name in known:
        unit = parse_unit(process.quantity(name).unit)
        kinds, factor = dict(unit.dimensions), float(unit.factor)  # per m3, in mol, g or cells
        if name in ATOMS and "amount" in kinds:
            found[name] = ATOMS[name] * factor
        elif name in ATOMS and "mass" in kinds:
            found[name] = ATOMS[name] * factor / float(MOLAR_MASS[name])
        elif name in _PROTEINS and "mass" in kinds:
            found[name] = PROTEIN * factor / _CARBON
        elif name in _CELLS and "cell" in kinds:
            found[name] = CELL * factor
    return found if "Glc" in found and any(n in found for n in _CELLS) else {}
