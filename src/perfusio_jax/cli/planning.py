"""Commands that plan runs by a mechanism: what tells most of it, what gives most."""

from pathlib import Path
from typing import Annotated, Any

import typer

from perfusio_jax._core import ConfigError

from . import common, groups
from .common import (
    CardFile,
    FigureFile,
    Seed,
    as_data,
    assignments,
    card_writable,
    console,
    figure_writable,
    keeping,
    ranges_of,
    writable,
)
from .file_options import reads_files
from .run_options import CloneOf, Days, OnlyConstants, PlantMechanism, ProcessOf, Starts

commands = typer.Typer(rich_markup_mode=None)


@commands.command(rich_help_panel=groups.MODEL)
@reads_files
def design(
    purpose: Annotated[
        str,
        typer.Option("--for", help="What runs are to tell: constants, or of two mechanisms."),
    ],
    out: Annotated[Path, typer.Option(help="CSV for the schedules.")] = Path("design.csv"),
    process: ProcessOf = "cho_perfusion",
    mechanism: PlantMechanism = None,
    against: Annotated[
        str | None,
        typer.Option("--against", help="For mechanisms: the other one; monod, cho, module:Class."),
    ] = None,
    only: OnlyConstants = None,
    runs: Annotated[int, typer.Option(min=1, max=96, help="Runs to choose.")] = 4,
    days: Days = 14.0,
    every: Annotated[
        float, typer.Option("--every", min=0.25, max=168.0, help="Hours between possible samples.")
    ] = 24.0,
    changes: Annotated[
        int, typer.Option(min=0, max=12, help="Changes of each set-point within a run.")
    ] = 1,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Samples of a run beside the first; all.")
    ] = None,
    volume: Annotated[
        str | None,
        typer.Option(
            "--volume", help="budget/sample in one unit, as 60/10: what a run may give, and takes."
        ),
    ] = None,
    criterion: Annotated[str, typer.Option(help="D, A, E or modified-E.")] = "D",
    candidates: Annotated[int, typer.Option(min=1, max=65536, help="Schedules looked at.")] = 128,
    draws: Annotated[int, typer.Option(min=1, max=64, help="Draws of the priors.")] = 4,
    between: Annotated[
        list[str] | None,
        typer.Option("--between", help="name=low:high, a range of a set-point; may repeat."),
    ] = None,
    start: Starts = None,
    done: Annotated[
        list[Path] | None, typer.Option("--done", help="Table of runs already there; may repeat.")
    ] = None,
    posterior: Annotated[
        Path | None, typer.Option(help="Folder calibrate wrote: its draws, not the priors'.")
    ] = None,
    seed: Seed = 0,
    figure: FigureFile = None,
    card: CardFile = None,
    *,
    rules: Any,
) -> None:
    """Choose runs that tell most of a mechanism's constants, or tell two mechanisms apart."""
    if purpose not in ("constants", "mechanisms"):
        raise ConfigError(
            f"--for {purpose!r} is unknown; constants is what there is, and mechanisms."
        )
    is_between = purpose == "mechanisms"
    if is_between != (against is not None):
        raise ConfigError(
            "--for mechanisms tells --mechanism and --against apart; give both, or neither."
        )
    given = [
        name
        for name, value in (
            *(("--only", only), ("--samples", samples), ("--volume", volume), ("--done", done)),
            ("--posterior", posterior),
        )
        if value
    ]
    if is_between and given:
        raise ConfigError(f"{', '.join(given)}: of runs for constants, not for mechanisms.")
    if volume is not None:
        if samples is not None:
            raise ConfigError("--samples says how many, and --volume too; give one.")
        samples = _samples_of(volume)
    writable(out, suffixes=(".csv",))
    figure_writable(figure)
    card_writable(card)
    screen = console()
    what = "two mechanisms apart" if is_between else f"most of {process}'s constants"
    screen.print(f"runs that tell {what}", soft_wrap=True)
    ranges = ranges_of(between or [])
    common.set_up_jax()
    from perfusio_jax.service.designing import Plans, design_runs, tell_apart
    from perfusio_jax.study import Wanted

    plans = Plans(
        process=process,
        mechanism=mechanism,
        days=days,
        every_h=every,
        start=assignments(start or [], "--start"),
        constants=tuple(only or ()) or None,
        ranges=ranges,
        wanted=Wanted(runs, changes, samples, criterion, candidates, draws),  # pyright: ignore[reportArgumentType]
        posterior=posterior,
        seed=seed,
    )
    if against is not None:
        tell_apart(plans, against, out=out, console=screen, figure=figure, on_card=keeping(card))
        return
    with as_data():
        design_runs(
            plans,
            done or None,
            out=out,
            console=screen,
            rules=rules,
            figure=figure,
            on_card=keeping(card),
        )


