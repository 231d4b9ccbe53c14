"""What a recommendation must keep: state constraints by chance, set-point limits by geometry.

Limits on set-points (bounds, rate of change, linear constraints) are kept exactly by the
search. Constraints on the culture can only be kept in probability; they enter the acquisition
as a log feasibility, and the final choice is checked against the exact count of paths.
"""

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import CONTROL_NAMES, FORECAST_SPECIES, Array, ConfigError, Float


def _scalar(value: Any) -> Array:
    return jnp.asarray(value, float)


class ChanceConstraint(eqx.Module):
    """`P(limit kept on every day of the horizon) >= probability`, on latent samples."""

    minimum: Float[Array, ""] = eqx.field(converter=_scalar)
    """Lower limit of the species, in its unit; viability [%] by default."""
    probability: Float[Array, ""] = eqx.field(converter=_scalar, default=0.9)
    """Share of the paths that must keep it [-]."""
    temperature: Float[Array, ""] = eqx.field(converter=_scalar, default=0.1)
    """Width of the smooth step, in the species' unit."""
    backoff: Float[Array, ""] = eqx.field(converter=_scalar, default=0.3)
    """Distance inside the limit where the step sits, in the species' unit: three widths keep
    the optimum of the acquisition on the feasible side."""
    species_index: int = eqx.field(static=True, default=FORECAST_SPECIES.index("Via"))
    """Position in `FORECAST_SPECIES`."""
    is_upper: bool = eqx.field(static=True, default=False)
    """True if `minimum` is a value not to be exceeded."""
    species: str | None = eqx.field(static=True, default=None)
    """Its name, where it is none of `FORECAST_SPECIES`."""
    value: Any = None
    """What of a whole run is limited, a criterion; None: the species, on every day."""

    @property
    def label(self) -> str:
        """The limit in words, without its number."""
        if self.value is not None:
            return f"{self.value.text} {'<=' if self.is_upper else '>='}"
        name = FORECAST_SPECIES[self.species_index] if self.species is None else self.species
        return f"{name} {'<=' if self.is_upper else '>='}"


Chance = ChanceConstraint | tuple[ChanceConstraint, ...] | None
"""One constraint, several, or none."""


def each_constraint(chance: Chance) -> tuple[ChanceConstraint, ...]:
    """Constraints as a tuple.

    Args:
        chance: One, several, or None.

    Returns:
        All of them.
    """
    if chance is None:
        return ()
    return chance if isinstance(chance, tuple) else (chance,)


def worst_margin(
    samples: Float[Array, "S q H K"],
    constraint: ChanceConstraint,
    u: Float[Array, "..."] | None = None,
) -> Float[Array, "S q"]:
    """Smallest distance to the limit over the horizon, per path and candidate.

    Args:
        samples: Latent forecast samples, `FORECAST_SPECIES` last.
        constraint: The limit.
        u: Set-points of the candidates, held or of every step; needed where the limit is of a
            whole run.

    Returns:
        Margin in the species' unit; negative where the limit is crossed on some day.

    Raises:
        ConfigError: If a limit of a whole run is asked for and the set-points are not known.
    """
    if constraint.value is not None:
        if u is None:
            raise ConfigError(
                f"{constraint.label} is a limit of a whole run, which a proposal of runs can keep; "
                "a decision of a day keeps limits as NAME>=value."
            )
        room = constraint.value(samples, u) - constraint.minimum
        return -room if constraint.is_upper else room
    room = samples[..., constraint.species_index] - constraint.minimum
    return jnp.min(-room if constraint.is_upper else room, axis=-1)


def probability_kept(
    samples: Float[Array, "S q H K"], constraint: ChanceConstraint
) -> Float[Array, "q"]:
    """Share of the paths that keep the limit on every day: the exact count.

    Args:
        samples: Latent forecast samples, `FORECAST_SPECIES` last.
        constraint: The limit.

    Returns:
        Probability estimate [-] of each candidate.
    """
    return jnp.mean(jnp.asarray(worst_margin(samples, constraint) >= 0, float), axis=0)


