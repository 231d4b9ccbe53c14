"""Objective values of a forecast: how far a reactor will be from its targets.

Two numbers live side by side. The *reported* number is the plain weighted sum of squares of
Gadiyar et al. (2026), equation 7, in squared units of the species. The *scaled* number, which
the optimiser sees, divides every deviation by the magnitude of its target first, so that the
weights of a cell volume of 14 % and a titre of 1000 mg/L compare.
"""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from perfusio_jax._core import (
    FORECAST_SPECIES,
    HOURS_PER_DAY,
    Array,
    ArrayLike,
    ConfigError,
    Float,
    Scalar,
)
from perfusio_jax._core.programs import compiled
from perfusio_jax.bed.goal.steps import along, closed, n_steps_of, open_step, rows_of, steps_of

MOST_STEPS = 32
"""Steps paths are drawn for where nobody says how many."""

Rollout = Callable[..., Float[Array, "S H K"]]
"""`rollout(model, paths, c0, controls, day0)`: forecast samples, `FORECAST_SPECIES` last.

Where the steps are no days it is also given `dt_h`, the length of each [h]."""


def _scalar(value: ArrayLike) -> Array:
    return jnp.asarray(value, float)


class TargetSpec(eqx.Module):
    """One species to be held at a value.

    Example:
        >>> TargetSpec(1, target=14.0).species
        'VCV'
    """

    species_index: int = eqx.field(static=True)
    """Position in `FORECAST_SPECIES` [-]."""
    target: Float[Array, "*H"] = eqx.field(converter=_scalar)
    """Value to hold, one number or one per day of the horizon, in the species' unit."""
    weight: Scalar = eqx.field(converter=_scalar)
    """Relative importance [-], not negative."""
    scale: Scalar = eqx.field(converter=_scalar)
    """Deviation that counts as one in the scaled score, in the species' unit."""

    def __init__(
        self,
        species_index: int,
        target: ArrayLike,
        weight: ArrayLike = 1.0,
        *,
        scale: ArrayLike | None = None,
    ):
        """Set a target.

        Args:
            species_index: Position in `FORECAST_SPECIES`, 0 to 11.
            target: Value to hold, or one per day of the horizon, in the species' unit.
            weight: Relative importance [-].
            scale: Deviation that counts as one; the largest magnitude of the target by
                default, and 1 for a target of zero.

        Raises:
            ConfigError: If the index is not a position in `FORECAST_SPECIES`, or target, weight
                or scale are unusable.
        """
        if not 0 <= int(species_index) < len(FORECAST_SPECIES):
            raise ConfigError(
                f"species_index {species_index} is not in 0..{len(FORECAST_SPECIES) - 1}; "
                f"the forecast species are {', '.join(FORECAST_SPECIES)}."
            )
        given = [v for v in (target, weight, scale) if not isinstance(v, Tracer) and v is not None]
        finite = all(np.isfinite(np.asarray(v, float)).all() for v in given)
        if not finite or (not isinstance(weight, Tracer) and not float(weight) >= 0):  # type: ignore[arg-type]
            raise ConfigError(
                f"target={target}, weight={weight}, scale={scale} were given for "
                f"{FORECAST_SPECIES[int(species_index)]}; they must be finite, the weight not "
                "negative."
            )
        self.species_index = int(species_index)
        self.target = _scalar(target)
        self.weight = _scalar(weight)
        if scale is None:
            magnitude = jnp.max(jnp.abs(self.target))
            self.scale = jnp.where(magnitude > 0, magnitude, 1.0)
        else:
            self.scale = _scalar(scale)

    @property
    def species(self) -> str:
        """Name of the species."""
        return FORECAST_SPECIES[self.species_index]

    def squared_error(
        self, Y: Float[Array, "... H K"], hours: Float[np.ndarray, "H"] | None = None
    ) -> Float[Array, "..."]:
        """Weighted sum over the days of squared deviations, in squared units of the species.

        Args:
            Y: Trajectories, `FORECAST_SPECIES` last.
            hours: Length of each step [h]; a day by default. A step counts by its share of a
                day, so that the sum means the same whatever the steps are.

        Returns:
            Weighted sum of squares, not negative.
        """
        y = Y[..., self.species_index]
        if hours is not None:
            apart = (y - along(self.target, hours)[(None,) * (y.ndim - 1)]) ** 2
            share = jnp.asarray(hours / HOURS_PER_DAY, y.dtype)[(None,) * (y.ndim - 1)]
            return self.weight * jnp.sum(share * apart, axis=-1)
        goal = jnp.broadcast_to(self.target, y.shape[-1:]).reshape((1,) * (y.ndim - 1) + (-1,))
        return self.weight * jnp.sum((y - goal) ** 2, axis=-1)


