"""Limits of assays as cells of a table that is written: `< 0.05`, as laboratories write them."""

import math

import numpy as np
import pandas as pd

from ..tables.run_rows import as_written


def with_limits(values: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """A column with the limits that stand in the place of readings.

    Args:
        values: Numbers `(T,)`; NaN if missing.
        limits: Below and above `(T,2)`; NaN where a value is a reading or none.

    Returns:
        The numbers themselves where there is no limit, else numbers and texts.
    """
    if not np.isfinite(limits).any():
        return values
    out = values.astype(object)
    for row, (below, above) in enumerate(limits.tolist()):
        if not (math.isnan(below) and math.isnan(above)):
            out[row] = as_written((below, above))
    return out


def of_one_kind(frame: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """A table whose columns of numbers and texts are texts, as Parquet wants it.

    Args:
        frame: The table.
        names: Its columns of numbers.
    """
    mixed = [n for n in names if frame[n].dtype == object]
    texts = {
        n: [v if isinstance(v, str) else None if pd.isna(v) else repr(float(v)) for v in frame[n]]
        for n in mixed
    }
    return frame.assign(**texts) if mixed else frame
