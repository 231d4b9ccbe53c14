"""One interval of any culture: boluses, flows, rates per cell, a volume that may move.

Over an interval the residual gives the specific growth rate of the cells, of each strain if there
are several, and, for everything else, a rate per cell; levels and cultures without cells have
volumetric rates. So

    dX/dt = S - D X + mu X
    dC/dt = S - D C + q X,      q X C / (C + h) where q is an uptake

and so on for a mechanism's rates. It is solved in equal parts by the exponential midpoint
rule: each part exactly for the supply and the first-order loss of its own middle. So nothing falls
below zero, and an uptake ends where nothing is left to be taken up.
"""

import functools
import operator
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
from perfusio_jax.process import (
    REST,
    Control,
    Process,
    StreamFlows,
    bolus_amounts,
    bolus_volumes,
    stream_flows,
)
from perfusio_jax.process.flows import asked_flow
from perfusio_jax.process.laws import answering, contents_of, law_share, laws_of
from perfusio_jax.process.parts import is_per_cell

FEWEST, MOST = 4, 32
"""Parts of an interval."""
_PART = 0.3
"""What changes by a factor of e in one unit moves by so much in a part [-]."""
_LARGEST_EXPONENT = 20.0
"""Of growth within one interval [-]; beyond it a path has left every culture anyway."""


