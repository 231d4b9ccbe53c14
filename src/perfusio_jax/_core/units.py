"""Units at the border: every column has one canonical unit, everything else is converted.

Inside the library numbers are in canonical units and carry no unit object. `pint` is
imported on the first conversion that needs it; a unit that is already spelled the canonical
way never loads it.
"""

import difflib
import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from perfusio_jax._core.errors import UnitError
from perfusio_jax._core.text import LONGEST_NAME, cut, in_line, shown

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

MOLAR_MASS: Final[Mapping[str, float]] = MappingProxyType(
    {
        "Glc": 180.156,
        "glucose_setpoint": 180.156,
        "Gln": 146.14,
        "Glu": 147.13,
        "Lac": 90.08,
        "Pyr": 88.06,
        "pyruvate_feed": 88.06,
    }
)
"""[g/mol] of the free molecule (the acid for Lac and Pyr); ammonium is left out on purpose,
because analysers mean NH3, NH4+ or nitrogen by it, and the three differ by up to 22 %."""

_SUPERSCRIPTS: Final = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_NO_UNIT: Final = frozenset({"", "-", "–", "1", "none", "dimensionless"})
_FRACTION: Final = frozenset({"fraction", "frac"})
_PH_SPELLINGS: Final = _NO_UNIT | {"ph", "ph unit", "ph units"}
_DEFINITIONS: Final = (
    "cell_count = [cell_count] = cell = cells",
    "vessel_volume = [vessel_volume]",
    "vvd = vessel_volume / day",
    "stirrer_turn = [stirrer_turn]",
    "rpm = stirrer_turn / minute",
    "osmole = [osmole] = Osm = osm = osmol = Osmol",
)


@lru_cache(maxsize=1)
def _registry() -> Any:
    import pint

    registry = pint.UnitRegistry(autoconvert_offset_to_baseunit=True, on_redefinition="ignore")
    for definition in _DEFINITIONS:
        registry.define(definition)
    return registry


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


