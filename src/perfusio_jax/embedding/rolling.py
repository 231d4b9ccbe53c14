"""Roll-outs of fed-batch runs by a rate process, and how far off they are."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from perfusio_jax._core.programs import compiled
from perfusio_jax.embedding.inputs import EmbeddedInputs
from perfusio_jax.gp import MultiTaskRateGP
from perfusio_jax.simulator import FedBatchRuns


@compiled
def roll_out(
    model: MultiTaskRateGP, runs: FedBatchRuns, start: Float[Array, "runs K"]
) -> Float[Array, "runs samples K"]:
    """Forecast whole runs from their first sample with the mean of the process.

    Args:
        model: Fitted process.
        runs: Set-points, feeds, volumes and product of each run; readings are not used.
        start: First readings.

    Returns:
        Concentrations at every sample, the first being `start`. Negative values are cut at zero.
    """
    nothing = jnp.zeros(runs.product.shape)
    ends = [nothing]
    if isinstance(model.scaling, EmbeddedInputs):
        ends.insert(0, runs.product.astype(nothing.dtype))
    context = jnp.stack(ends, axis=1)

    def step(M: Array, inputs: Any) -> tuple[Array, Array]:
        controls, V, V_next, given, fed, days = inputs
        begun = M + given / V[:, None]
        rates = model.mean(jnp.concatenate([begun, controls, context], axis=1))
        end = ((begun + rates * days[:, None]) * V[:, None] + fed) / V_next[:, None]
        M = jnp.maximum(end, 0.0)
        return M, M

    by_interval = (
        jnp.swapaxes(runs.controls, 0, 1)[:-1],
        runs.volume_after.T[:-1],
        runs.volume_before.T[1:],
        jnp.swapaxes(runs.given, 0, 1)[:-1],
        jnp.swapaxes(runs.fed, 0, 1)[1:],
        jnp.diff(runs.days, axis=1).T,
    )
    _, path = jax.lax.scan(step, start, by_interval)
    return jnp.concatenate([start[:, None], jnp.swapaxes(path, 0, 1)], axis=1)


def relative_error(
    forecast: Float[Array, "runs samples T"], actual: Float[Array, "runs samples T"]
) -> Float[np.ndarray, " T"]:
    """Median relative error per quantity, the first sample left out.

    |error| over the spread of the actual values across runs at each time; median over runs,
    then mean over times.

    Args:
        forecast: Forecast values.
        actual: What happened; NaN where nothing was measured.
    """
    f, a = np.asarray(forecast)[:, 1:], np.asarray(actual)[:, 1:]
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.abs(f - a) / np.nanstd(a, axis=0)[None]
    ratio = np.where(np.isfinite(a) & np.isfinite(ratio), ratio, np.nan)
    return np.nanmean(np.nanmedian(ratio, axis=0), axis=0)
