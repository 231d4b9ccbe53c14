"""Two cultures with a fast path of their own: the consortium and CHO perfusion.

Both are instances of `ProcessEnv`: the process is the built-in one, its motion a hand-made one.
"""

from typing import Any, ClassVar, Final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from perfusio_jax._core import CONTROL_NAMES, ConfigError, Key
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE
from perfusio_jax.mechanistic import PLANT_SPECIES, advance_interval
from perfusio_jax.process import CHO_PERFUSION, CONSORTIUM
from perfusio_jax.rl import chemostat, consortium
from perfusio_jax.rl.environment import EnvParams
from perfusio_jax.rl.motion import Motion
from perfusio_jax.rl.policy import Bounds, check_bounds
from perfusio_jax.rl.process_env import ProcessEnv
from perfusio_jax.simulator import initial_state, observe, sample_clones, virtual_reactor

MIN_LIGHT: Final = (0.005, 0.15)
"""Lower bounds of the lights [W/m^2], chosen: as good as dark, 2e-5 of full induction each."""
MAX_LIGHT: Final = 3.0
"""Upper bound of both lights [W/m^2], chosen: growth within 0.1 % of what any light gives."""


class ConsortiumMotion(Motion):
    """The consortium by `chemostat.advance`: right to 1e-4, whether glucose lasts or not."""

    stored_as: ClassVar[str] = "ConsortiumEnv"
    grid: tuple[float, ...] = eqx.field(static=True, default=chemostat.GRID)
    """Substeps of a step as parts of it."""
    state_names: tuple[str, ...] = eqx.field(static=True, default=consortium.STATE_NAMES)
    input_names: tuple[str, ...] = eqx.field(static=True, default=consortium.LIGHT_NAMES)
    tracked_names: tuple[str, ...] = eqx.field(static=True, default=("biomass_1", "biomass_2"))

    def __check_init__(self) -> None:
        parts = np.asarray(self.grid, float)
        is_whole = parts.size > 0 and abs(parts.sum() - 1.0) < 1e-9
        if parts.ndim != 1 or not is_whole or not np.all(parts > 0.0):
            raise ConfigError(
                f"the substeps are {self.grid}; they are parts of a step, positive, and sum to one."
            )

    def draw(self, key: Key, params: EnvParams) -> tuple[Any, Array]:
        """Synthesis rates and initial state, drawn around the nominal ones."""
        first, second = jax.random.split(key)
        plant = consortium.draw_plant(first, params.plant, params.uncertainty)
        return plant, consortium.draw_initial(second, params.initial, params.uncertainty)

    def advance(self, plant: Any, x: Array, inputs: Array, step_h: Array) -> Array:
        """State one step later."""
        return chemostat.advance(plant, x, inputs, step_h, grid=self.grid)

    def disturb(self, key: Key, x: Array, params: EnvParams) -> Array:
        """Each state times a factor around one."""
        level = params.uncertainty.disturbance
        # a branch, not a product with one: the draws would cost as much as the plant
        return jax.lax.cond(
            level > 0.0, lambda: x * consortium.factors(key, x.shape, level), lambda: x
        )

    def features(self, x: Array) -> Array:
        """Glucose and biomass by fixed units, amino acids by their logarithm.

        Amino acids are counted in the nominal half-saturations: growth is held at a fifth of
        one and begins at two hundred, and a policy has to tell both from none.
        """
        scale = jnp.asarray(consortium.PARAMETERS["amino_half_saturation"].value, x.dtype)
        amino = jnp.log10(x[3:] / scale + 0.01)
        return jnp.concatenate([x[:1] / 100.0, x[1:3] / 2.0, amino])

    def tracked(self, plant: Any, x: Array) -> Array:
        """The biomasses [g/L]."""
        return x[1:3]


def ConsortiumEnv(n_steps: int = 18, grid: tuple[float, ...] = chemostat.GRID) -> ProcessEnv:
    """The consortium: two biomasses follow references, two lights are the inputs.

    Args:
        n_steps: Steps of an episode.
        grid: Substeps of a step as parts of it.

    Returns:
        The environment; `consortium_params` makes parameters that fit.

    Raises:
        ConfigError: If there are no steps, or the substeps are no parts of one.
    """
    return ProcessEnv(CONSORTIUM, ConsortiumMotion(grid=grid), n_steps=n_steps)


MAX_STEP_H: Final = 5.0
"""Longest step of the consortium [h]; its substeps are parts of a step, made for about an hour."""
MAX_STEP_DAYS: Final = 2.0
"""Longest step of the perfusion culture [days], which is integrated in one piece."""
MAX_SPREAD: Final = 3.0
"""Widest family of clones, as a factor on the log-deviations [-]."""


