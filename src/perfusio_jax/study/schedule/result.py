"""A schedule that was found, and what is said of it."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from perfusio_jax._core.text import shown_unit
from perfusio_jax.study.outputs import Output
from perfusio_jax.study.schedule.limits import Limit

FEASIBLE = 1e-5
"""How far beyond a limit a schedule counts as within it [of the limit's scale]."""


class Kept(NamedTuple):
    """How a schedule stands to one limit."""

    limit: Limit
    """The limit."""
    value: float
    """What comes nearest to it, or furthest beyond; with several draws their mean [its unit]."""
    output: Output
    """Where that is."""
    slack: float
    """Room to the limit, margin counted; below zero if it is not kept [its unit]."""
    share: float
    """Draws of the constants that keep it [-]."""
    price: float
    """What one unit of room more would add to the objective; zero where there is room."""


class Schedule(NamedTuple):
    """A schedule, and what it gives."""

    hours: Float[np.ndarray, " T+1"]
    """Starts of the intervals, and the end [h]."""
    names: tuple[str, ...]
    """Controls, all of the run."""
    units: tuple[str, ...]
    """Their units."""
    controls: Float[np.ndarray, "T M"]
    """Set-points by interval; amounts of boluses."""
    moved: tuple[str, ...]
    """Controls that were chosen."""
    objective: Output
    """What was asked for."""
    is_largest: bool
    """Whether the most of it was sought, not the least."""
    value: float
    """What it gives; with several draws the mean [unit of the objective]."""
    spread: float
    """Standard deviation over the draws of the constants [same unit]; zero of one."""
    n_draws: int
    """Draws of the constants it was found for."""
    before: float
    """What the schedule gave that was there at the beginning [same unit]."""
    constant: float
    """What the best constant schedule that keeps the limits gives; NaN if none does [same unit]."""
    kept: tuple[Kept, ...]
    """Limits."""
    at_bounds: tuple[str, ...]
    """Set-points that stand at an end of their range somewhere, in words."""
    is_feasible: bool
    """Whether all limits are kept."""
    is_converged: bool
    """Whether the search came to its end."""
    n_looks: int
    """How often a schedule was run with its derivatives."""
    n_failed: int
    """How many schedules could not be run on the way."""

    def lines(self) -> list[str]:
        """What was found, in words."""
        sought = shown_unit(self.objective.unit)
        what = f"{self.objective.name} {_number(self.value)} {sought}"
        if self.spread > 0.0:
            what += f" (deviation over the draws {_number(self.spread)})"
        said = [f"{what}; it was {_number(self.before)} to begin with"]
        if np.isfinite(self.constant):
            said.append(
                f"the best schedule without changes gives {_number(self.constant)} {sought}"
            )
        if not self.is_feasible:
            said.append("no schedule was found that keeps all limits; this one comes nearest")
        for one in self.kept:
            unit = shown_unit(one.output.unit)
            place = f"{one.output.name} is {_number(one.value)} {unit}"
            if one.slack < -FEASIBLE * scale_of(one.limit):
                word = f"not kept by {_number(-one.slack)}"
            elif one.price > 0.0:
                word = (
                    f"reached; one {unit or 'unit'} of room more is worth {_number(one.price)} "
                    f"{sought}"
                )
            else:
                word = "kept"
            share = (
                ""
                if one.share >= 1.0 or self.n_draws == 1
                else f", in {100.0 * one.share:.0f} % of the draws"
            )
            said.append(f"{one.limit.text}: {word} ({place}{share})")
        said += list(self.at_bounds)
        if self.is_feasible and not self.is_converged:
            said.append("the search was ended before it came to rest; ask for fewer pieces")
        if self.n_failed:
            said.append(f"{self.n_failed} schedules could not be run and were passed over")
        return said


def scale_of(limit: Limit) -> float:
    """In what parts room to a limit is measured [unit of the limit]."""
    return max(abs(limit.bound), 1e-3)


def _number(value: float) -> str:
    return f"{value:.4g}"
