"""Best-schedule problems of the literature, for the product and for CasADi alike.

Each is a fed-batch whose best feeding is known to be neither constant nor simple. `Problem.rates`
is written with `exp` given, so that one text serves both.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax.mechanistic import Mechanism, constant
from perfusio_jax.process import Control, Process, Quantity, Stream
from perfusio_jax.simulator import virtual_plant
from perfusio_jax.study import described_experiment


class Problem(NamedTuple):
    """A fed-batch, its kinetics, and what is asked of it."""

    name: str
    source: str
    states: tuple[str, ...]
    """Diluted by feeds."""
    inner: tuple[str, ...]
    """States of the cells, which nothing dilutes."""
    start: dict[str, float]
    volume_L: float
    feeds: dict[str, tuple[float, dict[str, float]]]
    """Largest flow [L/h], and what it carries."""
    hours: float
    intervals: int
    objective: str
    limits: tuple[str, ...]
    steps: dict[str, float]
    rates: Callable[[Any, Any], dict[str, Any]]
    """Rates by state of a mapping of states, with `exp`."""

    @property
    def process(self) -> Process:
        """The culture as the product describes it."""
        plain = tuple(
            Quantity(name=n, unit="g/L", hi=1000.0, cv=0.03, floor=0.01) for n in self.states
        )
        inner = tuple(
            Quantity(name=n, unit="-", kind="level", lo=0.0, hi=2.0, cv=0.0, floor=0.01)
            for n in self.inner
        )
        return Process(
            name=self.name,
            volume_L=self.volume_L,
            biomass=self.states[0],
            quantities=plain + inner,
            controls=tuple(
                Control(name=n, unit="L/h", role="flow", lo=0.0, hi=hi, default=0.5 * hi)
                for n, (hi, _) in self.feeds.items()
            ),
            streams=tuple(
                Stream(name=n, direction="in", flow=n, carries=carries)
                for n, (_, carries) in self.feeds.items()
            ),
        )

    def experiment(self) -> Any:
        """One run of it."""
        plant = virtual_plant(self.process, _Given(self.rates), rtol=1e-6, atol=1e-8, max_steps=512)
        grid = np.linspace(0.0, self.hours, self.intervals + 1)
        return described_experiment(plant, grid, start=self.start)


class _Given(Mechanism):
    """Rates of a problem."""

    of: Callable[[Any, Any], dict[str, Any]] = eqx.field(static=True)
    one: jax.Array = constant(1.0, unit="-", log_sd=0.1)

    def rates(self, state: Any, environment: Any) -> Any:
        return {name: self.one * rate for name, rate in self.of(state, jnp.exp).items()}


def secretion(y: Any, exp: Any) -> dict[str, Any]:
    """Foreign protein of a secreting yeast."""
    s, x = y["S"], y["X"]
    growth = 21.87 * s / ((s + 0.4) * (s + 62.5))
    made = s * exp(-5.0 * s) / (0.1 + s)
    secreted = 4.75 * growth / (0.12 + growth) * (y["T"] - y["P"])
    return {"X": growth * x, "P": secreted, "T": made * x, "S": -7.3 * growth * x}


def induction(y: Any, exp: Any) -> dict[str, Any]:
    """Foreign protein of an induced bacterium, with shock by the inducer and recovery."""
    del exp
    s, i, x = y["S"], y["I"], y["X"]
    uptake = s / (14.35 + s + s * s / 111.5)
    growth = uptake * (y["shock"] + 0.22 * y["recovery"] / (0.22 + i))
    made = 0.233 * uptake * (0.0005 + i) / (0.022 + i)
    pace = 0.09 * i / (0.034 + i)
    return {
        "X": growth * x,
        "S": -growth * x / 0.51,
        "P": made * x,
        "shock": -pace * y["shock"],
        "recovery": pace * (1.0 - y["recovery"]),
    }


def penicillin(y: Any, exp: Any) -> dict[str, Any]:
    """A mould that makes most where substrate is nearly gone."""
    del exp
    x, s = y["X"], y["S"]
    growth = 0.11 * s / (0.006 * x + s)
    made = 0.0055 * s / (0.0001 + s * (1.0 + 10.0 * s))
    kept = 0.029 * s / (0.0001 + s)
    return {
        "X": growth * x,
        "P": made * x - 0.01 * y["P"],
        "S": -(growth / 0.47 + made / 1.2 + kept) * x,
    }


def ethanol(y: Any, exp: Any) -> dict[str, Any]:
    """A yeast that its ethanol holds back."""
    del exp
    x, s, p = y["X"], y["S"], y["P"]
    growth = 0.408 / (1.0 + p / 16.0) * s / (0.22 + s)
    made = 1.0 / (1.0 + p / 71.5) * s / (0.44 + s)
    return {"X": growth * x, "S": -10.0 * growth * x, "P": made * x}


PROBLEMS = (
    Problem(
        "secretion", "Park, Ramirez (1988)", ("X", "P", "T", "S"), (),
        {"X": 1.0, "P": 0.0, "T": 0.0, "S": 5.0}, 1.0, {"feed": (2.0, {"S": 20.0})},
        15.0, 15, "P", (), {}, secretion,
    ),
    Problem(
        "secretion_limited", "the same in a vessel of 8 L, slow changes", ("X", "P", "T", "S"), (),
        {"X": 1.0, "P": 0.0, "T": 0.0, "S": 5.0}, 1.0, {"feed": (2.0, {"S": 20.0})},
        15.0, 15, "P", ("S <= 5", "last volume_L <= 8"), {"feed": 0.5}, secretion,
    ),
    Problem(
        "induction", "Lee, Ramirez (1994)", ("X", "S", "P", "I"), ("shock", "recovery"),
        {"X": 0.1, "S": 40.0, "P": 0.0, "I": 0.0, "shock": 1.0, "recovery": 0.0}, 1.0,
        {"nutrient": (1.0, {"S": 100.0}), "inducer": (1.0, {"I": 4.0})},
        10.0, 10, "P", (), {}, induction,
    ),
    Problem(
        "penicillin", "Cuthrell, Biegler (1989)", ("X", "P", "S"), (),
        {"X": 1.5, "P": 0.0, "S": 0.0}, 7.0, {"feed": (0.1, {"S": 500.0})},
        132.0, 22, "P", ("X <= 40", "S <= 25", "last volume_L <= 10"), {}, penicillin,
    ),
    Problem(
        "ethanol", "Chen, Hwang (1990)", ("X", "S", "P"), (),
        {"X": 1.0, "S": 150.0, "P": 0.0}, 10.0, {"feed": (12.0, {"S": 150.0})},
        54.0, 18, "P", ("last volume_L <= 200",), {}, ethanol,
    ),
)  # fmt: skip
