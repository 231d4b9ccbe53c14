"""Runs of any described culture as a campaign table, in the names and units of its process."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import tomli_w

from perfusio_jax._core import STREAM_TOTALS, DataError
from perfusio_jax.process import Process
from perfusio_jax.states import Trajectory
from perfusio_jax.states.checks import UNKNOWN

from .campaign_cells import kind_of, sidecar_path
from .campaign_files import write_cells
from .frame_doubts import rising_totals
from .limit_cells import of_one_kind, with_limits

_IDS: Final = ("run_id", "reactor_id")
_SAMPLED: Final = "V_sample_L"


def write_described(runs: Sequence[Trajectory], path: Path | str, process: Process) -> None:
    """Write runs of a described culture as a campaign table.

    Columns are the readings that have any value, the controls, the volume where it moves, what was
    drawn with samples, and what flowed where a pump law decided it or our names know it; other
    flows follow from the controls. Cell lines are written where runs have one.

    Args:
        runs: Runs with distinct `run_id`, each with the readings and controls of the process.
        path: `.csv` (units in the second row) or `.parquet` (units in a sidecar).
        process: The culture.

    Raises:
        DataError: If the suffix is neither, two runs share an id, or a run is of another culture.
    """
    path = Path(path)
    kind = kind_of(path)
    ids = [run.run_id for run in runs]
    twice = sorted({i for i in ids if ids.count(i) > 1})
    if twice:
        raise DataError(f"run_id {', '.join(twice)} is used by more than one run.")
    told = (*_recorded(process), _SAMPLED)
    named = (*_IDS, "clone_id") if any(run.clone_id != UNKNOWN for run in runs) else _IDS
    frame = pd.concat([_rows(run, process, told, named) for run in runs], ignore_index=True)
    frame = frame.dropna(axis="columns", how="all")
    if process.is_constant_volume and _is_usual(frame, process):
        frame = frame.drop(columns="volume_L")
    units = {"time_h": "h", "volume_L": "L", **dict.fromkeys(told, "L")}
    units |= {part.name: part.unit for part in (*process.quantities, *process.controls)}
    units = {name: units[name] for name in frame.columns if name in units}
    sidecar: dict[str, Any] = {}
    if like_counters := rising_totals(runs):  # they are none, and would be taken for some
        sidecar["totals"] = dict.fromkeys(like_counters, "increments")
    if kind == "parquet":
        sidecar["units"] = units
        of_one_kind(frame, list(units)).to_parquet(path, index=False)
    else:
        write_cells(frame, units, path)
    if sidecar:
        sidecar_path(path).write_text(tomli_w.dumps(sidecar), encoding="utf-8")
    else:
        sidecar_path(path).unlink(missing_ok=True)


def _is_usual(frame: pd.DataFrame, process: Process) -> bool:
    return bool(np.allclose(frame["volume_L"], process.volume_L, rtol=1e-9))


def _recorded(process: Process) -> tuple[str, ...]:
    """Totals that say more than the set-points do."""
    pumped = {c.name for c in process.controls if c.role == "target"}
    totals = [(s.total, s.flow) for s in process.streams if s.total]
    return tuple(t for t, flow in totals if t and (t in STREAM_TOTALS or flow in pumped))


def _rows(
    run: Trajectory, process: Process, told: Sequence[str], named: Sequence[str]
) -> pd.DataFrame:
    if run.species_names != process.readings or run.control_names != process.control_names:
        raise DataError(
            f"run '{run.run_id}' has {', '.join((*run.species_names, *run.control_names))}; "
            f"{process.name} has {', '.join((*process.readings, *process.control_names))}."
        )
    n = run.n_days
    table: dict[str, Any] = {name: [getattr(run, name)] * n for name in named}
    table["time_h"] = np.asarray(run.times_h, np.float64)
    table["volume_L"] = np.asarray(run.volume_L, np.float64)
    for names, values in (
        (run.species_names, run.species),
        (run.control_names, run.controls),
        (STREAM_TOTALS, run.stream_totals),
        (run.auxiliary_names, run.auxiliary),
    ):
        columns = np.asarray(values, np.float64)
        for k, name in enumerate(names):
            if names is run.species_names or names is run.control_names or name in told:
                table[name] = columns[:, k]
    if run.limits is not None:
        limits = np.asarray(run.limits, np.float64)
        for k, name in enumerate(run.species_names):
            table[name] = with_limits(table[name], limits[:, k])
    return pd.DataFrame(table)
