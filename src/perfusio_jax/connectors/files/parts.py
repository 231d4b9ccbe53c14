"""Files and sheets that are one campaign together."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from perfusio_jax._core import DataError
from perfusio_jax._core.limits import TABLE_BYTES, read_file

from ..tables.file_rules import ALL_SHEETS, FileRules
from ..tables.formats import EXCEL_SUFFIXES, EXPORT_SUFFIXES, PARQUET_SUFFIXES, TEXT_SUFFIXES
from ..tables.workbook import sheet_names

Tables = Path | str | Sequence[Path | str]
"""A file, a folder of files, or several of them."""

_SUFFIXES = TEXT_SUFFIXES | PARQUET_SUFFIXES | EXCEL_SUFFIXES | EXPORT_SUFFIXES


class Part(NamedTuple):
    """One table of a campaign."""

    path: Path
    """The file."""
    rules: FileRules
    """How it is read."""
    run_name: str
    """What its run is called where it does not say."""
    title: str
    """What it is called in messages; empty for the only one."""
    may_be_none: bool
    """Whether it may hold no table at all, as a sheet of remarks or a stray file of a folder."""

    @property
    def name(self) -> str:
        """What a person calls it: its sheet, or its file."""
        return self.path.name if self.rules.sheet is None else f"sheet '{self.rules.sheet}'"


def title_of(tables: Tables) -> str:
    """What a campaign is called: the name of its only file, or of the first and how many more."""
    paths = _listed(tables)
    return paths[0].name if len(paths) == 1 else f"{paths[0].name} and {len(paths) - 1} more"


def first_of(tables: Tables) -> Path:
    """The first file of a campaign."""
    return _listed(tables)[0]


def parts_of(tables: Tables, rules: FileRules) -> list[Part]:
    """The tables of a campaign, in order.

    Args:
        tables: Its files.
        rules: How they are read.

    Raises:
        DataError: If one is not there or is none, or a folder holds none.
    """
    paths = [path for given in _listed(tables) for path in _files_of(given)]
    of_folder = {path for given in _listed(tables) if given.is_dir() for path in _files_of(given)}
    twice = sorted({str(path) for path in paths if paths.count(path) > 1})
    if twice:
        raise DataError(f"{', '.join(twice)} is given more than once.")
    several = len(paths) > 1
    parts = []
    for path in paths:
        if path.suffix.lower() in EXCEL_SUFFIXES and rules.sheet == ALL_SHEETS:
            parts += _sheets(path, rules, several=several)
        else:
            own = rules.but(sheet=None) if rules.sheet == ALL_SHEETS else rules
            if several and own.run is None:
                own = own.but(run=path.stem)
            parts.append(
                Part(path, own, path.stem, str(path) if several else "", path in of_folder)
            )
    return parts


def _listed(tables: Tables) -> list[Path]:
    given = [tables] if isinstance(tables, str | Path) else list(tables)
    if not given:
        raise DataError("no campaign table is given; name a file.")
    return [Path(path) for path in given]


def _files_of(path: Path) -> list[Path]:
    if not path.is_dir():
        check_place(path)
        return [path]
    found = sorted(
        file
        for file in path.iterdir()
        if file.suffix.lower() in _SUFFIXES
        and not file.name.startswith((".", "~$"))
        and file.is_file()
    )
    if not found:
        raise DataError(
            f"campaign table {path} is a folder without a file that ends in "
            f"{', '.join(sorted(_SUFFIXES))}; name a file."
        )
    return found


def _sheets(path: Path, rules: FileRules, *, several: bool) -> list[Part]:
    try:
        names = sheet_names(read_file(path, most=TABLE_BYTES))
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    lead = f"{path.stem} " if several else ""
    return [
        Part(
            path,
            rules.but(sheet=name, run=f"{lead}{name}"),
            f"{lead}{name}",
            f"{path}, sheet '{name}'",
            True,
        )
        for name in names
    ]


def check_place(path: Path) -> None:
    """Refuse what is no table by its name, or is not there.

    Raises:
        DataError: If it is one of these.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise DataError(
            f"{path} has suffix '{path.suffix}'; a campaign table is one of "
            f"{', '.join(sorted(_SUFFIXES))}."
        )
    if not path.exists():
        raise DataError(f"campaign table {path} does not exist.")
