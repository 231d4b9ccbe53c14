"""A simulated run of the whole shell: one seed, one fault plan, every promise checked.

The process under test is the real loop with its real journal and audit files; only clocks,
connector, decision and notifier are stand-ins. `Crash` is the end of that process between
any two steps, after which nothing of it runs any more.
"""

import asyncio
import contextlib
import errno
import json
import math
import os
import random
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perfusio_jax._core import CONTROL_NAMES, AuditError, StopRun
from perfusio_jax._core.instants import as_day
from perfusio_jax.twin import (
    AlarmNotifier,
    DispatchReport,
    GateLimits,
    JournalError,
    LoopSettings,
    Mailbox,
    ReactorLoop,
    Situation,
    verify_audit,
)
from perfusio_jax.twin.decision.cadence import Cadence
from perfusio_jax.twin.loop.reader import rows_of
from perfusio_jax.twin.records import audit
from perfusio_jax.twin.records.run_files import JOURNAL_NAME, RunFiles, open_run

from .plant import BOUNDS, READ_BACK_FAULTS, SAMPLE_FAULTS, START, WRITE_FAULTS, Plant
from .thinking import BRAIN_FAULTS, LightBrain
from .virtual_time import VirtualLoop, WallClock, virtual_runtime

LIMITS = GateLimits(
    lower={
        "perfusion_rate": 0.5,
        "bleed_rate": 0.02,
        "glucose_setpoint": 0.5,
        "temperature": 35.0,
        "agitation": 700.0,
        "pyruvate_feed": 0.0,
    },
    upper={
        "perfusion_rate": 2.0,
        "bleed_rate": 0.6,
        "glucose_setpoint": 5.0,
        "temperature": 37.5,
        "agitation": 1050.0,
        "pyruvate_feed": 5.0,
    },
    max_rate={"perfusion_rate": 0.3, "bleed_rate": 0.1, "temperature": 0.6, "agitation": 100.0},
    resolution={"perfusion_rate": 0.01, "bleed_rate": 0.005, "temperature": 0.1, "agitation": 5},
    fallback_recipe={"perfusion_rate": 1.2, "bleed_rate": 0.1, "temperature": 36.5},
)


class Crash(BaseException):
    """The process is gone."""


class Tripwires:
    """Counts the steps of a process and ends it at one of them."""

    def __init__(self, after: int | None) -> None:
        self.left = after
        self.is_gone = False
        self.n_steps = 0

    def step(self) -> None:
        if self.is_gone:
            raise Crash
        self.n_steps += 1
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                self.is_gone = True
                raise Crash


class Wired:
    """An object whose calls are steps, before and after."""

    def __init__(self, target: Any, wires: Tripwires, trouble: Any = None) -> None:
        self._target, self._wires, self._trouble = target, wires, trouble

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            self._wires.step()
            if self._trouble is not None:
                self._trouble()
            result = found(*args, **kwargs)
            self._wires.step()
            return result

        return call


class Bell(AlarmNotifier):
    """A notifier whose channels hang, fail and blow up."""

    def __init__(self, draw: random.Random) -> None:
        super().__init__({"Glc": (1.0, 8.0), "Via": (85.0, None)})
        self._draw = draw
        self.n_told = 0

    async def dispatch(self, events, foreseen=None) -> DispatchReport:
        self.n_told += len(events)
        kind = self._draw.choice(("fine", "fine", "hang", "fail", "raise"))
        if kind == "hang":
            await asyncio.sleep(1e5)
        if kind == "raise":
            raise RuntimeError("no such host")
        return DispatchReport(failed=(("email", "refused"),) if kind == "fail" else ())


