"""Samples as rows of a database and back, and what a second sample of one time means."""

import datetime as dt
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple

from perfusio_jax._core import HOURS_PER_DAY, REGISTRY, STREAM_TOTALS, DataError
from perfusio_jax._core.instants import hours_between, instant, instant_of_text, known_instant
from perfusio_jax._core.text import LONGEST_MESSAGE, cut
from perfusio_jax.twin import redact

from ..base import QUALITIES, SampleRecord
from ..tables.run_rows import as_said
from ..tables.vocabulary import OURS, Vocabulary
from .readings import has_place
from .schema import NAME_LENGTH, species_column

_FIELDS: Final = ("values", "stream_totals", "controls", "tags")
"""Fields of a record with values by name."""

_BEYOND: Final = 1e15
"""Hours [h] beyond this are no times of a culture."""

_MOST_DAYS: Final = 10**6
"""Days [d] beyond this are none of a culture."""


def _groups(words: Vocabulary) -> dict[str, tuple[str, ...]]:
    """Field of a record by what may be in it, in this order."""
    allowed = (words.species, STREAM_TOTALS, words.controls, words.tags)
    return dict(zip(_FIELDS, allowed, strict=True))


def check_name(name: Any, what: str) -> str:
    """A name that any database can hold.

    Args:
        name: Text of 1 to 200 characters without control characters.
        what: What it names, for the message.

    Raises:
        DataError: If it is not such a text.
    """
    is_text = isinstance(name, str) and name.strip() and len(name) <= NAME_LENGTH
    if not is_text or any(ord(c) < 32 or 0xD800 <= ord(c) <= 0xDFFF for c in name):
        raise DataError(
            f"{what} is {name!r}; it must be a text of 1 to {NAME_LENGTH} characters without "
            "control characters."
        )
    return name


def record_of(
    day: int,
    sample: Mapping[str, Any],
    *,
    time_h: float | None = None,
    quality: Mapping[str, str] | None = None,
    sampled_at: dt.datetime | None = None,
    volume_L: float | None = None,
    words: Vocabulary = OURS,
) -> SampleRecord:
    """A record of a bare mapping, every name in its place.

    Args:
        day: Culture day [d].
        sample: Value by name of species, stream total, control or tag; NaN is missing.
        time_h: Time since inoculation [h]; 24 h x day by default.
        quality: Quality by name; "good" where there is a value by default.
        sampled_at: When it was taken, with a zone.
        volume_L: Working volume [L].
        words: The names of the culture.

    Raises:
        DataError: If a name is unknown or a value is no number.
    """
    known = _groups(words)
    groups: dict[str, dict[str, float | None]] = {field: {} for field in known}
    for name, value in sample.items():
        field = next((f for f, names in known.items() if name in names), None)
        if field is None:
            raise DataError(
                f"'{name}' of day {day} is no known name; allowed are "
                f"{', '.join(n for names in known.values() for n in names)}."
            )
        groups[field][name] = value
    return clean(
        SampleRecord(
            day=day,
            time_h=day * HOURS_PER_DAY if time_h is None else time_h,
            quality=dict(quality or {}),
            source_times={} if sampled_at is None else dict.fromkeys(sample, sampled_at),
            volume_L=volume_L,
            **groups,  # pyright: ignore[reportArgumentType]
        ),
        words,
    )


def clean(record: SampleRecord, words: Vocabulary = OURS) -> SampleRecord:
    """A record as it will come back: plain floats, missing as `None`, a quality for each value.

    Args:
        record: As a source gives it.
        words: The names of the culture.

    Raises:
        DataError: If a value is infinite or no number, a name is unknown, a quality means
            nothing or contradicts its value, a limit is none, or a time is no time.
    """
    record = replace(record, day=whole_day(record.day))
    time_h = _number(record.time_h, "time_h", record.day)
    if time_h is None or abs(time_h) > _BEYOND:
        raise DataError(f"time_h of day {record.day} is {record.time_h!r}; a number is needed.")
    groups: dict[str, dict[str, float | None]] = {}
    quality: dict[str, str] = {}
    strangers = dict(record.quality)
    for field, allowed in _groups(words).items():
        groups[field] = {}
        for name, raw in getattr(record, field).items():
            if name not in allowed:
                raise DataError(f"'{name}' of day {record.day} does not belong into {field}.")
            value = _number(raw, name, record.day)
            says = strangers.pop(name, None) or _usual(value, name in record.limits)
            if says not in QUALITIES:
                raise DataError(
                    f"the quality of {name} of day {record.day} is {says!r}; allowed are "
                    f"{', '.join(QUALITIES)}."
                )
            if says in ("bad", "missing"):
                value = None
            elif value is None:
                says = "missing"
            groups[field][name] = value
            quality[name] = says
    if strangers:
        raise DataError(
            f"day {record.day} has a quality and no value of {', '.join(sorted(strangers))}."
        )
    times: dict[str, dt.datetime] = {}
    for name, time in record.source_times.items():
        if name not in quality:
            raise DataError(f"day {record.day} has a source time and no value of '{name}'.")
        times[name] = instant(time, f"the source time of {name} of day {record.day}")
    return replace(
        record,
        time_h=time_h,
        quality=quality,
        volume_L=_number(record.volume_L, "volume_L", record.day),
        source_times=times,
        notes=tuple(redact(cut(str(note), LONGEST_MESSAGE)) for note in record.notes),
        limits=_clean_limits(record, groups["values"], quality),
        **groups,  # pyright: ignore[reportArgumentType]
    )


