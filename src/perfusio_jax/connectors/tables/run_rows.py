"""Samples of runs, held by column: a table may have half a million of them.

A row with something odd about it (a remark, a limit of an assay, a conflict) is held as a `Row`;
the others are numbers in arrays and become a `Row` when somebody asks for one.
"""

import bisect
import datetime as dt
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np

Key = tuple[str, str, float]
"""Run, reactor and time [h]."""


@dataclass(slots=True)
class Row:
    """Everything known about one reactor at one time."""

    time_h: float
    run_id: str
    reactor_id: str
    line: int
    """Of the file, the first that says something of this."""
    values: dict[str, float | None] = field(default_factory=dict)
    sampled_at: dt.datetime | None = None
    has_odd_stamp: bool = False
    """Whether a time stamp stands there that is none: then nothing tells its age."""
    sample_id: str = ""
    notes: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    last_line: int = 0
    # kept where they are not what nearly all are
    _qualities: dict[str, str] | None = None
    _lines: dict[str, int] | None = None
    limits: dict[str, tuple[float, float]] | None = None
    """Limits of assays by name, below and above, one of them NaN [canonical unit]."""

    def put(
        self,
        name: str,
        value: float | None,
        quality: str,
        line: int,
        limit: tuple[float, float] | None = None,
    ) -> None:
        """Take in what a line says of a quantity."""
        self.values[name] = value
        self.mark(name, quality)
        if limit is not None:
            self.limits = {**(self.limits or {}), name: limit}
        else:
            self.drop_limit(name)
        if line != self.line:
            self._lines = self._lines or {}
            self._lines[name] = line
        elif self._lines:
            self._lines.pop(name, None)

    def mark_lines(self, lines: Mapping[str, int]) -> None:
        """Say which line says what, where that is not the first."""
        self._lines = {name: line for name, line in lines.items() if line != self.line} or None

    def limit(self, name: str) -> tuple[float, float] | None:
        """The limit of the assay that stands in the place of a reading; None if there is none."""
        return None if self.limits is None else self.limits.get(name)

    def drop_limit(self, name: str) -> None:
        """Forget a limit: it does not count."""
        if self.limits and name in self.limits:
            self.limits = {n: v for n, v in self.limits.items() if n != name} or None

    def mark(self, name: str, quality: str) -> None:
        """Say how good the value of a quantity is."""
        if quality != ("missing" if self.values.get(name) is None else "good"):
            self._qualities = self._qualities or {}
            self._qualities[name] = quality
        elif self._qualities:
            self._qualities.pop(name, None)

    def quality(self, name: str) -> str:
        """How good the value of a quantity is; "missing" where there is none."""
        if self._qualities and name in self._qualities:
            return self._qualities[name]
        return "missing" if self.values.get(name) is None else "good"

    def line_of(self, name: str) -> int:
        """Line of the file that says the value of a quantity."""
        return self._lines.get(name, self.line) if self._lines else self.line


def as_compared(value: float | None, limit: tuple[float, float] | None) -> float | None:
    """What is said of a quantity, as it is compared: half a limit is no reading of that value.

    Args:
        value: The reading.
        limit: Limit of the assay, below and above, that stands in its place.

    Returns:
        The reading; for a limit a number that no reading of an assay has; None for nothing.
    """
    if limit is None:
        return value
    below, above = limit
    return -1.0 - below if math.isnan(above) else -1e15 - above


def as_said(value: float | None, limit: tuple[float, float] | None) -> str:
    """What is said of a quantity, as people write it."""
    if limit is None:
        return "nothing" if value is None else f"{value:g}"
    below, above = limit
    return f"< {below:g}" if math.isnan(above) else f"> {above:g}"


def as_written(limit: tuple[float, float]) -> str:
    """A limit as a cell of a table that is written: the same, to the last digit.

    Args:
        limit: Below and above [unit of the column], one of them NaN.
    """
    below, above = limit
    return f"> {above!r}" if math.isnan(below) else f"< {below!r}"


