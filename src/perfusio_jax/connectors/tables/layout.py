"""Where in a file its table stands, as far as somebody says it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from perfusio_jax._core import DataError

from .raw import RawTable


class Layout(NamedTuple):
    """Lines of a file that are no samples; lines count from 1, rows of a sheet likewise."""

    header_row: int | None = None
    """Line of the names of the columns; found out if None."""
    skip_lines: tuple[int, ...] = ()
    """Lines that are left out."""
    skip_footer: int = 0
    """Filled lines at the end that are left out."""
    has_blocks: bool = False
    """Whether tables stand below each other, one of each vessel."""

    def check_header_row(self, n_lines: int) -> None:
        """Refuse a header beyond the end.

        Raises:
            DataError: If there is no such line.
        """
        if self.header_row is not None and self.header_row > n_lines:
            raise DataError(
                f"has {n_lines} lines, and its header is said to stand on line {self.header_row} "
                "(--header-row)."
            )

    def check_skipped(self, n_lines: int) -> None:
        """Refuse to leave out what is not there.

        Raises:
            DataError: If a line lies beyond the end.
        """
        beyond = [line for line in self.skip_lines if line > n_lines]
        if beyond:
            raise DataError(
                f"has {n_lines} lines, and line {beyond[0]} is to be left out (--skip-line)."
            )

    def without_footer(
        self, rows: list[Any], lines: list[int], table: RawTable
    ) -> tuple[list[Any], list[int]]:
        """Rows without those at the end that are left out, told."""
        n = min(self.skip_footer, max(len(rows) - 1, 0))
        if not n:
            return rows, lines
        first, last = lines[-n], lines[-1]
        span = f"line {last} is" if n == 1 else f"lines {first} to {last} are"
        table.notes.append(f"{span} left out as a footer")
        return rows[:-n], lines[:-n]


def told_above(above: Sequence[int], word: str = "line") -> list[str]:
    """A sentence on filled lines that stand above a table."""
    if not above:
        return []
    span = (
        f"{word}s {above[0]} to {above[-1]} stand"
        if len(above) > 1
        else f"{word} {above[0]} stands"
    )
    return [f"{span} above the table and {'say' if len(above) > 1 else 'says'} nothing of it"]
