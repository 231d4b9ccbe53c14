"""Cells of the old binary Excel file, as far as an instrument writes it.

Such a file is a small file system (compound file binary, [MS-CFB]) with one stream of records in
it ([MS-XLS], BIFF8; BIFF5 before 1997). Read are numbers and texts of the first sheet. Formats
are not read, so a date is the number that is stored.
"""

import struct
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from perfusio_jax._core import DataError
from perfusio_jax._core import limits as bounds

_MAGIC: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_END: Final = 0xFFFFFFFA
"""Sector numbers from here on end a chain."""
_DAMAGED: Final = "is damaged or breaks off; it cannot be read as Excel (.xls). Save it as .xlsx."
_FILEPASS, _BOF, _EOF, _SHEET, _SST, _CONTINUE = 0x2F, 0x809, 0x0A, 0x85, 0xFC, 0x3C
_NUMBER, _RK, _MULRK, _LABELSST, _LABEL, _RSTRING = 0x203, 0x27E, 0xBD, 0xFD, 0x204, 0xD6
_FORMULA, _STRING, _BOOLERR = 0x06, 0x207, 0x205
_BIFF8: Final = 0x600
_LAST_ROW, _LAST_COLUMN = 65_535, 255


def is_xls(content: bytes) -> bool:
    """Whether a file is a compound file, as every `.xls` is."""
    return content.startswith(_MAGIC)


def read_xls(content: bytes) -> Iterator[list[Any]]:
    """Rows of the first sheet, from the first row on, blank ones as empty lists.

    Args:
        content: The file.

    Raises:
        DataError: If it is no `.xls`, is encrypted, damaged, or larger than what is read.
    """
    if not is_xls(content):
        raise DataError("is no Excel file of the old kind (.xls); is the suffix right?")
    try:
        stream = _workbook(content)
        rows = _cells(stream)
    except (struct.error, IndexError, UnicodeDecodeError):
        raise DataError(_DAMAGED) from None
    for n in range(max(rows, default=-1) + 1):
        cells = rows.get(n, {})
        yield [cells.get(k) for k in range(max(cells, default=-1) + 1)]


