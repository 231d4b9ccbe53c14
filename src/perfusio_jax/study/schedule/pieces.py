"""Which set-points are chosen, and how pieces of a run make its schedule."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Float

from perfusio_jax._core import ConfigError
from perfusio_jax._core.hints import did_you_mean
from perfusio_jax.study.experiment import SET_POINT, WHOLE_RUN, Experiment, Lever


class Chosen(NamedTuple):
    """Which numbers are chosen."""

    names: tuple[str, ...]
    units: tuple[str, ...]
    lo: Float[np.ndarray, " M"]
    hi: Float[np.ndarray, " M"]
    step: Float[np.ndarray, " M"]
    """Largest change from piece to piece; infinite if free."""

    @property
    def span(self) -> Float[np.ndarray, " M"]:
        """Widths of the ranges."""
        return self.hi - self.lo


class Level:
    """The pieces of one search, and how they make the schedule."""

    def __init__(self, n_pieces: int, n_intervals: int, n_controls: int) -> None:
        self.n = n_pieces * n_controls
        self.shape = (n_pieces, n_controls)
        self.of_interval = np.arange(n_intervals) * n_pieces // n_intervals
        place = np.arange(n_intervals * n_controls).reshape(n_intervals, n_controls)
        self.basis = np.zeros((self.n, n_intervals * n_controls))
        for t, piece in enumerate(self.of_interval):
            for m in range(n_controls):
                self.basis[piece * n_controls + m, place[t, m]] = 1.0

    def pieces_of(self, table: np.ndarray) -> np.ndarray:
        """Means of a table over the pieces."""
        return np.stack([table[self.of_interval == k].mean(axis=0) for k in range(self.shape[0])])


def chosen_of(
    experiment: Experiment,
    names: Sequence[str] | None,
    ranges: dict[str, tuple[float, float]],
    steps: dict[str, float],
) -> Chosen:
    """The controls that are chosen, their ranges and steps."""
    whole = [v for v in experiment.levers if v.group == SET_POINT and v.interval == WHOLE_RUN]
    known = [v.name for v in whole]
    for name in (*(names or ()), *ranges, *steps):
        if name not in known:
            raise ConfigError(
                f"{name!r} is no control of this run{did_you_mean([name], known)}; there are "
                f"{', '.join(known)}."
            )
    found: list[tuple[Lever, float, float]] = []
    for lever in whole:
        if names is not None and lever.name not in names:
            continue
        law = experiment.usual_law(lever)
        given = ranges.get(lever.name)
        if given is None and law is not None:
            given = (law.a, law.a + law.b)
        if given is None:
            if names is None:
                continue
            raise ConfigError(f"{lever.name} has no range to choose from; give one in ranges.")
        lo, hi = (float(v) for v in given)
        if not (np.isfinite(lo) and np.isfinite(hi) and lo < hi):
            raise ConfigError(f"{lever.name}: {lo:g} to {hi:g} is no range.")
        found.append((lever, lo, hi))
    if not found:
        raise ConfigError("no control is left to choose; name some that have a range.")
    for name, step in steps.items():
        if not step > 0.0:
            raise ConfigError(f"{name}: a step of {step:g}; it is above zero.")
    return Chosen(
        tuple(v.name for v, _, _ in found),
        tuple(v.unit for v, _, _ in found),
        np.array([lo for _, lo, _ in found]),
        np.array([hi for _, _, hi in found]),
        np.array([steps.get(v.name, np.inf) for v, _, _ in found]),
    )


def rows_of(constants: Mapping[str, ArrayLike]) -> np.ndarray:
    """Draws of constants as rows; one row without a column if there are none."""
    if not constants:
        return np.zeros((1, 0))
    columns = {name: np.atleast_1d(np.asarray(v, float)) for name, v in constants.items()}
    sizes = {v.size for v in columns.values()}
    if len(sizes) != 1 or any(v.ndim != 1 or not np.isfinite(v).all() for v in columns.values()):
        raise ConfigError(
            "draws of constants are as many numbers for each, all finite; there are "
            + ", ".join(f"{v.size} of {name}" for name, v in columns.items())
            + "."
        )
    return np.stack(list(columns.values()), axis=1)
