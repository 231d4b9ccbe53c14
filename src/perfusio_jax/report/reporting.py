"""`perfusio-jax report --out`: one file about a run or a campaign, as HTML, PDF or Markdown."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from perfusio_jax._core import ConfigError
from perfusio_jax.connectors import read_culture
from perfusio_jax.connectors.files.parts import title_of
from perfusio_jax.connectors.tables.file_rules import FileRules
from perfusio_jax.viz import show_card

from .campaign_report import campaign_cards, campaign_document
from .document import Document
from .golden import compared_at
from .html_page import html_page
from .in_short import show_runs
from .markdown_text import markdown_text
from .pdf_pages import pdf_pages, require_weasyprint
from .run_record import read_records
from .run_report import run_document

SUFFIXES: Final = (".html", ".pdf", ".md", ".markdown")
"""Endings of reports."""


def report_on_run(place: Path, out: Path, *, references: Sequence[str] = (), console: Any) -> None:
    """Write the report on the runs at a place.

    Args:
        place: Run folder, or one above several.
        out: File to write; its ending says as what.
        references: Runs that those of the place are compared with; see `split_runs`.
        console: Where to print.

    Raises:
        ConfigError: If there is no run there, or nothing can write that kind of file here.
        JournalError: If a journal cannot be read.
    """
    _check(out)
    records = read_records(place)
    beside = compared_at([place], references) if references else []
    _write(run_document(records, place, beside=beside), out, console)
    show_runs(records, console)


def report_on_tables(
    tables: Sequence[Path],
    out: Path,
    *,
    references: Sequence[str] = (),
    culture: str | None = None,
    console: Any,
    rules: FileRules | None = None,
) -> None:
    """Write the report on a campaign.

    Args:
        tables: Its files.
        out: File to write; its ending says as what.
        references: Runs that the others are compared with; see `split_runs`.
        culture: Which culture; see `read_culture`.
        console: Where to print.
        rules: How the files are read.

    Raises:
        ConfigError: If nothing can write that kind of file here.
        DataError: If the tables cannot be read.
    """
    _check(out)
    beside = compared_at(tables, references, culture, rules) if references else []
    document = campaign_document(tables, culture=culture, rules=rules, beside=beside)
    _write(document, out, console)


def show_tables(
    tables: Sequence[Path],
    *,
    culture: str | None = None,
    console: Any,
    rules: FileRules | None = None,
) -> None:
    """Print what a campaign comes to.

    Args:
        tables: Its files.
        culture: Which culture; see `read_culture`.
        console: Where to print.
        rules: How the files are read.

    Raises:
        DataError: If the tables cannot be read.
    """
    table = read_culture(list(tables) if len(tables) > 1 else tables[0], culture, rules)
    for card in campaign_cards(table, title_of(list(tables))):
        console.print(f"{card.title}:", soft_wrap=True)
        show_card(card, console)


def _check(out: Path) -> None:
    """Refuse what cannot be written before the work."""
    if out.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{out} ends in '{out.suffix}'; a report ends in {', '.join(SUFFIXES)}.")
    if out.suffix.lower() == ".pdf":
        require_weasyprint()


def _write(document: Document, out: Path, console: Any) -> None:
    with console.status(f"writing {out.name}"):
        suffix = out.suffix.lower()
        if suffix == ".html":
            content = html_page(document).encode()
        elif suffix == ".pdf":
            content = pdf_pages(document)
        else:
            content = markdown_text(document).encode()
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(content)
    console.print(f"report: {out}", soft_wrap=True)
