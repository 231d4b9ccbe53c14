"""Pump laws: what is refused, and the step of a model and a plant against an ODE solver's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from perfusio_jax._core import ConfigError
from perfusio_jax.bed.goal.expressions import RunForm, parse_expression
from perfusio_jax.hybrid import Vessel
from perfusio_jax.hybrid.layout import layout_of
from perfusio_jax.mechanistic import Mechanism, constant
from perfusio_jax.process import Control, Process, Quantity, Stream, stream_flows, volume_balance
from perfusio_jax.process.laws import laws_of
from perfusio_jax.process.parts import flow_per_biomass
from perfusio_jax.simulator import run_plant, virtual_plant

CELLS = Quantity(name="X", unit="1e6 cells/mL", hi=100.0)
SUGAR = Quantity(name="S", unit="g/L", hi=100.0)
PRODUCT = Quantity(name="P", unit="g/L", hi=10.0)
CSPR = Control(name="cspr", unit="pL/cell/d", role="flow", lo=10.0, hi=100.0, default=40.0)
MEDIUM = Control(name="medium", unit="vvd", role="flow", lo=0.5, hi=4.0, default=2.0)


def target(name, quantity, unit, hi=50.0, **more):
    return Control(
        name=name, unit=unit, role="target", lo=0.0, hi=hi, default=5.0, quantity=quantity, **more
    )


def culture(name, controls, streams):
    return Process(
        name=name,
        volume_L=0.5,
        biomass="X",
        quantities=(CELLS, SUGAR, PRODUCT),
        controls=controls,
        streams=streams,
    )


FRESH = Stream(name="fresh", direction="in", flow="medium", carries={"S": 8.0})
HARVEST = Stream(name="harvest", direction="out", flow="rest", passes={"X": 0.0})
BLED = culture(
    "bled",
    (MEDIUM, target("density", "X", "1e6 cells/mL", gain=0.5, most=0.06)),
    (FRESH, Stream(name="bleed", direction="out", flow="density"), HARVEST),
)
"""Perfusion whose bleed holds the cells."""
PER_CELL = culture(
    "per_cell",
    (CSPR, target("density", "X", "1e6 cells/mL", gain=0.5)),
    (
        Stream(name="fresh", direction="in", flow="cspr", carries={"S": 8.0}),
        Stream(name="bleed", direction="out", flow="density"),
        HARVEST,
    ),
)
"""The same at a perfusion per cell."""
TURBID = culture(
    "turbid",
    (target("density", "X", "1e6 cells/mL", gain=1.0, most=0.2),),
    (
        Stream(name="fresh", direction="in", flow="density", carries={"S": 8.0}),
        Stream(name="out", direction="out", flow="rest"),
    ),
)
"""A turbidostat."""
FED = culture(
    "fed",
    (MEDIUM, target("sugar", "S", "g/L", hi=20.0)),
    (FRESH, Stream(name="feed", direction="in", flow="sugar", carries={"S": 400.0}), HARVEST),
)
"""Perfusion with a feed that holds the sugar."""


class Growing(Mechanism):
    """Growth on S, P by the cells."""

    mu: jax.Array = constant(0.03, unit="1/h")
    pace: jax.Array = constant(1.0, unit="-")
    """Of everything but growth; 0 leaves the sugar alone."""

    def rates(self, state, environment):
        x, s = state["X"], state["S"]
        growth = self.mu * s / (0.5 + s)
        eaten = self.pace * 0.008 * x * s / (0.5 + s)
        return {"X": growth * x, "S": -eaten, "P": self.pace * 0.002 * x}


def by_scipy(process, start, u, hours):
    """The culture's own equations, the law in them as what it is: algebra of the state."""

    def flows(y):
        x, s, _ = y
        if process is BLED:
            fresh = u[0] / 24.0
            bleed = min(np.clip(0.5 * (x - u[1]) / x, 0.0, 0.06), fresh)
            return fresh, 0.0, bleed, fresh - bleed
        if process is PER_CELL:
            fresh = u[0] * 1e-3 * x / 24.0
            bleed = min(np.clip(0.5 * (x - u[1]) / x, 0.0, 0.05), fresh)
            return fresh, 0.0, bleed, fresh - bleed
        if process is TURBID:
            fresh = np.clip(1.0 * (x - u[0]) / x, 0.0, 0.2)
            return fresh, 0.0, fresh, 0.0
        fresh, feed = u[0] / 24.0, np.clip(2.0 * (u[1] - s) / (400.0 - s), 0.0, 0.05)
        return fresh, feed, 0.0, fresh + feed

    def slope(_, y):
        x, s, p = y
        fresh, feed, bleed, harvest = flows(y)
        growth = 0.03 * s / (0.5 + s)
        return [
            growth * x - bleed * x,
            fresh * 8.0 + feed * 400.0 - (bleed + harvest) * s - 0.008 * x * s / (0.5 + s),
            0.002 * x - (bleed + harvest) * p,
        ]

    found = solve_ivp(
        slope, (0.0, hours[-1]), start, t_eval=hours, method="Radau", rtol=1e-10, atol=1e-12
    )
    return found.y.T


