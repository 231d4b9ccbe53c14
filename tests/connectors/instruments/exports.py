"""Made-up exports in the layouts of the instruments, and workbooks of both kinds."""

import io
import json
import struct
import zipfile
from typing import Any

import openpyxl

from perfusio_jax.connectors.instruments.reading import read_instrument, recognise
from perfusio_jax.connectors.tables.raw import RawTable

FLEX2_HEADER = (
    "Date & Time,Sample ID,Sample Type,Gln,Glu,Gluc,Lac,NH4+,Na+,pH,PO2,PCO2,Osm,Total Density,"
    "Viable Density,Viability,Avg. Live Diameter,Total Live Count,Total Cell Count,"
    "Pre-Dilution Multiplier,Cell Density Dilution,Vessel ID,Batch ID,"
    "Vessel Temperature (\u00b0C),Chemistry Dilution Ratio,pH @ Temp,Chemistry Flow Time,"
    "Tray Location,Sample Time,Operator,"
)
FLEX2_UNITS = (
    ",,,mmol / L,mmol / L,g / L,g / L,mmol / L,mmol / L,-,mmHg,mmHg,mOsm / kg,"
    "x10^6 Cells / mL,x10^6 Cells / mL,,,,,,,,,,,-,,,,,"
)
FLEX2_ROWS = (
    "3/14/2025  8:05:09 AM,P7-D2-BR1,Default,4.21,1.02,5.37,0.84,1.11,101.5,7.012,88.4,41.3,298,"
    "3.31,3.25,98.2,15.9,1630,1660,1.00,1:1,BR1,P7,36.5,1:1,7.019,6.70,A1,"
    "3/14/2025  8:05:09 AM,kim,",
    "3/15/2025  8:11:40 AM,P7-D3-BR1,Default,3.78,1.10,4.02,1.31,1.75,102.1,6.984,70.2,47.9,301,"
    "6.90,6.71,97.2,16.1,1690,1738,1.00,1:2,BR1,P7,36.5,1:1,6.991,6.71,A2,"
    "3/15/2025  8:11:40 AM,kim,",
    "3/15/2025  8:20:02 AM,P7-D3-BR2,Default,3.80,1.08,,1.29,<0.20,101.9,6.990,71.0,46.2,,,,,,,,"
    "1.00,,BR2,P7,36.5,1:1,6.997,6.69,A3,3/15/2025  8:20:02 AM,kim,",
)

BLU_HEADER = (
    "Sample ID,Cell count,Viable cells,Total (x10^6) cells/mL,Viable (x10^6) cells/mL,"
    "Viability (%),Average diameter (\u03bcm),Average viable diameter (\u03bcm),"
    "Average circularity,Average viable circularity,Bubble count,Cell type,Decluster degree,"
    "Aspiration cycles,Viable spot brightness (%),Analysis date/time,Reanalysis date/time,"
    "Analysis by,Dilution,Wash,Tag"
)
BLU_ROWS = (
    "P7-D2-BR1,4011,3922,4.06,3.97,97.78,15.62,15.70,0.91,0.92,0,CHO,Medium,3,50,"
    "3/14/2025 8:10,,kim,1,Normal Wash,",
    "P7-D3-BR1,ERROR,ERROR,8.35,8.11,97.13,15.88,15.97,0.90,0.92,1,CHO,Medium,3,50,"
    "3/15/2025 8:16,,kim,2,Normal Wash,",
)

