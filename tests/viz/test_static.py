"""Figures: drawn off screen from plain data, with units, without touching global state."""

import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from perfusio_jax._core import CONTROL_NAMES, DataError
from perfusio_jax.states import Trajectory
from perfusio_jax.viz import (
    LABELS,
    PALETTE,
    closed_loop_figure,
    fig4_training_trajectories,
    fig6_model_predictions,
    fig7_pareto_front,
    fig8_closed_loop_performance,
    save_figure,
    tracking_error_figure,
)

DAYS = np.arange(12.0)
PATH = 14.0 * (1.0 - np.exp(-DAYS / 3.0))


def loop_run(**changes) -> dict:
    measured = {"VCV": np.where(DAYS == 5, np.nan, PATH), "Via": 98.0 - 0.1 * DAYS}
    return {
        "days": DAYS,
        "measured": measured | {"Glc": 0.2 * PATH, "Titer": 20.0 * PATH},
        "truth": {"VCV": PATH},
        "forecast": {"VCV": {"days": DAYS[3:], "q10": 0.9 * PATH[3:], "q90": 1.1 * PATH[3:]}},
        "forecast_label": "80 % forecast, 3 days ahead",
        "setpoints": {name: np.linspace(1.0, 2.0, 12) for name in CONTROL_NAMES},
        "targets": {"VCV": 14.0},
        "limits": {"Via": (95.0, None)},
        "start_day": 4,
    } | changes


BASELINES = {
    "fixed recipe": {"days": DAYS, "VCV": PATH + 2.0},
    "bleed control": {"VCV": PATH - 1.0, "Glc": 0.1 * PATH},
}


def all_figures() -> dict:
    table = np.stack([PATH] * 9, axis=1)
    runs = [{"clone_id": c, "trajectory": table * s} for c, s in (("X", 1.0), ("Y", 1.2))]
    names = ["VCD", "Via", "Glc", "Titer"]
    three = table[:, :4]
    return {
        "fig4": fig4_training_trajectories(runs),
        "fig6": fig6_model_predictions(three, three, 0.9 * three, 1.1 * three, names),
        "fig7": fig7_pareto_front([300, 200], [5, 10], [100, 120], [4, 6]),
        "fig8": fig8_closed_loop_performance(DAYS, PATH, 14, PATH, 4, PATH, 300),
        "loop": closed_loop_figure(loop_run(), BASELINES),
        "error": tracking_error_figure(DAYS, {"twin": PATH, "PI": 2 * PATH}, start_day=4),
    }


FIGURES = all_figures()


def texts(figure) -> list[str]:
    """Everything written in a figure that is not a tick."""
    found = []
    for axes in figure.axes:
        found += [axes.get_title(loc="left"), axes.get_xlabel(), axes.get_ylabel()]
        found += [text.get_text().strip() for text in axes.texts]
    return [text for text in found if text]


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_draws_and_says_in_words_what_it_shows(name, tmp_path):
    figure = FIGURES[name]
    path = save_figure(figure, tmp_path / "deep" / f"{name}.png", dpi=50)
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("L"), float)
        assert image.text["Description"] == figure.get_label()
    assert pixels.std() > 5.0  # not an empty page
    assert len(figure.get_label()) > 40


@pytest.mark.parametrize("suffix", ["svg", "pdf"])
def test_figures_are_saved_as_drawings_too(suffix, tmp_path):
    path = save_figure(FIGURES["fig7"], tmp_path / f"front.{suffix}")
    assert path.stat().st_size > 1000


@pytest.mark.parametrize("name", FIGURES)
def test_no_two_labels_overlap_and_nothing_leaves_the_page(name):
    figure = FIGURES[name]
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    page = figure.bbox
    boxes = []
    for axes in figure.axes:
        if not axes.axison:
            continue
        labels = [axes.xaxis.label, axes.yaxis.label, axes._left_title]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            locations = axis.get_majorticklocs()
            for tick, location in zip(axis.get_major_ticks(), locations, strict=True):
                if low <= location <= high and tick.label1.get_visible():
                    labels.append(tick.label1)
        for text in labels:
            if text.get_text():
                boxes.append((text.get_text(), text.get_window_extent(renderer)))
    if figure.legends:
        boxes.append(("legend", figure.legends[0].get_window_extent(renderer)))
    for n, (text, box) in enumerate(boxes):
        assert page.padded(1).containsx(box.x0) and page.padded(1).containsx(box.x1), text
        assert page.padded(1).containsy(box.y0) and page.padded(1).containsy(box.y1), text
        for other, another in boxes[:n]:
            assert not box.padded(-1.0).overlaps(another.padded(-1.0)), (text, other)


