"""Other ways to combine state, day and cell density, and the choice of the rank.

All of them take the place of `PerfusionKernel` everywhere: exact inference, function draws,
ensembles. Closed-form moments cover `PerfusionKernel` alone; moment matching falls back to
cubature for these.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from perfusio_jax._core import ConfigError, Key, Scalar, unwrap
from perfusio_jax.gp.exact_gp import MultiTaskRateGP
from perfusio_jax.gp.fitting import FitConfig, FitReport, fit
from perfusio_jax.gp.inference import log_evidence
from perfusio_jax.gp.kernels import PerfusionKernel, matern52_of_square, squared_distance


class AdditiveKernel(PerfusionKernel):
    """Matern-5/2 (state, controls) *plus* linear (day), times index (species).

    For a drift over the run that does not depend on the state, such as a fouling filter.
    """

    name: ClassVar[str] = "Additive"

    def __call__(self, x: Float[Array, " D"], y: Float[Array, " D"]) -> Scalar:
        """Covariance of two indexed rows; see `PerfusionKernel`."""
        column = self.n_state_dims + 1
        tasks = self.task_covariance()
        value = self.input_matrix(x[None, :column], y[None, :column])[0, 0]
        return value * tasks[x[column].astype(int), y[column].astype(int)]

    def input_matrix(self, x: Float[Array, "N D"], y: Float[Array, "M D"]) -> Float[Array, "N M"]:
        """Covariance of inputs, shared by all tasks [-]."""
        size = self.n_state_dims
        square = squared_distance(x[:, :size], y[:, :size], self.lengthscale)
        day = self.day_variance * x[:, size][:, None] * y[:, size][None, :]
        return matern52_of_square(square) + day

    def prior_features(
        self, wave: Float[Array, "M F"], scaled: Float[Array, "M D"]
    ) -> Float[Array, "M F2"]:
        """Features of the kernel from those of its Matern factor; see `PerfusionKernel`."""
        day = jnp.sqrt(self.day_variance) * scaled[:, self.n_state_dims]
        return jnp.concatenate([wave, jnp.zeros_like(wave).at[:, 0].set(day)], axis=1)


class SquaredExponentialKernel(PerfusionKernel):
    """Squared exponential (state, controls) times index (species), whatever the day.

    For rates that depend on what a culture is and nothing else. Independent species that share
    everything (`is_shared`) have one signal variance, and cost one Cholesky factor.

    Reference:
        Hutter et al. (2021), doi:10.1002/bit.27907.
    """

    name: ClassVar[str] = "SquaredExponential"
    tail_degrees: ClassVar[float] = float("inf")

    is_shared: bool = eqx.field(static=True, kw_only=True)
    """Whether one signal variance serves all species."""

    def __init__(
        self,
        n_tasks: int,
        n_state_dims: int,
        ard_num_dims: int = 1,
        *,
        is_shared: bool = False,
        lengthscale: float | Float[Array, "..."] = 1.0,
        task_variance: float = 1.0,
    ):
        """Build the kernel; the species are independent.

        Args:
            n_tasks: Number of species.
            n_state_dims: Columns of state and controls (and embedding).
            ard_num_dims: Above one, each column has its own lengthscale.
            is_shared: Whether one signal variance serves all species.
            lengthscale: Start value, input units.
            task_variance: Start of the signal variance, scaled target squared.

        Raises:
            ConfigError: If a size is out of range.
        """
        self.is_shared = bool(is_shared)
        super().__init__(
            n_tasks,
            n_state_dims,
            0,
            ard_num_dims,
            lengthscale=lengthscale,
            task_variance=task_variance,
        )

    def __call__(self, x: Float[Array, " D"], y: Float[Array, " D"]) -> Scalar:
        """Covariance of two indexed rows; see `PerfusionKernel`."""
        column = self.n_state_dims + 1
        tasks = self.task_covariance()
        value = self.input_matrix(x[None, :column], y[None, :column])[0, 0]
        return value * tasks[x[column].astype(int), y[column].astype(int)]

    def task_covariance(self) -> Float[Array, "T T"]:
        """Covariance between tasks, scaled target squared."""
        if not self.is_shared:
            return super().task_covariance()
        signal = unwrap(self.index_diagonal)[0]
        return self.index_factor @ self.index_factor.T + signal * jnp.eye(self.n_tasks)

    def input_matrix(self, x: Float[Array, "N D"], y: Float[Array, "M D"]) -> Float[Array, "N M"]:
        """Covariance of inputs, shared by all tasks [-]."""
        size = self.n_state_dims
        return jnp.exp(-0.5 * squared_distance(x[:, :size], y[:, :size], self.lengthscale))

    def input_diagonal(self, x: Float[Array, "N D"]) -> Float[Array, " N"]:
        """Prior variance of each input [-]."""
        return jnp.ones((x.shape[0],))

    def prior_features(
        self, wave: Float[Array, "M F"], scaled: Float[Array, "M D"]
    ) -> Float[Array, "M F2"]:
        """Features of the kernel from those of its state factor; see `PerfusionKernel`."""
        return jnp.concatenate([wave, jnp.zeros_like(wave)], axis=1)


class CellSpecificKernel(PerfusionKernel):
    """`PerfusionKernel` for rates per cell: the prior spread grows with the cell density.

    `k(x, y) = g(x) k0(x, y) g(y)` with `g = exp(exponent z)` of the scaled column of the viable
    cells. In a logarithmic column of scale s, `exponent = s` makes `g` proportional to the cell
    density (a process on cell-specific rates), and 0 leaves volumetric rates; the evidence may
    choose in between.
    """

    name: ClassVar[str] = "CellSpecific"

    exponent: Float[Array, ""] = eqx.field(kw_only=True)
    """Exponent per unit of the scaled column [-]; trained with the kernel."""
    column: int = eqx.field(static=True, kw_only=True)
    """Column of the viable cell density."""

    def __init__(
        self,
        n_tasks: int,
        n_state_dims: int,
        rank: int = 1,
        ard_num_dims: int = 1,
        *,
        exponent: float | Float[Array, ""] = 1.0,
        column: int = 0,
        **options: Any,
    ):
        """Build the kernel.

        Args:
            n_tasks: Number of species.
            n_state_dims: Columns of state and controls.
            rank: Rank of the index kernel's factor.
            ard_num_dims: Above one, each column has its own lengthscale.
            exponent: Start value, per unit of the scaled column.
            column: Column of the viable cell density, from 0.
            **options: As for `PerfusionKernel`.

        Raises:
            ConfigError: If a size is out of range.
        """
        if not 0 <= column < n_state_dims:
            raise ConfigError(f"column={column}; allowed are 0 to {n_state_dims - 1}.")
        self.exponent = jnp.asarray(exponent, float)
        self.column = int(column)
        super().__init__(n_tasks, n_state_dims, rank, ard_num_dims, **options)

    def _gain(self, x: Array) -> Array:
        return jnp.exp(self.exponent * x[..., self.column])

    def __call__(self, x: Float[Array, " D"], y: Float[Array, " D"]) -> Scalar:
        """Covariance of two indexed rows; see `PerfusionKernel`."""
        return self._gain(x) * super().__call__(x, y) * self._gain(y)

    def input_matrix(self, x: Float[Array, "N D"], y: Float[Array, "M D"]) -> Float[Array, "N M"]:
        """Covariance of inputs, shared by all tasks [-]."""
        gains = self._gain(x)[:, None] * self._gain(y)[None, :]
        return gains * super().input_matrix(x, y)

    def input_diagonal(self, x: Float[Array, "N D"]) -> Float[Array, " N"]:
        """Prior variance of each input [-]."""
        return self._gain(x) ** 2 * super().input_diagonal(x)

    def prior_features(
        self, wave: Float[Array, "M F"], scaled: Float[Array, "M D"]
    ) -> Float[Array, "M F2"]:
        """Features of the kernel from those of its Matern factor; see `PerfusionKernel`."""
        return self._gain(scaled)[:, None] * super().prior_features(wave, scaled)

    def extra_parameters(self) -> tuple[Any, ...]:
        """Leaves that are trained besides those of `PerfusionKernel`."""
        return (self.exponent,)


def with_rank(model: MultiTaskRateGP, rank: int) -> MultiTaskRateGP:
    """The same model with another rank of the coupling between species.

    Args:
        model: Model.
        rank: 0 (independent) to the number of tasks; kept columns keep their values.

    Returns:
        Unconditioned model.

    Raises:
        ConfigError: If the rank is out of range.
    """
    fresh = PerfusionKernel(model.n_tasks, model.kernel.n_state_dims, rank)
    keep = min(rank, model.kernel.rank)
    factor = fresh.index_factor.at[:, :keep].set(model.kernel.index_factor[:, :keep])
    if keep < rank:
        # a new column starts small, so that the kernel changes little
        factor = factor.at[:, keep:].multiply(0.3)
    diagonal = jnp.diagonal(model.kernel.task_covariance())
    left = jnp.maximum(diagonal - jnp.sum(factor**2, axis=1), 0.1 * diagonal)
    kernel = object.__new__(type(model.kernel))
    for name in model.kernel.__dataclass_fields__:
        object.__setattr__(kernel, name, getattr(model.kernel, name))
    object.__setattr__(kernel, "rank", rank)
    object.__setattr__(kernel, "index_factor", factor)
    raw = left + jnp.log(-jnp.expm1(-left))
    kernel = eqx.tree_at(lambda k: k.index_diagonal.raw, kernel, raw)
    bare = eqx.tree_at(lambda m: m.state, model, None, is_leaf=lambda node: node is None)
    return eqx.tree_at(lambda m: m.kernel, bare, kernel)


def fit_rank(
    model: MultiTaskRateGP,
    *,
    key: Key,
    ranks: Sequence[int] = (0, 1, 2, 3),
    config: FitConfig | None = None,
) -> tuple[MultiTaskRateGP, FitReport, dict[int, float]]:
    """Fit at several ranks and keep the best by the Bayesian information criterion.

    Args:
        model: Model with data.
        key: Random starts.
        ranks: Ranks to try, 0 to the number of tasks.
        config: Settings of each fit.

    Returns:
        The best model, its report, and per rank the log evidence less half the number of
        entries of the factor times the log of the number of targets.

    Raises:
        ConfigError: If no rank is given or one is out of range.

    Reference:
        Schwarz (1978), Ann. Stat. 6, 461.
    """
    if not ranks:
        raise ConfigError("no rank to try; give at least one.")
    count = jnp.log(jnp.sum(model.data.present).astype(float))
    scores: dict[int, float] = {}
    best: tuple[MultiTaskRateGP, FitReport] | None = None
    for rank, k in zip(ranks, jax.random.split(key, len(ranks)), strict=True):
        fitted, report = fit(with_rank(model, rank), key=k, config=config)
        score = float(log_evidence(fitted) - 0.5 * rank * model.n_tasks * count)
        if best is None or score > max(scores.values()):
            best = (fitted, report)
        scores[rank] = score
    if best is None:
        raise ConfigError("no rank could be fitted.")
    return best[0], best[1], scores
