"""A clean campaign, spoiled as laboratories spoil theirs: the clean values come back, or a refusal.

Each table is a clean one with some of the ways below applied, drawn by Hypothesis, which prints
what it drew where something fails. Never may other values come back than those that were written.
"""

import asyncio
import datetime as dt
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfusio_jax._core import DataError
from perfusio_jax.connectors import FilesystemStore, read_campaign
from perfusio_jax.connectors.tables.file_rules import FileRules

NAMES = ("VCD", "Via", "Glc", "Titer", "perfusion_rate")
GERMAN = {
    "VCD": "Lebendzellzahl",
    "Via": "Viabilität",
    "Glc": "Glukose",
    "Titer": "Produkt",
    "perfusion_rate": "Perfusionsrate",
}
UNITS = {
    "VCD": {"": 1.0, "1e6 cells/mL": 1.0, "Mio/mL": 1.0, "1/mL": 1e6},
    "Via": {"": 1.0, "%": 1.0},
    "Glc": {"": 1.0, "g/L": 1.0, "mg/dL": 100.0},
    "Titer": {"": 1.0, "mg/L": 1.0, "g/L": 1e-3},
    "perfusion_rate": {"": 1.0, "1/d": 1.0, "RV/d": 1.0},
}
START = dt.datetime(2026, 3, 2, 9, 0)
RUNS = ("A1", "B2")
N = 5


def clean() -> dict[str, np.ndarray]:
    """Values `(runs, samples)` by name; NaN where nothing was measured."""
    rng = np.random.default_rng(11)
    cells = np.round(rng.uniform(1.2, 30.0, (2, N)), 2)
    titer = np.round(rng.uniform(1100.0, 2400.0, (2, N)), 1)
    titer[:, ::2] = np.nan
    glucose = np.round(rng.uniform(1.1, 6.9, (2, N)), 2)
    glucose[1, 3] = np.nan
    return {
        "VCD": cells,
        "Via": np.round(rng.uniform(88.0, 99.0, (2, N)), 1),
        "Glc": glucose,
        "Titer": titer,
        "perfusion_rate": np.tile([[0.5], [1.25]], (1, N)),
    }


@dataclass(frozen=True)
class Ways:
    """How a table is spoiled."""

    kind: str
    separator: str
    decimal: str
    encoding: str
    titles: int
    units: dict[str, str]
    units_in: str
    german: bool
    missing: str
    thousands: str
    percent: bool
    shuffled: bool
    repeated: bool
    header_again: bool
    footer: bool
    trailing: bool
    separator_line: bool
    remarks: bool
    split: bool
    time: str
    long: bool
    apart: str
    blank_lines: bool
    limit: bool
    dots: bool


def ways() -> st.SearchStrategy[Ways]:
    flag = st.booleans()
    return st.builds(
        Ways,
        kind=st.sampled_from(["csv", "csv", "csv", "xlsx"]),
        separator=st.sampled_from([",", ";", "\t", "|"]),
        decimal=st.sampled_from([".", ","]),
        encoding=st.sampled_from(["utf-8", "utf-8-sig", "cp1252", "utf-16"]),
        titles=st.sampled_from([0, 0, 1, 3]),
        units=st.fixed_dictionaries({n: st.sampled_from([*UNITS[n]]) for n in NAMES}),
        units_in=st.sampled_from(["row", "brackets"]),
        german=flag,
        missing=st.sampled_from(["", "n.b.", "NA", "-", "#N/A", "n.d."]),
        thousands=st.sampled_from(["", "", " ", "\u00a0", "'"]),
        percent=flag,
        shuffled=flag,
        repeated=flag,
        header_again=flag,
        footer=flag,
        trailing=flag,
        separator_line=flag,
        remarks=flag,
        split=flag,
        time=st.sampled_from(["time_h", "day", "fraction", "iso", "german", "us", "named"]),
        long=st.sampled_from([False, False, False, True]),
        apart=st.sampled_from(["one", "one", "files", "sheets"]),
        blank_lines=flag,
        limit=flag,
        dots=flag,
    )


def number(value: float, w: Ways, name: str, *, is_limit: bool = False) -> object:
    """A value as it is written; of a limit of the assay half is taken."""
    if np.isnan(value):
        return w.missing
    scaled = value * UNITS[name][w.units[name]]
    if is_limit:
        mark = w.decimal if w.kind == "csv" else "."
        return f"< {2.0 * scaled:.4f}".replace(".", mark)
    if w.kind == "xlsx":
        return float(f"{scaled:.10g}")
    digits = 0 if scaled >= 1e5 else 4 if scaled < 10.0 else 2
    text = f"{scaled:.{digits}f}"
    whole, _, rest = text.partition(".")
    thousands = "." if w.dots and w.decimal == "," and rest else w.thousands
    if thousands and len(whole) > 3:
        whole = f"{int(whole):,}".replace(",", thousands)
    text = whole + (w.decimal + rest if rest else "")
    if w.percent and name == "Via":
        text += " %"
    return text


