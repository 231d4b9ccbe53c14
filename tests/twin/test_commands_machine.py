"""Commands and approvals in any order: sent, sent again, looked at, cut short by crashes.

Whoever sends what, a decision is approved only by two accounts in the roles they may act in; each
command counts once; what the audit trail says of it is the account it came from and what came of
it; and a restart forgets nothing.
"""

import contextlib
import datetime as dt
import json
import os
import shutil
import tempfile
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from perfusio_jax.twin import LoopSettings, RunRecords, Runtime
from perfusio_jax.twin.loop.attendant import Attendant
from perfusio_jax.twin.loop.session import Session
from perfusio_jax.twin.records import letters
from perfusio_jax.twin.records.letters import INBOX

ACCOUNTS = st.sampled_from(["ada", "bob", "eve"])
ROLES = st.sampled_from(["operator", "qa", "boss", None])
DECISIONS = st.sampled_from([1, 1, 2, 2, 3])  # the last is yet to be made
CRASHES = st.one_of(st.none(), st.integers(0, 12))
APPROVERS = {"qa": ("ada", "eve")}
MODES = ("manual", "automatic", "arm", "disarm")


class Crash(BaseException):
    """The process is gone."""


class WiredRecords(RunRecords):
    """A journal whose transactions may end before they are on the disk, or just after."""

    left: int | None = None

    def step(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Crash

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[Any]:
        with super()._transaction() as db:
            yield db
            self.step()
        self.step()


class Trail:
    """An audit trail in memory."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def log(self, kind: str, payload: Any, **more: Any) -> None:
        self.records.append({"kind": kind, "payload": dict(payload), **more})


def drive(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    work.close()
    raise RuntimeError("it waits")


async def at_once(work: Any) -> Any:
    return work()


class People(RuleBasedStateMachine):
    """One reactor's attendant, and three people."""

    may_write = True

    @initialize()
    def begin(self) -> None:
        base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.folder = Path(tempfile.mkdtemp(dir=base, prefix="people"))
        self.n = 0
        self.now = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
        self.trail = Trail()
        self.texts: list[str] = []
        self.lying: list[dict[str, Any]] = []
        """Letters nobody has carried out, oldest first."""
        self.votes: dict[int, dict[str, tuple[str, bool]]] = {}
        self.is_armed, self.is_manual = self.may_write, False
        self.restart()
        for day in (0.0, 1.0):
            self.records.record_decision("R", day, {"recommended": {}})

    # -------------------------------------------------------------- the twin

    def clock(self) -> dt.datetime:
        self.now += dt.timedelta(seconds=1)
        return self.now

    @rule()
    def restart(self) -> None:
        """A new process on the same folder."""
        if getattr(self, "records", None) is not None:
            self.records.close()
        self.records = WiredRecords(self.folder / "journal.sqlite", clock=self.clock)
        self.session = Session({}, is_armed=self.may_write)
        self.session.recover(self.records.handled("R"), (), ())
        self.attendant = Attendant(
            None,
            self.records,
            self.trail,  # pyright: ignore[reportArgumentType]
            self.session,
            None,  # pyright: ignore[reportArgumentType]
            settings=LoopSettings(
                reactor_id="R",
                allow_write=self.may_write,
                approvals=("operator", "qa"),
                approvers=APPROVERS,
                approval_seconds=0.0,
            ),
            runtime=Runtime(self.clock, lambda: 0.0, at_once, at_once),
        )

    @rule(crash_at=CRASHES)
    def look(self, crash_at: int | None) -> None:
        """The twin sees what people asked for; it may die at it, and another follows."""
        before = len(self.trail.records)
        self.records.left = crash_at
        try:
            drive(self.attendant.look(0))
            n_done = len(self.lying)
        except Crash:
            self.records.left = None
            handled = self.records._query(
                "SELECT count(*) FROM commands WHERE handled_at IS NOT NULL", ()
            )
            n_done = handled[0][0] - self.n_handled()
            self.restart()
        self.records.left = None
        told = [r for r in self.trail.records[before:] if r["kind"].startswith("COMMAND_")]
        for letter in self.lying[:n_done]:
            outcome = self.carry_out(letter)
            said = told.pop(0)
            assert said["user"] == letter["account"], "who acted is the account"
            assert said["payload"].get("says_to_be", letter["account"]) == letter["actor"]
            assert (said["payload"]["outcome"] == "done") is outcome
            found = self.records._query(
                "SELECT outcome, account FROM commands WHERE ticket = ?", (letter["ticket"],)
            )
            assert [(o == "done", a) for o, a in found] == [(outcome, letter["account"])]
            letter["is_handled"] = True
        del self.lying[:n_done]
        assert len(told) <= 1, "at most the one at hand is told without being done with"

    def n_handled(self) -> int:
        return sum(json.loads(text)["ticket"] not in self.open_tickets() for text in self.texts)

    def open_tickets(self) -> set[str]:
        return {letter["ticket"] for letter in self.lying}

    # -------------------------------------------------------------- people

    def leave(self, kind: str, account: str, actor: str, role: str | None, decision: int) -> None:
        self.n += 1
        letter = {
            "ticket": f"t{self.n}",
            "reactor_id": "R",
            "kind": kind,
            "actor": actor,
            "role": role,
            "payload": {"decision": decision},
            "account": account,
            "host": "h",
        }
        self.texts.append(json.dumps(letter))
        self.put(self.texts[-1], f"t{self.n}.json")
        self.lying.append(letter)

    def put(self, text: str, name: str) -> None:
        inbox = self.folder / INBOX
        inbox.mkdir(exist_ok=True)
        (inbox / name).write_text(text)
        at = 1000.0 + len(list(inbox.iterdir())) + 10.0 * self.n
        os.utime(inbox / name, (at, at))

    @rule(kind=st.sampled_from(["approve", "approve", "reject"]), account=ACCOUNTS, actor=ACCOUNTS,
          role=ROLES, decision=DECISIONS)  # fmt: skip
    def vote(self, kind: str, account: str, actor: str, role: str | None, decision: int) -> None:
        self.leave(kind, account, actor, role, decision)

    @rule(account=ACCOUNTS, decision=DECISIONS, second=ACCOUNTS)
    def both_roles(self, account: str, second: str, decision: int) -> None:
        """The usual way: an operator and one of quality assurance, often the same person."""
        self.leave("approve", account, account, "operator", decision)
        self.leave("approve", second, "somebody else", "qa", decision)

    @rule(account=ACCOUNTS, second=ACCOUNTS, decision=DECISIONS)
    def over_a_restart(self, account: str, second: str, decision: int) -> None:
        """A vote in one process, the other in the next."""
        self.leave("approve", account, account, "operator", decision)
        self.look(None)
        self.restart()
        self.leave("approve", second, second, "qa", decision)
        self.ask(decision)

    @rule(kind=st.sampled_from(MODES), account=ACCOUNTS)
    def mode(self, kind: str, account: str) -> None:
        self.leave(kind, account, account, None, 0)

    @rule(data=st.data())
    def again(self, data: st.DataObject) -> None:
        """A letter of before under a new name: whoever kept a copy of the file."""
        handled = [t for t in self.texts if json.loads(t)["ticket"] not in self.open_tickets()]
        if handled:
            self.put(data.draw(st.sampled_from(handled)), f"again{self.n}.json")

    # -------------------------------------------------------------- what is right

    def carry_out(self, letter: dict[str, Any]) -> bool:
        """What a command ought to come to."""
        kind, account, role = letter["kind"], letter["account"], letter["role"]
        if kind == "arm" and not self.may_write:
            return False
        if kind in ("arm", "disarm"):
            self.is_armed = kind == "arm"
        if kind in ("manual", "automatic"):
            self.is_manual = kind == "manual"
        if kind not in ("approve", "reject"):
            return True
        if role not in ("operator", "qa") or account not in APPROVERS.get(role, (account,)):
            return False
        if letter["payload"]["decision"] not in (1, 2):
            return False
        votes = self.votes.setdefault(letter["payload"]["decision"], {})
        other = votes.get("qa" if role == "operator" else "operator")
        if other is not None and other[0] == account:
            return False
        votes[role] = (account, kind == "approve")
        return True

    @rule(decision=DECISIONS)
    def ask(self, decision: int) -> None:
        """Whether a decision is approved: what waits for the twin is looked at first."""
        self.look(None)
        votes = self.votes.get(decision, {})
        right = set(votes) == {"operator", "qa"} and all(yes for _, yes in votes.values())
        given = drive(self.attendant.approval(decision, 0))
        assert given is (right and not self.is_manual)
        if given:
            voters = {account for account, _ in votes.values()}
            assert len(voters) == 2 and voters & {"ada", "eve"}

    @invariant()
    def the_mode_is_what_was_asked_for_last(self) -> None:
        if not hasattr(self, "session") or self.lying:
            return
        wanted = "manual" if self.is_manual else ("armed" if self.is_armed else "disarmed")
        assert self.session.mode == wanted

    @invariant()
    def each_command_is_in_the_journal_once_at_most(self) -> None:
        if hasattr(self, "records"):
            counts = self.records._query("SELECT count(*) FROM commands GROUP BY ticket", ())
            assert {n for (n,) in counts} <= {1}

    def teardown(self) -> None:
        if getattr(self, "records", None) is not None:
            self.records.close()
            shutil.rmtree(self.folder, ignore_errors=True)


class Advising(People):
    """A run that may not write."""

    may_write = False


BUDGET = settings(
    max_examples=25,
    stateful_step_count=16,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
)


@pytest.fixture(autouse=True)
def everybody(monkeypatch):
    """Files of several accounts, which one process cannot make: the test says whose each is."""
    monkeypatch.setattr(letters, "owner_of", lambda status, letter: letter.get("account", "?"))


@pytest.mark.parametrize("machine", [People, Advising])
def test_commands_and_approvals_in_any_order(machine):
    run_state_machine_as_test(machine, settings=BUDGET)


def votes_by_name(monkeypatch) -> None:
    """A vote is of whom it says to be of."""
    monkeypatch.setattr(letters, "owner_of", lambda status, letter: letter.get("actor", "?"))


def one_is_enough(monkeypatch) -> None:
    def vote(self, command):
        votes = self._votes.setdefault(int(command.payload["decision"]), {})
        votes[command.role] = (command.account, command.kind == "approve")

    monkeypatch.setattr(Attendant, "_vote", vote)


def old_votes_are_forgotten(monkeypatch) -> None:
    async def nothing(self) -> None: ...

    monkeypatch.setattr(Attendant, "_recall_votes", nothing)


def taken_in_twice(monkeypatch) -> None:
    """A letter is known by its file's name, and not by its ticket."""
    real = letters._fields

    def fields(text: bytes):
        found, why = real(text)
        return {**found, "ticket": os.urandom(4).hex()} if found else found, why

    monkeypatch.setattr(letters, "_fields", fields)


@pytest.mark.parametrize(
    "break_it", [votes_by_name, one_is_enough, old_votes_are_forgotten, taken_in_twice]
)
def test_a_program_that_breaks_a_promise_is_found_out(break_it, monkeypatch):
    break_it(monkeypatch)
    with pytest.raises((AssertionError, IndexError, ExceptionGroup)):
        run_state_machine_as_test(People, settings=BUDGET)
