"""Rows of fields to a table: a header, and rows as wide as it."""

from perfusio_jax._core import DataError

from .raw import RawTable


def shape(rows: list[list[str]], lines: list[int], table: RawTable) -> None:
    """Header and rows of equal width: empty fields beside the table are left out, told."""
    header = [cell.strip() for cell in rows[0]]
    named = max((n + 1 for n, label in enumerate(header) if label), default=0)
    beside = any(cell.strip() for row in rows[1:] for cell in row[named : len(header)])
    width = len(header) if beside else named
    n_wide = sum(len(row) > width for row in rows)
    table.header = [
        label or f"column {n + 1} without a name" for n, label in enumerate(header[:width])
    ]
    folded = [label.casefold() for label in header[:width]]
    is_again = False
    for row, line in zip(rows[1:], lines[1:], strict=True):
        if len(row) < width or any(cell.strip() for cell in row[width:]):
            many = len(row) > width
            hint = (
                "a decimal comma between commas?" if many else "a half-written row, or one cut off?"
            )
            raise DataError(
                f"line {line} has {len(row)} fields where the header has {len(header)} ({hint})"
            )
        cells = row[:width]
        if [cell.strip().casefold() for cell in cells] == folded:
            table.notes.append(f"line {line} repeats the header and is left out")
            is_again = True
            continue
        if is_again and table.rows and cells == table.rows[0]:
            table.notes.append(f"line {line} repeats the row below the header and is left out")
            continue
        is_again = False
        table.rows.append(cells)
        table.lines.append(line)
    if n_wide:
        table.notes.append(
            f"{n_wide} lines end with a separator; the empty field after it is left out"
        )