class RunRows(Sequence[Row]):
    """Samples of one run in one reactor, by time.

    Args:
        run_id: Experiment; empty if it has no name.
        reactor_id: Vessel; empty if it has no name.
        times_h: Time of each sample `(T,)` [h], ascending.
        lines: Line each stands on `(T,)`.
        values: Numbers `(T,)` by canonical name [canonical unit]; NaN if missing.
        stamps: When each was taken; None where that is not told.
        made: Samples with something odd about them, by number.
        last_lines: Last line that says something of each `(T,)`; the first by default.
        name_lines: Line by name `(T,)`, 0 where none says anything of it; the first by default.
    """

    def __init__(
        self,
        run_id: str,
        reactor_id: str,
        times_h: np.ndarray,
        lines: np.ndarray,
        values: dict[str, np.ndarray],
        stamps: Sequence[dt.datetime | None] | None = None,
        made: Mapping[int, Row] | None = None,
        last_lines: np.ndarray | None = None,
        name_lines: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self._name_lines = name_lines
        self._last_lines = lines if last_lines is None else last_lines
        self.run_id, self.reactor_id = run_id, reactor_id
        self.times_h, self.lines = times_h, lines
        self._values, self._stamps = values, stamps
        self.made: dict[int, Row] = dict(made or {})

    @classmethod
    def of(cls, rows: Sequence[Row]) -> "RunRows":
        """The same of samples of one run that are made already."""
        rows = sorted(rows, key=lambda row: row.time_h)
        names = dict.fromkeys(name for row in rows for name in row.values)
        return cls(
            rows[0].run_id,
            rows[0].reactor_id,
            np.asarray([row.time_h for row in rows]),
            np.asarray([row.line for row in rows]),
            {name: np.asarray([or_nan(row.values.get(name)) for row in rows]) for name in names},
            made=dict(enumerate(rows)),
        )

    def __len__(self) -> int:
        return len(self.times_h)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...

    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self)))]
        k = index + len(self) if index < 0 else index
        if not 0 <= k < len(self):
            raise IndexError(index)
        if k in self.made:
            return self.made[k]
        line = int(self.lines[k])
        values = {
            name: None if math.isnan(column[k]) else float(column[k])
            for name, column in self._values.items()
        }
        row = Row(float(self.times_h[k]), self.run_id, self.reactor_id, line, values)
        row.last_line = int(self._last_lines[k])
        if self._name_lines is not None:
            said = {name: int(column[k]) for name, column in self._name_lines.items()}
            there = [n for n, v in values.items() if v is not None or said.get(n)]
            row.values = {n: values[n] for n in sorted(there, key=lambda n: said.get(n, 0))}
            row.mark_lines({n: at for n, at in said.items() if at})
        row.sampled_at = None if self._stamps is None else self._stamps[k]
        return row

    def keep(self, index: int) -> Row:
        """A sample that is to be changed."""
        return self.made.setdefault(index, self[index])

    @property
    def names(self) -> tuple[str, ...]:
        """Quantities there are numbers of."""
        return tuple(self._values)

    def column(self, name: str) -> np.ndarray:
        """Numbers of a quantity `(T,)`, NaN if missing."""
        found = self._values.get(name)
        return np.full(len(self), np.nan) if found is None else found

    def put_column(self, name: str, values: np.ndarray) -> None:
        """Put other numbers in the place of those of a quantity."""
        self._values[name] = values
        for k, row in self.made.items():
            if name in row.values or not math.isnan(values[k]):
                row.values[name] = None if math.isnan(values[k]) else float(values[k])

    def compared(self, name: str) -> np.ndarray:
        """The same with limits told from readings; see `as_compared`."""
        column = self.column(name)
        found = {k: row.limit(name) for k, row in self.made.items() if row.limit(name)}
        if found:
            column = column.copy()
            for k, limit in found.items():
                column[k] = as_compared(None, limit)
        return column

    def limits(self, names: Sequence[str]) -> np.ndarray | None:
        """Limits of assays `(T,n,2)`, below and above, NaN elsewhere; None if there is none.

        Args:
            names: Quantities wanted.
        """
        found = {k: row.limits for k, row in self.made.items() if row.limits}
        out = np.full((len(self), len(names), 2), np.nan)
        for k, limits in found.items():
            for n, name in enumerate(names):
                out[k, n] = limits.get(name, (np.nan, np.nan))
        return out if np.isfinite(out).any() else None

    def stamps_h(self) -> np.ndarray:
        """Time stamp of each sample `(T,)`, hours of 1970 [h]; NaN if it has none."""
        out = np.full(len(self), np.nan)
        for k, stamp in enumerate(self._stamps or ()):
            out[k] = np.nan if stamp is None else stamp.timestamp() / 3600.0
        for k, row in self.made.items():
            out[k] = np.nan if row.sampled_at is None else row.sampled_at.timestamp() / 3600.0
        return out

    @property
    def has_ids(self) -> bool:
        """Whether a sample has a name."""
        return any(row.sample_id for row in self.made.values())

    def near(self, time_h: float, within_h: float) -> list[int]:
        """Numbers of the samples near a time, by time.

        Args:
            time_h: The time [h].
            within_h: How far from it [h].
        """
        return np.flatnonzero(np.abs(self.times_h - time_h) <= within_h).tolist()


class SampleRows(Mapping[Key, Row]):
    """Samples by run, reactor and time.

    Args:
        runs: Of each run in each reactor, in the order of the file.
    """

    def __init__(self, runs: Mapping[tuple[str, str], RunRows]) -> None:
        self.runs = dict(runs)

    @classmethod
    def of(cls, rows: Mapping[Key, Row]) -> "SampleRows":
        """The same of samples that are made already."""
        found: dict[tuple[str, str], list[Row]] = {}
        for row in rows.values():
            found.setdefault((row.run_id, row.reactor_id), []).append(row)
        return cls({key: RunRows.of(run) for key, run in found.items()})

    def __len__(self) -> int:
        return sum(map(len, self.runs.values()))

    def __iter__(self) -> Iterator[Key]:
        for whose, run in self.runs.items():
            for time_h in run.times_h.tolist():
                yield (*whose, time_h)

    def __getitem__(self, key: Key) -> Row:
        run = self.runs[key[:2]]
        k = bisect.bisect_left(run.times_h, key[2])
        if k == len(run) or run.times_h[k] != key[2]:
            raise KeyError(key)
        return run[k]

    @property
    def n_contradicted(self) -> int:
        """Samples with two values of one quantity."""
        return sum(bool(row.conflicts) for run in self.runs.values() for row in run.made.values())


def or_nan(value: float | None) -> float:
    """A value as arrays hold it."""
    return math.nan if value is None else value
