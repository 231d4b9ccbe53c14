"""Patterns for names of samples: what they read, what they refuse, and that they end."""

import re
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfusio_jax._core import ConfigError, DataError
from perfusio_jax.connectors.tables.raw import RawTable
from perfusio_jax.connectors.tables.sample_ids import FIELDS, SamplePattern


@pytest.mark.parametrize(
    ("pattern", "name", "found"),
    [
        ("{run}-D{day}-BR{reactor}", "P7-D2-BR1", {"run": "P7", "day": "2", "reactor": "1"}),
        (
            "{run}-D{day}-BR{reactor}",
            "A-B-D02.5-BR1",
            {"run": "A-B", "day": "02.5", "reactor": "1"},
        ),
        ("{run}-D{day}-BR{reactor}", "P7-Dx-BR1", None),
        ("{run}-D{day}-BR{reactor}", "P7-D-1-BR1", None),
        ("{run}-D{day}-BR{reactor}", "p7-d2-br1", None),
        ("{run}-D{day}-BR{reactor}", "", None),
        ("{run}-D{day}-BR{reactor}", "-D2-BR1", None),
        ("{run}-D{day}-BR{reactor}", " P7-D2-BR1 ", {"run": "P7", "day": "2", "reactor": "1"}),
        ("{run}_{hour}h", "P7_36h", {"run": "P7", "hour": "36"}),
        ("{clone}/{run} *", "C1/P7 x", {"clone": "C1", "run": "P7"}),
        ("{clone}/{run} (*)", "C1/P7 (x)", {"clone": "C1", "run": "P7"}),
        ("*:{run}", "x.y:P7", {"run": "P7"}),
        ("*:{run}", ":P7", {"run": "P7"}),
        ("{run}.{sample}+", "P7.3+", {"run": "P7", "sample": "3"}),
        ("{run}", "anything at all", {"run": "anything at all"}),
        ("{run}-D{day}", "x" * 300, None),
    ],
)
def test_what_a_name_says(pattern: str, name: str, found: dict[str, str] | None):
    assert SamplePattern.of(pattern).fields_of(name) == found


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{run}{day}", "'{day}' follows the part before it without text between"),
        ("*{run}", "'{run}' follows"),
        ("{run}*", "'*' follows"),
        ("{run}-{rector}", "{rector} is no field"),
        ("{run}-{}", "{} is no field"),
        ("{run}-{run}", "{run} stands twice"),
        ("D{day}-BR{reactor}", "there is no {run}"),
        ("P7", "there is no {run}"),
        ("{run}-{day", "the brace '{' has no partner"),
        ("{run}-day}", "the brace '}' has no partner"),
        ("{{run}}", "the brace '{' has no partner"),
        ("", "it is empty"),
        ("   ", "it is empty"),
        ("{run}" + "x" * 300, "longer than 200"),
    ],
)
def test_patterns_that_are_refused(pattern: str, message: str):
    with pytest.raises(ConfigError, match=re.escape(message)) as refused:
        SamplePattern.of(pattern)
    assert "{reactor}" in str(refused.value), "it says what is allowed"


@pytest.mark.parametrize(
    ("pattern", "name", "ways"),
    [
        ("{run}-{reactor}", "A-B-C", ("run 'A', reactor 'B-C'", "run 'A-B', reactor 'C'")),
        ("{run}D{day}-*", "P7D2-1-D3-1", ()),
        ("{run}1{day}", "P7111", ("run 'P7', day '11'", "run 'P71', day '1'")),
    ],
)
def test_a_name_that_fits_in_two_ways_is_refused(pattern: str, name: str, ways: tuple[str, ...]):
    with pytest.raises(DataError, match="in two ways") as refused:
        SamplePattern.of(pattern).fields_of(name)
    assert all(way in str(refused.value) for way in ways)


def test_two_ways_that_differ_only_in_anything_are_one():
    assert SamplePattern.of("*-x-*:{run}").fields_of("a-x-x-x-b:P7") == {"run": "P7"}


def lines_run(task: Callable[[], object]) -> int:
    """How many lines of Python a task runs: what it costs, on any machine."""
    lines = 0

    def trace(frame: object, event: str, arg: object) -> object:
        nonlocal lines
        lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        task()
    finally:
        sys.settrace(before)
    return lines


@pytest.mark.parametrize(
    "text", ["{run}-{reactor}-{clone}-{sample}-*-*-*x", "x{run}-{reactor}-{clone}-{sample}-*-*-*"]
)
def test_no_name_takes_long(text: str):
    pattern = SamplePattern.of(text)
    short, long = (
        lines_run(lambda n=n: pytest.fail("fits") if pattern.fields_of("-" * n) else None)
        for n in (99, 198)
    )
    # Seven open parts: were all cuts tried, twice the name would take 2**7 times as long.
    assert 0 < long < 2**3 * short


WORDS = (
    st.text(st.sampled_from("abcXYZ0189._ "), min_size=1, max_size=8).map(str.strip).filter(bool)
)


@given(
    values=st.fixed_dictionaries(
        {"run": WORDS, "reactor": WORDS, "clone": WORDS, "day": st.integers(0, 999)}
    ),
    order=st.permutations(["run", "reactor", "clone", "day"]),
    between=st.sampled_from(["-", "/", "::", "-BR", "#"]),
)
def test_what_a_pattern_wrote_it_reads(values: dict, order: list[str], between: str):
    pattern = SamplePattern.of(between.join(f"{{{field}}}" for field in order))
    name = between.join(str(values[field]) for field in order)
    assert pattern.fields_of(name) == {k: str(values[k]) for k in order}
    assert pattern.fields == tuple(order)


