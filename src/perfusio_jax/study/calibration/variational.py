"""The posterior as one normal law: at its most probable point, or fitted to the whole of it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from jaxtyping import Array, Float
from numpyro.distributions import constraints
from numpyro.infer import SVI, Trace_ELBO

from perfusio_jax._core import Key, SimulationError
from perfusio_jax._core.programs import compiled
from perfusio_jax._core.progress import compiling
from perfusio_jax.study.calibration.chains import tail_shape
from perfusio_jax.study.calibration.model import White, potential, potentials
from perfusio_jax.study.calibration.problem import Problem

N_DRAWS = 1000
"""Draws of a normal law."""
_LOOKED_AT = 200
"""Draws that are compared with the posterior itself."""
_PARTICLES = 4
"""Points at which the bound is averaged in each step."""
_PART = 50
_RATE = 2e-2
"""First step length [posterior standard deviations]; it falls to a twentieth."""
_SURE = 4.0
"""Standard errors within which two parts of a fit are the same [-]."""


class NormalLaw(NamedTuple):
    """A posterior that is taken for normal."""

    u: Float[np.ndarray, "1 S D"]
    """Draws."""
    tail: float
    """How heavy the tail of target over law is, at its draws [-]; above 0.7 it does not fit."""
    is_converged: bool
    """Whether the fit came to its end."""
    n_gradients: int
    """How many derivatives the fit took."""


def at_the_top(problem: Problem, white: White, n_rows: int, *, key: Key) -> NormalLaw:
    """The normal law with the curvature of the most probable point.

    Args:
        problem: What is asked.
        white: Coordinates around that point.
        n_rows: Points that are evaluated at once.
        key: Random key.
    """
    size = white.centre.size
    return _judged(problem, white, (jnp.zeros(size), jnp.eye(size)), n_rows, key)


def fitted_law(
    problem: Problem,
    white: White,
    n_rows: int,
    *,
    key: Key,
    n_steps: int = 1000,
    on_part: Callable[[int, int], None] | None = None,
) -> NormalLaw:
    """The normal law nearest to the posterior, by stochastic variational inference.

    Args:
        problem: What is asked.
        white: Coordinates around its most probable point, where the fit begins.
        n_rows: Points that are evaluated at once when it is judged.
        key: Random key.
        n_steps: Steps of the fit.
        on_part: Told the steps done and those to come.

    Raises:
        SimulationError: If the fit meets runs that cannot be simulated.

    Reference:
        Kucukelbir et al. (2017), JMLR 18(14); the bound and its derivative are NumPyro's.
    """
    for_fit, for_draws = jax.random.split(key)
    n_parts = max(4, -(-n_steps // _PART))
    total = n_parts * _PART
    state = _first(problem, white, total, for_fit)
    losses = []
    for turn in range(n_parts):
        state, loss = _part(problem, white, state, total)
        losses.append(np.asarray(loss))
        if not np.all(np.isfinite(losses[-1])):
            raise SimulationError(
                "the variational fit met runs that cannot be simulated; sample instead (nuts)."
            )
        if on_part is not None:
            on_part((turn + 1) * _PART, total - (turn + 1) * _PART)
    law = _law(problem, white, state, total)
    found = _judged(problem, white, law, n_rows, for_draws)
    return found._replace(is_converged=_is_settled(losses), n_gradients=_PARTICLES * total)


def _is_settled(losses: list[np.ndarray]) -> bool:
    """Whether the last quarter of a fit is no better than the one before."""
    n = len(losses) // 4
    last, before = (np.concatenate(v) for v in (losses[-n:], losses[-2 * n : -n]))
    error = np.hypot(*(np.std(v, ddof=1) / np.sqrt(v.size) for v in (last, before)))
    return bool(np.mean(before) - np.mean(last) < _SURE * error)


def _model(problem: Problem, white: White) -> None:
    """The posterior in white coordinates; its prior is part of the potential."""
    v = numpyro.sample("v", dist.ImproperUniform(constraints.real_vector, (), (white.centre.size,)))
    with numpyro.handlers.block():  # names of the model below are no names of this one
        value = potential(problem, white, jnp.asarray(v))
    numpyro.factor("posterior", -value)


def _guide(problem: Problem, white: White) -> None:
    """The normal law."""
    size = white.centre.size
    centre = numpyro.param("centre", jnp.zeros(size))
    scale = numpyro.param("scale", jnp.eye(size), constraint=constraints.scaled_unit_lower_cholesky)
    numpyro.sample("v", dist.MultivariateNormal(centre, scale_tril=scale))


def _fit(total: int) -> SVI:
    steps = optax.exponential_decay(_RATE, total, 0.05)
    return SVI(_model, _guide, optax.adam(steps), Trace_ELBO(num_particles=_PARTICLES))


def _first(problem: Problem, white: White, total: int, key: Key) -> Any:
    # the point the model is looked at to learn its names is never computed
    return jax.jit(lambda k: _fit(total).init(k, problem, white))(key)


@compiled
def _part(problem: Problem, white: White, state: Any, total: int) -> tuple[Any, Array]:
    """Some steps of a fit."""
    compiling("the variational fit")
    fit = _fit(total)
    jax.eval_shape(lambda k: fit.init(k, problem, white), state.rng_key)  # it learns its names

    def step(state: Any, _: None) -> tuple[Any, Array]:
        return fit.update(state, problem, white)

    return jax.lax.scan(step, state, None, length=_PART)


def _law(problem: Problem, white: White, state: Any, total: int) -> tuple[Array, Array]:
    fit = _fit(total)
    jax.eval_shape(lambda k: fit.init(k, problem, white), state.rng_key)
    found = fit.get_params(state)
    return found["centre"], found["scale"]


def _judged(
    problem: Problem, white: White, law: tuple[Array, Array], n_rows: int, key: Key
) -> NormalLaw:
    centre, scale = (np.asarray(v) for v in law)
    e = np.asarray(jax.random.normal(key, (N_DRAWS, centre.size)))
    v = centre + e @ scale.T
    n = max(1, _LOOKED_AT // n_rows)
    target = [
        -np.asarray(potentials(problem, white, jnp.asarray(rows))[0])
        for rows in v[: n * n_rows].reshape(n, n_rows, -1)
    ]
    own = -0.5 * np.sum(e[: n * n_rows] ** 2, axis=1)
    u = np.asarray(white.centre) + v @ np.asarray(white.scale).T
    return NormalLaw(u[None], tail_shape(np.concatenate(target) - own), True, 0)
