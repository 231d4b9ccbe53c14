"""Shapley effects: shares of an output's variance for inputs that depend on each other.

With c(u) the variance of an output that knowing the inputs u would take away,

    c(u) = Var Y - E Var(Y | X_u)
    effect_i = mean over orders of the inputs of c(before i, and i) - c(before i)

Effects are not negative, add up to the variance, and share what inputs do together, by dependence
or by interaction, evenly between them; first and total Sobol indices bracket them only where inputs
are independent. The conditional variance is half the mean square of Y(X) - Y(X'), where X' keeps
X_u and draws the others anew given them: from a fresh draw z of normal numbers and those of X by

    z' = z + R_{.u} R_uu^-1 (x_u - z_u).

Up to seven inputs all sets u are looked at; of more, those that some orders pass through, in pairs
of an order and its reverse.

Reference:
    Owen (2014), SIAM/ASA J. Uncertainty Quantification 2, 245; Song, Nelson and Staum (2016), ibid.
    4, 1060; Owen and Prieur (2017), ibid. 5, 986.
"""

from collections.abc import Sequence
from itertools import combinations
from math import comb
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from jaxtyping import Array, Float

from perfusio_jax._core import ConfigError, Result
from perfusio_jax._core.programs import compiled
from perfusio_jax._core.progress import compiling

from .joint import Joint
from .sobol import sobol_samples
from .streaming import (
    Chunk,
    Lost,
    Model,
    chunk_size,
    count_codes,
    half_widths,
    n_outputs,
    streamed,
)

MOST_EXACT = 7
"""Inputs up to which all sets of them are looked at."""
_TAIL = 2.0**-32
_NO_SPREAD = 1e-20
"""Share of an output's square below which its variance is rounding [-]."""


class ShapleyEffects(NamedTuple):
    """Shares of variance, by output and input."""

    mean: Float[np.ndarray, " O"]
    """Mean of each output [its unit]."""
    sd: Float[np.ndarray, " O"]
    """Its standard deviation."""
    effects: Float[np.ndarray, "O P"]
    """Shares [-]; they add up to one. NaN where an output does not vary."""
    half_width: Float[np.ndarray, "O P"]
    """Half-widths of their intervals [-]."""
    n_sets: int
    """Sets of inputs that were looked at."""
    n_orders: int
    """Orders they are of; 0 if all."""
    lost: Lost
    """Runs that failed."""


class _Sets(NamedTuple):
    """Sets of inputs, and what each means for the effects."""

    members: np.ndarray
    """Whether an input is in a set `(U, P)`."""
    weights: np.ndarray
    """Effect of each input from the share c of each set `(M, P, U + 1)`, the last that of all
    inputs; one for each pair of orders, or one in all."""


def shapley_effects(
    model: Model,
    joint: Joint,
    n: int = 1024,
    *,
    seed: int = 0,
    n_orders: int = 32,
    n_resamples: int = 100,
    level: float = 0.95,
) -> ShapleyEffects:
    """Shapley effects of all outputs of a model, in one pass.

    Args:
        model: What is looked at; see `streaming.Model`.
        joint: The law of its inputs.
        n: Base samples, a power of two; a run is made of each for each set of inputs, and one more.
        seed: Of the samples, the orders and the resampling.
        n_orders: Orders of more than `MOST_EXACT` inputs, an even number.
        n_resamples: How often blocks are drawn for the intervals.
        level: What the intervals are to cover [-].

    Returns:
        Effects. A base sample of which a run failed is left out of all outputs, and counted.

    Raises:
        ConfigError: If the number of samples is no power of two, or that of orders is odd.
        SimulationError: If nothing is left.
    """
    if n < 4 or n & (n - 1):
        near = 2 ** max(2, round(np.log2(max(n, 4))))
        raise ConfigError(
            f"{n} samples; a Sobol sequence is even at powers of two only. The nearest is {near}."
        )
    p = int(joint.correlation.shape[0])
    if n_orders < 2 or n_orders % 2:
        raise ConfigError(
            f"{n_orders} orders; each goes with its reverse: an even number is needed."
        )
    sets = _all_sets(p) if p <= MOST_EXACT else _sets_of_orders(p, n_orders, seed)
    rows = len(sets.members) + 1
    pulls = jnp.asarray(_pulls(np.asarray(joint.correlation), sets.members))
    size = chunk_size(n, rows)
    centre = jnp.zeros(n_outputs(model, p))
    begin = jnp.asarray(next(sobol_samples(n, p, seed, size)))
    begun = _summed(model, joint, pulls, begin, centre)
    count = np.maximum(float(begun.n_used) * rows, 1.0)
    centre = jnp.asarray(np.asarray(begun.sums["all"]) / count)
    blocks = streamed(
        lambda points: _summed(model, joint, pulls, jnp.asarray(points), centre),
        sobol_samples(n, p, seed, size),
        n // size,
        n_samples=n,
        rows_per_sample=rows,
    )
    mean, sd, by_order = _estimate(*blocks.total(), rows, sets.weights)
    widths = half_widths(
        blocks,
        lambda sums, used: [np.mean(_estimate(sums, used, rows, sets.weights)[2], axis=0)],
        n_resamples=n_resamples,
        level=level,
        seed=seed,
    )[0]
    n_pairs = len(sets.weights)
    if n_pairs > 1:  # which orders were drawn is a matter of luck, too
        from scipy.special import ndtri as quantile

        spread = np.std(by_order, axis=0, ddof=1) / np.sqrt(n_pairs)
        widths = np.hypot(widths, float(quantile(0.5 + 0.5 * level)) * spread)
    return ShapleyEffects(
        mean=mean + np.asarray(centre),
        sd=sd,
        effects=np.mean(by_order, axis=0),
        half_width=widths,
        n_sets=len(sets.members),
        n_orders=0 if n_pairs == 1 else 2 * n_pairs,
        lost=blocks.lost,
    )


