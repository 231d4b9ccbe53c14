"""Studies of a run: what moves it, how sure constants are, and which schedule is best."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from perfusio_jax._core import HOURS_PER_DAY, DataError

from .parts import legend_entry
from .runs import plain_name
from .theme import DASHES, PALETTE, describe, new_figure, no_math, themed, title_axis

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST: Final = 20
"""Levers of a figure, the strongest."""
_COLUMNS: Final = 3
_NAME: Final = 28


class Bars(NamedTuple):
    """How strong levers are, for one output."""

    output: str
    """What is moved."""
    measure: str
    """What the bars are, with its unit, as "elasticity [%/%]"."""
    names: tuple[str, ...]
    """Levers."""
    values: Any
    """A number for each (P,)."""
    half_widths: Any = None
    """Half-widths of intervals (P,); None if there are none."""


class Followed(NamedTuple):
    """The profile of one constant."""

    name: str
    unit: str
    at: Any
    """Where it was held (N,), rising."""
    rise: Any
    """How much the fit got worse (N,) [-]."""
    lower: float
    """Ends of its interval; infinite where it is open."""
    upper: float


def ranked(bars: Bars) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The strongest levers, the strongest first, with values and half-widths.

    Raises:
        DataError: If none is known, or lengths differ.
    """
    values = np.asarray(bars.values, float)
    halves = (
        np.full(values.size, np.nan)
        if bars.half_widths is None
        else np.asarray(bars.half_widths, float)
    )
    if not values.size == halves.size == len(bars.names):
        raise DataError(
            f"{bars.output}: {len(bars.names)} levers, {values.size} values and {halves.size} "
            "half-widths; one each is needed."
        )
    known = [k for k in np.argsort(-np.abs(values), kind="stable") if np.isfinite(values[k])]
    known = [k for k in known if values[k] != 0.0][:MOST]
    if not known:
        raise DataError(f"{bars.output}: no lever moves it; there is nothing to draw.")
    return [bars.names[k] for k in known], values[known], halves[known]


