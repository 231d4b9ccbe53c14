"""What acted in a run of a described culture whose file does not tell everything."""

import numpy as np
import pytest

from perfusio_jax._core import DataError
from perfusio_jax.service.described_forecast import _with_setpoints
from perfusio_jax.states import Trajectory
from tests.hybrid.cultures import FED


def run(rates, boluses):
    n = len(rates)
    return Trajectory(
        np.ones((n, 2)),
        np.stack([rates, boluses], axis=1),
        np.ones(n),
        np.arange(n),
        FED.readings,
        FED.control_names,
        times_h=12.0 * np.arange(n),
    )


def test_blanks_stay_as_above_and_what_is_never_told_is_assumed_and_said():
    nan = np.nan
    found, told = _with_setpoints(run([nan, 20.0, nan, 5.0], [nan] * 4), FED)
    assert np.asarray(found.controls).tolist() == [[10, 0], [20, 0], [20, 0], [5, 0]]
    text = " ".join(told)
    assert "assumed until 12 h, for the file does not tell: feed_rate 10 mL/h" in text
    assert "no S_bolus" in text and "feed_rate 1 cell(s)" in text


def test_a_run_that_tells_everything_is_left_as_it_is():
    whole = run([1.0, 2.0], [0.0, 3.0])
    found, told = _with_setpoints(whole, FED)
    assert told == [] and np.array_equal(found.controls, whole.controls)


def test_a_bolus_nobody_noted_beside_ones_that_were_is_not_taken_for_none():
    for boluses in ([np.nan, 3.0, 0.0], [3.0, np.nan, 0.0]):
        with pytest.raises(DataError, match="S_bolus.*write 0 where none was given"):
            _with_setpoints(run([1.0, 2.0, 3.0], boluses), FED)
