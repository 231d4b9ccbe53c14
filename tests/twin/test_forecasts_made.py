"""Forecasts of a run: read, put on one line of time, and packed for a database."""

from types import SimpleNamespace

import numpy as np
import pytest

from perfusio_jax._core import DataError
from perfusio_jax.twin.records.chain import plain
from perfusio_jax.twin.records.forecasts_made import (
    Step,
    curves,
    packed,
    read_forecasts,
    unpacked,
)
from perfusio_jax.twin.records.records import FORECASTS, store_forecast


def store(folder, day, days, level, reactor_id="R1"):
    """A forecast of two quantities, the second unknown on its last day."""
    table = np.full((len(days), 2), float(level))
    table[-1, 1] = np.nan
    found = {"days": days, "mean": table, "q10": table - 1.0, "q50": table, "q90": table + 2.0}
    proposal = SimpleNamespace(forecast=found, species=("VCD", "Glc"))
    store_forecast(folder, proposal, reactor_id=reactor_id, day=day)


def test_curves_take_the_next_sample_of_each_forecast_and_the_last_to_its_end(tmp_path):
    assert read_forecasts(tmp_path, "R1") == []
    store(tmp_path, 0, [1.0, 2.0, 3.0], 10)
    store(tmp_path, 1, [2.0, 3.0, 4.0], 20)
    store(tmp_path, 1, [2.0], 99, reactor_id="R2")
    steps = read_forecasts(tmp_path, "R1")
    assert len(steps) == 12 and {step.made_on_day for step in steps} == {0.0, 1.0}
    found = curves(steps)["VCD"]
    assert list(found.hours) == [24.0, 48.0, 72.0, 96.0]
    assert list(found.middle) == [10.0, 20.0, 20.0, 20.0]
    assert list(found.low) == [9.0, 19.0, 19.0, 19.0] and found.high[0] == 12.0
    (tmp_path / FORECASTS).write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"forecasts\.parquet cannot be read"):
        read_forecasts(tmp_path, "R1")


def test_what_is_packed_comes_back_but_for_what_nobody_knows(tmp_path):
    store(tmp_path, 0.5, [1.0, 1.5], 10)
    steps = read_forecasts(tmp_path, "R1")
    (content,) = packed(steps).values()
    kept, _ = plain(content)  # as a database has it: NaN is null there
    assert sorted(unpacked(kept)) == sorted(s for s in steps if np.isfinite(s.quantiles[0]))
    assert unpacked({}) == unpacked({"made_on_day": 1.0, "species": {"VCD": [1.0]}}) == []


def test_a_forecast_made_again_on_its_day_counts_as_it_was_last():
    first = [Step(3.0, day, "VCD", (1.0, 2.0, 3.0)) for day in (4.0, 5.0)]
    again = [Step(3.0, day, "VCD", (4.0, 5.0, 6.0)) for day in (4.0, 5.0)]
    assert list(curves([*first, *again])["VCD"].middle) == [5.0, 5.0]
