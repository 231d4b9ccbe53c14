"""One sample as plain data, whatever kind of connector it comes from."""

import math
from collections.abc import Collection, Mapping
from numbers import Real
from typing import Any

from perfusio_jax._core import HOURS_PER_DAY, DataError
from perfusio_jax._core.instants import is_culture_time
from perfusio_jax._core.text import cut

from .secrets import redact

_MOST_NOTES = 100
"""Remarks that are kept of one sample; more say nothing new."""


def _number(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Real):
        raise DataError(f"the connector gave {value!r} for {name}, which is not a number.")
    try:
        number = float(value)
    except OverflowError:  # an integer beyond any float
        number = math.inf
    return number if math.isfinite(number) else None


def _numbers(values: Mapping[str, Any]) -> dict[str, float | None]:
    return {str(k): _number(str(k), v) for k, v in values.items()}


def as_plain(
    record: Any,
    day: float,
    due_h: float | None = None,
    *,
    must_be_read: Collection[str] | None = None,
) -> dict[str, Any]:
    """Plain data of a sample record, or of a bare mapping of species to values.

    Args:
        record: A `SampleRecord`, or what `read_sample` returned.
        day: Culture day [d] it was asked for.
        due_h: When it is due [h]; 24 h x day by default. It stands in for a time it lacks.
        must_be_read: Of what the limit of an assay stands for no reading; of all, if None.

    Returns:
        `day`, `time_h`, `values`, `quality`, `stream_totals`, `controls`, `tags`, `notes` and
        `reactor_id` and `age_h`; None where nothing usable was measured. An infinite value is
        bad quality. `limits` only where a limit of an assay stands in the place of a reading.

    Raises:
        DataError: If it is neither, or holds something that is no number.
    """
    due_h = day * HOURS_PER_DAY if due_h is None else due_h
    if isinstance(record, Mapping):
        return {
            "day": day,
            "time_h": due_h,
            "values": _numbers(record),
            "quality": "bad" if _is_any_infinite(record) else "good",
            "stream_totals": {},
            "controls": {},
            "tags": {},
            "notes": [],
            "reactor_id": None,
            "age_h": None,
        }
    if not hasattr(record, "values") or not hasattr(record, "time_h"):
        raise DataError(f"the connector gave {type(record).__name__}, not a sample.")
    notes = [cut(redact(str(note)), 500) for note in record.notes[:_MOST_NOTES]]
    time_h = _number("time_h", record.time_h)
    if time_h is None:
        raise DataError(f"the sample of day {day:g} has no time.")
    if not is_culture_time(time_h):
        notes.append(f"it is dated {time_h:g} h, no time of a culture; day {day:g} x 24 h counts")
        time_h = due_h
    age_h = _number("age_h", record.age_h)
    if age_h is not None and not is_culture_time(age_h):
        notes.append(f"its age would be {age_h:g} h, which is none; nothing tells its age")
        age_h = None
    reactor_id = getattr(record, "reactor_id", None)
    return {
        "day": day,
        "time_h": time_h,
        "values": _numbers(record.values),
        "quality": "bad" if _is_any_infinite(record.values) else _quality(record, must_be_read),
        "stream_totals": _numbers(record.stream_totals),
        "controls": _numbers(record.controls),
        "tags": _numbers(record.tags),
        "notes": notes,
        "reactor_id": cut(reactor_id) if isinstance(reactor_id, str) else reactor_id,
        "age_h": age_h,
    } | ({"limits": limits} if (limits := _limits(record)) else {})


def _quality(record: Any, must_be_read: Collection[str] | None) -> str:
    judge = getattr(record, "worst_quality_for", None)  # a record of somebody's own may have none
    return record.worst_quality if judge is None else judge(must_be_read)


def _limits(record: Any) -> dict[str, list[float | None]]:
    """Limits of assays, below and above by name; None where there is none on that side."""
    return {
        str(name): [_number(str(name), side) for side in sides]
        for name, sides in getattr(record, "limits", {}).items()
    }


def volume_of(record: Any) -> float | None:
    """Volume that came with a sample record [L]; None where none did, or it is no volume.

    Args:
        record: As of `as_plain`.
    """
    volume = None if isinstance(record, Mapping) else getattr(record, "volume_L", None)
    number = _number("volume_L", volume)
    return number if number is not None and number > 0.0 else None


def _is_any_infinite(values: Mapping[str, Any]) -> bool:
    return any(isinstance(v, float) and math.isinf(v) for v in values.values())
