"""People and the twin: approval, manual mode, alarms, commands from outside."""

import asyncio
import math
from dataclasses import replace

import pytest

from perfusio_jax._core import ConfigError
from perfusio_jax.report.run_card import run_card
from perfusio_jax.report.run_record import read_records
from perfusio_jax.twin import LoopSettings, Mailbox, RunRecords, replay
from perfusio_jax.twin.loop.attendant import Attendant
from perfusio_jax.twin.loop.commands import find_runs, is_running, send, status, waiting_decision
from perfusio_jax.twin.records import letters
from perfusio_jax.twin.records.accounts import account
from perfusio_jax.twin.records.entries import Command
from perfusio_jax.twin.records.run_files import JOURNAL_NAME

from .plant import START
from .thinking import LightBrain
from .world import World, read_log

CALM = {("sample", 99): ""}


@pytest.fixture(autouse=True)
def everybody(monkeypatch):
    """Each person has an account of their own name: here all of them are one process."""
    monkeypatch.setattr(letters, "owner_of", lambda status, letter: letter.get("actor", "?"))


class Peopled(World):
    """A world in which somebody does something at given hours."""

    deeds: list = []  # noqa: RUF012

    async def _hands(self, loop):
        while self.deeds:
            hour, deed = self.deeds[0]
            wait = hour * 3600.0 - self.loop.time()
            if wait > 0:
                await asyncio.sleep(wait)
            self.deeds = self.deeds[1:]  # done once, also if the process ends
            deed(self)


def peopled(deeds, n_days=3, plan=CALM, **settings):
    world = Peopled(1, n_days=n_days, plan=dict(plan), crash_after=[None])
    world.settings = {"beat_seconds": 60.0, **settings}
    world.deeds = deeds
    return world.living()


def says(kind, actor, role=None, **payload):
    def deed(world):
        with Mailbox(world.folder / JOURNAL_NAME) as box:
            box.send(world.reactor_id, kind, actor=actor, role=role, payload=payload)

    return deed


def votes(kind, actor, role, through=""):
    def deed(world):
        *_, decision = waiting_decision(world.folder, None)
        with Mailbox(world.folder / JOURNAL_NAME) as box:
            payload = {"decision": decision.id} | ({"through": through} if through else {})
            box.send(world.reactor_id, kind, actor=actor, role=role, payload=payload)

    return deed


def days_written(world):
    return [int(t // 24) for t, _ in world.plant.writes]


TWO = {"approvals": ("operator", "qa"), "approvers": {"qa": ("eve", "ada")}}


def test_a_write_waits_for_two_people_and_goes_when_both_agree():
    deeds = [(1.0, votes("approve", "ada", "operator")), (2.0, votes("approve", "eve", "qa"))]
    with peopled(deeds, n_days=1, **TWO) as world:
        log = read_log(world.folder)
    assert world.problems == [] and len(world.plant.writes) == 1
    assert world.plant.writes[0][0] == pytest.approx(2.0, abs=0.05)
    cast = [(r["user"], r["role"]) for r in log if r["event_type"] == "COMMAND_APPROVE"]
    assert cast == [("ada", "operator"), ("eve", "qa")]
    asked = next(r for r in log if r["event_type"] == "APPROVAL_ASKED")
    assert asked["payload"]["roles"] == ["operator", "qa"] and asked["new"]
    made = next(r for r in log if r["event_type"] == "DECISION_MADE")
    assert asked["payload"]["explanation"] == made["payload"]["explanation"]


@pytest.mark.parametrize(
    ("deeds", "why"),
    [
        ([], "nobody answers"),
        ([(1.0, votes("approve", "ada", "operator"))], "one of two"),
        (
            [(1.0, votes("approve", "ada", "operator")), (2.0, votes("approve", "ada", "qa"))],
            "the same person twice",
        ),
        (
            [(1.0, votes("approve", "bob", "operator")), (2.0, votes("approve", "bo", "qa"))],
            "not one of those who may",
        ),
        (
            [(1.0, votes("reject", "bob", "operator")), (2.0, votes("approve", "eve", "qa"))],
            "refused",
        ),
        ([(1.0, votes("approve", "eve", "boss"))], "a role nobody gave"),
        ([(1.0, says("approve", "bob", "operator", decision=77))], "another decision"),
    ],
)
def test_without_everybodys_approval_nothing_is_written(deeds, why):
    with peopled(deeds, n_days=1, **TWO) as world:
        log = read_log(world.folder)
    assert world.problems == [] and world.plant.writes == [], why
    made = next(r for r in log if r["event_type"] == "DECISION_MADE")
    assert "have not been approved" in made["reason"]


PAGED = TWO | {"page_accounts": ("dash",), "approvers": {"qa": ("page:eve", "ada")}}


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        (("ada", "page"), ("eve", "page"), ""),
        (("ada", "page"), ("ada", "page"), "account page:ada may not act as qa"),
        (("eve", "page"), ("eve", "page"), "account page:eve has voted as operator"),
        (("ada", "page"), ("bob", "page"), "account page:bob may not act as qa"),
        (("ada", ""), ("eve", "page"), "account dash is that of a page"),
        (("dash", "page"), ("eve", "page"), "account dash is that of a page"),
    ],
)
def test_people_who_signed_in_at_a_trusted_page_are_people(monkeypatch, first, second, why):
    monkeypatch.setattr(letters, "owner_of", lambda status, letter: "dash")
    cast = [(1.0, *first, "operator"), (2.0, *second, "qa")]
    deeds = [(at, votes("approve", who, role, through=way)) for at, who, way, role in cast]
    with peopled(deeds, n_days=1, **PAGED) as world:
        log = read_log(world.folder)
    found = [r["payload"]["outcome"] for r in log if r["event_type"] == "COMMAND_APPROVE"]
    assert world.problems == [] and len(world.plant.writes) == (not why)
    assert all("dash" == r["user"] for r in log if r["event_type"] == "COMMAND_APPROVE")
    assert any(why in outcome for outcome in found) if why else found == ["done", "done"]