_LEAST = 1e-30
"""In place of nothing under a division: what is not there is not taken up [any unit]."""


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
                law cannot be kept: nobody knows how much of its quantity is there.
        """
        laws = laws_of(process)
        known: tuple[str, ...] = ()
        if kinetics is not None:
            names = tuple(q.name for q in process.quantities if q.kind != "derived")
            known = check_rates(kinetics, names, process.control_names)
        self.kinetics, self.substeps = kinetics, int(substeps)
        self.process, self.layout = process, layout_of(process, known)
        needed = [law.quantity for law in laws]
        needed += [process.biomass or "" for c in process.controls if _is_per_cell(c)]
        unseen = [name for name in needed if name not in self.layout.states]
        if unseen:
            raise ConfigError(
                f"a pump of {process.name} answers to {unseen[0]}, which nobody measures and no "
                "mechanism moves: what it gives is not known."
            )
        self.volume_L = jnp.asarray(process.volume_L, float)
        # a plain array per stream, so that a composition can be swept
        self.contents = {
            s.name: jnp.asarray([_number(s.carries.get(n, 0.0)) for n in process.carried], float)
            for s in process.streams
            if s.direction == "in"
        }
        self.bolus = jnp.asarray(_boluses(process, self.layout), float)

    @property
    def answers(self) -> bool:
        """Whether what flows depends on what is in the vessel: by a pump law, or per cell."""
        return bool(answering(self.process))

    @property
    def tracks_volume(self) -> bool:
        """Whether the volume moves by flows that answer to what is in the vessel.

        Nobody can tell it ahead of the state then: every path has a volume of its own.
        """
        return self.answers and VOLUME in self.layout.controls

    def flows(
        self,
        controls: Float[Array, " M"],
        level: Float[Array, " K"] | None = None,
        volume_L: Scalar | None = None,
    ) -> tuple[Float[Array, " K"], Float[Array, " K"], Scalar]:
        """What enters, and what is lost to flows.

        Args:
            controls: Control columns of the layout.
            level: What is in the vessel; needed where `answers`.
            volume_L: Volume in the vessel [L]; that of the controls, or of the start, if None.

        Returns:
            Supply [unit/h] and first-order loss [1/h] of each state, for that volume, and the rate
            of the volume [L/h].

        Raises:
            ConfigError: If what is in the vessel is needed and not given.
        """
        process, layout = self.process, self.layout
        volume = controls[-1] if VOLUME in layout.controls else self.volume_L
        volume = volume if volume_L is None else volume_L
        set_points = controls[: len(process.controls)]
        if not process.streams:
            nothing = jnp.zeros(layout.n)
            return nothing, nothing, jnp.zeros(())
        if not self.answers:
            found = stream_flows(process, set_points, volume, contents=self.contents)
            return self._on_states(found, volume)
        if level is None:
            raise ConfigError(
                f"what flows in {process.name} answers to what is in the vessel; give `level`."
            )
        return self._answering(set_points, volume, level)

    def _on_states(
        self, found: StreamFlows, volume: Scalar
    ) -> tuple[Float[Array, " K"], Float[Array, " K"], Scalar]:
        """Flows of what is carried, laid out by state."""
        place = {name: i for i, name in enumerate(self.process.carried)}
        pick = np.asarray([place.get(name, 0) for name in self.layout.states])
        is_carried = np.asarray([name in place for name in self.layout.states])
        rate = found.volume_rate()
        supply = jnp.where(is_carried, found.supply[pick], 0.0) / volume
        loss = jnp.where(is_carried, found.clearance()[pick] + rate, 0.0) / volume
        return supply, loss, rate

    def _answering(
        self, set_points: Float[Array, " M"], volume: Scalar, level: Float[Array, " K"]
    ) -> tuple[Float[Array, " K"], Float[Array, " K"], Scalar]:
        """Flows that answer to a state.

        What a law holds returns to its target by a rate of its own, however fast: its deviation is
        a supply and a loss of first order, which a part of an interval solves exactly. All others
        meet the flow of the moment.
        """
        process, states = self.process, self.layout.states
        place = {name: i for i, name in enumerate(process.control_names)}
        column = {name: i for i, name in enumerate(process.carried)}
        cells = None if process.biomass not in states else level[states.index(process.biomass)]
        laws = laws_of(process)
        pumped = {law.stream.name: jnp.zeros_like(volume) for law in laws}

        def with_pumps() -> StreamFlows:
            return stream_flows(process, set_points, volume, pumped, self.contents, cells)

        idle = with_pumps()
        spare = jnp.maximum(_closing_flow(process, idle, set_points, volume, cells), 0.0)
        held: list[tuple[int, Scalar, Scalar, Scalar]] = []
        for law in laws:
            k = states.index(law.quantity)
            target = set_points[place[law.control]]
            content = contents_of(law, set_points, place, self.contents, column)
            share, follows = law_share(law, level[k], target, content, gain=law.gain, most=law.most)
            flow = volume * share
            closing = process.closing
            if closing is not None and closing.direction == law.stream.direction:
                follows = follows & (flow < spare)
                flow = jnp.minimum(flow, spare)
                spare = spare - flow
            pumped[law.stream.name] = flow
            held.append((k, target, follows, jnp.asarray(law.gain * law.effect)))
        supply, loss, rate = self._on_states(with_pumps(), volume)
        for (k, target, follows, gain), law in zip(held, laws, strict=True):
            alone = {**pumped, law.stream.name: jnp.zeros_like(volume)}
            without = stream_flows(process, set_points, volume, alone, self.contents, cells)
            base, gone, _ = self._on_states(without, volume)
            supply = supply.at[k].set(jnp.where(follows, base[k] + gain * target, supply[k]))
            loss = loss.at[k].set(jnp.where(follows, gone[k] + gain, loss[k]))
        return supply, loss, rate

    def after_bolus(
        self, state: Float[Array, " K"], controls: Float[Array, " M"]
    ) -> Float[Array, " K"]:
        """State after what is given at the sample; the volume in `controls` is the one before."""
        if not self.process.boluses:
            return state
        volume = controls[-1] if VOLUME in self.layout.controls else self.volume_L
        if not self.brings_volume:
            return state + (self.bolus @ controls) / volume
        come = self._come(controls)
        diluted = np.asarray([n in self.process.carried for n in self.layout.states])
        share = jnp.where(diluted, volume / (volume + come), 1.0)
        return share * state + (self.bolus @ controls) / (volume + come)

    @property
    def brings_volume(self) -> bool:
        """Whether a bolus comes in a volume that is known."""
        return any(c.brings for c in self.process.controls)

    def swollen(self, controls: Float[Array, " M"]) -> Float[Array, " M"]:
        """Control columns with the volume after what is given at the sample."""
        if not self.brings_volume:
            return controls
        return controls.at[-1].add(self._come(controls))

    def _come(self, controls: Float[Array, " M"]) -> Scalar:
        """Volume that is given at the sample [L]."""
        each = jnp.asarray(bolus_volumes(self.process), controls.dtype)
        return each @ controls[: each.size]

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
    ) -> tuple[Float[Array, " K"], Scalar]:
        """State at the end of an interval under constant specific rates, and the volume's gain.

        Args:
            state: Values above their lowest, not negative.
            controls: Control columns of the layout.
            rates: Specific growth rate of the cells, and of each strain [1/h], for the others the
                rate per reference cells [unit/h/cells], or the rate [unit/h] where `per_cell` is 0.
            half: Level at which an uptake is halved [unit].
            per_cell: Weight of the cells in what a rate refers to [-].
            offset: Cells added to them [unit of the cells].
            dt_h: Length [h].

        Returns:
            State at the end, and what the volume gained [L], boluses included; it counts only where
            `tracks_volume`.
        """
        growers, moves = self.layout.growers, VOLUME in self.layout.controls
        before = controls[-1] if moves else self.volume_L
        start = self.after_bolus(state, controls)
        controls = self.swollen(controls)
        answers = self.answers
        set_once = None if answers else self.flows(controls)
        tracks = self.tracks_volume
        begin = controls[-1] if moves else self.volume_L
        step = dt_h / self.substeps
        limit = _LARGEST_EXPONENT / dt_h
        lower = jnp.asarray(self.layout.lower)

        def slopes(level: Array, hours: Array, held: Array) -> tuple[Array, Array, Array]:
            """Gain [unit/h] and first-order loss [1/h] of every state so long after the start.

            And the rate of the volume [L/h]; `held` is the volume then, where it is tracked.
            """
            grown = total(level, growers)
            acting = rates * (offset + per_cell * grown)
            now = held if tracks else None
            supply, loss, rate = self.flows(controls, level, now) if set_once is None else set_once
            volume, share = begin, 1.0
            if tracks:
                volume = held
            elif moves:
                volume = jnp.maximum(begin + rate * hours, 0.1 * begin)
                share = begin / volume
            flow, gone = share * supply, share * loss
            gain = flow + jnp.maximum(acting, 0.0)
            gone = gone + jnp.maximum(-acting, 0.0) / jnp.maximum(level + half, _LEAST)
            for k in growers:  # growth is a gain of first order
                gain = gain.at[k].set(flow[k])
                gone = gone.at[k].set(share * loss[k] - rates[k])
            if self.kinetics is None:
                return gain, jnp.clip(gone, -limit, None), rate
            own = rates_at(self.kinetics, self.layout, level + lower, controls, volume)
            least = jnp.maximum(level + 1e-6 * half, _LEAST)
            for k in growers:
                gone = gone.at[k].add(-own[k] / least[k])
                own = own.at[k].set(0.0)
            gain = gain + jnp.maximum(own, 0.0)
            return gain, jnp.clip(gone + jnp.maximum(-own, 0.0) / least, -limit, None), rate

        def part(level: Array, gain: Array, gone: Array, hours: Array) -> Array:
            return level * jnp.exp(-gone * hours) + gain * hours * _mean_decay(gone * hours)

        # both halves of a part are one pass each: the program holds the slopes once
        def one_half(carry: tuple[Array, ...], x: tuple[Array, Array, Array]) -> Any:
            start, point, *volumes = carry
            middle, length, ends = x
            gain, gone, rate = slopes(point, middle, volumes[-1] if tracks else begin)
            reached = part(start, gain, gone, length)
            if tracks:
                swollen = jnp.maximum(volumes[0] + rate * length, 0.1 * begin)
                volumes = [jnp.where(ends, swollen, volumes[0]), swollen]
            return (jnp.where(ends, reached, start), reached, *volumes), None

        begins = jnp.repeat(jnp.arange(self.substeps, dtype=state.dtype), 2)
        is_end = np.tile([False, True], self.substeps)
        share = jnp.asarray(np.where(is_end, 1.0, 0.5), state.dtype)
        halves = ((begins + 0.5 * share) * step, share * step, jnp.asarray(is_end))
        # a gradient computes each pass again instead of keeping what was in it
        volumes = (begin, begin) if tracks else ()
        (end, _, *volumes), _ = jax.lax.scan(
            jax.checkpoint(one_half, prevent_cse=False), (start, start, *volumes), halves
        )
        return end, volumes[0] - before if tracks else begin - before


def total(level: Any, growers: tuple[int, ...]) -> Any:
    """Cells of all strains; one where there are none to count by.

    Args:
        level: States (..., K), of NumPy or JAX.
        growers: Columns of the strains.
    """
    if not growers:
        return jnp.ones(level.shape[:-1])
    return functools.reduce(operator.add, (level[..., k] for k in growers))


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


def _is_per_cell(control: Control) -> bool:
    return control.role == "flow" and is_per_cell(control.unit)


def _closing_flow(
    process: Process,
    idle: StreamFlows,
    set_points: Float[Array, " M"],
    volume: Scalar,
    cells: Scalar | None,
) -> Scalar:
    """What the stream that keeps the volume moves while no pump runs [L/h]."""
    closing = process.closing
    if closing is None:
        return jnp.zeros_like(volume)
    others = jnp.zeros_like(volume)
    for stream in process.streams:
        if stream.flow == REST or stream.direction != closing.direction:
            continue
        control = process.control(stream.flow)
        if control.role == "flow":
            value = set_points[process.control_names.index(control.name)]
            others = others + asked_flow(process, control, value, volume, cells)
    return (idle.outflow if closing.direction == "out" else idle.inflow) - others


def _number(value: float | str) -> float:
    """A concentration; one that a control sets is read from the controls."""
    return 0.0 if isinstance(value, str) else float(value)


def _boluses(process: Process, layout: Layout) -> np.ndarray:
    """Amount that one unit of each control column brings to each state [unit of the state, L]."""
    table = np.zeros((layout.n, layout.m))
    table[:, : len(process.controls)] = bolus_amounts(process, layout.states)
    return table
