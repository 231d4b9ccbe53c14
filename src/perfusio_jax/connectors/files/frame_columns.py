"""Columns of the campaign table: which there are, what a header says, where a row stands."""

import re
from typing import Any, Final

import numpy as np
import pandas as pd

from perfusio_jax._core import (
    AUXILIARY_TAGS,
    CONTROL_NAMES,
    REGISTRY,
    STREAM_TOTALS,
    DataError,
)
from perfusio_jax._core.text import LONGEST_NAME, cut

from ..tables.columns import nearest, other_meaning

ID_COLUMNS: Final = ("run_id", "reactor_id", "clone_id")
"""Text columns; they have no unit."""

NUMBER_COLUMNS: Final = (
    "time_h",
    "day",
    "volume_L",
    *REGISTRY,
    *CONTROL_NAMES,
    *STREAM_TOTALS,
    *AUXILIARY_TAGS,
)
"""Numeric columns a campaign table may have, in the order they are written."""

_WITH_UNIT: Final = re.compile(r"^(?P<name>[^\[(]+?)\s*[\[(](?P<unit>[^\])]*)[\])]$")


class Where:
    """Names a row in a message: the line of the file if there is one."""

    def __init__(self, lines: list[int] | None, word: str | None = None) -> None:
        self.lines = lines
        self.word = word or ("row" if lines is None else "line")

    def of(self, rows: np.ndarray) -> "Where":
        """The same for some of the rows."""
        lines = rows.tolist() if self.lines is None else [self.lines[row] for row in rows]
        return Where(lines, self.word)

    def __call__(self, row: int) -> str:
        """A phrase that names a row."""
        return f"{self.word} {row if self.lines is None else self.lines[row]}"


def unknown_column(name: str) -> str:
    """Why a column is refused, with the name it may stand for."""
    known = (*ID_COLUMNS, *NUMBER_COLUMNS)
    near = nearest(name)
    hint = f" Did you mean '{near}'?" if near in known else ""
    return f"column '{cut(name)}' is not known.{hint} Known columns: {', '.join(known)}."


def read_header(frame: pd.DataFrame) -> tuple[list[str], dict[str, str]]:
    """Bare column names, and the units some headers carry in brackets."""
    names, units = [], {}
    for label in map(str, frame.columns):
        name = label.strip()
        found = _WITH_UNIT.match(name) if len(name) <= LONGEST_NAME else None
        if found and found["name"].strip() in NUMBER_COLUMNS:
            name = found["name"].strip()
            units[name] = found["unit"].strip()
        names.append(name)
    return names, units


def check_columns(names: list[str], unknown: str) -> tuple[str, ...]:
    """Columns outside the contract, which the caller lets go.

    Raises:
        DataError: If a name occurs twice, is unknown and not let go, or run or time are missing.
    """
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise DataError(f"column {', '.join(twice)} occurs more than once.")
    strangers = [n for n in names if n not in ID_COLUMNS and n not in NUMBER_COLUMNS]
    if strangers and unknown != "ignore":
        raise DataError(unknown_column(strangers[0]))
    if "run_id" not in names or not {"time_h", "day"} & set(names):
        raise DataError(
            "a campaign table needs the columns run_id and time_h (or day); it has "
            f"{cut(', '.join(names), 1000)}."
        )
    return tuple(strangers)


def without_homonyms(
    names: list[str], stated: dict[str, Any], unknown: str, odd: list[str]
) -> list[str]:
    """Names without those that mean something else in this table."""
    kept = []
    for name in names:
        text = other_meaning(name, str(stated.get(name, "")).strip(), names)
        if text and unknown != "ignore":
            raise DataError(
                f"{text.split(' and is left out')[0]}. Take the column out, or give it another "
                "name and read the table with unknown='ignore'."
            )
        if text:
            stated.pop(name, None)
            odd.append(f"{text.split('. ')[0]}.")
        kept.append(f"{name} (another)" if text else name)
    return kept
