"""What a stretch of a process is worth, from its trajectories and its set-points.

A criterion reads trajectories and the set-points that were held, and returns a number people
speak of (mg/L, L per gram, pL per cell and day); `direction` says whether more of it is better.
`ProcessOFV` puts criteria together, as one weighted sum or as objectives side by side, over a
few days for a decision or over a whole run for a campaign.
"""

from collections.abc import Sequence
from typing import ClassVar, Protocol, runtime_checkable

import equinox as eqx
import jax.numpy as jnp

from perfusio_jax._core import (
    CONTROL_NAMES,
    FORECAST_SPECIES,
    HOURS_PER_DAY,
    Array,
    ArrayLike,
    ConfigError,
    Float,
)
from perfusio_jax._core.units import canonical_unit
from perfusio_jax.bed.goal.steps import n_steps_of, open_step

_PERFUSION = CONTROL_NAMES.index("perfusion_rate")
_BLEED = CONTROL_NAMES.index("bleed_rate")
_VCD = FORECAST_SPECIES.index("VCD")
_TITRE = FORECAST_SPECIES.index("Titer")
_FEW = 1e-3


def _array(value: ArrayLike) -> Array:
    return jnp.asarray(value, float)


def _position(species: str, names: Sequence[str]) -> int:
    if species not in names:
        raise ConfigError(f"species {species!r} is not forecast; choose from {', '.join(names)}.")
    return list(names).index(species)


def _mean_product(values: Array, rows: Array) -> Array:
    """Mean over the days of a value times what was set."""
    return jnp.mean(values * rows.reshape((1,) * (values.ndim - 1) + (-1,)), axis=-1)


@runtime_checkable
class Criterion(Protocol):
    """One number per trajectory, differentiable."""

    @property
    def label(self) -> str:
        """Name and unit."""
        ...

    @property
    def direction(self) -> int:
        """+1 if more is better, -1 if less is."""
        ...

    def __call__(self, Y: Float[Array, "... H K"], u: Float[Array, "6"]) -> Float[Array, "..."]:
        """Value in the unit of the label."""
        ...


class FinalValue(eqx.Module):
    """A species at the end, averaged over the last days.

    Example:
        >>> FinalValue("Titer").label
        'final Titer [mg/L]'
    """

    species_index: int = eqx.field(static=True)
    """Position in `FORECAST_SPECIES`."""
    direction: int = eqx.field(static=True)
    """+1 if more is better, -1 if less is."""
    last_days: int = eqx.field(static=True)
    """Days averaged."""
    species: str = eqx.field(static=True)
    """Its name."""
    unit: str = eqx.field(static=True)
    """Its unit."""

    def __init__(
        self,
        species: str = "Titer",
        *,
        direction: int = 1,
        last_days: int = 1,
        names: Sequence[str] = FORECAST_SPECIES,
        unit: str | None = None,
    ):
        """Choose a species.

        Args:
            species: One of the names.
            direction: +1 if more is better, -1 if less is.
            last_days: Days averaged, at least one.
            names: What is forecast, in array order.
            unit: Unit of the species; that of the library by default.

        Raises:
            ConfigError: If the species is unknown, or a number is unusable.
        """
        if direction not in (1, -1) or last_days < 1:
            raise ConfigError(
                f"direction={direction}, last_days={last_days} were given; the direction must be "
                "+1 or -1, the days at least 1."
            )
        self.species_index, self.direction = _position(species, names), int(direction)
        self.last_days, self.species = int(last_days), species
        self.unit = canonical_unit(species) if unit is None else unit

    @property
    def label(self) -> str:
        """Name and unit."""
        return f"final {self.species} [{self.unit}]"

    def __call__(self, Y: Float[Array, "... H K"], u: Float[Array, "6"]) -> Float[Array, "..."]:
        """Mean over the last days, in the species' unit."""
        return jnp.mean(Y[..., -self.last_days :, self.species_index], axis=-1)


