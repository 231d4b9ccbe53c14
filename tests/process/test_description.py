"""Cultures as values: what is refused, what is kept, and that flows are those of before."""

import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax import cli
from perfusio_jax._core import BALANCED, CONTROL_NAMES, DEFAULT_CONTROLS, ConfigError, UnitError
from perfusio_jax.chemistry import Medium, balance_rates, perfusion_flows
from perfusio_jax.chemistry.schemes import balance_step
from perfusio_jax.process import (
    BUILT_IN,
    CHO_PERFUSION,
    MONOD_CHEMOSTAT,
    Control,
    Process,
    Quantity,
    Stream,
    read_process,
    stream_flows,
)

X = Quantity(name="X", unit="g/L", hi=100.0)
VIA = Quantity(name="Via", unit="%", kind="derived", hi=100.0, formula="viability", of=("Xv", "Xd"))
RATE = Control(name="D", unit="1/h", role="flow", lo=0.0, hi=1.0, default=0.1)
FEED = Stream(name="feed", direction="in", flow="D")
OUT = Stream(name="out", direction="out", flow="rest")


def chemostat(**changes) -> Process:
    parts = {"quantities": (X,), "controls": (RATE,), "streams": (FEED, OUT)}
    return Process(**{"name": "p", "volume_L": 1.0, **parts, **changes})


# ------------------------------------------------------------------ round trips


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_process_is_the_same_after_toml_and_json(name, tmp_path):
    process = BUILT_IN[name]
    process.to_toml(tmp_path / "process.toml")
    for again in (
        read_process(tmp_path / "process.toml"),
        Process.from_json(process.to_json()),
        read_process(name),
    ):
        assert again == process and hash(again) == hash(process)
        assert again.differences(process) == []


def test_a_process_is_static_and_an_equal_one_does_not_compile_again():
    n_traces = []

    def width(process, u):
        n_traces.append(process.name)
        return u.sum() + len(process.carried)

    compiled = jax.jit(width, static_argnums=0)
    again = Process.from_toml(CHO_PERFUSION.to_toml())
    u = jnp.ones(6)
    assert compiled(CHO_PERFUSION, u) == compiled(again, u) == 15.0
    assert len(n_traces) == 1


def test_the_built_in_perfusion_has_the_layout_of_the_library():
    assert CHO_PERFUSION.carried == BALANCED
    assert CHO_PERFUSION.control_names == CONTROL_NAMES
    assert {c.name: c.default for c in CHO_PERFUSION.controls} == dict(DEFAULT_CONTROLS)
    assert CHO_PERFUSION.latent == ("Xd",) and CHO_PERFUSION.readings[-1] == "Via"
    assert CHO_PERFUSION.is_constant_volume
    via = CHO_PERFUSION.quantity("Via")
    assert (via.formula, via.of, CHO_PERFUSION.biomass) == ("viability", ("Xv", "Xd"), "Xv")
    assert MONOD_CHEMOSTAT.biomass == "X" and chemostat().biomass is None
    assert not chemostat(streams=(FEED,)).is_constant_volume


def test_a_built_in_process_does_not_depend_on_the_precision_in_use():
    program = "import perfusio_jax.process as p; print(p.CHO_PERFUSION.to_toml(), end='')"
    single = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "JAX_ENABLE_X64": "0"},
    )
    assert single.stdout == CHO_PERFUSION.to_toml()
    assert CHO_PERFUSION.streams[0].carries["Amm"] == 0.2


