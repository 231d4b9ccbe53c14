"""What probes of a described culture say between two samples. Pure."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from perfusio_jax._core import HOURS_PER_DAY, DataError
from perfusio_jax.hybrid.layout import Layout
from perfusio_jax.hybrid.runs import volumes
from perfusio_jax.process import Process

from .brain import OnlineReading, Situation

_WINDOW: Final = 1.0 / 12.0
"""Part of the time between two samples whose readings are taken together."""


def probed_values(
    readings: Sequence[OnlineReading], process: Process, *, since_h: float, sample_h: float
) -> tuple[float, dict[str, float]] | None:
    """What probes read last, each the median of a short while.

    Readings of one probe minutes apart share its error. Taken one by one they would look like
    many assays, so a short while counts as one.

    Args:
        readings: In any order; what is not good, or outside its quantity's range, is left out.
        process: The culture.
        since_h: Time of the last sample [h].
        sample_h: Time between two samples [h].

    Returns:
        When the last of them was read [h], and the values by name; None without any.
    """
    held = {n: process.quantity(n) for n in process.readings}
    seen = [
        (r.time_h, r.tag, r.value)
        for r in readings
        if r.tag in held
        and r.quality == "good"
        and r.time_h > since_h
        and r.value is not None
        and held[r.tag].lo <= r.value <= held[r.tag].hi
    ]
    if not seen:
        return None
    last = max(t for t, _, _ in seen)
    recent = [(n, v) for t, n, v in seen if t >= last - _WINDOW * sample_h]
    names = dict.fromkeys(n for n, _ in recent)
    return last, {n: float(np.median([v for m, v in recent if m == n])) for n in names}


def probed_rows(
    situation: Situation, layout: Layout, *, sample_h: float
) -> list[dict[str, Any]] | None:
    """The samples so far, and a row of what probes read last.

    Args:
        situation: Samples, set-points in force, readings.
        layout: Layout of the culture's model.
        sample_h: Time between two samples [h].

    Returns:
        Rows as a history has them, the set-points in force acting since the last sample; None if
        no probe says anything.
    """
    process = layout.process
    if process is None or not situation.rows:
        return None
    *before, row = (dict(r) for r in situation.rows)
    start = float(row["time_h"])
    found = probed_values(situation.readings, process, since_h=start, sample_h=sample_h)
    if found is None:
        return None
    at, values = found
    held = {n: v for n, v in situation.u_now.items() if n not in process.boluses}
    row["controls"] = {**(row.get("controls") or {}), **held}
    volume = row.get("volume_L")
    if volume is not None and not process.is_constant_volume:
        names = process.control_names
        acting = np.array([[row["controls"].get(n) or 0.0 for n in names]] * 2, float)
        try:
            recorded = np.array([float(volume), np.nan])
            volume = float(volumes(layout, acting, recorded, np.array([start, at]))[-1])
        except DataError:  # pumps that answer to the vessel keep what is in it
            volume = float(volume)
    fresh = {
        "day": at / HOURS_PER_DAY,
        "time_h": at,
        "values": values,
        "controls": {**row["controls"], **dict.fromkeys(process.boluses, 0.0)},
        "volume_L": volume,
    }
    return [*before, row, fresh]
