import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import (
    BALANCED,
    CONTROL_NAMES,
    REGISTRY,
    STATE_ORDER,
    STREAM_TOTALS,
    ConfigError,
    DataError,
)
from perfusio_jax.chemistry import (
    DiscreteMassBalance,
    FlowRateCalculator,
    Flows,
    GlucosePump,
    Medium,
    SpeciesRegistry,
    balance_step,
    from_balanced,
    glucose_pump_rate,
    interval_flows,
    interval_lengths,
    perfusion_flows,
)
from perfusio_jax.states import Trajectory

REG = SpeciesRegistry.DEFAULT
PAIR = [REG["VCD"], REG["Glc"]]
U = jnp.array([1.0, 0.15, 5.0, 36.5, 900.0, 2.0])
C0 = jnp.array([10.0, 0.4, 5.0, 2.0, 1.0, 10.0, 3.0, 0.5, 300.0])
RATES = jnp.array([0.2, 0.01, -0.15, -0.1, 0.02, 0.3, 0.05, -0.01, 6.0])
GLUCOSE_L = jnp.array([0.001, 0.002, 0.0, 0.0015])
TIMES = jnp.array([0.0, 24.0, 47.0, 72.5, 96.0])


def recorded(*, totals=True, names=STATE_ORDER, scheme="exponential", sample_L=0.0):
    """A run whose rates are RATES in every interval, flows included."""
    c, rows = C0, [C0]
    sums = [jnp.full(4, jnp.nan)]
    for i, dt in enumerate(jnp.diff(TIMES)):
        flows = perfusion_flows(U, 0.25, GLUCOSE_L[i], Medium(), dt)
        drawn = sample_L / dt
        flows = Flows(
            flows.supply, flows.inflow, flows.bleed + drawn, flows.harvest - drawn, flows.sieving
        )
        c = balance_step(c, RATES, 0.25, 0.25, flows, dt, scheme=scheme)
        rows.append(c)
        hours = dt * 0.25 / 24.0
        sums.append(jnp.array([U[0] * hours, U[1] * hours, GLUCOSE_L[i], sample_L]))
    face = from_balanced(jnp.stack(rows))
    columns = [STATE_ORDER.index(n) for n in names]
    return Trajectory(
        species=face[:, jnp.array(columns)],
        controls=jnp.tile(U, (5, 1)),
        volume_L=jnp.full(5, 0.25),
        days=jnp.arange(5),
        species_names=list(names),
        control_names=list(CONTROL_NAMES),
        times_h=TIMES,
        stream_totals=jnp.stack(sums) if totals else None,
    )


# -- DiscreteMassBalance on amounts -------------------------------------------------------


def test_euler_round_trip_with_unequal_steps_and_volumes():
    rng = np.random.default_rng(0)
    bal = DiscreteMassBalance(PAIR)
    c, V = jnp.asarray(rng.uniform(1, 20, (5, 2))), jnp.asarray(rng.uniform(0.2, 0.3, 5))
    u = [jnp.asarray(rng.uniform(0, 0.1, (4, 2))) for _ in range(3)]
    dt = jnp.array([24.0, 20.0, 30.0, 12.0])
    R = bal.rates_from_observations(c, V, *u, dt=dt)
    for i in range(4):
        ui = [x[i] for x in u]
        again = bal.step(c[i], R[i], V[i], *ui, dt[i], V_next=V[i + 1])
        assert jnp.allclose(again, c[i + 1], atol=1e-10)
        assert not jnp.allclose(bal.step(c[i], R[i], V[i], *ui, dt[i]), c[i + 1], atol=1e-3)


def test_euler_rates_are_the_printed_formula():
    c, V = jnp.array([[10.0, 5.0], [12.0, 4.0]]), jnp.array([0.25, 0.26])
    u_f, u_b, u_p = (jnp.array([[a, b]]) for a, b in ((0.0, 0.1), (0.02, 0.01), (0.0, 0.04)))
    R = DiscreteMassBalance(PAIR).rates_from_observations(c, V, u_f, u_b, u_p)
    expected = (c[1] - c[0]) / 24 - ((u_f - u_b - u_p)[0] - c[0] * 0.01 / 24) / 0.25
    assert jnp.allclose(R[0], expected, rtol=1e-12)


