"""Large batches, the fallback, precision, and the edges of flows and records."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import Result
from perfusio_jax.mechanistic import (
    CHUNK,
    FLOOR,
    Method,
    Reactor,
    Rodas3,
    Rodas4,
    Tolerances,
    clone_x,
    integrate,
    integrate_diffrax,
    integrators,
    make_plan,
    simulate,
)
from tests.mechanistic.cases import (
    START,
    both_clones,
    radau,
    random_controls,
    random_starts,
    relative_error,
)

DAYS = 2


def lay_out(runs, seed=51, reactor=None, dtype=jnp.float64):
    reactor = Reactor(kinetics=both_clones(runs)) if reactor is None else reactor
    starts = jnp.asarray(random_starts(seed, runs), dtype).at[:, 2].set(0.0)
    controls = jnp.asarray(random_controls(seed + 1, (runs, DAYS)), dtype)
    return reactor, make_plan(reactor, starts, controls, jnp.full(DAYS, 24.0))


def test_large_batches_share_one_compile_and_equal_small_ones(monkeypatch):
    traces = []

    def counted(*args, **kwargs):
        traces.append(args[1].initial.shape)
        return integrate(*args, **kwargs)

    monkeypatch.setattr(integrators, "_integrate_jit", eqx.filter_jit(counted))
    reactor, plan = lay_out(2 * CHUNK + 10)
    out = simulate(reactor, plan, Tolerances(), Method())
    assert out.concentrations.shape == (2 * CHUNK + 10, DAYS + 1, 10)
    assert np.all(np.asarray(out.result) == 0)
    more = CHUNK + 1
    simulate(*lay_out(more, seed=61), Tolerances(rtol=1e-4), Method())
    assert traces == [(11, CHUNK)]
    # The last run of a chunk, the first of the next and the last of all are who they should be.
    picked = np.array([0, CHUNK - 1, CHUNK, 2 * CHUNK - 1, 2 * CHUNK + 9])
    few = integrators.take_runs(reactor, plan, picked)
    alone = simulate(*few, Tolerances(), Method())
    assert relative_error(out.concentrations[picked], np.asarray(alone.concentrations)) < 1e-10
    np.testing.assert_array_equal(np.asarray(out.n_steps)[picked], alone.n_steps)


def test_the_fallback_keeps_the_books():
    """Two steps do not reach the end; the other solver does, totals included."""
    reactor, plan = lay_out(2)
    out = simulate(reactor, plan, method=Method(max_steps=2, totals="streams"))
    assert np.all(np.asarray(out.result) == 0) and np.all(np.asarray(out.n_steps) > 2 * DAYS)
    perfusion, bleed, glucose, harvest = np.moveaxis(np.asarray(out.totals), -1, 0)
    np.testing.assert_allclose(perfusion + glucose - bleed - harvest, 0.0, atol=1e-12)
    share = np.asarray(random_controls(52, (2, DAYS)))[..., :2] * 0.25
    np.testing.assert_allclose(perfusion[:, 1:], np.cumsum(share[..., 0], axis=1))
    np.testing.assert_allclose(bleed[:, 1:], np.cumsum(share[..., 1], axis=1))
    assert np.all(np.diff(glucose, axis=1) > 0)


def test_a_start_below_zero_by_a_solvers_error_is_legal():
    reactor = Reactor()
    starts = jnp.asarray(np.stack([START, START]))
    error = float(Tolerances().rtol) * FLOOR[3]
    starts = starts.at[:, 3].set(jnp.asarray([-error, -FLOOR[3]]))
    plan = make_plan(reactor, starts, jnp.asarray(random_controls(3, (2, DAYS))), [24.0, 24.0])
    out = integrate(reactor, plan)
    assert np.asarray(out.result).tolist() == [0, int(Result.BAD_INPUT)]


def test_single_precision_is_taken_from_the_start_and_good_enough():
    reactor, plan = lay_out(6, dtype=jnp.float32)
    out = simulate(reactor, plan)
    assert out.concentrations.dtype == jnp.float32
    assert np.all(np.asarray(out.result) == 0)
    exact = radau(
        np.asarray(plan.initial[:10, 0], float), random_controls(52, (6, DAYS))[0], clone_x()
    )
    assert relative_error(np.asarray(out.concentrations, float)[0], exact) < 1e-3


def test_without_cells_to_feed_the_bleed_gives_way():
    """Per-cell perfusion of a young culture does not cover the bleed asked for."""
    reactor = Reactor(perfusion_mode="cspr")
    controls = random_controls(5, (1, DAYS))
    controls[..., 0], controls[..., 1] = 30.0, 0.3  # pL/cell/d at 2e6 cells/mL: 0.06 vvd
    plan = make_plan(reactor, jnp.asarray(START)[None], jnp.asarray(controls), [24.0, 24.0])
    out = integrate(reactor, plan, Tolerances(rtol=1e-7), Method(totals="streams"))
    assert int(out.result[0]) == 0
    perfusion, bleed, glucose, harvest = np.asarray(out.totals)[0, -1]
    assert 0.0 < bleed < 0.9 * 0.3 * 0.25 * DAYS
    assert abs(harvest) < 1e-9
    assert bleed == pytest.approx(perfusion + glucose)
    np.testing.assert_allclose(out.volume_L[0], 0.25)


def test_a_vessel_that_is_emptied_is_bad_input():
    reactor = Reactor(mode="fed_batch")
    controls = jnp.zeros((3, DAYS, 6)).at[..., 3].set(37.0).at[..., 4].set(850.0)
    removed = jnp.asarray([[0.0, 0.01], [0.3, 0.0], [0.0, 0.3]])
    plan = make_plan(
        reactor, jnp.asarray(START)[None].repeat(3, 0), controls, [24.0, 24.0], removed_L=removed
    )
    out = integrate(reactor, plan)
    assert np.asarray(out.result).tolist() == [0] + [int(Result.BAD_INPUT)] * 2


def test_a_record_that_is_full_is_said_so():
    reactor, plan = lay_out(1)
    method, tight = Method(recorded_steps=1), Tolerances(rtol=1e-9)

    @jax.jit
    def last(scale):
        changed = plan._replace(initial=plan.initial * scale)
        out = integrate(reactor, changed, tight, method)
        return out.concentrations[0, -1], (out.result, out.n_steps)

    _, (code, taken) = last(1.0)
    assert int(code[0]) == 0 and int(taken[0]) > method.record_size(DAYS)
    value, slope, (code, _) = jax.jvp(last, (1.0,), (1.0,), has_aux=True)
    assert int(code[0]) == int(Result.MAX_STEPS)
    assert np.all(np.isnan(np.asarray(value))) and not np.any(np.isfinite(slope))


# ---------------------------------------------------------------- behind diffrax's interface


@pytest.mark.filterwarnings("ignore:Complex dtype support")
@pytest.mark.parametrize("solver", [Rodas3(), Rodas4()])
def test_complex_states_and_dense_output(solver):
    """A damped rotation, driven by time, on a pytree of a complex and a real number."""

    def field(t, y, args):
        z, x = y
        return (-0.5 + 3.0j) * z + jnp.cos(t), -(x - jnp.sin(t)) * 50.0

    sol = diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        solver,
        0.0,
        2.0,
        0.01,
        (jnp.asarray(1.0 + 0.5j), jnp.asarray(0.3)),
        saveat=diffrax.SaveAt(t1=True, dense=True),
        stepsize_controller=diffrax.PIDController(rtol=1e-9, atol=1e-11),
        max_steps=10_000,
    )
    a = -0.5 + 3.0j

    def exact(t):
        # z' = a z + cos t ; x' = -50 (x - sin t)
        particular = lambda s: (-a * np.cos(s) + np.sin(s)) / (1 + a * a)  # noqa: E731
        z = (1.0 + 0.5j - particular(0.0)) * np.exp(a * t) + particular(t)
        forced = lambda s: 50.0 * (50.0 * np.sin(s) - np.cos(s)) / 2501.0  # noqa: E731
        return z, (0.3 - forced(0.0)) * np.exp(-50.0 * t) + forced(t)

    z, x = (v[0] for v in sol.ys)
    assert abs(complex(z) - exact(2.0)[0]) < 1e-6 and abs(float(x) - exact(2.0)[1]) < 1e-6
    for t in (0.013, 0.77, 1.9):
        z, x = sol.evaluate(t)
        assert abs(complex(z) - exact(t)[0]) < 1e-5 and abs(float(x) - exact(t)[1]) < 1e-5


def test_diffrax_integrates_the_plant_with_our_method():
    reactor, plan = lay_out(1, reactor=Reactor(kinetics=clone_x()))
    ours = integrate(reactor, plan, Tolerances(rtol=1e-8))
    theirs = integrate_diffrax(reactor, plan, solver=Rodas4(), rtol=1e-8, atol=1e-10)
    assert int(theirs.result[0]) == 0
    assert relative_error(theirs.concentrations, np.asarray(ours.concentrations)) < 1e-5
