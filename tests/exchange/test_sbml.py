"""Runs as SBML: what another program makes of them, and what comes back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import ConfigError, DataError
from perfusio_jax.exchange import rate_model, read_sbml, sbml_text
from perfusio_jax.exchange.formulas import Book, value_of
from perfusio_jax.exchange.tracing import Tracer
from perfusio_jax.mechanistic import Mechanism, constant
from perfusio_jax.simulator import virtual_plant
from perfusio_jax.study import choose_levers, described_experiment
from tests.study.cultures import chemostat, fed_batch, one_quantity, perfusion, vial

pytest.importorskip("libsbml", reason="python-libsbml is not installed (extra exchange)")

FINE = {"rtol": 1e-9, "atol": 1e-12, "max_steps": 1024}


def _elsewhere(model, changed=None):
    """What libRoadRunner reads at the samples of a run, tightly."""
    roadrunner = pytest.importorskip("roadrunner", reason="libRoadRunner is not installed")
    runner = roadrunner.RoadRunner(sbml_text(model))
    for name, value in (changed or {}).items():
        runner.setValue(name, value)
    if changed:
        runner.reset()
    runner.integrator.absolute_tolerance = 1e-13
    runner.integrator.relative_tolerance = 1e-11
    runner.timeCourseSelections = [s.name for s in model.shown]
    return np.array(runner.simulate(times=list(model.hours)))


@pytest.fixture(scope="module")
def runs():
    return {
        "chemostat": chemostat(**FINE),
        "fed_batch": fed_batch(**FINE),
        "perfusion": perfusion(1e-8, recorded=96, days=2),
    }


@pytest.mark.parametrize("kind", ["chemostat", "fed_batch", "perfusion"])
def test_another_program_computes_the_same_run(runs, kind):
    run = runs[kind]
    model = rate_model(run)
    ours = np.asarray(jax.jit(lambda r: r.course().values)(run))[:, : len(model.shown)]
    assert [s.column for s in model.shown] == list(run.columns)[: len(model.shown)]
    theirs = _elsewhere(model)
    assert np.all(np.abs(theirs - ours) <= 1e-6 * np.abs(ours) + 1e-9)


def test_its_slopes_are_the_same(runs):
    run = runs["fed_batch"]
    model = rate_model(run)
    names = ("mu_max", "yield_XS", "feed.S", "start.S")
    levers = choose_levers(run, names)
    at = np.asarray(run.lever_values(levers))
    last = jax.jit(jax.jacfwd(lambda x: run.pulled(levers, x).course().values[-1, :2]))
    ours = np.asarray(last(jnp.asarray(at)))
    known = {c.lever: c.name for c in model.constants} | {"start.S": "start_S"}
    for k, name in enumerate(names):
        step = 1e-4 * at[k]
        up, down = (
            _elsewhere(model, {known[name]: at[k] + sign * step})[-1] for sign in (1.0, -1.0)
        )
        slope = (up - down) / (2.0 * step)
        np.testing.assert_allclose(ours[:, k], slope, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", ["chemostat", "fed_batch"])
def test_a_culture_comes_back_as_itself(runs, kind):
    run = runs[kind]
    read = read_sbml(sbml_text(rate_model(run)))
    assert read.is_ours and read.process == run.plant.process
    plant = virtual_plant(read.process, read.mechanism, **FINE)
    again = described_experiment(
        plant, run.hours, controls=run.controls, start=read.start, sample_L=run.sample_L
    )
    np.testing.assert_allclose(again.course().values, run.course().values, rtol=1e-12)
    laws = [(v.name, run.usual_law(v)) for v in choose_levers(run, ("constants",))]
    back = {v.name: again.usual_law(v) for v in again.levers}
    from perfusio_jax.exchange.rates import plain_name

    for name, law in laws:
        assert back[plain_name(name)] == law


def test_a_model_of_no_described_culture_becomes_a_batch_with_controls(runs):
    run = runs["perfusion"]
    read = read_sbml(sbml_text(rate_model(run)))
    assert not read.is_ours and any("assumed" in line for line in read.remarks)
    assert read.process.control_names == ("perfusion_rate", "temperature")
    assert read.process.quantity("Xv").unit == "1e6 cells/mL"
    assert read.process.quantity("Glc").unit == "g/L"
    steps = read.schedule["temperature"]
    assert steps == [(0.0, 36.5), (24.0, 36.0)]
    plant = virtual_plant(read.process, read.mechanism, **FINE)
    controls = np.asarray(run.controls)[:, [0, 3]]
    again = described_experiment(plant, run.hours, controls=controls, start=read.start)
    ours = np.asarray(run.course().values)[:, run.columns.index("Titer")]
    theirs = np.asarray(again.course().values)[:, again.columns.index("Titer")]
    np.testing.assert_allclose(theirs, ours, rtol=1e-6)


REACTIONS = """<?xml version="1.0" encoding="UTF-8"?>
<sbml xmlns="http://www.sbml.org/sbml/level2/version4" level="2" version="4">
  <model id="decay">
    <listOfFunctionDefinitions><functionDefinition id="first">
      <math xmlns="http://www.w3.org/1998/Math/MathML"><lambda>
        <bvar><ci>k</ci></bvar><bvar><ci>s</ci></bvar>
        <apply><times/><ci>k</ci><ci>s</ci></apply></lambda></math>
    </functionDefinition></listOfFunctionDefinitions>
    <listOfCompartments><compartment id="flask" size="2"/></listOfCompartments>
    <listOfSpecies>
      <species id="A" compartment="flask" initialConcentration="3"/>
      <species id="B" compartment="flask" initialConcentration="0"/>
    </listOfSpecies>
    %s<listOfReactions><reaction id="turn" reversible="false">
      <listOfReactants><speciesReference species="A"/></listOfReactants>
      <listOfProducts><speciesReference species="B" stoichiometry="2"/></listOfProducts>
      <kineticLaw>
        <math xmlns="http://www.w3.org/1998/Math/MathML"><apply><times/><ci>flask</ci>
          <apply><ci>first</ci><ci>k</ci><ci>A</ci></apply></apply></math>
        <listOfParameters><parameter id="k" value="0.5"/></listOfParameters>
      </kineticLaw>
    </reaction></listOfReactions>%s
  </model>
