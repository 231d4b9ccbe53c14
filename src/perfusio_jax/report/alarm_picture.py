"""Pictures for alarms: the run as its journal has it, with the forecast that raised them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from perfusio_jax._core import HOURS_PER_DAY
from perfusio_jax._core.limits import RECORD_BYTES, read_file
from perfusio_jax.twin.alarms.channels import Picture
from perfusio_jax.twin.alarms.events import AlarmEvent, Draws, Foreseen
from perfusio_jax.twin.records.chain import AuditReport
from perfusio_jax.twin.records.chain import records as records_of
from perfusio_jax.twin.records.records_file import RunRecords
from perfusio_jax.twin.records.run_files import JOURNAL_NAME
from perfusio_jax.twin.records.trail_files import LOG_NAME
from perfusio_jax.viz import Band, Crossing, alarm_figure
from perfusio_jax.viz.theme import figure_bytes

from .figures import free_name
from .run_record import RunRecord, record_of

DPI = 110
"""Resolution [1/inch]: sharp on a telephone, and below 200 kB."""


def alarm_pictures(folder: Path, reactor_id: str) -> Draws:
    """What draws the alarms of one vessel.

    Args:
        folder: Its run folder, with a journal once something is drawn.
        reactor_id: Vessel.

    Returns:
        A function of alarms and the forecast they were raised on; it reads the folder and changes
        nothing.
    """

    def draw(events: Sequence[AlarmEvent], foreseen: Foreseen | None) -> Picture:
        record = _record(folder, reactor_id)
        view = record.view()
        if foreseen is not None:
            view = view._replace(bands=_bands(foreseen))
        crossings = [
            Crossing(e.species, e.violation_day, e.predicted_value, e.threshold, e.direction)
            for e in events
        ]
        days = sorted(e.day for e in events)
        title = f"Alarm of reactor {reactor_id}, run {record.run_id}, day {days[-1]:g}"
        figure = alarm_figure(view, record.units(), crossings, title=title)
        name = free_name(f"alarm_{reactor_id}_day{days[-1]:g}", set())
        return Picture(figure_bytes(figure, "png", dpi=DPI), str(figure.get_label()), f"{name}.png")

    return draw


def _record(folder: Path, reactor_id: str) -> RunRecord:
    """The run so far. Its trail tells of the culture alone and is not verified for a mail."""
    events: tuple[Mapping[str, Any], ...] = ()
    if (folder / LOG_NAME).is_file():
        events = tuple(records_of(read_file(folder / LOG_NAME, most=RECORD_BYTES)))
    unverified = AuditReport(False, 0, reason="it was not verified")
    with RunRecords(folder / JOURNAL_NAME, is_read_only=True) as journal:
        return record_of(folder, journal, reactor_id, events, unverified, runs=True)


def _bands(foreseen: Foreseen) -> dict[str, Band]:
    """A forecast as figures see it."""
    mean = np.asarray(foreseen.forecast["mean"], float)
    days, leads = (foreseen.forecast.get(name) for name in ("days", "lead_days"))
    if days is None:
        days = foreseen.day + (np.arange(1, len(mean) + 1) if leads is None else np.asarray(leads))
    hours = HOURS_PER_DAY * np.asarray(days, float)
    samples = foreseen.forecast.get("samples")
    found = {n: foreseen.forecast.get(n) for n in ("q10", "q50", "q90")}
    if found["q10"] is None and samples is not None:
        low, middle, high = np.nanquantile(np.asarray(samples, float), (0.1, 0.5, 0.9), axis=0)
        found = {"q10": low, "q50": middle, "q90": high}
    low, high = (mean if found[n] is None else np.asarray(found[n], float) for n in ("q10", "q90"))
    middle = mean if found["q50"] is None else np.asarray(found["q50"], float)
    return {
        name: Band(hours, low[:, k], high[:, k], middle[:, k])
        for k, name in enumerate(foreseen.species)
    }
