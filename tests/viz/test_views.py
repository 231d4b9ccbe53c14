"""Figures of any process: units, gaps, long names, one scale, and what each is drawn from."""

import numpy as np
import pytest

from perfusio_jax._core import ConfigError, DataError
from perfusio_jax.process import MONOD_CHEMOSTAT, compare, derive, golden_of
from perfusio_jax.states import Trajectory
from perfusio_jax.viz import (
    AlarmSpan,
    Band,
    Happening,
    RunView,
    SkillCurve,
    calibration_figure,
    front_figure,
    golden_figure,
    parity_figure,
    rates_figure,
    run_figure,
    skill_figure,
    timeline_figure,
)
from perfusio_jax.viz.clock import clock_of
from perfusio_jax.viz.theme import figure_bytes

HOURS = np.array([0.0, 11.0, 24.0, 50.0])
UNITS = {"X": "g/L", "S": "g/L", "light": "W/m2"}


def view(**changes) -> RunView:
    run = RunView(
        "A", HOURS, {"X": np.array([1.0, 2.0, np.nan, 4.0]), "S": np.full(4, np.nan)},
        {"light": np.array([1.0, 3.0, 3.0, 2.0])},
    )  # fmt: skip
    return run._replace(**changes)


def texts(figure) -> list[str]:
    found = [figure.get_suptitle()]
    for axes in figure.axes:
        found += [axes.get_title(loc="left"), axes.get_xlabel(), axes.get_ylabel()]
        found += [text.get_text().strip() for text in axes.texts]
    return [text for text in found if text]


def test_a_run_shows_readings_forecast_and_steps_in_their_units():
    band = Band([60.0, 70.0], [3.0, 2.5], [5.0, 5.5], [4.0, 4.0], [2.0, 1.5], [6.0, 6.5])
    figure = run_figure(
        view(bands={"X": band}, targets={"X": 3.0}, limits={"X": (0.5, None)}), UNITS
    )
    said = texts(figure)
    assert said.count("g/L") == 2 and "W/m2" in said and "Culture time [h]" in said
    assert "no reading" in said  # the empty column is told, not dropped
    panel, _, steps = figure.axes
    dots = next(line for line in panel.lines if line.get_marker() == "o")
    np.testing.assert_array_equal(dots.get_ydata(), [1.0, 2.0, np.nan, 4.0])
    np.testing.assert_array_equal(dots.get_xdata(), HOURS)  # true hours, not rows
    assert len(panel.collections) == 2  # 80 % and 95 %
    assert steps.lines[0].get_xdata()[-1] == 70.0
    labels = [t.get_text() for t in figure.legends[0].get_texts()]
    assert "95 % of the forecast" in labels and "limit" in labels and "target" in labels
    assert "X 3 readings, last 4" in figure.get_label() and "S 0 readings" in figure.get_label()


def test_names_are_cut_and_markup_is_shown_as_it_stands():
    figure = run_figure(view(name="<script>$\\frac{1}{2}$" + "n" * 300), UNITS)
    heading = figure.get_suptitle()
    assert len(heading) < 80 and r"\$" in heading
    figure_bytes(figure, "png", dpi=40)  # a formula that is none would not draw
    svg = figure_bytes(figure, "svg").decode()
    assert "<script>" not in svg
    with pytest.raises(ConfigError, match="png, svg and pdf"):
        figure_bytes(figure, "gif")


def test_one_sample_and_none():
    one = RunView("A", [5.0], {"X": [1.0]}, {"light": [2.0]})
    figure_bytes(run_figure(one, UNITS), "png", dpi=40)
    with pytest.raises(DataError, match="no sample"):
        run_figure(RunView("A", [], {}), UNITS)


@pytest.mark.parametrize(
    ("hours", "unit", "first", "last"),
    [([0, 48], "h", 0, 48), ([0, 72], "d", 0, 3), ([24], "h", 24, 48), ([np.nan], "h", 0, 24),
     ([0, 24 * 400], "d", 0, 400)],
)  # fmt: skip
def test_the_clock_tells_days_where_cultures_take_days(hours, unit, first, last):
    from matplotlib.figure import Figure

    clock = clock_of(hours)
    assert clock == (unit, first, last)
    axes = Figure().add_subplot()
    clock.apply(axes)
    assert 2 <= len(axes.get_xticks()) <= 10 and axes.get_xlabel() == f"Culture time [{unit}]"


