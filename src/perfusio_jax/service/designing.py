"""`perfusio-jax design`: a culture in, runs that tell most of its mechanism's constants out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table

from perfusio_jax._core import HOURS_PER_DAY, ConfigError
from perfusio_jax.connectors import completed, read_culture
from perfusio_jax.connectors.files.parts import Tables
from perfusio_jax.connectors.files.schedule import schedule_of, write_schedules
from perfusio_jax.connectors.tables.file_rules import FileRules
from perfusio_jax.mechanistic import Reactor
from perfusio_jax.process import CHO_PERFUSION, Process, read_process
from perfusio_jax.simulator import virtual_plant
from perfusio_jax.study import (
    Design,
    Experiment,
    Posterior,
    Wanted,
    cho_experiment,
    choose_levers,
    described_experiment,
    design_for_constants,
    identify,
    load_posterior,
)

from .sensitivity import mechanism_of

_RTOL, _ATOL = 1e-5, 1e-8
_MOST_DRAWS = 4


class Plans(NamedTuple):
    """What is asked, as the command line has it."""

    process: str
    """A built-in name, or a file that ends in .toml."""
    mechanism: str | None
    """`monod` or `module:Class`; `monod` if None."""
    days: float
    """Length of a run [d]."""
    every_h: float
    """Hours between times at which a sample may be taken [h]."""
    start: Mapping[str, float]
    """What a run starts with, by name."""
    constants: tuple[str, ...] | None
    """Names; all that have a prior if None."""
    ranges: Mapping[str, tuple[float, float]]
    """Ranges of set-points, where those of the process are not meant."""
    wanted: Wanted
    """Runs, changes, samples and criterion."""
    posterior: Path | None
    """Folder of a posterior; draws of the prior if None."""
    seed: int
    """Of all random numbers."""


def design_runs(
    plans: Plans,
    campaign: Tables | None,
    *,
    out: Path,
    console: Any,
    rules: FileRules | None = None,
) -> None:
    """Choose runs, show what they would tell, and write their schedules.

    Args:
        plans: What is asked.
        campaign: Runs already there, whose information is added; none if None.
        out: CSV for the schedules, as `propose --profile` writes them; one of the samples lies
            beside it.
        console: Where to print.
        rules: How the campaign is read.

    Raises:
        ConfigError: If a name is unknown, or a number is out of range.
        DataError: If the campaign or the posterior cannot be used.
    """
    process = read_process(plans.process)
    run = _experiment(process, plans)
    known, lines = None, []
    draws = None
    if plans.posterior is not None:
        draws = _draws(run, plans, plans.posterior)
        lines.append(f"judged at {len(draws)} draws of {plans.posterior}")
    if campaign is not None:
        table = read_culture(campaign, plans.process, rules)
        runs = completed(table, fill_down=True, console=console)
        with console.status("what the runs already there tell"):
            found = identify(run, runs, plans.constants)
        known = found.information
        lines.append(f"{len(runs)} run(s) with {found.n_readings} readings are counted")
    for line in lines:
        console.print(line, soft_wrap=True)
    with console.status("choosing runs"):
        design = design_for_constants(
            run,
            plans.constants,
            plans.wanted,
            ranges=plans.ranges,
            draws=draws,
            known=known,
            seed=plans.seed,
        )
    console.print(_constants(design))
    console.print(_runs(design, run))
    for line in _said(design):
        console.print(line, soft_wrap=True)
    _write(design, run, process, out)
    console.print(f"schedules: {out}, samples: {_beside(out)}", soft_wrap=True)


def _experiment(process: Process, plans: Plans) -> Experiment:
    n = max(1, round(plans.days * HOURS_PER_DAY / plans.every_h))
    hours = plans.every_h * np.arange(n + 1)
    if process == CHO_PERFUSION and plans.mechanism is None:
        return cho_experiment(Reactor(), hours, start=plans.start or None)
    mechanism = mechanism_of(process, plans.mechanism)
    plant = virtual_plant(process, mechanism, rtol=_RTOL, atol=_ATOL)
    return described_experiment(plant, hours, start=plans.start or None)


def _draws(run: Experiment, plans: Plans, folder: Path) -> np.ndarray:
    """Draws of a posterior, in prior standard deviations of the constants that are asked for."""
    found = posterior_of(folder, read_process(plans.process))
    levers = choose_levers(run, plans.constants or ("constants",))
    absent = [v.name for v in levers if v.name not in found.names]
    if absent:
        raise ConfigError(
            f"the posterior knows {', '.join(found.names)}, and not {', '.join(absent)}; name the "
            "constants that are meant with --only."
        )
    columns = [found.names.index(v.name) for v in levers]
    is_log, middle, width = found.prior[:, columns]
    rows = np.linspace(0, len(found.pooled) - 1, _MOST_DRAWS).astype(int)
    x = found.pooled[rows][:, columns]
    y = np.where(is_log > 0.0, np.log(np.maximum(x, 1e-300)), x)
    return (y - middle) / width


def posterior_of(folder: Path, process: Process) -> Posterior:
    """A posterior that is of a culture.

    Args:
        folder: Folder `calibrate` wrote.
        process: The culture.

    Raises:
        ConfigError: If it is of another one.
        DataError: If it cannot be read.
    """
    found, culture = load_posterior(folder)
    if culture.get("process") != process.name:
        raise ConfigError(
            f"the posterior in {folder} is of {culture.get('process')}, and runs of "
            f"{process.name} are asked for."
        )
    return found


def _constants(design: Design) -> Table:
    table = Table(
        title=f"{len(design.levers)} constants, {design.criterion}-optimal",
        caption="deviations are of the logarithm, so nearly parts of the value, where marked %",
    )
    for name in ("constant", "unit", "prior", "before", "after"):
        is_text = name in ("constant", "unit")
        table.add_column(name, justify="left" if is_text else "right")
    inverse = np.diagonal(np.linalg.inv(design.before), axis1=1, axis2=2)
    before = design.prior_sd * np.sqrt(np.mean(inverse, axis=0))
    for i, lever in enumerate(design.levers):
        values = (design.prior_sd[i], before[i], design.sd[i])
        is_log = bool(design.is_log[i])
        cells = [f"{100.0 * v:.2g} %" if is_log else f"{v:.2g}" for v in values]
        table.add_row(lever.name, lever.unit, *cells)
    return table


def _runs(design: Design, run: Experiment) -> Table:
    names = _controls(run)
    table = Table(title=f"{len(design.controls)} runs")
    table.add_column("run")
    for name in names:
        table.add_column(name, justify="right")
    table.add_column("samples [h]")
    for k, controls in enumerate(design.controls):
        cells = []
        for m in range(len(names)):
            column = controls[:, m]
            edges = np.flatnonzero(np.diff(column) != 0.0) + 1
            cells.append(" > ".join(f"{v:.3g}" for v in column[[0, *edges]]))
        when = run.hours[design.samples[k]]
        whole = design.samples[k].all()
        said = "all" if whole else " ".join(f"{h:g}" for h in when)
        table.add_row(str(k + 1), *cells, said)
    return table


def _said(design: Design) -> list[str]:
    lines = [f"{d.words}, after these runs." for d in design.open]
    if design.n_lost:
        lines.append(
            f"{design.n_lost} schedules cannot be run with some draw of the constants and were "
            "left out."
        )
    lines.append(
        "what is expected of constants is expected of a mechanism that fits; calibrate after the "
        "first runs, and ask again with --posterior."
    )
    return lines


def _controls(run: Experiment) -> list[str]:
    return [v.name for v in run.levers if v.group == "set-points" and v.interval < 0]


def _beside(out: Path) -> Path:
    return out.with_name(f"{out.stem}-samples{out.suffix}")


def _write(design: Design, run: Experiment, process: Process, out: Path) -> None:
    names = _controls(run)
    schedules = [
        schedule_of(f"RUN{k + 1:03d}", "", table, np.diff(run.hours))
        for k, table in enumerate(design.controls)
    ]
    units = {v.name: v.unit for v in run.levers if v.group == "set-points"}
    out.parent.mkdir(parents=True, exist_ok=True)
    write_schedules(
        out,
        schedules,
        names,
        units.__getitem__,
        once=process.boluses,
    )
    rows = ["run_id,time_h"]
    for k, taken in enumerate(design.samples):
        rows += [f"RUN{k + 1:03d},{h:g}" for h in run.hours[taken]]
    _beside(out).write_text("\n".join(rows) + "\n", encoding="utf-8")