def _clean_limits(
    record: SampleRecord, values: Mapping[str, float | None], quality: Mapping[str, str]
) -> dict[str, tuple[float, float]]:
    """Limits of assays, each of a name that has no reading and in one direction."""
    found = {}
    for name, sides in record.limits.items():
        if name not in values:
            raise DataError(f"day {record.day} has a limit of an assay and no place of '{name}'.")
        below, above = (_number(side, f"the limit of {name}", record.day) for side in sides)
        if (below is None) == (above is None):
            raise DataError(
                f"the limit of {name} of day {record.day} is {tuple(sides)!r}; one of below and "
                "above is a number, the other NaN."
            )
        if quality[name] not in ("uncertain", "bad"):
            raise DataError(
                f"{name} of day {record.day} has a limit of its assay and its quality is "
                f"{quality[name]!r}; a limit is no reading: uncertain below one, bad above."
            )
        found[name] = tuple(math.nan if side is None else side for side in (below, above))
    return found


def whole_day(day: Any) -> int:
    """A culture day [d] as a whole number.

    Raises:
        DataError: If it is none, or beyond any culture.
    """
    try:
        found = int(day)
    except (TypeError, ValueError, OverflowError):
        found = None
    if found is None or found != day or isinstance(day, bool):
        raise DataError(f"the culture day is {day!r}; a whole number is needed.")
    if abs(found) > _MOST_DAYS:
        raise DataError(f"the culture day is {found}; that is beyond any culture.")
    return found


def to_row(record: SampleRecord, words: Vocabulary = OURS) -> dict[str, Any]:
    """Columns of the table `sample` for a clean record, but for its key and its stamps."""
    row: dict[str, Any] = {
        species_column(n): record.values.get(n) if has_place(n, "values", words) else None
        for n in REGISTRY
    }
    controls = {n: v for n, v in record.controls.items() if has_place(n, "controls", words)}
    times = sorted(record.source_times.values())
    return row | {
        "day": record.day,
        "time_h": record.time_h,
        "sampled_at": times[-1] if times else None,
        "volume_l": record.volume_L,
        "quality": dict(record.quality) or None,
        "stream_totals": dict(record.stream_totals) or None,
        "controls": controls or None,
        "tags": dict(record.tags) or None,
        "source_times": {n: t.isoformat() for n, t in record.source_times.items()} or None,
        "notes": list(record.notes) or None,
        "limits": {n: [_or_none(s) for s in sides] for n, sides in record.limits.items()} or None,
    }


def from_row(
    row: Mapping[Any, Any], *, reactor_id: str, read_at: dt.datetime, words: Vocabulary = OURS
) -> SampleRecord:
    """The record of a row of the table `sample`, with what stands apart from it under `apart`."""
    quality = dict(row["quality"] or {})
    groups = {f: _floats(row[f]) for f in ("stream_totals", "controls", "tags")}
    apart = row.get("apart", {})
    beside = {n: v for (field, n), v in apart.items() if field == "controls"}
    given = groups["controls"] | beside
    groups["controls"] = {n: given.pop(n) for n in words.controls if n in given} | given
    values = {}
    for name in words.species:
        has_column = has_place(name, "values", words)
        value = row[species_column(name)] if has_column else apart.get(("values", name))
        if value is not None or name in quality:
            values[name] = value
    # Rows that other programs put there may lack what ours always have.
    for group in (values, *groups.values()):
        for name, value in group.items():
            quality.setdefault(name, "missing" if value is None else "good")
            if value is None and quality[name] in ("good", "uncertain"):
                quality[name] = "missing"
            if quality[name] not in ("good", "uncertain"):
                group[name] = None
    times: dict[str, dt.datetime] = {}
    notes: list[str] = [str(note) for note in row["notes"] or ()]
    for name, text in (row["source_times"] or {}).items():
        try:
            times[name] = instant_of_text(text, f"the source time of {name} in the database")
        except DataError as error:  # another program's; it costs this value its time, no more
            notes.append(str(error))
    sampled_at = known_instant(row["sampled_at"])
    if sampled_at is not None and not times:
        times = dict.fromkeys(values, sampled_at)
    age = None if sampled_at is None else hours_between(read_at, sampled_at)
    return SampleRecord(
        day=row["day"],
        time_h=row["time_h"],
        values=values,
        quality=quality,
        reactor_id=reactor_id,
        age_h=age,
        volume_L=row["volume_l"],
        notes=tuple(notes),
        source_times=times,
        read_at=read_at,
        limits=_read_limits(row["limits"], values, quality),
        **groups,  # pyright: ignore[reportArgumentType]
    )


