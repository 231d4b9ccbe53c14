"""What probes of a described culture say between samples: readings, forecasts."""

import numpy as np
import pytest

from perfusio_jax._core import ConfigError
from perfusio_jax.hybrid import AssayNoise, HybridStateSpaceModel, Vessel
from perfusio_jax.process import Process, Quantity
from perfusio_jax.twin import GateLimits, Situation
from perfusio_jax.twin.decision.brain import OnlineReading
from perfusio_jax.twin.decision.cadence import Cadence
from perfusio_jax.twin.decision.described_brain import DescribedBrain
from perfusio_jax.twin.decision.described_objective import Objective, described_policy
from perfusio_jax.twin.decision.probed import probed_rows, probed_values
from tests.hybrid.cultures import FED
from tests.twin.described import SMALL

EVERY_H = 24.0
PROBED: Process = FED.model_copy(
    update={
        "quantities": (
            FED.quantity("X"),
            FED.quantity("S").model_copy(update={"is_online": True}),
        )
    }
)
"""A fed-batch with a probe for its substrate."""


def reading(time_h, value, *, tag="S", quality="good"):
    return OnlineReading(tag, time_h, value, quality)


def test_a_probe_reads_what_is_measured():
    assert PROBED.online == ("S",) and FED.online == ()
    with pytest.raises(ConfigError, match="is_online = true and is_measured = false"):
        Quantity(name="pH", unit="pH", kind="level", hi=14, is_online=True, is_measured=False)
    assert FED.differences(PROBED) == PROBED.differences(FED) == []  # a model serves both


def test_a_short_while_of_readings_is_one():
    found = [reading(24.0 + 0.1 * k, 10.0 + (k % 3)) for k in range(1, 61)]
    at, values = probed_values(found, PROBED, since_h=24.0, sample_h=EVERY_H)
    assert at == pytest.approx(30.0)
    recent = [r.value for r in found if r.time_h >= 28.0]
    assert values == {"S": float(np.median(recent))}
    wrong = [
        reading(23.0, 1.0),
        reading(25.0, 1.0, tag="DO"),
        reading(26.0, None),
        reading(27.0, 1.0, quality="bad"),
        reading(28.0, -3.0),
        reading(29.0, 500.0),
        reading(30.0, float("nan")),
    ]
    assert probed_values(wrong, PROBED, since_h=24.0, sample_h=EVERY_H) is None


@pytest.fixture(scope="module")
def brain():
    noise = AssayNoise(np.full(2, 0.03), np.full(2, 0.1), via=None)
    model = HybridStateSpaceModel(
        Vessel(PROBED), None, dt_hours=EVERY_H, assay=noise, process_sd=np.full(2, 0.2)
    )
    goal = described_policy(
        model,
        Objective(goals=("max X",), horizon_days=2),
        GateLimits.from_process(PROBED, hours=EVERY_H),
        cadence=Cadence(EVERY_H),
        **SMALL,
    )
    return DescribedBrain(model, goal, seed=3, run_id="r", n_paths=64, sample_h=EVERY_H)


def situation(*readings, volume=1.2):
    rows = [
        {
            "day": k,
            "time_h": 24.0 * k,
            "values": {"X": 5.0, "S": 10.0},
            "controls": {"feed_rate": 10.0, "S_bolus": 2.0 * k},
            "volume_L": volume,
        }
        for k in range(2)
    ]
    return Situation(1, rows, {"feed_rate": 5.0, "S_bolus": 9.0}, {}, readings)


def test_the_row_of_the_probes_has_the_volume_that_has_flowed_in(brain):
    layout = brain.model.layout
    assert probed_rows(situation(), layout, sample_h=EVERY_H) is None
    *before, last, fresh = probed_rows(situation(reading(34.0, 8.0)), layout, sample_h=EVERY_H)
    assert len(before) == 1
    # what is in force acts from the sample on; its bolus was given there, and none here
    assert last["controls"] == {"feed_rate": 5.0, "S_bolus": 2.0}
    assert fresh["controls"] == {"feed_rate": 5.0, "S_bolus": 0.0}
    assert fresh["values"] == {"S": 8.0} and fresh["time_h"] == 34.0
    assert fresh["volume_L"] == pytest.approx(1.2 + 10 * 5e-3)
    (*_, bare) = probed_rows(situation(reading(34.0, 8.0), volume=None), layout, sample_h=EVERY_H)
    assert bare["volume_L"] is None


def test_probes_move_the_outlook(brain):
    k = list(brain.model.layout.forecast).index("S")
    assert brain.outlook(situation()) is None
    low = brain.outlook(situation(reading(30.0, 2.0)))
    high = brain.outlook(situation(reading(30.0, 40.0)))
    assert tuple(low.species) == brain.model.layout.forecast and not low.setpoints
    gap = np.asarray(high.forecast["mean"])[0, k] - np.asarray(low.forecast["mean"])[0, k]
    assert 25.0 < gap < 60.0
    again = brain.outlook(situation(reading(30.0, 2.0)))
    assert np.array_equal(again.forecast["mean"], low.forecast["mean"])