def check_step(step_h: float, most: float) -> None:
    """Refuse a step that is not positive, or longer than a plant is integrated right.

    Raises:
        ConfigError: With what was given and what is allowed.
    """
    if not (np.ndim(step_h) == 0 and np.isfinite(step_h) and 0.0 < step_h <= most):
        raise ConfigError(f"a step of {step_h} h is not possible; above 0 to {most:g} h is.")


def consortium_params(
    reference: Float[np.ndarray, "T 2"],
    *,
    start: str = "setpoint",
    plant: consortium.Consortium | None = None,
    uncertainty: consortium.Uncertainty | float | None = None,
    min_light: float | tuple[float, float] = MIN_LIGHT,
    max_light: float | tuple[float, float] = MAX_LIGHT,
    step_h: float = 1.0,
) -> EnvParams:
    """Parameters of the consortium, checked.

    Args:
        reference: Biomasses to follow at k = 0 ... N [g/L].
        start: "setpoint" (fresh inoculum) or "trajectory" (an earlier run's end).
        plant: Constants.
        uncertainty: How episodes differ; not at all by default. One number is the relative
            deviation of initial states and synthesis rates.
        min_light: Lower bound of the lights [W/m^2].
        max_light: Upper bound of the lights [W/m^2].
        step_h: Length of a step [h], up to 5. The default substeps err by 1e-4 up to about 1.25 h
            and by 2e-3 at 5 h; give `ConsortiumEnv` a finer `grid` there.

    Raises:
        ConfigError: If constants, bounds, references or the start cannot be used; a reference
            that the feed cannot support or light cannot hold says so, with what can be reached.
    """
    plant = consortium.Consortium() if plant is None else plant
    consortium.check_consortium(plant)
    low, high = (jnp.broadcast_to(jnp.asarray(v, float), (2,)) for v in (min_light, max_light))
    bounds = Bounds(low, high, True)
    check_bounds(bounds)
    reference = np.asarray(reference, float)
    check_reference(reference, plant, bounds)
    check_step(step_h, MAX_STEP_H)
    if start not in ("setpoint", "trajectory"):
        raise ConfigError(f"start {start!r} is unknown; choose setpoint or trajectory.")
    initial = (
        consortium.start_setpoint(plant, bounds.high)
        if start == "setpoint"
        else consortium.start_trajectory(plant)
    )
    spread = uncertainty
    if not isinstance(spread, consortium.Uncertainty):
        level = 0.0 if spread is None else spread
        spread = consortium.Uncertainty(initial=level, synthesis=level)
    return EnvParams(plant, spread, initial, jnp.asarray(reference), bounds, step_h)


def check_reference(
    reference: Float[np.ndarray, "T 2"], plant: consortium.Consortium, bounds: Bounds
) -> None:
    """Refuse references outside what the chemostat can hold.

    At rest the feed supports sum_i Y_i b_i < s_in, and a strain must be able to grow as fast as
    it is washed out, which needs light enough.

    Raises:
        ConfigError: Naming the value and the reachable set.
    """
    if reference.ndim != 2 or reference.shape[1] != 2 or reference.shape[0] < 2:
        raise ConfigError(f"references have shape {reference.shape}; (steps + 1, 2) is needed.")
    if not np.all(np.isfinite(reference)) or np.any(reference <= 0.0):
        raise ConfigError("references must be finite and positive [g/L] at every step.")
    cost, feed = np.asarray(plant.uptake_per_biomass), float(plant.feed)
    needed = reference @ cost
    if needed.max() >= feed:
        k = int(needed.argmax())
        raise ConfigError(
            f"the reference {reference[k].tolist()} g/L at step {k} cannot be held: it needs "
            f"{needed[k]:.1f} mmol/L of glucose and the feed has {feed:g}. Reachable: "
            f"{cost[0]:g} b1 + {cost[1]:g} b2 < {feed:g}."
        )
    if float(plant.dilution) >= float(plant.max_growth):
        raise ConfigError(
            f"dilution {float(plant.dilution):g} 1/h washes out what grows at most at "
            f"{float(plant.max_growth):g} 1/h: no biomass can be held."
        )
    amino = consortium.amino_at_growth(plant, plant.dilution, feed - float(needed.max()))
    lost = (plant.dilution + plant.degradation) * amino
    share = np.asarray(lost / (plant.conversion * plant.synthesis))
    most = np.asarray(consortium.induction(plant, bounds.high))
    least = np.asarray(consortium.induction(plant, bounds.low))
    if np.any(share >= most) or np.any(share <= least) or np.any(np.asarray(amino) <= 0.0):
        raise ConfigError(
            f"holding a biomass needs induction {share.round(6).tolist()}; light between "
            f"{bounds.low.tolist()} and {bounds.high.tolist()} W/m^2 gives {least.tolist()} to "
            f"{most.round(6).tolist()}. Widen the bounds."
        )


# ---------------------------------------------------------------- CHO perfusion

