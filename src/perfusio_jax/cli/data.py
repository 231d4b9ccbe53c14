"""Commands for files and databases of samples."""

from pathlib import Path
from typing import Annotated, Any

import typer

from perfusio_jax._core import ConfigError, DataError

from . import common, groups
from .common import TABLES, Culture, FillDown, as_data, console, writable
from .file_options import reads_files
from .screen import say

commands = typer.Typer(rich_markup_mode=None)

DatabaseURL = Annotated[
    str,
    typer.Argument(envvar="PERFUSIO_DB_URL", help="sqlite:///file.db or postgresql://user@host/db"),
]


@commands.command(rich_help_panel=groups.DATA)
@reads_files
def inspect(
    file: Annotated[
        list[Path],
        typer.Argument(help="CSV, Parquet or Excel file with samples; several, or a folder."),
    ],
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit 3 if anything is odd, too.")
    ] = False,
    write_map: Annotated[
        Path | None,
        typer.Option(
            "--write-map", help="Write the column map the file would be read with, to look over."
        ),
    ] = None,
    *,
    rules: Any,
) -> None:
    """Say what is understood of a file, column by column; exit code 3 if it holds no sample."""
    if write_map is not None:
        writable(write_map, suffixes=(".toml",))
    from perfusio_jax.connectors.files.inspecting import inspect_tables, write_column_map

    screen = console()
    with as_data():
        if write_map is not None:
            rules = write_column_map(file, rules, write_map, screen)
        found = inspect_tables(file, rules, screen)
    if not found.has_samples or (strict and not found.is_clear):
        raise typer.Exit(3)


@commands.command(rich_help_panel=groups.DATA)
@reads_files
def rates(
    campaign: Annotated[list[Path], typer.Argument(help=TABLES)],
    out: Annotated[Path, typer.Option(help="CSV to write.")] = Path("rates.csv"),
    fill_down: FillDown = False,
    process: Culture = None,
    *,
    rules: Any,
) -> None:
    """Growth, specific rates, yields and cell hours per interval, with standard errors."""
    writable(out, suffixes=(".csv",))
    common.set_up_jax()
    from perfusio_jax.report.derived import rates_of_table

    with as_data():
        rates_of_table(
            campaign,
            out,
            fill_down=fill_down,
            culture=process,
            console=console(),
            rules=rules,
        )


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
@reads_files
def db_import(
    url: DatabaseURL,
    file: Annotated[Path, typer.Argument(help="CSV, Parquet or Excel file with samples.")],
    experiment: Annotated[
        str | None, typer.Option(help="Experiment the samples belong to.")
    ] = None,
    each_run: Annotated[
        bool,
        typer.Option("--each-run", help="Each run is an experiment that is called as the run."),
    ] = False,
    reactor: Annotated[
        str | None, typer.Option(help="Vessel; needed if the file names none.")
    ] = None,
    run_id: Annotated[str | None, typer.Option(help="Run, if the file has several.")] = None,
    correct: Annotated[
        bool, typer.Option("--correct", help="Other values replace those stored, with history.")
    ] = False,
    reason: Annotated[str | None, typer.Option(help="Why they are corrected.")] = None,
    process: Annotated[
        str | None, typer.Option("--process", help="Culture: a file (.toml) or a built-in name.")
    ] = None,
    *,
    rules: Any,
) -> None:
    """Store the samples of a file; doing it again changes nothing."""
    from perfusio_jax.connectors.exchange import import_file, import_runs
    from perfusio_jax.connectors.files.inspecting import source
    from perfusio_jax.connectors.files.parts import parts_of
    from perfusio_jax.process import read_process

    if (experiment is None) != each_run:
        raise ConfigError(
            "say --experiment NAME for one run, or --each-run for all runs of a file, each under "
            "its own name; one of the two."
        )
    culture = None if process is None else read_process(process)

    def stored(rows: Any, vessel: str | None, run: str | None = run_id) -> None:
        more: dict[str, Any] = {"correct": correct, "reason": reason}
        if experiment is None and run is None:
            lines = import_runs(url, rows, vessel, **more)
        else:
            lines = import_file(url, rows, experiment or run or "", vessel, **more)
        for line in lines:
            say(line)

    with as_data():
        if file.is_dir() or rules.sheet == "*":
            others, is_found = list[str](), False
            for part in parts_of(file, rules):
                rows = source(part.path, part.rules, run_id=run_id, process=culture)
                try:
                    runs = dict.fromkeys(run for run, _, _ in rows.runs())
                    whose = reactor or (None if rows.reactors() else part.run_name)
                except DataError as error:
                    if not part.may_be_none:
                        raise
                    say(f"no table here and left out: {error}")
                    continue
                if run_id is not None and run_id not in runs:
                    others += runs
                    continue
                is_found = True
                stored(rows, whose, run_id or (part.run_name if set(runs) == {""} else None))
            if run_id is not None and not is_found:
                names = ", ".join(dict.fromkeys(others)) or "not named"
                raise DataError(f"{file} has no run {run_id!r}; its runs are {names}.")
            return
        stored(source(file, rules, run_id=run_id, process=culture), reactor)


@db.command("export")
def db_export(
    url: DatabaseURL,
    out: Annotated[Path, typer.Argument(help="Table to write (.csv, .xlsx or .parquet).")],
    experiment: Annotated[
        list[str] | None, typer.Option(help="Experiments to export; all of them.")
    ] = None,
    reactor: Annotated[list[str] | None, typer.Option(help="Vessels; all of them.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write over a file that is there.")
    ] = False,
) -> None:
    """Write the samples of an experiment as a table."""
    writable(out)
    if out.exists() and not force:
        raise ConfigError(f"{out} exists; name another file, or say --force.")
    from perfusio_jax.connectors.exchange import export_file

    say(export_file(url, out, experiment or [], reactor or []))
