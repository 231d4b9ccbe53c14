"""`perfusio-jax inspect`: what was understood of a file, column by column."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from perfusio_jax._core import HOURS_PER_DAY, ConfigError, DataError, UnitError

from ..tables.file_rules import ALL_SHEETS, FileRules
from ..tables.off_days import off_days_text
from ..tables.plain_text import cutting_up_once
from ..tables.report import ColumnReport
from ..tables.vocabulary import OURS
from .cultures import check_culture
from .filesystem import FilesystemStore
from .map_writing import column_map_of
from .parts import Tables, parts_of

if TYPE_CHECKING:
    from rich.console import Console


_MANY_ROWS = 5_000
"""A file without runs that is longer than this is a log."""

_MOST_NAMED = 8
"""Columns that are named in one line."""

_TEXT_WIDTH = 14
"""Narrowest a column of texts gets."""
_WORD_WIDTH = 20
"""Longest word that is not cut in two."""


class Findings(NamedTuple):
    """What a file is good for."""

    has_samples: bool
    is_clear: bool
    """Whether besides everything was understood and nothing is odd enough to look at."""


def source(file: Path, rules: FileRules, **more: Any) -> FilesystemStore:
    """A file as a command line gives it.

    A last line without a line end is read: a file somebody hands over no longer grows.

    Args:
        file: The file.
        rules: How it is read.
        **more: Further settings of the store.

    Raises:
        ConfigError: For settings that make no sense.
    """
    return FilesystemStore(file, rules=rules, allow_unterminated=True, timeout_s=120.0, **more)


def write_column_map(tables: Tables, rules: FileRules, out: Path, console: "Console") -> FileRules:
    """Write the column map that files would be read with, and say what is a guess in it.

    Args:
        tables: The files.
        rules: What is said of them already.
        out: Where to; refused if there is something else than what is given as a map.
        console: Where to print.

    Returns:
        The rules with the map.

    Raises:
        ConfigError: If there is a file already.
        DataError: If a file cannot be read at all.
    """
    if out.exists():
        raise ConfigError(f"{out} exists; name another file, or take it away.")
    found = column_map_of(tables, rules)
    out.write_text(found.text, encoding="utf-8")
    for guess in found.guesses:
        console.print(f"guessed: {guess}", soft_wrap=True)
    n = len(found.guesses)
    console.print(
        f"column map: {out}" + (f", {n} guess(es) in it to look over" if n else ""), soft_wrap=True
    )
    return FileRules.of(out)


def inspect_tables(tables: Tables, rules: FileRules, console: "Console") -> Findings:
    """Read files, or sheets of them, and print what each of their columns was taken for.

    Args:
        tables: A file, several, or a folder of them.
        rules: How they are read.
        console: Where to print.

    Returns:
        What they are good for, all of them together.

    Raises:
        ConnectorError: If one is not there.
        DataError: If one cannot be understood at all.
        UnitError: If a unit cannot be read or does not fit its column.
    """
    rules = rules.but(names_are_free=True)
    given = [tables] if isinstance(tables, str | Path) else list(tables)
    is_one = len(given) == 1 and not Path(given[0]).is_dir() and rules.sheet != ALL_SHEETS
    if is_one:
        path = Path(given[0])
        return inspect_file(source(path, rules), rules, console)
    found = []
    refused: dict[str, str] = {}  # the first that was refused, by why
    for part in parts_of(tables, rules):
        console.print(f"--- {part.title}", soft_wrap=True)
        try:
            found.append(inspect_file(source(part.path, part.rules), part.rules, console))
        except DataError as error:
            if not part.may_be_none:
                raise
            why = str(error).removeprefix(f"{part.path}: ")  # named in the line above
            first = refused.setdefault(why, part.title)
            told = why if first == part.title else f"the reason is that of {first}"
            console.print(f"no table here: {told}", soft_wrap=True)
    return Findings(any(one.has_samples for one in found), all(one.is_clear for one in found))


def inspect_file(store: FilesystemStore, rules: FileRules, console: "Console") -> Findings:
    """Read a file and print what each of its columns was taken for.

    Args:
        store: The file with the settings it would be read with.
        rules: The same, for whoever reads it as a campaign.
        console: Where to print.

    Returns:
        What it is good for.

    Raises:
        ConnectorError: If the file is not there.
        DataError: If it cannot be understood at all.
        UnitError: If a unit cannot be read or does not fit its column.
    """
    with cutting_up_once():
        return _inspect(store, rules, console)


def _inspect(store: FilesystemStore, rules: FileRules, console: "Console") -> Findings:
    report = store.inspect()
    text = f"{store.source_path}: {report.n_rows} rows, {len(report.columns)} columns"
    if report.separator:
        text += f"; {report.separator}-separated, decimal {report.decimal}"
    console.print(text, soft_wrap=True)
    columns = (*report.columns, *report.species)
    odd: list[str] = []
    remarks: list[str] = []
    for column in columns:
        if column.doubt or column.role == "unknown" or column.n_unusable:
            odd.append(column.label)
        told = any(column.remark and column.remark in note for note in report.notes)
        if column.remark and not told:
            remarks.append(f"{column.label}: {column.remark}")
        if column.n_limits:
            remarks.append(f"{column.label}: {column.n_limits} below the limit of the assay")
        if column.n_above:
            remarks.append(f"{column.label}: {column.n_above} above the limit of the assay")
        if column.doubt:
            remarks.append(
                f"{column.label}: {column.doubt} A row of units or a column map can say which it is"
            )
    if columns:
        _print_table([_cells(column) for column in columns], console)
    notes = (f"note: {note}" for note in report.notes)
    doubts = (f"look at this: {doubt}" for doubt in report.doubts)
    for line in (*_extent(store), *remarks, *notes, *doubts):
        console.print(line, soft_wrap=True)
    if odd:
        console.print(f"look at: {', '.join(odd)}", soft_wrap=True)
    off = _off_days(store)
    for line in off:
        console.print(f"look at this: {line}", soft_wrap=True)
    refused, culture = _as_campaign(store, rules, columns)
    if culture:
        console.print(f"note: {culture}", soft_wrap=True)
    if refused:
        console.print(
            f"look at this: fit, validate and propose refuse it: {refused}", soft_wrap=True
        )
    has_samples = report.n_usable > 0
    is_clear = not (odd or off or report.doubts or report.n_conflicts or refused)
    return Findings(has_samples, has_samples and is_clear)


def _as_campaign(
    store: FilesystemStore, rules: FileRules, columns: Sequence[ColumnReport]
) -> tuple[str, str]:
    """How the commands that take a campaign read a file with runs in it.

    Returns:
        Why they refuse it, and which culture of its own they take it for; each empty if not so.
    """
    n_rows = max((column.n_values for column in columns if column.role == "time"), default=0)
    if not any(column.name == "run_id" for column in columns) and n_rows > _MANY_ROWS:
        return "", ""  # a log, which is no campaign
    try:
        process = check_culture(store.source_path, rules)
    except (DataError, UnitError) as error:
        return str(error).removeprefix(f"{store.source_path}: "), ""
    if process is None:
        return "", ""
    names = (*process.readings, *process.control_names)
    others = [name for name in names if name not in OURS.numbers]
    if not others:
        return "", ""
    more = f" and {len(others) - _MOST_NAMED} more" if len(others) > _MOST_NAMED else ""
    return "", (
        "fit, validate and propose take this for a culture of its own, with "
        f"{', '.join(others[:_MOST_NAMED])}{more}; perfusio-jax process init writes down how, and "
        "--process reads it so"
    )


def _cells(column: ColumnReport) -> list[str]:
    unit = column.canonical_unit
    if unit and column.unit and column.unit != unit:
        unit = f"{column.unit} -> {unit}"
    counts = (column.n_values, column.n_missing, column.n_unusable)
    return [
        column.label,
        f"{column.name} ({column.role})" if column.name else "nothing",
        unit,
        *(str(n) if unit else "" for n in counts),
        "" if column.span is None else "{:.5g} .. {:.5g}".format(*column.span),
    ]


def _print_table(rows: list[list[str]], console: "Console") -> None:
    """Print columns as a table: texts wrap, numbers never, or the table gets wider."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    rooms = [_room([row[k] for row in rows]) for k in range(2)] + [_TEXT_WIDTH]
    for label, room in zip(("column", "read as", "unit"), rooms, strict=True):
        table.add_column(label, overflow="fold", min_width=room if label != "unit" else None)
    for label in ("values", "missing", "bad"):
        table.add_column(label, justify="right", no_wrap=True)
    table.add_column("from .. to", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    labels = [str(column.header) for column in table.columns]
    widths = [max(map(len, cells)) for cells in zip(labels, *rows, strict=True)]
    texts = sum(min(width, room) for width, room in zip(widths, rooms, strict=False))
    needed = texts + sum(widths[3:]) + 2 * 6
    if needed > console.width:
        table.width = needed
    console.print(table, crop=False)


def _room(texts: list[str]) -> int:
    """How wide a column of texts is at least: no name of usual length is cut in two."""
    words = [len(word) for text in texts for word in text.split()]
    return max(_TEXT_WIDTH, min(max(words, default=0), _WORD_WIDTH))


def _off_days(store: FilesystemStore) -> list[str]:
    """Samples that neither a twin nor anyone else who counts by days would find."""
    found = []
    for run_id, reactor_id, times in store.runs():
        text = off_days_text(times)
        if text:
            whose = f"run {run_id}: " if run_id else f"reactor {reactor_id}: " if reactor_id else ""
            found.append(f"{whose}{text}; a daily twin would wait for it")
    return found


def _extent(store: FilesystemStore) -> list[str]:
    """Which days of which reactors there are."""
    groups = store.runs()
    lines = []
    for run_id, reactor_id, times in groups[:30]:
        names = [f"run {run_id}"] * bool(run_id) + [f"reactor {reactor_id}"] * bool(reactor_id)
        lines.append(
            f"{', '.join(names) or 'one reactor'}: {len(times)} samples from day "
            f"{times[0] / HOURS_PER_DAY:g} to {times[-1] / HOURS_PER_DAY:g}"
        )
    if len(groups) > 30:
        lines.append(f"and {len(groups) - 30} more reactors")
    return lines
