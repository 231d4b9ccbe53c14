"""What nodes state as their unit, range, type and day: pure functions over odd values."""

import csv
import datetime as dt
import math

import pytest
from asyncua import ua

from perfusio_jax._core import ConfigError, ConnectorError, DataError, UnitError
from perfusio_jax._core.units import CANONICAL_UNITS, to_canonical
from perfusio_jax.connectors.opcua.names import UNITS_URI, engineering_unit, unit_id
from perfusio_jax.connectors.opcua.nodes import NodeMap
from perfusio_jax.connectors.opcua.units import UNECE, are_same, code_of, contradicts, unit_of
from perfusio_jax.connectors.opcua.values import (
    LAST_DAY,
    day_in,
    foreign_unit,
    range_of,
    reading_of,
    time_of,
)

V = ua.VariantType
NOW = dt.datetime(2026, 3, 4, 12, tzinfo=dt.UTC)


def packed(code: str) -> int:
    return int.from_bytes(code.encode(), "big")


def eu(number: int = 0, name=None, description=None, uri=UNITS_URI) -> ua.EUInformation:
    return ua.EUInformation(
        NamespaceUri=uri,
        UnitId=number,
        DisplayName=ua.LocalizedText(name),
        Description=ua.LocalizedText(description),
    )


# ---------------------------------------------------------------- units

WRITTEN_BY_HAND = """code,column,factor
M33,Glc,0.180156
M33,Lac,1
C38,Lac,1000
C35,Lac,1000
C36,Lac,1
B46,Lac,1000
GL,Glc,1
M1,Titer,1
M1,Glc,0.001
H29,Titer,0.001
B35,Glc,1000
B34,Glc,1000
F23,Glc,1
23,Glc,1000
GJ,Glc,1000
KMQ,Glc,1
A93,Titer,1
GP,Titer,0.001
GQ,Titer,0.000001
H50,VCD,0.000001
L20,VCD,0.001
K63,VCD,1e-9
C86,VCD,1e-12
P1,VCV,1
RPM,agitation,1
M46,agitation,1
C94,agitation,1
E91,perfusion_rate,1
H10,perfusion_rate,24
LTR,volume_L,1
DLT,volume_L,0.1
MLT,volume_L,0.001
4G,volume_L,1e-6
HLT,volume_L,100
MTQ,volume_L,1000
DMQ,volume_L,1
CMQ,volume_L,0.001
4H,Diam,1
C45,Diam,0.001
MMT,Diam,1000
MTR,Diam,1000000
HN,pCO2,1
UA,pCO2,1
KPA,pCO2,7.500617
A97,TMP,1
MBR,TMP,1
BAR,TMP,1000
PAL,TMP,0.01
KPA,TMP,10
MPA,TMP,10000
ATM,TMP,1013.25
PS,TMP,68.947573
C72,capacitance,0.01
C42,capacitance,10
B89,capacitance,10000
A69,capacitance,1e10
HUR,time_h,1
MIN,time_h,0.01666666667
SEC,time_h,0.00027777778
DAY,time_h,24
Q30,pH,1
"""


@pytest.mark.parametrize("row", list(csv.DictReader(WRITTEN_BY_HAND.splitlines())), ids=str)
def test_a_unit_given_by_its_id_alone_is_read_as_what_it_is(row):
    unit = unit_of(eu(packed(row["code"]), ""), row["column"])
    (value,) = to_canonical([1.0], unit, row["column"])
    assert value == pytest.approx(float(row["factor"]), rel=1e-6)


def test_temperatures_by_id():
    for code, given in (("CEL", 36.5), ("KEL", 309.65), ("FAH", 97.7)):
        unit = unit_of(eu(packed(code)), "temperature")
        assert to_canonical([given], unit, "temperature") == pytest.approx(36.5)


def test_the_table_of_ids_is_that_of_the_codes():
    assert unit_of(ua.EUInformation(UnitId=0x4D3333), "Glc") == "mmol/L"  # who counted is not said
    for code in UNECE:
        assert code_of(packed(code)) == code
    for name in CANONICAL_UNITS:  # what the emulated rack states of itself
        if unit_id(CANONICAL_UNITS[name]) >= 0:
            assert are_same(
                UNECE[code_of(unit_id(CANONICAL_UNITS[name]))], CANONICAL_UNITS[name], name
            )
        assert foreign_unit(name, unit_of(engineering_unit(name), name)) is None


