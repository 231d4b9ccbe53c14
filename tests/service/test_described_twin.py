"""A described culture driven through files: twin.toml, run, restart, replay, status, refusals."""

import asyncio
import csv
import datetime as dt
import io
import json

import jax
import numpy as np
import pytest
from rich.console import Console

from perfusio_jax._core import ConfigError
from perfusio_jax.bed.policy import described
from perfusio_jax.connectors import FilesystemStore
from perfusio_jax.demo.described_rig import DescribedFileReactor, PlantRun
from perfusio_jax.hybrid import save
from perfusio_jax.process import MONOD_CHEMOSTAT
from perfusio_jax.report.run_card import run_card
from perfusio_jax.report.run_record import read_records
from perfusio_jax.service.plan import read_plan
from perfusio_jax.service.replay import replay_run
from perfusio_jax.service.run import run_twin
from perfusio_jax.simulator import virtual_plant
from perfusio_jax.twin import DigitalTwin, verify_audit
from perfusio_jax.twin.loop.commands import status
from tests.twin.described import FOREIGN, HELD, SMALL, Foreign, known_model

TWIN = """
[twin]
source = "samples.csv"
process = "process.toml"
model = "model"
mechanism = "tests.twin.described:Foreign"
mode = "frozen"
reactor_id = "R07"
startup_days = 1
{twin}
[twin.initial_controls]
perfusion_rate = 1.2
bleed_rate = 0.1

[run]
seed = 3
duration_days = {days}
n_mc_samples = 16
allow_write = true

{objective}
"""
OBJECTIVE = """
[objective]
goals = ["VCD = 20"]
limits = ["Via >= 60"]
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A process file and a model of it."""
    place = tmp_path_factory.mktemp("made")
    FOREIGN.to_toml(place / "process.toml")
    save(known_model(), place / "model")
    return place


@pytest.fixture(autouse=True)
def few_paths(monkeypatch):
    """Decisions of few paths, wherever they are asked for."""
    usual = described.DescribedPolicy.__init__

    def small(self, *args, **settings):
        usual(self, *args, **{**SMALL, **settings})

    monkeypatch.setattr(described.DescribedPolicy, "__init__", small)


@pytest.fixture
def place(tmp_path, made):
    def write(objective=OBJECTIVE, twin="", days=3, samples="time_h,VCD\n0,8\n"):
        for name in ("process.toml", "model"):
            if not (tmp_path / name).exists():
                (tmp_path / name).symlink_to(made / name)
        (tmp_path / "samples.csv").write_text(samples)
        path = tmp_path / "twin.toml"
        path.write_text(TWIN.format(objective=objective, twin=twin, days=days))
        return path

    return write


def plant(folder, *, start=(8.0, 0.2, 4.5, 0.8)) -> DescribedFileReactor:
    """The plant the model knows, behind two files."""
    run = PlantRun(virtual_plant(FOREIGN, Foreign()), np.asarray(start), HELD, seed=5)
    (folder / "samples.csv").unlink(missing_ok=True)
    return DescribedFileReactor(folder, run)


def screen() -> Console:
    return Console(file=io.StringIO(), width=200, markup=False)


def drive(path, reactor, days, jump_on=None) -> list[dict]:
    """Day by day: the plant lives and is sampled, the twin decides and writes."""
    inoculated, now = reactor.inoculated, {"day": 0}
    plan = read_plan(path)
    store = FilesystemStore(
        reactor.samples,
        reactor.setpoints,
        process=FOREIGN,
        reactor_id="R07",
        clock=lambda: inoculated + dt.timedelta(days=now["day"], minutes=30),
    )
    object.__setattr__(plan, "connector", lambda *_, **__: store)
    found = []

    async def live():
        with plan.twin("R07", allow_write=None, patience_s=0.0, say=lambda _: None) as twin:
            for day in days:
                now["day"] = day
                if day == jump_on:
                    reactor.run._state = reactor.run._state.at[0].multiply(6.0)
                await reactor.sample()
                found.append(await twin.step_async(day))

    asyncio.run(live())
    return found


# ------------------------------------------------------------------ closed loop


