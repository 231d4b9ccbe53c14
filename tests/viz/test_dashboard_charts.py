"""Charts of the page: where numbers lie, gaps, odd numbers, words; and colours one can read."""

import math
import re
from importlib import resources
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfusio_jax.viz import Band, RunView
from perfusio_jax.viz.dashboard.charts import (
    control_chart,
    last_reading,
    reading_chart,
    spark,
    ticks,
)

NAN = float("nan")
HOURS = np.array([0.0, 24.0, 48.0, 72.0, 96.0])


def view(values, **more) -> RunView:
    return RunView("E1", HOURS, {"Glc": np.asarray(values, float)}, **more)


def paths(svg: str, kind: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return [e.get("d") or e.get("points") or "" for e in root.iter() if e.get("class") == kind]


def places(path: str) -> list[tuple[float, float]]:
    return [(float(a), float(b)) for a, b in re.findall(r"[ML]?(-?[\d.]+)[ ,](-?[\d.]+)", path)]


def test_readings_lie_in_order_on_a_scale_and_a_gap_stays_one():
    run = view([1.0, 2.0, NAN, 4.0, 5.0], targets={"Glc": 3.0}, limits={"Glc": (0.5, None)})
    svg = reading_chart(run, "Glc", "g/L")
    (dots,) = paths(svg, "dot")
    points = places(dots)
    assert len(points) == 4
    x, y = np.array(points).T
    assert (np.diff(x) > 0).all() and (np.diff(y) < 0).all()  # more is higher up
    # equal steps of the value are equal steps on the drawing, and so are days
    assert y[0] - y[1] == pytest.approx((y[1] - y[2]) / 2, abs=0.2)
    assert x[1] - x[0] == pytest.approx((x[2] - x[1]) / 2, abs=0.2)
    (thread,) = paths(svg, "thread")
    assert thread.count("M") == 2 and thread.count("L") == 2
    (target,) = paths(svg, "target")
    level = float(re.match(r"M[\d.]+ ([\d.]+)H", target)[1])  # pyright: ignore
    assert level == pytest.approx((y[1] + y[2]) / 2, abs=0.2)  # 3 lies between 2 and 4
    assert len(paths(svg, "limit")) == 1


def test_a_forecast_is_a_band_with_its_median_and_told_in_words():
    ends = np.array([24.0, 48.0, 120.0])
    band = Band(ends, [1.0, NAN, 3.0], [2.0, 3.0, 5.0], [1.5, 2.0, 4.0])
    svg = reading_chart(view([1.0] * 5, bands={"Glc": band}), "Glc", "g/L")
    (polygon,) = paths(svg, "band")
    assert len(places(polygon)) == 4  # where one end is unknown there is no band
    label = ElementTree.fromstring(svg).get("aria-label") or ""
    assert "5 readings" in label and "the last 1 g/L at 4 d" in label
    assert "at 5 d between 3 and 5 with 80 %" in label
    alone = Band(np.array([24.0]), [1.0], [2.0], [1.5])
    assert (
        len(paths(reading_chart(view([1.0] * 5, bands={"Glc": alone}), "Glc", ""), "bandline")) == 1
    )


def test_a_band_far_beyond_the_readings_does_not_flatten_them():
    band = Band(HOURS, np.full(5, 0.0), np.full(5, 1e6), np.full(5, 3.0))
    svg = reading_chart(view([1.0, 2.0, 3.0, 4.0, 5.0], bands={"Glc": band}), "Glc", "g/L")
    y = [b for _, b in places(paths(svg, "dot")[0])]
    assert max(y) - min(y) > 20.0


def test_set_points_are_stairs_that_hold_until_the_next():
    run = RunView("E1", HOURS, {}, {"bleed": np.array([1.0, 1.0, 2.0, NAN, 2.0])})
    (stairs,) = paths(control_chart(run, "bleed", "vvd"), "step")
    assert stairs.count("M") == 2 and stairs.count("V") == 2 and stairs.endswith("H332.0")
    assert "last 2 vvd" in control_chart(run, "bleed", "vvd")


@pytest.mark.parametrize("values", [[NAN] * 5, [0.0] * 5, [1e-9] * 5, [-3.0, 4.0, 1e30, NAN, 2.0]])
def test_odd_numbers_are_drawn_all_the_same(values):
    for svg in (reading_chart(view(values), "Glc", "g/L"), spark(view(values), "Glc", "g/L")):
        ElementTree.fromstring(svg)
        assert "nan" not in svg and "inf" not in svg.replace("inform", "")
    empty = RunView("E1", np.zeros(0), {"Glc": np.zeros(0)}, {"u": np.zeros(0)})
    assert "no reading yet" in reading_chart(empty, "Glc", "")
    ElementTree.fromstring(control_chart(empty, "u", ""))
    assert last_reading(empty, "Glc") is None and last_reading(view(values), "none") is None


def test_a_name_with_markup_is_text():
    name = '"><script>alert(1)</script>' + "n" * 300
    run = RunView("E1", HOURS, {name: np.ones(5)}, {name: np.ones(5)})
    for svg in (reading_chart(run, name, name), control_chart(run, name, ""), spark(run, name, "")):
        root = ElementTree.fromstring(svg)
        assert not list(root.iter("script")) and "<script>" in (root.get("aria-label") or "")


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 8))
def test_ticks_are_round_inside_and_few(low, span, most):
    found = ticks(low, low + span, most)
    assert len(found) <= most + 1
    slack = 1e-6 * max(abs(low), span)
    assert all(low - slack <= t <= low + span + slack for t in found)
    steps = np.diff(found)
    if steps.size > 1:
        assert np.allclose(steps, steps[0], rtol=1e-3, atol=1e-9)


def test_ticks_of_nothing():
    assert ticks(1.0, 1.0) == [1.0] and ticks(NAN, NAN) == [] and ticks(0.0, math.inf) == [0.0]


def luminance(colour: str) -> float:
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    lin = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
    return 0.2126 * lin[0] + 0.7152 * lin[1] + 0.0722 * lin[2]


def contrast(one: str, other: str) -> float:
    a, b = sorted((luminance(one), luminance(other)), reverse=True)
    return (a + 0.05) / (b + 0.05)


TEXTS = [
    (ink, ground)
    for ink in ("ink", "muted", "link", "urgent", "soon", "fine")
    for ground in ("ground", "box")
] + [("go-ink", "go"), ("urgent", "urgent-box"), ("soon", "soon-box"), ("ink", "code"),
     ("muted", "code")]  # fmt: skip


@pytest.mark.parametrize("scheme", [0, 1])
def test_text_and_lines_stand_out_by_day_and_by_night(scheme):
    """4.5 to 1 for text and 3 to 1 for what is drawn, as WCAG 2.2 asks for at level AA."""
    style = (resources.files("perfusio_jax.viz.dashboard") / "assets" / "page.css").read_text()
    blocks = re.findall(r":root \{(.*?)\n\s*\}", style, re.S)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", blocks[0]))
    if scheme:
        colours |= dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", blocks[1]))
    for ink, ground in TEXTS:
        assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
    for line in ("dot", "mid", "target", "limit", "step", "other", "focus"):
        assert contrast(colours[line], colours["box"]) >= 3.0, line
