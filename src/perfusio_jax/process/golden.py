"""A golden batch: the band of chosen runs, and how far another run lies from them.

Runs are laid over each other by the time since inoculation, whatever hours they were sampled at and
however long they are. The mean at an hour is that of what each run reads there, on a straight line
between two of its samples. Of the spread it is squared deviations at samples that are laid on such
a line, not readings: a mean of two readings is less noisy than one, and a band of means would be
too narrow for a reading.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from perfusio_jax._core import DataError
from perfusio_jax.states import Trajectory

from .assays import deviation_of
from .description import Process
from .distance import FEWEST, LEVELS, Alike, Ruler, alike, distance, ruler
from .recorded import READ_AS, column_of

_BRIDGED: Final = 3.0
"""Gaps between two readings that are bridged, in typical ones of that quantity in that run."""
_NEAR: Final = 0.25
"""How far beyond a run's ends it still counts, in its typical gaps."""


class _Course(NamedTuple):
    """One quantity of one run where it was read."""

    hours: np.ndarray
    values: np.ndarray
    gap_h: float
    """Its typical gap [h]."""

    def at(self, hours: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
        """Its values, or others at the same samples, at these hours; NaN where it says nothing."""
        if not self.hours.size:
            return np.full(hours.shape, np.nan)
        own = self.values if values is None else values
        found = np.interp(hours, self.hours, own)
        last = self.hours.size - 1
        left = np.clip(np.searchsorted(self.hours, hours, side="right") - 1, 0, last)
        right = np.clip(np.searchsorted(self.hours, hours, side="left"), 0, last)
        is_wide = self.hours[right] - self.hours[left] > _BRIDGED * self.gap_h
        reach = _NEAR * self.gap_h
        is_out = (hours < self.hours[0] - reach) | (hours > self.hours[-1] + reach)
        return np.where(is_wide | is_out, np.nan, found)


class Golden(NamedTuple):
    """Runs that others are measured by."""

    run_ids: tuple[str, ...]
    """The runs."""
    names: tuple[str, ...]
    """Quantities that enough of them read."""
    left_out: tuple[str, ...]
    """What was left out and why, one sentence each."""
    courses: tuple[tuple[_Course, ...], ...]
    """By quantity, of each run."""
    squares: tuple[tuple[np.ndarray, ...], ...]
    """By quantity, of each run: squared deviations at its samples, made those of all runs' law."""
    process: Process | None
    """The culture, which knows the noise of assays."""
    rows: Float[np.ndarray, "N K"]
    """Scaled deviations, a row per sample; NaN where something was not read."""
    run_of_row: Int[np.ndarray, " N"]
    """Number of the run each row is of."""

    def law(self, hours: Float[np.ndarray, " T"]) -> "Corridor":
        """Mean, spread and number of runs at any hours [h]."""
        shape = (hours.size, len(self.names))
        mean, spread, count = np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape, int)
        for k, name in enumerate(self.names):
            mean[:, k], count[:, k] = _mean(self.courses[k], hours)
            own = zip(self.courses[k], self.squares[k], strict=True)
            at = np.array([c.at(hours, s) for c, s in own])
            n = np.isfinite(at).sum(axis=0)
            variance = np.where(n > 0, np.nansum(at, axis=0) / np.maximum(n, 1), np.nan)
            least = deviation_of(self.process, name, mean[:, k])
            spread[:, k] = np.sqrt(np.fmax(variance, least**2))
        is_known = (count >= FEWEST) & (spread > 0.0)
        return Corridor(np.where(is_known, mean, np.nan), np.where(is_known, spread, np.nan), count)


class Corridor(NamedTuple):
    """Reference runs at some hours."""

    mean: Float[np.ndarray, "T K"]
    """Mean; NaN where fewer than three runs tell."""
    spread: Float[np.ndarray, "T K"]
    """Standard deviation between runs, no smaller than the noise of the assay."""
    n_runs: Int[np.ndarray, "T K"]
    """Runs that tell."""

    def ends(self, level: float = LEVELS[0]) -> tuple[np.ndarray, np.ndarray]:
        """Between which a reading of a further run lies with this probability (Student's t)."""
        runs = np.maximum(self.n_runs, FEWEST)
        half = stats.t.ppf(0.5 + level / 2.0, runs - 1) * np.sqrt(1.0 + 1.0 / runs) * self.spread
        return self.mean - half, self.mean + half


