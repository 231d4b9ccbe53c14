"""The commands of a run folder as a person meets them, on a run that was simulated."""

import contextlib
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading

import pytest

from perfusio_jax import cli
from perfusio_jax.twin import AuditLogger, Mailbox, RunLock, RunRecords, generate_key
from perfusio_jax.twin.decision.cadence import DAILY, Cadence
from perfusio_jax.twin.loop.commands import outcomes, reactors, send
from perfusio_jax.twin.records.accounts import account
from perfusio_jax.twin.records.run_files import JOURNAL_NAME

from .test_process import end, start, wait_for
from .world import World


@pytest.fixture(autouse=True)
def _no_side_effects(monkeypatch):
    monkeypatch.setattr(cli.common, "set_up_jax", lambda device=None: None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs") / "run"
    plan = {("sample", 1): "bad"}
    with World(2, n_days=3, plan=plan, crash_after=[None]).living() as world:
        assert world.problems == []
        shutil.copytree(world.folder, place)
    return place


def run(*args, capsys) -> tuple[int, str, str]:
    try:
        cli.main([str(a) for a in args])
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    out = capsys.readouterr()
    return code, out.out, out.err


def test_status_and_report_of_a_finished_run(finished, tmp_path, capsys):
    code, out, _ = run("status", finished, capsys=capsys)
    assert code == 0 and "R01: not running, armed; 3 days closed, last day 2 (written)" in out
    assert run("status", finished.parent, capsys=capsys)[1] == out  # one level above
    code, out, _ = run("report", finished, capsys=capsys)
    assert code == 0 and "reactor R01:" in out and re.search(r"hold +│ +1 │", out)
    code, out, _ = run("report", finished, "--out", tmp_path / "r.md", capsys=capsys)
    assert code == 0 and "| hold | 1 |" in (tmp_path / "r.md").read_text()


def test_one_day_is_called_a_day():
    assert [DAILY.words(n) for n in (0, 1, 2)] == ["days", "day", "days"]
    assert Cadence(12.0).words(1) == "cycle of 12 h" and Cadence(12.0).words() == "cycles of 12 h"


def test_commands_to_a_run_that_is_over_say_so(finished, capsys):
    for words, says in [
        (("stop", finished), "not running"),
        (("approve", finished, "--as", "qa"), "0 decisions"),
        (("tell", finished, "dance"), "allowed are manual"),
        (("tell", finished, "acknowledge"), "--alarm"),
        (("status", finished / "nowhere"), "does not exist"),
        (("tell", finished, "arm", "--reactor", "R7"), "no reactor R7"),
    ]:
        code, _, err = run(*words, capsys=capsys)
        assert code == 2 and says in err and err.count("\n") == 1, (words, err)


def test_a_command_is_left_in_the_folder_with_name_and_reason(finished, capsys):
    code, out, _ = run("tell", finished, "disarm", "--by", "ada", "--reason", "leak", capsys=capsys)
    assert code == 0 and "R01: disarm, for the twin to carry out (nothing runs here now" in out
    with Mailbox(finished / JOURNAL_NAME) as box:
        (command,) = box.incoming("R01")
        assert (command.kind, command.actor, command.payload["reason"]) == ("disarm", "ada", "leak")
        assert command.account == account()
        box.mark(command.id, "for this test only")


def test_one_reactor_of_a_rack_is_spoken_to_and_no_other(finished, tmp_path, capsys):
    """Each reactor has a folder; the name alone must find the right one, whatever its place."""
    for name in ("R01", "R02", "R03"):
        shutil.copytree(finished, tmp_path / name)
        with contextlib.closing(sqlite3.connect(tmp_path / name / JOURNAL_NAME)) as book, book:
            for (table,) in book.execute("SELECT name FROM sqlite_master WHERE type = 'table'"):
                columns = [row[1] for row in book.execute(f"PRAGMA table_info({table})")]
                if "reactor_id" in columns:
                    book.execute(f"UPDATE {table} SET reactor_id = ?", (name,))
    words = ("tell", tmp_path, "disarm", "--reactor", "R02", "--by", "ada")
    code, out, err = run(*words, capsys=capsys)
    assert (code, err) == (0, "") and len(out.splitlines()) == 1
    assert out.startswith("R02: disarm, for the twin to carry out (nothing runs here now")
    for name, n_open in (("R01", 0), ("R02", 1), ("R03", 0)):
        with Mailbox(tmp_path / name / JOURNAL_NAME) as box:
            assert len(box.waiting(name)) == n_open
    code, _, err = run("tell", tmp_path, "arm", "--reactor", "R9", capsys=capsys)
    assert code == 2 and "R01, R02, R03" in err
    # numbers of decisions are each folder's own
    code, _, err = run("approve", tmp_path, "--as", "qa", "--decision", "1", capsys=capsys)
    assert code == 2 and "name the reactor" in err
    words = ("approve", tmp_path, "--as", "qa", "--decision", "1", "--reactor", "R03")
    code, _, err = run(*words, capsys=capsys)  # its day is closed: nothing to approve
    assert code == 2 and "R03 has no decision 1 that stands; it has none." in err
    run("tell", tmp_path, "manual", "--reactor", "R03", "--by", "ada", capsys=capsys)
    with Mailbox(tmp_path / "R03" / JOURNAL_NAME) as box:
        assert [c.kind for c in box.waiting("R03")] == ["manual"]
    out = run("status", tmp_path, capsys=capsys)[1]
    who = f"{account()}, who says to be ada"
    assert f"not carried out yet: disarm, asked for by {who} at" in out
    assert out.count("not carried") == 2


def test_what_no_twin_could_carry_out_is_refused_at_once(finished, tmp_path, capsys):
    finished = shutil.copytree(finished, tmp_path / "run")
    tell = ("tell", finished, "--by", "ada")
    code, _, err = run(*tell, "acknowledge", "--alarm", "999", capsys=capsys)
    assert code == 2 and "no alarm 999 that stands" in err
    code, _, err = run("approve", finished, "--as", "qa", "--decision", "-1", capsys=capsys)
    assert code == 2 and "no decision -1 that stands" in err
    with RunRecords(finished / JOURNAL_NAME) as records:
        name = reactors(records)[0]
        alarm, _ = records.note_alarm(name, "line", "warning", "the line is down")
        n_open = len(records.waiting(name))
    for hours in ("-5", "nan", "0", "1e9"):
        words = (*tell, "suppress", "--alarm", str(alarm.id), "--hours", hours)
        code, _, err = run(*words, capsys=capsys)
        assert code == 2 and "up to 168 h" in err
    with RunRecords(finished / JOURNAL_NAME) as records:
        assert len(records.waiting(name)) == n_open


def test_a_file_that_is_no_journal_is_trouble_with_files(tmp_path, capsys):
    (tmp_path / JOURNAL_NAME).write_bytes(b"garbage")
    code, _, err = run("status", tmp_path, capsys=capsys)
    assert code == 4 and "cannot be used as a journal" in err and "nobody foresaw" not in err


def test_a_journal_that_was_cut_off_is_told_and_not_made_anew(tmp_path, capsys):
    (tmp_path / JOURNAL_NAME).write_bytes(b"")
    for words in (("status", tmp_path), ("tell", tmp_path, "disarm", "--reason", "so")):
        code, _, err = run(*words, capsys=capsys)
        assert code == 4 and "is empty: it was cut off. Put back a copy" in err
        assert (tmp_path / JOURNAL_NAME).read_bytes() == b""


class Answering:
    """A twin that holds a folder and answers what lies in its inbox with one word."""

    def __init__(self, folder, outcome: str) -> None:
        self.folder, self.outcome = folder, outcome

    def __enter__(self):
        self.lock = RunLock(self.folder).acquire()
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self.answer)
        self.thread.start()
        return self

    def answer(self) -> None:
        with RunRecords(self.folder / JOURNAL_NAME) as records:
            while not self.is_over.wait(0.02):
                for command in records.incoming("R01"):
                    records.mark(command.id, self.outcome)

    def __exit__(self, *exc):
        self.is_over.set()
        self.thread.join()
        self.lock.release()


