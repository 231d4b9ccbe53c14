"""Hundreds of simulated runs of the whole shell; every promise is checked in each of them."""

import asyncio
import dataclasses
import importlib
import random
from fractions import Fraction

import pytest

from perfusio_jax.twin import Journal, ReactorLoop, RunRecords
from perfusio_jax.twin.loop import reader, writer
from perfusio_jax.twin.loop.actor import UNSETTLED

from .plant import SAMPLE_FAULTS, WRITE_FAULTS
from .thinking import BRAIN_FAULTS
from .world import World, read_log

BLOCKS, PER_BLOCK = 10, 22

gate = importlib.import_module("perfusio_jax.twin.decision.gate")  # the face has the function


@pytest.mark.parametrize("block", range(BLOCKS))
def test_every_promise_holds_under_random_faults_and_crashes(block):
    n_writes = n_crashes = 0
    for seed in range(block * PER_BLOCK, (block + 1) * PER_BLOCK):
        world = World(seed, n_days=6).run()
        print(f"seed {seed}: {len(world.plant.writes)} writes, {world.n_crashes} crashes")
        assert world.problems == [], f"seed {seed}"
        n_writes += len(world.plant.writes)
        n_crashes += world.n_crashes
    assert n_writes > PER_BLOCK and n_crashes > PER_BLOCK / 2