def chemostat(run_id: str) -> Trajectory:
    return Trajectory(
        np.tile([2.0, 0.5, 1.0], (5, 1)), np.tile([0.1, 10.0], (5, 1)), np.ones(5), np.arange(5),
        ["X", "S", "P"], ["dilution", "feed_S"], run_id=run_id,
    )  # fmt: skip


def test_derived_numbers_stand_in_the_middle_of_their_interval_with_their_errors():
    found = derive(MONOD_CHEMOSTAT, chemostat("A"))
    figure = rates_figure([found])
    panel = next(a for a in figure.axes if a.get_title(loc="left") == "growth_net")
    (points,) = panel.containers
    line = points.lines[0]
    np.testing.assert_allclose(line.get_xdata(), [0.5, 1.5, 2.5, 3.5])
    np.testing.assert_allclose(line.get_ydata(), found.number("growth_net").values)
    bars = points.lines[2][1].get_segments()
    half = [(s[1, 1] - s[0, 1]) / 2 for s in bars]
    np.testing.assert_allclose(half, found.number("growth_net").errors, rtol=1e-9)
    assert "1/h" in texts(figure) and not any(t.startswith("rate_") for t in texts(figure))
    many = rates_figure([derive(MONOD_CHEMOSTAT, chemostat(f"R{n}")) for n in range(9)])
    assert not many.legends  # nine lines are not told apart by a legend
    with pytest.raises(DataError, match="nothing to draw"):
        rates_figure([found._replace(numbers=())])


def test_a_time_line_counts_what_falls_together_and_cuts_long_lists():
    marks = [Happening(1.0, "person"), Happening(1.0, "person"), Happening(0.0, "sample")]
    alarms = [AlarmSpan(f"a{n}", 0.0, None if n else 2.0, n == 1, 1.0) for n in range(20)]
    figure = timeline_figure(marks, alarms)
    assert "2" in texts(figure)
    lanes = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert lanes[:2] == ["Samples", "People"] and len(lanes) == 16 and lanes[-1] == "a19"
    assert "6 earlier alarms are not drawn" in figure.get_label()
    with pytest.raises(DataError, match="Nothing happened"):
        timeline_figure([])


def test_skill_and_front_show_what_they_are_given():
    curve = SkillCurve([24.0, 96.0], [0.2, 0.4], [0.5, np.nan], [0.8, 0.7])
    figure = skill_figure({"X": curve, "S": curve._replace(error=[2.0, 3.0])})
    assert "the largest error is of S" in figure.get_label()
    assert figure.axes[1].get_ylim()[1] > 3.0
    with pytest.raises(DataError, match="no scores"):
        skill_figure({})
    front = front_figure([1, 2, 3], [3, 2, 1], [True, True, False], labels=("a [g]", "b [g]"),
                         ideal=(3, 3))  # fmt: skip
    assert "2 of 3" in front.get_label() and texts(front)[-2:] == ["a [g]", "b [g]"]
    with pytest.raises(DataError, match="one length"):
        front_figure([1], [1, 2], [True], labels=("a", "b"))


def compared(n_runs: int = 6, run_id: str = "N $x$ <b>"):
    rng = np.random.default_rng(0)
    hours = np.arange(9) * 24.0

    def one(name: str, factor: float) -> Trajectory:
        speed = 1.0 + 0.05 * rng.normal()
        table = np.stack([hours * speed * factor, 200.0 - 0.4 * hours * speed, hours], axis=1)
        table = table + rng.normal(size=table.shape)
        return Trajectory(
            table, np.zeros((9, 0)), np.ones(9), np.arange(9), ["X", "S", "P"], [],
            times_h=hours, run_id=name,
        )  # fmt: skip

    golden = golden_of(None, [one(f"G{k}", 1.0) for k in range(n_runs)])
    return compare(golden, one(run_id, 1.6))


