"""Long tables: by column what is plain, row by row what is odd, and both say the same."""

import dataclasses
import io
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from perfusio_jax._core import STREAM_TOTALS, DataError
from perfusio_jax.connectors.files import campaign_cells, campaign_files
from perfusio_jax.connectors.files.inspecting import inspect_tables
from perfusio_jax.connectors.tables import plain_text, raw, values
from perfusio_jax.connectors.tables.cells import find_decimal, parse_number, parse_numbers
from perfusio_jax.connectors.tables.file_rules import FileRules
from perfusio_jax.connectors.tables.formats import read_table
from perfusio_jax.connectors.tables.samples import interpret
from perfusio_jax.states import Trajectory, trajectories_of

QUANTITIES = ("VCD", "Via", "Glc", "perfusion_rate", "nobody")
READINGS = st.sampled_from(
    ["1.5", "1.50", "2", "0.250", "7.125", "", "n.b.", "< 0.5", "> 9", "-1", "abc", " 3.5", "98 %"]
)
PLAIN = st.sampled_from(["1.5", "1.50", "2", "0.250", "7.125", ""])


@st.composite
def rows_of_runs(draw, *, is_long: bool) -> list[list[str]]:
    """Rows of some runs: times that repeat, cells that are odd, in any order."""
    cells = READINGS if draw(st.booleans()) else PLAIN
    hours = st.sampled_from(["0", "0.5", "24", "24.0", "48"])
    rows = []
    for _ in range(draw(st.integers(1, 12))):
        lead = [draw(st.sampled_from(["A", "B"])), draw(hours)]
        if is_long:
            unit = draw(st.sampled_from(["", "g/L"]))
            name = draw(st.sampled_from(QUANTITIES))
            rows.append([*lead, name, draw(cells), unit if name == "Glc" else ""])
        else:
            rows.append([*lead, *(draw(cells) for _ in QUANTITIES[:3])])
    return rows


def text_of(rows: list[list[str]], more: str = "", *, is_long: bool, quote: str = "") -> str:
    names = ("species", "value", "unit") if is_long else QUANTITIES[:3]
    lines = [",".join([f"{quote}run_id{quote}", "time_h", *names]) + (f",{more}" if more else "")]
    return "\n".join([*lines, *(",".join(row) + ("," if more else "") for row in rows)]) + "\n"


def table_of(text: str) -> raw.RawTable:
    known = {"run_id", "time_h", "species", "value", "unit", *QUANTITIES}
    return read_table(
        text.encode(), ".csv", is_known=known.__contains__, decimal=".", allow_unterminated=True
    )


def said(text: str, *, is_long: bool, is_last: bool) -> object:
    """All that is read of a table, or why it is not."""
    try:
        found = interpret(
            table_of(text), wide=not is_long, on_conflict="last" if is_last else "error"
        )
    except DataError as error:
        return str(error)
    rows = [
        (
            key,
            row.line,
            row.last_line,
            [(n, v, row.quality(n), row.line_of(n), row.limit(n)) for n, v in row.values.items()],
            row.notes,
            row.conflicts,
        )
        for key, row in found.rows.items()
    ]
    columns = [column for column in found.report.columns if column.name != "quality"]
    return rows, dataclasses.replace(found.report, columns=tuple(columns)), found.columns


@settings(deadline=None)
@given(st.data(), st.booleans(), st.booleans())
def test_rows_are_read_at_once_as_they_are_one_by_one(data, is_long, is_last):
    rows = data.draw(rows_of_runs(is_long=is_long))
    at_once = said(text_of(rows, is_long=is_long), is_long=is_long, is_last=is_last)
    # an empty column of qualities changes nothing but that rows are looked at one by one
    text = text_of(rows, "quality", is_long=is_long)
    assert at_once == said(text, is_long=is_long, is_last=is_last)