def test_quantities_carry_their_units():
    written = texts(FIGURES["loop"])
    for name in ("VCV", "Via", "Glc", "Titer", *CONTROL_NAMES):
        title, unit = LABELS[name]
        assert title in written and unit in written
    assert "Viable cell volume [%]" in texts(FIGURES["fig7"])
    assert "|error| [%]" in texts(FIGURES["error"])


def test_the_loop_shows_target_band_baselines_and_steps():
    figure = FIGURES["loop"]
    large, strip = figure.axes[0], figure.axes[4]
    colours = [line.get_color() for line in large.lines]
    assert PALETTE["target"] in colours and PALETTE["twin"] in colours
    assert len(large.collections) == 1  # the band
    assert strip.lines[0].get_drawstyle() == "steps-post"
    entries = [text.get_text() for text in figure.legends[0].get_texts()]
    for wanted in ("target", "fixed recipe", "bleed control", "80 % forecast, 3 days ahead"):
        assert wanted in entries
    assert "mean error of" in figure.get_label() and "fixed recipe" in figure.get_label()


@pytest.mark.parametrize(
    "changes",
    [
        {"truth": {}, "forecast": {}, "targets": {}, "limits": {}, "start_day": None},
        {"setpoints": {}},
        {"setpoints": {"perfusion_rate": np.full(12, 1.0), "own": np.arange(12.0)}},
        {
            "days": DAYS[:1],
            "measured": {"VCV": [3.0]},
            "truth": {},
            "forecast": {},
            "setpoints": {},
        },
        {"measured": {}, "truth": {}},
    ],
)
def test_a_loop_draws_with_whatever_it_is_given(changes):
    closed_loop_figure(loop_run(**changes)).canvas.draw()


def test_bars_show_the_mean_over_the_days_that_count():
    errors = {"twin": np.where(DAYS <= 4, 100.0, -1.0), "empty": np.full(12, np.nan)}
    figure = tracking_error_figure(DAYS, errors, start_day=4)
    right = figure.axes[1]
    assert [bar.get_width() for bar in right.patches] == [1.0, 0.0]
    assert [text.get_text() for text in right.texts] == ["1.00", "no data"]
    assert "after day 4" in right.get_title(loc="left")


def test_both_figures_shade_start_up_to_the_same_day_and_average_over_the_same_days():
    errors = np.where(DAYS <= 4, 100.0, 1.0)
    loop = closed_loop_figure(loop_run(truth={"VCV": 14.0 + errors}, targets={"VCV": 14.0}))
    bars = tracking_error_figure(DAYS, {"twin": errors}, start_day=4)
    for axes in (loop.axes[0], loop.axes[4], bars.axes[0]):
        assert [patch.get_x() + patch.get_width() for patch in axes.patches] == [4.0]
    assert "mean error of 1." in loop.get_label()
    assert bars.axes[1].texts[0].get_text() == "1.00"


def test_readings_have_a_band_of_their_own_and_the_legend_says_which_is_which():
    days = DAYS[3:]
    inner = {"days": days, "q10": 0.99 * PATH[3:], "q90": 1.01 * PATH[3:]}
    outer = {"reading_q10": 0.9 * PATH[3:], "reading_q90": 1.1 * PATH[3:]}
    figure = closed_loop_figure(loop_run(forecast={"VCV": {**inner, **outer}}))
    wide, narrow = (c.get_paths()[0].get_extents() for c in figure.axes[0].collections)
    assert wide.y1 > narrow.y1 and wide.y0 < narrow.y0
    entries = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "80 % forecast, 3 days ahead: noise-free" in entries and "the same: readings" in entries