class TargetTrackingOFV(eqx.Module):
    """Sum of squared deviations from targets over a short horizon.

    Reference:
        Gadiyar et al. (2026), section 3.2, equation 7.
    """

    targets: tuple[TargetSpec, ...]
    """What to track; at least one."""
    hybrid: Any = None
    """Fitted hybrid model, needed by `evaluate` only."""
    horizon: int = eqx.field(static=True, default=3)
    """Days ahead [d]."""
    n_samples: int = eqx.field(static=True, default=100)
    """Roll-out paths drawn by `evaluate` [-]."""
    seed: int = eqx.field(static=True, default=42)
    """Seed of those paths: the same set-points always get the same number."""
    rollout_functions: tuple[Callable, Callable] | None = eqx.field(static=True, default=None)
    """`(draw_paths, rollout)`; those of `perfusio_jax.hybrid` if not given."""
    step_h: float | None = eqx.field(static=True, default=None)
    """Length of a roll-out's step [h]; None: open, the model's own."""
    is_pareto: bool = eqx.field(static=True, default=False)
    """True keeps the targets apart."""

    def __init__(
        self,
        targets: Sequence[TargetSpec],
        hybrid: Any = None,
        horizon: int = 3,
        n_samples: int = 100,
        *,
        seed: int = 42,
        rollout_functions: tuple[Callable, Callable] | None = None,
        step_h: float | None = None,
        is_pareto: bool = False,
    ):
        """Collect targets.

        Args:
            targets: What to track, at least one.
            hybrid: Fitted hybrid model; `score_trajectories` works without.
            horizon: Days ahead [d], at least one.
            n_samples: Roll-out paths drawn by `evaluate`.
            seed: Seed of those paths.
            rollout_functions: `(draw_paths, rollout)` in place of those of
                `perfusio_jax.hybrid`; module-level functions.
            step_h: Length of a roll-out's step [h]; by default a day, in as many parts as the
                samples of a day `hybrid` learned from, and open without `hybrid`, until a policy
                or surrogate closes it. A target per day counts for all steps of its day.
            is_pareto: Whether to keep the targets apart, for hypervolume acquisitions.

        Raises:
            ConfigError: If there is no target, a size is below one, a target per day has not one
                value for each day, or a single target is to be kept apart.
        """
        self.targets = tuple(targets)
        if not self.targets:
            raise ConfigError("TargetTrackingOFV was given no targets; give at least one.")
        _check_sizes(horizon, n_samples)
        self.hybrid, self.horizon = hybrid, int(horizon)
        self.n_samples, self.seed = int(n_samples), int(seed)
        self.rollout_functions = rollout_functions
        self.is_pareto = bool(is_pareto)
        if self.is_pareto and len(self.targets) < 2:
            raise ConfigError("is_pareto keeps targets apart; it needs two or more, one was given.")
        self.step_h = open_step(hybrid, step_h)
        self.check_steps()

    def check_steps(self) -> None:
        """Refuse targets per day that do not fit the days, where the steps are no days.

        Raises:
            ConfigError: If one has not one value for each day.
        """
        for spec in self.targets if self.step_h not in (None, HOURS_PER_DAY) else ():
            if spec.target.size not in (1, self.horizon):
                raise ConfigError(
                    f"the target of {spec.species} has {spec.target.size} values; with steps of "
                    f"{self.step_h:g} h it needs one, or one for each of the {self.horizon} days "
                    "of the horizon."
                )

    @property
    def n_steps(self) -> int:
        """Steps of a roll-out over the horizon."""
        return n_steps_of(self)

    @property
    def n_objectives(self) -> int:
        """Number of objectives the search sees."""
        return len(self.targets) if self.is_pareto else 1

    def score_trajectories(self, Y: Float[Array, "... H K"]) -> Float[Array, "..."]:
        """Negative plain sum of squares: the number to report, higher is better.

        Args:
            Y: Trajectories, `FORECAST_SPECIES` last.

        Returns:
            Score, squared units of the species, at most zero.
        """
        hours = rows_of(self, Y.shape[-2])
        return -sum((t.squared_error(Y, hours) for t in self.targets), start=jnp.zeros(()))

    def scaled_score(self, Y: Float[Array, "... H K"]) -> Float[Array, "..."]:
        """Negative sum of squares of deviations in units of each target's `scale`.

        Args:
            Y: Trajectories, `FORECAST_SPECIES` last.

        Returns:
            Score [-], at most zero; -0.01 is one target missed by 10 % on one day. Targets kept
            apart have one each, `(... T)`.
        """
        hours = rows_of(self, Y.shape[-2])
        parts = [t.squared_error(Y, hours) / t.scale**2 for t in self.targets]
        if self.is_pareto:
            return -jnp.stack(parts, axis=-1)
        return -sum(parts, start=jnp.zeros(()))

    def parts(self, Y: Float[Array, "... H K"], u: Float[Array, "6"]) -> Float[Array, "... T"]:
        """Each target's part of the plain sum of squares.

        Args:
            Y: Trajectories, `FORECAST_SPECIES` last.
            u: Set-points held; they do not matter here.

        Returns:
            Squared units of each species, lower is better.
        """
        hours = rows_of(self, Y.shape[-2])
        return jnp.stack([t.squared_error(Y, hours) for t in self.targets], axis=-1)

    def evaluate(self, c0: Float[Array, "9"], u: Float[Array, "d"], *, day0: float = 0.0) -> Scalar:
        """Objective value of one candidate held over the horizon, from the mean forecast.

        Args:
            c0: Current latent state, `BALANCED` order, or samples of it `(n_samples, 9)`.
            u: Candidate set-points, `CONTROL_NAMES` order.
            day0: Process day the forecast starts from [d].

        Returns:
            Plain weighted sum of squares, lower is better.

        Raises:
            ConfigError: If no hybrid model was given.
        """
        return self.evaluate_batch(c0, jnp.asarray(u)[None, :], day0=day0)[0]

    def evaluate_batch(
        self, c0: Float[Array, "9"], u_batch: Float[Array, "B d"], *, day0: float = 0.0
    ) -> Float[Array, "B"]:
        """Objective values of several candidates under the same paths.

        Args:
            c0: Current latent state, as in `evaluate`.
            u_batch: Candidates, one per row.
            day0: Process day the forecast starts from [d].

        Returns:
            Plain weighted sums of squares, lower is better.

        Raises:
            ConfigError: If no hybrid model was given.
        """
        mean = _mean_forecasts(self, c0, u_batch, day0)
        return -self.score_trajectories(mean)