def test_differences_are_named():
    other = chemostat(
        volume_L=2.0,
        biomass="X",
        quantities=(X.replace(hi=50.0), Quantity(name="S", unit="g/L", hi=10.0)),
    )
    assert chemostat().differences(other) == [
        "volume_L is 1 and 2",
        "biomass is none and X",
        "S is in the second only",
        "X: hi is 100.0 and 50.0",
    ]
    swapped = chemostat(streams=(OUT, FEED))
    assert chemostat().differences(swapped) == [
        "the order of the streams differs: ['feed', 'out'] and ['out', 'feed']"
    ]


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Quantity(name="X", unit="rpm", hi=1.0), "'rpm' is no concentration"),
        (lambda: Quantity(name="X", unit="L", hi=1.0), "'L' is no concentration"),
        (lambda: Quantity(name="pH", unit="pH", hi=9.0), "is a level"),
        (lambda: Quantity(name="X", unit="g/L", lo=2.0, hi=1.0), "lo 2 is not below hi 1"),
        (lambda: Quantity(name="X", unit="g/L", lo=-1.0, hi=1.0), "no concentration is below 0"),
        (lambda: Quantity(name="X", unit="g/L", hi=1.0, cv=0.0), "no assay is without noise"),
        (lambda: Quantity(name="X", unit="g/L", hi=float("nan")), "finite"),
        (lambda: Quantity(name="1X", unit="g/L", hi=1.0), "'1X' is no name"),
        (lambda: Quantity(name="rest", unit="g/L", hi=1.0), "'rest' is no name"),
        (lambda: Quantity(name="X" * 41, unit="g/L", hi=1.0), "at most 40"),
        (
            lambda: X.replace(formula="viability", of=("a", "b")),
            "a carried quantity has no formula",
        ),
        (lambda: X.replace(of=("a", "b")), "a carried quantity has no formula"),
        (lambda: VIA.replace(of=("Xv",)), "of names Xv; viability is of two others"),
        (lambda: VIA.replace(of=("Xv", "Xv")), "of names Xv, Xv; viability is of two others"),
        (lambda: VIA.replace(formula=""), "without a formula it is of none"),
        (lambda: VIA.replace(formula="sum"), "'formula' was given 'sum'"),
        (lambda: chemostat(quantities=(X, VIA)), "'Xv' is no quantity of p"),
        (
            lambda: chemostat(
                quantities=(X, VIA.replace(of=("X", "Y")), X.replace(name="Y", unit="mg/L"))
            ),
            "viability is of X [g/L] and Y [mg/L]; they need one unit",
        ),
        (
            lambda: chemostat(
                quantities=(
                    X,
                    VIA.replace(of=("X", "V2")),
                    VIA.replace(name="V2", formula="", of=()),
                )
            ),
            "its formula is of V2, a derived; carried are X",
        ),
        (lambda: chemostat(biomass="Y"), "'Y' is no quantity of p"),
        (
            lambda: chemostat(quantities=(X, VIA.replace(formula="", of=())), biomass="Via"),
            "biomass is Via, a derived; carried are X",
        ),
        (lambda: RATE.replace(unit="g/L"), "'g/L' is no flow"),
        (lambda: RATE.replace(lo=-0.1), "no flow is below 0"),
        (lambda: RATE.replace(default=3.0), "default 3 lies outside 0 to 1"),
        (lambda: RATE.replace(role="target"), "names its quantity"),
        (lambda: RATE.replace(role="bolus", unit="g"), "a bolus names its quantity"),
        (lambda: RATE.replace(quantity="X"), "has no quantity"),
        (lambda: RATE.replace(role="pump"), "'role' was given 'pump'"),
        (lambda: OUT.replace(carries={"X": 1.0}), "has the vessel's concentrations"),
        (lambda: FEED.replace(passes={"X": 0.0}), "nothing is held back of what enters"),
        (lambda: FEED.replace(carries={"X": -1.0}), "X is -1"),
        (lambda: OUT.replace(passes={"X": 1.5}), "a share lies in 0 to 1"),
        (lambda: chemostat(volume_L=0.0), "'volume_L' was given 0"),
        (lambda: chemostat(quantities=()), "at least one quantity"),
        (lambda: chemostat(quantities=(X, X)), "X: named twice"),
        (lambda: chemostat(quantities=(X, X.replace(name="D"))), "D: named twice"),
        (lambda: chemostat(streams=(FEED, OUT, OUT.replace(name="b"))), "both close the volume"),
        (lambda: chemostat(controls=(), streams=(OUT,)), "nothing goes in"),
        (lambda: chemostat(streams=(OUT,)), "nothing to balance"),
        (lambda: chemostat(streams=()), "control D: nobody acts on it"),
        (lambda: chemostat(streams=(FEED, FEED.replace(name="b"), OUT)), "D: named twice"),
        (lambda: chemostat(streams=(FEED.replace(flow="d"), OUT)), "did you mean 'D'"),
        (lambda: chemostat(streams=(FEED.replace(carries={"Y": 1.0}), OUT)), "'Y' is no quantity"),
        (lambda: chemostat(streams=(FEED.replace(carries={"X": "D"}), OUT)), "D is a flow"),
        (
            lambda: chemostat(
                quantities=(X, Quantity(name="pH", unit="pH", kind="level", hi=9.0)),
                streams=(FEED.replace(carries={"pH": 7.0}), OUT),
            ),
            "pH is a level; only what is carried flows: X",
        ),
        (
            lambda: chemostat(
                controls=(
                    RATE,
                    Control(
                        name="s", unit="mg/L", role="target", lo=0, hi=1, default=0, quantity="X"
                    ),
                )
            ),
            "'mg/L' is not the unit of X, 'g/L'",
        ),
        (
            lambda: chemostat(
                controls=(
                    RATE,
                    Control(
                        name="b", unit="mmol", role="bolus", lo=0, hi=1, default=0, quantity="X"
                    ),
                )
            ),
            "a bolus of X [g/L] is an amount or a volume, not 'mmol'",
        ),
        (lambda: read_process("cho_perfusoin"), "did you mean 'cho_perfusion'?"),
        (lambda: read_process("nowhere.toml"), "does not exist"),
        (
            lambda: Process.from_toml("name='a'\nvolume_L=1\n[[quantities]]\nname='X'\nunt='g/L'"),
            "quantities.0: Quantity: 'unit' is missing. Quantity: 'hi' is missing. "
            "Quantity: unknown key 'unt'. Did you mean 'unit'?",
        ),
    ],
)
def test_what_cannot_be_a_culture_is_refused_by_name(make, says):
    with pytest.raises(ConfigError, match=re.escape(says)):
        make()


