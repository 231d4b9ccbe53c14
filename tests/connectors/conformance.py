"""What every connector must do, whatever stands behind it: one suite for all of them.

A test file makes a `Rig`: a connector, and hands on the far side of it. `checks(...)` names the
checks that apply to what those hands can do. Each check is `async check(rig)`.

    @pytest.mark.parametrize("check", checks("put", "far", "operator", "cut"), ids=name_of)
    async def test_conformance(check, tmp_path):
        async with make_rig(tmp_path) as rig:
            await check(rig)
"""

import asyncio
import datetime as dt
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pytest

from perfusio_jax._core import (
    AUXILIARY_TAGS,
    CONTROL_NAMES,
    REGISTRY,
    BioreactorConnector,
    ConfigError,
    ConnectorError,
    DataError,
)
from perfusio_jax.connectors.base import (
    QUALITIES,
    BioreactorConnectorBase,
    Reading,
    SampleNotReady,
    SampleRecord,
)

Check = Callable[["Rig"], Awaitable[None]]
Values = Mapping[str, float | None]

SAMPLE: Values = {"VCD": 5.25, "Via": 97.5, "Glc": 4.0, "Lac": None, "Titer": 0.1 + 0.2}
SETPOINTS = {"perfusion_rate": 1.25, "bleed_rate": 0.125, "temperature": 36.5}


@dataclass
class Rig:
    """A connector under test and what can be done behind its back."""

    connector: BioreactorConnectorBase
    put: Callable[[int, Values], Awaitable[None]] | None = None
    """A sample of a day comes to be at the source ("put")."""
    far: Callable[[], Awaitable[Mapping[str, float]]] | None = None
    """Set-points as the far side has them, read past the connector ("far")."""
    operator: Callable[[str, float], Awaitable[None]] | None = None
    """Somebody else sets one control ("operator")."""
    cut: Callable[[], Awaitable[None]] | None = None
    """The source goes away ("cut") ..."""
    mend: Callable[[], Awaitable[None]] | None = None
    """... and comes back as it was."""
    days: tuple[int, ...] = (1, 2, 3)
    """Days whose samples are there, or can be made, in this order."""
    tolerance: float = 0.0
    """How far a value may be off, relative, for transports of 32-bit numbers."""
    secrets: tuple[str, ...] = ()
    """Texts that must not show in what the connector says about itself."""


_CHECKS: list[tuple[Check, frozenset[str]]] = []


def _needs(*hands: str) -> Callable[[Check], Check]:
    def register(check: Check) -> Check:
        _CHECKS.append((check, frozenset(hands)))
        return check

    return register


def checks(*hands: str) -> list[Check]:
    """Checks that apply to a rig with these hands: "put", "far", "operator", "cut"."""
    unknown = set(hands) - {"put", "far", "operator", "cut"}
    if unknown:
        raise ValueError(f"no such hands: {sorted(unknown)}")
    return [check for check, needed in _CHECKS if needed <= set(hands)]


def name_of(check: Check) -> str:
    """Name of a check, for test ids."""
    return check.__name__


async def _fill(rig: Rig, n_days: int = 1) -> tuple[int, ...]:
    days = rig.days[:n_days]
    if rig.put is not None:
        for day in days:
            await rig.put(day, SAMPLE)
    return days


def _same(rig: Rig, found: float | None, wanted: float | None) -> bool:
    if wanted is None or found is None:
        return found is wanted
    return found == wanted or math.isclose(found, wanted, rel_tol=rig.tolerance)


# ---------------------------------------------------------------- samples


@_needs()
async def is_a_connector_and_alive(rig: Rig) -> None:
    assert isinstance(rig.connector, BioreactorConnector)
    assert isinstance(rig.connector, BioreactorConnectorBase)
    assert await rig.connector.is_alive() is True


@_needs()
async def a_sample_has_known_names_and_plain_finite_numbers(rig: Rig) -> None:
    (day,) = await _fill(rig)
    sample = await rig.connector.read_sample(day)
    assert sample and set(sample) <= set(REGISTRY)
    assert any(value is not None for value in sample.values())
    for value in sample.values():
        assert value is None or (type(value) is float and math.isfinite(value))
    assert await rig.connector.read_sample(np.int64(day)) == sample  # pyright: ignore


