"""The environment as other people's agents expect it: Gymnasium (extra `gym`)."""

import contextlib
import importlib
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import ConfigError
from perfusio_jax.rl.reinforce import Problem

gymnasium: Any = None
_Base: Any = object
with contextlib.suppress(ImportError):  # the extra is optional; making an environment says so
    gymnasium = importlib.import_module("gymnasium")
    _Base = gymnasium.Env

LIMIT = np.float32(1e3)
"""Observations are of order one; whatever is beyond is cut."""


class GymTracking(_Base):
    """A tracking problem with Gymnasium's interface.

    Actions are places between the bounds of the inputs, from -1 to 1; observations are those of
    our policies. The reward of a step is that of its sampling time, the last one the terminal
    reward. An episode terminates after its steps; time is part of the observation.
    """

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, problem: Problem) -> None:
        if gymnasium is None:
            raise ConfigError("Gymnasium is not installed: pip install 'perfusio-jax[gym]'.")
        if not isinstance(problem, Problem):
            raise ConfigError(f"a Problem is needed, not a {type(problem).__name__}.")
        env = problem.env
        self._problem = problem
        self._state: Any = None
        self._key = jax.random.key(0)
        self.observation_space = gymnasium.spaces.Box(-LIMIT, LIMIT, (env.n_observed,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (env.n_inputs,), np.float32)
        self._reset = eqx.filter_jit(env.reset)
        self._step = eqx.filter_jit(env.step)
        self._observe = eqx.filter_jit(env.observe)
        self._stage = eqx.filter_jit(problem.returns.stage)
        self._terminal = eqx.filter_jit(problem.returns.terminal)

    def _observed(self) -> np.ndarray:
        seen = np.asarray(self._observe(self._state), np.float32)
        return np.clip(seen, -LIMIT, LIMIT)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode; a seed makes it reproducible."""
        super().reset(seed=seed)
        self._key = jax.random.key(int(self.np_random.integers(2**31)))
        self._key, first = jax.random.split(self._key)
        self._state = self._reset(first, self._problem.params)
        return self._observed(), {"state": np.asarray(self._state.x)}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Apply an action.

        Raises:
            ConfigError: If no episode is running, or the action is not finite or misshaped.
        """
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
        self._key, now = jax.random.split(self._key)
        self._state, info = self._step(now, self._state, jnp.asarray(share), problem.params)
        k = int(self._state.step)
        is_over = k == problem.env.n_steps
        worth = self._terminal if is_over else self._stage
        reward = float(worth(info.tracked, problem.params.reference[k]))
        shown = {
            "state": np.asarray(self._state.x),
            "tracked": np.asarray(info.tracked),
            "inputs": np.asarray(info.inputs),
        }
        return self._observed(), reward, is_over, False, shown
