"""docs/instruments.md says what the descriptions say, and its code runs."""

import re
from pathlib import Path

import pytest

from perfusio_jax.connectors.instruments.allotrope import NAMES
from perfusio_jax.connectors.instruments.catalogue import INSTRUMENTS
from perfusio_jax.connectors.instruments.cedex import DOUBTS, HOW, TESTS
from perfusio_jax.connectors.instruments.instrument import folded
from tests.connectors.instruments.exports import BLU

PAGE = (Path(__file__).parents[3] / "docs" / "instruments.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S))
ROW = re.compile(r"^\| (?P<labels>`.*?) \| (?P<name>.*?) \|(?: (?P<unit>.*?) ?\|)?$", re.M)
TABLES = [i for i in INSTRUMENTS if i.layout in ("table", "report")]


def rows(title: str) -> list[tuple[list[str], str, str]]:
    """Labels, name and unit of each row of a section."""
    found = ROW.finditer(SECTIONS[title])
    return [
        (re.findall(r"`(.*?)`", f["labels"]), re.findall(r"`(.*?)`", f["name"])[0], f["unit"] or "")
        for f in found
        if "`" in f["name"]
    ]


@pytest.mark.parametrize("instrument", TABLES, ids=lambda i: i.name)
def test_labels_names_and_units(instrument):
    said = rows(instrument.name.split(",")[0])
    listed = {folded(label): (name, unit) for labels, name, unit in said for label in labels}
    for column in instrument.columns:
        for label in column.labels[:1] if column.name else ():
            assert listed[folded(label)] == (column.name, column.unit)
    for label in (*instrument.samples, *(t[0] for t in instrument.times)):
        assert listed[folded(label)][0] in ("sample_id", "sampled_at")
    named = {folded(x) for c in instrument.columns if c.name for x in c.labels}
    others = {
        folded(x) for x in (*instrument.samples, "RunDate", "Sample date", "Sample date/time")
    }
    known = named | others | {folded(x) for x in instrument.time_labels}
    assert listed.keys() <= known, "nothing is said of what is not there"


def test_tests_and_flags():
    said = rows("Roche Cedex Bio HT")
    assert {test: name for tests, name, _ in said for test in tests if test.isupper()} == dict(
        TESTS
    )
    flags = set(re.findall(r"`(.*?)`", SECTIONS["Roche Cedex Bio HT"].split("| flag |")[1]))
    assert {*HOW, *DOUBTS} <= flags


def test_quantities():
    said = rows("Allotrope simple models")
    listed = {label.casefold(): name for labels, name, _ in said for label in labels}
    diameters = {label for label in listed if label.endswith("diameter")}
    assert {k: v for k, v in listed.items() if k not in diameters} == dict(NAMES)


def test_its_code_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "counts.csv").write_bytes(BLU)
    for code in re.findall(r"```python\n(.*?)```", PAGE, re.S):
        exec(compile(code, "page", "exec"), {})
    printed = capsys.readouterr().out
    assert (
        "VCD [1e6 cells/mL]" in printed
        and "{'run': 'CHO7', 'day': '03', 'reactor': '2'}" in printed
    )
