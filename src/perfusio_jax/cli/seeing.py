"""Commands that show what there is: figures of runs, tables and models."""

from pathlib import Path
from typing import Annotated, Any

import typer

from perfusio_jax._core import ConfigError

from . import common, groups
from .common import Culture, as_data, console, writable
from .file_options import reads_files

commands = typer.Typer(rich_markup_mode=None)


@commands.command(rich_help_panel=groups.SEEING)
@reads_files
def figures(
    what: Annotated[
        list[Path],
        typer.Argument(
            help="Run folder (or one above several), folder of a validation, or campaign tables."
        ),
    ],
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            help="Of a run: run, rates, timeline, rack; of a table: rack, rates, run, tradeoff; of "
            "a validation: skill. May repeat.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder; figures/ of the run or validation, or here.")
    ] = None,
    form: Annotated[str, typer.Option("--format", help="png, svg or pdf.")] = "png",
    trade_off: Annotated[
        str,
        typer.Option(
            "--trade-off", help="Two readings of a table, as Titer,-Amm; -: less is better."
        ),
    ] = "",
    process: Culture = None,
    *,
    rules: Any,
) -> None:
    """Draw a run, a rack, a campaign or a validation, with units and words for those who listen."""
    for place in what:
        if not place.exists():
            raise ConfigError(f"{place} does not exist.")
    if out is not None:
        writable(out, is_folder=True)
    elif len(what) == 1 and what[0].is_dir():
        writable(what[0] / "figures", is_folder=True)
    else:
        writable(Path("figures"), is_folder=True)
    common.set_up_jax()
    from perfusio_jax.report.figures import draw_figures

    with as_data():
        draw_figures(
            what,
            only=only or (),
            out=out,
            form=form,
            trade_off=trade_off,
            culture=process,
            console=console(),
            rules=rules,
        )
