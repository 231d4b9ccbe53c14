"""Files of a run folder a person opens: recommendations and forecasts."""

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from perfusio_jax._core import CONTROL_NAMES

from ..decision.brain import Proposal
from ..decision.gate import GateVerdict
from .files import append_durably, replace_durably
from .secrets import redact

RECOMMENDATIONS = "recommendations.csv"
FORECASTS = "forecasts.parquet"


def append_recommendation(
    folder: Path,
    proposal: Proposal,
    verdict: GateVerdict,
    *,
    reactor_id: str,
    day: float,
    at: dt.datetime,
    controls: Sequence[str] = CONTROL_NAMES,
    odds: str = "viability_probability",
) -> None:
    """Append one line to `recommendations.csv`, header first.

    A cycle decided again, after a restart, replaces the line it has if that is the last one.

    Args:
        folder: Run folder.
        proposal: What was recommended.
        verdict: What the gate made of it.
        reactor_id: Vessel.
        day: Culture day [d].
        at: When.
        controls: Names of the controls, a column each.
        odds: What the column of the probability that all limits are kept is called.
    """
    path = folder / RECOMMENDATIONS
    why, wanted = proposal.explanation, proposal.setpoints
    reasons = redact("; ".join(verdict.reasons)).replace('"', "'")
    cells = [
        at.astimezone(dt.UTC).isoformat(timespec="seconds"),
        reactor_id,
        f"{day:.8g}",
        *(f"{wanted[n]:.12g}" if n in wanted else "" for n in controls),
        verdict.action,
        f"{why['ofv']:.6g}" if "ofv" in why else "",
        f"{why['viability_probability']:.4g}" if "viability_probability" in why else "",
        f'"{reasons}"' if reasons else "",
    ]
    line = ",".join(cells) + "\n"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    if not lines:
        head = ("decided_at", "reactor_id", "day", *controls, "action", "ofv", odds, "reasons")
        line = ",".join(head) + "\n" + line
    elif lines[-1].split(",")[1:3] == [reactor_id, f"{day:.8g}"]:
        replace_durably(path, "".join([*lines[:-1], line]).encode())
        return
    append_durably(path, line.encode())


def store_forecast(folder: Path, proposal: Proposal, *, reactor_id: str, day: float) -> None:
    """Add a forecast to `forecasts.parquet`; a cycle decided again replaces its rows.

    Args:
        folder: Run folder.
        proposal: With its forecast; without one nothing is stored.
        reactor_id: Vessel.
        day: Culture day the forecast was made on [d].
    """
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    if proposal.forecast is None:
        return
    path = folder / FORECASTS
    names = ("mean", "q10", "q50", "q90")
    tables = [np.asarray(proposal.forecast[name], float) for name in names]
    rows: dict[str, list[Any]] = {
        k: [] for k in ("reactor_id", "made_on_day", "day", "species", *names)
    }
    for h, ahead in enumerate(proposal.forecast["days"]):
        for k, species in enumerate(proposal.species):
            new = (reactor_id, day, float(ahead), species, *(float(t[h, k]) for t in tables))
            for name, value in zip(rows, new, strict=True):
                rows[name].append(value)
    table = pa.table(rows)
    if path.exists():
        old = pq.read_table(path)
        keep = [
            not (r == reactor_id and d == day)
            for r, d in zip(
                old["reactor_id"].to_pylist(), old["made_on_day"].to_pylist(), strict=True
            )
        ]
        old = old.filter(pa.array(keep))
        if old.schema != table.schema:  # whole days so far, and now a fraction of one
            number = table.schema.get_field_index("made_on_day")
            schema = table.schema.set(number, pa.field("made_on_day", pa.float64()))
            table, old = table.cast(schema), old.cast(schema)
        table = pa.concat_tables([old, table])
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    replace_durably(path, buffer.getvalue())