@given(st.text(max_size=40), st.text(max_size=60))
def test_any_pattern_is_refused_or_reads_parts_of_a_name(pattern: str, name: str):
    try:
        compiled = SamplePattern.of(pattern)
    except ConfigError:
        return
    try:
        found = compiled.fields_of(name)
    except DataError:
        return
    assert found is None or (set(found) <= set(FIELDS) and "run" in found)
    assert found is None or all(text and text in name for text in found.values())


@given(st.text(st.sampled_from("{}*runday-x"), max_size=12))
def test_patterns_of_braces(pattern: str):
    try:
        compiled = SamplePattern.of(pattern)
    except ConfigError:
        return
    assert "run" in compiled.fields


def table_of(*names: str | None) -> RawTable:
    rows = [[name, n + 0.5] for n, name in enumerate(names)]
    lines = [10 + n for n in range(len(names))]
    return RawTable(["sample_id", "VCD"], rows, lines, {"VCD": "1e6/mL"}, ["a note"], decimal=",")


def test_a_table_gets_columns():
    table = table_of("P7-D2-BR1", "QC 1", "P7-D3.5-BR2", None)
    made = SamplePattern.of("{run}-D{day}-BR{reactor}").apply(table)
    assert made.header == ["run_id", "reactor_id", "day", "sample_id", "VCD"]
    assert made.rows == [["P7", "1", 2.0, "P7-D2-BR1", 0.5], ["P7", "2", 3.5, "P7-D3.5-BR2", 2.5]]
    assert made.lines == [10, 12] and made.units == table.units and made.decimal == ","
    assert made.notes[0] == "a note"
    assert "2 rows are left out" in made.notes[-1] and "'QC 1' (line 11)" in made.notes[-1]
    assert len(table.rows) == 4 and table.notes == ["a note"], "the table itself is as it was"


@pytest.mark.parametrize(("decimal", "day"), [(".", "3.5"), (",", "3,5")])
def test_a_table_of_text_gets_texts(decimal: str, day: str):
    table = table_of("P7-D3.5")
    table.separator, table.decimal = ";", decimal
    assert SamplePattern.of("{run}-D{day}").apply(table).rows[0][:2] == ["P7", day]


def test_three_strange_names_are_told():
    names = ("P7-D1", *(f"QC{n}" for n in range(9)))
    note = SamplePattern.of("{run}-D{day}").apply(table_of(*names)).notes[-1]
    assert "9 rows" in note and "'QC2' (line 13), ..." in note and "QC3" not in note


@pytest.mark.parametrize(
    ("pattern", "name", "cells"),
    [
        ("{run}-H{hour}", "A-H36", {"run_id": "A", "time_h": 36.0}),
        ("{run}-D{day}-H{hour}", "A-D2-H6.5", {"run_id": "A", "time_h": 54.5}),
        ("{clone}.{run}", "C.A", {"run_id": "A", "clone_id": "C"}),
        ("{run}_{sample}", "A_3", {"run_id": "A"}),
    ],
)
def test_days_and_hours(pattern: str, name: str, cells: dict):
    made = SamplePattern.of(pattern).apply(table_of(name))
    found = dict(zip(made.header, made.rows[0], strict=True))
    assert found == {**cells, "sample_id": name, "VCD": 0.5}


@pytest.mark.parametrize(
    ("pattern", "names", "message"),
    [
        (
            "{run}-D{day}",
            ("QC1", "QC2"),
            "no sample fits the pattern '{run}-D{day}': 'QC1' (line 10)",
        ),
        ("{run}-D{day}-H{hour}", ("A-D1-H24",), "hour 24 of a day"),
        ("{run}-{clone}", ("A-B-C",), "in two ways"),
    ],
)
def test_tables_that_are_refused(pattern: str, names: tuple[str, ...], message: str):
    with pytest.raises(DataError, match=re.escape(message)):
        SamplePattern.of(pattern).apply(table_of(*names))


def test_a_column_that_is_there_already_is_refused():
    table = RawTable(["run_id", "sample_id"], [["A", "A-D1"]], [2])
    with pytest.raises(DataError, match="there is a column 'run_id' already"):
        SamplePattern.of("{run}-D{day}").apply(table)
    with pytest.raises(DataError, match="there is no column 'name'"):
        SamplePattern.of("{run}-D{day}").apply(table, "name")


def as_regex(pattern: str) -> re.Pattern:
    """The same pattern as a regular expression, which tries the shortest first."""
    parts = re.split(r"(\{[a-z]+\}|\*+)", pattern)
    number = r"(?P<{}>\d+?(?:\.\d+?)??)"
    out = ""
    for part in parts:
        field = part[1:-1]
        if part.startswith("{"):
            out += number.format(field) if field in ("day", "hour") else f"(?P<{field}>.+?)"
        else:
            out += ".*?" if part.startswith("*") else re.escape(part)
    return re.compile(out, re.S | re.A)


@given(
    parts=st.permutations(["{run}", "{day}", "{reactor}", "*"]),
    n=st.integers(1, 4),
    between=st.lists(st.sampled_from(["-", "a", "1", "--"]), min_size=5, max_size=5),
    name=st.text(st.sampled_from("a1-."), max_size=10),
)
def test_patterns_match_what_regular_expressions_match(parts, n, between, name):
    chosen = dict.fromkeys([*parts[:n], "{run}"])
    text = between[0] + "".join(p + b for p, b in zip(chosen, between[1:], strict=False))
    reference = as_regex(text).fullmatch(name)
    try:
        found = SamplePattern.of(text).fields_of(name)
    except DataError as error:
        assert reference is not None and "in two ways" in str(error)
        return
    assert found == (reference and reference.groupdict())
