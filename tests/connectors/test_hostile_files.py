"""Files that mean no good: read, or refused by name, in bounded room; nothing hangs or escapes."""

import asyncio
import io
import os
import subprocess
import sys
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perfusio_jax import cli
from perfusio_jax._core import ConfigError, DataError, PerfusioError, checkpoint, limits
from perfusio_jax.cli import common
from perfusio_jax.connectors import read_campaign
from perfusio_jax.connectors.files.filesystem import FilesystemStore
from tests.connectors.hostile import BOOKS, DEVICES, TEXT, cells, pipe, workbook, zeros

pytestmark = [
    pytest.mark.timeout(120),  # each takes seconds; what hangs is found
    pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes and /dev/zero are POSIX"),
]


@pytest.fixture
def command(monkeypatch, capsys):
    monkeypatch.setattr(common, "set_up_jax", lambda *a, **k: None)

    def run(*words) -> tuple[int, str]:
        code = 0
        try:
            cli.main([str(word) for word in words])
        except SystemExit as end:
            code = int(end.code or 0)
        found = capsys.readouterr()
        said = found.out + found.err
        assert "Traceback" not in said and "nobody foresaw" not in said, said
        assert len(found.err) < 3000
        assert not set(said) & set("\x1b\x07\u202e"), repr(said)
        return code, said

    return run


@pytest.mark.parametrize("name", TEXT)
def test_a_hostile_text_table_is_read_or_refused(tmp_path, command, name):
    path = tmp_path / "s.csv"
    path.write_bytes(TEXT[name])
    code, said = command("inspect", path)
    assert code in (0, 2, 3), said
    try:
        read_campaign(path)
    except PerfusioError as error:
        assert len(str(error)) < 3000
    else:
        pytest.fail("none of these is a campaign")


@pytest.mark.parametrize("name", BOOKS)
def test_a_hostile_workbook_is_read_or_refused(tmp_path, command, name):
    path = tmp_path / "s.xlsx"
    path.write_bytes(BOOKS[name]())
    code, said = command("inspect", path)
    assert code == 3 and str(path) in said.replace("\n", ""), said
    assert "root:" not in said


@pytest.mark.parametrize("kind", DEVICES)
@pytest.mark.parametrize("suffix", [".csv", ".xlsx", ".parquet"])
def test_what_is_no_file_is_refused_before_it_is_opened(tmp_path, command, kind, suffix):
    path = DEVICES[kind](tmp_path, f"s{suffix}")
    for words in (
        ("inspect", path),
        ("db", "import", f"sqlite:///{tmp_path / 'a.db'}", path, "--experiment", "E"),
        ("run", path, "--advise"),
    ):
        code, said = command(*words)
        assert code in (2, 3) and "not a file" in said, (words, said)
    assert not asyncio.run(FilesystemStore(path).is_alive())
    if suffix != ".xlsx":
        for words in (
            ("fit", path, "--out", tmp_path / "m"),
            ("validate", path, "--out", tmp_path / "v"),
            ("propose", path, "--out", tmp_path / "p.csv"),
        ):
            code, said = command(*words)
            assert code == 3 and "not a file" in said, (words, said)


@pytest.mark.parametrize("kind", DEVICES)
def test_configurations_models_keys_and_trails_are_files_too(tmp_path, command, kind):
    make = DEVICES[kind]
    (tmp_path / "s.csv").write_text("day,VCD\n0,1\n")
    (tmp_path / "run").mkdir()
    (tmp_path / "model").mkdir()
    make(tmp_path / "run", "audit.jsonl")
    make(tmp_path / "model", "header.json")
    twin = make(tmp_path, "twin.toml")
    public, column_map = make(tmp_path, "key.pub"), make(tmp_path, "map.toml")
    (tmp_path / "s.units.toml").symlink_to(column_map)
    for words in (
        ("run", twin, "--advise"),
        ("verify-audit", tmp_path / "run"),
        ("verify-audit", tmp_path / "run" / "audit.jsonl"),
        ("verify-audit", twin),
        ("verify-audit", tmp_path / "run", "--key", public),
        ("inspect", tmp_path / "s.csv", "--map", column_map),
        ("inspect", tmp_path / "s.csv"),
        ("forecast", tmp_path / "model", tmp_path / "s.csv"),
    ):
        code, said = command(*words)
        # what stands in the place of a trail is a trail that does not verify
        is_trail = words[0] == "verify-audit" and words[1] != twin and "--key" not in words
        assert code == 5 if is_trail else code in (2, 3), (words, said)


