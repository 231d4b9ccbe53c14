"""The shell at any sampling interval: each sample waited for, used, decided on and replayed."""

import contextlib
import csv
import datetime as dt
import json
import sqlite3
from typing import Any

import pytest

from perfusio_jax._core import STATE_ORDER, ConfigError, ConnectorError, DataError, SampleNotReady
from perfusio_jax.cli import main
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE, RunConfig
from perfusio_jax.connectors import FilesystemStore, SQLStore
from perfusio_jax.connectors.base import BioreactorConnectorBase, SampleRecord
from perfusio_jax.report.run_card import run_card
from perfusio_jax.report.run_record import read_records
from perfusio_jax.service import replay as service_replay
from perfusio_jax.twin import (
    AlarmNotifier,
    DigitalTwin,
    GateLimits,
    Proposal,
    digital_twin,
    replay,
    verify_audit,
)
from perfusio_jax.twin.alarms.events import AlarmEvent
from perfusio_jax.twin.decision import given
from perfusio_jax.twin.decision.cadence import Cadence
from perfusio_jax.twin.loop.commands import status

from .plant import LEVELS, START
from .quick import QuickBrain
from .world import LIMITS, World

NOW = dt.datetime(2026, 5, 6, 7, 8, tzinfo=dt.UTC)


class Tank(BioreactorConnectorBase):
    """A vessel with a sample every so many hours, as many as there are by now."""

    def __init__(self, interval_h: float, *, last_h: float = 1e9) -> None:
        self.cadence = Cadence(interval_h)
        self.told: list[float] = []
        self.last_h = last_h
        self.held = dict(START)
        self.writes: list[dict[str, float]] = []
        self.shift: dict[int, float] = {}
        self.lost: set[int] = set()
        self.asked: list[float] = []

    def sample_every(self, interval_h: float) -> None:
        self.told.append(interval_h)

    async def is_alive(self) -> bool:
        return True

    async def days_available(self) -> list[float]:
        return [self.cadence.day(k) for k in range(200) if self.cadence.hours(k) <= self.last_h]

    async def read_sample(self, day: float) -> dict[str, float | None]:
        return dict((await self.read_record(day)).values)

    async def read_record(self, day: float) -> SampleRecord:
        k = self.cadence.number(day)
        assert day == self.cadence.day(k)  # asked for by the one number there is of it
        self.asked.append(day)
        if self.cadence.hours(k) > self.last_h or k in self.lost:
            raise SampleNotReady(f"{day:g} is not there")
        values: dict[str, float | None] = {
            n: level * (1.0 + 0.01 * k) + self.shift.get(k, 0.0)
            for n, level in zip(STATE_ORDER, LEVELS, strict=True)
        }
        good = dict.fromkeys(values, "good")
        return SampleRecord(day, self.cadence.hours(k), values, good, age_h=0.5)

    async def read_setpoints(self) -> dict[str, float]:
        return dict(self.held)

    async def write_setpoints(self, setpoints: dict[str, float]) -> None:
        self.writes.append(dict(setpoints))
        self.held.update(setpoints)


class Eager(QuickBrain):
    """Asks for as much as there is."""

    def propose(self, situation) -> Proposal:
        made = super().propose(situation)
        return Proposal({"agitation": 1050.0}, made.digest, made.forecast, made.species)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(digital_twin, "ModelBrain", QuickBrain)


def make_twin(folder, source: Any, hours: float, **settings: Any) -> DigitalTwin:
    settings.setdefault("run_config", RunConfig(seed=1, sampling_interval_hours=hours))
    settings.setdefault("gate_limits", LIMITS)
    return DigitalTwin(
        source,
        None,
        DEFAULT_AMBR250_DESIGN_SPACE,
        log_dir=folder,
        allow_write=True,
        clock=lambda: NOW,
        initial_controls=START,
        **{"patience_seconds": 0.0, **settings},
    )


def table(folder, name: str, what: str = "day") -> list[Any]:
    with contextlib.closing(sqlite3.connect(folder / "journal.sqlite")) as db:
        return [r[0] for r in db.execute(f"SELECT {what} FROM {name} ORDER BY day")]


