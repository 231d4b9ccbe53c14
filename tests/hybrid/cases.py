"""A mechanism small enough for fast compiles, with everything the hybrid asks of one."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import CONTROL_NAMES, STATE_ORDER
from perfusio_jax.chemistry import (
    DEFAULT_SIEVING,
    Medium,
    balance_step,
    from_balanced,
    glucose_pump_rate,
    perfusion_flows,
)
from perfusio_jax.states import Trajectory


class Diameter(NamedTuple):
    diam_base: float = 20.0
    diam_death_coeff: float = 4.0


class ToyMechanism(eqx.Module):
    """Growth, uptake and product in proportion to cells; a few exponential steps a day."""

    growth: jax.Array = eqx.field(converter=jnp.asarray, default=0.015)
    uptake: jax.Array = eqx.field(converter=jnp.asarray, default=0.02)
    medium: Medium = Medium()
    volume_L: jax.Array = eqx.field(converter=jnp.asarray, default=0.25)

    @property
    def kinetics(self):
        return Diameter()

    @property
    def sieving(self):
        return jnp.asarray(DEFAULT_SIEVING)

    def pump_rate(self, glucose, setpoint):
        return glucose_pump_rate(glucose, setpoint)

    def advance(self, c, u, dt_h=24.0):
        h = jnp.asarray(dt_h) / 48  # short against the pump's half-hour
        cold = 1.0 - 0.1 * (37.0 - u[3])

        def body(carry, _):
            c, fed = carry
            have = c[3] / (c[3] + 0.5)
            x = c[0]
            rates = x * jnp.stack(
                [
                    self.growth * cold * have - 0.002 * x / 20.0,
                    0.003 - 0.02 * c[1] / (x + 0.1),
                    -self.uptake * c[2] / (c[2] + 0.1),
                    -0.01 * have,
                    0.0005 * have,
                    0.02 * c[2] / (c[2] + 0.1),
                    0.006 * have,
                    -0.002 * c[7] / (c[7] + 0.2),
                    jnp.asarray(0.5),
                ]
            )
            more = self.pump_rate(c[2], u[2]) * self.volume_L * h
            flows = perfusion_flows(u, self.volume_L, more, self.medium, h, self.sieving)
            after = balance_step(c, rates, self.volume_L, self.volume_L, flows, h)
            return (jnp.maximum(after, 1e-6), fed + more), None

        (after, fed), _ = jax.lax.scan(body, (c, jnp.zeros_like(c[0])), None, length=48)
        return after, fed


START = (2.0, 0.05, 5.0, 6.0, 0.5, 1.0, 0.5, 0.5, 1.0)
LOW = (0.5, 0.05, 3.0, 36.0, 700.0, 0.0)
HIGH = (2.0, 0.3, 7.0, 37.5, 1050.0, 5.0)


def simulate(mech, controls, *, start=START):
    """True balanced states (T+1, 9) and feeds (T+1,) of one run."""

    def body(c, u):
        after, fed = mech.advance(c, u)
        return after, (after, fed)

    first = jnp.asarray(start)
    _, (states, fed) = jax.lax.scan(body, first, controls)
    return jnp.concatenate([first[None], states]), jnp.concatenate([jnp.full(1, jnp.nan), fed])


def campaign(mech, n_runs=5, n_days=9, *, seed=0, missing=0.05):
    """Noisy trajectories of the mechanism, and their true balanced states."""
    rng = np.random.default_rng(seed)
    plans = rng.uniform(LOW, HIGH, (n_runs, 6))
    plans = np.repeat(plans[:, None, :], n_days, axis=1)
    states, fed = jax.jit(jax.vmap(lambda u: simulate(mech, u)))(jnp.asarray(plans))
    face = np.asarray(from_balanced(states))
    noisy = face * np.exp(0.05 * rng.normal(size=face.shape))
    noisy[..., 1] = np.clip(face[..., 1] + 0.4 * rng.normal(size=face.shape[:2]), 50.0, 100.0)
    noisy[rng.random(noisy.shape) < missing] = np.nan
    runs = []
    for i in range(n_runs):
        totals = np.full((n_days + 1, 4), np.nan)
        totals[:, 2] = np.asarray(fed[i])
        runs.append(
            Trajectory(
                noisy[i],
                np.vstack([plans[i], plans[i][-1:]]),
                np.full(n_days + 1, 0.25),
                np.arange(n_days + 1),
                STATE_ORDER,
                CONTROL_NAMES,
                run_id=f"R{i}",
                stream_totals=totals,
            )
        )
    return runs, np.asarray(states)