CASES = [
    (BLED, [6.0, 6.0, 0.1], [2.0, 12.0]),
    (BLED, [30.0, 2.0, 0.1], [2.0, 12.0]),
    (PER_CELL, [8.0, 6.0, 0.0], [60.0, 10.0]),
    (TURBID, [3.0, 6.0, 0.0], [5.0]),
    (FED, [10.0, 3.0, 0.1], [1.0, 6.0]),
]
NAMES = ["bleed from below", "bleed from above", "per cell", "turbidostat", "feed"]
HOURS = np.arange(25.0, 24.0 * 6 + 1.0, 24.0) - 1.0


@pytest.mark.parametrize(("process", "start", "u"), CASES, ids=NAMES)
def test_a_step_of_the_model_keeps_the_law_within_its_interval(process, start, u):
    exact = by_scipy(process, start, u, HOURS)
    vessel = Vessel(process, Growing(), substeps=32)
    still = jnp.zeros(3)

    @jax.jit
    def run(state):
        def day(state, _):
            after, _ = vessel.advance(
                state, jnp.asarray(u), still, half=still + 0.1, per_cell=still, offset=still,
                dt_h=jnp.asarray(24.0),
            )  # fmt: skip
            return after, after

        return jax.lax.scan(day, state, None, length=len(HOURS))[1]

    found = np.asarray(run(jnp.asarray(start)))
    # parts of 0.75 h, against pumps that answer within half an hour to two
    np.testing.assert_allclose(found, exact, rtol=0.01, atol=0.02)
    slope = jax.grad(lambda s: run(s)[-1, 0])(jnp.asarray(start))
    assert bool(jnp.all(jnp.isfinite(slope)))


@pytest.mark.parametrize(("process", "start", "u"), CASES, ids=NAMES)
def test_the_plant_is_what_an_ode_solver_says_with_the_law_as_algebra(process, start, u):
    exact = by_scipy(process, start, u, HOURS)
    plant = virtual_plant(process, Growing())
    steps = jnp.tile(jnp.asarray(u), (len(HOURS), 1))
    out = jax.jit(run_plant)(plant, jnp.asarray(start), steps, jnp.full(len(HOURS), 24.0))
    assert int(out.result) == 0
    np.testing.assert_allclose(out.states[1:], exact, rtol=2e-4, atol=1e-4)


FILLING = culture(
    "filling",
    (target("sugar", "S", "g/L", hi=20.0), Control(
        name="drawn", unit="L/d", role="flow", lo=0.0, hi=0.1, default=0.02)),
    (
        Stream(name="feed", direction="in", flow="sugar", carries={"S": 400.0}, total="fed_L"),
        Stream(name="drain", direction="out", flow="drawn", total="drawn_L"),
    ),
)  # fmt: skip
"""A fed-batch whose feed holds the sugar while the vessel fills."""
THINNED = culture(
    "thinned",
    (target("density", "X", "1e6 cells/mL", gain=1.0, most=0.2),),
    (Stream(name="fresh", direction="in", flow="density", carries={"S": 8.0}),),
)
"""Cells held by dilution alone, into a vessel that fills."""


def filling_by_scipy(process, start, u, hours):
    """Amounts and volume by a solver of SciPy, the law written out."""

    def slope(_, y):
        volume = y[3]
        x, s, _p = y[:3] / volume
        if process is FILLING:
            feed = volume * np.clip(2.0 * (u[0] - s) / (400.0 - s), 0.0, 0.05)
            drain, content = u[1] / 24.0, 400.0
        else:
            feed, drain, content = volume * np.clip(1.0 * (x - u[0]) / x, 0.0, 0.2), 0.0, 8.0
        growth = 0.03 * s / (0.5 + s)
        made = np.array([growth * x, -0.008 * x * s / (0.5 + s), 0.002 * x])
        brought = np.array([0.0, feed * content, 0.0])
        return np.append(volume * made + brought - drain * y[:3] / volume, feed - drain)

    begin = np.append(0.5 * np.asarray(start), 0.5)
    span = (0.0, hours[-1])
    found = solve_ivp(slope, span, begin, t_eval=hours, method="Radau", rtol=1e-10, atol=1e-12)
    return found.y.T


