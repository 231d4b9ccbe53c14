"""What a unit text means: a closed vocabulary, read into an exact factor and its dimensions.

A general unit library knows too much to be trusted with a set-point: to it a turn is 2π, a count
is nothing, `Mbar` a billion `mbar`, and `ppm`, `rad` and `%` are one kind of number. Here a word
that is not in the table below is no unit, a turn is a thing of its own as a cell is, and a share
is not a bare number. Factors are fractions, so that no rounding enters before the last step.
"""

import math
import re
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple

from perfusio_jax._core.errors import UnitError

LONGEST: Final = 80
"""Characters a unit may have; what is longer is none and is not looked at further."""

Dimensions = tuple[tuple[str, int], ...]
"""Base and exponent, in order of the bases, none of them zero."""


class Unit(NamedTuple):
    """A unit as a factor on bases: gram, mole, cell, metre, second, turn, pascal and so on."""

    factor: Fraction
    dimensions: Dimensions
    zero: Fraction = Fraction(0)
    """Where it begins, in kelvin: 273.15 for degrees Celsius, 0 for all that is no temperature."""

    def __str__(self) -> str:
        return " ".join(f"{b}^{n}" if n != 1 else b for b, n in self.dimensions) or "a bare number"


def _of(factor: Fraction | int | str | float, **powers: int) -> Unit:
    dims = tuple(sorted((base, n) for base, n in powers.items() if n))
    return Unit(Fraction(factor), dims)


_MILLI, _MICRO, _NANO, _PICO = (Fraction(1, 10**n) for n in (3, 6, 9, 12))
_LITRE: Final = Fraction(1, 1000)
_DAY: Final = 86400

_SYMBOLS: Final[Mapping[str, Unit]] = MappingProxyType(
    {
        # mass [g]
        "kg": _of(1000, mass=1),
        "g": _of(1, mass=1),
        "mg": _of(_MILLI, mass=1),
        "ug": _of(_MICRO, mass=1),
        "ng": _of(_NANO, mass=1),
        "pg": _of(_PICO, mass=1),
        # amount [mol] and its concentrations
        "kmol": _of(1000, amount=1),
        "mmol": _of(_MILLI, amount=1),
        "mMol": _of(_MILLI, amount=1),
        "umol": _of(_MICRO, amount=1),
        "nmol": _of(_NANO, amount=1),
        "pmol": _of(_PICO, amount=1),
        "M": _of(1000, amount=1, length=-3),
        "mM": _of(1, amount=1, length=-3),
        "uM": _of(_MILLI, amount=1, length=-3),
        "nM": _of(_MICRO, amount=1, length=-3),
        # osmoles
        **dict.fromkeys(("Osm", "osm", "Osmol", "osmol"), _of(1, osmole=1)),
        **dict.fromkeys(("mOsm", "mosm", "mOsmol", "mosmol"), _of(_MILLI, osmole=1)),
        # volume and length [m]
        **dict.fromkeys(("L", "l"), _of(_LITRE, length=3)),
        **dict.fromkeys(("hL", "hl"), _of(_LITRE * 100, length=3)),
        **dict.fromkeys(("dL", "dl"), _of(_LITRE / 10, length=3)),
        **dict.fromkeys(("mL", "ml"), _of(_LITRE / 10**3, length=3)),
        **dict.fromkeys(("uL", "ul"), _of(_LITRE / 10**6, length=3)),
        **dict.fromkeys(("nL", "nl"), _of(_LITRE / 10**9, length=3)),
        **dict.fromkeys(("pL", "pl"), _of(_LITRE / 10**12, length=3)),
        "m": _of(1, length=1),
        "dm": _of(Fraction(1, 10), length=1),
        "cm": _of(Fraction(1, 100), length=1),
        "mm": _of(_MILLI, length=1),
        "um": _of(_MICRO, length=1),
        "nm": _of(_NANO, length=1),
        # time [s]
        "s": _of(1, time=1),
        "h": _of(3600, time=1),
        "d": _of(_DAY, time=1),
        # pressure [Pa]
        "Pa": _of(1, pressure=1),
        "hPa": _of(100, pressure=1),
        "kPa": _of(1000, pressure=1),
        "MPa": _of(10**6, pressure=1),
        **dict.fromkeys(("mbar", "mBar"), _of(100, pressure=1)),
        "cmH2O": _of("98.0665", pressure=1),
        # charge per voltage [F]
        "F": _of(1, farad=1),
        "uF": _of(_MICRO, farad=1),
        "nF": _of(_NANO, farad=1),
        "pF": _of(_PICO, farad=1),
        # power [W], of light
        "W": _of(1, power=1),
        "mW": _of(_MILLI, power=1),
        # temperature [K]
        "K": _of(1, temperature=1),
        "degC": Unit(Fraction(1), (("temperature", 1),), Fraction("273.15")),
        "degF": Unit(Fraction(5, 9), (("temperature", 1),), Fraction("459.67") * Fraction(5, 9)),
        "%": _of(Fraction(1, 100), share=1),
    }
)
"""Symbols; upper and lower case differ, because `M` and `m` do."""