@commands.command(rich_help_panel=groups.MODEL)
def schedule(
    objective: Annotated[
        str,
        typer.Option(
            "--maximise", help="'last Titer', 'amount of P', 'integral of VCD', 'X at 36 h'."
        ),
    ],
    out: Annotated[Path, typer.Option(help="CSV for the schedule.")] = Path("schedule.csv"),
    process: ProcessOf = "cho_perfusion",
    mechanism: PlantMechanism = None,
    clone: CloneOf = "CloneX",
    days: Days = 14.0,
    every: Annotated[
        float, typer.Option("--every", min=0.25, max=168.0, help="Length of an interval [h].")
    ] = 24.0,
    pieces: Annotated[
        int | None,
        typer.Option(min=1, help="Pieces with set-points of their own; one for every interval."),
    ] = None,
    by: Annotated[
        list[str] | None, typer.Option("--by", help="A control to choose, others stay; may repeat.")
    ] = None,
    set_point: Annotated[
        list[str] | None, typer.Option("--set", help="name=value, where a control stands.")
    ] = None,
    between: Annotated[
        list[str] | None,
        typer.Option("--between", help="name=low:high, a range of a control; may repeat."),
    ] = None,
    step: Annotated[
        list[str] | None,
        typer.Option("--step", help="name=value, most it changes from piece to piece."),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option("--limit", help="'Via >= 80', 'last volume_L <= 2'; may repeat."),
    ] = None,
    start: Starts = None,
    minimise: Annotated[
        bool, typer.Option("--minimise", help="Seek the least of it instead.")
    ] = False,
    posterior: Annotated[
        Path | None, typer.Option(help="Folder calibrate wrote: judged over its draws.")
    ] = None,
    chance: Annotated[
        float, typer.Option(min=0.5, max=0.999, help="With which limits hold over the draws.")
    ] = 0.9,
    accept_warnings: Annotated[
        bool, typer.Option("--accept-warnings", help="End well though a limit is not kept.")
    ] = False,
    seed: Seed = 0,
    figure: FigureFile = None,
    card: CardFile = None,
) -> None:
    """Find the set-points and feeds of a whole run that give most, under limits."""
    writable(out, suffixes=(".csv",))
    figure_writable(figure)
    card_writable(card)
    screen = console()
    screen.print(f"the best schedule for {objective}, {process}, {days:g} d", soft_wrap=True)
    ranges, steps = ranges_of(between or []), assignments(step or [], "--step")
    common.set_up_jax()
    from perfusio_jax.service.scheduling import Wish, tell_schedule

    wish = Wish(
        objective=objective,
        least=minimise,
        process=process,
        mechanism=mechanism,
        clone=clone,
        days=days,
        every_h=every,
        pieces=pieces,
        controls=tuple(by or ()) or None,
        set_points=assignments(set_point or []),
        ranges=ranges,
        steps=steps,
        limits=tuple(limit or ()),
        start=assignments(start or [], "--start"),
        posterior=posterior,
        chance=chance,
        seed=seed,
    )
    with as_data():
        is_kept = tell_schedule(wish, out=out, console=screen, figure=figure, on_card=keeping(card))
    if not is_kept and not accept_warnings:
        raise typer.Exit(7)


def _samples_of(text: str) -> int:
    """How many samples a volume gives, from `budget/sample`."""
    budget, sign, one = text.partition("/")
    ends = assignments([f"budget={budget}", f"sample={one}"], "--volume") if sign else {}
    if not sign or not ends["sample"] > 0.0 or ends["budget"] < ends["sample"]:
        raise ConfigError(
            f"--volume {text!r}: it reads like 60/10, what a run may give and what a sample takes, "
            "the first no smaller than the second."
        )
    # the first sample is taken anyway
    return max(1, int(ends["budget"] / ends["sample"] + 1e-9) - 1)
