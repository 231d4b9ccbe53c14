"""A described culture driven through a database: the same decisions as through files."""

import asyncio
import csv
import datetime as dt
import io

import numpy as np
import pytest
from rich.console import Console

from perfusio_jax._core import ConfigError
from perfusio_jax.bed.policy import described
from perfusio_jax.connectors import SQLStore
from perfusio_jax.demo.described_rig import DescribedFileReactor, PlantRun
from perfusio_jax.hybrid import save
from perfusio_jax.service.plan import read_plan
from perfusio_jax.service.replay import replay_run
from perfusio_jax.service.run import run_twin
from perfusio_jax.simulator import virtual_plant
from perfusio_jax.twin import verify_audit
from perfusio_jax.twin.loop.commands import status
from tests.service.test_described_twin import OBJECTIVE, drive
from tests.twin.described import FOREIGN, HELD, SMALL, Foreign, known_model

INOCULATED = dt.datetime(2026, 5, 6, 8, tzinfo=dt.UTC)
START = np.asarray([8.0, 0.2, 4.5, 0.8])
TWIN = """
[twin]
{source}
process = "process.toml"
model = "model"
mechanism = "tests.twin.described:Foreign"
mode = "frozen"
reactor_id = "R07"
startup_days = 1
[twin.initial_controls]
perfusion_rate = 1.2
bleed_rate = 0.1
[run]
seed = 3
duration_days = {days}
sampling_interval_hours = {hours}
n_mc_samples = 16
allow_write = true
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A process file and models of it, by interval."""
    place = tmp_path_factory.mktemp("made")
    FOREIGN.to_toml(place / "process.toml")
    for hours in (24, 12):
        save(known_model(float(hours)), place / f"model{hours}")
    return place


@pytest.fixture(autouse=True)
def few_paths(monkeypatch):
    """Decisions of few paths, wherever they are asked for."""
    usual = described.DescribedPolicy.__init__

    def small(self, *args, **settings):
        usual(self, *args, **{**SMALL, **settings})

    monkeypatch.setattr(described.DescribedPolicy, "__init__", small)


def written(folder, made, source, *, hours=24, days=3):
    folder.mkdir(exist_ok=True)
    (folder / "process.toml").symlink_to(made / "process.toml")
    (folder / "model").symlink_to(made / f"model{hours}")
    (folder / "samples.csv").write_text("time_h,VCD\n0,8\n")
    path = folder / "twin.toml"
    path.write_text(TWIN.format(source=source, days=days, hours=hours) + OBJECTIVE)
    return path


def on_database(url):
    return f'connector = "sql"\nurl = "{url}"\nexperiment = "E"'


def new_run():
    return PlantRun(virtual_plant(FOREIGN, Foreign()), START, HELD, seed=5)


class DatabaseReactor:
    """A plant whose samples people put into a database, and that obeys its set-points."""

    def __init__(self, url: str, run: PlantRun, interval_h: float) -> None:
        self.store, self.run, self.interval_h = (
            SQLStore(url, "E", "R07", process=FOREIGN),
            run,
            interval_h,
        )
        self.inoculated = INOCULATED

    async def sample(self) -> None:
        if self.run.n_samples:
            self.run.controls.update(await self.store.read_setpoints())
            self.run.live(self.interval_h)
        hours = self.run.time_h
        # as many digits as a file has
        seen = {n: float(f"{v:.6g}") for n, v in self.run.sample().items()}
        self.store.write_sample(
            int(hours // 24),
            seen | self.run.controls,
            time_h=hours,
            sampled_at=self.inoculated + dt.timedelta(hours=hours),
        )


async def live(path, reactor, days) -> list[dict]:
    """Sample by sample: the plant lives and is sampled, the twin decides and writes."""
    now = {"day": 0.0}
    plan = read_plan(path)
    clock = lambda: INOCULATED + dt.timedelta(days=now["day"], minutes=30)  # noqa: E731
    store = SQLStore(reactor.store.database.url, "E", "R07", process=FOREIGN, clock=clock)
    object.__setattr__(plan, "connector", lambda *_, **__: store)
    found = []
    with plan.twin("R07", allow_write=None, patience_s=0.0, say=lambda _: None) as twin:
        for day in days:
            now["day"] = day
            await reactor.sample()
            found.append(await twin.step_async(day))
        await twin.loop.copy_audit()
    await store.close()
    await reactor.store.close()
    return found


def test_a_database_and_files_lead_to_the_same_decisions(url, made, tmp_path):
    ours = written(tmp_path / "sql", made, on_database(url))
    files = written(tmp_path / "files", made, 'source = "samples.csv"')
    reactor = DatabaseReactor(url, new_run(), 24.0)
    found = asyncio.run(live(ours, reactor, range(3)))
    assert [r["outcome"] for r in found] == ["hold", "written", "written"]
    (tmp_path / "files" / "samples.csv").unlink()
    plain = DescribedFileReactor(tmp_path / "files", new_run(), inoculated=INOCULATED)
    same = drive(files, plain, range(3))
    for one, other in zip(found, same, strict=True):
        assert one["decision"].setpoints == other["decision"].setpoints
        assert one["sample"] == other["sample"]
    hands = SQLStore(url, "E", "R07", process=FOREIGN)
    sent = asyncio.run(hands.read_setpoints())
    hands.database.close()
    with (tmp_path / "files" / "setpoints.csv").open() as table:
        *_, last = csv.DictReader(table)
    assert sent == {n: float(last[n]) for n in FOREIGN.control_names}
    assert verify_audit(tmp_path / "sql").ok
    said = Console(file=io.StringIO(), width=200, markup=False)
    assert replay_run(ours, reactor_id=None, console=said)
    assert "3 of 3 decisions came out the same" in said.file.getvalue()
    (now,) = status(tmp_path / "sql")
    assert now.n_days == 3


def test_half_days_are_driven_through_a_database(made, tmp_path):
    url = f"sqlite:///{tmp_path / 'plant.db'}"
    SQLStore(url, "E", "R07").create_tables()
    path = written(tmp_path / "sql", made, on_database(url), hours=12, days=2)
    reactor = DatabaseReactor(url, new_run(), 12.0)
    found = asyncio.run(live(path, reactor, [0.0, 0.5, 1.0, 1.5]))
    assert [r["outcome"] for r in found] == ["hold", "hold", "written", "written"]
    assert [s["time_h"] for s in reactor.store.setpoint_history()][::2] == [24.0, 36.0]


def test_the_command_refuses_a_database_of_another_culture(made, tmp_path):
    url = f"sqlite:///{tmp_path / 'plant.db'}"
    hands = SQLStore(url, "E", "R07")
    hands.create_tables()
    path = written(tmp_path / "sql", made, on_database(url))
    hands.write_sample(0, {"VCD": 8.0})
    hands.database.close()
    said = Console(file=io.StringIO(), width=200, markup=False)
    with pytest.raises(ConfigError, match="R07 of experiment E as CHO perfusion"):
        run_twin(path, days=1, allow_write=False, patience_s=0.0, console=said)
    controls = (FOREIGN.controls[0].model_copy(update={"hi": 3.0}), FOREIGN.controls[1])
    other = SQLStore(url, "F", "R07", process=FOREIGN.model_copy(update={"controls": controls}))
    other.write_sample(0, {"VCD": 8.0})
    path.write_text(path.read_text().replace('experiment = "E"', 'experiment = "F"'))
    with pytest.raises(ConfigError, match="perfusion_rate: hi is 3.0 and 2.0"):
        run_twin(path, days=1, allow_write=False, patience_s=0.0, console=said)
    other.database.close()