def probability_all_kept(samples: Float[Array, "S q H K"], chance: Chance) -> Float[Array, "q"]:
    """Share of the paths that keep every limit on every day; 1 without a constraint.

    Args:
        samples: Latent forecast samples, `FORECAST_SPECIES` last.
        chance: The limits.

    Returns:
        Probability estimate [-] of each candidate.
    """
    kept = jnp.ones(samples.shape[:2], bool)
    for constraint in each_constraint(chance):
        kept = kept & (worst_margin(samples, constraint) >= 0)
    return jnp.mean(jnp.asarray(kept, float), axis=0)


def chance_feasibility(
    samples: Float[Array, "S q H K"], constraint: ChanceConstraint
) -> Float[Array, "q"]:
    """Smooth log feasibility of each candidate, with a gradient however far it is from legal.

    The share of paths that keep the limit is at least `p` exactly when the `1 - p` quantile of
    the worst margins (the order statistic, no interpolation) is not negative. That quantile,
    not the flat share itself, goes into a logistic step, so that an illegal state is led back.

    Args:
        samples: Latent forecast samples, `FORECAST_SPECIES` last.
        constraint: The limit.

    Returns:
        Log feasibility, at most zero; about linear in the violation once violated.
    """
    return margin_feasibility(worst_margin(samples, constraint), constraint)


def margin_feasibility(
    margins: Float[Array, "S q"], constraint: ChanceConstraint
) -> Float[Array, "q"]:
    """`chance_feasibility` of candidates whose worst margins are known.

    Args:
        margins: Worst margin per path and candidate, in the species' unit.
        constraint: The limit.

    Returns:
        Log feasibility, at most zero.
    """
    margin = jnp.sort(margins, axis=0)
    n = margin.shape[0]
    # tolerance: (1 - 0.9) * 10 is 0.99999 in floating point, and means one path
    allowed = jnp.floor((1.0 - constraint.probability) * n + 1e-6)
    rank = jnp.clip(jnp.asarray(allowed, int), 0, n - 1)
    quantile = margin[rank]
    return jax.nn.log_sigmoid((quantile - constraint.backoff) / constraint.temperature)


class ControlCost(eqx.Module):
    """Deterministic cost of set-points: moving them, and crossing soft bounds."""

    reference: Float[Array, "d"]
    """Set-points in force, from which moves are counted."""
    width: Float[Array, "d"]
    """Width of the design space per control, unit of the control."""
    lower: Float[Array, "d"]
    """Bounds beyond which the soft penalty starts."""
    upper: Float[Array, "d"]
    """Bounds beyond which the soft penalty starts."""
    move_weight: Float[Array, ""] = eqx.field(converter=_scalar, default=0.0)
    """Cost of moving one control across its whole range, in scaled score [-]."""
    soft_weight: Float[Array, ""] = eqx.field(converter=_scalar, default=0.0)
    """Cost of crossing a soft bound by the whole range, in scaled score [-]."""

    def __call__(self, x: Float[Array, "d"]) -> Float[Array, ""]:
        """Cost of one candidate.

        Args:
            x: Set-points.

        Returns:
            Cost in scaled score [-], not negative.
        """
        width = jnp.where(self.width > 0, self.width, 1.0)
        move = jnp.sum(((x - self.reference) / width) ** 2)
        outside = jnp.maximum(self.lower - x, 0.0) + jnp.maximum(x - self.upper, 0.0)
        return self.move_weight * move + self.soft_weight * jnp.sum((outside / width) ** 2)


