"""The rate process of a transfer study: the one step-wise process, set as the publication has it.

A squared exponential over readings and set-points, times one over the distance of the products'
vectors (`EmbeddedInputs`), whatever the day; species independent, with one signal and one noise
variance for all of them or one each. Parameters and vectors are found together, by the evidence of
some of the rows; the process is conditioned on all of them.

Two starts: some products' rates depend on glucose only where it is low, and the evidence then has
two maxima. A log-normal prior on lengthscales (median 3, spread 1) decides nothing where the data
speak, but a lengthscale that historic runs leave open would otherwise drift to where the evidence
is flat and never come back.

Reference:
    Hutter et al. (2021), doi:10.1002/bit.27907.
"""

from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from perfusio_jax._core import ConfigError, Key, Scalar, positive, require_x64
from perfusio_jax._core.programs import compiled
from perfusio_jax.embedding.clones import START_RANGE, EntityEmbedding
from perfusio_jax.embedding.inputs import EmbeddedInputs, fit_embedded
from perfusio_jax.embedding.rows import RateRows
from perfusio_jax.gp import (
    ConstantMean,
    GaussianLikelihood,
    HyperPriors,
    MultiTaskRateGP,
    SquaredExponentialKernel,
    fit_scaling,
    log_evidence,
    log_posterior,
    rate_data,
    with_data,
)

Coding = Literal["embedding", "one-hot", "none"]
"""How a product enters the kernel."""

SHORT_START: Final = 1.5
"""Lengthscale of the second start [feature spreads]."""

_NOISE: Final = 0.02
"""Start of the noise variance [scaled target squared]."""
_FREE: Final = 1e3
"""Spread of a prior that says nothing [-]."""
_LEAST: Final = 1e-6
"""Least noise variance in parts of the signal's [-]."""
_BOUND: Final = 12.0
"""Of the logarithms of lengthscales and signals [-]."""
_CANDIDATES: Final = 8
"""Tables of vectors that are tried before a search starts from the best."""


class Search(NamedTuple):
    """How parameters are looked for."""

    max_iterations: int = 60
    """L-BFGS evaluations per start."""
    own_noise: bool = False
    """Whether each species has its own signal and noise variance, or all share one."""


def embedding_of(coding: Coding, n_products: int, dim: int, *, key: Key) -> EntityEmbedding | None:
    """A table of vectors to start from, by the coding.

    Args:
        coding: How a product enters the kernel.
        n_products: Number of products.
        dim: Length of the vectors of an embedding; ignored for the other codings.
        key: Random key.

    Returns:
        The table; None where products are not told apart.

    Raises:
        ConfigError: If the coding is unknown or the dimension out of range.
    """
    if coding not in ("embedding", "one-hot", "none"):
        raise ConfigError(f"coding {coding!r}; allowed are 'embedding', 'one-hot', 'none'.")
    if coding == "none":
        return None
    if coding == "one-hot":
        return EntityEmbedding(n_products, n_products, key=key, spread=_FREE, is_one_hot=True)
    if not 1 <= dim <= n_products:
        raise ConfigError(f"dim={dim}; with {n_products} products 1 to {n_products} are allowed.")
    return EntityEmbedding(n_products, dim, key=key, spread=_FREE)


