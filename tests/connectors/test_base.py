"""The base connector: what it demands, and the defaults it gives."""

import asyncio
import datetime as dt
import math
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from perfusio_jax._core import BioreactorConnector, ConnectorError, DataError
from perfusio_jax.connectors.base import (
    BioreactorConnectorBase,
    Reading,
    SampleNotReady,
    SampleRecord,
    check_setpoints,
)


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
            assert (await connector.read_tags(), await connector.read_clock()) == ({}, None)
            for call in (connector.days_available, connector.read_setpoints, connector.read_back):
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


NOON = dt.datetime(2026, 5, 6, 12, tzinfo=dt.UTC)


def test_a_reading_is_usable_or_none_and_knows_its_age():
    summer = dt.timezone(dt.timedelta(hours=2))
    measured = dt.datetime(2026, 5, 6, 12, 30, tzinfo=summer)
    assert Reading(1.0, source_time=measured, read_at=NOON).age_h == pytest.approx(1.5)
    assert Reading(1.0, source_time=measured).age_h is None
    berlin = ZoneInfo("Europe/Berlin")  # over the end of summer time
    before, after = (dt.datetime(2026, 10, 25, h, tzinfo=berlin) for h in (1, 4))
    assert Reading(1.0, source_time=before, read_at=after).age_h == 4.0
    assert Reading(None, "bad", status="BadSensorFailure").value is None


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"value": None}, "quality 'good' has the value None"),
        ({"value": math.nan}, "quality 'good' has the value nan"),
        ({"value": math.inf, "quality": "uncertain"}, "the value inf"),
        ({"value": 1.0, "quality": "bad"}, "quality 'bad' has the value 1.0"),
        ({"value": 1.0, "quality": "missing"}, "quality 'missing' has the value 1.0"),
        ({"value": 1.0, "quality": "fine"}, "quality is 'fine'; allowed are good"),
        ({"value": 1.0, "source_time": dt.datetime(2026, 5, 6)}, "has no time zone"),
        ({"value": 1.0, "read_at": dt.datetime(2026, 5, 6)}, "has no time zone"),
    ],
)
def test_a_reading_that_contradicts_itself_is_refused(fields, words):
    with pytest.raises(DataError, match=words):
        Reading(**fields)


def test_a_record_gives_each_value_with_its_own_quality_and_age():
    record = SampleRecord(
        2,
        48.0,
        {"VCD": 5.0, "Glc": None},
        {"VCD": "good", "Glc": "missing", "pH": "bad"},
        age_h=3.0,
        tags={"pH": None, "DO": 40.0},
        controls={"bleed_rate": 0.1},
        source_times={"DO": NOON - dt.timedelta(hours=1)},
        read_at=NOON,
    )
    assert record.worst_quality == "good"  # a bad electrode does not spoil the sample
    assert record.ages_h == {"DO": 1.0, "Glc": 3.0, "VCD": 3.0, "bleed_rate": 3.0, "pH": 3.0}
    assert record.reading("DO") == Reading(40.0, "good", NOON - dt.timedelta(hours=1), NOON)
    assert (record.reading("pH").value, record.reading("pH").quality) == (None, "bad")
    assert record.reading("Glc").quality == "missing"
    with pytest.raises(DataError, match="has no 'Lac'; it has VCD, Glc, pH, DO, bleed_rate"):
        record.reading("Lac")


@pytest.mark.parametrize("value", [math.nan, -math.inf, None, "36.5", True])
def test_set_points_that_are_no_finite_numbers_are_refused(value):
    with pytest.raises(DataError, match="temperature is .*only finite numbers"):
        check_setpoints({"agitation": 900.0, "temperature": value})


def test_set_points_come_back_as_plain_numbers():
    plain = check_setpoints({"agitation": 900, "temperature": np.float64(36.5)})
    assert plain == {"agitation": 900.0, "temperature": 36.5}
    assert {type(v) for v in plain.values()} == {float}
    for bad in ({}, {"pH": 7.0}):
        with pytest.raises(DataError):
            check_setpoints(bad)
