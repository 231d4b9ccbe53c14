"""Whether a device restarted with its defaults, or somebody moved a set-point."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfusio_jax.twin.decision.resets import Evidence, forgotten
from perfusio_jax.twin.loop.session import Session
from perfusio_jax.twin.records.entries import Command, Intent

STEP = {"temperature": 0.1, "bleed_rate": 0.005, "agitation": 5.0}
PLAN = {"temperature": 36.0, "bleed_rate": 0.2, "agitation": 850.0}
DEFAULT = {"temperature": 37.0, "bleed_rate": 0.1, "agitation": 850.0, "pyruvate_feed": 1.0}
SURE, LOST, NOTHING = Evidence(True), Evidence(None, True), Evidence(None, False)


def found(read_back, evidence, plan=PLAN, defaults=(DEFAULT,)):
    return forgotten(plan, read_back, defaults, STEP, evidence)


def test_a_device_back_at_its_defaults_has_forgotten_all_that_differed():
    both = {"temperature", "bleed_rate"}
    assert found({**DEFAULT}, SURE) == found({**DEFAULT}, LOST) == both
    rounded = {**DEFAULT, "temperature": 37.04}
    assert found(rounded, SURE) == both


def test_without_a_sign_of_a_restart_it_was_somebodys_hand():
    assert found({**DEFAULT}, NOTHING) == frozenset()
    assert found({**DEFAULT}, Evidence(False, True)) == frozenset()


@pytest.mark.parametrize("evidence", [SURE, LOST])
def test_one_control_that_kept_its_plan_shows_that_nothing_was_forgotten(evidence):
    """An operator who puts one control back to where it began is respected."""
    assert found({**PLAN, "temperature": 37.0}, evidence) == frozenset()
    # agitation is planned where it begins anyway, and shows nothing
    assert found({**DEFAULT, "agitation": 850.0}, evidence) == {"temperature", "bleed_rate"}


def test_what_is_neither_planned_nor_default_after_a_restart_was_set_by_somebody():
    read = {**DEFAULT, "temperature": 35.5}
    assert found(read, SURE) == {"bleed_rate"}
    assert found(read, LOST) == frozenset()  # without the device's word that is not enough


def test_one_control_alone_is_believed_only_with_the_devices_word():
    plan = {"temperature": 36.0}
    assert found({**DEFAULT}, SURE, plan) == {"temperature"}
    assert found({**DEFAULT}, LOST, plan) == frozenset()


def test_unknown_defaults_are_believed_if_the_device_says_so_and_all_moved():
    other = {"temperature": 34.0, "bleed_rate": 0.5, "agitation": 100.0}
    assert found(other, SURE, defaults=()) == set(PLAN)
    assert found(other, LOST, defaults=()) == frozenset()
    assert found({**other, "agitation": 850.0}, SURE, defaults=()) == frozenset()


def test_what_cannot_be_read_says_nothing():
    assert found(dict.fromkeys(PLAN), SURE) == frozenset()
    read = {"temperature": 37.0, "bleed_rate": None, "agitation": 850.0}
    assert found(read, SURE) == {"temperature"}


NAMES = tuple(PLAN)
VALUES = st.sampled_from([36.0, 37.0, 0.1, 0.2, 850.0, 5.0])
TABLES = st.dictionaries(st.sampled_from(NAMES), VALUES)


@given(
    TABLES,
    st.dictionaries(st.sampled_from(NAMES), VALUES | st.none()),
    st.lists(TABLES, max_size=2),
    st.sampled_from([None, True, False]),
    st.booleans(),
)
def test_only_what_differs_from_the_plan_is_forgotten_and_never_without_a_sign(
    plan, read, defaults, says, away
):
    names = forgotten(plan, read, defaults, STEP, Evidence(says, away))
    assert all(read[n] is not None and read[n] != plan[n] for n in names)
    if says is False or (says is None and not away):
        assert not names
    kept = [n for n, v in plan.items() if read.get(n) == v]
    if any(
        n in table and plan[n] not in [t.get(n) for t in defaults]
        for n in kept
        for table in defaults
    ):
        assert not names


def test_the_journal_gives_back_what_the_device_forgot():
    def command(kind, sent_at, **payload) -> Command:
        return Command(1, "R", kind, "device", None, payload, sent_at)

    def written(number, at, **setpoints) -> Intent:
        return Intent(number, number, "R", 1.0, setpoints, at, "written", None)

    session = Session(STEP)
    start = command("device_start", "2026-01-01", at="2026-01-01T00:00:00+00:00")
    reset = command(
        "device_reset",
        "2026-01-03",
        values={"temperature": 37.0, "bleed_rate": 0.1},
        all=DEFAULT,
    )
    session.recover([start, reset], [written(1, "2026-01-02", **PLAN)], [])
    assert session.started == "2026-01-01T00:00:00+00:00"
    assert session.reset == {"temperature": 37.0, "bleed_rate": 0.1}
    assert session.plan == PLAN and session.defaults == [DEFAULT]
    session.written(written(2, "2026-01-04", temperature=36.4))
    assert session.reset == {"bleed_rate": 0.1} and session.plan["temperature"] == 36.4
    session.apply("override", {"controls": ["bleed_rate"]})
    assert session.reset == {}
