"""`forecast --figure`: what was measured and the fan behind it, at true hours."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from perfusio_jax._core import DEFAULT_CONTROLS, FORECAST_SPECIES
from perfusio_jax.hybrid import Ahead
from perfusio_jax.process import MONOD_CHEMOSTAT
from perfusio_jax.service import forecast_figure
from perfusio_jax.states import Trajectory


@pytest.fixture
def drawn(monkeypatch) -> list:
    """Runs that were drawn, as they were given."""
    found = []
    draw = forecast_figure.run_figure

    def keep(view, units, **more):
        found.append(view)
        return draw(view, units, **more)

    monkeypatch.setattr(forecast_figure, "run_figure", keep)
    return found


def test_a_forecast_of_cho_has_state_and_readings_apart_and_new_set_points(drawn, tmp_path):
    rows = [
        {"time_h": 24.0 * d, "values": {"VCD": 2.0 + d, "Glc": None},
         "controls": dict(DEFAULT_CONTROLS)}
        for d in range(4)
    ]  # fmt: skip
    paths = np.random.default_rng(0).gamma(5.0, size=(400, 3, len(FORECAST_SPECIES)))
    low, mid, high = np.quantile(paths, (0.1, 0.5, 0.9), axis=0)
    outlook = SimpleNamespace(
        days=(4.0, 5.0, 6.0), q10=low, q50=mid, q90=high, samples=paths, reading_q10=0.9 * low,
        reading_q90=1.1 * high,
    )  # fmt: skip
    path = tmp_path / "deep" / "f.png"
    forecast_figure.draw_cho(rows, outlook, {"bleed_rate": 0.3}, path)
    (view,) = drawn
    k = FORECAST_SPECIES.index("Lac")
    band = view.bands["Lac"]
    assert band.hours.tolist() == [96.0, 120.0, 144.0]
    np.testing.assert_allclose(band.q975, np.quantile(paths[..., k], 0.975, axis=0))
    np.testing.assert_allclose(band.reading_q90, 1.1 * high[:, k])
    assert view.set_points["bleed_rate"][-1] == 0.3 and view.set_points["bleed_rate"][0] != 0.3
    assert np.isnan(view.readings["Glc"]).all() and view.readings["VCD"].tolist() == [2, 3, 4, 5]
    with Image.open(path) as picture:
        assert "VCD 4 readings" in picture.info["Description"]


def test_a_forecast_of_a_described_culture_is_of_readings(drawn, tmp_path):
    run = Trajectory(
        np.tile([2.0, 0.5], (3, 1)), np.tile([0.1, 10.0], (3, 1)), np.ones(3), np.zeros(3, int),
        ["X", "S"], ["dilution", "feed_S"], times_h=[0.0, 5.0, 9.0],
    )  # fmt: skip
    table = np.arange(6.0).reshape(2, 3)
    hours, tails = np.array([12.0, 15.0]), (table - 1, table + 2)
    ahead = Ahead(("X", "S", "P"), hours, table, table, table, table + 1, *tails)
    forecast_figure.draw_described(
        run, MONOD_CHEMOSTAT, ahead, {"dilution": 0.2}, tmp_path / "f.svg"
    )
    (view,) = drawn
    assert view.bands["S"].q975.tolist() == [3.0, 6.0] and view.bands["S"].reading_q10 is None
    assert np.isnan(view.readings["P"]).all()  # never measured, and shown as that
    assert view.set_points["dilution"].tolist() == [0.1, 0.1, 0.2]
    assert b"<desc>" in (tmp_path / "f.svg").read_bytes()