def test_batched_step():
    bal = DiscreteMassBalance(PAIR)
    c, R, zero = jnp.ones((3, 2)), jnp.full((3, 2), 0.5), jnp.zeros((3, 2))
    assert jnp.allclose(bal.step(c, R, jnp.full(3, 0.25), zero, zero, zero), 13.0)


def test_exponential_round_trip_with_flows():
    rng = np.random.default_rng(1)
    bal = DiscreteMassBalance(PAIR, scheme="exponential")
    c, V = jnp.asarray(rng.uniform(1, 20, (4, 2))), jnp.array([0.25, 0.25, 0.27, 0.24])
    flows = Flows(
        jnp.asarray(rng.uniform(0, 0.1, (3, 2))),
        jnp.full(3, 0.02),
        jnp.full(3, 0.002),
        jnp.full(3, 0.018),
        jnp.array([0.0, 1.0]),
    )
    R = bal.rates_from_observations(c, V, flows=flows)
    again = bal.step(c[:-1], R, V[:-1], V_next=V[1:], flows=flows)
    assert jnp.allclose(again, c[1:], atol=1e-10)


def test_transforms_of_the_class():
    bal = DiscreteMassBalance(PAIR)
    c, zero = jnp.array([10.0, 3.0]), jnp.zeros(2)
    R = jnp.array([0.5, -0.1])
    eager = bal.step(c, R, 0.25, zero, zero, zero)
    assert jnp.allclose(jax.jit(bal.step)(c, R, 0.25, zero, zero, zero), eager, rtol=1e-15)
    slope = jax.jacfwd(bal.step, argnums=1)(c, R, 0.25, zero, zero, zero)
    assert jnp.allclose(slope, 24.0 * jnp.eye(2))


def test_species_are_a_copy():
    bal = DiscreteMassBalance(PAIR)
    bal.species.clear()
    assert bal.species == PAIR


def test_refusals_of_the_balance():
    with pytest.raises(ConfigError, match="at least one species"):
        DiscreteMassBalance([])
    with pytest.raises(ConfigError, match="dt_hours"):
        DiscreteMassBalance(PAIR, 0.0)
    with pytest.raises(ConfigError, match="scheme 'rk4'"):
        DiscreteMassBalance(PAIR, scheme="rk4")
    c, V, u = jnp.ones((3, 2)), jnp.full(3, 0.25), jnp.zeros((2, 2))
    bal = DiscreteMassBalance(PAIR)
    flows = Flows(jnp.zeros((2, 2)), *[jnp.zeros(2)] * 3, jnp.zeros(2))
    with pytest.raises(DataError, match="c must have shape"):
        bal.rates_from_observations(jnp.ones((3, 4)), V, u, u, u)
    with pytest.raises(DataError, match="c must have shape"):
        bal.rates_from_observations(jnp.ones((1, 2)), V[:1], u, u, u)
    with pytest.raises(DataError, match="V must have shape"):
        bal.rates_from_observations(c, V[:2], u, u, u)
    with pytest.raises(DataError, match="u_b must have shape"):
        bal.rates_from_observations(c, V, u, c, u)
    with pytest.raises(DataError, match="dt must be"):
        bal.rates_from_observations(c, V, u, u, u, dt=jnp.ones(3))
    with pytest.raises(ConfigError, match="not both"):
        bal.rates_from_observations(c, V, u, u, u, flows=flows)
    with pytest.raises(ConfigError, match="needs u_f, u_b and u_p"):
        bal.rates_from_observations(c, V, u, u)
    with pytest.raises(ConfigError, match="exponential scheme needs volumetric flows"):
        DiscreteMassBalance(PAIR, scheme="exponential").step(c[0], c[0], 0.25, u[0], u[0], u[0])


# -- recorded runs ------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["euler", "exponential"])
def test_rates_of_a_recorded_run(scheme):
    run = recorded(scheme=scheme)
    bal = DiscreteMassBalance([REG[n] for n in STATE_ORDER], scheme=scheme)
    rates, info = bal.rates_from_trajectory(run, return_info=True)
    assert jnp.allclose(rates, jnp.tile(RATES, (4, 1)), atol=1e-10)
    assert not info.is_supply_estimated.any()
    assert jnp.allclose(info.glucose_L, GLUCOSE_L, atol=1e-15)
    assert jnp.allclose(info.dt_h, jnp.diff(TIMES))


