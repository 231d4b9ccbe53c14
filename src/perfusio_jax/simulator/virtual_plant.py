"""Any described culture as a plant of known truth: exact balances around a mechanism.

The state is the concentration of everything that is carried, every level, and the volume, measured
or not. With amounts n = V C, flows F of the streams and the mechanism's rates r,

    dn/dt = sum_in F c - sum_out F s C + V r(C, u, V)
    dl/dt = r(C, u, V)                      for a level l
    dV/dt = sum_in F - sum_out F

with c what enters by a stream and s the share of a quantity that leaves. Amounts are integrated,
so that what a mechanism only turns into each other is conserved to rounding where nothing leaves. A
rate sees no concentration below zero. Boluses are given at the start of an interval, after what a
sample took. A control of role target works a proportional pump; see `pumping`.
"""

from collections.abc import Mapping
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from perfusio_jax._core import ConfigError, Result, Scalar
from perfusio_jax.mechanistic import Mechanism
from perfusio_jax.mechanistic.any_field import Accuracy, advance_field
from perfusio_jax.mechanistic.mechanism import check_rates
from perfusio_jax.process import Process, bolus_amounts, bolus_volumes
from perfusio_jax.process.laws import laws_of

from .pumping import flow_rates, plant_flows

_BELOW = 5e-10
"""How far below zero a concentration may be by rounding [its unit]."""
_BELOW_SINGLE = 1e-5
_EMPTY = 1e-3
"""Part of the volume at the start at which a vessel counts as empty [-]."""


def _leaf(value: ArrayLike) -> Array:
    return jnp.asarray(value, float)


