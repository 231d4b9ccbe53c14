"""What the model would read: before the data, and after them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from perfusio_jax._core import Key
from perfusio_jax._core.programs import compiled
from perfusio_jax._core.progress import compiling
from perfusio_jax.study.calibration.problem import Problem
from perfusio_jax.study.identifiability.fitting import columns_of, recorded_run
from perfusio_jax.study.identifiability.records import Records, assay_sd

LEVELS = (0.025, 0.1, 0.5, 0.9, 0.975)
"""Quantiles of a check."""
_ROWS = 256
"""Runs that are simulated at once."""
_LEAST = 8
"""Readings below which a share of them says nothing."""


class Check(NamedTuple):
    """What would be read, and where the readings lie in it."""

    columns: tuple[str, ...]
    """Names of what is read."""
    quantiles: Float[np.ndarray, "5 R T+1 A"]
    """Of readings, at `LEVELS`; noise of the assays included."""
    place: Float[np.ndarray, "R T+1 A"]
    """Share of replicates below each reading [-]; NaN where nobody read. Of a limit, the share
    beyond it."""
    inside: dict[float, Float[np.ndarray, " A"]]
    """Share of the readings inside the central 80 and 95 % intervals, by column [-]."""
    n_read: np.ndarray
    """Readings of each column."""
    n_lost: int
    """Replicates that could not be simulated."""
    n_draws: int
    """Draws that were replicated."""

    def lines(self) -> list[str]:
        """Columns whose intervals hold too few of the readings, in words."""
        said = []
        for k, name in enumerate(self.columns):
            n, share = int(self.n_read[k]), self.inside[0.95][k]
            # as few inside by chance, were 95 % right, less than once in a thousand
            if n >= _LEAST and share < 0.95 - 3.1 * np.sqrt(0.95 * 0.05 / n):
                said.append(
                    f"{name}: of {n} readings {100 * share:.0f} % lie in the interval that should "
                    "hold 95 %"
                )
        return said


def predictive_check(problem: Problem, u: Float[np.ndarray, "N D"], *, key: Key) -> Check:
    """Replicate the recorded runs with draws of everything unknown.

    Args:
        problem: What is asked.
        u: Draws, of the posterior or, standard normal, of the prior.
        key: Random key of the noise.

    Returns:
        Quantiles of what would be read, and where the readings lie in them.
    """
    runs = problem.records.start.shape[0]
    n = u.shape[0]
    per_call = max(1, _ROWS // runs)
    padded = np.concatenate([u, np.repeat(u[-1:], -n % per_call, axis=0)])
    shown, spread = [], []
    for rows in padded.reshape(-1, per_call, u.shape[1]):
        values, sd = _shown(problem, jnp.asarray(rows))
        shown.append(np.asarray(values))
        spread.append(np.asarray(sd))
    values, sd = (np.concatenate(v)[:n] for v in (shown, spread))
    noise = np.asarray(jax.random.normal(key, values.shape))
    assays = problem.experiment.assays
    names = tuple(a.column for a in assays)
    lowest = np.array([-np.inf if a.is_signed else 0.0 for a in assays])
    highest = np.array([100.0 if a.is_viability else np.inf for a in assays])
    replicates = np.clip(values + sd * noise, lowest, highest)
    read = np.asarray(problem.records.readings)
    limits = np.asarray(problem.records.limits)
    is_read = np.isfinite(read)
    asked = is_read | np.isfinite(limits).any(axis=-1)
    lost = ~np.all(np.isfinite(values) | ~asked[None], axis=(1, 2, 3))
    replicates = replicates[~lost]
    if not len(replicates):
        nothing = np.full((len(LEVELS), *read.shape), np.nan)
        empty = {level: np.full(read.shape[-1], np.nan) for level in (0.8, 0.95)}
        return Check(names, nothing, nothing[0], empty, is_read.sum(axis=(0, 1)), n, n)
    quantiles = np.quantile(replicates, LEVELS, axis=0)
    place = np.mean(replicates < read[None], axis=0)
    place = np.where(is_read, place, np.nan)
    below, above = limits[..., 0], limits[..., 1]
    place = np.where(np.isfinite(below), np.mean(replicates < below, axis=0), place)
    place = np.where(np.isfinite(above), np.mean(replicates > above, axis=0), place)
    count = is_read.sum(axis=(0, 1))
    inside = {}
    for level, (low, high) in ((0.8, (1, 3)), (0.95, (0, 4))):
        held = is_read & (quantiles[low] <= read) & (read <= quantiles[high])
        inside[level] = np.where(count > 0, held.sum(axis=(0, 1)) / np.maximum(count, 1), np.nan)
    return Check(names, quantiles, place, inside, count, int(lost.sum()), n)


@compiled
def _shown(problem: Problem, u: Float[Array, "N D"]) -> tuple[Array, Array]:
    """What would be read without noise, and the deviations of that `(N,R,T+1,A)`."""
    compiling("what the model would read")
    experiment, p = problem.experiment, len(problem.levers)
    parts = jax.vmap(problem.unflat)(u)
    theta = jax.vmap(problem.by_run)(parts)
    factor = jax.vmap(problem.log_factors)(parts)
    n, runs = theta.shape[:2]

    def built(one: Records, row: Array) -> object:
        at = (row[:p], row[p:])
        return recorded_run(experiment, one, problem.levers, problem.laws, at)

    many = jax.vmap(lambda rows: jax.vmap(built)(problem.records, rows))(theta)
    flat = jax.tree.map(lambda v: v.reshape(n * runs, *v.shape[2:]), many)
    values = flat.side_by_side().values[..., columns_of(experiment)]
    values = values.reshape(n, runs, *values.shape[1:])
    known = jnp.where(jnp.isfinite(values), jnp.maximum(values, 0.0), 1.0)
    sd = assay_sd(experiment.assays, known) * jnp.exp(factor)[:, None, None, :]
    return values, sd
