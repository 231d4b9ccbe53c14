"""Fed-batch problems of the literature, whose best schedules are known."""

import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax.mechanistic import Mechanism, constant
from perfusio_jax.process import Control, Process, Quantity, Stream
from perfusio_jax.simulator import virtual_plant
from perfusio_jax.study import described_experiment

SECRETION = Process(
    name="secretion",
    volume_L=1.0,
    biomass="X",
    quantities=(
        Quantity(name="P", unit="g/L", hi=10.0, cv=0.03, floor=0.01),
        Quantity(name="T", unit="g/L", hi=10.0, cv=0.03, floor=0.01),
        Quantity(name="X", unit="g/L", hi=20.0, cv=0.03, floor=0.01),
        Quantity(name="S", unit="g/L", hi=30.0, cv=0.03, floor=0.01),
    ),
    controls=(Control(name="feed", unit="L/h", role="flow", lo=0.0, hi=2.0, default=0.5),),
    streams=(Stream(name="feed", direction="in", flow="feed", carries={"S": 20.0}),),
)


class Secretion(Mechanism):
    """Foreign protein of a secreting yeast (Park and Ramirez 1988)."""

    rate: jax.Array = constant(4.75, unit="1/h", log_sd=0.1)

    def rates(self, state, environment):
        s, x = state["S"], state["X"]
        growth = 21.87 * s / ((s + 0.4) * (s + 62.5))
        made = s * jnp.exp(-5.0 * s) / (0.1 + s)
        secreted = self.rate * growth / (0.12 + growth) * (state["T"] - state["P"])
        return {"P": secreted, "T": made * x, "X": growth * x, "S": -7.3 * growth * x}


def secretion(n=15, **accuracy):
    """Fifteen hours of it, fed."""
    given = {"rtol": 1e-7, "atol": 1e-9, **accuracy}
    plant = virtual_plant(SECRETION, Secretion(), **given)
    hours = np.linspace(0.0, 15.0, n + 1)
    return described_experiment(plant, hours, start={"P": 0.0, "T": 0.0, "X": 1.0, "S": 5.0})
