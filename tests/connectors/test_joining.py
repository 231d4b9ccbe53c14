"""Rows of one sample minutes apart, and what no culture does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfusio_jax.connectors.tables.doubts import feeds, hours_called_days, too_fast
from perfusio_jax.connectors.tables.joining import join


@pytest.mark.parametrize(
    ("times", "ids", "values", "within", "groups"),
    [
        ([48, 48.4, 72], None, [{"Glc": 4}, {"VCD": 7}, {"Glc": 3}], 1.0, [[0, 1], [2]]),
        ([48, 48.4, 72], None, [{"Glc": 4}, {"VCD": 7}, {"Glc": 3}], 0.0, [[0], [1], [2]]),
        ([48, 49.1], None, [{"Glc": 4}, {"VCD": 7}], 1.0, [[0], [1]]),
        # from the first row on, not from one to the next: no chain of rows is one sample
        ([0, 0.9, 1.8], None, [{"Glc": 4}, {"VCD": 7}, {"Lac": 1}], 1.0, [[0, 1], [2]]),
        ([48.4, 48], None, [{"VCD": 7}, {"Glc": 4}], 1.0, [[1, 0]]),
        ([48, 48.4], None, [{"Glc": 4, "VCD": 7}, {"Glc": 4, "Lac": 2}], 1.0, [[0, 1]]),
        ([48, 48.4], None, [{"Glc": 4}, {"Glc": 4.2}], 1.0, [[0], [1]]),
        ([48, 48.2, 48.4], None, [{"Glc": 4}, {"Glc": 5}, {"VCD": 7}], 1.0, [[0], [1, 2]]),
        ([48, 48.2, 48.4], None, [{"Glc": 4}, {"Glc": 5}, {"Glc": 4, "Gln": 2}], 1, [[0, 2], [1]]),
        ([48, 60, 61], ["a", "a", "b"], [{"Glc": 4}, {"VCD": 7}, {"VCD": 8}], 1.0, [[0, 1], [2]]),
        ([48, 48.1], ["a", "b"], [{"Glc": 4}, {"VCD": 7}], 1.0, [[0], [1]]),
        ([48, 48.1], ["a", ""], [{"Glc": 4}, {"VCD": 7}], 1.0, [[0, 1]]),
        ([48, 48.1], None, [{"Glc": None}, {"Glc": 4}], 1.0, [[0, 1]]),
    ],
)  # fmt: skip
def test_rows_are_joined_unless_they_contradict(times, ids, values, within, groups):
    assert join(times, ids or [""] * len(times), values, within).groups == groups


def test_what_differs_is_named():
    found = join([1.0, 1.2, 1.6], ["", "", ""], [{"Gln": 2}, {"Glc": 15}, {"Glc": 16}])
    assert found.apart == [(1, 2, "Glc")]


ROWS = st.lists(
    st.tuples(
        st.integers(0, 40).map(lambda n: n / 10),
        st.dictionaries(st.sampled_from("abc"), st.one_of(st.none(), st.integers(0, 1))),
    ),
    max_size=8,
)


@given(ROWS)
def test_no_reading_is_lost_and_no_sample_contradicts_itself(rows):
    times, values = [t for t, _ in rows], [v for _, v in rows]
    found = join(times, [""] * len(rows), values)
    assert sorted(k for group in found.groups for k in group) == list(range(len(rows)))
    for group in found.groups:
        assert times[group[-1]] - times[group[0]] <= 1.0
        for name in "abc":
            assert len({values[k].get(name) for k in group} - {None}) <= 1


def test_a_log_of_a_day_by_the_second_is_not_compared_row_by_row_with_all():
    n = 20_000
    found = join([k / 3600 for k in range(n)], [""] * n, [{"Glc": float(k)} for k in range(n)])
    assert len(found.groups) == n


# ---------------------------------------------------------------- what no culture does


@pytest.mark.parametrize(
    ("hours", "cells", "is_odd"),
    [
        ([0, 1, 2, 3, 4], [0.4, 0.7, 1.6, 4.0, 9.0], True),
        ([0, 24, 48, 72, 96], [0.4, 0.7, 1.6, 4.0, 9.0], False),
        ([0, 3], [1.0, 4.2], True),
        ([0, 3], [1.0, 2.9], False),  # two counts may differ by that
        ([0, 1, 5], [0.5, None, 20.0], True),
        ([0, 1], [0.0, 5.0], False),
        ([0, 1], [9.0, 1.0], False),
        ([], [], False),
    ],
)
def test_growth_within_hours_that_takes_days(hours, cells, is_odd):
    assert ("are these days" in too_fast(hours, cells)) == is_odd


@pytest.mark.parametrize(
    ("days", "is_odd"),
    [([0, 24, 48], True), ([0, 48, 72], True), ([0, 1, 2], False), ([0, 24], False), ([], False)],
)
def test_days_that_are_hours(days, is_odd):
    assert ("are these hours" in hours_called_days(days)) == is_odd


@pytest.mark.parametrize(
    ("hours", "cells", "glutamine", "n"),
    [
        ([96, 96.4], [6.0, 6.0], [0.8, 3.9], 1),
        ([96, 99], [6.0, 6.1], [0.8, 3.9], 1),
        ([96, 120], [6.0, 6.0], [0.8, 3.9], 0),
        ([96, 96.4], [6.0, 9.0], [0.8, 3.9], 0),
        ([96, 96.4], [6.0, 6.0], [3.8, 3.9], 0),
        ([96, 96.4], [6.0, 6.0], [3.9, 0.8], 0),
        ([96, 96.4], [6.0, None], [0.8, 3.9], 0),
        ([96, 96.4], [6.0, 6.0], [None, 3.9], 0),
    ],
)
def test_a_substrate_that_rises_at_the_same_cells_was_fed(hours, cells, glutamine, n):
    found = feeds(hours, {"VCD": cells, "Gln": glutamine})
    assert len(found) == n
    assert all(k == 1 and "Gln rises from 0.8 to 3.9" in text for k, text in found)
