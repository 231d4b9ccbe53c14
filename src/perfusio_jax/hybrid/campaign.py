"""A campaign as the filter reads it: runs of one length, and the clones they are of."""

import warnings

import jax
import numpy as np
from jaxtyping import ArrayLike

from perfusio_jax._core import DataError
from perfusio_jax.embedding import CloneRegistry
from perfusio_jax.hybrid.layout import CHO, Layout
from perfusio_jax.hybrid.runs import RunArrays, run_arrays
from perfusio_jax.hybrid.settings import HybridConfig
from perfusio_jax.process import Process
from perfusio_jax.states import Trajectory, on_grid, usual_step_h

_WAY_OUT = " What nobody reads has is_measured = false in the process."


def stack_runs(
    trajectories: list[Trajectory],
    *,
    length: int | None = None,
    registry: CloneRegistry | None = None,
    layout: Layout = CHO,
) -> RunArrays:
    """Runs as the filter reads them, padded to one length.

    Args:
        trajectories: Runs.
        length: Rows; the longest run's by default.
        registry: Clones of the model (`model.embedding.registry`), if it holds several.
        layout: Columns (`model.layout`); those of CHO perfusion by default.

    Returns:
        Arrays with a leading run axis.

    Raises:
        ConfigError: If a run's clone is not registered.
    """
    size = max(t.n_days for t in trajectories) if length is None else length
    index = [-1 if registry is None else registry.clone_id(t.clone_id) for t in trajectories]
    arrays = [
        run_arrays(t, length=size, clone=k, layout=layout)
        for t, k in zip(trajectories, index, strict=True)
    ]
    if any(run.limits is not None for run in arrays):
        none = np.full((*arrays[0].face.shape, 2), np.nan)
        arrays = [r if r.limits is not None else r._replace(limits=none) for r in arrays]
    return jax.device_put(jax.tree.map(lambda *leaves: np.stack(leaves), *arrays))


def with_lanes(runs: RunArrays, lanes: int | None) -> RunArrays:
    """Empty runs behind the real ones, up to a number."""
    n = runs.mask.shape[0]
    if lanes is None or lanes == n:
        return runs
    if lanes < n:
        raise DataError(f"{n} runs do not fit HybridConfig(lanes={lanes}).")

    def with_copies(leaf: ArrayLike) -> np.ndarray:
        leaf = np.asarray(leaf)
        return np.concatenate([leaf, np.repeat(leaf[:1], lanes - n, axis=0)])

    # on the host: one eager operation each would cost a compile
    copies = jax.tree.map(with_copies, runs)
    copies.face[n:], copies.feed_L[n:], copies.mask[n:] = np.nan, np.nan, False
    if copies.limits is not None:
        copies.limits[n:] = np.nan
    return jax.device_put(copies)


def check_campaign(trajectories: list[Trajectory], layout: Layout = CHO) -> None:
    """Refuse a campaign that cannot train a model.

    Args:
        trajectories: Runs.
        layout: Columns.

    Raises:
        DataError: If there are fewer than two runs with two samples, or something that is to be
            measured never was; the message names it.
    """
    usable = [t for t in trajectories if t.n_days >= 2]
    if len(usable) < 2:
        way_out = "With fewer, use the mechanistic model alone (HybridConfig(use_gp=False))."
        raise DataError(
            f"{len(usable)} run(s) with at least two samples{too_short(trajectories)}; a hybrid "
            f"model needs two or more. {way_out if layout.is_cho else 'Make another run first.'}"
        )
    never = [
        name
        for k, name in enumerate(layout.face)
        if k not in layout.latent and name in unmeasured(trajectories, layout)
    ]
    if never:
        raise DataError(
            f"{', '.join(never)} was not measured in any of the {len(trajectories)} runs; what is "
            f"modelled needs at least some readings.{'' if layout.is_cho else _WAY_OUT}"
        )


def too_short(trajectories: list[Trajectory]) -> str:
    """Which runs have a single sample, in brackets; empty if none has."""
    names = [t.run_id for t in trajectories if t.n_days < 2]
    return f" (one or none: {', '.join(names)})" if names else ""


def in_steps(
    trajectories: list[Trajectory], process: Process, step_h: float | None = None
) -> list[Trajectory]:
    """A campaign of a described culture in steps of about one length.

    Args:
        trajectories: Its runs.
        process: The culture.
        step_h: Length of a step [h]; that of most intervals by default. Who has cut a campaign
            and hands on a part of it says the length: most intervals of what is cut are shorter,
            and it would be cut again.
    """
    step_h = usual_step_h(trajectories) if step_h is None else step_h
    return [on_grid(run, step_h, once=process.boluses) for run in trajectories]


def unmeasured(trajectories: list[Trajectory], layout: Layout = CHO) -> tuple[str, ...]:
    """Columns of the face without a single reading in a campaign."""
    seen = np.zeros(layout.n, bool)
    for t in trajectories:
        seen |= np.isfinite(t.host_species(layout.face, missing_ok=True)).any(axis=0)
    return tuple(name for name, is_seen in zip(layout.face, seen, strict=True) if not is_seen)


def filled(face: np.ndarray, times_h: np.ndarray, default: np.ndarray | None = None) -> np.ndarray:
    """Gaps bridged linearly in time within a run, by the campaign's median where a run has none.

    Args:
        face: Samples (R, T, K).
        times_h: Their times (R, T) [h].
        default: What stands in for a column nobody read in any run (K,).
    """
    out = face.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a column that nobody read
        typical = np.nanmedian(face.reshape(-1, face.shape[-1]), axis=0)
    if default is not None:
        typical = np.where(np.isfinite(typical), typical, default)
    for run, times in zip(out, times_h, strict=True):
        for k in range(run.shape[1]):
            seen = np.isfinite(run[:, k])
            run[:, k] = np.interp(times, times[seen], run[seen, k]) if seen.any() else typical[k]
    return out


def clones_of(trajectories: list[Trajectory], config: HybridConfig) -> CloneRegistry | None:
    """Clones of a campaign; None if there is one, or if they are not to be told apart."""
    names = tuple(dict.fromkeys(t.clone_id for t in trajectories))
    if len(names) < 2 or config.embedding_dim == 0:
        return None
    return CloneRegistry.from_names(names)