def is_limit(name: str, run: int, k: int, w: Ways) -> bool:
    return w.limit and (name, run, k) == ("Glc", 0, 4)


def when(hours: float, w: Ways) -> object:
    """A time as it is written."""
    at = START + dt.timedelta(hours=hours)
    mark = w.decimal if w.kind == "csv" else "."
    written = {
        "time_h": f"{hours:g}".replace(".", mark),
        "day": f"{hours / 24:g}".replace(".", mark),
        "fraction": f"{hours / 24:.6f}".replace(".", mark),
        "iso": at.isoformat(sep=" "),
        "german": at.strftime("%d.%m.%Y %H:%M"),
        "us": at.strftime("%m/%d/%Y %I:%M:%S %p"),
        "named": at.strftime("%d-%b-%Y %H:%M"),
    }[w.time]
    if w.kind == "xlsx":
        return at if w.time in ("iso", "german", "us", "named") else float(written)
    return written


def hours_of(w: Ways) -> np.ndarray:
    """Times of the samples [h]."""
    steps = np.arange(N, dtype=float)
    return 24.0 * steps if w.time == "day" else 24.0 * steps + 0.25 * steps


def rows_of(run: int, w: Ways) -> tuple[list[str], list[list[object]], list[str]]:
    """Header, rows and units of one run, without its name."""
    values = clean()
    is_stamped = w.time in ("iso", "german", "us", "named")
    label = "sampled_at" if is_stamped else "time_h" if w.time == "time_h" else "day"
    names = {n: GERMAN[n] if w.german else n for n in NAMES}
    hours = hours_of(w)
    if w.long:
        rows: list[list[object]] = []
        for k in range(N):
            for n in NAMES:
                cell = number(values[n][run, k], w, n, is_limit=is_limit(n, run, k, w))
                rows.append([when(hours[k], w), names[n], cell, w.units[n]])
        return [label, "species", "value", "unit"], rows, []
    rows = []
    for k in range(N):
        cells = [number(values[n][run, k], w, n, is_limit=is_limit(n, run, k, w)) for n in NAMES]
        remark = ["Schaum, viel" if k == 2 else ""] if w.remarks else []
        if w.split and k == 1:  # the count first, the rest twelve minutes later
            first = [c if n == "VCD" else "" for n, c in zip(NAMES, cells, strict=True)]
            later = ["" if n == "VCD" else c for n, c in zip(NAMES, cells, strict=True)]
            rows.append([when(hours[k], w), *first, *remark])
            if w.time != "day":
                rows.append([when(hours[k] + 0.2, w), *later, *remark])
                continue
            rows.append([when(hours[k], w), *later, *remark])
            continue
        rows.append([when(hours[k], w), *cells, *remark])
    units = ["", *(w.units[n] for n in NAMES), *([""] if w.remarks else [])]
    header = [label, *names.values(), *(["Bemerkung"] if w.remarks else [])]
    if w.units_in == "brackets":
        told = [f"{h} [{u}]" if u else h for h, u in zip(header, units, strict=True)]
        return told, rows, []
    return header, rows, units if any(units) else []