class Compared(NamedTuple):
    """A run beside reference runs; NaN where something is missing or unknown."""

    run_id: str
    """Run."""
    reactor_id: str
    """Vessel."""
    references: tuple[str, ...]
    """The reference runs."""
    names: tuple[str, ...]
    """Quantities."""
    hours: Float[np.ndarray, " T"]
    """Sample times [h]."""
    readings: Float[np.ndarray, "T K"]
    """What was read."""
    band: Corridor
    """Reference runs at the same hours."""
    low: Float[np.ndarray, "T K"]
    """Lower end of the 95 % band of a reading."""
    high: Float[np.ndarray, "T K"]
    """Its upper end."""
    n_read: Int[np.ndarray, " T"]
    """Quantities that T2 and Q are of."""
    n_components: Int[np.ndarray, " T"]
    """Components of T2; 0 where there is none."""
    t2: Float[np.ndarray, " T"]
    """Hotelling's T2."""
    t2_limits: Float[np.ndarray, "T 2"]
    """Its limits, 95 and 99 %."""
    q: Float[np.ndarray, " T"]
    """Squared prediction error."""
    q_limits: Float[np.ndarray, "T 2"]
    """Its limits, 95 and 99 %."""
    t2_by: Float[np.ndarray, "T K"]
    """What each quantity adds to T2."""
    q_by: Float[np.ndarray, "T K"]
    """What each quantity adds to Q."""
    notes: tuple[str, ...]
    """What was left out and why."""

    @property
    def z(self) -> Float[np.ndarray, "T K"]:
        """Readings less the mean over the spread."""
        return (self.readings - self.band.mean) / self.band.spread


def golden_of(
    process: Process | None, runs: Sequence[Trajectory], names: Sequence[str] | None = None
) -> Golden:
    """Make a golden batch of chosen runs.

    Args:
        process: Their culture, which knows the noise of its assays; None if nobody does.
        runs: The runs; three at least.
        names: Readings; all they have by default.

    Raises:
        DataError: If there are fewer than three runs, or no quantity that three of them read.
    """
    if len(runs) < FEWEST:
        told = ", ".join(run.run_id for run in runs) or "none"
        raise DataError(
            f"{len(runs)} reference runs were given ({told}); a band needs {FEWEST} at least, and "
            "is wide below about 8. Name more, or look at the runs with perfusio-jax figures."
        )
    known = list(dict.fromkeys(n for run in runs for n in run.species_names))
    wanted = known if names is None else [n for n in names if n in known]
    kept, courses, left_out = [], [], []
    for name in wanted:
        own = tuple(_course(run, name) for run in runs)
        n_read = sum(c.hours.size > 1 for c in own)
        if n_read >= FEWEST:
            kept.append(name)
            courses.append(own)
        elif n_read:
            left_out.append(f"{name}: read twice or more in {n_read} reference run(s) only.")
    if not kept:
        raise DataError(
            f"no quantity was read twice or more in {FEWEST} of the {len(runs)} reference runs; "
            "there is no band to be made of them."
        )
    squares = tuple(tuple(_squares(own)) for own in courses)
    golden = Golden(
        tuple(run.run_id for run in runs), tuple(kept), tuple(left_out), tuple(courses), squares,
        process, np.zeros((0, len(kept))), np.zeros(0, int),
    )  # fmt: skip
    rows = [_scaled(golden, run) for run in runs]
    owners = np.concatenate([np.full(len(r), n) for n, r in enumerate(rows)])
    return golden._replace(rows=np.concatenate(rows), run_of_row=owners)


def compare(golden: Golden, run: Trajectory) -> Compared:
    """Lay a run beside reference runs, sample by sample.

    T2 and Q of a sample are of what was read in it: nothing stands in for a missing reading. The
    components are those of just these quantities, and so are the limits.

    Args:
        golden: The reference runs.
        run: The run, finished or not.

    Raises:
        DataError: If it is one of them, or reads nothing they do.
    """
    if _is_one_of(golden, run):
        raise DataError(
            f"run {run.run_id} is one of the reference runs; it would be measured by itself. "
            "Compare it with the others."
        )
    hours = np.asarray(run.times_h, float)
    values = _readings(run, golden.names)
    if not np.isfinite(values).any():
        raise DataError(
            f"run {run.run_id} reads nothing that the reference runs do "
            f"({', '.join(golden.names)})."
        )
    band = golden.law(hours)
    z = (values - band.mean) / band.spread
    shape = z.shape
    patterns: dict[bytes, Alike] = {}
    rulers: dict[tuple[bytes, int], Ruler] = {}
    n_read, components = np.zeros(len(z), int), np.zeros(len(z), int)
    t2, q = np.full(len(z), np.nan), np.full(len(z), np.nan)
    limits = np.full((2, len(z), len(LEVELS)), np.nan)
    parts = np.full((2, *shape), np.nan)
    for i, row in enumerate(z):
        seen = np.isfinite(row)
        n_read[i] = seen.sum()
        if not n_read[i]:
            continue
        which, runs = seen.tobytes(), int(band.n_runs[i, seen].min())
        if which not in patterns:
            patterns[which] = alike(golden.rows[:, seen], golden.run_of_row)
        if (which, runs) not in rulers:
            rulers[which, runs] = ruler(patterns[which], runs)
        by = rulers[which, runs]
        found = distance(row[seen], by)
        components[i], t2[i], q[i] = by.n_components, found.t2, found.q
        limits[0, i], limits[1, i] = by.t2_limits, by.q_limits
        parts[0, i, seen], parts[1, i, seen] = found.t2_by, found.q_by
    low, high = (_plausible(golden, end) for end in band.ends())
    return Compared(
        run.run_id, run.reactor_id, golden.run_ids, golden.names, hours, values, band, low, high,
        n_read, components, t2, limits[0], q, limits[1], parts[0], parts[1],
        (*golden.left_out, *_notes(golden, run, hours, values, z, patterns)),
    )  # fmt: skip


