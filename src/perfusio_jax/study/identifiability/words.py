"""What data leave open, in words.

Where the readings say less of a direction than the prior does, that direction is open. A subspace
of open directions has no axes of its own; it is turned until each names as few constants as can be:
one alone, of which the data say nothing; two, of which they know a product or a ratio; more.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

OPEN = 1.0
"""Information, in units of the prior's, below which a direction is open [-]."""
NOTHING = 0.1
"""Below which the data say nothing rather than little [-]."""
_WITHIN = 0.95
"""Part of a direction that has to lie in the open subspace to be named [-]."""
_ROUND = 0.12
"""How far an exponent may be from a whole one and be called it [-]."""
_LARGEST_GROUP = 3
_LEAST_PART = 0.15
"""Entry of a direction below which a constant is not named, in parts of the largest [-]."""


class OpenDirection(NamedTuple):
    """One direction that the data leave open."""

    members: tuple[int, ...]
    """Constants that it moves."""
    direction: Float[np.ndarray, " P"]
    """How it moves them [prior standard deviations], of length one."""
    information: float
    """What the data say of it, in units of what the prior does [-]."""
    words: str
    """A sentence."""


def open_directions(
    information: Float[np.ndarray, "P P"],
    names: Sequence[str],
    is_log: Bool[np.ndarray, " P"],
    width: Float[np.ndarray, " P"],
) -> list[OpenDirection]:
    """What the data leave open.

    Args:
        information: Of the readings, by constants in prior standard deviations.
        names: Of the constants.
        is_log: Which have their priors on their logarithms.
        width: Prior standard deviations, of the logarithm where that is so.

    Returns:
        Open directions, those that name fewest constants first.
    """
    values, vectors = np.linalg.eigh(0.5 * (information + information.T))
    basis = vectors[:, values < OPEN]
    found: list[tuple[tuple[int, ...], np.ndarray]] = []
    for size in range(1, min(_LARGEST_GROUP, len(names)) + 1):
        for group in combinations(range(len(names)), size):
            while basis.shape[1]:
                direction = _within(basis, group)
                if direction is None:
                    break
                found.append((group, direction))
                basis = _without(basis, direction)
    # what is left moves many constants at once
    for k in range(basis.shape[1]):
        found.append((tuple(range(len(names))), basis[:, k]))
    return [_said(direction, information, names, is_log, width) for _, direction in found]


def _within(basis: np.ndarray, group: tuple[int, ...]) -> np.ndarray | None:
    """A direction of only these constants that lies in the subspace, if there is one."""
    left, size, _ = np.linalg.svd(basis[list(group)], full_matrices=False)
    if size[0] ** 2 < _WITHIN or np.min(np.abs(left[:, 0])) < _LEAST_PART / len(group):
        return None
    direction = np.zeros(basis.shape[0])
    direction[list(group)] = left[:, 0]
    return direction


def _without(basis: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """What is left of a subspace when a direction in it has been named."""
    inside = basis.T @ direction
    inside /= np.linalg.norm(inside)
    turned, _ = np.linalg.qr(np.column_stack([inside, np.eye(inside.size)]))
    return basis @ turned[:, 1 : inside.size]


def _said(
    direction: np.ndarray,
    information: np.ndarray,
    names: Sequence[str],
    is_log: np.ndarray,
    width: np.ndarray,
) -> OpenDirection:
    part = np.abs(direction) / np.max(np.abs(direction))
    members = tuple(int(i) for i in np.flatnonzero(part >= _LEAST_PART))
    share = float(direction @ information @ direction)
    amount = "nothing" if share < NOTHING else "little"
    told = [names[i] for i in members]
    if len(members) == 1:
        words = f"{told[0]}: these data say {amount}; its prior decides"
    else:
        listed = f"{', '.join(told[:-1])} and {told[-1]}"
        move = width[list(members)] * direction[list(members)]
        hedge = "only" if share < NOTHING else "hardly more than"
        if len(members) == 2 and is_log[list(members)].all():
            words = f"{listed}: {hedge} {_combination(told, move)} is known from these runs"
        elif is_log[list(members)].all():
            powers = " ".join(f"{n}^{v:.2g}" for n, v in zip(told, move / move[0], strict=True))
            words = (
                f"{listed}: they can move together, as {powers}, and these runs say {amount} of it"
            )
        else:
            words = f"{listed}: {hedge} a combination of them is known from these runs"
    return OpenDirection(members, direction, share, words)


def _combination(names: list[str], move: np.ndarray) -> str:
    """What of two constants stays the same while their logarithms move like this."""
    rate = float(move[0] / move[1])
    if abs(rate - 1.0) < _ROUND:
        return "their ratio"
    if abs(rate + 1.0) < _ROUND:
        return "their product"
    # the first to the power one times the second to the power -rate
    sign, power = ("/", rate) if rate > 0.0 else ("*", -rate)
    return f"{names[0]} {sign} {names[1]}^{power:.2g}"
