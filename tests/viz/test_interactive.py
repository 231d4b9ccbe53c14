"""Interactive figures: data as given, units, markup from outside shown as it stands, no network."""

import re
import subprocess
import sys

import numpy as np
import pytest

from perfusio_jax._core import ConfigError, DataError
from perfusio_jax.states import Trajectory
from perfusio_jax.viz import interactive
from perfusio_jax.viz.theme import PALETTE

DAYS = np.arange(6.0)
PATH = np.array([1.0, 2.0, np.nan, 4.0, 5.0, 6.0])
MARKUP = "<script>alert(1)</script>%{x}"


def run_of(name: str, scale: float = 1.0) -> Trajectory:
    return Trajectory(
        scale * PATH[:, None], np.ones((6, 1)), np.full(6, 0.25), np.arange(6), ["VCD"],
        ["perfusion_rate"], run_id=name,
    )  # fmt: skip


def all_figures() -> dict:
    grid = np.linspace(0.5, 2.0, 5), np.linspace(0.05, 0.3, 4)
    values = np.outer(grid[0], grid[1])
    return {
        "surface": interactive.acquisition_surface(*grid, values, title=MARKUP),
        "forecast": interactive.forecast_figure(DAYS, PATH, PATH - 1, PATH + 1, DAYS, PATH),
        "pareto": interactive.pareto_scatter([1, 2], [3, 4], [True, False], [MARKUP, "b"]),
        "runs": interactive.trajectory_figure([run_of(MARKUP), run_of("B", 2.0)]),
    }


def test_figures_draw_with_units_and_say_in_words_what_they_show():
    for name, figure in all_figures().items():
        spec = figure.to_dict()
        axes = [spec["layout"][axis]["title"]["text"] for axis in ("xaxis", "yaxis")]
        assert all(re.search(r"[\[(].+[\])]", text) for text in axes), (name, axes)
        assert len(spec["layout"]["meta"]["description"]) > 20
        assert "<script>" not in str({k: v for k, v in spec["layout"].items() if k != "meta"})
        assert "<script>" not in str(spec["data"]) and "%{x}" not in str(spec["data"][-1]["name"])


def test_a_surface_is_drawn_with_the_first_set_point_along_x():
    x1, x2 = np.array([1.0, 2.0, 3.0]), np.array([10.0, 20.0])
    values = np.array([[0.0, 1.0], [2.0, 9.0], [4.0, 5.0]])
    data = interactive.acquisition_surface(x1, x2, values).data
    np.testing.assert_array_equal(data[0].z, values.T)
    assert (data[1].x[0], data[1].y[0]) == (2.0, 20.0)
    with pytest.raises(DataError, match=r"\(2, 3\).*\(3, 2\)"):
        interactive.acquisition_surface(x1, x2, values.T)
    with pytest.raises(DataError, match="no number"):
        interactive.acquisition_surface(x1, x2, np.full((3, 2), np.nan))


def test_a_forecast_has_its_band_between_the_quantiles_and_dots_where_measured():
    figure = interactive.forecast_figure(DAYS, PATH, PATH - 1, PATH + 1, [0, 1], [1.0, np.nan])
    high, low, mean, seen = figure.data
    np.testing.assert_array_equal(high.y, PATH + 1)
    assert low.fill == "tonexty" and mean.line.color == PALETTE["twin"]
    assert seen.mode == "markers" and np.isnan(seen.y[1])
    assert "1 readings" in figure.layout.meta["description"]
    with pytest.raises(DataError, match="of one length"):
        interactive.forecast_figure(DAYS, PATH[:3], PATH, PATH)
    with pytest.raises(DataError, match="both, or none"):
        interactive.forecast_figure(DAYS, PATH, PATH, PATH, observed_days=[1])
    with pytest.raises(DataError, match="2 observed_days and 1"):
        interactive.forecast_figure(DAYS, PATH, PATH, PATH, [1, 2], [1.0])


def test_the_front_is_told_apart_by_shape_and_colour():
    figure = interactive.pareto_scatter([1, 2, 3], [3, 4, 5], [True, False, True], ["a", "b", "c"])
    other, front = figure.data
    assert list(front.text) == ["a", "c"] and list(other.text) == ["b"]
    assert front.marker.symbol != other.marker.symbol
    assert len(interactive.pareto_scatter([1], [2]).data) == 1
    with pytest.raises(DataError, match="of one length"):
        interactive.pareto_scatter([1, 2], [3, 4], hover_text=["a"])


def test_many_runs_differ_in_colour_or_dashes():
    figure = interactive.trajectory_figure([run_of(f"R{n}") for n in range(20)])
    looks = {(t.line.color, t.line.dash) for t in figure.data}
    assert len(looks) == 20
    assert figure.layout.yaxis.rangemode == "tozero"
    table = np.tile([[1.0] * 8 + [3.0]], (4, 1))
    dicts = [{"run_id": "E1", "trajectory": table, "noisy_samples": [{"Titer": 2.0}, {}]}]
    line, dots = interactive.trajectory_figure(dicts, "Titer").data
    assert list(line.y) == [3.0] * 4 and dots.y[0] == 2.0 and np.isnan(dots.y[1])
    with pytest.raises(DataError, match="no runs"):
        interactive.trajectory_figure([])
    with pytest.raises(DataError, match="has no pH"):
        interactive.trajectory_figure([run_of("A")], "pH")


def test_a_saved_page_fetches_nothing_and_is_the_same_twice(tmp_path):
    figure = all_figures()["runs"]
    one = interactive.save_html(figure, tmp_path / "deep" / "a.html").read_bytes()
    two = interactive.save_html(figure, tmp_path / "b.html").read_bytes()
    assert one == two
    text = one.decode()
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", text)
    assert "<script>alert(1)" not in text
    with pytest.raises(ConfigError, match=r"ends in '\.png'"):
        interactive.save_html(figure, tmp_path / "a.png")


def test_without_plotly_the_error_names_the_extra_and_importing_needs_none(monkeypatch):
    code = "import sys, perfusio_jax.viz.interactive; print('plotly' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    with pytest.raises(ConfigError, match=r"perfusio-jax\[dash\]"):
        interactive.trajectory_figure([run_of("A")])
