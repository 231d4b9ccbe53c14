"""Files that mean no good, by name: each is made in a folder and belongs to one kind."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import openpyxl

TEXT: dict[str, bytes] = {
    "a first line of 200 kB": b"day,VCD," + b"x" * 200_000 + b"\n1,2,3\n",
    "a first line of blanks and brackets": b"day,VCD," + b" (" * 24_000 + b"\n1,2,3\n",
    "a first line of 30 000 columns": b"day,VCD" + b",a" * 20_000 + b"\n1,2\n",
    "a field of 200 kB": b'day,VCD\n1,"' + b"x" * 200_000 + b'"\n',
    "an open quote": b'day,VCD\n1,"2\n' + b"3,4\n" * 50_000,
    "quotes only": b'"' * 100_001 + b"\n",
    "separators only": b";" * 900 + b"\n" + b"," * 5000 + b"\n",
    "line ends only": b"\n" * 1_000_001,
    "old line ends only": b"\r" * 1_000_001,
    "zero bytes": b"\x00" * 1000,
    "half a UTF-16": b"\xff\xfed\x00a\x00\x00\xd8",
    "not UTF-8": b"\xc3\x28\xa0\xa1\n" * 10,
    "escapes in names": b"day,VCD,\x1b]0;owned\x07\x1b[2J\n1,2,3\n",
    "a marker of direction in a name": "day,VCD,\u202eDCV\n1,2,3\n".encode(),
    "full-width digits": "day,VCD\n1,\uff11\uff12\n".encode(),
    "Arabic digits": "day,VCD\n1,\u0663\n2,\u0664\n".encode(),
    "an underscore in a number": b"day,VCD\n1,1_000\n",
    "a number of 10 000 digits": b"day,VCD\n1," + b"9" * 10_000 + b"\n",
    "a day of 10 000 digits": b"day,VCD\n" + b"9" * 10_000 + b",1\n",
    "a day of 1e308": b"day,VCD\n1e308,1\n",
    "hexadecimal numbers": b"day,VCD\n1,0x1p3\n",
    "a unit that is a power of powers": b"day,VCD [9**9**9**9]\n1,2\n",
    "a unit of 100 kB": b"day,Glc [" + b"g" * 40_000 + b"]\n1,2\n",
    "a formula for a spreadsheet": b"day,VCD,=cmd|' /C calc'!A0\n1,2,3\n",
    "a thousand unknown columns": b"day,VCD" + b",q" * 990 + b"\n1,2" + b",3" * 990 + b"\n",
    "a name of percent signs": b"day,VCD,%s%n%x{0}{x.__class__}\n1,2,3\n",
    "markup in names": b"day,VCD,[red]x[/blue]\n1,2,3\n",
}
"""Text tables."""


def workbook(sheet: str, *, strings: str | None = None, head: str = "") -> bytes:
    """A workbook whose first sheet is this XML."""
    plain = openpyxl.Workbook()
    plain.active.append(["day", "VCD"])
    plain.active.append([1, 2.0])
    made = io.BytesIO()
    plain.save(made)
    out = io.BytesIO()
    with (
        zipfile.ZipFile(made) as old,
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            content = old.read(name)
            if name == "xl/worksheets/sheet1.xml" and sheet:
                content = (head + sheet).encode()
            if name == "xl/sharedStrings.xml" and strings is not None:
                content = strings.encode()
            new.writestr(name, content)
    return out.getvalue()


NS = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'


def cells(rows: str, extra: str = "") -> str:
    return f"<worksheet {NS}>{extra}<sheetData>{rows}</sheetData></worksheet>"


ROW = '<row r="1"><c r="A1" t="inlineStr"><is><t>day</t></is></c></row>'
_LAUGHS = "<!DOCTYPE w [<!ENTITY a 'aaaaaaaaaa'>" + "".join(
    f"<!ENTITY {b} '{f'&{a};' * 10}'>" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
BOOKS: dict[str, Callable[[], bytes]] = {
    "an undefined entity": lambda: workbook(cells(ROW + "<row>&nope;</row>")),
    "a billion laughs": lambda: workbook(cells("<row>&i;</row>"), head=_LAUGHS + "]>"),
    "a file as an entity": lambda: workbook(
        cells("<row>&x;</row>"), head='<!DOCTYPE w [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
    ),
    "entities behind a long remark": lambda: workbook(
        cells(ROW), head="<!--" + "x" * 2_000_000 + "--><!DOCTYPE w [<!ENTITY a 'b'>]>"
    ),
    "another encoding": lambda: workbook(cells(ROW), head="<?xml version='1.0' encoding='cp037'?>"),
    "XML that breaks off": lambda: workbook(f"<worksheet {NS}><sheetData><row>"),
    "a cell beyond every column": lambda: workbook(
        cells('<row r="1"><c r="ZZZZZZ1"><v>1</v></c></row>')
    ),
    "a row beyond every row": lambda: workbook(cells(ROW + '<row r="99999999"/>')),
    "a declared size of all cells": lambda: workbook(
        cells(
            ROW + '<row r="1048576"><c r="XFD1048576"><v>1</v></c></row>',
            '<dimension ref="A1:XFD1048576"/>',
        )
    ),
    "a string that is not there": lambda: workbook(
        cells('<row r="1"><c r="A1" t="s"><v>999999</v></c></row>')
    ),
    "a date beyond all dates": lambda: workbook(
        cells('<row r="1"><c r="A1" t="d"><v>99999-99-99</v></c></row>')
    ),
    "a number of 10 000 digits": lambda: workbook(
        cells(f'<row r="1"><c r="A1"><v>{"9" * 10_000}</v></c></row>')
    ),
    "no sheet at all": lambda: workbook("<x/>"),
    "an archive without parts": lambda: _archive({}),
    "an archive of something else": lambda: _archive({"a": b"b"}),
    "a path that leads away": lambda: _archive(
        {"../../x.xml": b"<a/>", "[Content_Types].xml": b""}
    ),
    "noise after a zip's mark": lambda: (
        b"PK\x03\x04" + bytes(range(256)) * 10 + b"PK\x05\x06" + b"\x00" * 18
    ),
    "20 000 parts": lambda: _archive({f"xl/{n}.xml": b"" for n in range(20_000)}),
    "a part declared shorter than it is": lambda: _short(workbook(cells(ROW))),
    "a damaged part": lambda: _damaged(workbook(cells(ROW))),
}
"""Workbooks."""


def _archive(parts: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return out.getvalue()


def _short(content: bytes) -> bytes:
    """Every size in the central directory halved."""
    out = bytearray(content)
    at = 0
    while (at := out.find(b"PK\x01\x02", at)) >= 0:
        size = int.from_bytes(out[at + 24 : at + 28], "little")
        out[at + 24 : at + 28] = (size // 2).to_bytes(4, "little")
        at += 4
    return bytes(out)


def _damaged(content: bytes) -> bytes:
    out = bytearray(content)
    out[len(out) // 3 : len(out) // 3 + 40] = b"\xff" * 40
    return bytes(out)


DEVICES: dict[str, Callable[[Path], Path]] = {}


def pipe(folder: Path, name: str) -> Path:
    import os

    path = folder / name
    os.mkfifo(path)
    return path


def zeros(folder: Path, name: str) -> Path:
    path = folder / name
    path.symlink_to("/dev/zero")
    return path


DEVICES.update({"a pipe nobody writes to": pipe, "zeros without end": zeros})
"""What is no file."""
