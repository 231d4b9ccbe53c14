"""Any culture with a mechanism as an environment: set-points by name, references by name.

The plant is the process's own, integrated to a local error of a part in a million (`VirtualPlant`).
An episode may begin elsewhere and have other constants: each constant the mechanism says data may
move is drawn around its value, and each state around its start.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float

from perfusio_jax._core import ConfigError, Key, Scalar
from perfusio_jax._core.hints import did_you_mean
from perfusio_jax.mechanistic import Mechanism
from perfusio_jax.mechanistic.mechanism import moved, n_movable
from perfusio_jax.process import Process
from perfusio_jax.rl.environment import EnvParams, TrackingEnv
from perfusio_jax.rl.policy import Bounds, check_bounds
from perfusio_jax.simulator import VirtualPlant, usual_start, virtual_plant
from perfusio_jax.simulator.virtual_runs import readings_of_states

CUT: Final = 3.0
"""Standard deviations at which draws are cut."""
_PART: Final = 0.1
"""Part of a range that is a feature's unit."""
_VOLUME: Final = "volume_L"
"""Name of the volume among the states, where it moves."""


def _scalar(value: ArrayLike) -> Array:
    return jnp.asarray(value, float)


class ProcessPlant(eqx.Module):
    """The plant of an episode, and the set-points nobody decides."""

    plant: VirtualPlant
    held: Float[Array, " M"] = eqx.field(converter=_scalar)
    """Every control of the process [its unit]; those that are decided count for nothing here."""


class ProcessSpread(eqx.Module):
    """How episodes differ; draws are Gaussian, cut at three standard deviations."""

    initial: Scalar = eqx.field(converter=_scalar, default=0.0)
    """Relative deviation of every state at the start [-]."""
    constants: Scalar = eqx.field(converter=_scalar, default=0.0)
    """Deviation of the mechanism's constants, in parts of what it says data may move them [-]."""

    def __check_init__(self) -> None:
        for name, most in (("initial", 1.0 / CUT), ("constants", np.inf)):
            value = getattr(self, name)
            if jnp.shape(value) != ():
                raise ConfigError(f"{name} must be one number.")
            if not isinstance(value, Tracer) and not 0.0 <= float(value) < most:
                raise ConfigError(
                    f"a deviation of {float(value):g} ({name}) is not possible; 0 to below "
                    f"{most:.2f} is."
                )


