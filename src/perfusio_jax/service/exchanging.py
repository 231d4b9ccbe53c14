"""`perfusio-jax export` and `import`: models, problems and runs in forms that others read."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from perfusio_jax._core import HOURS_PER_DAY, ConfigError
from perfusio_jax.connectors import completed, read_culture, write_described
from perfusio_jax.connectors.files.mechanisms import SBML_SUFFIXES
from perfusio_jax.connectors.files.parts import Tables
from perfusio_jax.connectors.files.schedule import (
    on_samples,
    one_schedule,
    read_schedules,
    schedule_of,
    write_schedules,
)
from perfusio_jax.connectors.tables.file_rules import FileRules
from perfusio_jax.exchange import (
    ReadModel,
    is_sound,
    rate_model,
    read_petab,
    read_sbml,
    save_run,
    write_petab,
    write_sbml,
)
from perfusio_jax.process import Process, read_process
from perfusio_jax.simulator import virtual_plant
from perfusio_jax.study import Experiment, choose_levers, described_experiment

from .asked_run import run_of, sample_hours
from .identifying import plant_of

PROGRAM_SUFFIX: Final = ".jaxprogram"
CULTURE, MECHANISM, CAMPAIGN, SCHEDULE = (
    "process.toml",
    "mechanism.xml",
    "campaign.csv",
    "schedule.csv",
)
_A_DAY: Final = np.array([0.0, HOURS_PER_DAY])
_PROBLEM_SUFFIXES: Final = (".yaml", ".yml")


class Sent(NamedTuple):
    """What is to go out, as the command line has it."""

    process: str
    """A built-in name, or a file that ends in .toml."""
    mechanism: str | None
    """`monod`, `module:Class` or a file of SBML; the culture's own, or `monod`, if None."""
    clone: str
    """Virtual clone of CHO perfusion."""
    days: float
    """Length of the run [d]."""
    every_h: float
    """Hours between samples [h]."""
    set_points: Mapping[str, float]
    """By name."""
    start: Mapping[str, float]
    """What the run starts with, by name."""
    schedule: Path | None
    """Table of set-points that change; the length is then its own."""
    run_id: str | None
    """Which run of the schedule."""


def export_run(sent: Sent, out: Path, console: Any) -> None:
    """Write a run as SBML, or as a program, by the ending of the file.

    Args:
        sent: What goes out.
        out: `.xml` or `.sbml`; `.jaxprogram`.
        console: Where to print.

    Raises:
        ConfigError: If a name is unknown, or the mechanism uses what cannot be written down.
    """
    run = _run(sent)
    if out.suffix.lower() == PROGRAM_SUFFIX:
        levers = choose_levers(run, ("constants", "set-points"))
        with console.status("compiling"):
            save_run(run, levers, out)
        console.print(
            f"program of {len(levers)} levers, {len(run.columns)} columns, {run.hours.size} "
            f"samples: {out}",
            soft_wrap=True,
        )
        return
    model = rate_model(run)
    write_sbml(model, out)
    jumps = sum(not c.is_constant for c in model.steered)
    console.print(
        f"SBML of {len(model.held)} states, {len(model.constants)} constants, "
        f"{len(model.steered)} controls ({jumps} that change): {out}",
        soft_wrap=True,
    )


def export_problem(
    sent: Sent,
    campaign: Tables,
    folder: Path,
    *,
    constants: Sequence[str] | None,
    free_starts: bool,
    fill_down: bool,
    console: Any,
    rules: FileRules | None = None,
) -> None:
    """Write a problem of calibration as PEtab.

    Args:
        sent: The culture and its mechanism.
        campaign: Recorded runs.
        folder: Where its files go.
        constants: What is sought; all that have a prior if None.
        free_starts: Whether starts are sought too.
        fill_down: Whether a blank set-point means that the one before it stayed.
        console: Where to print.
        rules: How the campaign is read.
    """
    table = read_culture(campaign, sent.process, rules)
    runs = completed(table, fill_down=fill_down, console=console)
    plant = plant_of(table.process, sent.mechanism, clone=sent.clone)
    found = write_petab(plant, runs, folder, constants=constants, free_starts=free_starts)
    for line in found.remarks:
        console.print(line, soft_wrap=True)
    if not is_sound(found.problem):
        raise ConfigError(f"PEtab's own checks find {found.problem} wrong; see what they say.")
    console.print(
        f"PEtab: {len(runs)} runs, {found.n_measurements} measurements, {found.n_parameters} "
        f"parameters: {found.problem}",
        soft_wrap=True,
    )


