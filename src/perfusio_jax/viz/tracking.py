"""Figures of policies that track references: courses with bands, inputs, learning curves."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from perfusio_jax._core import DataError

from .parts import band
from .theme import DASHES, PALETTE, SERIES, describe, new_figure, themed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Course(NamedTuple):
    """Episodes of one policy."""

    hours: np.ndarray
    """Sampling times (T,) [h]."""
    tracked: np.ndarray
    """Biomasses (E, T, 2) [g/L]."""
    reference: np.ndarray
    """References (T, 2) [g/L]."""
    growth: np.ndarray
    """Growth rates at the sampling times (E, T, 2) [1/h]."""
    inputs: np.ndarray
    """Lights (E, N, 2) [W/m2]."""
    curve: np.ndarray
    """Mean return per epoch, scaled; NaN where none was run."""


_STRAINS = ("Strain 1 (blue light)", "Strain 2 (red light)")
_REFERENCES = ((0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)))


def _spread(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Median and the middle 80 % of the episodes: a band that no bound is beyond."""
    low, middle, high = np.quantile(values, [0.1, 0.5, 0.9], axis=0)
    return middle, low, high


def _pair(axes: "Axes", hours: np.ndarray, values: np.ndarray, *, step: bool = False) -> None:
    for i in range(2):
        mean, low, high = _spread(values[..., i])
        style = {"color": SERIES[i], "ls": DASHES[i], "zorder": 3}
        if step:
            axes.stairs(high, hours, baseline=low, fill=True, color=SERIES[i], alpha=0.22, lw=0)
            axes.stairs(mean, hours, baseline=None, lw=1.6, **style)
            continue
        if np.max(high - low) > 1e-9:
            band_axes = axes.fill_between(hours, low, high, color=SERIES[i], alpha=0.22, lw=0)
            band_axes.set_zorder(2)
        axes.plot(hours, mean, label=_STRAINS[i], **style)


@themed
def case_figure(
    courses: Mapping[str, Course], *, title: str, dilution: float, print_description: bool = False
) -> "Figure":
    """One scenario: a row per return, with states, growth, inputs and the return over epochs.

    Args:
        courses: Per return, by name.
        title: Heading.
        dilution: Rate to compare growth with [1/h].
        print_description: Whether to print what the figure shows.

    Returns:
        The figure.

    Raises:
        DataError: If there is nothing to draw.
    """
    if not courses:
        raise DataError("There are no courses to draw.")
    rows = len(courses)
    figure = new_figure(11.0, 0.7 + 2.5 * rows, title)
    grid = figure.subplots(rows, 4, squeeze=False)
    said = []
    for row, (name, course) in zip(grid, courses.items(), strict=True):
        heads = ("Biomass [g/L]", "Growth rate [1/h]", "Light [W/m²]", "Return, scaled [-]")
        for axes, head in zip(row, heads, strict=True):
            axes.set_title(head)
        row[0].set_ylabel(name)
        for i in range(2):
            row[0].plot(
                course.hours, course.reference[:, i], color=PALETTE["ink"], lw=1.0,
                ls=_REFERENCES[i], zorder=4, label=f"Reference {i + 1}",
            )  # fmt: skip
        _pair(row[0], course.hours, course.tracked)
        _pair(row[1], course.hours, course.growth)
        row[1].axhline(dilution, color=PALETTE["ink"], lw=1.0, ls=DASHES[0], label="Dilution")
        _pair(row[2], course.hours, course.inputs, step=True)
        row[2].set_yscale("log")
        decades = np.log10([course.inputs.min(), course.inputs.max()])
        row[2].set_ylim(10.0 ** np.floor(decades[0]), 10.0 ** np.ceil(decades[1]))
        ran = np.flatnonzero(np.isfinite(course.curve))
        dot = "o" if ran.size == 1 else None
        row[3].plot(ran + 1, course.curve[ran], color=PALETTE["twin"], lw=1.2, marker=dot)
        row[3].set_ylim(min(0.0, float(np.nanmin(course.curve))) - 0.05, 1.05)
        row[3].locator_params(axis="x", nbins=4, integer=True)
        for axes in row[:3]:
            axes.set_xlabel("Time [h]")
        row[3].set_xlabel("Epoch")
        row[0].set_ylim(bottom=0.0)
        error = np.mean(
            np.abs(course.tracked - course.reference[None])[:, 1:] / course.reference[None, 1:]
        )
        said.append(f"{name}: mean relative error {error:.3f} after {ran.size} epochs")
    handles, names = grid[0, 0].get_legend_handles_labels()
    more, others = grid[0, 1].get_legend_handles_labels()
    keep = others.index("Dilution")
    figure.legend(
        [*handles, more[keep]],
        [*names, "Dilution rate"],
        title="Median of the episodes; bands hold the middle 80 % of them",
        loc="outside lower left",
        ncols=5,
    )
    return describe(figure, f"{title}. " + "; ".join(said) + ".", is_printed=print_description)