class ProcessEnv(TrackingEnv):
    """A described culture whose readings follow references by its set-points.

    Make one, with parameters that fit, by `process_problem`.
    """

    process: Process = eqx.field(static=True)
    """The culture."""
    n_steps: int = eqx.field(static=True)
    state_names: tuple[str, ...] = eqx.field(static=True)
    """What is carried, levels, and the volume where it moves."""
    input_names: tuple[str, ...] = eqx.field(static=True)
    """Controls that are decided."""
    tracked_names: tuple[str, ...] = eqx.field(static=True)
    """Readings or states that have references."""

    @property
    def _moves(self) -> bool:
        return not self.process.is_constant_volume

    @property
    def _n(self) -> int:
        """Number of states but the volume."""
        return len(self.state_names) - self._moves

    def draw(self, key: Key, params: EnvParams) -> tuple[Any, Array]:
        """Constants and initial state, drawn around the nominal ones."""
        first, second = jax.random.split(key)
        mechanism = params.plant.plant.mechanism
        count = n_movable(mechanism)
        dtype = params.initial.dtype
        plant = params.plant
        if count:
            z = params.uncertainty.constants * jax.random.truncated_normal(
                first, -CUT, CUT, (count,), dtype
            )
            plant = eqx.tree_at(lambda p: p.plant.mechanism, plant, moved(mechanism, z))
        unit = jax.random.truncated_normal(second, -CUT, CUT, params.initial.shape, dtype)
        spread = 1.0 + params.uncertainty.initial * unit
        if self._moves:
            spread = spread.at[-1].set(1.0)
        return plant, params.initial * spread

    def advance(self, plant: ProcessPlant, x: Array, inputs: Array, step_h: Array) -> Array:
        """State one step later; NaN where the plant cannot go on."""
        place = np.asarray([self.process.control_names.index(n) for n in self.input_names])
        held = plant.held.astype(x.dtype).at[place].set(inputs)
        volume = x[-1] if self._moves else plant.plant.volume_L.astype(x.dtype)
        end = plant.plant.advance(x[: self._n], volume, held, step_h)
        if not self._moves:
            return end.state
        return jnp.concatenate([end.state, end.volume_L[None]])

    def disturb(self, key: Key, x: Array, params: EnvParams) -> Array:
        """None."""
        return x

    def features(self, x: Array) -> Array:
        """Logarithms of concentrations in tenths of their range; levels from -1 to 1."""
        low, high = (jnp.asarray(v, x.dtype) for v in self._ranges())
        is_log = np.asarray([n not in self.process.levels for n in self.state_names])
        unit = _PART * jnp.where(is_log, high, 1.0)
        logs = jnp.log1p(jnp.maximum(x, 0.0) / unit)
        return jnp.where(is_log, logs, 2.0 * (x - low) / (high - low) - 1.0)

    def tracked(self, plant: Any, x: Array) -> Array:
        """Quantities with references [their units]."""
        names = self.state_names[: self._n]
        seen = readings_of_states(self.process, names, x[: self._n])
        place = {name: k for k, name in enumerate(self.process.readings)}
        own = {name: k for k, name in enumerate(self.state_names)}
        return jnp.stack([seen[place[n]] if n in place else x[own[n]] for n in self.tracked_names])

    def _ranges(self) -> tuple[np.ndarray, np.ndarray]:
        found = [self.process.quantity(n) for n in self.state_names[: self._n]]
        low, high = [q.lo for q in found], [q.hi for q in found]
        if self._moves:
            low, high = [*low, 0.0], [*high, self.process.volume_L]
        return np.asarray(low), np.asarray(high)


def process_problem(
    process: Process,
    mechanism: Mechanism,
    goals: Mapping[str, ArrayLike],
    *,
    n_steps: int,
    step_h: float,
    controls: Sequence[str] | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    start: Mapping[str, float] | None = None,
    held: Mapping[str, float] | None = None,
    spread: ProcessSpread | float | None = None,
    is_log: bool = False,
) -> tuple[ProcessEnv, EnvParams]:
    """A described culture as an environment, checked.

    Args:
        process: The culture.
        mechanism: Its rates.
        goals: Reference by name of a reading or state: one value, or one for each k = 0 ... N.
        n_steps: Steps of an episode.
        step_h: Length of a step [h].
        controls: Controls that are decided; all that are held and have a range by default.
        ranges: Lowest and highest value by control, inside the process's ranges.
        start: Where an episode starts, by name; the rest as `usual_start` says.
        held: Controls that are not decided, by name; their defaults otherwise.
        spread: How episodes differ; not at all by default. One number is the relative deviation
            of starts, and of constants in parts of what the mechanism says.
        is_log: Whether inputs are on a logarithmic scale, as lights are.

    Returns:
        The environment and its parameters, for `Problem`, `train`, `find_optimum`, `tune_pid` and
        `make_mpc`.

    Raises:
        ConfigError: If the mechanism does not fit the process, a name is unknown, a control is a
            bolus or has no range, or a goal or number is none.

    Example:
        >>> from perfusio_jax.process import MONOD_CHEMOSTAT
        >>> from perfusio_jax.simulator import plain_monod
        >>> monod = plain_monod(MONOD_CHEMOSTAT)
        >>> env, params = process_problem(MONOD_CHEMOSTAT, monod, {"X": 3.0}, n_steps=8, step_h=6.0)
        >>> env.input_names, env.tracked_names
        (('dilution', 'feed_S'), ('X',))
    """
    plant = virtual_plant(process, mechanism)
    moves = not process.is_constant_volume
    states = (*plant.states, *((_VOLUME,) if moves else ()))
    decided = _decided(process, controls)
    env = ProcessEnv(
        process=process,
        n_steps=n_steps,
        state_names=states,
        input_names=decided,
        tracked_names=_tracked(process, states, goals),
    )
    reference = _references(goals, n_steps)
    begun = usual_start(process) | {_VOLUME: process.volume_L} | _known(start, states, "start")
    named = _known(held, process.control_names, "held")
    if not isinstance(spread, ProcessSpread):
        level = 0.0 if spread is None else spread
        spread = ProcessSpread(initial=level, constants=level)
    bounds = _bounds(process, decided, ranges or {}, is_log=is_log)
    if not (np.isfinite(step_h) and step_h > 0.0):
        raise ConfigError(f"a step of {step_h} h is not possible; it is positive.")
    usual = {c.name: 0.0 if c.role == "bolus" else c.default for c in process.controls}
    return env, EnvParams(
        ProcessPlant(plant, jnp.asarray([(usual | named)[n] for n in process.control_names])),
        spread,
        jnp.asarray([begun[n] for n in states], float),
        jnp.asarray(reference),
        bounds,
        step_h,
    )