class VirtualPlant(eqx.Module):
    """A culture whose truth is known; make it with `virtual_plant`."""

    mechanism: Mechanism
    """Its rates."""
    contents: dict[str, Float[Array, " K"]]
    """Concentrations of what enters, by stream, in the order of `process.carried`."""
    volume_L: Scalar = eqx.field(converter=_leaf)
    """Volume at the start [L]."""
    bolus: Float[Array, "n M"] = eqx.field(converter=_leaf)
    """What one unit of each control adds to each state's amount [unit of the state, L]."""
    bolus_L: Float[Array, " M"] = eqx.field(converter=_leaf)
    """Volume that comes with it [L]."""
    pump_gain: Float[Array, " L"] = eqx.field(converter=_leaf)
    """Rate per deviation from a target at which its pump brings the quantity back, by law [1/h]."""
    largest_flow: Float[Array, " L"] = eqx.field(converter=_leaf)
    """Most each pump law lets flow [vessel volumes / h]."""
    rtol: Scalar = eqx.field(converter=_leaf)
    """Local error of the integrator in parts of a value [-]."""
    atol: Scalar = eqx.field(converter=_leaf)
    """Local error of the integrator near zero [unit of each quantity]."""
    process: Process = eqx.field(static=True)
    """The culture."""
    states: tuple[str, ...] = eqx.field(static=True)
    """Names of what is carried and of levels, in the order of the process."""
    max_steps: int = eqx.field(static=True)
    """Most steps within an interval."""
    forward_only: bool = eqx.field(static=True, default=False)
    """Whether derivatives are taken in forward mode alone; see `advance_field`."""

    def amounts(self, state: Float[Array, " n"], volume_L: Scalar) -> Float[Array, " n"]:
        """Amount of what is carried, and levels as they are."""
        return jnp.where(self._is_carried(), state * volume_L, state)

    def concentrations(self, held: Float[Array, " n"], volume_L: Scalar) -> Float[Array, " n"]:
        """The reverse of `amounts`."""
        return jnp.where(self._is_carried(), held / volume_L, held)

    def slopes(
        self, state: Float[Array, " n"], volume_L: Scalar, controls: Float[Array, " M"]
    ) -> tuple[Float[Array, " n"], Scalar, Float[Array, " S"]]:
        """Right-hand side.

        Args:
            state: Concentrations and levels [their units].
            volume_L: Volume [L].
            controls: Set-points, in the order of the process.

        Returns:
            Rate of every amount [unit L/h] and level [unit/h], of the volume [L/h], and the flow
            of every stream [L/h].
        """
        process = self.process
        is_carried = self._is_carried()
        known = jnp.where(is_carried & (state < 0.0), 0.0, state)
        environment = {name: controls[i] for i, name in enumerate(process.control_names)}
        environment["volume_L"] = volume_L
        named = {name: known[k] for k, name in enumerate(self.states)}
        rates = self.mechanism.rates(named, environment)
        made = jnp.stack([jnp.asarray(rates.get(n, 0.0), state.dtype) for n in self.states])
        if not process.streams:
            flows = jnp.zeros(0, state.dtype)
            return jnp.where(is_carried, volume_L * made, made), jnp.zeros(()), flows
        found, pumped = plant_flows(
            process,
            controls,
            volume_L,
            {name: state[k] for k, name in enumerate(self.states)},
            contents=self.contents,
            gain=self.pump_gain,
            largest=self.largest_flow,
        )
        place = {name: i for i, name in enumerate(process.carried)}
        pick = np.asarray([place.get(name, 0) for name in self.states])
        moved = found.supply[pick] - found.clearance()[pick] * state
        rate = jnp.where(is_carried, moved + volume_L * made, made)
        biomass = None if process.biomass is None else state[self.states.index(process.biomass)]
        flows = flow_rates(process, controls, volume_L, pumped, biomass)
        return rate, found.volume_rate(), flows

    def advance(
        self,
        state: Float[Array, " n"],
        volume_L: Scalar,
        controls: Float[Array, " M"],
        length_h: Scalar,
    ) -> "Interval":
        """Take a culture over one interval, boluses first.

        Args:
            state: Concentrations and levels at the start.
            volume_L: Volume at the start [L], sample already taken.
            controls: Set-points.
            length_h: Length [h].

        Returns:
            The end of the interval; see `Interval.result`.
        """
        n = len(self.states)
        start = self.amounts(state, volume_L) + self.bolus @ controls
        volume_L = volume_L + self.bolus_L @ controls
        y = jnp.concatenate([start, volume_L[None], jnp.zeros(len(self.process.streams))])
        is_moving = not self.process.is_constant_volume

        def field(y: Array, inputs: tuple[VirtualPlant, Array]) -> Array:
            plant, u = inputs
            volume = y[n]
            now = plant.concentrations(y[:n], volume)
            rate, swelling, flows = plant.slopes(now, volume, u)
            if not is_moving:  # the closing stream keeps it, and rounding is to do the same
                swelling = jnp.zeros_like(volume)
            return jnp.concatenate([rate, swelling[None], flows])

        arrays, rest = eqx.partition(self, eqx.is_array)
        is_legal = self._is_legal(self.concentrations(start, volume_L), volume_L, controls)
        length = jnp.where(is_legal, length_h, jnp.nan)
        end = advance_field(
            lambda y, inputs: field(y, (eqx.combine(inputs[0], rest), inputs[1])),
            y,
            length,
            (arrays, controls),
            self._accuracy(volume_L),
            max_steps=self.max_steps,
            forward_only=self.forward_only,
        )
        backwards = jnp.any(end.y[n + 1 :] < -1e-9 * volume_L)
        unsound = (end.result == Result.SUCCESS.value) & backwards
        result = jnp.where(unsound, Result.BAD_INPUT.value, end.result)
        good = result == Result.SUCCESS.value
        lost = jnp.asarray(jnp.nan, y.dtype)
        volume = jnp.where(good, end.y[n], lost)
        return Interval(
            state=jnp.where(good, self.concentrations(end.y[:n], end.y[n]), lost),
            volume_L=volume,
            flowed_L=jnp.where(good, end.y[n + 1 :], lost),
            result=result,
            n_steps=end.n_steps,
        )

    def _is_carried(self) -> np.ndarray:
        return np.asarray([name in self.process.carried for name in self.states])

    def _is_legal(self, state: Array, volume_L: Array, controls: Array) -> Array:
        """Whether the numbers mean anything, and the closing stream does not flow backwards."""
        legal = jnp.all(jnp.isfinite(controls)) & jnp.isfinite(volume_L) & (volume_L > 0.0)
        negative = self._is_carried() & (state < -2.0 * self._slack(state.dtype))
        legal &= jnp.all(jnp.isfinite(state)) & ~jnp.any(negative)
        if self.process.streams:
            *_, flows = self.slopes(state, volume_L, controls)
            legal &= jnp.all(flows >= -1e-12)
        return legal

    def _slack(self, dtype: jnp.dtype) -> float:
        return _BELOW if dtype == jnp.float64 else _BELOW_SINGLE

    def _accuracy(self, volume_L: Array) -> Accuracy:
        dtype = volume_L.dtype
        is_carried = self._is_carried()
        n_streams = len(self.process.streams)
        scale = jnp.where(is_carried, volume_L, 1.0)
        slack = self._slack(dtype)
        single = dtype != jnp.float64
        rtol = jnp.maximum(self.rtol, 1e-5) if single else self.rtol
        atol = jnp.maximum(self.atol, slack) if single else self.atol
        # the volume is as exact as what is in it; flows that add up are only told
        rest = jnp.full(1 + n_streams, 1.0) * atol * volume_L
        lowest = jnp.where(is_carried, -slack * volume_L, -jnp.inf)
        never = jnp.full(n_streams, -jnp.inf)
        return Accuracy(
            rtol=rtol,
            atol=jnp.concatenate([atol * scale, rest]),
            lowest=jnp.concatenate([lowest, _EMPTY * volume_L[None], never]),
        )