def lines_of(runs: list[int], w: Ways, *, named: bool) -> list[list[object]]:
    """All lines of a table, its titles among them."""
    lead = [["Kampagne Frühjahr"], ["Anlage 3", "Halle B"], []][: w.titles]
    body: list[list[object]] = []
    header, units = [], []
    for run in runs:
        header, rows, units = rows_of(run, w)
        body += [[*([RUNS[run]] if named else []), *row] for row in rows]
    header = [*(["run_id"] if named else []), *header]
    units = [*([""] if named and units else []), *units]
    if w.shuffled:
        body = body[::-1]
    if w.repeated and not w.long:
        body.append(list(body[0]))
    if w.header_again:
        body.insert(len(body) // 2, list(header))
    lines = [*lead, header, *([units] if units else []), *body]
    if w.footer:
        lines.append(["Mittelwert", *[""] * (len(header) - 1)])
    return [list(line) for line in lines]


def as_text(lines: list[list[object]], w: Ways) -> bytes:
    """Lines as a text file."""
    out = io.StringIO()
    if w.separator_line:
        out.write(f"sep={w.separator}\n")
    for k, line in enumerate(lines):
        cells = [str(c) for c in line]
        cells = [f'"{c}"' if w.separator in c else c for c in cells]
        out.write(w.separator.join(cells) + (w.separator if w.trailing and cells else "") + "\n")
        if w.blank_lines and k == len(lines) // 2:
            out.write("\n")
    text = out.getvalue()
    return text.encode("cp1252", "replace") if w.encoding == "cp1252" else text.encode(w.encoding)


def written(folder: Path, w: Ways) -> tuple[list[Path], FileRules]:
    """The campaign on the disk, and what somebody would say of it."""
    apart = "files" if w.apart == "sheets" and w.kind == "csv" else w.apart
    tables = (
        {"kampagne": lines_of([0, 1], w, named=True)}
        if apart == "one"
        else {RUNS[k]: lines_of([k], w, named=False) for k in (0, 1)}
    )
    paths = []
    if w.kind == "csv":
        for name, lines in tables.items():
            paths.append(folder / f"{name}.csv")
            paths[-1].write_bytes(as_text(lines, w))
    else:
        books = [tables] if apart == "sheets" else [{n: t} for n, t in tables.items()]
        for content in books:
            book = openpyxl.Workbook(write_only=True)
            for name, lines in content.items():
                sheet = book.create_sheet(name)
                for line in lines:
                    sheet.append([None if cell == "" else cell for cell in line])
            name = "buch" if apart == "sheets" else next(iter(content))
            paths.append(folder / f"{name}.xlsx")
            book.save(paths[-1])
    is_stamped = w.time in ("iso", "german", "us", "named")
    columns = {GERMAN[n]: n for n in NAMES} | {"Bemerkung": "ignore"}
    return paths, FileRules(
        columns=columns if w.german or w.remarks else {},
        is_long=w.long,
        sheet="*" if apart == "sheets" else None,
        time_zone="UTC" if is_stamped else None,
        inoculated_at=dict.fromkeys(RUNS, START) if is_stamped else None,
        date_order="mdy" if w.time == "us" else None,
    )


def expected(w: Ways) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    return hours_of(w), clean()


def same(found: np.ndarray, wanted: np.ndarray, w: Ways, name: str) -> None:
    rounding = 1.0 / UNITS[name][w.units[name]]
    coarse = 0.5 * rounding * (1e-4 if w.units[name] != "1/mL" else 1.0) + 0.006
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=coarse if w.kind == "csv" else 1e-9)


def samples_of(path: Path, rules: FileRules, run: str) -> list[Any]:
    store = FilesystemStore(path, rules=rules, run_id=run, allow_unterminated=True)
    return asyncio.run(store.read_rows())


def helped(read: Callable[[FileRules], Any], rules: FileRules, w: Ways) -> Any:
    """What a reader finds; where it asks which mark is decimal, it is told, as its message says."""
    try:
        return read(rules)
    except DataError as error:
        if "--decimal" not in str(error):
            raise
        return read(rules.but(decimal=w.decimal))


@pytest.mark.filterwarnings("ignore:.*openpyxl.*")
@settings(max_examples=120)
@given(ways())
def test_a_spoiled_campaign_gives_its_clean_values(tmp_path_factory, w: Ways):
    folder = tmp_path_factory.mktemp("spoiled")
    paths, rules = written(folder, w)
    hours, values = expected(w)
    read = helped(lambda r: read_campaign(paths, rules=r, unknown="ignore"), rules, w)
    runs = {t.run_id: t for t in read.trajectories}
    assert sorted(runs) == sorted(RUNS)
    for k, run in enumerate(RUNS):
        np.testing.assert_allclose(runs[run].times_h, hours, atol=2e-3)
        for name in NAMES[:-1]:
            same(runs[run].get_species(name), values[name][k], w, name)
        rate = runs[run].controls[:, runs[run].control_names.index("perfusion_rate")]
        same(rate, values["perfusion_rate"][k], w, "perfusion_rate")


@pytest.mark.filterwarnings("ignore:.*openpyxl.*")
@settings(max_examples=40)
@given(ways())
def test_the_reader_of_samples_finds_the_same_values(tmp_path_factory, w: Ways):
    folder = tmp_path_factory.mktemp("spoiled")
    paths, rules = written(folder, w)
    hours, values = expected(w)
    for k, run in enumerate(RUNS):
        path = paths[min(k, len(paths) - 1)]
        sheet = run if rules.sheet else None
        own = rules.but(sheet=sheet, run=None if w.apart == "one" else run)
        records = helped(lambda r, p=path, n=run: samples_of(p, r, n), own, w)
        np.testing.assert_allclose([r.time_h for r in records], hours, atol=2e-3)
        for name in NAMES[:-1]:
            found = [r.values[name] for r in records]
            same(np.array([np.nan if v is None else v for v in found]), values[name][k], w, name)
