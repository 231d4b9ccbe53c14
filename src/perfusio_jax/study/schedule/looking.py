"""What a schedule gives, and its derivatives, for several draws of the constants in one pass."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from perfusio_jax._core.programs import compiled
from perfusio_jax._core.progress import compiling
from perfusio_jax.study.experiment import Experiment, Lever
from perfusio_jax.study.outputs import Output, measure


@compiled
def look(
    experiment: Experiment,
    x: Float[Array, "K P"],
    directions: Float[Array, "W P"],
    levers: tuple[Lever, ...],
    outputs: tuple[Output, ...],
) -> tuple[Float[Array, "K O"], Float[Array, "K W O"], Int[Array, " K"]]:
    """Outputs and their derivatives.

    In forward mode: a schedule under path limits has more outputs than numbers to choose.

    Args:
        experiment: The run, `forward_only`.
        x: Levers, a row for each draw.
        directions: Along which derivatives are taken.
        levers: What is moved.
        outputs: What is asked.

    Returns:
        Outputs, derivatives, and result codes by draw.
    """
    compiling("the derivatives of a schedule")

    if experiment.is_in_lanes:
        width = directions.shape[0]

        def outcome(rows: Array) -> tuple[Array, Array]:
            course = experiment.courses(levers, rows)
            return measure(outputs, course.values, experiment.lengths_h), course.result

        rows = jnp.repeat(x, width, axis=0)
        along = jnp.tile(directions, (x.shape[0], 1))
        values, slopes, codes = jax.jvp(outcome, (rows,), (along,), has_aux=True)
        return (
            values[::width],
            slopes.reshape(x.shape[0], width, len(outputs)),
            codes[::width],
        )

    def of_draw(row: Array) -> tuple[Array, Array, Array]:
        def outcome(row: Array) -> tuple[Array, Array]:
            course = experiment.pulled(levers, row).course()
            return measure(outputs, course.values, experiment.lengths_h), course.result

        def along(direction: Array) -> tuple[Array, Array, Array]:
            return jax.jvp(outcome, (row,), (direction,), has_aux=True)

        return jax.vmap(along, out_axes=(None, 0, None))(directions)

    return jax.vmap(of_draw)(x)


@compiled
def outcomes(
    experiment: Experiment,
    x: Float[Array, "N P"],
    levers: tuple[Lever, ...],
    outputs: tuple[Output, ...],
) -> Float[Array, "N O"]:
    """Outputs of many schedules; NaN where one cannot be run.

    Args:
        experiment: The run.
        x: Levers, a row for each.
        levers: What is moved.
        outputs: What is asked.
    """
    compiling("schedules to begin with")
    course = experiment.courses(levers, x)
    values = measure(outputs, course.values, experiment.lengths_h)
    return jnp.where((course.result == 0)[:, None], values, jnp.nan)
