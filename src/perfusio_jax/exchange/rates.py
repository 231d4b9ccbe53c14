"""A run as formulas: states, what moves them, what can be read, and what is set when.

Everything is traced from the functions that the plant itself is run by, so that what goes out is
what is computed here. Constants, feeds and starts stay names with a value and a unit; so do the
set-points, which change at the beginning of intervals.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from perfusio_jax._core import ConfigError
from perfusio_jax._core.precision import require_x64
from perfusio_jax._core.units import canonical_unit
from perfusio_jax.mechanistic import PLANT_SPECIES, day_inputs
from perfusio_jax.mechanistic.vector_field import fluxes, vector_field
from perfusio_jax.process import Process
from perfusio_jax.simulator import observe
from perfusio_jax.simulator.virtual_runs import readings_of_states
from perfusio_jax.study import CHOExperiment, DescribedExperiment, Experiment, Lever

from .formulas import Book, Formula, Written, written
from .tracing import Tracer

VESSEL = "vessel"
"""Name of the volume in formulas."""
AGE = "interval_middle"
"""Name of the time in the middle of an interval, which a filter that fouls goes by."""
_STREAMS = ("perfusion", "bleed", "glucose", "harvest")


class Held(NamedTuple):
    """One state."""

    name: str
    """Name of its concentration or level in formulas."""
    unit: str
    """Unit of the concentration or level."""
    is_carried: bool
    """Whether its amount is what moves; else its level is."""
    start: float
    """Where it starts [its unit]."""


class Constant(NamedTuple):
    """A number with a name."""

    name: str
    """Its name in formulas."""
    lever: str
    """Its name here."""
    unit: str
    value: float
    log_sd: float | None = None
    """Prior standard deviation of its logarithm [-]."""
    sd: float | None = None
    """Prior standard deviation [its unit]."""


class Steered(NamedTuple):
    """A set-point by interval."""

    name: str
    unit: str
    values: Float[np.ndarray, " T"]
    is_constant: bool
    """Whether one number says it: it does not change within the run."""


class Shown(NamedTuple):
    """What can be read."""

    name: str
    """Name in formulas."""
    column: str
    """Name here."""
    unit: str


class RateModel(NamedTuple):
    """A run as formulas; make it with `rate_model`."""

    name: str
    process: Process | None
    """The culture, of a described one."""
    book: Book
    held: tuple[Held, ...]
    constants: tuple[Constant, ...]
    steered: tuple[Steered, ...]
    shown: tuple[Shown, ...]
    hours: Float[np.ndarray, " T+1"]
    """Times of the samples [h]."""
    volume_L: float
    """Volume at the start, sample taken [L]."""
    is_moving: bool
    """Whether the volume moves by streams."""
    text: Written
    """Formulas: `slope_X` of each state (per volume, of what is carried), `rate_X` of what the
    mechanism makes, `flow_S` of each stream [L/h], `swelling` of the volume [L/h], and what is
    shown."""
    bolus: Float[np.ndarray, "n M"]
    """What one unit of each control adds at the start of its interval [amount]."""
    bolus_L: Float[np.ndarray, " M"]
    """Volume that comes with it [L]."""
    sample_L: float
    """Volume that every sample takes and nothing makes up for [L]."""

    @property
    def has_jumps(self) -> bool:
        """Whether boluses or samples change the state."""
        given = np.stack([c.values for c in self.steered]) if self.steered else np.zeros((0, 1))
        acts = np.any(self.bolus != 0.0, axis=0) | (self.bolus_L != 0.0)
        return bool(self.sample_L) or bool(np.any(given[: acts.size][acts] != 0.0))


def plain_name(text: str) -> str:
    """A name of letters, digits and underscores, as other notations want it.

    Example:
        >>> plain_name("a[Xd]"), plain_name("medium.glutamine")
        ('a_Xd', 'medium_glutamine')
    """
    name = re.sub(r"[^A-Za-z0-9_]+", "_", text).strip("_")
    return name if name[:1].isalpha() else f"x_{name}"


def rate_model(experiment: Experiment, *, name: str = "") -> RateModel:
    """A run as formulas.

    Args:
        experiment: The run, of CHO perfusion or of a described culture.
        name: What to call it; the culture's name if empty.

    Raises:
        ConfigError: If the mechanism uses what cannot be written down; it is named.
        PrecisionError: If 64-bit mode is off.
    """
    require_x64("writing a model down")
    if isinstance(experiment, DescribedExperiment):
        return _described(experiment, name)
    if isinstance(experiment, CHOExperiment):
        return _cho(experiment, name)
    raise ConfigError(
        f"a {type(experiment).__name__} cannot be written down; a run made by cho_experiment or "
        "described_experiment can."
    )


class _Names:
    """Names for others, each once."""

    def __init__(self, taken: Sequence[str]) -> None:
        self._taken = set(taken)

    def __call__(self, text: str) -> str:
        plain = plain_name(text)
        name, k = plain, 1
        while name in self._taken:
            k += 1
            name = f"{plain}_{k}"
        self._taken.add(name)
        return name


def _levers(experiment: Experiment) -> tuple[Lever, ...]:
    return tuple(v for v in experiment.levers if v.group in ("constants", "feeds"))


def steered(name: str, unit: str, values: Float[np.ndarray, " T"]) -> Steered:
    """A set-point by interval; constant if it never changes."""
    return Steered(name, unit, np.array(values), bool(np.all(values == values[0])))


def _symbols(book: Book, names: Sequence[str]) -> np.ndarray:
    found = np.empty(len(names), object)
    for k, name in enumerate(names):
        found[k] = book.name(name)
    return found


def _scalar(formula: Formula) -> np.ndarray:
    found = np.empty((), object)
    found[()] = formula
    return found


def _constants(experiment: Experiment, levers: Sequence[Lever], names: _Names) -> tuple:
    values = np.asarray(experiment.lever_values(levers)) if levers else np.zeros(0)
    return tuple(
        Constant(names(v.name), v.name, v.unit, float(x), **_prior(experiment, v))
        for v, x in zip(levers, values, strict=True)
    )


def _prior(experiment: Experiment, lever: Lever) -> dict[str, float]:
    """How uncertain a constant is said to be; nothing where that is a guess of ours."""
    law = None if experiment.is_assumed(lever) else experiment.usual_law(lever)
    if law is None or lever.group != "constants" or not law.is_normal:
        return {}
    return {"log_sd" if law.is_log else "sd": law.b}


def _put_down(
    function: Callable[..., dict[str, Array]], book: Book, given: Sequence[np.ndarray]
) -> dict[str, Formula]:
    """Formulas of a function that returns numbers by name."""
    keys: list[str] = []

    def flat(*arrays: Any) -> list[Array]:
        found = function(*arrays)
        keys[:] = list(found)
        return [jnp.asarray(v) for v in found.values()]

    parts = Tracer(book).formulas(flat, *given)
    return {key: part[()] for key, part in zip(keys, parts, strict=True)}


def _described(experiment: DescribedExperiment, name: str) -> RateModel:
    plant, process = experiment.plant, experiment.plant.process
    names = _Names(
        (VESSEL, AGE, "start_volume", "sample_volume", *(f"n_{s}" for s in plant.states))
    )
    states = [names(s) for s in plant.states]
    controls = [names(c) for c in process.control_names]
    levers = _levers(experiment)
    constants = _constants(experiment, levers, names)
    follows = experiment.columns[len(states) : -1]
    columns = {c: names(c) for c in follows}
    streams = [names(f"flow_{s.name}") for s in process.streams]
    made = {s: names(f"rate_{s}") for s in plant.states}
    book = Book()

    def everything(x: Array, c: Array, volume: Array, u: Array) -> dict[str, Array]:
        one = experiment.pulled(levers, x) if levers else experiment
        rate, swelling, flows = one.plant.slopes(c, volume, u)
        found = dict(zip(streams, flows, strict=True))
        at = {n: u[k] for k, n in enumerate(process.control_names)} | {"volume_L": volume}
        is_carried = np.asarray([s in process.carried for s in plant.states])
        known = jnp.where(is_carried & (c < 0.0), 0.0, c)
        rates = one.plant.mechanism.rates({s: known[k] for k, s in enumerate(plant.states)}, at)
        found |= {made[s]: rates[s] for s in plant.states if s in rates}
        if follows:
            shown = readings_of_states(process, plant.states, c)
            place = {n: k for k, n in enumerate(process.readings)}
            found |= {columns[n]: shown[place[n]] for n in follows}
        found |= {f"slope_{s}": rate[k] for k, s in enumerate(states)}
        return found | {"swelling": swelling}

    given = [
        _symbols(book, [c.name for c in constants]),
        _symbols(book, states),
        _scalar(book.name(VESSEL)),
        _symbols(book, controls),
    ]
    formulas = _put_down(everything, book, given)
    taken = [*states, *controls, *(c.name for c in constants), VESSEL, AGE]
    taken += [f"n_{s}" for s in states] + [f"start_{s}" for s in states]
    kept = process.closing is not None
    starts = np.asarray(experiment.start, float)
    table = np.broadcast_to(
        np.asarray(experiment.controls), (experiment.lengths_h.size, len(controls))
    )
    sample = 0.0 if kept else float(experiment.sample_L)
    return RateModel(
        name=name or process.name,
        process=process,
        book=book,
        held=tuple(
            Held(n, process.quantity(s).unit, s in process.carried, float(v))
            for n, s, v in zip(states, plant.states, starts, strict=True)
        ),
        constants=constants,
        steered=tuple(
            steered(n, c.unit, table[:, k])
            for k, (n, c) in enumerate(zip(controls, process.controls, strict=True))
        ),
        shown=(
            *(Shown(n, s, process.quantity(s).unit) for n, s in zip(states, plant.states)),  # noqa: B905
            *(Shown(columns[c], c, process.quantity(c).unit) for c in follows),
        ),
        hours=experiment.hours,
        volume_L=float(experiment.volume_L) - sample,
        is_moving=not process.is_constant_volume,
        text=written(book, formulas, taken),
        bolus=np.asarray(plant.bolus),
        bolus_L=np.asarray(plant.bolus_L),
        sample_L=sample,
    )


def _cho(experiment: CHOExperiment, name: str) -> RateModel:
    names = _Names(
        (VESSEL, AGE, "start_volume", "sample_volume", *(f"n_{s}" for s in PLANT_SPECIES))
    )
    states = [names(s) for s in PLANT_SPECIES]
    set_points = [v for v in experiment.levers if v.group == "set-points" and v.interval < 0]
    controls = [names(v.name) for v in set_points]
    levers = _levers(experiment)
    constants = _constants(experiment, levers, names)
    columns = {c: (c if c in states else names(c)) for c in experiment.columns}
    fouls = bool(np.any(np.asarray(experiment.reactor.fouling_rate) != 0.0))
    book = Book()

    def everything(x: Array, c: Array, volume: Array, u: Array, age: Array) -> dict[str, Array]:
        one = experiment.pulled(levers, x)
        inputs = day_inputs(one.reactor, u, volume, age if fouls else 0.0)
        # everything scales with the volume, which stays: a litre is looked at
        litre = (*(c[k] for k in range(len(states))), jnp.ones(()))
        flow = fluxes(one.reactor, inputs, litre)
        slopes = vector_field(one.reactor, inputs, litre)
        shown = observe(one.reactor.kinetics, c)
        found = {f"rate_{s}": r for s, r in zip(states, flow.reaction, strict=True)}
        found |= {f"slope_{s}": v for s, v in zip(states, slopes[:-1], strict=True)}
        found |= {f"flow_{s}": getattr(flow, s) * volume for s in _STREAMS}
        return found | {
            columns[n]: shown[k] for k, n in enumerate(experiment.columns) if n not in states
        }

    given = [
        _symbols(book, [c.name for c in constants]),
        _symbols(book, states),
        _scalar(book.name(VESSEL)),
        _symbols(book, controls),
        _scalar(book.name(AGE)),
    ]
    formulas = _put_down(everything, book, given)
    taken = [*states, *controls, *(c.name for c in constants), VESSEL, AGE]
    taken += [f"n_{s}" for s in states] + [f"start_{s}" for s in states]
    n = experiment.lengths_h.size
    table = np.broadcast_to(np.asarray(experiment.controls), (n, len(controls)))
    courses = [
        steered(c, v.unit, table[:, k])
        for k, (c, v) in enumerate(zip(controls, set_points, strict=True))
    ]
    hours = experiment.hours
    if fouls:
        courses.append(steered(AGE, "h", 0.5 * (hours[1:] + hours[:-1])))
    return RateModel(
        name=name or "cho_perfusion",
        process=None,
        book=book,
        held=tuple(
            Held(n, _state_unit(s), True, float(v))
            for n, s, v in zip(states, PLANT_SPECIES, np.asarray(experiment.start), strict=True)
        ),
        constants=constants,
        steered=tuple(courses),
        shown=tuple(Shown(columns[c], c, canonical_unit(c)) for c in experiment.columns),
        hours=hours,
        volume_L=float(experiment.volume_L),
        is_moving=False,
        text=written(book, formulas, taken),
        bolus=np.zeros((len(states), len(courses))),
        bolus_L=np.zeros(len(courses)),
        sample_L=0.0,
    )


def _state_unit(name: str) -> str:
    return canonical_unit("VCD" if name in ("Xv", "Xd", "Xl") else name)
