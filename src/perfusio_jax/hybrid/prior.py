"""What the hybrid model asks of the mechanism it is given."""

from typing import Any

import numpy as np
from jax.core import Tracer

from perfusio_jax._core import ConfigError
from perfusio_jax.mechanistic import Reactor


def check_mechanism(mech: Any) -> None:
    """Refuse a reactor whose flows are not those of the balance.

    The balance of the hybrid model is that of perfusion at constant volume, in vessel volumes
    per day, with a filter that stays as it is. A mechanism of another kind would run, and every
    rate taken from the data would be that of a process that was not there.

    Args:
        mech: Mechanistic model. One without a `Reactor` answers for itself.

    Raises:
        ConfigError: If its reactor is a chemostat or fed-batch, is perfused per cell, or has a
            filter that fouls.
    """
    reactor = getattr(mech, "reactor", None)
    if not isinstance(reactor, Reactor):
        return
    if reactor.mode != "perfusion":
        raise ConfigError(
            f"the mechanism's reactor is in mode {reactor.mode!r}; the hybrid model balances "
            "perfusion at constant volume (mode 'perfusion') only."
        )
    if reactor.perfusion_mode != "vvd":
        raise ConfigError(
            f"the mechanism's reactor has perfusion_mode {reactor.perfusion_mode!r}; the hybrid "
            "model reads perfusion_rate in vessel volumes per day ('vvd') only."
        )
    rate = reactor.fouling_rate
    if not isinstance(rate, Tracer) and np.any(np.asarray(rate) != 0):
        raise ConfigError(
            f"the mechanism's filter fouls (fouling_rate {rate} 1/h); the hybrid model knows a "
            "constant sieving only. Set fouling_rate to 0: a drift of the product is then learned."
        )