def _decided(process: Process, given: Sequence[str] | None) -> tuple[str, ...]:
    if given is None:
        given = [c.name for c in process.controls if c.role != "bolus" and c.lo < c.hi]
    for name in given:
        control = process.control(name)
        if control.role == "bolus":
            raise ConfigError(f"{name} is a bolus, which is given and not held; leave it out.")
    if not given or len(set(given)) != len(given):
        raise ConfigError(f"controls are {list(given)}; one or more, each once, are needed.")
    return tuple(given)


def _tracked(
    process: Process, states: tuple[str, ...], goals: Mapping[str, ArrayLike]
) -> tuple[str, ...]:
    unsaid = [q.name for q in process.quantities if q.kind == "derived" and not q.formula]
    known = tuple(n for n in dict.fromkeys((*process.readings, *states)) if n not in unsaid)
    if not goals:
        raise ConfigError("there is no goal; give a reference of one quantity or more.")
    _known(goals, known, "goals")
    return tuple(goals)


def _known(given: Mapping[str, Any] | None, names: Sequence[str], what: str) -> dict[str, Any]:
    wrong = [name for name in given or {} if name not in names]
    if wrong:
        raise ConfigError(
            f"{what} names {', '.join(wrong)}{did_you_mean(wrong, names)}; there are "
            f"{', '.join(names)}."
        )
    return dict(given or {})


def _references(goals: Mapping[str, ArrayLike], n_steps: int) -> np.ndarray:
    columns = []
    for name, goal in goals.items():
        values = np.asarray(goal, float)
        if values.ndim == 0:
            values = np.full(n_steps + 1, float(values))
        if values.shape != (n_steps + 1,) or not np.all(np.isfinite(values) & (values > 0.0)):
            raise ConfigError(
                f"the goal of {name} is {goal!r}; a number above 0, or {n_steps + 1} of them (k = "
                f"0 ... {n_steps}), is needed."
            )
        columns.append(values)
    return np.stack(columns, axis=1)


def _bounds(
    process: Process,
    decided: Sequence[str],
    ranges: Mapping[str, tuple[float, float]],
    *,
    is_log: bool,
) -> Bounds:
    _known(ranges, tuple(decided), "ranges")
    low, high = [], []
    for name in decided:
        control = process.control(name)
        lo, hi = ranges.get(name, (control.lo, control.hi))
        if not control.lo <= lo < hi <= control.hi:
            raise ConfigError(
                f"{name} may be set from {lo:g} to {hi:g}; a range inside {control.lo:g} to "
                f"{control.hi:g} {control.unit} is needed."
            )
        low.append(lo)
        high.append(hi)
    bounds = Bounds(np.asarray(low), np.asarray(high), is_log)
    check_bounds(bounds)
    return bounds
