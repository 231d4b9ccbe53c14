"""A stream of lanes: what it says of them, what it costs, what it refuses."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import ConfigError, Result, SimulationError
from perfusio_jax._core.progress import telling
from perfusio_jax.hybrid import untrained_model
from perfusio_jax.mechanistic import CHOPerfusionModel
from perfusio_jax.study import (
    Lanes,
    each_lane,
    foresee,
    given_runs,
    hybrid_paths,
    prepare,
    random_runs,
    stream,
)
from tests.study.cultures import fed_batch
from tests.study.scale.machines import ROWS, Dice, N


class Failing(Lanes):
    """Nothing ends well."""

    names = ("x",)
    n_most = None

    def block(self, key, number):
        return jnp.zeros((number.size, 1)), jnp.full(number.size, Result.NONFINITE.value)


class Misnamed(Lanes):
    """Two outputs with one name."""

    names = ("x",)
    n_most = None

    def block(self, key, number):
        return jnp.zeros((number.size, 2)), jnp.zeros(number.size, int)


@pytest.fixture(scope="module")
def every():
    return each_lane(Dice(), N, seed=7, rows=ROWS)


def test_what_is_said_is_that_of_the_lanes_themselves(every):
    seen = stream(Dice(), N, seed=7, rows=ROWS, levels=(0.1, 0.5), bits=9)
    good = every.values[every.result == 0]
    assert seen.n == N and seen.n_failed == N - len(good)
    assert seen.by_code == {1: 4, 2: 2}  # every 50th, and every 70th that is none of these
    np.testing.assert_allclose(seen.mean, good.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(seen.sd, good.std(axis=0, ddof=1), rtol=1e-12)
    assert np.array_equal(seen.least, good.min(axis=0))
    truth = np.quantile(good, (0.1, 0.5), axis=0, method="inverted_cdf")
    np.testing.assert_allclose(seen.quantiles, truth, rtol=seen.relative_error)
    assert seen.lines()[0].startswith("6 of 203 lanes failed and were left out (4 times MAX_STEPS")


def test_lanes_that_fail_are_nan_with_their_code(every):
    assert every.values.shape == (N, 3) and every.result.shape == (N,)
    assert every.result[49] == Result.MAX_STEPS and every.result[69] == Result.NONFINITE
    assert np.isnan(every.values[[49, 69]]).all()
    assert np.isfinite(every.values[every.result == 0]).all()


def test_other_numbers_and_seeds_trace_nothing_and_a_seed_repeats(monkeypatch):
    lanes = random_runs(fed_batch(), ["last X"], ["mu_max"])
    a = stream(lanes, 20, seed=1, rows=4)
    job = prepare(lanes, 9, rows=4)
    other = random_runs(fed_batch(), ["last X"], ["mu_max"], ranges={"mu_max": (0.1, 0.2)})

    def block(self, key, number):
        raise AssertionError("traced once more")

    monkeypatch.setattr(type(lanes), "block", block)
    assert prepare(other, 9, rows=4).program is job.program
    assert np.array_equal(stream(lanes, 20, seed=1, rows=4).mean, a.mean)
    assert not np.array_equal(stream(lanes, 20, seed=2, rows=4).mean, a.mean)
    assert stream(other, 20, seed=1, rows=4).most[0] < a.most[0]


def test_given_rows_are_the_runs_themselves():
    run = fed_batch()
    x = np.array([[0.1], [0.2], [0.3]])
    rows = given_runs(run, ["last X"], ["mu_max"], x)
    found = each_lane(rows, 3, rows=2)
    one = run.courses(run.levers and rows.model.levers, jnp.asarray(x))
    np.testing.assert_allclose(found.values[:, 0], one.values[:, -1, 0], rtol=1e-9)
    with pytest.raises(ConfigError, match="4 lanes were asked for, and 3 are given"):
        each_lane(rows, 4)
    with pytest.raises(ConfigError, match=r"shape \(3, 2\) for the 1 levers mu_max"):
        given_runs(run, ["last X"], ["mu_max"], np.ones((3, 2)))


def test_paths_of_a_hybrid_model():
    model = untrained_model(CHOPerfusionModel())
    face = [10.0, 97.0, 4.0, 3.0, 0.8, 8.0, 2.0, 0.8, 200.0]
    controls = np.tile([1.0, 0.15, 4.0, 36.5, 850.0, 1.0], (3, 1))
    lanes = hybrid_paths(model, face, controls, species=["VCD", "Titer"])
    assert lanes.names == ("VCD@1", "VCD@2", "VCD@3", "Titer@1", "Titer@2", "Titer@3")
    seen = stream(lanes, 100, seed=0, rows=32)
    assert seen.n_failed == 0
    assert np.all(np.diff(seen.quantiles, axis=0) > 0.0)
    assert np.all(np.diff(seen.mean[3:]) > 0.0)  # titre rises
    with pytest.raises(ConfigError, match="Titre is asked for"):
        hybrid_paths(model, face, controls, species=["Titre"])
    with pytest.raises(ConfigError, match=r"controls of shape \(3, 5\)"):
        hybrid_paths(model, face, controls[:, :5])


def test_a_job_is_foreseen_from_a_small_part_and_said():
    ticks = itertools.count()  # every look at the clock is a second later
    job = prepare(Dice(), 1003, rows=ROWS)
    cost = foresee(job, clock=lambda: float(next(ticks)))
    assert (cost.n_steps, cost.step_s, cost.seconds) == (126, 1.0, 126.0)
    assert next(ticks) == 8  # four steps, whatever the size of the job
    sketches = 3 * (2 * (96 * 2**7 + 1) + 1) * 4
    assert sketches < cost.device_bytes < 3 * sketches
    assert cost.pass_flops > ROWS and cost.pass_bytes > ROWS
    larger = foresee(prepare(Dice(), 10**7, rows=ROWS), clock=lambda: float(next(ticks)))
    assert larger.device_bytes == cost.device_bytes
    assert larger.host_bytes < cost.host_bytes + 10_000
    said = []
    stream(Dice(), N, seed=0, rows=ROWS, clock=lambda: float(next(ticks)), say=said.append)
    assert said[0].startswith("203 lanes on 1 device(s): 26 steps of 1 s, 26 s")
    assert said[-1] == "took 1 s; 26 s had been foreseen"


def test_what_is_held_does_not_grow_with_the_lanes():
    def most_held(n):
        held = []

        def look(_):
            held.append(sum(v.nbytes for v in jax.live_arrays()))

        with telling(look):
            stream(Dice(), n, seed=0, rows=ROWS)
        return max(held)

    few = most_held(10 * ROWS)
    # the lanes themselves, three numbers of 64 bits each, would be 768 kB
    assert most_held(4000 * ROWS) < few + 10_000


def test_what_cannot_be_done_is_refused():
    with pytest.raises(SimulationError, match="none of 5 lanes ended well .5 times NONFINITE"):
        stream(Failing(), 5, seed=0, rows=4)
    with pytest.raises(ConfigError, match="2 outputs with 1 names"):
        stream(Misnamed(), 5, seed=0, rows=4)
    with pytest.raises(ConfigError, match="0 lanes in blocks of 512"):
        stream(Dice(), 0, seed=0)
    with pytest.raises(ConfigError, match="quantiles at .1.5,."):
        stream(Dice(), 5, seed=0, levels=[1.5])
    with pytest.raises(ConfigError, match="sketch of 20 bits"):
        stream(Dice(), 5, seed=0, bits=20)
    with pytest.raises(ConfigError, match="99 devices were asked for.*device_count=99"):
        stream(Dice(), 5, seed=0, devices=99)
    device = jax.devices()[0]
    with pytest.raises(ConfigError, match="each once"):
        stream(Dice(), 5, seed=0, devices=[device, device])
