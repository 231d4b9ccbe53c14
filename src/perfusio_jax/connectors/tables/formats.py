"""Files to cells by their kind: CSV in all its dialects, Parquet and Excel."""

from collections.abc import Callable
from typing import Final

from perfusio_jax._core import DataError

from .cells import find_decimal
from .delimited import read_text
from .layout import Layout
from .parquet import read_parquet
from .raw import RawTable, marked
from .workbook import read_excel, show_percent

TEXT_SUFFIXES: Final = frozenset({".csv", ".tsv", ".txt"})
PARQUET_SUFFIXES: Final = frozenset({".parquet", ".pq"})
EXCEL_SUFFIXES: Final = frozenset({".xlsx", ".xlsm"})
WORKBOOK_SUFFIXES: Final = frozenset({".xlsx"})
"""Those of them that are written."""
EXPORT_SUFFIXES: Final = frozenset({".xls", ".json", ".asm"})
"""Kinds that are read as exports of instruments only."""


def read_table(
    content: bytes,
    suffix: str,
    *,
    is_known: Callable[[str], bool],
    separator: str | None = None,
    decimal: str | None = None,
    sheet: str | None = None,
    allow_unterminated: bool = False,
    is_number: Callable[[str], bool] | None = None,
    layout: Layout | None = None,
    resembles: Callable[[str], bool] | None = None,
) -> RawTable:
    """Cells of a file by its kind.

    Args:
        content: The file.
        suffix: Its suffix, which says what kind it is.
        is_known: Whether a column label is understood; decides between separators.
        separator: Field separator of a text file; found out if not given.
        decimal: "." or ","; found out if not given.
        sheet: Sheet of an Excel file; the first if not given.
        allow_unterminated: Read a last line that has no line end.
        is_number: Whether a column label is of numbers; then a cell such as `98,5 %` tells the
            decimal mark, too.
        layout: Where the table stands, as far as that is said.
        resembles: Whether a text is a word that people use for a label; tells a header from what
            stands above it.

    Returns:
        The cells; without header if the file holds none.

    Raises:
        DataError: If the file is not of its kind or its rows have no common shape.
    """
    suffix, layout = suffix.lower(), layout or Layout()
    if suffix in TEXT_SUFFIXES:
        return read_text(
            content,
            is_known,
            separator,
            decimal,
            allow_unterminated,
            is_number,
            layout,
            resembles or is_known,
        )
    if suffix in PARQUET_SUFFIXES | EXCEL_SUFFIXES:
        is_excel = suffix in EXCEL_SUFFIXES
        if is_excel:
            table = read_excel(content, sheet, resembles or is_known, layout)
        else:
            table = read_parquet(content)
        texts = marked(table, is_number, all_columns=False)  # numbers may be there as text
        table.decimal = decimal or find_decimal(texts, None)
        if is_excel:
            show_percent(table)
        return table
    if suffix in EXPORT_SUFFIXES:
        raise DataError(
            f"cannot be read: it is of kind '{suffix}' and no export of an instrument that is "
            "known; a table of that kind is read once it is saved as .xlsx or .csv."
        )
    allowed = ", ".join(sorted(TEXT_SUFFIXES | PARQUET_SUFFIXES | EXCEL_SUFFIXES))
    raise DataError(f"files of kind '{suffix or 'no suffix'}' cannot be read; allowed: {allowed}.")
