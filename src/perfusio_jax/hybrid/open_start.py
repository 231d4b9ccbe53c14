"""A described culture before anything is learned: scales, assays, start, a first mechanism."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from perfusio_jax._core import on_device
from perfusio_jax._core.programs import compiled
from perfusio_jax.gp import MultiTaskRateGP
from perfusio_jax.hybrid.campaign import filled
from perfusio_jax.hybrid.constants import Moved, Rates, fit_constants, rates_at
from perfusio_jax.hybrid.family import CloneFamily
from perfusio_jax.hybrid.layout import Layout
from perfusio_jax.hybrid.model import HybridStateSpaceModel, InitialState
from perfusio_jax.hybrid.observation import AssayNoise, LatentMap, to_states
from perfusio_jax.hybrid.runs import RunArrays
from perfusio_jax.hybrid.smoothing import Smoothed
from perfusio_jax.hybrid.transition import Limits, ResidualBasis
from perfusio_jax.hybrid.vessel import Vessel, substeps_for, total
from perfusio_jax.mechanistic.mechanism import Mechanism
from perfusio_jax.mechanistic.monod import Monod
from perfusio_jax.process.laws import laws_of

_SUGARS = ("glc", "glucose", "s", "substrate", "sugar", "glycerol", "methanol", "sucrose")
"""Names of what cells most often live on."""
_USUAL = 0.9
"""Share of the rates that set their unit: a few outliers must not [-]."""


class Raw(NamedTuple):
    """A campaign before it is smoothed, gaps bridged."""

    states: Float[np.ndarray, "R T K"]
    """States."""
    rates: Float[np.ndarray, "R T1 K"]
    """Rates as the residual has them: growth of the cells [1/h], the others per cell."""
    steps: Float[np.ndarray, "R T1"]
    """Intervals between two rows of a run."""
    basis: ResidualBasis
    """Their unit."""


def open_model(
    vessel: Vessel,
    runs: RunArrays,
    blank: MultiTaskRateGP,
    family: CloneFamily | None,
    *,
    is_plain: bool = False,
) -> HybridStateSpaceModel:
    """Scales, assays and start of a described culture, read off the raw data.

    Args:
        vessel: The culture.
        runs: Its campaign.
        blank: A process that knows nothing.
        family: Clones.
        is_plain: Whether a Monod mechanism is made for it, if its quantities allow for one.

    Returns:
        The model.
    """
    layout, raw = vessel.layout, _raw(vessel, runs)
    mask = np.asarray(runs.mask)
    typical, high = _levels(layout, raw.states, mask)
    latent = LatentMap(np.maximum(0.03 * typical, 0.01 * high), layout)
    first = np.asarray(latent.forward(on_device(raw.states[:, 0])))[mask[:, 0]]
    kinds = [vessel.process.quantity(name) for name in layout.face]
    vessel = Vessel(vessel.process, vessel.kinetics, substeps=_parts(vessel, raw, runs))
    if is_plain:
        vessel = with_monod(vessel, raw, runs)
    if family is not None:
        family = eqx.tree_at(lambda f: f.mech_model, family, vessel)
    return HybridStateSpaceModel(
        vessel,
        blank,
        family,
        dt_hours=float(np.median(np.diff(np.asarray(runs.times_h), axis=1)[raw.steps])),
        basis=raw.basis,
        limits=Limits(cells=1.5 * layout.upper[layout.cells] if layout.cells is not None else 1.0),
        assay=AssayNoise(
            cv=np.asarray([q.cv for q in kinds]),
            floor=np.maximum([q.floor for q in kinds], 0.002 * high),
            via=layout.via,
        ),
        latent=latent,
        initial=InitialState(first.mean(axis=0), np.maximum(1.5 * first.std(axis=0), 0.3)),
        use_mechanism=False,
    )


def _levels(
    layout: Layout, states: np.ndarray, mask: np.ndarray
) -> tuple[Float[np.ndarray, " K"], Float[np.ndarray, " K"]]:
    """Median and ninth decile of every state."""
    inside = states[mask]
    high = np.quantile(inside, 0.9, axis=0)
    return np.median(inside, axis=0), np.maximum(high, 1e-6 * layout.upper)


def _raw(vessel: Vessel, runs: RunArrays) -> Raw:
    """Orders of magnitude straight from gap-filled samples."""
    layout = vessel.layout
    # what nobody reads begins where the process says, if it says
    said = [vessel.process.quantity(name).start for name in layout.face]
    default = np.asarray([1.0 if v is None else v for v in said])
    face = filled(np.asarray(runs.face), np.asarray(runs.times_h), default)
    mask = np.asarray(runs.mask)
    states = np.maximum(np.asarray(to_states(layout, on_device(face))), 0.0)
    _, high = _levels(layout, states, mask)
    growers, n = layout.growers, layout.n
    is_cell = np.isin(np.arange(n), growers)
    per_cell, offset, most_cells = np.zeros(n), np.ones(n), 0.0
    if growers:
        cells = total(states, growers)[mask]
        most_cells = max(float(np.quantile(cells, 0.9)), 1e-6 * layout.upper[growers[0]])
        per_cell = np.where(layout.is_level | is_cell, 0.0, 1.0)
        offset = np.where(per_cell > 0.0, 0.05 * np.median(cells), 1.0)
    steps = mask[:, 1:] & mask[:, :-1]
    hours = np.diff(np.asarray(runs.times_h), axis=1)
    rates = _specific_rates(vessel, runs, states, offset, per_cell)
    size = np.abs(rates[steps])
    usual = np.minimum(size, np.quantile(size, _USUAL, axis=0))
    scale, step_h = np.sqrt(np.mean(usual**2, axis=0)), float(np.median(hours[steps]))
    least = 0.01 * high / (offset + per_cell * most_cells) / step_h
    scale = np.maximum(scale, np.where(is_cell, 0.01 / step_h, least))
    return Raw(states, rates, steps, ResidualBasis(scale, offset, per_cell, 0.02 * high))


@compiled
def _flows(vessel: Vessel, controls: Array, levels: Array) -> tuple[Array, Array, Array]:
    if not vessel.answers:
        return jax.vmap(jax.vmap(vessel.flows))(controls)
    return jax.vmap(jax.vmap(vessel.flows))(controls, levels)


@compiled
def _after_bolus(vessel: Vessel, states: Array, controls: Array) -> Array:
    return jax.vmap(jax.vmap(vessel.after_bolus))(states, controls)


def _specific_rates(
    vessel: Vessel, runs: RunArrays, states: np.ndarray, offset: np.ndarray, per_cell: np.ndarray
) -> np.ndarray:
    """Rates (R, T-1, K) straight from gap-filled samples: orders of magnitude, no more."""
    controls = on_device(np.asarray(runs.controls)[:, :-1])
    between = on_device(0.5 * (states[:, :-1] + states[:, 1:]))
    supply, loss, _ = _flows(vessel, controls, between)
    start = np.asarray(_after_bolus(vessel, on_device(states[:, :-1]), controls))
    end, dt = states[:, 1:], np.diff(np.asarray(runs.times_h), axis=1)[..., None]
    supply, loss = np.asarray(supply), np.asarray(loss)
    change = (end - start) / dt - supply + loss * 0.5 * (start + end)
    growers = vessel.layout.growers
    if not growers:
        return change
    tiny = 1e-3 * total(states, growers).max() + 1e-12
    mean = np.sqrt((total(start, growers) + tiny) * (total(end, growers) + tiny))[..., None]
    rates = change / (offset + per_cell * mean)
    for k in growers:
        tiny = 1e-3 * states[..., k].max() + 1e-12
        growth = np.log((end[..., k] + tiny) / (start[..., k] + tiny)) / dt[..., 0]
        rates[..., k] = growth + loss[..., k]
    return rates


def with_monod(vessel: Vessel, raw: Raw, runs: RunArrays) -> Vessel:
    """The same culture with a Monod mechanism, its constants as the raw rates have them.

    Args:
        vessel: The culture.
        raw: Its campaign before smoothing.
        runs: The same as the filter reads it.

    Returns:
        The vessel as it was where there is no biomass, or several strains, of which a Monod knows
        one, or nothing it could live on.
    """
    layout = vessel.layout
    names = _substrates(vessel, raw)
    if len(layout.growers) != 1 or layout.cells is None or not names:
        return vessel
    _, high = _levels(layout, raw.states, np.asarray(runs.mask))
    x, s = layout.cells, layout.states.index(names[0])
    used = raw.rates[raw.steps]
    growth = used[:, x]
    fast = np.quantile(growth, _USUAL)
    fast = max(float(fast), 1e-4)
    grown = np.clip(growth, 0.0, None).sum()
    eaten = np.clip(-used[:, s], 0.0, None).sum()
    per_growth = max(float(eaten / max(grown, 1e-9)), 1e-6)
    others = tuple(
        name for k, name in enumerate(layout.states) if not layout.is_level[k] and k not in (x, s)
    )
    at = [layout.states.index(name) for name in others]
    acting = tuple(c.name for c in vessel.process.controls if c.role == "environment")
    columns = [layout.controls.index(name) for name in acting]
    values = np.asarray(runs.controls)[:, :-1][raw.steps][:, columns]
    spread = values.std(axis=0) if columns else np.zeros(0)
    none = np.zeros(len(others))
    monod = Monod(
        mu_max=jnp.asarray(1.3 * fast),
        K_S=jnp.asarray(0.02 * high[s]),
        K_C=jnp.asarray(0.3 * high[s] / high[x]),
        decay=jnp.asarray(0.02 * fast),
        a_S=jnp.asarray(per_growth),
        b_S=jnp.asarray(0.05 * per_growth * fast),
        k_S=jnp.asarray(0.01 * high[s]),
        K_R=jnp.asarray(0.1 * high[s]),
        a=jnp.asarray(none),
        b=jnp.asarray(none),
        c=jnp.asarray(none + 0.3),
        e=jnp.asarray(np.zeros(len(acting))),
        k=jnp.asarray(0.05 * high[at]),
        pace=jnp.asarray(np.quantile(np.abs(used[:, at]), _USUAL, axis=0) + 1e-12),
        size=jnp.asarray(high[at] / high[x]),
        middle=jnp.asarray(values.mean(axis=0) if columns else np.zeros(0)),
        spread=jnp.asarray(np.where(spread > 0.0, spread, 1.0)),
        biomass=layout.states[x],
        substrate=names[0],
        others=others,
        controls=acting,
    )
    middle = _middle(layout, raw.states[:, :-1], raw.states[:, 1:])
    scaled = raw.rates / np.asarray(raw.basis.scale)
    data = _as_rates(layout, raw.basis, middle, scaled, np.asarray(runs.controls)[:, :-1])
    found, _ = fit_constants(
        monod, layout, data._replace(is_used=jnp.asarray(raw.steps.reshape(-1))), vessel.volume_L
    )
    return Vessel(vessel.process, found, substeps=vessel.substeps)


def _parts(vessel: Vessel, raw: Raw, runs: RunArrays) -> int:
    """Parts an interval is taken in, by how fast cells grow and are washed out."""
    step_h = float(np.median(np.diff(np.asarray(runs.times_h), axis=1)[raw.steps]))
    controls = on_device(np.asarray(runs.controls)[:, :-1])
    _, loss, _ = _flows(vessel, controls, on_device(raw.states[:, :-1]))
    # what a pump holds comes back by a rate that a part solves exactly
    held = [vessel.layout.states.index(law.quantity) for law in laws_of(vessel.process)]
    moved = np.delete(np.asarray(loss)[raw.steps], held, axis=-1)
    fastest = float(np.quantile(moved.max(axis=-1, initial=0.0), _USUAL))
    growth = raw.rates[raw.steps][:, list(vessel.layout.growers)]
    fastest += max([0.0, *np.quantile(growth, _USUAL, axis=0).tolist()])
    return substeps_for(step_h, fastest)


def _substrates(vessel: Vessel, raw: Raw) -> list[str]:
    """What the cells live on: by its name, else what is taken up most."""
    layout = vessel.layout
    used = raw.rates[raw.steps]
    taken = [
        name
        for k, name in enumerate(layout.states)
        if k not in layout.growers
        and not layout.is_level[k]
        and (layout.pair is None or k != layout.pair[1])
        and used[:, k].mean() < 0.0
    ]
    known = [n for sugar in _SUGARS for n in taken if n.casefold() == sugar]
    rest = sorted(taken, key=lambda n: used[:, layout.states.index(n)].mean())
    return [*known, *(n for n in rest if n not in known)]


def recalibrated(
    model: HybridStateSpaceModel, data: Smoothed, centre: Mechanism | None
) -> tuple[HybridStateSpaceModel, Moved | None]:
    """The model with its mechanism's constants moved towards smoothed rates.

    Args:
        model: The model; its mechanism is part of the smoothed rates.
        data: Smoothed campaign.
        centre: The mechanism with the constants that are their prior's centre.

    Returns:
        The model, and how the constants were moved.
    """
    vessel: Vessel = model.mech_model
    if vessel.kinetics is None or centre is None:
        return model, None
    layout, n = vessel.layout, vessel.layout.n
    inputs = np.asarray(data.inputs)
    middle = _middle(layout, inputs[:, :-1, :n], inputs[:, 1:, :n])
    controls = inputs[:, :-1, n : n + layout.m]
    rows = _as_rates(layout, model.basis, middle, np.asarray(data.targets)[:, :-1], controls)
    half = np.asarray(model.basis.half)
    taken = np.asarray(rows.rates)
    level = middle.reshape(-1, n)
    # an uptake is held back where little is left, as it is in the step
    taken = np.where(taken < 0.0, taken * level / (level + half), taken)
    steps = np.asarray(data.steps)
    is_used = (steps[:, 1:] & steps[:, :-1]).reshape(-1)
    # rows of no account make it as many as raw rates gave: one program searches both
    rows = rows._replace(rates=taken, is_used=is_used)  # pyright: ignore[reportArgumentType]
    rows = jax.tree.map(lambda v: _repeated(v, steps.size - is_used.size), rows)
    rows.is_used[is_used.size :] = False
    rows = jax.device_put(rows)
    own = _own(vessel, rows.states, rows.controls)
    total = rows._replace(rates=own + rows.rates)
    kinetics, moved = fit_constants(centre, layout, total, vessel.volume_L)
    model = eqx.tree_at(lambda m: m.mech_model.kinetics, model, kinetics)
    if model.embedding is not None:
        model = eqx.tree_at(lambda m: m.embedding.mech_model.kinetics, model, kinetics)
    return model, moved


def _repeated(column: Array, n: int) -> np.ndarray:
    """A column whose last row stands n times more."""
    host = np.asarray(column)
    return np.concatenate([host, np.repeat(host[-1:], n, axis=0)])


@compiled
def _rates_of(kinetics: Mechanism, vessel: Vessel, states: Array, controls: Array) -> Array:
    return jax.vmap(lambda c, u: rates_at(kinetics, vessel.layout, c, u, vessel.volume_L))(
        states, controls
    )


def _own(vessel: Vessel, states: Array, controls: Array) -> Array:
    if vessel.kinetics is None:
        return jnp.zeros_like(states)
    return _rates_of(vessel.kinetics, vessel, states, controls)


def _middle(layout: Layout, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """States in the middle of intervals; cells, which grow exponentially, in that sense."""
    middle = 0.5 * (start + end)
    for k in layout.growers:
        middle[..., k] = np.sqrt(start[..., k] * end[..., k])
    return middle


def _as_rates(
    layout: Layout,
    basis: ResidualBasis,
    middle: np.ndarray,
    residual: np.ndarray,
    controls: np.ndarray,
) -> Rates:
    """Residual or raw rates as volumetric ones, flat, with what a unit of them is."""
    n = layout.n
    states = middle.reshape(-1, n)
    scale, offset, per_cell = (np.asarray(v) for v in (basis.scale, basis.offset, basis.per_cell))
    reference = offset + per_cell * np.asarray(total(states, layout.growers))[:, None]
    reference = np.broadcast_to(reference, states.shape).copy()
    for k in layout.growers:
        reference[:, k] = states[:, k]
    unit = scale * reference + 1e-12
    return Rates(
        on_device(states + layout.lower),
        on_device(controls.reshape(states.shape[0], -1)),
        on_device(residual.reshape(-1, n) * unit),
        on_device(unit),
        on_device(np.ones(states.shape[0], bool)),
    )
