"""A method on a frozen problem: rounds of asking and telling, and how good what it found is."""

from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Float

from .problem import FrozenProblem, Space


class Method(Protocol):
    """What a method has to have; whatever makes one is given a `Space` and a seed."""

    def ask(self, n: int) -> Any:
        """Points `(n, D)` to be run, within the ranges."""
        ...

    def tell(self, x: Any, value: Any, slack: Any) -> None:
        """What was read of them.

        Args:
            x: The points.
            value: What is to be large `(n,)`; NaN where a run failed.
            slack: Distance from each limit `(n, L)`; at least zero where it is kept.
        """
        ...


class Maker(Protocol):
    """Makes a method for a problem."""

    def __call__(self, space: Space, seed: int) -> Method:
        """A fresh method that knows nothing."""
        ...


class Trial(NamedTuple):
    """One seed of a method."""

    x: Float[np.ndarray, "N D"]
    """All runs, in order."""
    best: Float[np.ndarray, " R"]
    """After each round the score of the best run so far that keeps the limits, in truth; minus
    infinity before there is one."""
    n_kept: int
    """Runs that keep the limits."""


def run_trial(problem: FrozenProblem, make: Maker, seed: int) -> Trial:
    """Let a method ask for runs until the budget is spent.

    Args:
        problem: The problem.
        make: Makes the method.
        seed: Of the noise, and of the method.

    Returns:
        What it found. It is judged by the truth, which it does not see.

    Raises:
        ConfigError: If it gives points that cannot be run.
    """
    method = make(problem.space, seed)
    rows: list[np.ndarray] = []
    best, kept, top = [], 0, -np.inf
    for round_ in range(problem.n_rounds):
        x = problem.checked(method.ask(problem.batch), problem.batch)
        seen = problem.outcomes(x)
        truth, read = problem.judged(seen), problem.noisy(seen, seed, round_ * problem.batch)
        method.tell(x, read.value, read.slack)
        rows.append(x)
        kept += int(truth.is_good.sum())
        good = truth.value[truth.is_good]
        top = max(top, float(good.max()) if good.size else -np.inf)
        best.append(problem.score(top) if np.isfinite(top) else -np.inf)
    return Trial(np.concatenate(rows), np.asarray(best), kept)
