"""Times that came from outside, made instants and hours nobody can overflow with.

A date of year 1 or 9999 is what programs write where they know no time, and arithmetic with it
ends in an OverflowError. Every time of a file, a database or a server passes through here: it is
an aware instant in UTC within a plausible window, or hours of a length a culture can have, or it
is refused by this library's own error.
"""

import datetime as dt
import math
from numbers import Real
from typing import Any, Final

from .errors import DataError
from .text import in_line

EARLIEST: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
"""No sample was taken before; clocks that were never set begin here."""
LATEST: Final = dt.datetime(2200, 1, 1, tzinfo=dt.UTC)
"""No sample was taken from here on."""
LONGEST_H: Final = 24.0 * 3653.0
"""No culture time or age is longer [h]: ten years."""


class ImplausibleTime(DataError):
    """A time no sample was taken at: what programs write where they know none."""


_SLACK: Final = dt.timedelta(days=2)  # no offset is longer
_FIRST = EARLIEST.replace(tzinfo=None) - _SLACK
_LAST = LATEST.replace(tzinfo=None) + _SLACK
_LONGEST_TEXT: Final = 64


def instant(when: dt.datetime, what: str) -> dt.datetime:
    """A time from outside in UTC.

    Args:
        when: With a zone.
        what: What it is, for the message.

    Raises:
        ImplausibleTime: If it lies outside `EARLIEST` to `LATEST`.
        DataError: If it has no zone.
    """
    check_window(when, what)
    if when.tzinfo is None:
        raise DataError(f"{what} is {when.isoformat()}, which has no time zone.")
    found = when.astimezone(dt.UTC)
    check_window(found.replace(tzinfo=None), what, slack=dt.timedelta(0))
    return found


def check_window(when: dt.datetime, what: str, *, slack: dt.timedelta = _SLACK) -> None:
    """Refuse a time, with a zone or without, no arithmetic should be done with.

    Args:
        when: As it was given.
        what: What it is, for the message.
        slack: How far beside the window it may lie, for a zone that is not known yet.

    Raises:
        ImplausibleTime: If it is not within the window.
    """
    bare = when.replace(tzinfo=None)
    if not _FIRST + (_SLACK - slack) <= bare < _LAST - (_SLACK - slack):
        raise ImplausibleTime(
            f"{what} is {when.isoformat()}, which is no time of a sample: it lies outside the "
            f"years {EARLIEST.year} to {LATEST.year - 1}."
        )


def instant_of_text(text: Any, what: str) -> dt.datetime:
    """An instant from ISO 8601 text with an offset.

    Args:
        text: Such as "2026-05-06T07:08:00+00:00".
        what: What it is, for the message.

    Raises:
        ImplausibleTime: If it lies outside the window.
        DataError: If it is no time or has no zone.
    """
    return instant(parsed(text, what), what)


def parsed(text: Any, what: str) -> dt.datetime:
    """A time from ISO 8601 text, with a zone or without, within the window.

    Raises:
        ImplausibleTime: If it lies outside the window.
        DataError: If it is no time.
    """
    clean = text.strip() if isinstance(text, str) else ""
    try:
        if len(clean) > _LONGEST_TEXT or not clean.isascii():
            raise ValueError
        when = dt.datetime.fromisoformat(clean)
    except ValueError:
        raise DataError(
            f"{what} is {in_line(text)}; a time such as 2026-05-06T07:08:00+00:00 is needed."
        ) from None
    check_window(when, what)
    return when


def known_instant(when: dt.datetime | None) -> dt.datetime | None:
    """A time of a device in UTC; `None` where it says none, or one that is no time.

    Args:
        when: Without a zone it counts as UTC.
    """
    if when is None:
        return None
    try:
        return instant(when if when.tzinfo is not None else when.replace(tzinfo=dt.UTC), "time")
    except DataError:
        return None


def instant_of_seconds(seconds: float) -> dt.datetime | None:
    """An instant from seconds since 1970, as file systems keep them; `None` outside the window."""
    try:
        return known_instant(dt.datetime.fromtimestamp(seconds, dt.UTC))
    except (OverflowError, ValueError, OSError):
        return None


def hours_between(later: dt.datetime, earlier: dt.datetime) -> float:
    """Hours from one aware time to another, whatever their zones and years.

    Two times of one zone are subtracted by Python as the clocks on the wall show them; here
    the offsets count, and nothing is moved to UTC where it might not fit.
    """
    walls = later.replace(tzinfo=None) - earlier.replace(tzinfo=None)
    offsets = (later.utcoffset() or dt.timedelta(0)) - (earlier.utcoffset() or dt.timedelta(0))
    return (walls - offsets).total_seconds() / 3600.0


def hours_before(when: dt.datetime, hours: float) -> dt.datetime:
    """The instant some hours before another.

    Args:
        when: Aware.
        hours: Negative for later.

    Raises:
        ImplausibleTime: If it is not finite or longer than any culture.
    """
    return when - dt.timedelta(hours=culture_hours(hours, "the time between"))


def as_day(day: float) -> int | float:
    """A culture day [d] as people write it: a whole number where it is one, else a fraction.

    Example:
        >>> as_day(2.0), as_day(0.5)
        (2, 0.5)
    """
    whole = int(day)
    return whole if whole == day else float(day)


def day_number(day: float) -> int:
    """A whole number for a culture day [d], to draw random numbers with.

    A whole day is its own number. Between two days, minutes tell instants apart, whatever the
    interval between samples is.

    Example:
        >>> day_number(3), day_number(3.5)
        (3, 720003)
    """
    whole = math.floor(day)
    return whole + 1000 * round(1440.0 * (day - whole))


def culture_hours(value: Any, what: str) -> float:
    """Hours of a culture from outside.

    Args:
        value: A number [h].
        what: What it is, for the message.

    Raises:
        ImplausibleTime: If it is longer than `LONGEST_H` either way, or no finite number.
        DataError: If it is no number.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise DataError(f"{what} is {in_line(value)}; a number of hours is needed.")
    try:
        hours = float(value)
    except OverflowError:  # an integer beyond any float
        hours = math.inf
    if not abs(hours) <= LONGEST_H:
        raise ImplausibleTime(
            f"{what} is {hours:g} h, which is no time of a culture: no more than "
            f"{LONGEST_H:g} h (ten years) are taken."
        )
    return hours


def is_culture_time(value: Any) -> bool:
    """Whether a value is hours a culture can have; see `culture_hours`."""
    try:
        culture_hours(value, "")
    except DataError:
        return False
    return True
