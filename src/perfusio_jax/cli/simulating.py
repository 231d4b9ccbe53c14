"""Commands that need no data: the demonstration, and simulated runs."""

from pathlib import Path
from typing import Annotated

import typer

from perfusio_jax._core import ConfigError

from . import common, groups
from .common import (
    Seed,
    console,
    writable,
)

commands = typer.Typer(rich_markup_mode=None)


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
    screen.print(f"{runs} runs of {days} d{sampled}, {clone}, {planned}: {out}", soft_wrap=True)
