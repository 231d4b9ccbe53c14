"""Defaults and shape checks shared by the containers."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from perfusio_jax._core import DataError

UNKNOWN = "unknown"
"""Run and clone nobody named."""

REACTOR = "R00"
"""Vessel nobody named."""


def is_concrete(*arrays: Any) -> bool:
    """Whether values can be looked at now, that is, none is a tracer."""
    return not any(isinstance(array, Tracer) for array in arrays)


def unique_names(given: Sequence[str], what: str) -> tuple[str, ...]:
    """Names as a tuple; refuses a bare text and a name that occurs twice."""
    if isinstance(given, str):
        raise DataError(f"{what} is the text '{given}'; give a sequence of names.")
    names = tuple(given)
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise DataError(f"{what} holds {', '.join(twice)} more than once.")
    return names


def expect_shape(array: Array, shape: tuple[int, ...], what: str, reading: str) -> None:
    """Refuse an array of another shape, saying how the expected shape is read."""
    if tuple(array.shape) != shape:
        raise DataError(f"{what} has shape {tuple(array.shape)}; expected {shape}, {reading}.")


def position(names: tuple[str, ...], name: str, what: str) -> int:
    """Place of a name, or a KeyError that lists the names there are."""
    if name not in names:
        raise KeyError(f"no {what} '{name}' here; there are {', '.join(names) or 'none'}.")
    return names.index(name)


def take_rows(array: Array, rows: np.ndarray) -> Array:
    """Rows of an array on its own device; on the host if possible, so that nothing compiles."""
    if not is_concrete(array):
        return array[rows]
    return jax.device_put(np.asarray(array)[rows], array.sharding)
