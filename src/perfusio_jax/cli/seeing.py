"""Commands that show what there is: figures of runs, tables and models."""

from pathlib import Path
from typing import Annotated, Any

import typer

from perfusio_jax._core import ConfigError

from . import common, groups
from .common import (
    CardFile,
    Culture,
    References,
    as_data,
    card_writable,
    console,
    keeping,
    writable,
)
from .file_options import reads_files
from .running import told_folder

commands = typer.Typer(rich_markup_mode=None)


@commands.command(rich_help_panel=groups.SEEING)
@reads_files
def figures(
    what: Annotated[
        list[Path],
        typer.Argument(
            help="Run folder (or one above several) or its twin.toml, folder of a validation, or "
            "campaign tables."
        ),
    ],
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            help="Of a run: run, rates, timeline, rack, golden; of a table: rack, rates, run, "
            "tradeoff, golden; of a validation: skill. May repeat.",
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
    reference: References = None,
    process: Culture = None,
    *,
    rules: Any,
) -> None:
    """Draw a run, a rack, a campaign or a validation, with units and words for those who listen."""
    for place in what:
        if not place.exists():
            raise ConfigError(f"{place} does not exist.")
    what = [told_folder(place) for place in what]
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
            references=tuple(reference or ()),
            culture=process,
            console=console(),
            rules=rules,
        )


@commands.command(rich_help_panel=groups.SEEING)
@reads_files
def golden(
    what: Annotated[
        list[Path],
        typer.Argument(help="Run folder (or one above several), or campaign tables."),
    ],
    reference: References = None,
    run: Annotated[
        list[str] | None,
        typer.Option("--run", help="Run to look at; all that are no reference. May repeat."),
    ] = None,
    out: Annotated[Path, typer.Option(help="CSV to write.")] = Path("golden.csv"),
    figure: Annotated[
        Path | None, typer.Option(help="Picture to write as well (.png, .svg or .pdf).")
    ] = None,
    card: CardFile = None,
    process: Culture = None,
    *,
    rules: Any,
) -> None:
    """Lay runs beside chosen ones: bands, T2 and Q with limits, and which quantity stands out."""
    for place in what:
        if not place.exists():
            raise ConfigError(f"{place} does not exist.")
    if not reference:
        raise ConfigError(
            "--reference names the runs to compare with, three at least: --reference RUN,RUN,RUN, "
            "a pattern, run folders, or a table."
        )
    writable(out, suffixes=(".csv",))
    if figure is not None:
        writable(figure, suffixes=(".png", ".svg", ".pdf"))
    card_writable(card)
    common.set_up_jax()
    from perfusio_jax.report.golden import golden_runs

    with as_data():
        golden_runs(
            what,
            tuple(reference),
            only=tuple(run or ()),
            out=out,
            figure=figure,
            culture=process,
            console=console(),
            rules=rules,
            on_card=keeping(card),
        )
