"""Figures of constants: what they say in words, and what they draw."""

import numpy as np
import pytest

from perfusio_jax._core import DataError
from perfusio_jax.viz import posterior_figure, readings_figure


def test_a_posterior_names_what_is_known_and_what_goes_together():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((400, 3))
    z[:, 1] = z[:, 0] + 0.2 * z[:, 1]
    draws = {"mu": 0.03 * np.exp(0.01 * z[:, 0]), "K": 2.0 + z[:, 1], "idle": 1.0 + z[:, 2]}
    priors = {"mu": (True, np.log(0.03), 0.3), "K": (False, 2.0, 1.0), "idle": (False, 1.0, 1.0)}
    units = {"mu": "1/h", "K": "g/L", "idle": ""}
    figure = posterior_figure(draws, priors, units, n_chains=4)
    text = figure.get_label()
    assert "Marginals of 3 constants" in text and "1 are known" in text and ": mu." in text
    assert "mu and K, correlation 0.9" in text and "idle and" not in text
    panels = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title(loc="left") for axes in panels[:3]] == ["mu", "K", "idle"]
    # a line for each chain, and the prior at its own height: the normal law's at its middle
    assert len(panels[1].patches) == 4
    prior = panels[1].lines[-1].get_ydata()
    assert np.max(prior) == pytest.approx(1.0 / np.sqrt(2.0 * np.pi), rel=1e-3)
    with pytest.raises(DataError, match="no draws"):
        posterior_figure({}, {}, {})


def test_readings_outside_their_intervals_are_ringed_and_counted():
    hours = np.array([0.0, 24.0, 48.0, 96.0])
    seen = np.array([1.0, np.nan, 9.0, 1.2])
    band = np.stack([np.full(4, v) for v in (0.0, 0.5, 1.0, 1.5, 2.0)])
    figure = readings_figure({"R1": hours}, {"R1": {"X": seen}}, {"R1": {"X": band}}, {"X": "g/L"})
    assert "67 % of 3 readings lie inside those of 95 %" in figure.get_label()
    ringed = figure.axes[0].lines[-1].get_ydata()
    assert list(ringed) == [9.0]
    with pytest.raises(DataError, match="no run"):
        readings_figure({}, {}, {}, {})