def _read_limits(
    stored: Any, values: Mapping[str, float | None], quality: Mapping[str, str]
) -> dict[str, tuple[float, float]]:
    """Limits of assays; what another program put there that is none does not count."""
    found = {}
    for name, sides in stored.items() if isinstance(stored, dict) else ():
        is_pair = isinstance(sides, list) and len(sides) == 2
        if name not in values or quality.get(name, "good") == "good" or not is_pair:
            continue
        below, above = (math.nan if side is None else float(side) for side in sides)
        if math.isnan(below) != math.isnan(above):
            found[name] = (below, above)
    return found


class Merged(NamedTuple):
    """What a stored sample becomes when another of the same time arrives."""

    record: SampleRecord
    filled: tuple[str, ...]
    """Names that had no value and have one now."""
    differing: tuple[str, ...]
    """Names whose value or quality is another one now, in words: "VCD 5 -> 6"."""


def merge(old: SampleRecord, new: SampleRecord) -> Merged:
    """Put a second sample of one time together with the first.

    A name the new one lacks, or has as missing, stays as it was: an analyser that reports late
    does not take back what is known. A bad value takes back.

    Args:
        old: What is stored; clean.
        new: What arrived; clean.
    """
    filled: list[str] = []
    differing: list[str] = []
    groups = {field: dict(getattr(old, field)) for field in _FIELDS}
    quality, times, limits = dict(old.quality), dict(old.source_times), dict(old.limits)
    for field in _FIELDS:
        for name, value in getattr(new, field).items():
            was, said = groups[field].get(name), quality.get(name, "missing")
            says, limit, stood = new.quality[name], new.limits.get(name), limits.get(name)
            if says == "missing":
                continue
            if (value, says) == (was, said):
                if limit is None or _same_limit(limit, stood):
                    continue
                if stood is None:  # what an earlier version stored: half the limit, or none
                    filled.append(f"the limit of {name}")
                    limits[name] = limit
                    continue
            if said == "missing":
                filled.append(name)
            else:
                before, after = _shown(was, said, stood), _shown(value, says, limit)
                differing.append(f"{name} {before} -> {after}")
            groups[field][name], quality[name] = value, says
            limits.pop(name, None)
            if limit is not None:
                limits[name] = limit
            times.pop(name, None)
            if name in new.source_times:
                times[name] = new.source_times[name]
    volume = old.volume_L if new.volume_L is None else new.volume_L
    if volume != old.volume_L:
        if old.volume_L is None:
            filled.append("volume_L")
        else:
            differing.append(f"volume_L {old.volume_L:g} -> {volume:g}")
    if new.day != old.day:
        differing.append(f"day {old.day} -> {new.day}")
    merged = replace(
        old,
        day=new.day,
        quality=quality,
        source_times=times,
        volume_L=volume,
        notes=new.notes or old.notes,
        limits=limits,
        **groups,
    )
    return Merged(merged, tuple(filled), tuple(differing))


def _number(raw: Any, name: str, day: float) -> float | None:
    if raw is None:
        return None
    if isinstance(raw, bool | str):
        raise DataError(f"{name} of day {day} is {raw!r}; a number is needed.")
    try:
        value = float(raw)
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"{name} of day {day} is {raw!r}; a number is needed.") from None
    if math.isinf(value):
        raise DataError(f"{name} of day {day} is infinite.")
    return None if math.isnan(value) else value + 0.0  # minus zero, which means nothing, is zero


def _floats(values: Mapping[str, Any] | None) -> dict[str, float | None]:
    return {n: None if v is None else float(v) for n, v in (values or {}).items()}


def _usual(value: float | None, has_limit: bool) -> str:
    """The quality of what nobody said the quality of."""
    if has_limit:
        return "bad" if value is None else "uncertain"
    return "missing" if value is None else "good"


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _same_limit(one: tuple[float, float], other: tuple[float, float] | None) -> bool:
    """Whether two limits say the same; NaN is nobody's equal."""
    return other is not None and [*map(_or_none, one)] == [*map(_or_none, other)]


def _shown(value: float | None, quality: str, limit: tuple[float, float] | None) -> str:
    if limit is not None:
        return as_said(value, limit)
    text = "none" if value is None else f"{value:g}"
    return text if quality == "good" else f"{text} ({quality})"
