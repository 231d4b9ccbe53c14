"""Morris's elementary effects: which of many inputs matter, from few runs.

A trajectory starts at a point of a grid of `levels` values per input and moves one input after the
other, in random order, by `levels / (2 (levels - 1))` of its range, up or down. Each move gives one
elementary effect of its input: the change of the output over the change of the input, in ranges.
Their mean `mu` says how much, the mean of their size `mu*` how much where signs differ, and their
standard deviation `sigma` how much it depends on the other inputs, or bends. Definitions are those
of SALib. A normal law has no ends: its range is its middle 95 %.

Reference:
    Morris (1991), Technometrics 33, 161; Campolongo, Cariboni and Saltelli (2007), Environ. Model.
    Softw. 22, 1509.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from perfusio_jax._core import ConfigError, Result
from perfusio_jax._core.programs import compiled
from perfusio_jax._core.progress import compiling
from perfusio_jax.study.sensitivity.laws import Laws, from_unit
from perfusio_jax.study.sensitivity.streaming import (
    ROWS,
    Chunk,
    Lost,
    Model,
    count_codes,
    half_widths,
    n_outputs,
    streamed,
)

_SHARE = 0.95
"""Middle part of a normal law that its range is [-]."""


class MorrisEffects(NamedTuple):
    """Elementary effects of every input `P` on every output `O` [unit of the output per range]."""

    mu: Float[np.ndarray, "O P"]
    """Their mean."""
    mu_star: Float[np.ndarray, "O P"]
    """The mean of their size."""
    sigma: Float[np.ndarray, "O P"]
    """Their standard deviation."""
    mu_star_half_width: Float[np.ndarray, "O P"]
    """Half-width of the interval of `mu_star`; NaN from fewer than four trajectories."""
    lost: Lost
    """Runs that failed."""


def trajectories(
    n: int, n_inputs: int, seed: int, *, levels: int = 4, chunk: int = 1
) -> Iterator[np.ndarray]:
    """Trajectories in the unit cube `(chunk, P + 1, P)`; the last chunk repeats its last one.

    Args:
        n: Trajectories.
        n_inputs: Number of inputs.
        seed: Of all random numbers.
        levels: Values of the grid per input, an even number.
        chunk: Trajectories at a time.
    """
    rng = np.random.default_rng(seed)
    step = levels / (2.0 * (levels - 1.0))
    begun = 0
    while begun < n:
        size = min(chunk, n - begun)
        base = rng.integers(0, levels // 2, (size, n_inputs)) / (levels - 1.0)
        is_down = rng.random((size, n_inputs)) < 0.5
        order = rng.permuted(np.tile(np.arange(n_inputs), (size, 1)), axis=1)
        when = np.argsort(order, axis=1)  # the move that each input is moved by
        has_moved = np.arange(n_inputs + 1)[None, :, None] > when[:, None, :]
        is_high = has_moved ^ is_down[:, None, :]
        points = base[:, None, :] + step * is_high
        begun += size
        yield np.concatenate([points, np.repeat(points[-1:], chunk - size, axis=0)])


def morris_effects(
    model: Model,
    laws: Laws,
    n: int = 32,
    *,
    seed: int = 0,
    levels: int = 4,
    n_resamples: int = 100,
    level: float = 0.95,
) -> MorrisEffects:
    """Morris's elementary effects on all outputs of a model, in one pass.

    Args:
        model: What is looked at; see `streaming.Model`.
        laws: How uncertain its inputs are.
        n: Trajectories; `n (P + 1)` runs are made.
        seed: Of the trajectories and of the resampling.
        levels: Values of the grid per input, an even number.
        n_resamples: How often blocks of trajectories are drawn for the intervals.
        level: What the intervals are to cover [-].

    Returns:
        Effects. A trajectory of which a run failed is left out of all outputs, and counted.

    Raises:
        ConfigError: If there are fewer than two trajectories, or the levels are odd.
        SimulationError: If nothing is left.
    """
    if n < 2:
        raise ConfigError(f"{n} trajectories; two or more are needed, ten or more tell something.")
    if levels < 2 or levels % 2:
        raise ConfigError(f"{levels} levels; an even number is needed, 4 is usual.")
    n_inputs = int(laws.a.size)
    size = max(1, min(ROWS // (n_inputs + 1), n // 64))
    n_chunks = -(-n // size)
    step = levels / (2.0 * (levels - 1.0))

    def chunks() -> Iterator[np.ndarray]:
        return trajectories(n, n_inputs, seed, levels=levels, chunk=size)

    start = jnp.zeros((n_outputs(model, n_inputs), n_inputs))
    first = _summed(model, laws, jnp.asarray(next(chunks())), jnp.asarray(size), start, step)
    # spreads are summed from near the mean effect, or their difference would lose digits
    centre = first.sums["effect"] / jnp.maximum(first.n_used, 1)
    left = iter([size] * (n_chunks - 1) + [n - size * (n_chunks - 1)])

    def add(given: tuple[np.ndarray, int]) -> Chunk:
        points, n_real = given
        return _summed(model, laws, jnp.asarray(points), jnp.asarray(n_real), centre, step)

    blocks = streamed(
        add,
        ((points, next(left)) for points in chunks()),
        n_chunks,
        n_samples=n,
        rows_per_sample=n_inputs + 1,
    )
    shift = np.asarray(centre)
    mu, mu_star, sigma = _estimate(*blocks.total(), shift)
    (width,) = half_widths(
        blocks,
        lambda sums, used: _estimate(sums, used, shift)[1:2],
        n_resamples=n_resamples,
        level=level,
        seed=seed,
    )
    return MorrisEffects(mu, mu_star, sigma, width, blocks.lost)


@compiled
def _summed(
    model: Any,
    laws: Laws,
    points: Float[Array, "b P+1 P"],
    n_real: Array,
    centre: Float[Array, "O P"],
    step: float,
) -> Chunk:
    """What the first `n_real` trajectories of a chunk add to the sums, by output."""
    compiling("the runs of Morris's method")
    size, n_rows, n_inputs = points.shape
    rows = from_unit(laws, points.reshape(size * n_rows, n_inputs), share=_SHARE)
    y, codes = model(rows)
    codes = jnp.where((codes == 0) & ~jnp.all(jnp.isfinite(y), axis=-1), _NONFINITE, codes)
    is_real = jnp.arange(size) < n_real
    is_used = jnp.all((codes == 0).reshape(size, n_rows), axis=1) & is_real
    y = jnp.where(is_used[:, None, None], y.reshape(size, n_rows, -1), 0.0)
    moved = jnp.diff(points, axis=1)  # one entry of each row, plus or minus the step
    is_moved = jnp.abs(moved) > 0.5 * step
    sign = jnp.where(is_moved, jnp.sign(moved), 0.0)
    effect = jnp.einsum("bro,brp->bop", jnp.diff(y, axis=1), sign) / step
    away = jnp.where(is_used[:, None, None], effect - centre[None], 0.0)
    sums = {
        "effect": jnp.sum(jnp.where(is_used[:, None, None], effect, 0.0), axis=0),
        "away": jnp.sum(away, axis=0),
        "size": jnp.sum(jnp.abs(effect), axis=0),
        "square": jnp.sum(away**2, axis=0),
    }
    codes = jnp.where(jnp.repeat(is_real, n_rows), codes, _NOT_COUNTED)
    return Chunk(sums, jnp.sum(is_used), count_codes(codes))


_NONFINITE = Result.NONFINITE.value
_NOT_COUNTED = -1


def _estimate(sums: dict[str, np.ndarray], n: float, shift: np.ndarray) -> list[np.ndarray]:
    """`mu`, `mu*` and `sigma`."""
    away = sums["away"] / n
    variance = (sums["square"] / n - away**2) * n / max(n - 1.0, 1.0)
    return [away + shift, sums["size"] / n, np.sqrt(np.maximum(variance, 0.0))]