@themed
def tornado_figure(panels: Sequence[Bars], *, title: str = "What moves the run") -> "Figure":
    """A bar for each lever, the strongest on top; a panel for each output.

    Args:
        panels: Outputs.
        title: Heading.

    Returns:
        The figure.

    Raises:
        DataError: If there is no output, or nothing moves one.
    """
    if not panels:
        raise DataError("There is no output to draw.")
    found = [ranked(one) for one in panels]
    columns = min(_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    tall = max(len(names) for names, *_ in found)
    figure = new_figure(
        max(4.4, 3.9 * columns), 1.2 + rows * (0.9 + 0.22 * tall), plain_name(title, 80)
    )
    grid = figure.subplots(rows, columns, squeeze=False)
    said = []
    for n, axes in enumerate(grid.flat):
        if n >= len(panels):
            axes.set_axis_off()
            continue
        names, values, halves = found[n]
        y = np.arange(len(names))
        colours = [PALETTE["twin"] if v > 0.0 else PALETTE["target"] for v in values]
        axes.barh(y, values, color=colours, height=0.68)
        for k, half in enumerate(halves):
            if np.isfinite(half):
                axes.plot(
                    [values[k] - half, values[k] + half], [k, k], color=PALETTE["ink"], lw=1.1
                )
        axes.axvline(0.0, color=PALETTE["muted"], lw=0.8)
        axes.set_yticks(y, [no_math(plain_name(name, _NAME)) for name in names])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.margins(x=0.06)
        axes.set_xlabel(no_math(panels[n].measure))
        axes.set_title(no_math(plain_name(panels[n].output, 40)))
        said.append(f"{panels[n].output}: {', '.join(names[:3])}")
    entries = [legend_entry("shade", "raises it", PALETTE["twin"])]
    if any(np.any(values < 0.0) for _, values, _ in found):
        entries.append(legend_entry("shade", "lowers it", PALETTE["target"]))
    else:
        entries = []
    if any(np.any(np.isfinite(halves)) for *_, halves in found):
        entries.append(legend_entry("line", "95 % interval", PALETTE["ink"]))
    if entries:
        figure.legend(handles=entries, loc="outside lower left", ncols=3)
    return describe(figure, f"Strongest first. {'; '.join(said)}.", is_printed=False)


def strongest_rows(values: Any, names: Sequence[str], n_times: int) -> list[int]:
    """Rows of a map, the strongest first.

    Raises:
        DataError: If shapes do not fit, or nothing moves anything.
    """
    table = np.asarray(values, float)
    if table.shape != (len(names), n_times):
        raise DataError(
            f"values of shape {table.shape} for {len(names)} levers at {n_times} times; a row for "
            "each lever is needed."
        )
    size = np.max(np.abs(np.nan_to_num(table)), axis=1)
    found = [int(k) for k in np.argsort(-size, kind="stable") if size[k] > 0.0][:MOST]
    if not found:
        raise DataError("No lever moves anything at any time; there is nothing to draw.")
    return found


@themed
def lever_map_figure(
    values: Any,
    names: Sequence[str],
    hours: Any,
    *,
    measure: str,
    title: str = "What moves the run, and when",
) -> "Figure":
    """A heat map of levers by time.

    Args:
        values: Numbers (P, T); NaN where there is none.
        names: Levers (P).
        hours: Times of the columns (T,) [h].
        measure: What the numbers are, with their unit.
        title: Heading.

    Returns:
        The figure; colours from blue to orange where numbers have signs.

    Raises:
        DataError: If shapes do not fit, or nothing moves anything.
    """
    times = np.asarray(hours, float)
    kept = strongest_rows(values, names, times.size)
    table = np.asarray(values, float)[kept]
    is_signed = bool(np.nanmin(table) < 0.0)
    largest = float(np.nanmax(np.abs(table)))
    in_days = times[-1] >= 3.0 * HOURS_PER_DAY
    x = times / HOURS_PER_DAY if in_days else times
    figure = new_figure(
        min(10.0, 3.4 + 0.28 * times.size + 1.0), 1.5 + 0.26 * len(kept), plain_name(title, 80)
    )
    axes = figure.add_subplot()
    image = axes.pcolormesh(
        _edges(x),
        np.arange(len(kept) + 1),
        table,
        cmap=_signed_map() if is_signed else "cividis",
        vmin=-largest if is_signed else 0.0,
        vmax=largest,
    )
    axes.set_yticks(
        np.arange(len(kept)) + 0.5, [no_math(plain_name(names[k], _NAME)) for k in kept]
    )
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.set_xlabel("Culture day [d]" if in_days else "Time [h]")
    bar = figure.colorbar(image, ax=axes, pad=0.02)
    bar.set_label(no_math(measure))
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    first = int(np.nanargmax(np.abs(table[0])))
    text = (
        f"{len(kept)} levers at {times.size} times, the strongest on top: {names[kept[0]]}, at "
        f"{x[first]:g} {'d' if in_days else 'h'} {table[0, first]:.3g}."
    )
    return describe(figure, text, is_printed=False)


def _edges(x: np.ndarray) -> np.ndarray:
    """Borders of cells around times."""
    if x.size == 1:
        return np.array([x[0] - 0.5, x[0] + 0.5])
    middle = 0.5 * (x[1:] + x[:-1])
    return np.concatenate([[2 * x[0] - middle[0]], middle, [2 * x[-1] - middle[-1]]])


def _signed_map() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    ends = [PALETTE["target"], "#ffffff", PALETTE["twin"]]
    return LinearSegmentedColormap.from_list("lowers and raises", ends)


@themed
def profiles_figure(
    profiles: Sequence[Followed],
    *,
    threshold: float = 3.841,
    title: str = "How well runs bound the constants",
) -> "Figure":
    """How much worse the fit gets as each constant is held away from its best value.

    Args:
        profiles: Constants that were followed.
        threshold: Rise that bounds an interval [-]; that of 95 % by default.
        title: Heading.

    Returns:
        The figure.

    Raises:
        DataError: If there is none.
    """
    if not profiles:
        raise DataError("No constant was followed; there is no profile to draw.")
    columns = min(_COLUMNS, len(profiles))
    rows = -(-len(profiles) // columns)
    figure = new_figure(max(4.6, 3.0 * columns + 0.4), 1.2 + 2.2 * rows, plain_name(title, 80))
    grid = figure.subplots(rows, columns, squeeze=False)
    said = []
    for n, axes in enumerate(grid.flat):
        if n >= len(profiles):
            axes.set_axis_off()
            continue
        one = profiles[n]
        x, y = np.asarray(one.at, float), np.asarray(one.rise, float)
        low, high = max(one.lower, float(np.min(x))), min(one.upper, float(np.max(x)))
        axes.axvspan(low, high, color=PALETTE["band"], alpha=0.25, lw=0)
        axes.plot(x, y, "-o", color=PALETTE["twin"], ms=3.5, mew=0)
        axes.axhline(threshold, color=PALETTE["target"], ls=DASHES[1], lw=1.2)
        axes.set_ylim(0.0, 2.2 * threshold)
        axes.margins(x=0.04)
        title_axis(axes, plain_name(one.name, 24), unit=one.unit)
        if n % columns == 0:
            axes.set_ylabel("rise of the loss [-]")
        # zero is the open end of a constant that moves by factors
        ends = [f"{v:.3g}" if np.isfinite(v) and v else "open" for v in (one.lower, one.upper)]
        said.append(f"{one.name} {ends[0]} to {ends[1]}")
    entries = [
        legend_entry("line", "profile", PALETTE["twin"]),
        legend_entry("dashes", f"{threshold:g}: 95 %", PALETTE["target"]),
        legend_entry("band", "interval", PALETTE["band"]),
    ]
    figure.legend(handles=entries, loc="outside lower left", ncols=3)
    return describe(figure, f"Intervals of 95 %: {'; '.join(said)}.", is_printed=False)


class Bound(NamedTuple):
    """A limit of a reading, to draw."""

    name: str
    """Reading."""
    value: float
    """Limit [its unit]."""
    is_lower: bool = True
    """Whether the reading is not to be below it, or not above."""
    hour: float | None = None
    """When it holds [h]; all the time if None."""


@themed
def schedule_figure(
    hours: Any,
    controls: Mapping[str, Any],
    readings: Mapping[str, Any],
    units: Mapping[str, str],
    *,
    bounds: Sequence[Bound] = (),
    boluses: Sequence[str] = (),
    title: str = "Schedule",
) -> "Figure":
    """Set-points of a run as steps, and below them what the run shows.

    Args:
        hours: Starts of the intervals and the end (T+1,) [h].
        controls: Set-points by interval (T,), by name.
        readings: Columns at the samples (T+1,), by name.
        units: Unit of each.
        bounds: Limits of readings.
        boluses: Controls that are given at the start of an interval.
        title: Heading.

    Returns:
        The figure.

    Raises:
        DataError: If there is nothing to draw, or lengths differ.
    """
    times = np.asarray(hours, float)
    names = [*controls, *readings]
    if not names:
        raise DataError("There is no set-point and no reading to draw.")
    for name in controls:
        if np.size(controls[name]) != times.size - 1:
            raise DataError(
                f"{name} has {np.size(controls[name])} values for {times.size - 1} intervals."
            )
    for name in readings:
        if np.size(readings[name]) != times.size:
            raise DataError(f"{name} has {np.size(readings[name])} values at {times.size} samples.")
    in_days = times[-1] >= 3.0 * HOURS_PER_DAY
    x = times / HOURS_PER_DAY if in_days else times
    columns = min(_COLUMNS, max(len(controls), len(readings)))
    above, below = (-(-len(part) // columns) for part in (controls, readings))
    rows = above + below
    figure = new_figure(max(4.6, 3.0 * columns + 0.4), 1.1 + 1.75 * rows, plain_name(title, 80))
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True)
    for axes in grid.flat:
        axes.set_axis_off()
    places = [*grid[:above].flat][: len(controls)] + [*grid[above:].flat][: len(readings)]
    for axes, name in zip(places, names, strict=True):
        axes.set_axis_on()
        axes.tick_params(labelbottom=True)
        title_axis(axes, plain_name(name, 24), unit=units.get(name, ""))
        axes.set_xlabel("Culture day [d]" if in_days else "Time [h]")
        if name in boluses:
            axes.bar(x[:-1], controls[name], width=0.03 * (x[-1] - x[0]), color=PALETTE["orange"])
        elif name in controls:
            axes.stairs(controls[name], x, baseline=None, color=PALETTE["orange"], lw=2.0)
            axes.margins(y=0.25)
        else:
            axes.plot(x, readings[name], color=PALETTE["twin"])
            axes.margins(y=0.15)
        for bound in (b for b in bounds if b.name == name):
            if bound.hour is None:
                axes.axhline(bound.value, color=PALETTE["target"], ls=DASHES[1], lw=1.2)
                continue
            at = bound.hour / HOURS_PER_DAY if in_days else bound.hour
            mark = "^" if bound.is_lower else "v"
            axes.plot([at], [bound.value], mark, color=PALETTE["target"], ms=6, clip_on=False)
    entries = [
        legend_entry("line", "set-point", PALETTE["orange"]),
        legend_entry("line", "what the mechanism expects", PALETTE["twin"]),
    ]
    if any(b.hour is None for b in bounds):
        entries.append(legend_entry("dashes", "limit", PALETTE["target"]))
    for mark, word in (("^", "not below, then"), ("v", "not above, then")):
        if any(b.hour is not None and b.is_lower == (mark == "^") for b in bounds):
            entries.append(legend_entry(mark, word, PALETTE["target"]))
    figure.legend(handles=entries, loc="outside lower left", ncols=3)
    text = (
        f"{', '.join(controls) or 'no control'} over {x[-1]:g} {'days' if in_days else 'hours'}, "
        f"and {', '.join(readings) or 'nothing'} under them."
    )
    return describe(figure, text, is_printed=False)