@settings(deadline=None)
@given(st.data(), st.booleans())
def test_a_text_is_cut_up_by_column_as_it_is_by_row(data, is_long):
    rows = data.draw(rows_of_runs(is_long=is_long))
    lines = text_of(rows, is_long=is_long).splitlines(keepends=True)
    odd = data.draw(st.sampled_from(["", "\n", ",,,,\n", lines[0], "  \n"]))
    at = data.draw(st.integers(0, len(lines)))
    text = "".join([*lines[:at], odd, *lines[at:]])
    by_column = table_of(text)
    by_row = table_of(text.replace("run_id", '"run_id"'))
    assert by_column.header == by_row.header
    assert by_column.rows == by_row.rows
    assert by_column.lines == by_row.lines
    assert by_column.notes == by_row.notes


@given(st.lists(READINGS | st.sampled_from(["1,5", "1.234", "12,345", "0,5", "-3", "1e3", "1\n2"])))
def test_many_cells_are_numbers_as_each_of_them_is(cells):
    for mark in (".", ","):
        assert parse_numbers(cells, mark) == [parse_number(cell, mark) for cell in cells]


@given(
    st.lists(
        st.sampled_from(["1.5", "1.234", "12.345", "0.5", "7", "-3.25", "+2.500", "1234.567"]),
        min_size=1,
    ),
    st.sampled_from(["", "1,5", "1.234.567", "text"]),
)
def test_the_cells_that_tell_the_mark_tell_what_all_do(texts, odd):
    rows = [[text] for text in texts] + [[odd]] * bool(odd)
    table = raw.RawTable(["VCD"], rows, list(range(2, len(rows) + 2)))

    def mark(cells):
        try:
            return find_decimal(cells, ";")
        except DataError as error:
            return str(error)

    all_cells = [(row[0], line) for row, line in zip(rows, table.lines, strict=True)]
    assert mark(raw.marked(table, None)) == mark(all_cells)


def test_rows_and_columns_of_a_table_hold_the_same():
    rows = [[1, "a", None], [True, "b", 1.0], [1.0, "a", None]]
    table = raw.RawTable(["x", "y", "z"], [list(row) for row in rows], [2, 3, 4])
    columns = table.columns()
    assert [type(cell) for cell in columns[0].cells] == [int, bool, float]
    assert table.row(1) == rows[1]
    table.take(np.array([2, 1]))
    assert table.columns()[1].cells == ["a", "b"]
    assert table.lines == [4, 3]
    table.take_columns([1, 2])
    table.add_column("w", raw.Coded.of_cells([5, 6]))
    assert table.header == ["y", "z", "w"]
    assert table.rows == [["a", None, 5], ["b", 1.0, 6]]


