"""`perfusio-jax golden`: runs beside chosen ones, as a card, a table and figures."""

import csv
import fnmatch
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from perfusio_jax._core import ConfigError, DataError
from perfusio_jax._core.text import cut
from perfusio_jax.connectors import read_culture
from perfusio_jax.connectors.files.parts import title_of
from perfusio_jax.connectors.tables.file_rules import FileRules
from perfusio_jax.process import CHO_PERFUSION, Compared, Golden, Process, compare, golden_of
from perfusio_jax.states import Trajectory
from perfusio_jax.twin.records.run_files import JOURNAL_NAME
from perfusio_jax.viz import Card, Table, golden_figure, save_figure, show_card

from .cards import card_blocks
from .document import Block, Picture, Words
from .figures import free_name, units_of
from .run_record import read_records

_MOST_TOLD: Final = 12
"""Runs a sentence each is told of; the table has all."""
_MOST_DRAWN: Final = 6
"""Runs of a report that are drawn."""
_CAPTION: Final = (
    "readings before the band in which 95 % of a further run's lie, T2 and Q with their limits, "
    "and what each quantity adds to them."
)
_PER_CENT: Final = 100.0


class Runs(NamedTuple):
    """Runs of one place, with what they are in."""

    process: Process | None
    """The culture; None for CHO perfusion."""
    runs: tuple[Trajectory, ...]
    """Those with a sample."""
    units: Mapping[str, str]
    """Unit of each quantity."""
    title: str
    """What the place is called."""


def golden_runs(
    places: Sequence[Path],
    references: Sequence[str],
    *,
    only: Sequence[str] = (),
    out: Path,
    figure: Path | None = None,
    culture: str | None = None,
    console: Any,
    rules: FileRules | None = None,
    on_card: Callable[[Card], None] | None = None,
) -> Card:
    """Lay runs beside reference runs, write every number, and say what stands out.

    Args:
        places: Run folder, one above several, or campaign tables.
        references: What they are measured by; see `split_runs`.
        only: Runs to look at; by default all that are no reference.
        out: CSV file to write.
        figure: Picture to write as well; of several runs each has its own name behind it.
        culture: Which culture a table is of; see `read_culture`.
        console: Where to print.
        rules: How tables are read.
        on_card: Is given what was concluded.

    Returns:
        What was concluded.

    Raises:
        ConfigError: If a run is named that there is not.
        DataError: If there are too few reference runs, or nothing to compare.
    """
    place = runs_at(places, culture, rules)
    golden, watched = split_runs(place, references, culture=culture, rules=rules)
    if only:
        unknown = [name for name in only if not any(_is_named(run, name) for run in watched)]
        if unknown:
            raise ConfigError(
                f"--run {', '.join(unknown)}: {place.title} has no such run beside the references; "
                f"it has {_listed([run.run_id for run in watched])}."
            )
        watched = [run for run in watched if any(_is_named(run, name) for name in only)]
    found = [compare(golden, run) for run in watched]
    card = golden_card(found, place.units, place.title)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_compared(found, place.units, out)
    show_card(card, console)
    console.print(f"table: {out}", soft_wrap=True)
    if figure is not None:
        for one, path in zip(found, _paths(figure, found), strict=True):
            save_figure(golden_figure(one, place.units), path)
            console.print(f"figure: {path}", soft_wrap=True)
    if on_card is not None:
        on_card(card)
    return card


def runs_at(places: Sequence[Path], culture: str | None, rules: FileRules | None) -> Runs:
    """The runs of a run folder, of one above several, or of campaign tables.

    Raises:
        ConfigError: If a run folder has no run.
        DataError: If tables cannot be read, or no run has a sample.
    """
    first = places[0]
    if len(places) == 1 and first.is_dir() and _holds_runs(first):
        records = read_records(first)
        runs = tuple(run for run in (r.trajectory for r in records) if run is not None)
        units = {n: u for record in records for n, u in record.units().items()}
        found = Runs(records[0].process, runs, units, first.name)
    else:
        table = read_culture(list(places) if len(places) > 1 else first, culture, rules)
        runs = tuple(run for run in table.trajectories if run.n_days)
        found = Runs(table.process, runs, units_of(table), title_of(list(places)))
    if not found.runs:
        raise DataError(f"{found.title} has no sample yet; there is nothing to compare.")
    return found


