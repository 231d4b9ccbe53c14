"""Hyper-priors: what a modeller would say about the parameters before seeing data."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from perfusio_jax._core import Scalar
from perfusio_jax.gp.kernels import PerfusionKernel


def _leaf(value: float | Array) -> Array:
    return jnp.asarray(value, float)


def log_normal(value: Float[Array, "..."], median: Scalar, spread: Scalar) -> Float[Array, "..."]:
    """Log density of `log(value)` under a normal, without constants.

    Args:
        value: Above zero.
        median: Its median, same unit.
        spread: Standard deviation of its natural logarithm [-].

    Returns:
        Log density up to a constant.
    """
    return -0.5 * (jnp.log(value / median) / spread) ** 2


class HyperPriors(eqx.Module):
    """Priors on the logarithms of scaled parameters, and a normal one on the task factor.

    Inputs are scaled to unit spread and targets to unit size, so the same numbers serve
    every data set. Long lengthscales are preferred, the more so the more inputs there are.
    """

    lengthscale_median: Scalar = eqx.field(converter=_leaf, default=4.0)
    """Median lengthscale [input spreads]."""
    lengthscale_spread: Scalar = eqx.field(converter=_leaf, default=0.9)
    """Spread of its logarithm [-]."""
    day_median: Scalar = eqx.field(converter=_leaf, default=0.1)
    """Median variance of the linear day term relative to the constant [-]."""
    day_spread: Scalar = eqx.field(converter=_leaf, default=1.0)
    """Spread of its logarithm [-]."""
    signal_median: Scalar = eqx.field(converter=_leaf, default=0.5)
    """Median of the index kernel's diagonal [scaled target squared]."""
    signal_spread: Scalar = eqx.field(converter=_leaf, default=1.5)
    """Spread of its logarithm [-]."""
    factor_spread: Scalar = eqx.field(converter=_leaf, default=0.7)
    """Standard deviation of the index kernel's factor [scaled target]."""
    noise_median: Scalar = eqx.field(converter=_leaf, default=0.1)
    """Median noise variance [scaled target squared]."""
    noise_spread: Scalar = eqx.field(converter=_leaf, default=1.5)
    """Spread of its logarithm [-]."""

    def log_density(self, kernel: PerfusionKernel, noise: Float[Array, " T"]) -> Scalar:
        """Sum of all log priors.

        Args:
            kernel: The kernel, on scaled inputs.
            noise: Noise variance per task, scaled target squared.

        Returns:
            Log density up to a constant.
        """
        # a fixed lengthscale is no parameter
        lengths = kernel.lengthscale[np.asarray(kernel.free_columns, int)]
        terms = (
            log_normal(lengths, self.lengthscale_median, self.lengthscale_spread),
            log_normal(kernel.day_variance, self.day_median, self.day_spread),
            log_normal(kernel.index_diagonal.value, self.signal_median, self.signal_spread),
            -0.5 * (kernel.index_factor / self.factor_spread) ** 2,
            log_normal(noise, self.noise_median, self.noise_spread),
        )
        total = jnp.zeros(())
        for term in terms:
            total = total + jnp.sum(term)
        return total
