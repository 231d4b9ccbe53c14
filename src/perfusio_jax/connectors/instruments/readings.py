"""One cell of an instrument: a number, a limit of its range, or nothing, never something else."""

import datetime as dt
import math
import re
from typing import Any, Final, NamedTuple

from perfusio_jax._core import DataError
from perfusio_jax._core.text import in_line

from ..tables.cells import parse_number, qualified
from ..tables.stamps import as_iso, find_order
from .grid import as_text, is_blank

_NO_VALUE: Final = frozenset({"error", "err", "err.", "invalid", "fail", "failed", "failure"})
"""What instruments write where a measurement failed, in lower case."""
_DATE: Final = re.compile(
    r"(?a:(?P<day>\d{1,2})[ -](?P<month>[A-Za-z]{3,9})\.?[ -](?P<year>\d{4})"
    r"(?: {1,3}(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2}))?"
    r"(?: ?(?P<half>[AaPp])\.?[Mm]\.?)?)?)"
)
_SLASHED: Final = re.compile(
    r"(?a:(?P<one>\d{1,2})(?P<mark>[./-])(?P<other>\d{1,2})(?P=mark)\d{4})"
)
_MONTHS: Final[tuple[str, ...]] = tuple("jan feb mar apr may jun jul aug sep oct nov dec".split())
_RATIO: Final = re.compile(r"(?a:(?P<one>\d{1,6})\s*[:/]\s*(?P<other>\d{1,6}))")
_LONGEST: Final = 64


class Reading(NamedTuple):
    """What a cell says."""

    cell: Any
    """A number (as text where the file is text), `< limit` or `> limit`, or `None`."""
    why: str = ""
    """Why there is nothing, where the file says so; empty where it only says nothing."""


NOTHING: Final = Reading(None)


def read_number(cell: Any, decimal: str, label: str, where: str) -> Reading:
    """A cell of a column of numbers.

    Args:
        cell: From a file.
        decimal: Decimal mark of text.
        label: What stands above it, for the message.
        where: Its line, for the message, such as "line 3".

    Raises:
        DataError: If it is neither a number nor a limit nor what instruments write for nothing.
    """
    if is_blank(cell):
        return NOTHING
    number = None if isinstance(cell, bool) else parse_number(cell, decimal)
    if isinstance(number, float) and math.isfinite(number):
        return Reading(cell.strip() if isinstance(cell, str) else cell)
    text = as_text(cell)
    if number is None and not isinstance(cell, bool):
        return NOTHING
    if text.casefold() in _NO_VALUE or text.startswith("#"):
        return Reading(None, f"'{text[:20]}'")
    found = qualified(text)
    if found is not None and found.sign and not found.unit:
        return limit_of(text, decimal)
    raise DataError(
        f"{where}: '{label}' is {in_line(cell)}, which is no number; allowed are numbers, limits "
        "such as '< 0.5' and cells without anything. Was the export changed by hand?"
    )


def limit_of(text: str, decimal: str) -> Reading:
    """A limit such as `< 8.706`; nothing where it is none, or is zero and so says nothing."""
    found = qualified(text)
    number = None if found is None or not found.sign else parse_number(found.number, decimal)
    if found is None or not isinstance(number, float) or not 0 < number < math.inf:
        return Reading(None, "a limit that is not known")
    return Reading(f"{found.sign} {found.number}")


def dilution_of(cell: Any, decimal: str) -> float | None:
    """A dilution such as `1:5`, `1/5`, `20.00`; `None` where it is none.

    Example:
        >>> dilution_of("1:01", "."), dilution_of("1/5", "."), dilution_of("20.00", ".")
        (1.0, 5.0, 20.0)
    """
    text = as_text(cell)
    if is_blank(cell) or len(text) > _LONGEST:
        return None
    ratio = _RATIO.fullmatch(text)
    if ratio is not None:
        one, other = int(ratio["one"]), int(ratio["other"])
        return max(one, other) / min(one, other) if min(one, other) else None
    number = parse_number(text, decimal)
    return number if isinstance(number, float) and math.isfinite(number) else None


def read_times(
    cells: list[Any], label: str, places: list[str]
) -> tuple[list[str | None], list[str]]:
    """Times of a column in ISO 8601, with an offset only where the file has one.

    Args:
        cells: The column.
        label: What stands above it, for the message.
        places: The line of each, for the message.

    Returns:
        The times; what cannot be told apart or read stays as it is. Then those that stayed.

    Raises:
        DataError: If some prove the day first and others the month, or one is a number.
    """
    texts = [as_text(cell) for cell in cells]
    order = find_order(text for text in texts if len(text) <= _LONGEST)
    found: list[str | None] = []
    left: list[str] = []
    for cell, text, where in zip(cells, texts, places, strict=True):
        if isinstance(cell, dt.datetime | dt.date):
            found.append(cell.isoformat())
            continue
        if isinstance(cell, int | float):
            raise DataError(
                f"{where}: '{label}' is {in_line(cell)}, a number and no time; give the column a "
                "format of dates, or export the file again."
            )
        iso = _iso(text, label, order)
        found.append(iso or text or None)
        if text and iso is None:
            left.append(text)
    return found, left


def _iso(text: str, label: str, order: Any) -> str | None:
    if len(text) > _LONGEST or not text.isascii():
        return None
    named = _DATE.fullmatch(text)
    slashed = _SLASHED.match(text)
    try:
        if named is not None:
            return _of_parts(named)
        if slashed is not None:
            same = int(slashed["one"]) == int(slashed["other"])
            if order is None and not same:
                return None
            text = as_iso(text, f"'{label}'", order or "dmy")
        return dt.datetime.fromisoformat(text).isoformat()
    except (ValueError, DataError):  # the 31st of February, 13 PM
        return None


def _of_parts(found: re.Match[str]) -> str:
    month = _MONTHS.index(found["month"].casefold()[:3]) + 1
    hour = int(found["hour"] or 0)
    if found["half"]:
        if not 1 <= hour <= 12:
            raise ValueError
        hour = hour % 12 + (12 if found["half"] in "pP" else 0)
    return dt.datetime(
        int(found["year"]),
        month,
        int(found["day"]),
        hour,
        int(found["minute"] or 0),
        int(found["second"] or 0),
    ).isoformat()
