"""A run beside a golden batch: bands of quantities, T2 and Q with limits, what adds to them."""

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from perfusio_jax._core import DataError
from perfusio_jax.process import Compared

from .clock import Clock, clock_of
from .parts import BAND_ALPHA, legend_entry
from .runs import plain_name
from .theme import DASHES, PALETTE, describe, new_figure, themed, title_axis

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS: Final = 4
_MOST: Final = 12
"""Quantities with a panel of their own; rows of what adds to T2 and Q hold all."""
_FAR: Final = 4.0
"""Times the limit of 99 % from which on an axis is logarithmic."""


@themed
def golden_figure(
    found: Compared, units: "Mapping[str, str]", *, title: str | None = None
) -> "Figure":
    """A panel per quantity, T2 and Q below, and at the foot what each quantity adds to them.

    Args:
        found: A run beside reference runs.
        units: Unit of each quantity.
        title: Heading; names the run by default.

    Returns:
        The figure.

    Raises:
        DataError: If the run has no sample.
    """
    if not found.hours.size:
        raise DataError(f"run '{plain_name(found.run_id, 40)}' has no sample to compare.")
    n = len(found.references)
    heading = plain_name(title or f"Run {found.run_id} beside {n} reference runs", 100)
    clock = clock_of(found.hours)
    names = found.names[:_MOST]
    columns = min(_COLUMNS, max(len(names), 2))
    rows = -(-len(names) // columns)
    tall = 0.5 + 0.17 * len(found.names)
    figure = new_figure(3.1 * columns + 0.5, 2.6 + 1.75 * rows + 1.6 + tall, heading)
    heights = [1.75] * rows + [1.7, tall]
    grid = figure.add_gridspec(rows + 2, 2 * columns, height_ratios=heights)
    for k, name in enumerate(names):
        at = 2 * (k % columns)
        axes = figure.add_subplot(grid[k // columns, at : at + 2])
        _quantity(axes, found, k, clock, units.get(name, ""))
        clock.apply(axes, show_label=False)
    for side, (kind, values, limits, _) in enumerate(_statistics(found)):
        where = slice(side * columns, (side + 1) * columns)
        axes = figure.add_subplot(grid[rows, where])
        _statistic(axes, kind, found, values, limits, clock)
        clock.apply(axes, show_label=False)
        panels = (axes, figure.add_subplot(grid[rows + 1, where]))
        _parts(figure, panels, kind, found, clock)
    handles = [
        legend_entry("dot", "reading", PALETTE["ink"]),
        legend_entry("dot", "outside its band or limit", PALETTE["target"]),
        legend_entry("band", "95 % of readings of a further run", PALETTE["band"]),
        legend_entry("dashes", "mean of the reference runs", PALETTE["twin"]),
        legend_entry("dots", "limit, 95 %", PALETTE["muted"]),
        legend_entry("dashes", "limit, 99 %", PALETTE["target"]),
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=min(len(handles), columns + 1))
    return describe(figure, described(found, heading), is_printed=False)


def described(found: Compared, heading: str) -> str:
    """In words what a figure of a run beside reference runs shows."""
    parts = []
    for kind, values, limits, by in _statistics(found):
        is_over = values > limits[:, 1]
        told = f"{kind} beyond its limit of 99 % in {int(is_over.sum())} of "
        told += f"{int(np.isfinite(values).sum())} samples"
        if is_over.any():
            most = np.nansum(np.where(is_over[:, None], by, np.nan), axis=0)
            told += f", most by {found.names[int(np.argmax(most))]}"
        parts.append(told)
    return f"{heading}: {', '.join(found.names)} with 95 % bands; {'; '.join(parts)}."


def _statistics(found: Compared) -> tuple[tuple[str, Any, Any, Any], ...]:
    return (
        ("T2", found.t2, found.t2_limits, found.t2_by),
        ("Q", found.q, found.q_limits, found.q_by),
    )


def _quantity(axes: "Axes", found: Compared, k: int, clock: Clock, unit: str) -> None:
    """Readings before the band of the reference runs."""
    when, values = clock.of(found.hours), found.readings[:, k]
    low, high = found.low[:, k], found.high[:, k]
    axes.fill_between(when, low, high, color=PALETTE["band"], alpha=BAND_ALPHA, lw=0, zorder=2)
    axes.plot(when, found.band.mean[:, k], color=PALETTE["twin"], lw=1.3, ls=DASHES[1], zorder=3)
    is_out = (values < low) | (values > high)
    axes.plot(when, values, color=PALETTE["muted"], lw=0.8, alpha=0.6, zorder=3)
    for chosen, colour, size in ((~is_out, PALETTE["ink"], 3.2), (is_out, PALETTE["target"], 4.6)):
        axes.plot(when[chosen], values[chosen], "o", color=colour, ms=size, mew=0, zorder=5)
    title_axis(axes, plain_name(found.names[k], 40), unit=unit)


def _statistic(
    axes: "Axes",
    kind: str,
    found: Compared,
    values: np.ndarray,
    limits: np.ndarray,
    clock: Clock,
) -> None:
    """T2 or Q by sample, with its limits; they step where other quantities were read."""
    when = clock.of(found.hours)
    title_axis(axes, {"T2": "Hotelling's T²", "Q": "Q (SPE)"}[kind], unit="")
    if not np.isfinite(values).any():
        axes.set_yticks([])
        axes.annotate("nothing to tell", (0.5, 0.5), xycoords="axes fraction", ha="center",
                      va="center", color=PALETTE["muted"], fontsize=8.5)  # fmt: skip
        return
    styles = ((DASHES[2], PALETTE["muted"]), (DASHES[1], PALETTE["target"]))
    for column, (dashes, colour) in enumerate(styles):
        axes.step(when, limits[:, column], where="mid", ls=dashes, lw=1.3, color=colour, zorder=2)
    is_out = values > limits[:, 0]
    axes.plot(when, values, color=PALETTE["muted"], lw=0.8, alpha=0.6, zorder=3)
    for chosen, colour in ((~is_out, PALETTE["ink"]), (is_out, PALETTE["target"])):
        axes.plot(when[chosen], values[chosen], "o", color=colour, ms=4.0, mew=0, zorder=5)
    if np.nanmax(values) > _FAR * np.nanmax(limits[:, 1]) and np.nanmin(values) > 0.0:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0.0)


def _parts(
    figure: "Figure", panels: "tuple[Axes, Axes]", kind: str, found: Compared, clock: Clock
) -> None:
    """What each quantity adds, as shades: a row each, a column per sample."""
    above, axes = panels
    by = found.t2_by if kind == "T2" else found.q_by
    when = clock.of(found.hours)
    gaps = np.diff(when)
    inner = when[:-1] + 0.5 * gaps
    first, last = (gaps[0], gaps[-1]) if gaps.size else (1.0, 1.0)
    edges = np.concatenate([[when[0] - 0.5 * first], inner, [when[-1] + 0.5 * last]])
    top = np.nanmax(by) if np.isfinite(by).any() else 1.0
    shades = axes.pcolormesh(
        edges, np.arange(len(found.names) + 1), np.ma.masked_invalid(by.T), cmap="Blues",
        vmin=0.0, vmax=max(float(top), 1e-12), zorder=2,
    )  # fmt: skip
    axes.set_facecolor(PALETTE["shade"])  # where nothing was read
    axes.grid(visible=False)
    axes.set_yticks(
        np.arange(len(found.names)) + 0.5, [plain_name(name, 16) for name in found.names]
    )
    axes.tick_params(axis="y", labelsize=7.5, length=0)
    axes.invert_yaxis()
    title_axis(axes, f"What adds to {kind.replace('T2', 'T²')}", unit="")
    clock.apply(axes)
    ends = axes.get_xlim()
    for panel in (above, axes):
        panel.set_xlim(min(ends[0], edges[0]), max(ends[1], edges[-1]))
    # of both, so that the columns of one stay below the dots of the other
    bar = figure.colorbar(
        shades, ax=[above, axes], fraction=0.035, pad=0.01, shrink=0.4, anchor=(0.0, 0.0)
    )
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    bar.ax.tick_params(labelsize=7)
