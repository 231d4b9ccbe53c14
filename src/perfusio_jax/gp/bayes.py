"""Hyper-parameters integrated out: NUTS over what `fit` would maximise.

With a handful of runs one set of hyper-parameters says too little about lengthscales and
noise. The posterior over them is sampled in the unconstrained coordinates, with the Jacobian
of the constraint, and every kept draw becomes a conditioned model; predictions are their
mixture. Sampling runs inside one compiled loop, without callbacks to the host.
"""

import warnings
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Float

from perfusio_jax._core import ConfigError, Key, Positive, Scalar, require_x64
from perfusio_jax._core.programs import compiled
from perfusio_jax.gp.ensemble import mixture_quantile
from perfusio_jax.gp.exact_gp import MultiTaskRateGP
from perfusio_jax.gp.fitting import trainable_filter
from perfusio_jax.gp.inference import log_posterior
from perfusio_jax.gp.levels import level_keys
from perfusio_jax.gp.sampling import GPPaths, draw_gp_paths

_MAX_ROWS = 400


class GPMixture(eqx.Module):
    """Equally weighted models on the same data, one per draw of the hyper-parameters."""

    models: MultiTaskRateGP
    """Conditioned models, stacked along a leading axis."""
    n_models: int = eqx.field(static=True)
    """How many."""

    def member(self, index: int) -> MultiTaskRateGP:
        """One of the models.

        Args:
            index: From 0.

        Returns:
            The conditioned model.
        """
        return jax.tree.map(lambda leaf: leaf[index], self.models)

    def moments(
        self, inputs: Float[Array, "M D"]
    ) -> tuple[Float[Array, "K M T"], Float[Array, "K M T"]]:
        """Mean and standard deviation of the latent rate, by member [target unit]."""
        return _moments(self.models, inputs)

    def predict_with_ci(
        self,
        x_new: Float[ArrayLike, "M D"],
        ci_levels: tuple[float, ...] = (0.1, 0.5, 0.9),
        *,
        include_noise: bool = False,
    ) -> dict[str, Float[Array, "M T"]]:
        """Mean and quantiles of the mixture.

        Args:
            x_new: Raw inputs.
            ci_levels: Probabilities between 0 and 1.
            include_noise: Quantiles of a noisy target instead of the latent function.

        Returns:
            "mean", "q10", "q50", "q2.5", ... (percent) [target unit].

        Raises:
            DataError: If a level is not a probability.
        """
        levels = level_keys(ci_levels)
        mean, sd = self.moments(jnp.asarray(x_new, float))
        if include_noise:
            noise = jax.vmap(lambda m: m.likelihood.variance(m.n_tasks) * m.target_scale**2)
            sd = jnp.sqrt(sd**2 + noise(self.models)[:, None, :])
        result = {"mean": jnp.mean(mean, axis=0)}
        for name, level in levels.items():
            result[name] = mixture_quantile(mean, sd, level)
        return result

    def draw_paths(self, n_each: int, *, key: Key) -> GPPaths:
        """Functions drawn from every member.

        Args:
            n_each: Functions per member.
            key: Random key.

        Returns:
            Paths stacked along a leading axis, one group per member.
        """
        keys = jax.random.split(key, self.n_models)
        return eqx.filter_vmap(lambda m, k: draw_gp_paths(m, n_each, key=k))(self.models, keys)


class NutsReport(NamedTuple):
    """How the sampling went."""

    log_posterior: Float[Array, " S"]
    """Log posterior density of each draw, in unconstrained coordinates."""
    n_divergent: int
    """Draws whose trajectory diverged."""
    r_hat: Float[Array, " P"]
    """Split potential scale reduction per coordinate [-]; near one when chains agree."""
    n_effective: Float[Array, " P"]
    """Effective number of draws per coordinate."""
    converged: bool
    """Whether all r_hat are below 1.1 and no draw in twenty diverged."""


@compiled
def _moments(models: MultiTaskRateGP, inputs: Array) -> tuple[Array, Array]:
    def one(model: MultiTaskRateGP) -> tuple[Array, Array]:
        mean, covariance = model.posterior(inputs)
        return mean, jnp.sqrt(jnp.maximum(jnp.diagonal(covariance, axis1=1, axis2=2), 0.0))

    return eqx.filter_vmap(one)(models)


