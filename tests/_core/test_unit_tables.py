"""Units against numbers worked out by hand: what is read, what is sent, what is refused.

No number here comes from the code under test. One of a unit is so many of the canonical one;
temperatures have pairs instead.
"""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfusio_jax._core import AUXILIARY_TAGS, CONTROL_NAMES, REGISTRY, STREAM_TOTALS, UnitError
from perfusio_jax._core.unit_text import parse_unit
from perfusio_jax._core.units import (
    CANONICAL_UNITS,
    CONTROL_UNITS,
    allowed_units,
    conversion,
    is_canonical,
    to_canonical,
    to_device,
)

CELLS = {
    "1e6 cells/mL": 1.0, "10^6 cells/mL": 1.0, "10⁶ cells mL⁻¹": 1.0, "x10^6 Cells / mL": 1.0,
    "×10⁶ cells/mL": 1.0, "10**6 cells/mL": 1.0, "e6 cells/mL": 1.0, "1E6 cells/ml": 1.0,
    "Mio/mL": 1.0, "Mio. Zellen/mL": 1.0, "million cells per mL": 1.0, "1e6/mL": 1.0,
    "Mio Z/ml": 1.0, "Mio. Z/mL": 1.0,
    "1e9 cells/L": 1.0, "1e9/L": 1.0, "1e6 cells/cm³": 1.0, "1e3 cells/µL": 1.0,
    "cells/mL": 1e-6, "1/mL": 1e-6, "mL^-1": 1e-6, "cells mL-1": 1e-6, "1e5 cells/mL": 0.1,
    "cells/L": 1e-9, "cells/uL": 1e-3, "1 x 10^6 cells/mL": 1.0, "10^6 cells mL^(-1)": 1.0,
}  # fmt: skip
MILLIMOLAR = {
    "mmol/L": 1.0, "mM": 1.0, "mmol / L": 1.0, "mmol L^-1": 1.0, "mMol/l": 1.0, "mol/L": 1e3,
    "M": 1e3, "µmol/L": 1e-3, "μM": 1e-3, "uM": 1e-3, "nmol/mL": 1e-3, "mol/m3": 1.0,
    "nmol/L": 1e-6, "umol/mL": 1.0, "Mol/L": 1e3,
}  # fmt: skip
SHARE = {"%": 1.0, "percent": 1.0, "pct": 1.0, "fraction": 100.0}
VOLUME = {
    "L": 1.0, "l": 1.0, "litres": 1.0, "mL": 1e-3, "ml": 1e-3, "µL": 1e-6, "dL": 0.1,
    "dm3": 1.0, "cm³": 1e-3, "m^3": 1e3,
}  # fmt: skip
DILUTION = {
    "vvd": 1.0, "VVD": 1.0, "1/d": 1.0, "d⁻¹": 1.0, "d^-1": 1.0, "1/day": 1.0, "per day": None,
    "vv/d": 1.0, "v/v/d": 1.0, "RV/d": 1.0, "vol/vol/day": 1.0, "L/L/d": 1.0, "mL/mL/d": 1.0,
    "L/(L*d)": 1.0, "L/(L d)": 1.0, "1/h": 24.0, "h-1": 24.0, "h⁻¹": 24.0, "1/hr": 24.0,
}  # fmt: skip
READ: dict[str, dict[str, float | None]] = {
    **dict.fromkeys(("VCD", "DCD", "Lys", "Xv", "Xd"), CELLS),
    "VCV": {**SHARE, "% v/v": 1.0, "%(v/v)": 1.0, "vol%": 1.0, "mL/mL": 100.0},
    "Via": SHARE,
    "DO": {**SHARE, "% air sat": 1.0, "% air sat.": 1.0, "% a.s.": 1.0, "% DO": 1.0, "% pO2": 1.0},
    "Diam": {"um": 1.0, "µm": 1.0, "μm": 1.0, "micron": 1.0, "nm": 1e-3, "mm": 1e3},
    "Glc": {
        "g/L": 1.0, "g L⁻¹": 1.0, "g/l": 1.0, "mg/mL": 1.0, "kg/m3": 1.0, "mg/L": 1e-3,
        "mg/dL": 1e-2, "g/dL": 10.0, "µg/mL": 1e-3, "mmol/L": 0.180156, "mM": 0.180156,
        "mol/L": 180.156, "umol/L": 0.000180156,
    },
    "Gln": {**MILLIMOLAR, "g/L": 1000 / 146.14, "mg/L": 1 / 146.14},
    "Glu": {**MILLIMOLAR, "g/L": 1000 / 147.13, "mg/dL": 10 / 147.13},
    "Lac": {**MILLIMOLAR, "g/L": 1000 / 90.08, "mg/mL": 1000 / 90.08},
    "Pyr": {**MILLIMOLAR, "g/L": 1000 / 88.06, "mg/L": 1 / 88.06},
    "Amm": MILLIMOLAR,
    "Titer": {"mg/L": 1.0, "mg L⁻¹": 1.0, "ug/mL": 1.0, "µg/ml": 1.0, "g/L": 1e3, "ng/mL": 1e-3},
    **dict.fromkeys((*STREAM_TOTALS, "volume_L"), VOLUME),
    "pH": {"pH": 1.0, "-": 1.0, "": 1.0, "pH units": 1.0},
    "pCO2": {
        "mmHg": 1.0, "mmhg": 1.0, "Torr": 101325 / 760 / 133.322387415, "kPa": 7.500615758456563,
        "Pa": 0.007500615758456563, "hPa": 0.7500615758456563, "mbar": 0.7500615758456563,
        "bar": 750.0615758456563,
    },
    "TMP": {
        "mbar": 1.0, "mBar": 1.0, "hPa": 1.0, "kPa": 10.0, "Pa": 0.01, "bar": 1e3, "Bar": 1e3,
        "MPa": 1e4, "psi": 68.94757293168361, "PSI": 68.94757293168361,
        "lbf/in²": 68.94757293168361,
        "mmHg": 1.33322387415, "cmH2O": 0.980665, "atm": 1013.25,
    },
    "osmolality": {
        "mOsm/kg": 1.0, "mosm/kg": 1.0, "mOsmol/kg": 1.0, "mosmol/kg": 1.0, "mOsm/kg H2O": 1.0,
        "Osm/kg": 1e3, "mOsm kg⁻¹": 1.0,
    },
    "capacitance": {"pF/cm": 1.0, "pF cm⁻¹": 1.0, "nF/m": 10.0, "pF/m": 0.01, "nF/cm": 1e3},
    "time_h": {
        "h": 1.0, "hours": 1.0, "hr": 1.0, "d": 24.0, "days": 24.0, "min": 1 / 60, "s": 1 / 3600,
    },
    "day": {"d": 1.0, "days": 1.0, "h": 1 / 24},
    "perfusion_rate": DILUTION,
    "bleed_rate": DILUTION,
    "glucose_setpoint": {
        "g/L": 1.0, "g/l": 1.0, "g L-1": 1.0, "mg/mL": 1.0, "kg/m³": 1.0, "mg/L": 1e-3,
        "mg/dL": 1e-2, "mmol/L": 0.180156, "mM": 0.180156, "mol/L": 180.156, "µmol/L": 0.000180156,
    },
    "agitation": {
        "rpm": 1.0, "RPM": 1.0, "1/min": 1.0, "min⁻¹": 1.0, "min-1": 1.0, "r/min": 1.0,
        "rev/min": 1.0, "revolutions/minute": 1.0, "revolutions per minute": 1.0, "U/min": 1.0,
        "turns/min": 1.0, "cycles/min": 1.0, "rotations/min": 1.0, "rps": 60.0, "1/s": 60.0,
        "s⁻¹": 60.0, "turns/s": 60.0, "rev/s": 60.0, "r/s": 60.0, "cycles/s": 60.0,
        "rad/s": 9.549296585513721, "radians per second": 9.549296585513721,
        "deg/s": 1 / 6, "°/s": 1 / 6, "degrees/s": 1 / 6,
    },
    "pyruvate_feed": {k: v for k, v in MILLIMOLAR.items() if v != 1e-6},
}  # fmt: skip
"""None: refused, though a sibling is accepted."""

