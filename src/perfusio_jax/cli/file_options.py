"""Options on how files are read: the same for every command that reads one."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from .common import assignments

if TYPE_CHECKING:
    from perfusio_jax.connectors.tables.file_rules import FileRules

_PANEL: Final = "How files are read (all of it may stand in the file of --map)"


def _option(kind: Any, *names: str, text: str, **more: Any) -> Any:
    return Annotated[kind, typer.Option(*names, help=text, rich_help_panel=_PANEL, **more)]


_OPTIONS: Final[dict[str, Any]] = {
    "column_map": _option(
        Path | None,
        "--map",
        text="TOML with a table [columns], your names for ours; [reading] and [set] for the rest.",
    ),
    "is_long": _option(bool, "--long", text="Rows of day, species, value."),
    "sheet": _option(str | None, "--sheet", text="Sheet of an Excel file; the first. '*': all."),
    "header_row": _option(
        int | None, "--header-row", text="Line of the names of the columns.", min=1
    ),
    "skip_line": _option(
        list[int] | None, "--skip-line", text="Line to leave out, as often as needed.", min=1
    ),
    "skip_footer": _option(
        int, "--skip-footer", text="Filled lines at the end to leave out.", min=0
    ),
    "blocks": _option(
        str | None,
        "--blocks",
        text="vessels: tables below each other, a vessel's name above each; times: a column of "
        "times before each quantity.",
    ),
    "decimal": _option(str | None, "--decimal", text="comma or point, where a file does not tell."),
    "thousands": _option(
        str | None, "--thousands", text="comma or point, where it stands between thousands."
    ),
    "separator": _option(
        str | None, "--separator", text="Of fields: comma, semicolon, tab or bar; found out."
    ),
    "time_zone": _option(str | None, "--time-zone", text="Of stamps without one: Europe/Berlin."),
    "inoculated_at": _option(
        list[str] | None,
        "--inoculated-at",
        text="Start of the run, if only stamps are given; RUN=TIME for each of several.",
    ),
    "date_order": _option(
        str | None, "--date-order", text="dmy or mdy, in dates with the year last."
    ),
    "date_format": _option(
        str | None, "--date-format", text="Of time stamps: '%d.%m.%y %H:%M', or excel."
    ),
    "join_within": _option(
        float | None,
        "--join-within",
        text="Hours in which rows belong to one sample; 1 if not said, 0 for none.",
    ),
    "totals": _option(
        str | None,
        "--totals",
        text="cumulative (counters, to be differenced) or increments (per sample).",
    ),
    "on_conflict": _option(
        str | None,
        "--on-conflict",
        text="last: of two values for one time the later row counts; refused if not said.",
    ),
    "unknown": _option(
        str | None, "--unknown", text="ignore or refuse columns nobody knows; ignored and told."
    ),
    "negative_time": _option(
        str | None,
        "--negative-time",
        text="drop, keep or refuse rows from before the inoculation; dropped and told.",
    ),
    "missing": _option(list[str] | None, "--missing", text="A text that means: not measured."),
    "feeds": _option(
        str | None,
        "--feeds",
        text="bolus: a second row after a feed is a bolus of the first; rows if not said.",
    ),
    "set_points": _option(
        str | None,
        "--set-points",
        text="until: a row's set-points acted up to its sample; from it on if not said.",
    ),
    "sample_id": _option(
        str | None, "--sample-id", text="How sample ids are made: '{run}-D{day}'."
    ),
    "constant": _option(
        list[str] | None,
        "--constant",
        text="name=value, a column the file lacks that was the same throughout.",
    ),
}
_SILENT: Final[dict[str, Any]] = {"is_long": False, "skip_footer": 0}
"""What options say when they say nothing; else None."""


def reads_files(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options on how files are read.

    Args:
        command: A command with a keyword argument `rules`, which it is called with.

    Returns:
        The command with the options in place of that argument.
    """

    @functools.wraps(command)
    def wrapped(**values: Any) -> Any:
        said = {name: values.pop(name) for name in _OPTIONS}
        return command(**values, rules=_rules(**said))

    signature = inspect.signature(command)
    own = [p for name, p in signature.parameters.items() if name != "rules"]
    added = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=_SILENT.get(name),
            annotation=annotation,
        )
        for name, annotation in _OPTIONS.items()
    ]
    whole = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + added
    wrapped.__signature__ = signature.replace(parameters=whole)  # pyright: ignore[reportAttributeAccessIssue]
    wrapped.__annotations__ = {p.name: p.annotation for p in whole}
    return wrapped


def _rules(
    *,
    column_map: Path | None,
    skip_line: list[int] | None,
    decimal: str | None,
    inoculated_at: list[str] | None,
    join_within: float | None,
    missing: list[str] | None,
    constant: list[str] | None,
    **said: Any,
) -> "FileRules":
    from perfusio_jax.connectors.tables.file_rules import FileRules, decimal_mark
    from perfusio_jax.connectors.tables.starts import parse_starts

    return FileRules.of(
        column_map,
        skip_lines=tuple(skip_line or ()),
        decimal=decimal_mark(decimal),
        inoculated_at=parse_starts(inoculated_at),
        join_within_h=join_within,
        missing=tuple(missing or ()),
        constants=assignments(constant or [], "--constant"),
        **{name: value for name, value in said.items() if value != 0},
    )