def log_jacobian(model: Any) -> Scalar:
    """Log derivative of `log(value)` by the free leaf, summed over all positive parameters.

    Args:
        model: Model or part of one.

    Returns:
        What turns a density of `log(value)` into one of the free leaf.
    """
    total = jnp.zeros(())
    nodes = jax.tree.leaves(model, is_leaf=lambda node: isinstance(node, Positive))
    for node in nodes:
        if isinstance(node, Positive):
            # value = softplus(raw), so d log(value) / d raw = sigmoid(raw) / softplus(raw)
            slope = jax.nn.log_sigmoid(node.raw) - jnp.log(jax.nn.softplus(node.raw))
            total = total + jnp.sum(slope)
    return total


def fit_nuts(
    model: MultiTaskRateGP,
    *,
    key: Key,
    n_warmup: int = 200,
    n_samples: int = 200,
    n_chains: int = 2,
    n_models: int = 16,
) -> tuple[GPMixture, NutsReport]:
    """Sample the hyper-parameters and condition a model on each of some draws.

    Args:
        model: Model with data; its parameters are the start.
        key: Random key.
        n_warmup: Draws per chain that tune the step and are thrown away.
        n_samples: Draws kept per chain.
        n_chains: Chains, started a little apart.
        n_models: Evenly spread draws that become models.

    Returns:
        The mixture, and a report.

    Raises:
        PrecisionError: In 32-bit mode.
        ConfigError: If a number is out of range, or the table has more than 400 rows: one
            gradient costs the cube of the rows, and a table of that size leaves little doubt
            about the parameters.
    """
    from numpyro.infer import MCMC, NUTS

    require_x64("Sampling the hyper-parameters of a Gaussian process")
    rows = int(jnp.sum(model.data.row_present))
    if rows > _MAX_ROWS:
        raise ConfigError(
            f"NUTS over {rows} rows; allowed are up to {_MAX_ROWS}: use fit(method='lbfgs')."
        )
    if min(n_warmup, n_samples, n_chains, n_models) < 1 or n_models > n_samples * n_chains:
        raise ConfigError(
            f"n_warmup={n_warmup}, n_samples={n_samples}, n_chains={n_chains}, "
            f"n_models={n_models}; each starts at 1, with no more models than draws."
        )
    bare = eqx.tree_at(lambda m: m.state, model, None, is_leaf=lambda node: node is None)
    params, fixed = eqx.partition(bare, trainable_filter(bare))
    centre, unravel = ravel_pytree(params)

    def potential(flat: Array) -> Array:
        moved = eqx.combine(unravel(flat), fixed)
        value = log_posterior(moved) + log_jacobian(unravel(flat))
        # a fixed lengthscale leaves its coordinate flat; a far prior keeps the walk bounded
        value = value - 0.5 * jnp.sum(((flat - centre) / 50.0) ** 2)
        return jnp.where(jnp.isfinite(value), -value, jnp.inf)

    for_start, for_chain = jax.random.split(key)
    shape = (n_chains, centre.size) if n_chains > 1 else centre.shape
    starts = jnp.broadcast_to(centre, shape)
    starts = starts + 0.1 * jax.random.normal(for_start, shape)
    sampler = MCMC(
        NUTS(potential_fn=potential, max_tree_depth=7),
        num_warmup=n_warmup,
        num_samples=n_samples,
        num_chains=n_chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the sampler warns of devices it is not asked to use
        sampler.run(for_chain, init_params=starts, extra_fields=("potential_energy", "diverging"))
    grouped: Any = sampler.get_samples(group_by_chain=True)
    extra: Any = sampler.get_extra_fields()
    draws = grouped.reshape(-1, centre.size)
    chosen = jnp.linspace(0, draws.shape[0] - 1, n_models).astype(int)
    models = _condition_all(jax.vmap(unravel)(draws[chosen]), fixed)
    return GPMixture(models, n_models), _report(grouped, extra)


@compiled
def _condition_all(params: Any, fixed: Any) -> MultiTaskRateGP:
    def one(p: Any) -> MultiTaskRateGP:
        conditioned: MultiTaskRateGP = eqx.combine(p, fixed).condition()
        return conditioned

    # without the axis size vmap would not know how often to repeat what is not trained
    return eqx.filter_vmap(one)(params)


def _report(grouped: Array, extra: dict[str, Array]) -> NutsReport:
    from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

    r_hat = jnp.asarray(split_gelman_rubin(jax.device_get(grouped)))
    effective = jnp.asarray(effective_sample_size(jax.device_get(grouped)))
    n_divergent = int(jnp.sum(extra["diverging"]))
    is_fine = bool(jnp.all(r_hat < 1.1)) and n_divergent <= extra["diverging"].size // 20
    return NutsReport(-extra["potential_energy"], n_divergent, r_hat, effective, is_fine)
