"""What goes in, minus what goes out, plus what is made, is inside: every mode, every species."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax.mechanistic import (
    PLANT_SPECIES,
    CHOKinetics,
    GlucosePump,
    Method,
    Reactor,
    Tolerances,
    integrate,
    make_plan,
)
from tests.mechanistic.cases import both_clones, random_controls, random_starts

DAYS, RUNS, VOLUME = 28, 3, 0.25
MODES = {
    "vvd": ("perfusion", "vvd"),
    "cspr": ("perfusion", "cspr"),
    "chemostat": ("chemostat", "vvd"),
    "fed_batch": ("fed_batch", "vvd"),
}
GLC, GLN, GLU, AMM, PYR, MAB = (
    PLANT_SPECIES.index(s) for s in ("Glc", "Gln", "Glu", "Amm", "Pyr", "Titer")
)
solve = eqx.filter_jit(integrate)


def flows(name, seed=1):
    """Set-points that change every day, and the samples and boluses of a fed-batch."""
    controls = random_controls(seed, (RUNS, DAYS))
    rng = np.random.default_rng(seed + 1)
    if name == "cspr":
        controls[..., 0] = rng.uniform(20.0, 80.0, controls.shape[:2])  # pL/cell/d
    if name == "fed_batch":
        controls[..., 0] = rng.uniform(0.0, 0.08, controls.shape[:2])
        controls[..., 1] = 0.0
        removed = rng.uniform(0.0, 0.005, (RUNS, DAYS))
        bolus = rng.uniform(0.0, 1e-2, (RUNS, DAYS, 11)) * (rng.random((RUNS, DAYS, 1)) < 0.3)
        bolus[..., :3] = 0.0  # nobody feeds cells
        return controls, {"removed_L": jnp.asarray(removed), "bolus": jnp.asarray(bolus)}
    return controls, {}


def run(name, *, kinetics=None, pump=None, rtol=3e-4, controls=None):
    mode, perfusion_mode = MODES[name]
    reactor = Reactor(
        kinetics=both_clones(RUNS) if kinetics is None else kinetics,
        pump=GlucosePump() if pump is None else pump,
        mode=mode,
        perfusion_mode=perfusion_mode,
    )
    drawn, events = flows(name)
    controls = drawn if controls is None else controls
    plan = make_plan(
        reactor,
        jnp.asarray(random_starts(3, RUNS)),
        jnp.asarray(controls),
        jnp.full(DAYS, 24.0),
        volume_L=VOLUME,
        **events,
    )
    out = solve(reactor, plan, Tolerances(rtol=rtol), Method(totals="balance"))
    assert np.all(np.asarray(out.result) == 0)
    return controls, {k: np.asarray(v) for k, v in events.items()}, out


def inert():
    """Glutamate that no cell makes or eats is a tracer in the medium."""
    kinetics = both_clones(RUNS)
    zero = jnp.zeros(RUNS)
    return eqx.tree_at(lambda k: (k.Y_glu_gln, k.q_glu_max), kinetics, (zero, zero))


def no_pump():
    return GlucosePump(limit=0.0)


@pytest.fixture(scope="module")
def runs():
    return {name: run(name) for name in MODES}


def added_and_sampled(events, c):
    """Cumulative boluses less samples per sample time; a sample is taken before the bolus."""
    total = np.zeros_like(c)
    if events:
        jumps = events["bolus"][..., :10] - events["removed_L"][..., None] * c[:, :-1]
        total[:, 1:] = np.cumsum(jumps, axis=1)
    return total


@pytest.mark.parametrize("name", MODES)
def test_every_species_closes_over_28_days(runs, name):
    _, events, out = runs[name]
    c, volume = np.asarray(out.concentrations), np.asarray(out.volume_L)[..., None]
    totals = np.asarray(out.totals)
    into, outof, made = totals[..., :10], totals[..., 10:20], totals[..., 20:30]
    inside = c * volume
    by_hand = added_and_sampled(events, c)
    gap = inside - inside[:, :1] - into + outof - made - by_hand
    turnover = inside + np.abs(into) + np.abs(outof) + np.abs(made) + np.abs(by_hand)
    assert np.all(turnover[:, 1:] > 0)
    assert np.max(np.abs(gap) / np.maximum(turnover, 1e-300)) < 1e-9


@pytest.mark.parametrize("name", MODES)
def test_volume_closes(runs, name):
    _, events, out = runs[name]
    volume, totals = np.asarray(out.volume_L), np.asarray(out.totals)
    perfusion, bleed, glucose, harvest = np.moveaxis(totals[..., 30:], -1, 0)
    expected = VOLUME + perfusion + glucose - bleed - harvest
    if events:
        jumps = events["bolus"][..., 10] - events["removed_L"]
        expected[:, 1:] += np.cumsum(jumps, axis=1)
        assert np.ptp(volume) > 0.01
    else:
        assert np.all(volume == VOLUME)
    np.testing.assert_allclose(volume, expected, rtol=1e-9)


@pytest.mark.parametrize("name", MODES)
def test_streams_carry_what_their_composition_says(runs, name):
    controls, _, out = runs[name]
    totals = np.asarray(out.totals)
    into, perfusion, glucose = totals[..., :10], totals[..., 30], totals[..., 32]
    np.testing.assert_allclose(into[..., GLN], 8.0 * perfusion, rtol=1e-9)
    np.testing.assert_allclose(into[..., GLU], 0.5 * perfusion, rtol=1e-9)
    np.testing.assert_allclose(into[..., GLC], 6.0 * perfusion + 400.0 * glucose, rtol=1e-9)
    pyruvate = np.cumsum(np.diff(perfusion, axis=1) * controls[..., 5], axis=1)
    np.testing.assert_allclose(into[:, 1:, PYR], pyruvate, rtol=1e-9)
    assert np.all(into[..., [0, 1, 2, MAB]] == 0)
    assert np.all(glucose[:, -1] > 0)


@pytest.mark.parametrize("name", MODES)
def test_reactions_keep_their_stoichiometry(runs, name):
    made = np.asarray(runs[name][2].totals)[:, 1:, 20:30]
    scale = np.max(np.abs(made), axis=(0, 1))
    # One ammonium leaves with each pyruvate; the rest comes from glutamine.
    ammonium = made[..., PYR] - 0.85 * made[..., GLN]
    assert np.max(np.abs(made[..., AMM] - ammonium)) < 1e-9 * scale[AMM]
    assert np.all(np.diff(made[..., PYR], axis=1) < 0)
    assert np.all(np.diff(made[..., [GLC, GLN]], axis=1) < 0)
    assert np.all(np.diff(made[..., [2, MAB]], axis=1) > 0)


def test_streams_are_the_setpoints(runs):
    controls, _, out = runs["vvd"]
    perfusion, bleed, glucose, harvest = np.moveaxis(np.asarray(out.totals)[..., 30:], -1, 0)
    by_setpoint = VOLUME * np.cumsum(controls, axis=1)
    np.testing.assert_allclose(perfusion[:, 1:], by_setpoint[..., 0], rtol=1e-9)
    np.testing.assert_allclose(bleed[:, 1:], by_setpoint[..., 1], rtol=1e-9)
    np.testing.assert_allclose(harvest, perfusion + glucose - bleed, rtol=1e-9, atol=1e-12)
    controls, _, out = runs["chemostat"]
    perfusion, bleed, glucose, harvest = np.moveaxis(np.asarray(out.totals)[..., 30:], -1, 0)
    np.testing.assert_allclose(perfusion[:, 1:], VOLUME * np.cumsum(controls[..., 0], 1), rtol=1e-9)
    np.testing.assert_allclose(bleed, perfusion + glucose, rtol=1e-9)
    assert np.all(harvest == 0)
    controls, _, out = runs["fed_batch"]
    perfusion, bleed, glucose, harvest = np.moveaxis(np.asarray(out.totals)[..., 30:], -1, 0)
    np.testing.assert_allclose(perfusion[:, 1:], VOLUME * np.cumsum(controls[..., 0], 1), rtol=1e-9)
    assert np.all(bleed == 0) and np.all(harvest == 0)


def test_perfusion_per_cell_follows_the_cells(runs):
    controls, _, out = runs["cspr"]
    perfusion = np.diff(np.asarray(out.totals)[..., 30], axis=1)
    cells = np.asarray(out.concentrations)[..., 0]
    low, high = np.minimum(cells[:, 1:], cells[:, :-1]), np.maximum(cells[:, 1:], cells[:, :-1])
    per_cell = VOLUME * 1e-3 * controls[..., 0]  # pL/cell/d of 1e6 cells/mL = 1e-3 per day
    between = (perfusion > 0.97 * per_cell * low) & (perfusion < 1.03 * per_cell * high)
    assert np.mean(between) > 0.9  # a day may hold its own peak or trough


@pytest.mark.parametrize("name", MODES)
def test_inert_tracer_closes_and_washes_out(name):
    _, events, out = run(name, kinetics=inert(), pump=no_pump(), rtol=1e-8)
    totals, volume = np.asarray(out.totals), np.asarray(out.volume_L)
    tracer = np.asarray(out.concentrations)[..., GLU]
    inside = tracer * volume
    by_hand = added_and_sampled(events, np.asarray(out.concentrations))[..., GLU]
    gap = inside - inside[:, :1] - totals[..., GLU] + totals[..., 10 + GLU] - by_hand
    assert np.all(totals[..., 20 + GLU] == 0)
    assert np.max(np.abs(gap) / inside) < 1e-9
    perfused = np.diff(totals[..., 30], axis=1)
    expected = [tracer[:, 0]]
    if name == "fed_batch":
        V = volume[:, 0]
        for d in range(DAYS):
            amount = expected[-1] * (V - events["removed_L"][:, d]) + events["bolus"][:, d, GLU]
            V = V - events["removed_L"][:, d] + events["bolus"][:, d, 10] + perfused[:, d]
            expected.append((amount + 0.5 * perfused[:, d]) / V)
    else:
        for d in range(DAYS):  # everything small leaves at the whole dilution rate
            left = np.exp(-perfused[:, d] / VOLUME)
            expected.append(0.5 + (expected[-1] - 0.5) * left)
    np.testing.assert_allclose(tracer, np.stack(expected, axis=1), rtol=1e-6)


def test_the_bleed_takes_small_molecules_with_it():
    """Small molecules leave at the whole dilution rate, whatever part of it is bleed.

    An outflow of perfusion less bleed, the error of the reference implementation, would make
    the tracer settle at medium * D / (D - bleed), 43 % above the medium here.
    """
    controls = np.broadcast_to([1.0, 0.05, 5.0, 36.5, 850.0, 1.0], (RUNS, DAYS, 6)).copy()
    controls[:, :, 1] = np.array([0.05, 0.175, 0.30])[:, None]
    _, _, out = run("vvd", kinetics=inert(), pump=no_pump(), rtol=1e-8, controls=controls)
    tracer, cells = np.asarray(out.concentrations)[..., GLU], np.asarray(out.concentrations)[..., 0]
    np.testing.assert_allclose(tracer[:, -1], 0.5, rtol=1e-7)
    carried = np.asarray(out.totals)[..., 10 + GLU]
    settled = np.diff(carried[:, -8:], axis=1)
    np.testing.assert_allclose(settled, 0.5 * VOLUME * 1.0, rtol=1e-7)
    assert np.all(np.diff(cells[:, -1]) < -1.0)  # while cells feel the bleed


def test_retained_product_builds_up():
    controls = np.broadcast_to([1.0, 0.1, 5.0, 36.5, 850.0, 1.0], (RUNS, DAYS, 6))
    mode = MODES["vvd"]
    titers = []
    for sieving in (1.0, 0.3):
        reactor = Reactor(
            kinetics=both_clones(RUNS),
            sieving=jnp.asarray([0.0] * 3 + [1.0] * 6 + [sieving]),
            mode=mode[0],
            perfusion_mode=mode[1],
        )
        plan = make_plan(
            reactor,
            jnp.asarray(random_starts(3, RUNS)),
            jnp.asarray(controls),
            jnp.full(DAYS, 24.0),
            volume_L=VOLUME,
        )
        out = solve(reactor, plan, Tolerances(rtol=3e-4), Method(totals="balance"))
        titers.append(np.asarray(out.concentrations)[..., MAB])
        totals = np.asarray(out.totals)
        lost = totals[..., 10 + MAB]
        gap = titers[-1] * VOLUME - titers[-1][:, :1] * VOLUME + lost - totals[..., 20 + MAB]
        assert np.max(np.abs(gap)[:, 1:] / totals[:, 1:, 20 + MAB]) < 1e-9
    # In balance the titer goes with 1 / (bleed + sieving * harvest).
    ratio = titers[1][:, -1] / titers[0][:, -1]
    assert np.all((ratio > 2.0) & (ratio < 1.0 / (0.1 + 0.3 * 0.9) * 1.05))


def test_kinetics_are_those_of_the_clones(runs):
    """Guards the fixture: runs of the two clones must not coincide."""
    out = runs["vvd"][2]
    assert isinstance(both_clones(RUNS), CHOKinetics)
    assert np.max(np.abs(np.diff(np.asarray(out.concentrations)[:2, -1], axis=0))) > 0.1
