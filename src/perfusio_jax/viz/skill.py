"""How far forecasts of runs left out were off, by how far ahead they looked."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from perfusio_jax._core import DataError

from .clock import clock_of
from .parts import legend_entry
from .runs import plain_name
from .theme import DASHES, PALETTE, describe, new_figure, themed, title_axis

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST: Final = 12
_COLUMNS: Final = 4


class SkillCurve(NamedTuple):
    """Scores of one quantity over H horizons."""

    hours: Any
    """How far ahead (H,) [h]."""
    error: Any
    """Root mean square error over the spread of the readings (H,) [-]."""
    nothing_changes: Any
    """That of the last reading carried on (H,) [-]; NaN where unknown."""
    inside_80: Any
    """Share of readings inside the 80 % interval (H,) [-]."""


@themed
def skill_figure(
    curves: Mapping[str, SkillCurve], *, title: str = "Forecasts of runs left out"
) -> "Figure":
    """Error and coverage of each quantity by how far ahead, beside what costs nothing.

    Args:
        curves: Scores by quantity.
        title: Heading.

    Returns:
        The figure.

    Raises:
        DataError: If there are no scores.
    """
    names: Sequence[str] = list(curves)[:_MOST]
    if not names:
        raise DataError("There are no scores to draw.")
    columns = min(_COLUMNS, len(names))
    rows = -(-len(names) // columns)
    clock = clock_of([0.0], *(curves[n].hours for n in names))
    figure = new_figure(2.9 * columns + 0.4, 1.1 + 2.0 * rows, plain_name(title, 80))
    grid = figure.subplots(rows, columns, squeeze=False)
    for n, axes in enumerate(grid.flat):
        if n >= len(names):
            axes.set_axis_off()
            continue
        curve = curves[names[n]]
        x = clock.of(curve.hours)
        axes.plot(
            x, curve.inside_80, color=PALETTE["green"], ls=DASHES[1], marker="s", ms=3, lw=1.2
        )
        axes.axhline(0.8, color=PALETTE["green"], ls=DASHES[2], lw=0.9, zorder=1)
        axes.plot(x, curve.nothing_changes, color=PALETTE["muted"], ls=DASHES[3], lw=1.4)
        axes.plot(x, curve.error, color=PALETTE["twin"], marker="o", ms=3.5, zorder=4)
        title_axis(axes, plain_name(names[n], 40), unit="")
        if n % columns == 0:
            axes.set_ylabel("ratio or share [-]")
        axes.set_ylim(0.0, max(1.05, 1.1 * float(np.nanmax([*np.ravel(curve.error), 0.0]))))
        clock.apply(axes, show_label=False)
        if n + columns >= len(names):
            axes.set_xlabel(f"ahead [{clock.unit}]")
    handles = [
        legend_entry("line", "error over spread", PALETTE["twin"]),
        legend_entry("dots", "the same if nothing changed", PALETTE["muted"]),
        legend_entry("dashes", "readings inside the 80 % interval", PALETTE["green"]),
    ]
    handles[1].set_linestyle(DASHES[3])
    figure.legend(handles=handles, loc="outside lower left", ncols=3)
    worst = max(names, key=lambda n: float(np.nanmax([*np.ravel(curves[n].error), 0.0])))
    text = f"{plain_name(title, 80)}: {', '.join(names)}; the largest error is of {worst}."
    return describe(figure, text, is_printed=False)
