"""Scaling of inputs inside the model: the caller speaks in units, the kernel in spreads."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from perfusio_jax._core import ConfigError


class InputScaling(eqx.Module):
    """Shift and scale per column, optionally after a shifted logarithm.

    A concentration's effect goes with its order of magnitude, so state columns may be
    taken as `log(x + offset)`; the offset keeps zero finite.
    """

    shift: Float[Array, " D"]
    """Subtracted after the logarithm, unit of the column or its logarithm."""
    scale: Float[Array, " D"]
    """Divisor, same unit, above zero."""
    offset: Float[Array, " D"]
    """Added before the logarithm, unit of the column; unused in linear columns."""
    is_log: Bool[Array, " D"]
    """Columns that are taken as logarithms."""

    def __call__(self, inputs: Float[Array, "... D"]) -> Float[Array, "... D"]:
        """Scale inputs.

        Args:
            inputs: Raw inputs.

        Returns:
            Dimensionless inputs of about unit spread over the training data.
        """
        wide = (1,) * (inputs.ndim - 1) + (-1,)
        is_log, offset = self.is_log.reshape(wide), self.offset.reshape(wide)
        # both branches are evaluated: keep the argument of the logarithm legal in either
        legal = jnp.where(is_log, jnp.maximum(inputs + offset, 1e-12), 1.0)
        value = jnp.where(is_log, jnp.log(legal), inputs)
        return (value - self.shift.reshape(wide)) / self.scale.reshape(wide)


def fit_scaling(
    inputs: Float[ArrayLike, "N D"],
    *,
    log_columns: tuple[int, ...] = (),
    day_column: int | None = None,
    day_scale: float = 14.0,
    offset_share: float = 0.1,
) -> InputScaling:
    """Choose shift and scale from data.

    Args:
        inputs: Raw training inputs, finite.
        log_columns: Non-negative columns to take as logarithms.
        day_column: Column that is only divided by `day_scale`, so that day 0 stays 0.
        day_scale: Divisor of that column [d].
        offset_share: Offset of a logarithm over the column's median [-]; below it the map is
            close to linear.

    Returns:
        The scaling; a constant column is shifted to zero and divided by one.
    """
    x = np.asarray(inputs, float)
    width = x.shape[1]
    is_log = np.zeros(width, bool)
    is_log[list(log_columns)] = True
    offset = np.zeros(width)
    for column in log_columns:
        level = np.median(np.abs(x[:, column]))
        top = np.max(np.abs(x[:, column]))
        offset[column] = max(offset_share * level, 0.01 * top, 1e-6)
    value = np.where(is_log[None, :], np.log(np.maximum(x + offset[None, :], 1e-12)), x)
    shift, scale = value.mean(axis=0), value.std(axis=0)
    scale = np.where(scale > 1e-9 * np.maximum(np.abs(shift), 1e-9), scale, 1.0)
    if day_column is not None:
        shift[day_column], scale[day_column] = 0.0, day_scale
    return InputScaling(
        shift=jnp.asarray(shift),
        scale=jnp.asarray(scale),
        offset=jnp.asarray(offset),
        is_log=jnp.asarray(is_log),
    )


def feature_count(scaling: Any, n_columns: int) -> int:
    """Columns of the features a map gives.

    Args:
        scaling: Feature map.
        n_columns: Columns of the raw inputs.

    Returns:
        Number of features, the day included.

    Raises:
        ConfigError: If the map does not turn rows into rows.
    """
    probe = jax.ShapeDtypeStruct((2, n_columns), jnp.zeros(()).dtype)
    shape = eqx.filter_eval_shape(scaling, probe).shape
    if len(shape) != 2 or shape[0] != 2 or shape[1] < 2:
        raise ConfigError(
            f"the feature map turns inputs of shape (2, {n_columns}) into {shape}; it must give "
            "(2, D): one row of at least two features per input, the day last."
        )
    return int(shape[1])
