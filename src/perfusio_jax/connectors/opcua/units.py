"""Units as nodes state them: by name, by the id of a UNECE code, or in their description."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from perfusio_jax._core import UnitError
from perfusio_jax._core.units import CANONICAL_UNITS, parse_unit
from perfusio_jax.connectors.opcua.names import UNITS_URI
from perfusio_jax.connectors.opcua.values import line_of, unit_text
from perfusio_jax.connectors.tables.vocabulary import OURS, Vocabulary

UNECE: Final[Mapping[str, str]] = MappingProxyType(
    {
        # amount and mass in a volume
        "M33": "mmol/L",
        "C38": "mol/L",
        "C35": "mol/dm^3",
        "C36": "mol/m^3",
        "B46": "kmol/m^3",
        "GL": "g/L",
        "M1": "mg/L",
        "H29": "ug/L",
        "B35": "kg/L",
        "B34": "kg/dm^3",
        "F23": "g/dm^3",
        "23": "g/cm^3",
        "GJ": "g/mL",
        "KMQ": "kg/m^3",
        "A93": "g/m^3",
        "GP": "mg/m^3",
        "GQ": "ug/m^3",
        # in a mass
        "C19": "mol/kg",
        "D87": "mmol/kg",
        # number in a volume
        "C86": "1/m^3",
        "H50": "1/cm^3",
        "L20": "1/mm^3",
        "K63": "1/L",
        # parts of a whole; percent of volume or weight say of what and are left out
        "P1": "%",
        "59": "ppm",
        # temperature
        "CEL": "degC",
        "KEL": "kelvin",
        "FAH": "degF",
        # turning, and once in a time
        "RPM": "rpm",
        "M46": "rpm",
        "RPS": "rps",
        "2A": "rad/s",
        "E96": "deg/s",
        "HTZ": "Hz",
        "C97": "1/s",
        "C94": "1/min",
        "H10": "1/h",
        "E91": "1/d",
        # volume and flow
        "LTR": "L",
        "DLT": "dL",
        "MLT": "mL",
        "4G": "uL",
        "HLT": "hL",
        "MTQ": "m^3",
        "DMQ": "dm^3",
        "CMQ": "cm^3",
        "LD": "L/d",
        "E32": "L/h",
        "L2": "L/min",
        "G51": "L/s",
        "G54": "mL/d",
        "G55": "mL/h",
        "41": "mL/min",
        "40": "mL/s",
        # length
        "4H": "um",
        "C45": "nm",
        "MMT": "mm",
        "MTR": "m",
        # pressure
        "HN": "mmHg",
        "UA": "torr",
        "PAL": "Pa",
        "A97": "hPa",
        "KPA": "kPa",
        "MPA": "MPa",
        "MBR": "mbar",
        "BAR": "bar",
        "ATM": "atm",
        "PS": "psi",
        # capacitance
        "4T": "pF",
        "C41": "nF",
        "FAR": "F",
        "C72": "pF/m",
        "C42": "nF/m",
        "B89": "uF/m",
        "A69": "F/m",
        # time
        "SEC": "s",
        "MIN": "min",
        "HUR": "h",
        "DAY": "d",
        # acidity
        "Q30": "pH",
    }
)
"""Units this library can meet by the common code of UNECE Recommendation 20 (revision 17)."""

_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "degree celsius": "degC",
        "degree fahrenheit": "degF",
        "percent": "%",
        "micrometre": "um",
        "micrometre (micron)": "um",
        "revolutions per minute": "rpm",
        "revolution per minute": "rpm",
        "revolutions per second": "rps",
        "conventional millimetre of mercury": "mmHg",
        "part per million": "ppm",
        "standard atmosphere": "atm",
        "pound-force per square inch": "psi",
        "minute [unit of time]": "min",
        "second [unit of time]": "s",
        "bar [unit of pressure]": "bar",
        "ph (potential of hydrogen)": "pH",
    }
)
"""Names of UNECE that follow no rule, in lower case."""

LONGEST: Final = 64
"""Most characters a unit is spelled with; what is longer is prose."""
_HERTZ: Final = parse_unit("Hz")
_NO_ID: Final = (None, 0, -1)
_ONE: Final = "C62"
"""UNECE's code of no unit at all."""