_PREFIXES: Final = {
    **{"mega": "M", "kilo": "k", "hecto": "h", "deci": "d", "centi": "c"},
    **{"milli": "m", "micro": "u", "nano": "n", "pico": "p"},
}
_SPELLED: Final = {
    **{"gram": "g", "mole": "mol", "litre": "L", "liter": "L", "metre": "m", "meter": "m"},
    **{"pascal": "Pa", "farad": "F", "osmole": "Osm", "bar": "bar"},
}
_SPELLED_OUT: Final[Mapping[str, Unit]] = {
    prefix + word + plural: _SYMBOLS[short + symbol]
    for prefix, short in {"": "", **_PREFIXES}.items()
    for word, symbol in _SPELLED.items()
    for plural in ("", "s")
    if short + symbol in _SYMBOLS
}
"""`milligram`, `millimoles`, `decimetre`, as UNECE spells its units: the symbols in words."""

_WORDS: Final[Mapping[str, Unit]] = MappingProxyType(
    {
        **_SPELLED_OUT,
        **dict.fromkeys(("gram", "grams"), _SYMBOLS["g"]),
        **dict.fromkeys(("mol", "mole", "moles"), _of(1, amount=1)),
        **dict.fromkeys(("cell", "cells", "zelle", "zellen", "celulas"), _of(1, cell=1)),
        **dict.fromkeys(("cellules", "viablecells", "livecells"), _of(1, cell=1)),
        **dict.fromkeys(("liter", "liters", "litre", "litres"), _SYMBOLS["L"]),
        **dict.fromkeys(("micron", "microns"), _SYMBOLS["um"]),
        **dict.fromkeys(("sec", "second", "seconds"), _SYMBOLS["s"]),
        **dict.fromkeys(("min", "minute", "minutes"), _of(60, time=1)),
        **dict.fromkeys(("hr", "hrs", "hour", "hours", "std", "stunden"), _SYMBOLS["h"]),
        **dict.fromkeys(("day", "days", "tag", "tage", "dias", "jours"), _SYMBOLS["d"]),
        **dict.fromkeys(("week", "weeks"), _of(7 * _DAY, time=1)),
        # turns: neither a bare number nor 2π of anything
        **dict.fromkeys(("rev", "revs", "revolution", "revolutions"), _of(1, turn=1)),
        **dict.fromkeys(("turn", "turns", "cycle", "cycles"), _of(1, turn=1)),
        **dict.fromkeys(("rotation", "rotations"), _of(1, turn=1)),
        **dict.fromkeys(("rad", "radian", "radians"), _of(1 / (2 * math.pi), turn=1)),
        **dict.fromkeys(("deg", "degree", "degrees"), _of(Fraction(1, 360), turn=1)),
        "rpm": _of(Fraction(1, 60), turn=1, time=-1),
        "rps": _of(1, turn=1, time=-1),
        "vvd": _of(Fraction(1, _DAY), time=-1),
        "bar": _of(10**5, pressure=1),
        "pascal": _SYMBOLS["Pa"],
        "psi": _of(Fraction("4448.2216152605") / Fraction("0.64516"), pressure=1),
        "atm": _of(101325, pressure=1),
        "torr": _of(Fraction(101325, 760), pressure=1),
        "mmhg": _of("133.322387415", pressure=1),
        "kelvin": _SYMBOLS["K"],
        "celsius": _SYMBOLS["degC"],
        "fahrenheit": _SYMBOLS["degF"],
        # what titrations and counters of viruses and microbes count: each a thing of its own
        "pfu": _of(1, plaque=1),
        "ffu": _of(1, focus=1),
        "cfu": _of(1, colony=1),
        **dict.fromkeys(("vg", "gc", "genome", "genomes"), _of(1, genome=1)),
        **dict.fromkeys(("vp", "particle", "particles"), _of(1, particle=1)),
        "iu": _of(1, activity=1),
        # optical density, which mixes as a concentration does
        "od": _of(1000, absorbance=1, length=-3),
        # what does not say of what it is fits no column, and is not the same as what does
        "hz": _of(1, event=1, time=-1),
        "ppm": _of(_MICRO, part=1),
        "ppb": _of(_NANO, part=1),
        **dict.fromkeys(("percent", "pct", "prozent"), _SYMBOLS["%"]),
        **dict.fromkeys(("fraction", "frac"), _of(1, share=1)),
    }
)
"""Words that mean one thing in any case."""

