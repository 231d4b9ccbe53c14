"""Several reactors at once, and two twins at one."""

import asyncio
import contextlib
import datetime as dt
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path

import pytest

from perfusio_jax._core import ConfigError, RunLockedError
from perfusio_jax.twin import Fleet, LoopSettings, ReactorLoop, RunRecords, verify_audit
from perfusio_jax.twin.records.run_files import JOURNAL_NAME, open_run

from .plant import BOUNDS, SAMPLE_FAULTS, START, Plant
from .thinking import LightBrain
from .virtual_time import EPOCH, VirtualLoop, WallClock, virtual_runtime
from .world import LIMITS, read_log


class Rack:
    """Several vessels under one virtual clock."""

    def __init__(self, plans: dict[str, dict[tuple[str, int], str]], n_days: int) -> None:
        base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.folder = Path(tempfile.mkdtemp(dir=base, prefix="rack"))
        self.loop = VirtualLoop()
        asyncio.set_event_loop(self.loop)
        self.clock = WallClock(self.loop)
        self.runtime = virtual_runtime(self.loop, self.clock)
        self.n_days = n_days
        self.plants: dict[str, Plant] = {}
        self.files = {}
        self.loops = {}
        for k, (name, plan) in enumerate(plans.items()):
            self.plants[name] = Plant(
                k,
                reactor_id=name,
                time=lambda: self.loop.time() / 3600.0,
                clock=lambda: EPOCH + dt.timedelta(seconds=self.loop.time()),
                plan=plan,
                on_write=lambda _: None,
            )
            self.files[name] = open_run(
                self.folder / name, run_id=name, runtime=self.runtime, reactor_id=name
            )
            self.loops[name] = self.make_loop(name, plan)

    def make_loop(self, name: str, plan: dict[tuple[str, int], str]) -> ReactorLoop:
        return ReactorLoop(
            self.plants[name],
            LightBrain(lambda day: plan.get(("brain", day), "")),
            folder=None,
            records=self.files[name].records,
            audit=self.files[name].audit,
            limits=LIMITS,
            settings=LoopSettings(
                reactor_id=name,
                run_id=name,
                allow_write=True,
                initial_controls=dict(START),
                species_bounds=BOUNDS,
                poll_seconds=1800.0,
                patience_seconds=30.0 * 3600.0,
                on_missed="hold",
                beat_seconds=3600.0,
            ),
            runtime=self.runtime,
        )

    def run(self):
        fleet = Fleet(self.loops, runtime=self.runtime)
        return self.loop.run_until_complete(fleet.run(self.n_days))

    def close(self) -> None:
        for files in self.files.values():
            files.close()
        self.loop.close()
        shutil.rmtree(self.folder)


@contextlib.contextmanager
def rack(plans, n_days=4):
    made = Rack(plans, n_days)
    try:
        yield made
    finally:
        made.close()


def journal_of(folder: Path) -> list[tuple]:
    with contextlib.closing(sqlite3.connect(folder / JOURNAL_NAME)) as db:
        tables = ("samples", "decisions", "intents", "cycles")
        return [row for t in tables for row in db.execute(f"SELECT * FROM {t} ORDER BY 1, 2")]


def test_one_reactors_trouble_leaves_the_others_records_as_they_are_byte_for_byte():
    quiet = {("sample", 99): ""}
    sick = {
        **{("sample", d): SAMPLE_FAULTS[d] for d in range(4)},
        **{("write", d): "hang_before" for d in range(4)},
        ("brain", 1): "raise",
        ("read_back", 2): "hang",
    }
    answers = []
    for first in (quiet, sick):
        with rack({"R01": first, "R02": quiet, "R03": quiet}) as made:
            if first is sick:
                # One more kind of trouble: an error nobody foresaw, in the middle of a cycle.
                real = made.loops["R01"].cycle

                hit: list[int] = []

                async def cycle(day, real=real, hit=hit):
                    if day == 3 and not hit:
                        hit.append(day)
                        raise ZeroDivisionError("nobody foresaw this")
                    return await real(day)

                made.loops["R01"].cycle = cycle
            fates = made.run()
            assert {f.ending for f in fates.values()} == {"completed"}
            assert fates["R01"].n_restarts == (1 if first is sick else 0)
            answers.append({n: journal_of(made.folder / n) for n in ("R02", "R03")})
            writes = {n: made.plants[n].writes for n in ("R02", "R03")}
            answers[-1]["writes"] = writes
            assert all(verify_audit(made.folder / n).ok for n in made.plants)
    assert answers[0] == answers[1]
    assert len(answers[0]["writes"]["R02"]) == 4