@dataclass
class World:
    """One simulated run.

    Args:
        seed: Of everything.
        n_days: Culture days.
        rate: Share of days on which each kind of fault happens.
        interval_h: Time between two samples [h].
        crash_rate: Mean number of process ends per ten days.
    """

    seed: int
    n_days: int = 10
    rate: float = 0.25
    crash_rate: float = 2.0
    reactor_id: str = "R01"
    interval_h: float = 24.0
    plan: dict[tuple[str, float], str] = field(default_factory=dict)
    crash_after: list[int | None] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    folder: Path = Path()
    is_stopped_at: float | None = None

    def __post_init__(self) -> None:
        self.draw = random.Random(self.seed)
        self.cadence = Cadence(self.interval_h)
        self.days = [self.cadence.day(k) for k in range(self.cadence.count(self.n_days))]
        if not self.plan:
            self.plan = make_plan(self.draw, self.days, self.rate)
        if not self.crash_after:
            n = self.draw.randint(0, round(self.crash_rate * self.n_days / 5))
            self.crash_after = [self.draw.randint(0, 250) for _ in range(n)]
        self.problems: list[str] = []
        self.n_crashes = self.n_full = self.n_refused = self.n_stopped = 0
        self.bells: list[Bell] = []

    # ------------------------------------------------------------------ running

    def run(self) -> "World":
        """Run it to its end and check every promise; the folder is gone afterwards."""
        with self.living():
            pass
        return self

    @contextlib.contextmanager
    def living(self) -> Iterator["World"]:
        """Run it to its end; the folder is there inside the block."""
        base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.folder = Path(tempfile.mkdtemp(dir=base, prefix="world"))
        self.loop = VirtualLoop()
        self.clock = WallClock(self.loop)
        self.plant = Plant(
            self.seed,
            reactor_id=self.reactor_id,
            time=lambda: self.loop.time() / 3600.0,
            clock=self._device_clock,
            plan=self.plan,
            on_write=self._on_write,
            cadence=self.cadence,
        )
        try:
            self._live()
            self.check()
            yield self
        finally:
            self.loop.close()
            shutil.rmtree(self.folder, ignore_errors=True)

    def _device_clock(self):
        from .virtual_time import EPOCH, dt

        return EPOCH + dt.timedelta(seconds=self.loop.time())

    def _live(self) -> None:
        crashes = list(self.crash_after)
        for n in range(len(crashes) + 60):
            ending = self._process(crashes[n] if n < len(crashes) else None)
            self._verify_audit(f"process {n}")
            if ending == "completed":
                return
            if ending == "crash":
                self.n_crashes += 1
                self._damage_tail()
            elif ending == "stopped" and self.is_stopped_at is not None:
                self.n_stopped += 1
                self.is_stopped_at = None
            elif ending != "records":
                self.problems.append(f"ended: {ending}")
                return
            # The dead stay dead for a while.
            self.loop._skip(self.draw.choice((1.0, 600.0, 30000.0)))
        self.problems.append("never came to its end")

    def _process(self, crash_after: int | None) -> str:
        self.wires = Tripwires(crash_after)
        runtime = virtual_runtime(self.loop, self.clock)
        files = None
        asyncio.set_event_loop(self.loop)
        try:
            with self._disk():
                files = open_run(
                    self.folder,
                    run_id="sim",
                    runtime=runtime,
                    reactor_id=self.reactor_id,
                    journal_timeout_s=0.0,
                )
                loop = self._make_loop(files, runtime)
                loop.take_lease("simulated", force=True)
                self.loop.run_until_complete(self._with_hands(loop))
            files.close()
            return loop_ending(self.folder)
        except Crash:
            return "crash"
        except (JournalError, AuditError):
            self.n_refused += 1  # started, or ended, on a disk that takes nothing
            return "records"
        finally:
            self.wires.is_gone = True
            self._bury(files)

    def _make_loop(self, files: RunFiles, runtime) -> ReactorLoop:
        bell = Bell(self.draw)
        self.bells.append(bell)
        settings = {
            "reactor_id": self.reactor_id,
            "run_id": "sim",
            "allow_write": True,
            "initial_controls": dict(START),
            "species_bounds": BOUNDS,
            "poll_seconds": 1800.0,
            "patience_seconds": 1.25 * self.interval_h * 3600.0,
            "sampling_interval_h": self.interval_h,
            "on_missed": "hold",
            "beat_seconds": 3600.0,
            "require_age": True,
            "compute_timeout_s": 3600.0,
            **self.settings,
        }
        return ReactorLoop(
            self.plant,
            LightBrain(lambda day: self.plan.get(("brain", day), "")),
            folder=None,
            records=Wired(files.records, self.wires, self._maybe_locked),  # pyright: ignore
            audit=Wired(files.audit, self.wires),  # pyright: ignore
            limits=LIMITS,
            settings=LoopSettings(**settings),
            runtime=runtime,
            notifier=bell,
        )

    async def _with_hands(self, loop: ReactorLoop) -> None:
        """Run the loop, with a person and a bad clock beside it."""
        hands = asyncio.create_task(self._hands(loop))
        try:
            await loop.run(self.n_days)
        finally:
            hands.cancel()
            await asyncio.gather(hands, return_exceptions=True)
            await self._kill_the_rest()

    async def _kill_the_rest(self) -> None:
        me = asyncio.current_task()
        rest = [t for t in asyncio.all_tasks() if t is not me]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def _hands(self, loop: ReactorLoop) -> None:
        """Jumps of the clock and commands of people, by the plan."""
        done: set[tuple[str, int]] = set()
        while True:
            day = self.plant.day
            for kind in ("jump", "person"):
                what = self.plan.get((kind, day), "")
                if not what or (kind, day) in done:
                    continue
                done.add((kind, day))
                if kind == "jump":
                    self.clock.wrong_by_s += {"dst": 3600.0, "back": -7200.0, "ntp": 3.0}[what]
                elif what in ("manual", "automatic", "disarm", "arm"):
                    with (
                        contextlib.suppress(JournalError),
                        Mailbox(self.folder / JOURNAL_NAME, timeout_s=0.0) as box,
                    ):
                        box.send(self.reactor_id, what, actor="ada", role="operator")
            await asyncio.sleep(1700.0)

    def _maybe_locked(self) -> None:
        if self.plan.get(("records", self.plant.day)) == "locked" and self.draw.random() < 0.05:
            self.n_full += 1
            raise JournalError("the journal failed: database is locked")

    @contextlib.contextmanager
    def _disk(self) -> Iterator[None]:
        """A disk that is full on some days, and that a crash leaves half written."""
        real_append, real_replace = audit.append_durably, audit.replace_durably

        def append(path: Path, data: bytes) -> None:
            if self.plan.get(("records", self.plant.day)) == "full" and self.draw.random() < 0.05:
                self.n_full += 1
                raise OSError(errno.ENOSPC, "no space left on device")
            try:
                self.wires.step()
            except Crash:
                with path.open("ab") as file:
                    file.write(data[: self.draw.randrange(len(data))])
                raise
            real_append(path, data)
            self.wires.step()

        def replace(path: Path, data: bytes) -> None:
            if self.plan.get(("records", self.plant.day)) == "full" and self.draw.random() < 0.05:
                raise OSError(errno.ENOSPC, "no space left on device")
            self.wires.step()
            real_replace(path, data)
            self.wires.step()

        audit.append_durably, audit.replace_durably = append, replace
        try:
            yield
        finally:
            audit.append_durably, audit.replace_durably = real_append, real_replace

    def _bury(self, files: RunFiles | None) -> None:
        """Let go of what the operating system would let go of."""
        if files is None:
            return
        with contextlib.suppress(sqlite3.Error):
            files.records._db.close()
        files.audit._lock.release()
        if files.lock._lock.is_held:
            files.lock._lock.release()

    def _damage_tail(self) -> None:
        """A crash of the machine may leave rubbish where the next record would have begun."""
        log = self.folder / "audit.jsonl"
        if self.draw.random() < 0.3 and log.exists():  # the head is there before the log
            with log.open("ab") as file:
                file.write(bytes(self.draw.randrange(256) for _ in range(20)).replace(b"\n", b" "))

    # ------------------------------------------------------------------ promises

    def _on_write(self, setpoints: dict[str, float]) -> None:
        """At the moment a write begins: limits, rates, records, read-back, stop."""
        say = self.problems.append
        last = self.plant.last_read
        for name, value in setpoints.items():
            if not isinstance(value, float) or not math.isfinite(value):
                say(f"{name} = {value!r} is written")
                continue
            if not LIMITS.lower[name] <= value <= LIMITS.upper[name]:
                say(f"{name} = {value} is outside the hard limits")
            reach = LIMITS.max_rate.get(name)
            if last is None:
                say("written before anything was read back")
            # 32 bits read back stand for a number of the grid, half their last place away at most
            elif reach is not None and abs(value - last[name]) > reach + 2**-24 * abs(last[name]):
                say(f"{name} moves from {last[name]} to {value}, more than {reach}")
        if self.plant.reads_since_write < 1:
            say("a set-point is sent again without a read-back")
        if self.is_stopped_at is not None and self.loop.time() > self.is_stopped_at + 1.0:
            say("a write begins more than 1 s after the stop")
        with contextlib.closing(sqlite3.connect(self.folder / JOURNAL_NAME)) as db:
            rows = db.execute("SELECT setpoints FROM intents WHERE outcome IS NULL").fetchall()
        if [json.loads(r[0]) for r in rows] != [setpoints]:
            say(f"written without its intent in the journal: {rows}")
        records = read_log(self.folder)
        intended = [r for r in records if r["event_type"] == "WRITE_INTENDED"]
        if not intended or intended[-1]["new"] != setpoints:
            say("written without an audit record")

    def _verify_audit(self, when: str) -> None:
        if not (self.folder / "audit.jsonl").exists():
            return
        report = verify_audit(self.folder)
        if not report.ok:
            self.problems.append(f"after {when}: {report}")

    def check(self) -> None:
        """Promises about what is on the disk at the end."""
        say = self.problems.append
        with contextlib.closing(sqlite3.connect(self.folder / JOURNAL_NAME)) as db:
            ok = db.execute("PRAGMA integrity_check").fetchone()[0]
            standing = db.execute(
                "SELECT day, count(*) FROM decisions WHERE superseded_by_reason IS NULL "
                "GROUP BY reactor_id, day HAVING count(*) > 1"
            ).fetchall()
            sent = db.execute(
                "SELECT decision_id, count(*) FROM intents GROUP BY decision_id HAVING count(*) > 1"
            ).fetchall()
            samples = db.execute(
                "SELECT day, revision, payload FROM samples ORDER BY id"
            ).fetchall()
            closed = [r[0] for r in db.execute("SELECT day FROM cycles ORDER BY day")]
        if ok != "ok":
            say(f"the journal is damaged: {ok}")
        if standing or sent:
            say(f"more than one standing decision {standing} or send {sent}")
        revisions: dict[float, list[int]] = {}
        for day, revision, payload in samples:
            revisions.setdefault(day, []).append(revision)
            values = json.loads(payload)["values"]
            if values not in self.plant.served.get(day, []):
                say(f"day {day} is stored with values nobody served")
        for day, found in revisions.items():
            if found != list(range(1, len(found) + 1)):
                say(f"day {day} has the revisions {found}")
        if closed != [float(d) for d in self.days]:
            say(f"the closed days are {closed}")
        for day in self.days:
            fault = self.plan.get(("sample", day), "")
            if fault in ("", "stuck", "drift", "spike", "nan") and day not in revisions:
                say(f"the sample of day {day} ({fault or 'no fault'}) is not stored")
        self._check_texts()
        self.check_replay()

    def _check_texts(self) -> None:
        for path in self.folder.rglob("*"):
            if path.is_file() and b"hunter2" in path.read_bytes():
                self.problems.append(f"{path.name} holds a password")

    def check_replay(self) -> None:
        """Every standing decision made again from the journal gives the same bytes."""
        runtime = virtual_runtime(self.loop, self.clock)
        files = open_run(self.folder, run_id="sim", runtime=runtime, reactor_id=self.reactor_id)
        try:
            for decision in files.records.decisions(self.reactor_id):
                kept = decision.payload
                if not kept["recommended"] or not kept["digest"]:
                    continue
                samples = files.records.samples(self.reactor_id, up_to=kept["last_sample"])
                known = [s.values for s in samples if s.day <= decision.day]
                rows = rows_of(known, dict(START), self.cadence)
                situation = Situation(as_day(decision.day), rows, kept["u_now"], kept["fixed"])
                brain = LightBrain(lambda day: self.plan.get(("brain", day), ""))
                again = brain.propose(situation)
                if again.digest != kept["digest"]:
                    self.problems.append(f"day {decision.day}: decided again, it differs")
        finally:
            files.close()