@_needs()
async def a_record_says_quality_time_and_age_of_every_value(rig: Rig) -> None:
    (day,) = await _fill(rig)
    record = await rig.connector.read_record(day)
    assert isinstance(record, SampleRecord)
    assert record.day == day and abs(record.time_h - 24.0 * day) <= 12.0
    assert dict(record.values) == await rig.connector.read_sample(day)
    assert set(record.values) <= set(record.quality)
    for name, quality in record.quality.items():
        assert quality in QUALITIES
        reading = record.reading(name)  # refuses what contradicts itself
        assert (reading.value is None) == (quality in ("bad", "missing"))
    for time in (*record.source_times.values(), record.read_at):
        assert time is None or time.tzinfo is not None
    assert set(record.ages_h) >= set(record.values)
    if record.read_at is not None:
        for name, time in record.source_times.items():
            assert record.ages_h[name] == pytest.approx((record.read_at - time) / _HOUR)


_HOUR = dt.timedelta(hours=1)


@_needs("put")
async def values_arrive_as_they_were_and_missing_is_none(rig: Rig) -> None:
    (day,) = await _fill(rig)
    sample = await rig.connector.read_sample(day)
    for name, wanted in SAMPLE.items():
        assert _same(rig, sample.get(name), wanted), name
    record = await rig.connector.read_record(day)
    assert record.quality.get("Lac", "missing") == "missing"
    assert record.quality["VCD"] == "good"


@_needs("put")
async def a_sample_that_is_not_there_yet_can_be_polled_for(rig: Rig) -> None:
    first, second, *_ = rig.days
    assert rig.put is not None
    await rig.put(first, SAMPLE)
    for read in (rig.connector.read_sample, rig.connector.read_record):
        with pytest.raises(SampleNotReady):
            await read(second)
    assert await rig.connector.is_alive()
    await rig.put(second, {**SAMPLE, "VCD": 6.5})
    assert _same(rig, (await rig.connector.read_sample(second))["VCD"], 6.5)
    assert _same(rig, (await rig.connector.read_sample(first))["VCD"], SAMPLE["VCD"])


@_needs()
async def the_same_day_reads_the_same_again(rig: Rig) -> None:
    for day in await _fill(rig, 2):
        once = await rig.connector.read_sample(day)
        assert await rig.connector.read_sample(day) == once


@_needs("put")
async def days_and_history_agree(rig: Rig) -> None:
    days = await _fill(rig, 3)
    assert await rig.connector.days_available() == list(days)
    history = await rig.connector.read_history()
    assert [record.day for record in history] == list(days)
    for record in history:
        assert dict(record.values) == await rig.connector.read_sample(record.day)


@_needs()
async def an_interval_is_served_or_refused_by_name(rig: Rig) -> None:
    rig.connector.sample_every(24.0)
    for hours in (12.0, 36.0):
        try:
            rig.connector.sample_every(hours)
        except ConfigError as error:
            assert f"{type(rig.connector).__name__} gives whole days" in str(error)
    rig.connector.sample_every(24.0)
    (day,) = await _fill(rig)
    assert await rig.connector.read_sample(day)


@_needs("put")
async def a_day_before_the_first_is_not_made_up(rig: Rig) -> None:
    await _fill(rig)
    with pytest.raises((ConnectorError, DataError)):
        await rig.connector.read_sample(-1)


# ---------------------------------------------------------------- set-points


@_needs()
async def what_is_written_is_read_back(rig: Rig) -> None:
    await _fill(rig)
    await rig.connector.write_setpoints(dict(SETPOINTS))
    found = await rig.connector.read_setpoints()
    assert set(found) <= set(CONTROL_NAMES)
    for name, wanted in SETPOINTS.items():
        assert _same(rig, found[name], wanted), name
    assert all(type(value) is float for value in found.values())


@_needs()
async def a_partial_write_leaves_the_others_as_they_were(rig: Rig) -> None:
    await _fill(rig)
    await rig.connector.write_setpoints(dict(SETPOINTS))
    before = await rig.connector.read_setpoints()
    await rig.connector.write_setpoints({"temperature": 36.0})
    after = await rig.connector.read_setpoints()
    assert _same(rig, after["temperature"], 36.0)
    assert {**after, "temperature": 0.0} == {**before, "temperature": 0.0}


@_needs("far")
async def the_far_side_has_what_was_written(rig: Rig) -> None:
    await _fill(rig)
    await rig.connector.write_setpoints(dict(SETPOINTS))
    assert rig.far is not None
    found = await rig.far()
    for name, wanted in SETPOINTS.items():
        assert _same(rig, found[name], wanted), name


