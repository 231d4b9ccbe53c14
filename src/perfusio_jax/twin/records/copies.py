"""Copies of the audit trail for people and for analysis: CSV and Parquet."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import rfc8785

from perfusio_jax._core import AuditError

from .chain import records
from .files import neutralise
from .trail_files import CSV_NAME, PARQUET_NAME, read_trail

COLUMNS = ("timestamp", "run_id", "event_type", "day", "user", "payload_json")
"""Columns of both copies; the Parquet one has number and hash of the record as well."""


def copies_that_differ(folder: Path, log: bytes) -> list[str]:
    """What the CSV and Parquet copies say that the log does not.

    Args:
        folder: Where they lie.
        log: Verified bytes of `audit.jsonl`.

    Returns:
        One sentence per copy that is no beginning of the log.
    """
    rows = list(records(log))
    cells = [_cells(row) for row in rows]
    notes = []
    try:
        found = read_trail(folder / CSV_NAME)
    except AuditError as error:  # no evidence either way
        notes.append(str(error))
    else:
        if found is not None and not _csv(cells).startswith(found):
            notes.append(f"{CSV_NAME} does not agree with the log")
    if (folder / PARQUET_NAME).exists():
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            copy = pq.read_table(folder / PARQUET_NAME)
            agrees = copy.equals(_table(rows[: copy.num_rows], cells))
        except (OSError, pa.ArrowException):
            agrees = False
        if not agrees:
            notes.append(f"{PARQUET_NAME} does not agree with the log")
    return notes


def _cells(record: Mapping[str, Any]) -> list[Any]:
    """The seed columns of a record; everything the record adds goes into the payload cell."""
    named = {"timestamp", "run_id", "event_type", "day", "user"}
    chain = {"version", "seq", "prev_hash", "hash", "payload"}
    extra = {name: value for name, value in record.items() if name not in named | chain}
    payload = {**record["payload"], **{f"_{name}": value for name, value in extra.items()}}
    cells = [record[name] for name in COLUMNS[:-1]]
    return [*cells, rfc8785.dumps(payload).decode()]


def parquet_table(rows: list[dict[str, Any]]) -> Any:
    """Records as an Arrow table."""
    return _table(rows, [_cells(row) for row in rows])


def _table(rows: list[dict[str, Any]], cells: list[list[Any]]) -> Any:
    """Records, and the cells of these and maybe of more, as an Arrow table."""
    import pyarrow as pa

    names = (*COLUMNS, "seq", "hash")
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for record, its_cells in zip(rows, cells, strict=False):
        for name, cell in zip(COLUMNS, its_cells, strict=True):
            columns[name].append(cell)
        columns["seq"].append(record["seq"])
        columns["hash"].append(record["hash"])
    kinds = [(name, pa.int64() if name in ("day", "seq") else pa.string()) for name in names]
    if not all(isinstance(day, int) for day in columns["day"]):
        kinds[names.index("day")] = ("day", pa.float64())
    return pa.table(columns, schema=pa.schema(kinds))


def csv_copy(rows: list[dict[str, Any]]) -> bytes:
    """The whole CSV copy of a log of these records."""
    return _csv([_cells(row) for row in rows])


def _csv(cells: list[list[Any]]) -> bytes:
    return (",".join(COLUMNS) + "\r\n").encode() + _lines(cells)


def csv_rows(rows: list[dict[str, Any]]) -> bytes:
    """Records as lines of the CSV copy."""
    return _lines([_cells(row) for row in rows])


def _lines(cells: list[list[Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    for row in cells:
        writer.writerow([neutralise(cell) for cell in row])
    return text.getvalue().encode()
