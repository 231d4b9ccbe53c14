"""Runs of any process: one large, or a rack of them as small multiples."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from perfusio_jax._core import DataError
from perfusio_jax._core.text import cut, shown

from .clock import Clock, clock_of
from .parts import band, legend_entry, nothing, outer_band, reading_band, strip_margin, tick_text
from .theme import DASHES, PALETTE, describe, new_figure, no_math, themed, title_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_READINGS: Final = 5
"""Quantities beside each other in a rack."""
PER_PAGE: Final = 8
"""Vessels on one page of a rack."""
_COLUMNS: Final = 4
_PER_INCH: Final = 7.5
"""Letters of a heading that fit on an inch."""
_APART: Final = 0.35
"""Part of the height of a strip that two of its labels need between them."""
_NAME: Final = 28
"""Letters of a run's name that a page has room for."""


class Band(NamedTuple):
    """Intervals of a forecast; what is not known is left out."""

    hours: Any
    """Times (H,) [h]."""
    q10: Any
    """10 % quantile (H,)."""
    q90: Any
    """90 % quantile (H,)."""
    middle: Any = None
    """Median or mean (H,)."""
    q025: Any = None
    """2.5 % quantile (H,)."""
    q975: Any = None
    """97.5 % quantile (H,)."""
    reading_q10: Any = None
    """10 % quantile of readings (H,), where the others are of the state behind them."""
    reading_q90: Any = None
    """90 % quantile of readings (H,)."""


class RunView(NamedTuple):
    """One run as figures see it."""

    name: str
    """Its name, from anywhere."""
    hours: Any
    """Sample times (T,) [h]."""
    readings: Mapping[str, Any]
    """Readings (T,) by quantity; NaN where missing."""
    set_points: Mapping[str, Any] = {}
    """Set-points (T,) by control, each in force from its sample until the next."""
    bands: Mapping[str, Band] = {}
    """Forecasts by quantity."""
    targets: Mapping[str, float] = {}
    """Target by quantity."""
    limits: Mapping[str, tuple[float | None, float | None]] = {}
    """Lower and upper limit by quantity; None where there is none."""


