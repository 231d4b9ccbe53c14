"""The state of a session, and that the journal gives it back."""

from perfusio_jax.twin.loop.session import Session
from perfusio_jax.twin.records.entries import Command, Intent, Settlement

STEP = {"temperature": 0.1, "bleed_rate": 0.005}


def intent(number, outcome="written", **setpoints) -> Intent:
    return Intent(
        number, number, "R", float(number), setpoints, f"2026-01-0{number}", outcome, None
    )


def command(kind, at, **payload) -> Command:
    return Command(1, "R", kind, "ada", None, payload, at)


def test_what_an_operator_moves_is_seen_and_rounding_is_not():
    session = Session(STEP)
    session.written(intent(1, temperature=36.5, bleed_rate=0.1))
    assert session.edits({"temperature": 36.54, "bleed_rate": 0.1}) == frozenset()
    assert session.edits({"temperature": 36.9, "bleed_rate": 0.1}) == {"temperature"}
    assert session.edits({"temperature": None}) == frozenset()
    assert session.last_write_day == 1.0


def test_a_value_that_arrives_late_is_ours():
    session = Session(STEP, before={"temperature": 36.0})
    session.settled(intent(2, temperature=36.5), Settlement.DECIDE_ANEW, {"temperature": 36.0})
    assert session.plan == {} and session.last_write_day is None
    session.plan["temperature"] = 36.0
    assert session.edits({"temperature": 36.5}) == frozenset()
    assert session.plan["temperature"] == 36.5


def test_a_part_that_arrived_counts_as_a_write_and_what_stood_before_does_not():
    before = {"temperature": 36.0, "bleed_rate": 0.1}
    sent = intent(2, temperature=36.5, bleed_rate=0.1)
    session = Session(STEP, before=before)
    session.settled(sent, Settlement.EXPIRED, {"temperature": 36.0, "bleed_rate": 0.1})
    assert session.last_write_day is None
    session.settled(sent, Settlement.EXPIRED, {"temperature": 36.5, "bleed_rate": 0.2})
    assert session.last_write_day == 2.0 and session.plan["temperature"] == 36.5
    unknown = Session(STEP)  # after a restart nobody knows what stood before
    unknown.settled(sent, Settlement.EXPIRED, {"temperature": 36.0, "bleed_rate": 0.1})
    assert unknown.last_write_day == 2.0


def test_the_journal_gives_the_state_back_in_its_order():
    session = Session(STEP, is_armed=True)
    session.recover(
        [
            command("override", "2026-01-02T01", controls=["temperature"]),
            command("manual", "2026-01-03T01"),
            command("automatic", "2026-01-03T02"),
            command("arm", "2026-01-04T01"),
            command("disarm", "2026-01-05T01"),
        ],
        [
            intent(1, temperature=36.5, bleed_rate=0.1),
            intent(5, "arrived", bleed_rate=0.15),
            intent(6, None, bleed_rate=0.3),
            intent(7, "failed", bleed_rate=0.4),
        ],
        [],
    )
    assert session.mode == "disarmed" and session.overridden == frozenset()
    # The operator's temperature is what the twin starts from; it no longer has a plan for it.
    assert session.plan == {"bleed_rate": 0.15} and session.last_write_day == 5.0


def test_only_good_samples_count_as_data():
    session = Session(STEP)
    session.sampled({"time_h": 24.0, "quality": "good", "implausible": []})
    session.sampled({"time_h": 48.0, "quality": "bad", "implausible": []})
    session.sampled({"time_h": 72.0, "quality": "good", "implausible": ["VCD=1 odd"]})
    session.sampled({"time_h": 12.0, "quality": "good", "implausible": []})  # a late one
    assert session.last_good_h == 24.0


def test_set_points_of_a_sample_that_comes_late_undo_no_later_ones():
    session = Session({})
    session.tell({"day": 3, "controls": {"temperature": 36.0, "agitation": None}})
    session.sampled({"day": 1, "controls": {"temperature": 35.0, "agitation": 800.0}})
    session.tell({"day": 4, "controls": {"temperature": None}})
    initial = {"temperature": 37.0, "agitation": 875.0, "bleed_rate": 0.1}
    believed = {"temperature": 36.0, "agitation": 800.0, "bleed_rate": 0.1}
    assert session.believed(initial) == believed
    session.tell({"day": 3, "controls": {"temperature": 36.5}})  # the same day, corrected
    session.plan["agitation"] = 900.0
    assert session.believed(initial) == {**believed, "temperature": 36.5, "agitation": 900.0}
