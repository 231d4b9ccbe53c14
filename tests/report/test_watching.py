"""Run folders somebody looks at for a month: read when they change, verified beside it."""

import datetime as dt
import json
import os
import shutil
import socket
import sqlite3
from pathlib import Path

import pytest

from perfusio_jax.cli import main
from perfusio_jax.report import watching as module
from perfusio_jax.report.decisions import reasons_of
from perfusio_jax.report.run_record import read_records
from perfusio_jax.report.watching import Watching
from perfusio_jax.twin.loop.commands import status
from perfusio_jax.twin.records.lock import RunLock, holder_of
from perfusio_jax.twin.records.records_file import RunRecords
from perfusio_jax.viz.dashboard.views import Table
from tests.report.run_folders import make_run
from tests.viz.page_folders import add_alarm, attended, dressed_run, keep_mode, later


@pytest.fixture(scope="module")
def dressed(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("watched") / "rack"
    dressed_run(place / "R01")
    make_run(place / "R02", reactor="R02", n_days=3)
    return place


@pytest.fixture
def place(dressed, tmp_path) -> Path:
    return Path(shutil.copytree(dressed, tmp_path / "rack"))


class Counted:
    """Counts the calls of a function."""

    def __init__(self, function) -> None:
        self.function, self.n = function, 0

    def __call__(self, *args, **more):
        self.n += 1
        return self.function(*args, **more)


def settled(watching: Watching) -> Watching:
    """With every trail verified."""
    for reactor in watching.rack().reactors:
        watching.reactor(reactor.key)
    return watching


def test_what_is_shown_is_what_report_and_status_say(place):
    watching = settled(Watching(place))
    for reactor in watching.rack().reactors:
        folder = place / reactor.folder
        (record,) = read_records(folder)
        (stands,) = status(folder)
        assert reactor.run_id == record.run_id and reactor.name == record.reactor_id
        assert list(reactor.run.readings) == list(record.view().readings)
        for name, values in record.view().readings.items():
            assert [*map(str, reactor.run.readings[name])] == [*map(str, values)]
        assert reactor.mode == stands.mode and reactor.overridden == stands.overridden
        assert {a.id for a in stands.alarms} == {
            a.id for a in reactor.alarms if a.cleared_at is None
        }
        made = [e for e in record.events if e["event_type"] == "DECISION_MADE"]
        assert [d.number for d in reactor.decisions] == [
            e["payload"]["decision"] for e in reversed(made)
        ]
        assert reactor.chain.n_records == record.audit.n_records
        assert reactor.chain.head_hash == record.audit.head_hash
    watching.close()


def test_only_what_changed_is_read_and_only_a_changed_trail_is_verified(place, monkeypatch):
    read, verified = Counted(module.record_of), Counted(module.verify_audit)
    monkeypatch.setattr(module, "record_of", read)
    monkeypatch.setattr(module, "verify_audit", verified)
    watching = settled(Watching(place))
    assert (read.n, verified.n) == (2, 2)
    version = watching.version()
    settled(watching)
    assert watching.version() == version and (read.n, verified.n) == (2, 2)
    keep_mode(place / "R02", "R02", "manual")
    assert watching.version() != version
    settled(watching)
    assert (read.n, verified.n) == (3, 2)
    add_alarm(place / "R02", "R02", run_id="E1", severity="critical", message="x", clock=later())
    settled(watching)
    assert (read.n, verified.n) == (4, 3)
    assert watching.rack().reactors[0].needs[0].rank == 0
    shutil.rmtree(place / "R02")
    assert [r.name for r in watching.rack().reactors] == ["R01"]
    assert set(watching._kept) == set(watching._verified) == {place / "R01"}
    watching.close()


def test_before_a_trail_is_verified_nothing_of_it_is_told(place, monkeypatch):
    monkeypatch.setattr(module, "_PAUSE_S", 60.0)
    watching = Watching(place)
    first, second = watching.rack().reactors
    assert first.chain.state == second.chain.state == "unknown"
    assert first.decisions == [] and list(first.run.readings)  # the journal is there at once
    assert not [n for n in first.notes if "audit" in n]
    assert watching.trail(first.key, text="", kind="", first=0, most=9).n_found  # pyright: ignore
    assert watching.reactor(first.key).decisions  # whoever opens it waits a little  # pyright: ignore
    watching.close()


def test_a_trail_somebody_changed_is_said_and_nothing_of_it_is_told(place):
    path = place / "R01" / "audit.jsonl"
    watching = settled(Watching(place))
    path.write_bytes(path.read_bytes().replace(b'"so"', b'"no"', 1))
    reactor = next(r for r in watching.rack().reactors if r.name == "R01")
    found = watching.reactor(reactor.key)
    assert found is not None and found.chain.state == "bad" and found.decisions == []
    assert found.needs[0].text == "the audit trail does not verify"
    assert found.waiting[0].reasons == [] and found.waiting[0].roles == ()
    assert watching.trail(reactor.key, text="", kind="", first=0, most=9).records == []  # pyright: ignore
    assert watching.model(reactor.key)[0].is_warning  # pyright: ignore
    watching.close()


def test_an_alarm_silenced_for_a_time_is_loud_again_when_that_is_over(place):
    now = dt.datetime(2026, 3, 2, tzinfo=dt.UTC)
    clock = [now]
    with RunRecords(place / "R01" / "journal.sqlite", clock=later()) as book:
        for number in (2, 3):
            book.suppress_alarm(number, now + dt.timedelta(hours=1))
    watching = Watching(place, now=lambda: clock[0])

    def ranks() -> list[int]:
        reactor = next(r for r in watching.rack().reactors if r.name == "R01")
        return [need.rank for need in reactor.needs]

    before = watching.version()
    assert ranks() == [7] or ranks() == [1, 7]
    clock[0] = now + dt.timedelta(hours=1, seconds=1)
    assert 0 in ranks() and watching.version() != before
    watching.close()


def test_addresses_stay_when_the_place_is_named_otherwise(place, monkeypatch):
    watching = Watching(place)
    keys = {r.name: r.key for r in watching.rack().reactors}
    monkeypatch.chdir(place.parent)
    again = Watching(Path("rack"))
    assert {r.name: r.key for r in again.rack().reactors} == keys
    assert len(set(keys.values())) == 2 and all(k.isalnum() for k in keys.values())
    watching.close(), again.close()


def test_looking_never_takes_the_lock_of_a_run_nobody_holds(place):
    folder = place / "R01"
    assert holder_of(folder) is None
    with RunLock(folder):
        found = holder_of(folder)
        assert found is not None and found["is_alive"] is True and found["pid"] == os.getpid()
        watching = Watching(place)
        assert next(r for r in watching.rack().reactors if r.name == "R01").is_running
        watching.close()
    assert holder_of(folder) is None
    note = {"pid": 2**22 + 5, "host": socket.gethostname()}
    for text, alive in (
        (json.dumps(note), False),
        (json.dumps(note | {"host": "elsewhere"}), None),
        (json.dumps(note | {"pid": 1}), True),
        (json.dumps(note | {"pid": "x"}), False),
        (json.dumps(note | {"pid": 2**80}), False),
    ):
        (folder / "run.lock").write_text(text)
        found = holder_of(folder)
        assert found is not None and found["is_alive"] is alive, text
        inode = (folder / "run.lock").stat()
        Watching(place).rack()
        assert (folder / "run.lock").stat().st_mtime_ns == inode.st_mtime_ns
    for text in ("", "[]", "{", json.dumps(note | {"released_at": "x"})):
        (folder / "run.lock").write_text(text)
        assert holder_of(folder) is None
    assert holder_of(place / "nowhere") is None


def test_a_table_of_tables_of_the_settings_gets_a_row_each(tmp_path):
    make_run(tmp_path / "R01", n_days=1)
    (tmp_path / "R01" / "config.toml").write_text(
        "[design_space]\nvcv_target = 16.0\n[design_space.control_bounds.bleed_rate]\nlo = 0.1\n"
        'hi = 0.3\nunit = "vvd"\n[design_space.control_bounds.agitation]\nlo = 700\n',
        encoding="utf-8",
    )
    watching = Watching(tmp_path)
    parts = watching.settings(watching.rack().reactors[0].key)
    assert parts is not None
    rows = [row for part in parts if isinstance(part, Table) for row in part.rows]
    assert ("vcv_target", "16.0") in rows
    assert ("control_bounds.bleed_rate", "lo = 0.1; hi = 0.3; unit = vvd") in rows
    assert ("control_bounds.agitation", "lo = 700") in rows
    watching.close()


@pytest.mark.parametrize("table", ["samples", "decisions"])
@pytest.mark.parametrize("payload", ["{}", '{"values": 5, "setpoints": "x", "read_back": 3}'])
def test_entries_of_another_shape_are_told_and_hide_nobody_else(tmp_path, capsys, table, payload):
    dressed_run(tmp_path / "odd")
    make_run(tmp_path / "good", run_id="good", reactor="R02")
    db = sqlite3.connect(tmp_path / "odd" / "journal.sqlite")
    db.execute(
        f"UPDATE {table} SET payload = ? WHERE id = (SELECT max(id) FROM {table})", (payload,)
    )
    db.commit()
    db.close()
    watching = Watching(tmp_path)
    rack = watching.rack()
    assert [r.name for r in rack.reactors] == ["R02"]
    (trouble,) = rack.troubles
    assert "not as this version writes them" in trouble.text
    watching.close()
    with pytest.raises(SystemExit) as end:
        main(["report" if table == "samples" else "status", str(tmp_path / "odd")])
    err = capsys.readouterr().err
    assert end.value.code == 4 and "nobody foresaw" not in err
    assert "are not as this version writes them" in err and "Put back a copy" in err


def test_a_fleet_is_shown_whole(tmp_path):
    for name in ("pond", "tank"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "twin.toml").write_text(f'[twin]\nsource = "{name}.csv"\n')
        make_run(tmp_path / name / "R01", run_id=name, n_days=1)
    (tmp_path / "fleet.toml").write_text('[fleet]\nruns = ["pond/twin.toml", "tank/twin.toml"]\n')
    watching = Watching(tmp_path)
    found = {r.run_id: r for r in watching.rack().reactors}
    assert set(found) == {"pond", "tank"} and found["pond"].key != found["tank"].key
    settings = watching.settings(found["tank"].key)
    assert settings is not None and ("source", "tank.csv") in settings[1].rows  # pyright: ignore
    watching.close()


def test_a_run_that_is_attended_to_says_so(place):
    with attended(place / "R02", "R02"):
        watching = Watching(place)
        reactor = next(r for r in watching.rack().reactors if r.name == "R02")
        assert reactor.is_running and reactor.mode == "armed"
        watching.close()
    (found,) = [r for r in Watching(place).rack().reactors if r.name == "R02"]
    assert not found.is_running and not any("gone" in need.text for need in found.needs)


def test_a_fitted_model_is_told_from_its_files(place, capsys):
    header = {
        "kind": "HybridStateSpaceModel", "schema_version": 4, "sha256": "ab" * 32,
        "architecture": {
            "species_names": ["VCD", "Glc"], "control_names": ["bleed_rate"],
            "mechanistic": "CHOPerfusionModel", "use_mechanism": True,
            "gp": {"capacity": 96}, "clones": {"registry": [{"clone_id": "X"}]},
        },
    }  # fmt: skip
    out = place / "validation"
    (out / "model").mkdir(parents=True)
    (out / "model" / "header.json").write_text(json.dumps(header), encoding="utf-8")
    (out / "model_card.md").write_text(
        "# Model card\n\nHybrid model fitted by perfusio-jax 0.1.0 to `runs.csv`.\n\n**Verdict**: "
        "good for 3 d.\n\n## Data\n\n- 27 runs of 14 to 14 d.\n\n## Model\n\n- Left out here.\n",
        encoding="utf-8",
    )
    (place / "R01" / "twin.toml").write_text(
        '[twin]\nsource = "s.csv"\nmodel = "../validation/model"\n', encoding="utf-8"
    )
    watching = settled(Watching(place))
    key = next(r.key for r in watching.rack().reactors if r.name == "R01")
    told = " ".join(part.text for part in watching.model(key) or () if hasattr(part, "text"))
    for said in ("fitted by perfusio-jax 0.1.0 to runs.csv", "Verdict: good for 3 d.", "27 runs",
                 "room for 96 intervals", "Clones: X.", "VCD, Glc"):  # fmt: skip
        assert said in told, said
    assert "Left out here" not in told
    (out / "model" / "header.json").write_text("{}", encoding="utf-8")
    (out / "model_card.md").write_bytes(b"\xff\xfe nothing")
    told = " ".join(part.text for part in watching.model(key) or () if hasattr(part, "text"))
    assert "cannot be read" in told
    watching.close()
    with pytest.raises(SystemExit):
        main(["status", str(place)])
    assert "R01" in capsys.readouterr().out


def test_reasons_that_stand_beside_as_one_text_are_told_once():
    told = {"reasons": ["day 3 has no sample", "no set-point was asked for"]}
    assert reasons_of(told, "; ".join(told["reasons"])) == told["reasons"]
    assert reasons_of(told, "something else") == [*told["reasons"], "something else"]


def test_the_terms_of_a_goal_are_among_the_reasons():
    told = {
        "explanation": {
            "targets": [
                {"criterion": "max Titer", "cost": 0.2, "cost_unchanged": 0.5},
                {"species": "VCD", "target": 20.0},
                {"criterion": "min Lac", "cost": None, "cost_unchanged": 1.0},
            ]
        }
    }
    assert reasons_of(told) == [
        "max Titer: expected cost 0.2, 0.5 if nothing changed",
        "target VCD 20",
    ]
