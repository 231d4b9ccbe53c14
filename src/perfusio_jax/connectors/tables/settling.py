"""Samples made of rows: joined, totals settled, and what no culture does pointed out.

What only the whole of a run shows, done once for every kind of file. Nothing is done without a
note; what somebody has to look at is a doubt.
"""

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from perfusio_jax._core import CONTROL_NAMES, HOURS_PER_DAY, REGISTRY, STREAM_TOTALS

from .doubts import feeds, hours_called_days, too_fast
from .joining import join
from .totals import RATE_OF, settle
from .vocabulary import OURS, Vocabulary

Conflicts = Literal["error", "last"]

_DECISIVE: Final = frozenset((*REGISTRY, *CONTROL_NAMES, *STREAM_TOTALS))
"""Two values of these in rows close by are two samples; of a tag or a volume, the first counts."""
_RATES: Final = ("perfusion_rate", "bleed_rate")
_SAMPLE_H: Final = 6.0
"""Rows of one sample_id further apart [h] than this are hardly of one sample."""
_FEEDS: Final = 6
"""Feeds of one run that are named; the others are counted."""
_SHOWN: Final = 3
"""Examples of one oddity that are named; the others are counted."""


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
    # kept where they are not what nearly all are: a table may have half a million rows
    _qualities: dict[str, str] | None = None
    _lines: dict[str, int] | None = None

    def put(self, name: str, value: float | None, quality: str, line: int) -> None:
        """Take in what a line says of a quantity."""
        self.values[name] = value
        self.mark(name, quality)
        if line != self.line:
            self._lines = self._lines or {}
            self._lines[name] = line
        elif self._lines:
            self._lines.pop(name, None)

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


