"""Runs of several tables as those of one campaign."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from perfusio_jax._core import DataError

from ..tables.vocabulary import Vocabulary
from .frame_columns import ID_COLUMNS, number_columns
from .frame_report import FrameReport
from .frame_run import RunFields

Read = tuple[str, list[RunFields], FrameReport]
"""What a table is called, its runs and the report on it."""


def joined(parts: Sequence[Read], words: Vocabulary) -> tuple[list[RunFields], FrameReport]:
    """Runs of all tables, each with every column any of them has.

    Args:
        parts: Tables as they were read.
        words: Names of columns, which have their order here.

    Raises:
        DataError: If two tables have a run of one name.
    """
    if len(parts) == 1:
        return parts[0][1], parts[0][2]
    where: dict[str, str] = {}
    for title, runs, _ in parts:
        for run in runs:
            name = run["run_id"]
            if name in where:
                raise DataError(
                    f"run '{name}' is in {where[name]} and in {title}; a run is in one table. A "
                    "column run_id tells them apart, or the name of the file or sheet does."
                )
            where[name] = title
    every = [run for _, runs, _ in parts for run in runs]
    species = _names((run["species_names"] for run in every), words.species)
    controls = _names((run["control_names"] for run in every), words.controls)
    tags = _names((run["auxiliary_names"] for run in every), words.tags)
    for run in every:
        run["species"] = _spread(run["species"], run["species_names"], species)
        run["controls"] = _spread(run["controls"], run["control_names"], controls)
        run["auxiliary"] = _spread(run["auxiliary"], run["auxiliary_names"], tags)
        run["species_names"], run["control_names"], run["auxiliary_names"] = species, controls, tags
    return every, _report(parts, words)


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
