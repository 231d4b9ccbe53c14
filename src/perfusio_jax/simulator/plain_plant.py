"""A described culture without a mechanism of its own: a Monod one with usual constants.

Nobody measured these. They make a culture of the right size that grows, eats and makes products, to
try a table, a model or a campaign on; a culture of one's own needs a mechanism of one's own.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from perfusio_jax._core import ConfigError
from perfusio_jax.mechanistic import Monod
from perfusio_jax.process import REST, Process, dimensions, litres_per_hour
from perfusio_jax.process.parts import is_per_cell

from .doe import latin_hypercube

_FAST = {"mass": 0.4, "cells": 0.04}
"""Largest growth rate of what is weighed, and of what is counted [1/h]."""
_USUAL_LEVEL = 0.25
"""Part of its range that a substrate has where nothing that enters carries any [-]."""
_YIELDS = 0.8
"""Part of its range that the biomass reaches on the most of the substrate that can enter [-]."""
_RETAINED = 10.0
"""How much more of it cells need that are held back, for fresh medium keeps coming [-]."""
_MARGIN = 0.9
"""Part of what comes the other way that may leave beside the stream that keeps the volume [-]."""
_HUNDREDTH = 0.01
"""Pace of what resting cells make, over what of it comes with a unit of biomass [1/h]."""
_INOCULUM = 0.05
"""Part of its range that the biomass starts at [-]."""


def plain_monod(process: Process) -> Monod:
    """A Monod mechanism for a culture.

    Its substrate is the first carried quantity, cells aside, that enters or is given as a bolus,
    else the first there is. Growth is 0.4 1/h at most where biomass is weighed, 0.04 1/h where
    cells are counted, faster where the dilution may be, and slows down with crowding. The most of
    the substrate that can enter makes 80 % of the biomass's range; cells that a filter holds back
    need ten times as much. Everything else that is carried is a product, made with growth and by
    resting cells. An environment in the middle of its range leaves growth alone and moves it by a
    sixth over half of the range. Levels stay where they are.

    Args:
        process: The culture.

    Raises:
        ConfigError: If it names no biomass, or has nothing else that is carried.
    """
    eaten = _substrates(process)
    if process.biomass is None or not eaten:
        lacks = "names no biomass" if process.biomass is None else "has nothing to live on"
        raise ConfigError(
            f"{process.name} {lacks}; a Monod mechanism needs a biomass and a substrate. "
            "Write a mechanism (--mechanism module:Class)."
        )
    if process.strains:
        raise ConfigError(
            f"{process.name} has the strains {', '.join(process.growers)}, and a Monod mechanism "
            "knows one biomass. Write a mechanism (--mechanism module:Class)."
        )
    biomass = process.quantity(process.biomass)
    substrate = eaten[0]
    others = tuple(n for n in process.carried if n not in (process.biomass, substrate))
    is_weighed = dimensions(biomass.unit).get("mass", 0) > 0
    fast = _FAST["mass" if is_weighed else "cells"]
    is_retained = any(s.passes.get(biomass.name, 1.0) == 0.0 for s in process.streams)
    if not is_retained:
        fast = max(fast, 1.2 * _washout(process))
    usual = usual_level(process, substrate)
    per_growth = _most(process, substrate) / (_YIELDS * biomass.hi)
    if is_retained:
        per_growth *= _RETAINED
    acting = tuple(c for c in process.controls if c.role == "environment")
    size = np.array([process.quantity(name).hi / biomass.hi for name in others])
    ones = np.ones(len(others))
    return Monod(
        mu_max=jnp.asarray(fast),
        K_S=jnp.asarray(0.02 * usual),
        K_C=jnp.asarray(usual / biomass.hi),
        decay=jnp.asarray(0.02 * fast),
        a_S=jnp.asarray(per_growth),
        b_S=jnp.asarray(0.02 * per_growth * fast),
        k_S=jnp.asarray(0.01 * usual),
        K_R=jnp.asarray(0.1 * usual),
        a=jnp.asarray(0.2 * ones),
        b=jnp.asarray(0.2 * ones),
        c=jnp.asarray(0.0 * ones),
        e=jnp.asarray(0.15 * np.ones(len(acting))),
        k=jnp.asarray(np.array([0.05 * process.quantity(name).hi for name in others])),
        pace=jnp.asarray(_HUNDREDTH * size),
        size=jnp.asarray(size),
        middle=jnp.asarray(np.array([0.5 * (c.lo + c.hi) for c in acting])),
        spread=jnp.asarray(np.array([0.5 * (c.hi - c.lo) or 1.0 for c in acting])),
        biomass=biomass.name,
        substrate=substrate,
        others=others,
        controls=tuple(c.name for c in acting),
    )


def usual_level(process: Process, name: str) -> float:
    """What a substrate starts at: what enters holds of it, else a quarter of its range."""
    return _level(process, name) or _USUAL_LEVEL * process.quantity(name).hi


def usual_start(process: Process) -> dict[str, float]:
    """Where a culture starts if nobody tells.

    Each at its `start`, where the process says one. Else the biomass at 5 % of its range; a
    substrate at what enters at the start, by the default of its control if one sets it; where
    nothing flows, what boluses bring, else the first carried quantity that is no cells, at a
    quarter of its range; every other concentration at zero. A level in the middle of its range, or
    at the default of a control of its name with `_setpoint` behind it.

    Args:
        process: The culture.

    Returns:
        Value of everything that is carried and of every level.
    """
    eaten = _substrates(process)
    given = [n for c in process.controls for n in c.given if n in eaten]
    is_flowing = any(_level(process, name) > 0.0 for name in process.carried)
    at_usual = [] if is_flowing else given or eaten[:1]
    found: dict[str, float] = {}
    for q in process.quantities:
        if q.kind == "derived":
            continue
        if q.start is not None:
            found[q.name] = q.start
        elif q.kind == "level":
            sought = f"{q.name}_setpoint"
            told = sought in process.control_names
            found[q.name] = process.control(sought).default if told else 0.5 * (q.lo + q.hi)
        elif q.name == process.biomass:
            found[q.name] = _INOCULUM * q.hi
        elif q.name in at_usual:
            found[q.name] = usual_level(process, q.name)
        else:
            found[q.name] = _level(process, q.name)
    return found


def spread_controls(process: Process, n_runs: int, *, seed: int = 0) -> Float[np.ndarray, "runs M"]:
    """Set-points that fill the ranges of all controls, one row per run.

    Where more would leave than enters, or the other way round, what stands against the stream that
    keeps the volume is lowered to nine tenths of what it can be.

    Args:
        process: The culture.
        n_runs: Number of runs.
        seed: Seed of the Latin hypercube.

    Returns:
        One row per run; a control whose range is one value stays there.
    """
    if not process.controls:
        return np.zeros((n_runs, 0))
    return controls_at(process, latin_hypercube(n_runs, len(process.controls), seed=seed))


def controls_at(
    process: Process, parts: Float[np.ndarray, "runs M"]
) -> Float[np.ndarray, "runs M"]:
    """Set-points at points of the unit cube, which the ranges of the controls span.

    What would leave beside the stream that keeps the volume is lowered, as of `spread_controls`.

    Args:
        process: The culture.
        parts: Where in its range each control is, 0 to 1 [-].
    """
    lo, hi = (np.array([getattr(c, side) for c in process.controls]) for side in ("lo", "hi"))
    found = lo + (hi - lo) * parts
    n_runs = len(found)
    closing = process.closing
    if closing is None:
        return found
    flows, same = np.zeros((n_runs, 2)), []
    for stream in process.streams:
        if stream.flow == REST or process.control(stream.flow).role != "flow":
            continue
        k = process.control_names.index(stream.flow)
        is_same = stream.direction == closing.direction
        unit = process.controls[k].unit
        if is_per_cell(unit):  # what it brings follows the cells
            continue
        at = [litres_per_hour(v, process.volume_L, unit, stream.flow) for v in found[:, k]]
        flows[:, int(is_same)] += at
        same += [k] if is_same else []
    against, along = flows.T
    most = np.where(along > 0.0, _MARGIN * against / np.where(along > 0.0, along, 1.0), 1.0)
    found[:, same] *= np.minimum(most, 1.0)[:, None]
    return found


def by_interval(
    process: Process, set_points: Float[np.ndarray, "runs M"], n_intervals: int
) -> Float[np.ndarray, "runs T M"]:
    """Set-points of every interval from those of a whole run.

    A bolus is what is given over the whole run: in equal parts, from the second sample on.

    Args:
        process: The culture.
        set_points: One row per run.
        n_intervals: Intervals of a run; of a single one the bolus comes at the start.
    """
    found = np.repeat(set_points[:, None], n_intervals, axis=1)
    is_given = [control.role == "bolus" for control in process.controls]
    if n_intervals > 1:
        found[:, 0, is_given] = 0.0
        found[:, 1:, is_given] /= n_intervals - 1
    return found


def _substrates(process: Process) -> list[str]:
    """What cells may live on, the likeliest first: what enters, what is given, what is there."""
    cells = {process.biomass, *(name for q in process.quantities for name in q.of)}
    rest = [name for name in process.carried if name not in cells]
    given = {name for c in process.controls for name in c.given}
    return sorted(rest, key=lambda n: (not _level(process, n) > 0.0, n not in given))


def _washout(process: Process) -> float:
    """The fastest that fresh medium may replace what is in the vessel [1/h]."""
    rates = [0.0]
    for stream in process.streams:
        if stream.flow == REST or stream.direction != "in":
            continue
        control = process.control(stream.flow)
        if control.role == "flow" and dimensions(control.unit) == {"time": -1}:
            rates.append(litres_per_hour(control.hi, 1.0, control.unit, control.name))
    return max(rates)


def _most(process: Process, name: str) -> float:
    """The most a feed that does not concentrate can hold of a quantity."""
    for stream in process.streams:
        value = stream.carries.get(name, 0.0)
        if stream.direction == "in" and isinstance(value, str):
            return process.control(value).hi
    return usual_level(process, name)


def _level(process: Process, name: str) -> float:
    """What the feeds that do not concentrate hold of a quantity; 0 if nothing brings it."""
    found = []
    for stream in process.streams:
        if stream.direction != "in" or name not in stream.carries:
            continue
        value = stream.carries[name]
        found.append(process.control(value).default if isinstance(value, str) else value)
    plausible = process.quantity(name).hi
    return min(found, default=0.0) if min(found, default=0.0) <= plausible else 0.0
