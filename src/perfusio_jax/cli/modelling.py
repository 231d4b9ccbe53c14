"""Commands from data to models and forecasts."""

from pathlib import Path
from typing import Annotated, Any

import typer

from perfusio_jax._core import ConfigError
from perfusio_jax._core.text import plain_number

from . import common, groups
from .common import (
    TABLES,
    CardFile,
    Culture,
    FillDown,
    MechanismOf,
    Seed,
    as_data,
    assignments,
    card_writable,
    console,
    keeping,
    writable,
)
from .file_options import reads_files

commands = typer.Typer(rich_markup_mode=None)


@commands.command(rich_help_panel=groups.MODEL)
@reads_files
def fit(
    campaign: Annotated[list[Path], typer.Argument(help=TABLES)],
    out: Annotated[Path, typer.Option(help="Folder for the model.")] = Path("model"),
    seed: Seed = 0,
    fill_down: FillDown = False,
    process: Culture = None,
    mechanism: MechanismOf = None,
    posterior: Annotated[
        Path | None,
        typer.Option(help="Folder calibrate wrote: its mechanism, constants in the middle of it."),
    ] = None,
    *,
    rules: Any,
) -> None:
    """Fit the hybrid model to a campaign table."""
    writable(out, is_folder=True)
    common.set_up_jax()
    from perfusio_jax.service.fitting import fit_table

    with as_data():
        fit_table(
            campaign,
            out,
            seed=seed,
            fill_down=fill_down,
            culture=process,
            mechanism=mechanism,
            console=console(),
            rules=rules,
            posterior=posterior,
        )


@commands.command(rich_help_panel=groups.MODEL)
@reads_files
def validate(
    campaign: Annotated[list[Path], typer.Argument(help=TABLES)],
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("validation"),
    folds: Annotated[int, typer.Option(min=2, help="Folds; whole runs are left out.")] = 5,
    horizon: Annotated[
        int | None,
        typer.Option(
            min=1, max=28, help="Days ahead; up to 7, or by hours where samples are hours apart."
        ),
    ] = None,
    hours: Annotated[
        str, typer.Option(help="Hours ahead in place of days, as in 6,12,24,48.")
    ] = "",
    seed: Seed = 0,
    fill_down: FillDown = False,
    process: Culture = None,
    mechanism: MechanismOf = None,
    card: CardFile = None,
    *,
    rules: Any,
) -> None:
    """Leave runs out, forecast them, and write scores, figures and a model card."""
    asked = _hours(hours)
    writable(out, is_folder=True)
    card_writable(card)
    common.set_up_jax()
    from perfusio_jax.report.validation import validate_campaign

    with as_data():
        validate_campaign(
            campaign,
            out,
            n_folds=folds,
            horizon=horizon,
            hours=asked,
            seed=seed,
            console=console(),
            fill_down=fill_down,
            culture=process,
            mechanism=mechanism,
            rules=rules,
            on_card=keeping(card),
        )


def _hours(text: str) -> tuple[float, ...] | None:
    """Hours as people list them; None if there are none."""
    try:
        return tuple(plain_number(part) for part in text.split(",")) if text.strip() else None
    except ValueError:
        raise ConfigError(f"--hours {text!r} must be numbers, as in 6,12,24.") from None