def test_one_person_at_the_page_and_at_the_terminal_is_one(monkeypatch):
    def owner(status, letter):
        return "dash" if letter["payload"].get("through") == "page" else letter["actor"]

    monkeypatch.setattr(letters, "owner_of", owner)
    deeds = [
        (1.0, votes("approve", "eve", "operator")),
        (2.0, votes("approve", "eve", "qa", "page")),
    ]
    with peopled(deeds, n_days=1, **PAGED) as world:
        log = read_log(world.folder)
    assert world.problems == [] and world.plant.writes == []
    cast = [r["payload"]["outcome"] for r in log if r["event_type"] == "COMMAND_APPROVE"]
    assert cast[0] == "done" and "account eve has voted as operator" in cast[1]


@pytest.mark.parametrize("names", [("ada", "eve"), ("ada", "ada")])
def test_two_names_from_one_account_are_one_vote(monkeypatch, names):
    """`--by` is a word: neither a second vote nor the right of somebody else comes of it."""
    monkeypatch.setattr(letters, "owner_of", lambda status, letter: "eve")
    first, second = names
    deeds = [(1.0, votes("approve", first, "operator")), (2.0, votes("approve", second, "qa"))]
    with peopled(deeds, n_days=1, **TWO) as world:
        log = read_log(world.folder)
    assert world.problems == [] and world.plant.writes == []
    cast = [r for r in log if r["event_type"] == "COMMAND_APPROVE"]
    assert [r["user"] for r in cast] == ["eve", "eve"]
    assert cast[0]["payload"]["says_to_be"] == first and cast[0]["payload"]["outcome"] == "done"
    assert "account eve has voted as operator" in cast[1]["payload"]["outcome"]


def test_a_name_that_may_act_counts_only_from_its_account(monkeypatch):
    monkeypatch.setattr(letters, "owner_of", lambda status, letter: "mallory")
    with peopled([(1.0, votes("approve", "eve", "qa"))], n_days=1, **TWO) as world:
        log = read_log(world.folder)
    (cast,) = [r for r in log if r["event_type"] == "COMMAND_APPROVE"]
    assert "account mallory may not act as qa" in cast["payload"]["outcome"]
    assert (cast["user"], cast["payload"]["says_to_be"]) == ("mallory", "eve")
    assert world.plant.writes == []


def test_a_vote_an_earlier_version_kept_without_its_account_does_not_count():
    attendant = Attendant.__new__(Attendant)
    attendant._votes, attendant._settings = {}, LoopSettings(approvals=("qa",))
    vote = Command(1, "R", "approve", "ada", "qa", {"decision": 1}, "t")
    with pytest.raises(ConfigError, match="nobody noted the account"):
        attendant._vote(vote)
    attendant._vote(replace(vote, account="ada"))
    assert attendant._votes == {1: {"qa": ("ada", True)}}


def test_approval_does_not_hold_up_the_fallback_recipe():
    plan = {("sample", d): "missing" for d in (1, 2, 3)}
    deeds = [(1.0, votes("approve", "ada", "operator")), (2.0, votes("approve", "eve", "qa"))]
    with peopled(deeds, n_days=3, plan=plan, **TWO) as world:
        log = read_log(world.folder)
    assert world.problems == []
    actions = [r["payload"]["action"] for r in log if r["event_type"] == "DECISION_MADE"]
    assert actions == ["write", "hold", "fallback"]


