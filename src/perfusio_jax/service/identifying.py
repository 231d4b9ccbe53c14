"""`perfusio-jax identify`: a campaign table in, what it tells of constants out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from perfusio_jax._core.text import shown_unit
from perfusio_jax.connectors import completed, read_culture
from perfusio_jax.connectors.files.parts import Tables
from perfusio_jax.connectors.tables.file_rules import FileRules
from perfusio_jax.process import CHO_PERFUSION, Process
from perfusio_jax.study import (
    Experiment,
    Identifiability,
    identify,
    profile,
)
from perfusio_jax.viz import Card, Table, show_card

from .asked_run import run_of
from .sensitivity import write_rows
from .study_figures import draw, profiles_of

_HOURS = np.array([0.0, 24.0])


def identify_table(
    campaign: Tables,
    *,
    culture: str | None,
    mechanism: str | None,
    constants: tuple[str, ...] | None,
    profiles: tuple[str, ...],
    with_prior: bool,
    fill_down: bool,
    out: Path | None,
    console: Any,
    rules: FileRules | None = None,
    figure: Path | None = None,
    on_card: Callable[[Card], None] | None = None,
) -> None:
    """Say what a campaign tells of a mechanism's constants.

    Args:
        campaign: The table, several, or a folder of them.
        culture: Which culture; see `read_culture`.
        mechanism: `monod` or `module:Class`, of a culture that is described; `monod` if None.
        constants: Names; all that have a prior if None.
        profiles: Constants whose profiles are followed.
        with_prior: Whether priors count.
        fill_down: Whether a blank set-point means that the one before it stayed.
        out: File for all figures, .csv or .json; none if None.
        console: Where to print.
        rules: How the table is read.
        figure: Picture of the profiles to write as well.
        on_card: Is given what was concluded.
    """
    table = read_culture(campaign, culture, rules)
    runs = completed(table, fill_down=fill_down, console=console)
    plant = plant_of(table.process, mechanism)
    with console.status("looking for the constants"):
        found = identify(plant, runs, constants, with_prior=with_prior)
    followed = []
    for name in profiles:
        with console.status(f"following the profile of {name}"):
            followed.append(profile(found, name))
    units = {lever.name: lever.unit for lever in found.levers}
    drawing = profiles_of(followed, units) if followed else None
    card = Card(
        "identify",
        f"What {len(runs)} run(s) tell of {len(found.levers)} constants",
        (*found.lines(), *(one.line for one in followed)),
        (),
        (_table(found),),
        f"{', '.join(run.run_id for run in runs[:8])}{' and more' if len(runs) > 8 else ''}",
        None if drawing is None else drawing.still,
    )
    show_card(card, console)
    if figure is not None and drawing is not None:
        draw(drawing, figure, console)
    if on_card is not None:
        on_card(card)
    if out is not None:
        ends = {one.name: (one.lower, one.upper) for one in followed}
        nothing = (float("nan"), float("nan"))
        rows = [
            {
                "constant": lever.name,
                "unit": lever.unit,
                "value": float(found.values[i]),
                "is_log": bool(found.is_log[i]),
                "prior_sd": float(found.prior_sd[i]),
                "data_sd": float(found.data_sd[i]),
                "sd": float(found.sd[i]),
                "lower": float(ends.get(lever.name, nothing)[0]),
                "upper": float(ends.get(lever.name, nothing)[1]),
            }
            for i, lever in enumerate(found.levers)
        ]
        write_rows(out, rows)
        console.print(f"written: {out}", soft_wrap=True)


def plant_of(process: Process | None, mechanism: str | None, **how: Any) -> Experiment:
    """Any run of the plant; what was recorded is put into it.

    Args:
        process: The culture; CHO perfusion if None.
        mechanism: As in `run_of`; of CHO perfusion that nobody described there is none.
        **how: Further arguments of `run_of`.

    Raises:
        ConfigError: If the mechanism is unknown, or does not fit.
    """
    if process is None:
        process, mechanism = CHO_PERFUSION, None
    return run_of(process, mechanism, _HOURS, **how)


def _table(found: Identifiability) -> Table:
    rows = []
    for i, lever in enumerate(found.levers):
        columns = (found.data_sd[i], found.sd[i], found.prior_sd[i])
        cells = [_deviation(float(v), bool(found.is_log[i])) for v in columns]
        rows.append((lever.name, f"{found.values[i]:.4g} {shown_unit(lever.unit)}".strip(), *cells))
    return Table(
        f"{len(found.levers)} constants from {found.n_readings} readings",
        ("constant", "value", "readings alone", "with prior", "prior"),
        tuple(rows),
        (1, 2, 3, 4),
        "deviations are of the logarithm, so nearly parts of the value, where marked %",
    )


def _deviation(value: float, is_log: bool) -> str:
    if not np.isfinite(value) or (is_log and value > 5.0):
        return "unknown"
    return f"{100.0 * value:.2g} %" if is_log else f"{value:.2g}"