def audit(folder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "audit.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("hours", "wanted"),
    [
        (24.0, [0, 1, 2]),
        (12.0, [0, 0.5, 1, 1.5, 2, 2.5]),
        (8.0, [k / 3 for k in range(9)]),
        (48.0, [0, 2]),
        (36.0, [0, 1.5]),
        (6.0, [k / 4 for k in range(12)]),
    ],
)
def test_every_sample_of_so_many_days_is_waited_for_and_decided_on(tmp_path, hours, wanted):
    tank, said = Tank(hours), []
    with make_twin(tmp_path, tank, hours, say=said.append) as twin:
        twin.run_sync(3)
        twin.step(Cadence(hours).day(len(wanted)))
    wanted = [*wanted, Cadence(hours).day(len(wanted))]
    assert tank.told == [hours]
    for name in ("samples", "decisions", "cycles"):
        assert table(tmp_path, name) == wanted, name
    assert verify_audit(tmp_path).ok
    read = [r["day"] for r in audit(tmp_path) if r["event_type"] == "SAMPLE_READ"]
    assert read == wanted
    # Whole days are whole numbers in every record, as they were when there were no others.
    assert [type(d) for d in read] == [int if d == int(d) else float for d in wanted]
    with (tmp_path / "recommendations.csv").open() as file:
        days = [row["day"] for row in csv.DictReader(file)]
    assert days == [f"{d:.8g}" for d in wanted]
    assert any(line.startswith(f"day {wanted[1]:g}: recommends") for line in said)
    assert ("decides after each" in said[0]) == (hours != 24.0)
    with make_twin(tmp_path, tank, hours) as twin:  # every decision again, from the journal
        report = replay(twin.journal, "R00", QuickBrain(None, None, mode="frozen"), START)
    assert report.ok and report.n_same == len(wanted), str(report)


def test_each_sample_changes_what_is_decided_next(tmp_path):
    def digests(name, shift):
        tank = Tank(12.0)
        tank.shift = shift
        with make_twin(tmp_path / name, tank, 12.0) as twin:
            twin.run_sync(2)
        kept = table(tmp_path / name, "decisions", "payload")
        return [json.loads(p)["digest"] for p in kept]

    plain = digests("plain", {})
    for k in range(4):
        other = digests(f"other{k}", {k: 0.01})
        assert [a == b for a, b in zip(plain, other, strict=True)] == [j < k for j in range(4)]


@pytest.mark.parametrize("hours", [12.0, 8.0])
def test_a_run_that_ended_between_two_days_goes_on_there(tmp_path, hours):
    cadence, tank = Cadence(hours), Tank(hours)
    with make_twin(tmp_path, tank, hours) as twin:
        for k in range(5):
            twin.step(cadence.day(k))
    tank.asked.clear()
    with make_twin(tmp_path, tank, hours) as twin:
        assert twin.journal.is_closed("R00", cadence.day(4))
        twin.run_sync(3)
    assert tank.asked[0] == cadence.day(5)
    assert table(tmp_path, "cycles") == [cadence.day(k) for k in range(cadence.count(3))]
    whole = Tank(hours)
    with make_twin(tmp_path / "whole", whole, hours) as twin:
        twin.run_sync(3)
    assert tank.writes == whole.writes and len(tank.writes) > cadence.count(3) / 2


@pytest.mark.parametrize("hours", [12.0, 8.0, 36.0])
def test_every_promise_holds_under_faults_and_crashes(hours):
    n_crashes = 0
    for seed in range(12):
        world = World(seed, n_days=4, interval_h=hours).run()
        assert world.problems == [], f"seed {seed}"
        n_crashes += world.n_crashes
    assert n_crashes > 3