_SUPERSCRIPTS: Final = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_PLAIN: Final = str.maketrans(
    {"−": "-", "µ": "u", "μ": "u", "·": "*", "⋅": "*", "∙": "*", "×": "x", "º": "°", "℃": "°C"}
)
_DEGREES: Final = re.compile(
    r"(?:°|\b(?:deg(?:ree)?s?|Grad)\b\.?)\s*(C|F|Celsius|Fahrenheit)\b|\bdeg([CF])\b"
)
_ZELLEN: Final = re.compile(r"(?:(?<=\d)|(?<=[Mm]io)|(?<=[Mm]io\.))\s*Z(?=\s*/\s*m[lL]\b)")
"""`10^6 Z/ml`, `Mio Z/ml`: Zellen, of analysers."""
_AMBIGUOUS: Final = re.compile(r"(?<![\d.])10[eE]\+?\d")
_LEAD: Final = re.compile(
    r"""(?:1\s*)?[xX*]?\s*10\^(?P<power>[+-]?\d{1,2})
      | [xX]?\s*[eE](?P<e>\d{1,2})(?![\w.])
      | (?P<number>\d{1,15}(?:\.\d{1,15})?(?:[eE][+-]?\d{1,2})?)
      | (?P<million>millions?|mio)\b\.?""",
    re.VERBOSE | re.IGNORECASE,
)
_TOKEN: Final = re.compile(
    r"\s*(?:(?P<word>cmH2O|[A-Za-z]+|%)(?:\^(?P<raised>[+-]?\d{1,2})|(?P<beside>-?\d{1,2}))?(?![\w.^])"
    r"|(?P<op>[*/()]))\s*"
)


@lru_cache(maxsize=512)
def parse_unit(text: str) -> Unit:
    """Read a unit as people write it.

    Args:
        text: For example `"10⁶ cells mL⁻¹"`, `"x10^6 cells/mL"`, `"°C"`, `"µm"` or
            `"revolutions per minute"`.

    Returns:
        The factor with the dimensions it belongs to.

    Raises:
        UnitError: If the text is no unit, or could be read in two ways.

    Example:
        >>> parse_unit("revolutions per minute") == parse_unit("rpm")
        True
    """
    shown = text if len(text) <= LONGEST else text[:LONGEST] + "..."
    if len(text) > LONGEST:
        raise UnitError(f"cannot read '{shown}' as a unit (it has {len(text)} characters).")
    clean = _cleaned(text)
    if _AMBIGUOUS.search(clean):
        raise UnitError(
            f"unit '{shown}' is ambiguous: '10E6' reads as 1e7 here and is often meant as 1e6. "
            "Write '1e6' or '10^6'."
        )
    try:
        unit = _Reader(clean).unit()
    except ValueError as error:
        raise UnitError(f"cannot read '{shown}' as a unit ({error}).") from None
    if not Fraction(1, _LARGEST) <= unit.factor <= _LARGEST:
        raise UnitError(f"cannot read '{shown}' as a unit (its factor is beyond any unit's).")
    return unit


