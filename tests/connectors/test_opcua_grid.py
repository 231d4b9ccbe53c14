"""A device that rounds, behind a real server: its grid is read, kept to and compared on."""

import contextlib
from collections.abc import AsyncIterator

import pytest
from asyncua import Server, ua

from perfusio_jax._core import ConnectorError, DataError
from perfusio_jax.connectors import OPCUAConnector
from perfusio_jax.connectors.opcua.values import step_of
from tests.connectors.opcua_rigs import connect

URI = "urn:rounds"
CONTROLS = {
    "agitation": (ua.Variant(850.0), -1, 10.0),  # says tens, holds tens
    "temperature": (ua.Variant(310.2, ua.VariantType.Float), 1, 0.1),  # kelvin
    "perfusion_rate": (ua.Variant(1.25), 0, 0.05),  # says whole numbers, which is not so
    "bleed_rate": (ua.Variant(0.25, ua.VariantType.Float), None, None),
    "glucose_setpoint": (ua.Variant(20, ua.VariantType.UInt16), None, None),  # mmol/L
}


@contextlib.asynccontextmanager
async def coarse() -> AsyncIterator[tuple[OPCUAConnector, Server]]:
    server = Server()
    server.disable_clock()
    await server.init()
    server.set_endpoint("opc.tcp://127.0.0.1:0/coarse")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    index = await server.register_namespace(URI)
    for name, (value, digits, step) in CONTROLS.items():
        node = await server.nodes.objects.add_variable(ua.NodeId(name, index), name, value)
        await node.set_writable()
        if digits is not None:
            await node.add_property(0, "ValuePrecision", float(digits))
        if step is not None:
            server.iserver.set_attribute_value_setter(node.nodeid, _rounding(step))
    node = server.get_node(ua.NodeId("bleed_rate", index))
    await node.add_property(0, "EURange", ua.Range(Low=0.05, High=0.3))
    node_map = {n: {"node": f"nsu={URI};s={n}"} for n in CONTROLS}
    node_map["temperature"]["unit"] = "K"
    node_map["glucose_setpoint"]["unit"] = "mmol/L"
    await server.start()
    try:
        url = f"opc.tcp://127.0.0.1:{server.bserver.port}/coarse"
        async with connect(url, node_map=node_map) as connector:
            yield connector, server
    finally:
        await server.stop()


def _rounding(step):
    def keep(node, attribute, value):
        kind = value.Value.VariantType
        held = ua.Variant(round(value.Value.Value / step) * step, kind)
        node.attributes[attribute].value = ua.DataValue(held)

    return keep


async def test_a_device_that_rounds_says_its_grid_and_gets_values_of_it():
    async with coarse() as (connector, _):
        grids = await connector.read_grids()
        assert grids["agitation"] == (10.0, 0.0) and grids["temperature"] == (0.1, -273.15)
        assert grids["glucose_setpoint"] == (0.180156, 0.0)
        assert "perfusion_rate" not in grids and "bleed_rate" not in grids
        asked = {"agitation": 910.0, "temperature": 36.65, "bleed_rate": 0.3}
        await connector.write_setpoints({**asked, "glucose_setpoint": 27 * 0.180156})
        held = await connector.read_setpoints()
        assert {n: held[n] for n in asked} == pytest.approx(asked, rel=1e-6)
        assert held["bleed_rate"] <= 0.3 and held["glucose_setpoint"] == pytest.approx(4.864212)
        await connector.write_setpoints({"agitation": 904.0})  # held as 900, within its step
        with pytest.raises(ConnectorError, match=r"set to 1.23 and reads back as 1.25.*resolution"):
            await connector.write_setpoints({"perfusion_rate": 1.23})
        with pytest.raises(DataError, match="whole numbers"):
            await connector.write_setpoints({"glucose_setpoint": 5.0})


async def test_a_grid_that_changes_while_connected_is_followed():
    async with coarse() as (connector, server):
        index = await server.get_namespace_index(URI)
        assert (await connector.read_grids())["temperature"] == (0.1, -273.15)
        node = server.get_node(ua.NodeId("temperature", index))
        (precision,) = await node.get_properties()
        await precision.write_value(2.0)
        await server.get_node(ua.NodeId("agitation", index)).write_value(ua.Variant(1e308))
        grids = await connector.read_grids()
        assert grids["temperature"] == (0.01, -273.15)


@pytest.mark.parametrize(
    ("precision", "held", "step"),
    [
        (9, 1e308, None),  # more steps than there are numbers
        (9, -1e308, None),
        (1, -3.25, None),
        (1, -3.2, 0.1),
        (2, -3.25, 0.01),
        (0, 2**62, 1.0),
        (1, None, 0.1),
        (True, 3.0, None),
    ],
)
def test_a_precision_counts_where_the_value_held_can_be_of_it(precision, held, step):
    assert step_of(precision, ua.VariantType.Double, held) == step
