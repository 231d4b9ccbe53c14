"""A forecast on a screen, and what the model behind it is fit for."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from perfusio_jax._core import DataError
from perfusio_jax.hybrid import HybridStateSpaceModel, read_verdict


def verdict_line(hybrid: HybridStateSpaceModel, folder: Path) -> str:
    """What the model is fit for, as it was judged when it was fitted or validated."""
    try:
        verdict = read_verdict(hybrid, folder)
    except DataError as error:
        return f"no verdict on this model: {error}"
    if verdict is None:
        return "no verdict on this model: nobody judged it; perfusio-jax validate does"
    return verdict.line()


def forecast_tables(
    title: str,
    labels: Sequence[str],
    columns: Sequence[str],
    values: tuple[Any, Any, Any],
    width: int,
) -> list[Any]:
    """Tables of as many quantities each as a terminal has room for.

    Args:
        title: Above the first of them.
        labels: Heading of the first column, then one per row.
        columns: Headings of the quantities.
        values: Median, lower and upper end, each (rows, quantities).
        width: Characters there is room for.
    """
    from rich import box
    from rich.table import Table

    groups: list[list[tuple[str, list[str]]]] = []
    room = 0
    for k, header in enumerate(columns):
        cells = []
        for h in range(len(labels) - 1):
            mid, low, high = (_digits(float(t[h, k])) for t in values)
            cells.append(f"{mid} ({low}-{high})")
        needed = max(len(text) for text in (header, *cells)) + 3
        if not groups or needed > room:
            groups.append([])
            room = width - max(len(text) for text in labels) - 6
        groups[-1].append((header, cells))
        room -= needed
    tables = []
    for number, group in enumerate(groups):
        table = Table(title=None if number else title, box=box.SIMPLE, title_justify="left")
        for header in (labels[0], *(header for header, _ in group)):
            table.add_column(header, justify="right", no_wrap=True)
        for h, label in enumerate(labels[1:]):
            table.add_row(label, *(cells[h] for _, cells in group))
        tables.append(table)
    return tables


def _digits(value: float) -> str:
    """Three figures without an exponent, or "<0.001"."""
    if not np.isfinite(value):
        return "none"
    if value < 0.0:
        return f"-{_digits(-value)}"
    if value < 0.001:
        return "0" if value == 0.0 else "<0.001"
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}"
