"""One interval of any culture: boluses, flows, rates per cell, a volume that may move.

Over an interval the residual gives the specific growth rate of the cells and, for everything else,
a rate per cell; levels and cultures without cells have volumetric rates. So

    dX/dt = S - D X + mu X
    dC/dt = S - D C + q X,      q X C / (C + h) where q is an uptake

and so on for a mechanism's rates. It is solved in equal parts by the exponential midpoint
rule: each part exactly for the supply and the first-order loss of its own middle. So nothing falls
below zero, and an uptake ends where nothing is left to be taken up.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from perfusio_jax._core import ConfigError, Scalar
from perfusio_jax.hybrid.constants import rates_at
from perfusio_jax.hybrid.layout import VOLUME, Layout, layout_of
from perfusio_jax.mechanistic.mechanism import Mechanism, check_rates
from perfusio_jax.process import Process, bolus_amounts, stream_flows

FEWEST, MOST = 4, 32
"""Parts of an interval."""
_PART = 0.3
"""What changes by a factor of e in one unit moves by so much in a part [-]."""
_LARGEST_EXPONENT = 20.0
"""Of growth within one interval [-]; beyond it a path has left every culture anyway."""


class Vessel(eqx.Module):
    """A culture that is described: what flows is known, a mechanism may be, rates are learned."""

    kinetics: Mechanism | None
    """What is known of its rates; None if nothing is."""
    contents: dict[str, Float[Array, " C"]]
    """Concentrations of what enters, by stream, in the order of the process's carried ones."""
    volume_L: Scalar
    """Volume at the start of a run [L]."""
    bolus: Float[Array, "K M"]
    """What one unit of each control adds to each state's amount [unit of the state, L]."""
    process: Process = eqx.field(static=True)
    """The culture."""
    layout: Layout = eqx.field(static=True)
    """Its arrays."""
    substeps: int = eqx.field(static=True)
    """Parts of an interval."""

    def __init__(
        self, process: Process, kinetics: Mechanism | None = None, *, substeps: int = FEWEST
    ) -> None:
        """Lay a described culture out.

        Args:
            process: The culture.
            kinetics: What is known of its rates.
            substeps: Parts of an interval; see `substeps_for`.

        Raises:
            ConfigError: If nothing of it can be modelled, the mechanism does not fit it, or a pump
                law sets a stream: nobody knows what the pump gives.
        """
        pumps = [c.name for c in process.controls if c.role == "target"]
        driven = [s.name for s in process.streams if s.flow in pumps]
        if driven:
            raise ConfigError(
                f"stream {driven[0]} of {process.name} answers to a target, and no mechanism says "
                "how much that is. Give the control the role environment and take the stream out: "
                "what the pump adds is then learned with the rates."
            )
        known: tuple[str, ...] = ()
        if kinetics is not None:
            names = tuple(q.name for q in process.quantities if q.kind != "derived")
            known = check_rates(kinetics, names, process.control_names)
        self.kinetics, self.substeps = kinetics, int(substeps)
        self.process, self.layout = process, layout_of(process, known)
        self.volume_L = jnp.asarray(process.volume_L, float)
        # a plain array per stream, so that a composition can be swept
        self.contents = {
            s.name: jnp.asarray([_number(s.carries.get(n, 0.0)) for n in process.carried], float)
            for s in process.streams
            if s.direction == "in"
        }
        self.bolus = jnp.asarray(_boluses(process, self.layout), float)

    def flows(
        self, controls: Float[Array, " M"]
    ) -> tuple[Float[Array, " K"], Float[Array, " K"], Scalar]:
        """What enters, and what is lost to flows.

        Args:
            controls: Control columns of the layout.

        Returns:
            Supply [unit/h] and first-order loss [1/h] of each state, for the volume at the start,
            and the rate of the volume [L/h].
        """
        process, layout = self.process, self.layout
        volume = controls[-1] if VOLUME in layout.controls else self.volume_L
        set_points = controls[: len(process.controls)]
        if not process.streams:
            nothing = jnp.zeros(layout.n)
            return nothing, nothing, jnp.zeros(())
        found = stream_flows(process, set_points, volume, contents=self.contents)
        place = {name: i for i, name in enumerate(process.carried)}
        pick = np.asarray([place.get(name, 0) for name in layout.states])
        is_carried = np.asarray([name in place for name in layout.states])
        rate = found.volume_rate()
        supply = jnp.where(is_carried, found.supply[pick], 0.0) / volume
        loss = jnp.where(is_carried, found.clearance()[pick] + rate, 0.0) / volume
        return supply, loss, rate

    def after_bolus(
        self, state: Float[Array, " K"], controls: Float[Array, " M"]
    ) -> Float[Array, " K"]:
        """State after what is given at the sample."""
        if not self.process.boluses:
            return state
        volume = controls[-1] if VOLUME in self.layout.controls else self.volume_L
        return state + (self.bolus @ controls) / volume

    def advance(
        self,
        state: Float[Array, " K"],
        controls: Float[Array, " M"],
        rates: Float[Array, " K"],
        *,
        half: Float[Array, " K"],
        per_cell: Float[Array, " K"],
        offset: Float[Array, " K"],
        dt_h: Scalar,
    ) -> Float[Array, " K"]:
        """State at the end of an interval under constant specific rates, and the mechanism's own.

        Args:
            state: Values above their lowest, not negative.
            controls: Control columns of the layout.
            rates: Specific growth rate of the cells [1/h], for the others the rate per reference
                cells [unit/h/cells], or the rate [unit/h] where `per_cell` is 0.
            half: Level at which an uptake is halved [unit].
            per_cell: Weight of the cells in what a rate refers to [-].
            offset: Cells added to them [unit of the cells].
            dt_h: Length [h].

        Returns:
            State at the end, not negative.
        """
        cells = self.layout.cells
        supply, loss, rate = self.flows(controls)
        moves = VOLUME in self.layout.controls
        begin = controls[-1] if moves else self.volume_L
        step = dt_h / self.substeps
        limit = _LARGEST_EXPONENT / dt_h
        lower = jnp.asarray(self.layout.lower)

        def slopes(level: Array, hours: Array) -> tuple[Array, Array]:
            """Gain [unit/h] and first-order loss [1/h] of every state so long after the start."""
            grown = jnp.ones(()) if cells is None else level[cells]
            acting = rates * (offset + per_cell * grown)
            volume, share = begin, 1.0
            if moves:
                volume = jnp.maximum(begin + rate * hours, 0.1 * begin)
                share = begin / volume
            flow, gone = share * supply, share * loss
            gain = flow + jnp.maximum(acting, 0.0)
            gone = gone + jnp.maximum(-acting, 0.0) / (level + half)
            if cells is not None:  # growth is a gain of first order
                gain = gain.at[cells].set(flow[cells])
                gone = gone.at[cells].set(share * loss[cells] - rates[cells])
            if self.kinetics is None:
                return gain, jnp.clip(gone, -limit, None)
            own = rates_at(self.kinetics, self.layout, level + lower, controls, volume)
            least = level + 1e-6 * half
            if cells is not None:
                gone = gone.at[cells].add(-own[cells] / least[cells])
                own = own.at[cells].set(0.0)
            gain = gain + jnp.maximum(own, 0.0)
            return gain, jnp.clip(gone + jnp.maximum(-own, 0.0) / least, -limit, None)

        def part(level: Array, gain: Array, gone: Array, hours: Array) -> Array:
            return level * jnp.exp(-gone * hours) + gain * hours * _mean_decay(gone * hours)

        # both halves of a part are one pass each: the program holds the slopes once
        def one_half(carry: tuple[Array, Array], x: tuple[Array, Array, Array]) -> Any:
            start, point = carry
            middle, length, ends = x
            reached = part(start, *slopes(point, middle), length)
            return (jnp.where(ends, reached, start), reached), None

        start = self.after_bolus(state, controls)
        begins = jnp.repeat(jnp.arange(self.substeps, dtype=state.dtype), 2)
        is_end = np.tile([False, True], self.substeps)
        share = jnp.asarray(np.where(is_end, 1.0, 0.5), state.dtype)
        halves = ((begins + 0.5 * share) * step, share * step, jnp.asarray(is_end))
        # a gradient computes each pass again instead of keeping what was in it
        (end, _), _ = jax.lax.scan(
            jax.checkpoint(one_half, prevent_cse=False), (start, start), halves
        )
        return end


def substeps_for(interval_h: float, fastest: float) -> int:
    """Parts that an interval is to be taken in.

    Args:
        interval_h: Length of the interval [h].
        fastest: Fastest rate constant in it: growth, washout, turnover of a substrate [1/h].
    """
    return int(np.clip(np.ceil(interval_h * fastest / _PART), FEWEST, MOST))


def _mean_decay(z: Array) -> Array:
    """`(1 - exp(-z)) / z`, exact near zero, for either sign."""
    is_small = jnp.abs(z) < 1e-4
    large = jnp.where(is_small, 1.0, z)
    return jnp.where(is_small, 1.0 - 0.5 * z + z**2 / 6.0, -jnp.expm1(-large) / large)


def _number(value: float | str) -> float:
    """A concentration; one that a control sets is read from the controls."""
    return 0.0 if isinstance(value, str) else float(value)


def _boluses(process: Process, layout: Layout) -> np.ndarray:
    """Amount that one unit of each control column brings to each state [unit of the state, L]."""
    table = np.zeros((layout.n, layout.m))
    table[:, : len(process.controls)] = bolus_amounts(process, layout.states)
    return table
