"""The suite all connectors share, over OPC UA: one server, one vessel for each check."""

import contextlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from perfusio_jax.connectors import RackServer
from tests.connectors.conformance import Check, Rig, Values, checks, name_of
from tests.connectors.opcua_rigs import EmptyRack, connect, served
from tests.faults.proxy import Proxy

pytestmark = pytest.mark.asyncio(loop_scope="module")
CHECKS = checks("put", "far", "operator", "cut")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[RackServer]:
    assert len(CHECKS) <= 24
    async with served(rack=EmptyRack(len(CHECKS))) as server:
        yield server


@contextlib.asynccontextmanager
async def rig_of(server: RackServer, vessel: int) -> AsyncIterator[Rig]:
    reactor_id = server.rack.ids[vessel]

    async def put(day: int, values: Values) -> None:
        await server.put_sample(reactor_id, day, values)

    async def far() -> dict[str, float]:
        return server.rack.controls(vessel)

    async def operator(name: str, value: float) -> None:
        async with connect(server.url, reactor_id) as other:
            await other.write_setpoints({name: value})

    port = int(server.url.split(":")[2].split("/")[0])
    async with Proxy(port) as proxy:
        url = server.url.replace(str(port), str(proxy.port))
        connector = connect(url, reactor_id, max_retries=1)

        async def cut() -> None:
            await proxy.cut()

        async def mend() -> None:
            await proxy.open()

        async with connector:
            yield Rig(connector, put=put, far=far, operator=operator, cut=cut, mend=mend)


@pytest.mark.parametrize("check", CHECKS, ids=name_of)
async def test_conformance(check: Check, server: RackServer):
    async with rig_of(server, CHECKS.index(check)) as rig:
        await check(rig)
