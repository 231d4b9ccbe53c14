"""A report as a value: sections of text, tables and figures, whatever it is written as."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Words(NamedTuple):
    """A paragraph."""

    text: str
    """From anywhere; it is shown as it stands."""
    is_warning: bool = False
    """Whether it stands out."""


class Listing(NamedTuple):
    """A list of sentences."""

    items: Sequence[str]
    """One each."""


class Grid(NamedTuple):
    """A table."""

    heads: Sequence[str]
    """Heading of each column."""
    rows: Sequence[Sequence[str]]
    """Cells, row by row."""
    numeric: Sequence[int] = ()
    """Columns of numbers, set flush right."""


class Command(NamedTuple):
    """A line to type."""

    text: str
    """The line."""


class Picture(NamedTuple):
    """A figure, drawn when the report is written."""

    draw: "Callable[[], Figure]"
    """Draws it; a `DataError` says why it cannot."""
    caption: str
    """What it is."""


class SignatureLines(NamedTuple):
    """Lines on which people sign."""

    roles: Sequence[str]
    """Who signs."""


Block = Words | Listing | Grid | Command | Picture | SignatureLines


class Section(NamedTuple):
    """A part of a report with a heading of its own."""

    title: str
    """Heading."""
    blocks: Sequence[Block]
    """What it holds."""


class Document(NamedTuple):
    """A whole report."""

    title: str
    """Heading."""
    facts: Sequence[tuple[str, str]]
    """What stands at the head: name and value."""
    sections: Sequence[Section]
    """Its parts, in order."""
