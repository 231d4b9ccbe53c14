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
from perfusio_jax._core.text import LONGEST_NAME, cut, in_line

from ..tables.suggestions import fits, nearest, other_meaning
from ..tables.vocabulary import OURS, TIMES, Vocabulary

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


def number_columns(words: Vocabulary) -> tuple[str, ...]:
    """Numeric columns a table may have: ours, and those of a process behind them."""
    return NUMBER_COLUMNS if words is OURS else (*TIMES, *words.numbers)


def unknown_column(name: str, words: Vocabulary = OURS) -> str:
    """Why a column is refused, with the name it may stand for."""
    known = (*ID_COLUMNS, *number_columns(words))
    near = nearest(name, words=words)
    hint = f" Did you mean '{near}'?" if near in known else ""
    of = f" of process '{words.process}'" if words.process else ""
    return (
        f"column '{cut(name)}' is not known{of}.{hint} Known columns: {', '.join(known)}. Columns "
        "nobody knows are left out and told with unknown='ignore' (--unknown ignore)."
    )


def read_header(frame: pd.DataFrame, words: Vocabulary = OURS) -> tuple[list[str], dict[str, str]]:
    """Bare column names, and the units some headers carry in brackets."""
    names, units = [], {}
    known = {*number_columns(words), *words.latent}
    for label in map(str, frame.columns):
        name = label.strip()
        found = _WITH_UNIT.match(name) if len(name) <= LONGEST_NAME else None
        if found and found["name"].strip() in known:
            name = found["name"].strip()
            units[name] = found["unit"].strip()
        names.append(name)
    return names, units


def cells_of_process(
    names: list[str], stated: dict[str, Any], words: Vocabulary, odd: list[str]
) -> list[str]:
    """Names with those of cells as the process has them: a column VCD holds its Xv."""
    kept = words.with_cells(names)
    for ours, theirs in zip(names, kept, strict=True):
        if ours != theirs:
            odd.append(f"{ours} is read as {theirs} of process '{words.process}'.")
            if ours in stated:
                stated[theirs] = stated.pop(ours)
    return kept


def without_misfits(
    names: list[str], stated: dict[str, Any], words: Vocabulary, odd: list[str]
) -> list[str]:
    """Names without tags the process does not name whose unit is none of ours for them."""
    kept = []
    for name in names:
        unit = str(stated.get(name, "")).strip()
        is_odd = name in AUXILIARY_TAGS and name not in words.units and unit
        is_odd = bool(is_odd) and not fits(name, unit)
        if is_odd:
            stated.pop(name)
            odd.append(f"{name} is in {in_line(unit)}, which is no unit of it, and left out.")
        kept.append(f"{name} (another)" if is_odd else name)
    return kept


def check_columns(names: list[str], unknown: str, words: Vocabulary = OURS) -> tuple[str, ...]:
    """Columns outside the contract, which the caller lets go.

    Raises:
        DataError: If a name occurs twice, is unknown or a control the process does not know and
            not let go, or run or time are missing.
    """
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise DataError(f"column {', '.join(twice)} occurs more than once.")
    known = {*ID_COLUMNS, *number_columns(words), *words.latent}
    unset = [n for n in names if n in words.strange_controls] if words.process else []
    strangers = [n for n in names if n not in known]
    if strangers and unknown != "ignore":
        raise DataError(unknown_column(strangers[0], words))
    if unset and unknown != "ignore":
        raise DataError(
            f"column '{unset[0]}' is a control that process '{words.process}' does not know; "
            f"allowed: {', '.join(words.controls) or 'none'}. Add it to the process, or say "
            "unknown='ignore' to leave it out."
        )
    strangers = [n for n in names if n in {*strangers, *unset}]
    if "run_id" not in names or not {"time_h", "day"} & set(names):
        raise DataError(
            "a campaign table needs the columns run_id and time_h (or day); it has "
            f"{cut(', '.join(names), 1000)}. A column map gives yours those names: perfusio-jax "
            "inspect FILE --write-map columns.toml writes one to look over, --map columns.toml "
            "takes it."
        )
    return tuple(strangers)


def without_homonyms(
    names: list[str],
    stated: dict[str, Any],
    unknown: str,
    odd: list[str],
    words: Vocabulary = OURS,
) -> list[str]:
    """Names without those that mean something else in this table."""
    kept = []
    for name in names:
        unit = str(stated.get(name, "")).strip()
        text = "" if name in words.spans else other_meaning(name, unit, names)
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
