"""How good information is, as one number of which more is better.

    D            mean of log det M       volume of the constants' region
    A            - mean of trace M^-1    mean variance
    E            mean of log min eig M   the worst known direction
    modified E   - mean of log cond M    a round region

M is the information in prior standard deviations, averaged over draws of the constants after the
number is taken: a schedule has to do well wherever the constants may lie.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float

Criterion = Literal["D", "A", "E", "modified-E"]
CRITERIA: tuple[Criterion, ...] = ("D", "A", "E", "modified-E")
_LEAST = 1e-12
"""Information that stands for none, so that a logarithm is a number [-]."""


def goodness(criterion: Criterion, information: Float[np.ndarray, "*b D P P"]) -> np.ndarray:
    """How good information is.

    Args:
        criterion: One of `CRITERIA`.
        information: At each draw of the constants.

    Returns:
        One number for each batch, more is better.
    """
    values = np.maximum(np.linalg.eigvalsh(information), _LEAST)
    if criterion == "D":
        found = np.sum(np.log(values), axis=-1)
    elif criterion == "A":
        found = -np.sum(1.0 / values, axis=-1)
    elif criterion == "E":
        found = np.log(values[..., 0])
    else:
        found = np.log(values[..., 0]) - np.log(values[..., -1])
    return np.mean(found, axis=-1)


def volume_ratio(ours: Float[np.ndarray, "D P P"], theirs: Float[np.ndarray, "D P P"]) -> float:
    """How many times larger the region of the constants is by other runs [-].

    Args:
        ours: Information of runs.
        theirs: Information of the others.

    Returns:
        Ratio of volumes, the geometric mean over draws.
    """
    return float(np.exp(0.5 * (goodness("D", ours) - goodness("D", theirs))))
