"""A campaign as the filter reads it: runs of one length, and the clones they are of."""

import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import STATE_ORDER, DataError
from perfusio_jax.embedding import CloneRegistry
from perfusio_jax.hybrid.runs import RunArrays, run_arrays
from perfusio_jax.hybrid.settings import HybridConfig
from perfusio_jax.states import Trajectory


def stack_runs(
    trajectories: list[Trajectory],
    *,
    length: int | None = None,
    registry: CloneRegistry | None = None,
) -> RunArrays:
    """Runs as the filter reads them, padded to one length.

    Args:
        trajectories: Runs.
        length: Rows; the longest run's by default.
        registry: Clones of the model (`model.embedding.registry`), if it holds several.

    Returns:
        Arrays with a leading run axis.

    Raises:
        ConfigError: If a run's clone is not registered.
    """
    size = max(t.n_days for t in trajectories) if length is None else length
    index = [-1 if registry is None else registry.clone_id(t.clone_id) for t in trajectories]
    arrays = [run_arrays(t, length=size, clone=k) for t, k in zip(trajectories, index, strict=True)]
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *arrays)


def with_lanes(runs: RunArrays, lanes: int | None) -> RunArrays:
    """Empty runs behind the real ones, up to a number."""
    n = runs.mask.shape[0]
    if lanes is None or lanes == n:
        return runs
    if lanes < n:
        raise DataError(f"{n} runs do not fit HybridConfig(lanes={lanes}).")
    copies = jax.tree.map(
        lambda v: jnp.concatenate([v, jnp.repeat(v[:1], lanes - n, axis=0)]), runs
    )
    return copies._replace(
        face=copies.face.at[n:].set(jnp.nan),
        feed_L=copies.feed_L.at[n:].set(jnp.nan),
        mask=copies.mask.at[n:].set(False),
    )


def check_campaign(trajectories: list[Trajectory]) -> None:
    """Refuse a campaign that cannot train a model.

    Args:
        trajectories: Runs.

    Raises:
        DataError: If there are fewer than two runs with two samples, or a species was never
            measured; the message names it.
    """
    usable = [t for t in trajectories if t.n_days >= 2]
    if len(usable) < 2:
        raise DataError(
            f"{len(usable)} run(s) with at least two samples; a hybrid model needs two or more. "
            "With fewer, use the mechanistic model alone (HybridConfig(use_gp=False))."
        )
    for name in STATE_ORDER:
        columns = [
            np.asarray(t.select_species((name,), missing_ok=True))[:, 0] for t in trajectories
        ]
        if not any(np.isfinite(column).any() for column in columns):
            raise DataError(
                f"species '{name}' was not measured in any of the {len(trajectories)} runs; "
                "every state species needs at least some readings."
            )


def filled(face: np.ndarray, times_h: np.ndarray) -> np.ndarray:
    """Gaps bridged linearly in time within a run, by the campaign's median where a run has none."""
    out = face.copy()
    with np.errstate(all="ignore"):
        typical = np.nanmedian(face.reshape(-1, face.shape[-1]), axis=0)
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
