"""Parquet to cells."""

from typing import Any, Final

from perfusio_jax._core import DataError
from perfusio_jax._core.text import in_line

from .packed import check_parquet
from .raw import RawTable, first_line, not_complete

_PARQUET_MARK: Final = b"PAR1"
"""First and last bytes of a Parquet file."""


def _plain(column: Any) -> list[Any]:
    """Cells of a column; what is a list or a structure in one is text here, and no number."""
    import pyarrow as pa

    cells = column.to_pylist()
    if not (pa.types.is_nested(column.type) or pa.types.is_dictionary(column.type)):
        return cells
    return [in_line(c) if isinstance(c, list | dict | tuple) else c for c in cells]


def read_parquet(content: bytes) -> RawTable:
    """Cells of a Parquet file, with the units its fields carry."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    is_begun = content.startswith(_PARQUET_MARK)
    if not content or (is_begun and not (len(content) > 12 and content.endswith(_PARQUET_MARK))):
        return not_complete(content)
    check_parquet(content)
    try:
        table = pq.read_table(pa.BufferReader(content))
        header = list(table.column_names)
        # texts are decoded here and not before: what is no UTF-8 in one is met only now
        columns = [_plain(column) for column in table.columns]
        units = {
            item.name: item.metadata[b"unit"].decode()
            for item in table.schema
            if item.metadata and b"unit" in item.metadata
        }
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"cannot be read as Parquet ({first_line(error)})") from None
    rows = [list(row) for row in zip(*columns, strict=True)]
    return RawTable(header=header, rows=rows, lines=list(range(1, len(rows) + 1)), units=units)
