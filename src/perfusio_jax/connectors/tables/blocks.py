"""Files that hold several tables: one below the other, a vessel each, or times beside each other.

Some control systems write a block per vessel, its name on a line above; others give every quantity
a column of times of its own. Both are read where somebody says so, and become one table.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Literal, NamedTuple

from perfusio_jax._core import DataError
from perfusio_jax._core.text import in_line

from .raw import RawTable

Blocks = Literal["vessels", "times"]

BLOCKS: Final = ("vessels", "times")

VESSEL: Final = "reactor_id"
"""The column that names of blocks go into."""


class _Block(NamedTuple):
    """One of the tables."""

    name: str
    header: list[str]
    rows: list[list[Any]]
    lines: list[int]


def of_vessels(
    rows: Sequence[Sequence[Any]],
    lines: Sequence[int],
    is_header: Callable[[Sequence[Any]], bool],
    table: RawTable,
) -> tuple[list[list[Any]], list[int]]:
    """One table of blocks that stand below each other, the name of a vessel above each.

    Args:
        rows: All filled rows of the file.
        lines: Line of each.
        is_header: Whether a row is the header of a block.
        table: Takes a note.

    Returns:
        Rows with a column of vessels in front, the first of them the header; and their lines.

    Raises:
        DataError: If there is no block, or one has no name or that of another.
    """
    found = list(_cut(rows, lines, is_header))
    if not found:
        raise DataError(
            "holds no block: none of its lines has names of columns that are known. A column map "
            "(--map) can say what yours mean."
        )
    names = [block.name for block in found]
    for block in found:
        if not block.name or names.count(block.name) > 1:
            what = "has no line with the name of its vessel above it"
            if block.name:
                what = f"is of {in_line(block.name)}, as another is"
            raise DataError(f"the block whose header stands on line {block.lines[0]} {what}.")
    if any(label.casefold() == VESSEL for block in found for label in block.header):
        raise DataError(f"its blocks have a column {VESSEL}: they are no blocks of a vessel each.")
    header = list(dict.fromkeys(label for block in found for label in block.header if label))
    out: list[list[Any]] = [[VESSEL, *header]]
    at = [found[0].lines[0]]
    units: dict[str, tuple[str, str]] = {}
    for block in found:
        column = {label: n for n, label in enumerate(block.header)}
        for n, (row, line) in enumerate(zip(block.rows, block.lines[1:], strict=True)):
            if n == 0 and not any(_is_number(cell) for cell in row):
                _take_units(block, units)
                continue
            cells = [row[column[label]] if label in column else None for label in header]
            out.append([block.name, *cells])
            at.append(line)
    if units:
        out.insert(1, ["", *(units.get(label, ("", ""))[0] for label in header)])
        at.insert(1, found[0].lines[0] + 1)
    table.notes.append(
        f"{len(found)} blocks were read, one of each vessel: {', '.join(names[:8])}"
        + (", ..." if len(names) > 8 else "")
    )
    return out, at


def _cut(
    rows: Sequence[Sequence[Any]],
    lines: Sequence[int],
    is_header: Callable[[Sequence[Any]], bool],
) -> Iterator[_Block]:
    heads = [k for k, row in enumerate(rows) if is_header(row)]
    ends = []
    for head in heads:
        begin = head
        while begin > 0 and begin - 1 not in heads and _is_title(rows[begin - 1]):
            begin -= 1
        ends.append(begin)
    for k, head in enumerate(heads):
        end = ends[k + 1] if k + 1 < len(heads) else len(rows)
        header = ["" if cell is None else str(cell).strip() for cell in rows[head]]
        width = len(header)
        body = [([*row] + [None] * width)[:width] for row in rows[head + 1 : end]]
        title = _filled(rows[ends[k]]) if ends[k] < head else []
        yield _Block(_name(title), header, body, [lines[head], *lines[head + 1 : end]])


def _is_title(row: Sequence[Any]) -> bool:
    """Whether a row may name a vessel: a word or two, and no number first."""
    filled = _filled(row)
    return len(filled) <= 2 and not _is_number(filled[0])


def _name(title: list[str]) -> str:
    """Of "Unit 2", "Vessel: R2" and "Reactor;R2" what names the vessel."""
    if not title:
        return ""
    return title[-1] if len(title) > 1 else title[0].rpartition(":")[2].strip() or title[0]


def _filled(row: Sequence[Any]) -> list[str]:
    return [str(cell).strip() for cell in row if cell is not None and str(cell).strip()]


def _is_number(cell: Any) -> bool:
    if not isinstance(cell, str):
        return cell is not None
    try:
        float(cell.strip().replace(",", "."))
    except ValueError:
        return False
    return True


def _take_units(block: _Block, known: dict[str, tuple[str, str]]) -> None:
    """Units of a block, by label; what says something else than another block is refused."""
    for label, cell in zip(block.header, block.rows[0], strict=True):
        unit = "".join(_filled([cell]))
        if not unit:
            continue
        before, whose = known.setdefault(label, (unit, block.name))
        if before != unit:
            raise DataError(
                f"{in_line(label)} is in {in_line(unit)} in the block of {in_line(block.name)} and "
                f"in {in_line(before)} in that of {in_line(whose)}; blocks have one unit."
            )


def of_times(table: RawTable, is_time: Callable[[str], bool]) -> None:
    """One column of times of several, each of which counts for the columns behind it.

    Args:
        table: Changed in place: a row for each time there is in any of them.
        is_time: Whether a label is that of a column of times.

    Raises:
        DataError: If there are no two columns of times, the first column is none, or a time
            occurs twice among those of one quantity with different values.
    """
    starts = [n for n, label in enumerate(table.header) if is_time(label)]
    if len(starts) < 2 or starts[0] != 0:
        raise DataError(
            "is said to have a column of times before each quantity; its columns are "
            f"{', '.join(in_line(label) for label in table.header[:12])}."
        )
    width = len(table.header)
    groups = [
        (start, range(start + 1, end))
        for start, end in zip(starts, [*starts[1:], width], strict=True)
    ]
    kept = [n for _, columns in groups for n in columns]
    found: dict[Any, tuple[Any, int, dict[int, Any]]] = {}
    for row, line in zip(table.rows, table.lines, strict=True):
        for start, columns in groups:
            time = row[start]
            if time is None or not str(time).strip():
                if any(row[n] is not None and str(row[n]).strip() for n in columns):
                    raise DataError(
                        f"line {line} has a value of {in_line(table.header[columns[0]])} without a "
                        "time before it."
                    )
                continue
            _, _, values = found.setdefault(_same_time(time), (time, line, {}))
            for n in columns:
                if n in values and values[n] != row[n]:
                    raise DataError(
                        f"{in_line(table.header[n])} is {in_line(values[n])} and, in line {line}, "
                        f"{in_line(row[n])} at {in_line(time)}; keep one of the two."
                    )
                values[n] = row[n]
    table.header = [table.header[0], *(table.header[n] for n in kept)]
    table.rows = [[time, *(values.get(n) for n in kept)] for time, _, values in found.values()]
    table.lines = [line for _, line, _ in found.values()]
    table.notes.append(f"{len(starts)} columns of times were made one")


def _same_time(time: Any) -> Any:
    """A time as it is compared: `0` and `0.0` are one, whatever else they are."""
    if isinstance(time, str):
        text = time.strip()
        try:
            return repr(float(text)) if text.isascii() and "_" not in text else text
        except ValueError:
            return text
    return time