class TrackingError(eqx.Module):
    """Root mean square distance of a species from its target, from a day on.

    The target is one number, or one per day of the horizon: a ramp or a shift.
    """

    direction: ClassVar[int] = -1
    target: Float[Array, "*H"]
    """Value to hold, in the species' unit."""
    species_index: int = eqx.field(static=True)
    """Position in `FORECAST_SPECIES`."""
    from_day: int = eqx.field(static=True)
    """First day that counts, from 0."""
    species: str = eqx.field(static=True)
    """Its name."""
    unit: str = eqx.field(static=True)
    """Its unit."""

    def __init__(
        self,
        species: str,
        target: ArrayLike,
        *,
        from_day: int = 0,
        names: Sequence[str] = FORECAST_SPECIES,
        unit: str | None = None,
    ):
        """Set a target.

        Args:
            species: One of the names.
            target: Value to hold, or one per day of the horizon, in the species' unit.
            from_day: First row of the trajectory that counts.
            names: What is forecast, in array order.
            unit: Unit of the species; that of the library by default.

        Raises:
            ConfigError: If the species is unknown, or the target not finite.
        """
        self.species_index, self.species = _position(species, names), species
        self.unit = canonical_unit(species) if unit is None else unit
        self.target = _array(target)
        if not bool(jnp.all(jnp.isfinite(self.target))) or from_day < 0:
            raise ConfigError(
                f"target {target} from day {from_day}: targets must be finite and the day at "
                "least 0."
            )
        self.from_day = int(from_day)

    @property
    def label(self) -> str:
        """Name and unit."""
        return f"distance from target of {self.species} [{self.unit}]"

    def __call__(self, Y: Float[Array, "... H K"], u: Float[Array, "6"]) -> Float[Array, "..."]:
        """Root mean square distance, in the species' unit."""
        y = Y[..., self.species_index]
        goal = jnp.broadcast_to(self.target, y.shape[-1:]).reshape((1,) * (y.ndim - 1) + (-1,))
        gap = (y - goal)[..., self.from_day :]
        # a kink at zero would stop a search that is already there
        return jnp.sqrt(jnp.mean(gap**2, axis=-1) + 1e-12)


class SquaredDistance(eqx.Module):
    """Mean square distance of a species from its target, over all steps of the horizon."""

    direction: ClassVar[int] = -1
    target: Float[Array, ""]
    """Value to hold, in the species' unit."""
    species_index: int = eqx.field(static=True)
    """Position among what is forecast."""
    species: str = eqx.field(static=True)
    """Its name."""
    unit: str = eqx.field(static=True)
    """Its unit."""

    def __init__(self, species: str, target: ArrayLike, *, names: Sequence[str], unit: str):
        """Set a target.

        Args:
            species: One of the names.
            target: Value to hold, in the species' unit.
            names: What is forecast, in array order.
            unit: Unit of the species.

        Raises:
            ConfigError: If the species is unknown, or the target not finite.
        """
        self.species_index, self.species = _position(species, names), species
        self.target, self.unit = _array(target), unit
        if not bool(jnp.isfinite(self.target)):
            raise ConfigError(f"target {target} of {species}: it must be finite.")

    @property
    def label(self) -> str:
        """Name and unit."""
        return f"squared distance from target of {self.species} [({self.unit})^2]"

    def __call__(self, Y: Float[Array, "... H K"], u: Float[Array, "M"]) -> Float[Array, "..."]:
        """Mean square distance, in the square of the species' unit."""
        return jnp.mean((Y[..., self.species_index] - self.target) ** 2, axis=-1)


class SpaceTimeYield(eqx.Module):
    """Product harvested per reactor volume and day [mg/L/d], averaged over the days."""

    direction: ClassVar[int] = 1
    label: ClassVar[str] = "space-time yield [mg/L/d]"
    from_day: int = eqx.field(static=True, default=0)
    """First day that counts, from 0."""

    def __call__(self, Y: Float[Array, "... H K"], u: Float[Array, "6"]) -> Float[Array, "..."]:
        """Titre times the cell-free harvest, which is what perfusion leaves after the bleed."""
        if u.ndim == 2:
            rows = u[self.from_day :]
            harvest = jnp.maximum(rows[:, _PERFUSION] - rows[:, _BLEED], 0.0)
            return _mean_product(Y[..., self.from_day :, _TITRE], harvest)
        harvest = jnp.maximum(u[_PERFUSION] - u[_BLEED], 0.0)
        return harvest * jnp.mean(Y[..., self.from_day :, _TITRE], axis=-1)


