"""Functions whose surrogates are searched; on the unit cube, every output maximised."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.stats import qmc

HARTMANN_A = np.array(
    [
        [10, 3, 17, 3.5, 1.7, 8],
        [0.05, 10, 17, 0.1, 8, 14],
        [3, 3.5, 1.7, 10, 17, 8],
        [17, 8, 0.05, 10, 0.1, 14],
    ]
)
HARTMANN_P = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)


class Problem(NamedTuple):
    """A function and how its acquisition is searched."""

    name: str
    d: int
    function: Callable[[np.ndarray], np.ndarray]
    """`(n,d) -> (n,k)`: objectives, then an outcome that must not exceed zero."""
    n_objectives: int
    n_train: int
    acquisition: str
    q: int
    n_samples: int = 128
    largest_mean: float | None = None
    """Linear constraint: the mean of all coordinates is at most this."""

    @property
    def has_constraint(self) -> bool:
        """Whether the last output is a constraint."""
        return self.function(np.full((1, self.d), 0.5)).shape[1] > self.n_objectives


def branin(X: np.ndarray) -> np.ndarray:
    """Branin-Hoo on the unit square."""
    x, y = 15.0 * X[:, 0] - 5.0, 15.0 * X[:, 1]
    inner = y - 5.1 / (4 * np.pi**2) * x**2 + 5 / np.pi * x - 6
    return -(inner**2 + 10 * (1 - 1 / (8 * np.pi)) * np.cos(x) + 10)[:, None]


def hartmann6(X: np.ndarray) -> np.ndarray:
    """Hartmann's function of six variables."""
    gap = np.sum(HARTMANN_A[None] * (X[:, None, :] - HARTMANN_P[None]) ** 2, axis=2)
    return np.sum(np.array([1.0, 1.2, 3.0, 3.2]) * np.exp(-gap), axis=1)[:, None]


def ackley(X: np.ndarray) -> np.ndarray:
    """Ackley's function on [-5, 10] in every variable."""
    x = 15.0 * X - 5.0
    first = -20.0 * np.exp(-0.2 * np.sqrt(np.mean(x**2, axis=1)))
    return -(first - np.exp(np.mean(np.cos(2 * np.pi * x), axis=1)) + 20.0 + np.e)[:, None]


def branin_currin(X: np.ndarray) -> np.ndarray:
    """Branin-Hoo and Currin's exponential function."""
    a, b = X[:, 0], np.maximum(X[:, 1], 1e-9)
    top = 2300 * a**3 + 1900 * a**2 + 2092 * a + 60
    currin = (1 - np.exp(-0.5 / b)) * top / (100 * a**3 + 500 * a**2 + 4 * a + 20)
    return np.concatenate([branin(X), -currin[:, None]], axis=1)


def dtlz2(X: np.ndarray) -> np.ndarray:
    """Two objectives whose front is a quarter circle."""
    g = np.sum((X[:, 1:] - 0.5) ** 2, axis=1)
    angle = 0.5 * np.pi * X[:, 0]
    return -np.stack([(1 + g) * np.cos(angle), (1 + g) * np.sin(angle)], axis=1)


def c2_dtlz2(X: np.ndarray) -> np.ndarray:
    """The same with three allowed islands on the front (radius 0.2)."""
    Y = dtlz2(X)
    f, r2 = -Y, 0.2**2
    total = np.sum(f**2, axis=1, keepdims=True)
    corner = np.min((f - 1) ** 2 + total - f**2, axis=1) - r2
    middle = np.sum((f - 1 / np.sqrt(2.0)) ** 2, axis=1) - r2
    return np.concatenate([Y, np.minimum(corner, middle)[:, None]], axis=1)


PROBLEMS = (
    Problem("Branin", 2, branin, 1, 15, "LogEI", 1),
    Problem("Hartmann-6", 6, hartmann6, 1, 40, "qLogEI", 2),
    Problem("Hartmann-6, cut", 6, hartmann6, 1, 40, "LogEI", 1, largest_mean=0.35),
    Problem("Ackley-10", 10, ackley, 1, 60, "LogEI", 1),
    Problem("Branin-Currin", 2, branin_currin, 2, 15, "qNEHVI", 2),
    Problem("DTLZ2", 6, dtlz2, 2, 20, "qNEHVI", 2),
    Problem("C2-DTLZ2", 4, c2_dtlz2, 2, 20, "qNEHVI", 2),
)

SPEED = (
    Problem("LogEI d=6", 6, hartmann6, 1, 50, "LogEI", 1),
    Problem("qLogEI q=4", 6, hartmann6, 1, 50, "qLogEI", 4),
    Problem("qNEHVI q=2", 6, dtlz2, 2, 30, "qNEHVI", 2),
)


class Table(NamedTuple):
    """Training data of a surrogate."""

    X: np.ndarray
    Y: np.ndarray
    """Standardised outputs, with a little noise."""
    limit: float
    """Largest allowed value of the last output, standardised."""
    ref_point: np.ndarray
    """Reference point of the objectives, standardised."""


def make_table(problem: Problem, seed: int) -> Table:
    """Sobol points and noisy values."""
    rng = np.random.default_rng(seed)
    X = qmc.Sobol(problem.d, rng=rng).random_base2(10)[: problem.n_train]
    raw = problem.function(X)
    mean, spread = raw.mean(axis=0), raw.std(axis=0)
    Y = (raw - mean) / spread + 0.05 * rng.normal(size=raw.shape)
    m = problem.n_objectives
    return Table(X, Y, float(-mean[-1] / spread[-1]), Y[:, :m].min(axis=0) - 0.1)
