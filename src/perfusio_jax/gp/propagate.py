"""One step of a forecast by moments: mean and covariance of the state, no paths.

The rate is written as its regression on the state plus a remainder that the state does not
explain, `R(x) = h(x) + a + G (x - m) + r`, with `a`, `G` and the covariance of `r` from the
closed-form moments (or, by cubature, `a + G (x - m)` is the posterior mean itself). The mean
function `h` and the step are taken through spherical-radial cubature over the state; the
remainder passes by the step's derivative in the rate. For a step that is linear in state and
rate, and no mean function, the result is exact.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from perfusio_jax.gp.exact_gp import MultiTaskRateGP
from perfusio_jax.gp.moments import rate_moments


class StepMoments(NamedTuple):
    """Law of the next state."""

    mean: Float[Array, " S"]
    """Mean."""
    covariance: Float[Array, "S S"]
    """Covariance."""
    cross: Float[Array, "S S"]
    """Covariance of the state before (rows) with the one after (columns)."""


def step_moments(
    model: MultiTaskRateGP,
    step: Any,
    mean: Float[Array, " S"],
    covariance: Float[Array, "S S"],
    controls: Float[Array, " m"],
    rest: Float[Array, " R"],
    noise: Float[Array, "S S"],
    *,
    is_closed: bool = True,
) -> StepMoments:
    """Mean and covariance of the state after one step.

    Args:
        model: Conditioned model.
        step: Callable (state, rate, controls) -> next state.
        mean: Mean of the state.
        covariance: Its covariance; zero for a known state.
        controls: Set-points of the step.
        rest: Raw columns besides the state: controls, clone, day.
        noise: Covariance of the process noise of the rate.
        is_closed: Closed-form moments of the process, or cubature for those too.

    Returns:
        Moments of the next state and their covariance with the present one.
    """
    size = mean.shape[0]
    floor = 1e-13 * (jnp.max(jnp.diagonal(covariance)) + 1e-30)
    factor = jnp.linalg.cholesky(covariance + floor * jnp.eye(size))
    radius = jnp.sqrt(jnp.asarray(size, mean.dtype))
    unit = radius * jnp.concatenate([jnp.eye(size), -jnp.eye(size)], axis=0)
    points = mean[None, :] + unit @ factor.T
    count = points.shape[0]
    rows = jnp.concatenate([points, jnp.broadcast_to(rest[None, :], (count, rest.size))], axis=1)
    if is_closed:
        law = rate_moments(model, mean, covariance, rest)
        # in the cubature's own coordinates: cov(x) = L L', so G L = cross' L^-T
        slope = jax.scipy.linalg.solve_triangular(factor, law.cross, lower=True).T
        rates = model.mean_at(rows) + law.mean[None, :] + unit @ slope.T
        left = law.covariance - slope @ slope.T + noise
        spread = jnp.broadcast_to(left[None, :, :], (count, size, size))
    else:
        rates, posterior = model.posterior(rows)
        spread = posterior + noise[None, :, :]

    def move(state: Array, rate: Array) -> Array:
        return step(state, rate, controls)

    moved = jax.vmap(move)(points, rates)
    gain = jax.vmap(jax.jacfwd(lambda rate, state: move(state, rate)))(rates, points)
    inner = jnp.einsum("pij,pjk,plk->il", gain, spread, gain) / count
    centre = jnp.mean(moved, axis=0)
    apart = moved - centre[None, :]
    after = apart.T @ apart / count + inner
    return StepMoments(centre, 0.5 * (after + after.T), (points - mean[None, :]).T @ apart / count)


class MomentPath(NamedTuple):
    """Moments along a horizon."""

    mean: Float[Array, "H S"]
    """Mean per step."""
    covariance: Float[Array, "H S S"]
    """Covariance per step."""
    gain: Float[Array, "H S S"]
    """Regression of the state on the one before it."""
    left: Float[Array, "H S S"]
    """Covariance that the state before does not explain."""


def moment_path(
    model: MultiTaskRateGP,
    step: Any,
    start: Float[Array, " S"],
    covariance: Float[Array, "S S"],
    controls: Float[Array, "H m"],
    rest: Float[Array, "H R"],
    noise: Float[Array, "S S"],
    *,
    is_closed: bool = True,
) -> MomentPath:
    """Chain `step_moments` over a horizon.

    Args:
        model: Conditioned model.
        step: Callable (state, rate, controls) -> next state.
        start: Mean of the state at the start.
        covariance: Its covariance.
        controls: Set-points per step.
        rest: Raw columns besides the state, per step.
        noise: Covariance of the process noise of the rate.
        is_closed: Closed-form moments, or cubature throughout.

    Returns:
        Moments of every step and the Gauss-Markov chain that has them.
    """

    def body(carry: Any, xs: Any) -> Any:
        mean, spread = carry
        control, others = xs
        after = step_moments(model, step, mean, spread, control, others, noise, is_closed=is_closed)
        floor = 1e-12 * (jnp.max(jnp.diagonal(spread)) + 1e-30)
        gain = jnp.linalg.solve(spread + floor * jnp.eye(mean.size), after.cross).T
        left = after.covariance - gain @ after.cross
        result = MomentPath(after.mean, after.covariance, gain, 0.5 * (left + left.T))
        return (after.mean, after.covariance), result

    return jax.lax.scan(body, (start, covariance), (controls, rest))[1]


def draw_chain(path: MomentPath, normal: Float[Array, "H P S"]) -> Float[Array, "P H S"]:
    """Paths of the Gauss-Markov chain with the propagated moments.

    Args:
        path: Moments along the horizon.
        normal: Standard normal numbers.

    Returns:
        Paths; their marginals and the covariance of neighbouring steps are those of `path`.
    """

    def root(matrix: Array) -> Array:
        values, vectors = jnp.linalg.eigh(matrix)
        return vectors * jnp.sqrt(jnp.maximum(values, 0.0))[None, :]

    def body(apart: Array, xs: Any) -> Any:
        gain, left, draw = xs
        after = apart @ gain.T + draw @ root(left).T
        return after, after

    # the start is known, or its spread is part of the first step's covariance
    first = jnp.zeros(normal.shape[1:], normal.dtype)
    roots = path.left.at[0].set(path.covariance[0])
    _, apart = jax.lax.scan(body, first, (path.gain, roots, normal))
    return (path.mean[:, None, :] + apart).transpose(1, 0, 2)
