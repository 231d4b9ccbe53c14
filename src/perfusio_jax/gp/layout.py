"""Two ways to write multi-output data: one row per sample, or one row per sample and task.

Inside the package a table of inputs is `[c, u, embedding, day]` with one column of targets
per task. The seed's form repeats each input for every task and adds the task index as last
column.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from perfusio_jax._core import DataError, on_device
from perfusio_jax.gp.noise import SharedSamples, padded


def to_indexed(
    inputs: Float[ArrayLike, "N D"], targets: Float[ArrayLike, "N T"]
) -> tuple[Float[Array, "M D1"], Float[Array, " M"]]:
    """Unroll a table of samples into one row per present target.

    Args:
        inputs: `[c, u, embedding, day]`, any units.
        targets: One column per task; NaN where missing.

    Returns:
        Rows with the task index as last column, and their targets; missing ones left out.

    Raises:
        DataError: If the shapes do not belong together.
    """
    x, y = np.asarray(inputs, float), np.asarray(targets, float)
    if x.ndim != 2 or y.ndim != 2 or x.shape[0] != y.shape[0]:
        raise DataError(
            f"inputs of shape {x.shape} and targets of shape {y.shape} do not belong together; "
            "allowed are (N, D) and (N, T) with the same N."
        )
    n_tasks = y.shape[1]
    tasks = np.tile(np.arange(n_tasks, dtype=float), x.shape[0])
    rows = np.column_stack([np.repeat(x, n_tasks, axis=0), tasks])
    present = ~np.isnan(y.ravel())
    return jnp.asarray(rows[present]), jnp.asarray(y.ravel()[present])


def from_indexed(
    rows: Float[ArrayLike, "M D1"], targets: Float[ArrayLike, " M"], n_tasks: int
) -> tuple[Float[Array, "N D"], Float[Array, "N T"]]:
    """Gather rows of the indexed form into one row per distinct input.

    Args:
        rows: Inputs with the task index as last column.
        targets: One number per row.
        n_tasks: Number of tasks.

    Returns:
        Distinct inputs in order of first appearance, and targets with NaN where a task has
        no row. A repeated (input, task) pair opens a second row for that input.

    Raises:
        DataError: If shapes differ or a task index is not an integer from 0 to n_tasks - 1.
    """
    x, y = np.asarray(rows, float), np.asarray(targets, float).reshape(-1)
    if x.ndim != 2 or x.shape[0] != y.shape[0]:
        raise DataError(
            f"rows of shape {x.shape} and {y.shape[0]} targets do not belong together; allowed "
            "are (M, D + 1) and (M,)."
        )
    tasks = x[:, -1]
    if x.shape[0] and not np.all(np.isin(tasks, np.arange(n_tasks))):
        bad = tasks[~np.isin(tasks, np.arange(n_tasks))][0]
        raise DataError(
            f"task index {bad:g} in the last column; allowed are the integers 0 to {n_tasks - 1}."
        )
    place: dict[tuple[bytes, int], int] = {}
    visits: dict[tuple[bytes, int], int] = {}
    inputs: list[Any] = []
    table: list[Any] = []
    for row, task, value in zip(x[:, :-1], tasks.astype(int), y, strict=True):
        name = row.tobytes()
        visit = visits.get((name, int(task)), 0)
        visits[(name, int(task))] = visit + 1
        if (name, visit) not in place:
            place[(name, visit)] = len(inputs)
            inputs.append(row)
            table.append(np.full(n_tasks, np.nan))
        table[place[(name, visit)]][task] = value
    width = max(x.shape[1] - 1, 0)
    return (
        jnp.asarray(np.reshape(np.asarray(inputs, float), (-1, width))),
        jnp.asarray(np.reshape(np.asarray(table, float), (-1, n_tasks))),
    )


class RateData(eqx.Module):
    """Padded training table; rows beyond the data are masked and change nothing."""

    inputs: Float[Array, "N D"]
    """Raw inputs `[c, u, embedding, day]`, each in its own unit; zero in padding rows."""
    targets: Float[Array, "N T"]
    """Rates or residual rates in their own unit; zero where missing."""
    present: Bool[Array, "N T"]
    """Which targets were observed."""
    row_noise: Float[Array, " N"]
    """Known noise variance of a row relative to the typical one [-]; one in padding rows."""
    shared: SharedSamples | None = None
    """Samples that rows have in common; None for independent noise."""

    @property
    def row_present(self) -> Bool[Array, " N"]:
        """Rows with at least one observed target."""
        return jnp.any(self.present, axis=1)

    def noise_matrix(self) -> Float[Array, "N N"]:
        """Known covariance of the noise over rows, relative to a task's noise [-].

        A row without any target has nothing to do with the others: its noise was not observed,
        and coupled with its neighbours it would count as an observed zero.
        """
        if self.shared is None:
            return jnp.diag(self.row_noise)
        rows = self.row_present.astype(self.row_noise.dtype)
        coupled = self.shared.matrix() * rows[:, None] * rows[None, :]
        return coupled + jnp.diag((1.0 - rows) * self.row_noise)

    def noise_draw(self, normal: Float[Array, "... N T"]) -> Float[Array, "... N T"]:
        """Noise with the known covariance over rows, unit variance per task.

        Args:
            normal: Standard normal numbers.

        Returns:
            Correlated numbers of the same shape.
        """
        if self.shared is None:
            return normal * jnp.sqrt(self.row_noise)[:, None].reshape(
                (1,) * (normal.ndim - 2) + (-1, 1)
            )
        return jnp.einsum("nm,...mt->...nt", jnp.linalg.cholesky(self.noise_matrix()), normal)


def rate_data(
    inputs: Float[ArrayLike, "N D"],
    targets: Float[ArrayLike, "N T"],
    *,
    row_noise: Float[ArrayLike, " N"] | SharedSamples | None = None,
    capacity: int | None = None,
) -> RateData:
    """Check and pad a training table.

    Args:
        inputs: Raw inputs, all finite.
        targets: Targets; NaN where missing.
        row_noise: Relative noise variance per row [-], above zero, or noise with shared
            samples; one by default.
        capacity: Rows to reserve; at least N, N by default.

    Returns:
        The padded table.

    Raises:
        DataError: If an input is not finite, a target infinite, a task never observed, the
            noise not positive, or the capacity too small.
    """
    x, y = np.asarray(inputs, float), np.asarray(targets, float)
    if x.ndim != 2 or y.ndim != 2 or x.shape[0] != y.shape[0] or x.shape[0] == 0:
        raise DataError(
            f"inputs of shape {x.shape} and targets of shape {y.shape} cannot train a model; "
            "allowed are (N, D) and (N, T) with the same N of at least one."
        )
    if not np.all(np.isfinite(x)):
        row, column = np.argwhere(~np.isfinite(x))[0]
        raise DataError(
            f"input row {row}, column {column} is {x[row, column]}; inputs must be finite: "
            "estimate a missing state first."
        )
    if np.any(np.isinf(y)):
        raise DataError("a target is infinite; allowed are finite numbers, and NaN for missing.")
    empty = np.flatnonzero(np.all(np.isnan(y), axis=0))
    if empty.size:
        raise DataError(f"task {empty[0]} has no target at all; drop it or measure it.")
    shared = row_noise if isinstance(row_noise, SharedSamples) else None
    known = row_noise.variance if isinstance(row_noise, SharedSamples) else row_noise
    noise = np.ones(x.shape[0]) if known is None else np.asarray(known, float)
    if noise.shape != (x.shape[0],) or not np.all(np.isfinite(noise) & (noise > 0)):
        raise DataError("row noise must hold one finite number above zero for each row.")
    size = x.shape[0] if capacity is None else int(capacity)
    if size < x.shape[0]:
        raise DataError(f"capacity {size} is below the {x.shape[0]} rows given.")
    pad = size - x.shape[0]
    present = np.pad(~np.isnan(y), ((0, pad), (0, 0)))
    return RateData(
        inputs=on_device(np.pad(x, ((0, pad), (0, 0)))),
        targets=on_device(np.pad(np.nan_to_num(y), ((0, pad), (0, 0)))),
        present=on_device(present),
        row_noise=on_device(np.pad(noise, (0, pad), constant_values=1.0)),
        shared=None if shared is None else padded(shared, size),
    )


def widened(data: RateData, size: int) -> RateData:
    """The same table with more padding rows.

    Args:
        data: Table.
        size: Rows wanted; at least its own.

    Returns:
        The table with `size` rows.
    """
    extra = size - data.inputs.shape[0]
    return RateData(
        inputs=jnp.pad(data.inputs, ((0, extra), (0, 0))),
        targets=jnp.pad(data.targets, ((0, extra), (0, 0))),
        present=jnp.pad(data.present, ((0, extra), (0, 0))),
        row_noise=jnp.pad(data.row_noise, (0, extra), constant_values=1.0),
        shared=None if data.shared is None else padded(data.shared, size),
    )
