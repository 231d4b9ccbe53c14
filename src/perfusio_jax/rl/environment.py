"""One small interface to a plant whose outputs are to follow references.

`reset(key, params) -> state` and `step(key, state, action, params) -> (state, info)`; what an
episode changes is in the state, what a study changes is in the parameters, both traced. The
last state of an episode stays what it is: nothing resets by itself. Everything is pure, one
example, differentiable; `vmap` makes it many.
"""

import abc
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, Int

from perfusio_jax._core import ConfigError, Key
from perfusio_jax.rl.policy import Bounds, fold


class EnvParams(eqx.Module):
    """What a study changes."""

    plant: Any
    """Nominal constants."""
    uncertainty: Any
    """How episodes differ."""
    initial: Float[Array, " n_x"]
    """Nominal initial state."""
    reference: Float[Array, "T n_ref"]
    """References at k = 0 ... N."""
    bounds: Bounds
    """Bounds of the inputs."""
    step_h: Float[Array, ""] = eqx.field(converter=lambda v: jnp.asarray(v, float))
    """Length of a step [h]."""


class EnvState(eqx.Module):
    """What an episode changes."""

    plant: Any
    """Constants of this episode."""
    x: Float[Array, " n_x"]
    """State of the plant."""
    before: Float[Array, " n_features"]
    """Features of the state one step ago; zeros at the start."""
    shares: Float[Array, "2 n_u"]
    """The last two inputs as places between their bounds; zeros until there were any."""
    step: Int[Array, ""]
    """Steps taken."""


class StepInfo(NamedTuple):
    """What a step shows."""

    tracked: Float[Array, " n_ref"]
    """Tracked quantities after the step."""
    inputs: Float[Array, " n_u"]
    """Inputs applied, in their unit."""


class TrackingEnv(eqx.Module):
    """A plant with inputs between bounds and outputs with references."""

    n_steps: eqx.AbstractVar[int]
    state_names: eqx.AbstractVar[tuple[str, ...]]
    input_names: eqx.AbstractVar[tuple[str, ...]]
    tracked_names: eqx.AbstractVar[tuple[str, ...]]

    def __check_init__(self) -> None:
        if not isinstance(self.n_steps, int) or self.n_steps < 1:
            raise ConfigError(
                f"an episode of {self.n_steps!r} steps; a whole number (int) from 1 on is needed."
            )

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
        """Quantities that have references."""

    @property
    def n_inputs(self) -> int:
        """Number of inputs."""
        return len(self.input_names)

    @property
    def n_observed(self) -> int:
        """Length of an observation: two states, two inputs, time."""
        return 2 * len(self.state_names) + 2 * self.n_inputs + 1

    def reset(self, key: Key, params: EnvParams) -> EnvState:
        """Begin an episode."""
        plant, x = self.draw(key, params)
        plant = jax.tree.map(lambda v: v.astype(x.dtype) if eqx.is_inexact_array(v) else v, plant)
        seen = jnp.zeros((len(self.state_names),), x.dtype)
        shares = jnp.zeros((2, self.n_inputs), x.dtype)
        return EnvState(plant, x, seen, shares, jnp.zeros((), int))

    def observe(self, state: EnvState) -> Float[Array, " n_obs"]:
        """Two past pairs of state and input, and time from -1 to 1.

        The pairs are (x_k, u_{k-1}) and (x_{k-1}, u_{k-2}); what has not been is zero.
        """
        time = jnp.asarray(2.0 * state.step / self.n_steps - 1.0, state.x.dtype)
        parts = [self.features(state.x), state.shares[0], state.before, state.shares[1], time[None]]
        return jnp.concatenate(parts)

    def step(
        self, key: Key, state: EnvState, action: Float[Array, " n_u"], params: EnvParams
    ) -> tuple[EnvState, StepInfo]:
        """Apply one action for one step.

        Args:
            key: Random key of the disturbance.
            state: Where the episode is.
            action: Place of each input between its bounds, 0 to 1.
            params: The study's parameters.

        Returns:
            The next state, and what the step shows.
        """
        inputs = params.bounds.inputs(action)
        x = self.advance(state.plant, state.x, inputs, params.step_h)
        x = self.disturb(key, x, params)
        shares = jnp.stack([action, state.shares[0]])
        after = EnvState(state.plant, x, self.features(state.x), shares, state.step + 1)
        return after, StepInfo(self.tracked(state.plant, x), inputs)


