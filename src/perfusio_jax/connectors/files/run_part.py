"""Which table of several holds a run: a sheet of a workbook, a file of a folder."""

from pathlib import Path

from perfusio_jax._core import DataError
from perfusio_jax.process import Process

from ..tables.file_rules import ALL_SHEETS, FileRules
from ..tables.formats import EXCEL_SUFFIXES
from .parts import Part, parts_of
from .source_file import SourceFile

_MOST_NAMED = 20
"""Runs that a message names."""


def part_of_run(
    path: Path,
    rules: FileRules,
    *,
    run_id: str | None = None,
    reactor_id: str | None = None,
    process: Process | None = None,
) -> Part:
    """The table one run is in, for whoever reads a single one.

    Args:
        path: A file, or a folder of files.
        rules: How it is read.
        run_id: The run, as its table calls it, or as its file or sheet is called.
        reactor_id: Its vessel.
        process: The culture whose names are read.

    Returns:
        The table with the rules that are its own.

    Raises:
        ConnectorError: If a file cannot be read.
        DataError: If none holds the run, or several do.
    """
    is_book = path.suffix.lower() in EXCEL_SUFFIXES and rules.sheet == ALL_SHEETS
    if not (path.is_dir() or is_book):
        own = rules.but(sheet=None) if rules.sheet == ALL_SHEETS else rules
        return Part(path, own, path.stem, "", False)
    parts = parts_of(path, rules)
    keys: list[tuple[int, str, str]] = []
    for n, part in enumerate(parts):
        source = SourceFile(part.path, part.rules, process=process, allow_unterminated=True)
        try:
            keys += [(n, run, reactor) for run, reactor in sorted(source.samples().rows.runs)]
        except DataError:
            if not part.may_be_none:
                raise
    found = [
        (n, run)
        for n, run, reactor in keys
        if run_id in (None, run) and reactor_id in (None, reactor)
    ]
    places = sorted({n for n, _ in found})
    if len(places) == 1:
        return parts[places[0]]
    names = list(dict.fromkeys(run or reactor or "(no name)" for _, run, reactor in keys))
    told = ", ".join(names[:_MOST_NAMED])
    if len(names) > _MOST_NAMED:
        told += f" and {len(names) - _MOST_NAMED} more"
    if not names:
        raise DataError(f"{path} holds no sample.")
    if not found:
        raise DataError(f"{path} does not hold that run; its runs are {told}: --run-id says which.")
    if len({run for _, run in found}) > 1:
        raise DataError(f"{path} holds several runs ({told}): --run-id says which.")
    where = ", ".join(parts[n].name for n in places)
    raise DataError(
        f"{path}: that run is in {len(places)} tables ({where}), and one is read here; put its "
        "samples into one table, or name the one to read (its file, or --sheet)."
    )
