"""What a policy is compared with: PID, and control by optimisation through the plant.

A controller is `begin(env, params) -> memory` and `act(memory, state, params, key) ->
(action, memory)`; `run_closed_loop` puts any of them, and any policy, into the same episodes.
"""

import abc
from typing import Any, Final

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from perfusio_jax._core import Key
from perfusio_jax.rl.environment import EnvParams, EnvState, Episode, TrackingEnv, check_fit
from perfusio_jax.rl.policy import fold

REACH: Final = 9.0
"""Controllers move between -REACH and REACH before the bijection: 1e-4 of the range."""


class Controller(eqx.Module):
    """Maps states to actions, with a memory."""

    @abc.abstractmethod
    def begin(self, env: TrackingEnv, params: EnvParams) -> Any:
        """Memory before the first step."""

    @abc.abstractmethod
    def act(
        self, env: TrackingEnv, params: EnvParams, memory: Any, state: EnvState, *, key: Key
    ) -> tuple[Array, Any]:
        """Action (places between the bounds) and the next memory."""


class PolicyController(Controller):
    """A trained policy, acting by its mean."""

    policy: Any

    def begin(self, env: TrackingEnv, params: EnvParams) -> Any:
        """No memory."""
        return ()

    def act(
        self, env: TrackingEnv, params: EnvParams, memory: Any, state: EnvState, *, key: Key
    ) -> tuple[Array, Any]:
        """Mean of the policy."""
        mean, _ = self.policy(env.observe(state))
        return fold(mean), memory


class PID(Controller):
    """One PID loop per input on its quantity's relative distance to the next reference.

    It acts before the bijection, on a logarithmic scale at small inputs. While an output is at
    its limit its integral is drawn back by what was cut off (back-calculation).
    """

    bias: Float[Array, " n"]
    """Output without error [-]."""
    gain: Float[Array, " n"]
    """Proportional [-]."""
    integral: Float[Array, " n"]
    """Per step [-]."""
    derivative: Float[Array, " n"]
    """Steps [-]."""

    def begin(self, env: TrackingEnv, params: EnvParams) -> Any:
        """Integral, last error, and whether there was one."""
        zero = jnp.zeros_like(self.bias)
        return zero, zero, jnp.zeros((), bool)

    def act(
        self, env: TrackingEnv, params: EnvParams, memory: Any, state: EnvState, *, key: Key
    ) -> tuple[Array, Any]:
        """PID law."""
        total, last, is_known = memory
        target = params.reference[jnp.minimum(state.step + 1, env.n_steps)]
        error = ((target - env.tracked(state.plant, state.x)) / target)[: env.n_inputs]
        change = jnp.where(is_known, error - last, 0.0)
        total = total + self.integral * error
        wanted = self.bias + self.gain * error + total + self.derivative * change
        given = jnp.clip(wanted, -REACH, REACH)
        total = total + (given - wanted) * jnp.minimum(jnp.abs(self.integral), 1.0)
        return params.bounds.share(given), (total, error, jnp.ones((), bool))


def run_closed_loop(
    env: TrackingEnv,
    params: EnvParams,
    controller: Controller,
    *,
    key: Key,
    truth: EnvParams | None = None,
) -> Episode:
    """One episode under a controller.

    Args:
        env: Environment.
        params: What the controller knows.
        controller: The controller.
        key: The same one gives the same plant and disturbances as `run_episode`.
        truth: Parameters the plant obeys, where they are not the known ones.

    Returns:
        The episode.
    """
    check_fit(env, params)
    plant_key, noise_key, draw_key = jax.random.split(key, 3)
    actual = params if truth is None else truth
    begun = env.reset(plant_key, actual)
    keys = jax.random.split(noise_key, env.n_steps)
    own = jax.random.split(draw_key, env.n_steps)

    def advance(carry: tuple[EnvState, Any], given: tuple[Array, Array]) -> tuple[tuple, tuple]:
        state, memory = carry
        step_key, act_key = given
        observed = env.observe(state)
        action, memory = controller.act(env, params, memory, state, key=act_key)
        after, info = env.step(step_key, state, action, actual)
        return (after, memory), (observed, action, info.inputs, after.x, info.tracked)

    first = (begun, controller.begin(env, params))
    _, (observed, action, inputs, x, tracked) = jax.lax.scan(advance, first, (keys, own))
    start = env.tracked(begun.plant, begun.x)
    return Episode(
        observed,
        action,
        inputs,
        jnp.concatenate([begun.x[None], x]),
        jnp.concatenate([start[None], tracked]),
    )


