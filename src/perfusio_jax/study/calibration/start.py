"""Where a calibration begins: the most probable constants, and how sharp the posterior is there.

The search of `identify` comes first, with all clones taken for one. Its information, carried over
to everything that is unknown, makes coordinates in which the posterior is nearly a standard normal;
in those a quasi-Newton search goes on to the most probable point of the whole model.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize

from perfusio_jax._core.progress import tell
from perfusio_jax.study.calibration.model import White, potentials
from perfusio_jax.study.calibration.problem import NOISE_WIDTH, Problem
from perfusio_jax.study.identifiability.fitting import START_WIDTH
from perfusio_jax.study.identifiability.identify import Identifiability, identify

_MOST_TURNS = 200
_TOLERANCE = 1e-3
"""Slope at which the search has come to its end [per posterior standard deviation]."""


class Start(NamedTuple):
    """The most probable point."""

    white: White
    """Coordinates around it."""
    potential: float
    """Negative logarithm of the posterior there, up to a constant."""
    is_converged: bool
    """Whether the search came to its end."""
    n_gradients: int
    """How many derivatives it took."""
    first: Identifiability
    """Where all clones were taken for one, and what is left open."""


def begin(problem: Problem, n_rows: int = 1) -> Start:
    """Find the most probable point.

    Args:
        problem: What is asked.
        n_rows: Points that are evaluated at once; that of the chains to come, so that both have one
            program.

    Raises:
        DataError: If the runs cannot be used.
        SimulationError: If they cannot be simulated with the constants as they stand.
    """
    first = identify(
        problem.experiment,
        problem.records,
        [lever.name for lever in problem.levers],
        laws=problem.laws,
        starts_known=problem.starts_known,
    )
    u = _carried(problem, first)
    white = White(jnp.asarray(u), jnp.asarray(_scale(problem, u, first)))
    tell("the most probable constants")
    count = 0

    def look(v: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal count
        count += 1
        rows = jnp.broadcast_to(jnp.asarray(v), (n_rows, v.size))
        value, slope = potentials(problem, white, rows)
        return float(value[0]), np.asarray(slope[0], float)

    found = minimize(
        look,
        np.zeros(u.size),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": _MOST_TURNS, "gtol": _TOLERANCE, "maxcor": 30},
    )
    u = u + np.asarray(white.scale) @ found.x
    # the shape is kept: that of the place the first search ended at is near enough for coordinates
    white = White(jnp.asarray(u), jnp.asarray(_scale(problem, u, first)))
    return Start(white, float(found.fun), bool(found.success), count, first)


def _carried(problem: Problem, first: Identifiability) -> Float[np.ndarray, " D"]:
    """The point of the first search as a point of the whole model."""
    asked = first.problem.asked
    known = {"constants": np.asarray(asked.z), "starts": np.asarray(asked.w) / START_WIDTH}
    if problem.learns_noise:
        known["noise"] = _noise(problem, first)
    parts = [known.get(name, np.zeros(shape)) for name, shape in problem.sizes.items()]
    return np.concatenate([np.ravel(part) for part in parts])


def _noise(problem: Problem, first: Identifiability) -> Float[np.ndarray, " A"]:
    """How much wider than told each assay is, by what the first search left of its readings."""
    misfit = max(first.misfit, 1e-2)
    return np.full(len(problem.experiment.assays), 0.5 * np.log(misfit) / NOISE_WIDTH)


def _scale(
    problem: Problem, u: Float[np.ndarray, " D"], first: Identifiability
) -> Float[np.ndarray, "D D"]:
    """Square root of the covariance at a point, by the information of each run."""
    at = jnp.asarray(u)
    moves = np.asarray(jax.jacfwd(lambda v: problem.by_run(problem.unflat(v)))(at))
    precision = np.eye(u.size)
    weight = np.ones(moves.shape[0])
    if problem.learns_noise:
        weight *= np.exp(-2.0 * NOISE_WIDTH * float(np.mean(problem.unflat(at)["noise"])))
    precision += np.einsum("rau,rab,rbv,r->uv", moves, first.problem.by_run, moves, weight)
    if problem.learns_noise:
        place = problem.unflat(jnp.arange(u.size))["noise"].astype(int)
        n = np.sum(np.isfinite(np.asarray(problem.records.readings)), axis=(0, 1))
        precision[place, place] += 2.0 * n * NOISE_WIDTH**2
    lower = np.linalg.cholesky(0.5 * (precision + precision.T))
    # precision = L L^T, covariance = L^-T L^-1: a square root that need not be a triangle
    return np.linalg.inv(lower).T
