"""Recorded runs of fed-batches as a transfer study reads them: arrays of one length, by product."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import HOURS_PER_DAY, STREAM_TOTALS, ConfigError, DataError
from perfusio_jax.process import Process, column_of, recorded_flows
from perfusio_jax.simulator import FedBatchRuns
from perfusio_jax.states import Trajectory

_FEWEST = 2


def studied(trajectories: Sequence[Trajectory], process: Process) -> tuple[str, ...]:
    """What a study follows: carried quantities that somebody read.

    Args:
        trajectories: Runs.
        process: Their culture.

    Raises:
        ConfigError: If something leaves the vessel between samples, or a pump holds a target.
        DataError: If nothing that is carried was ever read.
    """
    leaving = [s.name for s in process.streams if s.direction == "out"]
    if leaving:
        raise ConfigError(
            f"{process.name} has {', '.join(leaving)}, which leaves the vessel; a transfer study "
            "is of batches and fed-batches. Cell lines in perfusion are told apart by `fit`."
        )
    pumps = [c.name for c in process.controls if c.role == "target"]
    driven = [s.name for s in process.streams if s.flow in pumps]
    if driven:
        raise ConfigError(
            f"stream {driven[0]} of {process.name} answers to a target, and nobody says how much "
            "that is; give the stream a control of role flow with what was fed."
        )
    names = tuple(
        name
        for name in process.carried
        if any(np.isfinite(column_of(run, name)).any() for run in trajectories)
    )
    if not names:
        raise DataError(
            f"nothing that {process.name} carries was read in any of the {len(trajectories)} runs; "
            f"carried are {', '.join(process.carried) or 'none'}."
        )
    return names


def fed_batch_runs(
    trajectories: Sequence[Trajectory],
    process: Process,
    *,
    species: Sequence[str],
    products: Sequence[str],
    n_samples: int | None = None,
) -> FedBatchRuns:
    """Runs as arrays.

    What is fed between two samples is what the streams bring by their set-points and recorded
    totals; a bolus is given right after its sample. Where the volume is recorded, what it falls by
    beyond that was drawn with the sample, and what it rises by came with the feed.

    Args:
        trajectories: Runs with every set-point.
        process: Their culture.
        species: What is followed, in the order of the arrays; see `studied`.
        products: Cell lines by index.
        n_samples: Samples to pad to; those of the longest run by default.

    Returns:
        The runs. Shorter ones go on without readings, feeds or samples.

    Raises:
        DataError: If a run has one sample, lacks a control or its flows, more is taken out of it
            than is in it, or it does not fit.
    """
    length = max(run.n_days for run in trajectories) if n_samples is None else n_samples
    parts = [_one(run, process, species, length) for run in trajectories]
    columns = (jnp.asarray(np.stack(values)) for values in zip(*parts, strict=True))
    readings, controls, fed, given, before, after, days = columns
    return FedBatchRuns(
        measured=readings,
        truth=readings,
        controls=controls,
        fed=fed,
        given=given,
        volume_before=before,
        volume_after=after,
        days=days,
        product=jnp.asarray([list(products).index(run.clone_id) for run in trajectories]),
    )


def _one(
    run: Trajectory, process: Process, species: Sequence[str], length: int
) -> tuple[np.ndarray, ...]:
    if run.n_days < _FEWEST:
        raise DataError(f"run '{run.run_id}' has one sample; a rate needs two.")
    if run.n_days > length:
        raise DataError(f"run '{run.run_id}' has {run.n_days} samples; there is room for {length}.")
    flows = recorded_flows(process, run)
    at = [process.carried.index(name) for name in species]
    held = [k for k, c in enumerate(process.controls) if c.role == "environment"]
    table = np.asarray(run.controls, float)
    columns = [run.control_names.index(process.controls[k].name) for k in held]
    before, after = _volumes(run, flows.start_L, flows.inflow * flows.dt_h, flows.unexplained_L)
    nothing = np.zeros((1, len(species)))
    fed = np.concatenate([nothing, (flows.supply * flows.dt_h[:, None])[:, at]])
    given = np.concatenate([flows.dose[:, at], nothing])
    if not (np.isfinite(fed).all() and np.isfinite(before).all()):
        raise DataError(
            f"run '{run.run_id}': what was fed or the volume is not known in every interval; the "
            "set-points of its streams say it, and volume_L."
        )
    readings = np.stack([column_of(run, name) for name in species], axis=1)
    days = np.asarray(run.times_h, float) / HOURS_PER_DAY
    room = length - run.n_days

    def longer(values: np.ndarray, last: float | None = None) -> np.ndarray:
        tail = np.repeat(values[-1:], room, axis=0)
        return np.concatenate([values, tail if last is None else np.full_like(tail, last)])

    return (
        longer(readings, np.nan),
        longer(table[:, columns]),
        longer(fed, 0.0),
        longer(given, 0.0),
        np.concatenate([before, np.full(room, after[-1])]),
        longer(after),
        np.concatenate([days, days[-1] + 1.0 + np.arange(room)]),
    )


def _volumes(
    run: Trajectory, start: np.ndarray, inflow: np.ndarray, unexplained: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Volume before and after each sample is taken [L]."""
    totals = np.asarray(run.stream_totals, float)[1:]
    drawn = np.nan_to_num(totals[:, STREAM_TOTALS.index("V_sample_L")])
    recorded = np.asarray(run.volume_L, float)
    if np.isfinite(unexplained).any():
        before = recorded
        drawn = drawn - np.minimum(np.nan_to_num(unexplained), 0.0)
    else:  # nobody recorded it: it follows from what flowed
        before = np.append(start, start[-1] + inflow[-1] - drawn[-1])
    after = np.append(before[:-1] - drawn, before[-1])
    short = np.flatnonzero(~(after > 0.0))
    if short.size:
        raise DataError(
            f"run '{run.run_id}': {drawn[short[0]]:.4g} L are taken at "
            f"{float(run.times_h[short[0]]):g} h, where there are {before[short[0]]:.4g} L."
        )
    return before, after