def make_plan(
    draw: random.Random, days: Sequence[float], rate: float
) -> dict[tuple[str, float], str]:
    """Faults by kind and day."""
    menu = {
        "sample": SAMPLE_FAULTS,
        "write": WRITE_FAULTS,
        "read_back": READ_BACK_FAULTS,
        "brain": BRAIN_FAULTS,
        "device": ("edit", "restart", "power_cut", "clock"),
        "jump": ("dst", "back", "ntp"),
        "person": ("manual", "automatic", "disarm", "arm"),
        "records": ("locked", "full"),
        "clock": ("silent",),
        "line": ("0.5", "3", "14"),
    }
    scale = {"device": 0.4, "jump": 0.4, "person": 0.5, "clock": 2.0, "line": 0.4}
    return {
        (kind, day): draw.choice(names)
        for kind, names in menu.items()
        for day in days
        if draw.random() < rate * scale.get(kind, 1.0)
    }


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Whole records of an audit log."""
    lines = (folder / "audit.jsonl").read_bytes().split(b"\n")[:-1]
    return [json.loads(line) for line in lines]


def loop_ending(folder: Path) -> str:
    """How the last run ended, by its own word."""
    endings = [r for r in read_log(folder) if r["event_type"] == "RUN_ENDED"]
    return endings[-1]["payload"]["ending"] if endings else "never"


__all__ = ["CONTROL_NAMES", "Crash", "StopRun", "World"]
