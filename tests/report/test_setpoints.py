"""Set-points of recorded runs: filled down on request, lacking ones named, constant ones told."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfusio_jax._core import CONTROL_NAMES, STATE_ORDER, DataError
from perfusio_jax.report.setpoints import beyond_runs, changed_within, moved_unseen, never_varied
from perfusio_jax.states import Trajectory, complete_setpoints

VALUES = np.array([1.0, 0.1, 5.0, 36.5, 850.0, 2.0])


def run(run_id="T1", names=CONTROL_NAMES, days=5, **columns):
    """A run whose set-points are constant but for the columns given."""
    table = np.tile(VALUES, (days, 1))
    for name, values in columns.items():
        table[:, CONTROL_NAMES.index(name)] = values
    return Trajectory(
        species=np.ones((days, len(STATE_ORDER))),
        controls=table[:, [CONTROL_NAMES.index(n) for n in names]],
        volume_L=np.full(days, 0.25),
        days=np.arange(days),
        species_names=STATE_ORDER,
        control_names=names,
        run_id=run_id,
        clone_id="A",
        reactor_id="R1",
        times_h=24.0 * np.arange(days),
        stream_totals=np.full((days, 4), np.nan),
        auxiliary=np.empty((days, 0)),
        auxiliary_names=(),
    )


NAN = np.nan


def test_blanks_are_filled_down_on_request_only():
    blank = run(temperature=[36.5, NAN, 37.0, NAN, NAN], agitation=[900, NAN, NAN, NAN, NAN])
    with pytest.raises(DataError) as refused:
        complete_setpoints([blank, run("T2")])
    said = str(refused.value)
    assert "run 'T1' temperature in 2 of 4 rows, first at 24 h" in said
    assert "agitation in 3 of 4 rows" in said and "--fill-down" in said
    (full, _), lines = complete_setpoints([blank, run("T2")], fill_down=True)
    column = np.asarray(full.controls)[:, CONTROL_NAMES.index("temperature")]
    np.testing.assert_array_equal(column, [36.5, 36.5, 37.0, 37.0, 37.0])
    assert lines == [
        "filled down blank set-points, taken as unchanged: temperature 3, agitation 4 cell(s)."
    ]


def test_a_blank_above_the_first_value_cannot_be_filled():
    with pytest.raises(DataError, match=r"bleed_rate in 1 of 4 rows.*first row"):
        complete_setpoints([run(bleed_rate=[NAN, 0.1, NAN, 0.1, 0.1])], fill_down=True)


def test_a_blank_after_which_nothing_acted_is_no_blank():
    (same,), lines = complete_setpoints([run(temperature=[36.5, 36.5, 37.0, 37.0, NAN])])
    assert lines == [] and np.isnan(np.asarray(same.controls)[-1, 3])


@pytest.mark.parametrize("name", CONTROL_NAMES)
def test_every_control_that_is_lacking_is_named_or_assumed_aloud(name):
    others = tuple(n for n in CONTROL_NAMES if n != name)
    runs = [run("T1", names=others), run("T2", names=others)]
    with pytest.raises(DataError, match=f"no value of {name} in all runs.*Say --set"):
        complete_setpoints(runs, remedy="Say --set name=value.")
    made, lines = complete_setpoints(runs, stated={name: 1.5})
    for each in made:
        assert each.control_names == CONTROL_NAMES
        assert (np.asarray(each.controls)[:, CONTROL_NAMES.index(name)] == 1.5).all()
    assert len(lines) == 1 and lines[0].startswith(f"assumed: {name} 1.5") and "--set" in lines[0]
    # a column that one run leaves blank from top to bottom is lacking there, and only there
    mixed = [run("T1", **{name: NAN}), run("T2")]
    with pytest.raises(DataError, match=rf"no value of {name} in run\(s\) T1:"):
        complete_setpoints(mixed, fill_down=True)
    made, lines = complete_setpoints(mixed, stated={name: 1.5})
    assert "in run(s) T1, as" in lines[0]
    np.testing.assert_array_equal(made[1].controls, mixed[1].controls)


@given(st.lists(st.one_of(st.just(NAN), st.floats(0.0, 10.0)), min_size=1, max_size=8))
def test_filling_down_changes_blanks_only_and_leaves_the_value_above(values):
    values = np.array([1.0, *values])
    (made,), lines = complete_setpoints([run(days=values.size, bleed_rate=values)], fill_down=True)
    column = np.asarray(made.controls)[:, 1]
    held = ~np.isnan(values)
    np.testing.assert_array_equal(column[held], values[held])
    for k in np.flatnonzero(~held):
        assert column[k] == column[k - 1]
    assert bool(lines) == bool((~held).any())


def test_what_no_run_varied_is_told_where_a_proposal_moves_it():
    runs = [run("T1"), run("T2", temperature=[36.5, 36.5, 37.0, 37.0, 37.0])]
    constant = never_varied(runs, CONTROL_NAMES)
    assert "temperature" not in constant and constant["agitation"] == 850.0
    U = np.tile(VALUES, (2, 1))
    U[:, 4] = [700.0, 1000.0]
    U[:, 5] = 3.0
    lines = moved_unseen(constant, U, list(CONTROL_NAMES), fixed=["pyruvate_feed"])
    assert len(lines) == 1
    assert "agitation was 850 rpm in all runs so far" in lines[0]
    assert "move it to 700 to 1000; --set agitation=850 holds it" in lines[0]
    (moved,) = moved_unseen({"pyruvate_feed": 2.0}, U, list(CONTROL_NAMES), fixed=[])
    assert "move it to 3;" in moved
    (moved,) = moved_unseen({"temperature": 36.0}, U, list(CONTROL_NAMES), fixed=[])
    assert "temperature was 36 °C in all runs so far" in moved


def test_proposals_beyond_what_any_run_had_are_told_however_wide_the_ranges_are():
    runs = [run(agitation=[600, 900, 900, 1000, 1000]), run("T2", agitation=1200)]
    names = ["temperature", "agitation"]
    inside = np.array([[36.5, 650.0], [36.5, 1255.0]])  # a tenth further is no new land
    assert beyond_runs(runs, inside, names) == []
    (line,) = beyond_runs(runs, np.array([[[36.5, 700.0], [36.5, 2450.0]]]), names)
    assert line.startswith("agitation: the runs so far had 600 to 1200 rpm, ")
    assert "from 700 to 2450" in line and "--set" in line
    assert beyond_runs(runs, np.array([[30.0, 700.0]]), names)[0].startswith("temperature: ")


def test_what_most_runs_changed_on_the_way_is_found_and_a_wobble_is_none():
    names = ["temperature", "agitation", "bleed_rate"]
    down, wobble = [37, 37, 33, 33, 33], [900, 905, 900, 900, 900]
    runs = [run(temperature=down, agitation=wobble), run("T2", temperature=down, agitation=1200)]
    assert changed_within(runs, names) == ["temperature"]
    assert changed_within([*runs, run("T3"), run("T4")], names) == []  # half of them is not most
