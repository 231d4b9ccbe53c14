"""The virtual plant, pure: what really happens in the reactor of a demo or a test.

The plant is on purpose not the prior of the hybrid model. Its clones grow, eat and die with
other constants than `CHOKinetics()`, and growth is inhibited by ammonium and lactate, a
mechanism the prior does not have. A hybrid that is given the truth would prove nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from perfusio_jax._core import (
    CONTROL_NAMES,
    FORECAST_SPECIES,
    HOURS_PER_DAY,
    STATE_ORDER,
    ConfigError,
    Key,
)
from perfusio_jax.chemistry import cell_volume_fraction, to_balanced, viability
from perfusio_jax.mechanistic import (
    CHOKinetics,
    Method,
    Reactor,
    RunSolution,
    balanced_to_plant,
    make_plan,
    simulate,
)
from perfusio_jax.simulator.doe import box_behnken, latin_hypercube, scale_to_bounds
from perfusio_jax.simulator.noise import NoiseModel, jitter_times
from perfusio_jax.states import Trajectory

DEFAULT_Y0: Final[Mapping[str, float]] = {
    "VCD": 2.0,
    "Via": 98.5,
    "Glc": 6.0,
    "Gln": 6.0,
    "Glu": 0.5,
    "Lac": 1.0,
    "Amm": 0.5,
    "Pyr": 0.5,
    "Titer": 0.0,
}
"""State after inoculation, measured face in registry units."""

# Ratio of the virtual clone's constants to the prior's, and the structural difference.
_TRUTH: Final[Mapping[str, Mapping[str, float]]] = {
    "CloneX": {
        "mu_max": 1.12,
        "q_glc_max": 1.25,
        "m_glc": 0.9,
        "q_gln_max": 0.85,
        "m_gln": 1.15,
        "Y_lac_glc": 0.85,
        "K_d": 0.9,
        "q_mAb_nongrowth": 0.8,
        "cells_oxygen": 1.15,
        "k_lysis": 1.1,
        "diam_base": 0.985,
    },
    "CloneY": {
        "mu_max": 0.92,
        "q_glc_max": 1.1,
        "m_glc": 1.2,
        "q_gln_max": 1.1,
        "m_gln": 0.9,
        "Y_lac_glc": 1.05,
        "K_d": 1.1,
        "q_mAb_nongrowth": 1.2,
        "cells_oxygen": 0.9,
        "k_lysis": 0.9,
        "diam_base": 1.02,
    },
}
_INHIBITION: Final[Mapping[str, float]] = {"inhibition_amm": 1 / 9.0, "inhibition_lac": 1 / 70.0}

VIRTUAL_CLONES: Final[tuple[str, ...]] = tuple(_TRUTH)
"""Names of the virtual clones; CloneX has the lactate switch, CloneY does not."""

SPREAD: Final[Mapping[str, float]] = {
    "mu_max": 0.12,
    "K_glc": 0.2,
    "K_gln": 0.2,
    "q_glc_max": 0.2,
    "m_glc": 0.2,
    "Y_lac_glc": 0.15,
    "glc_switch": 0.15,
    "lac_consump_rate": 0.3,
    "q_gln_max": 0.15,
    "m_gln": 0.15,
    "K_d": 0.15,
    "K_T": 0.15,
    "q_mAb_growth": 0.3,
    "q_mAb_nongrowth": 0.25,
    "alpha_amm_gln": 0.08,
    "k_pyr_amm": 0.3,
    "diam_base": 0.03,
    "growth_temperature_width": 0.1,
    "k_lysis": 0.15,
    "k_shear": 0.3,
    "cells_oxygen": 0.15,
    "inhibition_amm": 0.25,
    "inhibition_lac": 0.25,
}
"""Log-standard deviation of each constant between clones of a family [-]."""


def virtual_kinetics(clone: str) -> CHOKinetics:
    """True constants of a virtual clone.

    Args:
        clone: `"CloneX"` or `"CloneY"`.

    Returns:
        Constants; they differ from the prior's in value and structure.

    Raises:
        ConfigError: If there is no such clone.
    """
    if clone not in _TRUTH:
        raise ConfigError(f"virtual clone {clone!r} is unknown; choose from {VIRTUAL_CLONES}.")
    prior = CHOKinetics()
    changed = {name: getattr(prior, name) * factor for name, factor in _TRUTH[clone].items()}
    return CHOKinetics(**changed, **_INHIBITION, consumes_lactate=float(clone == "CloneX"))


def sample_clones(
    key: Key, n: int, *, spread: ArrayLike = 1.0, switch_probability: float = 0.5
) -> CHOKinetics:
    """Draw a family of clones around the virtual ones, for transfer and robustness studies.

    Each clone starts from X or Y and multiplies its constants by lognormal factors.

    Args:
        key: Random key.
        n: Number of clones.
        spread: Factor on the log-standard deviations `SPREAD` [-].
        switch_probability: Chance that a clone has the lactate switch [-].

    Returns:
        Constants with shape (n,) in every field.
    """
    if n < 1:
        raise ConfigError(f"sample_clones was asked for {n} clones; at least one is needed.")
    switch_key, factor_key = jax.random.split(key)
    switches = jax.random.bernoulli(switch_key, switch_probability, (n,))
    x, y = virtual_kinetics("CloneX"), virtual_kinetics("CloneY")
    drawn = {}
    for index, (name, value) in enumerate(x.items()):
        base = jnp.where(switches, value, getattr(y, name))
        z = jax.random.normal(jax.random.fold_in(factor_key, index), (n,))
        sd = SPREAD.get(name, 0.0) * jnp.asarray(spread, float)
        drawn[name] = base * jnp.exp(sd * z - 0.5 * sd * sd)
    return CHOKinetics(**drawn)


def virtual_reactor(clone: str | CHOKinetics = "CloneX") -> Reactor:
    """Reactor with a virtual clone and the default medium, pump and filter.

    Args:
        clone: `"CloneX"` or `"CloneY"`, or constants, as `sample_clones` draws them.

    Raises:
        ConfigError: If there is no clone of that name.
    """
    return Reactor(kinetics=virtual_kinetics(clone) if isinstance(clone, str) else clone)


def initial_state(y0: Mapping[str, float] | None = None) -> Float[Array, " 10"]:
    """Plant state from a measured face.

    Args:
        y0: Values by species; those not given take `DEFAULT_Y0`.

    Returns:
        Concentrations in `PLANT_SPECIES` order, without lysed cells.

    Raises:
        ConfigError: If a species is unknown or a value is negative or not finite.
    """
    given = dict(y0 or {})
    unknown = sorted(set(given) - set(STATE_ORDER))
    if unknown:
        raise ConfigError(f"y0 names unknown species {unknown}; allowed are {list(STATE_ORDER)}.")
    values = {**DEFAULT_Y0, **{k: float(v) for k, v in given.items()}}
    wrong = {k: v for k, v in values.items() if not (np.isfinite(v) and v >= 0)}
    if wrong or not 0 < values["Via"] <= 100:
        raise ConfigError(f"y0 must be finite, >= 0, and viability in (0, 100]; given {values}.")
    face = jnp.asarray([values[s] for s in STATE_ORDER])
    return balanced_to_plant(to_balanced(face))


def observe(
    kinetics: CHOKinetics, concentrations: Float[Array, "*batch 10"]
) -> Float[Array, "*batch 13"]:
    """Noise-free readings of the thirteen registry species.

    Args:
        kinetics: True constants; the diameter depends on the clone.
        concentrations: Plant states.

    Returns:
        VCD, VCV, Via, Diam, Glc, Gln, Glu, Lac, Amm, Pyr, Titer, DCD, Lys.
    """
    Xv, Xd, Xl, glc, gln, glu, lac, amm, pyr, mab = (concentrations[..., k] for k in range(10))
    via = viability(Xv, Xd)
    extra = concentrations.ndim - 2
    base, slope = (
        v.reshape((*v.shape, *(1,) * extra)) if v.ndim else v
        for v in (kinetics.diam_base, kinetics.diam_death_coeff)
    )
    diameter = base + slope * (1.0 - via / 100.0)
    vcv = cell_volume_fraction(Xv, diameter)
    return jnp.stack([Xv, vcv, via, diameter, glc, gln, glu, lac, amm, pyr, mab, Xd, Xl], axis=-1)


def whole_intervals(n_days: int, interval_h: float) -> int:
    """How many sampling intervals a run has.

    Args:
        n_days: Length of the run [d].
        interval_h: Time between samples [h].

    Raises:
        ConfigError: If the run is no whole number of them.
    """
    total = HOURS_PER_DAY * n_days
    count = round(total / interval_h) if interval_h > 0.0 else 0
    if count < 1 or abs(count * interval_h - total) > 1e-6 * total:
        raise ConfigError(
            f"samples every {interval_h:g} h: {n_days} d are {total:g} h, which is no whole number "
            "of such intervals. Choose another interval (24, 12, 8, 48, ...) or length."
        )
    return count


class Readings(NamedTuple):
    """A simulated campaign: what is true and what was measured."""

    truth: Float[Array, "runs samples 13"]
    """Noise-free readings of the registry species."""
    measured: Float[Array, "runs samples 12"]
    """Noisy readings in `FORECAST_SPECIES` order; NaN where missing."""
    times_h: Float[Array, "runs samples"]
    """Sampling times [h]."""
    controls: Float[Array, "runs samples 6"]
    """Set-points from each sample on."""
    stream_totals: Float[Array, "runs samples 4"]
    """Volumes since the previous sample [L]: perfusion, bleed, glucose, sample."""
    volume_L: Float[Array, "runs samples"]
    """Working volume [L]."""
    result: Array
    """Result code per run."""


def simulate_campaign(
    reactor: Reactor,
    initial: Float[Array, "runs 10"],
    controls: Float[Array, "runs intervals 6"],
    noise: NoiseModel,
    *,
    key: Key,
    volume_L: ArrayLike = 0.25,
    interval_h: ArrayLike = HOURS_PER_DAY,
) -> Readings:
    """Run many virtual reactors and sample them, daily unless told otherwise.

    Args:
        reactor: True plant; kinetic constants scalar or one per run.
        initial: Plant states at inoculation.
        controls: Set-points from sample d to sample d + 1 in row d.
        noise: Assay noise, missing values and jitter of the sampling time.
        key: Random key; runs draw independently.
        volume_L: Working volume [L].
        interval_h: Time between samples [h], one for all or one for each interval, such as
            24, 24, 24, 24, 72 where nobody samples at weekends.

    Returns:
        Truth and measurements; row d holds the d-th sample and the set-points after it.

    Raises:
        ConfigError: If an interval is not above twice the jitter, so that samples could change
            places, or there are not as many as rows of controls.
        SimulationError: If a run cannot be integrated.
    """
    runs, count = controls.shape[:2]
    jitter_key, noise_key = jax.random.split(key)
    apart = np.asarray(interval_h, float)
    shortest = 2.0 * noise.jitter_hours
    if apart.shape not in ((), (count,)) or not np.all(np.isfinite(apart) & (apart > shortest)):
        raise ConfigError(
            f"interval_h={interval_h!r}; needed is one number, or {count}, above {shortest:g} h, "
            "twice the jitter of the sampling time (noise.jitter_hours)."
        )
    due = np.concatenate([np.zeros(1), np.cumsum(np.broadcast_to(apart, (count,)))])
    nominal = jnp.broadcast_to(jnp.asarray(due), (runs, count + 1))
    times = jitter_times(nominal, noise.jitter_hours, key=jitter_key)
    times = times.at[:, 0].set(0.0)
    plan = make_plan(reactor, initial, controls, jnp.diff(times, axis=1), volume_L=volume_L)
    out: RunSolution = simulate(reactor, plan, method=Method(totals="streams"))
    truth = observe(reactor.kinetics, out.concentrations)
    measured = _measure(noise, truth[..., :12], noise_key)
    perfusion, bleed, glucose, _ = jnp.moveaxis(jnp.diff(out.totals, axis=1), -1, 0)
    since = jnp.stack([perfusion, bleed, glucose, jnp.zeros_like(bleed)], axis=-1)
    totals = jnp.concatenate([jnp.full_like(since[:, :1], jnp.nan), since], axis=1)
    after = jnp.concatenate([controls, controls[:, -1:]], axis=1)
    return Readings(truth, measured, times, after, totals, out.volume_L, out.result)


def _measure(noise: NoiseModel, truth: Array, key: Key) -> Array:
    """Noise on every reading; VCV and DCD follow from the noisy readings they are made of."""
    noisy = noise.observe(truth, FORECAST_SPECIES, key=key)
    column = FORECAST_SPECIES.index
    vcd, via, diameter = (noisy[..., column(s)] for s in ("VCD", "Via", "Diam"))
    noisy = noisy.at[..., column("VCV")].set(cell_volume_fraction(vcd, diameter))
    return noisy.at[..., column("DCD")].set(vcd * (100.0 / via - 1.0))


def to_trajectories(
    readings: Readings,
    *,
    clone_ids: Sequence[str],
    run_ids: Sequence[str] | None = None,
    truth: bool = False,
) -> list[Trajectory]:
    """Package a simulated campaign as trajectories.

    Args:
        readings: From `simulate_campaign`.
        clone_ids: Clone per run.
        run_ids: Id per run; `RUN001` and so on by default.
        truth: Whether to take the noise-free values.

    Returns:
        One trajectory per run, twelve species each.
    """
    runs = readings.measured.shape[0]
    if len(clone_ids) != runs or (run_ids is not None and len(run_ids) != runs):
        raise ConfigError(f"{runs} runs need {runs} clone ids and run ids.")
    ids = [f"RUN{i + 1:03d}" for i in range(runs)] if run_ids is None else list(run_ids)
    values = readings.truth[..., :12] if truth else readings.measured
    times = np.asarray(readings.times_h, float)
    return [
        Trajectory(
            species=values[i],
            controls=readings.controls[i],
            volume_L=readings.volume_L[i],
            days=np.floor(times[i] / HOURS_PER_DAY + 0.5).astype(int),
            species_names=FORECAST_SPECIES,
            control_names=CONTROL_NAMES,
            run_id=ids[i],
            clone_id=clone_ids[i],
            reactor_id=f"R{i % 24 + 1:02d}",
            times_h=readings.times_h[i],
            stream_totals=readings.stream_totals[i],
        )
        for i in range(runs)
    ]


FACTORS: Final[Mapping[str, tuple[float, float]]] = {
    "perfusion_rate": (0.5, 2.0),
    "bleed_rate": (0.05, 0.30),
    "temperature": (35.0, 37.5),
    "glucose_setpoint": (2.0, 8.0),
}
"""The four Box-Behnken factors over the whole default design space."""

SPREAD_FACTORS: Final[Mapping[str, tuple[float, float]]] = {
    "agitation": (700.0, 1050.0),
    "pyruvate_feed": (0.0, 5.0),
}
"""The two factors a Latin hypercube spreads over the same runs."""

PUBLISHED_FACTORS: Final[Mapping[str, tuple[float, float]]] = {
    "perfusion_rate": (0.5, 1.5),
    "bleed_rate": (0.10, 0.20),
    "temperature": (36.5, 37.5),
    "glucose_setpoint": (4.0, 6.0),
}
"""Factor ranges of Gadiyar et al. (2026), section 3.3."""


def campaign_design(
    *, seed: int = 0, factors: Mapping[str, tuple[float, float]] = FACTORS, spread: bool = True
) -> Float[np.ndarray, "27 6"]:
    """Set-points of the 24+3-run campaign.

    Box-Behnken in four controls with three centre points; agitation and pyruvate either follow
    a Latin hypercube over the runs or stay at the middle of their ranges.

    Args:
        seed: Seed of the Latin hypercube.
        factors: Ranges of the four factors.
        spread: Whether to vary agitation and pyruvate.

    Returns:
        One row per run in `CONTROL_NAMES` order.
    """
    coded = box_behnken(len(factors), center_points=3)
    lo, hi = np.array(list(factors.values())).T
    main = scale_to_bounds(coded, lo, hi)
    low, high = np.array(list(SPREAD_FACTORS.values())).T
    if spread:
        other = scale_to_bounds(
            latin_hypercube(len(main), len(SPREAD_FACTORS), seed=seed), low, high, normalised=False
        )
    else:
        other = np.broadcast_to(0.5 * (low + high), (len(main), len(low)))
    table = np.concatenate([main, other], axis=1)
    names = [*factors, *SPREAD_FACTORS]
    return table[:, [names.index(n) for n in CONTROL_NAMES]]


def rack(clones: Sequence[str], *, key: Key, spread: ArrayLike = 0.0) -> tuple[Reactor, list[Key]]:
    """A rack of virtual reactors with independent keys.

    Args:
        clones: Virtual clone per vessel, one to 24.
        key: Random key.
        spread: Vessel-to-vessel variation of the constants, as a part of `SPREAD` [-].

    Returns:
        A reactor whose kinetic constants have one entry per vessel, and a noise key each.

    Raises:
        ConfigError: If there are no vessels or more than 24, or a clone is unknown.
    """
    if not 1 <= len(clones) <= 24:
        raise ConfigError(f"a rack has 1 to 24 reactors; {len(clones)} were asked for.")
    sets = [virtual_kinetics(c) for c in clones]
    stacked = jax.tree.map(lambda *v: jnp.stack(v), *sets)
    variation, noise = jax.random.split(key)
    varied = {}
    for index, (name, value) in enumerate(stacked.items()):
        z = jax.random.normal(jax.random.fold_in(variation, index), value.shape)
        varied[name] = value * jnp.exp(SPREAD.get(name, 0.0) * jnp.asarray(spread, float) * z)
    reactor = eqx.tree_at(lambda r: r.kinetics, Reactor(), CHOKinetics(**varied))
    return reactor, list(jax.random.split(noise, len(clones)))