def test_twenty_four_reactors_run_beside_one_another():
    plans = {
        f"R{k:02d}": {
            ("sample", d): SAMPLE_FAULTS[(3 * k + d) % len(SAMPLE_FAULTS)] for d in (1, 2)
        }
        for k in range(24)
    }
    with rack(plans, n_days=4) as made:
        fates = made.run()
        assert {f.ending for f in fates.values()} == {"completed"}
        for name, plant in made.plants.items():
            assert plant.writes and plant.writes[0][0] == 0.0
            with contextlib.closing(sqlite3.connect(made.folder / name / JOURNAL_NAME)) as db:
                days = [r[0] for r in db.execute("SELECT day FROM cycles ORDER BY day")]
            assert days == [0.0, 1.0, 2.0, 3.0]
            assert {r["run_id"] for r in read_log(made.folder / name)} == {name}


def test_a_loop_that_cannot_go_on_is_given_up_and_said_so():
    with rack({"R01": {("x", 0): ""}, "R02": {("x", 0): ""}}, n_days=2) as made:

        async def cycle(day):
            raise ZeroDivisionError("always")

        made.loops["R01"].cycle = cycle
        fates = made.run()
    assert fates["R01"].ending == "failed" and "ZeroDivisionError" in fates["R01"].reason
    assert fates["R02"].ending == "completed"


def test_a_fleet_stops_as_one():
    with rack({"R01": {("x", 0): ""}, "R02": {("x", 0): ""}}, n_days=9) as made:
        fleet = Fleet(made.loops, runtime=made.runtime)

        async def scenario():
            work = asyncio.create_task(fleet.run(9))
            await asyncio.sleep(2.5 * 86400.0)
            fleet.stop()
            begun = made.loop.time()
            fates = await work
            return fates, made.loop.time() - begun

        fates, took = made.loop.run_until_complete(scenario())
    assert {f.ending for f in fates.values()} == {"stopped"}
    assert took <= 3600.0  # one beat


def test_a_fleet_without_reactors_or_with_a_shared_folder_is_refused():
    with rack({"R01": {("x", 0): ""}}) as made:
        with pytest.raises(ConfigError, match="no reactors"):
            Fleet({}, runtime=made.runtime)
        one = made.loops["R01"]
        with pytest.raises(ConfigError, match="share a journal"):
            Fleet({"R01": one, "R02": one}, runtime=made.runtime)


# ---------------------------------------------------------------- two twins, one reactor


def test_a_second_twin_is_kept_out_by_folder_and_by_device(tmp_path):
    class Device:
        writer_key = f"opc.tcp://rack:4840 {tmp_path}"

    with rack({"R01": {("x", 0): ""}}) as made:
        with pytest.raises(RunLockedError, match="in use"):
            open_run(made.folder / "R01", run_id="R01", runtime=made.runtime)
        open_it = lambda place: open_run(  # noqa: E731
            place, run_id="a", runtime=made.runtime, connector=Device(), may_write=True
        )
        first = open_it(tmp_path / "a")
        with pytest.raises(RunLockedError, match="set-points of .* are in use by another process"):
            open_it(tmp_path / "b")
        first.close()
        open_it(tmp_path / "b").close()


def test_one_who_was_frozen_and_replaced_cannot_write():
    """A lease was taken over while its holder slept: it finds out before it sends."""
    with rack({"R01": {("x", 0): ""}}, n_days=3) as made:
        loop = made.loops["R01"]
        loop.take_lease("first", force=False)
        other = RunRecords(made.folder / "R01" / JOURNAL_NAME, clock=made.clock)
        with pytest.raises(RunLockedError, match="leased to first"):
            other.take_lease("R01", "second", dt.timedelta(seconds=60), force=False)

        async def scenario():
            work = asyncio.create_task(loop.run(3))
            await asyncio.sleep(1.5 * 86400.0)
            other.take_lease("R01", "second", dt.timedelta(seconds=60), force=True)
            await work

        with pytest.raises(RunLockedError, match="leased to second"):
            made.loop.run_until_complete(scenario())
        other.close()
        assert [int(t // 24) for t, _ in made.plants["R01"].writes] == [0, 1]
