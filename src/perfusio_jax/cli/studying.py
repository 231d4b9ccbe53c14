"""Commands for studies: what moves a run, and what runs tell of constants."""

from pathlib import Path
from typing import Annotated, Any

import typer

from perfusio_jax._core import ConfigError

from . import common, groups
from .common import (
    TABLES,
    CardFile,
    Culture,
    FigureFile,
    FillDown,
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
from .run_options import (
    CloneOf,
    Days,
    EveryHours,
    OnlyConstants,
    PlantMechanism,
    ProcessOf,
    SetPoints,
)

commands = typer.Typer(rich_markup_mode=None)

_WRITTEN = (".csv", ".json")


@commands.command(rich_help_panel=groups.MODEL)
def sensitivity(
    of: Annotated[
        list[str] | None,
        typer.Option(
            "--of",
            help="'Titer at 14 d', 'last X', 'integral of VCD', 'min Via', 'every X'; may repeat.",
        ),
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            "--by",
            help="A constant, a control, medium.glutamine, start.X; or constants, set-points, "
            "'every set-point', feeds, start; may repeat.",
        ),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="local (derivatives), morris (which matter), sobol (shares) or shapley (shares "
            "of inputs that depend on each other)."
        ),
    ] = "local",
    process: ProcessOf = "cho_perfusion",
    mechanism: PlantMechanism = None,
    clone: CloneOf = "CloneX",
    days: Days = 14.0,
    every: EveryHours = 24.0,
    set_point: SetPoints = None,
    between: Annotated[
        list[str] | None,
        typer.Option("--between", help="name=low:high, a range of what is not local; may repeat."),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            min=2, max=2**22, help="Trajectories (32), or samples of sobol (1024), shapley (256)."
        ),
    ] = None,
    pairs: Annotated[bool, typer.Option("--pairs", help="Of sobol: pairs of inputs too.")] = False,
    posterior: Annotated[
        Path | None, typer.Option(help="Of shapley: folder calibrate wrote, the law of constants.")
    ] = None,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="File to write, .csv or .json.")] = None,
    figure: FigureFile = None,
    card: CardFile = None,
) -> None:
    """Say what moves a run: derivatives at its set-points, or shares over whole ranges."""
    if method not in ("local", "morris", "sobol", "shapley"):
        raise ConfigError(
            f"--method {method!r} is unknown; choose local, morris or sobol, or shapley."
        )
    if method == "local" and (between or samples is not None):
        raise ConfigError(
            "--between and --samples are of morris, sobol and shapley; local is at a point."
        )
    if posterior is not None and method != "shapley":
        raise ConfigError("--posterior is of shapley; the others take inputs as independent.")
    if pairs and method != "sobol":
        raise ConfigError("--pairs is of sobol.")
    if out is not None:
        writable(out, suffixes=_WRITTEN)
    card_writable(card)
    figure_writable(figure)
    screen = console()
    asked = ", ".join(of or ()) or "the last sample"
    screen.print(f"{method} sensitivity of {asked}, {process}, {days:g} d", soft_wrap=True)
    ranges = ranges_of(between or [])
    common.set_up_jax()
    from perfusio_jax.service.sensitivity import Question, tell_sensitivity

    question = Question(
        process=process,
        mechanism=mechanism,
        clone=clone,
        days=days,
        every_h=every,
        set_points=assignments(set_point or []),
        outputs=tuple(of or ()),
        levers=tuple(by or ()) or None,
        method=method,
        ranges=ranges,
        samples=samples,
        is_second=pairs,
        seed=seed,
        posterior=posterior,
    )
    tell_sensitivity(question, out=out, console=screen, figure=figure, on_card=keeping(card))


