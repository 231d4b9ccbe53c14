"""A device that restarts with its own set-points is given back what stands; an operator's hand is
left alone."""

import json

import pytest

from perfusio_jax.twin.decision.gate import operator_edits

from .plant import START
from .world import LIMITS, World, read_log


def world(plan, seed=4, n_days=5, **more) -> World:
    return World(seed, n_days=n_days, plan=plan or {("none", 0): ""}, crash_after=[None], **more)


def kinds(log) -> list[str]:
    return [r["event_type"] for r in log]


def at_noon(fault: str, day: int = 2) -> dict[tuple[str, int], str]:
    return {("device", day): fault, ("hour", day): "12"}


@pytest.mark.parametrize("fault", ["restart", "power_cut"])
def test_a_restart_is_told_from_an_operator_and_the_standing_decision_sent_again(fault):
    """The start is on record, or the line was lost and all set-points are back at once."""
    with world(at_noon(fault)).living() as one:
        assert one.problems == []
        log = read_log(one.folder)
        assert "OPERATOR_OVERRIDE" not in kinds(log)
        (reset,) = [r for r in log if r["event_type"] == "DEVICE_RESET"]
        assert (reset["user"], reset["day"]) == ("device", 3)  # that of the sample waited for
        forgot = set(reset["payload"]["controls"])
        assert forgot and all(reset["new"][n] == START[n] for n in forgot)
        (again,) = [r for r in log if r["event_type"] == "DECISION_RESTORED"]
        assert set(again["new"]) == forgot and log.index(again) > log.index(reset)
        # sent while the next sample is waited for, each step within the limit
        times = [t / 24.0 for t, _ in one.plant.writes]
        assert len(times) == 6 and sum(2.5 <= t < 2.8 for t in times) == 1
        for name, value in again["new"].items():
            reach = LIMITS.max_rate.get(name, 1e9)
            assert abs(value - START[name]) <= reach * (1 + 1e-9)
            wanted = reset["old"][name]
            assert abs(value - wanted) < abs(START[name] - wanted)
        cleared = [r["payload"].get("name") for r in log if r["event_type"] == "ALARM_CLEARED"]
        assert "session/device/unknown" in cleared


def test_an_operator_who_moves_all_back_by_hand_is_an_operator():
    """No restart, no lost line: the same values, and another verdict."""
    one = world(at_noon("by_hand"))
    with one.living():
        assert one.problems == []
        log = read_log(one.folder)
    assert "DEVICE_RESET" not in kinds(log)
    (override,) = [r for r in log if r["event_type"] == "OPERATOR_OVERRIDE"]
    names = set(override["payload"]["controls"])
    assert len(names) >= 2
    assert not any(names & set(w) for t, w in one.plant.writes if t > 2.5 * 24.0)


def test_a_restart_found_at_the_days_cycle_is_answered_by_the_days_decision():
    """One write a day: today's set-points replace what the device forgot."""
    with world({("device", 2): "restart"}).living() as one:
        assert one.problems == []
        log = read_log(one.folder)
        day = [r for r in log if r["day"] == 2]
        assert "DEVICE_RESET" in kinds(day) and "OPERATOR_OVERRIDE" not in kinds(log)
        assert kinds(day).count("SETPOINT_CHANGE") == 1
    # where today's decision comes to nothing, what stands is sent again instead
    with world({("device", 2): "restart", ("brain", 2): "raise"}).living() as one:
        assert one.problems == []
        day = [r for r in read_log(one.folder) if r["day"] == 2]
        assert kinds(day).index("DECISION_RESTORED") > kinds(day).index("DECISION_FAILED")


def test_after_a_restart_an_operator_may_still_move_something():
    plan = at_noon("restart_and_edit")
    with world(plan).living() as one:
        assert one.problems == []
        log = read_log(one.folder)
        (override,) = [r for r in log if r["event_type"] == "OPERATOR_OVERRIDE"]
        (reset,) = [r for r in log if r["event_type"] == "DEVICE_RESET"]
        assert override["payload"]["controls"] == ["temperature"]
        assert "temperature" not in reset["payload"]["controls"]
        assert one.plant.device["temperature"] == 36.3


def test_a_restart_that_keeps_its_set_points_is_no_event():
    one = world(at_noon("reboot"))
    with one.living():
        assert one.problems == []
        log = read_log(one.folder)
    assert not {"DEVICE_RESET", "OPERATOR_OVERRIDE", "DECISION_RESTORED"} & set(kinds(log))


def test_under_manual_control_nothing_is_sent_again():
    plan = {**at_noon("restart"), ("person", 2): "manual"}
    with world(plan).living() as one:
        log = read_log(one.folder)
        assert one.problems == []
        late = [t for t, _ in one.plant.writes if t > 2.5 * 24.0]
    assert "DEVICE_RESET" in kinds(log) and late == []
    held = [r["reason"] for r in log if r["event_type"] == "RESTORE_HELD"]
    assert held and "manual" in held[0]


def test_a_device_that_restarts_again_and_again_is_given_up_after_some_writes():
    plan = {k: v for d in range(1, 5) for k, v in at_noon("restart", d).items()}
    one = world(plan, n_days=6)
    with one.living():
        assert one.problems == []
        with_day: dict[int, int] = {}
        for t, _ in one.plant.writes:
            with_day[int(t // 24)] = with_day.get(int(t // 24), 0) + 1
    assert max(with_day.values()) <= 3


@pytest.mark.parametrize("start", range(0, 120, 20))
def test_a_crash_at_any_step_around_a_restart_loses_no_promise(start):
    """The journal knows what was forgotten; a write of unknown outcome is settled, not repeated."""
    plan = at_noon("restart", 1)
    base = World(9, n_days=4, plan=plan, crash_after=[None]).run()
    assert base.problems == []
    total = base.wires.n_steps
    for at in range(start, total, 120):
        one = World(9, n_days=4, plan=plan, crash_after=[at]).run()
        assert one.problems == [], (at, one.problems)


def test_the_same_bytes_come_out_of_a_replay_after_a_restart():
    with world(at_noon("restart")).living() as one:
        assert one.problems == []  # the check decides again from the journal
        (event,) = [r for r in read_log(one.folder) if r["event_type"] == "DECISION_RESTORED"]
        assert json.dumps(event["new"])
        plan = dict(event["new"])
        assert not operator_edits(plan, plan, LIMITS.resolution)
