"""Figures of tracking: they draw what they are given and say what they show."""

import numpy as np
import pytest

from perfusio_jax._core import DataError
from perfusio_jax.viz.tracking import Course, case_figure, comparison_figure, ranking_figure

HOURS = np.arange(19.0)


@pytest.fixture
def course():
    rng = np.random.default_rng(0)
    reference = np.stack([3.5 - 0.5 * np.cos(HOURS / 3), 3.5 + 0.5 * np.cos(HOURS / 3)], axis=1)
    tracked = reference[None] * (1.0 + 0.03 * rng.normal(size=(20, 19, 2)))
    growth = 0.15 + 0.05 * rng.normal(size=(20, 19, 2))
    inputs = 10.0 ** rng.uniform(-2, 1, (20, 18, 2))
    curve = np.concatenate([1.0 - np.exp(-np.arange(80) / 20.0), np.full(20, np.nan)])
    return Course(HOURS, tracked, reference, growth, inputs, curve)


def test_a_case_has_a_row_per_return_and_says_its_error(course):
    figure = case_figure({"saturation": course, "quadratic": course}, title="Case 2", dilution=0.15)
    panels = figure.get_axes()
    assert len(panels) == 8
    line = next(v for v in panels[0].lines if v.get_label() == "Strain 1 (blue light)")
    np.testing.assert_allclose(line.get_ydata(), np.median(course.tracked[..., 0], axis=0))
    low, high = np.quantile(course.tracked[..., 0], [0.1, 0.9], axis=0)
    edge = panels[0].collections[0].get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose([edge.min(), edge.max()], [low.min(), high.max()])
    assert panels[2].get_yscale() == "log" and panels[2].get_ylim() == (0.01, 10.0)
    gap = np.abs(course.tracked - course.reference[None])[:, 1:] / course.reference[None, 1:]
    assert f"{gap.mean():.3f} after 80 epochs" in figure.get_label()
    assert len(panels[3].lines[0].get_xdata()) == 80
    with pytest.raises(DataError, match="no courses"):
        case_figure({}, title="", dilution=0.15)


def test_a_ranking_is_in_order():
    figure = ranking_figure(["a", "qc", "b"], np.array([[5.0, 4.0], [9, 9], [2, 3]]), title="Ranks")
    axes = figure.get_axes()[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["b", "a", "qc"]
    assert "Best: b" in figure.get_label()
    for wrong in (np.zeros((2, 2)), np.zeros(3)):
        with pytest.raises(DataError, match="do not fit"):
            ranking_figure(["a", "qc", "b"], wrong, title="")


def test_a_comparison_draws_every_controller(course):
    figure = comparison_figure(
        {"RL": course.tracked, "MPC": course.tracked * 1.01}, HOURS, course.reference, title="Both"
    )
    assert len(figure.get_axes()) == 2 and "RL, MPC" in figure.get_label()
    with pytest.raises(DataError, match="no controllers"):
        comparison_figure({}, HOURS, course.reference, title="")
