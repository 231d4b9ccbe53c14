"""Samples from files into a database, and from a database into a table.

What `perfusio-jax db import` and `db export` do.
"""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from perfusio_jax._core import STREAM_TOTALS, ConfigError, ConnectorError, DataError
from perfusio_jax.process import Process
from perfusio_jax.twin import replace_durably
from perfusio_jax.twin.records.entries import Stored

from .base import SampleRecord
from .files.filesystem import FilesystemStore
from .sql.admin import holdings
from .sql.cultures import processes_of
from .sql.engine import Database
from .sql.store import SQLStore
from .tables.run_rows import as_written
from .tables.vocabulary import Vocabulary
from .tables.writing import as_csv, as_workbook

_LEADING = ("run_id", "reactor_id", "day", "time_h", "sampled_at")


def import_samples(
    store: SQLStore,
    rows: Iterable[SampleRecord],
    *,
    is_correction: bool = False,
    user: str = "system",
    reason: str | None = None,
) -> dict[str, int]:
    """Store samples of one reactor; doing it again changes nothing.

    Args:
        store: Where to.
        rows: Samples.
        is_correction: Whether other values replace those stored.
        user: Who imports.
        reason: Why they are corrected.

    Returns:
        How many were new, known already, and corrected or filled in.

    Raises:
        DataError: If one contradicts what is stored; then none is.
        DatabaseError: If the database cannot be used.
    """
    fates = store.write_records(rows, is_correction=is_correction, user=user, reason=reason)
    return {fate.value: fates.count(fate) for fate in Stored}


async def export_samples(store: SQLStore, out: Path, reactors: Sequence[str]) -> int:
    """Write samples as a table this library reads: one row per sample, newest revision.

    Text that a spreadsheet would run as a formula is made harmless in CSV.

    Args:
        store: Any reactor of the experiment.
        out: `.csv` or `.xlsx` (units in the second row) or `.parquet` (units in its metadata).
        reactors: Which to write.

    Returns:
        Number of samples.

    Raises:
        ConfigError: If the suffix is none of them.
        DataError: If there is nothing to write.
        ConnectorError: If the file or the database cannot be used; an earlier file stays.
    """
    if out.suffix.lower() not in (".csv", ".parquet", ".xlsx"):
        raise ConfigError(f"{out} must end in .csv, .xlsx or .parquet.")
    records = [
        record for name in reactors for record in await store.for_reactor(name).read_history()
    ]
    if not records:
        raise DataError(f"experiment {store.experiment_name} has no samples to export.")
    several = len({record.reactor_id for record in records}) > 1
    rows = [
        _row(store.experiment_name, record)
        | (
            {"run_id": f"{store.experiment_name} {record.reactor_id}"}
            if several
            else {}  # a run is one vessel's, and the experiment has several
        )
        for record in records
    ]
    words = store.words
    numbers = (*words.species, *words.controls, *STREAM_TOTALS, *words.tags, "volume_L")
    known = [n for name in dict.fromkeys(numbers) for n in (name, f"{name}_quality")]
    names = [n for n in known if any(n in row for row in rows)]
    try:
        kind = out.suffix.lower()
        if kind == ".csv":
            replace_durably(out, as_csv(*_cells(rows, names, words)).encode())
        elif kind == ".xlsx":
            replace_durably(out, as_workbook(*_cells(rows, names, words)))
        else:
            replace_durably(out, _parquet(rows, names, words))
    except OSError as error:
        raise ConnectorError(f"{out} cannot be written: {error}") from error
    return len(records)


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
        if not found:
            raise DataError(
                f"{rows.source_path} has no sample of reactor '{name}'; its reactors are "
                f"{', '.join(names) or 'not named'}."
            )
        with closing(store.database):
            counts = import_samples(store, found, is_correction=correct, reason=reason)
        shown = ", ".join(f"{n} {fate}" for fate, n in counts.items())
        lines.append(f"{experiment}, {name}: {len(found)} samples ({shown})")
    return lines


def export_file(url: str, out: Path, experiment: str, reactors: Sequence[str]) -> str:
    """Export samples; what was done, as a line.

    Raises:
        DataError: If there is nothing to export.
        DatabaseError: If the database cannot be used.
    """
    with closing(Database(url)) as database:
        known = [h.reactor for h in holdings(database) if h.experiment == experiment]
        cultures = processes_of(database, experiment)
    unknown = [name for name in reactors if name not in known]
    if unknown or not known:
        raise DataError(
            f"experiment {experiment} has no samples of {', '.join(unknown) or 'any reactor'}; "
            f"it has {', '.join(known) or 'none'}."
        )
    wanted = list(reactors) or known
    process = _one_culture({name: cultures[name] for name in wanted})
    store = SQLStore(url, experiment, wanted[0], process=process)
    with closing(store.database):
        n = asyncio.run(export_samples(store, out, wanted))
    whose = "" if process is None else f" of {process.name}"
    return f"{n} samples of {len(wanted)} reactor(s){whose}: {out}"


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
                "Export them one by one, with --reactor."
            )
    return process


def _row(experiment: str, record: SampleRecord) -> dict[str, Any]:
    times = sorted(record.source_times.values())
    row: dict[str, Any] = {
        "run_id": experiment,
        "reactor_id": record.reactor_id,
        "day": record.day,
        "time_h": record.time_h,
        "sampled_at": times[-1].isoformat() if times else None,
    }
    groups = (record.values, record.controls, record.stream_totals, record.tags)
    for group in groups:
        row |= group
    if record.volume_L is not None:
        row["volume_L"] = record.volume_L
    row |= {name: as_written(limit) for name, limit in record.limits.items()}
    doubtful = {n: q for n, q in record.quality.items() if q in ("uncertain", "bad")}
    # what a limit is says itself: marked bad it would not be read
    return row | {f"{n}_quality": q for n, q in doubtful.items() if n not in record.limits}


def _in_kind(cell: Any, is_text: bool) -> Any:
    return repr(cell) if is_text and isinstance(cell, float) else cell


def _is_quality(name: str) -> bool:
    return name.endswith("_quality")


def _cells(rows: Sequence[dict[str, Any]], names: Sequence[str], words: Vocabulary) -> Any:
    """Names, units and rows, as they are written."""
    units = ["", "", *(words.unit(n) for n in ("day", "time_h")), ""]
    units += ["" if _is_quality(n) else words.unit(n) for n in names]
    whole = (*_LEADING, *names)
    return whole, units, ([row.get(n) for n in whole] for row in rows)


def _parquet(rows: Sequence[dict[str, Any]], names: Sequence[str], words: Vocabulary) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    text, number = pa.string(), pa.float64()
    # a column is of one kind: one with a limit in it is text
    mixed = {n for n in names if any(isinstance(row.get(n), str) for row in rows)}
    kinds = dict(zip(_LEADING, (text, text, pa.int64(), number, text), strict=True))
    fields = [pa.field(n, kind) for n, kind in kinds.items()]
    fields += [
        pa.field(n, text)
        if _is_quality(n)
        else pa.field(n, text if n in mixed else number, metadata={"unit": words.unit(n)})
        for n in names
    ]
    cells = [{n: _in_kind(v, n in mixed) for n, v in row.items()} for row in rows]
    table = pa.Table.from_pylist(cells, schema=pa.schema(fields))
    out = pa.BufferOutputStream()
    pq.write_table(table, out)
    return out.getvalue().to_pybytes()
