"""Rates of several products as Gaussian processes that share one kernel matrix.

    y_t     = (M_{t+1} V'_{t+1} - S_t V_t - F_{t+1}) / (V_t dt),  S_t = M_t + B_t / V_t
    k(a, b) = s exp(-|f_a - f_b|^2_ARD / 2) exp(-|w_a - w_b|^2 / 2)

V is the volume after sample t, V' that of the next before it is taken, F what was fed in between,
and B what was given at once after sample t; M are readings and S what the cells then start from.
Outputs are independent, scaled to unit spread, and share kernel and noise, so that one Cholesky
factor serves all of them. `w` is the vector of the product: free with a few entries (embedding),
free on one axis per product (one-hot), or absent.

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
from jaxtyping import Array, Bool, Float, Int

from perfusio_jax._core import ConfigError, DataError, Key, Scalar, require_x64
from perfusio_jax._core.programs import compiled
from perfusio_jax.embedding.clones import START_RANGE
from perfusio_jax.simulator import FedBatchRuns

Coding = Literal["embedding", "one-hot", "none"]
"""How a product enters the kernel."""

SHORT_START: Final[float] = 1.5
"""Lengthscale of the second start [feature spreads]: some products' rates depend on glucose
only where it is low, and the evidence then has two maxima."""

_LOG_2PI = float(np.log(2.0 * np.pi))
_BOUND = 12.0


class RateRows(NamedTuple):
    """Training rows, padded; arrays of one length."""

    features: Float[Array, "N F"]
    """What an interval starts from and its set-points, raw units; zero in padding."""
    rates: Float[Array, "N T"]
    """Mean volumetric rates of an interval [unit/d]; zero in padding."""
    product: Int[Array, " N"]
    """Index of the product."""
    present: Bool[Array, " N"]
    """Whether a row holds data."""


def rate_rows(runs: FedBatchRuns, *, capacity: int | None = None) -> RateRows:
    """Rates of runs by interval, rows with a missing number left out.

    Args:
        runs: Runs.
        capacity: Rows to pad to; as many as there are by default.

    Returns:
        The rows, run by run.

    Raises:
        DataError: If no row is complete, or there are more than `capacity`.
    """
    M = np.asarray(runs.measured, float)
    before, after = np.asarray(runs.volume_before), np.asarray(runs.volume_after)[..., None]
    start = (M + np.asarray(runs.given) / after)[:, :-1]
    days = np.diff(np.asarray(runs.days), axis=1)[..., None]
    change = M[:, 1:] * before[:, 1:, None] - start * after[:, :-1]
    rates = (change - np.asarray(runs.fed)[:, 1:]) / (after[:, :-1] * days)
    features = np.concatenate([start, np.asarray(runs.controls)[:, :-1]], axis=-1)
    n, steps = rates.shape[:2]
    product = np.repeat(np.asarray(runs.product), steps)
    features, rates = features.reshape(n * steps, -1), rates.reshape(n * steps, -1)
    whole = np.isfinite(features).all(axis=1) & np.isfinite(rates).all(axis=1)
    if not whole.any():
        raise DataError(
            f"none of the {n * steps} intervals of {n} runs has all readings at both ends, so no "
            "rate can be formed; check for a species that was never measured."
        )
    size = int(whole.sum())
    capacity = size if capacity is None else capacity
    if size > capacity:
        raise DataError(f"{size} rows do not fit a capacity of {capacity}.")

    def pad(values: np.ndarray) -> Array:
        kept = values[whole]
        empty = np.zeros((capacity - size, *kept.shape[1:]), kept.dtype)
        return jnp.asarray(np.concatenate([kept, empty]))

    return RateRows(pad(features), pad(rates), pad(product), jnp.arange(capacity) < size)


def join_rows(*parts: RateRows, capacity: int | None = None) -> RateRows:
    """Rows of several tables in one, padding last.

    Args:
        parts: Tables.
        capacity: Rows to pad to; as many as there are by default.

    Returns:
        The rows.

    Raises:
        DataError: If they do not fit.
    """
    kept = [[np.asarray(v)[np.asarray(p.present)] for v in p[:3]] for p in parts]
    columns = [np.concatenate(group) for group in zip(*kept, strict=True)]
    size = len(columns[0])
    capacity = size if capacity is None else capacity
    if size > capacity:
        raise DataError(f"{size} rows do not fit a capacity of {capacity}.")
    room = capacity - size
    padded = [jnp.asarray(np.pad(v, [(0, room)] + [(0, 0)] * (v.ndim - 1))) for v in columns]
    return RateRows(padded[0], padded[1], padded[2], jnp.arange(capacity) < size)


def thin(rows: RateRows, max_rows: int, *, key: Key) -> RateRows:
    """A random subset of the rows, for the search of parameters; all of them if few."""
    here = np.flatnonzero(np.asarray(rows.present))
    if here.size > max_rows:
        order = np.asarray(jax.random.permutation(key, here.size))
        here = here[np.sort(order[:max_rows])]
    return RateRows(*(v[here] for v in rows))


class ProductKernel(eqx.Module):
    """Kernel, noise and product vectors: everything that is learned."""

    log_lengthscale: Float[Array, " F"]
    """Logarithm of the ARD lengthscales [feature spreads]."""
    log_signal: Float[Array, " G"]
    """Logarithm of the signal variance [target spread squared]; one for all targets (G = 1) or
    one each (G = T)."""
    log_noise: Float[Array, " G"]
    """Logarithm of the noise variance in parts of the signal's [-]; likewise."""
    vectors: Float[Array, "P Q"]
    """Product vectors [kernel lengths]; entries outside `mask` are not used."""
    mask: Float[Array, "P Q"]
    """One where an entry of `vectors` is used."""

    def coordinates(
        self, features: Float[Array, "N F"], product: Int[Array, " N"]
    ) -> Float[Array, "N FQ"]:
        """Points between which the kernel is `exp(-distance^2 / 2)`."""
        scaled = features / jnp.exp(_soft(self.log_lengthscale))[None, :]
        return jnp.concatenate([scaled, (self.vectors * self.mask)[product]], axis=1)

    def covariance(self, a: Float[Array, "N K"], b: Float[Array, "M K"]) -> Float[Array, "N M"]:
        """Covariance of two sets of coordinates [signal variance]."""
        square = jnp.sum(a * a, axis=1)[:, None] + jnp.sum(b * b, axis=1)[None, :]
        square = jnp.maximum(square - 2.0 * (a @ b.T), 0.0)
        return jnp.exp(-0.5 * square)

    @property
    def signal(self) -> Float[Array, " G"]:
        """Signal variance [target spread squared]."""
        return jnp.exp(_soft(self.log_signal))

    @property
    def noise(self) -> Float[Array, " G"]:
        """Noise variance in parts of the signal's [-]."""
        return jnp.exp(self.log_noise) + 1e-6


