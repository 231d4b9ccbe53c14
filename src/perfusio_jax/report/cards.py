"""Cards as parts of a report, as the page shows them, and as files of their own."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import perfusio_jax
from perfusio_jax._core import ConfigError
from perfusio_jax._core.text import cut
from perfusio_jax.viz import Card
from perfusio_jax.viz.card import card_text

from .document import Block, Document, Grid, Listing, Picture, Section, Words

ENDINGS: Final = (".html", ".pdf", ".md", ".json")
"""What a card is written as; `.json` is kept for reports and the page."""


def card_blocks(card: Card, *, has_figure: bool = True) -> list[Block]:
    """A card as a report holds it.

    Args:
        card: The card.
        has_figure: Whether its figure is drawn, if it has one.
    """
    blocks: list[Block] = [Words(line, is_warning=True) for line in card.warnings]
    if len(card.sentences) == 1:
        blocks.append(Words(card.sentences[0]))
    elif card.sentences:
        blocks.append(Listing(card.sentences))
    for table in card.tables:
        blocks += [Words(table.title)] if table.title else []
        blocks.append(Grid(table.heads, table.rows, table.numeric))
        blocks += [Words(table.note)] if table.note else []
    if card.figure is not None and has_figure:
        blocks.append(Picture(card.figure, card.title))
    if card.source:
        blocks.append(Words(f"From: {card.source}"))
    return blocks


def card_document(card: Card) -> Document:
    """A card as a report of its own."""
    facts = [("Command", f"perfusio-jax {card.command}"), ("From", card.source or "–"),
             ("Program", f"perfusio-jax {perfusio_jax.__version__}")]  # fmt: skip
    return Document(
        cut(card.title, 160), facts, [Section("Conclusion", card_blocks(card._replace(source="")))]
    )


def write_card(card: Card, path: Path) -> None:
    """Write a card.

    Args:
        card: The card.
        path: File; its ending, one of `ENDINGS`, says as what.

    Raises:
        ConfigError: If it has another ending, or nothing can set a PDF here.
    """
    from .html_page import html_page
    from .markdown_text import markdown_text
    from .pdf_pages import pdf_pages

    writers: dict[str, Callable[[Card], bytes]] = {
        ".html": lambda c: html_page(card_document(c)).encode(),
        ".pdf": lambda c: pdf_pages(card_document(c)),
        ".md": lambda c: markdown_text(card_document(c)).encode(),
        ".json": lambda c: card_text(c).encode(),
    }
    if path.suffix.lower() not in writers:
        raise ConfigError(f"{path} ends in '{path.suffix}'; a card ends in {', '.join(ENDINGS)}.")
    content = writers[path.suffix.lower()](card)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def cards_section(cards: Sequence[Card], troubles: Sequence[str], who: str = "") -> list[Section]:
    """Cards that lie with a run, as a section of its report; none if there are none."""
    blocks: list[Block] = [Words(line, is_warning=True) for line in troubles]
    for card in cards:
        head: Any = f"{card.title} (perfusio-jax {card.command})"
        blocks += [Words(head), *card_blocks(card)]
    return [Section(f"What else was concluded{who}", blocks)] if blocks else []
