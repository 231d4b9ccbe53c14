"""Kernels of the step-wise GP, built on GPJax.

`PerfusionKernel` is a product of three: Matern-5/2 over state and controls, linear plus
constant over the culture day (a purely linear one would have no variance on day 0), and an
index kernel over the species. GPJax evaluates it point by point; the model itself uses the
matrix forms below, which share one matrix among all species.
"""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import paramax
from gpjax.kernels import RBF, Linear, Matern52
from gpjax.kernels.base import AbstractKernel, Constant
from gpjax.kernels.computations import DenseKernelComputation
from jaxtyping import Array, Float

from perfusio_jax._core import ConfigError, Positive, Scalar, positive, unwrap

_SQRT5 = float(np.sqrt(5.0))


def squared_distance(
    x: Float[Array, "N D"], y: Float[Array, "M D"], lengthscale: Float[Array, "..."]
) -> Float[Array, "N M"]:
    """Squared scaled distances by one matrix product.

    Args:
        x: Points.
        y: Points.
        lengthscale: Scalar or one per column.

    Returns:
        Squared distances, never below zero.
    """
    scale = jnp.broadcast_to(lengthscale, (x.shape[-1],))[None, :]
    centre = jnp.mean(y, axis=0, keepdims=True)
    a, b = (x - centre) / scale, (y - centre) / scale
    square = jnp.sum(a * a, axis=1)[:, None] + jnp.sum(b * b, axis=1)[None, :] - 2.0 * (a @ b.T)
    # rounding is cut off in the value only: a cut in the derivative halves it where points meet
    return jnp.where(square > 0.0, square, square - jax.lax.stop_gradient(square))


@jax.custom_jvp
def matern52_of_square(square: Float[Array, "..."]) -> Float[Array, "..."]:
    """Matern-5/2 correlation of a squared distance; first and second derivative hold at zero."""
    root = _SQRT5 * jnp.sqrt(square)
    return (1.0 + root + (5.0 / 3.0) * square) * jnp.exp(-root)


@matern52_of_square.defjvp
def _matern52_jvp(primals: Any, tangents: Any) -> Any:
    (square,), (tangent,) = primals, tangents
    root = _SQRT5 * jnp.sqrt(jnp.maximum(square, 1e-30))
    decay = jnp.exp(-root)
    value = (1.0 + root + (5.0 / 3.0) * square) * decay
    return value, _matern52_slope(square) * tangent


@jax.custom_jvp
def _matern52_slope(square: Array) -> Array:
    """Derivative of `matern52_of_square`; its own is 25/12 exp(-root), finite at zero."""
    root = _SQRT5 * jnp.sqrt(jnp.maximum(square, 1e-30))
    return -(5.0 / 6.0) * (1.0 + root) * jnp.exp(-root)


@_matern52_slope.defjvp
def _matern52_bend(primals: Any, tangents: Any) -> Any:
    (square,), (tangent,) = primals, tangents
    root = _SQRT5 * jnp.sqrt(jnp.maximum(square, 1e-30))
    return _matern52_slope(square), (25.0 / 12.0) * jnp.exp(-root) * tangent


class DenseEngine(DenseKernelComputation):
    """GPJax' dense engine, equal to every other of its kind.

    GPJax compares engines by identity. They are part of a kernel's tree structure, so that a
    copied or unpickled model would be another structure and everything would compile again.
    """

    def __eq__(self, other: object) -> bool:
        """Whether the other is of the same class: an engine holds nothing."""
        return type(self) is type(other)

    def __hash__(self) -> int:
        """Of the class."""
        return hash(type(self))


class DayLinear(Linear):
    """GPJax' linear kernel with its name as what it is, a constant of the class.

    GPJax declares the name as a field and never sets it; a model that went through `jit` then
    holds place-holders that pickling does not keep the same.
    """

    name: ClassVar[str] = "Linear"  # pyright: ignore[reportIncompatibleVariableOverride]


