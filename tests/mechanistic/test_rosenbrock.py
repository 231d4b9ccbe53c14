"""The methods alone: order, stiffness, and the sparse elimination behind the plant's steps."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from perfusio_jax.mechanistic import Reactor, Rodas3, Rodas4, clone_x, day_inputs, vector_field
from perfusio_jax.mechanistic.plant_step import jacobian_pattern
from perfusio_jax.mechanistic.rosenbrock import factorise, make_pattern
from perfusio_jax.mechanistic.vector_field import growth_rate
from tests.mechanistic.cases import START, random_controls

N = 11


# ---------------------------------------------------------------- order


def swinging(t, y, args):
    """Nonlinear, coupled and driven by time: every order condition has a say."""
    a, b = y
    return jnp.stack([jnp.cos(3.0 * t) * b - a * a, -(a + 0.3) * b + jnp.sin(t) ** 2])


def numpy_swinging(t, y):
    a, b = y
    return [np.cos(3.0 * t) * b - a * a, -(a + 0.3) * b + np.sin(t) ** 2]


@pytest.mark.parametrize(("solver", "order"), [(Rodas3(), 3), (Rodas4(), 4)])
def test_observed_order_of_convergence(solver, order):
    start = [0.5, 1.2]
    exact = solve_ivp(numpy_swinging, (0, 2), start, method="DOP853", rtol=1e-13, atol=1e-14)

    @jax.jit
    def solve(steps):
        return diffrax.diffeqsolve(
            diffrax.ODETerm(swinging),
            solver,
            0.0,
            2.0,
            2.0 / steps,
            jnp.asarray(start),
            stepsize_controller=diffrax.ConstantStepSize(),
            max_steps=1000,
        ).ys[0]

    assert solver.order(None) == order
    counts = np.array([32.0, 64.0, 128.0, 256.0])
    errors = [np.max(np.abs(np.asarray(solve(n)) - exact.y[:, -1])) for n in counts]
    observed = -np.diff(np.log2(errors))
    assert np.all(observed > order - 0.3), observed
    assert observed[-1] < order + 0.7, observed


@pytest.mark.parametrize("solver", [Rodas3(), Rodas4()])
def test_stiff_relaxation_oscillation(solver):
    mu = 1e3

    def oscillator(t, y, args):
        return jnp.stack([y[1], mu * (1.0 - y[0] ** 2) * y[1] - y[0]])

    out = diffrax.diffeqsolve(
        diffrax.ODETerm(oscillator),
        solver,
        0.0,
        2000.0,
        1e-3,
        jnp.array([2.0, 0.0]),
        saveat=diffrax.SaveAt(ts=jnp.array([500.0, 1500.0, 2000.0])),
        stepsize_controller=diffrax.PIDController(rtol=1e-7, atol=1e-9),
        max_steps=20_000,
    )
    exact = solve_ivp(
        lambda t, y: [y[1], mu * (1.0 - y[0] ** 2) * y[1] - y[0]],
        (0.0, 2000.0),
        [2.0, 0.0],
        method="Radau",
        t_eval=[500.0, 1500.0, 2000.0],
        rtol=1e-10,
        atol=1e-12,
    )
    np.testing.assert_allclose(out.ys[:, 0], exact.y[0], rtol=1e-4)
    assert int(out.stats["num_steps"]) < 10_000  # an explicit method needs over a million


# ---------------------------------------------------------------- sparse elimination

MODES = [
    ("perfusion", "vvd"),
    ("perfusion", "cspr"),
    ("chemostat", "vvd"),
    ("fed_batch", "vvd"),
    ("fed_batch", "cspr"),
]


@pytest.fixture(scope="module", params=MODES, ids="-".join)
def dense_and_sparse(request):
    """Per mode: full derivatives of field and border, and both ways of solving, on states."""
    mode, perfusion_mode = request.param
    kinetics = eqx.tree_at(
        lambda k: (k.inhibition_amm, k.inhibition_lac), clone_x(), (jnp.array(0.1), jnp.array(0.02))
    )
    reactor = Reactor(
        kinetics=kinetics,
        sieving=jnp.linspace(0.1, 1.0, 10),  # nothing cancels by chance
        mode=mode,
        perfusion_mode=perfusion_mode,
    )
    pattern = jacobian_pattern(mode, perfusion_mode)

    @jax.jit
    @jax.vmap
    def both(y, u, inverse_h_gamma, rhs):
        inputs = day_inputs(reactor, u, y[10])

        def field(state, mu):
            return jnp.stack(vector_field(reactor, inputs, tuple(state), mu))

        def border(state):
            return growth_rate(reactor, inputs, tuple(state))

        by_state, by_border = jax.jacfwd(field, argnums=(0, 1))(y, border(y))
        of_border = jax.grad(border)(y)
        jacobian = by_state + by_border[:, None] * of_border[None, :]
        dense = jnp.linalg.solve(inverse_h_gamma * jnp.eye(N) - jacobian, rhs)
        sparse = factorise(
            lambda state, mu: vector_field(reactor, inputs, state, mu),
            lambda state: growth_rate(reactor, inputs, state),
            tuple(y),
            inverse_h_gamma,
            pattern,
        )(tuple(rhs))
        return by_state, by_border, of_border, dense, jnp.stack(sparse)

    rng = np.random.default_rng(7)
    runs = 20
    c = (START + 0.1) * np.exp(rng.standard_normal((runs, 10)))
    volume = rng.uniform(0.1, 0.5, (runs, 1))
    controls = random_controls(8, (runs,))
    if perfusion_mode == "cspr":
        controls[:, 0] *= 40.0
    y = jnp.asarray(np.concatenate([c * volume, volume], axis=1))
    inverse = jnp.asarray(1.0 / rng.uniform(0.01, 5.0, runs))
    rhs = rng.standard_normal((runs, N))
    constant_volume = mode != "fed_batch"
    if constant_volume:
        rhs[:, 10] = 0.0  # no stage of a step ever moves it
    out = both(y, jnp.asarray(controls), inverse, jnp.asarray(rhs))
    return pattern, constant_volume, tuple(np.asarray(v) for v in out)


def test_the_elimination_solves_the_dense_system(dense_and_sparse):
    _, _, (*_, dense, sparse) = dense_and_sparse
    size = np.max(np.abs(dense), axis=1, keepdims=True)
    assert np.max(np.abs(sparse - dense) / size) < 1e-11


def test_no_derivative_lies_outside_the_pattern(dense_and_sparse):
    pattern, constant_volume, (by_state, by_border, of_border, *_) = dense_and_sparse
    found = np.zeros((N + 1, N + 1), bool)
    found[:N, :N] = np.any(by_state != 0, axis=0)
    found[:N, N] = np.any(by_border != 0, axis=0)
    found[N, :N] = np.any(of_border != 0, axis=0)
    declared = np.array([[j in row for j in range(N + 1)] for row in pattern.depends])
    if constant_volume:
        found[:, 10] = False  # its column never meets anything but zero in a step
    assert not np.any(found & ~declared)
    # And the pattern is not simply everything.
    assert declared.sum() < 0.6 * declared.size


def test_blocks_need_only_themselves_and_earlier_ones():
    rows = [{0, 1}, {1, 4}, {0, 2}, {3}, {1}]
    pattern = make_pattern(rows)
    assert pattern.n_states == 4 and pattern.border == 4
    done = set()
    for block in pattern.blocks:
        done |= set(block)
        assert all(rows[i] <= done for i in block)
    assert sorted(i for block in pattern.blocks for i in block) == [0, 1, 2, 3, 4]
    assert set(next(b for b in pattern.blocks if 4 in b)) == {1, 4}  # they need each other