def test_sampled_broth_takes_cells_along():
    run = recorded(sample_L=0.004)
    bal = DiscreteMassBalance([REG["VCD"]], scheme="exponential")
    assert jnp.allclose(bal.rates_from_trajectory(run), jnp.tile(RATES, (4, 1)), atol=1e-10)


def test_without_totals_the_supply_is_flagged_and_from_the_pump_law():
    run = recorded(totals=False)
    bal = DiscreteMassBalance([REG[n] for n in STATE_ORDER], scheme="exponential")
    rates, info = bal.rates_from_trajectory(run, return_info=True)
    assert info.is_supply_estimated.all()
    glucose = run.species[:, STATE_ORDER.index("Glc")]
    expected = glucose_pump_rate(0.5 * (glucose[1:] + glucose[:-1]), 5.0) * 0.25 * info.dt_h
    assert jnp.allclose(info.glucose_L, expected)
    assert jnp.isfinite(rates).all()
    cells = rates[:, 0]
    assert jnp.allclose(cells, RATES[0], atol=1e-10)  # the glucose feed does not touch cells


def test_pump_law_of_the_caller_is_used():
    run = recorded(totals=False)
    known = interval_flows(run, pump=lambda glucose, setpoint: 0.0 * glucose + 1e-4)
    assert jnp.allclose(known.glucose_L, 1e-4 * 0.25 * known.dt_h)


def test_one_missing_total_falls_back_alone():
    run = recorded()
    totals = run.stream_totals.at[2, 2].set(jnp.nan)
    patched = Trajectory(
        run.species, run.controls, run.volume_L, run.days, run.species_names, run.control_names,
        times_h=run.times_h, stream_totals=totals,
    )  # fmt: skip
    flows = interval_flows(patched)
    assert flows.is_supply_estimated.tolist() == [False, True, False, False]
    keep = jnp.array([0, 2, 3])
    assert jnp.allclose(flows.glucose_L[keep], GLUCOSE_L[keep])
    assert jnp.isfinite(flows.flows.harvest).all()


def test_a_recorded_sample_is_drawn_though_the_bleed_was_not_recorded():
    run = recorded()
    bleed, sample = STREAM_TOTALS.index("V_bleed_L"), STREAM_TOTALS.index("V_sample_L")
    totals = run.stream_totals.at[2, bleed].set(jnp.nan).at[:, sample].set(0.003)
    totals = totals.at[3, sample].set(jnp.nan)
    patched = Trajectory(
        run.species, run.controls, run.volume_L, run.days, run.species_names, run.control_names,
        times_h=run.times_h, stream_totals=totals,
    )  # fmt: skip
    found = interval_flows(patched)
    dt = found.dt_h
    by_setpoint = run.controls[1, CONTROL_NAMES.index("bleed_rate")] * run.volume_L[1] / 24
    own = totals[1:, bleed] / dt
    expected = own.at[1].set(by_setpoint) + jnp.array([0.003, 0.003, 0.0, 0.003]) / dt
    assert jnp.allclose(found.flows.bleed, expected, rtol=1e-12)
    assert found.is_supply_estimated.tolist() == [False, True, False, False]


def test_missing_glucose_readings_in_the_estimate():
    run = recorded(totals=False)
    glc = STATE_ORDER.index("Glc")
    one = run.species.at[1, glc].set(jnp.nan)
    both = one.at[2, glc].set(jnp.nan)
    base = (run.controls, run.volume_L, run.days, run.species_names, run.control_names)
    first = interval_flows(Trajectory(one, *base, times_h=run.times_h))
    assert jnp.isfinite(first.glucose_L).all()
    second = interval_flows(Trajectory(both, *base, times_h=run.times_h))
    assert jnp.isnan(second.glucose_L).tolist() == [False, True, False, False]


def test_columns_can_be_chosen_and_only_balanced_ones_have_rates():
    run = recorded()
    bal = DiscreteMassBalance(PAIR, scheme="exponential")
    some = bal.rates_from_trajectory(run, [4, 1])
    assert jnp.allclose(some, jnp.tile(RATES[jnp.array([4, 1])], (4, 1)), atol=1e-10)
    wide = Trajectory(
        jnp.ones((5, 13)), run.controls, run.volume_L, run.days, list(REGISTRY), run.control_names
    )
    rates = bal.rates_from_trajectory(wide)
    empty = {n for n, r in zip(REGISTRY, rates.T, strict=True) if jnp.isnan(r).all()}
    assert empty == {"VCV", "Diam"}


