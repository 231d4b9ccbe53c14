"""`perfusio-jax schedule`: a culture in, the best schedule of a whole run out."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from perfusio_jax._core import ConfigError
from perfusio_jax._core.text import shown_unit
from perfusio_jax.connectors.files.schedule import schedule_of, write_schedules
from perfusio_jax.process import Process, read_process
from perfusio_jax.study import (
    Experiment,
    Schedule,
    best_schedule,
)
from perfusio_jax.viz import Card, Table, show_card

from .asked_run import run_of, sample_hours
from .designing import posterior_of
from .study_figures import draw, schedule_of_run

_RTOL, _ATOL = 1e-6, 1e-8
_MOST_DRAWS = 8
"""Draws of a posterior over which a schedule is judged."""


class Wish(NamedTuple):
    """What is asked, as the command line has it."""

    objective: str
    """As in `read_output`."""
    least: bool
    """Whether it is to be small."""
    process: str
    """A built-in name, or a file that ends in .toml."""
    mechanism: str | None
    """`monod`, `cho` or `module:Class`; `monod` if None."""
    clone: str
    """Virtual clone of CHO perfusion."""
    days: float
    """Length of the run [d]."""
    every_h: float
    """Length of an interval [h]."""
    pieces: int | None
    """Pieces with set-points of their own; one for every interval if None."""
    controls: tuple[str, ...] | None
    """Controls that are chosen; all that have a range if None."""
    set_points: Mapping[str, float]
    """Where the others stand, and the search begins."""
    ranges: Mapping[str, tuple[float, float]]
    """Ranges, where those of the process are not meant."""
    steps: Mapping[str, float]
    """Largest change from piece to piece, by control."""
    limits: tuple[str, ...]
    """As in `read_limit`."""
    start: Mapping[str, float]
    """What the run starts with, by name."""
    posterior: Path | None
    """Folder of a posterior; the constants as they stand if None."""
    chance: float
    """With which a limit is to hold over its draws [-]."""
    seed: int
    """Of the candidates."""


def tell_schedule(
    wish: Wish,
    *,
    out: Path,
    console: Any,
    figure: Path | None = None,
    on_card: Callable[[Card], None] | None = None,
) -> bool:
    """Find a schedule, show it, and write it.

    Args:
        wish: What is asked.
        out: CSV for the schedule, as `propose --profile` writes it.
        console: Where to print.
        figure: Picture to write as well.
        on_card: Is given what was concluded.

    Returns:
        Whether it keeps all limits.

    Raises:
        ConfigError: If a name, a limit or a range makes no sense.
        DataError: If the posterior cannot be used.
        SimulationError: If no schedule can be run.
    """
    process = read_process(wish.process)
    run = run_of(
        process,
        wish.mechanism,
        sample_hours(wish.days, wish.every_h),
        clone=wish.clone,
        by_interval=True,
        rtol=_RTOL,
        atol=_ATOL,
        controls=wish.set_points,
        start=wish.start or None,
    )
    draws: dict[str, np.ndarray] = {}
    if wish.posterior is not None:
        draws = _draws(run, process, wish.posterior)
        some = next(iter(draws.values())).size
        console.print(f"judged over {some} draws of {wish.posterior}", soft_wrap=True)
    with console.status("looking for the best schedule"):
        found = best_schedule(
            run,
            wish.objective,
            controls=wish.controls,
            pieces=wish.pieces,
            limits=wish.limits,
            ranges=wish.ranges,
            steps=wish.steps,
            least=wish.least,
            draws=draws or None,
            chance=wish.chance,
            seed=wish.seed,
        )
    drawing = schedule_of_run(found, run, process.boluses)
    not_kept = () if found.is_feasible else ("the schedule does not keep all limits",)
    card = Card(
        "schedule",
        f"The best schedule for {found.objective.name}",
        tuple(found.lines()),
        not_kept,
        (_table(found),),
        f"{wish.process}, {wish.days:g} d in intervals of {wish.every_h:g} h",
        drawing.still,
    )
    show_card(card._replace(warnings=()), console)
    if figure is not None:
        draw(drawing, figure, console)
    if on_card is not None:
        on_card(card)
    _write(found, process, out)
    console.print(f"schedule: {out}", soft_wrap=True)
    return found.is_feasible


def _draws(run: Experiment, process: Process, folder: Path) -> dict[str, np.ndarray]:
    """Some draws of a posterior, by constant."""
    found = posterior_of(folder, process)
    known = {lever.name for lever in run.levers}
    absent = [name for name in found.names if name not in known]
    if absent:
        raise ConfigError(
            f"the posterior in {folder} has {', '.join(absent)}, which this mechanism lacks; name "
            "the one it was calibrated with in --mechanism."
        )
    rows = np.linspace(0, len(found.pooled) - 1, _MOST_DRAWS).astype(int)
    return dict(zip(found.names, found.pooled[rows].T, strict=True))


def _table(found: Schedule) -> Table:
    """Rows of pieces: what follows itself is one."""
    own = [found.names.index(name) for name in found.moved]
    heads = ("from [h]", *(f"{found.names[k]} [{shown_unit(found.units[k])}]" for k in own))
    rows: list[tuple[str, ...]] = []
    before = None
    for hour, row in zip(found.hours, found.controls[:, own], strict=False):
        if before is None or not np.array_equal(row, before):
            rows.append((f"{hour:g}", *(f"{v:.4g}" for v in row)))
        before = row
    title = f"schedule for {found.objective.name}"
    return Table(title, heads, tuple(rows), tuple(range(len(heads))))


def _write(found: Schedule, process: Process, out: Path) -> None:
    one = schedule_of("RUN001", "", found.controls, np.diff(found.hours))
    units = dict(zip(found.names, found.units, strict=True))
    write_schedules(out, [one], found.names, units.__getitem__, once=process.boluses)