def check_fit(env: TrackingEnv, params: EnvParams) -> None:
    """Refuse parameters of an episode of another length, of another plant, or not finite.

    Raises:
        ConfigError: With the shape of the references and the one that is needed, the name of
            what is not finite, or a step that is not positive.
    """
    wanted = (env.n_steps + 1, len(env.tracked_names))
    if params.reference.shape != wanted:
        raise ConfigError(
            f"references have shape {params.reference.shape}; {env.n_steps} steps of "
            f"{', '.join(env.tracked_names)} need {wanted}: k = 0 ... {env.n_steps}."
        )
    if params.bounds.low.shape != (env.n_inputs,) or params.step_h.shape != ():
        raise ConfigError(
            f"bounds for {params.bounds.low.shape} inputs and a step of shape "
            f"{params.step_h.shape}; {(env.n_inputs,)} and one number are needed."
        )
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if isinstance(leaf, Tracer) or not eqx.is_inexact_array(leaf):
            continue
        if not np.all(np.isfinite(leaf)):  # NumPy: constants are not to become tracers
            raise ConfigError(f"params{jax.tree_util.keystr(path)} is {leaf}; it must be finite.")
    if not isinstance(params.step_h, Tracer) and float(params.step_h) <= 0.0:
        raise ConfigError(f"a step of {float(params.step_h)} h is not possible; it is positive.")


def _check_act(env: TrackingEnv, observed: Array, policy: Any) -> None:
    n_observed = getattr(policy, "n_observed", env.n_observed)
    if observed.shape != (n_observed,):
        raise ConfigError(
            f"the policy takes {n_observed} observed values and this plant shows {env.n_observed}."
        )
    n_inputs = getattr(policy, "n_inputs", env.n_inputs)
    if n_inputs != env.n_inputs:
        raise ConfigError(
            f"the policy gives {n_inputs} inputs and this plant has {env.n_inputs}: "
            f"{', '.join(env.input_names)}."
        )


class Episode(NamedTuple):
    """A finished episode."""

    observed: Float[Array, "N n_obs"]
    """What the policy saw before each step."""
    z: Float[Array, "N n_u"]
    """Its draws, before `fold`."""
    inputs: Float[Array, "N n_u"]
    """Inputs in their unit."""
    states: Float[Array, "T n_x"]
    """States of the plant at k = 0 ... N."""
    tracked: Float[Array, "T n_ref"]
    """Tracked quantities at k = 0 ... N."""


def run_episode(
    env: TrackingEnv,
    params: EnvParams,
    policy: Any,
    *,
    key: Key,
    sign: ArrayLike = 1.0,
    plant_of: Key | None = None,
) -> Episode:
    """Let a policy act for one episode.

    Args:
        env: Environment.
        params: Its parameters.
        policy: Maps an observation to mean and spread of the Gaussian before `fold`.
        key: Random key of the plant, the disturbances and the policy's draws.
        sign: Factor on the policy's draws; -1 gives the mirrored episode of the same plant.
        plant_of: Key of an episode whose plant and start this one has too; its own by default.

    Returns:
        The episode.

    Raises:
        ConfigError: If environment, parameters and policy do not fit each other.
    """
    check_fit(env, params)
    plant_key, noise_key, draw_key = jax.random.split(key, 3)
    if plant_of is not None:
        plant_key = jax.random.split(plant_of, 3)[0]
    begun = env.reset(plant_key, params)
    unit = jax.random.normal(draw_key, (env.n_steps, env.n_inputs), begun.x.dtype)
    noise = unit * jnp.asarray(sign, begun.x.dtype)
    keys = jax.random.split(noise_key, env.n_steps)

    def act(state: EnvState, given: tuple[Array, Array]) -> tuple[EnvState, tuple]:
        unit, step_key = given
        observed = env.observe(state)
        _check_act(env, observed, policy)
        mean, spread = policy(observed)
        z = mean + spread * unit
        after, info = env.step(step_key, state, fold(z), params)
        return after, (observed, z, info.inputs, after.x, info.tracked)

    _, (observed, z, inputs, x, tracked) = jax.lax.scan(act, begun, (noise, keys))
    first = env.tracked(begun.plant, begun.x)
    return Episode(
        observed,
        z,
        inputs,
        jnp.concatenate([begun.x[None], x]),
        jnp.concatenate([first[None], tracked]),
    )