@themed
def run_figure(
    run: RunView,
    units: Mapping[str, str],
    *,
    title: str | None = None,
    bands_are: str = "forecast",
) -> "Figure":
    """One run: a panel per quantity with its forecasts, a strip per control below.

    Args:
        run: The run.
        units: Unit of each quantity and control.
        title: Heading; the run's name by default.
        bands_are: What the bands are of, for the legend.

    Returns:
        The figure.

    Raises:
        DataError: If it has no sample.
    """
    hours = _hours(run)
    names, controls = list(run.readings), list(run.set_points)
    clock = clock_of(hours, *(b.hours for b in run.bands.values()))
    columns = min(_COLUMNS, max(len(names), len(controls), 2))
    rows, strips = -(-len(names) // columns), -(-len(controls) // columns)
    width = 3.0 * columns + 0.4
    heading = plain_name(run.name if title is None else title, int(_PER_INCH * width))
    figure = new_figure(width, 1.0 + 1.85 * rows + 1.05 * strips, heading)
    grid = figure.add_gridspec(rows + strips, columns, height_ratios=[1.0] * rows + [0.5] * strips)
    for n, name in enumerate(names):
        axes = figure.add_subplot(grid[n // columns, n % columns])
        panel(axes, name, run, clock, units.get(name, ""))
        is_lowest = strips == 0 and n + columns >= len(names)
        clock.apply(axes, show_label=is_lowest)
    for n, name in enumerate(controls):
        axes = figure.add_subplot(grid[rows + n // columns, n % columns])
        strip(axes, name, clock.of(hours), np.asarray(run.set_points[name], float), clock,
              units.get(name, ""))  # fmt: skip
        clock.apply(axes, show_label=n + columns >= len(controls))
    handles = run_legend([run], bands_are)
    if handles:
        figure.legend(handles=handles, loc="outside lower left", ncols=len(handles))
    text = f"{heading}: {_counts(run, names)}; set-points of {', '.join(controls) or 'nothing'}."
    return describe(figure, text, is_printed=False)


def rack_figures(
    runs: Sequence[RunView],
    units: Mapping[str, str],
    *,
    names: Sequence[str] | None = None,
    title: str = "Runs",
    per_page: int = PER_PAGE,
) -> "Iterator[Figure]":
    """Many runs as small multiples: a row each, the same scale down each column.

    What does not fit beside each other goes on pages of its own, evenly: nothing is left out.

    Args:
        runs: The runs.
        units: Unit of each quantity.
        names: Which quantities; all that are measured by default.
        title: Heading; pages are counted behind it.
        per_page: Runs on a page.

    Yields:
        A figure per page, drawn when it is asked for.

    Raises:
        DataError: If there is no run, or none has a reading.
    """
    runs = [run for run in runs if np.size(run.hours)]
    known = [n for run in runs for n in run.readings if np.isfinite(_array(run.readings[n])).any()]
    chosen = list(names or dict.fromkeys(known))
    if not runs or not chosen:
        raise DataError("There is no run with a reading to draw.")
    n_beside = math.ceil(len(chosen) / MOST_READINGS)
    parts = [
        (runs[first : first + per_page], [str(n) for n in beside])
        for beside in np.array_split(np.asarray(chosen, object), n_beside)
        for first in range(0, len(runs), per_page)
    ]
    for page, (part, beside) in enumerate(parts, start=1):
        at = f", page {page} of {len(parts)}" if len(parts) > 1 else ""
        yield _rack_page(part, runs, beside, units, f"{plain_name(title, 60)}{at}")


@themed
def _rack_page(
    part: Sequence[RunView],
    runs: Sequence[RunView],
    names: Sequence[str],
    units: Mapping[str, str],
    title: str,
) -> "Figure":
    clock = clock_of(
        *(run.hours for run in runs), *(b.hours for r in runs for b in r.bands.values())
    )
    figure = new_figure(2.6 * len(names) + 1.0, 1.0 + 1.3 * len(part), title)
    grid = figure.subplots(len(part), len(names), squeeze=False, sharex=True, sharey="col")
    for row, (run, line) in enumerate(zip(part, grid, strict=True)):
        for k, (name, axes) in enumerate(zip(names, line, strict=True)):
            panel(axes, name, run, clock, units.get(name, ""), has_title=row == 0)
            clock.apply(axes, show_label=row == len(part) - 1)
            if k == 0:
                vessel = no_math(plain_name(run.name, _NAME))
                axes.set_ylabel(vessel, fontsize=8, rotation=0, ha="right", va="center")
    for k, name in enumerate(names):  # one scale a column, over all pages
        low, high = _span(runs, name)
        grid[0, k].set_ylim(low, high)
    handles = run_legend([run._replace(set_points={}) for run in part], "forecast")
    if handles:
        figure.legend(handles=handles, loc="outside lower left", ncols=len(handles))
    listed = ", ".join(plain_name(run.name, _NAME) for run in part)
    text = f"{title}: {', '.join(names)} of {len(part)} runs ({listed})."
    return describe(figure, text, is_printed=False)


def strip(
    axes: "Axes", name: str, times: np.ndarray, values: np.ndarray, clock: Clock, unit: str
) -> None:
    """A set-point as steps: each value holds until the next sample, the last to the end."""
    n = min(len(times), len(values))
    ends = np.append(times[:n], max(clock.last, times[n - 1]))
    axes.step(ends, np.append(values[:n], values[n - 1]), where="post", color=PALETTE["green"],
              lw=1.6)  # fmt: skip
    title_axis(axes, plain_name(name, 40), size=8.5, unit=unit)
    finite = values[np.isfinite(values)]
    if not finite.size:
        nothing(axes, "not told")
        return
    low, high = float(finite.min()), float(finite.max())
    margin = strip_margin(low, high)
    axes.set_ylim(low - margin, high + margin)
    # two labels need room between them; where there is none, the value that is in force has one
    is_narrow = high - low < _APART * (high - low + 2.0 * margin)
    ticks = [float(finite[-1])] if is_narrow else [low, high]
    axes.set_yticks(ticks, [tick_text(tick) for tick in ticks])


def plain_name(text: str, most: int) -> str:
    """A name from outside on one line: cut, without what a screen would obey."""
    return cut(" ".join(shown(str(text)).split()), most)


def panel(
    axes: "Axes", name: str, run: RunView, clock: Clock, unit: str, *, has_title: bool = True
) -> None:
    """Readings of one quantity as dots, with its forecast, target and limits."""
    values, times = _array(run.readings.get(name, np.full(np.size(run.hours), np.nan))), run.hours
    low, high = run.limits.get(name, (None, None))
    for limit in (low, high):
        if limit is not None:
            axes.axhline(limit, color=PALETTE["ink"], ls=DASHES[2], lw=1.0, zorder=2)
    if name in run.targets:
        axes.axhline(run.targets[name], color=PALETTE["target"], ls=DASHES[1], lw=1.4, zorder=2)
    found = run.bands.get(name)
    if found is not None:
        when = clock.of(found.hours)
        if found.q025 is not None and found.q975 is not None:
            outer_band(axes, when, _array(found.q025), _array(found.q975))
        if found.reading_q10 is not None and found.reading_q90 is not None:
            reading_band(axes, when, _array(found.reading_q10), _array(found.reading_q90))
        band(axes, when, _array(found.q10), _array(found.q90))
        if found.middle is not None:
            axes.plot(when, _array(found.middle), color=PALETTE["twin"], lw=1.6, zorder=4)
    is_there = np.isfinite(values)
    axes.plot(clock.of(times), values, color=PALETTE["muted"], lw=0.8, alpha=0.6, zorder=3)
    axes.plot(clock.of(times), values, "o", color=PALETTE["ink"], ms=3.2, mew=0, zorder=5)
    if has_title:
        title_axis(axes, plain_name(name, 40), unit=unit)
    if not is_there.any() and found is None:
        nothing(axes, "no reading")
    elif unit != "%" and unit != "pH":
        lowest, highest = axes.get_ylim()
        if lowest > 0.0 and lowest < 0.7 * highest:
            axes.set_ylim(0.0, highest)


def _span(runs: Sequence[RunView], name: str) -> tuple[float, float]:
    """Limits of an axis that hold a quantity in every run."""
    parts = [_array(run.readings[name]) for run in runs if name in run.readings]
    bands = [run.bands[name] for run in runs if name in run.bands]
    parts += [_array(v) for b in bands for v in b[1:] if v is not None]
    every = np.concatenate([*(p.ravel() for p in parts), np.zeros(0)])
    every = every[np.isfinite(every)]
    if not every.size:
        return 0.0, 1.0
    low, high = float(every.min()), float(every.max())
    low = 0.0 if 0.0 <= low < 0.7 * high else low
    pad = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return (low if low == 0.0 else low - pad), high + pad


def _hours(run: RunView) -> np.ndarray:
    hours = _array(run.hours)
    if hours.size == 0:
        raise DataError(
            f"run '{plain_name(run.name, 40)}' has no sample; there is nothing to draw."
        )
    return hours


def _array(values: Any) -> np.ndarray:
    return np.asarray(values, float)


def _counts(run: RunView, names: Sequence[str]) -> str:
    """What was read how often, and the last value of each."""
    parts = []
    for name in names:
        values = _array(run.readings[name])
        seen = values[np.isfinite(values)]
        parts.append(
            f"{name} {seen.size} readings" + (f", last {seen[-1]:.4g}" if seen.size else "")
        )
    return "; ".join(parts) or "no readings"


def run_legend(runs: Sequence[RunView], bands_are: str) -> list[Any]:
    """Legend entries for what these runs have."""
    handles = [legend_entry("dot", "reading", PALETTE["ink"])]
    found = [b for run in runs for b in run.bands.values()]
    if any(b.middle is not None for b in found):
        handles.append(legend_entry("line", f"{bands_are}, median", PALETTE["twin"]))
    if found:
        handles.append(legend_entry("band", f"80 % of the {bands_are}", PALETTE["band"]))
    if any(b.q025 is not None for b in found):
        handles.append(legend_entry("outer", f"95 % of the {bands_are}", PALETTE["band"]))
    if any(b.reading_q10 is not None for b in found):
        handles.append(legend_entry("edged", "80 % of readings", PALETTE["band"]))
    if any(run.targets for run in runs):
        handles.append(legend_entry("dashes", "target", PALETTE["target"]))
    if any(any(v is not None for pair in run.limits.values() for v in pair) for run in runs):
        handles.append(legend_entry("dots", "limit", PALETTE["ink"]))
    if any(run.set_points for run in runs):
        handles.append(legend_entry("line", "set-point", PALETTE["green"]))
    return handles
