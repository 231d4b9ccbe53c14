"""Pumps that answer to what is in the vessel: laws of controls of role target.

A target holds a quantity by the flow of its stream. In vessel volumes per time the pump gives

    F / V = gain (target - C) / (c - C)     of a stream that enters with c of it: a feed, where c
                                            lies above the targets
    F / V = gain (C - target) / C           of one that enters with none of it, a turbidostat, or
                                            that leaves, as a bleed that holds the cells

at least 0 and at most `most`, and no more than the stream that keeps the volume can spare. So the
quantity comes back by `gain` times its deviation, dilution included; what grows at mu settles
mu / gain above its target, what is taken up at q settles q / gain below it. A target of zero asks
for nothing. Where no stream keeps the volume, what enters holds as well, its own volume counted; a
stream that leaves holds nothing, since it takes its volume along. The flow has corners at its
limits, where derivatives are those of one side.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from perfusio_jax._core import ConfigError, Scalar

from .description import Process
from .parts import REST, Stream, is_per_cell

GAIN, MOST = 2.0, 0.05
"""Usual gain of a pump [1/h], and the most it lets flow [vessel volumes / h]."""
_LEAST = 1e-12
"""In place of a concentration of zero under a division."""


def answering(process: Process) -> tuple[str, ...]:
    """Controls whose flow depends on what is in the vessel: targets, and flows per cell.

    Args:
        process: The culture.
    """
    return tuple(
        c.name
        for c in process.controls
        if c.role == "target" or (c.role == "flow" and is_per_cell(c.unit))
    )


class Law(NamedTuple):
    """A pump law, checked."""

    stream: Stream
    """What it drives."""
    control: str
    """Its target."""
    quantity: str
    """What it holds."""
    effect: float
    """Share of the flow that acts on the quantity: of a stream that leaves, what it takes beyond
    what the stream that keeps the volume would have taken [-]."""
    is_feed: bool
    """Whether it raises the quantity."""
    gain: float
    """Rate per deviation at which the quantity comes back [1/h]."""
    most: float
    """Most that flows [vessel volumes / h]."""


def laws_of(process: Process) -> tuple[Law, ...]:
    """The pump laws of a culture, in the order of its streams.

    Args:
        process: The culture.

    Raises:
        ConfigError: If one has nothing to hold its quantity with, or two hold one quantity.
    """
    found: list[Law] = []
    closing = process.closing
    for stream in process.streams:
        if stream.flow == REST or process.control(stream.flow).role != "target":
            continue
        control = process.control(stream.flow)
        name = control.quantity or ""
        said = f"control {control.name} holds {name} by stream {stream.name}"
        if process.quantity(name).kind != "carried":
            raise ConfigError(
                f"control {control.name} holds {name}, a {process.quantity(name).kind}, by stream "
                f"{stream.name}; a pump law holds what is carried. Let a mechanism hold a level."
            )
        twice = [law.control for law in found if law.quantity == name]
        if twice:
            raise ConfigError(
                f"{said}, and {twice[0]} holds it too; two pumps that answer to one quantity work "
                "against each other."
            )
        brings = stream.carries.get(name, 0.0)
        keeps = 1.0 if closing is None else closing.passes.get(name, 1.0)
        effect, is_feed = 1.0, False
        if stream.direction == "in":
            low = process.control(brings).lo if isinstance(brings, str) else brings
            is_feed = low > 0.0 or isinstance(brings, str)
            if is_feed and not isinstance(brings, str) and low <= control.hi:
                raise ConfigError(
                    f"{said}, which carries {low:g} of it, and targets go up to {control.hi:g}: it "
                    "cannot raise it there. Say under `carries` how much, or lower hi."
                )
            if not is_feed and closing is not None and closing.direction == "out" and keeps == 0.0:
                raise ConfigError(
                    f"{said}, which carries none of it, and {closing.name} holds it back: diluting "
                    "takes nothing away. Say under `carries` how much it brings, or let a bleed "
                    "hold it."
                )
        else:
            effect = stream.passes.get(name, 1.0)
            if closing is None:
                effect -= 1.0  # what leaves takes its volume along, and the rest is as it was
            elif closing.direction == "out":
                effect -= keeps
            if stream.passes.get(name, 1.0) == 0.0:
                raise ConfigError(f"{said}, which holds it back; nothing of it leaves.")
            if effect <= 0.0 and closing is not None:
                raise ConfigError(
                    f"{said}, and {closing.name} takes as much of it: whatever the pump does, "
                    "nothing changes. Say under `passes` what is held back."
                )
            if effect <= 0.0:
                raise ConfigError(
                    f"{said}, and no stream keeps the volume: what leaves takes its volume along, "
                    f"and what is left holds as much {name} per litre as before. Let a stream make "
                    "up for it (flow = 'rest'), or hold it by what enters."
                )
        found.append(
            Law(
                stream,
                control.name,
                name,
                effect,
                is_feed,
                GAIN if control.gain is None else control.gain,
                MOST if control.most is None else control.most,
            )
        )
    return tuple(found)


def law_share(
    law: Law,
    level: Float[Array, ""],
    target: Float[Array, ""],
    content: Float[Array, ""],
    *,
    gain: Scalar | float,
    most: Scalar | float,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """What a pump gives at a state.

    Args:
        law: The law.
        level: Concentration of what it holds.
        target: Value it is held at.
        content: Concentration in a stream that enters.
        gain: Of the pump [1/h].
        most: Most that flows [vessel volumes / h].

    Returns:
        Flow in vessel volumes per hour, and whether it follows the deviation: it is neither shut
        nor at its limit.
    """
    if law.is_feed:
        asked = gain * (target - level) / jnp.maximum(content - level, _LEAST)
    else:
        asked = gain * (level - target) / jnp.maximum(level, _LEAST)
    share = jnp.where(target > 0.0, jnp.clip(asked, 0.0, most), 0.0)
    return share, (target > 0.0) & (asked > 0.0) & (asked < most)


def contents_of(
    law: Law,
    controls: Float[Array, " M"],
    place: Mapping[str, int],
    contents: Mapping[str, Float[Array, " K"]],
    column: Mapping[str, int],
) -> Float[Array, ""]:
    """Concentration, in the law's stream, of what it holds.

    Args:
        law: The law.
        controls: Set-points.
        place: Position of each control.
        contents: What enters by each stream.
        column: Position of each carried quantity in it.
    """
    brings = law.stream.carries.get(law.quantity, 0.0)
    if isinstance(brings, str):
        return controls[place[brings]]
    if law.stream.name in contents:
        return contents[law.stream.name][column[law.quantity]]
    return jnp.asarray(brings, controls.dtype)
