"""What moves a culture in an environment; any process has one, some a faster one as well."""

import abc
from typing import Any, ClassVar, Final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float

from perfusio_jax._core import ConfigError, Key, Scalar
from perfusio_jax.mechanistic.mechanism import moved, n_movable
from perfusio_jax.process import Process
from perfusio_jax.rl.environment import EnvParams
from perfusio_jax.simulator import VirtualPlant
from perfusio_jax.simulator.virtual_runs import readings_of_states

CUT: Final = 3.0
"""Standard deviations at which draws are cut."""
_PART: Final = 0.1
"""Part of a range that is a feature's unit."""


def _scalar(value: ArrayLike) -> Array:
    return jnp.asarray(value, float)


class Motion(eqx.Module):
    """How the state of a culture is drawn, moved and seen; it holds names and sizes, no numbers.

    What `params.plant` and `params.uncertainty` are is the motion's to say.
    """

    stored_as: eqx.AbstractClassVar[str]
    """What trainings on disk call the environment."""
    state_names: eqx.AbstractVar[tuple[str, ...]]
    """Order of the state."""
    input_names: eqx.AbstractVar[tuple[str, ...]]
    """Controls that are decided."""
    tracked_names: eqx.AbstractVar[tuple[str, ...]]
    """What has references."""

    @abc.abstractmethod
    def draw(self, key: Key, params: EnvParams) -> tuple[Any, Array]:
        """Constants and initial state of an episode."""

    @abc.abstractmethod
    def advance(self, plant: Any, x: Array, inputs: Array, step_h: Array) -> Array:
        """State one step later."""

    @abc.abstractmethod
    def disturb(self, key: Key, x: Array, params: EnvParams) -> Array:
        """State after the random disturbance of a step."""

    @abc.abstractmethod
    def features(self, x: Array) -> Array:
        """State as a policy sees it: numbers of order one."""

    @abc.abstractmethod
    def tracked(self, plant: Any, x: Array) -> Array:
        """Quantities that have references [their units]."""


class ProcessPlant(eqx.Module):
    """The plant of an episode, and the set-points nobody decides."""

    plant: VirtualPlant
    held: Float[Array, " M"] = eqx.field(converter=_scalar)
    """Every control of the process [its unit]; those that are decided count for nothing here."""


class ProcessSpread(eqx.Module):
    """How episodes differ; draws are Gaussian, cut at three standard deviations."""

    initial: Scalar = eqx.field(converter=_scalar, default=0.0)
    """Relative deviation of every state at the start [-]."""
    constants: Scalar = eqx.field(converter=_scalar, default=0.0)
    """Deviation of the mechanism's constants, in parts of what it says data may move them [-]."""

    def __check_init__(self) -> None:
        for name, most in (("initial", 1.0 / CUT), ("constants", np.inf)):
            value = getattr(self, name)
            if jnp.shape(value) != ():
                raise ConfigError(f"{name} must be one number.")
            if not isinstance(value, Tracer) and not 0.0 <= float(value) < most:
                raise ConfigError(
                    f"a deviation of {float(value):g} ({name}) is not possible; 0 to below "
                    f"{most:.2f} is."
                )


class PlantMotion(Motion):
    """The process's own plant, integrated to a local error of a part in a million."""

    stored_as: ClassVar[str] = "ProcessEnv"
    process: Process = eqx.field(static=True)
    """The culture."""
    state_names: tuple[str, ...] = eqx.field(static=True)
    """What is carried, levels, and the volume where it moves."""
    input_names: tuple[str, ...] = eqx.field(static=True)
    """Controls that are decided."""
    tracked_names: tuple[str, ...] = eqx.field(static=True)
    """Readings or states that have references."""

    @property
    def _moves(self) -> bool:
        return not self.process.is_constant_volume

    @property
    def _n(self) -> int:
        """Number of states but the volume."""
        return len(self.state_names) - self._moves

    def draw(self, key: Key, params: EnvParams) -> tuple[Any, Array]:
        """Constants and initial state, drawn around the nominal ones."""
        first, second = jax.random.split(key)
        mechanism = params.plant.plant.mechanism
        count = n_movable(mechanism)
        dtype = params.initial.dtype
        plant = params.plant
        if count:
            z = params.uncertainty.constants * jax.random.truncated_normal(
                first, -CUT, CUT, (count,), dtype
            )
            plant = eqx.tree_at(lambda p: p.plant.mechanism, plant, moved(mechanism, z))
        unit = jax.random.truncated_normal(second, -CUT, CUT, params.initial.shape, dtype)
        spread = 1.0 + params.uncertainty.initial * unit
        if self._moves:
            spread = spread.at[-1].set(1.0)
        return plant, params.initial * spread

    def advance(self, plant: ProcessPlant, x: Array, inputs: Array, step_h: Array) -> Array:
        """State one step later; NaN where the plant cannot go on."""
        place = np.asarray([self.process.control_names.index(n) for n in self.input_names])
        held = plant.held.astype(x.dtype).at[place].set(inputs)
        volume = x[-1] if self._moves else plant.plant.volume_L.astype(x.dtype)
        end = plant.plant.advance(x[: self._n], volume, held, step_h)
        if not self._moves:
            return end.state
        return jnp.concatenate([end.state, end.volume_L[None]])

    def disturb(self, key: Key, x: Array, params: EnvParams) -> Array:
        """None."""
        return x

    def features(self, x: Array) -> Array:
        """Logarithms of concentrations in tenths of their range; levels from -1 to 1."""
        low, high = (jnp.asarray(v, x.dtype) for v in self._ranges())
        is_log = np.asarray([n not in self.process.levels for n in self.state_names])
        unit = _PART * jnp.where(is_log, high, 1.0)
        logs = jnp.log1p(jnp.maximum(x, 0.0) / unit)
        return jnp.where(is_log, logs, 2.0 * (x - low) / (high - low) - 1.0)

    def tracked(self, plant: Any, x: Array) -> Array:
        """Quantities with references [their units]."""
        names = self.state_names[: self._n]
        seen = readings_of_states(self.process, names, x[: self._n])
        place = {name: k for k, name in enumerate(self.process.readings)}
        own = {name: k for k, name in enumerate(self.state_names)}
        return jnp.stack([seen[place[n]] if n in place else x[own[n]] for n in self.tracked_names])

    def _ranges(self) -> tuple[np.ndarray, np.ndarray]:
        found = [self.process.quantity(n) for n in self.state_names[: self._n]]
        low, high = [q.lo for q in found], [q.hi for q in found]
        if self._moves:
            low, high = [*low, 0.0], [*high, self.process.volume_L]
        return np.asarray(low), np.asarray(high)
