"""Commands that send models out in forms others read, and take theirs in."""

from pathlib import Path
from typing import Annotated, Any

import typer

from perfusio_jax._core import ConfigError

from . import common, groups
from .common import FillDown, as_data, assignments, console, writable
from .file_options import reads_files
from .run_options import CloneOf, Days, EveryHours, PlantMechanism, ProcessOf, SetPoints, Starts

commands = typer.Typer(rich_markup_mode=None)

_RUNS = (".xml", ".sbml", ".jaxprogram")


@commands.command(rich_help_panel=groups.MODEL)
@reads_files
def export(
    out: Annotated[
        Path,
        typer.Argument(
            help="SBML (.xml), a program for JAX alone (.jaxprogram), or with --data a folder for "
            "a PEtab problem."
        ),
    ],
    process: ProcessOf = "cho_perfusion",
    mechanism: PlantMechanism = None,
    clone: CloneOf = "CloneX",
    days: Days = 14.0,
    every: EveryHours = 24.0,
    set_point: SetPoints = None,
    start: Starts = None,
    schedule: Annotated[
        Path | None, typer.Option(help="Set-points that change, as `schedule` writes them.")
    ] = None,
    run: Annotated[str | None, typer.Option("--run", help="Which run of the schedule.")] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option("--data", help="Recorded runs: a PEtab problem of them; may repeat."),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="A constant that is sought; may repeat.")
    ] = None,
    free_starts: Annotated[
        bool, typer.Option("--free-starts", help="Starts of runs are sought too.")
    ] = False,
    fill_down: FillDown = False,
    *,
    rules: Any,
) -> None:
    """Write a run as SBML or as a program for JAX alone, or recorded runs as a PEtab problem."""
    if not data and (only or free_starts):
        raise ConfigError("--only and --free-starts are of a PEtab problem; name runs by --data.")
    writable(out, is_folder=bool(data), suffixes=() if data else _RUNS)
    screen = console()
    common.set_up_jax()
    from perfusio_jax.service.exchanging import Sent, export_problem, export_run

    sent = Sent(
        process=process,
        mechanism=mechanism,
        clone=clone,
        days=days,
        every_h=every,
        set_points=assignments(set_point or []),
        start=assignments(start or [], "--start"),
        schedule=schedule,
        run_id=run,
    )
    if not data:
        export_run(sent, out, screen)
        return
    with as_data():
        export_problem(
            sent,
            data,
            out,
            constants=tuple(only or ()) or None,
            free_starts=free_starts,
            fill_down=fill_down,
            console=screen,
            rules=rules,
        )


@commands.command("import", rich_help_panel=groups.MODEL)
def import_(
    source: Annotated[
        Path, typer.Argument(help="A model (SBML, .xml) or a PEtab problem (.yaml).")
    ],
    out: Annotated[Path, typer.Option(help="Folder for what is made of it.")] = Path("imported"),
    control: Annotated[
        list[str] | None,
        typer.Option("--control", help="A parameter of SBML that is a set-point; may repeat."),
    ] = None,
) -> None:
    """Make a culture and a mechanism of SBML, or of a PEtab problem with its recorded runs."""
    writable(out, is_folder=True)
    screen = console()
    common.set_up_jax()
    from perfusio_jax.service.exchanging import import_model

    import_model(source, out, controls=tuple(control or ()), console=screen)