def split_runs(
    place: Runs,
    references: Sequence[str],
    *,
    culture: str | None = None,
    rules: FileRules | None = None,
) -> tuple[Golden, list[Trajectory]]:
    """Reference runs of a place or of others, and the runs that are none.

    Args:
        place: The runs.
        references: Each a run or vessel of the place, a pattern of such ('GB-*'), a run folder, a
            folder of several, or a table, all of whose runs count. With commas between several.
        culture: Which culture a table is of.
        rules: How tables are read.

    Raises:
        ConfigError: If one is neither a run nor a place.
        DataError: If fewer than three runs are left, if they are in other units, or if every run
            is a reference.
    """
    own: dict[int, Trajectory] = {}
    others: list[Trajectory] = []
    culture_of = place  # whose assays are known: that of the references
    for item in _items(references, place.runs):
        named = {k: run for k, run in enumerate(place.runs) if _is_named(run, item)}
        if named:
            own |= named
        elif Path(item).exists():
            elsewhere = runs_at([Path(item)], culture, rules)
            _same_units(place, elsewhere, item)
            others += elsewhere.runs
            culture_of = culture_of if own else elsewhere
        else:
            raise ConfigError(
                f"--reference {item!r} is neither a run of {place.title} nor a place; its runs are "
                f"{_listed([run.run_id for run in place.runs])}."
            )
    left = [run for k, run in enumerate(place.runs) if k not in own]
    process = CHO_PERFUSION if culture_of.process is None else culture_of.process
    golden = golden_of(process, [*own.values(), *others])
    if not left:
        raise DataError(
            f"every run of {place.title} is a reference; there is none to compare with them."
        )
    return golden, left


def golden_card(found: Sequence[Compared], units: Mapping[str, str], title: str) -> Card:
    """What runs beside reference runs come to.

    Args:
        found: The runs, with one set of references.
        units: Unit of each quantity.
        title: What they are of.
    """
    references = found[0].references
    odd = [one for one in found if _beyond(one).any() or not np.isfinite(one.t2).any()]
    told = [_sentence(one) for one in odd[:_MOST_TOLD]]
    if len(odd) > _MOST_TOLD:
        told.append(f"{len(odd) - _MOST_TOLD} more runs are beyond, see the table.")
    fine = [cut(one.run_id, 60) for one in found if not any(one is other for other in odd)]
    if fine:
        told.append(
            f"T2 and Q within their limits of 99 % in every sample judged: run {_listed(fine)}."
        )
    told.append(
        "Of samples like those of the references 5 % lie beyond the limit of 95 % and 1 % beyond "
        "that of 99 % by chance, and neighbours go together: a stay beyond counts, not one sample."
    )
    notes: dict[str, list[str]] = {}
    for one in found:
        for note in one.notes:
            notes.setdefault(note, []).append(cut(one.run_id, 40))
    rows = tuple(_row(one) for one in found)
    heads = ("run", "samples judged", "T2 > 95 %", "T2 > 99 %", "Q > 95 %", "Q > 99 %",
             "first > 99 % [h]", "most by")  # fmt: skip
    table = Table(f"beside {len(references)} reference runs", heads, rows, tuple(range(1, 7)))
    figure = (lambda: golden_figure(found[0], units)) if len(found) == 1 else None
    many = _listed([cut(name, 40) for name in references])
    return Card(
        "golden",
        f"{title} beside {len(references)} reference runs",
        tuple(told),
        tuple(_note(note, whose, len(found)) for note, whose in notes.items()),
        (table,),
        f"{title}; references {many}",
        figure,
    )


def compared_at(
    places: Sequence[Path],
    references: Sequence[str],
    culture: str | None = None,
    rules: FileRules | None = None,
) -> list[Block]:
    """What a report says of the runs of a place beside reference runs.

    Raises:
        ConfigError: If a reference is neither a run nor a place.
        DataError: If there are too few of them, or no run beside them.
    """
    place = runs_at(places, culture, rules)
    golden, left = split_runs(place, references, culture=culture, rules=rules)
    return golden_blocks(place, [compare(golden, run) for run in left])


def golden_blocks(place: Runs, found: Sequence[Compared]) -> list[Block]:
    """Runs beside references, as a report holds them: the card, and a figure of each run."""
    card = golden_card(found, place.units, place.title)
    blocks = card_blocks(card, has_figure=False)
    for one in found[:_MOST_DRAWN]:
        title = f"{cut(one.run_id, 40)}, reactor {cut(one.reactor_id, 40)}"
        blocks.append(
            Picture(lambda one=one: golden_figure(one, place.units), f"{title}: {_CAPTION}")
        )
    if len(found) > _MOST_DRAWN:
        blocks.append(Words(f"{len(found) - _MOST_DRAWN} more: perfusio-jax figures --reference."))
    return blocks


