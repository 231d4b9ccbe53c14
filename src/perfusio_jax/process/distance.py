"""How far a sample lies from many alike: Hotelling's T2 and the squared prediction error Q.

What is known of the many are scaled deviations, a row per sample, and which run each is of. Samples
of one run are alike, so it is runs that count, not rows: a correlation is the mean of what each run
says, shrunk towards none by as much as runs disagree, and limits have the degrees of freedom of
runs.

Reference:
    Jackson (1991), A User's Guide to Principal Components, for T2 and Q; Box (1954), Ann. Math.
    Stat. 25, 290, for the law of Q; Schaefer and Strimmer (2005), Stat. Appl. Genet. Mol. Biol. 4,
    32, for the shrinkage; Alcala and Qin (2009), Automatica 45, 1593, for contributions.
"""

from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

LEVELS: Final = (0.95, 0.99)
"""Levels of the limits: of samples like the many, that share lies within."""

FEWEST: Final = 3
"""Runs below which nothing is said: two have one difference, and no spread of it."""

SHARE: Final = 0.8
"""Share of the variance that the components of T2 hold, at least; the rest is Q's."""


class Alike(NamedTuple):
    """What many samples say of how quantities go together."""

    correlation: Float[np.ndarray, "K K"]
    """Shrunk correlation; NaN where too few runs have rows."""
    shrinkage: float
    """Weight of no correlation in it [-]."""
    n_runs: int
    """Runs it comes from."""


class Ruler(NamedTuple):
    """What one sample is measured by."""

    values: Float[np.ndarray, " K"]
    """Eigenvalues of the correlation, falling."""
    vectors: Float[np.ndarray, "K K"]
    """Their directions, a column each."""
    n_components: int
    """Directions of T2, the first ones; the others are Q's. 0 where nothing is known."""
    t2_limits: tuple[float, ...]
    """Limits of T2 at `LEVELS`."""
    q_limits: tuple[float, ...]
    """Limits of Q; NaN where no direction is left for it."""


class Distance(NamedTuple):
    """How far one sample lies from the many."""

    t2: float
    """Hotelling's T2: far out, in the ways the many differ."""
    q: float
    """Squared prediction error: different in a way the many are not; NaN where T2 has it all."""
    t2_by: Float[np.ndarray, " K"]
    """What each quantity adds to T2; none is negative."""
    q_by: Float[np.ndarray, " K"]
    """What each quantity adds to Q."""


def alike(rows: Float[np.ndarray, "N K"], run_of_row: Int[np.ndarray, " N"]) -> Alike:
    """How quantities go together, from rows without a gap.

    Args:
        rows: Scaled deviations; a row with NaN is left out.
        run_of_row: Number of the run each is of.

    Returns:
        Correlation and what it rests on.
    """
    is_whole = np.isfinite(rows).all(axis=1)
    rows, owners = rows[is_whole], run_of_row[is_whole]
    runs, k = np.unique(owners), rows.shape[1]
    if len(runs) < FEWEST:
        return Alike(np.full((k, k), np.nan), np.nan, len(runs))
    each = np.array([r.T @ r / len(r) for r in (rows[owners == run] for run in runs)])
    mean = each.mean(axis=0)
    scale = np.sqrt(np.maximum(np.diag(mean), np.finfo(float).tiny))
    each, mean = each / np.outer(scale, scale), mean / np.outer(scale, scale)
    off = ~np.eye(k, dtype=bool)
    between = ((each - mean) ** 2).sum(axis=0) / (len(runs) * (len(runs) - 1))
    total = float((mean[off] ** 2).sum())
    weight = min(1.0, float(between[off].sum()) / total) if total > 0.0 else 1.0
    return Alike((1.0 - weight) * mean + weight * np.eye(k), weight, len(runs))


def ruler(known: Alike, n_runs: int) -> Ruler:
    """Components of T2, and limits for a sample of a further run.

    The limits are `(1 + 1/R) A F(A, R - 1)` for T2 with `A` components and `R` runs, and
    `(1 + 1/R) theta1 F(h, R - 1)` for Q, with Box's `h = theta1^2 / theta2` of the eigenvalues that
    are left. With many runs these are the usual ones by chi squared; with few, F counts that the
    spread is known from so few. (Hotelling's own `R - A` is for directions that the runs of one
    hour give; here they come from all samples of all runs.)

    Args:
        known: How quantities go together.
        n_runs: Runs that mean and spread come from.

    Returns:
        The first components with `SHARE` of the variance, equal ones together, as their order says
        nothing; without any where fewer than `FEWEST` runs are known.
    """
    k, runs = len(known.correlation), min(n_runs, known.n_runs)
    gone = tuple(np.nan for _ in LEVELS)
    if runs < FEWEST:
        return Ruler(np.full(k, np.nan), np.full((k, k), np.nan), 0, gone, gone)
    values, vectors = np.linalg.eigh(known.correlation)
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    n = int(np.searchsorted(np.cumsum(values) / values.sum(), SHARE - 1e-12)) + 1
    n = max(1, min(n, k - 1, runs - 2))
    while n < k and values[n] > values[n - 1] * (1.0 - 1e-9):
        n += 1
    once = 1.0 + 1.0 / runs
    t2_limits = tuple(once * n * float(stats.f.ppf(p, n, runs - 1)) for p in LEVELS)
    theta1, theta2 = float(values[n:].sum()), float((values[n:] ** 2).sum())
    if not theta1 > 1e-9:
        return Ruler(values, vectors, n, t2_limits, gone)
    h = theta1**2 / theta2
    q_limits = tuple(once * theta1 * float(stats.f.ppf(p, h, runs - 1)) for p in LEVELS)
    return Ruler(values, vectors, n, t2_limits, q_limits)


def distance(z: Float[np.ndarray, " K"], by: Ruler) -> Distance:
    """T2 and Q of one sample, and what each quantity adds to them.

    Args:
        z: The sample, less the mean of the many, over their spread; nothing missing.
        by: What it is measured by.

    Returns:
        Everything NaN where nothing is known.
    """
    nothing = np.full(z.size, np.nan)
    if not by.n_components:
        return Distance(np.nan, np.nan, nothing, nothing)
    kept, P = by.values[: by.n_components], by.vectors[:, : by.n_components]
    scores = z @ P
    far, rest = P @ (scores / np.sqrt(kept)), z - P @ scores
    if np.isnan(by.q_limits[0]):
        return Distance(float(far @ far), np.nan, far**2, nothing)
    return Distance(float(far @ far), float(rest @ rest), far**2, rest**2)