@commands.command(rich_help_panel=groups.MODEL)
@reads_files
def identify(
    campaign: Annotated[list[Path], typer.Argument(help=TABLES)],
    only: OnlyConstants = None,
    profile: Annotated[
        list[str] | None,
        typer.Option("--profile", help="A constant whose profile is followed; may repeat."),
    ] = None,
    prior: Annotated[bool, typer.Option("--prior/--no-prior", help="Whether priors count.")] = True,
    process: Culture = None,
    mechanism: PlantMechanism = None,
    fill_down: FillDown = False,
    out: Annotated[Path | None, typer.Option(help="File to write, .csv or .json.")] = None,
    figure: FigureFile = None,
    card: CardFile = None,
    *,
    rules: Any,
) -> None:
    """Say what runs tell of a mechanism's constants, and what they leave open."""
    if out is not None:
        writable(out, suffixes=_WRITTEN)
    if figure is not None and not profile:
        raise ConfigError("--figure draws profiles; name constants by --profile.")
    figure_writable(figure)
    card_writable(card)
    screen = console()
    screen.print("what these runs tell of the mechanism's constants", soft_wrap=True)
    common.set_up_jax()
    from perfusio_jax.service.identifying import identify_table

    with as_data():
        identify_table(
            campaign,
            culture=process,
            mechanism=mechanism,
            constants=tuple(only or ()) or None,
            profiles=tuple(profile or ()),
            with_prior=prior,
            fill_down=fill_down,
            out=out,
            figure=figure,
            console=screen,
            rules=rules,
            on_card=keeping(card),
        )


@commands.command(rich_help_panel=groups.MODEL)
@reads_files
def calibrate(
    campaign: Annotated[list[Path], typer.Argument(help=TABLES)],
    out: Annotated[Path, typer.Option(help="Folder for the posterior.")] = Path("posterior"),
    method: Annotated[
        str, typer.Option(help="nuts (samples), svi or map (a normal law, quicker).")
    ] = "nuts",
    only: OnlyConstants = None,
    between: Annotated[
        list[str] | None,
        typer.Option("--between", help="name=low:high, a prior of a constant; may repeat."),
    ] = None,
    clones: Annotated[
        bool, typer.Option("--clones", help="Clones have constants of their own.")
    ] = False,
    learn_noise: Annotated[
        bool, typer.Option("--learn-noise", help="A factor on the error of each assay is learned.")
    ] = False,
    starts_known: Annotated[
        bool, typer.Option("--starts-known", help="The first sample of a run is taken for true.")
    ] = False,
    warmup: Annotated[int, typer.Option(min=20, help="Draws that tune a chain.")] = 180,
    draws: Annotated[int, typer.Option(min=20, help="Draws of a chain that are kept.")] = 250,
    chains: Annotated[int, typer.Option(min=2, max=64, help="Chains.")] = 4,
    target: Annotated[
        float, typer.Option(min=0.5, max=0.99, help="Share of steps taken; more: shorter.")
    ] = 0.85,
    max_depth: Annotated[int, typer.Option(min=1, max=12, help="Doublings of a path.")] = 8,
    accept_warnings: Annotated[
        bool,
        typer.Option(
            "--accept-warnings",
            help="End with 0 whatever speaks against the draws; decisions may rest on them.",
        ),
    ] = False,
    figure: Annotated[
        Path | None, typer.Option(help="Picture to write as well (.png, .svg or .pdf).")
    ] = None,
    process: Culture = None,
    mechanism: PlantMechanism = None,
    fill_down: FillDown = False,
    seed: Seed = 0,
    card: CardFile = None,
    *,
    rules: Any,
) -> None:
    """Find a mechanism's constants with their uncertainty; exit code 7 if it is not to be believed.

    What speaks against the draws is printed and stored with them.
    """
    if method not in ("nuts", "svi", "map"):
        raise ConfigError(f"--method {method!r} is unknown; choose nuts, svi or map.")
    writable(out, is_folder=True)
    if figure is not None:
        writable(figure, suffixes=(".png", ".svg", ".pdf"))
    card_writable(card)
    ranges = ranges_of(between or [])
    screen = console()
    screen.print(f"calibrating the mechanism's constants ({method})", soft_wrap=True)
    common.set_up_jax()
    from perfusio_jax.service.calibrating import Wish, calibrate_table
    from perfusio_jax.study import Plan

    wish = Wish(
        culture=process,
        mechanism=mechanism,
        constants=tuple(only or ()) or None,
        ranges=ranges,
        by_clone=clones,
        learn_noise=learn_noise,
        starts_known=starts_known,
        method=method,  # pyright: ignore[reportArgumentType]
        plan=Plan(warmup, draws, chains, target, max_depth),
        fill_down=fill_down,
        seed=seed,
        accept_warnings=accept_warnings,
    )
    with as_data():
        is_sound = calibrate_table(
            campaign,
            wish,
            out=out,
            figure=figure,
            console=screen,
            rules=rules,
            on_card=keeping(card),
        )
    if not is_sound and not accept_warnings:
        raise typer.Exit(7)