@pytest.mark.parametrize(
    ("content", "unit"),
    [
        (None, None),
        (eu(), None),
        (eu(-1), None),
        (eu(0, ""), None),
        (eu(0, "  "), None),
        (eu(0, "mmol/L"), "mmol/L"),
        (eu(0, " mmol/L "), "mmol/L"),
        (eu(0, None, "mmol/L"), "mmol/L"),
        (eu(-1, "", "millimole per litre"), "millimole per litre"),
        (eu(0, None, "gram per cubic decimetre"), "gram per decimetre^3"),
        (eu(packed("M33"), None, "of the feed"), "mmol/L"),
        (eu(packed("M33"), "mmol/l", "whatever"), "mmol/l"),
        (eu(packed("M33"), "Millimol je Liter"), "mmol/L"),  # a display name is for people
        (eu(packed("XYZ"), "mmol/L"), "mmol/L"),
        (eu(packed("GL"), "mmol/L", uri="urn:of:the:vendor"), "mmol/L"),  # whose ids are its own
        (eu(packed("C62"), "mmol/L"), "mmol/L"),  # "one" is no unit
        (eu(2**31 - 1, "mmol/L"), "mmol/L"),
        (eu(-77, "mmol/L"), "mmol/L"),
        ("mmol/L", "mmol/L"),
        ("", None),
        (ua.LocalizedText("mmol/L"), "mmol/L"),
        (ua.LocalizedText(None), None),
    ],
    ids=str,
)
def test_what_counts_of_a_unit(content, unit):
    assert unit_of(content, "Glc") == unit


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (eu(packed("XYZ")), "XYZ"),
        (eu(packed("XYZ"), "", ""), str(packed("XYZ"))),
        (eu(4242, None, "of the vendor", uri="urn:v"), "4242 of urn:v alone"),
        (eu(packed("M33"), "", uri="urn:v"), "alone, which is not known"),
        (eu(-77), "-77"),
        (eu(2**31 - 1), str(2**31 - 1)),
        (eu(packed("C62")), None),
        (eu(0, None, "of the pump on the left"), "of the pump on the left"),
        (eu(0, None, "x" * 10_000), r"xxx\.\.\."),
        (eu(packed("M33"), "g/L"), "'g/L' by name and 'mmol/L' by id"),
        (eu(packed("RPM"), "mmol/L"), "'mmol/L' by name and 'rpm' by id"),
        ([eu(0, "mmol/L")], "hold list"),
        (5, "hold int"),
        (True, "hold bool"),
        (b"mmol/L", "hold bytes"),
        (ua.Range(0.0, 1.0), "hold Range"),
        (ua.ExtensionObject(), "hold"),
    ],
    ids=str,
)
def test_a_unit_that_is_none_is_an_error_that_names_it(content, words):
    if words is None:  # no unit at all: nothing is said
        assert unit_of(content, "Glc") is None
        return
    with pytest.raises(UnitError, match=words) as caught:
        unit_of(content, "Glc")
    assert len(str(caught.value)) < 300


def test_a_unit_of_a_node_and_one_of_the_map():
    assert contradicts("mmol/L", "g/L", "Glc") and contradicts("rpm", "g/L", "Glc")
    assert not contradicts("g / l", "g/L", "Glc") and not contradicts("Gramm", "g/L", "Glc")
    ref = NodeMap({"Glc": {"node": "ns=2;s=Glc", "unit": "g/L", "sure": True}})["Glc"]
    assert ref.is_sure and ref.unit == "g/L"
    for wrong in ({"sure": True}, {"sure": "yes", "unit": "g/L"}, {"unit": 3}, {"unit": " "}):
        with pytest.raises(ConfigError):
            NodeMap({"Glc": {"node": "ns=2;s=Glc", **wrong}})


def test_the_map_may_say_what_happens_once_a_second_where_a_node_says_hz():
    assert not contradicts("Hz", "rps", "agitation") and not contradicts("Hz", "r/s", "agitation")
    assert not contradicts("Hz", "1/s", "agitation")
    for other in ("rpm", "rad/s", "1/min"):
        assert contradicts("Hz", other, "agitation"), other
    assert contradicts("Hz", "vvd", "perfusion_rate") and contradicts("Hz", "%", "DO")


