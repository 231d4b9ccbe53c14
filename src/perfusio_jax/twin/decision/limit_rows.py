"""Limits of assays in the samples of a journal."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float


def limits_of(
    rows: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> Float[np.ndarray, "T n 2"] | None:
    """Limits that stand in the place of readings, below and above; None if there is none.

    Args:
        rows: Samples in order of time; `limits` holds below and above by name, None for nothing.
        names: Readings wanted. Of a value that is not believed no limit counts either.
    """
    out = np.full((len(rows), len(names), 2), np.nan)
    for k, row in enumerate(rows):
        limits, values = row.get("limits") or {}, row.get("values") or {}
        for n, name in enumerate(names):
            if name in limits and name in values:
                out[k, n] = [np.nan if v is None else float(v) for v in limits[name]]
    return out if np.isfinite(out).any() else None
