"""What runs came to, printed; works without JAX, as whatever only looks at a run does."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from perfusio_jax.viz import cards_in, show_card

from .run_card import run_card
from .run_record import RunRecord, read_records


def show_run(place: Path, console: Any) -> None:
    """Print what the runs at a place come to, and what else was concluded about them.

    Args:
        place: Run folder, or one above several.
        console: Where to print.

    Raises:
        ConfigError: If there is no run there.
        JournalError: If a journal cannot be read.
    """
    records = read_records(place)
    show_runs(records, console)
    for folder in dict.fromkeys(record.folder for record in records):
        cards, troubles = cards_in(folder)
        for card in cards:
            console.print(f"\n{card.title} (perfusio-jax {card.command}):", soft_wrap=True)
            show_card(card, console)
        for line in troubles:
            console.print(line, soft_wrap=True)


def show_runs(records: Sequence[RunRecord], console: Any) -> None:
    """Print the cards of runs.

    Args:
        records: Runs.
        console: Where to print.
    """
    for record in records:
        card = run_card(record)
        console.print(f"{card.title}:", soft_wrap=True)
        show_card(card, console)
