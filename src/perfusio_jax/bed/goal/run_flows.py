"""What flows by every stream within the steps of a run."""

from typing import Any

import jax
import jax.numpy as jnp

from perfusio_jax._core import Array, Float
from perfusio_jax.process.laws import answering, laws_of
from perfusio_jax.simulator.pumping import flow_rates, plant_flows


def litres_in_steps(
    form: Any, Y: Float[Array, "... H F"], plan: Float[Array, "H M"]
) -> Float[Array, "... H S"]:
    """What flows by each stream within each step.

    Args:
        form: Culture, layout and length of the steps.
        Y: Forecast after every step.
        plan: Set-points of every step.

    Returns:
        Litres, streams in the order of the process; the volume a flow refers to is that at the
        start of its step, and pumps that answer to what is there see its mean over the step.
    """
    process, hours = form.process, jnp.asarray(form.hours)
    n = len(process.streams)
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

    def one_step(volume: Array, xs: tuple[Array, ...]) -> tuple[Array, Array]:
        row, length = xs[0][: len(process.controls)], xs[1]
        if levels is None:
            rates = flow_rates(process, row, volume, {})
        else:
            state = {name: xs[2][k] for k, name in enumerate(names)}
            contents: dict[str, Array] = {}
            _, pumped = plant_flows(
                process, row, volume, state, contents=contents, gain=gains, largest=largest
            )
            biomass = state.get(process.biomass or "")
            rates = flow_rates(process, row, volume, pumped, biomass)
        after = volume if process.is_constant_volume else volume + (rates @ signs) * length
        return jnp.maximum(after, 0.05 * process.volume_L), rates * length

    begin = jnp.asarray(process.volume_L, float)
    xs = (plan, hours) if levels is None else (plan, hours, levels)
    return jax.lax.scan(one_step, begin, xs)[1]
