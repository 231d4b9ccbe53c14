"""What boluses bring: amounts, and the volume they come in."""

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
        ConfigError: If a bolus is a volume that does not say how much is in it.
    """
    table = np.zeros((len(states), len(process.controls)))
    volumes = bolus_volumes(process)
    for j, control in enumerate(process.controls):
        for name in (n for n in control.brings if n in states):
            table[list(states).index(name), j] = volumes[j] * control.brings[name]
        if control.role != "bolus" or control.brings or control.quantity is None:
            continue
        if control.quantity not in states:
            continue
        quantity = process.quantity(control.quantity)
        given, held = parse_unit(control.unit), parse_unit(quantity.unit)
        if dict(given.dimensions) == {"length": 3}:
            raise ConfigError(
                f"control {control.name}: a volume of {quantity.name} [{control.unit}] does not "
                "say how much is in it; say so in brings (concentrations by quantity), or state "
                "the amount."
            )
        # held is per m3; one unit of bolus in one litre
        row = list(states).index(control.quantity)
        table[row, j] = float(given.factor) / float(held.factor) * 1000.0
    return table


def bolus_volumes(process: Process) -> Float[np.ndarray, " M"]:
    """Volume that one unit of each control brings [L]; zero for what is no bolus.

    Args:
        process: The culture. A bolus that does not say what it `brings` comes in no volume.
    """
    found = np.zeros(len(process.controls))
    for j, control in enumerate(process.controls):
        if not control.brings:
            continue
        given = parse_unit(control.unit)
        if dict(given.dimensions) == {"length": 3}:
            found[j] = float(given.factor) * 1000.0
            continue
        name = str(control.quantity)
        held = parse_unit(process.quantity(name).unit)
        found[j] = float(given.factor) / float(held.factor) * 1000.0 / control.brings[name]
    return found