class ControlLimits(eqx.Module):
    """Everything a set-point vector must keep, as arrays.

    Built by `control_limits` from a design space; `box` intersects it with the rate limits.
    """

    lower: Float[Array, "d"]
    """Lower bounds, unit of each control."""
    upper: Float[Array, "d"]
    """Upper bounds, unit of each control."""
    soft_margin_lower: Float[Array, "d"]
    """How far a soft lower bound may be crossed, unit of each control; 0 if hard."""
    soft_margin_upper: Float[Array, "d"]
    """How far a soft upper bound may be crossed, unit of each control; 0 if hard."""
    max_change: Float[Array, "d"]
    """Largest change from the last read-back in one decision; infinite if unlimited."""
    A: Float[Array, "m d"]
    """Rows of linear constraints `A u <= b`."""
    b: Float[Array, "m"]
    """Right-hand sides."""

    def box(self, u_now: Float[Array, "d"]) -> tuple[Float[Array, "d"], Float[Array, "d"]]:
        """Bounds of the next decision: design space, soft margins and rate limits.

        A read-back outside the design space is led back as fast as the rate limit allows: while
        no step reaches the space, the longest step towards it is the only one left. The rate
        limit is never broken, and the lower bound never lies above the upper one.

        Args:
            u_now: Last read-back.

        Returns:
            Lower and upper bounds.
        """
        low = self.lower - self.soft_margin_lower
        high = self.upper + self.soft_margin_upper
        least, most = u_now - self.max_change, u_now + self.max_change
        return (
            jnp.clip(jnp.clip(least, low, high), least, most),
            jnp.clip(jnp.clip(most, low, high), least, most),
        )


def bleed_below_perfusion(
    control_names: Sequence[str] = CONTROL_NAMES, fraction: float = 1.0
) -> tuple[Float[np.ndarray, "m d"], Float[np.ndarray, "m"]]:
    """Volume balance as a linear constraint: `bleed_rate <= fraction * perfusion_rate`.

    Args:
        control_names: Names of the controls, in array order.
        fraction: Largest share of the perfusion that may leave as bleed [-].

    Returns:
        One row `(A, b)`, or none if either control is not among the names.
    """
    names = list(control_names)
    if not {"bleed_rate", "perfusion_rate"} <= set(names):
        return np.zeros((0, len(names))), np.zeros(0)
    row = np.zeros((1, len(names)))
    row[0, names.index("bleed_rate")] = 1.0
    row[0, names.index("perfusion_rate")] = -fraction
    return row, np.zeros(1)


def control_limits(
    design_space: Any,
    *,
    max_change: dict[str, float] | None = None,
    soft_margin: float = 0.05,
    linear: tuple[Any, Any] | None = None,
) -> ControlLimits:
    """Arrays of limits from a design space.

    Args:
        design_space: A `config.DesignSpace`.
        max_change: Largest change per decision by control name, in the control's unit.
        soft_margin: How far a soft bound may be crossed, as a share of the range [-].
        linear: `(A, b)` of further constraints `A u <= b`; bleed at most perfusion is always
            among them where both controls exist.

    Returns:
        Limits with controls in the design space's order.

    Raises:
        ConfigError: If the space has no controls, or `max_change` names an unknown control or
            is not positive.
    """
    names = list(design_space.control_names)
    if not names:
        raise ConfigError("the design space has no controls; add at least one ControlBounds.")
    for name, change in (max_change or {}).items():
        if name not in names or not change > 0:
            raise ConfigError(
                f"max_change {name}={change} is not usable; give a positive change for one of "
                f"{', '.join(names)}."
            )
    bounds = [design_space.control_bounds[name] for name in names]
    lower = np.array([bound.lo for bound in bounds], float)
    upper = np.array([bound.hi for bound in bounds], float)
    margin = soft_margin * (upper - lower)
    A, b = bleed_below_perfusion(names)
    if linear is not None:
        A = np.concatenate([A, np.atleast_2d(np.asarray(linear[0], float))])
        b = np.concatenate([b, np.atleast_1d(np.asarray(linear[1], float))])
    changes = [(max_change or {}).get(name, math.inf) for name in names]
    return ControlLimits(
        lower=jnp.asarray(lower),
        upper=jnp.asarray(upper),
        soft_margin_lower=jnp.asarray(np.where([c.hard_lower for c in bounds], 0.0, margin)),
        soft_margin_upper=jnp.asarray(np.where([c.hard_upper for c in bounds], 0.0, margin)),
        max_change=jnp.asarray(np.array(changes, float)),
        A=jnp.asarray(A),
        b=jnp.asarray(b),
    )
