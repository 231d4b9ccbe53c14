"""Volumetric flows into and out of one reactor, and where they come from."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from perfusio_jax._core import (
    BALANCED,
    CONTROL_NAMES,
    HOURS_PER_DAY,
    STREAM_TOTALS,
    ConfigError,
    DataError,
    expect_last,
)

from .media import Medium, glucose_feed_concentrations, inflow_concentrations
from .pump import GlucosePump
from .species import DEFAULT_SIEVING
from .volumes import as_float, is_concrete

Number = float | Float[Array, "..."]
PumpLaw = Callable[[Array, Array], Array]


class Flows(eqx.Module):
    """Constant flows over one interval, of one reactor or of a batch (leading axes)."""

    supply: Float[Array, "*b K"]
    """What the feeds bring per species, sum of flow times concentration [conc L/h]."""
    inflow: Float[Array, "*b"]
    """All that flows in [L/h]."""
    bleed: Float[Array, "*b"]
    """Unfiltered outflow, cells included [L/h]."""
    harvest: Float[Array, "*b"]
    """Outflow through the cell-retention filter [L/h]."""
    sieving: Float[Array, " K"]
    """Part of each species that passes the filter [-]."""

    def clearance(self) -> Float[Array, "*b K"]:
        """Volume cleared of each species per hour, `bleed + sieving harvest` [L/h]."""
        rank = max(jnp.ndim(self.bleed), jnp.ndim(self.harvest)) + 1
        passing = align(self.sieving, rank) * with_species_axis(self.harvest, rank)
        return with_species_axis(self.bleed, rank) + passing

    def volume_rate(self) -> Float[Array, "*b"]:
        """Rate of change of the volume, `inflow - bleed - harvest` [L/h]."""
        return jnp.asarray(self.inflow) - jnp.asarray(self.bleed) - jnp.asarray(self.harvest)


def align(values: Number, ndim: int) -> Array:
    """`values` with axes of length one in front until it has `ndim` axes.

    NumPy does this silently; under strict rank promotion it is spelled out.
    """
    array = jnp.asarray(values)
    if array.ndim == 0 or array.ndim >= ndim:
        return array
    return array.reshape((1,) * (ndim - array.ndim) + array.shape)


def with_species_axis(value: Number, rank: int) -> Array:
    """A number per reactor, ready to meet arrays of `rank` axes whose last one is species."""
    array = align(as_float(value), rank - 1)
    return array if array.ndim == 0 else array[..., None]


def perfusion_flows(
    u: Float[Array, "*b 6"],
    V: Number,
    glucose_L: Number,
    medium: Medium,
    dt_h: Number,
    sieving: Float[Array, " 9"] | None = None,
) -> Flows:
    """Flows of constant-volume perfusion: the harvest is what bleed leaves of the inflow.

    Args:
        u: Set-points in `CONTROL_NAMES` order.
        V: Working volume [L].
        glucose_L: Concentrated glucose fed during the interval [L].
        medium: Composition of medium and glucose feed.
        dt_h: Length of the interval [h].
        sieving: Coefficients in `BALANCED` order [-]; cells 0, the rest 1 if None.

    Raises:
        ConfigError: If `u` has another width, or known numbers make the bleed exceed the inflow.
    """
    u = as_float(u)
    expect_last(u, CONTROL_NAMES, "u")
    volume = as_float(V)
    perfusion = u[..., CONTROL_NAMES.index("perfusion_rate")] * volume / HOURS_PER_DAY
    bleed = u[..., CONTROL_NAMES.index("bleed_rate")] * volume / HOURS_PER_DAY
    glucose = as_float(glucose_L) / as_float(dt_h)
    inflow = perfusion + glucose
    if is_concrete(bleed, inflow) and np.any(np.asarray(bleed) > np.asarray(inflow)):
        raise ConfigError(
            f"the bleed ({bleed} L/h) exceeds the inflow ({inflow} L/h); at constant volume "
            "bleed_rate can be at most perfusion_rate."
        )
    return _assemble(u, medium, sieving, (perfusion, glucose, bleed, inflow - bleed))


def _assemble(
    u: Array, medium: Medium, sieving: Array | None, streams: tuple[Array, Array, Array, Array]
) -> Flows:
    perfusion, glucose, bleed, harvest = streams
    basal = inflow_concentrations(medium, u[..., CONTROL_NAMES.index("pyruvate_feed")])
    rank = max(perfusion.ndim, glucose.ndim) + 1
    concentrate = align(glucose_feed_concentrations(medium), rank)
    supply = perfusion[..., None] * basal + glucose[..., None] * concentrate
    sigma = jnp.asarray(DEFAULT_SIEVING if sieving is None else sieving, float)
    return Flows(supply, perfusion + glucose, bleed, harvest, sigma)


def glucose_pump_rate(
    glucose: Number, setpoint: Number, *, gain: Number = 5e-3, limit: Number = 1.25e-3
) -> Array:
    """Rate of the concentrated feed per reactor volume [L/h/L], by the law of `GlucosePump`.

    Args:
        glucose: Concentration [g/L].
        setpoint: Target [g/L].
        gain: Rate per g/L below the target [L/h/L per g/L].
        limit: Largest rate [L/h/L]; no rate is negative.

    The defaults are those of `GlucosePump` with a feed of 400 g/L.
    """
    feed = Medium().glucose_feed
    pump = GlucosePump(gain=as_float(gain) * feed, limit=as_float(limit) * feed)
    return pump.flux(as_float(glucose), as_float(setpoint)) / feed


class IntervalFlows(NamedTuple):
    """Flows of the T-1 intervals of a run, and how well they are known."""

    flows: Flows
    """Flows with leading axis T-1, species in `BALANCED` order."""
    dt_h: Float[Array, " T-1"]
    """Lengths [h]."""
    glucose_L: Float[Array, " T-1"]
    """Concentrated glucose fed [L]."""
    is_supply_estimated: Bool[Array, " T-1"]
    """True where no totals were recorded and set-points had to stand in for them."""


def interval_flows(
    trajectory: Any,
    medium: Medium | None = None,
    *,
    sieving: Float[Array, " 9"] | None = None,
    pump: PumpLaw = glucose_pump_rate,
) -> IntervalFlows:
    """Flows between the samples of a recorded run.

    Row `i` of the controls acts on the interval from sample `i` to `i+1`; row `i+1` of the
    stream totals counts what flowed in that interval. Sampled broth leaves like bleed. The
    harvest closes the volume balance. Where a total is missing, the set-point stands in for
    that stream, for the glucose feed the pump law at the mean of the two glucose readings;
    such intervals are flagged. An unrecorded sample volume counts as none.

    Args:
        trajectory: A `Trajectory` (or anything with its fields).
        medium: Medium used in the run; the default one if None.
        sieving: Coefficients in `BALANCED` order [-].
        pump: Law of the glucose feed, `(glucose, setpoint) -> L/h per L`.

    Raises:
        DataError: If there are fewer than two samples, a control is absent, time does not
            advance, or the streams would need a harvest that flows backwards.
    """
    dt_h = interval_lengths(trajectory)
    volume = as_float(trajectory.volume_L)
    names = list(trajectory.control_names)
    absent = [n for n in ("perfusion_rate", "bleed_rate") if n not in names]
    if absent:
        raise DataError(f"controls {absent} are needed for the flows; the run has {names}.")
    u = jnp.stack([_control(trajectory, n) for n in CONTROL_NAMES], axis=-1)
    V0, V1 = volume[:-1], volume[1:]
    perfusion = u[:, CONTROL_NAMES.index("perfusion_rate")] * V0 / HOURS_PER_DAY
    bleed = u[:, CONTROL_NAMES.index("bleed_rate")] * V0 / HOURS_PER_DAY
    glucose = _estimated_glucose(trajectory, u, pump) * V0
    missing = jnp.ones(dt_h.shape, bool)
    totals = getattr(trajectory, "stream_totals", None)
    if totals is not None:
        rate = as_float(totals)[1:] / dt_h[:, None]
        column = {n: rate[:, k] for k, n in enumerate(STREAM_TOTALS)}
        recorded = jnp.stack([column[n] for n in ("V_perfusion_L", "V_glucose_L", "V_bleed_L")])
        is_absent = jnp.isnan(recorded)
        missing = jnp.any(is_absent, axis=0)
        fallback = jnp.stack([perfusion, glucose, bleed])
        perfusion, glucose, bleed = jnp.where(is_absent, fallback, recorded)
        # after the set-point has stood in: a sample that was recorded is drawn either way
        bleed = bleed + jnp.nan_to_num(column["V_sample_L"])
    harvest = perfusion + glucose - bleed - (V1 - V0) / dt_h
    slack = 1e-6 * V0 / HOURS_PER_DAY
    if is_concrete(harvest) and np.any(np.asarray(harvest) < -slack):
        worst = int(np.nanargmin(np.asarray(harvest)))
        raise DataError(
            f"streams and volumes disagree in interval {worst} (from sample {worst}): the harvest "
            f"would be {float(harvest[worst]):.4g} L/h; check totals, bleed and volumes."
        )
    chosen = Medium() if medium is None else medium
    flows = _assemble(u, chosen, sieving, (perfusion, glucose, bleed, harvest))
    return IntervalFlows(flows, dt_h, glucose * dt_h, missing)


def interval_lengths(trajectory: Any) -> Float[Array, " T-1"]:
    """Hours between the samples of a run, from `times_h` if recorded, else from `days`.

    Args:
        trajectory: A `Trajectory`, or anything with `days` (T,) [d] and perhaps `times_h` (T,) [h].

    Returns:
        Lengths [h]. Whether they are above zero is looked at only where the times are known, not
        traced.

    Raises:
        DataError: If there are fewer than two samples or time does not advance.
    """
    times = getattr(trajectory, "times_h", None)
    if times is None:
        times = as_float(trajectory.days) * HOURS_PER_DAY
    times = as_float(times)
    if times.ndim != 1 or times.shape[0] < 2:
        raise DataError(f"rates need at least two samples; times have shape {times.shape}.")
    dt_h = times[1:] - times[:-1]
    if is_concrete(dt_h) and not np.all(np.asarray(dt_h) > 0.0):
        raise DataError(f"sample times must increase strictly; given {np.asarray(times)} h.")
    return dt_h


def _control(trajectory: Any, name: str) -> Array:
    """Set-points of one control over the intervals; zero for a control the run lacks."""
    values = as_float(trajectory.controls)[:-1]
    names = list(trajectory.control_names)
    return values[:, names.index(name)] if name in names else jnp.zeros(values.shape[0])


def _estimated_glucose(trajectory: Any, u: Array, pump: PumpLaw) -> Array:
    """Glucose feed per volume [L/h/L] by the pump law; NaN where no glucose was measured."""
    names = list(trajectory.species_names)
    if "Glc" not in names or "glucose_setpoint" not in trajectory.control_names:
        return jnp.full(u.shape[0], jnp.nan)
    glucose = as_float(trajectory.species)[:, names.index("Glc")]
    pair = jnp.stack([glucose[:-1], glucose[1:]])
    known = ~jnp.isnan(pair)
    mean = jnp.sum(jnp.where(known, pair, 0.0), axis=0) / jnp.sum(known, axis=0)
    return pump(mean, u[:, CONTROL_NAMES.index("glucose_setpoint")])


def columns_of_species(names: list[str]) -> list[int | None]:
    """Balanced column behind each reported species; None where there is none.

    Viability and dead cells both rest on the balance of dead cells; lysed cells are
    balanced without a supply; cell volume and diameter are not carried by a stream.
    """
    alias = {"VCD": "Xv", "Via": "Xd", "DCD": "Xd"}
    found: list[int | None] = []
    for name in names:
        balanced = alias.get(name, name)
        found.append(BALANCED.index(balanced) if balanced in BALANCED else None)
    return found