def write_compared(found: Sequence[Compared], units: Mapping[str, str], out: Path) -> None:
    """Write runs beside references as a table: a row per sample, a second row of units.

    Args:
        found: The runs.
        units: Unit of each quantity.
        out: CSV file. What is missing or unknown is empty.
    """
    names = found[0].names
    fixed = ("run_id", "reactor_id", "time_h", "quantities", "components",
             "t2", "t2_95", "t2_99", "q", "q_95", "q_99")  # fmt: skip
    parts = ("", "_mean", "_low", "_high", "_runs", "_z", "_t2", "_q")
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow((*fixed, *(f"{name}{part}" for name in names for part in parts)))
        row = ["", "", "h", *["-"] * 8]
        row += [u for name in names for u in (*[units.get(name) or "-"] * 4, *["-"] * 4)]
        writer.writerow(row)
        for one in found:
            columns = (one.readings, one.band.mean, one.low, one.high, one.band.n_runs, one.z,
                       one.t2_by, one.q_by)  # fmt: skip
            for i, hour in enumerate(one.hours):
                numbers = (one.t2[i], *one.t2_limits[i], one.q[i], *one.q_limits[i])
                each = [_cell(c[i, k]) for k in range(len(names)) for c in columns]
                head = (one.run_id, one.reactor_id, f"{hour:.10g}")
                counts = (int(one.n_read[i]), int(one.n_components[i]))
                writer.writerow((*head, *counts, *map(_cell, numbers), *each))


def _row(one: Compared) -> tuple[str, ...]:
    n = int(np.isfinite(one.t2).sum())
    counts = [int((v > limits[:, k]).sum()) for v, limits in _both(one) for k in (0, 1)]
    is_out = _beyond(one)
    first = f"{one.hours[is_out][0]:.5g}" if is_out.any() else "–"
    return (cut(one.run_id, 40), str(n), *map(str, counts), first, _most(one) or "–")


def _sentence(one: Compared) -> str:
    """How a run stands that is beyond a limit, or cannot be judged, in one sentence."""
    name, n = cut(one.run_id, 60), int(np.isfinite(one.t2).sum())
    if not n:
        return f"Run {name}: no sample can be judged."
    told = []
    for kind, (values, limits) in zip(("T2", "Q"), _both(one), strict=True):
        is_out = values > limits[:, 1]
        if is_out.any():
            hours = one.hours[is_out]
            ends = [f"{hour:.5g}" for hour in (hours[0], hours[-1])]
            span = f"at {ends[0]} h" if len(hours) == 1 else f"{ends[0]} to {ends[1]} h"
            told.append(f"{kind} beyond its limit of 99 % in {len(hours)} of {n} samples ({span})")
    return f"Run {name}: {'; '.join(told)}, most by {_most(one)}."


def _both(one: Compared) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    return (one.t2, one.t2_limits), (one.q, one.q_limits)


def _beyond(one: Compared) -> np.ndarray:
    """Samples in which T2 or Q is beyond its limit of 99 %."""
    return np.logical_or(*(values > limits[:, 1] for values, limits in _both(one)))


def _most(one: Compared) -> str:
    """Quantities that add most where T2 or Q is beyond its limit of 99 %, with their shares."""
    total = np.zeros(len(one.names))
    for values, limits, by in ((one.t2, one.t2_limits, one.t2_by), (one.q, one.q_limits, one.q_by)):
        is_out = values > limits[:, 1]
        total += np.nansum(by[is_out] / values[is_out, None], axis=0)
    if not total.sum():
        return ""
    order = np.argsort(-total, kind="stable")[:2]
    shares = total / total.sum()
    return ", ".join(
        f"{one.names[k]} {_PER_CENT * shares[k]:.0f} %" for k in order if shares[k] > 0.1
    )


def _note(note: str, whose: Sequence[str], n: int) -> str:
    """A note, and of which runs it is where it is not of all."""
    return note if len(whose) == n else f"Run {_listed(whose)}: {note}"


def _items(references: Sequence[str], runs: Sequence[Trajectory]) -> list[str]:
    """Single names: a comma parts them, unless a run is called so or a place is."""
    found = []
    for item in references:
        is_whole = any(_is_named(run, item) for run in runs) or Path(item).exists()
        found += [item] if is_whole else [part.strip() for part in item.split(",") if part.strip()]
    if not found:
        raise ConfigError("--reference names no run: give runs, run folders or a table.")
    return found


def _is_named(run: Trajectory, name: str) -> bool:
    return name in (run.run_id, run.reactor_id) or fnmatch.fnmatchcase(run.run_id, name)


def _holds_runs(place: Path) -> bool:
    return any(place.glob(JOURNAL_NAME)) or any(place.glob(f"*/{JOURNAL_NAME}")) or any(
        place.glob(f"*/*/{JOURNAL_NAME}")
    )  # fmt: skip


def _same_units(place: Runs, other: Runs, item: str) -> None:
    for name, unit in other.units.items():
        own = place.units.get(name, unit)
        if own != unit:
            raise DataError(
                f"--reference {item}: {name} is in {unit or 'no unit'} there and in {own} in "
                f"{place.title}; bring both to one unit."
            )


def _paths(figure: Path, found: Sequence[Compared]) -> list[Path]:
    if len(found) == 1:
        return [figure]
    used: set[str] = set()
    names = [free_name(f"{figure.stem}_{one.run_id}_{one.reactor_id}", used) for one in found]
    return [figure.with_name(f"{name}{figure.suffix}") for name in names]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more if names else "none"


def _cell(value: float) -> str:
    return f"{value:.6g}" if np.isfinite(value) else ""
