"""Any culture with a mechanism as an environment: set-points by name, references by name.

What moves the culture is a `Motion`. Any process has one, its own plant (`process_problem`); the
consortium and CHO perfusion have faster ones (`plants`). An episode may begin elsewhere and have
other constants: each constant the mechanism says data may move is drawn around its value, and each
state around its start.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from perfusio_jax._core import ConfigError, Key
from perfusio_jax._core.hints import did_you_mean
from perfusio_jax.mechanistic import Mechanism
from perfusio_jax.process import Process
from perfusio_jax.rl.environment import EnvParams, TrackingEnv
from perfusio_jax.rl.motion import Motion, PlantMotion, ProcessPlant, ProcessSpread
from perfusio_jax.rl.policy import Bounds, check_bounds
from perfusio_jax.simulator import usual_start, virtual_plant

_VOLUME: Final = "volume_L"
"""Name of the volume among the states, where it moves."""


class ProcessEnv(TrackingEnv):
    """A culture whose readings follow references by its set-points.

    Make one, with parameters that fit, by `process_problem`; `ConsortiumEnv` and `PerfusionEnv`
    make those of the two cultures with a motion of their own.
    """

    process: Process = eqx.field(static=True)
    """The culture."""
    n_steps: int = eqx.field(static=True)
    motion: Motion
    """What moves it."""

    def __init__(self, process: Process, motion: Motion, *, n_steps: int):
        """Make the environment.

        Args:
            process: The culture.
            motion: What moves it.
            n_steps: Steps of an episode.

        Raises:
            ConfigError: If the motion decides what is no control of the culture, or there are no
                steps.
        """
        known = process.control_names
        wrong = [name for name in motion.input_names if name not in known]
        if wrong:
            raise ConfigError(
                f"{', '.join(wrong)} is decided and no control of {process.name}"
                f"{did_you_mean(wrong, known)}; there are {', '.join(known)}."
            )
        self.process, self.n_steps, self.motion = process, n_steps, motion

    @property
    def state_names(self) -> tuple[str, ...]:
        """Order of the state."""
        return self.motion.state_names

    @property
    def input_names(self) -> tuple[str, ...]:
        """Controls that are decided."""
        return self.motion.input_names

    @property
    def tracked_names(self) -> tuple[str, ...]:
        """Readings or states that have references."""
        return self.motion.tracked_names

    def draw(self, key: Key, params: EnvParams) -> tuple[Any, Array]:
        """Constants and initial state, drawn around the nominal ones."""
        return self.motion.draw(key, params)

    def advance(self, plant: Any, x: Array, inputs: Array, step_h: Array) -> Array:
        """State one step later; NaN where the plant cannot go on."""
        return self.motion.advance(plant, x, inputs, step_h)

    def disturb(self, key: Key, x: Array, params: EnvParams) -> Array:
        """State after the random disturbance of a step."""
        return self.motion.disturb(key, x, params)

    def features(self, x: Array) -> Array:
        """State as a policy sees it: numbers of order one."""
        return self.motion.features(x)

    def tracked(self, plant: Any, x: Array) -> Array:
        """Quantities with references [their units]."""
        return self.motion.tracked(plant, x)


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
    motion = PlantMotion(
        process=process,
        state_names=states,
        input_names=decided,
        tracked_names=_tracked(process, states, goals),
    )
    env = ProcessEnv(process, motion, n_steps=n_steps)
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
