"""`perfusio-jax identify`: a campaign table in, what it tells of constants out."""

from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from perfusio_jax.connectors import completed, read_culture
from perfusio_jax.connectors.files.parts import Tables
from perfusio_jax.connectors.tables.file_rules import FileRules
from perfusio_jax.mechanistic import Reactor
from perfusio_jax.process import CHO_PERFUSION, Process
from perfusio_jax.simulator import virtual_plant
from perfusio_jax.study import (
    Experiment,
    Identifiability,
    cho_experiment,
    described_experiment,
    identify,
    profile,
)

from .sensitivity import mechanism_of, write_rows

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
    """
    table = read_culture(campaign, culture, rules)
    runs = completed(table, fill_down=fill_down, console=console)
    plant = plant_of(table.process, mechanism)
    with console.status("looking for the constants"):
        found = identify(plant, runs, constants, with_prior=with_prior)
    console.print(_table(found))
    for line in found.lines():
        console.print(line, soft_wrap=True)
    followed = []
    for name in profiles:
        with console.status(f"following the profile of {name}"):
            followed.append(profile(found, name))
        console.print(followed[-1].line, soft_wrap=True)
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
        console.print(f"written: {out}")


def plant_of(
    process: Process | None, mechanism: str | None, *, rtol: float = 1e-6, atol: float = 1e-9
) -> Experiment:
    """Any run of the plant; what was recorded is put into it.

    Args:
        process: The culture; CHO perfusion if None.
        mechanism: As in `mechanism_of`.
        rtol: Local error of the integrator of a described culture, in parts of a value [-].
        atol: The same near zero [unit of each quantity].
    """
    if process is None or (process == CHO_PERFUSION and mechanism is None):
        return cho_experiment(Reactor(), _HOURS)
    plant = virtual_plant(process, mechanism_of(process, mechanism), rtol=rtol, atol=atol)
    return described_experiment(plant, _HOURS)


def _table(found: Identifiability) -> Table:
    table = Table(
        title=f"{len(found.levers)} constants from {found.n_readings} readings",
        caption="deviations are of the logarithm, so nearly parts of the value, where marked %",
    )
    for name in ("constant", "value", "readings alone", "with prior", "prior"):
        is_name = name == "constant"
        table.add_column(name, justify="left" if is_name else "right", no_wrap=is_name)
    for i, lever in enumerate(found.levers):
        columns = (found.data_sd[i], found.sd[i], found.prior_sd[i])
        cells = [_deviation(float(v), bool(found.is_log[i])) for v in columns]
        table.add_row(lever.name, f"{found.values[i]:.4g} {lever.unit}".strip(), *cells)
    return table


def _deviation(value: float, is_log: bool) -> str:
    if not np.isfinite(value) or (is_log and value > 5.0):
        return "unknown"
    return f"{100.0 * value:.2g} %" if is_log else f"{value:.2g}"
