"""Pieces that several figures share: bands, shading, legend entries, reading of runs."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from perfusio_jax._core import (
    FORECAST_SPECIES,
    HOURS_PER_DAY,
    REGISTRY,
    STATE_ORDER,
    DataError,
)

from .theme import DASHES, PALETTE, SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTHS = {len(STATE_ORDER): STATE_ORDER, len(FORECAST_SPECIES): FORECAST_SPECIES}
_WIDTHS[len(REGISTRY)] = REGISTRY


def series_style(n: int) -> dict[str, Any]:
    """Colour and dashes of the n-th series; the first is the one in question."""
    if n == 0:
        return {"color": PALETTE["twin"], "ls": "-", "lw": 2.4}
    others = [c for c in SERIES if c not in (PALETTE["twin"], PALETTE["target"], PALETTE["green"])]
    return {"color": others[(n - 1) % len(others)], "ls": DASHES[1 + (n - 1) % 3], "lw": 1.5}


def tick_text(value: float) -> str:
    """A number beside an axis: four figures, and no power of ten where people write a thousand.

    With three, 36.25 °C would read 36.2.
    """
    return f"{value:.0f}" if 999.5 <= abs(value) < 1e5 else f"{value:.4g}"


def nothing(axes: "Axes", text: str) -> None:
    """Say in a panel without data that there is none, in place of numbers beside its axis."""
    axes.set_yticks([])
    axes.annotate(text, (0.5, 0.5), xycoords="axes fraction", ha="center", va="center",
                  color=PALETTE["muted"], fontsize=8.5)  # fmt: skip


def strip_margin(low: float, high: float) -> float:
    """What lies above and below the course of a set-point, in its unit.

    A fifth of how far it moved: what moves by a little of its value, as a temperature does, would
    be flat beside a margin that goes by the value.
    """
    return max(0.2 * (high - low), 0.005 * max(abs(low), abs(high)), 1e-3)


BAND_ALPHA = 0.32
READINGS_ALPHA = 0.16
"""How dense the bands of states and of readings are; the one lies on the other."""


def band(axes: "Axes", days: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    """Shade between two paths: an interval."""
    axes.fill_between(days, low, high, color=PALETTE["band"], alpha=BAND_ALPHA, lw=0, zorder=2.5)


def reading_band(axes: "Axes", days: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    """Shade an interval of readings, assay noise included: paler, with an edge, behind."""
    fill = {"color": PALETTE["band"], "alpha": READINGS_ALPHA, "lw": 0}
    axes.fill_between(days, low, high, zorder=2.2, **fill)
    for path in (low, high):
        axes.plot(days, path, color=PALETTE["band"], lw=0.7, ls=DASHES[2], zorder=2.3)


def outer_band(axes: "Axes", days: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    """Shade a wider interval of the same thing, behind `band`: 95 % behind 80 %."""
    axes.fill_between(
        days, low, high, color=PALETTE["band"], alpha=READINGS_ALPHA, lw=0, zorder=2.4
    )


def shade_start(
    axes: "Axes", run: Mapping[str, Any], first: float, *, text: str = "", is_low: bool = False
) -> None:
    """Shade the days up to `run["start_day"]`, when control begins; with a word if one is given."""
    start = run.get("start_day")
    if start is None or start <= first:
        return
    axes.axvspan(first - 10.0, start, color=PALETTE["shade"], lw=0, zorder=0)
    if text:
        axes.annotate(
            text, (first, 0.0 if is_low else 1.0), xycoords=("data", "axes fraction"),
            xytext=(2, 4 if is_low else -12),
            textcoords="offset points", fontsize=8.5, color=PALETTE["muted"],
        )  # fmt: skip


NOT_FROM_ZERO = ("Via", "Diam")
"""What lives so far from zero that an axis from there would hide how it changes."""


def from_zero(axes: "Axes", name: str, target: float | None = None) -> None:
    """Concentrations start at zero; what lives near 100 % or far from zero does not."""
    if name in NOT_FROM_ZERO:
        axes.margins(y=0.15)
        return
    low, high = axes.get_ylim()
    high = max(high, low) if target is None else max(high, 1.12 * target)
    axes.set_ylim(min(0.0, low) if low < 0 and name not in REGISTRY else 0.0, high)


def legend_entry(kind: str, text: str, colour: str, n: int = 0) -> Any:
    """A legend entry: a line, dots, a ring, a mark up or down, a band, shade or series."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    if kind == "band":
        return Patch(color=colour, alpha=BAND_ALPHA, lw=0, label=text)
    if kind == "edged":
        return Patch(fc=(colour, READINGS_ALPHA), ec=colour, ls=DASHES[2], lw=0.9, label=text)
    if kind in ("readings", "outer"):
        return Patch(color=colour, alpha=READINGS_ALPHA, lw=0, label=text)
    if kind == "shade":
        return Patch(color=colour, lw=0, label=text)
    if kind == "dot":
        return Line2D([], [], ls="", marker="o", ms=5, mec="white", color=colour, label=text)
    if kind == "ring":
        ring = {"marker": "o", "ms": 8, "mfc": "none", "mew": 1.8}
        return Line2D([], [], ls="", color=colour, label=text, **ring)
    if kind in ("^", "v"):
        return Line2D([], [], ls="", marker=kind, ms=6, color=colour, label=text)
    if kind == "series":
        return Line2D([], [], label=text, **series_style(n))
    style = {"line": "-", "dashes": DASHES[1], "dots": DASHES[2]}[kind]
    return Line2D([], [], color=colour, ls=style, label=text)


def clone_of(run: Any) -> str:
    """Clone of a run, as far as it says."""
    if isinstance(run, Mapping):
        return str(run.get("clone_id", run.get("clone", "")))
    return str(getattr(run, "clone_id", ""))


def series_of(run: Any, species: str) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Days, values and noisy samples (if there are any) of one species of one run."""
    if not isinstance(run, Mapping):  # a Trajectory
        names = tuple(run.species_names)
        values = column_of(run.host_readings(names).astype(float), names, species)
        return np.asarray(run.times_h, float) / HOURS_PER_DAY, values, None
    table = np.asarray(run["trajectory"], float)
    names = tuple(run.get("species_names", ()) or _WIDTHS.get(table.shape[1], ()))
    values = column_of(table, names, species)
    days = np.asarray(run.get("days", np.arange(len(values))), float)
    samples = run.get("noisy_samples")
    if not samples:
        return days, values, None
    dots = [row.get(species) for row in samples][: len(days)]
    return days, values, np.array([np.nan if v is None else float(v) for v in dots])


def column_of(table: np.ndarray, names: tuple[str, ...], species: str) -> np.ndarray:
    """One species out of a table."""
    if species not in names:
        raise DataError(
            f"A run has no {species}; its {table.shape[1]} columns are {', '.join(names) or '?'}."
        )
    return table[:, names.index(species)]
