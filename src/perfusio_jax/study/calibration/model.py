"""The model: what is unknown, its prior, and the density of what was recorded.

    constants   z ~ N(0, 1)                     prior standard deviations
    clones      c ~ N(0, 1),  s ~ N(0, 1)       constants of a clone: z + 0.3 exp(0.7 s) c
    starts      w ~ N(0, 1)                     logarithm over the first sample
    noise       f ~ N(0, 1)                     factor on an assay's deviation: exp(0.5 f)

    readings    p(readings, limits | z, c, s, w, f)

Clones are written off centre: what is sampled is how far a clone lies from the common constants in
units of how far clones lie, so that few clones make no funnel. Everything is standard normal before
the data, which leaves nothing to transform and one unit for all.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.infer.util import log_density

from perfusio_jax._core.programs import compiled
from perfusio_jax._core.progress import compiling
from perfusio_jax.study.calibration.likelihood import log_likelihoods
from perfusio_jax.study.calibration.problem import Problem


class White(NamedTuple):
    """Coordinates in which the posterior is nearly a standard normal: u = centre + scale v."""

    centre: Float[Array, " D"]
    """Where readings and priors agree best."""
    scale: Float[Array, "D D"]
    """Square root: the covariance there is nearly scale scale^T."""


def process_model(problem: Problem) -> None:
    """The model of a problem, for NumPyro.

    Args:
        problem: What is asked.
    """
    part = {
        name: jnp.asarray(
            numpyro.sample(name, dist.Normal(0.0, 1.0).expand(shape).to_event(len(shape)))
        )
        for name, shape in problem.sizes.items()
    }
    found = log_likelihoods(problem, problem.by_run(part), problem.log_factors(part))
    numpyro.factor("readings", jnp.sum(found))


def log_posterior(problem: Problem, u: Float[Array, " D"]) -> Float[Array, ""]:
    """Logarithm of the posterior density, up to a constant that no unknown moves."""
    return jnp.asarray(log_density(process_model, (problem,), {}, problem.unflat(u))[0])


def potential(problem: Problem, white: White, v: Float[Array, " D"]) -> Float[Array, ""]:
    """Negative logarithm of the posterior in white coordinates; infinity where nothing runs."""
    value = -log_posterior(problem, white.centre + white.scale @ v)
    return jnp.where(jnp.isnan(value), jnp.inf, value)


@compiled
def potentials(
    problem: Problem, white: White, v: Float[Array, "C D"]
) -> tuple[Float[Array, " C"], Float[Array, "C D"]]:
    """Potentials of several points and their slopes.

    Args:
        problem: What is asked.
        white: Coordinates.
        v: Points.
    """
    compiling("the posterior and its derivative")
    return jax.vmap(eqx.filter_value_and_grad(lambda p: potential(problem, white, p)))(v)