class MediumPerGram(eqx.Module):
    """Medium used per gram of harvested product [L/g]."""

    direction: ClassVar[int] = -1
    label: ClassVar[str] = "medium per gram [L/g]"
    from_day: int = eqx.field(static=True, default=0)
    """First day that counts, from 0."""

    def __call__(self, Y: Float[Array, "... H K"], u: Float[Array, "6"]) -> Float[Array, "..."]:
        """Perfused volume over harvested mass."""
        if u.ndim == 2:
            rows = u[self.from_day :]
            out = jnp.maximum(rows[:, _PERFUSION] - rows[:, _BLEED], _FEW)
            made = _mean_product(Y[..., self.from_day :, _TITRE], out) / 1000.0
            return jnp.mean(rows[:, _PERFUSION]) / jnp.maximum(made, _FEW)
        harvest = jnp.maximum(u[_PERFUSION] - u[_BLEED], _FEW)
        grams = harvest * jnp.mean(Y[..., self.from_day :, _TITRE], axis=-1) / 1000.0
        return u[_PERFUSION] / jnp.maximum(grams, _FEW)


class CellSpecificPerfusion(eqx.Module):
    """Perfusion per viable cell [pL/cell/d], averaged over the days."""

    label: ClassVar[str] = "cell-specific perfusion [pL/cell/d]"
    direction: int = eqx.field(static=True, default=-1)
    """-1: the less medium a cell needs, the better."""
    from_day: int = eqx.field(static=True, default=0)
    """First day that counts, from 0."""

    def __call__(self, Y: Float[Array, "... H K"], u: Float[Array, "6"]) -> Float[Array, "..."]:
        """1 vvd at 1e6 cells/mL is 1000 pL/cell/d."""
        cells = jnp.maximum(Y[..., self.from_day :, _VCD], _FEW)
        if u.ndim == 2:
            return _mean_product(1.0 / cells, 1000.0 * u[self.from_day :, _PERFUSION])
        return jnp.mean(1000.0 * u[_PERFUSION] / cells, axis=-1)


