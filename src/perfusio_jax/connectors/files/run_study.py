"""Folders of fed-batch runs for a transfer study: one CSV per run and a table of conditions.

`conditions.csv` has one line per run: `run_id`, `product`, `role` (historic, novel or test),
`V0_L` (volume before the first sample), and `feed_Glc`, `feed_Gln` [mmol/L] of the feed.
`runs/<run_id>.csv` has one line per day: `day`, the six species, `feed_L` (fed just before the
sample), `sample_L` (taken), and any further columns as set-points that hold until the next day.
An empty cell is a missing reading.
"""

import csv
import json
from pathlib import Path
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import DataError
from perfusio_jax._core.limits import TABLE_BYTES, read_file
from perfusio_jax._core.text import plain_number, shown
from perfusio_jax.connectors.tables.packed import check_text
from perfusio_jax.embedding import (
    CONTROLS,
    COUNTS,
    SPECIES,
    FedBatchRuns,
    StudyData,
    check_study,
    markdown,
    simulate_study,
    study_config,
    study_repeat,
    summarise,
)

CONDITIONS_FILE: Final[str] = "conditions.csv"
RUNS_FOLDER: Final[str] = "runs"
ROLES: Final[tuple[str, ...]] = ("historic", "novel", "test")
_CONDITIONS: Final[tuple[str, ...]] = ("run_id", "product", "role", "V0_L", "feed_Glc", "feed_Gln")
_RUN: Final[tuple[str, ...]] = ("day", *SPECIES, "feed_L", "sample_L")


class _Run(NamedTuple):
    run_id: str
    product: str
    role: str
    readings: np.ndarray
    controls: np.ndarray
    fed: np.ndarray
    before: np.ndarray
    after: np.ndarray


def _table(path: Path, needed: tuple[str, ...]) -> tuple[list[str], list[tuple[int, list[str]]]]:
    try:
        text = read_file(path, most=TABLE_BYTES).decode("utf-8-sig")
        check_text(text, ",")
    except FileNotFoundError:
        raise DataError(f"{path} does not exist.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text: {error}.") from None
    reader = csv.reader(text.splitlines())
    try:
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise DataError(f"{path} cannot be split into fields: {error}.") from None
    if len(rows) < 2:
        raise DataError(f"{path} holds no data; a header and at least one line are needed.")
    header = [cell.strip() for cell in rows[0][1]]
    missing = [name for name in needed if name not in header]
    if missing:
        raise DataError(f"{path} lacks the columns {missing}; it has {header}.")
    if len(set(header)) != len(header):
        raise DataError(f"{path} names a column twice: {header}.")
    for line, row in rows[1:]:
        if len(row) != len(header):
            raise DataError(f"{path}, line {line}: {len(row)} cells, the header has {len(header)}.")
    return header, rows[1:]


def _number(path: Path, line: int, name: str, cell: str, *, may_miss: bool = False) -> float:
    text = cell.strip()
    if text.lower() in ("", "nan", "na") and may_miss:
        return float("nan")
    try:
        value = plain_number(text)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise DataError(f"{path}, line {line}: {name} is {cell!r}; a number is needed.")
    return value


def _read_run(
    path: Path, run_id: str, product: str, role: str, volume: float, feed: np.ndarray
) -> tuple[_Run, list[str]]:
    header, rows = _table(path, _RUN)
    names = [name for name in header if name not in _RUN]

    def column(name: str, *, may_miss: bool = False) -> np.ndarray:
        place = header.index(name)
        return np.asarray(
            [_number(path, line, name, row[place], may_miss=may_miss) for line, row in rows]
        )

    days = column("day")
    if not np.array_equal(days, np.arange(len(days))):
        raise DataError(f"{path}: days must be 0, 1, 2, ... without gaps; given {days.tolist()}.")
    if len(days) < 2:
        raise DataError(f"{path} has one sample; a rate needs two.")
    readings = np.stack([column(s, may_miss=True) for s in SPECIES], axis=1)
    if np.nanmin(readings, initial=0.0) < -100.0 or np.nanmax(readings, initial=0.0) > 1e7:
        raise DataError(f"{path}: a reading lies outside -100 to 1e7; check the units.")
    feed_L, sample_L = column("feed_L"), column("sample_L")
    if (feed_L < 0).any() or (sample_L < 0).any():
        raise DataError(f"{path}: feed_L and sample_L must not be negative.")
    before = volume + np.cumsum(feed_L) - np.concatenate([[0.0], np.cumsum(sample_L)[:-1]])
    after = before - sample_L
    if (after <= 0).any():
        day = int(np.argmax(after <= 0))
        raise DataError(f"{path}: on day {day} more is taken than the {before[day]:g} L there are.")
    controls = np.stack([column(n) for n in names], axis=1) if names else np.zeros((len(days), 0))
    fed = feed_L[:, None] * feed[None, :]
    return _Run(run_id, product, role, readings, controls, fed, before, after), names


