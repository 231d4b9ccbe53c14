"""Files keep the protocol of all connectors, in every kind of file."""

import contextlib
import csv
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pandas as pd
import pytest

from perfusio_jax._core import CONTROL_NAMES
from perfusio_jax.connectors.files.filesystem import FilesystemStore
from tests.connectors.conformance import SAMPLE, Check, Rig, Values, checks, name_of


@contextlib.asynccontextmanager
async def file_rig(folder: Path, kind: str) -> AsyncIterator[Rig]:
    """A file of the given kind that gets whole rows, and its set-point log."""
    wide = kind != "long.csv"
    source = folder / f"samples.{kind.removeprefix('long.')}"
    rows: dict[int, Values] = {}

    def save() -> None:
        table = pd.DataFrame(
            [{"day": day, **values} for day, values in rows.items()], columns=["day", *SAMPLE]
        )
        if not wide:
            table = table.melt("day", var_name="species", value_name="value")
        if source.suffix == ".csv":
            table.to_csv(source, index=False)
        elif source.suffix == ".parquet":
            table.to_parquet(source, index=False)
        else:
            table.to_excel(source, index=False)

    async def put(day: int, values: Values) -> None:
        rows[day] = values
        save()

    async def far() -> Mapping[str, float]:
        with (folder / "setpoints.csv").open(newline="") as log:
            found: dict[str, float] = {}
            for row in csv.DictReader(log):
                found |= {n: float(row[n]) for n in CONTROL_NAMES if row[n]}
        return found

    async def operator(name: str, value: float) -> None:
        with (folder / "setpoints.csv").open("a", newline="") as log:
            cells = [str(value) if n == name else "" for n in CONTROL_NAMES]
            csv.writer(log).writerow(["", "", "", "R1", *cells])

    async def cut() -> None:
        source.rename(folder / "elsewhere")

    async def mend() -> None:
        (folder / "elsewhere").rename(source)

    save()
    store = FilesystemStore(source, wide_format=wide, reactor_id="R1")
    async with store:
        digits = 1e-15 if kind == "xlsx" else 0.0  # a spreadsheet keeps 16 digits of 17
        yield Rig(store, put, far, operator, cut, mend, tolerance=digits)


@pytest.mark.parametrize("kind", ["csv", "long.csv", "parquet", "xlsx"])
@pytest.mark.parametrize("check", checks("put", "far", "operator", "cut"), ids=name_of)
async def test_files_conform(check: Check, kind: str, tmp_path: Path):
    async with file_rig(tmp_path, kind) as rig:
        await check(rig)