def test_manual_mode_watches_and_writes_nothing_until_it_ends():
    deeds = [(12.0, says("manual", "ada", "operator")), (60.0, says("automatic", "ada"))]
    with peopled(deeds, n_days=5) as world:
        log = read_log(world.folder)
    assert world.problems == [] and days_written(world) == [0, 3, 4]
    taken = next(r for r in log if r["event_type"] == "COMMAND_MANUAL")
    assert (taken["old"], taken["new"], taken["user"]) == ("armed", "manual", "ada")
    held = [r for r in log if r["event_type"] == "DECISION_MADE" and r["day"] == 1]
    assert "manual control" in held[0]["reason"]


def test_what_an_operator_moves_stays_his_for_days_and_over_a_restart_until_armed():
    plan = {("device", 1): "edit"}
    deeds = [(90.0, says("arm", "ada"))]
    world = Peopled(1, n_days=6, plan=plan, crash_after=[120, None])
    world.deeds, world.settings = deeds, {"beat_seconds": 600.0}
    with world.living():
        log = read_log(world.folder)
    assert world.problems == [] and world.n_crashes == 1
    touched = {int(t // 24): "temperature" in w for t, w in world.plant.writes}
    assert touched[0] and not touched[1] and not touched[2] and not touched[3] and touched[4]
    overrides = [r for r in log if r["event_type"] == "OPERATOR_OVERRIDE"]
    assert [r["payload"]["controls"] for r in overrides] == [["temperature"]]
    assert overrides[0]["user"] == "operator" and overrides[0]["new"] == {"temperature": 36.3}


def test_alarms_are_acknowledged_and_suppressed_by_name_of_who_did():
    plan = {("sample", d): "bad" for d in (0, 1, 2)}
    deeds = [
        (1.0, says("acknowledge", "ada", alarm=1)),
        (2.0, says("suppress", "ada", alarm=1, hours=30)),
        (3.0, says("acknowledge", "ada", alarm=99)),
        (4.0, says("suppress", "ada", alarm=1, hours=9999)),
    ]
    with peopled(deeds, n_days=4, plan=plan) as world:
        log = read_log(world.folder)
        with RunRecords(world.folder / JOURNAL_NAME) as records:
            alarm = records.alarm(1)
    assert world.problems == []
    assert alarm.acknowledged_by == "ada" and alarm.suppressed_until is not None
    assert alarm.cleared_at is not None and alarm.times == 3  # day 3 was good again
    outcomes = [r["payload"]["outcome"] for r in log if r["event_type"].startswith("COMMAND_")]
    assert outcomes[:2] == ["done", "done"]
    assert "no alarm 99" in outcomes[2] and "168 h" in outcomes[3]
    kinds = [r["event_type"] for r in log]
    assert kinds.count("ALARM_RAISED") >= 1 and "ALARM_CLEARED" in kinds


BY_HAND = (
    *(("approve", {"decision": d}) for d in (None, [1], True, "1", 1.9, 10**30, -1)),
    *((kind, {}) for kind in ("approve", "reject", "acknowledge", "suppress")),
    *(("acknowledge", {"alarm": n}) for n in (None, 2**63)),
    *(("suppress", {"alarm": 1, "hours": h}) for h in (None, "x", [], True, math.nan)),
)


def test_commands_written_by_hand_that_name_nothing_are_refused_and_the_run_goes_on():
    settings = {"approvals": ("qa",), "approval_seconds": 60.0}
    deeds = [(1.0, says(kind, "ada", "qa", **payload)) for kind, payload in BY_HAND]
    with peopled(deeds, n_days=2, **settings) as world:
        log = read_log(world.folder)
    assert world.problems == []
    told = [r["payload"]["outcome"] for r in log if r["event_type"].startswith("COMMAND_")]
    assert len(told) == len(BY_HAND)
    assert all("a whole number is needed" in t or "up to 168 h" in t for t in told), told


def test_a_stop_left_in_the_folder_ends_the_run_before_the_next_write():
    def stop(world):
        world.is_stopped_at = world.loop.time() + 60.0  # the twin looks every minute
        send(world.folder, "stop", actor="ada")

    with peopled([(30.0, stop)], n_days=5) as world:
        log = read_log(world.folder)
    assert world.problems == [] and world.n_stopped == 1
    ended = [r["payload"]["ending"] for r in log if r["event_type"] == "RUN_ENDED"]
    assert ended == ["stopped", "completed"]
    assert days_written(world) == [0, 1, 2, 3, 4]  # the second process went on


def test_a_command_for_nobody_is_refused_and_an_old_stop_is_forgotten():
    with peopled([], n_days=1) as world:
        folder = world.folder
        assert not is_running(folder) and find_runs(folder) == [folder]
        with pytest.raises(ConfigError, match="not running"):
            send(folder, "stop", actor="ada")
        with pytest.raises(ConfigError, match="no reactor"):
            send(folder, "arm", actor="ada", reactor_id="R77")
        with pytest.raises(ConfigError, match="0 decisions"):
            waiting_decision(folder, None)
        with Mailbox(folder / JOURNAL_NAME) as box:
            number = box.send(world.reactor_id, "stop", actor=account())
        world.n_days = 2
        world._live()
        with Mailbox(folder / JOURNAL_NAME) as box:
            assert "too late" in (box.outcome(number) or "")
    assert days_written(world) == [0, 1]


def test_no_runs_are_found_where_there_are_none(tmp_path):
    with pytest.raises(ConfigError, match="holds no run"):
        find_runs(tmp_path)


def test_status_and_report_say_what_happened():
    plan = {("sample", 1): "bad", ("write", 0): "error_after", ("device", 2): "edit"}
    with peopled([], n_days=4, plan=plan) as world:
        (found,) = status(world.folder)
        text = str(found)
        (record,) = read_records(world.folder)
    cycles, troubles = (dict(table.rows) for table in run_card(record).tables)
    assert found.n_days == 4 and found.mode == "armed" and found.overridden == ("temperature",)
    assert "not running" in text and "by hand: temperature" in text
    assert cycles == {"hold": "1", "written": "3"}
    assert troubles["writes settled by reading back"] == "1"
    assert any("verified" in line for line in run_card(record).sentences)


def test_a_whole_run_decided_again_gives_the_same_bytes_and_a_changed_one_does_not():
    with World(4, n_days=5).living() as world, RunRecords(world.folder / JOURNAL_NAME) as records:
        brain = LightBrain(lambda day: world.plan.get(("brain", day), ""))
        same = replay(records, world.reactor_id, brain, START)
        with records._transaction() as db:
            number = next(d.id for d in records_of_model(records, world.reactor_id))
            db.execute(
                "UPDATE decisions SET payload = replace(payload, 'perfusion_rate\":', "
                "'perfusion_rate\":1') WHERE id = ?",
                (number,),
            )
        changed = replay(records, world.reactor_id, brain, START)
    assert same.ok and same.n_same == same.n_decisions > 0
    assert not changed.ok and len(changed.differing) == 1 and "byte for byte" in str(changed)


def records_of_model(records, reactor_id):
    rows = records._db.execute(
        "SELECT id FROM decisions WHERE superseded_by_reason IS NULL AND payload LIKE "
        '\'%perfusion_rate":%\' AND reactor_id = ? AND payload NOT LIKE \'%"digest":""%\'',
        (reactor_id,),
    ).fetchall()
    return [type("Row", (), {"id": row[0]}) for row in rows]


def test_what_is_shown_for_approval_is_what_is_written():
    shown = []

    def look(world):
        (found,) = status(world.folder)
        shown.append(str(found))

    deeds = [
        (0.5, look),
        (1.0, votes("approve", "ada", "operator")),
        (2.0, votes("approve", "eve", "qa")),
    ]
    with peopled(deeds, n_days=1, **TWO) as world:
        log = read_log(world.folder)
        with RunRecords(world.folder / JOURNAL_NAME) as records:
            (decision,) = records.decisions(world.reactor_id)
            (intent,) = records.intents(world.reactor_id)
    (written,) = [w for _, w in world.plant.writes]
    asked = next(r["new"] for r in log if r["event_type"] == "APPROVAL_ASKED")
    changed = next(r["new"] for r in log if r["event_type"] == "SETPOINT_CHANGE")
    assert world.problems == []
    assert written == asked == changed == decision.payload["setpoints"] == intent.setpoints
    assert written != decision.payload["recommended"]  # this brain knows no grid; the gate does
    for name, value in written.items():
        assert f"{name} {value:.17g}" in shown[0] or f"{name} {value}" in shown[0]


def test_an_approval_is_for_the_numbers_that_were_shown():
    """The device moves while people think: what the rate limit lets through now is asked anew."""

    def move(world):
        world.plant.device["agitation"] = 1050.0

    deeds = [
        (1.0, votes("approve", "ada", "operator")),
        (1.5, move),
        (2.0, votes("approve", "eve", "qa")),
    ]
    with peopled(deeds, n_days=1, **TWO) as world:
        log = read_log(world.folder)
    assert world.problems == []
    asked = [r["new"] for r in log if r["event_type"] == "APPROVAL_ASKED"]
    stale = [r for r in log if r["event_type"] == "APPROVAL_OUTDATED"]
    assert len(asked) == 2 and len(stale) == 1 and stale[0]["old"] == asked[0]
    assert "no longer what was approved: agitation" in stale[0]["reason"]
    assert stale[0]["new"] == asked[1] and world.plant.writes == []
