"""Units at the border: every column has one canonical unit, everything else is converted.

Inside the library numbers are in canonical units and carry no unit object. What a text means
stands in `unit_text`; here stands which of it a column may have. A control may only have the
conversions of one table, `CONTROL_UNITS`, whichever way the number goes: what is not in it can
neither be sent to a device nor be read from one.
"""

import difflib
import math
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from perfusio_jax._core.errors import UnitError
from perfusio_jax._core.unit_text import Dimensions, Unit, parse_unit

_CELLS: Final = "1e6 cells/mL"

CANONICAL_UNITS: Final[Mapping[str, str]] = MappingProxyType(
    {
        # species, in the order of the registry
        "VCD": _CELLS,
        "VCV": "%",
        "Via": "%",
        "Diam": "um",
        "Glc": "g/L",
        "Gln": "mmol/L",
        "Glu": "mmol/L",
        "Lac": "mmol/L",
        "Amm": "mmol/L",
        "Pyr": "mmol/L",
        "Titer": "mg/L",
        "DCD": _CELLS,
        "Lys": _CELLS,
        # latent cell densities
        "Xv": _CELLS,
        "Xd": _CELLS,
        # controls
        "perfusion_rate": "vvd",
        "bleed_rate": "vvd",
        "glucose_setpoint": "g/L",
        "temperature": "degC",
        "agitation": "rpm",
        "pyruvate_feed": "mmol/L",
        # stream totals and volume
        "V_perfusion_L": "L",
        "V_bleed_L": "L",
        "V_glucose_L": "L",
        "V_sample_L": "L",
        "volume_L": "L",
        # auxiliary online tags
        "pH": "pH",
        "DO": "%",
        "pCO2": "mmHg",
        "osmolality": "mOsm/kg",
        "capacitance": "pF/cm",
        "TMP": "mbar",
        # time
        "time_h": "h",
        "day": "d",
    }
)
"""The one unit each column has inside the library."""

MOLAR_MASS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "Glc": "180.156",
        "glucose_setpoint": "180.156",
        "Gln": "146.14",
        "Glu": "147.13",
        "Lac": "90.08",
        "Pyr": "88.06",
    }
)
"""[g/mol] of the free molecule (the acid for Lac and Pyr), as decimals. Left out on purpose:
ammonium, because analysers mean NH3, NH4+ or nitrogen by it, and the three differ by up to 22 %;
the pyruvate that is fed, because it is weighed in as its sodium salt (110.04) or as the acid."""


class Conversion(NamedTuple):
    """A straight line from one unit to another, exact."""

    slope: Fraction
    offset: Fraction = Fraction(0)

    def __call__(self, values: ArrayLike) -> np.ndarray:
        """Numbers in the other unit, 64-bit; NaN stays NaN."""
        numbers = np.asarray(values, np.float64)
        if self.slope != 1:
            is_part = self.slope.numerator == 1  # a thousandth is exact as a division only
            factor = float(self.slope.denominator if is_part else self.slope)
            numbers = numbers / factor if is_part else numbers * factor
        return numbers + float(self.offset) if self.offset else numbers

    @property
    def inverse(self) -> "Conversion":
        """The way back."""
        return Conversion(1 / self.slope, -self.offset / self.slope)

    def then(self, other: "Conversion") -> "Conversion":
        """This one and another after it."""
        return Conversion(self.slope * other.slope, self.offset * other.slope + other.offset)


_SAME: Final = Conversion(Fraction(1))


def _line(slope: str | int | Fraction, offset: str | Fraction = "0") -> Conversion:
    return Conversion(Fraction(slope), Fraction(offset))


_DILUTION: Final = {"vvd": _SAME, "1/d": _SAME, "1/h": _line(24)}
_MOLAR: Final = {"mmol/L": _SAME, "mol/L": _line(1000), "umol/L": _line("0.001")}
_TURN: Final = Fraction(1 / (2 * math.pi))

CONTROL_UNITS: Final[Mapping[str, Mapping[str, Conversion]]] = MappingProxyType(
    {
        "perfusion_rate": _DILUTION,
        "bleed_rate": _DILUTION,
        "glucose_setpoint": {
            "g/L": _SAME,
            "mg/mL": _SAME,
            "mg/L": _line("0.001"),
            "mg/dL": _line("0.01"),
            "mmol/L": _line("0.180156"),
            "mol/L": _line("180.156"),
            "umol/L": _line("0.000180156"),
        },
        "temperature": {
            "degC": _SAME,
            "K": _line(1, "-273.15"),
            "degF": _line(Fraction(5, 9), Fraction(-160, 9)),
        },
        "agitation": {
            "rpm": _SAME,
            "1/min": _SAME,
            "rps": _line(60),
            "1/s": _line(60),
            "rad/s": _line(60 * _TURN),
            "deg/s": _line(Fraction(1, 6)),
        },
        "pyruvate_feed": _MOLAR,
    }
)
"""What one of each unit is in the canonical one, written by hand. A unit of a control, however
spelled, must come to one of these lines."""

_EXAMPLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        _CELLS: "1e6 cells/mL, cells/mL, 1e9 cells/L, 1e6/mL",
        "%": "%, fraction",
        "um": "um, nm, mm",
        "g/L": "g/L, mg/mL, mg/L, mg/dL, mmol/L",
        "mg/L": "mg/L, ug/mL, g/L",
        "mmol/L": "mmol/L, mM, umol/L, mol/L",
        "L": "L, mL, uL",
        "mOsm/kg": "mOsm/kg, Osm/kg",
        "pF/cm": "pF/cm, nF/m",
        "mmHg": "mmHg, kPa, mbar, Torr",
        "mbar": "mbar, kPa, Pa, bar, psi, mmHg",
        "h": "h, min, d, s",
        "d": "d, h",
    }
)
"""What to write, by canonical unit."""

_WHY: Final[Mapping[str, str]] = MappingProxyType(
    {
        "DO": "The share of air saturation follows from an amount of oxygen (ppm, mg/L, % O2) only "
        "with temperature, salt and pressure, which are not known here.",
        "agitation": "Hz may be turns of the stirrer or the current of its drive: write 'rps' if "
        "the former are meant.",
        "Amm": "A mass of ammonium may be that of NH3, NH4+ or nitrogen.",
        "pyruvate_feed": "A mass of pyruvate may be that of the sodium salt or of the acid.",
        "perfusion_rate": "A flow (L/d, mL/min) or a pump's speed is no dilution rate: divide it "
        "by the working volume.",
        "bleed_rate": "A flow (L/d, mL/min) or a pump's speed is no dilution rate: divide it by "
        "the working volume.",
    }
)
"""What stands between units people ask for and the canonical one, by column."""

_NO_UNIT: Final = frozenset({"", "-", "–", "1", "none", "dimensionless"})
_PH_SPELLINGS: Final = _NO_UNIT | {"ph", "phunit", "phunits"}
_SAYS_VESSELS: Final = ("vv/d", "v/v/d", "vol/vol/d", "rv/d", "vv/day", "v/v/day", "vol/vol/day")
_ALIASES: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "%": {"%": "%"},
        "VCV": {
            **dict.fromkeys(("%v/v", "%(v/v)", "v/v%", "vol%", "vol.%", "vol-%", "%vol"), "%"),
            **dict.fromkeys(("v/v", "ml/ml", "l/l"), "fraction"),
        },
        "DO": dict.fromkeys(
            (
                "%airsat",
                "%airsaturation",
                "%ofairsat",
                "%ofairsaturation",
                "%a.s",
                "%sat",
                "%saturation",
                "%do",
                "%po2",
            ),
            "%",
        ),
        "vvd": {**dict.fromkeys((*_SAYS_VESSELS, "rv/day"), "vvd")},
        "rpm": {"r/min": "rpm", "u/min": "rpm", "upm": "rpm", "r/s": "rps"},
        "mOsm/kg": dict.fromkeys(
            ("mosm/kgh2o", "mosmol/kgh2o", "mosm/kgwater", "mosmol/kgwater"), "mOsm/kg"
        ),
        "mbar": dict.fromkeys(("lbf/in²", "lbf/in2", "lbf/in^2"), "psi"),
    }
)
"""Spellings of one column, or of all with one canonical unit: lower case, no blanks."""


def canonical_unit(name: str) -> str:
    """The unit a column has inside the library.

    Args:
        name: Canonical name of a species, control, stream total or auxiliary tag.

    Returns:
        Unit text, for example `"mmol/L"`.

    Raises:
        UnitError: If no column has this name; the message suggests the nearest one.

    Example:
        >>> canonical_unit("Glc")
        'g/L'
    """
    if name not in CANONICAL_UNITS:
        near = difflib.get_close_matches(name, CANONICAL_UNITS, n=1, cutoff=0.6)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise UnitError(
            f"no unit is known for column '{name}'.{hint} Known columns: "
            f"{', '.join(CANONICAL_UNITS)}."
        )
    return CANONICAL_UNITS[name]


def conversion(unit: str, name: str) -> Conversion:
    """From a unit of a column to the canonical one.

    Mass and molar concentrations are exchanged for species whose molar mass is unambiguous;
    `1/d` is accepted for dilution rates, `1/min` for stirring and `1/mL` for cell densities.

    Args:
        unit: In any spelling.
        name: Canonical name of the column.

    Returns:
        The exact line.

    Raises:
        UnitError: If the column is unknown, the unit cannot be read or does not fit the column;
            the message says which do.

    Example:
        >>> float(conversion("revolutions per minute", "agitation").slope)
        1.0
    """
    wanted = canonical_unit(name)
    return _SAME if unit.strip() == wanted else _conversion(unit, name)