def _soft(log_value: Array) -> Array:
    """Keep a logarithm within bounds without a corner."""
    return _BOUND * jnp.tanh(log_value / _BOUND)


class Scales(NamedTuple):
    """Shift and scale of features and targets."""

    shift: Float[Array, " F"]
    """Mean of each feature over the training rows."""
    spread: Float[Array, " F"]
    """Standard deviation of each feature; one where constant."""
    target: Float[Array, " T"]
    """Standard deviation of each target; one where constant."""
    level: Float[Array, " T"]
    """Mean of each target."""


class ProductGP(eqx.Module):
    """Fitted process: predicts daily rates of any product it was trained on."""

    kernel: ProductKernel
    """Learned parameters."""
    scales: Scales
    """Scaling of features and targets."""
    coordinates: Float[Array, "N K"]
    """Training points in kernel coordinates."""
    weights: Float[Array, "N T"]
    """Weights of the posterior mean."""

    def __call__(
        self, features: Float[Array, "M F"], product: Int[Array, " M"]
    ) -> Float[Array, "M T"]:
        """Posterior mean of the rates [unit/d]."""
        scaled = (features - self.scales.shift[None, :]) / self.scales.spread[None, :]
        cross = self.kernel.covariance(self.kernel.coordinates(scaled, product), self.coordinates)
        return self.scales.level[None, :] + (cross @ self.weights) * self.scales.target[None, :]


@jax.custom_jvp
def log_density(covariance: Float[Array, "N N"], targets: Float[Array, "N T"]) -> Float[Array, ""]:
    """Log density of T independent targets with one covariance, without the constant.

    One Cholesky factor serves all targets. The derivative is the closed form, which costs one
    inverse instead of a differentiated factorisation.
    """
    factor = jnp.linalg.cholesky(covariance)
    white = jax.scipy.linalg.solve_triangular(factor, targets, lower=True)
    log_det = jnp.sum(jnp.log(jnp.diagonal(factor)))
    return -0.5 * jnp.sum(white * white) - targets.shape[1] * log_det