def read_study(folder: Path | str) -> StudyData:
    """Read a folder of runs.

    Args:
        folder: Holds `conditions.csv` and `runs/`.

    Returns:
        The study; products are numbered in order of appearance, the novel one last.

    Raises:
        DataError: If a file is missing or malformed, a role unknown, or the novel and test runs
            are not of one product that no historic run has.
    """
    source = Path(folder)
    path = source / CONDITIONS_FILE
    header, rows = _table(path, _CONDITIONS)
    place = {name: header.index(name) for name in _CONDITIONS}
    runs: list[_Run] = []
    expected: list[str] | None = None
    for line, row in rows:
        run_id, product, role = (row[place[n]].strip() for n in ("run_id", "product", "role"))
        if role not in ROLES:
            raise DataError(f"{path}, line {line}: role {role!r}; allowed are {', '.join(ROLES)}.")
        if not product or not run_id or Path(run_id).name != run_id:
            raise DataError(f"{path}, line {line}: run_id {run_id!r}, product {product!r}.")
        if any(r.run_id == run_id for r in runs):
            raise DataError(f"{path}, line {line}: run {run_id} is listed twice.")
        volume, glc, gln = (
            _number(path, line, n, row[place[n]]) for n in ("V0_L", "feed_Glc", "feed_Gln")
        )
        feed = np.zeros(len(SPECIES))
        feed[SPECIES.index("Glc")], feed[SPECIES.index("Gln")] = glc, gln
        where = source / RUNS_FOLDER / f"{run_id}.csv"
        run, names = _read_run(where, run_id, product, role, volume, feed)
        expected = names if expected is None else expected
        if names != expected:
            raise DataError(f"{where} has set-points {names}; the first run has {expected}.")
        runs.append(run)
    return _assemble(path, runs)


def _assemble(path: Path, runs: list[_Run]) -> StudyData:
    by_role = {role: [r for r in runs if r.role == role] for role in ROLES}
    empty = [role for role in ROLES if not by_role[role]]
    if empty:
        raise DataError(f"{path} lists no run of role {', '.join(empty)}; all three are needed.")
    historic = list(dict.fromkeys(r.product for r in by_role["historic"]))
    novel = list(dict.fromkeys(r.product for r in (*by_role["novel"], *by_role["test"])))
    if len(novel) != 1 or novel[0] in historic:
        raise DataError(
            f"{path}: novel and test runs are of {novel}, historic ones of {historic}; the novel "
            "product must be one, and none of the historic."
        )
    for run in by_role["test"]:
        if not np.isfinite(run.readings[0]).all():
            raise DataError(f"test run {run.run_id} misses a reading on day 0, where it starts.")
    products = (*historic, novel[0])
    length = max(len(r.before) for r in runs)
    parts = [
        _stack(by_role[role], [products.index(r.product) for r in by_role[role]], length)
        for role in ROLES
    ]
    return StudyData(parts[0], parts[1], parts[2], products)


def _stack(runs: list[_Run], index: list[int], length: int) -> FedBatchRuns:
    """Runs of one length: shorter ones go on without readings, feeds or samples."""

    def fill(values: np.ndarray, how: float | None) -> np.ndarray:
        room = length - len(values)
        tail = np.repeat(values[-1:], room, axis=0)
        return np.concatenate([values, tail if how is None else np.full_like(tail, how)])

    readings = jnp.asarray(np.stack([fill(r.readings, np.nan) for r in runs]))
    return FedBatchRuns(
        measured=readings,
        truth=readings,
        controls=jnp.asarray(np.stack([fill(r.controls, None) for r in runs])),
        fed=jnp.asarray(np.stack([fill(r.fed, 0.0) for r in runs])),
        volume_before=jnp.asarray(np.stack([fill(r.before, r.after[-1]) for r in runs])),
        volume_after=jnp.asarray(np.stack([fill(r.after, None) for r in runs])),
        product=jnp.asarray(index),
    )