@pytest.fixture
def driven(place, tmp_path):
    path = place(days=6)
    reactor = plant(tmp_path)
    return path, reactor, drive(path, reactor, range(6))


def test_a_plant_is_driven_through_files_and_everything_is_on_record(driven, tmp_path):
    _, reactor, found = driven
    assert [r["outcome"] for r in found] == ["hold", *["written"] * 5], "the first day is watched"
    last = reactor.run.true[-1][FOREIGN.readings.index("VCD")]
    assert abs(last - 20.0) < 4.0
    with (tmp_path / "recommendations.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6 and list(rows[0]) == [
        *("decided_at", "reactor_id", "day", "perfusion_rate", "bleed_rate"),
        *("action", "ofv", "limits_probability", "reasons"),
    ]
    with (tmp_path / "setpoints.csv").open() as file:
        sent = list(csv.DictReader(file))
    assert [float(r["bleed_rate"]) for r in sent] == [float(r["bleed_rate"]) for r in rows[1:]]
    # bleed no further than half its range a day, and on the grid of 0.005 vvd
    bleeds = [0.1, *(float(r["bleed_rate"]) for r in sent)]
    assert np.all(np.abs(np.diff(bleeds)) <= 0.25 + 1e-12)
    assert all(round(b / 0.005, 6).is_integer() for b in bleeds)
    import pyarrow.parquet as pq

    table = pq.read_table(tmp_path / "forecasts.parquet").to_pandas()
    assert set(table.species) == {"VCD", "Via", "Glc", "Lac"}
    assert verify_audit(tmp_path).ok
    records = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    begun = next(r for r in records if r["event_type"] == "SESSION_STARTED")["payload"]
    assert begun["process"]["name"] == "foreign"
    assert begun["versions"]["jax"] == jax.__version__
    assert {"perfusio-jax", "python", "gpjax", "numpy"} <= set(begun["versions"])
    assert begun["objective"]["goals"] == ["VCD = 20"] and "design_space" not in begun
    made = [r["payload"]["explanation"] for r in records if r["event_type"] == "DECISION_MADE"]
    assert made[-1]["constraints"][0]["limit"] == "Via >= 60"


@pytest.mark.parametrize(("name", "outcome"), [("Lac", "written"), ("VCD", "hold")])
def test_below_a_limit_holds_what_a_decision_is_about_and_nothing_else(
    place, tmp_path, name, outcome
):
    path, reactor = place(days=3, twin="startup_days = 0"), plant(tmp_path)
    path.write_text(path.read_text().replace("startup_days = 1\n", ""))
    sample = reactor.sample

    async def below():
        await sample()
        with reactor.samples.open() as file:
            rows = list(csv.reader(file))
        rows[-1][rows[0].index(name)] = "< 9"
        with reactor.samples.open("w") as file:
            csv.writer(file).writerows(rows)

    reactor.sample = below
    found = drive(path, reactor, range(2))
    assert [r["outcome"] for r in found] == [outcome] * 2
    kept = [str(r["decision"].gate) if hasattr(r["decision"], "gate") else str(r) for r in found]
    assert ("uncertain" in kept[-1]) == (outcome == "hold"), kept[-1]


def test_it_is_decided_again_byte_for_byte_and_summed_up(driven, tmp_path):
    path, _, _ = driven
    said = screen()
    assert replay_run(path, reactor_id=None, console=said)
    assert "6 of 6 decisions came out the same" in said.file.getvalue()
    (now,) = status(tmp_path)
    assert now.n_days == 6 and now.mode == "armed" and not now.is_running
    (record,) = read_records(tmp_path)
    said = run_card(record).sentences
    assert any(line.startswith("6 samples, ") and "0 of them corrected" in line for line in said)
    assert "Writes: 5 written." in said


def test_a_restart_goes_on_where_it_was(place, tmp_path):
    path = place(days=6)
    reactor = plant(tmp_path)
    first = drive(path, reactor, range(2))
    again = drive(path, reactor, range(2, 4))
    assert [r["outcome"] for r in (*first, *again)] == ["hold", "written", "written", "written"]
    with (tmp_path / "setpoints.csv").open() as file:
        sent = [float(row["bleed_rate"]) for row in csv.DictReader(file)]
    assert len(sent) == 3
    assert replay_run(path, reactor_id=None, console=screen())


