"""A plain mutator over everything that is read: tables, exports, maps, processes, settings.

    python -m tests.connectors.fuzz --seconds 3600 --seed 7

Each case is a good file, spoiled. It is read, or refused by this library's own error, in bounded
time and room; and where a table is read both as samples and as a campaign, its numbers are the
same. What fails is kept in a folder with the seed that makes it again.
"""

import argparse
import datetime as dt
import io
import math
import random
import resource
import signal
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq

from perfusio_jax._core import PerfusioError, enable_x64
from perfusio_jax.connectors import read_campaign
from perfusio_jax.connectors.files.inspecting import source
from perfusio_jax.connectors.tables.file_rules import FileRules
from perfusio_jax.process import CHO_FED_BATCH, CHO_PERFUSION, read_process
from perfusio_jax.service.settings import read_settings
from tests.connectors.instruments import exports

CASE_S = 20
"""A case that takes longer hangs."""
ROOM_MB = 500
"""More than this over what there was before the first case is too much."""

CAMPAIGN = """run_id,reactor_id,clone_id,time_h,VCD,Via,Glc [g/L],Lac,Titer,perfusion_rate
,,,h,1e6 cells/mL,%,g/L,mmol/L,mg/L,1/d
A,R1,X,0,0.5,98.1,5.2,2.0,,1.0
A,R1,X,24,1.1,97.0,4.9,< 3.5,20,1.0
A,R1,X,48,2.2,96.5,4.1,8.1,45,1.1
B,R2,X,0,0.6,98.0,5.1,2.1,,1.0
B,R2,X,24,1.2,97.5,n.b.,4.0,22,1.0
"""
GERMAN = """Bericht 12;;;
sampled_at;VCD;Glc;Via
01.03.2026 08:00;0,5;5,2;98,1
02.03.2026 08:10;1,1;4,9;97 %
15.03.2026 08:05;2,2;< 0,4;> 96
"""
LONG = """day,species,value,unit
0,VCD,0.5,
0,Glc,5.1,g/L
1,VCD,1.25,
1,Glc,480,mg/dL
"""
MAP = """[columns]
"Zellzahl" = "VCD"
"Zucker" = { name = "Glc", unit = "mg/dL" }
"Bemerkung" = "ignore"
[reading]
decimal = "comma"
time_zone = "Europe/Berlin"
inoculated_at = "2026-03-01T08:00"
missing = ["k.w."]
skip_lines = [2]
[set]
temperature = 36.5
"""
TWIN = """[twin]
source = "samples.csv"
reactor_id = "R01"
folder = "runs"
[twin.initial_controls]
perfusion_rate = 1.25
[run]
seed = 0
duration_days = 7
sampling_interval_hours = 24
[alarms]
"""
TOKENS = [
    *(b"nan", b"inf", b"-inf", b"1e999", b"-0", b"1e-320", b"9" * 40, b"0x1p3", b"1_000", b"+5"),
    *(b"<0.05", b"> 20", b"< TEST RNG <", b"97 %", b"n.b.", b"#N/A", b"TRUE", b"=1+1", b"-", b"."),
    *(
        b",",
        b";",
        b"\t",
        b"|",
        b'"',
        b"'",
        b"\r",
        b"\n",
        b"\r\n",
        b"\x00",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
    ),
    *(b"sep=;\n", b"day", b"time_h", b"VCD", b"VCD_quality", b"bad", b"sampled_at", b"species"),
    *(b"[mg/dL]", b"(g/L)", b"1.637", b"1,637", b"1 637", b"2026-03-29T02:30", b"31.04.2026"),
    *(b"12/13/2026 8:00 PM", b"\xef\xbc\x91", b"{", b"}", b"[", b"]", b"[[", b"= true", b"= 1e400"),
]


class Target(NamedTuple):
    """What a file is for."""

    suffix: str
    seeds: tuple[bytes, ...]
    read: Callable[[Path], None]