XR_LABELS = (
    "Sample ID",
    "File name",
    "Cell type",
    "Dilution",
    "Sample date/time",
    "Total",
    "Viable",
    "Viability",
    "Total cells",
    "Viable cells",
    "Avg. diam.",
    "Avg. circ.",
    "Comment",
)
XR_BELOW = (
    None,
    None,
    None,
    "factor",
    None,
    "cells",
    "cells",
    "(%)",
    "/ml (x10^6)",
    "/ml (x10^6)",
    "(microns)",
    None,
    None,
)
_COUNTED = (
    (1501, 1466, "97.7", "4.11", "4.02", "15.6", "0.861"),
    (1620, 1577, "97.3", "4.44", "4.32", "15.8", "0.858"),
)
XR_ROWS = (
    ("A-1", "A-1.smp", "CHO", "2.00", "14 Mar 2025  8:12:30 AM", *_COUNTED[0], None),
    ("A-2", "A-2.smp", "CHO", "2.00", "14 Mar 2025  12:03:00 PM", *_COUNTED[1], "foamy"),
)
NUCLEOVIEW = """Viability and Cell Count - mine; ;
Image;20250314-0007-B1;
Operator;Ada;
Viability (%);91.4;
Live (cells/ml);3.21E6;
Dead (cells/ml);3.02E5;
Total (cells/ml);3.51E6 (Out of optimal range);
 ; ;
Estimated cell diameter (um);14.8 (Uncertain
determination);
Cell diameter standard deviation (um);3.9;
(%) of cells in aggregates with five or more cells;2;
Multiplication factor;2.000;
;
Instrument type;NucleoView NC-200
Date time;20250314 093005
Time zone offset;-7
Login ID;ada
"""
XR_TEXT = """Vi-CELL XR 2.06.3

Sample ID : A-1
File name : A-1.txt
LogDate : 14 Mar 2025  8:11:58 AM
RunDate : 14 Mar 2025  8:12:30 AM
Unit S/N : AB000000001

Results:
Images : 50
Total cells : 1501
Viable cells : 1466
Nonviable cells : 35
Viability (%) : 97.7
Total cells / ml (x 10^6) : 4.11
Total viable cells / ml (x 10^6) : 4.02
Average diameter (microns) : 15.6
Average circularity : 0.861

Settings:
Cell type : CHO
Minimum diameter (microns) : 10.0
Dilution : 2.00
Image size : 1280 x 960
Comment :

SizeData : 3,9,17
"""

HIRES_HEADER = (
    "Cedex ID,System name,Workarea name,Reactor identifer,Sample identifer,Data set name,Comment,"
    "Dilution,Sample volume,Cell type name,Sample draw Time,Date finished,Username,Avg Diameter,"
    "Avg Segm. Area,Avg Compactness,Viable Cell Count,Dead Cell Count,Total Object Count,"
    "Viability,Viable Cell Conc.,Dead Cell Conc.,Total Cell Conc.,Std Dev.,Total Cell Count,"
    "Aggregate Rate"
)
HIRES_ROWS = (
    '77,"lab, left",standard,BR1,P7-D2,Original,,1,300,Std. Size,3-14-2025 8:01:00 AM,'
    "3-14-2025 8:09:10 AM,kim,15.41,310.2,1.21,2210,55,2301,97.57174,2321004.5,57761.25,2378765.75,"
    "90112.5,2265,4.2",
    '77,"lab, left",standard,BR1,P7-D3,Original,,0.5,300,Std. Size,,3-15-2025 8:14:41 AM,kim,15.73,'
    "318.8,1.22,2380,70,2490,97.14286,4999216.5,147035.75,5146252.25,101233.1,2450,4.9",
)

BIO_FIRST = (
    "0\t2025-03-15 12:00:00\t#ARC-FILE#\t1.1a\t2025-03-14\t2025-03-15\tCEDEX BIO HT\t123\t"
    "{version}\tkim"
)


def bio_line(time: str, sample: str, test: str, unit: str, value: str, **more: str) -> str:
    """One result as version 6 and 7 write it."""
    flag, dilution = more.get("flag", " "), more.get("dilution", "        ")
    role, batch = more.get("role", "SAM"), more.get("batch", "")
    return (
        f"40\t{time}\t{sample}\t{batch}\t{role}\t        \t{test}\t{dilution}\t{unit}\t{flag}\t"
        f"  {value}\t  0.1\tR"
    )


def bio_line_5(time: str, sample: str, test: str, unit: str, value: str, flag: str = " ") -> str:
    """One result as version 5 writes it."""
    return f"40\t{time}\t{test}\t\t\t{sample}\tSAM\t{unit}\t{flag}\t  {value}\t  0.1\tR"


def bio(*lines: str, version: str = "6.0.0.1905 (1905)") -> bytes:
    """An archive file."""
    return "\n".join([BIO_FIRST.format(version=version), *lines, ""]).encode()


BIO_LINES = (
    bio_line("2025-03-14 09:00:01", "P7-D2", "GLC3B", "g/L", "5.102"),
    bio_line("2025-03-14 09:00:31", "P7-D2", "LAC2B", "g/L", "0.912"),
    bio_line("2025-03-14 09:01:02", "P7-D2", "GLN2B", "mmol/L", "< 0.100", flag="< TEST RNG"),
    bio_line("2025-03-14 09:01:20", "P7-D2", "LDH2B", "U/L", "88.1"),
    bio_line("2025-03-14 09:02:00", "P7-D3", "GLC3B", "g/L", "4.377"),
    bio_line("2025-03-14 09:02:30", "P7-D3", "IGGHD", "mg/L", "1204"),
)