def _all_sets(p: int) -> _Sets:
    """All sets but the empty and the full one, with the weights of all orders."""
    found: list[tuple[int, ...]] = [u for size in range(1, p) for u in combinations(range(p), size)]
    place = {u: k for k, u in enumerate(found)} | {tuple(range(p)): len(found)}
    weights = np.zeros((p, len(found) + 1))
    for u in [(), *found]:
        for i in (i for i in range(p) if i not in u):
            share = 1.0 / (p * comb(p - 1, len(u)))
            weights[i, place[tuple(sorted((*u, i)))]] += share
            if u:
                weights[i, place[u]] -= share
    return _Sets(_members(found, p), weights[None])


def _sets_of_orders(p: int, n_orders: int, seed: int) -> _Sets:
    """Sets that some orders and their reverses pass through."""
    rng = np.random.default_rng(seed)
    pairs = [[o, o[::-1]] for o in (rng.permutation(p) for _ in range(n_orders // 2))]
    place: dict[tuple[int, ...], int] = {}
    for order in (o for pair in pairs for o in pair):
        for k in range(1, p):
            place.setdefault(tuple(sorted(order[:k].tolist())), len(place))
    weights = np.zeros((len(pairs), p, len(place) + 1))
    for m, pair in enumerate(pairs):
        for order in pair:
            for k, i in enumerate(order):
                after = tuple(sorted(order[: k + 1].tolist()))
                weights[m, i, place.get(after, len(place))] += 0.5
                if k:
                    weights[m, i, place[tuple(sorted(order[:k].tolist()))]] -= 0.5
    return _Sets(_members(list(place), p), weights)


def _members(sets: Sequence[Sequence[int]], p: int) -> np.ndarray:
    found = np.zeros((len(sets), p), bool)
    for k, u in enumerate(sets):
        found[k, list(u)] = True
    return found


def _pulls(correlation: np.ndarray, members: np.ndarray) -> np.ndarray:
    """R_{.u} R_uu^-1 of each set, as matrices of all inputs `(U, P, P)`."""
    found = np.zeros((len(members), *correlation.shape))
    for k, own in enumerate(members):
        u = np.flatnonzero(own)
        found[k][:, u] = np.linalg.solve(correlation[np.ix_(u, u)], correlation[u]).T
        found[k][u] = np.eye(len(correlation))[u]  # what is kept is kept to the last digit
    return found


@compiled
def _summed(
    model: Any,
    joint: Joint,
    pulls: Float[Array, "U P P"],
    points: Float[Array, "b 2P"],
    centre: Array,
) -> Chunk:
    """What one chunk adds to the sums, by output."""
    compiling("the runs of Shapley effects")
    size, p = points.shape[0], points.shape[1] // 2
    unit = ndtri(jnp.clip(points, _TAIL, 1.0 - _TAIL))
    root = jnp.linalg.cholesky(joint.correlation)
    z, fresh = unit[:, :p] @ root.T, unit[:, p:] @ root.T
    again = fresh[:, None] + jnp.einsum("upq,bq->bup", pulls, z - fresh)
    rows = jnp.concatenate([z[:, None], again], axis=1)
    n_rows = rows.shape[1]
    y, codes = model(joint.values(rows.reshape(size * n_rows, p)))
    codes = jnp.where(
        (codes == 0) & ~jnp.all(jnp.isfinite(y), axis=-1), Result.NONFINITE.value, codes
    )
    is_used = jnp.all((codes == 0).reshape(size, n_rows), axis=1)
    y = y.reshape(size, n_rows, -1) - centre[None, None]
    y = jnp.where(is_used[:, None, None], y, 0.0)
    sums = {
        "all": jnp.sum(y, axis=(0, 1)),
        "squares": jnp.sum(y * y, axis=(0, 1)),
        "gap": jnp.sum((y[:, :1] - y[:, 1:]) ** 2, axis=0).T,
    }
    return Chunk(sums, jnp.sum(is_used), count_codes(codes))


def _estimate(
    sums: dict[str, np.ndarray], n: float, rows: int, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, deviation, and effects by pair of orders `(M, O, P)`."""
    mean = sums["all"] / (n * rows)
    square = sums["squares"] / (n * rows)
    variance = square - mean**2
    varies = variance > _NO_SPREAD * np.maximum(square, mean**2)
    per = 1.0 / np.where(varies, variance, np.nan)
    known = 1.0 - 0.5 * sums["gap"] / n * per[:, None]
    known = np.concatenate([known, np.where(varies, 1.0, np.nan)[:, None]], axis=1)
    effects = np.einsum("mpu,ou->mop", weights, known)
    return mean, np.sqrt(np.where(varies, variance, 0.0)), effects
