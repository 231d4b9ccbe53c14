"""Derived numbers against closed forms, the model's own balance, and drawn assay noise."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import STREAM_TOTALS, DataError
from perfusio_jax.chemistry.schemes import balance_rates
from perfusio_jax.process import (
    CHO_FED_BATCH,
    CHO_PERFUSION,
    MONOD_CHEMOSTAT,
    Control,
    Process,
    Quantity,
    Stream,
    derive,
    log_mean,
    mean_of,
    recorded_flows,
    stream_flows,
)
from perfusio_jax.states import Trajectory

HOURS = np.array([0.0, 10.0, 24.0, 31.0, 55.0])
BATCH = Process(
    name="batch",
    volume_L=1.0,
    biomass="X",
    quantities=(
        Quantity(name="X", unit="1e6 cells/mL", hi=50.0, cv=0.05),
        Quantity(name="D", unit="1e6 cells/mL", hi=50.0, is_measured=False),
        Quantity(name="Via", unit="%", kind="derived", formula="viability", of=("X", "D"), hi=100.0,
                 cv=0.02),
        Quantity(name="S", unit="g/L", hi=100.0, cv=0.04, floor=0.02),
    ),
)  # fmt: skip


def run_of(process: Process, columns: dict, hours=HOURS, volume=None, **controls) -> Trajectory:
    n = len(hours)
    table = {c.name: np.full(n, c.default) for c in process.controls} | controls
    totals = np.full((n, len(STREAM_TOTALS)), np.nan)
    return Trajectory(
        np.stack([np.broadcast_to(v, n) for v in columns.values()], axis=1).astype(float),
        np.stack([np.broadcast_to(v, n) for v in table.values()], axis=1) if table
        else np.zeros((n, 0)),
        np.full(n, process.volume_L) if volume is None else volume,
        np.arange(n), list(columns), list(table), times_h=hours, stream_totals=totals,
        run_id="A", reactor_id="R1", clone_id="X",
    )  # fmt: skip


def batch_run(mu=0.04, death=0.005, q=2e-2) -> Trajectory:
    """Cells that grow exponentially while some die, on a substrate they take up at one rate."""
    net = mu - death
    live = np.exp(net * HOURS)
    cell_hours = (live - 1.0) / net
    dead = 0.1 + death * cell_hours
    return run_of(BATCH, {"X": live, "Via": 100 * live / (live + dead), "S": 50.0 - q * cell_hours})


def test_exponential_growth_in_a_batch_gives_back_every_rate_at_odd_hours():
    found = derive(BATCH, batch_run())
    np.testing.assert_allclose(found.number("growth_net").values, 24 * 0.035, rtol=1e-12)
    np.testing.assert_allclose(found.number("death").values, 24 * 0.005, rtol=1e-10)
    np.testing.assert_allclose(found.number("growth").values, 24 * 0.04, rtol=1e-10)
    # 2e-2 g/L/h per 1e6 cells/mL are 2e-11 g per cell and hour
    np.testing.assert_allclose(found.number("q_S").values, -2e-2 * 24e3, rtol=1e-10)
    assert found.number("q_S").unit == "pg/cell/d"
    hours = (np.exp(0.035 * HOURS[1:]) - 1.0) / 0.035
    np.testing.assert_allclose(found.number("IVCD").values, hours / 24.0, rtol=1e-12)
    assert found.number("IVCD").unit == "1e6 cells/mL d"
    assert found.from_h.tolist() == HOURS[:-1].tolist()
    names = [n.name for n in found.numbers]
    assert "CSPR" not in names and not any(n.startswith("yield") for n in names)  # nothing is fed
    with pytest.raises(KeyError, match="growth_net"):
        found.number("mu")


def test_a_chemostat_at_steady_state():
    run = run_of(
        MONOD_CHEMOSTAT,
        {"X": 4.0, "S": 0.5, "P": 1.5},
        dilution=np.full(5, 0.2),
        feed_S=np.full(5, 10.0),
    )
    found = derive(MONOD_CHEMOSTAT, run)
    for name, value, unit in (
        ("growth_net", 0.2, "1/h"),
        ("q_S", -0.2 * 9.5 / 4.0, "g/g/h"),
        ("q_P", 0.2 * 1.5 / 4.0, "g/g/h"),
        ("rate_P", 0.3, "g/L/h"),
        ("yield_X_S", 4.0 / 9.5, "g/g"),
        ("yield_P_S", 1.5 / 9.5, "g/g"),
        ("integral_X", None, "g/L h"),
    ):
        number = found.number(name)
        assert number.unit == unit, name
        if value is not None:
            np.testing.assert_allclose(number.values, value, rtol=1e-10, err_msg=name)
    np.testing.assert_allclose(found.number("integral_X").values, 4.0 * HOURS[1:], rtol=1e-12)


def test_rates_are_those_of_the_models_balance_in_perfusion():
    rng = np.random.default_rng(0)
    names = {"Xv": "VCD", "Xd": "DCD"}
    columns = {names.get(n, n): rng.uniform(1.0, 9.0, 5) for n in CHO_PERFUSION.carried}
    set_to = {
        "perfusion_rate": rng.uniform(0.5, 2.0, 5),
        "bleed_rate": rng.uniform(0.05, 0.3, 5),
        "pyruvate_feed": rng.uniform(0.0, 5.0, 5),
    }
    run = run_of(CHO_PERFUSION, columns, **set_to)
    fed = np.array([np.nan, 0.001, 0.002, 0.0, 0.004])
    totals = np.asarray(run.stream_totals).copy()
    totals[:, STREAM_TOTALS.index("V_glucose_L")] = fed
    run = dataclasses.replace(run, stream_totals=jnp.asarray(totals))
    found = derive(CHO_PERFUSION, run)
    u = np.asarray(run.controls)[:-1]
    dt = np.diff(HOURS)
    flows = stream_flows(
        CHO_PERFUSION,
        jnp.asarray(u),
        jnp.full(4, 0.25),
        {"glucose_feed": jnp.asarray(fed[1:] / dt)},
    )
    c = jnp.asarray(np.stack(list(columns.values()), axis=1))
    V = jnp.full(4, 0.25)
    R = np.asarray(balance_rates(c[:-1], c[1:], V, V, flows, jnp.asarray(dt)))
    for k, name in enumerate(CHO_PERFUSION.carried):
        np.testing.assert_allclose(
            found.number(f"rate_{name}").values, 24 * R[:, k], rtol=1e-8, err_msg=name
        )
    X = np.asarray(log_mean(columns["VCD"][:-1], columns["VCD"][1:]))
    np.testing.assert_allclose(
        found.number("CSPR").values, 1000 * set_to["perfusion_rate"][:-1] / X, rtol=1e-10
    )
    assert found.number("q_Lac").unit == "pmol/cell/d"
    np.testing.assert_allclose(found.number("q_Lac").values, 24 * R[:, 5] / X, rtol=1e-8)


def test_a_pump_without_totals_or_law_leaves_what_it_touches_unknown():
    columns = {"VCD": 5.0, "Glc": 4.0}
    run = run_of(CHO_PERFUSION, columns)
    assert np.isnan(derive(CHO_PERFUSION, run).number("rate_Glc").values).all()
    law = {"glucose_feed": lambda glucose, target: 1e-3 * (target - glucose)}
    found = recorded_flows(CHO_PERFUSION, run, law)
    target = CHO_PERFUSION.control("glucose_setpoint").default
    medium = CHO_PERFUSION.control("perfusion_rate").default * 0.25 / 24.0
    np.testing.assert_allclose(found.inflow, medium + 0.25e-3 * (target - 4.0), rtol=1e-12)
    np.testing.assert_allclose(found.medium, medium, rtol=1e-12)
    assert not found.is_recorded.any()
    assert np.isfinite(derive(CHO_PERFUSION, run, law).number("rate_Glc").values).all()


def test_a_bolus_counts_as_taken_up_and_a_missing_one_is_not_nothing():
    level = np.array([5.0, 4.0, 3.0, 2.0, 1.0])
    given = np.array([0.0, 0.4, 0.0, np.nan, 0.0])
    volume = np.array([0.2, 0.2, 0.19, 0.19, 0.19])
    run = run_of(
        CHO_FED_BATCH, {"VCD": 2.0, "Glc": level, "Gln": 3.0}, volume=volume, glucose_bolus=given
    )
    found = derive(CHO_FED_BATCH, run)
    expected = 24 * np.array([-1.0, -3.0, -1.0, np.nan]) / np.diff(HOURS)  # 0.4 g in 0.2 L
    np.testing.assert_allclose(found.number("rate_Glc").values, expected, rtol=1e-12)
    np.testing.assert_allclose(found.number("rate_Gln").values, 0.0, atol=1e-12)
    # broth that was drawn changes no concentration, and is said
    np.testing.assert_allclose(
        found.number("volume_unexplained").values, [0, -0.01, 0, 0], atol=1e-12
    )
    lacking = dataclasses.replace(run, controls=run.controls[:, :-1], control_names=("temperature",
                                  "pH", "glucose_bolus"))  # fmt: skip
    with pytest.raises(DataError, match="lacks the controls glutamine_bolus"):
        derive(CHO_FED_BATCH, lacking)
    with pytest.raises(DataError, match="1 sample"):
        derive(CHO_FED_BATCH, run_of(CHO_FED_BATCH, {"VCD": 1.0}, hours=HOURS[:1]))


def test_a_volume_that_flows_move_is_followed_and_dilutes():
    filling = Process(
        name="filling",
        volume_L=1.0,
        biomass="X",
        quantities=(Quantity(name="X", unit="g/L", hi=50.0),
                    Quantity(name="S", unit="g/L", hi=50.0)),
        controls=(Control(name="f", unit="1/h", role="flow", lo=0.0, hi=1.0, default=0.1),),
        streams=(Stream(name="feed", direction="in", flow="f", carries={"S": 20.0}),),
    )  # fmt: skip
    ends = [1.0]
    for dt in np.diff(HOURS):
        ends.append(ends[-1] * (1.0 + 0.1 * dt))  # the flow of an interval is that of its start
    ends = np.array(ends)
    amount = 2.0  # nothing grows: amounts stay
    S = (0.0 + 20.0 * (ends - 1.0)) / ends
    found = derive(filling, run_of(filling, {"X": amount / ends, "S": S}))
    np.testing.assert_allclose(found.number("rate_X").values, 0.0, atol=1e-12)
    np.testing.assert_allclose(found.number("rate_S").values, 0.0, atol=1e-10)
    np.testing.assert_allclose(recorded_flows(filling, run_of(filling, {"X": 1.0})).end_L, ends[1:])


def test_carbon_is_found_again_where_glucose_goes_to_lactate_and_cells():
    live = np.exp(0.03 * HOURS)
    glucose_mol = (live - 1.0) * 2.0  # mmol/L taken up, half of the carbon to lactate
    columns = {
        "VCD": live,
        "Glc": 40.0 - glucose_mol * 0.180156,
        "Lac": glucose_mol,  # 3 of 6 carbons
        "Gln": 4.0,
    }
    found = derive(CHO_FED_BATCH, run_of(CHO_FED_BATCH, columns)).number("carbon_found")
    expected = 100 * (3.0 * 2.0 + 10.0) / (6 * 2.0)  # cells hold 10 mmol/L per 1e6 cells/mL
    np.testing.assert_allclose(found.values, expected, rtol=1e-8)
    assert np.all(found.errors > 0.0)


def test_what_is_not_known_is_nan_and_nothing_else_is():
    run = batch_run()
    species = np.asarray(run.species).copy()
    species[2, 0] = np.nan  # a count
    species[1, 2] = np.nan  # a substrate
    found = derive(BATCH, dataclasses.replace(run, species=jnp.asarray(species)))
    growth, cells = found.number("growth_net").values, found.number("IVCD").values
    assert np.isnan(growth).tolist() == [False, True, True, False]
    assert np.isnan(found.number("rate_S").values).tolist() == [True, True, False, False]
    hours = (np.exp(0.035 * HOURS[1:]) - 1.0) / 0.035 / 24.0
    np.testing.assert_allclose(cells, [hours[0], np.nan, *hours[2:]], rtol=1e-12)
    nothing = derive(BATCH, run_of(BATCH, {"X": np.nan, "S": 1.0}))
    assert np.isnan(nothing.number("IVCD").values).all()


def test_yields_are_told_only_where_uptake_is_told_from_nothing():
    S = np.array([5.0, 5.01, 4.0, 2.0, 2.0])
    run = run_of(MONOD_CHEMOSTAT, {"X": 1.0, "S": S, "P": 1.0}, dilution=np.zeros(5))
    found = derive(MONOD_CHEMOSTAT, run)
    uptake = found.number("rate_S")
    clear = uptake.values < -2.0 * uptake.errors
    assert np.isfinite(found.number("yield_X_S").values).tolist() == clear.tolist()
    assert 0 < clear.sum() < 4


N, SCALE = 800, 0.05
"""Draws, and their size over the assays': what is propagated is the first order."""
DRAWN = ("growth_net", "growth", "death", "q_S", "rate_S", "IVCD")


