"""`perfusio-jax figures`: pictures of a run folder, a campaign table or a validated model."""

import contextlib
import csv
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from perfusio_jax._core import ConfigError, DataError
from perfusio_jax._core.limits import TABLE_BYTES, read_file
from perfusio_jax._core.text import counted
from perfusio_jax._core.units import canonical_unit
from perfusio_jax.connectors import read_culture
from perfusio_jax.connectors.files.cultures import CultureTable
from perfusio_jax.connectors.files.parts import title_of
from perfusio_jax.connectors.tables.file_rules import FileRules
from perfusio_jax.process import Derived, compare
from perfusio_jax.states import Trajectory, complete_setpoints
from perfusio_jax.twin.loop.commands import find_runs
from perfusio_jax.twin.records.run_files import holds_records
from perfusio_jax.viz import (
    RunView,
    SkillCurve,
    golden_figure,
    rack_figures,
    rates_figure,
    run_figure,
    save_figure,
    skill_figure,
    timeline_figure,
)

from .derived import derived_of
from .happenings import alarms_of, happenings_of
from .run_record import RunRecord, read_records
from .tradeoff import tradeoff_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMS: Final = ("png", "svg", "pdf")
OF_RUN: Final = ("run", "rates", "timeline", "rack", "golden")
OF_TABLE: Final = ("rack", "rates", "run", "tradeoff", "golden")
OF_MODEL: Final = ("skill",)

KEY_READINGS: Final = ("VCD", "Via", "Glc", "Lac", "Titer")
"""Readings of CHO perfusion that a rack shows."""

_SCORES: Final = "scores.csv"
_MANY: Final = 6
"""Runs of a table from which on each gets a figure of its own only if asked for."""
_SLUG: Final = re.compile(r"[^A-Za-z0-9._-]+")

Drawn = Iterator[tuple[str, "Callable[[], Figure]"]]
"""Names of files and what draws them."""


def draw_figures(
    places: Sequence[Path],
    *,
    only: Sequence[str] = (),
    out: Path | None = None,
    form: str = "png",
    trade_off: str = "",
    references: Sequence[str] = (),
    culture: str | None = None,
    console: Any,
    rules: FileRules | None = None,
) -> list[Path]:
    """Draw what there is to see at a place.

    Args:
        places: A run folder or one above several, the folder of a validation, or campaign tables.
        only: Names out of `OF_RUN`, `OF_TABLE` or `OF_MODEL`; those that fit by default.
        out: Folder; `figures/` of the run or validation, or beside the working directory.
        form: One of `FORMS`.
        trade_off: Two readings, as "Titer,-Amm", of a table; see `tradeoff_figure`.
        references: Runs that the others are compared with, for `golden`; see `split_runs`.
        culture: Which culture a table is of; see `read_culture`.
        console: Where to print.
        rules: How a table is read.

    Returns:
        The files.

    Raises:
        ConfigError: If there is nothing to draw there, or a name is of no figure of it.
        DataError: If what is there cannot be read, or nothing of it can be drawn.
    """
    if form not in FORMS:
        raise ConfigError(f"--format {form!r} is unknown; allowed are {', '.join(FORMS)}.")
    if trade_off and only and "tradeoff" not in only:
        only = (*only, "tradeoff")
    if references and only and "golden" not in only:
        only = (*only, "golden")
    if "golden" in only and not references:
        raise ConfigError(
            "--only golden needs --reference: the runs to compare with, three at least."
        )
    first = places[0]
    if len(places) == 1 and first.is_dir() and _is_run(first):
        drawn, folder = _of_run(first, _chosen(only, OF_RUN)), first / "figures"
    elif len(places) == 1 and first.is_dir() and _scores_in(first) is not None:
        if references:
            raise ConfigError(f"--reference is of runs, and {first} is a validation.")
        drawn, folder = _of_model(first, _chosen(only, OF_MODEL)), first / "figures"
    elif len(places) == 1 and first.is_dir() and (first / "header.json").exists():
        raise ConfigError(
            f"{first} is a model nobody judged: there is no {_SCORES} with it. "
            "perfusio-jax validate TABLE writes one, and its figures."
        )
    else:
        for place in places:
            if place.is_dir() and holds_records(place):
                find_runs(place)  # which says what a run folder without its journal lacks
        chosen = _chosen(only, OF_TABLE)
        drawn, folder = (
            _of_table(places, chosen, trade_off, culture, console, rules),
            Path("figures"),
        )
    if references:
        drawn = itertools.chain(drawn, _beside(places, references, culture, rules))
    folder = folder if out is None else out
    written, skipped = [], []
    used: set[str] = set()
    for name, draw in drawn:
        try:
            figure = draw()
        except DataError as error:
            skipped.append(f"{name}: {error}")
            continue
        path = save_figure(figure, folder / f"{free_name(name, used)}.{form}")
        written.append(path)
        console.print(f"{path}", soft_wrap=True)
    for line in skipped:
        console.print(f"not drawn, {line}", soft_wrap=True)
    if not written:
        raise DataError("nothing could be drawn: " + ("; ".join(skipped) or "there is nothing."))
    return written