def test_predictions_count_the_observations_inside():
    truth = np.array([[1.0], [2.0], [np.nan], [9.0]])
    figure = fig6_model_predictions(truth, truth, truth * 0 + 0.5, truth * 0 + 2.5, ["Glc"])
    assert "67% of the observations" in figure.get_label()


def test_predictions_are_drawn_over_the_days_they_are_for():
    values = np.ones((3, 1))
    figure = fig6_model_predictions(*[values] * 4, ["Glc"], horizon=1, days=[0.0, 0.5, 3.0])
    assert figure.axes[0].lines[0].get_xdata().tolist() == [0.0, 0.5, 3.0]
    with pytest.raises(DataError, match="2 days were given for 3 rows"):
        fig6_model_predictions(*[values] * 4, ["Glc"], days=[0.0, 1.0])


def test_campaigns_come_as_mappings_or_trajectories_with_samples():
    trajectory = Trajectory(
        species=np.ones((5, 2)),
        controls=np.ones((5, 1)),
        volume_L=np.full(5, 0.25),
        days=np.arange(5),
        species_names=("VCD", "Glc"),
        control_names=("perfusion_rate",),
        run_id="r",
        clone_id="CloneX",
    )
    with_dots = {
        "trajectory": np.ones((5, 12)),
        "clone_id": "CloneY",
        "noisy_samples": [{"Glc": None}, {"Glc": 1.1}, {}],
    }
    figure = fig4_training_trajectories([trajectory, with_dots], species="Glc")
    drawn = [line for line in figure.axes[0].lines if len(line.get_xdata())]
    assert len(drawn) == 3
    entries = [text.get_text() for text in figure.legends[0].get_texts()]
    assert entries == ["CloneX", "CloneY"]
    relabelled = fig4_training_trajectories([trajectory], "Glc", clone_labels=["new"])
    assert relabelled.legends[0].get_texts()[0].get_text() == "new"


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda: fig4_training_trajectories([]), "no runs"),
        (lambda: fig4_training_trajectories([{"trajectory": np.ones((3, 9))}], "pH"), "no pH"),
        (lambda: fig4_training_trajectories([{}], clone_labels=["a", "b"]), "2 clone labels"),
        (lambda: fig6_model_predictions(*[np.ones((3, 2))] * 4, ["a"]), "one shape"),
        (lambda: fig7_pareto_front([1, 2], [1]), "give both"),
        (lambda: fig7_pareto_front([1], [1], [1]), "give both"),
        (lambda: fig7_pareto_front([1], [1], [1], [1, 2]), "differ in length"),
        (lambda: fig8_closed_loop_performance([0, 1], [1], 1, [1], 1, [1], 1), "VCD has 1 values"),
        (lambda: closed_loop_figure({"days": []}), "needs days"),
        (lambda: closed_loop_figure(loop_run(), species=("VCV",)), "exactly four"),
        (lambda: tracking_error_figure([], {}), "at least one day"),
        (lambda: tracking_error_figure([0, 1], {"x": [1]}), "x has 1 errors for 2 days"),
    ],
)
def test_data_that_does_not_fit_is_refused(draw, words):
    with pytest.raises(DataError, match=words):
        draw()


def test_the_description_is_printed_on_request(capsys):
    figure = fig8_closed_loop_performance(DAYS, PATH, 14, PATH, 4, PATH, 300, alt_text=True)
    assert capsys.readouterr().out.strip() == figure.get_label()
    fig8_closed_loop_performance(DAYS, PATH, 14, PATH, 4, PATH, 300)
    assert capsys.readouterr().out == ""


def test_drawing_changes_no_global_setting_and_needs_no_pyplot():
    before = dict(mpl.rcParams)
    closed_loop_figure(loop_run())
    assert dict(mpl.rcParams) == before
    code = (
        "import sys; from perfusio_jax.viz import fig8_closed_loop_performance as f; "
        "assert 'matplotlib' not in sys.modules; "
        "f([0, 1], [1, 2], 1, [1, 2], 1, [1, 2], 1).canvas.draw(); "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
