"""Figures of studies: what they hold, what they refuse, and the interactive ones beside them."""

import numpy as np
import pytest

from perfusio_jax._core import DataError
from perfusio_jax.viz import (
    Bars,
    Bound,
    Followed,
    lever_map_figure,
    profiles_figure,
    schedule_figure,
    tornado_figure,
)

NAMES = ("mu_max", "K_S", "feed_S", "idle")
BARS = Bars("last X", "elasticity [%/%]", NAMES, [0.4, -0.9, 0.1, 0.0], [0.1, 0.05, np.nan, 0.0])
HOURS = np.arange(1, 6) * 24.0
TABLE = np.outer([0.2, -1.0, 0.0, 0.4], np.linspace(0.0, 1.0, 5))
RISE = np.linspace(-2, 2, 9) ** 2
PROFILE = Followed("mu_max", "1/h", np.linspace(0.1, 0.3, 9), RISE, 0.15, 0.25)
OPEN = Followed("K_S", "g/L", np.linspace(0.1, 3.0, 9), np.linspace(2, 0, 9), 0.4, np.inf)
TIMES = np.arange(5) * 24.0
CONTROLS = {"dilution": [0.1, 0.1, 0.2, 0.2], "bolus": [0.0, 2.0, 0.0, 0.0]}
READINGS = {"X": [1.0, 2.0, 3.0, 3.5, 3.6]}
UNITS = {"dilution": "1/h", "bolus": "g", "X": "g/L"}


def test_a_tornado_has_the_strongest_on_top_and_nothing_that_does_nothing():
    figure = tornado_figure([BARS, BARS._replace(output="min Via")])
    first = figure.axes[0]
    assert [t.get_text() for t in first.get_yticklabels()] == ["K_S", "mu_max", "feed_S"]
    assert [round(b.get_width(), 6) for b in first.patches] == [-0.9, 0.4, 0.1]
    assert first.yaxis_inverted() and figure.get_label().startswith("Strongest first. last X: K_S")
    with pytest.raises(DataError, match="no lever moves it"):
        tornado_figure([BARS._replace(values=np.zeros(4))])
    with pytest.raises(DataError, match="one each is needed"):
        tornado_figure([BARS._replace(values=[1.0])])
    with pytest.raises(DataError, match="no output"):
        tornado_figure([])


def test_a_map_of_levers_and_times_is_signed_where_they_are():
    figure = lever_map_figure(TABLE, NAMES, HOURS, measure="elasticity [%/%]")
    axes = figure.axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["K_S", "idle", "mu_max"]
    assert axes.collections[0].get_clim() == (-1.0, 1.0)
    assert "at 5 d -1" in figure.get_label()
    plain = lever_map_figure(np.abs(TABLE), NAMES, HOURS, measure="share [-]")
    assert plain.axes[0].collections[0].get_clim() == (0.0, 1.0)
    with pytest.raises(DataError, match="a row for each lever"):
        lever_map_figure(TABLE.T, NAMES, HOURS, measure="share [-]")
    with pytest.raises(DataError, match="nothing to draw"):
        lever_map_figure(0.0 * TABLE, NAMES, HOURS, measure="share [-]")


def test_profiles_tell_which_ends_are_open():
    figure = profiles_figure([PROFILE, OPEN])
    assert "mu_max 0.15 to 0.25; K_S 0.4 to open" in figure.get_label()
    assert figure.axes[0].get_ylim()[0] == 0.0
    with pytest.raises(DataError, match="No constant was followed"):
        profiles_figure([])


def test_a_schedule_is_steps_over_readings():
    figure = schedule_figure(
        TIMES,
        CONTROLS,
        READINGS,
        UNITS,
        bounds=(Bound("X", 3.0, False), Bound("X", 3.5, True, 96.0), Bound("X", 2.0, True, 24.0)),
        boluses=("bolus",),
    )
    (axes,) = (a for a in figure.axes if a.get_title(loc="left").startswith("X"))
    drawn = [
        (line.get_marker(), list(line.get_xdata())[:1], line.get_ydata()[0]) for line in axes.lines
    ]
    assert drawn[1:] == [("None", [0], 3.0), ("^", [4.0], 3.5), ("^", [1.0], 2.0)]
    (legend,) = figure.legends
    said = [text.get_text() for text in legend.get_texts()]
    assert said[-2:] == ["limit", "not below, then"]
    assert "dilution, bolus over 4 days, and X" in figure.get_label()
    with pytest.raises(DataError, match="5 values for 4 intervals"):
        schedule_figure(TIMES, {"dilution": [0.1] * 5}, READINGS, UNITS)
    with pytest.raises(DataError, match="4 values at 5 samples"):
        schedule_figure(TIMES, CONTROLS, {"X": [1.0] * 4}, UNITS)
    with pytest.raises(DataError, match="no set-point and no reading"):
        schedule_figure(TIMES, {}, {}, UNITS)


def test_interactive_ones_show_the_same_numbers():
    pytest.importorskip("plotly", reason="plotly is not installed (extra dash)")
    from perfusio_jax.viz import interactive_studies as there

    bars = there.tornado(BARS)
    assert list(bars.data[0].y) == ["feed_S", "mu_max", "K_S"]
    np.testing.assert_allclose(bars.data[0].x, [0.1, 0.4, -0.9])
    table = there.lever_map(TABLE, NAMES, HOURS, measure="elasticity [%/%]")
    np.testing.assert_allclose(table.data[0].z[0], TABLE[1])
    lines = there.profiles([PROFILE, OPEN])
    assert [line.name for line in lines.data] == ["mu_max", "K_S"]
    np.testing.assert_allclose(lines.data[0].customdata, PROFILE.at)
    run = there.schedule(TIMES, CONTROLS, READINGS, UNITS)
    assert [line.name for line in run.data] == ["dilution [1/h]", "bolus [g]", "X [g/L]"]
    np.testing.assert_allclose(run.data[0].y, [0.1, 0.1, 0.2, 0.2, 0.2])
    assert all(f.layout.meta["description"] for f in (bars, table, lines, run))
    with pytest.raises(DataError):
        there.profiles([])
    with pytest.raises(DataError):
        there.schedule(TIMES, {}, {}, UNITS)
