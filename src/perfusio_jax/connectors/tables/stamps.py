"""Time stamps as laboratories write them, made instants."""

import datetime as dt
import re
import zoneinfo
from collections.abc import Iterable
from typing import Final, Literal

from perfusio_jax._core import ConfigError, DataError
from perfusio_jax._core.instants import ImplausibleTime, parsed
from perfusio_jax._core.text import in_line

from .aliases import letters

DateOrder = Literal["dmy", "mdy"]
"""Day or month first, in dates that begin with neither year nor name."""
DATE_ORDERS: Final = ("dmy", "mdy")

_SLASHED: Final = re.compile(
    r"(?a:(?P<first>\d{1,2})(?P<mark>[./-])(?P<second>\d{1,2})(?P=mark)(?P<year>\d{4})"
    r"(?:[ T]{1,3}(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second_of>\d{2})(?:\.\d{1,9})?)?"
    r" ?(?P<half>[AaPp]\.?[Mm]\.?)?)?(?P<offset> ?(?:Z|[+-]\d{2}:?\d{2}))?)"
)
_NAMED: Final = re.compile(
    r"(?P<day>[0-9]{1,2})[ .-]{1,2}(?P<month>[^\W\d_]{3,9})[ .,-]{1,2}(?P<year>[0-9]{4})"
    r"(?P<rest>[ -~]*)"
)
"""A date with the month by its name, which says what it is."""
_MONTHS: Final = {
    word: number
    for number, words in enumerate(
        (
            "jan january januar januari janvier janv enero ene",
            "feb february februar fevrier fevr febrero",
            "mar march maerz marz mrz mars marzo",
            "apr april avril avr abril abr",
            "may mai mayo",
            "jun june juni juin junio",
            "jul july juli juillet juil julio",
            "aug august aout agosto ago",
            "sep sept september septembre septiembre set",
            "oct october oktober okt octobre octubre",
            "nov november novembre noviembre",
            "dec december dezember dez decembre diciembre dic",
        ),
        start=1,
    )
    for word in words.split()
}
_WEEKDAY: Final = re.compile(r"\s*([^\W\d_]{2,10})(?:\.?,|\.)?\s{1,3}(?=\d)")
_WEEKDAYS: Final = frozenset(
    "mon monday tue tues tuesday wed wednesday thu thur thurs thursday fri friday sat saturday sun "
    "sunday mo montag di dienstag mi mittwoch do donnerstag fr freitag sa samstag sonnabend so "
    "sonntag lun lunes lundi mar martes mardi mie miercoles mer mercredi jue jueves jeu jeudi vie "
    "viernes ven vendredi sab sabado sam samedi dom domingo dim dimanche".split()
)
"""What may stand before a date, as `letters` writes it; the date says it better."""
_SERIAL: Final = re.compile(r"[2-7][0-9]{4}(?:[.,][0-9]{1,12})?")
"""A day as a spreadsheet counts them, from 1954 to 2119."""
_LONGEST: Final = 64


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


def read_stamp(
    text: str,
    where: str,
    zone: zoneinfo.ZoneInfo | None = None,
    order: DateOrder | None = None,
) -> dt.datetime:
    """An instant from ISO 8601 text, or from a date with the day or the month first.

    Args:
        text: With an offset, or, where the zone is known, without.
        where: What is read, for the message.
        zone: Zone of stamps without an offset.
        order: Which comes first where the year comes last.

    Returns:
        The instant, with a zone. Of the hour that occurs twice when summer time ends, the first.

    Raises:
        DataError: If it is no time, is one no sample was taken at, has no zone and none is
            known, or names an hour that summer time leaves out.
    """
    iso = as_iso(text, where, order)
    if _SERIAL.fullmatch(iso.strip()):
        raise DataError(
            f"{where} is {in_line(text)}, a number; days as a spreadsheet counts them are read "
            "with date_format = 'excel' (--date-format excel)."
        )
    try:
        stamp = parsed(iso, where)
    except ImplausibleTime:
        raise
    except DataError as error:
        raise DataError(
            f"{error} Another form is said with date_format (--date-format '%d.%m.%y %H:%M')."
        ) from None
    if stamp.tzinfo is not None:
        return stamp
    if zone is None:
        raise DataError(
            f"{where} is {in_line(text)}, which has no time zone; add Z or an offset, or say "
            "time_zone (--time-zone Europe/Berlin)."
        )
    stamp = stamp.replace(tzinfo=zone)
    if stamp.astimezone(dt.UTC).astimezone(zone).replace(tzinfo=None) != stamp.replace(tzinfo=None):
        raise DataError(
            f"{where} is {in_line(text)}, an hour that summer time leaves out in {zone.key}."
        )
    return stamp


