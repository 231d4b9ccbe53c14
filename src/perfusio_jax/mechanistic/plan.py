"""What a batched integration is given and what it returns."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from perfusio_jax.mechanistic.rosenbrock import RODAS4, Tableau
from perfusio_jax.mechanistic.vector_field import N_PLANT, DayInputs, Parts

N_STATE = N_PLANT + 1
N_STREAMS = 4

Totals = Literal["none", "streams", "balance"]
"""What is integrated beside the state: nothing; the volumes of perfusion, bleed, glucose and
harvest [L]; or these after the inflow, outflow and reaction of every species [amount]."""

N_TOTALS: Final[Mapping[Totals, int]] = MappingProxyType(
    {"none": 0, "streams": N_STREAMS, "balance": 3 * N_PLANT + N_STREAMS}
)
"""Columns of the totals by kind."""

FLOOR: Final[tuple[float, ...]] = (1e-2, 1e-2, 1e-1, 1e-2, 1e-2, 1e-2, 1e-1, 1e-2, 1e-2, 1.0, 1e-5)
"""Concentrations [units of `PLANT_SPECIES`] and volume [L] below which the error is measured in
parts of this number instead of parts of the value: about 1e-3 of each species' range."""


class Tolerances(eqx.Module):
    """Accuracy of the adaptive integrator; all traced, so that a change does not recompile."""

    rtol: Array = eqx.field(converter=lambda v: jnp.asarray(v, float), default=3e-4)
    """Local error a step may make, in parts of `|value| + atol * FLOOR` [-]."""
    atol: Array = eqx.field(converter=lambda v: jnp.asarray(v, float), default=1.0)
    """Factor on `FLOOR`; the absolute tolerance is `rtol * atol * FLOOR` [-]."""
    first_step: Array = eqx.field(converter=lambda v: jnp.asarray(v, float), default=0.1)
    """First step tried [h]."""

    def for_slopes(self, dtype: jnp.dtype) -> "Tolerances":
        """Accuracy of a run whose derivative is taken: 1e-5 or finer (1e-4 in single precision).

        Where a step crosses the corner of a pump that begins to feed, its value is within what is
        allowed, and the slope of that value, steps held, is not: at 3e-4 slopes were seen ten times
        too large and of the wrong sign beside values that were right to 2e-5.

        Args:
            dtype: Precision of the run.
        """
        finest = 1e-5 if dtype == jnp.float64 else 1e-4
        return dataclasses.replace(self, rtol=jnp.minimum(self.rtol, finest))


class Plan(NamedTuple):
    """Runs to integrate; the last axis is always the lane."""

    initial: Float[Array, "11 lanes"]
    """Ten concentrations and the volume at the start."""
    inputs: DayInputs
    """Constants per interval; entries (n_intervals, lanes), or (1, lanes) if they never change."""
    lengths: Float[Array, "n_intervals lanes"]
    """Length of each interval [h]."""
    removed: Float[Array, "n_intervals lanes"] | None = None
    """Volume taken as sample at the start of each interval [L]; None if none ever is."""
    bolus: Float[Array, "n_intervals 11 lanes"] | None = None
    """Amounts and volume added at the start of each interval, after the sample; None if none."""

    @property
    def has_events(self) -> bool:
        """Whether samples or boluses change the state at interval starts."""
        return self.removed is not None or self.bolus is not None


class LaneSolution(NamedTuple):
    """What the integrator returns per lane; a failed lane is NaN after the start."""

    states: Float[Array, "n_samples 11 lanes"]
    """Ten concentrations and the volume [L] at every sample, the start included."""
    totals: Float[Array, "n_samples n_totals lanes"]
    """Cumulative totals since the start, as many rows as the method asks for."""
    result: Int[Array, " lanes"]
    """Result codes."""
    n_steps: Int[Array, " lanes"]
    """Steps tried."""


class Method(NamedTuple):
    """Static choices; one compile for each."""

    tableau: Tableau = RODAS4
    max_steps: int = 4096
    """Steps a lane may try per interval. A bound on time, not on memory."""
    totals: Totals = "none"
    """What to integrate beside the state."""
    recorded_steps: int = 32
    """Steps per interval, on average over the run, that a derivative can go through (and 64
    more for the start). The memory of a derivative grows with it; a run that takes more steps
    ends with the code MAX_STEPS, in derivatives only."""

    def record_size(self, n_intervals: int) -> int:
        """Steps a derivative can go through in all."""
        return self.recorded_steps * n_intervals + 64


DEFAULT_METHOD = Method()


def to_amounts(c: Float[Array, "11 lanes"]) -> Parts:
    """Ten amounts and the volume from ten concentrations and the volume."""
    return (*(c[k] * c[N_PLANT] for k in range(N_PLANT)), c[N_PLANT])


def to_concentrations(y: Parts) -> Float[Array, "11 lanes"]:
    """Ten concentrations and the volume from ten amounts and the volume."""
    return jnp.stack([*(y[k] / y[N_PLANT] for k in range(N_PLANT)), y[N_PLANT]])


def at_day(inputs: DayInputs, day: Array) -> DayInputs:
    """Constants of each lane's own interval."""
    if inputs.perfusion.shape[0] == 1:
        return DayInputs(*(v[0] for v in inputs))
    index = jnp.minimum(day, inputs.perfusion.shape[0] - 1)[None, :]
    return DayInputs(*(jnp.take_along_axis(v, index, axis=0)[0] for v in inputs))


def apply_events(plan: Plan, day: Array, y: Parts) -> Parts:
    """Take each lane's well-mixed sample of a day, then add its bolus.

    Args:
        plan: With events.
        day: Interval about to begin, per lane.
        y: Amounts and volume.
    """
    lanes = jnp.arange(day.shape[0])
    if plan.removed is not None:
        keep = 1.0 - plan.removed[day, lanes] / y[N_PLANT]
        y = tuple(v * keep for v in y)
    if plan.bolus is not None:
        added = plan.bolus[day, :, lanes]
        y = tuple(v + added[:, k] for k, v in enumerate(y))
    return y


def select(mask: Array, new: Parts, old: Parts) -> Parts:
    """`new` where the mask says so, else `old`."""
    return tuple(jnp.where(mask, a, b) for a, b in zip(new, old, strict=True))
