"""What flowed between the samples of a recorded run, for any process.

Everything is on the host: runs have any length, and nothing here is compiled.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from perfusio_jax._core import STREAM_TOTALS, DataError
from perfusio_jax.states import Trajectory

from .boluses import bolus_amounts, bolus_volumes
from .description import Process
from .flows import asked_flow
from .parts import REST, Stream, is_per_cell, litres_per_hour

PumpLaw = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From the mean of two readings and the target to what a pump gave [L/h per L of the vessel]."""

READ_AS: Mapping[str, tuple[str, ...]] = {"Xv": ("VCD",), "Xd": ("DCD",)}
"""Columns of tables that hold a quantity under another name."""


class RecordedFlows(NamedTuple):
    """Flows of the I intervals between the samples of one run; carried quantities in their order.

    NaN where nobody can tell.
    """

    dt_h: Float[np.ndarray, " I"]
    """Lengths [h]."""
    start_L: Float[np.ndarray, " I"]
    """Volume at the start [L], before anything is given."""
    given_L: Float[np.ndarray, " I"]
    """Volume given at once at the start [L]."""
    end_L: Float[np.ndarray, " I"]
    """Volume at the end [L]."""
    dose: Float[np.ndarray, "I K"]
    """Given at once at the start [unit of the quantity, L]."""
    supply: Float[np.ndarray, "I K"]
    """What enters: sum of flow times concentration [unit of the quantity, L/h]."""
    cleared: Float[np.ndarray, "I K"]
    """Volume cleared of each quantity [L/h]."""
    inflow: Float[np.ndarray, " I"]
    """All that enters [L/h]."""
    medium: Float[np.ndarray, " I"]
    """What enters by set flows, pumps that hold a target apart [L/h]."""
    unexplained_L: Float[np.ndarray, " I"]
    """Change of the recorded volume that the flows do not explain [L], as by samples nobody wrote
    down; NaN where a stream keeps the volume or no change of it was recorded."""
    is_recorded: Bool[np.ndarray, " I"]
    """Whether totals of all set streams were recorded; else set-points or a pump law stand in."""


def column_of(run: Trajectory, name: str) -> Float[np.ndarray, " T"]:
    """Readings of a quantity by its own name or one tables have for it; NaN where there is none.

    The limit of an assay is no reading.

    Args:
        run: The run.
        name: Of the quantity, as its process has it; `READ_AS` has the other names.

    Returns:
        One value per sample, in the unit of the column.
    """
    for known in (name, *READ_AS.get(name, ())):
        if known in run.species_names:
            return run.host_readings((known,))[:, 0].astype(float)
    return np.full(run.n_days, np.nan)


def recorded_flows(
    process: Process, run: Trajectory, pumps: Mapping[str, PumpLaw] | None = None
) -> RecordedFlows:
    """Flows between the samples of a run.

    A recorded total is believed; where there is none the set-point stands in, and for a stream that
    holds a target the law in `pumps`. Sampled broth that was recorded leaves as it is. The closing
    stream takes the rest.

    Args:
        process: The culture.
        run: The run; set-points of a row act until the next.
        pumps: Law of each stream that holds a target, by name of the stream; without one, and
            without totals, what it brings is unknown, and so are the rates.

    Raises:
        DataError: If there are fewer than two samples, or a control has no column.
    """
    times = np.asarray(run.times_h, float)
    if times.size < 2:
        raise DataError(
            f"run '{run.run_id}' has {times.size} sample(s); what flowed between two needs two."
        )
    absent = [n for n in process.control_names if n not in run.control_names]
    if absent:
        raise DataError(
            f"run '{run.run_id}' lacks the controls {', '.join(absent)}; its own are "
            f"{', '.join(run.control_names) or 'none'}."
        )
    dt = np.diff(times)
    table = np.asarray(run.controls, float)[:-1]
    set_to = {n: table[:, run.control_names.index(n)] for n in process.control_names}
    recorded = np.asarray(run.volume_L, float)
    totals = np.asarray(run.stream_totals, float)[1:]
    moves = bool(np.ptp(recorded) > 0.0)
    drawn = np.nan_to_num(totals[:, STREAM_TOTALS.index("V_sample_L")]) / dt
    closing, start = process.closing, recorded[:-1]
    come = np.zeros(dt.size)
    for control, litres in zip(process.controls, bolus_volumes(process), strict=True):
        if litres > 0.0:
            come = come + litres * set_to[control.name]
    # a volume that was recorded but once follows from the flows, and some flows follow from it
    for _ in range(1 if moves or closing is not None else dt.size):
        flow, is_told, ways = _set_flows(process, run, set_to, start + come, pumps or {})
        net = ways["in"] - ways["out"] - drawn
        before = start
        if not moves and closing is None:
            start = recorded[0] + np.append(0.0, np.cumsum(come + net * dt))[:-1]
        if np.array_equal(before, start, equal_nan=True):
            break
    unexplained = np.full(dt.size, np.nan)
    if closing is not None:  # what the others leave, less what stays in the vessel
        rest = net - np.diff(recorded) / dt
        flow[closing.name] = rest if closing.direction == "out" else -rest
        ways[closing.direction] = ways[closing.direction] + flow[closing.name]
    elif moves:
        unexplained = np.diff(recorded) - come - net * dt
    # what is gone beyond that was drawn as it is, which changes no concentration
    end = recorded[1:] if closing is not None else start + come + net * dt
    start, end = (np.where(v > 0.0, v, np.nan) for v in (start, end))
    place = {name: k for k, name in enumerate(process.carried)}
    supply, cleared = (np.zeros((dt.size, len(place))) for _ in range(2))
    for stream in process.streams:
        rate = flow[stream.name]
        for name, k in place.items():
            if stream.direction == "out":
                cleared[:, k] += rate * stream.passes.get(name, 1.0)
            else:
                supply[:, k] += _brought(stream, name, rate, set_to)
    cleared += drawn[:, None]
    doses = bolus_amounts(process, process.carried)
    given = np.zeros((dt.size, len(place)))
    for j, control in enumerate(process.controls):
        if control.role == "bolus":
            for k in np.flatnonzero(doses[:, j]):
                given[:, k] += set_to[control.name] * doses[k, j]
    pumped = {c.name for c in process.controls if c.role == "target"}
    medium = sum(
        (flow[s.name] for s in process.streams if s.direction == "in" and s.flow not in pumped),
        np.zeros(dt.size),
    )
    return RecordedFlows(
        dt, start, come, end, given, supply, cleared, ways["in"], medium, unexplained, is_told
    )


