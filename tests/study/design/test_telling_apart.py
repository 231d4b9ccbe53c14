"""Runs that tell mechanisms apart: where the difference is known on paper, and by dense algebra."""

import jax
import numpy as np
import pytest

from perfusio_jax._core import ConfigError
from perfusio_jax.mechanistic import Mechanism, constant
from perfusio_jax.process import Control, Process, Quantity
from perfusio_jax.simulator import virtual_plant
from perfusio_jax.study import Wanted, described_experiment, design_to_tell_apart
from perfusio_jax.study.design.telling_apart import _parts

FLASK = Process(
    name="flask",
    volume_L=1.0,
    quantities=(Quantity(name="P", unit="g/L", hi=100.0, cv=0.0, floor=0.1),),
    controls=(Control(name="warmth", unit="1", role="environment", lo=0.0, hi=2.0, default=1.0),),
)


class Straight(Mechanism):
    """A product made in proportion to warmth."""

    k: jax.Array = constant(1.0, unit="g/L/h", log_sd=0.3)

    def rates(self, state, environment):
        return {"P": self.k * environment["warmth"] + 0.0 * state["P"]}


class Bent(Mechanism):
    """The same at a warmth of one; by its square elsewhere."""

    k: jax.Array = constant(1.0, unit="g/L/h", log_sd=0.3)

    def rates(self, state, environment):
        return {"P": self.k * environment["warmth"] ** 2 + 0.0 * state["P"]}


def _run(mechanism, start=1.0):
    plant = virtual_plant(FLASK, mechanism, rtol=1e-9, atol=1e-12)
    return described_experiment(plant, [0.0, 1.0, 2.0], start=[start])


@pytest.fixture(scope="module")
def both():
    return _run(Straight()), _run(Bent())


def test_the_run_that_tells_most_is_the_one_on_paper(both):
    wanted = Wanted(n_runs=2, n_changes=0, n_candidates=32)
    found = design_to_tell_apart(*both, wanted)
    warmth = found.controls[:, 0, 0]
    # one constant each closes the gap at one warmth: another one, or the largest gap, tells
    assert np.max(warmth) > 1.9
    assert found.usual == pytest.approx(0.0, abs=1e-9)
    assert found.distance > 10.0 and found.plain > found.distance
    assert np.all(found.alone <= found.distance + 1e-9)
    gap = found.by_reading[int(np.argmax(warmth)), -1, 0]
    top = float(np.max(warmth))
    assert gap == pytest.approx((2.0 * top - 2.0 * top**2) / 0.1, rel=1e-6)
    assert "standard deviations apart" in found.lines()[0]


def test_the_distance_is_that_of_the_whole_matrix(both):
    controls = np.array([[[0.5], [1.5]], [[2.0], [2.0]], [[0.2], [1.0]]])
    parts = _parts(both, (None, None), controls)
    log_sd, start_sd = 0.3, 0.1
    gaps, slopes, starts = [], [], []
    for u in controls[:, :, 0]:
        a, b = np.concatenate([[0.0], np.cumsum(u)]), np.concatenate([[0.0], np.cumsum(u**2)])
        gaps.append((a - b) / 0.1)
        slopes.append(np.stack([a, -b], axis=1) * log_sd / 0.1)
        starts.append(np.zeros(3) * start_sd)  # the same start, to the same effect
    d, g = np.concatenate(gaps), np.concatenate(slopes)
    dense = d @ np.linalg.solve(np.eye(d.size) + g @ g.T, d)
    np.testing.assert_allclose(parts.distance(np.arange(3)), dense, rtol=1e-6)
    one = gaps[0] @ np.linalg.solve(np.eye(3) + slopes[0] @ slopes[0].T, gaps[0])
    np.testing.assert_allclose(parts.distance(np.array([0])), one, rtol=1e-6)
    np.testing.assert_allclose(parts.held[0], gaps[0] @ gaps[0], rtol=1e-6)


def test_mechanisms_that_do_the_same_are_said_to(both):
    found = design_to_tell_apart(both[0], _run(Straight()), Wanted(1, 0, n_candidates=8))
    assert found.distance == pytest.approx(0.0, abs=1e-9)
    assert any("not enough to be sure" in line for line in found.lines())


def test_what_makes_no_sense_is_refused(both):
    with pytest.raises(ConfigError, match="all samples"):
        design_to_tell_apart(*both, Wanted(1, 0, n_samples=1))
    plant = virtual_plant(FLASK, Bent())
    other = described_experiment(plant, [0.0, 1.0, 3.0], start=[1.0])
    with pytest.raises(ConfigError, match="not runs of one culture"):
        design_to_tell_apart(both[0], other, Wanted(1, 0))
    with pytest.raises(ConfigError, match="no constant of a mechanism"):
        design_to_tell_apart(*both, Wanted(1, 0), levers=(["start.P"], None))
    with pytest.raises(ConfigError, match="no control"):
        design_to_tell_apart(*both, Wanted(1, 0), ranges={"cold": (0.0, 1.0)})
