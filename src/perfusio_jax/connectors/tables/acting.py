"""Since when the set-points of a row act.

A campaign says on a row what is set from its sample on. A file that grows with a run says what was
set when the sample was taken, so that its last row does not know yet what comes next.
"""

from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

import numpy as np

Cell = TypeVar("Cell")

TOLD: Final = (
    "set-points of a row are those that acted until its sample, as was said; the last row's go on"
)


def since_when(names: Sequence[str]) -> str:
    """Since when set-points act that a file changes, for a forecast to say.

    Args:
        names: Controls the file states more than one value of.
    """
    return (
        f"{', '.join(names)}: what a row says acts from its sample on; --set-points until, if it "
        "says what acted until then"
    )


def acting_from(table: np.ndarray, names: Sequence[str], once: Sequence[str]) -> np.ndarray:
    """Set-points that act from each sample on, of those that acted until each.

    Args:
        table: Set-points by row and control `(T, M)`, NaN where not told.
        names: Controls, in the order of the columns.
        once: Boluses among them: they are given at the sample of their row, and stay there.

    Returns:
        The same set-points a row up `(T, M)`; the last row's go on.
    """
    held = [k for k, name in enumerate(names) if name not in once]
    moved = np.array(table, float)
    moved[:-1, held] = moved[1:, held]
    return moved


def acting_from_rows(
    rows: Sequence[Mapping[str, Cell]], once: Sequence[str]
) -> list[dict[str, Cell]]:
    """`acting_from` of rows that each say something of some controls.

    Args:
        rows: What is said by name at each sample, by time: set-points, or how good they are.
        once: Boluses among the names.
    """
    if not rows:
        return []
    after = [*rows[1:], rows[-1]]
    return [
        {n: v for n, v in following.items() if n not in once}
        | {n: v for n, v in own.items() if n in once}
        for own, following in zip(rows, after, strict=True)
    ]