def import_model(path: Path, folder: Path, *, controls: Sequence[str], console: Any) -> None:
    """Make a culture and its mechanism of SBML or of a PEtab problem.

    Args:
        path: `.xml` or `.sbml`; `.yaml` of a problem.
        folder: Where `process.toml`, `mechanism.xml`, and `campaign.csv` or `schedule.csv` go.
        controls: Parameters of SBML that are set-points here.
        console: Where to print.

    Raises:
        ConfigError: If the ending is another one.
        DataError: If there is something that cannot be taken; it is named.
    """
    suffix = path.suffix.lower()
    runs, sought = (), ()
    if suffix in SBML_SUFFIXES:
        model = read_sbml(path, controls=controls)
        remarks = model.remarks
    elif suffix in _PROBLEM_SUFFIXES:
        if controls:
            raise ConfigError("--control is of SBML; conditions of a problem say what is set.")
        problem = read_petab(path)
        model, runs, sought = problem.model, problem.runs, problem.sought
        remarks = problem.remarks
    else:
        raise ConfigError(
            f"{path} ends in '{path.suffix}'; {', '.join((*SBML_SUFFIXES, *_PROBLEM_SUFFIXES))} "
            "are read."
        )
    process = model.process
    plant = virtual_plant(process, model.mechanism)
    folder.mkdir(parents=True, exist_ok=True)
    process.to_toml(folder / CULTURE)
    run = described_experiment(
        plant,
        _A_DAY,
        start=model.start,
        volume_L=model.volume_L + model.sample_L,
        sample_L=model.sample_L,
    )
    write_sbml(rate_model(run), folder / MECHANISM)
    written = [CULTURE, MECHANISM]
    if runs:
        write_described(runs, folder / CAMPAIGN, process)
        written.append(CAMPAIGN)
    elif any(len(v) > 1 for v in model.schedule.values()):
        _write_schedule(model, folder / SCHEDULE)
        written.append(SCHEDULE)
    for line in remarks:
        console.print(f"{line}.", soft_wrap=True)
    start = ", ".join(f"{name} {value:g}" for name, value in model.start.items())
    console.print(f"{process.name}: starts with {start}.", soft_wrap=True)
    if sought:
        console.print(f"sought: {', '.join(sought)}.", soft_wrap=True)
    console.print(f"written to {folder}: {', '.join(written)}", soft_wrap=True)
    console.print(
        f"use it by --process {folder / CULTURE} --mechanism {folder / MECHANISM}",
        soft_wrap=True,
    )


def _run(sent: Sent) -> Experiment:
    process = read_process(sent.process)
    hours, controls = _courses(sent, process)
    return run_of(
        process,
        sent.mechanism,
        hours,
        clone=sent.clone,
        controls=controls,
        start=sent.start or None,
    )


def _courses(sent: Sent, process: Process) -> tuple[np.ndarray, Any]:
    """Times of samples, and set-points."""
    if sent.schedule is None:
        return sample_hours(sent.days, sent.every_h), sent.set_points
    if sent.set_points:
        raise ConfigError("--schedule says what is set, and --set too; give one.")
    names = process.control_names
    asked = read_schedules(sent.schedule, names, lambda n: process.control(n).unit)
    one = one_schedule(sent.schedule, asked, sent.run_id)
    once = [names.index(name) for name in process.boluses]
    hours, controls = on_samples(sent.schedule, [one], sent.every_h, once)
    return hours, controls[0]


def _write_schedule(model: ReadModel, path: Path) -> None:
    """Set-points that change, as the schedule of one run."""
    process = model.process
    names = process.control_names
    edges = sorted({t for steps in model.schedule.values() for t, _ in steps})
    rows = []
    for edge in edges:
        row = []
        for control in process.controls:
            steps = model.schedule.get(control.name, [(0.0, control.default)])
            last = [v for t, v in steps if t <= edge][-1]
            is_now = any(t == edge for t, _ in steps)
            row.append(0.0 if control.role == "bolus" and not is_now else last)
        rows.append(row)
    lengths = np.diff([*edges, edges[-1] + HOURS_PER_DAY])
    table = schedule_of("RUN001", "", np.array(rows), lengths)
    units = {c.name: c.unit for c in process.controls}
    write_schedules(path, [table], list(names), units.__getitem__, once=process.boluses)