def text(header: str, *rows: str) -> bytes:
    """A text table."""
    return "\n".join([header, *rows, ""]).encode()


FLEX2 = text(FLEX2_HEADER, *FLEX2_ROWS)
BLU = text(BLU_HEADER, *BLU_ROWS)
HIRES = text(HIRES_HEADER, *HIRES_ROWS)
BIO = bio(*BIO_LINES)


def quantity(value: Any, unit: str) -> dict[str, Any]:
    """A quantity of an Allotrope model."""
    return {"value": value, "unit": unit}


def measured(sample: str, time: str | None, **parts: Any) -> dict[str, Any]:
    """A measurement document; blanks of keys are written as underscores."""
    spelled = {key.replace("_", " "): value for key, value in parts.items()}
    return {"measurement time": time, "sample document": {"sample identifier": sample}} | spelled


def cells_of(sample: str, time: str | None, errors: Any = (), **values: Any) -> dict[str, Any]:
    """A measurement of a cell counter."""
    known = {
        "viable cell density (cell counter)": quantity(values.get("vcd", 4.02), "10^6 cells/mL"),
        "viability (cell counter)": quantity(values.get("via", 97.7), "%"),
        "average total cell diameter": quantity(15.6, "\u00b5m"),
        "data processing document": {
            "cell density dilution factor": quantity(2.0, "(unitless)"),
            "minimum cell diameter setting": quantity(6.0, "\u00b5m"),
        },
    }
    made = measured(
        sample, time, processed_data_aggregate_document={"processed data document": [known]}
    )
    if errors:
        found = [{"error": e, "error feature": f} for f, e in errors]
        made["error aggregate document"] = {"error document": found}
    return made


def analytes(sample: str, time: str | None, *found: tuple[str, Any, str]) -> dict[str, Any]:
    """A measurement of an analyser."""
    documents = [
        {"analyte name": name, "molar concentration": quantity(value, unit)}
        for name, value, unit in found
    ]
    return measured(sample, time, analyte_aggregate_document={"analyte document": documents})


def asm(*groups: list[dict[str, Any]], technique: str = "cell counting") -> bytes:
    """An Allotrope model of one technique."""
    documents = [
        {"measurement aggregate document": {"measurement document": group}, "analyst": "kim"}
        for group in groups
    ]
    tree = {
        "$asm.manifest": f"http://purl.allotrope.org/manifests/{technique}/REC/2024/09/x.manifest",
        f"{technique} aggregate document": {
            f"{technique} document": documents,
            "device system document": {"model number": "Counter 3"},
        },
    }
    return json.dumps(tree).encode()


ASM = asm(
    [cells_of("P7-D2", "2025-03-14T08:12:30+01:00")],
    [cells_of("P7-D3", "2025-03-15T08:12:30+01:00", vcd=8.11)],
)


def xlsx(*rows: Any) -> bytes:
    """A workbook of one sheet."""
    book = openpyxl.Workbook()
    sheet: Any = book.active
    for row in rows:
        sheet.append(list(row))
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def xr_rows(*rows: Any, version: str = "2.06.3") -> list[Any]:
    """Rows of a Vi-CELL XR table."""
    above = [[f"Vi-CELL XR {version}"], ["z:\\here.xlsx"], ["Unit S/N:  AB000000001"], ["  "]]
    return [*above, XR_LABELS, XR_BELOW, *rows]


XR = xlsx(*xr_rows(*XR_ROWS))


