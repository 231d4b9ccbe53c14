"""Functions drawn from the posterior by pathwise conditioning.

A draw is a random Fourier prior plus an update from the data (Wilson et al. 2020):

    f(x) = phi(x) w + k(x, X) (K + noise)^-1 (y - phi(X) w - e)

so a path meets one and the same function whenever it comes by. Frequencies of the
Matern-5/2 kernel follow a multivariate t with 5 degrees of freedom; directions are
orthogonal in blocks, radii are stratified. Sine and cosine share a frequency, so the prior
variance is exact at every point. The linear-plus-constant day kernel is a product feature:
one draw for the constant, one that is multiplied by the day. Frequencies are drawn anew
for every block of paths: their errors then average out over the blocks.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Array, Float

from perfusio_jax._core import Key, Scalar
from perfusio_jax._core.programs import compiled
from perfusio_jax.gp.exact_gp import MultiTaskRateGP
from perfusio_jax.gp.inference import require_state
from perfusio_jax.gp.kernels import PerfusionKernel
from perfusio_jax.gp.posterior import KroneckerPosterior
from perfusio_jax.gp.waves import cos_sin

N_FREQUENCIES = 64
"""Frequencies per block of paths."""
BLOCK_SIZE = 4
"""Paths that share frequencies."""
_LANES = 64
"""Paths whose data update is solved at once."""


class GPPaths(eqx.Module):
    """Drawn functions; each is a smooth function of the inputs, fixed once drawn."""

    kernel: PerfusionKernel
    """Kernel of the data update."""
    scaling: Any
    """Feature map of the model."""
    target_scale: Float[Array, " T"]
    """Unit of the scaled targets [target unit]."""
    inputs: Float[Array, "N D"]
    """Scaled training inputs."""
    frequencies: Float[Array, "B M S"]
    """Frequencies per block, over scaled state and control columns."""
    prior_weights: Float[Array, "P M4 T"]
    """Weights of the prior features, [cos, sin, day cos, day sin], tasks mixed."""
    update_weights: Float[Array, "P N T"]
    """Weights of the data update, tasks mixed; zero in padding rows."""

    @property
    def n_paths(self) -> int:
        """Number of functions drawn."""
        return self.prior_weights.shape[0]

    def __call__(self, inputs: Float[Array, "P D"]) -> Float[Array, "P T"]:
        """Value of each path at its own input.

        Args:
            inputs: One raw input per path, `[c, u, embedding, day]`.

        Returns:
            One row per path, target unit.
        """
        scaled = self.scaling(inputs)
        blocks = self.frequencies.shape[0]
        grouped = scaled.reshape(blocks, -1, scaled.shape[1])
        features = jax.vmap(self._features)(grouped, self.frequencies)
        features = features.reshape(scaled.shape[0], -1)
        prior = jnp.einsum("pm,pmt->pt", features, self.prior_weights)
        cross = self.kernel.input_matrix(scaled, self.inputs)
        update = jnp.einsum("pn,pnt->pt", cross, self.update_weights)
        return (prior + update) * self.target_scale[None, :]

    def at(self, inputs: Float[Array, "M D"]) -> Float[Array, "P M T"]:
        """Value of every path at a shared set of inputs.

        Args:
            inputs: Raw inputs.

        Returns:
            Paths first, target unit.
        """
        scaled = self.scaling(inputs)
        blocks = self.frequencies.shape[0]
        features = jax.vmap(lambda f: self._features(scaled, f))(self.frequencies)
        weights = self.prior_weights.reshape(blocks, -1, *self.prior_weights.shape[1:])
        prior = jnp.einsum("bmf,bpft->bpmt", features, weights)
        prior = prior.reshape(-1, *prior.shape[2:])
        cross = self.kernel.input_matrix(scaled, self.inputs)
        update = jnp.einsum("mn,pnt->pmt", cross, self.update_weights)
        return (prior + update) * self.target_scale[None, None, :]

    def _features(self, scaled: Array, frequencies: Array) -> Array:
        return prior_features(self.kernel, scaled, frequencies)


def radius_table(dims: int, size: int = 512, degrees: float = 5.0) -> tuple[np.ndarray, np.ndarray]:
    """Quantiles of the radius of a standard multivariate t, the spectrum of a Matern kernel.

    Args:
        dims: Number of dimensions.
        size: Entries of the table.
        degrees: Degrees of freedom: 5 for Matern-5/2, infinite for the squared exponential.

    Returns:
        Logits of the probabilities and logarithms of the radii.
    """
    logits = np.linspace(-12.0, 12.0, size)
    share = scipy.special.expit(logits)
    if np.isinf(degrees):
        return logits, 0.5 * np.log(2.0 * scipy.special.gammaincinv(0.5 * dims, share))
    return logits, 0.5 * np.log(dims * scipy.special.fdtri(dims, degrees, share))


def draw_frequencies(
    lengthscale: Float[Array, " S"], n_frequencies: int, *, key: Key, degrees: float = 5.0
) -> Float[Array, "M S"]:
    """Frequencies of the Matern-5/2 kernel: orthogonal directions, stratified radii.

    Args:
        lengthscale: One per column.
        n_frequencies: How many.
        key: Random key.
        degrees: Of freedom of their distribution, `tail_degrees` of a kernel.

    Returns:
        Angular frequencies per column.
    """
    dims = lengthscale.shape[0]
    turn, place = jax.random.split(key)
    blocks = -(-n_frequencies // dims)
    gaussian = jax.random.normal(turn, (blocks, dims, dims), lengthscale.dtype)
    shift = jax.random.uniform(place)
    return _frequencies(lengthscale, gaussian, shift, n_frequencies, degrees)


def _frequencies(
    lengthscale: Array, gaussian: Array, shift: Array, n_frequencies: int, degrees: float = 5.0
) -> Array:
    dims = lengthscale.shape[0]
    rotation, triangle = jnp.linalg.qr(gaussian)
    # the sign makes the rotation uniform
    rotation = rotation * jnp.sign(jnp.diagonal(triangle, axis1=1, axis2=2))[:, None, :]
    directions = rotation.transpose(0, 2, 1).reshape(-1, dims)[:n_frequencies]
    # one radius per stratum; the stride spreads them over each orthogonal set
    stride = max(1, round(0.618 * n_frequencies))
    while math.gcd(stride, n_frequencies) > 1:
        stride += 1
    strata = (np.arange(n_frequencies) * stride) % n_frequencies
    level = (jnp.asarray(strata, lengthscale.dtype) + shift) / n_frequencies
    level = jnp.clip(level, 1e-12, 1.0 - 1e-12)
    logits, radii = radius_table(dims, degrees=degrees)
    radius = jnp.exp(
        jnp.interp(jnp.log(level) - jnp.log1p(-level), jnp.asarray(logits), jnp.asarray(radii))
    )
    return directions * radius[:, None] / lengthscale[None, :]


def prior_features(
    kernel: PerfusionKernel, scaled: Float[Array, "M D"], frequencies: Float[Array, "F S"]
) -> Float[Array, "M F4"]:
    """Features whose inner product approximates the input kernel.

    Args:
        kernel: Kernel.
        scaled: Scaled inputs `[state and controls, day]`.
        frequencies: Drawn frequencies.

    Returns:
        `[cos, sin, day cos, day sin]`, normalised.
    """
    size = kernel.n_state_dims
    angle = scaled[:, :size] @ frequencies.T
    wave = jnp.concatenate(cos_sin(angle), axis=1)
    wave = wave / jnp.sqrt(jnp.asarray(frequencies.shape[0], wave.dtype))
    return kernel.prior_features(wave, scaled)


def draw_gp_paths(
    model: MultiTaskRateGP,
    n_paths: int,
    *,
    key: Key,
    n_frequencies: int = N_FREQUENCIES,
    block_size: int = BLOCK_SIZE,
) -> GPPaths:
    """Draw functions from the posterior.

    The variance that random features imply is right on average, so its error over many
    blocks falls with the number of all frequencies drawn. Many small blocks therefore cost
    less than few large ones and are as good.

    Args:
        model: Conditioned model with zero or already subtracted mean; the mean function is
            not part of the draw.
        n_paths: Number of functions.
        key: Random key.
        n_frequencies: Frequencies per block (sine and cosine each).
        block_size: Paths that share frequencies.

    Returns:
        The functions, in target unit around the mean function.

    Raises:
        ConfigError: If the model is not conditioned.
    """
    state = require_state(model)
    block_size = min(block_size, n_paths)
    while n_paths % block_size:
        block_size -= 1
    blocks = n_paths // block_size
    kernel, tasks = model.kernel, model.n_tasks
    dims, size = kernel.n_state_dims, state.inputs.shape[0]
    turns = -(-n_frequencies // dims)
    for_normals, for_shifts = jax.random.split(key)
    # one call for all normal numbers: each further one costs compile time. Their 24 bits are
    # far finer than what any number of paths can show, and cost half of 53
    counts = (turns * dims * dims, block_size * 4 * n_frequencies * tasks)
    total = counts[0] + counts[1] + block_size * size * tasks
    normals = jax.random.normal(for_normals, (blocks, total), jnp.float32)
    normals = normals.astype(state.inputs.dtype)
    shifts = jax.random.uniform(for_shifts, (blocks,), state.inputs.dtype)
    turned = normals[:, : counts[0]].reshape(blocks, turns, dims, dims)
    frequencies = jax.vmap(
        lambda g, u: _frequencies(kernel.lengthscale, g, u, n_frequencies, kernel.tail_degrees)
    )(turned, shifts)
    mixing = jnp.linalg.cholesky(kernel.task_covariance())
    shape = (blocks, block_size, 4 * n_frequencies, tasks)
    weights = normals[:, counts[0] : counts[0] + counts[1]].reshape(shape) @ mixing.T
    noises = normals[:, counts[0] + counts[1] :].reshape(blocks, block_size, tasks, size)

    def prior(args: Any) -> Array:
        freq, weight = args
        flat = weight.transpose(0, 2, 1).reshape(block_size * tasks, -1)
        at_rows = flat @ prior_features(kernel, state.inputs, freq).T
        return at_rows.reshape(block_size, tasks, size)

    def update(args: Any) -> Array:
        freq, weight, noise = args
        # block by block: the features at the training inputs are never held for all
        return _solve_noisy(model, jax.lax.map(prior, (freq, weight @ rotation)), noise)

    if isinstance(state.solved, KroneckerPosterior):
        rotation = state.solved.task_rotation
    else:
        rotation = jnp.eye(tasks, dtype=mixing.dtype)
    fitting = range(1, max(_LANES // block_size, 1) + 1)
    at_once = max(k for k in fitting if blocks % k == 0)
    grouped = jax.tree.map(
        lambda a: a.reshape(-1, at_once, *a.shape[1:]), (frequencies, weights, noises)
    )
    correction = jax.lax.map(update, grouped).reshape(n_paths, size, tasks)
    centred = state.weights[None, :, :] - correction
    return GPPaths(
        kernel=kernel,
        scaling=model.scaling,
        target_scale=model.target_scale,
        inputs=state.inputs,
        frequencies=frequencies,
        prior_weights=weights.reshape(n_paths, *weights.shape[2:]),
        update_weights=centred * state.row_present[None, :, None],
    )


def _solve_noisy(model: MultiTaskRateGP, prior: Array, normal: Array) -> Array:
    """Weights that take a prior draw and its noise off, rows of both last."""
    state = require_state(model)
    if isinstance(state.solved, KroneckerPosterior):
        return state.solved.solve_noisy(prior, normal)
    noise_sd = jnp.sqrt(model.likelihood.variance(model.n_tasks))
    noise = model.data.noise_draw(normal.swapaxes(-1, -2)) * noise_sd
    present = model.data.present.astype(prior.dtype)
    return state.solved.solve((prior.swapaxes(-1, -2) + noise) * present)


@compiled
def variance_error(
    model: MultiTaskRateGP,
    inputs: Float[Array, "M D"],
    *,
    key: Key,
    n_blocks: int = 64,
    n_frequencies: int = N_FREQUENCIES,
) -> Scalar:
    """Relative rms error of the posterior variance that the finite features leave.

    No paths are drawn: for each block the variance implied by its frequencies is computed
    exactly, averaged over the blocks, and compared with the exact posterior.

    Args:
        model: Conditioned model.
        inputs: Raw inputs to compare at.
        key: Random key.
        n_blocks: Blocks of paths with their own frequencies.
        n_frequencies: Frequencies per block.

    Returns:
        Root mean square over inputs and tasks of (implied / exact - 1).
    """
    state = require_state(model)
    kernel = model.kernel
    scaled = model.scaling(inputs)
    cross = kernel.input_matrix(scaled, state.inputs) * state.row_present[None, :]
    mixing = jnp.linalg.cholesky(kernel.task_covariance())
    present = model.data.present.astype(cross.dtype)
    size, tasks = present.shape

    # gain[m, t, n, s]: how target s of training row n moves task t at input m
    basis = jnp.eye(size * tasks, dtype=cross.dtype).reshape(size * tasks, size, tasks)
    response = jnp.einsum("mn,znt->mtz", cross, state.solved.solve(basis * present[None, :, :]))
    gain = response.reshape(cross.shape[0], tasks, size, tasks)
    gain = gain * present[None, None, :, :]
    of_task = jnp.diag(model.likelihood.variance(tasks))
    noise = jnp.einsum("mtns,nk,mtku,su->mt", gain, model.data.noise_matrix(), gain, of_task)

    def implied(k: Key) -> Array:
        freq = draw_frequencies(kernel.lengthscale, n_frequencies, key=k)
        at_train = prior_features(kernel, state.inputs, freq) * state.row_present[:, None]
        at_test = prior_features(kernel, scaled, freq)
        # weights are W = Z mixing', so f_t(m) = sum_{f,j} Z_fj mixing_tj phi_mf
        direct = jnp.einsum("mf,tj->mtfj", at_test, mixing)
        through = jnp.einsum("mtns,nf,sj->mtfj", gain, at_train, mixing)
        return jnp.sum((direct - through) ** 2, axis=(2, 3)) + noise

    keys = jax.random.split(key, n_blocks)
    average = jnp.mean(jax.lax.map(implied, keys), axis=0)
    exact = kernel.input_diagonal(scaled)[:, None, None] * kernel.task_covariance()[None, :, :]
    exact = exact - state.solved.covariance_reduction(cross)
    variance = jnp.diagonal(exact, axis1=1, axis2=2)
    return jnp.sqrt(jnp.mean((average / variance - 1.0) ** 2))