def _is_one_of(golden: Golden, run: Trajectory) -> bool:
    """Whether a run is a reference: of that name, with these very readings."""
    own = [_course(run, name) for name in golden.names]
    for n, name in enumerate(golden.run_ids):
        if name == run.run_id and all(
            np.array_equal(mine.hours, courses[n].hours)
            and np.array_equal(mine.values, courses[n].values)
            for mine, courses in zip(own, golden.courses, strict=True)
        ):
            return True
    return False


def _notes(
    golden: Golden,
    run: Trajectory,
    hours: np.ndarray,
    values: np.ndarray,
    z: np.ndarray,
    patterns: Mapping[bytes, Alike],
) -> list[str]:
    """What of a run could not be measured by the others."""
    notes = []
    n = len(golden.run_ids)
    if n < 5:
        notes.append(f"{n} reference runs are few: limits are wide, and small faults stay unseen.")
    more = [
        name
        for name in run.species_names
        if name not in golden.names and np.isfinite(run.host_readings((name,))).any()
    ]
    if more:
        notes.append(f"No band for {', '.join(more)}: fewer than {FEWEST} reference runs read it.")
    unknown = np.isfinite(values) & ~np.isfinite(z)
    mean = _mean_of(golden, hours)
    unknown &= values != mean  # where all read the same, and this run too, there is nothing to say
    if unknown.any():
        where = hours[unknown.any(axis=1)]
        names = [name for k, name in enumerate(golden.names) if unknown[:, k].any()]
        notes.append(
            f"{int(unknown.sum())} reading(s) of {', '.join(names)} between {where[0]:g} and "
            f"{where[-1]:g} h lie where fewer than {FEWEST} reference runs tell, or tell no "
            "spread; they are not judged."
        )
    few = [key for key, found in patterns.items() if found.n_runs < FEWEST]
    if few:
        sets = [
            " + ".join(np.array(golden.names)[np.frombuffer(key, bool)].tolist()) for key in few
        ]
        notes.append(
            f"No T2 and Q where {'; '.join(sets)} was read: fewer than {FEWEST} reference runs "
            "read all of it in one sample."
        )
    return notes


def _course(run: Trajectory, name: str) -> _Course:
    values = _readings(run, (name,))[:, 0]
    is_read = np.isfinite(values)
    hours = np.asarray(run.times_h, float)[is_read]
    gap = float(np.median(np.diff(hours))) if hours.size > 1 else 0.0
    return _Course(hours, values[is_read], gap)


def _readings(run: Trajectory, names: Sequence[str]) -> np.ndarray:
    columns = [column_of(run, name) for name in names]
    return np.stack(columns, axis=1) if columns else np.zeros((run.n_days, 0))


def _mean(courses: Sequence[_Course], hours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over runs at these hours, and how many tell."""
    at = np.array([c.at(hours) for c in courses]).reshape(len(courses), hours.size)
    n = np.isfinite(at).sum(axis=0)
    return np.where(n > 0, np.nansum(at, axis=0) / np.maximum(n, 1), np.nan), n


def _mean_of(golden: Golden, hours: np.ndarray) -> np.ndarray:
    """Mean of whichever reference runs tell, by quantity."""
    return np.stack([_mean(own, hours)[0] for own in golden.courses], axis=1)


def _squares(courses: Sequence[_Course]) -> list[np.ndarray]:
    """Squared deviations of each run, times `R / (R - 1)`: the mean holds the run itself."""
    found = []
    for course in courses:
        mean, n = _mean(courses, course.hours)
        ratio = np.where(n >= FEWEST, n / np.maximum(n - 1.0, 1.0), np.nan)
        found.append(ratio * (course.values - mean) ** 2)
    return found


def _scaled(golden: Golden, run: Trajectory) -> np.ndarray:
    """Deviations of a run from the mean over the spread, sample by sample."""
    band = golden.law(np.asarray(run.times_h, float))
    return (_readings(run, golden.names) - band.mean) / band.spread


def _plausible(golden: Golden, ends: np.ndarray) -> np.ndarray:
    """No end of a band below nothing, or above the whole, of what cannot be."""
    low = [0.0 if all((c.values >= 0.0).all() for c in own) else -np.inf for own in golden.courses]
    high = [np.inf] * len(golden.names)
    for q in () if golden.process is None else golden.process.quantities:
        for known in (q.name, *READ_AS.get(q.name, ())):
            if known in golden.names and q.formula == "viability":
                high[golden.names.index(known)] = 100.0
    return np.clip(ends, low, high)
