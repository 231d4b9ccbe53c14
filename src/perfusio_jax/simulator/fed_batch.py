"""The simulated fed-batch campaign on which transfer across products is measured.

Five historic products with many runs each, one novel product with few, and test runs of the
novel one. Ranges, noise and schedule are those of Hutter et al. (2021); their kinetics are
not ours, so the products are clones drawn around the virtual ones of the simulator (other
constants than the prior's, inhibition by ammonium and lactate). Chosen here, because the
paper's simulator is its own:

* growth depends on pH by a bell around an optimum that differs between products;
* stirring of 150-200 rpm is judged relative to 175 rpm;
* the feed holds 400 mmol/L of glucose and 120 mmol/L of glutamine;
* at a sampling time the bolus goes in first, so that a sample shows what the cells meet next.
"""

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from perfusio_jax._core import ConfigError, Key
from perfusio_jax.chemistry import Medium
from perfusio_jax.mechanistic import (
    CHOKinetics,
    GlucosePump,
    Reactor,
    make_plan,
    simulate,
)
from perfusio_jax.simulator.doe import latin_hypercube
from perfusio_jax.simulator.plant import SPREAD, sample_clones, virtual_kinetics

FED_BATCH_SPECIES: Final[tuple[str, ...]] = ("VCD", "Glc", "Gln", "Amm", "Lac", "Titer")
"""Columns of a study run [1e6 cells/mL, mmol/L, mmol/L, mmol/L, mmol/L, mg/L]."""

FED_BATCH_CONTROLS: Final[tuple[str, ...]] = ("temperature", "pH", "stirring")
"""Set-points of a study run [degC, pH, rpm]."""

NOISE_SD: Final[tuple[float, ...]] = (0.02, 0.25, 0.02, 0.02, 0.2, 5.0)
"""Standard deviation of a reading, units of `FED_BATCH_SPECIES` (Hutter et al. 2021)."""

GLUCOSE_G_PER_MMOL: Final[float] = 0.180156
"""Mass of glucose [g/mmol]."""

_PLANT_COLUMNS: Final[tuple[int, ...]] = (0, 3, 4, 7, 6, 9)
_BULK: Final[tuple[float, ...]] = (0.2, 20.0, 3.0, 36.0, 35.0, 6.9, 6.7, 150.0, 1.0, 8.0, 6.0)
_TOP: Final[tuple[float, ...]] = (0.4, 60.0, 8.0, 37.5, 37.0, 7.1, 7.0, 200.0, 3.0, 13.0, 14.0)
CONDITIONS: Final[tuple[str, ...]] = (
    "VCD0",
    "Glc0",
    "Gln0",
    "temperature_start",
    "temperature_end",
    "pH_start",
    "pH_end",
    "stirring",
    "feed_start",
    "feed_end",
    "shift_day",
)
"""What is varied between runs; the last three are whole days [d]."""


Family = Literal["traits", "independent"]
"""How constants vary between products."""

_GROWTH, _METABOLISM, _PRODUCT = 0, 1, 2
_TRAITS: Final[Mapping[str, tuple[int, float]]] = {
    "mu_max": (_GROWTH, 1.0),
    "K_glc": (_GROWTH, -1.0),
    "K_gln": (_GROWTH, -1.0),
    "K_d": (_GROWTH, -1.0),
    "K_T": (_GROWTH, -1.0),
    "k_lysis": (_GROWTH, -1.0),
    "growth_temperature_width": (_GROWTH, 1.0),
    "cells_oxygen": (_GROWTH, 1.0),
    "k_shear": (_GROWTH, -1.0),
    "inhibition_amm": (_GROWTH, -1.0),
    "inhibition_lac": (_GROWTH, -1.0),
    "q_glc_max": (_METABOLISM, 1.0),
    "m_glc": (_METABOLISM, 1.0),
    "Y_lac_glc": (_METABOLISM, 1.0),
    "glc_switch": (_METABOLISM, 1.0),
    "lac_consump_rate": (_METABOLISM, 1.0),
    "q_gln_max": (_METABOLISM, 1.0),
    "m_gln": (_METABOLISM, 1.0),
    "alpha_amm_gln": (_METABOLISM, 1.0),
    "q_mAb_growth": (_PRODUCT, 1.0),
    "q_mAb_nongrowth": (_PRODUCT, 1.0),
}


