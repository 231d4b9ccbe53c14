"""The base connector: what it demands, and the defaults it gives."""

import asyncio

import pytest

from perfusio_jax._core import BioreactorConnector, ConnectorError
from perfusio_jax.connectors.base import BioreactorConnectorBase, SampleNotReady, SampleRecord


class Minimal(BioreactorConnectorBase):
    """The three methods a connector must have, and nothing else."""

    async def is_alive(self) -> bool:
        return True

    async def read_sample(self, day: int) -> dict[str, float | None]:
        if day > 3:
            raise SampleNotReady("tomorrow")
        return {"VCD": 10.0 + day, "Glc": None}

    async def write_setpoints(self, setpoints: dict[str, float]) -> None:
        self.written = setpoints


def test_the_base_is_abstract_and_a_subclass_satisfies_the_protocol():
    with pytest.raises(TypeError, match="abstract"):
        BioreactorConnectorBase()
    assert isinstance(Minimal(), BioreactorConnector)


def test_defaults_are_honest():
    async def main():
        async with Minimal() as connector:
            record = await connector.read_record(2)
            assert record.values == {"VCD": 12.0, "Glc": None}
            assert record.quality == {"VCD": "good", "Glc": "missing"}
            assert (record.time_h, record.age_h, record.worst_quality) == (48.0, None, "good")
            for call in (connector.days_available, connector.read_setpoints):
                with pytest.raises(ConnectorError, match="Minimal cannot"):
                    await call()
            with pytest.raises(SampleNotReady):
                await connector.read_record(4)
            await connector.close()

    asyncio.run(main())


def test_not_ready_is_a_connector_error_so_that_it_can_be_polled():
    assert issubclass(SampleNotReady, ConnectorError)


@pytest.mark.parametrize(
    ("quality", "worst"),
    [
        ({}, "good"),
        ({"a": "good", "b": "missing"}, "good"),
        ({"a": "uncertain", "b": "good"}, "uncertain"),
        ({"a": "uncertain", "b": "bad"}, "bad"),
    ],
)
def test_the_worst_quality_of_a_record(quality, worst):
    assert SampleRecord(1, 24.0, {}, quality).worst_quality == worst