def write_study(
    data: StudyData,
    folder: Path | str,
    *,
    control_names: tuple[str, ...] = CONTROLS,
    feed_mmol_L: tuple[float, float] = (400.0, 120.0),
) -> None:
    """Write a study as a folder that `read_study` reads.

    Args:
        data: The study.
        folder: Made if it does not exist.
        control_names: Names of the set-point columns.
        feed_mmol_L: Glucose and glutamine of the feed [mmol/L].

    Raises:
        DataError: If the folder holds runs already.
    """
    target = Path(folder)
    if (target / CONDITIONS_FILE).exists():
        raise DataError(f"{target / CONDITIONS_FILE} exists already; give another folder.")
    (target / RUNS_FOLDER).mkdir(parents=True, exist_ok=True)
    lines = []
    for role, runs in zip(ROLES, data[:3], strict=True):
        arrays = [np.asarray(v) for v in runs]
        for i in range(len(arrays[0])):
            measured, _, controls, fed, before, after, product = (v[i] for v in arrays)
            run_id = f"{role}-{i + 1:03d}"
            feed_L = fed[:, 1] / feed_mmol_L[0]
            lines.append(
                [run_id, data.products[int(product)], role, f"{before[0] - feed_L[0]:.6g}"]
                + [f"{v:g}" for v in feed_mmol_L]
            )
            table = np.column_stack([measured, feed_L, before - after, controls])
            rows = [
                [str(day), *("" if np.isnan(v) else f"{v:.8g}" for v in row)]
                for day, row in enumerate(table)
            ]
            _write(target / RUNS_FOLDER / f"{run_id}.csv", [*_RUN, *control_names], rows)
    _write(target / CONDITIONS_FILE, list(_CONDITIONS), lines)


def _write(path: Path, header: list[str], rows: list[list[str]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def write_example_study(folder: Path | str, *, seed: int = 0) -> None:
    """Write a small simulated study: five historic products, one novel.

    Args:
        folder: Made if it does not exist.
        seed: Decides products and runs.
    """
    data = simulate_study(jax.random.key(seed), n_historic=8, n_novel=8, n_test=20)
    write_study(data, folder)


def run_study(
    folder: Path | str,
    out: Path | str,
    *,
    repeats: int = 5,
    counts: tuple[int, ...] = (),
    dim: int = 3,
    own_noise: bool = True,
    effort: float = 1.0,
    seed: int = 0,
    console: Any = None,
) -> dict[str, Any]:
    """Run the transfer study on a folder and write table and summary as it goes.

    Args:
        folder: For `read_study`.
        out: Gets `transfer_records.jsonl` (one line per model, written at once),
            `transfer_table.md` and `transfer_summary.json`.
        repeats: Repeats, each with the novel runs in another order.
        counts: Numbers of novel runs; the published ones that the data allow by default.
        dim: Length of the embedding vectors.
        own_noise: Signal and noise variance per species instead of one for all.
        effort: Factor on the evaluations of every search [-].
        seed: Decides orders and starts.
        console: Where to print; nowhere if None.

    Returns:
        The summary.

    Raises:
        DataError: If the folder is not a study.
        ConfigError: If the settings do not fit the data.
    """
    data = read_study(folder)
    available = int(data.novel.measured.shape[0])
    counts = counts or tuple(n for n in COUNTS if n <= available) or (available,)
    config = study_config(counts=counts, dim=dim, own_noise=own_noise, effort=effort)
    check_study(data, config.counts)
    target = Path(out)
    target.mkdir(parents=True, exist_ok=True)
    records: list[dict[str, Any]] = []
    with open(target / "transfer_records.jsonl", "w", encoding="utf-8") as handle:
        for repeat in range(repeats):
            key = jax.random.fold_in(jax.random.key(seed), repeat)
            for record in study_repeat(data, config, key=key):
                records.append({"repeat": repeat, **record._asdict()})
                handle.write(json.dumps(records[-1]) + "\n")
                handle.flush()
                if console is not None:
                    errors = dict(zip(SPECIES, record.errors, strict=True))
                    console.print(
                        f"repeat {repeat + 1} of {repeats}, {record.n_runs} runs, "
                        f"{record.method}: VCD {errors['VCD']:.3f}, Titer {errors['Titer']:.3f}"
                    )
    table, summary = markdown(records, with_published=False), summarise(records)
    summary.update(products=list(data.products), dim=dim, own_noise=own_noise, seed=seed)
    (target / "transfer_table.md").write_text(shown(table), encoding="utf-8")
    text = json.dumps(summary, indent=1, sort_keys=True)
    (target / "transfer_summary.json").write_text(text, encoding="utf-8")
    if console is not None:
        console.print(table, markup=False)
        console.print(f"results: {target}")
    return summary
