"""What is known of one clone's vector when its data are few.

The vector is not a number to be found but one to be uncertain about: with two runs the
evidence leaves room, and a forecast has to show it. Everything else stays at its optimum.
"""

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from perfusio_jax._core import ConfigError, Key, Scalar
from perfusio_jax._core.programs import compiled

Method = Literal["laplace", "nuts"]
"""How the posterior is computed."""

_STEP = 1e-4

LogDensity = Callable[[Any, Array], Scalar]
"""`(model, vector) -> log density`, up to a constant."""


class EmbeddingPosterior(eqx.Module):
    """Distribution of one clone's vector."""

    mean: Float[Array, " D"]
    """Mode (Laplace) or mean (NUTS) [kernel lengths]."""
    covariance: Float[Array, "D D"]
    """Covariance [kernel lengths squared]."""
    samples: Float[Array, "S D"] | None = None
    """Draws of a Markov chain, if there is one."""

    def draws(self, n: int, *, key: Key) -> Float[Array, "n D"]:
        """Vectors drawn from the posterior.

        Args:
            n: Number of draws; a chain's are thinned evenly, or repeated if it is shorter.
            key: Random key.
        """
        if self.samples is not None:
            size = self.samples.shape[0]
            return self.samples[(jnp.arange(n) * size) // max(n, 1) % size]
        root = jnp.linalg.cholesky(self.covariance)
        z = jax.random.normal(key, (n, self.mean.shape[0]))
        return self.mean[None, :] + z @ root.T


@compiled
def laplace(
    log_density: LogDensity,
    model: Any,
    start: Float[Array, " D"],
    *,
    spread: Scalar,
    max_steps: int = 60,
) -> EmbeddingPosterior:
    """Normal approximation around the mode.

    Args:
        log_density: Log density of a vector given a model, prior included.
        model: Handed to `log_density`.
        start: Where the search of the mode begins.
        spread: Prior standard deviation; no direction is left more uncertain than twice it.
        max_steps: Evaluations of the search.

    Returns:
        Mode and covariance. Directions in which the density is not peaked (a mode at the end
        of a plateau) take the prior's spread.
    """
    import optimistix as optx

    def loss(vector: Array, _: Any) -> Array:
        value = -log_density(model, vector)
        return jnp.where(jnp.isfinite(value), value, jnp.inf)

    found = optx.minimise(
        loss,
        optx.BFGS(rtol=1e-5, atol=1e-5),
        start,
        max_steps=max_steps,
        options={"autodiff_mode": "bwd"},
        throw=False,
    )
    is_fine = jnp.all(jnp.isfinite(found.value))
    mode = jnp.where(is_fine, found.value, start)
    # differences of the gradient: the evidence comes from an eigendecomposition, whose second
    # derivative does not exist where eigenvalues repeat, as those of padding rows do
    slope = jax.grad(lambda v: -log_density(model, v))
    step = _STEP * spread
    sides = [
        jax.lax.map(lambda d, h=h: slope(mode + h * d), jnp.eye(mode.shape[0], dtype=mode.dtype))
        for h in (step, -step)
    ]
    hessian = (sides[0] - sides[1]) / (2.0 * step)
    hessian = 0.5 * (hessian + hessian.T)
    floor = 0.25 / spread**2
    hessian = jnp.where(jnp.all(jnp.isfinite(hessian)), hessian, floor * jnp.eye(mode.shape[0]))
    values, axes = jnp.linalg.eigh(hessian)
    variance = 1.0 / jnp.maximum(values, floor)
    return EmbeddingPosterior(mode, (axes * variance[None, :]) @ axes.T)


def nuts(
    log_density: LogDensity,
    model: Any,
    start: Float[Array, " D"],
    *,
    key: Key,
    n_samples: int = 200,
    n_warmup: int = 200,
) -> EmbeddingPosterior:
    """Draws by the no-U-turn sampler; every step costs one evidence, so for small data.

    Args:
        log_density: Log density of a vector given a model, prior included.
        model: Handed to `log_density`.
        start: Where the chain begins.
        key: Random key.
        n_samples: Draws kept.
        n_warmup: Draws of the adaptation.

    Returns:
        Mean, covariance and draws.

    Raises:
        ConfigError: If a number of draws is too small.

    Reference:
        Hoffman, Gelman (2014); the implementation is NumPyro's.
    """
    if n_samples < 2 or n_warmup < 1:
        raise ConfigError(
            f"n_samples={n_samples}, n_warmup={n_warmup}; at least 2 and 1 are needed."
        )
    from numpyro.infer import MCMC, NUTS

    kernel = NUTS(potential_fn=lambda v: -log_density(model, v))
    chain = MCMC(kernel, num_warmup=n_warmup, num_samples=n_samples, progress_bar=False)
    chain.run(key, init_params=start)
    samples = jnp.asarray(chain.get_samples())
    mean = jnp.mean(samples, axis=0)
    away = samples - mean[None, :]
    return EmbeddingPosterior(mean, away.T @ away / (n_samples - 1), samples)
