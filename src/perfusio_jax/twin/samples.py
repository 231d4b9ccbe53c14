"""One sample as plain data, whatever kind of connector it comes from."""

import math
from collections.abc import Mapping
from typing import Any

from perfusio_jax._core import HOURS_PER_DAY, DataError


def _number(value: Any) -> float | None:
    if value is None:
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def as_plain(record: Any, day: int) -> dict[str, Any]:
    """Plain data of a sample record, or of a bare mapping of species to values.

    Args:
        record: A `SampleRecord`, or what `read_sample` returned.
        day: Culture day [d] it was asked for.

    Returns:
        `day`, `time_h`, `values`, `quality`, `stream_totals`, `controls`, `tags`, `notes` and
        `age_h`; None where nothing usable was measured.

    Raises:
        DataError: If it is neither.
    """
    if isinstance(record, Mapping):
        values = {str(k): _number(v) for k, v in record.items()}
        return {
            "day": day,
            "time_h": day * HOURS_PER_DAY,
            "values": values,
            "quality": "good",
            "stream_totals": {},
            "controls": {},
            "tags": {},
            "notes": [],
            "age_h": None,
        }
    if not hasattr(record, "values") or not hasattr(record, "time_h"):
        raise DataError(f"the connector gave {type(record).__name__}, not a sample.")
    return {
        "day": day,
        "time_h": float(record.time_h),
        "values": {k: _number(v) for k, v in record.values.items()},
        "quality": record.worst_quality,
        "stream_totals": {k: _number(v) for k, v in record.stream_totals.items()},
        "controls": {k: _number(v) for k, v in record.controls.items()},
        "tags": {k: _number(v) for k, v in record.tags.items()},
        "notes": list(record.notes),
        "age_h": record.age_h,
    }
