"""Samples as a table that this library reads again: CSV, a workbook, or Parquet."""

from collections.abc import Sequence
from typing import Any, Final

from perfusio_jax._core import STREAM_TOTALS

from ..base import SampleRecord
from .run_rows import as_written
from .vocabulary import Vocabulary
from .writing import as_csv, as_workbook

_Rows = Sequence[dict[str, Any]]
_LEADING: Final = ("run_id", "reactor_id", "clone_id", "day", "time_h", "sampled_at")


def as_file(rows: _Rows, words: Vocabulary, suffix: str) -> bytes:
    """The content of a file.

    Args:
        rows: Samples, as `as_row` makes them.
        words: Names and units of columns.
        suffix: ".csv", ".xlsx" or ".parquet".
    """
    leading = [n for n in _LEADING if n != "clone_id" or any(n in row for row in rows)]
    numbers = (*words.species, *words.controls, *STREAM_TOTALS, *words.tags, "volume_L")
    known = [n for name in dict.fromkeys(numbers) for n in (name, f"{name}_quality")]
    names = [n for n in known if any(n in row for row in rows)]
    if suffix == ".csv":
        return as_csv(*_cells(rows, leading, names, words)).encode()
    if suffix == ".xlsx":
        return as_workbook(*_cells(rows, leading, names, words))
    return _parquet(rows, leading, names, words)


def as_row(run_id: str, record: SampleRecord) -> dict[str, Any]:
    """A sample as a row of a table, by name.

    Args:
        run_id: What its run is called.
        record: The sample.
    """
    times = sorted(record.source_times.values())
    row: dict[str, Any] = {
        "run_id": run_id,
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


def _cells(
    rows: Sequence[dict[str, Any]], leading: Sequence[str], names: Sequence[str], words: Vocabulary
) -> Any:
    """Names, units and rows, as they are written."""
    units = [words.unit(n) if n in ("day", "time_h") else "" for n in leading]
    units += ["" if _is_quality(n) else words.unit(n) for n in names]
    whole = (*leading, *names)
    return whole, units, ([row.get(n) for n in whole] for row in rows)


def _parquet(
    rows: Sequence[dict[str, Any]], leading: Sequence[str], names: Sequence[str], words: Vocabulary
) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    text, number = pa.string(), pa.float64()
    # a column is of one kind: one with a limit in it is text
    mixed = {n for n in names if any(isinstance(row.get(n), str) for row in rows)}
    kinds = {n: {"day": pa.int64(), "time_h": number}.get(n, text) for n in leading}
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