def test_the_largest_and_the_smallest_that_are_refused_are_where_the_limits_say(
    tmp_path, monkeypatch
):
    for name, value in (("ROWS", 50), ("COLUMNS", 6), ("CELLS", 120), ("UNPACKED_BYTES", 20_000)):
        monkeypatch.setattr(limits, name, value)

    def read(name: str, content: bytes):
        path = tmp_path / name
        path.write_bytes(content)
        return asyncio.run(FilesystemStore(path).days_available())

    def parquet(n_rows: int, n_columns: int) -> bytes:
        out = io.BytesIO()
        names = ["day", "VCD", "Via", "Glc", "Gln", "Glu", "Lac"][:n_columns]
        pq.write_table(pa.table({n: np.arange(n_rows, dtype=float) for n in names}), out)
        return out.getvalue()

    good = b"day,VCD\n" + b"".join(b"%d,1\n" % d for d in range(49))
    assert len(read("s.csv", good)) == 49
    with pytest.raises(DataError, match="more than 50 rows"):
        read("s.csv", good + b"50,1\n51,1\n")
    with pytest.raises(DataError, match="more than 6 columns"):
        read("s.csv", b"day,VCD,Via,Glc,Gln,Glu,Lac,Amm\n")
    assert len(read("s.parquet", parquet(40, 3))) == 40
    for shape, words in (((60, 2), "50 rows"), ((40, 4), "120 cells"), ((9, 7), "6 columns")):
        with pytest.raises(DataError, match=f"more than {words}"):
            read("s.parquet", parquet(*shape))
        with pytest.raises(DataError, match=f"more than {words}"):
            read_campaign(tmp_path / "s.parquet")
    rows = "".join(f'<row r="{r}"><c r="A{r}"><v>{r}</v></c></row>' for r in range(1, 60))
    with pytest.raises(DataError, match="more than 50 rows"):
        read("s.xlsx", workbook(cells(rows)))
    monkeypatch.setattr(limits, "UNPACKED_BYTES", 5_000)
    with pytest.raises(DataError, match="unpacks to"):
        read("s.xlsx", workbook(cells("")))


def test_what_unpacks_to_a_gigabyte_is_refused_in_half_of_that(tmp_path):
    """All of it in one process whose whole address space is bounded, and its seconds counted."""
    bomb = bytearray(workbook(""))
    at = bomb.find(b"PK\x01\x02")  # the size a part declares; no more of it would be unpacked
    bomb[at + 24 : at + 28] = (1 << 30).to_bytes(4, "little")
    (tmp_path / "bomb.xlsx").write_bytes(bomb)
    (tmp_path / "sheet.xlsx").write_bytes(BOOKS["a declared size of all cells"]())
    with (tmp_path / "large.csv").open("wb") as file:
        file.truncate(20_000_000_000)  # a hole: it takes no room on the disk
    header = pa.schema([("day", pa.float64()), ("VCD", pa.float64())])
    column = pa.array(np.zeros(1_000_001))
    pq.write_table(pa.table([column, column], schema=header), tmp_path / "many.parquet")
    names = ["bomb.xlsx", "sheet.xlsx", "large.csv", "many.parquet"]
    code = (
        "import resource, sys, time\n"
        "from pathlib import Path\n"
        "import openpyxl, pyarrow.parquet\n"
        "from perfusio_jax._core import DataError\n"
        "from perfusio_jax.connectors.tables.content import read_bytes\n"
        "from perfusio_jax.connectors.tables.formats import read_table\n"
        "held = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (held + 500_000_000,) * 2)\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (60, 60))\n"
        "for name in sys.argv[1:]:\n"
        "    try:\n"
        "        content, _ = read_bytes(Path(name))\n"
        "        read_table(content, Path(name).suffix, is_known=lambda label: True)\n"
        "    except DataError as error:\n"
        "        print(error)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, *names], cwd=tmp_path, capture_output=True, text=True
    )
    lines = found.stdout.splitlines()
    assert len(lines) == 4, found.stderr[-3000:]
    assert "unpacks to" in lines[0] and "more than" in lines[1]
    assert "larger than 50 MB" in lines[2] and "more than 1,000,000 rows" in lines[3]


# ------------------------------------------------------------------ saved models


def saved(folder, **architecture) -> None:
    checkpoint.write_checkpoint(
        folder, {"a": np.zeros(3)}, kind="K", schema_version=1, architecture=architecture
    )


def read_back(folder):
    return checkpoint.read_checkpoint(folder, kind="K", schema_version=1)