class FedBatchRuns(NamedTuple):
    """Runs of one or several products; from one sample to the next nothing leaves the vessel."""

    measured: Float[Array, "runs samples K"]
    """Readings; NaN where missing."""
    truth: Float[Array, "runs samples K"]
    """The same without noise; equal to `measured` for real data."""
    controls: Float[Array, "runs samples n_controls"]
    """Set-points from each sample until the next."""
    fed: Float[Array, "runs samples K"]
    """Amounts fed between the sample before and this one [unit of the reading x L]."""
    given: Float[Array, "runs samples K"]
    """Amounts given at once right after each sample, which does not show them yet."""
    volume_before: Float[Array, "runs samples"]
    """Volume with the feed in and the sample not yet taken [L]."""
    volume_after: Float[Array, "runs samples"]
    """Volume after the sample [L]."""
    days: Float[Array, "runs samples"]
    """Time of each sample [d]."""
    product: Int[Array, " runs"]
    """Index of the product."""


class Products(NamedTuple):
    """Constants of the products, one entry per product."""

    kinetics: CHOKinetics
    """Kinetic constants."""
    pH_optimum: Float[Array, " products"]
    """pH at which growth is fastest."""
    pH_width: Float[Array, " products"]
    """Standard deviation of the bell of growth over pH."""


def sample_products(
    key: Key,
    *,
    n_consuming: int = 2,
    n_producing: int = 3,
    spread: ArrayLike = 1.0,
    family: Family = "traits",
) -> Products:
    """Draw the products of a study: historic ones first, the novel one last.

    With `family="independent"` every constant varies by itself, in more directions than a few
    products could ever show. With `"traits"` the constants vary as much, but along three
    directions (growth, metabolism, productivity), besides the lactate switch: the published
    evidence stops rising at vectors of three entries.

    Args:
        key: Random key.
        n_consuming: Historic products that consume lactate; the novel one does too.
        n_producing: Historic products that never do.
        spread: Factor on the spread of the constants between clones [-].
        family: How constants vary between products.

    Returns:
        `n_consuming + n_producing + 1` products.

    Raises:
        ConfigError: If there is no historic product.
    """
    if n_consuming < 0 or n_producing < 0 or n_consuming + n_producing < 1:
        raise ConfigError(
            f"{n_consuming} consuming and {n_producing} producing historic products; at least "
            "one product is needed."
        )
    if family not in ("traits", "independent"):
        raise ConfigError(f"family={family!r}; allowed are 'traits' and 'independent'.")
    consuming, count = n_consuming + 1, n_consuming + n_producing + 1
    eats = np.r_[np.ones(n_consuming), np.zeros(n_producing), 1.0]
    spread = jnp.asarray(spread, float)
    k_family, k_pH, k_width = jax.random.split(key, 3)
    if family == "independent":
        eat, make = jax.random.split(k_family)
        own = sample_clones(eat, consuming, spread=spread, switch_probability=1.0)
        other = sample_clones(make, max(n_producing, 1), spread=spread, switch_probability=0.0)
        order = np.r_[np.arange(n_consuming), consuming + np.arange(n_producing), n_consuming]
        kinetics = jax.tree.map(lambda a, b: jnp.concatenate([a, b])[order], own, other)
        z_pH = jax.random.normal(k_pH, (count,))
        z_width = jax.random.normal(k_width, (count,))
    else:
        traits = jax.random.normal(k_family, (count, 3))
        z_pH = z_width = traits[:, 0]
        kinetics = _by_traits(traits, eats, spread)
    kinetics = eqx.tree_at(lambda k: k.agitation_ref, kinetics, jnp.full((count,), 175.0))
    return Products(
        kinetics=kinetics,
        pH_optimum=7.0 + 0.05 * spread * z_pH,
        pH_width=0.25 * jnp.exp(0.15 * spread * z_width),
    )


