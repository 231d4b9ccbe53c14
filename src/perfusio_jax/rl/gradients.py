"""Estimates of a return's gradient, and the weights of episodes in them."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from perfusio_jax.rl.environment import Episode
from perfusio_jax.rl.policy import GaussianPolicy, log_probability
from perfusio_jax.rl.returns import TrackingReturn


def advantages(
    returns: Float[Array, " E"], kind: str, *, is_mirrored: bool = False
) -> Float[Array, " E"]:
    """Weights of the episodes' score functions.

    Args:
        returns: Returns of an epoch.
        kind: "plain" (unbiased), "leave_one_out" (unbiased: the mean of the others is the
            baseline), "centred" (shrunk: by 1 - 1/E, and with mirrored draws what moves the
            spread by 1 - 2/E), or "normalised" (right in direction).
        is_mirrored: Whether episodes come in pairs of opposite draws. A partner is not one of
            the others: its draws are not independent.
    """
    if kind == "plain":
        return returns
    if kind == "leave_one_out":
        return among_alike(returns, returns.shape[0], is_mirrored=is_mirrored)
    centred = returns - jnp.mean(returns)
    if kind == "centred":
        return centred
    # equal returns weigh nothing: what is left of them are roundings of their mean
    eps = jnp.finfo(returns.dtype).eps * (1.0 + returns.shape[0] * jnp.abs(jnp.mean(returns)))
    return centred / (jnp.std(returns) + eps)


def among_alike(
    returns: Float[Array, " E"], n_per_plant: int, *, is_mirrored: bool
) -> Float[Array, " E"]:
    """Returns less the mean of the other episodes on the same plant: unbiased weights.

    A mirrored partner is not among the others: its draws are not independent.
    """
    groups = returns.reshape(-1, n_per_plant)
    own = groups
    if is_mirrored:
        own = jnp.repeat(groups.reshape(len(groups), -1, 2).sum(axis=2), 2, axis=1)
    n_own = 2 if is_mirrored else 1
    others = (jnp.sum(groups, axis=1, keepdims=True) - own) / (n_per_plant - n_own)
    return (groups - others).reshape(-1)


def _but_the_floor(gradient: GaussianPolicy) -> GaussianPolicy:
    """The floor of the spread is set, not learned."""
    return eqx.tree_at(lambda g: g.floor, gradient, replace_fn=jnp.zeros_like)


def score_gradient(
    policy: GaussianPolicy, episodes: Episode, weights: Float[Array, " E"]
) -> GaussianPolicy:
    """Estimate of the gradient of the expected return, as a policy-shaped tree."""

    def objective(p: GaussianPolicy) -> Array:
        return jnp.mean(weights * jnp.sum(log_probability(p, episodes.observed, episodes.z), -1))

    return _but_the_floor(jax.grad(objective)(policy))


def pathwise_gradient(
    draw: Callable[[GaussianPolicy], tuple[Episode, Array]], policy: GaussianPolicy
) -> tuple[GaussianPolicy, tuple[Episode, Array]]:
    """Derivative of the mean return through policy and plant, with the draws held.

    Args:
        draw: Episodes and returns of a policy, the same draws in every call.
        policy: The policy.

    Returns:
        The gradient, and what was drawn.
    """

    def objective(p: GaussianPolicy) -> tuple[Array, tuple[Episode, Array]]:
        drawn = draw(p)
        return jnp.mean(drawn[1]), drawn

    gradient, drawn = jax.grad(objective, has_aux=True)(policy)
    return _but_the_floor(gradient), drawn


def to_come(
    returns: TrackingReturn, reference: Float[Array, "T n"], tracked: Float[Array, "E T n"]
) -> Float[Array, "E N"]:
    """Rewards still to come at each step, against their mean over the epoch, scaled."""
    rewards = jax.vmap(lambda x: returns.rewards(x, reference))(tracked)
    rest = jnp.cumsum(rewards[:, ::-1], axis=1)[:, ::-1]
    centred = rest - jnp.mean(rest, axis=0, keepdims=True)
    return centred / (jnp.std(centred) + jnp.finfo(centred.dtype).eps)


def clipped_gradient(
    policy: GaussianPolicy,
    episodes: Episode,
    before: Float[Array, "E N"],
    weights: Float[Array, "E N"],
    clip: Float[Array, ""],
) -> GaussianPolicy:
    """Gradient of the clipped surrogate of Schulman et al. (2017)."""

    def objective(p: GaussianPolicy) -> Array:
        ratio = jnp.exp(log_probability(p, episodes.observed, episodes.z) - before)
        held = jnp.clip(ratio, 1.0 - clip, 1.0 + clip)
        return jnp.mean(jnp.sum(jnp.minimum(ratio * weights, held * weights), axis=-1))

    return _but_the_floor(jax.grad(objective)(policy))
