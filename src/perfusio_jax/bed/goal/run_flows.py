"""What flows by every stream, and comes with every bolus, within the steps of a run."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import HOURS_PER_DAY, Array, Float
from perfusio_jax.process import Process, bolus_volumes
from perfusio_jax.process.laws import answering, laws_of
from perfusio_jax.simulator.pumping import flow_rates, plant_flows

_SAME = 1e-6
"""Days that two times may lie apart and be the same [d]."""


def ways(process: Process) -> tuple[str, ...]:
    """What litres are counted of: streams, then boluses that say what they bring.

    Args:
        process: The culture.
    """
    return (*(s.name for s in process.streams), *(c.name for c in process.controls if c.brings))


def ways_in(process: Process) -> tuple[str, ...]:
    """Those of `ways` that enter.

    Args:
        process: The culture.
    """
    leaves = {s.name for s in process.streams if s.direction == "out"}
    return tuple(name for name in ways(process) if name not in leaves)


def given_in_steps(form: Any, plan: Float[Array, "H M"]) -> Float[Array, "H M"]:
    """Boluses of a plan where they are given: at the start of each day, of what stands there.

    Args:
        form: Culture, layout and length of the steps.
        plan: Set-points of every step.

    Returns:
        Zero for what is no bolus.
    """
    hours = np.asarray(form.hours)
    begins = (np.cumsum(hours) - hours) / HOURS_PER_DAY
    is_start = np.abs(begins - np.round(begins)) < _SAME
    is_bolus = np.asarray([c.role == "bolus" for c in form.process.controls])
    return jnp.where(
        jnp.asarray(is_start[:, None] & is_bolus[None, :]), plan[:, : is_bolus.size], 0.0
    )


def litres_in_steps(
    form: Any, Y: Float[Array, "... H F"], plan: Float[Array, "H M"]
) -> Float[Array, "... H S"]:
    """What flows by each stream, and comes with each bolus, within each step.

    Args:
        form: Culture, layout and length of the steps.
        Y: Forecast after every step.
        plan: Set-points of every step.

    Returns:
        Litres, in the order of `ways`; the volume a flow refers to is that at the start of its
        step, boluses given, and pumps that answer to what is there see its mean over the step.
    """
    process, hours = form.process, jnp.asarray(form.hours)
    n = len(ways(process))
    if n == 0:
        return jnp.zeros((*Y.shape[:-1], 0))
    if not answering(process):
        litres = _of_one_run(form, None, plan, hours)
        return jnp.broadcast_to(litres, (*Y.shape[:-1], n))
    between = 0.5 * (Y + jnp.concatenate([Y[..., :1, :], Y[..., :-1, :]], axis=-2))
    flat = between.reshape(-1, *Y.shape[-2:])
    litres = jax.vmap(lambda levels: _of_one_run(form, levels, plan, hours))(flat)
    return litres.reshape(*Y.shape[:-1], n)


def _of_one_run(form: Any, levels: Array | None, plan: Array, hours: Array) -> Array:
    """Litres of one run; levels are means over the steps, where flows answer to them."""
    process, names = form.process, form.layout.forecast
    signs = jnp.asarray([1.0 if s.direction == "in" else -1.0 for s in process.streams])
    laws = laws_of(process) if levels is not None else ()
    gains = jnp.asarray([law.gain for law in laws], float)
    largest = jnp.asarray([law.most for law in laws], float)
    brings = np.flatnonzero([bool(c.brings) for c in process.controls])
    each = jnp.asarray(bolus_volumes(process)[brings])
    come = given_in_steps(form, plan)[:, brings] * each[None, :]

    def one_step(volume: Array, xs: tuple[Array, ...]) -> tuple[Array, Array]:
        row, length = xs[0][: len(process.controls)], xs[1]
        volume = volume + jnp.sum(xs[2])
        if not process.streams:
            rates = jnp.zeros(0)
        elif levels is None:
            rates = flow_rates(process, row, volume, {})
        else:
            state = {name: xs[3][k] for k, name in enumerate(names)}
            contents: dict[str, Array] = {}
            _, pumped = plant_flows(
                process, row, volume, state, contents=contents, gain=gains, largest=largest
            )
            biomass = state.get(process.biomass or "")
            rates = flow_rates(process, row, volume, pumped, biomass)
        after = volume if process.is_constant_volume else volume + (rates @ signs) * length
        return jnp.maximum(after, 0.05 * process.volume_L), rates * length

    begin = jnp.asarray(process.volume_L, float)
    xs = (plan, hours, come) if levels is None else (plan, hours, come, levels)
    return jnp.concatenate([jax.lax.scan(one_step, begin, xs)[1], come], axis=-1)