</sbml>"""


def test_reactions_of_level_2_are_taken():
    read = read_sbml(REACTIONS % ("", ""))
    plant = virtual_plant(read.process, read.mechanism, rtol=1e-9, atol=1e-12)
    run = described_experiment(plant, [0.0, 1.0, 4.0], start=read.start)
    values = np.asarray(run.course().values)
    a = 3.0 * np.exp(-0.5 * np.array([0.0, 1.0, 4.0]))
    np.testing.assert_allclose(values[:, 0], a, rtol=1e-7)
    np.testing.assert_allclose(values[:, 1], 2.0 * (3.0 - a), rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize(
    "more, said",
    [
        (
            (
                "<listOfRules><algebraicRule><math xmlns='http://www.w3.org/1998/Math/MathML'>"
                "<ci>A</ci></math></algebraicRule></listOfRules>",
                "",
            ),
            "algebraic rule",
        ),
        (
            (
                "",
                "<listOfEvents><event id='drop'><trigger><math "
                "xmlns='http://www.w3.org/1998/Math/MathML'><apply><lt/><ci>A</ci><cn>1</cn>"
                "</apply></math></trigger><listOfEventAssignments><eventAssignment variable='B'>"
                "<math xmlns='http://www.w3.org/1998/Math/MathML'><cn>0</cn></math>"
                "</eventAssignment></listOfEventAssignments></event></listOfEvents>",
            ),
            "event drop",
        ),
    ],
)
def test_what_cannot_be_taken_is_named(more, said):
    with pytest.raises(DataError, match=said):
        read_sbml(REACTIONS % more)


def test_what_is_no_sbml_is_refused(tmp_path):
    with pytest.raises(DataError, match="no SBML"):
        read_sbml("<sbml>")
    with pytest.raises(DataError, match="does not exist"):
        read_sbml(tmp_path / "lost.xml")
    with pytest.raises(DataError, match="no parameter q"):
        read_sbml(REACTIONS % ("", ""), controls=("q",))


class Odd(Mechanism):
    """Uses what MathML does not have."""

    k: jax.Array = constant(1.0, unit="1/h", log_sd=0.1)

    def rates(self, state, environment):
        return {"X": self.k * jax.scipy.special.erf(state["X"])}


def test_a_primitive_without_a_counterpart_is_refused_by_name():
    with pytest.raises(ConfigError, match="'erf', which has no counterpart"):
        rate_model(vial(Odd(), [0.0, 1.0]))
    assert one_quantity().name == "vial"


def _everything(x, y):
    """Of two numbers, by most of what a mechanism may use."""
    v = jnp.stack([x, y, x * y])
    matrix = jnp.asarray([[1.0, 0.0, 2.0], [0.5, -1.0, 0.0]])
    w = matrix @ v
    v = v.at[1].set(w[0] ** 2)
    kept = jnp.where(w > 0.0, jnp.sqrt(jnp.abs(w)), jnp.expm1(-jnp.abs(w)))
    turned = jax.lax.cond(x > y, lambda a: a.sum(), lambda a: a.prod(), v)
    summed, rows = jax.lax.scan(lambda c, r: (c + r, c * r), x, v)
    out = [
        jnp.clip(x, 0.1, y),
        jax.nn.sigmoid(w[1]),
        jnp.hypot(x, y),
        jnp.max(v) - jnp.min(v),
        kept.sum(),
        turned,
        summed,
        rows[::-1][0],
        jnp.sign(x - y) * jnp.tanh(x),
        (x > 0.5).astype(float) + jnp.log1p(y),
        jnp.cumsum(v)[-1] / jax.lax.rsqrt(y),
        x**1.5 + jnp.cbrt(y),
    ]
    return jnp.stack(out)


@pytest.mark.parametrize("x, y", [(0.3, 1.7), (2.0, 0.9)])
def test_formulas_have_the_values_of_the_function_they_were_traced_from(x, y):
    book = Book()
    given = [np.empty((), object), np.empty((), object)]
    given[0][()], given[1][()] = book.name("x"), book.name("y")
    formulas = Tracer(book).formulas(_everything, *given)[0]
    found = [value_of(f, {"x": x, "y": y}) for f in formulas]
    np.testing.assert_allclose(found, _everything(jnp.asarray(x), jnp.asarray(y)), rtol=1e-13)


def test_a_place_that_depends_on_the_state_is_refused():
    book = Book()
    given = np.empty((), object)
    given[()] = book.name("x")
    with pytest.raises(ConfigError, match="depends on the state"):
        Tracer(book).formulas(lambda x: jnp.stack([x, x])[x.astype(int)], given)