def _by_traits(traits: Array, eats: np.ndarray, spread: Array) -> CHOKinetics:
    """Constants of clones X and Y, moved along three traits by the simulator's spreads."""
    x, y = virtual_kinetics("CloneX"), virtual_kinetics("CloneY")
    drawn = {}
    for name, value in x.items():
        base = jnp.where(jnp.asarray(eats) > 0, value, getattr(y, name))
        trait, sign = _TRAITS.get(name, (0, 0.0))
        sd = SPREAD.get(name, 0.0) * spread
        drawn[name] = base * jnp.exp(sign * sd * traits[:, trait] - 0.5 * sd * sd)
    return CHOKinetics(**drawn)


def draw_conditions(key: Key, n_runs: int) -> Float[np.ndarray, "runs 11"]:
    """Latin hypercube over the operating ranges, columns as in `CONDITIONS`.

    Args:
        key: Random key.
        n_runs: Number of runs, at least one.

    Returns:
        Cells at the start [1e6 cells/mL], glucose and glutamine at the start [mmol/L],
        temperature before and after the shift [degC], pH before and after it, stirring [rpm],
        and first day of feeding, last one, and day of the shift, whole numbers [d].

    Raises:
        ConfigError: If `n_runs` is below one.

    Reference:
        Hutter et al. (2021), for the ranges.
    """
    seed = int(jax.random.randint(key, (), 0, np.iinfo(np.int32).max))
    unit = latin_hypercube(n_runs, len(CONDITIONS), seed=seed, optimise=False)
    lo, hi = np.asarray(_BULK), np.asarray(_TOP)
    table = lo[None, :] + unit * (hi - lo)[None, :]
    days = slice(8, 11)
    whole = np.floor(lo[None, days] + unit[:, days] * (hi - lo + 1.0)[None, days])
    table[:, days] = np.minimum(whole, hi[None, days])
    return table


def simulate_fed_batch(
    products: Products,
    product: Int[ArrayLike, " runs"],
    conditions: Float[ArrayLike, "runs 11"],
    *,
    key: Key,
    n_days: int = 14,
    volume_L: float = 0.25,
    feed_L: float = 0.005,
    sample_L: float = 0.005,
    feed_mmol_L: tuple[float, float] = (400.0, 120.0),
    noise: bool = True,
) -> FedBatchRuns:
    """Simulate runs with daily samples and bolus feeds.

    Args:
        products: Constants.
        product: Product of each run.
        conditions: One row per run, columns as in `CONDITIONS`.
        key: Random key of the readings' noise.
        n_days: Length of a run [d].
        volume_L: Volume at the start, before the first sample [L].
        feed_L: Bolus on each day from `feed_start` to `feed_end` [L].
        sample_L: Volume of a sample [L].
        feed_mmol_L: Glucose and glutamine of the feed [mmol/L].
        noise: Whether readings are noisy.

    Returns:
        The runs; row d is the sample of day d.

    Raises:
        ConfigError: If shapes do not fit.
        SimulationError: If a run cannot be integrated.
    """
    index, table = np.asarray(product, int), np.asarray(conditions, float)
    if table.ndim != 2 or table.shape[1] != len(CONDITIONS) or index.shape != table.shape[:1]:
        raise ConfigError(
            f"products of shape {index.shape} and conditions of shape {table.shape}; expected "
            f"(runs,) and (runs, {len(CONDITIONS)})."
        )
    runs, days = len(index), np.arange(n_days + 1)
    late = days[None, :] >= table[:, 10:11]
    controls = np.stack(
        [
            np.where(late, table[:, 4:5], table[:, 3:4]),
            np.where(late, table[:, 6:7], table[:, 5:6]),
            np.broadcast_to(table[:, 7:8], late.shape),
        ],
        axis=-1,
    )
    is_fed = (days[None, :] >= table[:, 8:9]) & (days[None, :] <= table[:, 9:10])
    is_fed &= days[None, :] > 0
    added_L = feed_L * is_fed
    steps = added_L - sample_L
    after = volume_L + np.cumsum(steps, axis=1)
    before = after + sample_L
    fed = np.zeros((runs, n_days + 1, len(FED_BATCH_SPECIES)))
    fed[..., 1], fed[..., 2] = added_L * feed_mmol_L[0], added_L * feed_mmol_L[1]

    concentration = _integrate(products, index, table, controls, fed, before, after)
    truth = concentration[..., jnp.asarray(_PLANT_COLUMNS)]
    truth = truth.at[..., 1].divide(GLUCOSE_G_PER_MMOL)
    measured = truth
    if noise:
        z = jax.random.normal(key, truth.shape)
        measured = truth + jnp.asarray(NOISE_SD)[None, None, :] * z
    return FedBatchRuns(
        measured=measured,
        truth=truth,
        controls=jnp.asarray(controls),
        fed=jnp.asarray(fed),
        given=jnp.zeros(fed.shape),
        volume_before=jnp.asarray(before),
        volume_after=jnp.asarray(after),
        days=jnp.asarray(np.broadcast_to(days.astype(float), (runs, n_days + 1))),
        product=jnp.asarray(index),
    )