def with_part(content: bytes, name: str, part: bytes) -> bytes:
    """A workbook with one of its parts replaced."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        for found in old.namelist():
            new.writestr(found, part if found == name else old.read(found))
    return out.getvalue()


def _record(kind: int, body: bytes = b"") -> bytes:
    return struct.pack("<HH", kind, len(body)) + body


def _texts(texts: list[str], cut: int) -> bytes:
    """The table of texts, its record cut after so many bytes: between texts or within one."""
    body, at = struct.pack("<II", len(texts), len(texts)), []
    for one in texts:
        is_wide = any(ord(c) > 255 for c in one)
        raw = one.encode("utf-16-le" if is_wide else "latin-1")
        head = struct.pack("<HB", len(raw) // (1 + is_wide), is_wide)
        at.append((len(body) + len(head), len(body) + len(head) + len(raw), is_wide))
        body += head + raw
    if not 8 < cut < len(body):
        return _record(0xFC, body)
    begin, _, is_wide = next(found for found in at if cut <= found[1])
    if cut < begin:  # a head is never cut
        cut = begin - 3
        return _record(0xFC, body[:cut]) + _record(0x3C, body[cut:])
    cut -= (cut - begin) % (1 + is_wide)
    more = body[cut:] if any(cut == end for _, end, _ in at) else bytes([is_wide]) + body[cut:]
    return _record(0xFC, body[:cut]) + _record(0x3C, more)


def xls(*rows: Any, cut: int = 0, name: str = "Workbook") -> bytes:
    """An old binary workbook (BIFF8) of one sheet of texts and numbers."""
    texts = [cell for row in rows for cell in row if isinstance(cell, str)]
    known = {one: n for n, one in enumerate(dict.fromkeys(texts))}
    bof = struct.pack("<HHHHII", 0x600, 5, 0, 0, 0, 6)
    sheet = _record(0x809, bof)
    for r, row in enumerate(rows):
        for c, cell in enumerate(row):
            place = struct.pack("<HHH", r, c, 0)
            if isinstance(cell, str):
                sheet += _record(0xFD, place + struct.pack("<I", known[cell]))
            elif isinstance(cell, int):
                sheet += _record(0x27E, place + struct.pack("<I", (cell << 2 | 2) & 0xFFFFFFFF))
            elif cell is not None:
                sheet += _record(0x203, place + struct.pack("<d", cell))
    sheet += _record(0x0A)
    title = b"\x05\x00Sheet"
    globals_ = _record(0x809, bof), _texts([*known], cut), _record(0x0A)
    at = sum(map(len, globals_)) + 4 + 6 + len(title)
    entry = _record(0x85, struct.pack("<IBB", at, 0, 0) + title)
    stream = globals_[0] + entry + globals_[1] + globals_[2] + sheet
    return compound(stream.ljust(4096, b"\x00"), name)


def compound(stream: bytes, name: str) -> bytes:
    """A compound file with one stream."""
    n = -(-len(stream) // 512)
    fat = [*range(1, n), 0xFFFFFFFE, 0xFFFFFFFE, 0xFFFFFFFD]
    n_fat = 1
    fat = (fat + [0xFFFFFFFF] * 128)[:128]
    assert n + 2 <= 128, "a small file is enough"

    def entry(label: str, kind: int, start: int, size: int) -> bytes:
        raw = label.encode("utf-16-le")
        head = raw.ljust(64, b"\x00") + struct.pack("<HBB", len(raw) + 2, kind, 1)
        return (head + struct.pack("<iii", -1, 1, -1) + b"\x00" * 36).ljust(116, b"\x00") + (
            struct.pack("<III", start, size, 0)
        )

    folder = entry("Root Entry", 5, 0xFFFFFFFE, 0) + entry(name, 2, 0, len(stream))
    head = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\x00" * 16
    head += struct.pack("<HHHHH", 0x3E, 3, 0xFFFE, 9, 6) + b"\x00" * 10
    head += struct.pack("<IIIIIIIII", n_fat, n, 0, 4096, 0xFFFFFFFE, 0, 0xFFFFFFFE, 0, n + 1)
    head += b"\xff" * (512 - len(head))
    return (
        head
        + stream.ljust(512 * n, b"\x00")
        + folder.ljust(512, b"\x00")
        + struct.pack("<128I", *fat)
    )


def read(content: bytes, suffix: str = ".csv") -> RawTable:
    """A file by whatever instrument it is recognised as."""
    instrument = recognise(content, suffix)
    assert instrument is not None
    return read_instrument(content, suffix, instrument)


def column(table: RawTable, label: str) -> list[Any]:
    """Cells below a label; `None` for what is missing, which in a text is an empty text."""
    return [filled(row)[table.header.index(label)] for row in table.rows]


def filled(row: list[Any]) -> list[Any]:
    """A row with `None` for empty texts."""
    return [None if cell == "" else cell for cell in row]


def told(table: RawTable, *words: str) -> bool:
    """Whether one note has all of these words."""
    return any(all(word in note for word in words) for note in table.notes)


def replaced(rows: tuple[str, ...], old: str, new: str) -> tuple[str, ...]:
    """Rows with a text replaced, which has to be there."""
    assert any(old in row for row in rows), f"{old!r} is not there"
    return tuple(row.replace(old, new) for row in rows)
