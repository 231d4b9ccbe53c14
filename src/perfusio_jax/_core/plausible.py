"""Plausible ranges: what no value of a column lies beyond unless its unit is another one.

One range per column, beside its unit. Design space, species registry, sample files and campaign
tables read it from here. A value outside is not wrong by itself; it is pointed out.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from .units import canonical_unit


class Range(NamedTuple):
    """Where the values of one column lie, in its canonical unit."""

    lo: float
    """No value is below."""
    hi: float
    """No value is above."""
    least_peak: float = 0.0
    """The highest value of a column is not below that, unless all are zero."""


PLAUSIBLE: Final[Mapping[str, Range]] = MappingProxyType(
    {
        # species; viability below 2 % throughout is a fraction, cells below 1e4/mL are none
        "VCD": Range(0.0, 120.0, 0.01),
        "VCV": Range(0.0, 60.0),
        "Via": Range(0.0, 100.0, 2.0),
        "Diam": Range(10.0, 35.0),
        "Glc": Range(0.0, 20.0),
        "Gln": Range(0.0, 20.0),
        "Glu": Range(0.0, 20.0),
        "Lac": Range(0.0, 100.0),
        "Amm": Range(0.0, 40.0),
        "Pyr": Range(0.0, 20.0),
        "Titer": Range(0.0, 10_000.0),
        "DCD": Range(0.0, 60.0),
        "Lys": Range(0.0, 120.0),
        # controls: what any perfusion vessel is run at, not what this design space allows
        "perfusion_rate": Range(0.0, 10.0),
        "bleed_rate": Range(0.0, 5.0),
        "glucose_setpoint": Range(0.0, 20.0),
        "temperature": Range(25.0, 42.0),
        "agitation": Range(0.0, 2500.0),
        "pyruvate_feed": Range(0.0, 50.0),
        # a bench vessel of 1 mL to 10 L, and what flows through it between two samples
        "volume_L": Range(0.001, 10.0),
        "V_perfusion_L": Range(0.0, 100.0),
        "V_bleed_L": Range(0.0, 50.0),
        "V_glucose_L": Range(0.0, 10.0),
        "V_sample_L": Range(0.0, 1.0),
        # online tags
        "pH": Range(5.5, 8.5),
        "DO": Range(0.0, 250.0),
        "pCO2": Range(0.0, 400.0),
        "osmolality": Range(150.0, 800.0),
        "capacitance": Range(-10.0, 500.0),
        "TMP": Range(-500.0, 2000.0),
    }
)
"""Range by column; times have none."""


_PERCENT: Final = 20.0
"""A column that goes up to this [%] is of percent."""


def doubt(name: str, low: float, high: float) -> str:
    """What is implausible about the values of a column, as a sentence without its end.

    Args:
        name: Canonical name of the column.
        low: Lowest value, in the canonical unit.
        high: Highest value, in the canonical unit.

    Returns:
        The sentence; empty where nothing is.

    Example:
        >>> doubt("volume_L", 180.0, 180.0)[:29]
        'outside 0.001 to 10 L: is the'
    """
    known = PLAUSIBLE.get(name)
    if known is None:
        return ""
    unit = canonical_unit(name)
    if low < known.lo or high > known.hi:
        return f"outside {known.lo:g} to {known.hi:g} {unit}: is the unit right?"
    if unit == "%" and 0.0 < low <= 1.0 and high > _PERCENT:
        return f"from {low:g} to {high:g} {unit}: shares and percent in one column?"
    if unit == "%" and name == "DO" and 0.0 < high <= 1.0:
        return f"nowhere above {high:g} {unit}: is it a share?"
    if 0.0 < high < known.least_peak:
        return f"nowhere above {known.least_peak:g} {unit}: is the unit right?"
    return ""


_OTHER_SCALES: Final = (
    ("K", lambda v: v - 273.15),
    ("degF", lambda v: (v - 32.0) / 1.8),
)
"""Scales of temperature people write without saying so, and the way to degrees Celsius."""


def unlikely(name: str, value: float, allowed: tuple[float, float] | None = None) -> str:
    """Why a set-point is one that no vessel is run at, as a sentence without its end.

    Args:
        name: Canonical name of the control.
        value: Its value, in the canonical unit.
        allowed: Bounds somebody stated for it; the plausible range is widened by them.

    Returns:
        The sentence; empty where nothing is odd.

    Example:
        >>> unlikely("temperature", 309.4)
        'outside 25 to 42 degC; 309.4 K are 36.25 degC: is the unit right?'
    """
    known = PLAUSIBLE.get(name)
    if known is None:
        return ""
    low, high = allowed or (known.lo, known.hi)
    low, high = min(low, known.lo), max(high, known.hi)
    if low <= value <= high:
        return ""
    unit = canonical_unit(name)
    hints = [
        f"; {value:g} {scale} are {to_celsius(value):.4g} {unit}"
        for scale, to_celsius in _OTHER_SCALES
        if name == "temperature" and low <= to_celsius(value) <= high
    ]
    return f"outside {low:g} to {high:g} {unit}{''.join(hints)}: is the unit right?"
