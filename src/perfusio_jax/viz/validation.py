"""Figures that show whether forecasts can be believed."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from perfusio_jax._core import DataError

from .parts import legend_entry, nothing
from .theme import PALETTE, describe, new_figure, themed, title_axis

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SPOKEN = {"d": "day", "h": "hour"}
_DARK = 0.5
"""Brightness of a colour below which white type is easier to read on it [-]."""


@themed
def parity_figure(
    observed: Any,
    predicted: Any,
    species_names: Sequence[str],
    *,
    steps: float,
    low: Any = None,
    high: Any = None,
    unit: str = "d",
    units: Mapping[str, str] | None = None,
) -> "Figure":
    """Forecasts against readings, a panel per species.

    Args:
        observed: Readings (N, K); NaN where missing.
        predicted: Forecasts of them (N, K).
        species_names: Names of the K columns.
        steps: How far ahead the forecasts were made [`unit`].
        low: Lower ends of an interval (N, K), drawn as bars.
        high: Upper ends.
        unit: "d" or "h".
        units: Unit of each species by name, in a described culture; those of CHO perfusion by
            default.

    Returns:
        The figure.

    Raises:
        DataError: If shapes differ.
    """
    seen, mean = np.asarray(observed, float), np.asarray(predicted, float)
    names = list(species_names)
    if seen.shape != mean.shape or seen.ndim != 2 or seen.shape[1] != len(names):
        raise DataError(
            f"readings {seen.shape} and forecasts {mean.shape}; both must be (N, {len(names)})."
        )
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    apart = f"{steps:g} {_SPOKEN[unit]}{'' if steps == 1 else 's'}"
    figure = new_figure(
        2.6 * columns, 0.9 + 2.4 * rows, f"Forecasts against readings, {apart} ahead"
    )
    grid = figure.subplots(rows, columns, squeeze=False)
    for n, axes in enumerate(grid.flat):
        if n >= len(names):
            axes.set_axis_off()
            continue
        there = np.isfinite(seen[:, n]) & np.isfinite(mean[:, n])
        x, y = mean[there, n], seen[there, n]
        if low is not None and high is not None:
            ends = np.asarray(low)[there, n], np.asarray(high)[there, n]
            axes.hlines(y, *ends, color=PALETTE["band"], lw=0.6, alpha=0.45, zorder=2)
        axes.plot(x, y, "o", ms=2.2, mew=0, color=PALETTE["twin"], alpha=0.6, zorder=3)
        title_axis(axes, names[n], unit=None if units is None else units[names[n]])
        if x.size:
            both = np.concatenate([x, y])
            edge = [float(both.min()), float(both.max())]
            pad = 0.04 * (edge[1] - edge[0]) or 1.0
            edge = [edge[0] - pad, edge[1] + pad]
            axes.plot(edge, edge, color=PALETTE["ink"], lw=0.8, zorder=4)
            axes.set_xlim(*edge)
            axes.set_ylim(*edge)
        else:
            nothing(axes, "no reading so far ahead")
            axes.set_xticks([])
        if n % columns == 0:
            axes.set_ylabel("measured")
        if n >= len(names) - columns:
            axes.set_xlabel("forecast")
    handles = [
        legend_entry("dot", "reading", PALETTE["twin"]),
        legend_entry("line", "forecast = reading", PALETTE["ink"]),
    ]
    if low is not None:
        handles.insert(1, legend_entry("band", "80 % interval", PALETTE["band"]))
    figure.legend(handles=handles, loc="outside lower left", ncols=len(handles))
    text = f"{len(names)} panels: readings over their forecasts {apart} ahead."
    return describe(figure, text, is_printed=False)


@themed
def calibration_figure(
    position: Any,
    coverage: Mapping[float, Any],
    species_names: Sequence[str],
    *,
    ahead: Sequence[str] | None = None,
    unit: str = "d",
) -> "Figure":
    """Are intervals as wide as they should be?

    Left: nominal against observed probability of central intervals, a line per horizon.
    Middle: histogram of each reading's place in its forecast; flat if calibrated. Right:
    coverage of the 80 % interval by species and step.

    Args:
        position: Places of readings in their forecasts (N, H, K), in (0, 1); NaN if missing.
        coverage: Observed coverage (H, K) by nominal level; 0.8 must be among the levels.
        species_names: Names of the K columns.
        ahead: How far ahead each of the H steps lies, for people; 1 to H by default.
        unit: In what: "d" or "h".

    Returns:
        The figure.

    Raises:
        DataError: If the 80 % level or the names are missing.
    """
    place = np.asarray(position, float)
    names = list(species_names)
    if 0.8 not in coverage or place.ndim != 3 or place.shape[2] != len(names):
        raise DataError(
            f"positions of shape {place.shape} and levels {sorted(coverage)}; needed are "
            f"(N, H, {len(names)}) and the level 0.8."
        )
    steps = place.shape[1]
    far = [str(h + 1) for h in range(steps)] if ahead is None else list(ahead)
    figure = new_figure(10.4, 3.9, "Are the intervals honest?")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.0, 1.0, 1.25))
    levels = np.linspace(0.05, 0.95, 19)
    read = [h for h in range(steps) if np.isfinite(place[:, h]).any()]
    shown = sorted({read[0], read[len(read) // 2], read[-1]}) if read else []
    shades = [PALETTE["twin"], PALETTE["green"], PALETTE["orange"]]
    for h, colour in zip(shown, shades, strict=False):
        values = place[:, h][np.isfinite(place[:, h])]
        found = [np.mean(np.abs(values - 0.5) <= 0.5 * p) for p in levels]
        left.plot(levels, found, color=colour, label=f"{far[h]} {unit} ahead")
    left.plot([0, 1], [0, 1], color=PALETTE["ink"], lw=0.8)
    left.set(xlabel="nominal probability", ylabel="readings inside", xlim=(0, 1), ylim=(0, 1))
    left.set_title("Central intervals")
    if shown:
        left.legend(loc="upper left")
    values = place[np.isfinite(place)]
    if values.size:
        middle.hist(values, bins=20, range=(0, 1), density=True, color=PALETTE["band"], alpha=0.7)
    middle.axhline(1.0, color=PALETTE["ink"], lw=0.8)
    middle.set(xlabel="place of the reading in its forecast", ylabel="density", xlim=(0, 1))
    middle.set_title(f"PIT histogram, all {_SPOKEN[unit]}s")
    table = np.asarray(coverage[0.8], float).T
    image = right.imshow(table, vmin=0.5, vmax=1.0, cmap="PuOr", aspect="auto")
    right.grid(False)
    right.set_yticks(range(len(names)), names)
    right.set_xticks(range(steps), far)
    right.set_xlabel(f"{_SPOKEN[unit]}s ahead")
    right.set_title("Coverage of the 80 % interval [%]")
    for k in range(len(names)):
        for h in range(steps):
            if np.isfinite(table[k, h]):
                red, green, blue, _ = image.cmap(image.norm(table[k, h]))
                dark = 0.3 * red + 0.59 * green + 0.11 * blue < _DARK
                right.text(
                    h, k, f"{100 * table[k, h]:.0f}", ha="center", va="center", fontsize=7,
                    color="white" if dark else PALETTE["ink"],
                )  # fmt: skip
    over = f"over {steps} days ahead" if unit == "d" else f"{far[0]} to {far[-1]} hours ahead"
    text = f"Calibration {over}: intervals, PIT histogram, coverage by species."
    return describe(figure, text, is_printed=False)
