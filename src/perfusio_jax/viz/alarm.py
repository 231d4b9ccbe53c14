"""What an alarm is about, small enough for a mail: a panel per quantity, limit and forecast."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from perfusio_jax._core import HOURS_PER_DAY, DataError

from .clock import clock_of
from .parts import legend_entry
from .runs import RunView, panel, plain_name, run_legend, strip
from .theme import PALETTE, describe, new_figure, themed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_PANELS: Final = 4
"""Quantities in one figure."""
MOST_STRIPS: Final = 4
"""Set-points below them."""
_COLUMNS: Final = 2


class Crossing(NamedTuple):
    """Where a limit is crossed."""

    name: str
    """Quantity."""
    day: float
    """Culture day [d] of the crossing."""
    value: float
    """Forecast or measured value; NaN if there is none."""
    limit: float
    """The limit; NaN if the alarm is of none."""
    side: str
    """"below", "above" or "unknown"."""


@themed
def alarm_figure(
    run: RunView, units: Mapping[str, str], crossings: Sequence[Crossing], *, title: str
) -> "Figure":
    """The quantities of some alarms, with limit, forecast and the place of the crossing.

    Args:
        run: The run so far, with the forecast the alarms were raised on.
        units: Unit of each quantity and control.
        crossings: What the alarms say; quantities without one fill what room is left.
        title: Heading.

    Returns:
        The figure.

    Raises:
        DataError: If the run has no sample.
    """
    hours = np.asarray(run.hours, float)
    if hours.size == 0:
        raise DataError("the run has no sample yet; there is nothing to draw")
    told = list(dict.fromkeys(c.name for c in crossings if c.name in run.readings))
    names = (told or _seen(run))[:MOST_PANELS]
    if not names:
        raise DataError("the run has no reading yet; there is nothing to draw")
    controls = list(run.set_points)[:MOST_STRIPS]
    shown = run._replace(
        readings={n: run.readings[n] for n in names},
        bands={n: b for n, b in run.bands.items() if n in names},
        targets={n: v for n, v in run.targets.items() if n in names},
        limits=_limits(run, crossings, names),
        set_points={n: run.set_points[n] for n in controls},
    )
    marks = [c for c in crossings if c.name in names and np.isfinite(c.value)]
    clock = clock_of(
        hours, *(b.hours for b in shown.bands.values()), [HOURS_PER_DAY * c.day for c in marks]
    )
    columns = 1 if len(names) == 1 else _COLUMNS
    rows, strips = -(-len(names) // columns), -(-len(controls) // _COLUMNS)
    heading = plain_name(title, 62)
    figure = new_figure(8.0, 1.1 + (2.6 if rows == 1 else 2.0) * rows + 0.95 * strips, heading)
    ratios = [1.0] * rows + [0.4 if rows > 1 else 0.32] * strips
    grid = figure.add_gridspec(rows + strips, _COLUMNS, height_ratios=ratios)
    for n, name in enumerate(names):
        where = grid[0, :] if columns == 1 else grid[n // _COLUMNS, n % _COLUMNS]
        axes = figure.add_subplot(where)
        panel(axes, name, shown, clock, units.get(name, ""))
        clock.apply(axes, show_label=not controls and n + columns >= len(names))
        found = [c for c in marks if c.name == name]
        at = clock.of([HOURS_PER_DAY * c.day for c in found])
        axes.plot(at, [c.value for c in found], "o", ms=9, mfc="none", mew=1.8,
                  color=PALETTE["target"], zorder=6)  # fmt: skip
        axes.margins(y=0.12)
    for n, name in enumerate(controls):
        axes = figure.add_subplot(grid[rows + n // _COLUMNS, n % _COLUMNS])
        strip(axes, name, clock.of(hours), np.asarray(run.set_points[name], float), clock,
              units.get(name, ""))  # fmt: skip
        clock.apply(axes, show_label=n + _COLUMNS >= len(controls))
    handles = run_legend([shown], "forecast")
    if marks:
        handles.append(legend_entry("ring", "beyond the limit", PALETTE["target"]))
    figure.legend(handles=handles, loc="outside lower left", ncols=min(len(handles), 4))
    text = f"{heading}. {' '.join(_sentence(shown, n, units, marks) for n in names)}"
    return describe(figure, text, is_printed=False)


def _seen(run: RunView) -> list[str]:
    """Quantities that were read, in their order."""
    return [n for n, v in run.readings.items() if np.isfinite(np.asarray(v, float)).any()]


def _limits(
    run: RunView, crossings: Sequence[Crossing], names: Sequence[str]
) -> dict[str, tuple[float | None, float | None]]:
    """The limits that are crossed, in place of the run's own."""
    found = {n: pair for n, pair in run.limits.items() if n in names}
    for crossing in crossings:
        if crossing.name in names and np.isfinite(crossing.limit):
            low, high = found.get(crossing.name, (None, None))
            is_low = crossing.side == "below"
            found[crossing.name] = (crossing.limit, high) if is_low else (low, crossing.limit)
    return found


def _sentence(run: RunView, name: str, units: Mapping[str, str], marks: Sequence[Crossing]) -> str:
    """One quantity in words."""
    unit = f" {units.get(name, '')}".rstrip()
    values = np.asarray(run.readings[name], float)
    seen = values[np.isfinite(values)]
    text = f"{name}: {seen.size} readings"
    text += f", the last {seen[-1]:.4g}{unit}" if seen.size else ""
    first = min((c for c in marks if c.name == name), key=lambda c: c.day, default=None)
    if first is not None:
        is_ahead = HOURS_PER_DAY * first.day > float(np.max(run.hours)) + 1e-6
        text += (
            f"; {'forecast to be' if is_ahead else 'it is'} {first.value:.4g}{unit} on day "
            f"{first.day:g}"
        )
        text += f", {first.side} the limit of {first.limit:.4g}{unit}"
    return f"{text}."
