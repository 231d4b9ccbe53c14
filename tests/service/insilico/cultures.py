"""A culture of tests as a user has it: a process, a mechanism and policies in a module."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from perfusio_jax.mechanistic import Mechanism, constant
from perfusio_jax.process import Control, Process, Quantity, Stream

POND = Process(
    name="pond",
    volume_L=2.0,
    biomass="X",
    quantities=(
        Quantity(name="X", unit="g/L", hi=20.0, cv=0.05, floor=0.02, start=1.0),
        Quantity(name="S", unit="g/L", hi=50.0, cv=0.03, floor=0.05, start=10.0),
        Quantity(name="pH", unit="pH", kind="level", lo=3.0, hi=11.0, cv=0.002, floor=0.02),
    ),
    controls=(
        Control(name="feed_rate", unit="1/h", role="flow", lo=0.0, hi=0.2, default=0.05),
        Control(name="bleed", unit="1/h", role="flow", lo=0.0, hi=0.2, default=0.02),
        Control(name="light", unit="-", role="environment", lo=0.0, hi=1.0, default=0.5),
        Control(name="S_bolus", unit="g", role="bolus", lo=0.0, hi=20.0, default=0.0, quantity="S"),
    ),
    streams=(
        Stream(name="feed", direction="in", flow="feed_rate", carries={"S": 30.0}),
        Stream(name="bled", direction="out", flow="bleed"),
        Stream(name="outflow", direction="out", flow="rest", passes={"X": 0.2}),
    ),
)
"""A perfused pond: cells held back, a bleed, boluses and a level."""


class Algae(Mechanism):
    """Growth that follows substrate and light."""

    mu_max: Array = constant(0.12, unit="1/h", log_sd=0.2, source="made up")
    yield_XS: Array = constant(0.5, unit="g/g", log_sd=0.1)
    alkali: Array = constant(0.05, unit="L/g/h", sd=0.5)

    def rates(self, state, environment):
        """Growth, uptake and what makes the pond alkaline."""
        growth = self.mu_max * environment["light"] * state["S"] / (0.5 + state["S"]) * state["X"]
        pull = self.alkali * growth * (9.0 - state["pH"])
        return {"X": growth, "S": -growth / self.yield_XS, "pH": pull}


class Greedy(Mechanism):
    """Takes up what is gone where there is much light."""

    rate: Array = constant(1.0, unit="g/L/h")

    def rates(self, state, environment):
        """Uptake without end."""
        return {"S": -self.rate * jnp.maximum(environment["light"] - 0.5, 0.0)}


class Foreign(Mechanism):
    """Of another culture."""

    rate: Array = constant(1.0, unit="1/h", log_sd=0.1)

    def rates(self, state, environment):
        """Growth on something the pond does not have."""
        return {"X": self.rate * state["ethanol"]}


def darker(seen):
    """Less light where there are many cells, by names."""
    many = seen.reading("X") > 2.0  # false where nothing was read
    light = np.where(many, 0.5 * seen.set_point("light"), seen.set_point("light"))
    return seen.with_set_points(light=light)


def once(seen):
    """A bolus on the first day; the design's come back by themselves."""
    return seen.with_set_points(S_bolus=5.0) if seen.hour == 12.0 else seen.set_points


def anchored(seen):
    """By a reading that is missing once a run has failed."""
    return seen.with_set_points(light=seen.set_point("light") + 0.0 * seen.reading("X"))


def bright(seen):
    """More light than there is."""
    return seen.with_set_points(light=1.5)


def lost(seen):
    """By a name the pond does not have."""
    return seen.with_set_points(light=seen.reading("lactose"))


def words(seen):
    """No numbers."""
    return "more light"


narrow = "no function"