class Settling:
    """Makes samples of the rows of a table.

    Args:
        rows: By run, reactor and time; changed in place.
        on_conflict: What two different values of one sample mean.
        join_within_h: How long after its first row [h] a sample takes further ones.
        totals: "cumulative" or "increments" by name of a total, where it is known.
        in_days: Whether the times come from a column of days.
        words: Names and units of columns.
    """

    def __init__(
        self,
        rows: dict[tuple[str, str, float], Row],
        *,
        on_conflict: Conflicts,
        join_within_h: float,
        totals: Mapping[str, str | None],
        in_days: bool,
        words: Vocabulary = OURS,
    ) -> None:
        self.words = words
        self.decisive = frozenset((*_DECISIVE, *words.species, *words.controls))
        self.rows, self.on_conflict, self.in_days = rows, on_conflict, in_days
        self.join_within_h, self.totals = join_within_h, totals
        self.notes: list[str] = []
        self.doubts: list[str] = []
        self.counts = {"conflict": 0, "corrected": 0}

    def settle(self) -> None:
        """Join, settle totals and look at every run."""
        runs: dict[tuple[str, str], list[Row]] = {}
        for row in self.rows.values():
            runs.setdefault((row.run_id, row.reactor_id), []).append(row)
        for (run_id, reactor_id), found in runs.items():
            named = [f"run {run_id}"] * bool(run_id) + [f"reactor {reactor_id}"] * bool(reactor_id)
            whose = f"{', '.join(named)}: " if named else ""
            rows = self._join(sorted(found, key=lambda row: row.time_h), whose)
            self._settle_totals(rows, whose)
            self._look_at(rows, whose)
        if self.rows and all(row.conflicts for row in self.rows.values()):
            self.doubts.append("every sample contradicts itself and is refused")

    def _join(self, rows: list[Row], whose: str) -> list[Row]:
        """Make one sample of rows minutes apart; see `joining.join`."""
        decisive = [{n: v for n, v in row.values.items() if n in self.decisive} for row in rows]
        within_h = self.join_within_h
        found = join(
            [row.time_h for row in rows], [row.sample_id for row in rows], decisive, within_h
        )
        joined, kept = [], []
        for group in found.groups:
            first = rows[group[0]]
            kept.append(first)
            for other in (rows[k] for k in group[1:]):
                joined.append(
                    f"line {other.last_line} to line {first.last_line}, "
                    f"{other.time_h - first.time_h:.3g} h later"
                )
                if other.time_h - first.time_h > _SAMPLE_H:
                    self.doubts.append(
                        f"{whose}sample_id '{first.sample_id}' stands in line {first.last_line} "
                        f"and, {other.time_h - first.time_h:.3g} h later, in line "
                        f"{other.last_line}: is it the name of one sample?"
                    )
                self._merge(first, other)
                del self.rows[(other.run_id, other.reactor_id, other.time_h)]
        ids = " or of one sample_id" if any(row.sample_id for row in rows) else ""
        self.notes += some(f"{whose}rows within {within_h:g} h{ids}, joined to one sample", joined)
        apart_rows = [(a, b, name) for a, b, name in found.apart if not _is_feed(rows[a], rows[b])]
        apart = [
            f"{name} of {when(rows[a].time_h)} is {rows[a].values[name]:g} in line "
            f"{rows[a].line_of(name)} and {rows[b].values[name]:g} in line "
            f"{rows[b].line_of(name)}, "
            f"{rows[b].time_h - rows[a].time_h:.3g} h later"
            for a, b, name in apart_rows
        ]
        lines = some(
            f"{whose}rows within {within_h:g} h that differ and stay samples of their own", apart
        )
        is_reading = any(name in (*REGISTRY, *self.words.species) for _, _, name in apart_rows)
        (self.doubts if is_reading else self.notes).extend(lines)
        return kept

    def _merge(self, row: Row, other: Row) -> None:
        """Put a later row of the same sample into it."""
        for name, value in other.values.items():
            before = row.values.get(name)
            if before is None:
                is_known = name in row.values and value is None
                if not (is_known and row.quality(name) == "bad"):
                    row.put(name, value, other.quality(name), other.line_of(name))
            elif value is not None and value != before:
                text = (
                    f"{name} of {when(row.time_h)} is {before:g} in line {row.line_of(name)} and "
                    f"{value:g} in line {other.line_of(name)}"
                )
                self._contradict(row, name, text, other)
        row.sampled_at = row.sampled_at or other.sampled_at
        row.notes += other.notes
        row.conflicts += other.conflicts

    def _contradict(self, row: Row, name: str, text: str, other: Row) -> None:
        """Two values of one quantity in rows of one sample."""
        if name not in self.decisive:
            row.notes.append(f"{text}: the first counts")
        elif self.on_conflict == "error":
            self.counts["conflict"] += 1
            row.conflicts.append(text)
            self.notes.append(f"{text}: that day is refused")
        else:
            self.counts["corrected"] += 1
            row.notes.append(text)
            self.notes.append(f"{text}: the later row counts")
            row.put(name, other.values[name], other.quality(name), other.line_of(name))

    def _settle_totals(self, rows: list[Row], whose: str) -> None:
        """Difference the totals that are counters, and do not use those that look like one."""
        times = [row.time_h for row in rows]
        volume = [_or_nan(row.values.get("volume_L")) for row in rows]
        for name in STREAM_TOTALS:
            values = [_or_nan(row.values.get(name)) for row in rows]
            if all(math.isnan(value) for value in values):
                continue
            control = RATE_OF.get(name, "")
            settled = settle(
                name,
                values,
                times,
                kind=self.totals.get(name),
                where=lambda k: f"line {rows[k].last_line}",
                rate=[_or_nan(row.values.get(control)) for row in rows] if control else None,
                volume_L=volume,
            )
            self.notes += [f"{whose}{settled.note}"] * bool(settled.note)
            self.doubts += [f"{whose}{settled.doubt}"] * bool(settled.doubt)
            for row, before, value in zip(rows, values, settled.values.tolist(), strict=True):
                if math.isnan(before) or value == before:
                    continue
                row.values[name] = None if math.isnan(value) else value
                if math.isnan(value):
                    row.mark(name, "missing" if settled.note else "bad")
                    why = "is cumulative" if settled.note else "looks cumulative"
                    row.notes.append(f"{name} {why} and is not used here")

    def _look_at(self, rows: list[Row], whose: str) -> None:
        """Point out what no culture does."""
        times = [row.time_h for row in rows]
        known = [n for n in ("VCD", "Glc", "Gln", "Pyr") if self.words.is_ours(n)]
        species = {n: [row.values.get(n) for row in rows] for n in known}
        fed = [f"{text} (line {rows[k].last_line})" for k, text in feeds(times, species)]
        self.notes += [f"{whose}{text}" for text in fed[:_FEEDS]]
        if len(fed) > _FEEDS:
            self.notes.append(f"{whose}and {len(fed) - _FEEDS} more feeds like these")
        if self.in_days:
            odd = hours_called_days([time / HOURS_PER_DAY for time in times])
        else:
            odd = too_fast(times, species["VCD"]) if "VCD" in species else ""
        if odd:
            self.doubts.append(f"{whose}{odd}")
        flows = [[_or_nan(row.values.get(name)) for row in rows] for name in _RATES]
        above = [row for row, whole, part in zip(rows, *flows, strict=True) if part > whole]
        if above:
            self.doubts.append(
                f"{whose}bleed_rate is above perfusion_rate in {len(above)} row(s) (first line "
                f"{above[0].last_line})"
            )


def some(what: str, examples: Sequence[str]) -> list[str]:
    """One sentence on many oddities of one kind: how many, and the first of them.

    Args:
        what: They are.
        examples: All of them.
    """
    if not examples:
        return []
    more = f"; and {len(examples) - _SHOWN} more" if len(examples) > _SHOWN else ""
    return [f"{what} ({len(examples)}): {'; '.join(examples[:_SHOWN])}{more}"]


def when(time_h: float) -> str:
    """A time as people say it: by the day where it is one."""
    day = time_h / HOURS_PER_DAY
    return f"day {day:g}" if day == round(day) else f"{time_h:g} h"


def _is_feed(earlier: Row, later: Row) -> bool:
    """Whether two rows differ by what was fed between them, which is told on its own."""
    names = {n for row in (earlier, later) for n in row.values if n in REGISTRY}
    species = {n: [earlier.values.get(n), later.values.get(n)] for n in names}
    return bool(feeds([earlier.time_h, later.time_h], species))


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