@themed
def ranking_figure(
    names: list[str], ranks: np.ndarray, *, title: str, print_description: bool = False
) -> "Figure":
    """Rank sums of learning schemes, best first, with a dot per seed.

    Args:
        names: Schemes.
        ranks: Rank sum of each scheme in each seed, (schemes, seeds).
        title: Heading.
        print_description: Whether to print what the figure shows.

    Returns:
        The figure.

    Raises:
        DataError: If there is not one row of ranks per scheme.
    """
    ranks = np.asarray(ranks, float)
    if ranks.ndim != 2 or ranks.shape[0] != len(names) or not len(names):
        raise DataError(f"{len(names)} schemes and ranks of shape {ranks.shape} do not fit.")
    order = np.argsort(ranks.mean(axis=1))
    figure = new_figure(7.0, 1.2 + 0.28 * len(names), title)
    axes = figure.add_subplot()
    for place, index in enumerate(order):
        color = PALETTE["target"] if names[index] == "qc" else PALETTE["twin"]
        axes.barh(place, ranks[index].mean(), color=color, alpha=0.85, height=0.62, zorder=2)
        row = np.full(ranks.shape[1], place)
        axes.plot(ranks[index], row, "o", ms=2.6, color=PALETTE["ink"], alpha=0.6, zorder=3)
    axes.set_yticks(range(len(names)), [str(names[i]) for i in order])
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("Rank by error plus rank by area (mean, and each training)")
    best = names[order[0]]
    return describe(figure, f"{title}. Best: {best}.", is_printed=print_description)


@themed
def comparison_figure(
    tracked: Mapping[str, np.ndarray],
    hours: np.ndarray,
    reference: np.ndarray,
    *,
    title: str,
    print_description: bool = False,
) -> "Figure":
    """Biomasses under several controllers over the references, with bands between episodes.

    Args:
        tracked: Biomasses (E, T, 2) [g/L] per controller.
        hours: Sampling times [h].
        reference: References (T, 2) [g/L].
        title: Heading.
        print_description: Whether to print what the figure shows.

    Returns:
        The figure.

    Raises:
        DataError: If there is nothing to draw.
    """
    if not tracked:
        raise DataError("There are no controllers to draw.")
    figure = new_figure(9.0, 3.9, title)
    panels = figure.subplots(1, 2)
    for i, axes in enumerate(panels):
        axes.set_title(f"{_STRAINS[i]} [g/L]")
        axes.plot(hours, reference[:, i], color=PALETTE["ink"], lw=1.0, zorder=5, label="reference")
        for n, (name, values) in enumerate(tracked.items()):
            mean, low, high = _spread(values[..., i])
            color = SERIES[n % len(SERIES)]
            has_band = n == 0 and len(values) > 1
            if has_band:
                band(axes, hours, low, high)
            label = f"{name} (band: its episodes)" if has_band else name
            axes.plot(hours, mean, color=color, ls=DASHES[n % len(DASHES)], lw=1.4, label=label)
        axes.set_xlabel("Time [h]")
        axes.set_ylim(bottom=0.0)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower left", ncols=min(len(names), 5))
    text = f"{title}. Controllers: {', '.join(tracked)}."
    return describe(figure, text, is_printed=print_description)