def test_what_counts_time_counts_hours_and_days():
    for name, right, wrong in (("sample_time_h", "h", "min"), ("sample_day", "d", "h")):
        assert foreign_unit(name, right) is None and foreign_unit(name, "-") is None
        with pytest.raises(ConnectorError, match=f"'{wrong}'"):
            foreign_unit(name, wrong)
    assert foreign_unit("heartbeat", "h") is None and foreign_unit("x_pump", "bananas") is None


@pytest.mark.parametrize(
    ("content", "limits"),
    [
        (None, None),
        ("0 to 5", None),
        (ua.Range(), None),
        (ua.Range(0.0, 0.0), None),
        (ua.Range(0.0, 5.0), (0.0, 5.0)),
        (ua.Range(-5.0, -1.0), (-5.0, -1.0)),
        (ua.Range(2.0, 2.0), (2.0, 2.0)),
        (ua.Range(-math.inf, math.inf), (-math.inf, math.inf)),
        (ua.Range(5.0, 1.0), "5 to 1"),
        (ua.Range(math.nan, 1.0), "nan to 1"),
        (ua.Range(0.0, math.nan), "0 to nan"),
    ],
    ids=str,
)
def test_a_range_that_is_none_is_not_taken_for_no_range(content, limits):
    if isinstance(limits, str):
        with pytest.raises(ConnectorError, match=limits):
            range_of(content)
    else:
        assert range_of(content) == limits


# ---------------------------------------------------------------- days


def value_of(content, kind=None, status=0, **times) -> ua.DataValue:
    variant = content if isinstance(content, ua.Variant) else ua.Variant(content, kind)
    return ua.DataValue(variant, StatusCode=ua.StatusCode(status), **times)


@pytest.mark.parametrize("kind", [V.SByte, V.Byte, V.Int16, V.UInt16, V.Int32, V.UInt32, V.Int64])
@pytest.mark.parametrize("day", [0, 3, 120])
def test_a_whole_number_of_any_type_is_a_day(kind, day):
    assert day_in(value_of(day, kind), "node") == day


@pytest.mark.parametrize(
    ("value", "day"),
    [
        (value_of(3, V.UInt64), 3),
        (value_of(3.0, V.Double), 3),
        (value_of(3.0, V.Float), 3),
        (value_of(-0.0, V.Double), 0),
        (value_of(LAST_DAY, V.Int32), LAST_DAY),
        (value_of(3, V.Int32, ua.StatusCodes.UncertainLastUsableValue), 3),
        (value_of(-1, V.Int32), None),
        (value_of(-1.0, V.Double), None),
        (value_of(None, V.Null), None),
        (value_of(3, V.Int32, ua.StatusCodes.BadNoData), None),
        (value_of(3, V.Int32, ua.StatusCodes.BadWaitingForInitialData), None),
        (value_of(3, V.Int32, ua.StatusCodes.BadSensorFailure), "BadSensorFailure"),
        (value_of(None, V.Null, ua.StatusCodes.BadUserAccessDenied), "BadUserAccessDenied"),
        (value_of(3.5, V.Double), r"3.5 \(Double\)"),
        (value_of(math.nan, V.Double), r"nan \(Double\)"),
        (value_of(math.inf, V.Float), r"inf \(Float\)"),
        (value_of(-math.inf, V.Double), "-inf"),
        (value_of(1e300, V.Double), "1e\\+300"),
        (value_of(2**16 - 1, V.UInt16), "65535"),  # how some say -1
        (value_of(2**32 - 1, V.UInt32), "4294967295"),
        (value_of(2**64 - 1, V.UInt64), str(2**64 - 1)),
        (value_of(True, V.Boolean), r"True \(Boolean\)"),
        (value_of("3", V.String), r"'3' \(String\)"),
        (value_of("", V.String), r"'' \(String\)"),
        (value_of("3" * 100_000, V.String), r"3' \(String\)"),
        (value_of(b"3", V.ByteString), r"bytes \(ByteString\)"),
        (value_of([3], V.Int32), r"1 values \(array of Int32\)"),
        (value_of([3.0, 4.0], V.Double), r"2 values \(array of Double\)"),
        (value_of([], V.Int32), r"0 values \(array of"),
        (value_of(ua.LocalizedText("3"), V.LocalizedText), r"LocalizedText \(LocalizedText\)"),
        (value_of(NOW, V.DateTime), r"datetime \(DateTime\)"),
        (value_of(ua.NodeId(3, 0), V.NodeId), r"\(NodeId\)"),
    ],
    ids=lambda v: None if isinstance(v, ua.DataValue) else str(v),
)
def test_what_is_no_day_is_an_error_that_names_node_and_type(value, day):
    if day is None or isinstance(day, int):
        assert day_in(value, "node") == day
        return
    with pytest.raises((ConnectorError, DataError), match=day) as caught:
        day_in(value, "R: sample_day (ns=2;s=D)")
    assert "sample_day (ns=2;s=D)" in str(caught.value) and len(str(caught.value)) < 300


