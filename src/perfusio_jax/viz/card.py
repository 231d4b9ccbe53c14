"""What a command concludes, once: terminal, page and report show the same words and digits."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from perfusio_jax._core import DataError
from perfusio_jax._core.limits import SETTINGS_BYTES, parse_json, read_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIX: Final = ".json"
"""Ending of a card that is kept."""

CARDS: Final = "cards"
"""Folder of a run in which cards are kept that its report and its page show."""

_FORMAT: Final = "perfusio-jax card 1"


class Table(NamedTuple):
    """Rows under headings; every number is a text already, so that nobody rounds it anew."""

    title: str
    """What it is of; may be empty."""
    heads: tuple[str, ...]
    """Heading of each column, with its unit."""
    rows: tuple[tuple[str, ...], ...]
    """Cells, row by row."""
    numeric: tuple[int, ...] = ()
    """Columns of numbers, set flush right."""
    note: str = ""
    """A sentence below it."""
    is_split: bool = False
    """Whether a terminal that is too narrow for it is shown several, of some columns each."""


class Card(NamedTuple):
    """What a command concludes."""

    command: str
    """Which command says it."""
    title: str
    """What it is about."""
    sentences: tuple[str, ...]
    """The conclusions, the first one first."""
    warnings: tuple[str, ...] = ()
    """What speaks against them."""
    tables: tuple[Table, ...] = ()
    """The numbers behind them."""
    source: str = ""
    """What they come from: tables, models, methods."""
    figure: "Callable[[], Figure] | None" = None
    """Draws them; it is not kept with a card that is written."""


def show_card(card: Card, console: Any) -> None:
    """Print a card: its tables, its sentences, and last what speaks against them.

    Args:
        card: The card. Its title is not printed: a person has just asked for it.
        console: Where to print.
    """
    for table in card.tables:
        for drawn in _split(table, console.width) if table.is_split else [_rich(table)]:
            console.print(drawn)
    for line in (*card.sentences, *card.warnings):
        console.print(line, soft_wrap=True)


def _rich(table: Table) -> Any:
    from rich.table import Table as Drawn

    drawn = Drawn(title=table.title or None, caption=table.note or None)
    for k, head in enumerate(table.heads):
        drawn.add_column(head, justify="right" if k in table.numeric else "left", no_wrap=k == 0)
    for row in table.rows:
        drawn.add_row(*row)
    return drawn


def _split(table: Table, width: int) -> list[Any]:
    """Tables of as many columns each as there is room for, the first column in all of them."""
    from rich import box
    from rich.table import Table as Drawn

    widths = [
        max(len(text) for text in (head, *(row[k] for row in table.rows)))
        for k, head in enumerate(table.heads)
    ]
    groups: list[list[int]] = []
    room = 0
    for k in range(1, len(table.heads)):
        if not groups or widths[k] + 3 > room:
            groups.append([])
            room = width - widths[0] - 6
        groups[-1].append(k)
        room -= widths[k] + 3
    found = []
    for n, group in enumerate(groups):
        drawn = Drawn(title=None if n else table.title, box=box.SIMPLE, title_justify="left")
        for k in (0, *group):
            drawn.add_column(table.heads[k], justify="right", no_wrap=True)
        for row in table.rows:
            drawn.add_row(row[0], *(row[k] for k in group))
        found.append(drawn)
    return found


def card_text(card: Card) -> str:
    """A card as the content of a file."""
    told = {"format": _FORMAT, **card._asdict(), "tables": [t._asdict() for t in card.tables]}
    del told["figure"]
    return json.dumps(told, indent=1, ensure_ascii=False) + "\n"


def read_card(path: Path) -> Card:
    """A card that was kept.

    Args:
        path: Its file.

    Raises:
        DataError: If it is none, or of a format this version does not know.
    """
    try:
        told = parse_json(read_file(path, most=SETTINGS_BYTES), str(path))
        if told["format"] != _FORMAT:
            raise ValueError(f"its format is {told['format']!r}, known is {_FORMAT!r}")
        tables = tuple(
            Table(
                str(t["title"]),
                _texts(t["heads"]),
                tuple(_texts(row) for row in t["rows"]),
                tuple(int(k) for k in t["numeric"]),
                str(t["note"]),
                bool(t["is_split"]),
            )
            for t in told["tables"]
        )
        if any(len(row) != len(t.heads) for t in tables for row in t.rows):
            raise ValueError("a row has more or fewer cells than there are headings")
        return Card(
            str(told["command"]),
            str(told["title"]),
            _texts(told["sentences"]),
            _texts(told["warnings"]),
            tables,
            str(told["source"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        why = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise DataError(f"{path} is no card as perfusio-jax writes it: {why}.") from None


def cards_in(folder: Path) -> tuple[list[Card], list[str]]:
    """Cards that are kept in a run folder, and what could not be read.

    Args:
        folder: The run folder; without a folder of cards in it there are none.

    Returns:
        The cards, in the order of their files' names, and a sentence for each file that could
        not be read as one.
    """
    found, troubles = [], []
    for path in sorted((folder / CARDS).glob(f"*{SUFFIX}")):
        try:
            found.append(read_card(path))
        except (DataError, OSError) as error:
            troubles.append(str(error))
    return found, troubles


def _texts(values: Sequence[Any] | Mapping[str, Any]) -> tuple[str, ...]:
    if not isinstance(values, list):
        raise TypeError(f"a list is needed where {type(values).__name__} was given")
    return tuple(str(value) for value in values)
