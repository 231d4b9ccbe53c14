"""`perfusio-jax design`: a culture in, runs that tell most of its mechanism's constants out."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from perfusio_jax._core import ConfigError
from perfusio_jax._core.text import counted, shown_unit
from perfusio_jax.connectors import completed, read_culture
from perfusio_jax.connectors.files.parts import Tables
from perfusio_jax.connectors.files.schedule import schedule_of, write_schedules
from perfusio_jax.connectors.tables.file_rules import FileRules
from perfusio_jax.process import Process, read_process
from perfusio_jax.study import (
    Apart,
    DescribedExperiment,
    Design,
    Experiment,
    Posterior,
    Wanted,
    choose_levers,
    design_for_constants,
    design_to_tell_apart,
    identify,
    load_posterior,
)
from perfusio_jax.viz import Bars, Card, Table, show_card

from .asked_run import described_run, run_of, sample_hours
from .study_figures import Drawing, draw, steps_of, tornado_of

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
    figure: Path | None = None,
    on_card: Callable[[Card], None] | None = None,
) -> None:
    """Choose runs, show what they would tell, and write their schedules.

    Args:
        plans: What is asked.
        campaign: Runs already there, whose information is added; none if None.
        out: CSV for the schedules, as `propose --profile` writes them; one of the samples lies
            beside it.
        console: Where to print.
        rules: How the campaign is read.
        figure: Picture to write as well: how much better constants will be known.
        on_card: Is given what was concluded.

    Raises:
        ConfigError: If a name is unknown, or a number is out of range.
        DataError: If the campaign or the posterior cannot be used.
    """
    process = read_process(plans.process)
    hours = sample_hours(plans.days, plans.every_h)
    run = run_of(process, plans.mechanism, hours, **_how(plans))
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
    drawing = tornado_of(_gains(design))
    card = Card(
        "design",
        f"{len(design.controls)} runs that tell most of {len(design.levers)} constants",
        tuple(_said(design)),
        (),
        (_constants(design), _runs(design, run)),
        f"{plans.process}, {plans.days:g} d, samples at most every {plans.every_h:g} h",
        drawing.still,
    )
    show_card(card, console)
    if figure is not None:
        draw(drawing, figure, console)
    if on_card is not None:
        on_card(card._replace(sentences=(*lines, *card.sentences)))
    _write(design.controls, design.samples, run, process, out)
    console.print(f"schedules: {out}, samples: {_beside(out)}", soft_wrap=True)


def tell_apart(
    plans: Plans,
    against: str,
    *,
    out: Path,
    console: Any,
    figure: Path | None = None,
    on_card: Callable[[Card], None] | None = None,
) -> None:
    """Choose runs that tell two mechanisms apart, show them, and write their schedules.

    Args:
        plans: What is asked; its mechanism is the first.
        against: The second.
        out: CSV for the schedules.
        console: Where to print.
        figure: Picture to write as well: set-points of the first run, and by what the two differ.
        on_card: Is given what was concluded.

    Raises:
        ConfigError: If a name is unknown, or a number is out of range.
    """
    process = read_process(plans.process)
    hours = sample_hours(plans.days, plans.every_h)
    # the CHO plant's own layout knows no other mechanism
    first = described_run(process, plans.mechanism, hours, **_how(plans))
    second = described_run(process, against, hours, **_how(plans))
    with console.status("choosing runs"):
        found = design_to_tell_apart(
            first, second, plans.wanted, ranges=plans.ranges, seed=plans.seed
        )
    names = [type(one.plant.mechanism).__name__ for one in (first, second)]
    drawing = _difference(found, first, process, names)
    card = Card(
        "design",
        f"{len(found.controls)} runs that tell {names[0]} and {names[1]} apart",
        tuple(found.lines()),
        (),
        (_telling(found, first),),
        f"{plans.process}, {plans.days:g} d sampled every {plans.every_h:g} h, "
        f"{plans.mechanism or 'its own mechanism'} against {against}",
        drawing.still,
    )
    show_card(card, console)
    if figure is not None:
        draw(drawing, figure, console)
    if on_card is not None:
        on_card(card)
    samples = np.ones((len(found.controls), first.hours.size), bool)
    _write(found.controls, samples, first, process, out)
    console.print(f"schedules: {out}, samples: {_beside(out)}", soft_wrap=True)


def _how(plans: Plans) -> dict[str, Any]:
    return {"rtol": _RTOL, "atol": _ATOL, "start": plans.start or None}


def _telling(found: Apart, run: Experiment) -> Table:
    """Set-points of each run, and where the two differ most."""
    names = _controls(run)
    assays = [a.column for a in run.assays]
    rows = []
    for k, controls in enumerate(found.controls):
        gap = found.by_reading[k]
        t, a = np.unravel_index(int(np.argmax(np.abs(gap))), gap.shape)
        where = f"{assays[a]} at {run.hours[t]:g} h: {gap[t, a]:+.3g} sd"
        cells = (*_steps(controls), f"{found.alone[k]:.3g}", where)
        rows.append((str(k + 1), *cells))
    heads = ("run", *names, "D alone", "differs most in")
    return Table(counted(len(rows), "run"), heads, tuple(rows), tuple(range(1, len(names) + 2)))


def _difference(
    found: Apart, run: DescribedExperiment, process: Process, names: Sequence[str]
) -> Drawing:
    """Set-points of the run that tells most, and the difference it is expected to show."""
    best = int(np.argmax(found.alone))
    controls = {n: found.controls[best][:, k] for k, n in enumerate(_controls(run))}
    gaps = {a.column: found.by_reading[best][:, k] for k, a in enumerate(run.assays)}
    units = {v.name: v.unit for v in run.levers if v.group == "set-points"} | dict.fromkeys(
        gaps, "sd"
    )
    title = f"{names[0]} less {names[1]}: run {best + 1}"
    return steps_of(run.hours, controls, gaps, units, process.boluses, title)


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


def _before(design: Design) -> np.ndarray:
    """Standard deviations of the constants before these runs."""
    inverse = np.diagonal(np.linalg.inv(design.before), axis1=1, axis2=2)
    return design.prior_sd * np.sqrt(np.mean(inverse, axis=0))


def _gains(design: Design) -> list[Bars]:
    """What is left of each constant's uncertainty."""
    names = tuple(lever.name for lever in design.levers)
    left = design.sd / _before(design)
    return [Bars("what these runs leave open", "deviation after / before [-]", names, left)]


