"""Runs of several tables as those of one campaign."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from perfusio_jax._core import HOURS_PER_DAY, DataError

from ..tables.joining import join
from ..tables.vocabulary import Vocabulary
from .frame_columns import ID_COLUMNS, number_columns
from .frame_report import FrameReport
from .frame_run import RunFields

Read = tuple[str, list[RunFields], FrameReport]
"""What a table is called, its runs and the report on it."""


def joined(
    parts: Sequence[Read], words: Vocabulary, within_h: float
) -> tuple[list[RunFields], FrameReport]:
    """Runs of all tables, each with every column any of them has.

    A run that is in several tables which measure different things, as a cell counter and an
    analyser do, is put together.

    Args:
        parts: Tables as they were read.
        words: Names of columns, which have their order here.
        within_h: How long after its first row [h] a sample takes further ones.

    Raises:
        DataError: If two tables have values of one quantity for a run of one name.
    """
    if len(parts) == 1:
        return parts[0][1], parts[0][2]
    every = [run for _, runs, _ in parts for run in runs]
    species = _names((run["species_names"] for run in every), words.species)
    controls = _names((run["control_names"] for run in every), words.controls)
    tags = _names((run["auxiliary_names"] for run in every), words.tags)
    has_limits = any(run["limits"] is not None for run in every)
    for run in every:
        run["limits"] = _spread_limits(run, species) if has_limits else None
        run["species"] = _spread(run["species"], run["species_names"], species)
        run["controls"] = _spread(run["controls"], run["control_names"], controls)
        run["auxiliary"] = _spread(run["auxiliary"], run["auxiliary_names"], tags)
        run["species_names"], run["control_names"], run["auxiliary_names"] = species, controls, tags
    found: dict[str, tuple[RunFields, list[str]]] = {}
    for title, runs, report in parts:
        for run in runs:
            if "volume_L" in report.assumed:
                run["volume_L"] = np.full_like(run["volume_L"], np.nan)
            name = run["run_id"]
            if name in found:
                before, titles = found[name]
                if not _follow(before, run):
                    _refuse_overlap(before, run, titles[-1], title)
                found[name] = (together(before, run, within_h), [*titles, title])
            else:
                found[name] = (run, [title])
    whole = next((r.assumed["volume_L"] for _, _, r in parts if "volume_L" in r.assumed), "")
    for run, _ in found.values():
        run["volume_L"] = _filled(run["volume_L"], run["times_h"], whole)
    notes = [
        f"run '{name}' is in {' and '.join(titles)}, which measure different things or go on: "
        "put together"
        for name, (_, titles) in found.items()
        if len(titles) > 1
    ]
    report = _report(parts, words)
    ids = tuple(dict.fromkeys(report.run_ids))
    for run, _ in found.values():
        if run["limits"] is not None and not np.isfinite(run["limits"]).any():
            run["limits"] = None
    return [run for run, _ in found.values()], replace(
        report, run_ids=ids, notes=(*report.notes, *(f"{note}." for note in notes))
    )


def _follow(one: RunFields, other: RunFields) -> bool:
    """Whether one table goes on where the other ends, as files of a week each."""
    first, second = one["times_h"], other["times_h"]
    return bool(first.max() < second.min() or second.max() < first.min())


def _refuse_overlap(one: RunFields, other: RunFields, first: str, second: str) -> None:
    names = (*one["species_names"], *one["control_names"])
    has, also = (
        np.concatenate([_is_told(run), np.isfinite(run["controls"])], axis=1)
        for run in (one, other)
    )
    both = [n for k, n in enumerate(names) if has[:, k].any() and also[:, k].any()]
    if both:
        raise DataError(
            f"run '{one['run_id']}' is in {first} and in {second}, and both have {both[0]}: two "
            "runs of one name? A column run_id tells them apart, or the name of the file or sheet "
            'does; of what was measured twice one can be left out ("ignore" in a column map).'
        )


def together(one: RunFields, other: RunFields, within_h: float) -> RunFields:
    """One run of two tables that measure different things.

    Args:
        one: A run, by time.
        other: The same run with the same columns, of which it has values where the other has none.
        within_h: How long after its first row [h] a sample takes further ones.
    """
    times = np.concatenate([one["times_h"], other["times_h"]])
    order = np.argsort(times, kind="stable")
    groups = join(times[order].tolist(), [""] * times.size, [{}] * times.size, within_h).groups
    rows = [order[group] for group in groups]
    merged: dict[str, Any] = dict(one)
    if one["limits"] is not None and other["limits"] is not None:
        told = np.concatenate([_is_told(run) for run in (one, other)])
        limits = np.concatenate([one["limits"], other["limits"]])
        # a limit goes with the row whose value counts
        first = [np.asarray(group)[np.argmax(told[group], axis=0)] for group in rows]
        columns = np.arange(told.shape[1])
        merged["limits"] = np.stack([limits[row, columns] for row in first])
    for key in ("species", "controls", "auxiliary", "stream_totals", "volume_L"):
        values = np.concatenate([one[key], other[key]])
        merged[key] = np.stack([_first(values[group]) for group in rows])
    merged["times_h"] = np.array([times[group[0]] for group in rows])
    merged["days"] = np.floor(merged["times_h"] / HOURS_PER_DAY + 0.5).astype(int)
    for key, blank in (("reactor_id", "R00"), ("clone_id", "unknown")):
        merged[key] = other[key] if one[key] == blank else one[key]
    return RunFields(**merged)


def _is_told(run: RunFields) -> np.ndarray:
    """Where a run has a reading or a limit `(T,n_species)`."""
    told = np.isfinite(run["species"])
    return told if run["limits"] is None else told | np.isfinite(run["limits"]).any(axis=-1)


def _spread_limits(run: RunFields, wanted: Sequence[str]) -> np.ndarray:
    """Limits of a run in other columns."""
    limits, names = run["limits"], list(run["species_names"])
    out = np.full((len(run["times_h"]), len(wanted), 2), np.nan)
    for k, name in enumerate(wanted):
        if limits is not None and name in names:
            out[:, k] = limits[:, names.index(name)]
    return out


def _first(values: np.ndarray) -> np.ndarray:
    """The first value of every column that is one."""
    found = values[0].copy()
    for row in values[1:]:
        found = np.where(np.isnan(found), row, found)
    return found


def _filled(volume: np.ndarray, times: np.ndarray, assumed: str) -> np.ndarray:
    known = ~np.isnan(volume)
    if not known.any():
        return np.full_like(volume, float(assumed.split()[0]))
    return np.interp(times, times[known], volume[known])


def _names(found: Iterable[Sequence[str]], order: Sequence[str]) -> list[str]:
    there = {name for names in found for name in names}
    return [name for name in order if name in there]


def _spread(values: np.ndarray, names: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    blank = np.full(values.shape[0], np.nan)
    columns = [values[:, list(names).index(n)] if n in names else blank for n in wanted]
    return np.stack(columns, axis=1) if columns else np.empty((values.shape[0], 0))


def _report(parts: Sequence[Read], words: Vocabulary) -> FrameReport:
    reports = [report for _, _, report in parts]
    known = (*ID_COLUMNS, *number_columns(words))
    columns = [n for n in known if any(n in report.columns for report in reports)]
    missing: dict[str, int] = {}
    for report in reports:
        for name, count in report.missing.items():
            missing[name] = missing.get(name, 0) + count
    return FrameReport(
        n_rows=sum(report.n_rows for report in reports),
        run_ids=tuple(run for report in reports for run in report.run_ids),
        columns=tuple(columns),
        ignored=_distinct(name for report in reports for name in report.ignored),
        converted=_told_once([(t, r.converted) for t, _, r in parts]),
        assumed=_told_once([(t, r.assumed) for t, _, r in parts]),
        reordered=tuple(run for report in reports for run in report.reordered),
        empty=tuple(n for n in columns if all(n in r.empty or n not in r.columns for r in reports)),
        missing=missing,
        warnings=tuple(f"{title}: {text}" for title, _, r in parts for text in r.warnings),
        notes=(
            f"{len(parts)} tables are one campaign; a run is called as its file or sheet where it "
            "does not say.",
            *_by_text(parts),
        ),
    )


def _by_text(parts: Sequence[Read]) -> list[str]:
    """Notes on tables: what is true of several is said once."""
    whose: dict[str, list[str]] = {}
    for title, _, report in parts:
        for text in report.notes:
            whose.setdefault(text, []).append(title)
    return [
        f"{titles[0]}: {text}" if len(titles) == 1 else f"in {len(titles)} tables: {text}"
        for text, titles in whose.items()
    ]


def _distinct(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _told_once(parts: Sequence[tuple[str, Mapping[str, str]]]) -> dict[str, str]:
    """What is the same in all tables once, the rest with the table it is of."""
    out: dict[str, Any] = {}
    for title, told in parts:
        for name, text in told.items():
            if all(other.get(name) == text for _, other in parts):
                out[name] = text
            else:
                out[f"{name} in {title}"] = text
    return out
