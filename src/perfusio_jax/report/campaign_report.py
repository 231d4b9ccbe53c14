"""A campaign table as a report: its runs, their course, and what follows from them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

import perfusio_jax
from perfusio_jax._core import DataError
from perfusio_jax._core.text import shown_unit
from perfusio_jax.connectors import read_culture
from perfusio_jax.connectors.files.cultures import CultureTable
from perfusio_jax.connectors.files.parts import title_of
from perfusio_jax.connectors.tables.file_rules import FileRules
from perfusio_jax.states import intervals_text, sampling_intervals
from perfusio_jax.viz import Card, Table, rates_figure

from .cards import card_blocks
from .derived import KEY_NUMBERS, mean_text, shown_numbers
from .document import Block, Document, Picture, Section, Words
from .figures import derived_runs, rack_pages, units_of

_MOST_PAGES = 6
"""Pages of a rack in a report."""


def campaign_document(
    tables: Sequence[Path],
    *,
    culture: str | None = None,
    rules: FileRules | None = None,
    beside: Sequence[Block] = (),
) -> Document:
    """The report on a campaign.

    Args:
        tables: Its files.
        culture: Which culture; see `read_culture`.
        rules: How the files are read.
        beside: What is said of its runs beside reference runs, if that was asked.

    Raises:
        DataError: If they cannot be read.
    """
    table = read_culture(list(tables) if len(tables) > 1 else tables[0], culture, rules)
    runs, title = table.trajectories, title_of(list(tables))
    name = "CHO perfusion" if table.process is None else table.process.name
    clones = sorted({run.clone_id for run in runs})
    facts = [
        ("Table", title),
        ("Culture", name),
        ("Runs", f"{len(runs)}, of clone {', '.join(clones)}"),
        ("Samples", f"{sum(r.n_days for r in runs)}, {intervals_text(sampling_intervals(runs))}"),
        ("Program", f"perfusio-jax {perfusio_jax.__version__}"),
    ]
    pages = list(rack_pages(table, title))
    figures: list[Block] = [
        Picture(lambda figure=figure: figure, f"Readings by run, page {n} of {len(pages)}.")
        for n, figure in enumerate(pages[:_MOST_PAGES], start=1)
    ]
    if len(pages) > _MOST_PAGES:
        figures.append(
            Words(f"{len(pages) - _MOST_PAGES} more pages: perfusio-jax figures {title}")
        )
    return Document(
        f"Report on campaign {title}",
        facts,
        [
            Section("What was read", card_blocks(read_card(table, title))),
            Section("Runs", card_blocks(runs_card(table, title))),
            Section("Course of the cultures", figures),
            Section("Derived numbers", card_blocks(numbers_card(table, title))),
            *([Section("Beside the reference runs", beside)] if beside else []),
        ],
    )


def campaign_cards(table: CultureTable, title: str) -> list[Card]:
    """What a campaign comes to, as the terminal shows it and its report has it.

    Args:
        table: The campaign.
        title: What to call it.
    """
    return [make(table, title) for make in (read_card, runs_card, numbers_card)]


def read_card(table: CultureTable, title: str) -> Card:
    """What was read of a campaign, and what was assumed."""
    read = [line for line in str(table.report).splitlines() if line.strip()]
    read += [f"Assumed: {line}" for line in table.assumptions]
    return Card("report", f"What was read of {title}", tuple(read))


def runs_card(table: CultureTable, title: str) -> Card:
    """Each run with its length and its last readings."""
    runs, units = table.trajectories, units_of(table)
    known = list(dict.fromkeys(n for run in runs for n in run.species_names))
    wanted = [n for n in ("VCD", "Via", "Titer") if n in known] or known[:3]
    heads = ("run", "reactor", "clone", "samples", "to hour")
    rows = []
    for run in runs:
        last = []
        for name in wanted:
            values = np.asarray(run.get_species(name)) if name in run.species_names else np.zeros(0)
            seen = values[np.isfinite(values)]
            last.append(f"{seen[-1]:.4g}" if seen.size else "–")
        end = f"{float(run.times_h[-1]):g}" if run.n_days else "–"
        rows.append((run.run_id, run.reactor_id, run.clone_id, str(run.n_days), end, *last))
    last_heads = [f"last {name} [{shown_unit(units.get(name) or '-')}]" for name in wanted]
    numeric = tuple(range(3, 5 + len(wanted)))
    drawn = Table("", (*heads, *last_heads), tuple(rows), numeric)
    return Card("report", f"Runs of {title}", (), tables=(drawn,))


def numbers_card(table: CultureTable, title: str) -> Card:
    """What cells did in each run, or why nothing can be derived."""
    head = f"Derived numbers of {title}"
    try:
        found = derived_runs(table)
        if not found:
            return Card("report", head, ("No run has two samples; nothing can be derived.",))
    except DataError as error:
        return Card("report", head, (f"Nothing can be derived: {error}",))
    numbers = shown_numbers(found)
    heads = ("run", *(f"{n.name} [{shown_unit(n.unit)}]" for n in numbers))
    rows = tuple((d.run_id, *(mean_text(d, n.name) for n in numbers)) for d in found)
    names = [n.name for n in numbers if n.name in KEY_NUMBERS] or None
    numeric = tuple(range(1, len(heads)))
    return Card(
        "report",
        head,
        ("Means over each run ± standard error from the noise of the assays.",),
        tables=(Table("", heads, rows, numeric, is_split=True),),
        figure=lambda: rates_figure(found, names=names, title=head),
    )