class MultiObjectiveOFV(eqx.Module):
    """Several objectives of one forecast, all to be maximised.

    An objective is `(species_index, target, direction)`: the mean over the horizon of
    `direction * (species - target)`, so direction +1 asks for more of it, -1 for less, and
    the target is the value that scores zero.
    """

    targets: Float[Array, "m"]
    """Values that score zero, in each species' unit."""
    directions: Float[Array, "m"]
    """+1 to maximise, -1 to minimise [-]."""
    hybrid: Any = None
    """Fitted hybrid model, needed by `evaluate` only."""
    species_indices: tuple[int, ...] = eqx.field(static=True, default=())
    """Positions in `FORECAST_SPECIES`."""
    horizon: int = eqx.field(static=True, default=3)
    """Days ahead [d]."""
    n_samples: int = eqx.field(static=True, default=100)
    """Roll-out paths drawn by `evaluate` [-]."""
    seed: int = eqx.field(static=True, default=42)
    """Seed of those paths."""
    rollout_functions: tuple[Callable, Callable] | None = eqx.field(static=True, default=None)
    """`(draw_paths, rollout)`; those of `perfusio_jax.hybrid` if not given."""
    step_h: float | None = eqx.field(static=True, default=None)
    """Length of a roll-out's step [h]; None: open, the model's own."""

    def __init__(
        self,
        hybrid: Any,
        objectives: Sequence[tuple[int, float, float]],
        horizon: int = 3,
        n_samples: int = 100,
        *,
        seed: int = 42,
        rollout_functions: tuple[Callable, Callable] | None = None,
        step_h: float | None = None,
    ):
        """Collect objectives.

        Args:
            hybrid: Fitted hybrid model, or None if only trajectories are scored.
            objectives: `(species_index, target, direction)` with direction +1 or -1.
            horizon: Days ahead [d].
            n_samples: Roll-out paths drawn by `evaluate`.
            seed: Seed of those paths.
            rollout_functions: `(draw_paths, rollout)` in place of those of
                `perfusio_jax.hybrid`.
            step_h: Length of a roll-out's step [h]; by default as for `TargetTrackingOFV`.

        Raises:
            ConfigError: If there is no objective, an index is unknown, or a direction is
                neither +1 nor -1.
        """
        _check_sizes(horizon, n_samples)
        if not objectives:
            raise ConfigError("MultiObjectiveOFV was given no objectives; give at least one.")
        for index, _, direction in objectives:
            if not 0 <= int(index) < len(FORECAST_SPECIES) or direction not in (1, -1):
                raise ConfigError(
                    f"objective ({index}, ..., {direction}) is not usable; the index must be in "
                    f"0..{len(FORECAST_SPECIES) - 1} and the direction +1 or -1."
                )
        self.species_indices = tuple(int(index) for index, _, _ in objectives)
        self.targets = jnp.asarray([target for _, target, _ in objectives], float)
        self.directions = jnp.asarray([direction for _, _, direction in objectives], float)
        self.hybrid, self.horizon = hybrid, int(horizon)
        self.n_samples, self.seed = int(n_samples), int(seed)
        self.rollout_functions = rollout_functions
        self.step_h = open_step(hybrid, step_h)

    @property
    def n_steps(self) -> int:
        """Steps of a roll-out over the horizon."""
        return n_steps_of(self)

    @property
    def n_objectives(self) -> int:
        """Number of objectives."""
        return len(self.species_indices)

    def score_trajectories(self, Y: Float[Array, "... H K"]) -> Float[Array, "... m"]:
        """Objective vectors of trajectories, higher is better in every entry.

        Args:
            Y: Trajectories, `FORECAST_SPECIES` last.

        Returns:
            One value per objective, in the species' unit.
        """
        y, hours = Y[..., jnp.asarray(self.species_indices)], rows_of(self, Y.shape[-2])
        if hours is None:
            y = jnp.mean(y, axis=-2)
        else:  # the mean over time, also where the last step is a shorter one
            share = jnp.asarray(hours / hours.sum(), y.dtype)
            y = jnp.sum(share[(None,) * (y.ndim - 2) + (slice(None), None)] * y, axis=-2)
        shape = (1,) * (y.ndim - 1) + (-1,)
        return self.directions.reshape(shape) * (y - self.targets.reshape(shape))

    def scaled_score(self, Y: Float[Array, "... H K"]) -> Float[Array, "... m"]:
        """Same as `score_trajectories`: a hypervolume needs no common scale."""
        return self.score_trajectories(Y)

    def evaluate(
        self, c0: Float[Array, "9"], u: Float[Array, "d"], *, day0: float = 0.0
    ) -> Float[Array, "m"]:
        """Objective vector of one candidate held over the horizon, from the mean forecast.

        Args:
            c0: Current latent state, `BALANCED` order, or samples of it `(n_samples, 9)`.
            u: Candidate set-points, `CONTROL_NAMES` order.
            day0: Process day the forecast starts from [d].

        Returns:
            One value per objective, higher is better.

        Raises:
            ConfigError: If no hybrid model was given.
        """
        return self.evaluate_batch(c0, jnp.asarray(u)[None, :], day0=day0)[0]

    def evaluate_batch(
        self, c0: Float[Array, "9"], u_batch: Float[Array, "B d"], *, day0: float = 0.0
    ) -> Float[Array, "B m"]:
        """Objective vectors of several candidates under the same paths.

        Args:
            c0: Current latent state, as in `evaluate`.
            u_batch: Candidates, one per row.
            day0: Process day the forecast starts from [d].

        Returns:
            One row per candidate.

        Raises:
            ConfigError: If no hybrid model was given.
        """
        return self.score_trajectories(_mean_forecasts(self, c0, u_batch, day0))