@commands.command(rich_help_panel=groups.MODEL)
@reads_files
def forecast(
    model: Annotated[Path, typer.Argument(help="Folder of a fitted model.")],
    samples: Annotated[Path, typer.Argument(help="Samples of one run so far.")],
    days: Annotated[int, typer.Option(min=1, max=60, help="Days ahead [d].")] = 7,
    every: Annotated[
        float,
        typer.Option(min=0.25, max=168.0, help="Hours between rows; not of CHO perfusion [h]."),
    ] = 24.0,
    set_point: Annotated[
        list[str] | None, typer.Option("--set", help="name=value, a set-point from now on.")
    ] = None,
    reactor_id: Annotated[str | None, typer.Option(help="Vessel, if the file has several.")] = None,
    run_id: Annotated[str | None, typer.Option(help="Run, if the file has several.")] = None,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="CSV to write as well.")] = None,
    figure: Annotated[
        Path | None, typer.Option(help="Picture to write as well (.png, .svg or .pdf).")
    ] = None,
    schedule: Annotated[
        Path | None,
        typer.Option(
            "--schedule",
            help="Set-points that change from now on, as propose --profile writes them.",
        ),
    ] = None,
    posterior: Annotated[
        Path | None,
        typer.Option(help="Folder calibrate wrote: its draws for the model's constants."),
    ] = None,
    card: CardFile = None,
    *,
    rules: Any,
) -> None:
    """Forecast a run from its samples, with 80 % intervals."""
    if out is not None:
        writable(out, suffixes=(".csv",))
    if figure is not None:
        writable(figure, suffixes=(".png", ".svg", ".pdf"))
    card_writable(card)
    common.set_up_jax()
    from perfusio_jax.service.forecast import forecast_file

    changes = assignments(set_point or [])
    with as_data():
        forecast_file(
            model,
            samples,
            days=days,
            every_h=every,
            changes=changes,
            reactor_id=reactor_id,
            run_id=run_id,
            seed=seed,
            out=out,
            figure=figure,
            schedule=schedule,
            posterior=posterior,
            console=console(),
            rules=rules,
            on_card=keeping(card),
        )


@commands.command("transfer-study", rich_help_panel=groups.MODEL)
@reads_files
def transfer_study(
    campaign: Annotated[list[Path], typer.Argument(help=TABLES)],
    out: Annotated[
        Path | None,
        typer.Option(help="Where results go; the folder that was given, else transfer."),
    ] = None,
    novel: Annotated[
        str | None, typer.Option("--novel", help="The cell line that is new, by its clone_id.")
    ] = None,
    test_run: Annotated[
        list[str] | None,
        typer.Option(
            "--test-run",
            help="Run of it to forecast and not to train on, as often as needed, or a pattern as "
            "'test-*'; the last half.",
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Repeats with other novel runs.")] = 5,
    counts: Annotated[str, typer.Option(help="Numbers of novel runs, e.g. 2,4,8.")] = "",
    dim: Annotated[int, typer.Option(min=1, help="Length of the embedding vectors.")] = 3,
    own_noise: Annotated[
        bool, typer.Option(help="Signal and noise variance per species, not one for all.")
    ] = False,
    effort: Annotated[float, typer.Option(min=0.1, help="Factor on the search's length.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    fill_down: FillDown = False,
    process: Culture = None,
    write_example: Annotated[
        bool,
        typer.Option("--write-example", help="Write a simulated study in a new folder instead."),
    ] = False,
    *,
    rules: Any,
) -> None:
    """What earlier products are worth to a new one: embedding, one-hot coding and neither."""
    try:
        asked = tuple(int(part) for part in counts.split(",")) if counts.strip() else ()
    except ValueError:
        raise ConfigError(f"--counts {counts!r} must be whole numbers, as in 2,4,8.") from None
    only = campaign[0] if len(campaign) == 1 else None
    if write_example:
        if only is None:
            raise ConfigError(f"{len(campaign)} places were given; an example goes into one.")
        writable(only, is_folder=True)
        common.set_up_jax()
        from perfusio_jax.service.study_example import write_example as example

        screen = console()
        with screen.status("simulating six products"):
            table, culture = example(only, seed=seed)
        screen.print(f"example study: {table}, its culture: {culture}")
        screen.print(
            f"perfusio-jax transfer-study {table} --process {culture} --novel 'novel product' "
            "--test-run 'test-*'",
            soft_wrap=True,
        )
        return
    where = out or (only if only is not None and only.is_dir() else Path("transfer"))
    writable(where, is_folder=True)
    common.set_up_jax()
    from perfusio_jax.service.transferring import run_study

    with as_data():
        run_study(
            campaign,
            where,
            novel=novel,
            tests=test_run or (),
            culture=process,
            rules=rules,
            fill_down=fill_down,
            repeats=repeats,
            counts=asked,
            dim=dim,
            own_noise=own_noise,
            effort=effort,
            seed=seed,
            console=console(),
        )