@_needs()
async def what_must_not_be_written_is_refused_whole(rig: Rig) -> None:
    await _fill(rig)
    await rig.connector.write_setpoints(dict(SETPOINTS))
    before = await rig.connector.read_setpoints()
    far = await rig.far() if rig.far is not None else None
    for bad in ({}, {"pH": 7.0}, {"nonsense": 1.0}):
        with pytest.raises(DataError):
            await rig.connector.write_setpoints(bad)
    for value in (math.nan, math.inf, -math.inf, None, "36.5", True):
        with pytest.raises(DataError):
            # The good value comes first: it must not be sent before the bad one is seen.
            await rig.connector.write_setpoints({"bleed_rate": 0.25, "temperature": value})  # pyright: ignore
    assert await rig.connector.read_setpoints() == before
    if rig.far is not None:
        assert await rig.far() == far


@_needs()
async def the_read_back_says_quality_and_time(rig: Rig) -> None:
    await _fill(rig)
    await rig.connector.write_setpoints(dict(SETPOINTS))
    rich = await rig.connector.read_back()
    bare = await rig.connector.read_setpoints()
    for name in SETPOINTS:
        assert isinstance(rich[name], Reading)
        assert (rich[name].value, rich[name].quality) == (bare[name], "good")


@_needs("operator")
async def an_operator_s_edit_shows_in_the_read_back(rig: Rig) -> None:
    await _fill(rig)
    await rig.connector.write_setpoints(dict(SETPOINTS))
    assert rig.operator is not None
    await rig.operator("temperature", 35.5)
    found = await rig.connector.read_setpoints()
    assert _same(rig, found["temperature"], 35.5)
    assert _same(rig, found["bleed_rate"], SETPOINTS["bleed_rate"])


# ---------------------------------------------------------------- tags and clock


@_needs()
async def tags_are_readings_and_the_clock_has_a_zone(rig: Rig) -> None:
    await _fill(rig)
    tags = await rig.connector.read_tags()
    assert all(isinstance(reading, Reading) for reading in tags.values())
    assert set(tags) <= {*AUXILIARY_TAGS, *REGISTRY, *CONTROL_NAMES}
    clock = await rig.connector.read_clock()
    assert clock is None or clock.tzinfo is not None


# ---------------------------------------------------------------- life and death


@_needs()
async def calls_may_come_at_once(rig: Rig) -> None:
    (day,) = await _fill(rig)
    wanted = await rig.connector.read_sample(day)
    calls = [rig.connector.read_sample(day) for _ in range(20)]
    _, *found = await asyncio.gather(rig.connector.write_setpoints(dict(SETPOINTS)), *calls)
    assert found == [wanted] * 20
    assert _same(rig, (await rig.connector.read_setpoints())["bleed_rate"], 0.125)


@_needs()
async def a_call_given_up_half_way_harms_no_other(rig: Rig) -> None:
    (day,) = await _fill(rig)
    wanted = await rig.connector.read_sample(day)
    for n_turns in range(6):
        task = asyncio.create_task(rig.connector.read_sample(day))
        for _ in range(n_turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert await rig.connector.read_sample(day) == wanted
    assert await rig.connector.is_alive()


@_needs()
async def closing_twice_is_harmless(rig: Rig) -> None:
    (day,) = await _fill(rig)
    async with rig.connector as same:
        assert same is rig.connector
        await same.read_sample(day)
    await rig.connector.close()
    await rig.connector.close()
    if await rig.connector.is_alive():  # then it opens anew
        assert await rig.connector.read_sample(day)
    await rig.connector.close()


@_needs("cut")
async def a_source_that_went_away_is_an_error_and_comes_back(rig: Rig) -> None:
    (day,) = await _fill(rig)
    wanted = await rig.connector.read_sample(day)
    assert rig.cut is not None and rig.mend is not None
    await rig.cut()
    assert await rig.connector.is_alive() is False
    with pytest.raises(ConnectorError) as caught:
        await rig.connector.read_sample(day)
    assert not isinstance(caught.value, SampleNotReady)
    for secret in rig.secrets:
        assert secret not in str(caught.value)
    await rig.mend()
    assert await rig.connector.is_alive() is True
    assert await rig.connector.read_sample(day) == wanted
    await rig.connector.write_setpoints(dict(SETPOINTS))
    assert _same(rig, (await rig.connector.read_setpoints())["temperature"], 36.5)


@_needs()
async def it_keeps_its_secrets(rig: Rig) -> None:
    for secret in rig.secrets:
        for text in (repr(rig.connector), str(rig.connector), repr(vars(rig.connector))):
            assert secret not in text
