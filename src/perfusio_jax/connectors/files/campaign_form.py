"""Cells of any table made those of a campaign table: a row per sample, a column per quantity.

Names become ours, rows of `species, value` become columns, time stamps become hours, rows of one
sample become one. What is done is told; what cannot be done is refused with its line.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from perfusio_jax._core import DataError
from perfusio_jax._core.text import in_line

from ..tables.body import QUALITIES
from ..tables.column_map import meaning_of
from ..tables.column_units import is_units_row
from ..tables.columns import IS_LONG
from ..tables.file_rules import FileRules
from ..tables.labels import TIMES
from ..tables.raw import RawTable, leave_out_footer
from ..tables.settling import some
from ..tables.suggestions import refuse_second_header
from ..tables.vocabulary import Vocabulary
from .campaign_joins import join_samples
from .campaign_pivot import KEYS, widened
from .campaign_times import count_hours, name_runs
from .campaign_work import Work
from .feed_pairs import feed_pairs_to_boluses
from .opening import Opened

_HELPERS: Final = ("sample_id", "sampled_at", "time_of_day", "inoculated_at")
"""Columns that have done their work once rows have a run and a time."""


def as_campaign(
    opened: Opened, rules: FileRules, words: Vocabulary, run_name: str, *, is_open: bool = False
) -> tuple[RawTable, list[str]]:
    """Bring cells into the form of a campaign table.

    Args:
        opened: The cells; changed in place.
        rules: How they are read.
        words: Names and units of columns.
        run_name: What a run is called where the table holds one and does not say.
        is_open: Whether the culture is yet to be read off the table.

    Returns:
        The table under canonical names, and a sentence for everything that was done.

    Raises:
        DataError: If a row has no time, a value is there twice, or a column is a problem.
    """
    work = Work(opened.table, words, [])
    used = _rename(work, opened)
    times = [n for n, name in enumerate(work.table.header) if name in ("sampled_at", *TIMES)]
    leave_out_footer(work.table, times)
    _take_units_row(work)
    if not work.table.n_rows:
        return work.table, work.told
    _apply_quality(work)
    work.table.columns()  # what stands there many times is looked at once
    header = set(work.table.header)
    if not rules.is_long and {"species", "value"} <= header and not header & {*words.numbers}:
        raise DataError(IS_LONG)
    if rules.is_long:
        work = widened(work, opened.column_map, used)
    count_hours(work, opened, rules)
    name_runs(work, run_name)
    if rules.feeds == "bolus":
        feed_pairs_to_boluses(work, is_open=is_open)
    join_samples(work, rules)
    _drop(work, _HELPERS)
    return work.table, work.told


def _rename(work: Work, opened: Opened) -> set[str | None]:
    """Give columns our names, leave out those to be ignored; entries of the map that meant one."""
    table = work.table
    used: set[str | None] = set()
    ignored = []
    for n, label in enumerate(table.header):
        name, unit, entry = meaning_of(label, opened.column_map, work.words)
        used.add(entry)
        if told := opened.column_map.overruled(label):
            work.told.append(told)
        if name == "ignore":
            ignored.append(n)
            table.units.pop(label, None)
        elif name and (entry is not None or name not in work.words.latent):
            table.header[n] = name
            in_file = table.units.pop(label, "")
            if unit or in_file:
                table.units[name] = unit or in_file
    known = [name for name in table.header if name in (*KEYS, *work.words.numbers)]
    for name in known:
        if known.count(name) > 1:
            raise DataError(f"column {name} occurs more than once; keep one of them.")
    _drop_at(work, ignored)
    unused = [f"'{label}'" for label in opened.column_map.names if label not in used]
    if not work.table.header or "species" not in work.table.header:
        work.told.extend(some("entries of the column map that are not in the table", unused))
    return used


def _take_units_row(work: Work) -> None:
    """Units of a row below the header."""
    table = work.table
    numeric = [n for n, name in enumerate(table.header) if work.words.is_numeric(name)]
    cells = table.row(0) if table.n_rows else []
    if not cells or not is_units_row([cells[n] for n in numeric], table.decimal):
        return
    line = table.lines[0]
    table.take(np.arange(1, table.n_rows))
    texts = {n: str(cells[n] or "").strip().strip("[]()").strip() for n in numeric}
    stated = [(table.header[n], text) for n, text in texts.items() if text]
    refuse_second_header(line, [s for s in stated if s[0] != "value"], work.words)
    for name, text in stated:
        if table.units.get(name, text) != text:
            raise DataError(
                f"column '{name}' is in '{table.units[name]}' by its header and in '{text}' by "
                "the units row; correct one of them."
            )
        table.units[name] = text


def _apply_quality(work: Work) -> None:
    """Empty what is marked bad; the marks have then done their work."""
    header = work.table.header
    marks = {name: n for n, name in enumerate(header) if name.endswith("_quality")}
    whole = work.at("quality")
    if not marks and whole is None:
        return
    measured = (*work.words.numbers, "value")
    bad: dict[str, int] = {}
    for row, line in zip(work.table.rows, work.table.lines, strict=True):
        for label, n in [*marks.items(), *([("quality", whole)] if whole is not None else [])]:
            text = "" if row[n] is None else str(row[n]).strip().casefold()
            if not text:
                continue
            if text not in QUALITIES:
                raise DataError(
                    f"{label} is {in_line(text)} in line {line}; allowed are "
                    f"{', '.join(QUALITIES)}."
                )
            if text != "bad":
                continue
            names = [label.removesuffix("_quality")] if label != "quality" else measured
            for k in (header.index(name) for name in names if name in header):
                if row[k] is not None and str(row[k]).strip():
                    row[k] = None
                    bad[header[k]] = bad.get(header[k], 0) + 1
    work.told.extend(
        [f"{n} value(s) of {name} are marked bad and left out" for name, n in bad.items()]
    )
    _drop(work, [*marks, "quality"])


def _drop(work: Work, names: Sequence[str]) -> None:
    _drop_at(work, [n for n, name in enumerate(work.table.header) if name in names])


def _drop_at(work: Work, columns: Sequence[int]) -> None:
    gone = set(columns)
    if gone:
        work.table.take_columns([n for n in range(len(work.table.header)) if n not in gone])