class Silence(AssertionError):
    """Two readers that took one table for two things."""


def as_table(path: Path) -> None:
    """Read a table as samples and as a campaign; the numbers of both are the same."""
    rules = FileRules.of(
        time_zone="Europe/Berlin",
        inoculated_at=dt.datetime(2025, 3, 1, 7, tzinfo=dt.UTC),
        unknown="ignore",
    )
    store = source(path, rules)
    samples = campaign = refusal = None
    try:
        store.inspect()
        samples = store._source.samples().rows
    except PerfusioError as error:
        _fits(refusal := error)
    try:
        campaign = read_campaign(path, rules=rules).trajectories
    except PerfusioError as error:
        _fits(refusal := error)
    if not samples or not campaign:
        if refusal is not None and not samples and not campaign:
            raise refusal
        return
    for run in campaign:
        found = [r for (name, _), r in samples.runs.items() if name in (run.run_id, "")]
        if len(found) != 1 or len(samples.runs) != len(campaign):
            continue
        at = {t: k for k, t in enumerate(found[0].times_h.tolist())}
        for k, hours in enumerate(np.asarray(run.times_h).tolist()):
            if hours not in at or found[0][at[hours]].conflicts:
                continue
            _same(found[0], at[hours], run, k)


def _same(rows, index, run, k) -> None:
    for name in run.species_names:
        one = float(rows.column(name)[index])
        other = float(run.species[k, run.species_index(name)])
        if name == "Via" and not other <= 100.0:
            continue  # a campaign keeps it and says so
        if not (math.isclose(one, other, rel_tol=1e-9) or (math.isnan(one) and math.isnan(other))):
            raise Silence(f"{name} at {run.times_h[k]} h: {one} as a sample, {other} in a campaign")


def _fits(error: PerfusioError) -> None:
    text = str(error)
    if len(text) > 5000 or set(text) & set("\x1b\x00\u202e"):
        raise Silence(f"a message of {len(text)} characters, or with escapes in it") from error


def as_map(path: Path) -> None:
    """Read a column map."""
    rules = FileRules.of(path)
    rules.column_map()
    rules.starts()


def workbook() -> bytes:
    """A campaign as a spreadsheet keeps it."""
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    for line in CAMPAIGN.splitlines():
        sheet.append([_cell(text) for text in line.split(",")])
    sheet.cell(3, 6).number_format = "0%"
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def _cell(text: str) -> str | float | None:
    try:
        return float(text)
    except ValueError:
        return text or None


def parquet() -> bytes:
    """A table with numbers, text and nothing in its columns."""
    table = pa.table(
        {
            "run_id": ["A", "A", "B"],
            "time_h": [0.0, 24.0, 0.0],
            "VCD": [0.5, None, 1.0],
            "Glc": ["4,5", "<0,3", None],
        }
    )
    out = pa.BufferOutputStream()
    pq.write_table(table, out)
    return out.getvalue().to_pybytes()


def targets() -> dict[str, Target]:
    """Everything that is read."""
    tables = tuple(text.encode() for text in (CAMPAIGN, GERMAN, LONG))
    instruments = (exports.FLEX2, exports.BLU, exports.HIRES, exports.BIO)
    processes = tuple(p.to_toml().encode() for p in (CHO_PERFUSION, CHO_FED_BATCH))
    return {
        "table": Target(".csv", (*tables, *instruments), as_table),
        "workbook": Target(".xlsx", (workbook(),), as_table),
        "parquet": Target(".parquet", (parquet(),), as_table),
        "export": Target(".xls", (exports.xls(*exports.xr_rows(*exports.XR_ROWS)),), as_table),
        "model": Target(".json", (exports.ASM,), as_table),
        "map": Target(".toml", (MAP.encode(),), as_map),
        "process": Target(".toml", processes, lambda path: void(read_process(path))),
        "twin": Target(".toml", (TWIN.encode(),), lambda path: void(read_settings(path))),
    }