def code_of(unit_id: Any) -> str | None:
    """The UNECE common code packed into an id, its characters one a byte; None if there is none."""
    if not isinstance(unit_id, int) or not 0 < unit_id < 2**32:
        return None
    packed = unit_id.to_bytes(4, "big").lstrip(b"\0")
    if not all(48 <= byte <= 57 or 65 <= byte <= 90 for byte in packed):
        return None
    return packed.decode("ascii")


def unit_of(content: Any, name: str, words: Vocabulary = OURS) -> str | None:
    """The unit in a node's `EngineeringUnits`; None if it says nothing of one.

    A display name that reads as a unit counts, and has to agree with the id; else the id does,
    if it is one of UNECE's; else the description.

    Args:
        content: What the property holds.
        name: Column the node is mapped to.
        words: The names of the culture and their units.

    Raises:
        UnitError: If what it says is no unit, not known, or two different ones.
    """
    if content is None:
        return None
    if isinstance(content, str) or hasattr(content, "Text"):
        return _text(getattr(content, "Text", content))
    if not hasattr(content, "UnitId"):
        raise UnitError(
            f"its EngineeringUnits hold {type(content).__name__}, not a unit (EUInformation)."
        )
    text, number = _text(unit_text(content)), content.UnitId
    by_id = None
    if number not in _NO_ID and content.NamespaceUri in (None, "", UNITS_URI):
        code = code_of(number)
        by_id = UNECE.get(code or "")
        if code == _ONE:
            number = 0
    if text is not None:
        if by_id is None or are_same(text, by_id, name, words):
            return _spelled(text)
        if not _reads(text):  # in another language, as a display name may be
            return by_id
        raise UnitError(
            f"its unit is '{text}' by name and '{by_id}' by id ({number}, {code_of(number)})."
        )
    if by_id is not None:
        return by_id
    described = _text(getattr(content.Description, "Text", None))
    if described is not None and _reads(described):
        return _spelled(described)
    if number not in _NO_ID:
        code = code_of(number)
        raise UnitError(
            f"its unit is given by the id {number}"
            + (f" ({code})" if code else "")
            + f" of {_shown(content.NamespaceUri or 'nobody in particular')} alone, which is not "
            "known here."
        )
    if described is not None:
        raise UnitError(f"its unit is given as '{_shown(described)}' alone, which is no unit.")
    return None


def are_same(one: str, other: str, name: str, words: Vocabulary = OURS) -> bool:
    """Whether two spellings mean the same unit for a column; False if either does not fit it."""
    if one.strip() == other.strip() or not (name in CANONICAL_UNITS or name in words.units):
        return True
    probe = np.array([0.0, 1.0])
    try:
        first, second = (line_of(name, _spelled(u), words)(probe) for u in (one, other))
    except UnitError:
        return False
    return bool(np.allclose(first, second, rtol=1e-9, atol=1e-12))


def contradicts(stated: str, given: str, name: str, words: Vocabulary = OURS) -> bool:
    """Whether what a node states is a unit, and another one than the node map gives.

    Hz leaves open what happens once a second, so that the map may say it: `rps` is one reading
    of it, `rpm` is none.
    """
    if not _reads(stated) or are_same(stated, given, name, words):
        return False
    return parse_unit(_spelled(stated)) != _HERTZ or not are_same("1/s", given, name, words)


def _reads(text: str) -> bool:
    if len(text) > LONGEST:
        return False
    spelled = _spelled(text)
    if spelled.lower() == "ph":  # to the parser of units a tiny henry
        return True
    try:
        parse_unit(spelled)
    except UnitError:
        return False
    return True


def _spelled(text: str) -> str:
    """A unit as symbols where UNECE has words for it: `reciprocal cubic metre` is 1/m^3."""
    words = text.strip().lower()
    if words in _NAMES:
        return _NAMES[words]
    if "reciprocal " not in words and "cubic " not in words:
        return text.strip()
    return re.sub(r"cubic (\w+)", r"\1^3", re.sub(r"^reciprocal ", "1/", words))


def _text(given: Any) -> str | None:
    """A text without blanks around it, not longer than can be shown; None if nothing is left."""
    if given is None:
        return None
    return str(given)[: LONGEST + 1].strip() or None


def _shown(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