@pytest.mark.parametrize(
    ("process", "start", "u"),
    [(FILLING, [6.0, 3.0, 0.1], [5.0, 0.02]), (THINNED, [8.0, 6.0, 0.1], [6.0])],
    ids=["feed", "dilution"],
)
def test_a_pump_holds_while_the_volume_moves_and_nothing_is_lost(process, start, u):
    hours = np.asarray([12.0, 24.0, 60.0, 96.0])
    exact = filling_by_scipy(process, start, u, hours)
    plant = virtual_plant(process, Growing())
    lengths = jnp.asarray(np.diff(hours, prepend=0.0))
    steps = jnp.tile(jnp.asarray(u), (hours.size, 1))
    out = jax.jit(run_plant)(plant, jnp.asarray(start), steps, lengths)
    assert int(out.result) == 0
    volume = np.asarray(out.volume_L)
    np.testing.assert_allclose(volume[1:], exact[:, 3], rtol=2e-4)
    np.testing.assert_allclose(out.states[1:] * volume[1:, None], exact[:, :3], rtol=1e-3)
    # the volume closes over every interval, to rounding
    flowed = np.asarray(out.flowed_L)
    signs = np.asarray([1.0 if s.direction == "in" else -1.0 for s in process.streams])
    np.testing.assert_allclose(np.diff(volume), flowed @ signs, rtol=0.0, atol=1e-13)
    # and so does what nothing turns into anything else and nothing takes away
    still = virtual_plant(process, Growing(mu=0.0, pace=0.0))
    inert = jax.jit(run_plant)(still, jnp.asarray(start), steps, lengths)
    held = np.asarray(inert.states[:, 1]) * np.asarray(inert.volume_L)
    content = 400.0 if process is FILLING else 8.0
    brought = content * np.asarray(inert.flowed_L)[:, 0]
    if process is THINNED:
        np.testing.assert_allclose(np.diff(held), brought, rtol=0.0, atol=1e-12)
        cells = np.asarray(inert.states[:, 0]) * np.asarray(inert.volume_L)
        np.testing.assert_allclose(cells, cells[0], rtol=1e-13)


@pytest.mark.parametrize(
    ("process", "start", "u"),
    [(FILLING, [6.0, 3.0, 0.1], [5.0, 0.02]), (THINNED, [8.0, 6.0, 0.1], [6.0])],
    ids=["feed", "dilution"],
)
def test_a_step_of_the_model_holds_while_its_volume_moves(process, start, u):
    hours = np.arange(12.0, 97.0, 12.0)
    exact = filling_by_scipy(process, start, u, hours)
    vessel = Vessel(process, Growing(), substeps=32)
    assert vessel.tracks_volume
    still = jnp.zeros(3)

    @jax.jit
    def run(state):
        def step(carry, _):
            state, volume = carry
            after, gained = vessel.advance(
                state, jnp.append(jnp.asarray(u), volume), still, half=still + 0.1,
                per_cell=still, offset=still, dt_h=jnp.asarray(12.0),
            )  # fmt: skip
            return (after, volume + gained), jnp.append(after, volume + gained)

        return jax.lax.scan(step, (state, jnp.asarray(0.5)), None, length=hours.size)[1]

    found = np.asarray(run(jnp.asarray(start)))
    np.testing.assert_allclose(found[:, 3], exact[:, 3], rtol=0.01)
    np.testing.assert_allclose(found[:, :3] * found[:, 3:], exact[:, :3], rtol=0.015, atol=0.02)
    slope = jax.grad(lambda s: run(s)[-1, 3])(jnp.asarray(start))
    assert bool(jnp.all(jnp.isfinite(slope)))


def test_a_stream_that_leaves_holds_nothing_where_the_volume_moves():
    bled = culture(
        "bled_dry",
        (MEDIUM, target("density", "X", "1e6 cells/mL")),
        (FRESH, Stream(name="bleed", direction="out", flow="density")),
    )
    with pytest.raises(ConfigError, match="no stream keeps the volume: what leaves takes its"):
        laws_of(bled)


