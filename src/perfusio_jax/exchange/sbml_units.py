"""Units as SBML has them: products of base units with a factor each, and back to text."""

import math
import re
from fractions import Fraction
from typing import Any, Final

from perfusio_jax._core import UnitError
from perfusio_jax._core.unit_text import parse_unit

_KINDS: Final = {
    "mass": "gram",
    "amount": "mole",
    "cell": "item",
    "length": "metre",
    "time": "second",
    "pressure": "pascal",
    "farad": "farad",
    "power": "watt",
    "temperature": "kelvin",
    "osmole": "mole",
    "turn": "dimensionless",
    "share": "dimensionless",
    "part": "dimensionless",
    "event": "dimensionless",
}
"""Base unit of SBML for each dimension; what has none of its own there is a bare number."""
_NONE: Final = ("", "-", "1", "pH")
_NAMED: Final = (
    *("g/L", "mmol/L", "mg/L", "1e6 cells/mL", "mol/L", "ug/L", "cells/mL", "umol/L", "g/mL"),
    *("L", "mL", "g", "mg", "mmol", "mol", "h", "d", "1/h", "1/d", "1/s", "%", "degC", "K"),
    *("um", "L/h", "L/d", "g/L/h", "mmol/L/h", "mmol/g", "g/g", "L/mmol", "W/m^2"),
    *("g/cell/h", "mmol/cell/h", "mg/cell", "mg/cell/h", "L/mmol/h", "1/h/K", "cells"),
)
"""Texts that are tried for a unit that is read, the usual ones first."""


class SBMLUnits:
    """Unit definitions of one model, each made when it is first asked for."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._known: dict[str, str] = {}
        self.left_out: dict[str, str] = {}
        """Units that SBML cannot say, and why."""

    def __call__(self, text: str) -> str | None:
        """Identifier of a unit; None for one that SBML cannot say.

        Args:
            text: As a column has it, as `g/L`.
        """
        if text in _NONE:
            return "dimensionless"
        if text in self._known:
            return self._known[text]
        if text in self.left_out:
            return None
        try:
            unit = parse_unit(text)
        except UnitError:
            self.left_out[text] = "it is a text for people"
            return None
        if unit.zero:
            self.left_out[text] = "SBML has no unit that begins elsewhere than at zero"
            return None
        name = self._free(text)
        made = self._model.createUnitDefinition()
        made.setId(name)
        made.setName(text)
        self._fill(made, unit.factor, dict(unit.dimensions))
        self._known[text] = name
        return name

    def _free(self, text: str) -> str:
        """A name of letters that no other unit has."""
        said = text.replace("%", "percent").replace("/", "_per_")
        name = re.sub(r"[^A-Za-z0-9_]+", "_", said).strip("_")
        name = f"unit_{name}"
        taken = set(self._known.values())
        return name if name not in taken else f"{name}_{len(taken)}"

    @staticmethod
    def _fill(made: Any, factor: Fraction, powers: dict[str, int]) -> None:
        import libsbml

        rest, told = float(factor), []
        for name, power in powers.items():
            if name == "length" and power % 3 == 0:  # as people say it
                told.append(("litre", power // 3))
                rest *= 1000.0 ** (power // 3)
            else:
                told.append((_KINDS.get(name, "dimensionless"), power))
        # the factor stands with one of them, best where it needs no root
        bearer = min(range(len(told)), key=lambda k: abs(told[k][1]), default=0)
        for k, (kind, power) in enumerate(told):
            unit = made.createUnit()
            unit.initDefaults()
            unit.setKind(libsbml.UnitKind_forName(kind))
            unit.setExponent(float(power))
            unit.setScale(0)
            unit.setMultiplier(_tidy(rest ** (1.0 / power)) if k == bearer else 1.0)
        if not powers:
            unit = made.createUnit()
            unit.initDefaults()
            unit.setKind(libsbml.UNIT_KIND_DIMENSIONLESS)
            unit.setMultiplier(rest)


def _tidy(value: float) -> float:
    """A factor without the rounding of powers of ten."""
    return float(f"{value:.14g}")


def text_of_unit(definition: Any) -> str | None:
    """A unit as people write it.

    Args:
        definition: A unit definition of libSBML, or None.

    Returns:
        A text that `parse_unit` reads as the same unit; None where there is none.
    """
    if definition is None:
        return None
    factor, powers = 1.0, {}
    for k in range(definition.getNumUnits()):
        unit = definition.getUnit(k)
        exponent = unit.getExponentAsDouble()
        base, size = _base_of(unit)
        if base is None:
            return None
        factor *= (unit.getMultiplier() * 10.0 ** unit.getScale() * size) ** exponent
        for name, power in base.items():
            powers[name] = powers.get(name, 0.0) + power * exponent
    powers = {k: v for k, v in powers.items() if v}
    if not powers and math.isclose(factor, 1.0):
        return "1"
    name = definition.getName()
    for text in (name, *_NAMED):
        if text and _is_same(text, factor, powers):
            return text
    return None


def _is_same(text: str, factor: float, powers: dict[str, float]) -> bool:
    try:
        unit = parse_unit(text)
    except UnitError:
        return False
    if unit.zero:
        return False
    same = {"osmole": "amount"}
    own: dict[str, float] = {}
    for name, power in unit.dimensions:
        if _KINDS.get(name, "dimensionless") == "dimensionless":
            continue
        known = same.get(name, name)
        own[known] = own.get(known, 0.0) + power
    is_bare = not own and "share" not in dict(unit.dimensions)
    return not is_bare and own == powers and math.isclose(float(unit.factor), factor, rel_tol=1e-9)


def _base_of(unit: Any) -> tuple[dict[str, float] | None, float]:
    """Dimensions of one unit of SBML, and its size in ours."""
    import libsbml

    kind = libsbml.UnitKind_toString(unit.getKind())
    known: dict[str, tuple[dict[str, float], float]] = {
        "gram": ({"mass": 1}, 1.0),
        "kilogram": ({"mass": 1}, 1000.0),
        "mole": ({"amount": 1}, 1.0),
        "item": ({"cell": 1}, 1.0),
        "metre": ({"length": 1}, 1.0),
        "litre": ({"length": 3}, 1e-3),
        "liter": ({"length": 3}, 1e-3),
        "second": ({"time": 1}, 1.0),
        "hertz": ({"time": -1}, 1.0),
        "pascal": ({"pressure": 1}, 1.0),
        "farad": ({"farad": 1}, 1.0),
        "watt": ({"power": 1}, 1.0),
        "kelvin": ({"temperature": 1}, 1.0),
        "dimensionless": ({}, 1.0),
        "radian": ({}, 1.0),
    }
    return known.get(kind, (None, 1.0))
