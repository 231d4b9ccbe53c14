"""Time stamps by a format somebody states, made ISO 8601."""

import datetime as dt
import math
import re
from typing import Any, Final

from perfusio_jax._core import ConfigError, DataError
from perfusio_jax._core.text import in_line, plain_number

EXCEL: Final = "excel"
"""Days since the last day but one of 1899, as spreadsheets count them."""

_EPOCH: Final = dt.datetime(1899, 12, 30)
_FIRST_DAY, _LAST_DAY = 25_569.0, 110_000.0
"""1970 and 2201."""
_DIRECTIVES: Final = frozenset("dmyYHIMSfpzbBajAZ%")
_LONGEST: Final = 64


def check_date_format(text: str) -> None:
    """Refuse what is no format of a date.

    Raises:
        ConfigError: If a directive is not known, or day, month or year is missing.
    """
    if text == EXCEL:
        return
    found = re.findall(r"%(.?)", text)
    strange = [d for d in found if d not in _DIRECTIVES or d in ("", "Z")]
    has_date = {"d", "m", "y"} <= {{"Y": "y", "b": "m", "B": "m"}.get(d, d) for d in found}
    if strange or not has_date or len(text) > _LONGEST:
        raise ConfigError(
            f"date_format is {in_line(text)}; a format with day, month and year is meant, such as "
            "'%d.%m.%y %H:%M' or '%m/%d/%Y %I:%M %p', or 'excel' for days since 1899-12-30."
        )


def by_format(cell: Any, form: str, where: str) -> Any:
    """A cell of a column of time stamps in ISO 8601; what is empty stays as it is.

    Args:
        cell: As the file has it.
        form: See `check_date_format`.
        where: What is read, for the message.

    Raises:
        DataError: If the cell is not of that form.
    """
    if cell is None or isinstance(cell, dt.datetime | dt.date):
        return cell
    text = str(cell).strip()
    if not text:
        return cell
    if form == EXCEL:
        return _of_serial(text, where)
    try:
        if len(text) > _LONGEST:
            raise ValueError
        return dt.datetime.strptime(text, form).isoformat()
    except ValueError:
        raise DataError(
            f"{where} is {in_line(text)}, which is not of the form {form!r} (--date-format)."
        ) from None


def _of_serial(text: str, where: str) -> str:
    try:
        days = plain_number(text.replace(",", "."))
    except ValueError:
        days = math.nan
    if not _FIRST_DAY <= days < _LAST_DAY:
        raise DataError(
            f"{where} is {in_line(text)}, which is no day of a spreadsheet (25569 is 1970-01-01)."
        )
    seconds = round(days * 86_400.0)
    return (_EPOCH + dt.timedelta(seconds=seconds)).isoformat()