@pytest.fixture(scope="module")
def drawn() -> dict[str, np.ndarray]:
    """Numbers of the batch (N, I) under drawn noise of its assays, by name."""
    run = batch_run()
    truth = np.asarray(run.species)
    p = truth[:, 1] / 100.0
    sds = np.stack(
        [0.05 * truth[:, 0], 100 * np.sqrt(p * (1 - p) * 9.0) * 0.02,
         np.hypot(0.04 * truth[:, 2], 0.02)], axis=1,
    )  # fmt: skip
    rng = np.random.default_rng(1)
    found = []
    for _ in range(N):
        noisy = truth + SCALE * sds * rng.normal(size=truth.shape)
        found.append(derive(BATCH, dataclasses.replace(run, species=jnp.asarray(noisy))))
    return {name: np.array([f.number(name).values for f in found]) for name in DRAWN}


@pytest.mark.parametrize("name", DRAWN)
def test_standard_errors_are_those_of_drawn_assay_noise(drawn, name):
    found, draws = derive(BATCH, batch_run()).number(name), drawn[name]
    # the standard deviation of n draws is off by 1 / sqrt(2 n); four of those
    np.testing.assert_allclose(draws.std(axis=0), SCALE * found.errors, rtol=4 / np.sqrt(2 * N))
    if name == "IVCD":
        return
    together = np.cov(draws.T)[np.arange(3), np.arange(1, 4)] / SCALE**2
    bound = 4.0 * found.errors[:-1] * found.errors[1:] * np.sqrt(2.0 / N)
    assert np.all(np.abs(together - found.shared) < bound)
    w = np.diff(HOURS)
    mean, error = mean_of(found, w)
    np.testing.assert_allclose(mean, np.average(found.values, weights=w), rtol=1e-12)
    spread = np.average(draws, axis=1, weights=w).std() / SCALE
    np.testing.assert_allclose(spread, error, rtol=4 / np.sqrt(2 * N))


def test_the_mean_of_nothing_is_nothing():
    number = derive(BATCH, batch_run()).number("q_S")
    blank = number._replace(values=np.full(4, np.nan))
    assert all(np.isnan(v) for v in mean_of(blank, np.ones(4)))


def test_equal_ends_have_their_own_value_as_mean():
    x = np.array([2.0, 3.0, 1.0, 0.0, 1e-9])
    y = np.array([2.0, 3.0 * (1 + 1e-6), 2.0, 1.0, 1.0])
    exact = [2.0, 3.0 * (1 + 0.5e-6), 1 / np.log(2.0), np.nan, (1 - 1e-9) / np.log(1e9)]
    np.testing.assert_allclose(log_mean(x, y), exact, rtol=1e-11)
