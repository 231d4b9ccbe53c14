"""The old binary Excel file: numbers, texts wherever they are cut, damage by name."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfusio_jax._core import DataError
from perfusio_jax.connectors.instruments.xls import read_xls
from tests.connectors.instruments.exports import xls

CELLS = st.one_of(
    st.none(),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12),
    st.integers(-(2**29), 2**29 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
)


def trimmed(row: list) -> list:
    while row and row[-1] is None:
        row = row[:-1]
    return row


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.lists(CELLS, max_size=5), min_size=1, max_size=8),
    cut=st.integers(0, 300),
)
def test_what_was_written_is_read(rows: list[list], cut: int):
    wanted = [trimmed(row) for row in rows]
    while wanted and not wanted[-1]:
        wanted.pop()
    assert list(read_xls(xls(*rows, cut=cut))) == wanted


@pytest.mark.parametrize(
    ("raw", "number"),
    [(2, 0.0), (0x3FF00000, 1.0), (0x3FF00001, 0.01), (123456 << 2 | 3, 1234.56), (0xFFFFFFFE, -1)],
)
def test_numbers_in_four_bytes(raw: int, number: float):
    content = xls([7]).replace(struct.pack("<I", 7 << 2 | 2), struct.pack("<I", raw), 1)
    assert list(read_xls(content)) == [[number]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no Excel file of the old kind"),
        (b"PK\x03\x04", "is no Excel file of the old kind"),
        (xls(["a"])[:8], "is damaged"),
        (xls(["a"])[:511], "is damaged"),
        (xls(["a"])[:3000], "is damaged"),
        (xls(["a"], name="Notes"), "holds no workbook"),
    ],
)
def test_damage_is_told(content: bytes, message: str):
    with pytest.raises(DataError, match=message):
        list(read_xls(content))


def test_a_password_is_told():
    content = xls(["a"]).replace(struct.pack("<HH", 0x85, 13), struct.pack("<HH", 0x2F, 13), 1)
    with pytest.raises(DataError, match="is encrypted"):
        list(read_xls(content))


def test_a_ring_of_sectors_ends():
    content = bytearray(xls(["a"]))
    fat = 512 * (2 + 8 + 0)
    content[-512 : -512 + 8] = struct.pack("<II", 0, 0)
    assert fat
    with pytest.raises(DataError, match="is damaged"):
        list(read_xls(bytes(content)))
