"""Mean functions: zero, affine, and the mechanistic prior integrated over the interval."""

from typing import Any, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
from gpjax.mean_functions import AbstractMeanFunction
from jaxtyping import Array, Float

from perfusio_jax._core import CONTROL_NAMES, HOURS_PER_DAY, STATE_ORDER, ConfigError, Scalar
from perfusio_jax.chemistry import balance_rates, perfusion_flows


class MechanisticModel(Protocol):
    """What the mean (and the hybrid model) need of a mechanistic model."""

    medium: Any
    volume_L: Any
    sieving: Any
    kinetics: Any

    def pump_rate(self, glucose: Any, setpoint: Any) -> Any:
        """Flow of the glucose concentrate per reactor volume [L/h/L]."""
        ...

    def advance(self, c: Any, u: Any, dt_h: Any = 24.0) -> tuple[Any, Any]:
        """State after `dt_h` hours and the litres of concentrated glucose fed."""
        ...


def mechanistic_rates(
    mech: MechanisticModel,
    state: Float[Array, " 9"],
    controls: Float[Array, " 6"],
    dt_h: Scalar | float = HOURS_PER_DAY,
) -> tuple[Float[Array, " 9"], Float[Array, " 9"], Scalar]:
    """Mean rates of the mechanistic model over one interval, by the balance of the data.

    Args:
        mech: Mechanistic model.
        state: Balanced state at the start.
        controls: Set-points in `CONTROL_NAMES` order.
        dt_h: Length of the interval [h].

    Returns:
        Rates [unit of the species / h], state at the end, and concentrated glucose fed [L].
    """
    after, glucose = mech.advance(state, controls, dt_h)
    volume = jnp.asarray(mech.volume_L, state.dtype)
    flows = perfusion_flows(controls, volume, glucose, mech.medium, dt_h, mech.sieving)
    rates = balance_rates(state, after, volume, volume, flows, dt_h, scheme="exponential")
    return rates, after, glucose


class ConstantMean(AbstractMeanFunction):
    """One level per task, which the evidence does not move."""

    level: Float[Array, " T"]
    """Level of each task [target unit]."""

    def __init__(self, level: Float[Array, " T"]):
        """Build it.

        Args:
            level: Level of each task [target unit].
        """
        self.level = jnp.asarray(level, float)

    def __call__(self, x: Float[Array, "N D"]) -> Float[Array, "N T"]:
        """The levels, at every input.

        Args:
            x: Inputs.

        Returns:
            One row per input.
        """
        return jnp.broadcast_to(self.level[None, :], (x.shape[0], self.level.shape[0]))


class ZeroMeanMultiTask(AbstractMeanFunction):
    """Zero for every task: a purely data-driven model, or residual targets."""

    batch_shape: tuple[int, ...] = eqx.field(static=True)
    """Kept for callers that name a batch; the result broadcasts."""

    def __init__(self, batch_shape: tuple[int, ...] = ()):
        """Build it.

        Args:
            batch_shape: Leading shape of the result.
        """
        self.batch_shape = tuple(batch_shape)

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "..."]:
        """Zeros, one per input.

        Args:
            x: Inputs.

        Returns:
            Zeros of the batch shape and the inputs' leading shape.
        """
        return jnp.zeros(self.batch_shape + x.shape[:-1], x.dtype)


class LinearMean(AbstractMeanFunction):
    """Affine mean; weights and bias are trained with the kernel."""

    weights: Float[Array, "... D"]
    """Slope per input column [target unit / input unit]."""
    bias: Float[Array, "..."]
    """Value at zero input [target unit]."""

    def __init__(self, input_size: int, batch_shape: tuple[int, ...] | None = None):
        """Start from zero.

        Args:
            input_size: Number of input columns.
            batch_shape: `(T,)` for one affine function per task.
        """
        shape = tuple(batch_shape or ())
        self.weights = jnp.zeros((*shape, input_size))
        self.bias = jnp.zeros(shape)

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "..."]:
        """Evaluate.

        Args:
            x: Inputs, `input_size` columns.

        Returns:
            One value per input, or one per input and task (last axis).
        """
        if self.bias.ndim == 0:
            return x @ self.weights + self.bias
        value = jnp.tensordot(x, self.weights, axes=([-1], [-1]))
        return value + jnp.broadcast_to(self.bias, value.shape)