def _set_flows(
    process: Process,
    run: Trajectory,
    set_to: Mapping[str, np.ndarray],
    volume_L: np.ndarray,
    pumps: Mapping[str, PumpLaw],
) -> tuple[dict[str, np.ndarray], np.ndarray, dict[str, np.ndarray]]:
    """Flow of each stream but the closing one, where all were recorded, and their sums [L/h]."""
    n = volume_L.size
    flow, is_told = {}, np.ones(n, bool)
    ways = {"in": np.zeros(n), "out": np.zeros(n)}
    for stream in process.streams:
        if stream.flow != REST:
            found, told = _flow(process, stream, run, set_to, volume_L, pumps)
            flow[stream.name] = found
            is_told &= told
            ways[stream.direction] = ways[stream.direction] + found
    return flow, is_told, ways


def _flow(
    process: Process,
    stream: Stream,
    run: Trajectory,
    set_to: Mapping[str, np.ndarray],
    volume_L: np.ndarray,
    pumps: Mapping[str, PumpLaw],
) -> tuple[np.ndarray, np.ndarray]:
    """Flow of one stream [L/h], and where it was recorded."""
    control = process.control(stream.flow)
    if control.role == "flow" and is_per_cell(control.unit):
        seen = column_of(run, process.biomass or "")
        cells = np.sqrt(np.maximum(seen[:-1] * seen[1:], 0.0))
        found = asked_flow(process, control, set_to[control.name], volume_L, cells)  # pyright: ignore
    elif control.role == "flow":
        unit = control.unit
        found = litres_per_hour(set_to[control.name], volume_L, unit, control.name)  # pyright: ignore
    elif stream.name in pumps and control.quantity is not None:
        seen = column_of(run, control.quantity)
        pair = np.stack([seen[:-1], seen[1:]])
        n = np.isfinite(pair).sum(axis=0)
        mean = np.where(n > 0, np.nan_to_num(pair).sum(axis=0) / np.maximum(n, 1), np.nan)
        found = pumps[stream.name](mean, set_to[control.name]) * volume_L
    else:
        found = np.full(volume_L.size, np.nan)
    if stream.total not in STREAM_TOTALS:
        return np.asarray(found, float), np.zeros(volume_L.size, bool)
    counted = np.asarray(run.stream_totals, float)[1:, STREAM_TOTALS.index(stream.total)]
    is_told = np.isfinite(counted)
    return np.where(is_told, counted / np.diff(np.asarray(run.times_h, float)), found), is_told


def _brought(
    stream: Stream, name: str, rate: np.ndarray, set_to: Mapping[str, np.ndarray]
) -> np.ndarray:
    """What a stream brings of one quantity; none of it where the stream does not carry it."""
    content = stream.carries.get(name, 0.0)
    value = set_to[content] if isinstance(content, str) else np.full(rate.size, content)
    if name in stream.adds:
        value = value + set_to[stream.adds[name]]
    if not stream.adds.get(name) and content == 0.0:
        return np.zeros(rate.size)
    return rate * value