def test_own_sieving_of_the_balance_is_used():
    import dataclasses

    run = recorded(names=("VCD", "Glc", "Titer"))
    held = dataclasses.replace(REG["Titer"], sieving=0.0)
    free = DiscreteMassBalance([REG["Titer"]], scheme="exponential").rates_from_trajectory(run)
    kept = DiscreteMassBalance([held], scheme="exponential").rates_from_trajectory(run)
    assert jnp.all(kept[:, 2] < free[:, 2])
    assert jnp.allclose(kept[:, :2], free[:, :2])


def test_rates_of_a_run_jit_and_vmap():
    run = recorded()
    bal = DiscreteMassBalance([REG[n] for n in STATE_ORDER], scheme="exponential")
    eager = bal.rates_from_trajectory(run)
    rack = jax.tree.map(lambda x: jnp.stack([x, x]), run)
    both = jax.jit(jax.vmap(bal.rates_from_trajectory))(rack)
    assert jnp.allclose(both, jnp.stack([eager, eager]), rtol=1e-12, atol=1e-14)


def test_refused_runs():
    run = recorded()
    bal = DiscreteMassBalance(PAIR)
    with pytest.raises(DataError, match=r"species_indices \[9\] are outside"):
        bal.rates_from_trajectory(run, [0, 9])
    with pytest.raises(DataError, match="'Via' needs the column 'VCD'"):
        bal.rates_from_trajectory(recorded(names=("Via", "Glc")))
    lost = Trajectory(
        run.species, run.controls[:, 1:], run.volume_L, run.days, run.species_names,
        run.control_names[1:],
    )  # fmt: skip
    with pytest.raises(DataError, match="perfusion_rate"):
        interval_flows(lost)
    one = jax.tree.map(lambda x: x[:1], run)
    with pytest.raises(DataError, match="at least two samples"):
        interval_lengths(one)
    turned = jax.tree.map(lambda x: x[::-1], run)
    with pytest.raises(DataError, match="increase strictly"):
        interval_lengths(turned)
    shrinking = Trajectory(
        run.species, run.controls, jnp.linspace(0.25, 5.0, 5), run.days, run.species_names,
        run.control_names,
    )  # fmt: skip
    with pytest.raises(DataError, match="streams and volumes disagree in interval 0"):
        interval_flows(shrinking)


# -- flows --------------------------------------------------------------------------------


def test_perfusion_keeps_the_volume_and_bleeds_metabolites():
    flows = perfusion_flows(U, 0.25, 0.001, Medium(), 24.0)
    assert jnp.isclose(flows.volume_rate(), 0.0, atol=1e-17)
    whole = flows.inflow
    for name, cleared in zip(BALANCED, flows.clearance(), strict=True):
        assert jnp.isclose(cleared, flows.bleed if name in ("Xv", "Xd") else whole)
    glc = BALANCED.index("Glc")
    assert jnp.isclose(flows.supply[glc], 0.25 / 24 * 6.0 + 0.001 / 24 * 400.0)


def test_perfusion_flows_batch_equals_loop():
    u = jnp.stack([U, U.at[0].set(2.0)])
    V, glucose = jnp.array([0.25, 0.2]), jnp.array([0.0, 0.002])
    batch = perfusion_flows(u, V, glucose, Medium(), 24.0)
    looped = [perfusion_flows(u[i], V[i], glucose[i], Medium(), 24.0) for i in range(2)]
    for i, one in enumerate(looped):
        assert jnp.allclose(batch.supply[i], one.supply) and jnp.isclose(batch.bleed[i], one.bleed)
    mapped = jax.vmap(lambda a, b, c: perfusion_flows(a, b, c, Medium(), 24.0).supply)(
        u, V, glucose
    )
    assert jnp.allclose(mapped, batch.supply)


def test_bleed_above_perfusion_is_refused():
    with pytest.raises(ConfigError, match="bleed_rate can be at most perfusion_rate"):
        perfusion_flows(U.at[1].set(1.5), 0.25, 0.0, Medium(), 24.0)


