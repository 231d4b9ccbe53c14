"""Commands for studies: what moves a run, and what runs tell of constants."""

from pathlib import Path
from typing import Annotated, Any

import typer

from perfusio_jax._core import ConfigError

from . import common, groups
from .common import (
    CardFile,
    Seed,
    as_data,
    assignments,
    card_writable,
    console,
    keeping,
    writable,
)
from .file_options import reads_files
from .modelling import TABLES, Culture, FillDown

commands = typer.Typer(rich_markup_mode=None)

_WRITTEN = (".csv", ".json")


@commands.command(rich_help_panel=groups.MODEL)
def sensitivity(
    of: Annotated[
        list[str] | None,
        typer.Option(
            "--of", help="'Titer at 14 d', 'last X', 'integral of VCD', 'min Via'; may repeat."
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
        typer.Option(help="local (derivatives), morris (which matter) or sobol (shares)."),
    ] = "local",
    process: Annotated[
        str, typer.Option("--process", help="Culture: a file (.toml) or a built-in name.")
    ] = "cho_perfusion",
    mechanism: Annotated[
        str | None,
        typer.Option("--mechanism", help="Of a described culture: monod, cho or module:Class."),
    ] = None,
    clone: Annotated[str, typer.Option(help="Of CHO perfusion: CloneX or CloneY.")] = "CloneX",
    days: Annotated[float, typer.Option(min=0.1, max=365.0, help="Length of the run [d].")] = 14.0,
    every: Annotated[
        float, typer.Option("--every", min=0.25, max=168.0, help="Hours between samples [h].")
    ] = 24.0,
    set_point: Annotated[
        list[str] | None, typer.Option("--set", help="name=value, a set-point of the run.")
    ] = None,
    between: Annotated[
        list[str] | None,
        typer.Option("--between", help="name=low:high, a range of morris and sobol; may repeat."),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(min=2, max=2**22, help="Trajectories (32), or samples of sobol (1024)."),
    ] = None,
    pairs: Annotated[bool, typer.Option("--pairs", help="Of sobol: pairs of inputs too.")] = False,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="File to write, .csv or .json.")] = None,
    card: CardFile = None,
) -> None:
    """Say what moves a run: derivatives at its set-points, or shares over whole ranges."""
    if method not in ("local", "morris", "sobol"):
        raise ConfigError(f"--method {method!r} is unknown; choose local, morris or sobol.")
    if method == "local" and (between or samples is not None):
        raise ConfigError("--between and --samples are of morris and sobol; local is at a point.")
    if pairs and method != "sobol":
        raise ConfigError("--pairs is of sobol.")
    if out is not None:
        writable(out, suffixes=_WRITTEN)
    card_writable(card)
    screen = console()
    asked = ", ".join(of or ()) or "the last sample"
    screen.print(f"{method} sensitivity of {asked}, {process}, {days:g} d", soft_wrap=True)
    ranges = _ranges(between or [])
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
    )
    tell_sensitivity(question, out=out, console=screen, on_card=keeping(card))


@commands.command(rich_help_panel=groups.MODEL)
@reads_files
def identify(
    campaign: Annotated[list[Path], typer.Argument(help=TABLES)],
    only: Annotated[
        list[str] | None, typer.Option("--only", help="A constant, others stay; may repeat.")
    ] = None,
    profile: Annotated[
        list[str] | None,
        typer.Option("--profile", help="A constant whose profile is followed; may repeat."),
    ] = None,
    prior: Annotated[bool, typer.Option("--prior/--no-prior", help="Whether priors count.")] = True,
    process: Culture = None,
    mechanism: Annotated[
        str | None,
        typer.Option("--mechanism", help="Of a described culture: monod, cho or module:Class."),
    ] = None,
    fill_down: FillDown = False,
    out: Annotated[Path | None, typer.Option(help="File to write, .csv or .json.")] = None,
    *,
    rules: Any,
) -> None:
    """Say what runs tell of a mechanism's constants, and what they leave open."""
    if out is not None:
        writable(out, suffixes=_WRITTEN)
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
            console=screen,
            rules=rules,
        )