TEMPERATURES = [
    (unit, given, celsius)
    for units, pairs in (
        (("degC", "°C", "deg C", "º C", "℃", "Celsius", "degrees Celsius"), [(37.0, 37.0)]),
        (("K", "kelvin", "Kelvin"), [(310.15, 37.0), (273.15, 0.0)]),
        (("degF", "°F", "deg F", "Fahrenheit"), [(98.6, 37.0), (32.0, 0.0), (-40.0, -40.0)]),
    )
    for unit in units
    for given, celsius in pairs
]


def test_the_table_holds_every_quantity():
    assert {*READ, "temperature"} == set(CANONICAL_UNITS)
    assert {*REGISTRY, *CONTROL_NAMES, *STREAM_TOTALS, *AUXILIARY_TAGS} <= {*READ, "temperature"}
    assert set(CONTROL_UNITS) == set(CONTROL_NAMES)


@pytest.mark.parametrize("name", list(READ))
def test_what_is_read_and_sent(name: str):
    for unit, one in READ[name].items():
        if one is None:
            continue
        found = to_canonical([2.0, 0.0], unit, name).tolist()
        assert found == pytest.approx([2.0 * one, 0.0], rel=1e-14), unit
        assert is_canonical(unit, name) == (one == 1.0), unit
        if name in CONTROL_NAMES:
            assert to_device(850.0, unit, name) == pytest.approx(850.0 / one, rel=1e-14), unit
            assert to_device(0.0, unit, name) == 0.0


