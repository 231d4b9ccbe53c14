"""REINFORCE as one compiled function of a key.

An epoch draws episodes in parallel and ascends the score-function gradient

    g = 1/E sum_e A_e sum_k grad log p(u_k | o_k)

with A_e the return, less the epoch's mean, over its deviation (the publication's choice), or
one of the unbiased forms. Epochs run in a `while_loop` that ends when the return has not
improved for `patience` epochs; under `vmap`, lanes that have ended stay as they are. Epoch n of
a key draws the same whether the training was resumed, cut into chunks or run in one go.

Reference:
    Williams (1992); Petsagkourakis et al. (2020); Espinel-Rios et al. (2025), equation (12).
"""

from typing import Any, Final, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from perfusio_jax._core import ConfigError, Key, Result, require_x64
from perfusio_jax._core.compiler_flags import check_threads, threads_for
from perfusio_jax.rl.environment import (
    EnvParams,
    Episode,
    TrackingEnv,
    check_fit,
    run_episode,
)
from perfusio_jax.rl.gradients import (
    advantages,
    among_alike,
    clipped_gradient,
    pathwise_gradient,
    score_gradient,
    to_come,
)
from perfusio_jax.rl.policy import GaussianPolicy, check_bounds, log_probability, make_policy
from perfusio_jax.rl.returns import TrackingReturn
from perfusio_jax.rl.settings import TrainSettings, in_precision, share_left

RUNNING: Final = -1
"""Status of a training that may go on."""


class History(NamedTuple):
    """Diagnostics per epoch; NaN (or -1) where none was run."""

    mean_return: Float[Array, " epochs"]
    sd_return: Float[Array, " epochs"]
    error: Float[Array, " epochs"]
    """Mean over episodes, quantities and k = 1 ... N of |x - ref| / ref [-]."""
    error_sd: Float[Array, " epochs"]
    """Its deviation between episodes."""
    gradient_norm: Float[Array, " epochs"]
    spread: Float[Array, " epochs"]
    """Mean spread of the Gaussian over what was observed [-]."""


class TrainState(eqx.Module):
    """Everything a training needs to go on."""

    key: Key
    policy: GaussianPolicy
    best: GaussianPolicy
    """Policy that drew the epoch of the highest mean return."""
    moments: Any
    """State of Adam."""
    epoch: Int[Array, ""]
    """Epochs run."""
    best_epoch: Int[Array, ""]
    best_return: Float[Array, ""]
    status: Int[Array, ""]
    """`RUNNING`, or a result code: SUCCESS (out of patience, or all epochs run), NONFINITE."""
    history: History


class Problem(eqx.Module):
    """What is to be learned."""

    env: TrackingEnv
    params: EnvParams
    returns: TrackingReturn

    def __check_init__(self) -> None:
        check_fit(self.env, self.params)
        n = len(self.env.tracked_names)
        if self.returns.half_saturation.shape[-1:] != (n,):
            raise ConfigError(
                f"the return is of {self.returns.half_saturation.shape[-1:]} quantities; "
                f"{n} are tracked: {', '.join(self.env.tracked_names)}."
            )
        params, k = self.params, self.returns.half_saturation
        wanted = (len(self.env.state_names),)
        if jnp.shape(params.initial) != wanted:
            raise ConfigError(f"the initial state has shape {params.initial.shape}, not {wanted}.")
        if any(isinstance(v, Tracer) for v in jax.tree.leaves((params, self.returns))):
            return  # numbers of a lane are not known yet
        check_bounds(params.bounds)
        reference, k = np.asarray(params.reference), np.asarray(k)
        if not np.all(reference > 0.0):
            raise ConfigError("references must be positive: errors are relative to them.")
        if not np.all(np.isfinite(k) & (k > 0.0)):
            raise ConfigError(f"K is {k}; it must be finite and positive.")


