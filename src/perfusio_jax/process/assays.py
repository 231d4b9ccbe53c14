"""The noise of assays: standard deviation of a reading, from what a quantity says of its own."""

from typing import Final

import numpy as np

from .description import Process
from .parts import Quantity
from .recorded import READ_AS

_AT_VIABILITY: Final = 0.9
"""Viable fraction at which the coefficient of variation of viability is the stated one [-]."""


def assay_deviation(quantity: Quantity, values: np.ndarray) -> np.ndarray:
    """Standard deviation of readings of a quantity, in its unit.

    Args:
        quantity: It knows its coefficient of variation and its floor.
        values: The readings; NaN gives NaN.
    """
    if quantity.formula == "viability":  # what is uncertain is the dead fraction
        p = np.clip(values / 100.0, 0.0, 1.0)
        at = np.sqrt(p * (1.0 - p) * _AT_VIABILITY / (1.0 - _AT_VIABILITY))
        return 100.0 * at * quantity.cv
    return np.sqrt((quantity.cv * values) ** 2 + quantity.floor**2)


def deviation_of(process: Process | None, name: str, values: np.ndarray) -> np.ndarray:
    """The same by the name of a column; zero where nobody knows.

    Args:
        process: The culture; None if nobody knows its assays.
        name: Name of the quantity, or one tables have for it.
        values: The readings.
    """
    for quantity in () if process is None else process.quantities:
        if name in (quantity.name, *READ_AS.get(quantity.name, ())):
            return assay_deviation(quantity, values)
    return np.zeros_like(values)
