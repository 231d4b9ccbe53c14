"""Time stamps as laboratories write them, made instants."""

import datetime as dt
import zoneinfo

from perfusio_jax._core import ConfigError, DataError
from perfusio_jax._core.instants import parsed
from perfusio_jax._core.text import in_line


def zone_of(name: str | None) -> zoneinfo.ZoneInfo | None:
    """A time zone by its name.

    Args:
        name: Such as "Europe/Berlin"; `None` for none.

    Raises:
        ConfigError: If there is no such zone.
    """
    if name is None:
        return None
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError, TypeError):
        raise ConfigError(
            f"time_zone is {name!r}, which is no known zone; a name such as 'Europe/Berlin' or "
            "'UTC' is needed."
        ) from None


def read_stamp(text: str, where: str, zone: zoneinfo.ZoneInfo | None = None) -> dt.datetime:
    """An instant from ISO 8601 text.

    Args:
        text: With an offset, or, where the zone is known, without.
        where: What is read, for the message.
        zone: Zone of stamps without an offset.

    Returns:
        The instant, with a zone. Of the hour that occurs twice when summer time ends, the first.

    Raises:
        DataError: If it is no time, is one no sample was taken at, has no zone and none is
            known, or names an hour that summer time leaves out.
    """
    stamp = parsed(text, where)
    if stamp.tzinfo is not None:
        return stamp
    if zone is None:
        raise DataError(
            f"{where} is {in_line(text)}, which has no time zone; add Z or an offset, or say "
            "time_zone."
        )
    stamp = stamp.replace(tzinfo=zone)
    if stamp.astimezone(dt.UTC).astimezone(zone).replace(tzinfo=None) != stamp.replace(tzinfo=None):
        raise DataError(
            f"{where} is {in_line(text)}, an hour that summer time leaves out in {zone.key}."
        )
    return stamp


def is_ambiguous(stamp: dt.datetime) -> bool:
    """Whether the local time occurs twice because summer time ends."""
    first, second = stamp.replace(fold=0), stamp.replace(fold=1)
    return first.utcoffset() != second.utcoffset()
