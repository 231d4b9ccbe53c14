"""One run of a described culture out of a file, as models read it."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from perfusio_jax._core import HOURS_PER_DAY, DataError
from perfusio_jax.process import Process
from perfusio_jax.states import Trajectory

from ..tables.acting import TOLD, acting_from
from ..tables.file_rules import FileRules
from ..tables.report import ReadReport
from ..tables.run_rows import RunRows
from .source_file import SourceFile


class OneRun(NamedTuple):
    """A run so far, and what was understood of the file it is in."""

    trajectory: Trajectory
    """Samples by time; NaN where missing. A row's set-points act from it on."""
    report: ReadReport
    """How the file was read."""


def read_one_run(
    path: Path,
    process: Process,
    rules: FileRules | None = None,
    *,
    run_id: str | None = None,
    reactor_id: str | None = None,
) -> OneRun:
    """Read one run of a culture.

    Args:
        path: CSV, Parquet or Excel file with `time_h` or `day`.
        process: The culture.
        rules: How the file is read.
        run_id: Run, if the file holds several.
        reactor_id: Vessel, if it holds several.

    Returns:
        The run, with every measured quantity and every control of the process as a column.

    Raises:
        ConnectorError: If there is no such file.
        DataError: If it cannot be understood, holds no sample of this run, or several runs.
        UnitError: If a unit does not fit its column.
    """
    rules = rules or FileRules()
    source = SourceFile(
        path,
        rules,
        starts=rules.starts(run_id, reactor_id),
        process=process,
        allow_unterminated=True,
    )
    found = source.samples()
    keys = set(found.rows.runs)
    chosen = {
        key
        for key in keys
        if (run_id is None or key[0] == run_id) and (reactor_id is None or key[1] == reactor_id)
    }
    if len(chosen) != 1:
        raise DataError(_which(path, sorted(keys), len(chosen)))
    rows = found.rows.runs[chosen.pop()]
    for _, row in sorted(rows.made.items()):
        if row.conflicts:
            raise DataError(f"{path}: {row.conflicts[0]}; keep one of the two.")
    is_until = rules.set_points == "until"
    report = found.report
    if is_until:
        report = replace(report, notes=(*report.notes, TOLD))
    return OneRun(_trajectory(rows, process, is_until), report)


def _trajectory(rows: RunRows, process: Process, is_until: bool) -> Trajectory:
    names, controls = process.readings, process.control_names
    hours, column = rows.times_h, rows.column
    volume = column("volume_L")
    if not np.isfinite(volume).any():
        volume = np.full(hours.size, process.volume_L)
    seen = np.isfinite(volume)
    table = np.stack([column(n) for n in controls], axis=1) if controls else None
    if table is None:
        table = np.zeros((hours.size, 0))
    elif is_until:
        table = acting_from(table, controls, process.boluses)
    return Trajectory(
        np.stack([column(n) for n in names], axis=1),
        table,
        np.interp(hours, hours[seen], volume[seen]),
        np.floor(hours / HOURS_PER_DAY + 1e-9).astype(int),
        names,
        controls,
        run_id=rows.run_id or "run",
        reactor_id=rows.reactor_id or "R00",
        times_h=hours,
        limits=rows.limits(names),
    )


def _which(path: Path, keys: list[tuple[str, str]], n_chosen: int) -> str:
    if not keys:
        return f"{path} holds no sample."
    told = ", ".join(run or "(no name)" for run in dict.fromkeys(k[0] for k in keys))
    vessels = ", ".join(v or "(no name)" for v in dict.fromkeys(k[1] for k in keys))
    what = "holds several runs" if n_chosen else "does not hold that run"
    return f"{path} {what}; its runs are {told}, its reactors {vessels}: --run-id says which."
