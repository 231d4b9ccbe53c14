"""Constants of a mechanism as runs leave them: marginals, pairs, and what would be read."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from perfusio_jax._core import DataError

from .clock import clock_of
from .parts import legend_entry
from .runs import plain_name
from .theme import DASHES, PALETTE, describe, new_figure, themed, title_axis

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS: Final = 5
_PAIRS: Final = 5
_BINS: Final = 30
_MOST_POINTS: Final = 400
_SURE: Final = 0.25
"""Part of the prior's spread below which a constant counts as well known [-]."""


@themed
def posterior_figure(
    draws: Mapping[str, Any],
    priors: Mapping[str, tuple[bool, float, float]],
    units: Mapping[str, str],
    *,
    title: str = "What the runs say of the constants",
    n_chains: int = 1,
) -> "Figure":
    """A histogram of each constant beside its prior, and the pairs that go together most.

    Args:
        draws: Draws of each constant (N,), chain after chain.
        priors: Whether on the logarithm, middle and standard deviation of each prior.
        units: Unit of each constant.
        title: Heading.
        n_chains: Chains the draws are of; each is drawn as a line of its own.

    Returns:
        The figure.

    Raises:
        DataError: If there are no draws.
    """
    names: Sequence[str] = list(draws)
    if not names or not np.size(draws[names[0]]):
        raise DataError("There are no draws to draw.")
    pairs = _strongest(draws, priors)
    columns = min(_COLUMNS, max(len(names), len(pairs)))
    rows = -(-len(names) // columns)
    figure = new_figure(
        2.3 * columns + 0.4, 1.1 + 1.75 * rows + 2.3 * bool(pairs), plain_name(title, 90)
    )
    heights = [1.0] * rows + [1.25] * bool(pairs)
    grid = figure.subplots(len(heights), columns, squeeze=False, height_ratios=heights)
    for n, axes in enumerate(grid[:rows].flat):
        if n >= len(names):
            axes.set_axis_off()
            continue
        name = names[n]
        _marginal(axes, np.asarray(draws[name], float), priors[name], n_chains)
        title_axis(axes, plain_name(name, 24), unit=units.get(name, ""))
    if pairs:
        for n, axes in enumerate(grid[rows]):
            if n >= len(pairs):
                axes.set_axis_off()
                continue
            a, b, correlation = pairs[n]
            x, y = (np.asarray(draws[k], float) for k in (a, b))
            step = max(1, x.size // _MOST_POINTS)
            axes.plot(x[::step], y[::step], "o", ms=2.0, mew=0, alpha=0.45, color=PALETTE["twin"])
            axes.set_xlabel(plain_name(a, 24))
            axes.set_ylabel(plain_name(b, 24))
            axes.set_title(f"correlation {correlation:.2f}")
            _sparse(axes)
    handles = [
        legend_entry("line", "chain" if n_chains > 1 else "posterior", PALETTE["twin"]),
        legend_entry("dashes", "prior", PALETTE["orange"]),
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=2)
    known = [n for n in names if _share(np.asarray(draws[n], float), priors[n]) < _SURE]
    text = (
        f"Marginals of {len(names)} constants beside their priors. {len(known)} are known to less "
        f"than a quarter of their prior's spread{': ' + ', '.join(known[:8]) if known else ''}."
    )
    if pairs:
        text += " Pairs that go together most: " + "; ".join(
            f"{a} and {b}, correlation {c:.2f}" for a, b, c in pairs
        )
        text += "."
    return describe(figure, text, is_printed=False)


@themed
def readings_figure(
    hours: Mapping[str, Any],
    readings: Mapping[str, Mapping[str, Any]],
    bands: Mapping[str, Mapping[str, Any]],
    units: Mapping[str, str],
    *,
    title: str = "What the posterior would read",
) -> "Figure":
    """Readings of runs on the intervals that the posterior gives them.

    Args:
        hours: Times of the samples of each run (T,) [h].
        readings: Readings (T,) by run and quantity; NaN where nobody read.
        bands: Quantiles (5, T) of 2.5, 10, 50, 90 and 97.5 per cent, by run and quantity.
        units: Unit of each quantity.
        title: Heading.

    Returns:
        The figure; a row for each quantity, a column for each run.

    Raises:
        DataError: If there is no run.
    """
    runs = list(hours)
    if not runs:
        raise DataError("There is no run to draw.")
    names = list(units)
    clock = clock_of([0.0], *(hours[run] for run in runs))
    figure = new_figure(
        2.3 * len(runs) + 0.6, 1.2 + 1.5 * len(names), plain_name(title, 40 + 20 * len(runs))
    )
    grid = figure.subplots(len(names), len(runs), squeeze=False, sharex=True, sharey="row")
    held = total = 0
    for i, name in enumerate(names):
        for j, run in enumerate(runs):
            axes = grid[i, j]
            x, seen = clock.of(np.asarray(hours[run])), np.asarray(readings[run][name], float)
            low, lower, middle, upper, high = np.asarray(bands[run][name], float)
            axes.fill_between(x, low, high, color=PALETTE["band"], alpha=0.18, lw=0)
            axes.fill_between(x, lower, upper, color=PALETTE["band"], alpha=0.35, lw=0)
            axes.plot(x, middle, color=PALETTE["twin"], lw=1.2)
            is_out = (seen < low) | (seen > high)
            axes.plot(x, seen, "o", ms=3.0, mew=0, color=PALETTE["ink"])
            axes.plot(
                x[is_out], seen[is_out], "o", ms=6.0, mew=1.2, mfc="none", mec=PALETTE["target"]
            )
            there = np.isfinite(seen)
            held += int(np.sum(there & ~is_out))
            total += int(np.sum(there))
            clock.apply(axes, show_label=i == len(names) - 1)
            if i == 0:
                axes.set_title(plain_name(run, 22))
            if j == 0:
                unit = units[name]
                axes.set_ylabel(f"{plain_name(name, 18)}\n[{unit}]" if unit else name)
    handles = [
        legend_entry("dot", "reading", PALETTE["ink"]),
        legend_entry("band", "80 and 95 % of readings", PALETTE["band"]),
        legend_entry("line", "median", PALETTE["twin"]),
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=3)
    share = 100.0 * held / max(total, 1)
    text = (
        f"{len(names)} quantities of {len(runs)} runs on the intervals of the posterior; "
        f"{share:.0f} % of {total} readings lie inside those of 95 %, the others are ringed."
    )
    return describe(figure, text, is_printed=False)


def _marginal(axes: Any, x: np.ndarray, prior: tuple[bool, float, float], n_chains: int) -> None:
    """One constant: a line for each chain, the prior dashed, from its own 0.1 to 99.9 %."""
    low, high = np.quantile(x, (0.001, 0.999))
    pad = 0.35 * (high - low) or 0.1 * abs(high) or 1.0
    edges = np.linspace(low - pad, high + pad, _BINS + 1)
    for chain in np.array_split(x, n_chains):
        share, _ = np.histogram(chain, bins=edges, density=True)
        axes.stairs(share, edges, color=PALETTE["twin"], lw=1.1, alpha=1.0 / n_chains**0.3)
    grid = np.linspace(edges[0], edges[-1], 200)
    axes.plot(grid, _density(grid, prior), color=PALETTE["orange"], ls=DASHES[1], lw=1.5)
    axes.set_yticks([])
    axes.set_ylim(bottom=0.0)
    _sparse(axes)


def _sparse(axes: Any) -> None:
    """Few ticks, in short numbers: panels are small."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.ticklabel_format(axis="x", style="sci", scilimits=(-3, 4))
    axes.xaxis.get_offset_text().set_fontsize(7)
    if axes.get_yticks().size:
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 4))
        axes.yaxis.get_offset_text().set_fontsize(7)


def _density(x: np.ndarray, prior: tuple[bool, float, float]) -> np.ndarray:
    is_log, middle, width = prior
    if is_log:
        safe = np.where(x > 0.0, x, 1.0)
        z = (np.log(safe) - middle) / width
        return np.where(x > 0.0, np.exp(-0.5 * z**2) / (safe * width * np.sqrt(2 * np.pi)), 0.0)
    z = (x - middle) / width
    return np.exp(-0.5 * z**2) / (width * np.sqrt(2 * np.pi))


def _scaled(x: np.ndarray, prior: tuple[bool, float, float]) -> np.ndarray:
    is_log, middle, width = prior
    return ((np.log(np.maximum(x, 1e-300)) if is_log else x) - middle) / width


def _share(x: np.ndarray, prior: tuple[bool, float, float]) -> float:
    return float(np.std(_scaled(x, prior)))


def _strongest(
    draws: Mapping[str, Any], priors: Mapping[str, tuple[bool, float, float]]
) -> list[tuple[str, str, float]]:
    """Pairs that go together most, the strongest first; none below 0.3."""
    names = list(draws)
    table = np.stack([_scaled(np.asarray(draws[n], float), priors[n]) for n in names])
    if len(names) < 2 or table.shape[1] < 3:
        return []
    found = np.corrcoef(table)
    pairs = [(names[j], names[i], float(found[i, j])) for i in range(len(names)) for j in range(i)]
    strong = [p for p in pairs if np.isfinite(p[2]) and abs(p[2]) >= 0.3]
    return sorted(strong, key=lambda p: -abs(p[2]))[:_PAIRS]
