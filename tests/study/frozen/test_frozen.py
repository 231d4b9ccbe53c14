"""Frozen problems: as they were frozen, fair to every method, and judged by the truth."""

import numpy as np
import pytest

from perfusio_jax._core import ConfigError
from perfusio_jax.study.frozen.problem import ROWS
from perfusio_jax.study.frozen.problems import FEDBATCH_V1, FROZEN, frozen_problem
from perfusio_jax.study.frozen.trial import run_trial


class Listed:
    """Gives points that were listed beforehand, and keeps what it is told."""

    def __init__(self, points):
        self.points, self.told = list(points), []

    def ask(self, n):
        found, self.points = self.points[:n], self.points[n:]
        return np.stack(found)

    def tell(self, x, value, slack):
        self.told.append((x, value, slack))


def points(problem, n, seed=0):
    space = problem.space
    share = np.random.default_rng(seed).random((n, len(space.names)))
    return space.lower + share * (space.upper - space.lower)


@pytest.mark.parametrize("name", list(FROZEN))
def test_problems_are_those_that_were_frozen(name):
    problem = frozen_problem(name)
    assert problem.found_digest() == problem.digest
    truth = problem.truth(np.asarray(problem.best)[None])
    assert truth.is_good.all()
    assert problem.score(float(truth.value[0])) == pytest.approx(1.0, abs=1e-3)
    random = problem.truth(points(problem, ROWS))
    good = random.value[random.is_good]
    assert len(good) >= ROWS // 20  # random runs can keep the limits
    assert problem.optimum > good.max()  # and none of them is the optimum
    assert abs(problem.score(float(np.median(good)))) < 0.6


def test_a_changed_problem_is_found_out():
    fine = FEDBATCH_V1.digest
    assert FEDBATCH_V1._replace(upper=(1.9,) * 5).found_digest() != fine
    slower = FEDBATCH_V1.experiment()
    slower = slower.pulled(tuple(v for v in slower.levers if v.name == "fastest"), np.array([21.8]))
    assert FEDBATCH_V1._replace(experiment=lambda: slower).found_digest() != fine


def test_a_trial_is_judged_by_the_truth_and_told_the_noise():
    n = FEDBATCH_V1.batch * FEDBATCH_V1.n_rounds
    given = points(FEDBATCH_V1, n)
    given[-1] = FEDBATCH_V1.best
    method = Listed(given)
    trial = run_trial(FEDBATCH_V1, lambda space, seed: method, seed=3)
    truth = FEDBATCH_V1.truth(given)
    assert np.array_equal(trial.x, given)
    assert np.all(np.diff(trial.best) >= 0.0) and trial.best[-1] == pytest.approx(1.0, abs=1e-3)
    assert trial.n_kept == truth.is_good.sum()
    told = np.concatenate([value for _, value, _ in method.told])
    away = told / truth.value - 1.0
    assert 0.02 < away.std() < 0.09  # 5 % of noise, in 40 readings
    exact = np.concatenate([slack for _, _, slack in method.told])
    np.testing.assert_allclose(exact, truth.slack)  # the volume is known


def test_noise_is_that_of_the_run_whatever_the_method():
    seen = FEDBATCH_V1.outcomes(points(FEDBATCH_V1, 8))
    whole = FEDBATCH_V1.noisy(seen, 1, 0).value
    parts = [FEDBATCH_V1.noisy(seen[i : i + 4], 1, i).value for i in (0, 4)]
    assert np.array_equal(np.concatenate(parts), whole)
    assert not np.any(FEDBATCH_V1.noisy(seen, 2, 0).value == whole)


def test_points_that_cannot_be_run_are_refused():
    with pytest.raises(ConfigError, match=r"points of shape \(4, 2\); \(4, 5\) finite"):
        FEDBATCH_V1.checked(np.ones((4, 2)), 4)
    with pytest.raises(ConfigError, match="left the range of feed@1, feed@2, feed@3"):
        FEDBATCH_V1.checked(np.full((4, 5), 2.5), 4)
    with pytest.raises(ConfigError, match="'cho-v2' is no frozen problem.*cho-v1"):
        frozen_problem("cho-v2")
