"""Whether chains can be believed: agreement, effective draws, energy, paths.

Numbers are those of Vehtari et al. (2021): chains are halved, draws ranked and turned into normal
scores, so that heavy tails and unequal spreads show too. The estimators under them are NumPyro's.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpyro.diagnostics import effective_sample_size
from scipy.special import ndtri
from scipy.stats import rankdata

_TAILS = (0.05, 0.95)


class Agreement(NamedTuple):
    """How well chains agree on numbers, and what their draws are worth."""

    r_hat: Float[np.ndarray, " D"]
    """Spread between chains over that within [-]; 1 where they agree. Larger of that of places and
    of spreads."""
    ess_bulk: Float[np.ndarray, " D"]
    """Draws without memory that would tell as much of the middle."""
    ess_tail: Float[np.ndarray, " D"]
    """The same of the 5 and the 95 % quantile, the smaller."""


def agreement(draws: Float[np.ndarray, "C S D"]) -> Agreement:
    """How well chains agree, number by number.

    Args:
        draws: Draws of each chain.

    Returns:
        NaN where a number never moves.

    Reference:
        Vehtari, Gelman, Simpson, Carpenter, Buerkner (2021), Bayesian Analysis 16(2).
    """
    half = draws.shape[1] // 2
    split = np.concatenate([draws[:, :half], draws[:, -half:]])
    rows = [_one(split[..., k]) for k in range(split.shape[-1])]
    return Agreement(*np.array(rows, float).reshape(-1, 3).T)


def _one(x: Float[np.ndarray, "C S"]) -> tuple[float, float, float]:
    if not np.all(np.isfinite(x)) or np.ptp(x) == 0.0:
        return np.nan, np.nan, np.nan
    scores = _scores(x)
    folded = _scores(np.abs(x - np.median(x)))
    r_hat = max(_r_hat(scores), _r_hat(folded))
    tails = [_ess((x <= np.quantile(x, q)).astype(float)) for q in _TAILS]
    return r_hat, _ess(scores), min(tails)


def _scores(x: np.ndarray) -> np.ndarray:
    """Ranks among all draws as normal scores."""
    rank = rankdata(x, axis=None).reshape(x.shape)
    return ndtri((rank - 0.375) / (x.size + 0.25))


def _r_hat(x: np.ndarray) -> float:
    # the chains are halved already; halving them once more would be another statistic
    within = np.mean(np.var(x, axis=1, ddof=1))
    between = x.shape[1] * np.var(np.mean(x, axis=1), ddof=1)
    if within == 0.0:
        return float("inf")
    n = x.shape[1]
    return float(np.sqrt((within * (n - 1) / n + between / n) / within))


def _ess(x: np.ndarray) -> float:
    if np.ptp(x) == 0.0:
        return float("nan")
    return float(effective_sample_size(x))


def energy_shares(energy: Float[np.ndarray, "C S"]) -> Float[np.ndarray, " C"]:
    """Energy's moves from draw to draw over its spread, by chain [-]; E-BFMI.

    Args:
        energy: Energy of the draws.

    Reference:
        Betancourt (2016), arXiv:1604.00695.
    """
    spread = np.sum((energy - energy.mean(axis=1, keepdims=True)) ** 2, axis=1)
    return np.sum(np.diff(energy, axis=1) ** 2, axis=1) / spread


def tail_shape(log_weights: Float[np.ndarray, " N"]) -> float:
    """How heavy the tail of importance weights is: shape of a generalised Pareto law [-].

    Above 0.7 an approximation is too far from what it stands for to be mended by weights.

    Args:
        log_weights: Logarithms of target over approximation, at draws of the approximation.

    Reference:
        Vehtari, Simpson, Gelman, Yao, Gabry (2024), JMLR 25(72); the fit is that of Zhang and
        Stephens (2009).
    """
    known = np.sort(log_weights[np.isfinite(log_weights)])
    if known.size < 0.9 * log_weights.size or known.size < 25:
        return float("inf")
    n_tail = int(min(0.2 * known.size, 3.0 * np.sqrt(known.size)))
    cut = known[-n_tail - 1]
    over = np.exp(known[-n_tail:] - known[-1]) - np.exp(cut - known[-1])
    if over[-1] <= 0.0:
        return 0.0
    over = np.maximum(over, 1e-300)
    # profile likelihood on a grid of the scale, averaged; a weak prior towards one half
    m = 30 + int(np.sqrt(n_tail))
    grid = 1.0 / over[-1] + (1.0 - np.sqrt(m / (np.arange(1, m + 1) - 0.5))) / (
        3.0 * over[int(n_tail / 4 + 0.5) - 1]
    )
    shape = np.mean(np.log1p(-grid[:, None] * over[None, :]), axis=1)
    fit = n_tail * (np.log(-grid / shape) - shape - 1.0)
    weight = np.exp(fit - fit.max())
    best = float(np.sum(grid * weight) / np.sum(weight))
    k = float(np.mean(np.log1p(-best * over)))
    return (n_tail * k + 5.0) / (n_tail + 10.0)