def test_pump_law():
    glucose = jnp.array([4.9, 1.0, 6.0])
    pump = GlucosePump()
    assert jnp.allclose(glucose_pump_rate(glucose, 5.0), pump.flux(glucose, 5.0) / 400.0)
    rates = glucose_pump_rate(glucose, 5.0, gain=1e-3, limit=2e-3)
    rounded = 0.5 * float(pump.rounding) / 400.0  # the corners are round, the rest is the clip
    assert jnp.all(jnp.abs(rates - jnp.array([1e-4, 2e-3, 0.0])) < rounded)
    assert jnp.all(jnp.abs(rates - jnp.array([1e-4, 2e-3, 0.0]))[1:] < 0.05 * rounded)
    assert jnp.all((rates > 0) & (rates < 2e-3))


# -- FlowRateCalculator -------------------------------------------------------------------


def test_harvest_carries_what_passes_the_filter():
    calc = FlowRateCalculator(0.25, species=PAIR)
    c, feed = jnp.array([20.0, 4.0]), jnp.array([0.0, 6.0])
    u_f, u_b, u_p = calc.compute_flows(c, 1.0, 0.2, feed)
    per_hour = 0.25 / 24
    assert jnp.allclose(u_f, per_hour * feed)
    assert jnp.allclose(u_b, 0.2 * per_hour * c)
    assert jnp.allclose(u_p, 0.8 * per_hour * jnp.array([0.0, 4.0]))
    free = calc.compute_flows(c, 1.0, 0.2, feed, jnp.ones(2))[2]
    assert jnp.allclose(free, 0.8 * per_hour * c)
    assert jnp.all(calc.compute_flows(c, 1.0, 0.2)[0] == 0.0)


def test_flows_do_not_depend_on_the_sampling_interval():
    c = jnp.ones(2)
    daily = FlowRateCalculator(0.25, 24.0, species=PAIR).compute_flows(c, 1.0, 0.2, c)
    twice = FlowRateCalculator(0.25, 12.0, species=PAIR).compute_flows(c, 1.0, 0.2, c)
    assert all(jnp.array_equal(a, b) for a, b in zip(daily, twice, strict=True))


def test_library_layouts_bring_their_sieving():
    calc = FlowRateCalculator()
    for names, cells in ((BALANCED, {"Xv", "Xd"}), (REGISTRY, None), (REGISTRY[:-1], None)):
        held = {"VCD", "VCV", "Via", "Diam", "DCD", "Lys"} if cells is None else cells
        u_p = calc.compute_flows(jnp.ones(len(names)), 1.0, 0.2)[2]
        assert {n for n, u in zip(names, u_p, strict=True) if u == 0.0} == held & set(names)


def test_flow_batches_and_transforms():
    calc = FlowRateCalculator(species=PAIR)
    c = jnp.array([[20.0, 4.0], [10.0, 5.0]])
    rate = jnp.array([1.0, 2.0])
    batch = calc.compute_flows(c, rate, 0.2, jnp.ones(2))
    for i in range(2):
        one = calc.compute_flows(c[i], rate[i], 0.2, jnp.ones(2))
        assert all(jnp.allclose(b[i], o) for b, o in zip(batch, one, strict=True))
    jitted = jax.jit(calc.compute_flows)(c, rate, 0.2, jnp.ones(2))
    assert all(jnp.allclose(a, b) for a, b in zip(jitted, batch, strict=True))


def test_the_calculator_feeds_the_balance():
    calc, bal = FlowRateCalculator(0.25, species=PAIR), DiscreteMassBalance(PAIR)
    c, feed = jnp.array([20.0, 4.0]), jnp.array([0.0, 6.0])
    u = calc.compute_flows(c, 1.0, 0.2, feed)
    after = bal.step(c, jnp.zeros(2), 0.25, *u)
    assert jnp.allclose(after, jnp.array([20.0 * (1 - 0.2), 4.0 + 6.0 - 4.0]))


def test_refusals_of_the_calculator():
    with pytest.raises(ConfigError, match="must be positive"):
        FlowRateCalculator(0.0)
    with pytest.raises(ConfigError, match="exceeds the inflow"):
        FlowRateCalculator().compute_flows(jnp.ones(9), 0.1, 0.2)
    with pytest.raises(ConfigError, match="no sieving coefficients are known for 4 columns"):
        FlowRateCalculator().compute_flows(jnp.ones(4), 1.0, 0.2)
