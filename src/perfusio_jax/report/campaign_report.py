"""A campaign table as a report: its runs, their course, and what follows from them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

import perfusio_jax
from perfusio_jax._core import DataError
from perfusio_jax.connectors import read_culture
from perfusio_jax.connectors.files.cultures import CultureTable
from perfusio_jax.connectors.files.parts import title_of
from perfusio_jax.connectors.tables.file_rules import FileRules
from perfusio_jax.states import Trajectory, intervals_text, sampling_intervals
from perfusio_jax.viz import rates_figure

from .derived import KEY_NUMBERS, mean_text, shown_numbers
from .document import Block, Document, Grid, Listing, Picture, Section, Words
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
    runs, units, title = table.trajectories, units_of(table), title_of(list(tables))
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
    read = [line for line in str(table.report).splitlines() if line.strip()]
    read += [f"Assumed: {line}" for line in table.assumptions]
    return Document(
        f"Report on campaign {title}",
        facts,
        [
            Section("What was read", [Listing(read)]),
            Section("Runs", [_runs(runs, units)]),
            Section("Course of the cultures", figures),
            Section("Derived numbers", _numbers(table, title)),
            *([Section("Beside the reference runs", beside)] if beside else []),
        ],
    )


def _runs(runs: Sequence[Trajectory], units: dict[str, str]) -> Grid:
    """Each run with its length and its last readings."""
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
    last_heads = [f"last {name} [{units.get(name) or '-'}]" for name in wanted]
    return Grid((*heads, *last_heads), rows, numeric=tuple(range(3, 5 + len(wanted))))


def _numbers(table: CultureTable, title: str) -> list[Block]:
    try:
        found = derived_runs(table)
        if not found:
            return [Words("No run has two samples; nothing can be derived.")]
    except DataError as error:
        return [Words(f"Nothing can be derived: {error}")]
    numbers = shown_numbers(found)
    heads = ("run", *(f"{n.name} [{n.unit}]" for n in numbers))
    rows = [(d.run_id, *(mean_text(d, n.name) for n in numbers)) for d in found]
    names = [n.name for n in numbers if n.name in KEY_NUMBERS] or None
    return [
        Words("Means over each run ± standard error from the noise of the assays."),
        Grid(heads, rows, numeric=tuple(range(1, len(heads)))),
        Picture(
            lambda: rates_figure(found, names=names, title=f"Derived numbers of {title}"),
            "What cells did in each interval.",
        ),
    ]