def ascend(
    problem: Problem,
    settings: TrainSettings,
    state: TrainState,
    drawn: tuple[Episode, Array],
    gradient: GaussianPolicy | None,
) -> tuple[GaussianPolicy, Any, Array]:
    """Policy, Adam's state and the (first) gradient's norm after an epoch's ascent.

    The gradient is estimated from what was drawn if it is not given.
    """
    episodes, worth = drawn
    adam: Any = optax.scale_by_adam()
    rate = settings.learning_rate * share_left(settings, state.epoch)

    def move(policy: GaussianPolicy, moments: Any, gradient: GaussianPolicy) -> tuple:
        rise, moments = adam.update(gradient, moments)
        moved = jax.tree.map(lambda p, r: p + rate * r, policy, rise)
        return eqx.tree_at(lambda p: p.floor, moved, policy.floor), moments

    if settings.method == "ppo":
        before = log_probability(state.policy, episodes.observed, episodes.z)
        weights = to_come(problem.returns, problem.params.reference, episodes.tracked)

        def once(carry: tuple, _: None) -> tuple[tuple, Array]:
            policy, moments = carry
            gradient = clipped_gradient(policy, episodes, before, weights, settings.clip)
            return move(policy, moments, gradient), optax.tree.norm(gradient)

        first = (state.policy, state.moments)
        (policy, moments), norms = jax.lax.scan(once, first, None, length=settings.n_passes)
        return policy, moments, norms[0]
    if gradient is None:
        kind = settings.advantage
        if settings.n_per_plant:
            worth = among_alike(worth, settings.n_per_plant, is_mirrored=settings.is_mirrored)
            kind = kind if kind == "normalised" else "plain"  # the baseline is taken off already
        weights = advantages(worth, kind, is_mirrored=settings.is_mirrored)
        gradient = score_gradient(state.policy, episodes, weights)
    policy, moments = move(state.policy, state.moments, gradient)
    return policy, moments, optax.tree.norm(gradient)


def share_out(n_devices: int, *batches: Array) -> tuple[Array, ...]:
    """Split batches over the first devices, along their first axis.

    Raises:
        ConfigError: If there are not as many devices, or they would wait for each other for ever.
    """
    if n_devices == 1:
        return batches
    if n_devices > jax.device_count():
        raise ConfigError(
            f"{n_devices} devices are wanted and there are {jax.device_count()}. For cores, call "
            f'jax.config.update("jax_num_cpu_devices", {n_devices}) before anything is computed, '
            f"with NPROC={threads_for(n_devices)} in the environment."
        )
    if jax.devices()[0].platform == "cpu":
        check_threads(n_devices, jax.local_device_count("cpu"))
    kind = jax.sharding.AxisType.Auto
    mesh = jax.make_mesh((n_devices,), ("episodes",), (kind,), devices=jax.devices()[:n_devices])
    spread = jax.NamedSharding(mesh, jax.P("episodes"))
    return tuple(jax.lax.with_sharding_constraint(batch, spread) for batch in batches)


