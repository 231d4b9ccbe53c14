"""Command line: demo, simulate, fit, validate, forecast, propose, run, transfer-study and others.

Exit codes: 0 done; 1 an error nobody foresaw; 2 a wrong argument or configuration; 3 data that
cannot be used; 4 the outside world (files, locks, devices); 5 an audit trail that does not
verify; 6 a computation that failed.
"""

import contextlib
import importlib.metadata
import json
import os
import platform
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from perfusio_jax._core import (
    AuditError,
    ConfigError,
    ConnectorError,
    DataError,
    PerfusioError,
    PrecisionError,
    SimulationError,
    UnitError,
)

app = typer.Typer(
    name="perfusio-jax",
    help="Develops a perfusion cell-culture process by itself. With --debug, errors show where.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # square brackets hold units here, not markup
)

EXIT_CODES: dict[type[BaseException], int] = {
    PrecisionError: 2,
    ConfigError: 2,
    DataError: 3,
    SimulationError: 6,
    ConnectorError: 4,
    AuditError: 5,
    OSError: 4,
}


def cache_folder() -> Path:
    """Folder of compiled programs, kept between starts."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("perfusio-jax")) / "compiled"


def set_up_jax(device: str | None = None) -> None:
    """Double precision and a persistent compilation cache, for programs started here."""
    import jax

    from perfusio_jax import enable_x64

    if device:
        jax.config.update("jax_platforms", device)
    enable_x64()
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        typer.echo(f"note: no compilation cache ({error}); every start compiles.", err=True)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def _console() -> Any:
    from rich.console import Console

    return Console(highlight=False, markup=False)


Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of all random numbers.")]


def _writable(path: Path, *, is_folder: bool = False) -> None:
    """Refuse a place for results before the work rather than after it.

    Raises:
        ConfigError: If something of the other kind is there, or nothing can be written there.
    """
    if path.exists() and path.is_dir() != is_folder:
        here, wanted = ("a file", "a folder") if is_folder else ("a folder", "a file")
        raise ConfigError(f"{path} is {here}; {wanted} is to be written there. Name another.")
    place = path if path.exists() else path.parent
    while not place.exists():
        place = place.parent
    if not place.is_dir() and place != path:
        raise ConfigError(f"{path} cannot be made: {place} is a file, not a folder.")
    if not os.access(place, os.W_OK):
        raise ConfigError(f"{path} cannot be written: {place} is read-only for this user.")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Run folder.")] = Path("runs/demo"),
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="Number of repetitions.")] = 1,
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="First seed.")] = 0,
    days: Annotated[int, typer.Option(min=4, max=50, help="Days of control.")] = 14,
    target: Annotated[float | None, typer.Option(help="Target VCV [%].")] = None,
    oracle: Annotated[
        bool | None, typer.Option(help="Also run a controller that knows the plant.")
    ] = None,
) -> None:
    """Drive a virtual reactor through CSV files and report what came of it."""
    _writable(out, is_folder=True)
    set_up_jax()
    from perfusio_jax.demo.main import run_demo

    run_demo(
        out,
        seeds=range(seed, seed + seeds),
        n_days=days,
        target=target,
        with_oracle=seeds > 1 if oracle is None else oracle,
        console=_console(),
    )


@app.command()
def simulate(
    out: Annotated[Path, typer.Argument(help="Campaign table to write (.csv or .parquet).")],
    clone: Annotated[str, typer.Option(help="CloneX or CloneY.")] = "CloneX",
    days: Annotated[int, typer.Option(min=1, max=365, help="Length of each run [d].")] = 28,
    seed: Seed = 0,
    design: Annotated[
        str, typer.Option(help="wide: all six controls; published: the four of the paper.")
    ] = "wide",
    noise: Annotated[bool, typer.Option(help="Assay noise, gaps and jitter.")] = True,
) -> None:
    """Simulate the 24+3-run campaign of a virtual clone."""
    if design not in ("wide", "published"):
        raise ConfigError(f"design {design!r} is unknown; choose wide or published.")
    if out.suffix.lower() not in (".csv", ".parquet"):
        raise ConfigError(f"{out} must end in .csv or .parquet.")
    _writable(out)
    set_up_jax()
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
    )
    from perfusio_jax.simulator.plant import FACTORS, PUBLISHED_FACTORS

    factors = FACTORS if design == "wide" else PUBLISHED_FACTORS
    table = jnp.asarray(campaign_design(seed=seed, factors=factors, spread=design == "wide"))
    runs = table.shape[0]
    console = _console()
    with console.status(f"simulating {runs} runs of {days} d (compiles first)"):
        readings = simulate_campaign(
            virtual_reactor(clone),
            jnp.broadcast_to(initial_state(), (runs, 10)),
            jnp.broadcast_to(table[:, None, :], (runs, days, 6)),
            NoiseModel()
            if noise
            else NoiseModel(cv_by_species={}, default_cv=0.0, missing_prob=0.0, jitter_hours=0.0),
            key=jax.random.key(seed),
        )
        runs_out = to_trajectories(readings, clone_ids=[clone] * runs)
        out.parent.mkdir(parents=True, exist_ok=True)
        write_campaign(runs_out, out)
    console.print(f"{runs} runs of {days} d, {clone}, design {design}: {out}")


@app.command()
def fit(
    campaign: Annotated[Path, typer.Argument(help="Campaign table (.csv or .parquet).")],
    out: Annotated[Path, typer.Option(help="Folder for the model.")] = Path("model"),
    seed: Seed = 0,
) -> None:
    """Fit the hybrid model to a campaign table."""
    _writable(out, is_folder=True)
    set_up_jax()
    import jax

    from perfusio_jax.connectors import read_campaign
    from perfusio_jax.hybrid import fit_hybrid, save

    console = _console()
    with _as_data():
        table = read_campaign(campaign)
    console.print(str(table.report), soft_wrap=True)
    with console.status("fitting (the first fit on this machine compiles for a minute)"):
        model, report = fit_hybrid(table.trajectories, key=jax.random.key(seed))
    save(model, out)
    console.print(
        f"{len(table.trajectories)} runs, {report.details['rows']} intervals; "
        f"{report.optimiser} took {int(report.n_iterations)} iterations, "
        f"{'converged' if report.converged else 'then stopped at its limit'}; log evidence "
        f"{float(report.log_evidence):.1f}; condition {float(report.condition_number):.1e}"
    )
    if report.at_bounds:
        console.print("at the edge of what is sensible: " + ", ".join(report.at_bounds))
    console.print(f"model: {out}")


@app.command()
def validate(
    campaign: Annotated[Path, typer.Argument(help="Campaign table (.csv or .parquet).")],
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("validation"),
    folds: Annotated[int, typer.Option(min=2, help="Folds; whole runs are left out.")] = 5,
    horizon: Annotated[int, typer.Option(min=1, max=28, help="Days ahead.")] = 7,
    seed: Seed = 0,
) -> None:
    """Leave runs out, forecast them, and write scores, figures and a model card."""
    _writable(out, is_folder=True)
    set_up_jax()
    from perfusio_jax.report.validation import validate_campaign

    with _as_data():
        validate_campaign(
            campaign, out, n_folds=folds, horizon=horizon, seed=seed, console=_console()
        )


@app.command()
def forecast(
    model: Annotated[Path, typer.Argument(help="Folder of a fitted model.")],
    samples: Annotated[Path, typer.Argument(help="Samples of one run so far.")],
    days: Annotated[int, typer.Option(min=1, max=60, help="Days ahead [d].")] = 7,
    set_point: Annotated[
        list[str] | None, typer.Option("--set", help="name=value, a set-point from now on.")
    ] = None,
    reactor_id: Annotated[str | None, typer.Option(help="Vessel, if the file has several.")] = None,
    run_id: Annotated[str | None, typer.Option(help="Run, if the file has several.")] = None,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="CSV to write as well.")] = None,
) -> None:
    """Forecast a run from its samples, with 80 % intervals."""
    if out is not None:
        _writable(out)
    set_up_jax()
    from perfusio_jax.demo.forecasting import forecast_file

    changes = _assignments(set_point or [])
    with _as_data():
        forecast_file(
            model,
            samples,
            days=days,
            changes=changes,
            reactor_id=reactor_id,
            run_id=run_id,
            seed=seed,
            out=out,
            console=_console(),
        )


@app.command()
def propose(
    runs: Annotated[Path, typer.Argument(help="Campaign table of the runs so far.")],
    out: Annotated[Path, typer.Option(help="CSV to write.")] = Path("proposed.csv"),
    goal: Annotated[
        str, typer.Option(help="titre, vcv, front (titre and -ammonium), yield or medium.")
    ] = "titre",
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
        float, typer.Option(help="With which limits are kept on every day.")
    ] = 0.8,
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
    seed: Seed = 0,
) -> None:
    """Propose the next runs of a campaign from the runs so far, and say why."""
    _writable(out)
    set_up_jax()
    from perfusio_jax.report.proposing import Wishes, propose_file

    wishes = Wishes(
        goal=goal,
        n_runs=n_runs,
        days=days,
        target=target,
        viability=viability,
        ammonium=ammonium,
        probability=probability,
        fixed=_assignments(set_point or []),
        clone=clone,
        seed=seed,
    )
    with _as_data():
        propose_file(runs, wishes=wishes, pending=pending, space=space, out=out, console=_console())


@app.command()
def run(
    what: Annotated[Path, typer.Argument(help="twin.toml, a run folder, or a sample file.")],
    days: Annotated[int | None, typer.Option(min=1, help="Days in all [d].")] = None,
    allow_write: Annotated[
        bool | None, typer.Option("--allow-write/--advise", help="Write set-points, or not.")
    ] = None,
    patience: Annotated[
        float | None, typer.Option(min=0.0, help="How long to wait for a sample [s].")
    ] = None,
) -> None:
    """Run the twin on a folder or a file; Ctrl-C ends it, and nothing more is written."""
    set_up_jax()
    from perfusio_jax.demo.twin_run import run_twin

    run_twin(what, days=days, allow_write=allow_write, patience_s=patience, console=_console())


@app.command("transfer-study")
def transfer_study(
    folder: Annotated[Path, typer.Argument(help="Folder of runs, see docs/transfer.md.")],
    out: Annotated[Path | None, typer.Option(help="Where results go; the folder itself.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Repeats with other novel runs.")] = 5,
    counts: Annotated[str, typer.Option(help="Numbers of novel runs, e.g. 2,4,8.")] = "",
    dim: Annotated[int, typer.Option(min=1, help="Length of the embedding vectors.")] = 3,
    own_noise: Annotated[
        bool, typer.Option(help="Signal and noise variance per species, not one for all.")
    ] = True,
    effort: Annotated[float, typer.Option(min=0.1, help="Factor on the search's length.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    write_example: Annotated[
        bool, typer.Option("--write-example", help="Write a simulated study there instead.")
    ] = False,
) -> None:
    """What earlier products are worth to a new one: embedding, one-hot coding and neither."""
    try:
        asked = tuple(int(part) for part in counts.split(",")) if counts.strip() else ()
    except ValueError:
        raise ConfigError(f"--counts {counts!r} must be whole numbers, as in 2,4,8.") from None
    set_up_jax()
    from perfusio_jax.connectors.run_study import run_study, write_example_study

    if write_example:
        console = _console()
        with console.status("simulating six products"):
            write_example_study(folder, seed=seed)
        console.print(f"example study: {folder}")
        return
    run_study(
        folder,
        folder if out is None else out,
        repeats=repeats,
        counts=asked,
        dim=dim,
        own_noise=own_noise,
        effort=effort,
        seed=seed,
        console=_console(),
    )


ColumnMapFile = Annotated[
    Path | None, typer.Option("--map", help="TOML with a table [columns]: your names for ours.")
]
IsLong = Annotated[bool, typer.Option("--long", help="Rows of day, species, value.")]
Sheet = Annotated[str | None, typer.Option(help="Sheet of an Excel file; the first.")]
Zone = Annotated[
    str | None, typer.Option("--time-zone", help="Of stamps without one: Europe/Berlin.")
]
Began = Annotated[
    str | None, typer.Option("--inoculated-at", help="Start of the run, if only stamps are given.")
]
DatabaseURL = Annotated[
    str,
    typer.Argument(envvar="PERFUSIO_DB_URL", help="sqlite:///file.db or postgresql://user@host/db"),
]


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="CSV, Parquet or Excel file with samples.")],
    column_map: ColumnMapFile = None,
    is_long: IsLong = False,
    sheet: Sheet = None,
    time_zone: Zone = None,
    inoculated_at: Began = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 3 if anything is odd.")] = False,
) -> None:
    """Say what is understood of a file, column by column; exit code 3 if nothing can be used."""
    from perfusio_jax.connectors.inspecting import inspect_file, source

    with _as_data():
        store = source(file, column_map, is_long, sheet, time_zone, inoculated_at)
        is_clear = inspect_file(store, _console())
    if strict and not is_clear:
        raise typer.Exit(3)


db = typer.Typer(help="Databases of samples: make, bring up to date, fill, export.")
app.add_typer(db, name="db", no_args_is_help=True)


@db.command("upgrade")
def db_upgrade(
    url: DatabaseURL, to: Annotated[str, typer.Option(help="Migration to stop at.")] = "head"
) -> None:
    """Make the tables, or bring those there are to this version."""
    from perfusio_jax.connectors.sql_admin import upgrade_here

    typer.echo(upgrade_here(url, to))


@db.command("downgrade")
def db_downgrade(
    url: DatabaseURL,
    to: Annotated[str, typer.Argument(help="Migration to go back to, or base.")],
    drop_history: Annotated[
        bool, typer.Option("--drop-history", help="Let go of what the earlier one cannot hold.")
    ] = False,
) -> None:
    """Bring the tables back to an earlier version; refused where something would be lost."""
    from perfusio_jax.connectors.sql_admin import downgrade_here

    typer.echo(downgrade_here(url, to, drop_history=drop_history))


@db.command("status")
def db_status(url: DatabaseURL) -> None:
    """Say at which migration a database is and what it holds."""
    from perfusio_jax.connectors.sql_admin import show_status

    show_status(url, _console())


@db.command("import")
def db_import(
    url: DatabaseURL,
    file: Annotated[Path, typer.Argument(help="CSV, Parquet or Excel file with samples.")],
    experiment: Annotated[str, typer.Option(help="Experiment the samples belong to.")],
    reactor: Annotated[
        str | None, typer.Option(help="Vessel; needed if the file names none.")
    ] = None,
    run_id: Annotated[str | None, typer.Option(help="Run, if the file has several.")] = None,
    correct: Annotated[
        bool, typer.Option("--correct", help="Other values replace those stored, with history.")
    ] = False,
    reason: Annotated[str | None, typer.Option(help="Why they are corrected.")] = None,
    column_map: ColumnMapFile = None,
    is_long: IsLong = False,
    sheet: Sheet = None,
    time_zone: Zone = None,
    inoculated_at: Began = None,
) -> None:
    """Store the samples of a file; doing it again changes nothing."""
    from perfusio_jax.connectors.inspecting import source
    from perfusio_jax.connectors.sql_admin import import_file

    with _as_data():
        rows = source(file, column_map, is_long, sheet, time_zone, inoculated_at, run_id=run_id)
        for line in import_file(url, rows, experiment, reactor, correct=correct, reason=reason):
            typer.echo(line)


@db.command("export")
def db_export(
    url: DatabaseURL,
    out: Annotated[Path, typer.Argument(help="Table to write (.csv or .parquet).")],
    experiment: Annotated[str, typer.Option(help="Experiment to export.")],
    reactor: Annotated[list[str] | None, typer.Option(help="Vessels; all of them.")] = None,
) -> None:
    """Write the samples of an experiment as a table."""
    _writable(out)
    from perfusio_jax.connectors.sql_admin import export_file

    typer.echo(export_file(url, out, experiment, reactor or []))


@app.command("serve-emulator")
def serve_emulator_command(
    reactors: Annotated[int, typer.Option(min=1, max=24, help="Number of vessels.")] = 5,
    accelerate: Annotated[
        float, typer.Option(min=0.0, help="Culture time over real time; 1440: a day a minute.")
    ] = 1440.0,
    host: Annotated[str, typer.Option(help="Name or address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 4840,
    certificates: Annotated[
        Path | None,
        typer.Option(help="Folder of certificates, made if needed; without it, no security."),
    ] = None,
    clone: Annotated[
        list[str] | None, typer.Option(help="CloneX or CloneY, once per vessel or in turn.")
    ] = None,
    state: Annotated[Path | None, typer.Option(help="File that keeps the culture.")] = None,
    reset_setpoints: Annotated[
        bool, typer.Option("--reset-setpoints", help="Forget set-points on a restart.")
    ] = False,
    paused: Annotated[
        bool, typer.Option("--paused", help="Stand still until the first set-point.")
    ] = False,
    seed: Seed = 42,
) -> None:
    """Serve an emulated rack over OPC UA until Ctrl-C; user and password by environment."""
    set_up_jax()
    from perfusio_jax.connectors.opcua_serve import Serving, serve_emulator

    settings = Serving(
        reactors=reactors,
        clones=tuple(clone or ()),
        acceleration=accelerate,
        host=host,
        port=port,
        certificates=certificates,
        state=state,
        reset_setpoints=reset_setpoints,
        is_paused=paused,
        seed=seed,
    )
    serve_emulator(settings, say=lambda line: print(line, flush=True))


@app.command("opcua-certificates")
def opcua_certificates(
    folder: Annotated[Path, typer.Argument(help="Where the files go.")],
    host: Annotated[str | None, typer.Option(help="Name or address of the server.")] = None,
    days: Annotated[int, typer.Option(min=1, max=3650, help="How long they are valid [d].")] = 365,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace old ones.")] = False,
) -> None:
    """Make self-signed certificates for an OPC UA server and a client."""
    from perfusio_jax.connectors import make_certificates

    for name, pair in make_certificates(folder, host=host, days=days, overwrite=overwrite).items():
        typer.echo(f"{name}: {pair.certificate}, {pair.key} (SHA-256 {pair.fingerprint})")


RunPlace = Annotated[Path, typer.Argument(help="Run folder, or its twin.toml.")]
Actor = Annotated[str | None, typer.Option("--by", help="Your name; that of your account.")]
Vessel = Annotated[str | None, typer.Option("--reactor", help="Only this vessel.")]


@app.command()
def status(place: RunPlace) -> None:
    """Say where a run stands: days, mode, open writes, what waits for approval, alarms."""
    from perfusio_jax.twin.commands import find_runs
    from perfusio_jax.twin.commands import status as status_of

    for folder in find_runs(_run_folder(place)):
        for line in status_of(folder):
            typer.echo(str(line))


@app.command()
def approve(
    place: RunPlace,
    role: Annotated[str, typer.Option("--as", help="Role in which you approve.")],
    decision: Annotated[int | None, typer.Option(help="Its number, from status.")] = None,
    reject: Annotated[bool, typer.Option("--reject", help="Refuse it instead.")] = False,
    actor: Actor = None,
    reactor: Vessel = None,
) -> None:
    """Approve the set-points a running twin waits with, or refuse them."""
    from perfusio_jax.twin.commands import find_runs, send, waiting_decision

    place = _run_folder(place)
    if decision is None:
        folder, reactor, standing = waiting_decision(place, reactor)
        decision = standing.id
    else:
        folder, *others = find_runs(place, reactor)
        if others:
            raise ConfigError(
                f"{place} holds {1 + len(others)} runs, each with numbers of its own; name the "
                "reactor with --reactor."
            )
    kind = "reject" if reject else "approve"
    details = {"decision": decision}
    send(folder, kind, actor=_me(actor), role=role, payload=details, reactor_id=reactor)
    typer.echo(f"decision {decision}: {kind} by {_me(actor)} as {role}, for the twin to count")


@app.command()
def stop(place: RunPlace, actor: Actor = None, reactor: Vessel = None) -> None:
    """Stop a running twin: nothing more is written from within a second on."""
    from perfusio_jax.twin.commands import find_runs, is_running, send

    running = [f for f in find_runs(_run_folder(place), reactor) if is_running(f)]
    if not running:
        raise ConfigError(f"{place} is not running; there is nothing to stop.")
    for folder in running:
        for name, _ in send(folder, "stop", actor=_me(actor), reactor_id=reactor):
            typer.echo(f"{name}: asked to stop")


@app.command()
def tell(
    place: RunPlace,
    what: Annotated[
        str,
        typer.Argument(help="manual, automatic, arm, disarm, acknowledge or suppress."),
    ],
    alarm: Annotated[int | None, typer.Option(help="Number of an alarm, from status.")] = None,
    hours: Annotated[float, typer.Option(help="How long an alarm is suppressed [h].")] = 8.0,
    reason: Annotated[str, typer.Option(help="Why, for the audit trail.")] = "",
    actor: Actor = None,
    reactor: Vessel = None,
) -> None:
    """Tell a twin something: take a reactor over by hand, disarm it, acknowledge an alarm."""
    from perfusio_jax.twin.commands import find_runs, send

    allowed = ("manual", "automatic", "arm", "disarm", "acknowledge", "suppress")
    if what not in allowed:
        raise ConfigError(f"{what!r} is unknown; allowed are {', '.join(allowed)}.")
    details: dict[str, Any] = {"reason": reason} if reason else {}
    if what in ("acknowledge", "suppress"):
        if alarm is None:
            raise ConfigError(f"{what} needs --alarm, its number as status shows it.")
        details |= {"alarm": alarm, "hours": hours}
    for folder in find_runs(_run_folder(place), reactor):
        for name, _ in send(folder, what, actor=_me(actor), payload=details, reactor_id=reactor):
            typer.echo(f"{name}: {what}, for the twin to carry out")


@app.command()
def replay(
    what: Annotated[Path, typer.Argument(help="twin.toml or its folder.")], reactor: Vessel = None
) -> None:
    """Decide a whole run again from its journal; exit code 6 if a byte comes out otherwise."""
    set_up_jax()
    from perfusio_jax.demo.twin_replay import replay_run

    if not replay_run(what, reactor_id=reactor, console=_console()):
        raise typer.Exit(6)


@app.command()
def report(
    place: RunPlace,
    out: Annotated[Path | None, typer.Option(help="Markdown file; else it is printed.")] = None,
) -> None:
    """Sum a run up from its journal and audit trail: days, writes, faults met, alarms."""
    from perfusio_jax.twin.commands import find_runs
    from perfusio_jax.twin.summary import summarise

    text = "\n".join(summarise(folder) for folder in find_runs(_run_folder(place)))
    if out is None:
        typer.echo(text)
        return
    _writable(out)
    out.write_text(text, encoding="utf-8")
    typer.echo(f"report: {out}")


@app.command()
def keygen(
    path: Annotated[Path, typer.Argument(help="File of the private key; must not be there.")],
) -> None:
    """Make a key that signs audit trails; the public half goes beside it, with .pub appended."""
    from perfusio_jax.twin import generate_key

    _writable(path)
    signer = generate_key(path)
    typer.echo(f"key {signer.key_id}: {path} (private, mode 0600), {path}.pub (public)")


rl = typer.Typer(
    help="Policies that track several references, and what they are measured against.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(rl, name="rl")

RlOut = Annotated[Path, typer.Option(help="Folder; trainings found in it are resumed.")]
RlEpochs = Annotated[int | None, typer.Option(min=1, help="Most epochs; the case's own.")]
RlEpisodes = Annotated[int, typer.Option(min=2, help="Episodes per epoch.")]


def _case(number: int, what: str) -> None:
    def command(
        out: RlOut = Path("runs/rl"),
        seed: Seed = 0,
        epochs: RlEpochs = None,
        episodes: RlEpisodes = 500,
    ) -> None:
        _writable(out, is_folder=True)
        set_up_jax()
        from perfusio_jax.report.tracking import run_case

        run_case(number, out, seed=seed, epochs=epochs, episodes=episodes, console=_console())

    rl.command(f"case{number}", help=what)(command)


_case(1, "Four pairs of set-points, both returns.")
_case(2, "Two pairs of trajectories, both returns.")
_case(3, "Set-points with uncertain starts and constants.")
_case(4, "Trajectories with uncertain starts and constants.")


@rl.command()
def screen(
    out: RlOut = Path("runs/rl"),
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Seeds.")] = 1,
    epochs: Annotated[int, typer.Option(min=1, help="Most epochs.")] = 500,
    episodes: RlEpisodes = 500,
) -> None:
    """Thirteen learning schemes on four pairs of set-points, ranked."""
    _writable(out, is_folder=True)
    set_up_jax()
    from perfusio_jax.report.tracking import run_screening

    run_screening(out, seeds=seeds, epochs=epochs, episodes=episodes, console=_console())


@rl.command()
def compare(
    case: Annotated[int, typer.Option(min=1, max=4, help="Control case.")] = 3,
    out: RlOut = Path("runs/rl"),
    seed: Seed = 0,
    epochs: RlEpochs = None,
    episodes: RlEpisodes = 500,
) -> None:
    """Policies beside PID and model-predictive control on one case."""
    _writable(out, is_folder=True)
    set_up_jax()
    from perfusio_jax.report.tracking import run_comparison

    run_comparison(case, out, seed=seed, epochs=epochs, episodes=episodes, console=_console())


@app.command("verify-audit")
def verify_audit_command(
    where: Annotated[Path, typer.Argument(help="Run folder or audit.jsonl.")],
    key: Annotated[
        list[Path] | None, typer.Option(help="Public key that must have signed; may repeat.")
    ] = None,
) -> None:
    """Check an audit trail record by record; exit code 5 if it does not verify."""
    from perfusio_jax.twin import load_public_key, verify_audit

    trusted = [load_public_key(path) for path in key] if key else None
    report = verify_audit(where, trusted=trusted)
    typer.echo(str(report))
    if not report.ok:
        raise typer.Exit(5)


@app.command()
def doctor() -> None:
    """Say what this installation has: versions, devices, precision, cache, write access."""
    set_up_jax()
    import jax

    from perfusio_jax import __version__

    lines: list[tuple[str, str, bool]] = [
        ("perfusio-jax", __version__, True),
        ("Python", platform.python_version(), sys.version_info >= (3, 11)),
    ]
    for package, needs in (("jax", "0.10"), ("jaxlib", "0.10"), ("gpjax", "1.0"), ("diffrax", "")):
        found = importlib.metadata.version(package)
        lines.append((package, found, found.startswith(needs)))
    devices = ", ".join(str(d) for d in jax.devices())
    lines.append(("devices", devices, True))
    lines.append(("64-bit floats", str(bool(jax.numpy.zeros(1).dtype == "float64")), True))
    lines.append(("cores", str(os.cpu_count()), True))
    for name, folder in (("compilation cache", cache_folder()), ("working folder", Path.cwd())):
        writable = os.access(folder, os.W_OK) if folder.exists() else False
        size = sum(p.stat().st_size for p in folder.glob("*")) if name.startswith("comp") else 0
        note = f"{folder}" + (f" ({size / 1e6:.0f} MB)" if size else "")
        lines.append((name, note + ("" if writable else " is not writable"), writable))
    lines.append(("BLAS threads", os.environ.get("OPENBLAS_NUM_THREADS", "not limited"), True))
    for name, value, good in lines:
        typer.echo(f"{'ok ' if good else 'BAD'} {name:18s} {value}")
    if not all(good for _, _, good in lines):
        raise typer.Exit(2)


@contextlib.contextmanager
def _as_data() -> Iterator[None]:
    """A unit that does not fit in a table is trouble with data, not with the configuration."""
    try:
        yield
    except UnitError as error:
        raise DataError(str(error)) from error


def in_words(error: BaseException) -> str:
    """An error as one paragraph; errors of the operating system without their number."""
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror[0].lower()}{error.strerror[1:]}."
    return str(error)


def _run_folder(place: Path) -> Path:
    """The folder with a run's records, from itself or from its configuration."""
    if not place.exists():
        raise ConfigError(f"{place} does not exist.")
    if (place / "journal.sqlite").exists() or (place.is_dir() and not _toml_in(place)):
        return place
    from perfusio_jax.demo.twin_run import read_settings

    settings, base = read_settings(place)
    folder = base / str(settings["twin"].get("folder", "."))
    return folder if folder.exists() else base


