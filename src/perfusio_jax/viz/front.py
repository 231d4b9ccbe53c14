"""Trade-offs: two numbers that cannot both be had."""

from typing import TYPE_CHECKING, Any

import numpy as np

from perfusio_jax._core import DataError

from .runs import plain_name
from .theme import DASHES, PALETTE, describe, new_figure, no_math, themed

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@themed
def front_figure(
    first: Any,
    second: Any,
    on_front: Any,
    *,
    labels: tuple[str, str],
    ideal: tuple[float, float] | None = None,
    title: str = "Trade-off",
) -> "Figure":
    """Points of any two numbers, those that no other beats told apart, and what is out of reach.

    Args:
        first: First number (N,).
        second: Second number (N,).
        on_front: Which points lie on the front (N,).
        labels: Name and unit of both, as "Titer [mg/L]".
        ideal: The best of each number alone; the corner nobody reaches is shaded up to it.
        title: Heading.

    Returns:
        The figure.

    Raises:
        DataError: If lengths differ or there is no point.
    """
    x, y = (np.asarray(v, float).ravel() for v in (first, second))
    is_on = np.asarray(on_front, bool).ravel()
    if not x.size == y.size == is_on.size or not x.size:
        raise DataError(
            f"{x.size}, {y.size} and {is_on.size} values were given; all three are of one length, "
            "at least 1."
        )
    figure = new_figure(5.8, 4.5, plain_name(title, 60))
    axes = figure.add_subplot()
    axes.plot(x[~is_on], y[~is_on], "D", color=PALETTE["muted"], ms=4.5, alpha=0.55, mew=0,
              label="beaten by another")  # fmt: skip
    order = np.argsort(x[is_on], kind="stable")
    front = x[is_on][order], y[is_on][order]
    axes.plot(*front, color=PALETTE["twin"], ls=DASHES[1], lw=1.1, alpha=0.7, zorder=3)
    axes.plot(*front, "o", color=PALETTE["twin"], ms=7, mec="white", mew=0.9, zorder=4,
              label="on the front")  # fmt: skip
    if ideal is not None:
        axes.plot(*ideal, "*", color=PALETTE["target"], ms=13, mec="white", mew=0.8, zorder=5,
                  label="best of each alone, out of reach")  # fmt: skip
    axes.set_xlabel(no_math(plain_name(labels[0], 60)))
    axes.set_ylabel(no_math(plain_name(labels[1], 60)))
    axes.margins(0.08)
    figure.legend(loc="outside lower left", ncols=3)
    text = f"{plain_name(title, 60)}: {int(is_on.sum())} of {x.size} points are on the front."
    return describe(figure, text, is_printed=False)
