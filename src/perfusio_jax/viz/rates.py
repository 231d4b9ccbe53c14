"""Derived numbers of runs: growth, specific rates, cell hours, with their standard errors."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from perfusio_jax._core import DataError
from perfusio_jax.process import Derived, Number

from .clock import Clock, clock_of
from .parts import legend_entry
from .runs import plain_name
from .theme import DASHES, PALETTE, SERIES, describe, new_figure, no_math, themed, title_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS: Final = 4
_MOST: Final = 16
"""Panels of one figure."""
_APART: Final = 7
"""Runs that colours and dashes tell apart in a legend; more are drawn alike."""


@themed
def rates_figure(
    found: Sequence[Derived], *, names: Sequence[str] | None = None, title: str = "Derived numbers"
) -> "Figure":
    """Numbers of each interval, a panel each.

    One run: a point in the middle of its interval, a bar as long as the interval across and one of
    a standard error up and down. Several: a line each.

    Args:
        found: Derived numbers, run by run.
        names: Which numbers; by default all but volumetric rates and yields.
        title: Heading.

    Returns:
        The figure.

    Raises:
        DataError: If nothing is known of any run.
    """
    every = {n.name: n for d in found for n in d.numbers if np.isfinite(n.values).any()}
    chosen = [n for n in every if not n.startswith(("rate_", "yield_"))] if names is None else [
        n for n in names if n in every
    ]  # fmt: skip
    chosen = chosen[:_MOST]
    if not chosen:
        raise DataError("No number of any run is known; there is nothing to draw.")
    clock = clock_of(*(d.from_h for d in found), *(d.to_h for d in found))
    columns = min(_COLUMNS, len(chosen))
    rows = -(-len(chosen) // columns)
    figure = new_figure(3.1 * columns + 0.4, 1.1 + 2.0 * rows, plain_name(title, 80))
    grid = figure.subplots(rows, columns, squeeze=False)
    for n, axes in enumerate(grid.flat):
        if n >= len(chosen):
            axes.set_axis_off()
            continue
        for k, derived in enumerate(found):
            number = next((m for m in derived.numbers if m.name == chosen[n]), None)
            if number is not None and np.isfinite(number.values).any():
                _draw(axes, derived, number, clock, k, len(found))
        known = [m.values for d in found for m in d.numbers if m.name == chosen[n]]
        _head(axes, every[chosen[n]], float(np.nanmin(np.concatenate(known))))
        clock.apply(axes, show_label=n + columns >= len(chosen))
    if len(found) == 1:
        handles = [legend_entry("dot", "mean of the interval ± standard error", PALETTE["twin"])]
        figure.legend(handles=handles, loc="outside lower left")
    elif len(found) <= _APART:
        from matplotlib.lines import Line2D

        handles = [
            Line2D([], [], label=no_math(plain_name(d.run_id, 24)), **_style(k, len(found)))
            for k, d in enumerate(found)
        ]
        figure.legend(handles=handles, loc="outside lower left", ncols=min(len(handles), 4))
    text = f"{plain_name(title, 80)}: {', '.join(chosen)} of {len(found)} run(s) over culture time."
    return describe(figure, text, is_printed=False)


def _style(k: int, n: int) -> dict:
    if n > _APART:
        return {"color": PALETTE["twin"], "lw": 0.8, "alpha": 0.45}
    return {"color": SERIES[k % len(SERIES)], "ls": DASHES[k % len(DASHES)], "lw": 1.5}


def _draw(axes: "Axes", derived: Derived, number: Number, clock: Clock, k: int, n: int) -> None:
    first, last = clock.of(derived.from_h), clock.of(derived.to_h)
    # a cumulated number is that of the end of its interval
    is_sum = number.name.startswith(("IVCD", "integral_"))
    x = last if is_sum else 0.5 * (first + last)
    if n == 1:
        axes.errorbar(
            x, number.values, yerr=number.errors, xerr=None if is_sum else 0.5 * (last - first),
            fmt="o", ms=3.4, mew=0, color=PALETTE["twin"], ecolor=PALETTE["band"], elinewidth=1.1,
            zorder=3,
        )  # fmt: skip
    else:
        axes.plot(x, number.values, zorder=3, **_style(k, n))
        if n <= _APART:
            low, high = number.values - number.errors, number.values + number.errors
            axes.fill_between(x, low, high, color=SERIES[k % len(SERIES)], alpha=0.13, lw=0)


def _head(axes: "Axes", number: Number, least: float) -> None:
    """A panel's name and unit; from zero if nothing is below, else with a line there."""
    title_axis(axes, plain_name(number.name, 40), unit=number.unit)
    low, high = axes.get_ylim()
    if least >= 0.0 and low < 0.7 * high:
        axes.set_ylim(0.0, high)
    elif low < 0.0 < high:
        axes.axhline(0.0, color=PALETTE["muted"], lw=0.8, zorder=1)