def test_what_pumps_and_cells_let_flow_has_its_price():
    exact = by_scipy(PER_CELL, [8.0, 6.0, 0.0], [60.0, 10.0], np.arange(1.0, 97.0))
    form = RunForm(PER_CELL, layout_of(PER_CELL), (1.0,) * 96)
    used = parse_expression("used(fresh)", form)(
        jnp.asarray(exact)[None], jnp.asarray([60.0, 10.0])
    )
    wanted = 0.5 * 60.0e-3 / 24.0 * np.trapezoid(np.append(8.0, exact[:, 0]), dx=1.0)
    np.testing.assert_allclose(used, wanted, rtol=2e-3)


def test_a_flow_per_cell_needs_its_cells():
    assert flow_per_biomass("pL/cell/d", "1e6 cells/mL", "cspr") * 24.0 == pytest.approx(1e-3)
    flows = stream_flows(PER_CELL, jnp.asarray([50.0, 0.0]), 0.5, {"bleed": 0.0}, biomass=20.0)
    assert float(flows.inflow) * 24.0 == pytest.approx(0.5)  # 1 vvd of half a litre
    with pytest.raises(ConfigError, match="cspr is in pL/cell/d: how much flows depends on X"):
        stream_flows(PER_CELL, jnp.asarray([50.0, 0.0]), 0.5, {"bleed": 0.0})
    assert volume_balance(PER_CELL, 24.0) is None
    with pytest.raises(ConfigError, match="names no biomass"):
        PER_CELL.replace(biomass=None)
    weighed = Quantity(name="X", unit="g/L", hi=10.0)
    with pytest.raises(ConfigError, match="do not make vessel volumes per time"):
        PER_CELL.replace(quantities=(weighed, SUGAR, PRODUCT), controls=(CSPR,), streams=(
            Stream(name="fresh", direction="in", flow="cspr"), HARVEST))  # fmt: skip


def test_a_process_says_its_laws_and_reads_them_back():
    again = Process.from_toml(BLED.to_toml())
    assert again == BLED
    (law,) = laws_of(again)
    assert (law.gain, law.most, law.effect, law.is_feed) == (0.5, 0.06, 1.0, False)
    assert laws_of(FED)[0].is_feed and not laws_of(TURBID)[0].is_feed


BLEED = Stream(name="bleed", direction="out", flow="sugar")


@pytest.mark.parametrize(
    ("controls", "streams", "message"),
    [
        (
            (MEDIUM, target("sugar", "S", "g/L")),
            (FRESH, BLEED, HARVEST),
            "sugar holds S by stream bleed, and harvest takes as much of it",
        ),
        (
            (target("density", "X", "1e6 cells/mL"),),
            (Stream(name="fresh", direction="in", flow="density"), HARVEST),
            "carries none of it, and harvest holds it back",
        ),
        (
            (target("sugar", "S", "g/L", hi=50.0),),
            (Stream(name="feed", direction="in", flow="sugar", carries={"S": 40.0}), HARVEST),
            "carries 40 of it, and targets go up to 50",
        ),
        (
            (MEDIUM, target("one", "X", "1e6 cells/mL"), target("two", "X", "1e6 cells/mL")),
            (
                FRESH,
                Stream(name="a", direction="out", flow="one"),
                Stream(name="b", direction="out", flow="two"),
                HARVEST,
            ),
            "two holds X by stream b, and one holds it too",
        ),
    ],
)
def test_laws_that_cannot_hold_anything_are_refused_by_name(controls, streams, message, tmp_path):
    process = culture("impossible", controls, streams)
    with pytest.raises(ConfigError, match=message):
        laws_of(process)
    with pytest.raises(ConfigError, match=message):
        virtual_plant(process, Growing())
    from perfusio_jax.cli.process import check_pumps

    path = tmp_path / "process.toml"
    path.write_text(process.to_toml())
    line = next(
        n
        for n, text in enumerate(path.read_text().splitlines(), 1)
        if text == f'name = "{controls[-1].name}"'
    )
    with pytest.raises(ConfigError, match=f"process.toml, line {line}: .*{message}"):
        check_pumps(process, str(path))


def test_a_pump_is_of_a_target_alone():
    with pytest.raises(ConfigError, match="gain and most are of a pump"):
        MEDIUM.replace(gain=1.0)
    with pytest.raises(ConfigError, match="greater than 0"):
        target("density", "X", "1e6 cells/mL", gain=0.0)
