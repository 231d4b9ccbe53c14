"""A forecast on a screen, and what the model behind it is fit for."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from perfusio_jax._core import DataError
from perfusio_jax.hybrid import HybridStateSpaceModel, read_verdict
from perfusio_jax.viz import Card, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def verdict_line(hybrid: HybridStateSpaceModel, folder: Path) -> str:
    """What the model is fit for, as it was judged when it was fitted or validated."""
    try:
        verdict = read_verdict(hybrid, folder)
    except DataError as error:
        return f"no verdict on this model: {error}"
    if verdict is None:
        return "no verdict on this model: nobody judged it; perfusio-jax validate does"
    return verdict.line()


def forecast_card(
    title: str,
    labels: Sequence[str],
    columns: Sequence[str],
    values: tuple[Any, Any, Any],
    *,
    never: Sequence[str],
    model: str,
    source: str,
    figure: "Callable[[], Figure] | None" = None,
) -> Card:
    """What a forecast says.

    Args:
        title: What it is of, and from when.
        labels: Heading of the first column, then one per row.
        columns: Headings of the quantities.
        values: Median, lower and upper end, each (rows, quantities).
        never: Quantities that were never measured in the run; marked in their headings.
        model: What the model is fit for.
        source: Model and samples.
        figure: Draws it.
    """
    rows = []
    for h, label in enumerate(labels[1:]):
        cells = []
        for k in range(len(columns)):
            mid, low, high = (_digits(float(t[h, k])) for t in values)
            cells.append(f"{mid} ({low}-{high})")
        rows.append((label, *cells))
    told = []
    if never:
        told.append(
            f"* never measured in this run: {', '.join(never)}. Their forecasts rest on the model "
            "and on what else was measured."
        )
    heads = (labels[0], *columns)
    table = Table(title, heads, tuple(rows), tuple(range(len(heads))), is_split=True)
    return Card("forecast", title, (*told, model), (), (table,), source, figure)


def _digits(value: float) -> str:
    """Three figures without an exponent, or "<0.001"."""
    if not np.isfinite(value):
        return "none"
    if value < 0.0:
        return f"-{_digits(-value)}"
    if value < 0.001:
        return "0" if value == 0.0 else "<0.001"
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}"
