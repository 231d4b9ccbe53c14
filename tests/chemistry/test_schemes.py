import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from perfusio_jax._core import ConfigError
from perfusio_jax.chemistry import (
    Flows,
    Medium,
    balance_rates,
    balance_step,
    cell_specific_rates,
    perfusion_flows,
)
from perfusio_jax.chemistry.schemes import relative_decay, relative_log1p

SCHEMES = ("euler", "exponential")
K = 4
SIEVING = jnp.array([0.0, 0.3, 1.0, 1.0])
STEP = jax.jit(balance_step, static_argnames="scheme")
RATES = jax.jit(balance_rates, static_argnames="scheme")


def make_flows(scale=1.0, sieving=SIEVING):
    return Flows(
        supply=scale * jnp.array([0.0, 0.0, 0.06, 0.08]),
        inflow=jnp.array(scale * 0.0104),
        bleed=jnp.array(scale * 0.0016),
        harvest=jnp.array(scale * 0.0088),
        sieving=sieving,
    )


C0 = jnp.array([20.0, 500.0, 5.0, 2.0])
R = jnp.array([0.3, 8.0, -0.2, -0.1])


def by_scipy(c0, rates, V0, V1, flows, dt):
    a, S, v = np.asarray(flows.clearance()), np.asarray(flows.supply), (V1 - V0) / dt
    R = np.asarray(rates)

    def slope(t, n):
        V = V0 + v * t
        return S - a * n / V + R * V

    amounts = np.asarray(c0) * V0
    sol = solve_ivp(slope, (0.0, dt), amounts, method="DOP853", rtol=3e-14, atol=1e-14)
    return sol.y[:, -1] / V1


@pytest.mark.parametrize("V1", [0.25, 0.25 * (1 + 1e-7), 0.2, 0.22, 0.31, 0.5])
def test_exponential_solves_the_balance(V1):
    ours = STEP(C0, R, 0.25, V1, make_flows(), 24.0, scheme="exponential")
    assert np.allclose(ours, by_scipy(C0, R, 0.25, V1, make_flows(), 24.0), rtol=1e-12, atol=0)


def test_pure_outflow_hits_the_removable_singularity():
    """All outflow carries the species and nothing flows in: concentration cannot change."""
    flows = Flows(
        jnp.zeros(2), jnp.array(0.0), jnp.array(0.001), jnp.array(0.002), jnp.array([1.0, 0.0])
    )
    c = balance_step(jnp.array([5.0, 5.0]), jnp.zeros(2), 0.25, 0.25 - 24 * 0.003, flows, 24.0)
    assert np.isclose(c[0], 5.0, rtol=1e-14)
    assert c[1] > 5.0


def test_no_flow_and_no_volume_change_is_a_straight_line():
    for scheme in SCHEMES:
        assert jnp.allclose(
            balance_step(C0, R, 0.25, 0.25, make_flows(0.0), 24.0, scheme=scheme),
            C0 + 24.0 * R,
            rtol=1e-15,
        )


def test_euler_is_the_printed_formula():
    flows, V0, V1, dt = make_flows(), 0.25, 0.26, 24.0
    u_f, u_out = flows.supply, flows.clearance() * C0
    expected = C0 + dt * (R + (u_f - u_out) / V0 - C0 * (V1 - V0) / (V0 * dt))
    assert jnp.allclose(balance_step(C0, R, V0, V1, flows, dt, scheme="euler"), expected)


def test_exponential_stays_positive_where_euler_does_not():
    washed = jnp.array([0.0, 0.0, 5.0, 2.0])
    fast = Flows(jnp.zeros(K), jnp.array(0.03), jnp.array(0.0), jnp.array(0.03), SIEVING)
    for scheme, sign in (("euler", -1), ("exponential", 1)):
        c = balance_step(washed, jnp.zeros(K), 0.25, 0.25, fast, 24.0, scheme=scheme)
        assert np.sign(c[2]) == sign


@pytest.mark.parametrize("scheme", SCHEMES)
@given(
    ratio=st.one_of(st.just(1.0), st.floats(0.5, 2.0), st.floats(1 - 1e-8, 1 + 1e-8)),
    scale=st.one_of(st.just(0.0), st.floats(1e-12, 4.0)),
    dt=st.floats(0.5, 72.0),
    data=st.lists(st.floats(0.0, 100.0), min_size=2 * K, max_size=2 * K),
)
def test_round_trip(scheme, ratio, scale, dt, data):
    c0, c1 = jnp.array(data[:K]), jnp.array(data[K:])
    V0, V1 = 0.25, 0.25 * ratio
    rates = RATES(c0, c1, V0, V1, make_flows(scale), dt, scheme=scheme)
    again = STEP(c0, rates, V0, V1, make_flows(scale), dt, scheme=scheme)
    assert jnp.allclose(again, c1, rtol=1e-10, atol=1e-10)


