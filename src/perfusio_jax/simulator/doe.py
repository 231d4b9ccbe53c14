"""Designs of experiments in normalised coordinates, and their scaling to set-points."""

import itertools
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from perfusio_jax._core import ConfigError

_BLOCKS: dict[int, tuple[tuple[int, ...], ...]] = {
    6: ((0, 1, 3), (1, 2, 4), (2, 3, 5), (0, 3, 4), (1, 4, 5), (0, 2, 5)),
    7: ((0, 1, 3), (1, 2, 4), (2, 3, 5), (3, 4, 6), (0, 4, 5), (1, 5, 6), (0, 2, 6)),
}
"""Factors varied together in each block of the published designs with six and seven factors."""


def _whole(name: str, value: object, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ConfigError(f"{name}={value!r} must be a whole number of at least {least}.")
    return int(value)


def box_behnken(n_factors: int, center_points: int = 3) -> np.ndarray:
    """Box-Behnken design: three levels, no corner of the cube.

    Up to five factors every pair is varied in a 2 x 2 factorial with the others at the
    centre (12, 24, 40 runs). Six and seven factors use the published blocks of three
    factors (48 and 56 runs), for seven the lines of the Fano plane.

    Args:
        n_factors: Number of factors, 3 to 7.
        center_points: Replicates of the centre, appended last.

    Returns:
        Shape (n_runs, n_factors) with levels -1, 0, 1.

    Raises:
        ConfigError: (a ValueError) if a number is out of range.

    Reference:
        Box & Behnken (1960), Technometrics 2(4).
    """
    if _whole("n_factors", n_factors, 1) not in range(3, 8):
        raise ConfigError(f"n_factors={n_factors} is outside 3..7, where the designs are defined.")
    center = np.zeros((_whole("center_points", center_points, 0), n_factors))
    if n_factors in _BLOCKS:
        corners = np.array(list(itertools.product((-1.0, 1.0), repeat=3)))
        runs = np.zeros((len(_BLOCKS[n_factors]), len(corners), n_factors))
        for block, factors in zip(runs, _BLOCKS[n_factors], strict=True):
            block[:, list(factors)] = corners
        design = runs.reshape(-1, n_factors)
    else:
        import pydoe

        design = np.asarray(pydoe.bbdesign(n_factors, center=0), float)
    return np.vstack([design, center])


def central_composite(
    n_factors: int,
    alpha: Literal["rotatable", "orthogonal"] = "rotatable",
    center_points: tuple[int, int] = (4, 4),
) -> np.ndarray:
    """Circumscribed central composite design: full factorial, star and centre points.

    Args:
        n_factors: Number of factors, 2 to 10.
        alpha: Distance of the star points: "rotatable" makes the prediction variance a
            function of the distance from the centre alone, "orthogonal" makes the factorial
            and the star block orthogonal.
        center_points: Replicates of the centre in the factorial and in the star block.

    Returns:
        Shape (2^k + 2 k + centre points, k): factorial points at ±1 with their centre
        points, then the star with its own. Star points lie beyond ±1.

    Raises:
        ConfigError: (a ValueError) if an argument is out of range.

    Reference:
        Box & Wilson (1951); Montgomery, Design and Analysis of Experiments.
    """
    if _whole("n_factors", n_factors, 1) not in range(2, 11):
        raise ConfigError(f"n_factors={n_factors} must lie in 2..10.")
    if alpha not in ("rotatable", "orthogonal"):
        raise ConfigError(f"alpha={alpha!r} is unknown; allowed are 'rotatable', 'orthogonal'.")
    if len(center_points) != 2:
        raise ConfigError(f"center_points={center_points!r} must hold two numbers.")
    counts = tuple(_whole("center_points", n, 0) for n in center_points)
    import pydoe

    return np.asarray(pydoe.ccdesign(n_factors, center=counts, alpha=alpha), float)  # pyright: ignore


def latin_hypercube(
    n_runs: int, n_factors: int, seed: int = 0, optimise: bool = True
) -> np.ndarray:
    """Latin hypercube sample: every factor meets each of `n_runs` equal strata once.

    Args:
        n_runs: Number of runs.
        n_factors: Number of factors.
        seed: Decides the sample.
        optimise: Lower the centred discrepancy by random exchanges.

    Returns:
        Shape (n_runs, n_factors) in [0, 1].

    Raises:
        ConfigError: (a ValueError) if a number is out of range.
    """
    from scipy.stats import qmc

    n_runs, n_factors = _whole("n_runs", n_runs, 1), _whole("n_factors", n_factors, 1)
    sampler = qmc.LatinHypercube(
        n_factors,
        rng=np.random.default_rng(_whole("seed", seed, 0)),
        optimization="random-cd" if optimise and n_runs > 1 else None,
    )
    return sampler.random(n_runs)


def scale_to_bounds(
    design: ArrayLike, lo: ArrayLike, hi: ArrayLike, normalised: bool = True
) -> np.ndarray:
    """A design in physical units.

    Points outside the normalised range, such as the star of a central composite design,
    are mapped by the same straight line and leave the bounds.

    Args:
        design: Shape (n_runs, n_factors).
        lo: Lower bounds, shape (n_factors,).
        hi: Upper bounds, likewise.
        normalised: True if the design lives in [-1, 1], False if in [0, 1].

    Returns:
        Same shape as `design`.

    Raises:
        ConfigError: (a ValueError) if shapes disagree or a lower bound is not below the
            upper one.
    """
    design, lo, hi = (np.asarray(a, float) for a in (design, lo, hi))
    if design.ndim != 2 or lo.shape != (design.shape[1],) or hi.shape != lo.shape:
        raise ConfigError(
            f"design must have shape (n_runs, n_factors) and lo, hi (n_factors,); given "
            f"{design.shape}, {lo.shape}, {hi.shape}."
        )
    if not (np.all(np.isfinite(lo)) and np.all(np.isfinite(hi)) and np.all(lo < hi)):
        raise ConfigError(f"bounds must be finite with lo < hi; given lo={lo}, hi={hi}.")
    unit = 0.5 * (design + 1.0) if normalised else design
    return lo + (hi - lo) * unit