@log_density.defjvp
def _log_density_jvp(primals: Any, tangents: Any) -> Any:
    covariance, targets = primals
    covariance_dot, targets_dot = tangents
    factor = jnp.linalg.cholesky(covariance)
    root = jax.scipy.linalg.solve_triangular(
        factor, jnp.eye(covariance.shape[0], dtype=covariance.dtype), lower=True
    )
    white = root @ targets
    solved = root.T @ white
    n_targets = targets.shape[1]
    log_det = jnp.sum(jnp.log(jnp.diagonal(factor)))
    value = -0.5 * jnp.sum(white * white) - n_targets * log_det
    slope = 0.5 * (solved @ solved.T - n_targets * (root.T @ root))
    return value, jnp.sum(slope * covariance_dot) - jnp.sum(solved * targets_dot)


def fit_scales(rows: RateRows) -> Scales:
    """Scaling of features and targets by the mean and spread of the rows present."""
    keep = np.asarray(rows.present)
    x, y = np.asarray(rows.features)[keep], np.asarray(rows.rates)[keep]

    def spread(values: np.ndarray) -> np.ndarray:
        sd = values.std(axis=0)
        return np.where(sd > 1e-9 * np.maximum(np.abs(values).max(axis=0), 1e-9), sd, 1.0)

    parts = (x.mean(axis=0), spread(x), spread(y), y.mean(axis=0))
    return Scales(*(jnp.asarray(v) for v in parts))


def _scaled(rows: RateRows, scales: Scales) -> tuple[Array, Array]:
    present = rows.present[:, None]
    x = (rows.features - scales.shift[None, :]) / scales.spread[None, :]
    y = (rows.rates - scales.level[None, :]) / scales.target[None, :]
    return jnp.where(present, x, 0.0), jnp.where(present, y, 0.0)


def _gram(kernel: ProductKernel, points: Array, present: Array) -> Array:
    """Covariance without noise [signal variance]; zero in padding rows."""
    here = present.astype(points.dtype)
    return kernel.covariance(points, points) * here[:, None] * here[None, :]


def _noisy(gram: Array, noise: Array, present: Array) -> Array:
    """Covariance plus noise; padding rows are independent with unit variance."""
    return gram + jnp.diag(jnp.where(present, noise, 1.0))


def _grouped(targets: Array, groups: int) -> Array:
    """Targets (G, N, T/G): those that share a covariance side by side."""
    return jnp.moveaxis(targets.reshape(targets.shape[0], groups, -1), 1, 0)