def _integrate(
    products: Products,
    index: np.ndarray,
    table: np.ndarray,
    controls: np.ndarray,
    fed: np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
) -> Float[Array, "runs samples 10"]:
    """Concentrations after each day's feed, in the order of the plant."""
    runs, samples = before.shape
    kinetics = jax.tree.map(lambda v: v[index], products.kinetics)
    start = np.zeros((runs, 10))
    start[:, 0] = table[:, 0]
    start[:, 3] = table[:, 1] * GLUCOSE_G_PER_MMOL
    start[:, 4] = table[:, 2]
    start[:, 6] = start[:, 7] = 0.1
    start[:, 5] = 0.1
    set_points = np.zeros((runs, samples - 1, 6))
    set_points[..., 3], set_points[..., 4] = controls[:, :-1, 0], controls[:, :-1, 2]
    # the plan takes samples before boluses; here the bolus comes first, so what is left of it
    # after the sample is what the plan adds
    keep = (after / before)[:, :-1]
    standing = np.concatenate([before[:, :1], after[:, :-2]], axis=1)
    removed = standing * (1.0 - keep)
    bolus = np.zeros((runs, samples - 1, 11))
    bolus[..., 3] = fed[:, :-1, 1] * GLUCOSE_G_PER_MMOL * keep
    bolus[..., 4] = fed[:, :-1, 2] * keep
    bolus[..., 10] = after[:, :-1] - (standing - removed)
    reactor = Reactor(
        kinetics=kinetics,
        medium=Medium(),
        pump=GlucosePump(gain=0.0, limit=0.0),
        mode="fed_batch",
    )
    plan = make_plan(
        reactor,
        jnp.asarray(start),
        jnp.asarray(set_points),
        jnp.full((samples - 1,), 24.0),
        volume_L=before[:, 0],
        removed_L=jnp.asarray(removed),
        bolus=jnp.asarray(bolus),
    )
    optimum, width = (np.asarray(v)[index] for v in products[1:])
    bell = np.exp(-0.5 * ((controls[:, :-1, 1] - optimum[:, None]) / width[:, None]) ** 2)
    inputs = plan.inputs._replace(mu_max=plan.inputs.mu_max * jnp.asarray(bell.T))
    out = simulate(reactor, plan._replace(inputs=inputs))
    # the solution holds the state before each day's events
    arriving = np.concatenate([before[:, :1], after[:, :-1]], axis=1)
    amounts = np.asarray(out.concentrations) * arriving[..., None]
    amounts[..., 3] += fed[..., 1] * GLUCOSE_G_PER_MMOL
    amounts[..., 4] += fed[..., 2]
    return jnp.asarray(amounts / before[..., None])