def run_inputs(
    env: TrackingEnv, params: EnvParams, plant: Any, x: Array, shares: Float[Array, "H n_u"]
) -> Float[Array, "H n_ref"]:
    """Tracked quantities under a given course of inputs, without disturbances."""

    def one(state: Array, share: Array) -> tuple[Array, Array]:
        after = env.advance(plant, state, params.bounds.inputs(share), params.step_h)
        return after, env.tracked(plant, after)

    return jax.lax.scan(one, x, shares)[1]


def smooth_error(
    tracked: Float[Array, "T n"], reference: Float[Array, "T n"], width: Array | float = 1e-3
) -> Float[Array, " T"]:
    """|x - ref| / ref with a rounded tip, mean over quantities."""
    gap = (tracked - reference) / reference
    return jnp.mean(jnp.sqrt(gap * gap + width * width) - width, axis=-1)


def descend(
    loss: Any, start: Array, *, n_iterations: int, learning_rate: Array | float
) -> tuple[Array, Array]:
    """Adam with a falling rate; the best point met and its loss. NaN is never the best."""
    adam: Any = optax.scale_by_adam()

    def one(carry: tuple, k: Array) -> tuple[tuple, None]:
        point, moments, best, lowest = carry
        value, slope = jax.value_and_grad(loss)(point)
        slope = jnp.where(jnp.isfinite(slope), slope, 0.0)
        is_better = value < lowest
        best, lowest = jnp.where(is_better, point, best), jnp.where(is_better, value, lowest)
        move, moments = adam.update(slope, moments)
        rate = learning_rate * 0.5 * (1.0 + jnp.cos(jnp.pi * k / n_iterations))
        point = jnp.clip(point - rate * move, -REACH, REACH)
        return (point, moments, best, lowest), None

    first = (start, adam.init(start), start, jnp.asarray(jnp.inf, start.dtype))
    (_, _, best, lowest), _ = jax.lax.scan(one, first, jnp.arange(n_iterations))
    return best, lowest


class MPC(Controller):
    """Model-predictive control by gradient through the plant, over a receding horizon.

    Every step it minimises the mean error over the horizon, from the measured state and the
    inputs of the step before, moved on by one. With several scenarios it minimises their mean
    over plants drawn from the uncertainty; with one it uses the nominal constants.
    """

    first: Float[Array, "N n_u"]
    """Inputs to start from, before the bijection."""
    n_horizon: int = eqx.field(static=True, default=18)
    n_scenarios: int = eqx.field(static=True, default=1)
    n_iterations: int = eqx.field(static=True, default=40)
    learning_rate: float = eqx.field(static=True, default=0.15)

    def begin(self, env: TrackingEnv, params: EnvParams) -> Any:
        """The inputs to start from."""
        return self.first[: self.n_horizon]

    def act(
        self, env: TrackingEnv, params: EnvParams, memory: Any, state: EnvState, *, key: Key
    ) -> tuple[Array, Any]:
        """First of the inputs that are best for the horizon."""
        ahead = jnp.arange(1, self.n_horizon + 1) + state.step
        counts = ahead <= env.n_steps
        reference = params.reference[jnp.minimum(ahead, env.n_steps)]
        if self.n_scenarios == 1:
            plants = jax.tree.map(lambda v: v[None], params.plant)
        else:
            keys = jax.random.split(key, self.n_scenarios)
            plants = jax.vmap(lambda k: env.draw(k, params)[0])(keys)

        def loss(z: Array) -> Array:
            shares = params.bounds.share(z)
            seen = jax.vmap(lambda p: run_inputs(env, params, p, state.x, shares))(plants)
            error = jax.vmap(lambda t: smooth_error(t, reference))(seen)
            total = jnp.sum(jnp.where(counts[None, :], error, 0.0), axis=1)
            return jnp.mean(total) / jnp.sum(counts)

        z, _ = descend(
            loss, memory, n_iterations=self.n_iterations, learning_rate=self.learning_rate
        )
        return params.bounds.share(z[0]), jnp.concatenate([z[1:], z[-1:]])
