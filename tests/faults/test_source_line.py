"""A source that does not answer: nothing is lost, and people are told if it lasts."""

import pytest

from perfusio_jax._core import AccessRefused

from .world import World, read_log

POLL_S = 1800.0


def world(hours: float, **more) -> World:
    settings = {"line_seconds": 3600.0, "poll_seconds": POLL_S, **more.pop("settings", {})}
    plan = {("line", 1): f"{hours:g}"}
    return World(5, n_days=4, plan=plan, settings=settings, **{"crash_after": [None], **more})


def alarms(log, kind: str) -> list[dict]:
    """Those about the source."""
    found = [r for r in log if r["event_type"] == kind]
    names = ("source", "session/source/unknown")  # as it is raised, as it is cleared
    return [r for r in found if {r["payload"].get(k) for k in ("species", "name")} & set(names)]


def test_a_line_down_for_hours_is_one_alarm_that_goes_when_it_answers():
    with world(5.0).living() as one:
        assert one.problems == []
        log = read_log(one.folder)
    (raised,), (cleared,) = alarms(log, "ALARM_RAISED"), alarms(log, "ALARM_CLEARED")
    assert "could not be read for" in raised["payload"]["note"]
    assert "the line is dead" in raised["payload"]["note"]
    assert raised["day"] == 2 and log.index(cleared) > log.index(raised)
    # the days are all there, the one that was waited for too
    assert len(one.plant.writes) == 4


def test_a_short_silence_is_no_alarm():
    with world(0.5).living() as one:
        assert one.problems == []
        assert alarms(read_log(one.folder), "ALARM_RAISED") == []


@pytest.mark.parametrize("limit_s", [0.0, 3600.0])
def test_the_alarm_comes_within_a_look_of_its_limit(limit_s):
    with world(5.0, settings={"line_seconds": limit_s}).living() as one:
        (raised,) = alarms(read_log(one.folder), "ALARM_RAISED")
    said = float(raised["payload"]["note"].split(" for ")[1].split(" min")[0]) * 60.0
    assert limit_s <= said <= limit_s + POLL_S


def test_an_alarm_left_by_a_run_that_died_is_cleared_by_the_next():
    """Crash while it stands, then a source that answers."""
    base = world(5.0)
    with base.living():
        total = base.wires.n_steps
    n_cleared = 0
    for at in range(total // 4, total // 2, 7):
        with world(5.0, crash_after=[at]).living() as one:
            assert one.problems == [], at
            log = read_log(one.folder)
        raised, cleared = alarms(log, "ALARM_RAISED"), alarms(log, "ALARM_CLEARED")
        assert len(raised) == len(cleared) <= 2, at
        n_cleared += len(cleared)
    assert n_cleared > 0


def test_access_refused_ends_a_session_that_never_had_it():
    """A wrong password is wrong for hours, too."""
    one = World(5, n_days=2, plan={("access", 0): "refused"}, crash_after=[None])
    with pytest.raises(AccessRefused, match="does not let us in"):
        one.run()
    assert one.plant.writes == []


def test_access_lost_on_the_way_is_waited_for():
    plan = {("access", 1): "refused"}
    with World(5, n_days=4, plan=plan, crash_after=[None]).living() as one:
        assert one.problems == []
        log = read_log(one.folder)
    assert len(alarms(log, "ALARM_RAISED")) == len(alarms(log, "ALARM_CLEARED")) == 1
    assert len(one.plant.writes) >= 3