class Interval(NamedTuple):
    """The end of an interval."""

    state: Float[Array, " n"]
    """Concentrations and levels; NaN if it failed."""
    volume_L: Scalar
    """Volume [L]."""
    flowed_L: Float[Array, " S"]
    """What flowed by each stream [L]."""
    result: Int[Array, ""]
    """Result code. STEP_TOO_SMALL: the step size collapsed, as it does where a mechanism takes up
    what is gone or a vessel runs empty."""
    n_steps: Int[Array, ""]
    """Steps tried."""


class Course(NamedTuple):
    """A run without noise."""

    states: Float[Array, "T+1 n"]
    """Concentrations and levels at the samples; NaN from where it failed."""
    volume_L: Float[Array, " T+1"]
    """Volume after the sample was taken [L]."""
    flowed_L: Float[Array, "T S"]
    """What flowed by each stream within each interval [L]."""
    result: Int[Array, ""]
    """Result code of the first interval that failed; 0 if none did."""
    n_steps: Int[Array, ""]
    """Steps tried."""


def virtual_plant(
    process: Process,
    mechanism: Mechanism,
    *,
    pump_gain: ArrayLike | None = None,
    largest_flow: ArrayLike | None = None,
    rtol: ArrayLike = 1e-6,
    atol: ArrayLike = 1e-9,
    max_steps: int = 512,
) -> VirtualPlant:
    """A culture that is described, as a plant.

    Args:
        process: The culture.
        mechanism: Its rates.
        pump_gain: How fast pump laws bring a quantity back to its target, one for all or one for
            each [1/h]; what the process says of each by default.
        largest_flow: Most they let flow [vessel volumes / h]; likewise.
        rtol: Local error in parts of a value [-].
        atol: Local error near zero [unit of each quantity].
        max_steps: Most steps within an interval.

    Returns:
        The plant.

    Raises:
        ConfigError: If the mechanism does not fit the process, a bolus is a volume, or a pump law
            has nothing to hold its quantity with.

    Example:
        >>> from perfusio_jax.process import MONOD_CHEMOSTAT
        >>> from perfusio_jax.simulator import plain_monod
        >>> plant = virtual_plant(MONOD_CHEMOSTAT, plain_monod(MONOD_CHEMOSTAT))
        >>> plant.states
        ('X', 'S', 'P')
    """
    states = tuple(q.name for q in process.quantities if q.kind != "derived")
    if not states:
        raise ConfigError(
            f"{process.name} has no quantity that is carried and no level; there is nothing to "
            "simulate."
        )
    check_rates(mechanism, states, process.control_names)
    laws = laws_of(process)
    gains = [law.gain for law in laws] if pump_gain is None else pump_gain
    largest = [law.most for law in laws] if largest_flow is None else largest_flow
    return VirtualPlant(
        mechanism=mechanism,
        contents={
            s.name: jnp.asarray([_number(s.carries.get(n, 0.0)) for n in process.carried], float)
            for s in process.streams
            if s.direction == "in"
        },
        volume_L=process.volume_L,  # pyright: ignore[reportArgumentType]
        bolus=bolus_amounts(process, states),  # pyright: ignore[reportArgumentType]
        bolus_L=bolus_volumes(process),  # pyright: ignore[reportArgumentType]
        pump_gain=jnp.broadcast_to(jnp.asarray(gains, float), (len(laws),)),
        largest_flow=jnp.broadcast_to(jnp.asarray(largest, float), (len(laws),)),
        rtol=rtol,  # pyright: ignore[reportArgumentType]
        atol=atol,  # pyright: ignore[reportArgumentType]
        process=process,
        states=states,
        max_steps=int(max_steps),
    )