def _toml_in(folder: Path) -> bool:
    return (folder / "twin.toml").exists() or (folder / "config.toml").exists()


def _me(name: str | None) -> str:
    """Who gives a command: the name given, or the account's."""
    import getpass

    return name or getpass.getuser()


def _assignments(items: list[str]) -> dict[str, float]:
    out: dict[str, float] = {}
    for item in items:
        name, sign, value = item.partition("=")
        try:
            out[name.strip()] = float(value)
        except ValueError:
            sign = ""
        if not sign:
            raise ConfigError(f"--set {item!r} is not of the form name=value.")
    return out


def exit_code(error: BaseException) -> int:
    """Exit code of an error."""
    for kind, code in EXIT_CODES.items():
        if isinstance(error, kind):
            return code
    return 1


def main(arguments: list[str] | None = None) -> None:
    """Entry point: runs a command, turns errors into one paragraph and an exit code."""
    args = list(sys.argv[1:] if arguments is None else arguments)
    is_debug = "--debug" in args
    args = [a for a in args if a != "--debug"]
    command: Callable[..., Any] = typer.main.get_command(app)
    try:
        command(args=args, prog_name="perfusio-jax", standalone_mode=True)
    except KeyboardInterrupt:
        typer.echo("stopped.", err=True)
        raise SystemExit(130) from None
    except Exception as error:
        from perfusio_jax.twin import redact

        if is_debug:
            typer.echo(redact(traceback.format_exc()), err=True)
            raise SystemExit(exit_code(error)) from None
        if isinstance(error, PerfusioError | OSError):
            text = in_words(error)
        elif isinstance(error, json.JSONDecodeError):
            text = f"a file is not valid JSON: {error}"
        else:
            text = (
                f"nobody foresaw this {type(error).__name__}: {error}. It is a fault of the "
                "program; --debug shows where."
            )
        typer.echo(f"error: {redact(text)}", err=True)
        is_json = isinstance(error, json.JSONDecodeError)
        raise SystemExit(3 if is_json else exit_code(error)) from None


if __name__ == "__main__":
    main()
