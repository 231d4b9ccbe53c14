"""The real model and the real search fail: the loop holds, says so, and goes on."""

import asyncio
import threading
from typing import Any

import equinox as eqx
import jax
import numpy as np
import pytest

from perfusio_jax._core import FORECAST_SPECIES, STATE_ORDER
from perfusio_jax.bed import BEDPolicy
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE, RunConfig
from perfusio_jax.connectors.base import BioreactorConnectorBase
from perfusio_jax.hybrid import HybridStateSpaceModel
from perfusio_jax.mechanistic import CHOPerfusionModel
from perfusio_jax.twin import (
    AlarmNotifier,
    DigitalTwin,
    GateLimits,
    ModelBrain,
    verify_audit,
)
from perfusio_jax.twin.decision import model_brain

from .plant import LEVELS
from .world import read_log

CENTRE = DEFAULT_AMBR250_DESIGN_SPACE.centre


class Vessel(BioreactorConnectorBase):
    """Gives a sample each day and takes what it is given."""

    def __init__(self) -> None:
        self.controls, self.written = dict(CENTRE), []

    async def is_alive(self) -> bool:
        return True

    async def read_sample(self, day) -> dict[str, float | None]:
        level = {n: 0.0 if n == "Via" else 0.05 * day for n in STATE_ORDER}
        return {n: v * (1.0 + level[n]) for n, v in zip(STATE_ORDER, LEVELS, strict=True)}

    async def write_setpoints(self, setpoints) -> None:
        self.written.append(dict(setpoints))
        self.controls.update(setpoints)

    async def read_setpoints(self):
        return dict(self.controls)


@pytest.fixture(scope="module")
def model() -> HybridStateSpaceModel:
    return HybridStateSpaceModel(CHOPerfusionModel(), None)


@pytest.fixture(scope="module")
def policy(model) -> BEDPolicy:
    """The real policy, as small as it gets; compiled once for all models of one shape."""
    return BEDPolicy(
        model,
        DEFAULT_AMBR250_DESIGN_SPACE,
        acqf_name="LogEI",
        n_restarts=2,
        n_raw_samples=8,
        horizon=1,
        n_paths=8,
        n_scan_paths=None,
    )


def spoilt(model, factor: float):
    """The same model with all its constants multiplied: equal shapes, other numbers."""
    kinetics = jax.tree.map(
        lambda leaf: leaf * factor if eqx.is_inexact_array(leaf) else leaf,
        model.mech_model.kinetics,
    )
    return eqx.tree_at(lambda m: m.mech_model.kinetics, model, kinetics)


def run(folder, model, policy, n_days=2, **settings) -> tuple[Vessel, list[dict[str, Any]]]:
    vessel = Vessel()
    config = RunConfig(acquisition="LogEI", n_mc_samples=8, seed=0, duration_days=n_days)
    with DigitalTwin(
        vessel,
        model,
        DEFAULT_AMBR250_DESIGN_SPACE,
        policy,
        AlarmNotifier({"Glc": (1.0, 8.0)}),
        log_dir=folder,
        allow_write=True,
        run_config=config,
        patience_seconds=0.0,
        **{"mode": "frozen", **settings},
    ) as twin:
        twin.run_sync(n_days)
    assert verify_audit(folder).ok
    return vessel, read_log(folder)


def reasons(log, kind: str) -> list[str]:
    return [str(r.get("reason")) for r in log if r["event_type"] == kind]


def standing(log) -> set[str]:
    """Alarms raised and not cleared, by name."""
    up: set[str] = set()
    for r in log:
        if r["event_type"] == "ALARM_RAISED":
            up.add(f"{r['payload']['kind']}/{r['payload']['species']}")
    return up


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), 0.0, -1.0])
def test_a_model_that_cannot_be_solved_holds_and_says_so(tmp_path, model, policy, factor):
    vessel, log = run(tmp_path, spoilt(model, factor), policy)
    assert vessel.written == [] and vessel.controls == CENTRE
    failed = reasons(log, "DECISION_FAILED")
    assert len(failed) == 2 and all("finite" in text for text in failed), failed
    made = [r for r in log if r["event_type"] == "DECISION_MADE"]
    assert [r["payload"]["action"] for r in made] == ["hold", "hold"]
    assert all("no decision was made" in r["reason"] for r in made)
    assert "session/decision" in standing(log)
    assert [r["payload"]["stored"] for r in log if r["event_type"] == "SAMPLE_READ"] == ["new"] * 2


def test_the_same_model_in_order_writes_every_day(tmp_path, model, policy):
    """Without it, the tests beside this one would hold for anything."""
    vessel, log = run(tmp_path, model, policy)
    assert len(vessel.written) == 2 and reasons(log, "DECISION_FAILED") == []