def test_an_unknown_unit_is_refused():
    with pytest.raises(UnitError, match="gg/L"):
        Quantity(name="X", unit="gg/L", hi=1.0)


# ------------------------------------------------------------------ flows


def test_flows_of_perfusion_are_those_of_before():
    rng = np.random.default_rng(0)
    spans = np.array([(c.lo, c.hi) for c in CHO_PERFUSION.controls])
    u = spans[:, 0] + rng.random((7, 6)) * (spans[:, 1] - spans[:, 0])
    u[:, 1] = 0.5 * u[:, 0]
    glucose_L = rng.random(7) * 0.01
    old = perfusion_flows(jnp.asarray(u), 0.25, jnp.asarray(glucose_L), Medium(), 24.0)
    new = stream_flows(CHO_PERFUSION, jnp.asarray(u), 0.25, {"glucose_feed": glucose_L / 24.0})
    np.testing.assert_allclose(new.supply, old.supply, rtol=1e-13)
    np.testing.assert_allclose(new.clearance(), old.clearance(), rtol=1e-13, atol=1e-17)
    np.testing.assert_allclose(new.inflow, old.inflow, rtol=1e-13)
    np.testing.assert_allclose(new.volume_rate(), 0.0, atol=1e-17)


def test_balances_take_the_flows_of_any_process_and_mass_is_kept():
    # ten hours of a washed-out chemostat against the closed form
    flows = stream_flows(MONOD_CHEMOSTAT, jnp.asarray([0.2, 30.0]), 1.0)
    c0 = jnp.asarray([5.0, 2.0, 1.0])
    c1 = balance_step(c0, jnp.zeros(3), 1.0, 1.0, flows, 10.0)  # pyright: ignore
    left = np.exp(-2.0)
    np.testing.assert_allclose(c1, [5 * left, 30 + (2 - 30) * left, left], rtol=1e-10)
    rates = balance_rates(c0, c1, 1.0, 1.0, flows, 10.0)  # pyright: ignore
    np.testing.assert_allclose(rates, 0.0, atol=1e-12)