class MechanisticPriorMean(AbstractMeanFunction):
    """Rates of the mechanistic model over one interval, as the mean of the process.

    The rate is not the instantaneous one at the sample: the model is integrated over the
    interval and put through the balance scheme of the data. It is differentiable in the
    inputs and in the scale.
    """

    mech_model: Any
    """The mechanistic model; not trained here."""
    scale: Float[Array, "..."]
    """Factor on the prior [-], scalar or one per species; trained with the kernel."""
    dt_hours: Scalar
    """Interval over which the prior is integrated [h]."""
    n_species: int = eqx.field(static=True)
    """Number of species whose rates are modelled."""
    species_names: tuple[str, ...] = eqx.field(static=True)
    """Names of the state columns."""
    control_names: tuple[str, ...] = eqx.field(static=True)
    """Names of the control columns."""
    task_index: int | None = eqx.field(static=True)
    """Species of a single-output model; None for all."""

    def __init__(
        self,
        mech_model: Any,
        n_species: int,
        species_names: list[str] | tuple[str, ...],
        control_names: list[str] | tuple[str, ...],
        task_index: int | None = None,
        scale: float | Float[Array, "..."] = 1.0,
        *,
        dt_hours: float = HOURS_PER_DAY,
    ):
        """Build the mean.

        Args:
            mech_model: Mechanistic model with `advance`.
            n_species: Number of species; the nine of the balance.
            species_names: Their names, in `STATE_ORDER` or balanced form.
            control_names: Names of the control columns; each of `CONTROL_NAMES` once.
            task_index: One species, or None for all.
            scale: Start of the learnable factor.
            dt_hours: Interval [h].

        Raises:
            ConfigError: If names or sizes do not fit the mechanistic model.
        """
        if n_species != len(STATE_ORDER) or len(species_names) != n_species:
            raise ConfigError(
                f"the mechanistic prior gives {len(STATE_ORDER)} rates; n_species={n_species} "
                f"with {len(species_names)} names was asked for."
            )
        if sorted(control_names) != sorted(CONTROL_NAMES):
            raise ConfigError(
                f"controls {tuple(control_names)} do not match the mechanistic model; it needs "
                f"{CONTROL_NAMES}, in any order."
            )
        if task_index is not None and not 0 <= task_index < n_species:
            raise ConfigError(
                f"task_index={task_index}; allowed are None and 0 to {n_species - 1}."
            )
        self.mech_model = mech_model
        self.scale = jnp.asarray(scale, float)
        self.dt_hours = jnp.asarray(dt_hours, float)
        self.n_species = n_species
        self.species_names = tuple(species_names)
        self.control_names = tuple(control_names)
        self.task_index = task_index

    def __call__(self, x: Float[Array, "N D"]) -> Float[Array, "..."]:
        """Prior rates at a batch of inputs.

        Args:
            x: `[balanced state (9), controls (6), ..., day]`, raw units.

        Returns:
            (N,) for one species, (N, n_species) for all [unit / h].
        """
        place = jnp.asarray([self.control_names.index(name) for name in CONTROL_NAMES])
        states = x[:, : self.n_species]
        controls = x[:, self.n_species : self.n_species + len(CONTROL_NAMES)][:, place]

        def one(state: Array, control: Array) -> Array:
            return mechanistic_rates(self.mech_model, state, control, self.dt_hours)[0]

        rates = (
            self.scale * jax.vmap(one)(states, controls)
            if self.scale.ndim == 0
            else (self.scale[None, :] * jax.vmap(one)(states, controls))
        )
        return rates if self.task_index is None else rates[:, self.task_index]
