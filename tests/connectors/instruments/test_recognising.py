"""Which instrument wrote a file, by its first lines alone."""

import pytest

from perfusio_jax.connectors.instruments.catalogue import INSTRUMENTS
from perfusio_jax.connectors.instruments.reading import recognise
from tests.connectors.instruments import exports as ex

FILES = {
    "FLEX2": (ex.FLEX2, ".csv", "Nova BioProfile FLEX2"),
    "FLEX2 as a workbook": (
        ex.xlsx(*(line.split(",") for line in (ex.FLEX2_HEADER, *ex.FLEX2_ROWS))),
        ".xlsx",
        "Nova BioProfile FLEX2",
    ),
    "BLU": (ex.BLU, ".csv", "Beckman Coulter Vi-CELL BLU"),
    "BLU in UTF-16": (ex.BLU.decode().encode("utf-16"), ".csv", "Beckman Coulter Vi-CELL BLU"),
    "BLU with semicolons": (
        ex.BLU.decode().replace(",", ";").encode(),
        ".csv",
        "Beckman Coulter Vi-CELL BLU",
    ),
    "XR": (ex.XR, ".xlsx", "Beckman Coulter Vi-CELL XR"),
    "XR of the old kind": (
        ex.xls(*ex.xr_rows(*ex.XR_ROWS)),
        ".XLS",
        "Beckman Coulter Vi-CELL XR",
    ),
    "XR as text": (ex.XR_TEXT.encode(), ".txt", "Beckman Coulter Vi-CELL XR, a report of one run"),
    "NucleoView": (ex.NUCLEOVIEW.encode(), ".csv", "ChemoMetec NucleoView"),
    "HiRes": (ex.HIRES, ".csv", "Roche Cedex HiRes"),
    "HiRes with tabs": (
        "\n".join("\t".join(r.split(",")) for r in (ex.HIRES_HEADER, "1" + "," * 25)).encode(),
        ".tsv",
        "Roche Cedex HiRes",
    ),
    "Bio HT": (ex.BIO, ".txt", "Roche Cedex Bio HT"),
    "ASM": (ex.ASM, ".json", "Allotrope simple model (ASM)"),
}


@pytest.mark.parametrize("case", FILES)
def test_each_instrument_is_recognised(case: str):
    content, suffix, name = FILES[case]
    found = recognise(content, suffix)
    assert found is not None and found.name == name
    assert found in INSTRUMENTS


OTHERS = {
    "a campaign table": (b"run_id,day,VCD,Viability (%),Glc\nR1,0,1,98,5\n", ".csv"),
    "a table of somebody": (b"Sample ID,Date & Time,Viability (%),Dilution\nA,1,98,1\n", ".csv"),
    "a text that speaks of one": (b"run,method\nR1,counted by Vi-CELL XR 2.06\n", ".csv"),
    "a workbook": (ex.xlsx(["day", "VCD"], [0, 1.0]), ".xlsx"),
    "a workbook that speaks of one": (
        ex.xlsx(["day", "VCD", "remark"], [0, 1.0, "Vi-CELL XR 2.06.3"], [1, 2.0, "Cedex ID 7"]),
        ".xlsx",
    ),
    "another JSON": (b'{"a": 1}', ".json"),
    "a list": (b'[{"value": 1, "unit": "g/L"}]', ".json"),
    "nothing": (b"", ".csv"),
    "no workbook": (b"PK\x03\x04 and no more", ".xlsx"),
    "zero bytes": (b"\x00" * 100, ".txt"),
    "half a compound file": (ex.xls(["a"])[:600], ".xls"),
    "another suffix": (ex.FLEX2, ".parquet"),
    "no suffix": (ex.FLEX2, ""),
}


@pytest.mark.parametrize("case", OTHERS)
def test_nothing_else_is(case: str):
    assert recognise(*OTHERS[case]) is None


@pytest.mark.parametrize("case", ["FLEX2", "BLU", "HiRes", "Bio HT", "XR as text"])
def test_only_the_beginning_is_looked_at(case: str):
    content, suffix, name = FILES[case]
    long = content + b"1,2,3\n" * 5_000
    for tail in (b"\x00" * 1_000_000, b"\xff\xfe" * 100_000, b'"' * 99_999):
        found = recognise(long + tail, suffix)
        assert found is not None and found.name == name, "whatever comes later"
    assert recognise(b"x,y\n" + b"1,2\n" * 10_000 + content, suffix) is None