# ---------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("value", "number", "quality"),
    [
        (value_of(25, V.SByte), 25.0, "good"),
        (value_of(25, V.Byte), 25.0, "good"),
        (value_of(25, V.Int16), 25.0, "good"),
        (value_of(25, V.UInt16), 25.0, "good"),
        (value_of(25, V.Int64), 25.0, "good"),
        (value_of(2**64 - 1, V.UInt64), 2.0**64, "good"),
        (value_of(25.0, V.Float), 25.0, "good"),
        (value_of(-0.0, V.Double), 0.0, "good"),
        (value_of(5e-324, V.Double), 5e-324, "good"),
        (value_of(25.0, V.Double, ua.StatusCodes.GoodLocalOverride), 25.0, "good"),
        (value_of(25.0, V.Double, ua.StatusCodes.UncertainSubNormal), 25.0, "uncertain"),
        (value_of(25.0, V.Double, ua.StatusCodes.UncertainLastUsableValue), 25.0, "uncertain"),
        (value_of(25.0, V.Double, ua.StatusCodes.BadOutOfService), None, "bad"),
        (value_of(25.0, V.Double, ua.StatusCodes.BadNoData), None, "missing"),
        (value_of(25.0, V.Double, 0x80FF0000), None, "bad"),  # a code nobody has defined
        (value_of(None, V.Null), None, "missing"),
        (value_of(math.nan, V.Double), None, "bad"),
        (value_of(-math.inf, V.Float), None, "bad"),
        (value_of(True, V.Boolean), None, "bad"),
        (value_of("25.0", V.String), None, "bad"),
        (value_of(b"25", V.ByteString), None, "bad"),
        (value_of([25.0], V.Double), None, "bad"),
        (value_of([], V.Double), None, "bad"),
        (value_of(ua.LocalizedText("25"), V.LocalizedText), None, "bad"),
        (value_of(NOW, V.DateTime), None, "bad"),
        (value_of(eu(), V.ExtensionObject), None, "bad"),
    ],
    ids=lambda v: None if isinstance(v, ua.DataValue) else str(v),
)
def test_only_numbers_the_server_vouches_for_are_values(value, number, quality):
    reading = reading_of(value, NOW, name="Glc")
    assert (reading.value, reading.quality) == (number, quality)


def test_a_number_too_large_for_the_canonical_unit_is_no_value():
    reading = reading_of(value_of(1e308, V.Double), NOW, name="Titer", unit="kg/L")
    assert reading.value is None and "not finite in mg/L" in reading.status
    assert reading_of(value_of(2.0, V.Double), NOW, name="Titer", unit="g/L").value == 2000.0


@pytest.mark.parametrize(
    ("source", "server", "time"),
    [
        (None, None, None),
        (dt.datetime(1601, 1, 1), None, None),
        (dt.datetime(1601, 1, 1), NOW, NOW),
        (None, NOW, NOW),
        (NOW, None, NOW),
        (dt.datetime(1970, 1, 1), NOW, dt.datetime(1970, 1, 1, tzinfo=dt.UTC)),
        (dt.datetime(1980, 1, 6), None, dt.datetime(1980, 1, 6, tzinfo=dt.UTC)),
        (dt.datetime(9999, 12, 31), NOW, dt.datetime(2199, 12, 31, 23, 59, 59, tzinfo=dt.UTC)),
        (dt.datetime(1601, 1, 2), None, dt.datetime(1970, 1, 1, tzinfo=dt.UTC)),
        (dt.datetime(1, 1, 1), None, None),
    ],
)
def test_only_zero_on_the_wire_means_that_nobody_knows_the_time(source, server, time):
    assert time_of(ua.DataValue(SourceTimestamp=source, ServerTimestamp=server)) == time
