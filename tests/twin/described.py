"""A perfusion of cells nobody knew: glucose and lactate in g/L, the bleed as the lever."""

import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax.bed.policy.effort import ROLLOUT_SETTINGS
from perfusio_jax.hybrid import AssayNoise, HybridStateSpaceModel, Vessel
from perfusio_jax.mechanistic import Mechanism, constant
from perfusio_jax.process import Control, Process, Quantity, Stream
from perfusio_jax.twin import GateLimits
from perfusio_jax.twin.decision.cadence import DAILY, Cadence
from perfusio_jax.twin.decision.described_objective import Objective, described_policy

FOREIGN = Process(
    name="foreign",
    volume_L=0.3,
    biomass="VCD",
    quantities=(
        Quantity(name="VCD", unit="1e6 cells/mL", hi=80.0, cv=0.06, floor=0.05),
        Quantity(name="DCD", unit="1e6 cells/mL", hi=80.0, is_measured=False),
        Quantity(
            name="Via", unit="%", kind="derived", hi=100.0, formula="viability", of=("VCD", "DCD")
        ),
        Quantity(name="Glc", unit="g/L", hi=20.0, cv=0.04, floor=0.05),
        Quantity(name="Lac", unit="g/L", hi=10.0, cv=0.05, floor=0.05),
    ),
    controls=(
        Control(name="perfusion_rate", unit="vvd", role="flow", lo=0.5, hi=2.0, default=1.2),
        Control(name="bleed_rate", unit="vvd", role="flow", lo=0.0, hi=0.5, default=0.1),
    ),
    streams=(
        Stream(name="medium", direction="in", flow="perfusion_rate", carries={"Glc": 6.0}),
        Stream(name="bleed", direction="out", flow="bleed_rate"),
        Stream(name="harvest", direction="out", flow="rest", passes={"VCD": 0.0, "DCD": 0.0}),
    ),
)


class Foreign(Mechanism):
    """Growth on glucose, slowed by lactate and crowding; death by lactate."""

    mu_max: jax.Array = constant(0.045, unit="1/h", log_sd=0.3)
    crowding: jax.Array = constant(60.0, unit="1e6 cells/mL", log_sd=0.3)
    poison: jax.Array = constant(6.0, unit="g/L")
    uptake: jax.Array = constant(0.0045, unit="g/1e9 cells/h", log_sd=0.3)

    def rates(self, state, environment):
        x, g, lac = state["VCD"], state["Glc"], state["Lac"]
        eats = g / (g + 0.4)
        mu = self.mu_max * eats / (1.0 + (lac / self.poison) ** 2) / (1.0 + x / self.crowding)
        dies = 0.002 + 0.004 * (lac / 5.0) ** 2
        return {
            "VCD": (mu - dies) * x,
            "DCD": dies * x,
            "Glc": -self.uptake * eats * x,
            "Lac": 0.7 * self.uptake * eats * x,
        }


SMALL = {
    "n_paths": 8,
    "n_scan_paths": 4,
    "search": ROLLOUT_SETTINGS._replace(max_rounds=4, n_restarts=2, n_raw_samples=16),
}
HELD = {"perfusion_rate": 1.2, "bleed_rate": 0.1}


def known_model(dt_hours: float = 24.0) -> HybridStateSpaceModel:
    """A model that knows the plant, up to noise."""
    sd = jnp.asarray([0.002, 0.0005, 0.0003, 0.0003])
    shown = [FOREIGN.quantity(name) for name in ("VCD", "Via", "Glc", "Lac")]
    noise = AssayNoise(
        cv=np.asarray([q.cv for q in shown]), floor=np.asarray([q.floor for q in shown]), via=1
    )
    return HybridStateSpaceModel(
        Vessel(FOREIGN, Foreign(), substeps=8),
        None,
        dt_hours=dt_hours,
        process_sd=sd,
        assay=noise,
    )


def policy_for(model, *goals, cadence: Cadence = DAILY, limits=(), max_change=None, **more):
    """A policy of few paths."""
    gate_limits = GateLimits.from_process(
        model.layout.process, hours=cadence.interval_h, max_change=max_change
    )
    objective = Objective(goals=goals, limits=limits, **more)
    return described_policy(model, objective, gate_limits, cadence=cadence, **SMALL)


def rows(n: int, *, vcd: float = 12.0, every_h: float = 24.0, growth: float = 1.1) -> list[dict]:
    """Samples of a run as the journal holds them."""
    found = []
    for k in range(n):
        hours = k * every_h
        values = {
            "VCD": vcd * growth ** (hours / 24.0),
            "Via": 97.0 - 0.2 * np.sin(k),
            "Glc": 4.0 - 0.05 * k,
            "Lac": 0.8 + 0.05 * k,
        }
        found.append(
            {"day": hours / 24.0, "time_h": hours, "values": values, "controls": dict(HELD)}
        )
    return found
