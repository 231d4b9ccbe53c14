"""What a fitted process leaves open: errors of left-out runs, and the noise read off them."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from perfusio_jax._core import DataError
from perfusio_jax._core.programs import compiled
from perfusio_jax.embedding import CloneRegistry
from perfusio_jax.gp import KroneckerPosterior, MultiTaskRateGP
from perfusio_jax.hybrid.smoothing import Smoothed

_SHRINK_RUNS = 0.5
"""Runs that the clones' common spread counts as when a clone's own is estimated [-]."""


def leave_run_out(
    gp: MultiTaskRateGP, run_of_row: np.ndarray
) -> tuple[Float[np.ndarray, "N T"], Float[np.ndarray, "N T"]]:
    """Prediction errors of each run's targets by the process without that run.

    The hyper-parameters stay, so this costs one small solve per run and species and no
    further fit. Rows of one run resemble each other; leaving out single rows would flatter.

    Args:
        gp: Conditioned process on complete rows.
        run_of_row: Run number of each row that holds data.

    Returns:
        Errors and predicted variances with noise, both in target unit.

    Reference:
        Rasmussen and Williams (2006), section 5.4.2, for blocks instead of single points.
    """
    solved = None if gp.state is None else gp.state.solved
    if not isinstance(solved, KroneckerPosterior) or gp.data.shared is not None:
        raise DataError(
            "leave-run-out errors need a conditioned process on complete targets whose rows do not "
            "share samples."
        )
    vectors, values = np.asarray(solved.vectors), np.asarray(solved.values)
    rows = np.flatnonzero(np.asarray(gp.data.row_present))
    row_sd, task_sd = np.asarray(solved.row_sd), np.asarray(solved.task_sd)
    turn = np.asarray(solved.task_vectors)
    targets = np.asarray(gp.data.targets) / np.asarray(gp.target_scale)[None, :]
    white = targets / row_sd[:, None] / task_sd[None, :] @ turn
    spectrum = values[:, None] * np.asarray(solved.task_values)[None, :] + 1.0
    weights = vectors @ ((vectors.T @ white) / spectrum)
    n = gp.n_tasks
    error, variance = np.zeros((rows.size, n)), np.zeros((rows.size, n))
    for run in np.unique(run_of_row):
        inside = np.flatnonzero(run_of_row == run)
        part = vectors[rows[inside]]
        apart, spread = np.zeros((inside.size, n)), np.zeros((inside.size, n))
        for j in range(n):
            block = np.linalg.inv((part / spectrum[:, j][None, :]) @ part.T)
            apart[:, j] = block @ weights[rows[inside], j]
            spread[:, j] = np.diagonal(block)
        error[inside] = apart @ turn.T
        variance[inside] = spread @ (turn.T**2)
    unit = task_sd * np.asarray(gp.target_scale)
    scale = row_sd[rows][:, None] * unit[None, :]
    return error * scale, variance * scale**2


@compiled
def _function_sd(gp: MultiTaskRateGP) -> Array:
    """Root mean square posterior spread of the function over the training inputs."""
    rows = gp.data.row_present.astype(float)
    _, covariance = gp.posterior(gp.data.inputs)
    variance = jnp.diagonal(covariance, axis1=1, axis2=2)
    mean = jnp.sum(variance * rows[:, None], axis=0) / jnp.sum(rows)
    return jnp.sqrt(jnp.maximum(mean, 0.0))


class Spreads(NamedTuple):
    """Standard deviations that process and function leave open [residual units]."""

    process: np.ndarray
    """Process noise (9,)."""
    function: np.ndarray
    """Of the function in a run nobody has seen (9,)."""
    by_clone: np.ndarray | None
    """Process noise of each clone (K, 9)."""


def spreads_of(gp: MultiTaskRateGP, data: Smoothed, registry: CloneRegistry | None) -> Spreads:
    """Process noise, and what more a run nobody has seen must be granted.

    An unseen run's error persists from day to day, while the filter adds it as if it were
    fresh each day. The white noise of equal long-run variance is larger by
    `(1 + a) / (1 - a)`, with `a` the day-to-day correlation of the leave-run-out errors.
    """
    steps = np.asarray(data.steps)
    run_of_row = np.broadcast_to(np.arange(steps.shape[0])[:, None], steps.shape)[steps]
    error, predicted = leave_run_out(gp, run_of_row)
    process = gp_noise_sd(gp)
    unseen = np.maximum(np.mean(error**2, axis=0) - process**2, np.asarray(_function_sd(gp)) ** 2)
    inside = run_of_row[1:] == run_of_row[:-1]
    lagged = np.mean((error[1:] * error[:-1])[inside], axis=0) / np.mean(error**2, axis=0)
    persistence = np.clip(np.nan_to_num(lagged), 0.0, 0.7)
    function = np.sqrt(unseen * (1.0 + persistence) / (1.0 - persistence))
    if registry is None:
        return Spreads(process, function, None)
    # a clone with few runs among clones with many: its own left-out runs say how sure to be
    clone = np.asarray(data.inputs)[..., -2][steps].round().astype(int)
    more = np.zeros((registry.n_clones, gp.n_tasks))
    for k in np.unique(clone):
        mine = clone == k
        n_runs = np.unique(run_of_row[mine]).size
        missed = np.mean(error[mine] ** 2 - predicted[mine], axis=0)
        more[k] = np.maximum(missed, 0.0) * n_runs / (n_runs + _SHRINK_RUNS)
    return Spreads(process, function, np.sqrt(process[None, :] ** 2 + more))


def gp_noise_sd(gp: MultiTaskRateGP) -> np.ndarray:
    """The process's own noise per species [residual units]."""
    total = np.asarray(gp.likelihood.variance(gp.n_tasks)) * np.asarray(gp.target_scale) ** 2
    return np.sqrt(total)