def run_plant(
    plant: VirtualPlant,
    start: Float[Array, " n"],
    controls: Float[Array, "T M"],
    lengths_h: Float[Array, " T"],
    *,
    volume_L: Scalar | None = None,
    sample_L: Scalar | None = None,
) -> Course:
    """A run without noise; pure, one example in.

    Args:
        plant: The plant.
        start: Concentrations and levels at the start, in the order of `plant.states`.
        controls: Set-points of each interval.
        lengths_h: Lengths of the intervals [h].
        volume_L: Volume at the start [L]; the plant's own if None.
        sample_L: Volume that every sample takes [L], the first included; none if None. Where a
            stream keeps the volume it makes up for that at once, and nothing changes.

    Returns:
        The run.
    """
    volume = plant.volume_L if volume_L is None else volume_L
    is_kept = plant.process.closing is not None
    taken = jnp.zeros(()) if sample_L is None or is_kept else jnp.asarray(sample_L, float)
    state = jnp.asarray(start, float)
    volume = jnp.asarray(volume, state.dtype) - taken

    def interval(carry: tuple, x: tuple) -> tuple:
        state, volume, code = carry
        u, length = x
        end = plant.advance(state, volume, u, length)
        code = jnp.where(code == Result.SUCCESS.value, end.result, code)
        left = end.volume_L - taken
        return (end.state, left, code), (end.state, left, end.flowed_L, end.n_steps)

    begin = (state, volume, jnp.asarray(Result.SUCCESS.value))
    (_, _, code), rows = jax.lax.scan(interval, begin, (controls, lengths_h))
    states, volumes, flowed, steps = rows
    return Course(
        jnp.concatenate([state[None], states]),
        jnp.concatenate([volume[None], volumes]),
        flowed,
        code,
        jnp.sum(steps),
    )


def named_state(plant: VirtualPlant, state: Float[Array, "*b n"]) -> Mapping[str, Array]:
    """Columns of a state by name."""
    return {name: state[..., k] for k, name in enumerate(plant.states)}


def _number(value: float | str) -> float:
    """A concentration; one that a control sets is read from the controls."""
    return 0.0 if isinstance(value, str) else float(value)
