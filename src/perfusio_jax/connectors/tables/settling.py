"""Samples made of rows: joined, totals settled, and what no culture does pointed out.

What only the whole of a run shows, done once for every kind of file. Nothing is done without a
note; what somebody has to look at is a doubt.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Literal

import numpy as np

from perfusio_jax._core import CONTROL_NAMES, HOURS_PER_DAY, REGISTRY, STREAM_TOTALS

from .doubts import clocks_apart, dead_and_alive, feeds, hours_called_days, is_fed, too_fast
from .joining import join, stay_apart
from .run_rows import Row, RunRows, SampleRows, as_compared, as_said
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


class Settling:
    """Makes samples of the rows of a table.

    Args:
        samples: By run, reactor and time; changed in place.
        on_conflict: What two different values of one sample mean.
        join_within_h: How long after its first row [h] a sample takes further ones.
        totals: "cumulative" or "increments" by name of a total, where it is known.
        in_days: Whether the times come from a column of days.
        words: Names and units of columns.
    """

    def __init__(
        self,
        samples: SampleRows,
        *,
        on_conflict: Conflicts,
        join_within_h: float,
        totals: Mapping[str, str | None],
        in_days: bool,
        words: Vocabulary = OURS,
    ) -> None:
        self.words = words
        self.decisive = frozenset((*_DECISIVE, *words.species, *words.controls))
        self.samples, self.on_conflict, self.in_days = samples, on_conflict, in_days
        self.join_within_h, self.totals = join_within_h, totals
        self.notes: list[str] = []
        self.doubts: list[str] = []
        self.counts = {"conflict": 0, "corrected": 0}

    def settle(self) -> None:
        """Join, settle totals and look at every run."""
        for (run_id, reactor_id), run in self.samples.runs.items():
            named = [f"run {run_id}"] * bool(run_id) + [f"reactor {reactor_id}"] * bool(reactor_id)
            whose = f"{', '.join(named)}: " if named else ""
            run = self.samples.runs[run_id, reactor_id] = self._join(run, whose)
            self._settle_totals(run, whose)
            self._look_at(run, whose)
        if self.samples and self.samples.n_contradicted == len(self.samples):
            self.doubts.append("every sample contradicts itself and is refused")

    def _join(self, run: RunRows, whose: str) -> RunRows:
        """Make one sample of rows minutes apart; see `joining.join`."""
        within_h, has_ids = self.join_within_h, run.has_ids
        decisive = {n: run.compared(n) for n in run.names if n in self.decisive}
        if not has_ids and (apart := stay_apart(run.times_h, decisive, within_h)) is not None:
            self._tell_apart(run, *apart, whose)
            return run
        rows = run[:]
        values = [
            {n: as_compared(v, row.limit(n)) for n, v in row.values.items() if n in self.decisive}
            for row in rows
        ]
        found = join(run.times_h.tolist(), [row.sample_id for row in rows], values, within_h)
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
        ids = " or of one sample_id" if has_ids else ""
        self.notes += some(f"{whose}rows within {within_h:g} h{ids}, joined to one sample", joined)
        earlier, later = (np.asarray([pair[k] for pair in found.apart], int) for k in (0, 1))
        names = [name for _, _, name in found.apart]
        self._tell_apart(run, earlier, later, names, whose)
        return RunRows.of(kept)

    def _tell_apart(
        self,
        run: RunRows,
        earlier: np.ndarray,
        later: np.ndarray,
        names: Sequence[str],
        whose: str,
    ) -> None:
        """Tell of rows close by that differ, unless something was fed between them."""
        if not len(earlier):
            return
        found = zip(earlier.tolist(), later.tolist(), names, strict=True)
        is_fed = _is_feed(run, earlier, later).tolist()
        apart = [pair for pair, fed in zip(found, is_fed, strict=True) if not fed]
        shown = [
            f"{name} of {when(run[a].time_h)} is {_said(run[a], name)} in line "
            f"{run[a].line_of(name)} and {_said(run[b], name)} in line {run[b].line_of(name)}, "
            f"{run[b].time_h - run[a].time_h:.3g} h later"
            for a, b, name in apart[:_SHOWN]
        ]
        lines = some(
            f"{whose}rows within {self.join_within_h:g} h that differ and stay samples of their "
            "own",
            shown,
            len(apart),
        )
        is_reading = any(name in (*REGISTRY, *self.words.species) for _, _, name in apart)
        (self.doubts if is_reading else self.notes).extend(lines)

    def _merge(self, row: Row, other: Row) -> None:
        """Put a later row of the same sample into it."""
        for name, value in other.values.items():
            limit = other.limit(name)
            now = as_compared(value, limit)
            before = as_compared(row.values.get(name), row.limit(name))
            if before is None:
                is_known = name in row.values and now is None
                if not (is_known and row.quality(name) == "bad"):
                    row.put(name, value, other.quality(name), other.line_of(name), limit)
            elif now is not None and now != before:
                text = (
                    f"{name} of {when(row.time_h)} is {_said(row, name)} in line "
                    f"{row.line_of(name)} and {_said(other, name)} in line {other.line_of(name)}"
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
            row.put(
                name,
                other.values[name],
                other.quality(name),
                other.line_of(name),
                other.limit(name),
            )

    def _settle_totals(self, run: RunRows, whose: str) -> None:
        """Difference the totals that are counters, and do not use those that look like one."""
        for name in (name for name in STREAM_TOTALS if name in run.names):
            values = run.column(name)
            if np.isnan(values).all():
                continue
            control = RATE_OF.get(name, "")
            settled = settle(
                name,
                values,
                run.times_h,
                kind=self.totals.get(name),
                where=lambda k: f"line {run[k].last_line}",
                rate=run.column(control) if control else None,
                volume_L=run.column("volume_L"),
            )
            self.notes += [f"{whose}{settled.note}"] * bool(settled.note)
            self.doubts += [f"{whose}{settled.doubt}"] * bool(settled.doubt)
            is_lost = ~np.isnan(values) & np.isnan(settled.values)
            why = "is cumulative" if settled.note else "looks cumulative"
            lost = [run.keep(k) for k in np.flatnonzero(is_lost).tolist()]
            run.put_column(name, np.where(np.isnan(values), values, settled.values))
            for row in lost:
                row.mark(name, "missing" if settled.note else "bad")
                row.notes.append(f"{name} {why} and is not used here")

    def _look_at(self, run: RunRows, whose: str) -> None:
        """Point out what no culture does."""
        names = {*run.names}
        known = [n for n in ("VCD", "Glc", "Gln", "Pyr") if self.words.is_ours(n) and n in names]
        species = {n: run.column(n) for n in known}
        fed = feeds(run.times_h, species)
        told = [f"{text} (line {run[k].last_line})" for k, text in fed[:_FEEDS]]
        self.notes += [f"{whose}{text}" for text in told]
        if len(fed) > _FEEDS:
            self.notes.append(f"{whose}and {len(fed) - _FEEDS} more feeds like these")
        if self.in_days:
            odd = hours_called_days((run.times_h / HOURS_PER_DAY).tolist())
        else:
            odd = too_fast(run.times_h, species["VCD"]) if "VCD" in species else ""
        name = "day" if self.in_days else "time_h"
        clock = clocks_apart(
            run.times_h, run.stamps_h(), lambda k: f"line {run[k].last_line}", name
        )
        dead = ""
        if {"VCD", "Via"} <= names and self.words.is_ours("VCD") and self.words.is_ours("Via"):
            dead = dead_and_alive(run.column("Via"), species["VCD"])
        self.doubts += [f"{whose}{text}" for text in (odd, clock, dead) if text]
        whole, part = (run.column(name) for name in _RATES)
        above = np.flatnonzero(part > whole)
        if above.size:
            self.doubts.append(
                f"{whose}bleed_rate is above perfusion_rate in {above.size} row(s) (first line "
                f"{run[int(above[0])].last_line})"
            )


def _said(row: Row, name: str) -> str:
    return as_said(row.values.get(name), row.limit(name))


def some(what: str, examples: Sequence[str], count: int | None = None) -> list[str]:
    """One sentence on many oddities of one kind: how many, and the first of them.

    Args:
        what: They are.
        examples: All of them, or as many as are shown.
        count: How many there are, where not all are given.
    """
    n = len(examples) if count is None else count
    if not n:
        return []
    more = f"; and {n - _SHOWN} more" if n > _SHOWN else ""
    return [f"{what} ({n}): {'; '.join(examples[:_SHOWN])}{more}"]


def when(time_h: float) -> str:
    """A time as people say it: by the day where it is one."""
    day = time_h / HOURS_PER_DAY
    return f"day {day:g}" if day == round(day) else f"{time_h:g} h"


def _is_feed(run: RunRows, earlier: np.ndarray, later: np.ndarray) -> np.ndarray:
    """Whether two rows differ by what was fed between them, which is told on its own."""
    species = {n: run.column(n) for n in ("VCD", "Glc", "Gln", "Pyr") if n in run.names}
    hours = run.times_h[later] - run.times_h[earlier]
    before, after = ({n: c[k] for n, c in species.items()} for k in (earlier, later))
    return is_fed(hours, before, after)