def void(_: object) -> None:
    """Nothing."""


def mutated(content: bytes, others: tuple[bytes, ...], draw: random.Random) -> bytes:
    """A file with one to four things wrong with it, one mostly."""
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 2, 3, 4))):
        at = draw.randrange(len(data) + 1)
        kind = draw.randrange(8)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << draw.randrange(8)
        elif kind == 1:
            data[at:at] = draw.choice(TOKENS)
        elif kind == 2:
            del data[at : at + draw.choice((1, 1, 2, 8, 40))]
        elif kind == 3:
            data[at:at] = data[at : at + draw.randint(1, 40)] * draw.randint(1, 3)
        elif kind == 4:
            other = draw.choice(others)
            begin = draw.randrange(len(other))
            data[at : at + draw.randint(0, 20)] = other[begin : begin + draw.randint(1, 30)]
        elif kind == 5 and draw.random() < 0.3:
            lines = bytes(data).split(b"\n")
            draw.shuffle(lines)
            data = bytearray(b"\n".join(lines))
        elif kind == 6:
            found = [k for k, byte in enumerate(data) if byte in b",;\t>"]
            if found:
                cut = draw.choice(found)
                data[cut + 1 : cut + 1] = draw.choice(TOKENS)
        elif draw.random() < 0.3:
            del data[at:]
    return bytes(data)


def repacked(content: bytes, draw: random.Random) -> bytes:
    """A workbook one of whose parts is spoiled."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        names = old.namelist()
        which = draw.choice([n for n in names if "sheet" in n or "style" in n or "String" in n])
        for name in names:
            part = old.read(name)
            new.writestr(name, mutated(part, (part,), draw) if name == which else part)
    return out.getvalue()


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """A time limit."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def case(name: str, number: int, folder: Path, seed: int, known: dict[str, Target]) -> Path:
    """The file of a case, made from nothing but its number."""
    target = known[name]
    draw = random.Random(f"{seed}/{name}/{number}")
    content = draw.choice(target.seeds)
    if name == "workbook" and draw.random() < 0.7:
        content = repacked(content, draw)
    else:
        content = mutated(content, target.seeds, draw)
    path = folder / f"case{target.suffix}"
    path.write_bytes(content)
    return path


def run(seconds: float, seed: int, kept: Path) -> Counter[str]:
    """Cases until the time is over; what each came to, counted.

    Args:
        seconds: How long.
        seed: Of all that is drawn.
        kept: Where files go that did what none may.
    """
    enable_x64()
    known, counts = targets(), Counter()
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    end, number = time.monotonic() + seconds, 0
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        while time.monotonic() < end:
            for name in known:
                path = case(name, number, folder, seed, known)
                try:
                    with within(CASE_S):
                        known[name].read(path)
                    counts[f"{name} read"] += 1
                except PerfusioError:
                    counts[f"{name} refused"] += 1
                except Exception as error:  # whatever it is, it should not have come out
                    kept.mkdir(parents=True, exist_ok=True)
                    (kept / f"{seed}-{name}-{number}{path.suffix}").write_bytes(path.read_bytes())
                    counts[f"{name} failed: {type(error).__name__}: {str(error)[:150]}"] += 1
                path.unlink()
                grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) / 1024
                if grown > ROOM_MB:
                    counts[f"failed: {grown:.0f} MB at {name} {number}"] += 1
                    base += 1024 * ROOM_MB
            number += 1
    return counts


def main() -> int:
    """Run and print; 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kept", type=Path, default=Path("fuzz-failures"))
    said = parser.parse_args()
    counts = run(said.seconds, said.seed, said.kept)
    for what, count in sorted(counts.items()):
        print(f"{count:8d}  {what}")
    return int(any("failed" in what for what in counts))


if __name__ == "__main__":
    sys.exit(main())
