"""Folders of fed-batch runs as studies used to be kept: a file per run, and a table of conditions.

`conditions.csv` has one line per run: `run_id`, `product`, `role` (historic, novel or test), `V0_L`
(volume before the first feed and sample) and `feed_Glc`, `feed_Gln` [mmol/L]. `runs/<run_id>.csv`
has one line per sample: `day`, species, `feed_L` (fed just before the sample), `sample_L` (taken),
and any further columns as set-points. The files are read like any campaign table; what is here
makes one culture of them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from perfusio_jax._core import STREAM_TOTALS, DataError
from perfusio_jax._core.text import in_line
from perfusio_jax._core.units import CANONICAL_UNITS, canonical_unit
from perfusio_jax.process import Control, Process, Quantity, Stream
from perfusio_jax.states import Trajectory

from ..tables.cells import parse_number
from ..tables.file_rules import FileRules
from ..tables.formats import TEXT_SUFFIXES
from ..tables.vocabulary import Vocabulary
from .campaign_cells import read_cells
from .campaign_files import read_campaign

CONDITIONS_FILE: Final = "conditions.csv"
RUNS_FOLDER: Final = "runs"
ROLES: Final = ("historic", "novel", "test")

_SPECIES: Final = ("VCD", "Glc", "Gln", "Amm", "Lac", "Titer")
_FED: Final = ("Glc", "Gln")
_NUMBERS: Final = ("V0_L", "feed_Glc", "feed_Gln")
_OF_RUN: Final = ("run_id", "product", "role", *_NUMBERS)
_MOVED: Final = ("feed_L", "sample_L")
_WIDE: Final = 1e9


class StudyFolder(NamedTuple):
    """Runs of a study, their culture, and which of them are tests."""

    trajectories: list[Trajectory]
    process: Process
    novel: str
    """The novel product."""
    tests: tuple[str, ...]
    """Runs of it that no model sees."""


class _Line(NamedTuple):
    run_id: str
    product: str
    role: str
    volume_L: float
    feed: tuple[float, ...]


def is_study_folder(path: Path) -> bool:
    """Whether a folder is one of this form."""
    return path.is_dir() and (path / CONDITIONS_FILE).is_file()


def read_study_folder(folder: Path, rules: FileRules | None = None) -> StudyFolder:
    """Read such a folder.

    Args:
        folder: Holds `conditions.csv` and `runs/`.
        rules: How its files are read.

    Raises:
        DataError: If a file is missing or malformed, a role unknown, a role without a run, or the
            novel and test runs are not of one product that no historic run has.
    """
    rules = rules or FileRules()
    place = folder / CONDITIONS_FILE
    lines = _conditions(place, rules)
    novel = _novel(place, lines)
    files = [folder / RUNS_FOLDER / f"{line.run_id}.csv" for line in lines]
    held = _held(files[0], rules)
    found = read_campaign(files, process=_as_written(held), rules=rules).trajectories
    runs = [_as_campaign(run, line, held) for run, line in zip(found, lines, strict=True)]
    tests = tuple(line.run_id for line in lines if line.role == "test")
    return StudyFolder(runs, _culture(runs, held), novel, tests)


def _conditions(path: Path, rules: FileRules) -> list[_Line]:
    units = {"V0_L": "L", **{f"feed_{name}": "mmol/L" for name in _FED}}
    words = Vocabulary(tags=_NUMBERS, units=units)
    table = read_cells(path, rules.but(is_long=False, constants={}), words)[0]
    header = list(table.frame.columns)
    if missing := [name for name in _OF_RUN if name not in header]:
        raise DataError(
            f"{path} lacks the columns {', '.join(missing)}; it has {', '.join(header)}."
        )
    out: list[_Line] = []
    for k, line in enumerate(table.lines or range(2, len(table.frame) + 2)):
        row = {name: table.frame[name].iloc[k] for name in _OF_RUN}
        run_id, product, role = (str(row[n] or "").strip() for n in ("run_id", "product", "role"))
        if role not in ROLES:
            raise DataError(f"{path}, line {line}: role {role!r}; allowed are {', '.join(ROLES)}.")
        if not product or not run_id or Path(run_id).name != run_id:
            raise DataError(f"{path}, line {line}: run_id {run_id!r}, product {product!r}.")
        if any(other.run_id == run_id for other in out):
            raise DataError(f"{path}, line {line}: run {run_id} is listed twice.")
        volume, *feed = (_number(path, line, name, row[name]) for name in _NUMBERS)
        out.append(_Line(run_id, product, role, volume, tuple(feed)))
    return out


def _number(path: Path, line: int, name: str, cell: object) -> float:
    value = parse_number(cell)
    if not isinstance(value, float) or not np.isfinite(value) or value < 0.0:
        raise DataError(
            f"{path}, line {line}: {name} is {in_line(cell)}; a number not below 0 is needed."
        )
    return value


def _novel(path: Path, lines: Sequence[_Line]) -> str:
    empty = [role for role in ROLES if not any(line.role == role for line in lines)]
    if empty:
        raise DataError(f"{path} lists no run of role {', '.join(empty)}; all three are needed.")
    historic = {line.product for line in lines if line.role == "historic"}
    novel = sorted({line.product for line in lines if line.role != "historic"})
    if len(novel) != 1 or novel[0] in historic:
        raise DataError(
            f"{path}: novel and test runs are of {', '.join(novel)}, historic ones of "
            f"{', '.join(sorted(historic))}; the novel product must be one, and none of the "
            "historic."
        )
    return novel[0]


def _held(path: Path, rules: FileRules) -> tuple[str, ...]:
    """Columns of the first run that are set-points."""
    if path.suffix.lower() in TEXT_SUFFIXES and not path.exists():
        raise DataError(f"{path} does not exist.")
    header = read_cells(path, rules, Vocabulary(tags=_MOVED))[0].frame.columns
    apart = ("run_id", "reactor_id", "clone_id", "day", "time_h", *_SPECIES, *_MOVED)
    return tuple(str(name) for name in header if name not in apart)


def _species(*, is_signed: bool = False) -> tuple[Quantity, ...]:
    """What was read, in the units studies are kept in."""
    molar = ("Glc", "Gln", "Amm", "Lac")
    return tuple(
        Quantity(
            name=name,
            unit="mmol/L" if name in molar else canonical_unit(name),
            kind="level" if is_signed else "carried",
            lo=-_WIDE if is_signed else 0.0,
            hi=_WIDE,
        )
        for name in _SPECIES
    )


def _control(name: str, unit: str, role: str, values: Sequence[float], **more: str) -> Control:
    lo, hi = float(np.min(values)), float(np.max(values))
    return Control(name=name, unit=unit, role=role, lo=lo, hi=hi, default=lo, **more)  # pyright: ignore


def _unit(name: str) -> str:
    return CANONICAL_UNITS.get(name, "1")


def _as_written(held: Sequence[str]) -> Process:
    """The columns of a file as they stand there; noise has made some readings negative."""
    moved = tuple(_control(name, "L", "environment", (0.0, _WIDE)) for name in _MOVED)
    others = (_control(name, _unit(name), "environment", (-_WIDE, _WIDE)) for name in held)
    species = _species(is_signed=True)
    return Process(name="study", volume_L=1.0, quantities=species, controls=(*moved, *others))


def _culture(runs: Sequence[Trajectory], held: Sequence[str]) -> Process:
    """The culture that the runs are of: a feed whose amount and contents are set."""
    table = np.concatenate([np.asarray(run.controls) for run in runs])
    of = dict(zip(runs[0].control_names, table.T, strict=True))
    feeds = tuple(
        _control(f"feed_{name}", "mmol/L", "composition", of[f"feed_{name}"], quantity=name)
        for name in _FED
    )
    return Process(
        name="fed_batch_study",
        description="Fed-batch of several products, fed between samples",
        volume_L=float(runs[0].volume_L[0]),
        biomass="VCD",
        quantities=_species(),
        controls=(
            *(_control(name, _unit(name), "environment", of[name]) for name in held),
            _control("feed_rate", "L/d", "flow", of["feed_rate"]),
            *feeds,
        ),
        streams=(
            Stream(
                name="feed",
                direction="in",
                flow="feed_rate",
                carries={name: f"feed_{name}" for name in _FED},
            ),
        ),
    )


def _as_campaign(run: Trajectory, line: _Line, held: Sequence[str]) -> Trajectory:
    """A run of the culture: the feed as a flow until the next sample, volumes as they were."""
    if run.limits is not None:
        limits = run.host_limits(run.species_names)
        names = [n for k, n in enumerate(run.species_names) if np.isfinite(limits[:, k]).any()]
        raise DataError(
            f"run {line.run_id}: {', '.join(names)} is in places a limit (< or >) and no reading "
            "of an assay; a transfer study takes readings alone, so leave these cells empty."
        )
    lacking = [name for name in (*_SPECIES, *_MOVED) if not _has(run, name)]
    own = tuple(name for name in run.control_names if name not in _MOVED)
    if lacking or set(own) != set(held):
        raise DataError(
            f"run {line.run_id} has set-points {', '.join(own) or 'none'} and lacks "
            f"{', '.join(lacking) or 'nothing'}; the first run has set-points {', '.join(held)}."
        )
    feed, taken = (np.asarray(run.get_control(name), float) for name in _MOVED)
    if not (np.min(feed) >= 0.0 and np.min(taken) >= 0.0):  # NaN is not
        raise DataError(
            f"run {line.run_id}: feed_L or sample_L is blank or below 0; write 0 for nothing."
        )
    before = line.volume_L + np.cumsum(feed) - np.append(0.0, np.cumsum(taken)[:-1])
    if (before - taken <= 0.0).any():
        day = float(run.times_h[int(np.argmax(before - taken <= 0.0))]) / 24.0
        raise DataError(
            f"run {line.run_id}: on day {day:g} more is taken than the "
            f"{before[int(np.argmax(before - taken <= 0.0))]:g} L there are."
        )
    if line.role == "test" and not np.isfinite(run.host_readings(_SPECIES)[0]).all():
        raise DataError(f"test run {line.run_id} misses a reading on day 0, where it starts.")
    days = np.diff(np.asarray(run.times_h, float)) / 24.0
    rate = np.append(feed[1:] / days, 0.0)
    totals = np.full((run.n_days, len(STREAM_TOTALS)), np.nan)
    totals[1:, STREAM_TOTALS.index("V_sample_L")] = taken[:-1]
    contents = np.broadcast_to(np.asarray(line.feed), (run.n_days, len(_FED)))
    settings = np.stack([np.asarray(run.get_control(name), float) for name in held], axis=1)
    return Trajectory(
        species=run.host_readings(_SPECIES),
        controls=np.concatenate([settings, rate[:, None], contents], axis=1),
        volume_L=before,
        days=run.days,
        species_names=_SPECIES,
        control_names=(*held, "feed_rate", *(f"feed_{name}" for name in _FED)),
        run_id=line.run_id,
        clone_id=line.product,
        reactor_id=run.reactor_id,
        times_h=run.times_h,
        stream_totals=totals,
    )


def _has(run: Trajectory, name: str) -> bool:
    return name in run.species_names or name in run.control_names
