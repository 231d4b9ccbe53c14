"""One cell of text: thousands and decimal marks, its own unit, the limit of an assay.

A mark is read where the text proves what it is. `1.437,5` and `0,5` prove the decimal comma,
`1,437.5` the point; `1,437` alone proves nothing and is left to whoever knows.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

from perfusio_jax._core import DataError, UnitError
from perfusio_jax._core.text import in_line, plain_number

from .vocabulary import OURS, Vocabulary

MISSING: Final = frozenset(
    {
        "",
        "na",
        "n/a",
        "nan",
        "null",
        "none",
        "-",
        "--",
        "---",
        ".",
        "n.a.",
        "n. a.",
        "n.d.",
        "n. d.",
    }
    | {"nd", "n.m.", "n.b.", "n. b.", "k.a.", "k. a.", "-/-", "not measured", "not determined"}
    | {"\u2013", "\u2014", "\u2212", "nicht bestimmt", "nicht gemessen"}
    | {"#n/a", "#na", "#nv", "#value!", "#wert!", "#div/0!"}
    | {"#ref!", "#bezug!", "#num!", "#zahl!", "#name?", "#null!"}
)
"""Texts that mean that nothing was measured, in lower case."""
BLANK_GROUP: Final = re.compile(
    r"(?a:[+-]?\d{1,3}(?:[ \u00a0\u2009\u202f'\u2019]\d{3})+(?:[.,]\d+)?)"
)
"""Thousands set apart by a blank or an apostrophe: never anything else."""
_BLANKS: Final = re.compile("[ \u00a0\u2009\u202f'\u2019]")
_DECIMAL: Final = {
    mark: re.compile(rf"(?a:[+-]?\d*\{mark}\d+(?:[eE][+-]?\d+)?)") for mark in (".", ",")
}
_ONE_POINT: Final = re.compile(r"[0-9]*\.[0-9]+")
_ONE_GROUP: Final = re.compile(r"[1-9][0-9]{0,2}\.[0-9]{3}")
_PLAIN: Final = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_NOT_PLAIN: Final = {
    mark: re.compile(rf"(?m)^(?!-?[0-9]+(?:\{mark}[0-9]+)?$)") for mark in (".", ",")
}
"""Where one of many lines is no number without thousands."""
_GROUPS: Final = {
    mark: re.compile(rf"(?a:[+-]?[1-9]\d{{0,2}}(?:\{mark}\d{{3}})+)") for mark in (".", ",")
}
"""Could be thousands; with two marks it must be."""
_BOTH: Final = {
    mark: re.compile(rf"(?a:[+-]?\d{{1,3}}(?:\{other}\d{{3}})+\{mark}\d+)")
    for mark, other in ((".", ","), (",", "."))
}
"""Thousands and decimals by two marks: proves both."""
_QUALIFIED: Final = re.compile(
    rf"(?a:(?P<sign>[<>\u2264\u2265]=?)?\s*(?P<number>{BLANK_GROUP.pattern}"
    r"|[+-]?(?:\d[\d.,'\u2019\u00a0\u2009\u202f]{0,30}|[.,]\d{1,30})"
    r"(?:[eE][+-]?\d{1,3})?))\s*(?P<unit>[%\u2030\u00b0\u00b5\u03bcA-Za-z][^<>]{0,30})?"
)
_BEYOND_RANGE: Final = re.compile(
    r"(?P<sign>[<>\u2264\u2265])\s*"
    r"(?:(?:TEST\s+RNG|TEST\s+RANGE|RANGE|LOD|LOQ|LLOQ|ULOQ|MIN|MAX)\s*[<>]?)?"
    r"|B?L?LO[DQ]|BDL|BLQ|(?P<above>ULOQ|AULOQ|ALOQ|ALQ)",
    re.IGNORECASE,
)
"""What analysers print beyond the range of an assay, without saying where it ends."""
_MORE: Final = re.compile(r"[^\d\s.,+-]")
"""What a cell holds that is more than a plain number."""
_LONGEST: Final = 64


class Qualified(NamedTuple):
    """A number that says more than itself."""

    sign: str
    """ "<" or ">" where it is a limit of the assay, else empty."""
    number: str
    """The number as text."""
    unit: str
    """Its unit, if the cell carries one."""


def qualified(text: str) -> Qualified | None:
    """A cell such as `< 0.05` or `98 %`; `None` if it is neither a limit nor has a unit."""
    found = _QUALIFIED.fullmatch(text.strip()) if len(text) <= _LONGEST else None
    if found is None or not (found["sign"] or found["unit"]):
        return None
    sign = {"\u2264": "<", "\u2265": ">"}.get((found["sign"] or "")[:1], (found["sign"] or "")[:1])
    return Qualified(sign, found["number"], (found["unit"] or "").strip())


def understood(
    text: str,
    name: str,
    unit: str,
    parse: Callable[[str], float | str | None],
    words: Vocabulary = OURS,
) -> tuple[float | None, str]:
    """A cell that is more than a number, for a column.

    Args:
        text: The cell.
        name: Canonical name of the column.
        unit: Its unit; empty for the canonical one.
        parse: Reads a plain number.
        words: Names and units of columns.

    Returns:
        The number in the column's unit, and "number", "below" (half the limit of the assay),
        "above" (the limit: it is more than the assay reads; no number where that is not stated),
        "under" (no number: it is less than a limit that is not stated) or "none".
    """
    if beyond := _BEYOND_RANGE.fullmatch(text.strip()[:_LONGEST]):
        is_above = beyond["above"] or (beyond["sign"] or "<") in ">\u2265"
        return None, "above" if is_above else "under"
    found = qualified(text)
    number = None if found is None else parse(found.number)
    if found is None or not isinstance(number, float) or not math.isfinite(number):
        return None, "none"
    if found.unit:
        try:
            number = float(words.between(found.unit, unit or words.unit(name), name)([number])[0])
        except UnitError:
            return None, "none"
    if found.sign == ">":
        return number, "above"
    return (0.5 * number, "below") if found.sign else (number, "number")


def to_tell(cell: str) -> str:
    """What of a cell tells the decimal mark: of a reading such as `98,5 %` its number."""
    found = qualified(cell) if _MORE.search(cell) else None
    return cell if found is None else found.number


def plain(text: str, decimal: str) -> str:
    """A number without thousands marks and with a decimal point.

    Args:
        text: One cell.
        decimal: Its decimal mark.

    Returns:
        What Python can read, if it is a number.

    Raises:
        ValueError: If it has a point that is neither the decimal mark nor one of thousands.
    """
    if decimal == "." and text.replace(".", "", 1).isdigit():
        return text  # nearly all there are
    if BLANK_GROUP.fullmatch(text):
        text = _BLANKS.sub("", text)
    other = "," if decimal == "." else "."
    if _GROUPS[other].fullmatch(text) or _BOTH[decimal].fullmatch(text):
        text = text.replace(other, "")
    if decimal == "." or "." not in text:
        return text.replace(",", ".") if decimal == "," else text
    raise ValueError(f"{in_line(text)} has a point, and a comma is the decimal mark")


def parse_number(cell: Any, decimal: str = ".") -> float | str | None:
    """One cell as a number.

    Args:
        cell: Text, number or `None`.
        decimal: Decimal mark of text.

    Returns:
        The number; `None` where nothing was measured; the text itself if it is no number.
    """
    if cell is None or isinstance(cell, bool):
        return None if cell is None else str(cell)
    if isinstance(cell, str):
        if decimal == "." and _PLAIN.fullmatch(cell):
            return float(cell)  # nearly all there are
        text = cell.strip()
        if text.casefold() in MISSING:
            return None
        try:
            number = plain_number(plain(text, decimal))
        except ValueError:
            return text
    else:
        try:
            number = float(cell)
        except (TypeError, ValueError, OverflowError):
            return in_line(cell)
    return None if math.isnan(number) else number


def parse_numbers(cells: Sequence[Any], decimal: str = ".") -> list[float | str | None]:
    """Cells as numbers, each as `parse_number` has it.

    Args:
        cells: Texts, numbers or `None`.
        decimal: Decimal mark of text.

    Returns:
        What `parse_number` gives for each.
    """
    joined = "\n".join(cells) if {*map(type, cells)} <= {str} else "\n\n"
    if joined.count("\n") != len(cells) - 1 or _NOT_PLAIN[decimal].search(joined):
        return [parse_number(cell, decimal) for cell in cells]
    return [*map(float, cells if decimal == "." else joined.replace(",", ".").split("\n"))]


def find_decimal(
    cells: Iterable[tuple[str, int]], separator: str | None, word: str = "line"
) -> str:
    """Decimal mark of a text table: never guessed where it could be a thousands mark.

    Args:
        cells: Every cell with its line.
        separator: Between the fields. Between semicolons a point may be a thousands mark.
        word: What a line is called in messages.

    Returns:
        "." or ",".

    Raises:
        DataError: If both marks are decimal, or nothing tells decimals from thousands.
    """
    marks = (".", ",")
    proofs: dict[str, str] = {}
    doubts: dict[str, str] = {}
    for cell, line in cells:
        if not ("." in cell or "," in cell):
            continue
        # what many cells before have proved, or left in doubt, one point and digits do once more
        if "," not in cell:
            if "." in proofs and _ONE_POINT.fullmatch(cell):
                continue
            if "." in doubts and _ONE_GROUP.fullmatch(cell):
                continue
        text = cell.strip()
        text = _BLANKS.sub("", text) if BLANK_GROUP.fullmatch(text) else text
        for mark in marks:
            other = "," if mark == "." else "."
            where = f"'{cell.strip()}' in {word} {line}"
            if _BOTH[mark].fullmatch(text):
                proofs.setdefault(mark, where)
                proofs.setdefault(f"thousands {other}", where)
            elif _GROUPS[mark].fullmatch(text):
                if text.count(mark) > 1:
                    proofs.setdefault(f"thousands {mark}", where)
                else:
                    doubts.setdefault(mark, where)
            elif _DECIMAL[mark].fullmatch(text):
                proofs.setdefault(mark, where)
    for mark in marks:  # a mark that groups thousands somewhere does so everywhere
        if f"thousands {mark}" in proofs:
            if mark in proofs:
                raise _two_marks(proofs[mark], proofs[f"thousands {mark}"])
            doubts.pop(mark, None)
    commas, points = proofs.get(","), proofs.get(".")
    if separator == "," and (commas or (doubts.get(",") and not points)):
        raise DataError(
            f"holds {commas or doubts[',']} between comma separators, which may be a decimal or a "
            "thousands mark: a decimal comma needs another separator, or say decimal=',' "
            "(--decimal comma or point, or in the sidecar)."
        )
    if commas and (points or doubts.get(".")):
        raise _two_marks(commas, points or doubts["."])
    if points and doubts.get(","):
        raise _two_marks(doubts[","], points)
    if commas:
        return ","
    if points:
        return "."
    if "thousands ." in proofs:
        return ","
    unclear = doubts.get(",") or (doubts.get(".") if separator == ";" else None)
    if unclear and "thousands ," not in proofs:
        raise DataError(
            f"holds {unclear}, where three digits follow the mark throughout: thousands or "
            "decimals? Say decimal=',' or '.' (--decimal comma or point, or in the sidecar)."
        )
    return "."


def _two_marks(one: str, other: str) -> DataError:
    return DataError(
        f"holds both {one} and {other}; use one decimal mark throughout, or say which it is "
        "(--decimal comma or point, or in the sidecar)."
    )