def test_a_command_tells_what_the_twin_made_of_it(finished, tmp_path, capsys):
    """`approve --as boss` was refused in the audit trail only, and printed as a success."""
    folder = shutil.copytree(finished, tmp_path / "run")
    with RunRecords(folder / JOURNAL_NAME) as records:
        number = records.record_decision("R01", 9.0, {"recommended": {"temperature": 36.5}})
    why = "role 'boss' approves nothing here; the roles are ['qa']."
    with Answering(folder, why):
        code, out, err = run("approve", folder, "--as", "boss", capsys=capsys)
        assert code == 2 and out == ""
        assert f"decision {number}: approve by {account()} as boss, refused by the twin" in err
        assert why in err
        code, _, err = run("tell", folder, "arm", "--by", "boss", capsys=capsys)
        assert code == 2 and "R01: arm, refused by the twin" in err
    with Answering(folder, "done"):
        code, out, err = run("approve", folder, "--as", "qa", "--by", "eve", capsys=capsys)
        assert (code, err) == (0, "") and f"by {account()}, who says to be eve, as qa, done" in out


def test_an_answer_is_waited_for_and_not_for_ever(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "run")
    sent = send(folder, "manual", actor="ada")
    waits = []
    assert outcomes(folder, sent, sleep=waits.append) == {"R01": None} and waits == []
    with RunLock(folder):
        assert outcomes(folder, sent, within_s=2.0, sleep=waits.append) == {"R01": None}
    assert sum(waits) == pytest.approx(2.0)