class ProcessOFV(eqx.Module):
    """Criteria put together: one weighted sum, or objectives side by side.

    Example:
        >>> ofv = ProcessOFV([SpaceTimeYield(), MediumPerGram()], scales=[500.0, 2.0])
        >>> ofv.n_objectives
        1
    """

    criteria: tuple[Criterion, ...]
    """What counts; at least one."""
    weights: Float[Array, "m"]
    """Relative importance [-]."""
    scales: Float[Array, "m"]
    """Difference that counts as one, in each criterion's unit."""
    horizon: float = eqx.field(static=True)
    """Days ahead [d]; a whole number, unless the criteria see every step."""
    is_pareto: bool = eqx.field(static=True)
    """True keeps the criteria apart."""
    step_h: float | None = eqx.field(static=True, default=None)
    """Length of a roll-out's step [h], None: open, the model's own; the criteria see the whole
    days."""
    is_stepwise: bool = eqx.field(static=True, default=False)
    """True lets the criteria see every step in place of the ends of the days."""

    def __init__(
        self,
        criteria: Sequence[Criterion],
        *,
        weights: ArrayLike | None = None,
        scales: ArrayLike | None = None,
        horizon: float = 3,
        is_pareto: bool = False,
        step_h: float | None = None,
        is_stepwise: bool = False,
    ):
        """Put criteria together.

        Args:
            criteria: What counts.
            weights: Relative importance, one each by default; unused for a front.
            scales: Difference that counts as one; 1 by default.
            horizon: Days ahead [d]; whole ones, unless the criteria see every step.
            is_pareto: Whether to keep the criteria apart, for hypervolume acquisitions.
            step_h: Length of a roll-out's step [h]; open by default, until a policy, surrogate or
                campaign closes it with the model's own. Criteria count by days and see the end of
                each, so a day must be a whole number of steps.
            is_stepwise: Whether the criteria see every step instead; steps of any length will do.

        Raises:
            ConfigError: If there is no criterion, or a weight, scale or step is unusable.
        """
        self.criteria = tuple(criteria)
        m = len(self.criteria)
        self.weights = jnp.ones(m) if weights is None else _array(weights)
        self.scales = jnp.ones(m) if scales is None else _array(scales)
        if m == 0 or self.weights.shape != (m,) or self.scales.shape != (m,):
            raise ConfigError(
                f"{m} criteria with weights of shape {self.weights.shape} and scales of shape "
                f"{self.scales.shape}; give at least one criterion, and one weight and scale each."
            )
        if not bool(jnp.all(self.scales > 0)) or not bool(jnp.all(self.weights >= 0)):
            raise ConfigError("scales must be above 0 and weights not negative.")
        is_short = is_stepwise and 0 < horizon < 1
        if not (horizon >= 1 or is_short) or (is_pareto and m < 2):
            raise ConfigError(
                f"horizon={horizon} with {m} criteria: the horizon must be at least 1, and a "
                "front needs two criteria or more."
            )
        is_part = is_stepwise and horizon != int(horizon)
        self.horizon, self.is_pareto = float(horizon) if is_part else int(horizon), bool(is_pareto)
        self.step_h, self.is_stepwise = open_step(None, step_h), bool(is_stepwise)
        self.check_steps()

    def check_steps(self) -> None:
        """Refuse steps that do not meet the ends of the days.

        Raises:
            ConfigError: If a day is no whole number of steps.
        """
        if self.step_h is None or self.is_stepwise:
            return
        if abs(self._steps_a_day * self.step_h - HOURS_PER_DAY) > 1e-6:
            raise ConfigError(
                f"step_h={self.step_h:g} h was given; criteria count by days, so a day must "
                "be a whole number of steps (24, 12, 8, 6, ... h). Leave it out, or track targets."
            )

    @property
    def n_steps(self) -> int:
        """Steps of a roll-out over the horizon."""
        return n_steps_of(self)

    @property
    def _steps_a_day(self) -> int:
        return 1 if self.step_h is None else round(HOURS_PER_DAY / self.step_h)

    @property
    def n_objectives(self) -> int:
        """Number of objectives the search sees."""
        return len(self.criteria) if self.is_pareto else 1

    def values(self, Y: Float[Array, "... H K"], u: Float[Array, "6"]) -> Float[Array, "... m"]:
        """Each criterion in its own unit and sign.

        Args:
            Y: Trajectories, `FORECAST_SPECIES` last; a row is a day while the step is open.
            u: Set-points held, `CONTROL_NAMES` order, or those of every step, of which criteria
                see the means over the days.

        Returns:
            One value per criterion.
        """
        often = 1 if self.is_stepwise else self._steps_a_day
        if often > 1 and u.ndim == 2:
            u = jnp.mean(u.reshape(-1, often, u.shape[-1]), axis=1)
        if often > 1:
            Y = Y[..., often - 1 :: often, :]
        return jnp.stack([criterion(Y, u) for criterion in self.criteria], axis=-1)

    def parts(self, Y: Float[Array, "... H K"], u: Float[Array, "6"]) -> Float[Array, "... m"]:
        """What each criterion costs: its part of the negative scaled score [-].

        Args:
            Y: Trajectories.
            u: Set-points held.

        Returns:
            Weighted, scaled, lower is better.
        """
        signs = jnp.asarray([-float(c.direction) for c in self.criteria])
        return self.values(Y, u) * (signs * self.weights / self.scales).reshape(
            (1,) * (Y.ndim - 2) + (-1,)
        )

    def score_with_controls(
        self, Y: Float[Array, "... H K"], u: Float[Array, "6"]
    ) -> Float[Array, "..."]:
        """Scaled score, higher is better.

        Args:
            Y: Trajectories.
            u: Set-points held.

        Returns:
            One number per trajectory, or one per objective for a front.
        """
        parts = -self.parts(Y, u)
        return parts if self.is_pareto else jnp.sum(parts, axis=-1)