def _wide(n_rows: int, n_runs: int) -> str:
    lines = ["run_id,time_h,VCD,Glc,perfusion_rate"]
    for k in range(n_rows):
        run, row = divmod(k, n_rows // n_runs)
        lines.append(f"R{run},{24 * row},{1 + k % 7}.25,{3 + k % 5}.5,1.0")
    return "\n".join(lines) + "\n"


@pytest.fixture
def calls(monkeypatch):
    """Counts calls of functions where they are looked up."""
    counts: dict[str, int] = {}

    def count(module, name):
        inner = getattr(module, name)

        def counted(*args, **more):
            counts[name] = counts.get(name, 0) + 1
            return inner(*args, **more)

        monkeypatch.setattr(module, name, counted)
        counts[name] = 0

    count.of = counts
    return count


def test_each_text_of_a_column_is_read_once_however_long_it_is(calls):
    calls(values, "parse_number")
    interpret(table_of(_wide(2000, 20)))
    assert 0 < calls.of["parse_number"] <= 7 + 5 + 1


def test_a_long_table_is_read_by_its_texts_too(calls):
    lines = ["run_id,time_h,species,value,unit"]
    for k in range(600):
        lines += [f"R{k // 100},{24 * (k % 100)},VCD,{k % 7}.5,1e6/mL"]
        lines += [f"R{k // 100},{24 * (k % 100)},Glc,{k % 5}.25,g/L"]
    calls(values, "parse_number")
    found = interpret(table_of("\n".join(lines) + "\n"), wide=False)
    assert len(found.rows) == 600
    assert 0 < calls.of["parse_number"] <= 7 + 5


def test_inspecting_cuts_a_file_up_once(tmp_path, calls):
    file = tmp_path / "campaign.csv"
    file.write_text(_wide(300, 3))
    calls(plain_text, "_cut_up")
    calls(campaign_files, "trajectories_of")
    console = Console(file=io.StringIO(), width=120)
    assert inspect_tables(file, FileRules(), console).has_samples
    assert calls.of == {"_cut_up": 1, "trajectories_of": 0}  # nor are runs made to look at them


def test_a_campaign_is_opened_once(tmp_path, calls):
    file = tmp_path / "campaign.csv"
    file.write_text(_wide(300, 3))
    calls(campaign_cells, "read_file")
    calls(plain_text, "_cut_up")
    assert len(campaign_files.read_campaign(file).trajectories) == 3
    assert calls.of == {"read_file": 1, "_cut_up": 1}


def test_rows_that_repeat_are_counted_and_the_first_of_them_named(tmp_path: Path):
    lines = _wide(60, 2).splitlines()
    doubled = [lines[0], *(line for line in lines[1:] for _ in range(2))]
    found = interpret(table_of("\n".join(doubled) + "\n"))
    assert len(found.rows) == 60
    assert found.report.n_duplicates == 60
    assert "and 40 more lines repeat others" in found.report.notes
    assert found.rows["R0", "", 24.0].last_line == 5
    file = tmp_path / "doubled.csv"
    file.write_text("\n".join(doubled) + "\n")
    report = campaign_files.read_campaign(file).report
    assert any(note.startswith("rows that repeat another (60): line 3") for note in report.notes)


def _fields(n: int, name: str, **more) -> dict:
    fields = {
        "species": np.arange(2.0 * n).reshape(n, 2),
        "controls": np.ones((n, 1)),
        "volume_L": np.full(n, 0.25),
        "days": np.arange(n),
        "species_names": ["VCD", "Glc"],
        "control_names": ["perfusion_rate"],
        "run_id": name,
        "clone_id": "C1",
        "reactor_id": "R01",
        "times_h": 24.0 * np.arange(n),
        "stream_totals": np.full((n, len(STREAM_TOTALS)), np.nan),
        "auxiliary": np.zeros((n, 0)),
        "auxiliary_names": [],
        "limits": None,
    }
    return {**fields, **more}


def test_many_runs_at_once_are_what_each_would_be():
    limits = np.full((4, 2, 2), np.nan)
    limits[1, 0, 0] = 0.1
    runs = [_fields(3, "A"), _fields(4, "B", limits=limits), _fields(3, "C")]
    found = trajectories_of(runs, {"B": {"medium": "M1"}})
    for run, made in zip(runs, found, strict=True):
        one = Trajectory(**run, metadata={"medium": "M1"} if run["run_id"] == "B" else None)
        assert jax.tree.structure(made) == jax.tree.structure(one)
        for mine, other in zip(jax.tree.leaves(made), jax.tree.leaves(one), strict=True):
            assert isinstance(mine, jax.Array)
            assert (mine.dtype, mine.weak_type) == (other.dtype, other.weak_type)
            np.testing.assert_array_equal(mine, other)
    assert found[0].days is found[2].days  # what is alike is there once


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("times_h", np.array([0.0, 24.0, 24.0]), "must rise from row to row"),
        ("times_h", np.array([0.0, np.nan, 48.0]), "times_h of run 'B' is nan"),
        ("volume_L", np.array([0.25, 0.0, 0.25]), "a working volume is above zero"),
        ("controls", np.ones((3, 2)), "controls of run 'B' has shape"),
        ("species_names", ["VCD", "VCD"], "holds VCD more than once"),
    ],
)
def test_many_runs_are_refused_as_one_would_be(name, value, text):
    with pytest.raises(DataError, match=text):
        trajectories_of([_fields(3, "A"), _fields(3, "B", **{name: value})])