def find_order(texts: Iterable[str]) -> DateOrder | None:
    """Whether the dates of a column begin with the day or the month.

    Args:
        texts: The time stamps of one file, which are all written alike.

    Returns:
        What a number above 12 proves in dates with strokes or dashes; with points the day is
        first anyway. `None` where nothing tells.

    Raises:
        DataError: If one stamp proves one order and another the other.
    """
    proofs: dict[DateOrder, str] = {}
    has_points = has_others = False
    for text in texts:
        found = _SLASHED.fullmatch(text.strip()) if len(text) <= _LONGEST else None
        if found is None:
            continue
        if found["mark"] == ".":
            has_points = True
            continue  # always the day first, and no proof for stamps with another mark
        has_others = True
        if int(found["first"]) > 12:
            proofs.setdefault("dmy", text.strip())
        elif int(found["second"]) > 12:
            proofs.setdefault("mdy", text.strip())
    if len(proofs) == 2:
        raise DataError(
            f"sampled_at has the day first in '{proofs['dmy']}' and the month first in "
            f"'{proofs['mdy']}'; write all of them alike, or as 2026-05-06."
        )
    if not proofs and has_points and not has_others:
        return "dmy"
    return next(iter(proofs), None)


def as_iso(text: str, where: str, order: DateOrder | None) -> str:
    """A date such as `24-6-2022 14:34:52` or `6/17/2019 1:34:01 PM` in ISO 8601.

    Args:
        text: A time stamp; what is not of that form comes back as it is.
        where: What is read, for the message.
        order: Which comes first; see `find_order`.

    Raises:
        DataError: If nothing tells day from month, or the hour is none of its half of the day.
    """
    if len(text) <= _LONGEST and (day := _WEEKDAY.match(text)) and letters(day[1]) in _WEEKDAYS:
        text = text[day.end() :]
    if len(text) <= _LONGEST and (named := _NAMED.fullmatch(text.strip())):
        month = _MONTHS.get(letters(named["month"]))
        if month is not None:
            order = "dmy"
            text = f"{named['day']}.{month}.{named['year']}{named['rest']}"
    found = _SLASHED.fullmatch(text.strip()) if len(text) <= _LONGEST else None
    if found is None:
        return text
    order = "dmy" if order is None and found["mark"] == "." else order
    if order is None:
        raise DataError(
            f"{where} is '{text.strip()}', where day and month cannot be told apart; say "
            "date_order='dmy' or 'mdy' (--date-order on the command line), or write 2026-05-06."
        )
    day, month = (
        (found["first"], found["second"]) if order == "dmy" else (found["second"], found["first"])
    )
    hour = int(found["hour"] or 0)
    half = (found["half"] or "").casefold()[:1]
    if half:
        if not 1 <= hour <= 12:
            raise DataError(f"{where} is '{text.strip()}'; before AM or PM stands 1 to 12.")
        hour = hour % 12 + (12 if half == "p" else 0)
    clock = f"{hour:02d}:{found['minute'] or '00'}:{found['second_of'] or '00'}"
    offset = (found["offset"] or "").strip()
    return f"{found['year']}-{int(month):02d}-{int(day):02d}T{clock}{offset}"


def is_ambiguous(stamp: dt.datetime) -> bool:
    """Whether the local time occurs twice because summer time ends."""
    first, second = stamp.replace(fold=0), stamp.replace(fold=1)
    return first.utcoffset() != second.utcoffset()