def views_of(table: CultureTable, runs: Sequence[Trajectory]) -> list[RunView]:
    """Runs of a table as figures see them."""
    found = []
    for run in runs:
        values, set_to = run.host_readings(run.species_names), np.asarray(run.controls)
        readings = {n: values[:, k] for k, n in enumerate(run.species_names)}
        seen = {n: v for n, v in readings.items() if np.isfinite(v).any()}
        controls = {n: set_to[:, k] for k, n in enumerate(run.control_names)}
        found.append(RunView(run.run_id, np.asarray(run.times_h), seen, controls))
    return found


def rack_names(names: Sequence[str], *, is_cho: bool) -> list[str] | None:
    """What a rack shows of each run; None for the first that are measured.

    Args:
        names: What is measured.
        is_cho: Whether the runs are of CHO perfusion, of which people look at some first.
    """
    chosen = [n for n in KEY_READINGS if n in names] if is_cho else []
    return chosen if len(chosen) > 2 else None


def units_of(table: CultureTable) -> dict[str, str]:
    """Units of everything in a table."""
    if table.process is not None:
        return {p.name: p.unit for p in (*table.process.quantities, *table.process.controls)}
    names = {n for run in table.trajectories for n in (*run.species_names, *run.control_names)}
    return {n: canonical_unit(n) for n in names}


def record_figures(record: RunRecord) -> "dict[str, Callable[[], Figure]]":
    """What one run record can be drawn as, by name."""
    view, title = record.view(), f"Run {record.run_id}, reactor {record.reactor_id}"
    what = "forecast" if record.process is not None else "forecast state"

    def rates() -> "Figure":
        run = record.trajectory
        if run is None:
            raise DataError(f"{title} has no sample yet.")
        derived = derived_of(record.process, run)
        return rates_figure([derived], title=f"{title}: derived numbers")

    return {
        "run": lambda: run_figure(view, record.units(), title=title, bands_are=what),
        "rates": rates,
        "timeline": lambda: timeline_figure(
            happenings_of(record), alarms_of(record), title=f"{title}: what happened"
        ),
    }


def _of_run(place: Path, only: Sequence[str]) -> Drawn:
    records = read_records(place)
    for record in records:
        behind = f"_{record.reactor_id}" if len(records) > 1 else ""
        for name, draw in record_figures(record).items():
            if not only or name in only:
                yield f"{name}{behind}", draw
    if (len(records) > 1 and not only) or "rack" in only:
        units = {n: u for record in records for n, u in record.units().items()}
        is_cho = all(record.process is None for record in records)
        pages = rack_figures(
            [record.view() for record in records],
            units,
            names=rack_names(list(units), is_cho=is_cho),
            title=f"Runs of {place.name}",
        )
        yield from _pages("rack", pages)


def _of_table(
    places: Sequence[Path],
    only: Sequence[str],
    trade_off: str,
    culture: str | None,
    console: Any,
    rules: FileRules | None,
) -> Drawn:
    table = read_culture(list(places) if len(places) > 1 else places[0], culture, rules)
    runs, units, title = table.trajectories, units_of(table), title_of(list(places))
    views = views_of(table, runs)
    console.print(f"{counted(len(runs), 'run')} of {title}", soft_wrap=True)
    if not only or "rack" in only:
        yield from _pages("rack", rack_pages(table, title))
    if "run" in only or (not only and len(runs) <= _MANY):
        for view in views:
            yield f"run_{view.name}", lambda view=view: run_figure(view, units)
    if not only or "rates" in only:
        yield (
            "rates",
            lambda: rates_figure(derived_runs(table), title=f"Derived numbers of {title}"),
        )
    if "tradeoff" in only or trade_off:
        yield "tradeoff", lambda: tradeoff_figure(runs, trade_off, units, title=title)