def _constants(design: Design) -> Table:
    before = _before(design)
    rows = []
    for i, lever in enumerate(design.levers):
        values = (design.prior_sd[i], before[i], design.sd[i])
        is_log = bool(design.is_log[i])
        cells = [f"{100.0 * v:.2g} %" if is_log else f"{v:.2g}" for v in values]
        rows.append((lever.name, shown_unit(lever.unit), *cells))
    return Table(
        f"{len(design.levers)} constants, {design.criterion}-optimal",
        ("constant", "unit", "prior", "before", "after"),
        tuple(rows),
        (2, 3, 4),
        "deviations are of the logarithm, so nearly parts of the value, where marked %",
    )


def _runs(design: Design, run: Experiment) -> Table:
    names = _controls(run)
    rows = []
    for k, controls in enumerate(design.controls):
        cells = _steps(controls)
        when = run.hours[design.samples[k]]
        whole = design.samples[k].all()
        said = "all" if whole else " ".join(f"{h:g}" for h in when)
        rows.append((str(k + 1), *cells, said))
    heads = ("run", *names, "samples [h]")
    return Table(
        counted(len(design.controls), "run"), heads, tuple(rows), tuple(range(1, len(names) + 1))
    )


def _steps(controls: np.ndarray) -> list[str]:
    """Values that each set-point takes, one after the other."""
    cells = []
    for column in controls.T:
        edges = np.flatnonzero(np.diff(column) != 0.0) + 1
        cells.append(" > ".join(f"{v:.3g}" for v in column[[0, *edges]]))
    return cells


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


def _write(
    controls: np.ndarray, samples: np.ndarray, run: Experiment, process: Process, out: Path
) -> None:
    names = _controls(run)
    schedules = [
        schedule_of(f"RUN{k + 1:03d}", "", table, np.diff(run.hours))
        for k, table in enumerate(controls)
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
    for k, taken in enumerate(samples):
        rows += [f"RUN{k + 1:03d},{h:g}" for h in run.hours[taken]]
    _beside(out).write_text("\n".join(rows) + "\n", encoding="utf-8")