def normalise(text: str) -> str:
    """Rewrite a unit as people write it into one that can be parsed.

    Args:
        text: For example `"10⁶ cells mL⁻¹"`, `"x10^6 cells/mL"`, `"°C"` or `"µm"`.

    Returns:
        An expression in `pint` syntax, for example `"1e6 * cells * mL**-1"`.

    Raises:
        UnitError: If the text is ambiguous (`10E6` is 1e7 to a computer and 1e6 to many people).
    """
    clean = text.strip().strip("[]").strip()
    clean = re.sub(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+", lambda m: "^" + m.group().translate(_SUPERSCRIPTS), clean)
    clean = clean.replace("−", "-").replace("µ", "u").replace("μ", "u")
    clean = re.sub(r"(?:°|deg\.?\s*|º)C\b", "degC", clean).replace("celsius", "degC")
    clean = clean.replace("%", " percent ").replace("·", "*").replace("×", "x")
    if re.search(r"(?<![\d.])10[eE]\+?\d", clean):
        raise UnitError(
            f"unit '{text}' is ambiguous: '10E6' reads as 1e7 here and is often meant as 1e6. "
            "Write '1e6' or '10^6'."
        )
    clean = re.sub(r"\bmillion\b|\bMio\.?(?=\s)", "1e6", clean)
    clean = re.sub(r"^[xX*]?\s*10\s*(?:\^|\*\*)\s*\(?([+-]?\d+)\)?", r"1e\1 ", clean)
    clean = re.sub(r"^[xX]?\s*[eE](?=\d)", "1e", clean)
    clean = re.sub(r"(?<=[A-Za-z])\^?(-\d+)", r"**\1", clean)  # mL-1 and mL^-1
    clean = clean.replace("^", "**")
    clean = re.sub(r"\bper\b(?!cent)", "/", clean)
    clean = re.sub(r"\s*/\s*", "/", clean.strip())
    clean = re.sub(r"\s*(\*\*|\*)\s*", r" \1 ", clean)
    clean = re.sub(r"(?<![*\s])\s+(?![*\s])", " * ", clean)
    return re.sub(r"\s*\*\*\s*", "**", clean).strip()


_ENDLESS: Final = re.compile(
    r"\)\s*\*\*|\*\*(?!\(?[+-]?\d{1,2}(?:\.\d{1,2})?\)?(?![\d.]|\s*\*\*))|\d{20}|[eE][+-]?\d{4}"
)
"""Powers of powers, and powers and numbers of many digits: working them out takes for ever."""


@lru_cache(maxsize=256)
def parse_unit(text: str) -> Any:
    """Read a unit, with its numerical factor, into a `pint` quantity.

    Args:
        text: Any of the spellings `normalise` understands; empty or `"-"` is dimensionless.

    Returns:
        A quantity whose magnitude is the factor in the text (1e6 for `"1e6 cells/mL"`).

    Raises:
        UnitError: If the text is not a unit.
    """
    if len(text) > LONGEST_NAME:  # before any pattern looks at it
        raise UnitError(f"a unit of {len(text)} characters cannot be read: {in_line(text)}.")
    if shown(text) != text:
        raise UnitError(f"cannot read {in_line(text)} as a unit (it holds a sign nobody sees).")
    registry = _registry()
    if text.strip().lower() in _NO_UNIT | _FRACTION:
        return registry.Quantity(1.0, "dimensionless")
    expression = normalise(text)
    if _ENDLESS.search(expression):
        raise UnitError(f"cannot read '{text}' as a unit (a power no unit has).")
    factor, unit = 1.0, expression
    leading = re.match(r"^(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*(\*(?!\*)|/|$)\s*(.*)$", expression)
    if leading:
        factor = float(leading.group(1))
        if not 1e-30 <= factor <= 1e30:
            raise UnitError(f"cannot read '{text}' as a unit (its factor is {factor:g}).")
        rest = leading.group(3) or "dimensionless"
        unit = f"1/{rest}" if leading.group(2) == "/" else rest
    try:
        if "//" in unit:
            raise ValueError("two slashes in a row")
        if unit.startswith("1/"):
            parsed = 1 / registry.Quantity(1.0, registry.parse_units(unit[2:]))
        else:
            parsed = registry.Quantity(1.0, registry.parse_units(unit))
    except Exception as error:  # the tokenizer fails in many ways, all of them about the text
        reason = str(error) or type(error).__name__
        raise UnitError(f"cannot read '{text}' as a unit ({reason}).") from error
    return registry.Quantity(factor, parsed.units)


def _bridged(given: Any, wanted: Any, name: str) -> float | None:
    """Factor between two dimensions that are the same thing for this column, if they are."""
    registry = _registry()
    bridges = []
    if name in MOLAR_MASS:
        mass = registry.Quantity(MOLAR_MASS[name], "g/mol")
        bridges += [mass, 1 / mass]
    canonical = CANONICAL_UNITS.get(name)
    if canonical == "vvd":
        vessel = registry.Quantity(1.0, "vessel_volume")
        bridges += [vessel, 1 / vessel]
    if canonical == "rpm":
        turn = registry.Quantity(1.0, "stirrer_turn")
        bridges += [turn, 1 / turn]
    if canonical == _CELLS:
        cell = registry.Quantity(1.0, "cell_count")
        bridges += [cell, 1 / cell]
    for bridge in bridges:
        if (given * bridge).dimensionality == wanted.dimensionality:
            return float((given * bridge / wanted).to("dimensionless").magnitude)
    return None


def convert(values: ArrayLike, from_unit: str, to_unit: str, name: str) -> np.ndarray:
    """Convert the values of one column from one unit to another.

    Mass and molar concentrations are exchanged for species whose molar mass is unambiguous;
    `1/d` is accepted for dilution rates, `1/min` for stirring and `1/mL` for cell densities.

    Args:
        values: Numbers in `from_unit`; NaN stays NaN.
        from_unit: Unit of the values.
        to_unit: Unit wanted.
        name: Column the values belong to; named in every error.

    Returns:
        Numbers in `to_unit`, 64-bit, same shape.

    Raises:
        UnitError: If a unit cannot be read or the two measure different things.

    Example:
        >>> convert([5.0], "mmol/L", "mol/L", "Lac").tolist()
        [0.005]
    """
    numbers = np.asarray(values, np.float64)
    if from_unit.strip() == to_unit.strip():
        return numbers
    if name == "pH":
        if from_unit.strip().lower() in _PH_SPELLINGS and to_unit.strip().lower() in _PH_SPELLINGS:
            return numbers
        raise UnitError(
            f"column 'pH' has unit '{cut(from_unit)}'; it is a number without unit ('pH')."
        )
    for text, other in ((from_unit, to_unit), (to_unit, from_unit)):
        if text.strip().lower() in _NO_UNIT and other.strip() == "%":
            raise UnitError(
                f"column '{name}' has unit '{text}', which is ambiguous beside '%': write '%' or "
                "'fraction'."
            )
    try:
        given, wanted = parse_unit(from_unit), parse_unit(to_unit)
    except UnitError as error:
        raise UnitError(f"column '{name}': {error}") from None
    if given.dimensionality != wanted.dimensionality:
        factor = _bridged(given, wanted, name)
        if factor is None:
            raise UnitError(
                f"column '{name}' has unit '{from_unit}', which cannot be converted to "
                f"'{to_unit}': they measure different things "
                f"({given.dimensionality} and {wanted.dimensionality})."
            )
        return numbers * factor
    if given.units == wanted.units:
        return numbers * (given.magnitude / wanted.magnitude)
    registry = _registry()
    scaled = registry.Quantity(numbers * given.magnitude, given.units).to(wanted.units)
    return np.asarray(scaled.magnitude, np.float64) / wanted.magnitude


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
    return convert(values, unit, canonical_unit(name), name)


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
    probe = np.array([0.0, 1.0])
    return bool(np.allclose(to_canonical(probe, unit, name), probe, rtol=1e-12, atol=1e-12))
