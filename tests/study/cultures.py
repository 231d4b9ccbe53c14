"""Runs that studies are tested on, of three kinds of plant."""

import jax
import numpy as np

from perfusio_jax.mechanistic import Mechanism, Method, Tolerances, constant
from perfusio_jax.process import MONOD_CHEMOSTAT, Process, Quantity
from perfusio_jax.simulator import plain_monod, virtual_plant, virtual_reactor
from perfusio_jax.study import cho_experiment, described_experiment
from tests.hybrid.cultures import FED


class Exponential(Mechanism):
    """Growth that nothing limits: X = X_0 exp(mu t)."""

    mu: jax.Array = constant(0.1, unit="1/h", sd=0.02)

    def rates(self, state, environment):
        return {"X": self.mu * state["X"]}


class Product(Mechanism):
    """A product made at a rate of which only a product of two constants shows: P = a b t."""

    a: jax.Array = constant(2.0, unit="g/L/h", log_sd=0.5)
    b: jax.Array = constant(0.5, unit="-", log_sd=0.5)

    def rates(self, state, environment):
        return {"X": self.a * self.b + 0.0 * state["X"]}


class Michaelis(Mechanism):
    """One enzyme: dS/dt = -V S / (K + S); a constant that does nothing beside."""

    V: jax.Array = constant(1.0, unit="g/L/h", log_sd=1.0)
    K: jax.Array = constant(10.0, unit="g/L", log_sd=1.0)
    idle: jax.Array = constant(3.0, unit="1/h", log_sd=0.7)

    def rates(self, state, environment):
        s = state["X"]
        return {"X": -self.V * s / (self.K + s) + 0.0 * self.idle}


class FedYeast(Mechanism):
    """Growth on a substrate that is fed."""

    mu_max: jax.Array = constant(0.25, unit="1/h", log_sd=0.3)
    K_S: jax.Array = constant(0.5, unit="g/L", log_sd=0.5)
    yield_XS: jax.Array = constant(0.45, unit="g/g", log_sd=0.2)

    def rates(self, state, environment):
        growth = self.mu_max * state["S"] / (self.K_S + state["S"]) * state["X"]
        return {"X": growth, "S": -growth / self.yield_XS}


def one_quantity(cv=0.0, floor=0.1):
    """A batch with one quantity."""
    return Process(
        name="vial",
        volume_L=1.0,
        biomass="X",
        quantities=(Quantity(name="X", unit="g/L", hi=1000.0, cv=cv, floor=floor),),
    )


def vial(mechanism, hours, start=1.0, **noise):
    """A run of one quantity."""
    plant = virtual_plant(one_quantity(**noise), mechanism, rtol=1e-9, atol=1e-12)
    return described_experiment(plant, hours, start=[start])


def chemostat(rtol=1e-6, atol=1e-9, max_steps=256):
    """A Monod chemostat that changes its dilution."""
    plant = virtual_plant(
        MONOD_CHEMOSTAT,
        plain_monod(MONOD_CHEMOSTAT),
        rtol=rtol,
        atol=atol,
        max_steps=max_steps,
    )
    u = np.array([[0.1, 10.0], [0.15, 12.0], [0.2, 8.0], [0.05, 10.0]])
    return described_experiment(
        plant, [0.0, 8.0, 20.0, 32.0, 48.0], controls=u, start={"X": 2.0, "S": 3.0, "P": 0.5}
    )


def fed_batch(rtol=1e-6, atol=1e-9, max_steps=256):
    """A fed-batch with a bolus and a volume that moves, samples taken."""
    plant = virtual_plant(FED, FedYeast(), rtol=rtol, atol=atol, max_steps=max_steps)
    u = np.array([[5.0, 0.0], [10.0, 2.0], [20.0, 0.0]])
    start = {"X": 1.0, "S": 10.0}
    return described_experiment(
        plant, [0.0, 6.0, 15.0, 24.0], controls=u, start=start, sample_L=0.01
    )


def perfusion(rtol=3e-4, recorded=16, days=4):
    """CHO perfusion whose set-points change by the day."""
    u = np.tile([1.0, 0.15, 4.0, 36.5, 850.0, 1.0], (days, 1))
    u[days // 2 :, 0], u[days // 2 :, 3] = 1.5, 36.0
    return cho_experiment(
        virtual_reactor(),
        24.0 * np.arange(days + 1),
        controls=u,
        tolerances=Tolerances(rtol=rtol),
        method=Method(recorded_steps=recorded),
    )
