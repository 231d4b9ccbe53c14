"""What of a campaign does not agree with its process: ranges, volumes, balances."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import STREAM_TOTALS
from perfusio_jax._core.unit_text import parse_unit
from perfusio_jax._core.units import MOLAR_MASS
from perfusio_jax.chemistry.schemes import balance_rates
from perfusio_jax.process import Process, bolus_amounts, bolus_volumes, stream_flows
from perfusio_jax.process.parts import dimensions
from perfusio_jax.states import Trajectory

from .frames import Campaign
from .process_comments import CONTENT

_ODD: Final = 6.0
"""Robust deviations beyond which a rate is named."""
_NOISE: Final = 3.0
"""Deviations of the assays that explain a difference."""
_FEWEST: Final = 5
"""Rates from which a spread is known."""
_VOLUME: Final = 0.05
"""Share of the volume that a balance of volumes may be off."""
_TOTAL: Final = 0.2
"""Share by which a recorded total may differ from what was set."""
_LARGEST_YIELD: Final = 1.0
"""Lactate that glucose can become [g/g]."""
_SHOWN: Final = 10
_MAD: Final = 1.4826
"""Deviation of a normal distribution in its median absolute deviations."""


class Checked(NamedTuple):
    """What a check of a campaign found."""

    overview: tuple[str, ...]
    """What there is, a line per quantity."""
    findings: tuple[str, ...]
    """What somebody should look at, a sentence each."""


class Intervals(NamedTuple):
    """All intervals of a campaign, one row each."""

    run: tuple[str, ...]
    """Which run each is of."""
    times_h: np.ndarray
    """Begin and end `(N,2)` [h]."""
    start: np.ndarray
    """Concentrations right after the first sample and its boluses `(N,K)`."""
    end: np.ndarray
    """Concentrations at the second sample `(N,K)`."""
    rates: np.ndarray
    """Volumetric rates that close the balance `(N,K)` [conc/h]; NaN where something is missing."""

    def where(self, row: int) -> str:
        """A phrase that names an interval."""
        begin, end = self.times_h[row]
        return f"run {self.run[row]}, {begin:g} to {end:g} h"


def check_campaign(campaign: Campaign, process: Process) -> Checked:
    """Look at a campaign with the eyes of its process.

    Args:
        campaign: Read by the same process.
        process: The culture.

    Returns:
        Readings per quantity, and what does not agree.
    """
    runs = campaign.trajectories
    has_volume = "volume_L" not in campaign.report.assumed
    overview, findings = _readings(runs, process)
    findings += _volumes(runs, process, has_volume)
    findings += _lacking(runs, process)
    if process.carried and any(run.n_days > 1 for run in runs):
        intervals = _intervals(runs, process, has_volume)
        overview += _balanced(intervals, process)
        overview += _empty(process)
        sparse = never_in_a_row(
            runs, [q for q in process.carried if process.quantity(q).is_measured]
        )
        findings += [sparse] if sparse else []
        findings += _odd_rates(intervals, process)
        findings += _from_nothing(intervals, process)
        findings += _carbon(intervals, process)
    return Checked(tuple(overview), tuple(findings))


# ------------------------------------------------------------------ readings


def _readings(runs: list[Trajectory], process: Process) -> tuple[list[str], list[str]]:
    overview, findings = [], []
    n_rows = sum(run.n_days for run in runs)
    for q in (q for q in process.quantities if q.is_measured):
        n_read, outside = 0, []
        for run in (run for run in runs if q.name in run.species_names):
            values = run.host_readings((q.name,))[:, 0]
            n_read += int(np.sum(~np.isnan(values)))
            beyond = np.flatnonzero((values < q.lo) | (values > q.hi))
            outside += [
                f"{values[k]:g} in run {run.run_id} at {float(run.times_h[k]):g} h" for k in beyond
            ]
        text = f"{q.name} [{q.unit}]: {n_read} readings, {n_rows - n_read} gaps"
        overview.append(f"{text}, {len(outside)} out of range" if outside else text)
        if n_read == 0:
            findings.append(f"{q.name}: nobody read it in this table.")
        if outside:
            span = f"{q.lo:g} to {q.hi:g} {q.unit}"
            findings.append(f"{q.name}: outside {span}: {_first(outside)}.")
    return overview, findings


def _first(examples: list[str]) -> str:
    more = f"; and {len(examples) - _SHOWN} more" if len(examples) > _SHOWN else ""
    return f"{'; '.join(examples[:_SHOWN])}{more}"


def _lacking(runs: list[Trajectory], process: Process) -> list[str]:
    """What acts on the balance and no run says anything of."""
    acting = [c for c in process.controls if c.role in ("flow", "composition", "bolus")]
    lacking = [c for c in acting if all(c.name not in run.control_names for run in runs)]
    return [
        f"{c.name}: the table has no such column; its default, {c.default:g} {c.unit}, is reckoned "
        "with."
        for c in lacking
    ]


# ------------------------------------------------------------------ volumes


def _total(run: Trajectory, name: str | None) -> np.ndarray:
    """What a stream moved since the sample before [L]; NaN where it was not recorded."""
    if name in STREAM_TOTALS:
        return np.asarray(run.stream_totals)[:, STREAM_TOTALS.index(name)]
    if name in run.auxiliary_names:
        return np.asarray(run.auxiliary)[:, run.auxiliary_names.index(name)]
    return np.full(run.n_days, np.nan)


def _set(run: Trajectory, process: Process, name: str) -> np.ndarray:
    """A control row by row, its default where the table has no such column."""
    if name in run.control_names:
        return np.asarray(run.get_control(name), float)
    return np.full(run.n_days, process.control(name).default)


def _set_flow(run: Trajectory, process: Process, flow: str) -> np.ndarray:
    """What a control of role flow asks for in each interval [L]; NaN where it does not say."""
    if flow not in process.control_names or process.control(flow).role != "flow":
        return np.full(run.n_days - 1, np.nan)
    unit = process.control(flow).unit
    per_hour = float(parse_unit(unit).factor) * 3600.0
    hours = np.diff(np.asarray(run.times_h))
    asked = _set(run, process, flow)[:-1] * per_hour * hours
    if dimensions(unit) == {"time": -1}:
        return asked * (np.asarray(run.volume_L)[:-1] + _given_volume(run, process))
    return asked * 1000.0


def _volumes(runs: list[Trajectory], process: Process, has_volume: bool) -> list[str]:
    findings = []
    for run in runs:
        volume, times = np.asarray(run.volume_L), np.asarray(run.times_h)
        net = _given_volume(run, process)
        for stream in (s for s in process.streams if s is not process.closing):
            recorded = _total(run, stream.total)[1:]
            asked = _set_flow(run, process, stream.flow)
            far = np.abs(recorded - asked) > _TOTAL * np.maximum(asked, 1e-9)
            findings += [
                f"{stream.name}: run {run.run_id}, {times[k]:g} to {times[k + 1]:g} h: "
                f"{stream.total} is {recorded[k]:.4g} L, {stream.flow} asks for {asked[k]:.4g} L."
                for k in np.flatnonzero(far)[:_SHOWN]
            ]
            moved = np.where(np.isnan(recorded), asked, recorded)
            net = net + (moved if stream.direction == "in" else -moved)
        if process.closing is not None:
            sign = 1.0 if process.closing.direction == "out" else -1.0
            short = sign * net < -_VOLUME * volume[:-1]
            findings += [
                f"{process.closing.name}: run {run.run_id}, {times[k]:g} to {times[k + 1]:g} h: "
                f"{abs(net[k]):.4g} L too much moves for it to keep the volume."
                for k in np.flatnonzero(short)[:_SHOWN]
            ]
        if has_volume:
            sampled = np.nan_to_num(_total(run, "V_sample_L")[1:])
            expected = np.zeros_like(net) if process.is_constant_volume else net - sampled
            off = np.diff(volume) - expected
            far = np.abs(off) > _VOLUME * volume[:-1]
            findings += [
                f"volume_L: run {run.run_id}, {times[k]:g} to {times[k + 1]:g} h: goes from "
                f"{volume[k]:.4g} to {volume[k + 1]:.4g} L, {off[k]:+.3g} L beside what flows."
                for k in np.flatnonzero(far)[:_SHOWN]
            ]
    return findings


# ------------------------------------------------------------------ balances


def _intervals(runs: list[Trajectory], process: Process, has_volume: bool) -> Intervals:
    """Rates of all intervals at once: one computation, whatever the lengths of the runs."""
    parts: dict[str, list[np.ndarray]] = {}
    names: list[str] = []
    for run in (run for run in runs if run.n_days > 1):
        names += [run.run_id] * (run.n_days - 1)
        for key, value in _of_run(run, process, has_volume).items():
            parts.setdefault(key, []).append(value)
    x = {key: np.concatenate(values) for key, values in parts.items()}
    pumps = {s.name: jnp.asarray(x.pop(f"pump {s.name}"), float) for s in _pumped(process)}
    rates = _rates(process, {key: jnp.asarray(value, float) for key, value in x.items()}, pumps)
    return Intervals(tuple(names), x["times"], x["start"], x["end"], np.asarray(rates))


def _pumped(process: Process) -> list[Any]:
    targets = [c.name for c in process.controls if c.role == "target"]
    return [s for s in process.streams if s.flow in targets]


def _of_run(run: Trajectory, process: Process, has_volume: bool) -> dict[str, np.ndarray]:
    times = np.asarray(run.times_h, float)
    hours = np.diff(times)
    states = run.host_readings(process.carried).astype(float)
    u = np.empty((run.n_days, len(process.controls)))
    for column, name in enumerate(process.control_names):
        u[:, column] = _set(run, process, name)
    volume = np.asarray(run.volume_L, float)
    if not (has_volume or process.is_constant_volume):
        moved = np.concatenate([[0.0], np.cumsum(_net(run, process))])
        volume = volume[0] + moved
    start, end = states[:-1], states[1:]
    come = _given_volume(run, process)
    before = volume[:-1] + come
    after = before if process.is_constant_volume else volume[1:]
    start = (start * volume[:-1, None] + _boluses(run, process, u)[:-1]) / before[:, None]
    out = {
        "times": np.stack([times[:-1], times[1:]], axis=-1),
        "start": start,
        "end": end,
        "controls": u[:-1],
        "before": before,
        "after": after,
        "hours": hours,
    }
    for stream in _pumped(process):
        out[f"pump {stream.name}"] = _total(run, stream.total)[1:] / hours
    return out


def _net(run: Trajectory, process: Process) -> np.ndarray:
    """By how much the volume moves in each interval by what is set [L]."""
    net = _given_volume(run, process)
    for stream in process.streams:
        asked = _set_flow(run, process, stream.flow)
        net = net + (asked if stream.direction == "in" else -asked)
    return net


def _given_volume(run: Trajectory, process: Process) -> np.ndarray:
    """Volume that boluses bring at the start of each interval [L]."""
    come = np.zeros(run.n_days - 1)
    for control, litres in zip(process.controls, bolus_volumes(process), strict=True):
        if litres > 0.0:
            come = come + litres * _set(run, process, control.name)[:-1]
    return come


def _boluses(run: Trajectory, process: Process, u: np.ndarray) -> np.ndarray:
    """Amount given at each sample `(T,K)` [conc L]; NaN where nobody says how much, or what."""
    given = np.zeros((run.n_days, len(process.carried)))
    for column, control in enumerate(process.controls):
        if control.brings:
            given += u[:, column, None] * bolus_amounts(process, process.carried)[:, column]
            continue
        if control.role != "bolus" or control.quantity not in process.carried:
            continue
        k = process.carried.index(control.quantity)
        unit = parse_unit(process.quantity(control.quantity).unit)
        factor = parse_unit(control.unit).factor
        amount = u[:, column]
        if dimensions(control.unit) == {"length": 3}:
            given[:, k] = np.where(amount == 0.0, given[:, k], np.nan)
        else:
            given[:, k] += amount * float(factor / unit.factor) * 1000.0
    return given


@jax.jit
def _balance(x: dict[str, Any], flows: Any) -> Any:
    return balance_rates(x["start"], x["end"], x["before"], x["after"], flows, x["hours"])


def _rates(process: Process, x: dict[str, Any], pumps: dict[str, Any]) -> Any:
    @jax.jit  # traced, so that a flow nobody can have is a number and no refusal
    def flows(u: Any, volume: Any, pumped: dict[str, Any], cells: Any) -> Any:
        return stream_flows(process, u, volume, pumped, biomass=cells)

    cells = None
    if process.biomass is not None:  # growth between two samples is exponential
        k = process.carried.index(process.biomass)
        cells = jnp.sqrt(jnp.maximum(x["start"][:, k] * x["end"][:, k], 0.0))
    return _balance(x, flows(x["controls"], x["before"], pumps, cells))


def _sigma(process: Process, values: np.ndarray) -> np.ndarray:
    """Deviation of the assays at concentrations `(N,K)`."""
    parts = [process.quantity(name) for name in process.carried]
    cv, floor = np.array([q.cv for q in parts]), np.array([q.floor for q in parts])
    return np.hypot(cv * values, floor)


def _balanced(intervals: Intervals, process: Process) -> list[str]:
    """How many intervals have a rate."""
    n = len(intervals.run)
    counts = np.sum(np.isfinite(intervals.rates), axis=0)
    listed = ", ".join(f"{q} {k}" for q, k in zip(process.carried, counts, strict=True))
    return [f"intervals with a balance, of {n}: {listed}"]


def _empty(process: Process) -> list[str]:
    """Streams that bring nothing, which a file just written leaves open."""
    names = [s.name for s in process.streams if s.direction == "in" and not (s.carries or s.adds)]
    if not names:
        return []
    return [
        f"taken for water, since the process does not say what they bring: {', '.join(names)}. "
        f"Lines below {CONTENT} do."
    ]


def never_in_a_row(runs: Sequence[Trajectory], names: Sequence[str]) -> str:
    """Say what was read twice in a run, and never in two samples that follow each other.

    Whoever assays nitrate in every second sample has no interval with a reading at both ends.

    Args:
        runs: Runs of a campaign.
        names: Quantities looked at.

    Returns:
        The sentence; empty where there is none such.
    """
    found = []
    for name in names:
        seen = [np.isfinite(t.host_readings((name,))[:, 0]) for t in runs]
        is_twice = any(one.sum() > 1 for one in seen)
        if is_twice and not any((one[1:] & one[:-1]).any() for one in seen):
            found.append(name)
    if not found:
        return ""
    return (
        f"{', '.join(found)} was never read in two samples that follow each other, so there is no "
        "rate of it. Models learn from it all the same; for rates, give a table of those samples "
        "alone."
    )


def _odd_rates(intervals: Intervals, process: Process) -> list[str]:
    """Intervals whose specific rate lies far from those of the campaign, and beyond noise."""
    cells: dict[str, np.ndarray] = {}
    for name in process.growers:
        k = process.carried.index(name)
        pair = np.stack([intervals.start[:, k], intervals.end[:, k]])
        cells[name] = np.where(np.all(pair > 0.0, axis=0), pair.mean(axis=0), np.nan)
    everything = np.sum([*cells.values()], axis=0) if cells else np.ones(len(intervals.run))
    hours = np.diff(intervals.times_h, axis=1)[:, 0]
    noise = np.hypot(_sigma(process, intervals.start), _sigma(process, intervals.end))
    findings = []
    for k, name in enumerate(process.carried):
        of, per = process.growers, everything  # a strain grows by itself
        if process.strains and name in cells:
            of, per = (name,), cells[name]
        rates = intervals.rates[:, k] / per
        known = rates[np.isfinite(rates)]
        if known.size < _FEWEST:
            continue
        middle = float(np.median(known))
        spread = _MAD * float(np.median(np.abs(known - middle)))
        by_noise = _NOISE * noise[:, k] / hours / per
        far = np.abs(rates - middle) > np.maximum(_ODD * spread, by_noise)
        rows = np.flatnonzero(far).tolist()
        if rows:
            unit = f"{process.quantity(name).unit}/h"
            if of:
                unit += f" per {process.quantity(of[0]).unit} {' + '.join(of)}"
            listed = _first([f"{rates[row]:.3g} in {intervals.where(row)}" for row in rows])
            findings.append(
                f"{name}: {len(rows)} of {known.size} rates lie beyond {_ODD:g} deviations "
                f"({spread:.2g}) from the middle ({middle:.3g} {unit}): {listed}."
            )
    return findings


def _from_nothing(intervals: Intervals, process: Process) -> list[str]:
    if process.biomass is None:
        return []
    k = process.carried.index(process.biomass)
    floor = process.quantity(process.biomass).floor
    start, end = intervals.start[:, k], intervals.end[:, k]
    noise = _NOISE * _sigma(process, intervals.end)[:, k]
    rows = np.flatnonzero((start <= 0.0) & (end > np.maximum(noise, floor)) & (end > 0.0))
    return [
        f"{process.biomass}: {intervals.where(row)}: cells appear from nothing ({start[row]:g} to "
        f"{end[row]:g} {process.quantity(process.biomass).unit})."
        for row in rows[:_SHOWN].tolist()
    ]


def _carbon(intervals: Intervals, process: Process) -> list[str]:
    """Intervals in which more lactate is made than glucose is gone."""
    both = []
    for name in ("Glc", "Lac"):
        if name not in process.carried:
            return []
        factor = _grams(process, name)
        if factor is None:
            return []
        k = process.carried.index(name)
        hours = np.diff(intervals.times_h, axis=1)[:, 0]
        noise = np.hypot(_sigma(process, intervals.start), _sigma(process, intervals.end))[:, k]
        both.append((factor * intervals.rates[:, k] * hours, factor * noise))
    (glucose, by_glucose), (lactate, by_lactate) = both
    excess = lactate + _LARGEST_YIELD * glucose
    noise = _NOISE * np.hypot(by_lactate, _LARGEST_YIELD * by_glucose)
    with np.errstate(invalid="ignore"):
        rows = np.flatnonzero((excess > noise) & (lactate > 0.0))
    return [
        f"Lac: {intervals.where(row)}: {lactate[row]:.3g} g/L of lactate are made where "
        f"{-glucose[row]:.3g} g/L of glucose go; no more than {_LARGEST_YIELD:g} g/g can be."
        for row in rows[:_SHOWN].tolist()
    ]


def _grams(process: Process, name: str) -> float | None:
    """Grams per litre in one of a quantity's unit; None if its unit is of neither kind."""
    unit = parse_unit(process.quantity(name).unit)
    powers = dict(unit.dimensions)
    if powers == {"length": -3, "mass": 1}:
        return float(unit.factor) / 1000.0
    if powers == {"length": -3, "amount": 1}:
        return float(unit.factor) / 1000.0 * float(MOLAR_MASS[name])
    return None
