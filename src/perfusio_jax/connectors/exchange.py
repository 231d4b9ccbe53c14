"""Samples from files into a database, and from a database into a table.

What `perfusio-jax db import` and `db export` do.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from perfusio_jax._core import ConfigError, ConnectorError, DataError
from perfusio_jax.process import Process
from perfusio_jax.twin import replace_durably
from perfusio_jax.twin.records.entries import Stored

from .base import SampleRecord
from .files.filesystem import FilesystemStore
from .sql.admin import holdings
from .sql.clones import clones_of
from .sql.cultures import processes_of
from .sql.engine import Database
from .sql.store import SQLStore
from .tables.acting import acting_from_rows
from .tables.sample_file import as_file, as_row

_NO_CLONE = "unknown"
"""What tables say of a run whose clone nobody told."""


def import_samples(
    store: SQLStore,
    rows: Iterable[SampleRecord],
    *,
    clone_id: str | None = None,
    is_correction: bool = False,
    user: str = "system",
    reason: str | None = None,
) -> dict[str, int]:
    """Store samples of one reactor; doing it again changes nothing.

    Args:
        store: Where to.
        rows: Samples.
        clone_id: Clone they are of, if that is known.
        is_correction: Whether other values replace those stored.
        user: Who imports.
        reason: Why they are corrected.

    Returns:
        How many were new, known already, and corrected or filled in.

    Raises:
        DataError: If one contradicts what is stored; then none is.
        DatabaseError: If the database cannot be used.
    """
    fates = store.write_records(
        rows, clone_id=clone_id, is_correction=is_correction, user=user, reason=reason
    )
    return {fate.value: fates.count(fate) for fate in Stored}


async def export_samples(
    store: SQLStore,
    out: Path,
    reactors: Sequence[str],
    *,
    further: Mapping[str, Sequence[str]] | None = None,
) -> int:
    """Write samples as a table this library reads: one row per sample, newest revision.

    Text that a spreadsheet would run as a formula is made harmless in CSV.

    Args:
        store: Any reactor of the experiment.
        out: `.csv` or `.xlsx` (units in the second row) or `.parquet` (units in its metadata).
        reactors: Which to write.
        further: Reactors of further experiments of the same culture, to be written below.

    Returns:
        Number of samples.

    Raises:
        ConfigError: If the suffix is none of them.
        DataError: If there is nothing to write, or two runs would have one name.
        ConnectorError: If the file or the database cannot be used; an earlier file stays.
    """
    if out.suffix.lower() not in (".csv", ".parquet", ".xlsx"):
        raise ConfigError(f"{out} must end in .csv, .xlsx or .parquet.")
    rows: list[dict[str, Any]] = []
    named: dict[str, str] = {}
    for experiment, names in {store.experiment_name: reactors, **(further or {})}.items():
        one = store if experiment == store.experiment_name else store.of_experiment(experiment)
        clones = clones_of(store.database, experiment)
        records = [
            record for name in names for record in await one.for_reactor(name).read_history()
        ]
        # a run is one vessel's; where an experiment has several, each is one
        several = len({record.reactor_id for record in records}) > 1
        for record in records:
            run = f"{experiment} {record.reactor_id}" if several else experiment
            if named.setdefault(run, experiment) != experiment:
                raise DataError(
                    f"a run of experiment {experiment} and experiment {named[run]} would both be "
                    f"called {run!r}; export them one by one."
                )
            clone = clones.get(record.reactor_id or "")
            rows.append(as_row(run, record) | ({} if clone is None else {"clone_id": clone}))
    if not rows:
        raise DataError(f"experiment {store.experiment_name} has no samples to export.")
    try:
        replace_durably(out, as_file(rows, store.words, out.suffix.lower()))
    except OSError as error:
        raise ConnectorError(f"{out} cannot be written: {error}") from error
    return len(rows)


def import_runs(
    url: str,
    rows: FilesystemStore,
    reactor: str | None,
    *,
    correct: bool = False,
    reason: str | None = None,
) -> list[str]:
    """Store every run of a file in an experiment that is called as the run.

    Args:
        url: The database.
        rows: The file.
        reactor: Vessel of runs that name none.
        correct: Whether other values replace those stored.
        reason: Why.

    Returns:
        What was done, as lines.

    Raises:
        ConfigError: As `import_file` does.
        DataError: If a run has no name, and as `import_file` does; what was stored before stays.
        DatabaseError: If the database cannot be used.
    """
    runs = dict.fromkeys(run for run, _, _ in rows.runs())
    if "" in runs or not runs:
        raise DataError(
            f"{rows.source_path} has samples of a run without a name, which cannot be an "
            "experiment; say --experiment, or which column names the run (--map)."
        )
    lines = []
    for run in runs:
        rows.run_id = run
        lines += import_file(url, rows, run, reactor, correct=correct, reason=reason)
        rows.reactor_id = None
    notes = dict.fromkeys(lines)  # what the file says of itself, once
    return list(notes)


def import_file(
    url: str,
    rows: FilesystemStore,
    experiment: str,
    reactor: str | None,
    *,
    correct: bool = False,
    reason: str | None = None,
) -> list[str]:
    """Store the samples of a file, reactor by reactor; what was done, as lines.

    They are of the culture the file is read as, which is stored with them.

    Raises:
        ConfigError: If the file names no reactor and none is given, or the database holds a
            reactor as another culture.
        DataError: If the file cannot be understood or contradicts what is stored.
        DatabaseError: If the database cannot be used.
    """
    there = rows.runs()
    runs = sorted({run for run, _, _ in there} - {""})
    asked = rows.run_id if runs else None  # where no run has a name, none is meant
    if asked is not None and asked not in runs:
        raise DataError(f"{rows.source_path} has no run {asked!r}; its runs are {', '.join(runs)}.")
    names = sorted({vessel for run, vessel, _ in there if asked in (None, run)} - {""})
    if not names and reactor is None:
        raise ConfigError(f"{rows.source_path} names no reactor; say which with --reactor.")
    lines = [f"{rows.source_path.name}: {line}" for line in rows.report().oddities]
    for name in [reactor] if reactor is not None else names:
        rows.reactor_id = name
        store = SQLStore(url, experiment, name or "", process=rows.process)
        found = asyncio.run(rows.read_rows())
        if rows.rules.set_points == "until":  # what is stored acts from the sample on
            once = () if rows.process is None else rows.process.boluses
            found = _acting(found, once)
        clone = rows.clone()
        if not found:
            raise DataError(
                f"{rows.source_path} has no sample of reactor '{name}'; its reactors are "
                f"{', '.join(names) or 'not named'}."
            )
        with closing(store.database):
            counts = import_samples(
                store,
                found,
                clone_id=None if clone == _NO_CLONE else clone,
                is_correction=correct,
                reason=reason,
            )
        shown = ", ".join(f"{n} {fate}" for fate, n in counts.items())
        lines.append(f"{experiment}, {name}: {len(found)} samples ({shown})")
    return lines


def _acting(records: Sequence[SampleRecord], once: Sequence[str]) -> list[SampleRecord]:
    """Records whose set-points act from their samples on, of such whose acted until them."""
    table = acting_from_rows([record.controls for record in records], once)
    known = [{n: r.quality[n] for n in r.controls if n in r.quality} for r in records]
    quality = acting_from_rows(known, once)
    return [
        replace(record, controls=controls, quality={**record.quality, **of})
        for record, controls, of in zip(records, table, quality, strict=True)
    ]


def export_file(
    url: str, out: Path, experiments: str | Sequence[str], reactors: Sequence[str]
) -> str:
    """Export samples; what was done, as a line.

    Args:
        url: The database.
        out: Table to write.
        experiments: Which; all there are if empty.
        reactors: Vessels; all of them if empty.

    Raises:
        DataError: If there is nothing to export.
        DatabaseError: If the database cannot be used.
    """
    wanted = [experiments] if isinstance(experiments, str) else list(dict.fromkeys(experiments))
    chosen: dict[str, list[str]] = {}
    cultures: dict[str, Process | None] = {}
    with closing(Database(url)) as database:
        held = holdings(database)
        for name in wanted or list(dict.fromkeys(h.experiment for h in held)):
            known = [h.reactor for h in held if h.experiment == name]
            unknown = [vessel for vessel in reactors if vessel not in known]
            if unknown or not known:
                there = ", ".join(dict.fromkeys(h.experiment for h in held)) or "none"
                raise DataError(
                    f"experiment {name} has no samples of {', '.join(unknown) or 'any reactor'}; "
                    f"it has {', '.join(known) or 'none'}. Experiments of the database: {there}."
                )
            chosen[name] = list(reactors) or known
            whose = processes_of(database, name)
            of = f" of {name}" if len(wanted) != 1 else ""
            cultures |= {f"{vessel}{of}": whose[vessel] for vessel in chosen[name]}
    if not chosen:
        raise DataError("the database holds no samples; there is nothing to export.")
    process = _one_culture(cultures)
    first, *others = chosen
    store = SQLStore(url, first, chosen[first][0], process=process)
    with closing(store.database):
        further = {name: chosen[name] for name in others}
        n = asyncio.run(export_samples(store, out, chosen[first], further=further))
    culture = "" if process is None else f" of {process.name}"
    runs = f" in {len(chosen)} experiments" if others else ""
    return f"{n} samples of {len(cultures)} reactor(s){runs}{culture}: {out}"


def _one_culture(cultures: dict[str, Process | None]) -> Process | None:
    """The culture of several vessels, which a table has one of."""
    (first, process), *others = cultures.items()
    for name, other in others:
        differs = (
            process != other if process is None or other is None else process.differences(other)
        )
        if differs:
            names = ["CHO perfusion" if p is None else p.name for p in (process, other)]
            said = f": {'; '.join(differs[:4])}" if isinstance(differs, list) else ""
            raise DataError(
                f"{first} is {names[0]} and {name} is {names[1]}{said}; a table holds one culture. "
                "Export them one by one, with --reactor or --experiment."
            )
    return process
