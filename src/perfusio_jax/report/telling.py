"""How reports tell what records hold: times, numbers, and tables that do not run on."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from .document import Block, Grid, Words

_MOST_ROWS: Final = 400
"""Rows of one table; how many more there are is said."""


def cut_table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], *, numeric: Sequence[int] = ()
) -> list[Block]:
    """A table, and how many rows more there are where it is long."""
    blocks: list[Block] = [Grid(heads, rows[:_MOST_ROWS], numeric)]
    if len(rows) > _MOST_ROWS:
        more = len(rows) - _MOST_ROWS
        blocks.append(Words(f"{more} more are in the audit trail.", is_warning=True))
    return blocks


def day_of(event: Mapping[str, Any]) -> str:
    """Culture day of a record [d]; empty where it has none."""
    return "" if event.get("day") is None else f"{float(event['day']):g}"


def stamp(text: Any) -> str:
    """A time stamp to the second, as people read it."""
    return str(text)[:19].replace("T", " ")


def number_text(value: Any) -> str:
    """A number to four figures; text as it is."""
    if not is_number(value):
        return "–" if value is None else str(value)
    return "–" if value != value else f"{value:.4g}"


def is_number(value: Any) -> bool:
    """Whether a value of a record is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)