def test_a_fed_batch_grows_by_what_enters():
    process = chemostat(
        controls=(RATE.replace(unit="mL/h", hi=10.0),), streams=(FEED.replace(carries={"X": 4.0}),)
    )
    flows = stream_flows(process, jnp.asarray([5.0]), 1.0)
    np.testing.assert_allclose([flows.volume_rate(), flows.supply[0]], [0.005, 0.02], rtol=1e-12)
    assert float(flows.clearance()[0]) == 0.0


@pytest.mark.parametrize(
    "unit, expected",
    [("vvd", 2.0 / 24), ("1/h", 2.0), ("L/h", 1.0), ("L/d", 1.0 / 24), ("mL/min", 0.06)],
)
def test_flows_have_their_units(unit, expected):
    process = chemostat(controls=(RATE.replace(unit=unit, hi=10.0),))
    flows = stream_flows(process, jnp.asarray([1.0]), 2.0)
    np.testing.assert_allclose(flows.inflow, expected, rtol=1e-12)
    np.testing.assert_allclose(flows.outflow, expected, rtol=1e-12)


def test_compositions_can_be_swept_and_have_derivatives():
    u = jnp.asarray([0.2, 30.0])
    contents = {"feed": jnp.asarray([0.0, 7.0, 3.0])}
    given = stream_flows(MONOD_CHEMOSTAT, u, 1.0, contents=contents)
    np.testing.assert_allclose(given.supply, [0.0, 6.0, 0.6])  # the control has the last word on S
    slope = jax.jit(jax.grad(lambda v: stream_flows(MONOD_CHEMOSTAT, v, 1.0).supply[1]))(u)
    np.testing.assert_allclose(slope, [30.0, 0.2])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((jnp.ones(5), 1.0, {"glucose_feed": 0.0}), "perfusion_rate, bleed_rate"),
        ((jnp.ones(6), 1.0), "lacks glucose_feed"),
        ((jnp.ones(6), 1.0, {"glucose_feed": 0.0, "glucos_feed": 0.0}), "mean 'glucose_feed'"),
        ((jnp.asarray([1.0, 2, 5, 36, 800, 1]), 1.0, {"glucose_feed": 0.0}), "harvest keeps"),
    ],
)
def test_flows_refuse_what_cannot_flow(arguments, says):
    with pytest.raises(ConfigError, match=says):
        stream_flows(CHO_PERFUSION, *arguments)


@pytest.mark.parametrize(
    ("contents", "says"),
    [
        ({"fed": jnp.ones(3)}, "did you mean 'feed'"),
        ({"outflow": jnp.ones(3)}, "what enters is feed"),
        ({"feed": jnp.ones(4)}, "one concentration is needed of each of X, S, P"),
        ({"feed": 1.0}, r"the shape \(\)"),
    ],
)
def test_contents_of_nothing_or_of_another_width_are_refused(contents, says):
    with pytest.raises(ConfigError, match=says):
        stream_flows(MONOD_CHEMOSTAT, jnp.asarray([0.1, 1.0]), 1.0, contents=contents)


# ------------------------------------------------------------------ the command


def run(*args: str) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.main(list(args))
        raise SystemExit(0)
    return int(stop.value.code or 0)


def test_the_command_shows_writes_and_checks(tmp_path, capsys):
    assert run("process", "list") == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in BUILT_IN)
    path = tmp_path / "mine.toml"
    assert run("process", "show", "cho_perfusion", "--out", str(path)) == 0
    out = capsys.readouterr().out
    assert "Via [%] derived (viability of Xv and Xd), 0 to 100" in out
    assert "rates are per Xv" in out
    assert "harvest out, flow: what the others leave of the balance" in out
    assert "holds back 100 % of Xv, 100 % of Xd" in out
    assert "medium in, flow: perfusion_rate; brings Glc 6," in out
    assert run("process", "show", str(path)) == 0
    path.write_text(path.read_text().replace('flow = "bleed_rate"', 'flow = "blead_rate"'))
    assert run("process", "show", str(path)) == 2
    err = capsys.readouterr().err
    assert "mine.toml" in err and "did you mean 'bleed_rate'" in err
    assert run("process", "show", "cho_perfusion", "--out", str(tmp_path / "a.txt")) == 2
