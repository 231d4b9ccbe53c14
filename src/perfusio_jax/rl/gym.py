"""The environment as other people's agents expect it: Gymnasium (extra `gym`)."""

import contextlib
import importlib
import os
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from perfusio_jax._core import ConfigError, Key
from perfusio_jax.rl.environment import EnvParams, EnvState, StepInfo, TrackingEnv
from perfusio_jax.rl.reinforce import Problem
from perfusio_jax.rl.returns import TrackingReturn

gymnasium: Any = None
_Base: Any = object
with contextlib.suppress(ImportError):  # the extra is optional; making an environment says so
    gymnasium = importlib.import_module("gymnasium")
    _Base = gymnasium.Env

LIMIT = np.float32(1e3)
"""Observations are of order one; whatever is beyond is cut."""


_HOME = os.getpid()
"""The process that loaded this module, and with it JAX."""

# Compiled once per problem, whoever asks; an environment holds no function, so that it can be
# copied and sent to another process.


@eqx.filter_jit
def _reset(env: TrackingEnv, key: Key, params: EnvParams) -> EnvState:
    return env.reset(key, params)


@eqx.filter_jit
def _step(
    env: TrackingEnv, key: Key, state: EnvState, share: Array, params: EnvParams
) -> tuple[EnvState, StepInfo]:
    return env.step(key, state, share, params)


@eqx.filter_jit
def _observe(env: TrackingEnv, state: EnvState) -> Array:
    return env.observe(state)


@eqx.filter_jit
def _stage(returns: TrackingReturn, tracked: Array, reference: Array) -> Array:
    return returns.stage(tracked, reference)


@eqx.filter_jit
def _terminal(returns: TrackingReturn, tracked: Array, reference: Array) -> Array:
    return returns.terminal(tracked, reference)


def _key_data(key: Key) -> np.ndarray:
    """Numbers of a key; unlike the key they can be pickled."""
    return np.asarray(jax.random.key_data(key))


def _refuse_a_fork() -> None:
    if os.getpid() != _HOME:
        raise ConfigError(
            "this process was forked from one in which JAX runs, and JAX would wait for threads "
            "that a fork does not have; start the processes with "
            "AsyncVectorEnv(..., context='spawn'), or use SyncVectorEnv."
        )


class GymTracking(_Base):
    """A tracking problem with Gymnasium's interface.

    Actions are places between the bounds of the inputs, from -1 to 1; observations are those of
    our policies. The reward of a step is that of its sampling time, the last one the terminal
    reward. An episode terminates after its steps; time is part of the observation.

    An environment can be copied and pickled, in the middle of an episode too. In a vector
    environment with processes they have to be spawned: JAX runs threads, which a fork loses.

    Raises:
        ConfigError: If Gymnasium is missing, what is given is no problem, or this process is a
            fork of the one that loaded JAX.
    """

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, problem: Problem) -> None:
        if gymnasium is None:
            raise ConfigError("Gymnasium is not installed: pip install 'perfusio-jax[gym]'.")
        if not isinstance(problem, Problem):
            raise ConfigError(f"a Problem is needed, not a {type(problem).__name__}.")
        env = problem.env
        _refuse_a_fork()
        self._problem = problem
        self._state: Any = None
        self._key = _key_data(jax.random.key(0))
        self.observation_space = gymnasium.spaces.Box(-LIMIT, LIMIT, (env.n_observed,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (env.n_inputs,), np.float32)

    def _observed(self) -> np.ndarray:
        seen = np.asarray(_observe(self._problem.env, self._state), np.float32)
        return np.clip(seen, -LIMIT, LIMIT)

    def _next_key(self) -> Key:
        kept, now = jax.random.split(jax.random.wrap_key_data(jnp.asarray(self._key)))
        self._key = _key_data(kept)
        return now

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode; a seed makes it reproducible."""
        _refuse_a_fork()
        super().reset(seed=seed)
        self._key = _key_data(jax.random.key(int(self.np_random.integers(2**31))))
        self._state = _reset(self._problem.env, self._next_key(), self._problem.params)
        return self._observed(), {"state": np.asarray(self._state.x)}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Apply an action.

        Raises:
            ConfigError: If no episode is running, or the action is not finite or misshaped.
        """
        _refuse_a_fork()
        problem = self._problem
        if self._state is None or int(self._state.step) >= problem.env.n_steps:
            raise ConfigError("no episode is running; call reset() first.")
        given = np.asarray(action, float)
        if given.shape != self.action_space.shape or not np.all(np.isfinite(given)):
            raise ConfigError(
                f"the action {action} is not usable: {self.action_space.shape} finite numbers "
                "from -1 to 1 are needed."
            )
        share = 0.5 * (np.clip(given, -1.0, 1.0) + 1.0)
        now = self._next_key()
        self._state, info = _step(problem.env, now, self._state, jnp.asarray(share), problem.params)
        k = int(self._state.step)
        is_over = k == problem.env.n_steps
        worth = _terminal if is_over else _stage
        reward = float(worth(problem.returns, info.tracked, problem.params.reference[k]))
        shown = {
            "state": np.asarray(self._state.x),
            "tracked": np.asarray(info.tracked),
            "inputs": np.asarray(info.inputs),
        }
        return self._observed(), reward, is_over, False, shown
