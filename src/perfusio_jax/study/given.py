"""What a run is given, as people write it: times, set-points and starts, checked and laid out."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import ArrayLike, Float

from perfusio_jax._core import ConfigError


def interval_lengths(hours: ArrayLike) -> Float[np.ndarray, " T"]:
    """Lengths of the intervals between samples [h].

    Args:
        hours: Times of the samples [h].

    Raises:
        ConfigError: If the times are not two or more that rise.
    """
    times = np.asarray(hours, float)
    if times.ndim != 1 or times.size < 2 or not np.all(np.diff(times) > 0.0):
        raise ConfigError(
            f"hours are {np.array2string(times, threshold=8)}; two times or more are needed that "
            "rise from sample to sample."
        )
    return np.diff(times)


def by_name(
    given: Mapping[str, float] | None, usual: Mapping[str, float], what: str
) -> Float[np.ndarray, " n"]:
    """Values in the order of the usual ones, which stand where nothing is given.

    Args:
        given: Values by name.
        usual: The others, and their order.
        what: What they are, for the message.

    Raises:
        ConfigError: If a name is unknown.
    """
    told = dict(given or {})
    unknown = [name for name in told if name not in usual]
    if unknown:
        raise ConfigError(
            f"{what}: {', '.join(unknown)} is unknown; there are {', '.join(usual) or 'none'}."
        )
    return np.array([float(told.get(name, value)) for name, value in usual.items()])


def set_points(
    given: ArrayLike | Mapping[str, float] | None, usual: Mapping[str, float], n_intervals: int
) -> Float[np.ndarray, "T M"]:
    """Set-points of every interval, in the units of their controls.

    Args:
        given: By interval `(T,M)`, or by name for the whole run.
        usual: What stands where nothing is given, and the order of the controls.
        n_intervals: How many intervals there are.

    Raises:
        ConfigError: If a name is unknown, or the shape is another.
    """
    if given is None or isinstance(given, Mapping):
        return np.tile(by_name(given, usual, "controls"), (n_intervals, 1))
    table = np.asarray(given, float)
    if table.shape != (n_intervals, len(usual)):
        raise ConfigError(
            f"controls have the shape {table.shape}; ({n_intervals}, {len(usual)}) is needed: "
            f"intervals, and {', '.join(usual) or 'no control'}."
        )
    return table


def check_start(start: ArrayLike, names: Sequence[str]) -> None:
    """Refuse a start of another shape.

    Args:
        start: Concentrations and levels.
        names: What they are of.

    Raises:
        ConfigError: If there is not one value for each name.
    """
    if np.shape(start) != (len(names),):
        raise ConfigError(
            f"start has the shape {np.shape(start)}; one value each is needed for "
            f"{', '.join(names)}."
        )
