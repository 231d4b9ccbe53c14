"""Random runs over the default design space, and the plant written a second time in NumPy."""

import math

import jax.numpy as jnp
import numpy as np
from scipy.integrate import solve_ivp

from perfusio_jax.chemistry import Medium
from perfusio_jax.mechanistic import GlucosePump, clone_x, clone_y, stack

LOWER = np.array([0.5, 0.05, 2.0, 35.0, 700.0, 0.0])
UPPER = np.array([2.0, 0.30, 8.0, 37.5, 1050.0, 5.0])
START = np.array([2.0, 0.03, 0.0, 6.0, 6.0, 0.5, 1.0, 0.5, 0.5, 0.0])
"""Plant state after inoculation, `PLANT_SPECIES` order."""

RANGES = np.array([60.0, 10.0, 20.0, 10.0, 8.0, 2.0, 60.0, 10.0, 5.0, 2000.0])
"""About the range of each species, for errors relative to max(|y|, 1e-3 range)."""


def random_controls(seed, shape):
    rng = np.random.default_rng(seed)
    return LOWER + (UPPER - LOWER) * rng.random((*shape, 6))


def random_starts(seed, runs):
    rng = np.random.default_rng(seed)
    return START * np.exp(0.3 * rng.standard_normal((runs, 10)))


def both_clones(runs):
    """Kinetics with one entry per run: X and Y in turn."""
    return stack([clone_x() if i % 2 == 0 else clone_y() for i in range(runs)])


def relative_error(y, reference):
    """max |y - y*| / max(|y*|, 1e-3 range of the species)."""
    scale = np.maximum(np.abs(reference), 1e-3 * RANGES)
    return float(np.max(np.abs(np.asarray(y) - reference) / scale))


def plain_constants(kinetics):
    return {name: float(value) for name, value in kinetics.items()}


def plain_field(c, u, k, medium, pump):
    """Right-hand side of constant-volume perfusion in concentrations, from the equations."""
    Xv, Xd, _, glc, gln, glu, lac, amm, pyr, _ = c
    perfusion, bleed, setpoint, temperature, agitation, pyruvate = u

    def monod(s, K):
        return s / (K + abs(s))

    speed = agitation / k["agitation_ref"]
    bell = math.exp(-0.5 * ((temperature - k["T_ref"]) / k["growth_temperature_width"]) ** 2)
    oxygen = 1.0 / (1.0 + (Xv / (k["cells_oxygen"] * speed**3)) ** 4)
    inhibited = (1 + (k["inhibition_amm"] * amm) ** 2) * (1 + (k["inhibition_lac"] * lac) ** 2)
    mu = k["mu_max"] * bell * oxygen * monod(glc, k["K_glc"]) * monod(gln, k["K_gln"]) / inhibited
    death = max(k["K_d"] + k["K_T"] * (temperature - k["T_ref"]), 0.0)
    death += k["k_shear"] * speed**8 + k["k_starve"] * (1.0 - oxygen)
    cells = 1e9 * Xv
    maintenance = monod(glc, k["K_glc_maintenance"])
    q_glc = cells * (k["q_glc_max"] * mu / k["mu_max"] + k["m_glc"] * maintenance)
    maintenance = monod(gln, k["K_gln_maintenance"])
    q_gln = cells * (k["q_gln_max"] * mu / k["mu_max"] + k["m_gln"] * maintenance)
    switch = (k["glc_switch"] - glc) / k["glc_switch_width"]
    thrown = k["consumes_lactate"] / (1.0 + math.exp(-switch))
    made = k["Y_lac_glc"] * q_glc * 1000.0 / 180.156 * (1.0 - thrown)
    eaten = thrown * k["lac_consump_rate"] * cells * monod(lac, k["K_lac"])
    scavenged = k["k_pyr_amm"] * pyr * amm
    glu_uptake = k["q_glu_max"] * cells * monod(glu, k["K_glu"])
    product = cells * (k["q_mAb_growth"] * mu + k["q_mAb_nongrowth"])

    def ramp(z):
        return 0.5 * (z + math.hypot(z, float(pump.rounding)))

    demand = float(pump.gain) * (setpoint - glc)
    glucose_flux = ramp(demand) - ramp(demand - float(pump.limit))
    D, b = perfusion / 24.0, bleed / 24.0
    out = D + glucose_flux / float(medium.glucose_feed)  # every small molecule leaves with it
    return [
        (mu - death - b) * Xv,
        death * Xv - (k["k_lysis"] + b) * Xd,
        k["k_lysis"] * Xd - b * c[2],
        D * float(medium.glucose) + glucose_flux - out * glc - q_glc,
        D * float(medium.glutamine) - out * gln - q_gln,
        D * float(medium.glutamate) - out * glu + k["Y_glu_gln"] * q_gln - glu_uptake,
        D * float(medium.lactate) - out * lac + made - eaten,
        D * float(medium.ammonium) - out * amm + k["alpha_amm_gln"] * q_gln - scavenged,
        D * (float(medium.pyruvate) + pyruvate) - out * pyr - scavenged,
        product - out * c[9],
    ]


def radau(start, controls_by_day, kinetics, tolerance=1e-10):
    """SciPy's Radau on the NumPy plant, day by day where the set-points change."""
    k, medium, pump = plain_constants(kinetics), Medium(), GlucosePump()
    rows = [np.asarray(start, float)]
    days = np.asarray(controls_by_day)
    first = 0
    while first < len(days):
        last = first
        while last + 1 < len(days) and np.array_equal(days[last + 1], days[first]):
            last += 1
        u = days[first].tolist()
        out = solve_ivp(
            lambda t, y, u=u: plain_field(y.tolist(), u, k, medium, pump),
            (0.0, 24.0 * (last - first + 1)),
            rows[-1],
            method="Radau",
            t_eval=24.0 * np.arange(1, last - first + 2),
            rtol=tolerance,
            atol=tolerance,
        )
        if not out.success:
            raise RuntimeError(out.message)
        rows.extend(out.y.T)
        first = last + 1
    return np.stack(rows)


def as_jax(*arrays):
    return tuple(jnp.asarray(a) for a in arrays)