def test_a_search_without_a_finite_value_holds_that_day_only(tmp_path, model, policy, monkeypatch):
    real = BEDPolicy.decide

    def decide(self, belief, day, *args, **more):
        made = real(self, belief, day, *args, **more)
        if day == 0:
            object.__setattr__(made, "acqf_value", float("-inf"))
        return made

    monkeypatch.setattr(BEDPolicy, "decide", decide)
    vessel, log = run(tmp_path, model, policy)
    assert len(vessel.written) == 1
    (failed,) = reasons(log, "DECISION_FAILED")
    assert "finite value of LogEI" in failed
    cleared = [r["payload"].get("name", "") for r in log if r["event_type"] == "ALARM_CLEARED"]
    assert any(name.startswith("session/decision") for name in cleared)


def test_absurd_constants_never_pass_the_gate(tmp_path, model, policy):
    """Finite nonsense: whatever it recommends, limits and rates hold."""
    vessel, _ = run(tmp_path, spoilt(model, 1e9), policy, 3)
    before, limits = dict(CENTRE), GateLimits.from_design_space(DEFAULT_AMBR250_DESIGN_SPACE)
    for setpoints in vessel.written:
        for name, value in setpoints.items():
            assert np.isfinite(value) and limits.lower[name] <= value <= limits.upper[name]
            reach = limits.max_rate.get(name, np.inf)
            assert abs(value - before[name]) <= reach * (1 + 1e-9)
        before.update(setpoints)


@pytest.mark.parametrize(
    ("trouble", "says"),
    [
        (MemoryError("no room for the kernel"), "no room"),
        (FloatingPointError("the evidence is not finite"), "evidence"),
    ],
)
def test_a_retrain_that_fails_keeps_the_model_and_the_day(
    tmp_path, model, policy, monkeypatch, trouble, says
):
    def train(self, run):
        raise trouble

    monkeypatch.setattr(ModelBrain, "_trained", train)
    monkeypatch.setattr(model_brain, "MIN_ROWS_FOR_GP", 3)
    vessel, log = run(tmp_path, model, policy, 4, mode="adaptive")
    assert len(vessel.written) == 4
    kept = reasons(log, "MODEL_KEPT")
    assert len(kept) == 2 and all(says in text for text in kept)  # on days 2 and 3
    assert "drift/update" in standing(log)


def test_a_retrain_that_makes_the_model_unsolvable_is_found_out_on_trial(
    tmp_path, model, policy, monkeypatch
):
    monkeypatch.setattr(ModelBrain, "_trained", lambda self, run: spoilt(model, float("nan")))
    monkeypatch.setattr(model_brain, "MIN_ROWS_FOR_GP", 3)
    vessel, log = run(tmp_path, model, policy, 6, mode="adaptive")
    assert len(vessel.written) == 6
    (kept,) = reasons(log, "MODEL_KEPT")
    assert "worse: nan against" in kept and reasons(log, "MODEL_RETRAIN") == []


def test_a_retrain_that_takes_too_long_costs_no_day_and_comes_in_no_more(
    tmp_path, model, policy, monkeypatch
):
    go_on, started = threading.Event(), threading.Event()

    def train(self, run):
        started.set()
        go_on.wait(60.0)
        return spoilt(model, 2.0)

    monkeypatch.setattr(ModelBrain, "_trained", train)
    monkeypatch.setattr(model_brain, "MIN_ROWS_FOR_GP", 3)
    run(tmp_path / "warm", model, policy, 1)  # everything is compiled
    vessel = Vessel()
    with DigitalTwin(
        vessel,
        model,
        DEFAULT_AMBR250_DESIGN_SPACE,
        policy,
        log_dir=tmp_path / "run",
        allow_write=True,
        run_config=RunConfig(acquisition="LogEI", n_mc_samples=8, seed=0, duration_days=6),
        patience_seconds=0.0,
        mode="adaptive",
        options={"compute_timeout_s": 6.0},
    ) as twin:
        first = twin.model

        async def days() -> None:
            await twin.run(3)
            assert started.is_set()
            go_on.set()  # it ends now, long after its time
            await asyncio.sleep(0.3)
            await twin.run(6)

        asyncio.run(days())
        assert twin.model is first
    log = read_log(tmp_path / "run")
    assert any("no result within 6 s" in text for text in reasons(log, "MODEL_KEPT"))
    assert reasons(log, "MODEL_RETRAIN") == []
    # the day's decision waits for the thread as well, and is none; later days decide again
    held = [r["day"] for r in log if r["event_type"] == "DECISION_FAILED"]
    assert held == [2] and len(vessel.written) == 5


def test_the_forecast_and_state_are_named_by_what_is_not_finite(model, policy, tmp_path):
    _, log = run(tmp_path, spoilt(model, float("nan")), policy, 1)
    (text,) = reasons(log, "DECISION_FAILED")
    assert any(name in text for name in FORECAST_SPECIES)
