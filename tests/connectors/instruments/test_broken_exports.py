"""Exports that are cut off or garbled: refused by name, or read without another value."""

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from perfusio_jax._core import DataError
from perfusio_jax.connectors.instruments.reading import read_instrument, recognise
from perfusio_jax.connectors.tables.raw import RawTable
from tests.connectors.instruments import exports as ex

WHOLE: dict[str, tuple[bytes, str]] = {
    "FLEX2": (ex.FLEX2, ".csv"),
    "FLEX2 with units": (ex.text(ex.FLEX2_HEADER, ex.FLEX2_UNITS, *ex.FLEX2_ROWS), ".csv"),
    "BLU": (ex.BLU, ".csv"),
    "BLU in quotes": (
        "\n".join(
            ",".join(f'"{cell}"' for cell in row.split(","))
            for row in (ex.BLU_HEADER, *ex.BLU_ROWS)
        ).encode(),
        ".csv",
    ),
    "BLU in UTF-16": (ex.BLU.decode().encode("utf-16"), ".csv"),
    "XR": (ex.XR, ".xlsx"),
    "XR of the old kind": (ex.xls(*ex.xr_rows(*ex.XR_ROWS)), ".xls"),
    "XR as text": (ex.XR_TEXT.encode(), ".txt"),
    "HiRes": (ex.HIRES, ".csv"),
    "Bio HT": (ex.BIO, ".txt"),
    "ASM": (ex.ASM, ".json"),
}
TEXTS = [name for name, (_, suffix) in WHOLE.items() if suffix in (".csv", ".txt")]


def read(content: bytes, suffix: str) -> RawTable | None:
    """The table; `None` if the file is of no instrument. Anything but a DataError escapes."""
    instrument = recognise(content, suffix)
    return None if instrument is None else read_instrument(content, suffix, instrument)


def cells(table: RawTable) -> dict[tuple[int, str], Any]:
    """Every value by its line and label."""
    assert len(table.rows) == len(table.lines) and table.notes
    assert all(len(row) == len(table.header) for row in table.rows)
    return {
        (line, label): cell
        for row, line in zip(table.rows, table.lines, strict=True)
        for label, cell in zip(table.header, row, strict=True)
        if cell not in (None, "")
    }


FULL = {name: cells(table) for name, file in WHOLE.items() if (table := read(*file)) is not None}


def test_every_file_is_read_whole():
    assert FULL.keys() == WHOLE.keys()


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_cut_off_anywhere_has_no_other_value(name: str):
    content, suffix = WHOLE[name]
    n_read = 0
    everywhere = {*range(0, len(content), 5), *range(max(len(content) - 300, 0), len(content))}
    for end in sorted(everywhere):
        try:
            table = read(content[:end], suffix)
        except DataError:
            continue
        if table is not None:
            n_read += 1
            found = cells(table)
            assert found.items() <= FULL[name].items(), end
    assert n_read > 0, "some are read"


@pytest.mark.parametrize("name", ["XR", "XR of the old kind", "ASM"])
@settings(max_examples=40)
@given(data=st.data())
def test_other_files_cut_off_are_refused_or_whole(name: str, data: st.DataObject):
    content, suffix = WHOLE[name]
    end = data.draw(st.integers(0, len(content) - 1))
    try:
        table = read(content[:end], suffix)
    except DataError:
        return
    assert table is None or cells(table) == FULL[name]


@pytest.mark.parametrize("name", WHOLE)
@settings(max_examples=60)
@given(
    changes=st.lists(
        st.tuples(
            st.floats(0, 1, exclude_max=True),
            st.integers(0, 12),
            st.one_of(
                st.binary(max_size=4),
                st.sampled_from(
                    [b'"', b",", b"\n", b"\t", b";", b"<", b"{", b"-", b"1e999", b"\xff"]
                ),
            ),
        ),
        min_size=1,
        max_size=6,
    )
)
@example(changes=[(0.5, 0, b"\x00")])
@example(changes=[(0.3, 12, b""), (0.6, 0, b'"')])
def test_garbled_files_are_read_or_refused(name: str, changes: list[tuple[float, int, bytes]]):
    content, suffix = WHOLE[name]
    for place, n_gone, put in changes:
        at = int(place * len(content))
        content = content[:at] + put + content[at + n_gone :]
    try:
        table = read(content, suffix)
    except DataError as error:
        assert str(error)
        return
    assert table is None or cells(table)


@pytest.mark.parametrize("name", WHOLE)
@given(content=st.binary(max_size=200))
@settings(max_examples=30)
def test_a_file_that_only_begins_like_one(name: str, content: bytes):
    whole, suffix = WHOLE[name]
    for begin in (whole[:40], whole[: len(whole) // 2]):
        try:
            read(begin + content, suffix)
        except DataError as error:
            assert str(error)
