"""What boluses bring."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from perfusio_jax._core import ConfigError
from perfusio_jax._core.unit_text import parse_unit

from .description import Process


def bolus_amounts(process: Process, states: Sequence[str]) -> Float[np.ndarray, "n M"]:
    """Amount that one unit of each control brings to each state.

    Args:
        process: The culture.
        states: Names of the states, in the order of the rows.

    Returns:
        Amounts [unit of the state, L]; zero for what is no bolus, or of another state.

    Raises:
        ConfigError: If a bolus is a volume, which does not say how much is in it.
    """
    table = np.zeros((len(states), len(process.controls)))
    for j, control in enumerate(process.controls):
        if control.role != "bolus" or control.quantity is None or control.quantity not in states:
            continue
        quantity = process.quantity(control.quantity)
        given, held = parse_unit(control.unit), parse_unit(quantity.unit)
        if dict(given.dimensions) == {"length": 3}:
            raise ConfigError(
                f"control {control.name}: a volume of {quantity.name} [{control.unit}] does not "
                "say how much is in it; state the amount, or a stream with what it carries."
            )
        # held is per m3; one unit of bolus in one litre
        row = list(states).index(control.quantity)
        table[row, j] = float(given.factor) / float(held.factor) * 1000.0
    return table
