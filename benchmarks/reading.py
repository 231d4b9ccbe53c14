"""300,000 rows read: `python -m benchmarks.reading` (`--rows`, `--only a,c`).

Six shapes of table: wide, of one run, of 100 and of 10,000; long, without and with a column of
units; wide with every row twice, of which one in a hundred contradicts the other. Each is inspected
and read as a campaign in a process of its own, beside `pandas.read_csv` and, where it is installed,
Polars, which split it into columns and ask nothing of it. Told are CPU seconds from the path to the
runs, without imports, and the memory: what the imports take, and the peak with them.
"""

import argparse
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

SHAPES = {
    "a": "wide, one run",
    "b": "wide, 100 runs",
    "c": "wide, runs of 30 rows",
    "d": "long",
    "e": "long, with units",
    "f": "wide, every row twice",
}
UNITS = {
    "VCD": "1e6/mL",
    "Via": "%",
    "Glc": "g/L",
    "Lac": "g/L",
    "Gln": "mmol/L",
    "Titer": "g/L",
    "perfusion_rate": "vvd",
    "temperature": "degC",
}
CENTRES = (10.0, 95.0, 5.0, 1.5, 2.0, 1.0, 1.0, 36.5)
SPREADS = (2.0, 1.0, 1.0, 0.3, 0.3, 0.2, 0.2, 0.1)
WAYS = ("inspect", "read", "pandas", "polars")


def values(n: int) -> list[list[str]]:
    """Readings with three decimals, as analysers write them."""
    rng = np.random.default_rng(0)
    columns = np.abs(rng.normal(CENTRES, SPREADS, (n, len(UNITS))))
    columns[:, 1] = columns[:, 1].clip(0.0, 100.0)
    return [[f"{value:.3f}" for value in row] for row in columns.tolist()]


def rows_of(shape: str, n: int) -> Iterator[str]:
    """Lines of a table."""
    if shape in "de":
        yield "run_id,time_h,species,value" + (",unit" if shape == "e" else "")
        for k, readings in enumerate(values(n // len(UNITS))):
            for (name, unit), value in zip(UNITS.items(), readings, strict=True):
                more = f",{unit}" if shape == "e" else ""
                yield f"R{k // 300:05d},{2 * (k % 300)},{name},{value}{more}"
        return
    per = {"a": n, "b": n // 100, "c": 30, "f": n // 100}[shape]
    step = {"a": 0.02, "b": 0.5, "c": 24.0, "f": 0.5}[shape]
    yield ",".join(["run_id", "time_h", *UNITS])
    for k, readings in enumerate(values(n // 2 if shape == "f" else n)):
        lead = f"R{k // per:05d},{step * (k % per):g}"
        yield ",".join([lead, *readings])
        if shape == "f":
            other = [f"{float(readings[0]) + 1.0:.3f}"] if k % 100 == 0 else readings[:1]
            yield ",".join([lead, *other, *readings[1:]])


def used() -> tuple[float, float]:
    """CPU seconds and peak memory [MB] of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    peak = usage.ru_maxrss
    status = Path("/proc/self/status")
    if status.exists():  # where what a process was forked from counts as its own peak
        lines = status.read_text().splitlines()
        peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return usage.ru_utime + usage.ru_stime, peak / 1024


def work(way: str, shape: str, file: Path) -> Callable[[], Any]:
    """What is measured, with all imports done."""
    if way == "pandas":
        import pandas as pd

        return lambda: pd.read_csv(file)
    if way == "polars":
        import polars as pl  # pyright: ignore[reportMissingImports]

        return lambda: pl.read_csv(file)
    import jax

    from perfusio_jax.connectors.files.campaign_files import read_campaign
    from perfusio_jax.connectors.files.inspecting import inspect_tables
    from perfusio_jax.connectors.tables.file_rules import FileRules

    jax.config.update("jax_enable_x64", True)
    conflict = "last" if shape == "f" else None
    rules = FileRules.of(None, is_long=shape in "de", on_conflict=conflict)
    if way == "read":
        return lambda: read_campaign(file, rules=rules)
    from rich.console import Console

    console = Console(file=open(os.devnull, "w"), width=120)
    return lambda: inspect_tables(file, rules, console)


def child(way: str, shape: str, file: Path) -> None:
    """Measure one way of reading in this process."""
    read = work(way, shape, file)
    before = used()
    read()
    after = used()
    print(json.dumps([after[0] - before[0], before[1], after[1]]))


def measured(way: str, shape: str, file: Path) -> list[float]:
    """CPU seconds, memory before and peak [MB], in a fresh process."""
    threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.reading", "--child", way, shape, str(file)],
        env={**os.environ, **threads},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{way} of {file.name} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=300_000, help="rows of a table")
    parser.add_argument("--only", default="".join(SHAPES), help="shapes, such as a,c")
    parser.add_argument("--child", nargs=3, metavar=("WAY", "SHAPE", "FILE"), help="one of them")
    options = parser.parse_args()
    if options.child is not None:
        way, shape, file = options.child
        child(way, shape, Path(file))
        return
    ways = [way for way in WAYS if way != "polars" or importlib.util.find_spec("polars")]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for shape in (shape for shape in SHAPES if shape in options.only):
            file = Path(folder) / f"{shape}.csv"
            file.write_text("\n".join(rows_of(shape, options.rows)) + "\n")
            print(f"{shape}: {SHAPES[shape]}, {file.stat().st_size / 1e6:.1f} MB")
            for way in ways:
                cpu_s, before, peak = measured(way, shape, file)
                print(f"  {way:8s} {cpu_s:6.2f} CPU s   {before:4.0f} -> {peak:4.0f} MB")
                found.append(f"{shape}_{way}_s={cpu_s:.2f} {shape}_{way}_MB={peak:.0f}")
            file.unlink()
    print(f"reading: rows={options.rows} {' '.join(found)}")


if __name__ == "__main__":
    main()
