"""Best schedules: against paper, against the literature, and where there is none."""

import numpy as np
import pytest

from perfusio_jax._core import ConfigError
from perfusio_jax.simulator import virtual_reactor
from perfusio_jax.study import best_schedule, cho_experiment, read_output
from perfusio_jax.study.schedule.limits import read_limit, read_limits
from perfusio_jax.study.schedule.looking import look, outcomes
from tests.study.cultures import chemostat
from tests.study.schedule.problems import secretion


@pytest.fixture(scope="module")
def fed():
    return secretion()


@pytest.fixture(scope="module")
def short():
    return secretion(5)


def test_feeding_a_secreting_yeast_reaches_what_is_published(fed):
    free = best_schedule(fed, "amount of P", n_starts=1)
    # Luus (1992) has 32.4 g with feeds that are free within the hour; 15 pieces of an hour reach
    # 32.29 g, as direct collocation with IPOPT does (`benchmarks.schedule`)
    assert free.value == pytest.approx(32.287, abs=0.01)
    assert free.is_feasible and free.is_converged and free.n_failed == 0
    assert free.value > free.constant + 3.0 and free.constant > free.before
    assert free.controls.shape == (15, 1) and free.moved == ("feed",)
    assert np.all((free.controls >= 0.0) & (free.controls <= 2.0))
    said = "\n".join(free.lines())
    assert "feed is at the highest allowed, 2 L/h, in 2 of 15 pieces" in said
    assert "without changes gives" in said


LIMITS = ("S <= 5", "last volume_L <= 8", "X >= 0.8")
WIDE = ("S <= 50", "last volume_L <= 80", "X >= 0")


def test_limits_steps_and_what_room_is_worth(short):
    def found(volume):
        limits = (LIMITS[0], f"last volume_L <= {volume:g}", LIMITS[2])
        return best_schedule(short, "amount of P", limits=limits, steps={"feed": 0.5}, n_starts=1)

    one, more = found(8.0), found(8.05)
    assert one.is_feasible and np.all(np.abs(np.diff(one.controls[:, 0])) <= 0.5 + 1e-6)
    by_text = {kept.limit.text: kept for kept in one.kept}
    full = by_text["last volume_L <= 8"]
    assert abs(full.slack) < 1e-4 and full.share == 1.0
    assert by_text["X >= 0.8"].slack > 0.1 and by_text["X >= 0.8"].price == 0.0
    # the price is the derivative of the best by the limit
    assert (more.value - one.value) / 0.05 == pytest.approx(full.price, rel=0.1)
    said = "\n".join(one.lines())
    assert "last volume_L <= 8: reached; one L of room more is worth" in said


def test_a_schedule_nobody_can_keep_is_told_of_and_comes_nearest(short):
    limits = (*LIMITS[:2], "X >= 30")
    found = best_schedule(short, "amount of P", limits=limits, n_starts=1)
    assert not found.is_feasible
    said = "\n".join(found.lines())
    assert "keeps all limits" in said and "X >= 30: not kept by" in said
    missed = next(one for one in found.kept if one.limit.text == "X >= 30")
    assert missed.slack < -5.0 and missed.share == 0.0


def test_the_least_is_the_most_of_the_opposite_and_ranges_may_be_given(short):
    most, least = (
        best_schedule(
            short, "amount of P", limits=WIDE, ranges={"feed": (0.1, 0.9)}, least=v, n_starts=1
        )
        for v in (False, True)
    )
    assert most.is_largest and not least.is_largest
    assert least.value < least.before < most.value and most.value >= most.constant
    assert np.all((most.controls >= 0.1 - 1e-9) & (most.controls <= 0.9 + 1e-9))


def test_all_sizes_starts_and_bounds_share_two_programs(short):
    best_schedule(short, "amount of P", limits=LIMITS, n_starts=1)
    before = look.n_programs(), outcomes.n_programs()
    best_schedule(short, "amount of P", limits=WIDE, n_starts=2, seed=3, steps={"feed": 0.2})
    assert (look.n_programs(), outcomes.n_programs()) == before


def test_draws_of_constants_are_averaged_and_limits_keep_a_margin(short):
    rates = np.array([3.8, 4.75, 5.7])

    def found(chance):
        return best_schedule(
            short,
            "last P",
            limits=["last P <= 1.5"],
            draws={"rate": rates},
            chance=chance,
            pieces=1,
            n_starts=1,
        )

    sure, even = found(0.9), found(0.5)
    # the mean stays below the limit by what a normal law needs for nine in ten
    assert sure.kept[0].value + 1.2815 * sure.spread == pytest.approx(1.5, abs=2e-3)
    assert sure.kept[0].share == 1.0 and sure.spread > 0.0
    assert even.value == pytest.approx(1.5, abs=1e-3) and even.kept[0].share < 1.0
    assert "of the draws" in "\n".join(even.lines())


def test_a_plant_that_is_run_in_lanes():
    run = cho_experiment(virtual_reactor(), 24.0 * np.arange(3), by_interval=True)
    found = best_schedule(
        run,
        "last Titer",
        controls=["temperature", "bleed_rate"],
        pieces=1,
        limits=["Via >= 90"],
        n_starts=1,
    )
    assert (
        found.is_feasible
        and found.value == pytest.approx(found.constant)
        and found.value >= found.before
    )
    held = [k for k, n in enumerate(found.names) if n not in found.moved]
    assert np.array_equal(found.controls[:, held], np.asarray(run.controls)[:, held])
    assert np.array_equal(found.controls[0], found.controls[1])
    whole = cho_experiment(virtual_reactor(), 24.0 * np.arange(5))
    with pytest.raises(ConfigError, match="by_interval=True"):
        best_schedule(whole, "last Titer")


def test_limits_and_amounts_are_read_as_people_write_them():
    run = chemostat()
    assert len(read_limit(run, "min X >= 1").outputs) == run.hours.size - 1
    assert [o.kind for o in read_limit(run, "max X >= 1").outputs] == ["max"]
    assert read_limit(run, "X at 20 h <= 3").outputs[0].row > 0
    amount = read_output(run, "amount of P")
    assert amount.unit == "g" and amount.kind == "amount"
    for text, said in (
        ("X > 3", "it reads like"),
        ("X >= much", "it reads like"),
        ("Z >= 3", "is no quantity of this run"),
    ):
        with pytest.raises(ConfigError, match=said):
            read_limit(run, text)
    with pytest.raises(ConfigError, match="cannot be at least 5 and at most 3"):
        read_limits(run, ["X >= 5", "last X <= 3", "X <= 3"])
    whole = cho_experiment(virtual_reactor(), 24.0 * np.arange(3))
    with pytest.raises(ConfigError, match="does not change"):
        read_output(whole, "amount of Titer")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"pieces": 40}, "1 to 15 can be had"),
        ({"controls": ["fead"]}, "did you mean 'feed'"),
        ({"ranges": {"feed": (1.0, 1.0)}}, "is no range"),
        ({"steps": {"feed": 0.0}}, "above zero"),
        ({"chance": 0.2}, "0.5 or more"),
        ({"draws": {"rate": [1.0, np.nan]}}, "all finite"),
        ({"draws": {"speed": [1.0, 2.0]}}, "nothing that can be changed"),
        ({"limits": ["S <= 5"], "controls": []}, "no control is left"),
    ],
)
def test_what_makes_no_sense_is_refused(fed, asked, said):
    with pytest.raises(ConfigError, match=said):
        best_schedule(fed, "amount of P", **asked)