def test_the_command_works_through_a_file(place, tmp_path, monkeypatch):
    head = "time_h,VCD [1e6 cells/mL],Via,Glc [mg/L],Lac\n"
    path = place(samples=head + "0,8,97,4500,0.8\n24,14,96.5,4100,1\n48,18,96,,1.2\n")
    said = screen()
    run_twin(path, days=3, allow_write=False, patience_s=0.0, console=said)
    text = said.file.getvalue()
    assert "advising only" in text and "recommends perfusion_rate" in text
    records = (tmp_path / "audit.jsonl").read_text()
    assert '"Glc":4.5' in records, "a unit that fits is converted"


def test_an_operator_who_moves_a_set_point_keeps_it(place, tmp_path):
    path = place(days=6)
    reactor = plant(tmp_path)
    drive(path, reactor, range(2))
    hand = FilesystemStore(reactor.samples, reactor.setpoints, process=FOREIGN, reactor_id="R07")
    asyncio.run(hand.write_setpoints({"perfusion_rate": 1.7}))
    (found,) = drive(path, reactor, [2])
    assert "perfusion_rate" not in found["verdict"].setpoints
    assert found["decision"].setpoints["perfusion_rate"] == 1.7


def test_a_sample_nobody_can_believe_is_held(place, tmp_path):
    path = place(days=6)
    reactor = plant(tmp_path)
    *_, last = drive(path, reactor, range(3), jump_on=2)
    assert last["outcome"] == "hold"
    assert any("VCD=" in r and "jumped" in r for r in last["verdict"].reasons)


# ------------------------------------------------------------------ alarms


def test_alarms_are_of_the_limits_by_name(place, made, tmp_path):
    alarms = '[alarms]\nwarning = ["Glc >= 1", "VCD <= 30"]\ncritical = ["VCD <= 40"]\n'
    plan = read_plan(place(OBJECTIVE + alarms + "lead_days = 2\n"))
    notifier = plan.notifier()
    inf = float("inf")
    assert notifier.thresholds == {"VCD": (-inf, 30.0), "Glc": (1.0, inf)}
    assert notifier.critical == {"VCD": (-inf, 40.0)} and notifier.lead_days == 2
    usual = read_plan(place()).notifier()
    assert usual.thresholds == usual.critical == {"Via": (60.0, inf)}
    events = usual.check_sample({"Via": 55.0, "VCD": 1.0}, 2)
    assert [(e.species, e.severity) for e in events] == [("Via", "critical")]


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objective": ""}, "needs a table .objective. with goals"),
        ({"objective": "[objective]\ngoals = []"}, "no goal in .objective."),
        ({"objective": '[objective]\ngoals = "VCD = 20"'}, "goals in .objective. is"),
        ({"objective": '[objective]\ngoal = ["VCD = 20"]'}, "with goals"),
        ({"objective": OBJECTIVE + "target = 3"}, "unknown keys .'target'. in .objective."),
        ({"objective": '[objective]\ngoals = ["Titer = 20"]'}, "'Titer' is not forecast"),
        ({"objective": OBJECTIVE.replace("Via", "Vita")}, "'Vita' is not forecast .did you mean"),
        ({"objective": OBJECTIVE + 'controls = ["stirring"]'}, "'stirring' is no control of"),
        ({"objective": OBJECTIVE + "ranges = {bleed_rate = [0, 3]}"}, "within 0 to 0.5 vvd"),
        ({"objective": OBJECTIVE + "ranges = {bleed_rate = 3}"}, "a table of .lower, upper."),
        ({"objective": OBJECTIVE + "horizon_days = 0"}, "horizon_days in .objective."),
        ({"objective": OBJECTIVE + "[design_space]\nname = 'x'"}, "design_space. is of CHO"),
        ({"objective": OBJECTIVE + "[alarms]\nviability_warning = 3.0"}, "in .alarms."),
        ({"objective": OBJECTIVE + "[alarms]\nwarning = ['Osm >= 3']"}, "'Osm' is not forecast"),
        (
            {"objective": OBJECTIVE + "[alarms]\nwarning=['VCD<=50']\ncritical=['VCD<=40']"},
            "inverted",
        ),
        ({"objective": OBJECTIVE + "[alarms]\nnotification_channel='file'"}, "needs alarm_file"),
        ({"twin": "volume_L = 0.25"}, "the process says the volume"),
        (
            {"twin": 'connector = "opcua"\nurl = "opc.tcp://h:1"\nnode_map = "y"'},
            "/y cannot be read",
        ),
        ({"twin": "resolution = {agitation = 5}"}, "resolution names unknown controls"),
        ({"twin": "max_change = {bleed_rate = 0}"}, "max_change in .twin. has 0 for bleed_rate"),
        ({"twin": "max_change = {bled_rate = 1}"}, "unknown controls .'bled_rate'..*did you mean"),
    ],
)
def test_what_does_not_fit_the_culture_is_refused_before_anything_starts(place, change, message):
    with pytest.raises(ConfigError, match=f"(?is)twin.toml.*{message}"):
        read_plan(place(**change))