def _cleaned(text: str) -> str:
    clean = text.strip().strip("[]").strip()
    clean = re.sub(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+", lambda m: "^" + m.group().translate(_SUPERSCRIPTS), clean)
    clean = clean.translate(_PLAIN)
    clean = _DEGREES.sub(lambda m: f"deg{(m.group(1) or m.group(2))[0]}", clean)
    clean = clean.replace("°", "deg ")
    clean = re.sub(r"\b(viable|live)\s+cells\b", r"\1cells", clean, flags=re.IGNORECASE)
    clean = _ZELLEN.sub(" cells", clean)
    clean = re.sub(r"\s*(?:\^|\*\*)\s*", "^", clean)
    clean = re.sub(r"\^\(([+-]?\d{1,2})\)", r"^\1", clean)
    return re.sub(r"\s*\bper\b\s*", "/", clean)


_LARGEST: Final = 10**30
"""No unit is larger in those it is made of, nor smaller than one over it."""


class _Reader:
    """Reads one cleaned text; a ValueError says what is wrong with it."""

    def __init__(self, text: str) -> None:
        self.factor, rest = _leading(text)
        self.starts_below = rest.startswith("/")
        self.tokens: list[tuple[str, int]] = []
        if "//" in rest.replace(" ", ""):
            raise ValueError("two slashes in a row")
        at = 0
        while at < len(rest):
            found = _TOKEN.match(rest, at)
            if found is None:
                raise ValueError(f"'{rest[at:].strip()}' is not understood")
            at = found.end()
            power = int(found["raised"] or found["beside"] or 1)
            self.tokens.append((found["word"] or found["op"], power))
        if not self.tokens:
            raise ValueError("there is no unit in it")
        self.at = 0

    def unit(self) -> Unit:
        if self.starts_below and self.factor is None:
            raise ValueError("nothing stands in front of the slash; write '1/...'")
        if len(self.tokens) == 1 and self.factor is None and self.tokens[0][1] == 1:
            return _look_up(self.tokens[0][0])
        factor, powers = self._product(self.starts_below)
        if self.at < len(self.tokens):
            raise ValueError("a bracket is closed that was not opened")
        scale = factor * (1 if self.factor is None else self.factor)
        return _of(scale, **powers)

    def _product(self, starts_below: bool = False) -> tuple[Fraction, dict[str, int]]:
        factor, powers = Fraction(1), dict[str, int]()
        is_below = has_slash = starts_below
        self.at += starts_below
        is_first = True
        while self.at < len(self.tokens) and self.tokens[self.at][0] != ")":
            token = self.tokens[self.at][0]
            if token in "*/" and not is_first:
                is_below = token == "/"
                self.at += 1
            elif not is_first:
                is_below = False
            if has_slash and not is_below:
                raise ValueError("what follows a slash is unclear; write 'a/(b*c)' or 'a/b/c'")
            has_slash |= is_below
            one, dims = self._power()
            factor = factor / one if is_below else factor * one
            for base, n in dims.items():
                powers[base] = powers.get(base, 0) + (-n if is_below else n)
            is_first = False
        if is_first:
            raise ValueError("something is missing")
        return factor, powers

    def _power(self) -> tuple[Fraction, dict[str, int]]:
        if self.at >= len(self.tokens):
            raise ValueError("something is missing at its end")
        token, power = self.tokens[self.at]
        self.at += 1
        if token == "(":
            inner = self._product()
            if self.at >= len(self.tokens):
                raise ValueError("a bracket is not closed")
            self.at += 1
            return inner
        if token in "*/)":
            raise ValueError(f"'{token}' stands where a unit should")
        unit = _look_up(token)
        if unit.zero:
            raise ValueError(f"'{token}' begins at another zero and must stand alone")
        if abs(power) > 3:
            raise ValueError(f"no unit here has the power {power}")
        return unit.factor**power, {base: n * power for base, n in unit.dimensions}


def _leading(text: str) -> tuple[Fraction | None, str]:
    """The number in front, if there is one, and the rest."""
    found = _LEAD.match(text)
    if found is None:
        return None, text
    rest = text[found.end() :].strip()
    if found["million"]:
        factor = Fraction(10**6)
    elif found["number"]:
        factor = Fraction(found["number"])
    else:
        factor = Fraction(10) ** int(found["power"] or found["e"])
    if not _is_power_of_ten(factor):
        raise ValueError(
            f"{found['number']} in front is no power of ten; a lost superscript? Write '1e6'"
        )
    return factor, rest.removeprefix("*").strip()


def _is_power_of_ten(factor: Fraction) -> bool:
    return all(str(n).rstrip("0") == "1" for n in (factor.numerator, factor.denominator))


def _look_up(word: str) -> Unit:
    unit = _SYMBOLS.get(word) or _WORDS.get(word.casefold())
    if unit is not None:
        return unit
    near = [known for known in _SYMBOLS if known.casefold() == word.casefold()]
    hint = f"; upper and lower case differ: did you mean '{near[0]}'?" if near else ""
    raise ValueError(f"'{word}' is no unit that is known here{hint}")
