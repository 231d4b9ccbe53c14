"""Commands from data to models and proposals."""

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

MechanismOf = Annotated[
    str | None,
    typer.Option(
        "--mechanism",
        help="Of a culture that is not CHO perfusion: monod, none, cho (CHO cells in any vessel), "
        "or module:Class; the better of monod and none by default.",
    ),
]


@commands.command(rich_help_panel=groups.START)
def demo(
    out: Annotated[Path, typer.Option(help="Run folder.")] = Path("runs/demo"),
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="Number of repetitions.")] = 1,
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="First seed.")] = 0,
    days: Annotated[int, typer.Option(min=4, max=50, help="Days of control.")] = 14,
    target: Annotated[float | None, typer.Option(help="Target VCV [%].")] = None,
    oracle: Annotated[
        bool | None, typer.Option(help="Also run a controller that knows the plant.")
    ] = None,
    process: Annotated[
        str | None,
        typer.Option("--process", help="Another culture: a file (.toml) or a built-in name."),
    ] = None,
    mechanism: Annotated[
        str | None,
        typer.Option("--mechanism", help="Of that plant: monod (if not given), cho, module:Class."),
    ] = None,
    goal: Annotated[
        str | None,
        typer.Option("--goal", help="Of that culture: 'NAME = value', 'max NAME' or 'min NAME'."),
    ] = None,
    limit: Annotated[
        list[str] | None, typer.Option("--limit", help="Of that culture, as 'Via>=80'; may repeat.")
    ] = None,
    lever: Annotated[
        str | None, typer.Option("--lever", help="Control that the PI controller moves.")
    ] = None,
    every: Annotated[
        float | None,
        typer.Option("--every", min=1.0, max=24.0, help="Hours between samples [h]; 24."),
    ] = None,
) -> None:
    """Drive a virtual reactor through CSV files and report what came of it."""
    writable(out, is_folder=True)
    own = {
        "--mechanism": mechanism,
        "--goal": goal,
        "--limit": limit,
        "--lever": lever,
        "--every": every,
    }
    told = [name for name, value in own.items() if value is not None]
    if process is None and told:
        raise ConfigError(f"{', '.join(told)}: of a culture that --process names.")
    if process is not None:
        if target is not None or oracle is not None:
            raise ConfigError(
                "--target and --oracle are of the virtual clone; --goal says it here."
            )
        common.set_up_jax()
        from perfusio_jax.demo.described_main import run_described_demo

        run_described_demo(
            out,
            process,
            mechanism=mechanism,
            goal=goal,
            limits=limit or (),
            lever=lever,
            seeds=range(seed, seed + seeds),
            n_days=days,
            every_h=24.0 if every is None else every,
            console=console(),
        )
        return
    common.set_up_jax()
    from perfusio_jax.demo.main import run_demo

    run_demo(
        out,
        seeds=range(seed, seed + seeds),
        n_days=days,
        target=target,
        with_oracle=seeds > 1 if oracle is None else oracle,
        console=console(),
    )