class PerfusionKernel(AbstractKernel):
    """Matern-5/2 (state, controls) x linear-plus-constant (day) x index (species).

    Rows are `[state and controls (n_state_dims), day, task]`. The scale of the product
    lies in the index kernel `B = W W' + diag(kappa)`; the other factors have unit scale,
    so that every parameter can be identified.
    """

    name: ClassVar[str] = "Perfusion"
    is_stationary: ClassVar[bool] = False
    tail_degrees: ClassVar[float] = 5.0
    """Degrees of freedom of the t distribution that the frequencies of the state factor have."""

    state: Matern52 = eqx.field(kw_only=True)
    """Matern-5/2 over the first `n_state_dims` columns; lengthscales in input units."""
    day: DayLinear = eqx.field(kw_only=True)
    """Linear kernel over the day column; its variance is relative to the constant one."""
    day_constant: Constant = eqx.field(kw_only=True)
    """Constant term of the day kernel, fixed at one."""
    index_factor: Float[Array, "T R"] = eqx.field(kw_only=True)
    """Factor W of the covariance between tasks, unit of the scaled target."""
    index_diagonal: Positive = eqx.field(kw_only=True)
    """Diagonal kappa of the covariance between tasks (T,), scaled target squared."""
    n_tasks: int = eqx.field(static=True, kw_only=True)
    """Number of tasks."""
    n_state_dims: int = eqx.field(static=True, kw_only=True)
    """Number of state and control columns."""
    rank: int = eqx.field(static=True, kw_only=True)
    """Number of columns of W; zero makes the tasks independent."""
    fixed_columns: tuple[int, ...] = eqx.field(static=True, kw_only=True)
    """Columns whose lengthscale is one, whatever its leaf says."""

    def __init__(
        self,
        n_tasks: int,
        n_state_dims: int,
        rank: int = 1,
        ard_num_dims: int = 1,
        *,
        lengthscale: float | Float[Array, "..."] = 1.0,
        day_variance: float = 0.25,
        task_variance: float = 1.0,
        fixed_columns: tuple[int, ...] = (),
    ):
        """Build the kernel.

        Args:
            n_tasks: Number of species.
            n_state_dims: Columns of state and controls (and embedding).
            rank: Rank of the index kernel's factor; 0 for independent species.
            ard_num_dims: Above one, each column has its own lengthscale.
            lengthscale: Start value, input units.
            day_variance: Start variance of the linear day term [-].
            task_variance: Start of the diagonal of the index kernel.
            fixed_columns: Columns whose lengthscale stays at one (embeddings carry their own
                scale); needs one lengthscale per column.

        Raises:
            ConfigError: If a size is out of range.
        """
        if n_tasks < 1 or n_state_dims < 1 or rank < 0 or rank > n_tasks:
            raise ConfigError(
                f"n_tasks={n_tasks}, n_state_dims={n_state_dims}, rank={rank}: sizes start at 1 "
                "and the rank lies between 0 and n_tasks."
            )
        if ard_num_dims not in (1, n_state_dims):
            raise ConfigError(
                f"ard_num_dims={ard_num_dims}; allowed are 1 (one lengthscale) and "
                f"{n_state_dims} (one per column)."
            )
        shape = () if ard_num_dims == 1 and n_state_dims > 1 else (n_state_dims,)
        fixed = tuple(sorted({int(column) for column in fixed_columns}))
        if fixed and (not shape or fixed[0] < 0 or fixed[-1] >= n_state_dims):
            raise ConfigError(
                f"fixed_columns={fixed} with ard_num_dims={ard_num_dims}; allowed are columns 0 to "
                f"{n_state_dims - 1}, with one lengthscale per column."
            )
        self.fixed_columns = fixed
        self.state = Matern52(
            active_dims=slice(0, n_state_dims),
            lengthscale=positive(jnp.broadcast_to(jnp.asarray(lengthscale, float), shape)),
            variance=paramax.non_trainable(jnp.ones(())),
            n_dims=n_state_dims,
            compute_engine=DenseEngine(),
        )
        self.day = DayLinear(
            active_dims=[n_state_dims],
            variance=positive(day_variance),
            n_dims=1,
            compute_engine=DenseEngine(),
        )
        self.day_constant = Constant(
            constant=paramax.non_trainable(jnp.ones(())), compute_engine=DenseEngine()
        )
        # a fixed, unequal start: equal entries would be a saddle of the evidence
        start = 0.3 * np.cos(np.outer(np.arange(n_tasks) + 0.5, np.arange(rank) + 1.0))
        self.index_factor = jnp.asarray(start.reshape(n_tasks, rank), float)
        self.index_diagonal = positive(np.full((n_tasks,), task_variance))
        self.n_tasks, self.n_state_dims, self.rank = n_tasks, n_state_dims, rank
        super().__init__(n_dims=n_state_dims + 2, compute_engine=DenseEngine())

    def __call__(self, x: Float[Array, " D"], y: Float[Array, " D"]) -> Scalar:
        """Covariance of two indexed rows.

        Args:
            x: `[state and controls, day, task]`.
            y: Same layout.

        Returns:
            Covariance, scaled target squared.
        """
        kernel = unwrap(self)
        day = kernel.day(x, y) + kernel.day_constant(x, y)
        column = self.n_state_dims + 1
        tasks = kernel.task_covariance()
        state = eqx.tree_at(lambda k: k.lengthscale, kernel.state, self.lengthscale)
        return state(x, y) * day * tasks[x[column].astype(int), y[column].astype(int)]

    def task_covariance(self) -> Float[Array, "T T"]:
        """Covariance between tasks, scaled target squared."""
        diagonal = unwrap(self.index_diagonal)
        return self.index_factor @ self.index_factor.T + jnp.diag(diagonal)

    def input_matrix(self, x: Float[Array, "N D"], y: Float[Array, "M D"]) -> Float[Array, "N M"]:
        """Covariance of inputs, shared by all tasks.

        Args:
            x: `[state and controls, day]`.
            y: Same layout.

        Returns:
            Matrix of the first two factors [-].
        """
        kernel = unwrap(self)
        size = self.n_state_dims
        square = squared_distance(x[:, :size], y[:, :size], self.lengthscale)
        day = kernel.day.variance * x[:, size][:, None] * y[:, size][None, :]
        return matern52_of_square(square) * (1.0 + day)

    def input_diagonal(self, x: Float[Array, "N D"]) -> Float[Array, " N"]:
        """Prior variance of each input [-]."""
        return 1.0 + unwrap(self.day.variance) * x[:, self.n_state_dims] ** 2

    def prior_features(
        self, wave: Float[Array, "M F"], scaled: Float[Array, "M D"]
    ) -> Float[Array, "M F2"]:
        """Random features of the kernel from those of its Matern factor.

        Args:
            wave: Features whose inner product approximates the Matern factor.
            scaled: Scaled inputs.

        Returns:
            Twice as many features; their inner product approximates the kernel.
        """
        day = jnp.sqrt(self.day_variance) * scaled[:, self.n_state_dims][:, None]
        return jnp.concatenate([wave, day * wave], axis=1)

    def extra_parameters(self) -> tuple[Any, ...]:
        """Leaves of a variant that are trained besides the kernel's own."""
        return ()

    @property
    def lengthscale(self) -> Float[Array, " S"]:
        """One lengthscale per state and control column, scaled input units."""
        value = jnp.broadcast_to(unwrap(self.state.lengthscale), (self.n_state_dims,))
        if not self.fixed_columns:
            return value
        return value.at[jnp.asarray(self.fixed_columns)].set(1.0)

    @property
    def free_columns(self) -> tuple[int, ...]:
        """Columns whose lengthscale is a parameter."""
        return tuple(c for c in range(self.n_state_dims) if c not in self.fixed_columns)

    @property
    def day_variance(self) -> Scalar:
        """Variance of the linear day term relative to the constant one [-]."""
        return unwrap(self.day.variance)


