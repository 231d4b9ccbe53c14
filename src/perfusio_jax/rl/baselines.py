"""Bounds and tuned baselines for the consortium: optimum, ideal growth, PID, MPC."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from perfusio_jax._core import ConfigError, Key
from perfusio_jax.rl.consortium import Consortium
from perfusio_jax.rl.controllers import (
    MPC,
    PID,
    REACH,
    Controller,
    descend,
    run_closed_loop,
    run_inputs,
    smooth_error,
)
from perfusio_jax.rl.environment import EnvParams, Episode, TrackingEnv, check_fit
from perfusio_jax.rl.returns import TrackingReturn
from perfusio_jax.rl.settings import check_count


def ideal_growth(
    plant: Consortium, params: EnvParams, reference: Float[np.ndarray, "T 2"]
) -> Float[np.ndarray, "T 2"]:
    """Biomass of a strain that grows at its maximum until it meets its reference, then follows.

    No light profile does better on a constant reference: it ignores glucose and the pool of
    amino acid that a culture grows on after the light is off.
    """
    top = float(plant.max_growth) - float(plant.dilution)
    hours = float(params.step_h) * np.arange(reference.shape[0])[:, None]
    free = np.asarray(params.initial[1:3])[None] * np.exp(top * hours)
    return np.minimum(free, reference)


SEARCH_RATES = (0.15, 0.3, 0.05)
"""Rates of the descents one after the other."""


class Optimum(NamedTuple):
    """Best open-loop inputs found."""

    z: Float[Array, "N n_u"]
    """Before the bijection."""
    error: Float[Array, ""]
    """Total NAAE, k = 1 ... N [-]."""
    tracked: Float[Array, "T n_ref"]
    all_errors: Float[Array, " starts"]
    """Reached from each start: how much the search depends on where it begins."""


def light_then_hold(
    n_steps: int, hours: tuple[float, ...], hold: tuple[float, float] = (-1.3, -1.9)
) -> Float[Array, "starts N 2"]:
    """Starts of the search: full light for some steps, then about what holds a strain.

    Raises:
        ConfigError: If no hours are given.
    """
    if not hours:
        raise ConfigError("no hours to start from; give one or more.")
    starts = []
    for first in hours:
        for second in hours:
            on = np.arange(n_steps)[:, None] < np.array([[first, second]])
            starts.append(np.where(on, 4.0, np.asarray(hold)[None]))
    return jnp.asarray(np.stack(starts))


def find_optimum(
    env: TrackingEnv,
    params: EnvParams,
    starts: Float[Array, "S N n_u"],
    n_iterations: int = 400,
    returns: TrackingReturn | None = None,
) -> Optimum:
    """Best inputs by gradient through the nominal plant, from many starts.

    Args:
        env: Environment.
        params: Its parameters; the uncertainty is not used.
        starts: Inputs before the bijection.
        n_iterations: Steps of Adam per start and descent, of which there are three.
        returns: What is made as large as possible; if not given, the error as small.

    Returns:
        The best of them, by error or return. A local search: an upper bound of the least error,
        in practice close.

    Raises:
        ConfigError: If starts have another shape than (starts, steps, inputs), or are not finite,
            or there are no iterations.
    """
    wanted = (env.n_steps, env.n_inputs)
    starts = jnp.asarray(starts, float)
    if starts.ndim != 3 or starts.shape[1:] != wanted or not starts.shape[0]:
        raise ConfigError(f"starts have shape {starts.shape}; (starts, *{wanted}) is needed.")
    if not isinstance(starts, Tracer) and not np.all(np.isfinite(starts)):
        raise ConfigError("starts of the search must be finite.")
    check_fit(env, params)
    check_count("n_iterations", n_iterations)
    return _find_optimum(env, params, starts, n_iterations, returns)


@eqx.filter_jit
def _find_optimum(
    env: TrackingEnv,
    params: EnvParams,
    starts: Array,
    n_iterations: int,
    returns: TrackingReturn | None,
) -> Optimum:
    def course(z: Array) -> Array:
        return run_inputs(env, params, params.plant, params.initial, params.bounds.share(z))

    first = env.tracked(params.plant, params.initial)[None]

    def cost(seen: Array) -> Array:
        if returns is None:
            return jnp.mean(smooth_error(seen, params.reference[1:]))
        return -returns(jnp.concatenate([first, seen]), params.reference)

    def one(z: Array) -> tuple[Array, Array, Array]:
        # a wide search, and twice on from its best: one descent often ends short of the bottom
        def on(best: Array, rate: Array) -> tuple[Array, None]:
            best, _ = descend(
                lambda p: cost(course(p)), best, n_iterations=n_iterations, learning_rate=rate
            )
            return best, None

        best, _ = jax.lax.scan(on, z, jnp.asarray(SEARCH_RATES))
        seen = course(best)
        error = jnp.mean(jnp.abs(seen - params.reference[1:]) / params.reference[1:])
        return best, error, error if returns is None else cost(seen)

    points, reached, costs = jax.vmap(one)(starts)
    index = jnp.argmin(jnp.where(jnp.isfinite(costs), costs, jnp.inf))
    tracked = jnp.concatenate([first, course(points[index])])
    return Optimum(points[index], reached[index], tracked, reached)


def tune_pid(
    env: TrackingEnv,
    params: EnvParams,
    *,
    key: Key,
    n_starts: int = 16,
    n_episodes: int = 4,
    n_iterations: int = 150,
) -> tuple[PID, Array]:
    """Gains by gradient through the closed loop, from random starts.

    Args:
        env: Environment.
        params: Its parameters; episodes differ by their uncertainty.
        key: Random key of starts and episodes.
        n_starts: Starts of the search.
        n_episodes: Episodes averaged over.
        n_iterations: Steps of Adam per start.

    Returns:
        The loop with the least mean error, and that error on the episodes of tuning.

    Raises:
        ConfigError: If parameters do not fit, or a number is below one.
    """
    check_fit(env, params)
    check_count("n_starts", n_starts)
    check_count("n_episodes", n_episodes)
    check_count("n_iterations", n_iterations)
    return _tune_pid(env, params, key, n_starts, n_episodes, n_iterations)


@eqx.filter_jit
def _tune_pid(
    env: TrackingEnv, params: EnvParams, key: Key, n_starts: int, n_episodes: int, n_iterations: int
) -> tuple[PID, Array]:
    start_key, episode_key = jax.random.split(key)
    n = env.n_inputs
    keys = jax.random.split(episode_key, n_episodes)
    unit = jax.random.uniform(start_key, (n_starts, 4, n))
    low = jnp.array([-3.0, 0.0, 0.0, 0.0])[None, :, None]
    high = jnp.array([1.0, 8.0, 0.5, 4.0])[None, :, None]
    starts = low + (high - low) * unit

    def loop(gains: Array) -> PID:
        return PID(gains[0], gains[1], gains[2], gains[3])

    def loss(gains: Array) -> Array:
        def one(k: Key) -> Array:
            out = run_closed_loop(env, params, loop(gains), key=k)
            return jnp.mean(smooth_error(out.tracked[1:], params.reference[1:]))

        return jnp.mean(jax.vmap(one)(keys))

    def search(start: Array) -> tuple[Array, Array]:
        return descend(loss, start, n_iterations=n_iterations, learning_rate=0.2)

    gains, reached = jax.vmap(search)(starts)
    index = jnp.argmin(jnp.where(jnp.isfinite(reached), reached, jnp.inf))
    return loop(gains[index]), reached[index]


def make_mpc(
    env: TrackingEnv, first: Array, *, n_scenarios: int = 1, n_iterations: int = 40
) -> MPC:
    """Model-predictive control over the whole rest of an episode, begun at given inputs.

    Raises:
        ConfigError: If the inputs are not one row per step, or not finite, or a number is below
            one.
    """
    wanted = (env.n_steps, env.n_inputs)
    check_count("n_scenarios", n_scenarios)
    check_count("n_iterations", n_iterations)
    if jnp.shape(first) != wanted:
        raise ConfigError(f"first inputs of shape {jnp.shape(first)}; {wanted} is needed.")
    if not isinstance(first, Tracer) and not np.all(np.isfinite(first)):
        raise ConfigError("first inputs must be finite.")
    return MPC(jnp.clip(first, -REACH, REACH), env.n_steps, n_scenarios, n_iterations)


@eqx.filter_jit
def closed_loops(
    env: TrackingEnv,
    params: EnvParams,
    controller: Controller,
    keys: Array,
    truth: EnvParams | None = None,
) -> Episode:
    """Episodes of a controller; the same keys give every controller the same plants.

    Args:
        env: Environment.
        params: What the controller knows.
        controller: The controller.
        keys: One per episode.
        truth: Parameters the plants obey, where they are not the known ones.

    Returns:
        The episodes, batched.
    """
    return jax.vmap(lambda k: run_closed_loop(env, params, controller, key=k, truth=truth))(keys)


class LoopScore(NamedTuple):
    """Scores of closed-loop episodes."""

    error: Float[Array, " E"]
    """Total NAAE, k = 1 ... N [-]."""
    last: Float[Array, " E"]
    """Mean relative error over the last third of the steps [-]."""
    effort: Float[Array, " E"]
    """Mean change of the inputs from step to step, over their range [-]."""
    violations: Float[Array, " E"]
    """Share of sampling times at which a quantity is more than 10 % above its reference [-]."""


def score(params: EnvParams, episodes: Episode) -> LoopScore:
    """Judge episodes."""
    reference = params.reference[None, 1:]
    gap = (episodes.tracked[:, 1:] - reference) / reference
    n = gap.shape[1]
    width = (params.bounds.high - params.bounds.low)[None, None]
    moves = jnp.abs(jnp.diff(episodes.inputs, axis=1)) / width
    over = jnp.any(gap > 0.1, axis=2)
    return LoopScore(
        jnp.mean(jnp.abs(gap), axis=(1, 2)),
        jnp.mean(jnp.abs(gap[:, n - n // 3 :]), axis=(1, 2)),
        jnp.mean(moves, axis=(1, 2)),
        jnp.mean(jnp.asarray(over, gap.dtype), axis=1),
    )