@commands.command(rich_help_panel=groups.DATA)
def simulate(
    out: Annotated[Path, typer.Argument(help="Campaign table to write (.csv or .parquet).")],
    clone: Annotated[str, typer.Option(help="CloneX or CloneY.")] = "CloneX",
    days: Annotated[int, typer.Option(min=1, max=365, help="Length of each run [d].")] = 28,
    seed: Seed = 0,
    design: Annotated[
        str, typer.Option(help="wide: all six controls; published: the four of the paper.")
    ] = "wide",
    every: Annotated[
        float, typer.Option("--every", min=1.0, max=168.0, help="Hours between samples [h].")
    ] = 24.0,
    noise: Annotated[bool, typer.Option(help="Assay noise, gaps and jitter.")] = True,
    process: Annotated[
        str | None,
        typer.Option("--process", help="Another culture: a file (.toml) or a built-in name."),
    ] = None,
    mechanism: Annotated[
        str | None,
        typer.Option(
            "--mechanism", help="Of that culture: monod (if not given), cho, module:Class."
        ),
    ] = None,
    runs_asked: Annotated[
        int | None,
        typer.Option("--runs", min=1, max=10_000, help="Runs of that culture; 12 if not given."),
    ] = None,
    schedule: Annotated[
        Path | None,
        typer.Option(
            "--schedule", help="Set-points that change within runs, as propose --profile writes."
        ),
    ] = None,
) -> None:
    """Simulate the 24+3-run campaign of a virtual clone, or runs of any culture."""
    if schedule is not None and runs_asked is not None:
        raise ConfigError("--schedule says which runs are simulated, and --runs too; give one.")
    if process is None and (mechanism is not None or runs_asked is not None):
        raise ConfigError(
            "--mechanism and --runs are of a culture that --process names; the campaign of a "
            "virtual clone has 27 runs and a plant of its own."
        )
    if process is not None and (clone, design) != ("CloneX", "wide"):
        raise ConfigError(
            "--clone and --design are of the virtual clones; with --process the controls fill "
            "their ranges, whatever the culture."
        )
    if design not in ("wide", "published"):
        raise ConfigError(f"design {design!r} is unknown; choose wide or published.")
    if out.suffix.lower() not in (".csv", ".parquet", ".xlsx"):
        raise ConfigError(f"{out} must end in .csv, .xlsx or .parquet.")
    writable(out)
    common.set_up_jax()
    if process is not None:
        from perfusio_jax.service.simulating import simulate_table

        simulate_table(
            out,
            process,
            mechanism=mechanism,
            n_runs=runs_asked or 12,
            days=days,
            every_h=every,
            noise=noise,
            seed=seed,
            console=console(),
            schedule=schedule,
        )
        return
    import jax
    import jax.numpy as jnp

    from perfusio_jax.connectors import write_campaign
    from perfusio_jax.simulator import (
        NoiseModel,
        campaign_design,
        initial_state,
        simulate_campaign,
        to_trajectories,
        virtual_reactor,
        whole_intervals,
    )
    from perfusio_jax.simulator.plant import FACTORS, PUBLISHED_FACTORS

    ids = None
    if schedule is None:
        intervals = whole_intervals(days, every)
        factors = FACTORS if design == "wide" else PUBLISHED_FACTORS
        table = jnp.asarray(campaign_design(seed=seed, factors=factors, spread=design == "wide"))
        table = jnp.broadcast_to(table[:, None, :], (table.shape[0], intervals, 6))
        planned = f"design {design}"
    else:
        from perfusio_jax.connectors.files.schedule import on_samples, read_schedules
        from perfusio_jax.process import CHO_PERFUSION

        asked = read_schedules(schedule, CHO_PERFUSION.control_names)
        edges, table = on_samples(schedule, asked, every)
        table, days = jnp.asarray(table), round(edges[-1] / 24.0)
        ids = [one.run_id or f"RUN{k:03d}" for k, one in enumerate(asked, start=1)]
        planned = f"schedule {schedule.name}"
    runs = table.shape[0]
    screen = console()
    with screen.status(f"simulating {runs} runs of {days} d"):
        readings = simulate_campaign(
            virtual_reactor(clone),
            jnp.broadcast_to(initial_state(), (runs, 10)),
            table,
            NoiseModel()
            if noise
            else NoiseModel(cv_by_species={}, default_cv=0.0, missing_prob=0.0, jitter_hours=0.0),
            key=jax.random.key(seed),
            interval_h=every,
        )
        runs_out = to_trajectories(readings, clone_ids=[clone] * runs, run_ids=ids)
        out.parent.mkdir(parents=True, exist_ok=True)
        write_campaign(runs_out, out)
    sampled = "" if every == 24.0 else f", sampled every {every:g} h"
    screen.print(f"{runs} runs of {days} d{sampled}, {clone}, {planned}: {out}")


@commands.command(rich_help_panel=groups.MODEL)
@reads_files
def fit(
    campaign: Annotated[list[Path], typer.Argument(help=TABLES)],
    out: Annotated[Path, typer.Option(help="Folder for the model.")] = Path("model"),
    seed: Seed = 0,
    fill_down: FillDown = False,
    process: Culture = None,
    mechanism: MechanismOf = None,
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
            min=1, max=28, help="Days ahead; 7, or by hours where samples are hours apart."
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


@commands.command(rich_help_panel=groups.NEXT)
@reads_files
def propose(
    runs: Annotated[list[Path], typer.Argument(help=TABLES)],
    out: Annotated[Path, typer.Option(help="CSV to write.")] = Path("proposed.csv"),
    goal: Annotated[
        str | None,
        typer.Option(
            help="titre (if not given), vcv, front (titre and -ammonium), yield or medium; of "
            "another culture 'max NAME', 'min NAME' or 'NAME=value', or arithmetic over "
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
        list[str] | None, typer.Option("--limit", help="'NAME>=value' of another culture.")
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
    from perfusio_jax.report.proposing import Wishes, propose_file

    told = GoalFile() if goal_file is None else read_goal_file(goal_file)
    changes = (told.profile or 0) if profile is None else profile
    most = {**told.max_change, **assignments(max_change or [], "--max-change")}
    if most and not changes:
        raise ConfigError("--max-change is of changes within a run; --profile k allows k of them.")
    sure = (told.probability or 0.8) if probability is None else probability
    wishes = Wishes(
        goal=goal or ("titre" if not told.goals else told.goals[0]),
        goals=told.goals if goal is None and len(told.goals) > 1 else (),
        weights=told.weights if goal is None else None,
        is_front=told.front and goal is None,
        per=per or told.per,
        costs={**told.cost, **assignments(cost or [], "--cost")},
        n_runs=n_runs,
        days=days,
        target=target,
        viability=viability,
        ammonium=ammonium,
        probability=sure,
        fixed=assignments(set_point or []),
        fill_down=fill_down,
        clone=clone,
        limits=tuple(limit or told.limits),
        profile=changes,
        max_change=most,
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