@given(scale=st.floats(0.0, 3.0), ratio=st.floats(0.6, 1.6), cut=st.floats(0.05, 0.95))
def test_two_short_steps_are_one_long_step(scale, ratio, cut):
    V0, V1, dt = 0.25, 0.25 * ratio, 24.0
    Vm = V0 + cut * (V1 - V0)
    flows = make_flows(scale)
    middle = STEP(C0, R, V0, Vm, flows, cut * dt, scheme="exponential")
    twice = STEP(middle, R, Vm, V1, flows, (1 - cut) * dt, scheme="exponential")
    once = STEP(C0, R, V0, V1, flows, dt, scheme="exponential")
    assert jnp.allclose(once, twice, rtol=1e-11)


def test_mass_closes():
    """In minus out plus made is inside, with the outflow integrated by quadrature."""
    flows, V0, V1, dt = make_flows(2.0), 0.25, 0.28, 24.0
    nodes, weights = np.polynomial.legendre.leggauss(30)
    t, w = 0.5 * dt * (nodes + 1), 0.5 * dt * weights
    V = V0 + (V1 - V0) * t / dt
    path = np.stack(
        [
            np.asarray(STEP(C0, R, V0, v, flows, s, scheme="exponential"))
            for v, s in zip(V, t, strict=True)
        ]
    )
    out = np.asarray(flows.clearance()) * (w[:, None] * path).sum(axis=0)
    made = np.asarray(R) * (w * V).sum()
    end = np.asarray(STEP(C0, R, V0, V1, flows, dt, scheme="exponential")) * V1
    start = np.asarray(C0) * V0
    assert np.allclose(end - start, np.asarray(flows.supply) * dt - out + made, rtol=1e-11)


@jax.jit
def step_of(x):
    flows = Flows(x[2] * 0.1 + jnp.zeros(K), x[3], x[3], x[4], SIEVING * x[5])
    return balance_step(C0 * x[6], R, x[0], x[1], flows, x[7])


FORWARD, REVERSE = jax.jit(jax.jacfwd(step_of)), jax.jit(jax.jacrev(step_of))


@pytest.mark.parametrize("ratio", [1.0, 1.2, 0.9])
@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_gradients_against_finite_differences(ratio, scale):
    x = jnp.array([0.25, 0.25 * ratio, scale, 0.0016 * scale, 0.0088 * scale, 0.9, 1.0, 24.0])
    exact = FORWARD(x)
    assert jnp.allclose(REVERSE(x), exact, rtol=1e-9, atol=1e-9)
    for i in range(8):
        h = 1e-5 * max(float(x[i]), 0.01)
        numeric = (step_of(x.at[i].add(h)) - step_of(x.at[i].add(-h))) / (2 * h)
        assert jnp.allclose(exact[:, i], numeric, rtol=2e-5, atol=1e-4), i


@pytest.mark.parametrize(
    ("function", "exact", "slope_at_zero"),
    [
        (relative_decay, lambda z: -np.expm1(-z) / z, -0.5),
        (relative_log1p, lambda x: np.log1p(x) / x, -0.5),
    ],
)
def test_helpers_join_their_branches(function, exact, slope_at_zero):
    z = np.array([-0.2, -0.1001, -0.0999, -0.0301, -0.0299, -1e-9, 1e-9, 0.0299, 0.0301, 0.1, 0.9])
    assert np.allclose(function(jnp.asarray(z)), exact(z), rtol=4e-16 * 8, atol=0)
    assert function(jnp.array(0.0)) == 1.0
    assert np.isclose(jax.grad(function)(0.0), slope_at_zero, rtol=1e-14)
    slopes = jax.vmap(jax.grad(function))(jnp.asarray(z))
    numeric = (exact(z + 1e-4) - exact(z - 1e-4)) / 2e-4
    assert np.allclose(slopes[np.abs(z) > 1e-3], numeric[np.abs(z) > 1e-3], rtol=1e-6)


