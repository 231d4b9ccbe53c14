"""Values of the wire without a server: units both ways, as people spell them."""

import datetime as dt
import math

import pytest
from asyncua import ua

from perfusio_jax._core import ConnectorError, DataError
from perfusio_jax.connectors.opcua.values import (
    Node,
    fitted,
    foreign_unit,
    grid_of,
    has_arrived,
    reading_of,
    step_of,
    to_node_unit,
)

AT = dt.datetime(2026, 5, 6, 8, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("name", "unit", "at_device", "here"),
    [
        ("agitation", "revolutions/minute", 850.0, 850.0),
        ("agitation", "rps", 850.0 / 60.0, 850.0),
        ("agitation", "rad/s", 89.01179185171081, 850.0),
        ("agitation", "deg/s", 5100.0, 850.0),
        ("perfusion_rate", "1/h", 0.05, 1.2),
        ("glucose_setpoint", "mmol/L", 27.75372454983459, 5.0),
        ("temperature", "K", 310.15, 37.0),
        ("temperature", "°F", 98.6, 37.0),
        ("pyruvate_feed", "µmol/L", 2500.0, 2.5),
    ],
)
def test_a_control_means_the_same_in_both_directions(name, unit, at_device, here):
    known = foreign_unit(name, unit)
    value = ua.DataValue(ua.Variant(at_device, ua.VariantType.Double))
    reading = reading_of(value, AT, name=name, unit=known)
    assert reading.value == pytest.approx(here, rel=1e-14) and reading.quality == "good"
    assert to_node_unit(name, here, unit) == pytest.approx(at_device, rel=1e-14)


@pytest.mark.parametrize("unit", ["Hz", "1/h", "krpm", "rad", "ppm"])
def test_nothing_is_sent_in_a_unit_nobody_vouches_for(unit):
    with pytest.raises(DataError, match=r"nothing was sent.*Allowed are rpm, 1/min, rps"):
        to_node_unit("agitation", 850.0, unit)
    with pytest.raises(ConnectorError, match="Say `unit` in the node map"):
        foreign_unit("agitation", unit)


FLOAT, DOUBLE, WORD = ua.VariantType.Float, ua.VariantType.Double, ua.VariantType.UInt16


@pytest.mark.parametrize(
    ("precision", "kind", "held", "step"),
    [
        (1.0, DOUBLE, 36.5, 0.1),
        (2.0, FLOAT, 1.2300000190734863, 0.01),
        (0.0, DOUBLE, 850.0, 1.0),
        (-1.0, DOUBLE, 910.0, 10.0),
        (0.0, DOUBLE, 1.25, None),  # says whole numbers and holds none: it means nothing by it
        (-2.0, DOUBLE, 910.0, None),
        (2.0, WORD, 900, 1.0),
        (-1.0, WORD, 910, 10.0),
        (None, WORD, 900, 1.0),
        (None, DOUBLE, 36.5, None),
        (1.5, DOUBLE, 36.5, None),
        (float("nan"), DOUBLE, 36.5, None),
        (float("inf"), DOUBLE, 36.5, None),
        (1e300, DOUBLE, 36.5, None),
        (True, DOUBLE, 36.5, None),
        ("2", DOUBLE, 36.5, None),
        (1.0, DOUBLE, None, 0.1),
        (1.0, DOUBLE, float("nan"), 0.1),
    ],
)
def test_the_step_a_node_says(precision, kind, held, step):
    assert step_of(precision, kind, held) == step


def _node(kind=DOUBLE, unit=None, limits=None, step=None) -> Node:
    return Node(ua.NodeId("x", 1), kind, unit, limits, step)


def test_the_grid_of_a_node_in_another_unit():
    assert grid_of("agitation", _node()) is None
    assert grid_of("agitation", _node(step=10.0)) == (10.0, 0.0)
    assert grid_of("agitation", _node(unit="rps", step=0.1)) == (6.0, 0.0)
    assert grid_of("temperature", _node(unit="K", step=0.1)) == (0.1, -273.15)
    step, origin = grid_of("temperature", _node(unit="degF", step=0.5)) or (0.0, 0.0)
    assert (step, origin) == pytest.approx((0.5 / 1.8, -32 / 1.8), rel=1e-15)


def test_a_change_of_unit_leaves_no_crumbs():
    for k in range(1, 60):  # whole mmol/L, by way of g/L
        crumbs = to_node_unit("glucose_setpoint", k * 0.180156, "mmol/L")
        assert fitted(crumbs, _node(WORD, "mmol/L", step=1.0)) == k
    assert fitted(0.1 + 0.2, _node(step=0.1)) == 0.3
    assert fitted(0.34, _node(step=0.1)) == 0.34  # what is off the grid stays so


def test_a_value_at_the_end_of_a_range_does_not_leave_it():
    hot = to_node_unit("temperature", 37.5, "K")
    for limits in ((308.15, 310.65), (308.15, 310.65 - 5e-14)):
        assert limits[0] <= fitted(hot, _node(unit="K", limits=limits)) <= limits[1]
    narrow = _node(FLOAT, limits=(0.05, 0.3))
    assert 0.05 <= fitted(0.05, narrow) < 0.0500001 and 0.2999999 < fitted(0.3, narrow) <= 0.3
    assert fitted(0.31, narrow) > 0.3  # what is outside stays so, and is refused
    beyond = math.nextafter(37.5, 99.0)
    assert fitted(beyond, _node(limits=(35.0, 37.5))) == beyond  # nothing rounded it on the way


def test_what_arrives_is_compared_on_the_grid():
    sent = ua.Variant(7.067414, DOUBLE)
    assert not has_arrived("glucose_setpoint", 7.067414, 7.1, sent, _node())
    assert has_arrived("glucose_setpoint", 7.067414, 7.1, sent, _node(step=0.1))
    assert not has_arrived("glucose_setpoint", 7.067414, 7.2, sent, _node(step=0.1))
    assert has_arrived("bleed_rate", 0.3, 0.30000001192092896, ua.Variant(0.3, FLOAT), _node(FLOAT))
