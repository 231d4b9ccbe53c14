"""A frozen problem: plant, what is asked of it, noise, budget, and how good one can be.

Nothing of a problem changes under its name: what would change a number gets a new version. The
digest is of the truth at points that are part of the problem, to four digits, so that a plant that
gives other values is found out.
"""

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from perfusio_jax._core import ConfigError
from perfusio_jax.study.experiment import Experiment
from perfusio_jax.study.scale.each import each_lane
from perfusio_jax.study.scale.lanes import given_runs

ROWS = 64
"""Runs that are computed at once; one size, so that one program serves all."""
_N_PROBES = 5


class Space(NamedTuple):
    """What a method is told beforehand; everything else it has to ask."""

    names: tuple[str, ...]
    """What is chosen."""
    lower: Float[np.ndarray, " D"]
    """Ends of the ranges."""
    upper: Float[np.ndarray, " D"]
    batch: int
    """Runs of a round, side by side."""
    n_rounds: int
    """Rounds."""
    n_limits: int
    """Limits that runs are to keep."""


class Truth(NamedTuple):
    """What runs come to, without noise."""

    value: Float[np.ndarray, " N"]
    """What is to be large; NaN where the run failed."""
    slack: Float[np.ndarray, "N L"]
    """Distance from each limit, in units of its scale; at least zero where it is kept."""

    @property
    def is_good(self) -> Bool[np.ndarray, " N"]:
        """Whether all limits are kept."""
        return np.isfinite(self.value) & np.all(self.slack >= 0.0, axis=1)


class FrozenProblem(NamedTuple):
    """One problem."""

    name: str
    """With its version: `cho-v1`."""
    text: str
    """What is asked, for people."""
    experiment: Callable[[], Experiment]
    """Makes the plant; the truth."""
    levers: tuple[str, ...]
    """What is chosen."""
    lower: tuple[float, ...]
    """Ends of the ranges."""
    upper: tuple[float, ...]
    outputs: tuple[str, ...]
    """What is looked at: first what counts, then what is limited."""
    targets: tuple[float, ...]
    """Values that the first outputs are to be near; empty if the first output is to be large."""
    limits: tuple[tuple[int, float, float], ...]
    """Output, its bound, and its scale; a negative scale where the bound is from above."""
    cv: tuple[float, ...]
    """Noise of each output [-]."""
    batch: int
    n_rounds: int
    seeds: tuple[int, ...]
    """Of the noise, and of the methods: repeats that a figure is of."""
    usual: float
    """Value of the middle one of random runs that keep the limits; scores 0."""
    optimum: float
    """Best value that is known, by search on the truth; scores 1."""
    best: tuple[float, ...]
    """Where."""
    digest: str
    """Of the truth at the probes."""

    @property
    def space(self) -> Space:
        """What methods are told."""
        lower, upper = np.asarray(self.lower), np.asarray(self.upper)
        return Space(self.levers, lower, upper, self.batch, self.n_rounds, len(self.limits))

    def outcomes(self, x: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N O"]:
        """Outputs of runs, without noise; NaN where one failed."""
        n = len(x)
        padded = np.concatenate([x, np.repeat(x[-1:], -n % ROWS, axis=0)])
        run = self.experiment()
        parts = [
            each_lane(
                given_runs(run, self.outputs, self.levers, padded[i : i + ROWS]),
                ROWS,
                devices=1,
                rows=ROWS,
            ).values
            for i in range(0, len(padded), ROWS)
        ]
        return np.concatenate(parts)[:n]

    def judged(self, seen: Float[np.ndarray, "N O"]) -> Truth:
        """Value and slack of outputs."""
        value = seen[:, 0]
        if self.targets:
            goal = np.asarray(self.targets)
            value = -np.sum(np.abs(seen[:, : goal.size] - goal) / goal, axis=1)
        parts = [(seen[:, k] - bound) / scale for k, bound, scale in self.limits]
        slack = np.stack(parts, axis=1) if parts else np.zeros((len(seen), 0))
        return Truth(value, slack)

    def truth(self, x: Float[np.ndarray, "N D"]) -> Truth:
        """What runs come to."""
        return self.judged(self.outcomes(x))

    def noisy(self, seen: Float[np.ndarray, "N O"], seed: int, n_before: int) -> Truth:
        """What is read of runs: the noise depends on the seed and on a run's number alone."""
        factor = np.stack(
            [
                np.random.default_rng([seed, n_before + k]).standard_normal(seen.shape[1])
                for k in range(len(seen))
            ]
        )
        return self.judged(seen * np.exp(np.asarray(self.cv) * factor))

    def score(self, value: float) -> float:
        """0 at the usual random run, 1 at the optimum; below 0 where it is worse than usual."""
        return (value - self.usual) / (self.optimum - self.usual)

    def checked(self, x: object, n: int) -> Float[np.ndarray, "N D"]:
        """Points as a method gave them.

        Raises:
            ConfigError: If there are not as many, or one is outside the ranges.
        """
        found = np.asarray(x, float)
        if found.shape != (n, len(self.levers)) or not np.all(np.isfinite(found)):
            raise ConfigError(
                f"{self.name}: the method gave points of shape {found.shape}; ({n}, "
                f"{len(self.levers)}) finite numbers were asked for."
            )
        lower, upper = np.asarray(self.lower), np.asarray(self.upper)
        room = 1e-9 * (upper - lower)
        outside = np.any((found < lower - room) | (found > upper + room), axis=0)
        if outside.any():
            names = [n for n, is_out in zip(self.levers, outside, strict=True) if is_out]
            raise ConfigError(
                f"{self.name}: the method left the range of {', '.join(names)}; see `space.lower` "
                "and `space.upper`."
            )
        return np.clip(found, lower, upper)

    def probes(self) -> Float[np.ndarray, "N D"]:
        """Points at which the problem is recognised: the known optimum, and some between."""
        share = (0.5 + np.outer(np.arange(1, _N_PROBES), np.sqrt([2, 3, 5, 7, 11, 13]))) % 1.0
        lower, upper = np.asarray(self.lower), np.asarray(self.upper)
        inside = lower + (0.1 + 0.8 * share[:, : lower.size]) * (upper - lower)
        return np.concatenate([np.asarray(self.best)[None], inside])

    def found_digest(self) -> str:
        """Digest of what this installation computes."""
        seen = self.outcomes(self.probes())
        text = ";".join(",".join(f"{v:.3e}" for v in row) for row in seen)
        plain = (self.name, self.lower, self.upper, self.outputs, self.targets, self.limits)
        rest = (self.cv, self.batch, self.n_rounds, self.seeds)
        return hashlib.sha256(f"{plain}|{rest}|{text}".encode()).hexdigest()[:16]