def test_temperatures_both_ways():
    for unit, there, celsius in TEMPERATURES:
        assert float(to_canonical(there, unit, "temperature")) == pytest.approx(celsius, abs=1e-12)
        assert to_device(celsius, unit, "temperature") == pytest.approx(there, abs=1e-12)


REFUSED = {
    **dict.fromkeys(
        ("perfusion_rate", "bleed_rate"),
        ("L/d", "mL/min", "mL/h", "L", "rpm", "rps", "1/min", "1/s", "Hz", "%", "%/d", "0.1/d",
         "vvm", "L/L", "d", "rad/d", "cells/mL/d", "per day", "week^-1", "turns/d"),
    ),
    "agitation": (
        "Hz", "1/h", "1/d", "rph", "turns/h", "vvd", "m/s", "rad", "rev", "min", "deg", "%",
        "W/kg", "mrpm", "krpm", "10 rpm", "100 rpm", "rad/h", "grad/s", "bpm", "Bq", "rpm/s",
    ),
    "temperature": (
        "C", "F", "R", "degR", "mK", "10 K", "delta_degC", "Δ°C", "K/min", "degC/h", "eV", "%",
    ),
    "glucose_setpoint": ("mol", "mmol", "g", "%", "g/g", "mg", "mM/d", "MM", "mm", "ppm", "mOsm/L"),
    "pyruvate_feed": ("g/L", "mg/L", "mg/dL", "mol", "mm", "Mm", "mmol/kg", "%", "mol/kg"),
    "DO": ("ppm", "ppb", "mg/L", "mmol/L", "% O2", "kPa", "mbar", "1", "-", "rad", "turn", "L/L"),
    "Via": ("1", "-", "ppm", "rad", "turns", "cells/cells", "% v/v", "bit", "dB"),
    "VCV": ("1", "ppm", "rad", "%/d", "uL"),
    "VCD": (
        "10E6 cells/mL", "106 cells/mL", "g/L", "cells", "cells/kg", "M/mL", "mol/mL", "/mL",
        "cells/mL x10^6", "cells/ML", "2e6 cells/mL",
    ),
    "Amm": ("mg/L", "g/L", "mg/dL", "ppm", "mmol"),
    "Gln": ("mmol", "mol", "MMOL/L", "mM/L", "mol/kg", "m", "mmol/L/d"),
    "Titer": ("mmol/L", "mg", "MG/L", "Mg/L", "g/g", "g/L/d", "mg/L d"),
    "Diam": ("m^2", "fL", "Mm/s", "um3"),
    "TMP": ("Mbar", "MBAR", "psia", "psig", "m", "N", "g/cm2"),
    "pCO2": ("%", "% CO2", "mmol/L", "mm", "Hg", "mmHg/s"),
    "osmolality": ("mOsm/L", "mOsm", "mmol/kg", "mmol/L", "MOsm"),
    "capacitance": ("pF", "F/cm2", "S/m", "PF/cm", "dB"),
    "V_perfusion_L": ("ML", "L/d", "kg", "m", "m2", "gal", "mol"),
    "time_h": ("m", "M", "1/h", "Hz", "rev"),
    "pH": ("g/L", "%", "mV"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_is_refused_says_what_is_allowed(name: str):
    for unit in REFUSED[name]:
        with pytest.raises(UnitError, match=f"'{name}'") as caught:
            to_canonical(1.0, unit, name)
        text = str(caught.value)
        assert "Allowed are" in text or "ambiguous" in text or name == "pH"
        if name in CONTROL_NAMES:
            assert allowed_units(name) in text
            with pytest.raises(UnitError, match="Allowed are"):
                to_device(1.0, unit, name)


def test_refusals_say_what_stands_between():
    for name, unit, words in (
        ("perfusion_rate", "mL/min", "divide it by the working volume"),
        ("DO", "ppm", "temperature, salt and pressure"),
        ("Amm", "mg/L", "NH3, NH4"),
        ("pyruvate_feed", "g/L", "sodium salt"),
        ("agitation", "Hz", "write 'rps'"),
        ("TMP", "Mbar", "did you mean 'mbar'"),
        ("V_bleed_L", "ML", "did you mean 'mL'"),
        ("VCD", "106 cells/mL", "lost superscript"),
    ):
        with pytest.raises(UnitError, match=words):
            conversion(unit, name)


def test_what_does_not_say_of_what_it_is_reads_as_a_unit_and_as_no_other():
    for vague, others in (("Hz", ("rps", "1/s", "rpm")), ("ppm", ("%", "ppb", "mg/L"))):
        assert all(parse_unit(vague) != parse_unit(other) for other in others)


def test_only_a_control_is_sent_anywhere():
    with pytest.raises(UnitError, match="'Glc' is no control"):
        to_device(5.0, "g/L", "Glc")


def test_a_text_of_a_megabyte_is_no_unit_and_costs_nothing():
    for text in ("m" * 10**6, "(" * 10**6, "1" * 10**6, "m*" * 500_000, "°" * 10**6):
        with pytest.raises(UnitError) as caught:
            to_canonical(1.0, text, "Glc")
        assert len(str(caught.value)) < 500


PIECES = (
    *"/*^()-+.%°µ⁻¹⁶ ", "10", "1e6", "10^6", "e99", "1e-99", "x", "per", "cells", "mL", "L", "g",
    "mmol", "min", "rpm", "rad", "degC", "K", "vvd", "Mio", "H2O", "9", "é", "\x00",
)  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=8).map("".join), st.sampled_from(list(READ)))
def test_any_text_is_a_conversion_or_a_refusal(unit: str, name: str):
    """A conversion is a line that goes up, finite, and one that comes back."""
    try:
        line = conversion(unit, name)
    except UnitError as error:
        assert len(str(error)) < 600
        return
    assert line.slope > 0
    there = line([1.0, 5.0])
    assert there[1] > there[0] and line.inverse(there).tolist() == pytest.approx([1.0, 5.0])


@pytest.mark.parametrize("unit", list(CONTROL_UNITS["agitation"]))
def test_there_and_back_is_the_same_number(unit: str):
    for rpm in (700.0, 905.0, 1049.9):
        assert float(to_canonical(to_device(rpm, unit, "agitation"), unit, "agitation")) == (
            pytest.approx(rpm, rel=1e-15)
        )
    assert math.isnan(to_device(math.nan, unit, "agitation"))