def array(shape: str, kind: str = "<f8", body: bytes = b"\x00" * 24) -> bytes:
    head = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"
    head += " " * (-(len(head) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode() + body


@pytest.mark.parametrize(
    "content",
    [
        array("(1000000000000,)"),
        array("(1000000, 1000000)"),
        array("(4,)"),
        array("(2,)"),
        array("(-3,)"),
        array("(3,)", "|O"),
        array("(3,)", "<U999999999"),
        array("(3,)", "nonsense"),
        array("(" * 3000),
        array("__import__('os')"),
        b"\x93NUMPY\x09\x00",
        b"\x93NUMPY\x01\x00\xff\xff",
        b"no array",
        b"",
    ],
    ids=range(14),
)
def test_an_array_that_declares_what_it_does_not_hold_is_refused(tmp_path, content):
    saved(tmp_path)
    with zipfile.ZipFile(tmp_path / "arrays.npz", "w") as archive:
        archive.writestr("a.npy", content)
    with pytest.raises(DataError, match="cannot be read") as caught:
        read_back(tmp_path)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b'{"schema_version": ' + b"9" * 10_000 + b"}",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'"text"',
        b" " * 1_000_001,
        b"",
    ],
    ids=range(9),
)
def test_a_header_nobody_wrote_is_refused(tmp_path, content):
    saved(tmp_path)
    (tmp_path / "header.json").write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_back(tmp_path)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "sizes",
    [
        {"gp": {"n_tasks": 10**12}},
        {"gp": {"capacity": 100_000, "n_state_dims": 100_000}},
        {"clones": [{"dim": [10**400]}]},
        {"rank": -1},
    ],
)
def test_a_header_that_declares_sizes_of_no_model_is_refused(tmp_path, sizes):
    saved(tmp_path, **sizes)
    with pytest.raises(DataError, match="no model"):
        checkpoint.check_sizes(read_back(tmp_path)[0], tmp_path)


@pytest.mark.parametrize("make", [pipe, zeros])
def test_the_arrays_of_a_model_are_a_file(tmp_path, make):
    saved(tmp_path)
    (tmp_path / "arrays.npz").unlink()
    make(tmp_path, "arrays.npz")
    with pytest.raises(DataError, match="not a file"):
        read_back(tmp_path)


# ------------------------------------------------------------------ fuzz with a fixed budget


PIECES = st.sampled_from(
    ["day", "time_h", "VCD", "Glc [g/L]", "sampled_at", ",", ";", "\t", "\n", "\r\n", '"', "1",
     "-1", "2.5", "1,5", "1e400", "nan", "", " ", "0001-01-01T00:00:00Z", "\x00", "\x1b[2J",
     "\u202e", "\uff11", "=1+1", "'", "mmol/L", "run_id", "reactor_id", "\ufeff", "[", "]"]
)  # fmt: skip


@settings(max_examples=120, derandomize=True, suppress_health_check=list(HealthCheck))
@given(parts=st.lists(PIECES, max_size=40), tail=st.binary(max_size=20))
def test_any_text_is_a_table_or_a_refusal(tmp_path, parts, tail):
    path = tmp_path / "s.csv"
    path.write_bytes("".join(["day,VCD,sampled_at\n1,", *parts]).encode() + tail)
    store = FilesystemStore(path, allow_unterminated=True)
    for read in (
        lambda: asyncio.run(store.read_rows()),
        lambda: asyncio.run(store.days_available()),
        lambda: read_campaign(path),
    ):
        try:
            read()
        except PerfusioError as error:
            assert not isinstance(error, ConfigError) or "unit" in str(error)
            assert len(str(error)) < 3000


@settings(max_examples=60, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    suffix=st.sampled_from([".xlsx", ".parquet"]),
    at=st.floats(0, 1),
    noise=st.binary(min_size=1, max_size=30),
)
def test_any_damage_to_a_packed_table_is_read_over_or_refused(tmp_path, suffix, at, noise):
    content = bytearray(_good(suffix))
    start = int(at * (len(content) - 1))
    content[start : start + len(noise)] = noise
    path = tmp_path / f"s{suffix}"
    path.write_bytes(bytes(content))
    try:
        asyncio.run(FilesystemStore(path).days_available())
    except PerfusioError as error:
        assert len(str(error)) < 1000


def _good(suffix: str) -> bytes:
    if suffix == ".xlsx":
        return workbook("")
    out = io.BytesIO()
    pq.write_table(pa.table({"day": [1.0, 2.0], "VCD": [1.0, 2.0]}), out)
    return out.getvalue()


@pytest.mark.parametrize("is_unit", [False, True])
def test_a_parquet_text_that_is_no_text_is_refused(tmp_path, is_unit):

    broken = pa.array([b"\xbc", b"ok"], pa.binary()).view(pa.utf8())
    field = pa.field("VCD", pa.float64(), metadata={"unit": b"\xbc"} if is_unit else None)
    columns = [pa.array(["A", "A"]) if is_unit else broken, pa.array([0.0, 1.0])]
    schema = pa.schema([pa.field("run_id", pa.utf8()), pa.field("day", pa.float64()), field])
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table([*columns, pa.array([1.0, 2.0])], schema=schema), path)
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_campaign(path)