def draw_epoch(
    problem: Problem,
    policy: GaussianPolicy,
    *,
    n: int,
    key: Key,
    is_mirrored: bool = False,
    n_per_plant: int = 0,
    n_devices: int = 1,
) -> tuple[Episode, Array]:
    """Episodes of one epoch and their returns; mirrored ones come in pairs on one plant.

    Args:
        problem: Environment, parameters and return.
        policy: Policy.
        n: Episodes.
        key: Random key of the epoch.
        is_mirrored: Whether every second episode has the draws of the one before, negated.
        n_per_plant: Consecutive episodes on one plant and start; 0 for a pair, or one.
        n_devices: Devices that share the episodes; it divides their number.

    Returns:
        The episodes, batched, and their returns (n,).
    """
    count = np.arange(n)
    sign = jnp.asarray(1.0 - 2.0 * (count % 2) if is_mirrored else np.ones(n))
    keys = jax.random.split(key, n)[count // 2 if is_mirrored else count]
    plants = keys[count // n_per_plant * n_per_plant] if n_per_plant else keys
    keys, sign, plants = share_out(n_devices, keys, sign, plants)

    def one(k: Key, s: Array, p: Key) -> Episode:
        own = p if n_per_plant else None
        return run_episode(problem.env, problem.params, policy, key=k, sign=s, plant_of=own)

    episodes = jax.vmap(one)(keys, sign, plants)
    worth = jax.vmap(lambda x: problem.returns(x, problem.params.reference))(episodes.tracked)
    return episodes, worth


def errors(problem: Problem, tracked: Float[Array, "E T n"]) -> Float[Array, " E"]:
    """Normalised average absolute error of each episode, k = 1 ... N, mean over quantities."""
    reference = problem.params.reference[None, 1:]
    return jnp.mean(jnp.abs(tracked[:, 1:] - reference) / reference, axis=(1, 2))


def begin(problem: Problem, settings: TrainSettings, *, key: Key) -> TrainState:
    """State before the first epoch.

    Raises:
        PrecisionError: If double precision is asked for and JAX has it switched off.
        ConfigError: If K is nothing in single precision.
    """
    if not settings.is_single:
        require_x64("a training in double precision (or give is_single=True)")
    _check_underflow(problem, settings)
    env = problem.env
    adam: Any = optax.scale_by_adam()
    policy = make_policy(
        env.n_observed,
        env.n_inputs,
        key=jax.random.fold_in(key, 0),
        width=settings.width,
        depth=settings.depth,
        floor=settings.floor,
        dtype=jnp.float32 if settings.is_single else None,
    )
    empty = jnp.full((settings.n_epochs,), jnp.nan)
    return TrainState(
        key=key,
        policy=policy,
        best=policy,
        moments=adam.init(policy),
        epoch=jnp.zeros((), int),
        best_epoch=jnp.zeros((), int),
        best_return=jnp.asarray(-jnp.inf, float),
        status=jnp.asarray(RUNNING, int),
        history=History(*(empty for _ in History._fields)),
    )


def _check_underflow(problem: Problem, settings: TrainSettings) -> None:
    k = problem.returns.half_saturation
    if isinstance(k, Tracer) or not settings.is_single:
        return
    if not np.all(np.asarray(k, np.float32) > 0.0):
        raise ConfigError(f"K is {k}, which is zero in single precision; give a larger one.")


def epoch_key(key: Key, epoch: Array) -> Key:
    """Key of the episodes of an epoch; number 0 is kept for the first weights."""
    return jax.random.fold_in(key, epoch + 1)


def one_epoch(problem: Problem, settings: TrainSettings, state: TrainState) -> TrainState:
    """Draw, judge, keep the best, ascend."""

    def draw(policy: GaussianPolicy) -> tuple[Episode, Array]:
        return draw_epoch(
            problem,
            policy,
            n=settings.n_episodes,
            key=epoch_key(state.key, state.epoch),
            is_mirrored=settings.is_mirrored,
            n_per_plant=settings.n_per_plant,
            n_devices=settings.n_devices,
        )

    gradient = None
    if settings.method == "pathwise":
        gradient, drawn = pathwise_gradient(draw, state.policy)
    else:
        drawn = draw(state.policy)
    episodes, worth = drawn
    moved, moments, norm = ascend(problem, settings, state, drawn, gradient)
    floor = settings.floor * share_left(settings, state.epoch + 1)
    moved = eqx.tree_at(lambda p: p.floor, moved, floor)
    mean = jnp.mean(worth)
    is_fine = jnp.isfinite(mean) & jnp.isfinite(norm)
    is_better = is_fine & (mean > state.best_return)

    def choose(condition: Bool[Array, ""], yes: Any, no: Any) -> Any:
        return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)

    best_epoch = jnp.where(is_better, state.epoch, state.best_epoch)
    each = errors(problem, episodes.tracked)
    _, spread = state.policy(episodes.observed)
    seen = History(mean, jnp.std(worth), jnp.mean(each), jnp.std(each), norm, jnp.mean(spread))
    history = History(*(h.at[state.epoch].set(v) for h, v in zip(state.history, seen, strict=True)))
    is_over = (state.epoch - best_epoch >= settings.patience) | (
        state.epoch + 1 >= settings.n_epochs
    )
    status = jnp.where(is_over, Result.SUCCESS.value, RUNNING)
    return TrainState(
        key=state.key,
        policy=choose(is_fine, moved, state.policy),
        best=choose(is_better, state.policy, state.best),
        moments=choose(is_fine, moments, state.moments),
        epoch=state.epoch + 1,
        best_epoch=best_epoch,
        best_return=jnp.where(is_better, mean, state.best_return),
        status=jnp.where(is_fine, status, Result.NONFINITE.value),
        history=history,
    )


def continue_training(
    problem: Problem, settings: TrainSettings, state: TrainState, until: Int[Array, ""] | int
) -> TrainState:
    """Run epochs until a number of them, or until the training is over.

    Raises:
        ConfigError: If the training was begun in the other precision.
    """
    problem, settings = in_precision((problem, settings), settings)
    begun = jax.tree.leaves(state.policy)[0].dtype
    if begun != settings.learning_rate.dtype:
        raise ConfigError(
            f"the training was begun in {begun} and its settings are in "
            f"{settings.learning_rate.dtype}; go on with the precision it was begun in."
        )
    return jax.lax.while_loop(
        lambda s: (s.status == RUNNING) & (s.epoch < until),
        lambda s: one_epoch(problem, settings, s),
        state,
    )


def train(problem: Problem, settings: TrainSettings, *, key: Key) -> TrainState:
    """Train one policy: a pure function of a key.

    `jax.vmap` it over keys for seeds, and over `problem.returns` for a screening.

    Args:
        problem: Environment, its parameters and the return.
        settings: Settings.
        key: Random key.

    Returns:
        The last state; `best` is the policy to use.
    """
    return continue_training(
        problem, settings, begin(problem, settings, key=key), settings.n_epochs
    )


class Evaluation(NamedTuple):
    """Episodes of a policy and their errors."""

    episodes: Episode
    returns: Float[Array, " E"]
    error: Float[Array, " E"]
    """k = 1 ... N."""
    error_from_start: Float[Array, " E"]
    """k = 0 ... N."""


def evaluate(
    problem: Problem,
    policy: Any,
    *,
    n: int,
    key: Key,
    is_mirrored: bool = False,
    n_per_plant: int = 0,
) -> Evaluation:
    """Run a policy: its best epoch again (the same key gives the same episodes), or afresh.

    Args:
        problem: Environment, its parameters and the return.
        policy: From what is observed to mean and spread of its draws.
        n: Episodes.
        key: Random key; all episodes are drawn from it.
        is_mirrored: Whether every second episode has the draws of the one before, negated.
        n_per_plant: Consecutive episodes on one plant and start; 0 for a pair, or one.

    Returns:
        The episodes, and per episode its return and its error relative to the references [-],
        without the start and with it.

    Raises:
        ConfigError: If there is no episode, or the number leaves a pair or a plant unfinished.
    """
    if n < 1 or n % max(n_per_plant, 2 if is_mirrored else 1):
        raise ConfigError(
            f"{n} episodes, mirrored: {is_mirrored}, {n_per_plant} per plant; one or more are "
            "needed, and whole pairs and plants."
        )
    episodes, worth = draw_epoch(
        problem, policy, n=n, key=key, is_mirrored=is_mirrored, n_per_plant=n_per_plant
    )
    reference = problem.params.reference[None]
    whole = jnp.mean(jnp.abs(episodes.tracked - reference) / reference, axis=(1, 2))
    return Evaluation(episodes, worth, errors(problem, episodes.tracked), whole)


def best_epoch_again(problem: Problem, settings: TrainSettings, state: TrainState) -> Evaluation:
    """The episodes of the best epoch, drawn once more with its own key.

    Args:
        problem: What the policy was trained on.
        settings: Settings of the training; they say how many episodes, and in which precision.
        state: Where the training stands.

    Returns:
        Episodes of `state.best`, their returns and errors.
    """
    key = epoch_key(state.key, state.best_epoch)
    return evaluate(
        in_precision(problem, settings),
        state.best,
        n=settings.n_episodes,
        key=key,
        is_mirrored=settings.is_mirrored,
        n_per_plant=settings.n_per_plant,
    )


class MeanPolicy(eqx.Module):
    """A policy without its randomness."""

    policy: GaussianPolicy

    def __call__(self, observed: Array) -> tuple[Array, Array]:
        """Mean, and no spread."""
        mean, _ = self.policy(observed)
        return mean, jnp.zeros_like(mean)
