"""Forecasts of a run as one reads them: by when they were made, and as bands over time."""

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from perfusio_jax._core import HOURS_PER_DAY, DataError
from perfusio_jax._core.limits import TABLE_BYTES, read_file

from .records import FORECASTS

QUANTILES: Final = ("q10", "q50", "q90")
"""Columns of a forecast that are looked at."""


class Step(NamedTuple):
    """One quantity at one time of one forecast."""

    made_on_day: float
    """Culture day it was made on [d]."""
    day: float
    """Culture day it is for [d]."""
    species: str
    """Quantity."""
    quantiles: tuple[float, float, float]
    """In the order of `QUANTILES` [its unit]."""


class Curve(NamedTuple):
    """What was forecast of a quantity over a run."""

    hours: np.ndarray
    """Times [h]."""
    low: np.ndarray
    """Ten per cent quantile."""
    middle: np.ndarray
    """Median."""
    high: np.ndarray
    """Ninety per cent quantile."""


def read_forecasts(folder: Path, reactor_id: str) -> list[Step]:
    """Forecasts of a vessel, in the order of the file; none where there is no file.

    Args:
        folder: Run folder.
        reactor_id: Vessel.

    Raises:
        DataError: If the file cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / FORECASTS
    if not path.is_file():
        return []
    try:
        table = pq.read_table(io.BytesIO(read_file(path, most=TABLE_BYTES))).to_pydict()
        columns = [table[c] for c in ("reactor_id", "made_on_day", "day", "species", *QUANTILES)]
    except (pa.ArrowException, KeyError, OSError) as error:
        raise DataError(f"{FORECASTS} cannot be read: {error}") from error
    return [
        Step(float(made_on), float(day), species, (low, middle, high))
        for name, made_on, day, species, low, middle, high in zip(*columns, strict=True)
        if name == reactor_id
    ]


def curves(steps: Iterable[Step]) -> dict[str, Curve]:
    """The next sample as each forecast had it, and the last forecast to its end.

    Args:
        steps: Forecasts of a vessel; of two for the same time, made on the same day, the later one
            in order counts.
    """
    made: dict[str, dict[float, dict[float, tuple[float, ...]]]] = {}
    for step in steps:
        made.setdefault(step.species, {}).setdefault(step.made_on_day, {})[step.day] = (
            step.quantiles
        )
    found = {}
    for species, by_day in made.items():
        last = max(by_day)
        nearest = [min(ahead.items()) for on, ahead in sorted(by_day.items()) if on != last]
        path = dict([*nearest, *sorted(by_day[last].items())])
        days = sorted(path)
        low, middle, high = np.array([path[day] for day in days], float).T
        found[species] = Curve(HOURS_PER_DAY * np.array(days, float), low, middle, high)
    return found


def packed(steps: Iterable[Step]) -> dict[float, dict[str, Any]]:
    """Each forecast as a database keeps it, by the day it was made on.

    Args:
        steps: Forecasts of a vessel.
    """
    found: dict[float, dict[str, Any]] = {}
    for step in steps:
        one = found.setdefault(step.made_on_day, {"made_on_day": step.made_on_day, "species": {}})
        columns = one["species"].setdefault(step.species, {n: [] for n in ("day", *QUANTILES)})
        for name, value in zip(("day", *QUANTILES), (step.day, *step.quantiles), strict=True):
            columns[name].append(float(value))
    return found


def unpacked(content: Mapping[str, Any]) -> list[Step]:
    """A forecast of `packed`; empty if it is another kind of content.

    Args:
        content: As the database has it.
    """
    made_on, species = content.get("made_on_day"), content.get("species")
    if not isinstance(made_on, int | float) or not isinstance(species, Mapping):
        return []
    names = ("day", *QUANTILES)
    return [
        Step(float(made_on), float(day), str(name), (float(low), float(middle), float(high)))
        for name, columns in species.items()
        if isinstance(columns, Mapping) and all(isinstance(columns.get(n), list) for n in names)
        for day, low, middle, high in zip(*(columns[n] for n in names), strict=False)
        if None not in (day, low, middle, high)
    ]