def test_a_crash_at_every_step_of_half_a_day_loses_and_doubles_nothing():
    plan: dict = {("sample", 99): ""}
    whole = World(0, n_days=1, interval_h=12.0, plan=plan, crash_after=[None]).run()
    assert whole.problems == [] and len(whole.plant.writes) == 2
    for step in range(whole.wires.n_steps // 2, whole.wires.n_steps):
        world = World(0, n_days=1, interval_h=12.0, plan=plan, crash_after=[step]).run()
        assert world.problems == [] and world.n_crashes == 1, f"step {step}"
        assert len(world.plant.writes) == 2, f"step {step}"


@pytest.mark.parametrize(
    ("hours", "wanted"),
    [
        (24.0, [990.0, 1050.0, 1050.0]),
        (12.0, [990.0, 1035.0, 1050.0]),
        (8.0, [990.0, 1020.0, 1050.0]),
        (48.0, [990.0, 1050.0, 1050.0]),
    ],
)
def test_the_rate_limit_is_for_the_hours_since_the_last_write(tmp_path, monkeypatch, hours, wanted):
    monkeypatch.setattr(digital_twin, "ModelBrain", Eager)
    limits = GateLimits(
        lower={"agitation": 700.0},
        upper={"agitation": 1050.0},
        max_rate={"agitation": 90.0},
        resolution={"agitation": 5.0},
        balance=None,
    )
    tank, cadence = Tank(hours), Cadence(hours)
    with make_twin(tmp_path, tank, hours, gate_limits=limits) as twin:
        for k in range(3):
            twin.step(cadence.day(k))
    # Day 0 has no write before it: a day's step is open. A third of it is no less than a third.
    assert [w["agitation"] for w in tank.writes] == wanted


def test_a_correction_between_two_days_is_found_and_a_gap_is_said_by_its_day(tmp_path):
    tank, said = Tank(12.0), []
    tank.lost = {3}
    options = {"on_missed": "hold"}
    with make_twin(tmp_path, tank, 12.0, options=options, say=said.append) as twin:
        twin.run_sync(2)
        tank.shift, tank.lost = {1: 0.02}, set()
        twin.step(2)
    assert "day 1.5: no sample" in " ".join(said)
    assert "day 2: samples of days [0.5, 1.5] came late or were corrected" in said
    kinds = [(r["event_type"], r["day"]) for r in audit(tmp_path)]
    assert ("SAMPLE_MISSED", 1.5) in kinds
    raised = [r["payload"]["note"] for r in audit(tmp_path) if r["event_type"] == "ALARM_RAISED"]
    assert raised == ["day 1.5 has no sample"]


def test_a_sample_counts_for_its_own_cycle_only(tmp_path):
    class Off(Tank):
        async def read_record(self, day: float) -> SampleRecord:
            found = await super().read_record(day)
            hours = found.time_h + (6.5 if day == 1 else 0.2)
            return SampleRecord(day, hours, found.values, found.quality, age_h=0.5)

    with make_twin(tmp_path, Off(12.0), 12.0) as twin:
        twin.run_sync(2)
        found = [s.values["implausible"] for s in twin.journal.samples("R00")]
        rows = [s.values["time_h"] for s in twin.journal.samples("R00")]
    assert found == [[], [], ["the sample is dated 30.5 h, which is not day 1"], []]
    assert rows == [0.2, 12.2, 30.5, 36.2]


def heads_of(folder):
    (record,) = read_records(folder)
    return [table.heads for table in run_card(record).tables]


def test_status_and_report_speak_of_cycles(tmp_path):
    with make_twin(tmp_path, Tank(12.0), 12.0) as twin:
        for k in range(4):
            twin.step(k / 2)
    (stands,) = status(tmp_path)
    assert "4 cycles of 12 h closed, last day 1.5 (written)" in str(stands)
    assert heads_of(tmp_path) == [("cycles of 12 h ended as", "count")]
    daily = tmp_path / "daily"
    with make_twin(daily, Tank(24.0), 24.0) as twin:
        twin.run_sync(2)
    assert "2 days closed, last day 1 (written)" in str(status(daily)[0])
    assert heads_of(daily) == [("days ended as", "count")]


def test_a_run_is_not_gone_on_with_at_another_interval(tmp_path):
    with make_twin(tmp_path, Tank(24.0), 24.0) as twin:
        twin.step(0)
    before = (tmp_path / "audit.jsonl").read_bytes()
    with pytest.raises(ConfigError, match=r"sampling_interval_hours is 12, .* one of 24; set it"):
        make_twin(tmp_path, Tank(12.0), 12.0)
    assert (tmp_path / "audit.jsonl").read_bytes() == before
    with make_twin(tmp_path, Tank(24.0), 24.0) as twin:
        twin.run_sync(2)
    assert table(tmp_path, "cycles") == [0, 1]


def test_a_connector_of_whole_days_is_refused_by_name(tmp_path):
    class Daily(BioreactorConnectorBase):
        async def is_alive(self):
            return True

        async def read_sample(self, day):
            return {}

        async def write_setpoints(self, setpoints):
            return None

    class Bare:
        is_alive, read_sample = Daily.is_alive, Daily.read_sample
        write_setpoints = Daily.write_setpoints

    for source in (Daily(), Bare()):
        for hours in (12.0, 36.0):
            with pytest.raises(ConfigError, match=f"{type(source).__name__} gives whole days"):
                make_twin(tmp_path, source, hours)
        make_twin(tmp_path, source, 48.0).close()
        make_twin(tmp_path, source, 24.0).close()
        (tmp_path / "journal.sqlite").unlink()
    assert not (tmp_path / "audit.jsonl").exists() or verify_audit(tmp_path).is_intact


def test_a_day_no_sample_is_due_on_is_refused(tmp_path):
    with (
        make_twin(tmp_path, Tank(12.0), 12.0) as twin,
        pytest.raises(ConfigError, match=r"no sample is due on day 0.3; .* nearest is .* day 0.5"),
    ):
        twin.step(0.3)


def test_where_samples_are_rare_data_may_be_older():
    def ages(hours):
        return given.ages(Cadence(hours))

    assert ages(12.0) == ages(24.0) == {}
    assert ages(48.0) == {
        "max_data_age_h": 60.0,
        "fallback_after_h": 96.0,
        "disarm_after_h": 192.0,
    }


# ---------------------------------------------------------------- sources


def write_rows(path, times_h) -> None:
    lines = ["time_h,VCD,Via,Glc"]
    lines += [f"{t:.10g},{5 + 0.1 * k:.6g},97.5,4.0" for k, t in enumerate(times_h)]
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("hours", [12.0, 8.0, 6.0, 36.0, 48.0, 1.5])
def test_a_file_serves_any_interval(tmp_path, hours):
    path = tmp_path / "samples.csv"
    times = [k * hours + 0.1 * hours for k in range(7)]
    write_rows(path, times)
    store, cadence = FilesystemStore(path), Cadence(hours)
    with make_twin(tmp_path, store, hours, gate_limits=None) as twin:
        for k in range(7):
            twin.step(cadence.day(k))
        samples = twin.journal.samples("R00")
    assert [s.day for s in samples] == [cadence.day(k) for k in range(7)]
    assert [s.values["time_h"] for s in samples] == pytest.approx(times)
    assert [s.values["values"]["VCD"] for s in samples] == pytest.approx(
        [5 + 0.1 * k for k in range(7)]
    )


async def test_a_file_gives_each_row_to_one_cycle_and_none_between(tmp_path):
    path = tmp_path / "samples.csv"
    write_rows(path, [0.0, 6.0, 12.4, 24.0, 41.0])
    store = FilesystemStore(path)
    assert await store.days_available() == [0, 1]
    store.sample_every(12.0)
    assert await store.days_available() == [0, 0.5, 1]
    assert [r.day for r in await store.read_history()] == [0, 0.5, 1]
    assert (await store.read_record(0.5)).time_h == 12.4
    with pytest.raises(SampleNotReady, match=r"no row for day 1.5 yet"):
        await store.read_record(1.5)
    store.sample_every(6.0)
    assert await store.days_available() == [0, 0.25, 0.5, 1, 1.75]


async def test_samples_soon_after_one_another_are_not_joined(tmp_path):
    path = tmp_path / "samples.csv"
    path.write_text("time_h,VCD,Glc\n0,5.0,4.0\n0.2,,\n1,5.1,\n2,,3.9\n2.2,5.2,\n3,5.3,3.8\n")
    store = FilesystemStore(path)
    store.sample_every(1.0)
    found = await store.read_history()
    assert [r.time_h for r in found] == [0, 1, 2, 3]
    assert [r.values["VCD"] for r in found] == [5.0, 5.1, 5.2, 5.3]  # 2.2 h belongs to 2 h


async def test_a_database_serves_any_interval(tmp_path):
    store = SQLStore(f"sqlite:///{tmp_path / 'plant.db'}", "E1", "R01")
    store.create_tables()
    for k in range(5):
        hours = 12.0 * k + 0.3
        store.write_sample(int(hours // 24), {"VCD": 5.0 + k, "Via": 97.0}, time_h=hours)
    store.sample_every(12.0)
    assert await store.days_available() == [0, 0.5, 1, 1.5, 2]
    history = await store.read_history()
    assert [r.day for r in history] == [0, 0.5, 1, 1.5, 2]
    for record in history:
        again = await store.read_record(record.day)
        assert again.time_h == record.time_h and again.values == record.values
    with pytest.raises(SampleNotReady, match="for day 2.5 yet"):
        await store.read_record(2.5)
    store.sample_every(24.0)
    assert await store.days_available() == [0, 1, 2]
    assert (await store.read_record(1)).time_h == pytest.approx(24.3)
    store.database.close()


def test_the_copy_of_the_audit_trail_holds_days_between(tmp_path):
    store = SQLStore(f"sqlite:///{tmp_path / 'plant.db'}", "E1", "R00")
    store.create_tables()
    with make_twin(tmp_path / "run", Tank(12.0), 12.0, archive=store, run_id="half") as twin:
        twin.run_sync(2)
    records = audit(tmp_path / "run")
    assert any(r["day"] == 1.5 for r in records)
    copy = store.compare_audit("half", records)
    assert copy.n_copied == copy.n_log == len(records)
    changed = [{**r, "day": 1.25} if r["day"] == 1.5 else r for r in records]
    assert store.compare_audit("half", changed).n_copied < len(records)
    store.database.close()


# ---------------------------------------------------------------- alarms


def test_alarms_say_when_by_the_rows_own_times():
    notifier = AlarmNotifier({"Glc": (2.0, None)}, lead_days=2)
    forecast = {"mean": [[3.0], [1.5], [1.4], [1.3], [0.1]], "lead_days": [0.5, 1, 1.5, 2, 2.5]}
    found = notifier.check_forecast(forecast, ["Glc"], 0.5)
    assert [(e.lead_days, e.violation_day) for e in found] == [(1, 1.5), (1.5, 2), (2, 2.5)]
    assert "on day 1.5, limit 2" in found[0].message
    rare = {"mean": [[1.0]], "lead_days": [4.0]}
    assert [e.violation_day for e in notifier.check_forecast(rare, ["Glc"], 0)] == [4]
    daily = notifier.check_forecast({"mean": [[3.0], [1.5], [0.0]]}, ["Glc"], 7)
    assert [(e.lead_days, type(e.lead_days), e.violation_day) for e in daily] == [(2, int, 9)]
    with pytest.raises(DataError, match="1 rows and 2 lead_days"):
        notifier.check_forecast({"mean": [[1.0]], "lead_days": [0.5, 1]}, ["Glc"], 0)
    assert isinstance(found[0], AlarmEvent) and issubclass(SampleNotReady, ConnectorError)


# ---------------------------------------------------------------- commands


def test_a_configuration_says_how_often_and_the_commands_speak_of_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(service_replay, "ModelBrain", QuickBrain)
    write_rows(tmp_path / "samples.csv", [12.0 * k for k in range(6)])
    config = tmp_path / "twin.toml"
    config.write_text(
        '[twin]\nsource = "samples.csv"\nfolder = "run"\npatience_seconds = 0\n'
        "[run]\nsampling_interval_hours = 12\nduration_days = 3\nseed = 1\n"
    )

    def command(*words: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main([*words])
        text = capsys.readouterr().out
        assert not ended.value.code, text
        return " ".join(text.split())

    text = command("run", str(config))
    assert "samples come every 12 h; the twin decides after each" in text
    assert "day 2.5: recommends" in text and "day 1: recommends" in text
    assert "6 cycles of 12 h closed, last day 2.5 (hold)" in command("status", str(config))
    assert "cycles of 12 h ended as" in command("report", str(config))
    assert "6 of 6 decisions came out the same" in command("replay", str(config))