def with_fixed_columns(kernel: PerfusionKernel, columns: tuple[int, ...]) -> PerfusionKernel:
    """The same kernel with some lengthscales fixed at one.

    Args:
        kernel: Kernel.
        columns: State and control columns, from 0.

    Returns:
        A kernel with one lengthscale per column.

    Raises:
        ConfigError: If a column does not exist.
    """
    wanted = tuple(sorted(set(columns) | set(kernel.fixed_columns)))
    size = kernel.n_state_dims
    # the other kernel is only built for its checks and its lengthscale of the right shape
    fresh = PerfusionKernel(
        kernel.n_tasks,
        size,
        kernel.rank,
        size,
        lengthscale=kernel.lengthscale,
        fixed_columns=wanted,
    )
    copy = object.__new__(type(kernel))
    for name in kernel.__dataclass_fields__:
        object.__setattr__(copy, name, getattr(kernel, name))
    object.__setattr__(copy, "state", fresh.state)
    object.__setattr__(copy, "fixed_columns", wanted)
    return copy


class ResidualKernel(AbstractKernel):
    """Squared-exponential kernel over state and controls, for what the mechanism misses."""

    name: ClassVar[str] = "Residual"
    is_stationary: ClassVar[bool] = True

    state: RBF = eqx.field(kw_only=True)
    """RBF over the first `n_state_dims` columns."""
    n_state_dims: int = eqx.field(static=True, kw_only=True)
    """Number of input columns."""

    def __init__(
        self,
        n_state_dims: int,
        ard_num_dims: int = 1,
        *,
        lengthscale: float | Float[Array, "..."] = 1.0,
        variance: float = 1.0,
    ):
        """Build the kernel.

        Args:
            n_state_dims: Columns of state and controls.
            ard_num_dims: Above one, each column has its own lengthscale.
            lengthscale: Start value, input units.
            variance: Start value, target squared.

        Raises:
            ConfigError: If `ard_num_dims` is neither one nor the number of columns.
        """
        if n_state_dims < 1 or ard_num_dims not in (1, n_state_dims):
            raise ConfigError(
                f"n_state_dims={n_state_dims}, ard_num_dims={ard_num_dims}; allowed are at least "
                "one column, and 1 or the number of columns."
            )
        shape = () if ard_num_dims == 1 and n_state_dims > 1 else (n_state_dims,)
        self.state = RBF(
            active_dims=slice(0, n_state_dims),
            lengthscale=positive(jnp.broadcast_to(jnp.asarray(lengthscale, float), shape)),
            variance=positive(variance),
            n_dims=n_state_dims,
            compute_engine=DenseEngine(),
        )
        self.n_state_dims = n_state_dims
        super().__init__(n_dims=n_state_dims, compute_engine=DenseEngine())

    def __call__(self, x: Float[Array, " D"], y: Float[Array, " D"]) -> Scalar:
        """Covariance of two rows; columns beyond `n_state_dims` are ignored.

        Args:
            x: State and controls.
            y: Same layout.

        Returns:
            Covariance, target squared.
        """
        return unwrap(self.state)(x, y)

    def input_matrix(self, x: Float[Array, "N D"], y: Float[Array, "M D"]) -> Float[Array, "N M"]:
        """Covariance matrix by one matrix product, target squared."""
        kernel = unwrap(self.state)
        size = self.n_state_dims
        square = squared_distance(x[:, :size], y[:, :size], kernel.lengthscale)
        return kernel.variance * jnp.exp(-0.5 * square)

    def input_diagonal(self, x: Float[Array, "N D"]) -> Float[Array, " N"]:
        """Prior variance of each row, target squared."""
        return jnp.broadcast_to(unwrap(self.state.variance), (x.shape[0],))