def _beside(
    places: Sequence[Path], references: Sequence[str], culture: str | None, rules: FileRules | None
) -> Drawn:
    """Each run that is no reference beside those that are."""
    from .golden import runs_at, split_runs  # which reads units from here

    place = runs_at(places, culture, rules)
    golden, left = split_runs(place, references, culture=culture, rules=rules)
    for run in left:
        behind = f"_{run.run_id}" if len({r.run_id for r in left}) == len(left) else (
            f"_{run.run_id}_{run.reactor_id}")  # fmt: skip
        yield (
            f"golden{behind}",
            lambda run=run: golden_figure(compare(golden, run), place.units),
        )


def rack_pages(table: CultureTable, title: str) -> "Iterator[Figure]":
    """The runs of a table as small multiples, drawn page by page."""
    views = views_of(table, table.trajectories)
    names = list(dict.fromkeys(n for view in views for n in view.readings))
    chosen = rack_names(names, is_cho=table.process is None)
    return rack_figures(views, units_of(table), names=chosen, title=f"Runs of {title}")


def derived_runs(table: CultureTable) -> list[Derived]:
    """Derived numbers of every run that has two samples."""
    names = None if table.process is None else table.process.control_names
    more: dict[str, Any] = {} if names is None else {"names": names}
    once = () if table.process is None else table.process.boluses
    runs, _ = complete_setpoints(
        table.trajectories, fill_down=True, stated=table.lacking, source="", once=once, **more
    )
    return [derived_of(table.process, run) for run in runs if run.n_days > 1]


def _of_model(place: Path, only: Sequence[str]) -> Drawn:
    path = _scores_in(place)
    if path is not None:
        yield "skill", lambda: skill_figure(read_scores(path))


def read_scores(path: Path) -> dict[str, SkillCurve]:
    """Scores by quantity from the `scores.csv` of a validation.

    Raises:
        DataError: If it is none.
    """
    text = read_file(path, most=TABLE_BYTES).decode("utf-8", errors="replace")
    rows: dict[str, list[tuple[float, ...]]] = {}
    wanted = ("hours_ahead", "rrmse", "rrmse_persistence", "coverage_80")
    for row in csv.DictReader(text.splitlines()):
        try:
            numbers = tuple(float(row[name] or "nan") for name in wanted)
            rows.setdefault(row["species"], []).append(numbers)
        except (KeyError, TypeError, ValueError):
            raise DataError(
                f"{path} is no table of scores as perfusio-jax validate writes it; needed are "
                f"species and {', '.join(wanted)}."
            ) from None
    return {n: SkillCurve(*np.array(sorted(found)).T) for n, found in rows.items()}


def _pages(name: str, pages: "Iterator[Figure]") -> Drawn:
    """Pages of a rack, drawn one at a time."""
    page = 1
    while True:
        figure = next(pages, None)
        if figure is None:
            return
        yield f"{name}_{page}", lambda figure=figure: figure
        page += 1


def _chosen(only: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    unknown = [name for name in only if name not in known]
    if unknown:
        raise ConfigError(
            f"--only {', '.join(unknown)}: there is no such figure of this; there are "
            f"{', '.join(known)}."
        )
    return tuple(only)


def _is_run(place: Path) -> bool:
    with contextlib.suppress(ConfigError):
        return bool(find_runs(place))
    return False


def _scores_in(place: Path) -> Path | None:
    """The scores of a validation, from its folder or that of its model."""
    for folder in (place, place.parent):
        if (folder / _SCORES).is_file() and (folder == place or place.name == "model"):
            return folder / _SCORES
    return None


def free_name(name: str, used: set[str]) -> str:
    """A name of a file nobody has yet, whatever a run is called."""
    slug = _SLUG.sub("_", name).strip("._")[:60] or "figure"
    free, n = slug, 2
    while free.lower() in used:
        free, n = f"{slug}_{n}", n + 1
    used.add(free.lower())
    return free
