"""Cultures made up for tests, and runs of them by an integrator of their own."""

import numpy as np
from scipy.integrate import solve_ivp

from perfusio_jax.gp import FitConfig
from perfusio_jax.hybrid import HybridConfig
from perfusio_jax.process import Control, Process, Quantity, Stream
from perfusio_jax.states import Trajectory

QUICK = HybridConfig(
    n_particles=48, growth=32, fit=FitConfig(n_restarts=1, max_iterations=25, max_rows=96)
)

YEAST = Process(
    name="yeast",
    volume_L=1.0,
    biomass="X",
    quantities=(
        Quantity(name="X", unit="g/L", hi=60.0, cv=0.03, floor=0.05),
        Quantity(name="S", unit="g/L", hi=150.0, cv=0.03, floor=0.2),
        Quantity(name="P", unit="mg/L", hi=90.0, cv=0.04, floor=0.1),
    ),
    controls=(
        Control(
            name="temperature", unit="degC", role="environment", lo=20.0, hi=35.0, default=28.0
        ),
    ),
)
"""A batch of an organism nobody knows."""

CHEMOSTAT = Process(
    name="pond",
    volume_L=2.0,
    biomass="X",
    quantities=(
        Quantity(name="X", unit="g/L", hi=20.0, cv=0.03, floor=0.02),
        Quantity(name="S", unit="g/L", hi=50.0, cv=0.03, floor=0.05),
        Quantity(name="pH", unit="pH", kind="level", lo=3.0, hi=11.0, cv=0.002, floor=0.02),
    ),
    controls=(
        Control(name="dilution", unit="1/h", role="flow", lo=0.0, hi=0.5, default=0.1),
        Control(
            name="feed_S",
            unit="g/L",
            role="composition",
            lo=0.0,
            hi=50.0,
            default=20.0,
            quantity="S",
        ),
    ),
    streams=(
        Stream(name="feed", direction="in", flow="dilution", carries={"S": "feed_S"}),
        Stream(name="outflow", direction="out", flow="rest"),
    ),
)
"""A chemostat with a level beside what flows."""

FED = Process(
    name="fed",
    volume_L=1.0,
    biomass="X",
    quantities=(
        Quantity(name="X", unit="g/L", hi=60.0, cv=0.03, floor=0.05),
        Quantity(name="S", unit="g/L", hi=150.0, cv=0.03, floor=0.2),
    ),
    controls=(
        Control(name="feed_rate", unit="mL/h", role="flow", lo=0.0, hi=50.0, default=10.0),
        Control(name="S_bolus", unit="g", role="bolus", lo=0.0, hi=20.0, default=0.0, quantity="S"),
    ),
    streams=(Stream(name="feed", direction="in", flow="feed_rate", carries={"S": 400.0}),),
)
"""A fed-batch: a volume that moves, and boluses."""


def batch(rng, hours, temperature, start, noise=0.02):
    """A batch of YEAST: growth that slows down with crowding, a product of resting cells."""

    def slope(_, y):
        x, s, _ = np.maximum(y, 0.0)
        mu = 0.2 * s / (2.0 + s) / (1.0 + x / 15.0) * np.exp(-(((temperature - 29) / 5) ** 2))
        return [mu * x, -(mu / 0.4 + 0.01 * s / (1 + s)) * x, (0.5 * mu + 0.01) * x]

    found = solve_ivp(
        slope, (0.0, hours[-1]), start, t_eval=hours, method="LSODA", rtol=1e-8, atol=1e-8
    ).y.T
    seen = np.maximum(found, 0.0) * np.exp(noise * rng.standard_normal(found.shape))
    return seen, found


def batches(n=5, seed=0, noise=0.02):
    """Runs of YEAST, sampled at odd hours, and what was true."""
    rng = np.random.default_rng(seed)
    runs, true = [], []
    for k in range(n):
        hours = np.array([0.0, 6, 12, 18, 24, 30, 36, 48, 54, 60, 84])[: 11 - k % 2]
        temperature = 26.0 + 1.2 * k
        start = [0.3, 30.0 + 15.0 * (k % 4), 0.0]
        values, clean = batch(rng, hours, temperature, start, noise)
        runs.append(
            Trajectory(
                values,
                np.full((hours.size, 1), temperature),
                np.ones(hours.size),
                np.floor(hours / 24).astype(int),
                YEAST.readings,
                YEAST.control_names,
                run_id=f"B{k}",
                times_h=hours,
            )
        )
        true.append(clean)
    return runs, true