def rate_process(
    rows: RateRows,
    table: EntityEmbedding | None,
    search: Search,
    *,
    like: MultiTaskRateGP | None = None,
    capacity: int | None = None,
) -> MultiTaskRateGP:
    """A process on rows, before its parameters are looked for.

    Args:
        rows: Rows; they decide the scaling of features and targets.
        table: Vectors of the products; None leaves products out.
        search: Says whether species share signal and noise.
        like: Where kernel and noise start from; from scratch if None.
        capacity: Rows to reserve; as many as there are by default.

    Returns:
        The process.
    """
    inputs = _inputs(rows, table)
    n_tasks = rows.rates.shape[1]
    scaling: Any = fit_scaling(inputs, day_column=inputs.shape[1] - 1)
    if table is not None:
        scaling = fit_embedded(inputs, table)
    width = rows.features.shape[1] + (0 if table is None else table.embed_dim)
    kernel = SquaredExponentialKernel(
        n_tasks,
        width,
        width,
        is_shared=not search.own_noise,
        lengthscale=float(np.sqrt(rows.features.shape[1])),
    )
    model = MultiTaskRateGP(
        inputs,
        rows.rates,
        GaussianLikelihood(_NOISE),
        ConstantMean(jnp.asarray(rows.rates.mean(axis=0))),
        kernel,
        n_tasks,
        scaling=scaling,
        capacity=capacity,
        priors=HyperPriors(
            lengthscale_median=3.0,
            lengthscale_spread=1.0,
            signal_spread=_FREE,
            noise_spread=_FREE,
        ),
    )
    if like is not None:
        return eqx.tree_at(
            lambda m: (m.kernel.state.lengthscale, m.kernel.index_diagonal, m.likelihood),
            model,
            (like.kernel.state.lengthscale, like.kernel.index_diagonal, like.likelihood),
        )
    return model


def with_rows(
    model: MultiTaskRateGP, rows: RateRows, *, capacity: int | None = None
) -> MultiTaskRateGP:
    """The same process, scaling and all, conditioned on other rows."""
    table = model.scaling.embedding if isinstance(model.scaling, EmbeddedInputs) else None
    data = rate_data(_inputs(rows, table), rows.rates, capacity=capacity)
    return with_data(model, data)


def with_lengthscale(model: MultiTaskRateGP, value: float) -> MultiTaskRateGP:
    """The process with all lengthscales at one value [feature spreads]."""
    start = positive(jnp.full_like(model.kernel.lengthscale, value))
    return eqx.tree_at(lambda m: m.kernel.state.lengthscale, model, start)


def candidates(table: EntityEmbedding, *, key: Key, n: int = _CANDIDATES) -> Float[Array, "n P D"]:
    """Random tables to start from, uniform in `START_RANGE`."""
    lo, hi = START_RANGE
    return jax.random.uniform(key, (n, *table.weight.shape), minval=lo, maxval=hi)


def newcomers(table: EntityEmbedding, *, key: Key, n: int = 12) -> Float[Array, "n P D"]:
    """Tables that differ in the vector of the last product, of which nothing is known yet.

    With an embedding: each other product's vector, the mean one, and draws around it. With one-hot
    coding: draws from a range about that of the fitted entries.
    """
    known = table.weight[:-1]
    if table.is_one_hot:
        lo, hi = START_RANGE
        shape = (n, table.embed_dim)
        rows = jax.random.uniform(key, shape, minval=0.1 * lo, maxval=0.5 * hi)
    else:
        centre, spread = jnp.mean(known, axis=0), jnp.std(known, axis=0) + 0.1
        z = jax.random.normal(key, (n, table.embed_dim))
        rows = jnp.concatenate([known, centre[None, :], centre[None, :] + spread[None, :] * z])[:n]
    many = jnp.broadcast_to(table.weight, (n, *table.weight.shape))
    return many.at[:, -1].set(rows)


class Found(NamedTuple):
    """How a search went."""

    objective: Scalar
    """Log evidence plus log prior that was reached, per target."""
    log_evidence: Scalar
    """Log evidence of the rows searched."""
    n_iterations: Int[Array, ""]
    """L-BFGS evaluations."""


def best_fit(
    models: Sequence[MultiTaskRateGP], tables: Float[Array, "n P D"] | None, search: Search
) -> tuple[MultiTaskRateGP, Found]:
    """The best of several searches, each from the table of vectors that suits its model best.

    Args:
        models: Where searches start from.
        tables: Tables of vectors to choose from; None where products are left out.
        search: Settings.

    Returns:
        The process with the parameters found, not conditioned, and how its search went.

    Raises:
        PrecisionError: In 32-bit mode.
    """
    require_x64("Fitting a Gaussian process")
    found = [
        _search(model, tables, search.max_iterations, not search.own_noise) for model in models
    ]
    return max(found, key=lambda pair: float(pair[1].objective))


