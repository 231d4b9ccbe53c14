"""The command that proposes the next runs."""

from pathlib import Path
from typing import Annotated, Any

import typer

from perfusio_jax._core import ConfigError

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


@commands.command(rich_help_panel=groups.NEXT)
@reads_files
def propose(
    runs: Annotated[list[Path], typer.Argument(help=TABLES)],
    out: Annotated[Path, typer.Option(help="CSV to write.")] = Path("proposed.csv"),
    goal: Annotated[
        str | None,
        typer.Option(
            help="titre (if not given), vcv, front (titre and -ammonium), yield or medium; 'max "
            "NAME', 'min NAME' or 'NAME=value'; of another culture arithmetic, too, over "
            "mean(NAME), integral, highest, lowest, formed, used(STREAM), cost()."
        ),
    ] = None,
    n_runs: Annotated[int, typer.Option("--runs", min=1, max=24, help="Runs to propose.")] = 8,
    days: Annotated[
        int | None, typer.Option(min=1, max=60, help="Length of a run [d]; the longest so far.")
    ] = None,
    target: Annotated[float | None, typer.Option(help="VCV target [%] of goal vcv.")] = None,
    viability: Annotated[
        float | None, typer.Option(help="Lowest viability [%]; the design space's.")
    ] = None,
    ammonium: Annotated[
        float | None, typer.Option(help="Highest ammonium [mmol/L]; no limit if not given.")
    ] = None,
    probability: Annotated[
        float | None, typer.Option(help="With which limits are kept on every day; 0.8.")
    ] = None,
    pending: Annotated[
        Path | None, typer.Option(help="Recipes running now, as this command writes them.")
    ] = None,
    set_point: Annotated[
        list[str] | None, typer.Option("--set", help="name=value, a set-point that is given.")
    ] = None,
    space: Annotated[
        Path | None, typer.Option(help="TOML with a table [design_space]; the default one.")
    ] = None,
    clone: Annotated[str | None, typer.Option(help="Clone to plan for.")] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option("--limit", help="'NAME>=value' or '<=', on every day."),
    ] = None,
    process: Culture = None,
    mechanism: MechanismOf = None,
    fill_down: FillDown = False,
    profile: Annotated[
        int | None,
        typer.Option(
            "--profile", min=0, max=12, help="Changes of each set-point within a run, at most; 0."
        ),
    ] = None,
    max_change: Annotated[
        list[str] | None,
        typer.Option("--max-change", help="name=value, the largest change at once; may repeat."),
    ] = None,
    cost: Annotated[
        list[str] | None,
        typer.Option(
            "--cost",
            help="name=price of another culture: run, day, slot, assay, medium (a litre), or a "
            "stream; turnaround_days, reactors; may repeat.",
        ),
    ] = None,
    per: Annotated[
        str, typer.Option("--per", help="cost or day: what is to be most counts per that.")
    ] = "",
    goal_file: Annotated[
        Path | None,
        typer.Option("--goal-file", help="TOML with goals, limits, [cost]; options overrule it."),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option("--without", help="A run that nothing is learned from; may repeat."),
    ] = None,
    posterior: Annotated[
        Path | None,
        typer.Option(help="Folder calibrate wrote: every path has constants of its own, drawn."),
    ] = None,
    accept_warnings: Annotated[
        bool,
        typer.Option("--accept-warnings", help="Use a posterior whatever speaks against it."),
    ] = False,
    seed: Seed = 0,
    card: CardFile = None,
    *,
    rules: Any,
) -> None:
    """Propose the next runs of a campaign from the runs so far, and say why."""
    writable(out, suffixes=(".csv",))
    card_writable(card)
    common.set_up_jax()
    from perfusio_jax.report.goal_file import GoalFile, read_goal_file
    from perfusio_jax.report.proposing import propose_file
    from perfusio_jax.report.wishes import wishes_of

    told = GoalFile() if goal_file is None else read_goal_file(goal_file)
    changes = (told.profile or 0) if profile is None else profile
    most = {**told.max_change, **assignments(max_change or [], "--max-change")}
    if most and not changes:
        raise ConfigError("--max-change is of changes within a run; --profile k allows k of them.")
    if accept_warnings and posterior is None:
        raise ConfigError("--accept-warnings is of a posterior; --posterior names its folder.")
    wishes = wishes_of(
        told,
        goal=goal,
        limits=limit or (),
        probability=probability,
        per=per or told.per,
        costs={**told.cost, **assignments(cost or [], "--cost")},
        n_runs=n_runs,
        days=days,
        target=target,
        viability=viability,
        ammonium=ammonium,
        fixed=assignments(set_point or []),
        fill_down=fill_down,
        clone=clone,
        profile=changes,
        max_change=most,
        without=tuple(without or ()),
        posterior=posterior,
        accept_warnings=accept_warnings,
        seed=seed,
    )
    with as_data():
        propose_file(
            runs,
            wishes=wishes,
            pending=pending,
            space=space,
            out=out,
            console=console(),
            culture=process,
            mechanism=mechanism,
            rules=rules,
            on_card=keeping(card),
        )