@commands.command(rich_help_panel=groups.MODEL)
@reads_files
def calibrate(
    campaign: Annotated[list[Path], typer.Argument(help=TABLES)],
    out: Annotated[Path, typer.Option(help="Folder for the posterior.")] = Path("posterior"),
    method: Annotated[
        str, typer.Option(help="nuts (samples), svi or map (a normal law, quicker).")
    ] = "nuts",
    only: Annotated[
        list[str] | None, typer.Option("--only", help="A constant, others stay; may repeat.")
    ] = None,
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
    warmup: Annotated[int, typer.Option(min=20, help="Draws that tune a chain.")] = 200,
    draws: Annotated[int, typer.Option(min=20, help="Draws of a chain that are kept.")] = 250,
    chains: Annotated[int, typer.Option(min=2, max=64, help="Chains.")] = 4,
    target: Annotated[
        float, typer.Option(min=0.5, max=0.99, help="Share of steps taken; more: shorter.")
    ] = 0.85,
    max_depth: Annotated[int, typer.Option(min=1, max=12, help="Doublings of a path.")] = 8,
    accept_warnings: Annotated[
        bool,
        typer.Option("--accept-warnings", help="End with 0 whatever speaks against the draws."),
    ] = False,
    figure: Annotated[
        Path | None, typer.Option(help="Picture to write as well (.png, .svg or .pdf).")
    ] = None,
    process: Culture = None,
    mechanism: Annotated[
        str | None,
        typer.Option("--mechanism", help="Of a described culture: monod or module:Class."),
    ] = None,
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
    ranges = _ranges(between or [])
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


@commands.command(rich_help_panel=groups.MODEL)
@reads_files
def design(
    purpose: Annotated[str, typer.Option("--for", help="constants: what runs are to tell of.")],
    out: Annotated[Path, typer.Option(help="CSV for the schedules.")] = Path("design.csv"),
    process: Annotated[
        str, typer.Option("--process", help="Culture: a file (.toml) or a built-in name.")
    ] = "cho_perfusion",
    mechanism: Annotated[
        str | None,
        typer.Option("--mechanism", help="Of a described culture: monod or module:Class."),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="A constant, others stay; may repeat.")
    ] = None,
    runs: Annotated[int, typer.Option(min=1, max=96, help="Runs to choose.")] = 4,
    days: Annotated[float, typer.Option(min=0.1, max=365.0, help="Length of a run [d].")] = 14.0,
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
    start: Annotated[
        list[str] | None, typer.Option("--start", help="name=value, at the start of a run.")
    ] = None,
    done: Annotated[
        list[Path] | None, typer.Option("--done", help="Table of runs already there; may repeat.")
    ] = None,
    posterior: Annotated[
        Path | None, typer.Option(help="Folder calibrate wrote: its draws, not the priors'.")
    ] = None,
    seed: Seed = 0,
    *,
    rules: Any,
) -> None:
    """Choose runs and samples that tell most of a mechanism's constants."""
    if purpose != "constants":
        raise ConfigError(f"--for {purpose!r} is unknown; constants is what there is.")
    if volume is not None:
        if samples is not None:
            raise ConfigError("--samples says how many, and --volume too; give one.")
        samples = _samples_of(volume)
    writable(out, suffixes=(".csv",))
    screen = console()
    screen.print(f"runs that tell most of {process}'s constants", soft_wrap=True)
    ranges = _ranges(between or [])
    common.set_up_jax()
    from perfusio_jax.service.designing import Plans, design_runs
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
    with as_data():
        design_runs(plans, done or None, out=out, console=screen, rules=rules)


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


def _ranges(items: list[str]) -> dict[str, tuple[float, float]]:
    """Ranges by name, from `name=low:high`."""
    found = {}
    for item in items:
        name, _, text = item.partition("=")
        low, sign, high = text.partition(":")
        if not sign:
            raise ConfigError(f"--between {item!r} is not of the form name=low:high.")
        ends = assignments([f"low={low}", f"high={high}"], "--between")
        found[name.strip()] = (ends["low"], ends["high"])
    return found