def test_batch_equals_loop_with_own_flows_and_steps():
    n = 3
    batch = Flows(
        jnp.stack([make_flows(s).supply for s in (0.5, 1.0, 2.0)]),
        jnp.array([0.5, 1.0, 2.0]) * 0.0104,
        jnp.array([0.5, 1.0, 2.0]) * 0.0016,
        jnp.array([0.5, 1.0, 2.0]) * 0.0088,
        SIEVING,
    )
    c = jnp.stack([C0, 2 * C0, 0.5 * C0])
    rates = jnp.stack([R, -R, 2 * R])
    V0, V1 = jnp.array([0.25, 0.2, 0.3]), jnp.array([0.25, 0.22, 0.28])
    dt = jnp.array([24.0, 20.0, 26.0])
    for scheme in SCHEMES:
        out = STEP(c, rates, V0, V1, batch, dt, scheme=scheme)
        for i, s in zip(range(n), (0.5, 1.0, 2.0), strict=True):
            one = balance_step(c[i], rates[i], V0[i], V1[i], make_flows(s), dt[i], scheme=scheme)
            assert jnp.allclose(out[i], one, rtol=1e-13)
        shared = STEP(c, rates, 0.25, 0.25, make_flows(), 24.0, scheme=scheme)
        for i in range(n):
            one = balance_step(c[i], rates[i], 0.25, 0.25, make_flows(), 24.0, scheme=scheme)
            assert jnp.allclose(shared[i], one, rtol=1e-13)
        mapped = jax.vmap(
            lambda ci, ri: balance_step(ci, ri, 0.25, 0.25, make_flows(), 24.0, scheme=scheme)  # noqa: B023
        )(c, rates)
        assert jnp.allclose(mapped, shared, rtol=1e-13)


def test_one_compile_for_all_numbers(traces):
    f = jax.jit(traces(balance_step))
    for scale in (0.0, 1.0, 2.0):
        f(C0 * scale, R, 0.25, 0.25 + 0.01 * scale, make_flows(scale), 24.0 + scale)
    assert traces.count == 1


@pytest.mark.parametrize("scheme", SCHEMES)
def test_missing_stays_in_its_column(scheme):
    c1 = C0.at[2].set(jnp.nan)
    rates = balance_rates(C0, c1, 0.25, 0.25, make_flows(), 24.0, scheme=scheme)
    assert jnp.array_equal(jnp.isnan(rates), jnp.array([False, False, True, False]))


def test_dtypes(strict_dtypes):
    single = jax.tree.map(lambda x: x.astype(jnp.float32), (C0, R, make_flows()))
    out = balance_step(single[0], single[1], 0.25, 0.25, single[2], 24.0)
    assert out.dtype == jnp.float32
    assert jnp.allclose(out, balance_step(C0, R, 0.25, 0.25, make_flows(), 24.0).astype("float32"))


def test_other_widths_are_refused_and_never_broadcast():
    for c0, c1 in ((C0[:1], C0), (C0, C0[:3]), (jnp.asarray(1.0), C0)):
        with pytest.raises(ConfigError, match="the flows are of 4 species"):
            balance_rates(c0, c1, 0.25, 0.25, make_flows(), 24.0)
        with pytest.raises(ConfigError, match="the flows are of 4 species"):
            balance_step(c0, c1, 0.25, 0.25, make_flows(), 24.0)
    with pytest.raises(ConfigError, match=r"u has shape \(5,\); expected"):
        perfusion_flows(jnp.ones(5), 0.25, 0.0, Medium(), 24.0)


def test_unknown_scheme_is_refused():
    with pytest.raises(ConfigError, match=r"'rk4'.*euler.*exponential"):
        balance_step(C0, R, 0.25, 0.25, make_flows(), 24.0, scheme="rk4")


def test_clearance_and_volume_rate():
    flows = make_flows()
    assert jnp.allclose(flows.clearance(), 0.0016 + 0.0088 * SIEVING)
    assert jnp.isclose(flows.volume_rate(), 0.0, atol=1e-17)


def test_cell_specific_rates_use_the_logarithmic_mean():
    q = cell_specific_rates(jnp.stack([R, R]), jnp.array([10.0, 10.0]), jnp.array([20.0, 10.0]))
    assert jnp.allclose(q[0], R / (10.0 / np.log(2.0)), rtol=1e-14)
    assert jnp.allclose(q[1], R / 10.0, rtol=1e-14)
