"""Acquisitions around acquisitions: cost in the denominator."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp

from perfusio_jax._core import Array, Float, Scalar
from perfusio_jax.bed.optimiser.maximand import WithDecisions, n_extra_of


class CostWeighted(eqx.Module):
    """An improvement per cost: divided by the summed cost of the batch, in logs where it is one.

    Reference:
        Lee et al. (2020), Cost-aware Bayesian optimization (expected improvement per unit
        cost, with an exponent that can be cooled).
    """

    acqf: Any
    """An acquisition whose value is an improvement, or its logarithm."""
    cost: Callable[[Array], Array]
    """`cost(X (q,d)) -> (q,)`, above zero, any unit."""
    power: Scalar = eqx.field(converter=lambda v: jnp.asarray(v, float), default=1.0)
    """Exponent of the cost [-]; 0 ignores it."""
    is_log: bool = eqx.field(static=True, default=False)
    """Whether the acquisition is a logarithm."""

    @property
    def n_extra(self) -> int:
        """Rows that are not candidates, as of the acquisition inside."""
        return n_extra_of(self.acqf)

    def arrange(self, points: Float[Array, "N n d"]) -> Float[Array, "N n d"]:
        """Starting points as the acquisition inside wants them."""
        return self.acqf.arrange(points) if isinstance(self.acqf, WithDecisions) else points

    def __call__(self, X: Float[Array, "n d"]) -> Scalar:
        """Value of a batch."""
        value = self.acqf(X)
        q = X.shape[0] - self.n_extra
        log_cost = self.power * jnp.log(jnp.sum(self.cost(X[:q])))
        if self.is_log:
            return value - log_cost
        # a loss is made worse by a high cost, not better
        return jnp.where(value > 0, value * jnp.exp(-log_cost), value * jnp.exp(log_cost))
