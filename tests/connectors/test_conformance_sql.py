"""Databases keep the protocol of all connectors."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
import sqlalchemy as sa

from perfusio_jax.connectors.sql import schema
from perfusio_jax.connectors.sql.store import SQLStore
from tests.connectors.conformance import Check, Rig, Values, checks, name_of


@contextlib.asynccontextmanager
async def sql_rig(url: str, request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    """A store, and a second one as the hands on the far side."""
    store, other = SQLStore(url, "Exp1", "R1", timeout_s=3.0), SQLStore(url, "Exp1", "R1")
    server = None if other.database.is_sqlite else request.getfixturevalue("postgres")
    file = other.database.file or Path("none.db")
    away = file.with_name("elsewhere.db")

    async def put(day: int, values: Values) -> None:
        other.write_sample(day, values)

    async def far() -> Mapping[str, float]:
        table = schema.setpoint_history
        with other.database.engine.connect() as connection:
            query = sa.select(table.c.name, table.c.value).order_by(table.c.id)
            return {row.name: row.value for row in connection.execute(query)}

    async def operator(name: str, value: float) -> None:
        await other.write_setpoints({name: value}, user="Ada")

    async def cut() -> None:
        if server is None:
            file.rename(away)
        else:
            server.kill()

    async def mend() -> None:
        if server is None:
            away.rename(file)
        else:
            server.start(server.port)

    try:
        secrets = () if server is None else (server.password,)
        yield Rig(store, put, far, operator, cut, mend, secrets=secrets)
    finally:
        store.database.close()
        other.database.close()


@pytest.mark.parametrize("check", checks("put", "far", "operator", "cut"), ids=name_of)
async def test_databases_conform(check: Check, url: str, request: pytest.FixtureRequest):
    async with sql_rig(url, request) as rig:
        await check(rig)
