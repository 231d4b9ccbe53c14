"""What a clone with few runs, among clones with more, is granted beyond what its fit leaves open.

Two runs of a new clone look better known than they are: its constants, its states and what is left
of them were all found on the very runs they are judged by, and leaving a run out at fixed constants
hides that. The factor is one at which, on a development draw of a virtual clone beside a known one,
about four fifths of a run's readings lay in the intervals of 80 % of a fit that had not seen that
run (`benchmarks/RESULTS.md`, with what it does on ten other clones).
"""

import dataclasses
from typing import Final

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from perfusio_jax.hybrid.family import CloneFamily

_ENOUGH: Final = 6
"""Runs from which on a clone's own speak for themselves."""
_AT_TWO: Final = 1.3
"""Factor on the spreads of a clone with two runs [-]; see the module."""


def lack(n_runs: Int[np.ndarray, " K"]) -> Float[np.ndarray, " K"]:
    """Factor on what is not known of a clone, by its runs.

    The variance that a fit does not see goes with one over the number of runs, less that of enough
    of them.

    Args:
        n_runs: Runs of each clone that were fitted; none counts as one.

    Returns:
        Factor on standard deviations [-], at least 1.

    Example:
        >>> [round(v, 3) for v in lack(np.asarray([2, 3, 6, 12])).tolist()]
        [1.3, 1.16, 1.0, 1.0]
    """
    n = np.maximum(np.asarray(n_runs, float), 1.0)
    share = np.maximum(1.0 / n - 1.0 / _ENOUGH, 0.0) / (1.0 / 2.0 - 1.0 / _ENOUGH)
    return np.sqrt(1.0 + (_AT_TWO**2 - 1.0) * share)


def widened(family: CloneFamily, n_runs: Int[np.ndarray, " K"]) -> CloneFamily:
    """The clones with more left open where one has few runs.

    Args:
        family: Clones of a fitted model.
        n_runs: Runs of each, in the order of the registry.

    Returns:
        The same clones with wider process noise and less sure constants.
    """
    factor = jnp.asarray(lack(n_runs))
    return dataclasses.replace(
        family,
        process_sd=family.process_sd * factor[:, None],
        factors=family.factors * factor[:, None, None],
    )