class _Logs(NamedTuple):
    """Logarithms of what is looked for: all of it is above zero and goes over decades."""

    lengthscale: Float[Array, " S"]
    signal: Float[Array, " G"]
    noise: Float[Array, " G"]
    """Of the noise variance in parts of the signal's."""
    vectors: Float[Array, "P D"] | None


def _logs_of(model: MultiTaskRateGP, table: Array | None, is_shared: bool) -> _Logs:
    n_groups = 1 if is_shared else model.n_tasks
    signal = jnp.diagonal(model.kernel.task_covariance())[:n_groups]
    noise = model.likelihood.variance(model.n_tasks)[:n_groups]
    free = jnp.asarray(model.kernel.free_columns)
    lengths = jnp.log(model.kernel.lengthscale[free])
    return _Logs(lengths, jnp.log(signal), jnp.log(noise / signal), table)


def _at(model: MultiTaskRateGP, logs: _Logs) -> MultiTaskRateGP:
    """The process with the parameters of a point of the search."""
    free = jnp.asarray(model.kernel.free_columns)
    lengths = model.kernel.lengthscale.at[free].set(jnp.exp(_soft(logs.lengthscale)))
    signal = jnp.exp(_soft(logs.signal))
    noise = signal * (jnp.exp(logs.noise) + _LEAST)
    wide = (model.n_tasks,)
    model = eqx.tree_at(
        lambda m: (m.kernel.state.lengthscale, m.kernel.index_diagonal, m.likelihood.noise),
        model,
        (
            positive(lengths),
            positive(jnp.broadcast_to(signal, wide)),
            positive(jnp.broadcast_to(noise, wide)),
        ),
    )
    if logs.vectors is None:
        return model
    return eqx.tree_at(lambda m: m.scaling.embedding.weight, model, logs.vectors)


def _soft(log_value: Array) -> Array:
    """Keep a logarithm within bounds without a corner."""
    return _BOUND * jnp.tanh(log_value / _BOUND)


@compiled
def _search(
    model: MultiTaskRateGP, tables: Array | None, max_iterations: int, is_shared: bool
) -> tuple[MultiTaskRateGP, Found]:
    """Maximise the posterior of the parameters by L-BFGS, in one compiled call."""
    import optimistix as optx

    count = jnp.maximum(jnp.sum(model.data.present), 1).astype(float)

    def loss(logs: _Logs, _: Any = None) -> Scalar:
        value = -log_posterior(_at(model, logs)) / count
        return jnp.where(jnp.isfinite(value), value, jnp.inf)

    start = _logs_of(model, None, is_shared)
    if tables is not None:
        values = jax.lax.map(lambda table: loss(start._replace(vectors=table)), tables)
        start = start._replace(vectors=tables[jnp.argmin(values)])
    # one flat vector: the optimiser's own graph stays small and compiles quickly
    flat, unravel = ravel_pytree(start)
    solution = optx.minimise(
        lambda y, _: loss(unravel(y)),
        optx.LBFGS(rtol=1e-4, atol=1e-6, history_length=12),
        flat,
        max_steps=max_iterations,
        options={"autodiff_mode": "bwd"},
        throw=False,
    )
    best = unravel(solution.value)
    fitted = _at(model, best)
    return fitted, Found(-loss(best), log_evidence(fitted), solution.stats["num_steps"])


def _inputs(rows: RateRows, table: EntityEmbedding | None) -> np.ndarray:
    """Raw inputs: features, the product's index if it counts, and a day that does not."""
    ends = [np.zeros(len(rows.product))]
    if table is not None:
        ends.insert(0, rows.product.astype(float))
    return np.column_stack([rows.features, *ends])