def test_status_says_armed_only_where_the_run_may_write(finished, tmp_path, capsys):
    folder = shutil.copytree(finished, tmp_path / "run")

    def mode_after(*said) -> str:
        with RunRecords(folder / JOURNAL_NAME) as records:
            for kind, payload in said:
                records.keep("R01", kind, actor="x", payload=payload)
        return run("status", folder, capsys=capsys)[1].split("running, ")[1].split(";")[0]

    assert mode_after(("session", {"allow_write": False})) == "advising"
    assert mode_after(("arm", {})) == "advising", "what may not write cannot be armed"
    assert mode_after(("manual", {})) == "manual"
    assert mode_after(("automatic", {}), ("session", {"allow_write": True})) == "armed"
    assert mode_after(("disarm", {}), ("session", {"allow_write": True})) == "disarmed"


def test_a_running_program_stops_when_told(tmp_path, capsys):
    process = start(tmp_path, 100_000)
    try:
        wait_for(process, "ready")
        code, out, _ = run("status", tmp_path / "run", capsys=capsys)
        assert code == 0 and "R00: running, armed" in out and "held by killed" in out
        code, out, _ = run("stop", tmp_path / "run", capsys=capsys)
        assert code == 0 and "asked to stop" in out
        code, errors = end(process)
        assert code == 0, errors
    finally:
        process.kill()
    assert "not running" in run("status", tmp_path / "run", capsys=capsys)[1]


def test_a_key_is_made_once_and_an_audit_trail_checked_against_it(tmp_path, capsys):
    key = tmp_path / "key.pem"
    code, out, _ = run("keygen", key, capsys=capsys)
    assert code == 0 and "mode 0600" in out and "BEGIN" not in out
    code, _, err = run("keygen", key, capsys=capsys)
    assert code == 2 and "never replaced" in err
    from perfusio_jax.twin import load_key

    with AuditLogger(tmp_path / "run", "r", signer=load_key(key)) as audit:
        audit.log("A", {})
    code, out, _ = run("verify-audit", tmp_path / "run", "--key", f"{key}.pub", capsys=capsys)
    assert code == 0 and "signed by key" in out
    generate_key(tmp_path / "other")
    code, out, _ = run(
        "verify-audit", tmp_path / "run", "--key", tmp_path / "other.pub", capsys=capsys
    )
    assert code == 5 and "not a trusted one" in out


@pytest.mark.parametrize(
    "text",
    [
        "[twin]\nsource='s.csv'\npassword='hunter2'\n",
        "[twin]\nconnector='opcua'\nurl='opc.tcp://ada:hunter2@rack:4840'\nnode_map='n.toml'\n",
        "[twin]\nsource='s.csv'\n[alarms]\nsmtp_password='hunter2'\n",
    ],
)
def test_a_configuration_with_a_password_is_refused_without_showing_it(tmp_path, capsys, text):
    (tmp_path / "twin.toml").write_text(text)
    for command in ("run", "replay", "status"):
        code, out, err = run(command, tmp_path / "twin.toml", capsys=capsys)
        assert code == 2 and "holds a secret" in err and "hunter2" not in out + err


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("connector='carrier pigeon'", "file, sql, opcua"),
        ("connector='sql'", "needs url"),
        ("connector='opcua'\nurl='opc.tcp://h:1'", "needs node_map"),
        ("source='s.csv'\nmode='wild'", "frozen"),
        ("source='s.csv'\napprovals=['a','b','c']", "one or two"),
        ("source='s.csv'\non_missed='pray'", "hold"),
        ("source='s.csv'\nresolution={agitaton=10}", "names 'agitaton'; allowed are"),
        ("source='s.csv'\nresolution={agitation=0}", "a step above 0 rpm is needed"),
        ("source='s.csv'\nresolution={agitation=true}", "has True for agitation"),
        ("source='s.csv'\nresolution={bleed_rate=1}", "No multiple of the resolution 1 of bleed"),
        ("source='s.csv'\nsigning_key='none.pem'", "keygen"),
    ],
)
def test_settings_of_the_twin_that_cannot_be_used_are_named(tmp_path, capsys, line, says):
    (tmp_path / "s.csv").write_text("day,VCD\n0,2\n")
    (tmp_path / "twin.toml").write_text(f"[twin]\n{line}\n")
    code, _, err = run("run", tmp_path, "--patience", "0", capsys=capsys)
    assert code == 2 and says in err and "Traceback" not in err


def test_no_traceback_or_debug_output_shows_a_secret_of_the_environment(tmp_path):
    """A driver's error repeats the password; what this program prints does not."""
    program = (
        "import sys; from perfusio_jax import cli; from perfusio_jax.twin.loop import commands\n"
        "def bad(*a): raise OSError(5, 'login hunter2-xyz refused at opc://u:hunter2-xyz@h')\n"
        "commands.find_runs = bad; cli.main(sys.argv[1:])"
    )
    environment = {**os.environ, "PERFUSIO_OPCUA_PASSWORD": "hunter2-xyz"}
    for extra in ([], ["--debug"]):
        done = subprocess.run(
            [sys.executable, "-c", program, "status", str(tmp_path), *extra],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode != 0
        assert "hunter2" not in done.stdout + done.stderr and "***" in done.stderr
