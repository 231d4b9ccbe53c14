"""What looks odd about cells before they are samples: dates without a time, names all but alike."""

import datetime as dt
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from perfusio_jax._core import HOURS_PER_DAY
from perfusio_jax._core.text import in_line

_MIDNIGHT: Final = re.compile(r"\d[T ]{1,3}0?0:00(?::00(?:\.0+)?)?(?! ?[AaPp])")
_BLANK: Final = re.compile(r"[\s_\-]+")
_ZEROS: Final = re.compile(r"(?<![0-9.])0+(?=[0-9])")
_WHOLE: Final = re.compile(r"([0-9]+)\.0+")
_DAYTIME: Final = re.compile(r"[T ](0?[5-9]|1[0-9]|2[0-2]):")
_SELDOM: Final = 5
"""Of so many stamps one at midnight may be a date alone; shifts of six hours have one in four."""
_MOST_SHOWN: Final = 3
_LATE_H: Final = 30.0 * HOURS_PER_DAY
"""No run is sampled so late for the first time [h]."""


def bare_dates(cells: Sequence[Any], lines: Sequence[int]) -> str:
    """Dates that state no time of the day, which are read as midnight; empty if there are none.

    A spreadsheet keeps a date as midnight of it: there it is one where all are, or where few are
    among samples of the daytime.

    Args:
        cells: Time stamps, as the file has them.
        lines: Their lines.
    """
    bare, midnight, n, n_daytime = [], [], 0, 0
    for cell, line in zip(cells, lines, strict=True):
        text = "" if cell is None else str(cell).strip()
        if not any(sign.isdigit() for sign in text):
            continue
        n += 1
        if (isinstance(cell, dt.date) and not isinstance(cell, dt.datetime)) or ":" not in text:
            bare.append(line)
        elif _MIDNIGHT.search(text):
            midnight.append(line)
        else:
            n_daytime += bool(_DAYTIME.search(text)) or "m" in text.casefold()
    if not bare and midnight:
        others = n - len(midnight)
        if others and (n_daytime < others or _SELDOM * len(midnight) >= n):
            return ""
        bare = midnight
    if not bare:
        return ""
    return (
        f"sampled_at is a date without a time of the day in {len(bare)} of {n} rows (first line "
        f"{bare[0]}), which is read as midnight"
    )


def late_start(first_h: float) -> str:
    """A first sample long after the inoculation, as a wrong year makes it; empty if it is none.

    Args:
        first_h: Time of the first sample of a run by its start [h].
    """
    if not first_h > _LATE_H:
        return ""
    days = first_h / HOURS_PER_DAY
    return (
        f"its first sample is {days:.3g} days after the inoculation: is the start that of this run?"
    )


def look_alikes(name: str, values: Iterable[Any]) -> list[str]:
    """Names that differ in case, blanks or zeros alone, a sentence each: `1`, `01` and `1.0`.

    Args:
        name: Column they stand in.
        values: Its cells.
    """
    found: dict[str, dict[str, None]] = {}
    for value in values:
        text = "" if value is None else str(value).strip()
        if text:
            found.setdefault(_folded(text), {})[text] = None
    several = [list(names) for names in found.values() if len(names) > 1]
    told = [
        f"{', '.join(in_line(text) for text in names)} are {len(names)} names under {name}: are "
        "they one?"
        for names in several[:_MOST_SHOWN]
    ]
    if len(several) > _MOST_SHOWN:
        told.append(f"and {len(several) - _MOST_SHOWN} more such names under {name}")
    return told


def _folded(text: str) -> str:
    whole = _WHOLE.fullmatch(text)
    return _ZEROS.sub("", _BLANK.sub("", (whole[1] if whole else text).casefold()))
