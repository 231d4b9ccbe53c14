"""Values of the wire without a server: units both ways, as people spell them."""

import datetime as dt

import pytest
from asyncua import ua

from perfusio_jax._core import ConnectorError, DataError
from perfusio_jax.connectors.opcua_values import foreign_unit, reading_of, to_node_unit

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