def _workbook(content: bytes) -> bytes:
    """The stream of records in the compound file."""
    shift, mini_shift = struct.unpack_from("<HH", content, 30)
    n_fat, first_folder = struct.unpack_from("<II", content, 44)
    cutoff, first_mini, _, first_more, n_more = struct.unpack_from("<5I", content, 56)
    if shift not in (9, 12) or mini_shift != 6:
        raise DataError(_DAMAGED)
    size = 1 << shift

    def sector(n: int) -> bytes:
        found = content[(n + 1) * size : (n + 2) * size]
        if not found:
            raise IndexError
        return found

    listed = list(struct.unpack_from("<109I", content, 76))
    for _ in range(min(n_more, len(content) // size)):
        more = struct.unpack(f"<{size // 4}I", sector(first_more))
        listed += more[:-1]
        first_more = more[-1]
    fat: list[int] = []
    for n in listed[: min(n_fat, len(content) // size)]:
        fat += struct.unpack(f"<{size // 4}I", sector(n))
    folder = b"".join(map(sector, _chain(first_folder, fat)))
    entries = {name: (start, length) for name, start, length in _entries(folder)}
    start, length = entries.get("Workbook") or entries.get("Book") or (0, 0)
    if length == 0:
        raise DataError("holds no workbook; it is another program's file with the suffix .xls.")
    if length >= cutoff:
        return b"".join(map(sector, _chain(start, fat)))[:length]
    root = b"".join(map(sector, _chain(entries["Root Entry"][0], fat)))
    raw = b"".join(map(sector, _chain(first_mini, fat)))
    mini = list(struct.unpack(f"<{len(raw) // 4}I", raw))
    return b"".join(root[n << 6 : (n + 1) << 6] for n in _chain(start, mini))[:length]


def _chain(start: int, table: list[int]) -> Iterator[int]:
    """Numbers of the sectors of a stream; a ring of them ends with the table."""
    for _ in range(len(table) + 1):
        if start >= _END:
            return
        yield start
        start = table[start]
    raise DataError(_DAMAGED)


def _entries(folder: bytes) -> Iterator[tuple[str, int, int]]:
    for at in range(0, len(folder) - 127, 128):
        length = struct.unpack_from("<H", folder, at + 64)[0]
        if 2 <= length <= 64:
            name = folder[at : at + length - 2].decode("utf-16-le")
            yield name, *struct.unpack_from("<II", folder, at + 116)


def _records(stream: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    while at + 4 <= len(stream):
        kind, length = struct.unpack_from("<HH", stream, at)
        if at + 4 + length > len(stream):
            raise IndexError
        yield kind, stream[at + 4 : at + 4 + length]
        at += 4 + length


def _cells(stream: bytes) -> dict[int, dict[int, Any]]:
    """Cells of the first sheet by row and column, from 0."""
    version, first_sheet = _BIFF8, -1
    parts: list[bytes] = []
    is_texts = False
    for kind, body in _records(stream, 0):
        if kind == _BOF:
            version = struct.unpack_from("<H", body)[0]
        elif kind == _FILEPASS:
            raise DataError("is encrypted; save it without a password.")
        elif kind == _SHEET and first_sheet < 0 and body[5] == 0:  # a sheet, no chart or macro
            first_sheet = struct.unpack_from("<I", body)[0]
        elif kind == _SST or (kind == _CONTINUE and is_texts):
            parts.append(body)
        is_texts = kind == _SST or (kind == _CONTINUE and is_texts)
        if kind == _EOF:
            break
    if first_sheet < 0:
        raise DataError(_DAMAGED)
    texts = _Texts(parts).all() if parts else []
    return _sheet(stream, first_sheet, version, texts)


def _sheet(stream: bytes, at: int, version: int, texts: list[str]) -> dict[int, dict[int, Any]]:
    rows: dict[int, dict[int, Any]] = {}
    waits: tuple[int, int] | None = None
    n_cells = 0
    for kind, body in _records(stream, at):
        if kind == _EOF:
            return rows
        found: list[tuple[int, int, Any]] = []
        if kind == _STRING and waits is not None:
            found = [(*waits, _text(body, version))]
        elif kind == _MULRK:
            row, first = struct.unpack_from("<HH", body)
            numbers = range((len(body) - 6) // 6)
            found = [(row, first + n, _rk(body[6 + 6 * n : 10 + 6 * n])) for n in numbers]
        elif kind in (_NUMBER, _RK, _LABELSST, _LABEL, _RSTRING, _FORMULA, _BOOLERR):
            row, column = struct.unpack_from("<HH", body)
            value = _value(kind, body[6:], version, texts)
            is_text = kind == _FORMULA and body[12:14] == b"\xff\xff" and body[6] == 0
            waits = (row, column) if is_text else None
            found = [(row, column, value)]
        n_cells += len(found)
        bounds.check_shape(1, 1 if n_cells <= bounds.CELLS else n_cells, "the sheet")
        for row, column, value in found:
            if column > _LAST_COLUMN:
                raise DataError(_DAMAGED)
            if value is not None:
                rows.setdefault(row, {})[column] = value
    raise DataError(_DAMAGED)  # no end of the sheet


def _value(kind: int, body: bytes, version: int, texts: list[str]) -> Any:
    if kind == _NUMBER:
        return struct.unpack_from("<d", body)[0]
    if kind == _RK:
        return _rk(body[:4])
    if kind == _LABELSST:
        return texts[struct.unpack_from("<I", body)[0]]
    if kind in (_LABEL, _RSTRING):
        return _text(body, version)
    if kind == _BOOLERR:
        return "#ERROR" if body[1] else bool(body[0])
    if body[6:8] != b"\xff\xff":
        return struct.unpack_from("<d", body)[0]
    return {1: bool(body[2]), 2: "#ERROR"}.get(body[0])


def _rk(raw: bytes) -> float:
    """A number in four bytes: an integer or the upper half of a float, maybe times a hundred."""
    bits = struct.unpack("<I", raw)[0]
    if bits & 2:
        number = float(struct.unpack("<i", raw)[0] >> 2)
    else:
        number = struct.unpack("<d", b"\x00\x00\x00\x00" + struct.pack("<I", bits & ~3))[0]
    return number / 100 if bits & 1 else number


def _text(body: bytes, version: int) -> str:
    n = struct.unpack_from("<H", body)[0]
    if version < _BIFF8:
        raw = body[2 : 2 + n]
        return raw.decode("cp1252", "replace") if len(raw) == n else _broken()
    is_wide = body[2] & 1
    raw = body[3 : 3 + (2 * n if is_wide else n)]
    if len(raw) < (2 * n if is_wide else n):
        return _broken()
    return raw.decode("utf-16-le" if is_wide else "latin-1")


def _broken() -> str:
    raise IndexError


class _Texts:
    """The table of texts, which may be cut anywhere by the length of a record."""

    def __init__(self, parts: list[bytes]) -> None:
        self.parts, self.part, self.at = parts, 0, 8

    def all(self) -> list[str]:
        """Every text, in order."""
        n = struct.unpack_from("<I", self.parts[0], 4)[0]
        if n > bounds.CELLS:
            raise DataError(_DAMAGED)
        return list(islice(iter(self._one, None), n))

    def _one(self) -> str:
        n, flags = struct.unpack("<HB", self._take(3))
        n_runs = struct.unpack("<H", self._take(2))[0] if flags & 8 else 0
        n_more = struct.unpack("<I", self._take(4))[0] if flags & 4 else 0
        text = ""
        while n > 0:
            if self.at >= len(self.parts[self.part]):
                flags = self._next()[0]  # the rest says anew how wide its characters are
                self.at = 1
            width = 2 if flags & 1 else 1
            here = min(n, (len(self.parts[self.part]) - self.at) // width)
            if here == 0:
                raise IndexError
            raw = self.parts[self.part][self.at : self.at + here * width]
            text += raw.decode("utf-16-le" if width == 2 else "latin-1", "surrogatepass")
            self.at += here * width
            n -= here
        self._take(4 * n_runs + n_more)
        # a character of two halves may have been cut between them
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

    def _take(self, n: int) -> bytes:
        taken = b""
        while len(taken) < n:
            if self.at >= len(self.parts[self.part]):
                self._next()
            piece = self.parts[self.part][self.at : self.at + n - len(taken)]
            self.at += len(piece)
            taken += piece
        return taken

    def _next(self) -> bytes:
        self.part, self.at = self.part + 1, 0
        return self.parts[self.part]
