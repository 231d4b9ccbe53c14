"""Commands for files and databases of samples."""

from pathlib import Path
from typing import Annotated

import typer

from . import groups
from .common import as_data, console, writable
from .screen import say

commands = typer.Typer(rich_markup_mode=None)

ColumnMapFile = Annotated[
    Path | None, typer.Option("--map", help="TOML with a table [columns]: your names for ours.")
]
IsLong = Annotated[bool, typer.Option("--long", help="Rows of day, species, value.")]
Sheet = Annotated[str | None, typer.Option(help="Sheet of an Excel file; the first.")]
Zone = Annotated[
    str | None, typer.Option("--time-zone", help="Of stamps without one: Europe/Berlin.")
]
Began = Annotated[
    list[str] | None,
    typer.Option(
        "--inoculated-at",
        help="Start of the run, if only stamps are given; RUN=TIME for each of several.",
    ),
]
DateOrderOption = Annotated[
    str | None, typer.Option("--date-order", help="dmy or mdy, in dates with the year last.")
]
Decimal = Annotated[str | None, typer.Option(help="comma or point, where a file does not tell.")]
JoinWithin = Annotated[
    float,
    typer.Option("--join-within", help="Hours in which rows belong to one sample; 0 for none."),
]
TotalsOption = Annotated[
    str | None,
    typer.Option(
        "--totals", help="cumulative (counters, to be differenced) or increments (per sample)."
    ),
]
DatabaseURL = Annotated[
    str,
    typer.Argument(envvar="PERFUSIO_DB_URL", help="sqlite:///file.db or postgresql://user@host/db"),
]


@commands.command(rich_help_panel=groups.DATA)
def inspect(
    file: Annotated[Path, typer.Argument(help="CSV, Parquet or Excel file with samples.")],
    column_map: ColumnMapFile = None,
    is_long: IsLong = False,
    sheet: Sheet = None,
    time_zone: Zone = None,
    inoculated_at: Began = None,
    date_order: DateOrderOption = None,
    decimal: Decimal = None,
    join_within: JoinWithin = 1.0,
    totals: TotalsOption = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit 3 if anything is odd, too.")
    ] = False,
) -> None:
    """Say what is understood of a file, column by column; exit code 3 if it holds no sample."""
    from perfusio_jax.connectors.files.inspecting import inspect_file, source

    with as_data():
        store = source(
            file,
            column_map,
            is_long,
            sheet,
            time_zone,
            inoculated_at,
            decimal,
            date_order=date_order,
            join_within_h=join_within,
            totals=totals,
        )
        found = inspect_file(store, console())
    if not found.has_samples or (strict and not found.is_clear):
        raise typer.Exit(3)


db = typer.Typer(help="Databases of samples: make, bring up to date, fill, export.")
commands.add_typer(
    db,
    name="db",
    no_args_is_help=True,
    cls=groups.GroupedCommands,
    rich_help_panel=groups.DATA,
)


@db.command("upgrade")
def db_upgrade(
    url: DatabaseURL, to: Annotated[str, typer.Option(help="Migration to stop at.")] = "head"
) -> None:
    """Make the tables, or bring those there are to this version."""
    from perfusio_jax.connectors.sql.admin import upgrade_here

    say(upgrade_here(url, to))


@db.command("downgrade")
def db_downgrade(
    url: DatabaseURL,
    to: Annotated[str, typer.Argument(help="Migration to go back to, or base.")],
    drop_history: Annotated[
        bool, typer.Option("--drop-history", help="Let go of what the earlier one cannot hold.")
    ] = False,
) -> None:
    """Bring the tables back to an earlier version; refused where something would be lost."""
    from perfusio_jax.connectors.sql.admin import downgrade_here

    say(downgrade_here(url, to, drop_history=drop_history))


@db.command("status")
def db_status(url: DatabaseURL) -> None:
    """Say at which migration a database is and what it holds."""
    from perfusio_jax.connectors.sql.admin import show_status

    show_status(url, console())


@db.command("import")
def db_import(
    url: DatabaseURL,
    file: Annotated[Path, typer.Argument(help="CSV, Parquet or Excel file with samples.")],
    experiment: Annotated[str, typer.Option(help="Experiment the samples belong to.")],
    reactor: Annotated[
        str | None, typer.Option(help="Vessel; needed if the file names none.")
    ] = None,
    run_id: Annotated[str | None, typer.Option(help="Run, if the file has several.")] = None,
    correct: Annotated[
        bool, typer.Option("--correct", help="Other values replace those stored, with history.")
    ] = False,
    reason: Annotated[str | None, typer.Option(help="Why they are corrected.")] = None,
    column_map: ColumnMapFile = None,
    is_long: IsLong = False,
    sheet: Sheet = None,
    time_zone: Zone = None,
    inoculated_at: Began = None,
    date_order: DateOrderOption = None,
    decimal: Decimal = None,
    join_within: JoinWithin = 1.0,
    totals: TotalsOption = None,
) -> None:
    """Store the samples of a file; doing it again changes nothing."""
    from perfusio_jax.connectors.exchange import import_file
    from perfusio_jax.connectors.files.inspecting import source

    with as_data():
        rows = source(
            file,
            column_map,
            is_long,
            sheet,
            time_zone,
            inoculated_at,
            decimal,
            date_order=date_order,
            join_within_h=join_within,
            totals=totals,
            run_id=run_id,
        )
        for line in import_file(url, rows, experiment, reactor, correct=correct, reason=reason):
            say(line)


@db.command("export")
def db_export(
    url: DatabaseURL,
    out: Annotated[Path, typer.Argument(help="Table to write (.csv or .parquet).")],
    experiment: Annotated[str, typer.Option(help="Experiment to export.")],
    reactor: Annotated[list[str] | None, typer.Option(help="Vessels; all of them.")] = None,
) -> None:
    """Write the samples of an experiment as a table."""
    writable(out)
    from perfusio_jax.connectors.exchange import export_file

    say(export_file(url, out, experiment, reactor or []))