@pytest.mark.parametrize("fault", ["", "error_after", "delayed"])
def test_a_crash_at_every_single_step_of_a_day_loses_and_doubles_nothing(fault):
    """The process ends before, in and after each step, one run per step."""
    plan = {("write", 0): fault, ("sample", 99): ""}
    whole = World(0, n_days=1, plan=plan, crash_after=[None]).run()
    assert whole.problems == [] and whole.wires.n_steps > 50
    for step in range(whole.wires.n_steps):
        world = World(0, n_days=1, plan=plan, crash_after=[step]).run()
        assert world.problems == [], f"step {step}"
        assert world.n_crashes == 1
        # Once, or once more where the first is known not to have arrived.
        assert len(world.plant.writes) <= (1 if fault == "" else 3), f"step {step}"


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        *(("sample", f) for f in SAMPLE_FAULTS),
        *(("write", f) for f in WRITE_FAULTS),
        *(("brain", f) for f in BRAIN_FAULTS),
        *(("device", f) for f in ("edit", "restart", "power_cut", "clock")),
        *(("jump", f) for f in ("dst", "back")),
        *(("records", f) for f in ("locked", "full")),
    ],
)
def test_each_fault_alone_costs_a_day_and_no_more(kind, fault):
    world = World(7, n_days=5, plan={(kind, 2): fault}, crash_after=[None]).run()
    assert world.problems == []
    days = {int(t // 24) for t, _ in world.plant.writes}
    assert days >= {0, 1}, "before the fault"
    if kind == "jump" or fault == "clock":  # a clock that stays wrong keeps everything back
        assert max(days) <= 2
    else:
        assert 4 in days, "two days after it"


def test_a_disarmed_twin_stays_so_over_crashes_until_a_person_arms_it():
    plan = {("person", 1): "disarm", ("person", 4): "arm"}
    for seed in range(6):
        world = World(seed, n_days=6, plan=plan, crash_after=[150, 200, None]).run()
        assert world.problems == []
        days = {int(t // 24) for t, _ in world.plant.writes}
        assert not days & {2, 3} and 5 in days, days


def test_no_samples_means_hold_then_the_fallback_recipe_then_disarm():
    plan = {("sample", d): "missing" for d in range(1, 9)}
    with World(3, n_days=7, plan=plan, crash_after=[None]).living() as world:
        log = read_log(world.folder)
    assert world.problems == []
    actions = {r["day"]: r["payload"]["action"] for r in log if r["event_type"] == "DECISION_MADE"}
    assert [actions[d] for d in range(7)] == [
        "write",
        "hold",
        "fallback",
        "fallback",
        "disarm",
        "hold",
        "hold",
    ]
    last = world.plant.device
    assert last["temperature"] == pytest.approx(36.5, abs=0.6)
    kinds = [r["event_type"] for r in log]
    assert "SESSION_DISARMED" in kinds and "SAMPLE_MISSED" in kinds


def test_late_and_corrected_samples_enter_the_history_once():
    plan = {("sample", 1): "missing", ("sample", 2): "corrected"}
    with World(5, n_days=5, plan=plan, crash_after=[None]).living() as world:
        log = read_log(world.folder)
    assert world.problems == []
    stored = [(r["day"], r["payload"]["stored"]) for r in log if r["event_type"] == "SAMPLE_READ"]
    assert stored.count((2, "corrected")) == 1
    corrected = next(r for r in log if r["payload"].get("stored") == "corrected")
    assert corrected["new"]["VCD"] == pytest.approx(1.05 * corrected["old"]["VCD"])
    assert corrected["reason"]


def test_a_write_nobody_can_settle_keeps_its_day_and_the_twin_goes_on(monkeypatch):
    """The process ends in a write to a device that cannot be read back, then decides otherwise.

    The decision that stands may not be replaced while its write is open. Trying to, and calling
    it a failure of the records, kept the twin on that day for hours, in every process anew.
    """
    _patched(monkeypatch, "read-back")
    real, days = ReactorLoop.cycle, []

    async def cycle(self, day):
        days.append(day)
        return await real(self, day)

    monkeypatch.setattr(ReactorLoop, "cycle", cycle)
    plan, n_held = {("sample", 9): ""}, 0
    whole = World(0, n_days=1, plan=plan, crash_after=[None]).run()
    for step in range(whole.wires.n_steps):
        days.clear()
        world = World(0, n_days=1, plan=plan, crash_after=[step])
        with world.living():
            log = read_log(world.folder)
        assert "never came to its end" not in world.problems
        assert len(days) <= 2, f"step {step}: the day again, once, after the crash"
        held = [r for r in log if r["event_type"] == "DECISION_MADE" and UNSETTLED in r["reason"]]
        assert all(r["payload"]["action"] == "hold" for r in held)
        n_held += len(held)
    assert n_held


# ---------------------------------------------------------------- the checker itself


def _patched(monkeypatch, what: str) -> None:
    """Break one promise in the program."""
    if what == "rate limit":
        real = gate._window
        monkeypatch.setattr(
            gate,
            "_window",
            lambda name, request, limits: real(
                name, request, dataclasses.replace(limits, max_rate={})
            ),
        )
    elif what == "hard limits":
        monkeypatch.setattr(gate, "_window", lambda *_: (Fraction(-(10**9)), Fraction(10**9)))
    elif what == "audit before writing":
        monkeypatch.setattr(writer.SetpointWriter, "_log", _nothing)
    elif what == "read-back":
        monkeypatch.setattr(writer, "has_own", lambda *_: False)
    elif what == "open writes":
        monkeypatch.setattr(writer.SetpointWriter, "settle", _yes)
        monkeypatch.setattr(RunRecords, "open_intent", _any_intent)
    elif what == "samples":
        monkeypatch.setattr(
            reader,
            "as_plain",
            lambda *given, **more: {**REAL_PLAIN(*given, **more), "values": {"VCD": 0}},
        )


REAL_PLAIN = reader.as_plain


def _zeros(record, day):
    return {**REAL_PLAIN(record, day), "values": {"VCD": 0.0}}


async def _nothing(*args, **kwargs) -> None:
    return None


async def _yes(*args, **kwargs) -> bool:
    return True


def _any_intent(self, decision, setpoints, *, lease=None) -> int:
    with self._transaction() as db:
        db.execute("UPDATE intents SET outcome = 'failed', closed_at = '' WHERE outcome IS NULL")
    return Journal.open_intent(self, decision, {n: v + 1.0 for n, v in setpoints.items()})


@pytest.mark.parametrize(
    "what",
    [
        "rate limit",
        "hard limits",
        "audit before writing",
        "open writes",
        "read-back",
        "samples",
    ],
)
def test_a_program_with_a_broken_promise_is_found_out(monkeypatch, what):
    _patched(monkeypatch, what)
    found = [World(seed, n_days=5).run().problems for seed in range(6)]
    assert any(found), what


# ---------------------------------------------------------------- stop


def test_no_write_begins_after_a_stop_at_any_moment():
    """Stops at moments all over a day, most of them amid a cycle."""
    draw = random.Random(1)
    n_cut = 0
    for seed in range(30):
        moment = draw.choice((draw.uniform(0.0, 40.0), 24 * 3600.0 + draw.uniform(0.0, 60.0)))
        world = World(seed, n_days=3, plan={("write", 0): "error_after"}, crash_after=[None])
        slow = draw.choice((0.0, 5.0))
        stopped = _run_until(world, moment, slow)
        n_cut += stopped
        assert world.problems == [], f"seed {seed}, stop at {moment:.1f} s"
    assert n_cut > 15


def _run_until(world: World, moment_s: float, slow_s: float) -> bool:
    """Stop a world's first process at a moment; the next one finishes the run."""
    original = World._with_hands
    is_first = [True]

    async def with_stop(self, one):
        if not is_first[0]:
            return await original(self, one)
        is_first[0] = False
        real = one._rt.offload

        async def dawdle(work):
            if slow_s and one.attendant.phase in ("deciding", "writing"):
                await asyncio.sleep(slow_s)
            return await real(work)

        slow_runtime = dataclasses.replace(one._rt, offload=dawdle)
        for part in (one, one.writer, one.actor, one.thinker):
            part._rt = slow_runtime

        async def stop():
            await asyncio.sleep(moment_s)
            self.is_stopped_at = self.loop.time()
            one.stop()

        task = asyncio.create_task(stop())
        try:
            await original(self, one)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    World._with_hands = with_stop
    try:
        world.run()
    finally:
        World._with_hands = original
    return world.n_stopped > 0