CHO_SCALE: Final = np.array([20.0, 5.0, 2.0, 5.0, 5.0, 2.0, 20.0, 5.0, 2.0, 1000.0])
"""Typical size of each species, in `PLANT_SPECIES` order."""
CHO_TRACKED: Final = ("VCV", "Titer", "Via")


class PerfusionMotion(Motion):
    """CHO perfusion by the exponential predictor-corrector of roll-outs."""

    stored_as: ClassVar[str] = "PerfusionEnv"
    volume_L: float = eqx.field(static=True, default=0.25)
    state_names: tuple[str, ...] = eqx.field(static=True, default=tuple(PLANT_SPECIES))
    input_names: tuple[str, ...] = eqx.field(static=True, default=tuple(CONTROL_NAMES))
    tracked_names: tuple[str, ...] = eqx.field(static=True, default=CHO_TRACKED)

    def __check_init__(self) -> None:
        if not (np.isfinite(self.volume_L) and self.volume_L > 0.0):
            raise ConfigError(f"a volume of {self.volume_L} L is not possible; it is positive.")

    def draw(self, key: Key, params: EnvParams) -> tuple[Any, Array]:
        """A clone of the family: the nominal one where the spread is zero."""
        family = sample_clones(key, 1, spread=params.uncertainty)
        drawn = jax.tree.map(lambda v: v[0], family)
        kept = jax.tree.map(
            lambda a, b: jnp.where(params.uncertainty > 0.0, a, b), drawn, params.plant.kinetics
        )
        return eqx.tree_at(lambda r: r.kinetics, params.plant, kept), params.initial

    def advance(self, plant: Any, x: Array, inputs: Array, step_h: Array) -> Array:
        """State one step later, by the exponential predictor-corrector of roll-outs."""
        return advance_interval(plant, x, inputs, step_h, volume_L=self.volume_L)[0]

    def disturb(self, key: Key, x: Array, params: EnvParams) -> Array:
        """None: clones differ, days do not."""
        return x

    def features(self, x: Array) -> Array:
        """Logarithms of concentrations in typical units."""
        return jnp.log1p(x / jnp.asarray(CHO_SCALE, x.dtype))

    def tracked(self, plant: Any, x: Array) -> Array:
        """Cell volume [%], titre [mg/L], viability [%]."""
        seen = observe(plant.kinetics, x)
        return jnp.stack([seen[1], seen[10], seen[2]])


def PerfusionEnv(n_steps: int = 14, volume_L: float = CHO_PERFUSION.volume_L) -> ProcessEnv:
    """CHO perfusion: cell volume, titre and viability follow references by six set-points.

    Args:
        n_steps: Steps of an episode.
        volume_L: Volume of the culture [L].

    Returns:
        The environment; `perfusion_params` makes parameters that fit.

    Raises:
        ConfigError: If there are no steps, or the volume is not positive.
    """
    motion = PerfusionMotion(volume_L=volume_L)
    process = CHO_PERFUSION.model_copy(update={"volume_L": volume_L})
    return ProcessEnv(process, motion, n_steps=n_steps)


def perfusion_params(
    reference: Float[np.ndarray, "T 3"],
    *,
    clone: str = "CloneX",
    spread: float = 0.0,
    step_h: float = 24.0,
) -> EnvParams:
    """Parameters of the perfusion culture.

    Args:
        reference: Cell volume [%], titre [mg/L] and viability [%] at k = 0 ... N.
        clone: Virtual clone where the spread is zero.
        spread: Width of the family of clones, a factor on its log-deviations [-].
        step_h: Length of a step [h].

    Raises:
        ConfigError: If the references are not finite, positive and possible, or the spread or the
            step is out of range.
    """
    reference = np.asarray(reference, float)
    if reference.ndim != 2 or reference.shape[1] != 3 or reference.shape[0] < 2:
        raise ConfigError(f"references have shape {reference.shape}; (steps + 1, 3) is needed.")
    if not np.all(np.isfinite(reference)) or np.any(reference <= 0.0):
        raise ConfigError("references must be finite and positive at every step.")
    for column, name, most in ((0, "cell volume", 100.0), (2, "viability", 100.0)):
        highest = float(reference[:, column].max())
        if highest > most:
            raise ConfigError(f"a {name} of {highest:g} % cannot be reached; at most {most:g} %.")
    if not (np.isfinite(spread) and 0.0 <= spread <= MAX_SPREAD):
        raise ConfigError(
            f"the spread between clones is {spread}; it is a factor from 0 to {MAX_SPREAD:g}."
        )
    check_step(step_h, 24.0 * MAX_STEP_DAYS)
    low, high = DEFAULT_AMBR250_DESIGN_SPACE.bounds_array
    return EnvParams(
        virtual_reactor(clone),
        jnp.asarray(spread, float),
        initial_state(),
        jnp.asarray(reference),
        Bounds(low, high),
        step_h,
    )