@lru_cache(maxsize=512)
def _conversion(unit: str, name: str) -> Conversion:
    wanted = canonical_unit(name)
    compact = "".join(unit.split()).casefold().rstrip(".")
    if name == "pH":
        if compact in _PH_SPELLINGS:
            return _SAME
        raise UnitError(f"column 'pH' has unit '{unit}'; it is a number without unit ('pH').")
    if wanted == "%" and compact in _NO_UNIT:
        raise UnitError(
            f"column '{name}' has unit '{unit}', which is ambiguous beside '%': write '%' or "
            "'fraction'."
        )
    alias = {**_ALIASES.get(wanted, {}), **_ALIASES.get(name, {})}.get(compact)
    try:
        given = parse_unit(unit if alias is None else alias)
    except UnitError as error:
        raise _refused(unit, name, str(error).rstrip(".")) from None
    found = _bridged(given, parse_unit(wanted), name)
    if found is None:
        why = f"they measure different things ({given} and {parse_unit(wanted)})"
        raise _refused(unit, name, why)
    if name not in CONTROL_UNITS:
        return found
    for known in CONTROL_UNITS[name].values():
        if found == known:
            return known
    raise _refused(unit, name, "nobody has vouched for the factor between them")


_MASS: Final[Dimensions] = (("length", -3), ("mass", 1))
_AMOUNT: Final[Dimensions] = (("amount", 1), ("length", -3))
_WITHOUT: Final[Mapping[str, Dimensions]] = MappingProxyType(
    {_CELLS: (("length", -3),), "rpm": (("time", -1),)}
)
"""What remains of a canonical unit if nobody says what is counted."""


def _bridged(given: Unit, wanted: Unit, name: str) -> Conversion | None:
    """The line between two units that are the same thing for this column, if they are."""
    slope = given.factor / wanted.factor
    if given.dimensions == wanted.dimensions:
        return Conversion(slope, (given.zero - wanted.zero) / wanted.factor)
    if given.dimensions == _WITHOUT.get(CANONICAL_UNITS[name]):
        return Conversion(slope)
    if name in MOLAR_MASS:
        mass = Fraction(MOLAR_MASS[name])
        if (given.dimensions, wanted.dimensions) == (_AMOUNT, _MASS):
            return Conversion(slope * mass)
        if (given.dimensions, wanted.dimensions) == (_MASS, _AMOUNT):
            return Conversion(slope / mass)
    return None


def _refused(unit: str, name: str, why: str) -> UnitError:
    shown = unit if len(unit) <= 80 else unit[:80] + "..."
    text = (
        f"column '{name}' has unit '{shown}', which cannot be converted to "
        f"'{canonical_unit(name)}': {why}. Allowed are {allowed_units(name)}."
    )
    return UnitError(f"{text} {_WHY[name]}" if name in _WHY else text)


def allowed_units(name: str) -> str:
    """Units a column may have, for a message: all of a control, the usual ones of others.

    Raises:
        UnitError: If the column is unknown.
    """
    wanted = canonical_unit(name)
    if name in CONTROL_UNITS:
        return ", ".join(CONTROL_UNITS[name])
    usual = _EXAMPLES.get(wanted, wanted)
    return f"{usual}, g/L, mg/L" if wanted == "mmol/L" and name in MOLAR_MASS else usual


def convert(values: ArrayLike, from_unit: str, to_unit: str, name: str) -> np.ndarray:
    """Convert the values of one column from one unit to another.

    Args:
        values: Numbers in `from_unit`; NaN stays NaN.
        from_unit: Unit of the values.
        to_unit: Unit wanted.
        name: Column the values belong to; named in every error.

    Returns:
        Numbers in `to_unit`, 64-bit, same shape.

    Raises:
        UnitError: If the column is unknown, a unit cannot be read or does not fit the column.

    Example:
        >>> convert([5.0], "mmol/L", "mol/L", "Lac").tolist()
        [0.005]
    """
    return conversion(from_unit, name).then(conversion(to_unit, name).inverse)(values)


def to_canonical(values: ArrayLike, unit: str, name: str) -> np.ndarray:
    """Convert the values of one column to the unit it has inside the library.

    Args:
        values: Numbers in `unit`.
        unit: Unit of the values.
        name: Canonical name of the column.

    Returns:
        Numbers in the canonical unit, 64-bit, same shape.

    Raises:
        UnitError: If the column is unknown or the unit does not fit it.
    """
    return conversion(unit, name)(values)


def to_device(value: float, unit: str, name: str) -> float:
    """A set-point in the unit of the device it is sent to.

    Args:
        value: In the canonical unit.
        unit: The device's, in any spelling of one in `CONTROL_UNITS`.
        name: Control.

    Returns:
        The number to send.

    Raises:
        UnitError: If this is no control, or the conversion is not in the table; the message
            says which are.

    Example:
        >>> to_device(850.0, "revolutions/minute", "agitation")
        850.0
    """
    if name not in CONTROL_UNITS:
        raise UnitError(
            f"'{name}' is no control, so no unit of a device is known for it; controls are "
            f"{', '.join(CONTROL_UNITS)}."
        )
    return float(conversion(unit, name).inverse(value))


def is_canonical(unit: str, name: str) -> bool:
    """Whether a unit, however spelled, is the canonical one of this column.

    Args:
        unit: Any spelling.
        name: Canonical name of the column.

    Returns:
        True if a number keeps its value on conversion.

    Raises:
        UnitError: If the column is unknown or the unit does not fit it.
    """
    return conversion(unit, name) == _SAME