def log_evidence(kernel: ProductKernel, rows: RateRows, scales: Scales) -> Scalar:
    """Log marginal likelihood of all targets [in their scaled unit]."""
    x, y = _scaled(rows, scales)
    gram = _gram(kernel, kernel.coordinates(x, rows.product), rows.present)
    groups = kernel.log_noise.shape[0]
    white = _grouped(y, groups) / jnp.sqrt(kernel.signal)[:, None, None]
    parts = jax.lax.map(
        lambda a: log_density(_noisy(gram, a[0], rows.present), a[1]), (kernel.noise, white)
    )
    n_rows, size = jnp.sum(rows.present), y.shape[1]
    scale = 0.5 * n_rows * (size // groups) * jnp.sum(jnp.log(kernel.signal))
    return jnp.sum(parts) - scale - 0.5 * n_rows * size * _LOG_2PI


def coding_mask(coding: Coding, n_products: int, dim: int) -> Float[np.ndarray, "P P"]:
    """Which entries of the table of product vectors are used.

    Args:
        coding: How a product enters the kernel.
        n_products: Number of products; also the number of columns.
        dim: Columns of an embedding; ignored for the other codings.

    Raises:
        ConfigError: If the coding is unknown or the dimension out of range.
    """
    if coding not in ("embedding", "one-hot", "none"):
        raise ConfigError(f"coding {coding!r}; allowed are 'embedding', 'one-hot', 'none'.")
    if coding == "embedding" and not 1 <= dim <= n_products:
        raise ConfigError(f"dim={dim}; with {n_products} products 1 to {n_products} are allowed.")
    mask = np.zeros((n_products, n_products))
    if coding == "embedding":
        mask[:, :dim] = 1.0
    elif coding == "one-hot":
        np.fill_diagonal(mask, 1.0)
    return mask


class Settings(eqx.Module):
    """Settings of a fit."""

    max_evaluations: int = eqx.field(static=True, default=80)
    """L-BFGS evaluations."""
    n_candidates: int = eqx.field(static=True, default=8)
    """Random tables of product vectors tried before the search starts from the best."""
    own_noise: bool = eqx.field(static=True, default=True)
    """Whether each target has its own signal and noise variance, or all share one."""
    prior: Scalar = eqx.field(converter=lambda v: jnp.asarray(v, float), default=1.0)
    """Weight of a log-normal prior on lengthscales (median 3, spread 1); 0 = evidence only.

    It decides nothing where the data speak, but a lengthscale that historic runs leave open
    would otherwise drift to where the evidence is flat and never come back."""


class FitInfo(NamedTuple):
    """How a fit went."""

    objective: Scalar
    """What was maximised: log evidence plus log prior, per number."""
    log_evidence: Scalar
    """Log evidence of the rows searched."""
    n_evaluations: Int[Array, ""]
    """L-BFGS evaluations."""


_TRAINED = ("log_lengthscale", "log_signal", "log_noise", "vectors")


def _spec(kernel: ProductKernel) -> Any:
    flat: Any = jax.tree.map(lambda _: False, kernel)
    return eqx.tree_at(lambda k: [getattr(k, n) for n in _TRAINED], flat, [True] * len(_TRAINED))


def _loss(kernel: ProductKernel, rows: RateRows, scales: Scales, settings: Settings) -> Scalar:
    z = (_soft(kernel.log_lengthscale) - jnp.log(3.0)) / 1.0
    penalty = 0.5 * settings.prior * jnp.sum(z * z)
    total = -log_evidence(kernel, rows, scales) + penalty
    count = jnp.maximum(jnp.sum(rows.present) * rows.rates.shape[1], 1)
    value = total / count
    return jnp.where(jnp.isfinite(value), value, jnp.inf)


@compiled
def search(
    starts: ProductKernel, rows: RateRows, scales: Scales, settings: Settings
) -> tuple[ProductKernel, FitInfo]:
    """Maximise the evidence by L-BFGS from the best of several starts, in one compiled call.

    Args:
        starts: Kernels stacked along a leading axis.
        rows: Training rows, padded.
        scales: Scaling.
        settings: Settings.

    Returns:
        The kernel and how it went.
    """
    import optimistix as optx

    values = jax.lax.map(lambda k: _loss(k, rows, scales, settings), starts)
    best = jax.tree.map(lambda leaf: leaf[jnp.argmin(values)], starts)
    params, fixed = eqx.partition(best, _spec(best))
    flat, unravel = ravel_pytree(params)

    def objective(y: Array, _: Any) -> Array:
        return _loss(eqx.combine(unravel(y), fixed), rows, scales, settings)

    solution = optx.minimise(
        objective,
        optx.LBFGS(rtol=1e-4, atol=1e-6, history_length=12),
        flat,
        max_steps=settings.max_evaluations,
        options={"autodiff_mode": "bwd"},
        throw=False,
    )
    kernel = eqx.combine(unravel(solution.value), fixed)
    evidence = log_evidence(kernel, rows, scales)
    value = -_loss(kernel, rows, scales, settings)
    return kernel, FitInfo(value, evidence, solution.stats["num_steps"])


def search_all(
    groups: Sequence[ProductKernel], rows: RateRows, scales: Scales, settings: Settings
) -> tuple[ProductKernel, FitInfo]:
    """The best of several searches, see `search`: one for each group of starts."""
    found = [search(starts, rows, scales, settings) for starts in groups]
    return max(found, key=lambda pair: float(pair[1].objective))


def with_lengthscale(kernel: ProductKernel, value: float) -> ProductKernel:
    """The kernel with all lengthscales at one value [feature spreads]."""
    start = jnp.full_like(kernel.log_lengthscale, np.log(value))
    return eqx.tree_at(lambda k: k.log_lengthscale, kernel, start)


@compiled
def condition(kernel: ProductKernel, rows: RateRows, scales: Scales) -> ProductGP:
    """Solve for the rows given."""
    x, y = _scaled(rows, scales)
    points = kernel.coordinates(x, rows.product)
    gram = _gram(kernel, points, rows.present)
    groups = kernel.log_noise.shape[0]

    def solve(item: tuple[Array, Array]) -> Array:
        factor = jnp.linalg.cholesky(_noisy(gram, item[0], rows.present))
        return jax.scipy.linalg.cho_solve((factor, True), item[1])

    solved = jax.lax.map(solve, (kernel.noise, _grouped(y, groups)))
    weights = jnp.moveaxis(solved, 0, 1).reshape(y.shape)
    return ProductGP(kernel, scales, points, jnp.where(rows.present[:, None], weights, 0.0))


def start_kernel(
    n_features: int, mask: Float[np.ndarray, "P P"], *, key: Key, n: int, groups: int = 1
) -> ProductKernel:
    """Starts with random product vectors, uniform in `START_RANGE`, stacked.

    Args:
        n_features: Number of features.
        mask: From `coding_mask`.
        key: Random key.
        n: Number of starts.
        groups: One covariance for all targets (1), or as many as there are targets.
    """
    lo, hi = START_RANGE
    vectors = jax.random.uniform(key, (n, *mask.shape), minval=lo, maxval=hi)
    return ProductKernel(
        log_lengthscale=jnp.full((n, n_features), 0.5 * np.log(float(n_features))),
        log_signal=jnp.zeros((n, groups)),
        log_noise=jnp.full((n, groups), np.log(0.02)),
        vectors=vectors * jnp.asarray(mask)[None],
        mask=jnp.broadcast_to(jnp.asarray(mask), (n, *mask.shape)),
    )


def fit_products(
    rows: RateRows,
    *,
    mask: Float[np.ndarray, "P P"],
    key: Key,
    settings: Settings | None = None,
) -> tuple[ProductKernel, Scales, FitInfo]:
    """Parameters and product vectors together, by the evidence of all rows (one stage).

    Args:
        rows: Training rows.
        mask: From `coding_mask`.
        key: Random key of the starts.
        settings: Settings.

    Returns:
        Kernel, scaling, and how the search went.

    Raises:
        PrecisionError: In 32-bit mode.
    """
    require_x64("Fitting a Gaussian process")
    settings = Settings() if settings is None else settings
    scales = fit_scales(rows)
    starts = start_kernel(
        rows.features.shape[1],
        mask,
        key=key,
        n=settings.n_candidates,
        groups=rows.rates.shape[1] if settings.own_noise else 1,
    )
    groups = (starts, with_lengthscale(starts, SHORT_START))
    kernel, info = search_all(groups, rows, scales, settings)
    return kernel, scales, info


@compiled
def roll_out(
    model: ProductGP, runs: FedBatchRuns, start: Float[Array, "runs K"]
) -> Float[Array, "runs samples K"]:
    """Forecast whole runs from their first sample with the mean of the process.

    Args:
        model: Fitted process.
        runs: Set-points, feeds, volumes and product of each run; readings are not used.
        start: First readings.

    Returns:
        Concentrations at every sample, the first being `start`. Negative values are cut at zero.
    """

    def step(M: Array, inputs: Any) -> tuple[Array, Array]:
        controls, V, V_next, given, fed, days = inputs
        begun = M + given / V[:, None]
        rates = model(jnp.concatenate([begun, controls], axis=1), runs.product)
        end = ((begun + rates * days[:, None]) * V[:, None] + fed) / V_next[:, None]
        M = jnp.maximum(end, 0.0)
        return M, M

    by_interval = (
        jnp.swapaxes(runs.controls, 0, 1)[:-1],
        runs.volume_after.T[:-1],
        runs.volume_before.T[1:],
        jnp.swapaxes(runs.given, 0, 1)[:-1],
        jnp.swapaxes(runs.fed, 0, 1)[1:],
        jnp.diff(runs.days, axis=1).T,
    )
    _, path = jax.lax.scan(step, start, by_interval)
    return jnp.concatenate([start[:, None], jnp.swapaxes(path, 0, 1)], axis=1)


def relative_error(
    forecast: Float[Array, "runs samples T"], actual: Float[Array, "runs samples T"]
) -> Float[np.ndarray, " T"]:
    """Median relative error per quantity, the first sample left out.

    |error| over the spread of the actual values across runs at each time; median over runs,
    then mean over times.

    Args:
        forecast: Forecast values.
        actual: What happened; NaN where nothing was measured.
    """
    f, a = np.asarray(forecast)[:, 1:], np.asarray(actual)[:, 1:]
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.abs(f - a) / np.nanstd(a, axis=0)[None]
    ratio = np.where(np.isfinite(a) & np.isfinite(ratio), ratio, np.nan)
    return np.nanmean(np.nanmedian(ratio, axis=0), axis=0)
