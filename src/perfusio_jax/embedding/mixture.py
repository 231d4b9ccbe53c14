"""Processes that differ in one clone's vector, and what they say together."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from perfusio_jax._core import Scalar
from perfusio_jax._core.programs import compiled
from perfusio_jax.gp import MultiTaskRateGP, log_posterior


class Mixture(NamedTuple):
    """Prediction averaged over draws of a clone's vector."""

    mean: Float[Array, "M T"]
    """Mean [target unit]."""
    variance: Float[Array, "M T"]
    """Variance: the process's own, plus that of its mean between draws [target unit squared]."""


class VectorDensity(eqx.Module):
    """Log posterior as a function of one clone's vector."""

    clone: Array
    """Index of the clone."""

    def __call__(self, model: MultiTaskRateGP, vector: Array) -> Scalar:
        """Log posterior of the process with this vector, up to a constant."""
        table = model.scaling.embedding.replace(self.clone, vector)
        return log_posterior(eqx.tree_at(lambda m: m.scaling.embedding, model, table))


@compiled
def at_vectors(
    model: MultiTaskRateGP, clone: Array, vectors: Float[Array, "S D"]
) -> MultiTaskRateGP:
    """Conditioned processes, one per vector of a clone, stacked along axis 0."""

    def one(vector: Array) -> MultiTaskRateGP:
        table = model.scaling.embedding.replace(clone, vector)
        return eqx.tree_at(lambda m: m.scaling.embedding, model, table).condition()

    return eqx.filter_vmap(one)(vectors)


@compiled
def mixture_of(models: MultiTaskRateGP, inputs: Float[Array, "M D"]) -> Mixture:
    """Mean and variance at raw inputs over processes stacked along axis 0."""
    means, covariances = eqx.filter_vmap(lambda m: m.posterior(inputs))(models)
    variances = jnp.maximum(jnp.diagonal(covariances, axis1=2, axis2=3), 0.0)
    return Mixture(jnp.mean(means, axis=0), jnp.mean(variances, axis=0) + jnp.var(means, axis=0))
