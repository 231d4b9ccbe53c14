"""Files of a run folder a person opens: recommendations and forecasts."""

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np

from perfusio_jax._core import CONTROL_NAMES, FORECAST_SPECIES

from .files import append_durably, replace_durably
from .gate import GateVerdict
from .step import Decision

RECOMMENDATIONS = "recommendations.csv"
FORECASTS = "forecasts.parquet"
_HEADER = (
    "decided_at",
    "reactor_id",
    "day",
    *CONTROL_NAMES,
    "action",
    "ofv",
    "viability_probability",
    "reasons",
)


def append_recommendation(
    folder: Path, decision: Decision, verdict: GateVerdict, *, reactor_id: str, at: dt.datetime
) -> None:
    """Append one line to `recommendations.csv`, header first.

    Args:
        folder: Run folder.
        decision: What was recommended.
        verdict: What the gate made of it.
        reactor_id: Vessel.
        at: When.
    """
    path = folder / RECOMMENDATIONS
    why = decision.policy.explanation
    reasons = "; ".join(verdict.reasons).replace('"', "'")
    cells = [
        at.astimezone(dt.UTC).isoformat(timespec="seconds"),
        reactor_id,
        str(decision.day),
        *(f"{decision.setpoints[n]:.6g}" if n in decision.setpoints else "" for n in CONTROL_NAMES),
        verdict.action,
        f"{why['ofv']:.6g}" if "ofv" in why else "",
        f"{why['viability_probability']:.4g}" if "viability_probability" in why else "",
        f'"{reasons}"' if reasons else "",
    ]
    line = ",".join(cells) + "\n"
    if not path.exists() or path.stat().st_size == 0:
        line = ",".join(_HEADER) + "\n" + line
    append_durably(path, line.encode())


def store_forecast(folder: Path, decision: Decision, *, reactor_id: str) -> None:
    """Add a decision's forecast to `forecasts.parquet`; a day decided again replaces its rows.

    Args:
        folder: Run folder.
        decision: Decision with its outlook.
        reactor_id: Vessel.
    """
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / FORECASTS
    outlook = decision.outlook
    rows: dict[str, list[Any]] = {
        k: [] for k in ("reactor_id", "made_on_day", "day", "species", "mean", "q10", "q50", "q90")
    }
    for h, day in enumerate(outlook.days):
        for k, species in enumerate(FORECAST_SPECIES):
            cells = (outlook.mean, outlook.q10, outlook.q50, outlook.q90)
            values = [float(np.asarray(table)[h, k]) for table in cells]
            new = (reactor_id, decision.day, float(day), species, *values)
            for name, value in zip(rows, new, strict=True):
                rows[name].append(value)
    table = pa.table(rows)
    if path.exists():
        old = pq.read_table(path)
        keep = [
            not (r == reactor_id and d == decision.day)
            for r, d in zip(
                old["reactor_id"].to_pylist(), old["made_on_day"].to_pylist(), strict=True
            )
        ]
        table = pa.concat_tables([old.filter(pa.array(keep)), table])
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    replace_durably(path, buffer.getvalue())