def test_controls_to_begin_with_lie_where_they_may_be_set(place):
    path = place()
    path.write_text(path.read_text().replace("bleed_rate = 0.1", "bleed_rate = 0.9"))
    with pytest.raises(ConfigError, match="bleed_rate is 0.9; a number from 0 to 0.5 vvd"):
        read_plan(path)


def test_a_model_of_another_culture_is_refused_with_the_differences(place, tmp_path):
    path = place()
    (tmp_path / "process.toml").unlink()
    changed = FOREIGN.controls[1].model_copy(update={"hi": 0.7})
    wider = FOREIGN.model_copy(update={"controls": (FOREIGN.controls[0], changed)})
    wider.to_toml(tmp_path / "process.toml")
    with pytest.raises(ConfigError, match="changed since: bleed_rate: hi is 0.5 and 0.7.*Fit"):
        read_plan(path)
    renamed = wider.model_copy(update={"name": "mine"})
    renamed.to_toml(tmp_path / "process.toml")
    with pytest.raises(ConfigError, match="is of process foreign, and process.toml is mine"):
        read_plan(path)
    MONOD_CHEMOSTAT.to_toml(tmp_path / "process.toml")
    text = path.read_text()
    path.write_text(text.replace("perfusion_rate = 1.2\nbleed_rate = 0.1\n", ""))
    with pytest.raises(ConfigError, match="VCD is in the first only"):
        read_plan(path)
    path.write_text(text.replace('process = "process.toml"', 'process = "no_such"'))
    with pytest.raises(ConfigError, match="there is no process 'no_such'"):
        read_plan(path)


def test_a_model_of_cho_perfusion_and_one_without_its_process_are_refused(place, tmp_path):
    from perfusio_jax.hybrid import AssayNoise, HybridStateSpaceModel, Vessel
    from perfusio_jax.mechanistic import CHOPerfusionModel

    cho = HybridStateSpaceModel(CHOPerfusionModel(), None)
    path = place()
    path.write_text(path.read_text().replace("mechanism =", "# mechanism ="))
    (tmp_path / "model").unlink()
    save(cho, tmp_path / "model")
    with pytest.raises(ConfigError, match="the model is of CHO perfusion as the reference API"):
        read_plan(path)
    for key, message in (
        ('[objective]\ngoals = ["VCD = 2"]', "objective. is of a culture that process"),
        ("max_change = {bleed_rate = 1}", "max_change in .twin. is of a culture"),
    ):
        path.write_text(f'[twin]\nsource = "samples.csv"\n{key}\n')
        with pytest.raises(ConfigError, match=message):
            read_plan(path)
    noise = AssayNoise(np.full(3, 0.05), np.full(3, 0.1), via=None)
    plain = HybridStateSpaceModel(Vessel(MONOD_CHEMOSTAT), None, assay=noise)
    save(plain, tmp_path / "model")
    path.write_text('[twin]\nsource = "samples.csv"\nmodel = "model"\n')
    with pytest.raises(ConfigError, match="is of process monod_chemostat; name it with process"):
        read_plan(path)
    with pytest.raises(ConfigError, match="the model is of foreign; a twin of it needs"):
        DigitalTwin(None, known_model())  # pyright: ignore[reportArgumentType]