def test_a_run_beside_others_is_drawn_with_its_bands_its_limits_and_what_adds():
    found = compared()
    figure = golden_figure(found, {"X": "g/L"})
    panel = next(a for a in figure.axes if a.get_title(loc="left") == "X")
    lines = panel.get_lines()
    np.testing.assert_allclose(lines[0].get_ydata(), found.band.mean[:, 0])
    drawn = np.concatenate([np.asarray(line.get_ydata(), float) for line in lines[2:]])
    np.testing.assert_allclose(np.sort(drawn), np.sort(found.readings[:, 0]))
    is_out = (found.readings[:, 0] > found.high[:, 0]) | (found.readings[:, 0] < found.low[:, 0])
    assert len(np.asarray(lines[3].get_ydata())) == is_out.sum() > 3
    assert "g/L" in texts(figure) and "Hotelling's T²" in texts(figure)
    n = int((found.t2 > found.t2_limits[:, 1]).sum())
    assert f"T2 beyond its limit of 99 % in {n} of 9 samples" in figure.get_label()
    shades = next(a for a in figure.axes if a.get_title(loc="left") == "What adds to Q")
    np.testing.assert_allclose(shades.collections[0].get_array(), found.q_by.T)  # pyright: ignore
    nothing = found._replace(hours=np.zeros(0))
    with pytest.raises(DataError, match="no sample to compare"):
        golden_figure(nothing, {})


def test_it_is_drawn_with_plotly_from_the_same_numbers():
    interactive = pytest.importorskip("perfusio_jax.viz.interactive")
    pytest.importorskip("plotly")
    found = compared(run_id="<script>%{x}")
    figure = interactive.golden_figure(found, {"X": "g/L"})
    traces = [t for t in figure.data if t.name == "reading"]
    np.testing.assert_allclose(traces[0].y, found.readings[:, 0])
    statistics = [t for t in figure.data if t.name == "T2, Q"]
    np.testing.assert_allclose(statistics[0].y, found.t2)
    np.testing.assert_allclose(statistics[1].y, found.q)
    assert f"X: {found.t2_by[5, 0]:.3g}" in statistics[0].text[5]
    assert "<script>" not in str({k: v for k, v in figure.to_dict()["layout"].items()
                                  if k != "meta"})  # fmt: skip
    assert (
        figure.layout.meta["description"]
        == golden_figure(found, {}, title="Run <script>%{x} beside 6 reference runs").get_label()
    )


@pytest.mark.parametrize(
    ("values", "told"),
    [((2.0, 2.0, 1.99, 1.99), ["1.99"]), ((1.0, 3.0, 3.0, 2.0), ["1", "3"]), ((5.0,) * 4, ["5"]),
     ((1000.0,) * 4, ["1000"]), ((600.0, 1200.0, 1250.0, 1250.0), ["600", "1250"]),
     ((36.25, 36.9, 36.9, 36.4), ["36.25", "36.9"])],
)  # fmt: skip
def test_labels_of_a_set_point_do_not_lie_on_each_other(values, told):
    figure = run_figure(view(set_points={"feed": np.array(values)}), {"feed": "1e6 cells/mL"})
    axes = figure.axes[-1]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == told
    assert "10⁶ cells/mL" in [text.get_text().strip() for text in axes.texts]


def test_how_far_ahead_nothing_was_read_gets_no_line_and_no_numbers():
    place = np.full((20, 3, 1), np.nan)
    place[:, :2] = np.linspace(0.05, 0.95, 20)[:, None, None]
    share = np.array([[0.8], [0.8], [np.nan]])
    figure = calibration_figure(place, {0.8: share}, ["VCD"])
    lines = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert lines == ["1 d ahead", "2 d ahead"]
    empty = np.full((4, 1), np.nan)
    axes = parity_figure(empty, empty, ["VCD"], steps=7, low=empty, high=empty).axes[0]
    assert [*axes.get_xticks(), *axes.get_yticks()] == []
    assert "no reading so far ahead" in [text.get_text() for text in axes.texts]
