"""Delimited text without anything odd in it, cut up by column: nearly all long tables.

Nothing here copes with anything. A text with quotes, a row of another width, a header that stands
there again: whoever reads row by row treats that, and says what has to be said.
"""

import contextlib
import csv
import hashlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Final, NamedTuple

import numpy as np

from .raw import Coded, Numbering, RawTable

_PART: Final = 1 << 18
"""Characters that are cut up at once."""


class _Cut(NamedTuple):
    """A text that was cut up."""

    header: list[str]
    """Its first line."""
    columns: list[Coded]
    """What stands below."""
    lines: list[int]
    """Line each row stands on."""


_REMEMBERED: ContextVar[dict[tuple[bytes, str], _Cut | None] | None] = ContextVar(
    "_REMEMBERED", default=None
)


@contextlib.contextmanager
def cutting_up_once() -> Iterator[None]:
    """Within it a text that is read again, with other names of columns, is not cut up again."""
    if _REMEMBERED.get() is not None:
        yield
        return
    token = _REMEMBERED.set({})
    try:
        yield
    finally:
        _REMEMBERED.reset(token)


def split_plain(text: str, separator: str, table: RawTable) -> bool:
    """Cut a text into a header and columns, if it is plain throughout.

    Args:
        text: From the header on, blank lines apart.
        separator: Between the cells.
        table: Takes header, columns, lines and notes; left as it is where the text is not plain.

    Returns:
        Whether it is.
    """
    if '"' in text or "\0" in text:
        return False
    if "\r" in text:
        text = text.replace("\r\n", "\n")
        if "\r" in text:
            return False
    made = _REMEMBERED.get()
    key = None if made is None else (_digest(text), separator)
    if made is None or key not in made:
        found = _cut_up(text, separator)
        if made is not None and key is not None:
            made[key] = found
    else:
        found = made[key]
    if found is None:
        return False
    return _shaped(found.header, found.columns, [*found.lines], table)


def _digest(text: str) -> bytes:
    found = hashlib.sha256()
    for at in range(0, len(text), _PART):
        found.update(text[at : at + _PART].encode("utf-8", "surrogatepass"))
    return found.digest()


def _cut_up(text: str, separator: str) -> "_Cut | None":
    """Header, columns and lines of a text without quotes; None where a row has another width."""
    parts = _lines(text)
    header: list[str] = []
    numbers: list[Numbering] = []
    codes: list[list[np.ndarray]] = []
    lines: list[int] = []
    for first, part in parts:
        filled = part if "" not in part else [line for line in part if line]
        where = range(first, first + len(part))
        if len(filled) < len(part):
            where = [number for number, line in zip(where, part, strict=True) if line]
        if filled and not header:
            header, filled, where = filled[0].split(separator), filled[1:], where[1:]
            numbers = [Numbering() for _ in header]
            codes = [[] for _ in header]
        if not filled:
            continue
        width = len(header)
        if {line.count(separator) for line in filled} != {width - 1}:
            return None
        if max(map(len, filled)) >= csv.field_size_limit():
            return None
        cells = separator.join(filled).split(separator)
        for n, number in enumerate(numbers):
            codes[n].append(
                np.fromiter(map(number.__getitem__, cells[n::width]), np.int32, len(filled))
            )
        lines += where
    if not lines or not header[0].strip():
        return None  # a table without rows, or of lines that may be blank
    columns = [
        Coded([*number], np.concatenate(part)) for number, part in zip(numbers, codes, strict=True)
    ]
    return _Cut(header, columns, lines)


def _shaped(header: list[str], columns: list[Coded], lines: list[int], table: RawTable) -> bool:
    """Put header and columns into a table, if they are as `shape.shape` would have them."""
    labels = [cell.strip() for cell in header]
    named = max(n + 1 for n, label in enumerate(labels) if label)
    beside = any(cell.strip() for column in columns[named:] for cell in column.cells)
    is_blank = np.ones(len(lines), bool)
    for column in columns:
        is_blank &= np.asarray([not cell.strip() for cell in column.cells])[column.codes]
    if beside or is_blank.any():
        return False
    first = labels[0].casefold()
    if any(cell.strip().casefold() == first for cell in columns[0].cells):
        return False
    table.header = [
        label or f"column {n + 1} without a name" for n, label in enumerate(labels[:named])
    ]
    table.put_columns(columns[:named])
    table.lines = lines
    if named < len(labels):
        table.notes.append(
            f"{len(lines) + 1} lines end with a separator; the empty field after it is left out"
        )
    return True


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """Lines of a text, many at a time, with the number of the first of them."""
    at, number = 0, 1
    while at < len(text):
        end = text.rfind("\n", at, at + _PART) + 1
        if end <= at:
            end = text.find("\n", at) + 1 or len(text)
        elif end < len(text) <= at + _PART:
            end = len(text)
        part = text[at:end].removesuffix("\n").split("\n")
        yield number, part
        at, number = end, number + len(part)