def hybrid_functions(given: tuple[Callable, Callable] | None) -> tuple[Callable, Callable]:
    """The functions that forecast: those given, or those of `perfusio_jax.hybrid`.

    Args:
        given: `(draw_paths, rollout)` or None.

    Returns:
        `(draw_paths, rollout)`.
    """
    if given is not None:
        return given
    from perfusio_jax.hybrid import draw_paths, rollout

    return draw_paths, rollout


def _check_sizes(horizon: int, n_samples: int) -> None:
    if horizon < 1 or n_samples < 1:
        raise ConfigError(
            f"horizon {horizon} and n_samples {n_samples} were given; both must be at least 1."
        )


def _mean_forecasts(
    ofv: TargetTrackingOFV | MultiObjectiveOFV, c0: ArrayLike, u_batch: ArrayLike, day0: float
) -> Float[Array, "B H K"]:
    """Mean trajectory of every candidate, under paths drawn from the objective's seed."""
    if ofv.hybrid is None:
        raise ConfigError(
            "this objective has no hybrid model to forecast with; pass `hybrid=` when it is "
            "made, or score trajectories of your own with `score_trajectories`."
        )
    ofv = closed(ofv, ofv.hybrid)
    draw_paths, rollout = hybrid_functions(ofv.rollout_functions)
    n, hours = ofv.n_steps, steps_of(ofv)
    longer = {"max_steps": n} if n > MOST_STEPS else {}
    paths = draw_paths(ofv.hybrid, ofv.n_samples, key=jax.random.key(ofv.seed), **longer)
    start = (jnp.asarray(c0, float), jnp.asarray(day0, float))
    controls = jnp.asarray(u_batch, float)
    steps = None if hours is None else jnp.asarray(hours)
    return _batched_mean(rollout, n, (ofv.hybrid, paths), start, (controls, steps))


@compiled
def _batched_mean(
    rollout: Rollout,
    n_steps: int,
    model: tuple[Any, Any],
    start: tuple[Array, Array],
    ahead: tuple[Array, Array | None],
) -> Array:
    (hybrid, paths), (c0, day0), (u_batch, hours) = model, start, ahead
    lengths = {} if hours is None else {"dt_h": hours}

    def one(u: Array) -> Array:
        controls = jnp.broadcast_to(u[None, :], (n_steps, u.shape[-1]))
        return jnp.mean(rollout(hybrid, paths, c0, controls, day0, **lengths), axis=0)

    return jax.lax.map(one, u_batch, batch_size=32)
