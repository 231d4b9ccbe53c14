"""Local sensitivity: derivatives of outputs of a run by its levers, at where they stand.

A derivative is one of the numbers that come out, step sizes of the integrator held; it is as exact
as the run. Forward mode costs in proportion to the levers, adjoint mode in proportion to the
outputs, so the cheaper is taken, and told.
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from perfusio_jax._core import ConfigError, SimulationError, describe
from perfusio_jax._core.programs import compiled
from perfusio_jax._core.progress import compiling
from perfusio_jax.study.experiment import Experiment, Lever, choose_levers
from perfusio_jax.study.outputs import Output, measure, read_outputs

Way = Literal["forward", "adjoint"]

_FORWARD = {True: (10.0, 0.6), False: (15.0, 0.3)}
_ADJOINT = {True: (8.5, 1.1), False: (75.0, 0.1)}
"""What derivatives of one run cost, in runs: at least, and for each lever or output. Measured; by
whether a batch is integrated in lanes."""


class LocalSensitivity(NamedTuple):
    """Derivatives at one point."""

    outputs: tuple[Output, ...]
    """What was asked."""
    levers: tuple[Lever, ...]
    """By what."""
    at: Float[np.ndarray, " P"]
    """Where the levers stand."""
    values: Float[np.ndarray, " O"]
    """The outputs there."""
    gradients: Float[np.ndarray, "O P"]
    """Derivatives [unit of the output / unit of the lever]."""
    elasticities: Float[np.ndarray, "O P"]
    """Per cent by which an output moves if a lever moves by one per cent [-]; NaN for an output
    that is zero."""
    way: Way
    """`forward` or `adjoint`."""
    cost: float
    """What that costs, in runs, by the counts of levers and outputs."""

    def ranked(self, output: int = 0) -> list[tuple[Lever, float]]:
        """Levers and elasticities of one output, the strongest first; unknown ones at the end."""
        size = np.abs(np.nan_to_num(self.elasticities[output], nan=-1.0))
        order = np.argsort(-size, kind="stable")
        return [(self.levers[i], float(self.elasticities[output, i])) for i in order]


def local_sensitivity(
    experiment: Experiment,
    outputs: Iterable[str | Output],
    levers: Iterable[str] | None = None,
    *,
    way: Way | None = None,
) -> LocalSensitivity:
    """Derivatives of outputs of a run by its levers.

    Args:
        experiment: The run.
        outputs: What is asked, as in `read_output`.
        levers: By what, as in `choose_levers`.
        way: `forward` or `adjoint`; the cheaper by the numbers of levers and outputs if None.

    Returns:
        Values, derivatives and elasticities.

    Raises:
        ConfigError: If an output, a lever or the way is unknown.
        SimulationError: If the run fails.

    Example:
        >>> from perfusio_jax.process import MONOD_CHEMOSTAT
        >>> from perfusio_jax.simulator import plain_monod, virtual_plant
        >>> from perfusio_jax.study import described_experiment
        >>> plant = virtual_plant(MONOD_CHEMOSTAT, plain_monod(MONOD_CHEMOSTAT))
        >>> run = described_experiment(plant, 24.0 * np.arange(8))
        >>> found = local_sensitivity(run, ["last X"], ["mu_max", "feed_S"])
        >>> [lever.name for lever, _ in found.ranked()]
        ['feed_S', 'mu_max']
    """
    asked = read_outputs(experiment, outputs)
    pulled = choose_levers(experiment, levers)
    if way not in (None, "forward", "adjoint"):
        raise ConfigError(f"way {way!r} is unknown; choose forward or adjoint.")
    cost = way_costs(len(pulled), len(asked), is_in_lanes=experiment.is_in_lanes)
    chosen: Way = min(cost, key=lambda w: cost[w]) if way is None else way
    x = experiment.lever_values(pulled)
    values, slopes, code = _differentiated(experiment, x, pulled, asked, chosen)
    if int(code) != 0:
        raise SimulationError(
            f"the run failed, so nothing can be said of it. {describe(int(code))}"
        )
    at, y, gradients = (np.asarray(v) for v in (x, values, slopes))
    known = np.where(y != 0.0, y, np.nan)
    relative = gradients * at[None, :] / known[:, None]
    return LocalSensitivity(asked, pulled, at, y, gradients, relative, chosen, cost[chosen])


def way_costs(n_levers: int, n_outputs: int, *, is_in_lanes: bool) -> dict[Way, float]:
    """What derivatives cost either way, in runs.

    Args:
        n_levers: How many levers.
        n_outputs: How many outputs.
        is_in_lanes: Whether all runs of a batch are integrated in one loop.
    """
    base, each = _FORWARD[is_in_lanes]
    base_back, each_back = _ADJOINT[is_in_lanes]
    return {"forward": base + each * n_levers, "adjoint": base_back + each_back * n_outputs}


@compiled
def _differentiated(
    experiment: Experiment,
    x: Float[Array, " P"],
    levers: tuple[Lever, ...],
    outputs: tuple[Output, ...],
    way: Way,
) -> tuple[Array, Array, Array]:
    """Outputs, their derivatives `(O,P)`, and the result code."""
    compiling("the derivatives of a run")

    if experiment.is_in_lanes:
        return _lane_by_lane(experiment, x, levers, outputs, way)

    def outcome(x: Array) -> tuple[Array, tuple[Array, Array]]:
        course = experiment.pulled(levers, x).course()
        found = measure(outputs, course.values, experiment.lengths_h)
        return found, (found, course.result)

    slope = jax.jacfwd if way == "forward" else jax.jacrev
    slopes, (values, code) = slope(outcome, has_aux=True)(x)
    return values, jnp.asarray(slopes), code


def _lane_by_lane(
    experiment: Experiment,
    x: Float[Array, " P"],
    levers: tuple[Lever, ...],
    outputs: tuple[Output, ...],
    way: Way,
) -> tuple[Array, Array, Array]:
    """The same with a lane for each direction.

    One derivative of a batch in place of a batch of derivatives halves the work, and the program
    is that of one.
    """
    is_forward = way == "forward"
    lanes = len(levers) if is_forward else len(outputs)

    def outcome(rows: Array) -> tuple[Array, tuple[Array, Array]]:
        course = experiment.courses(levers, rows)
        found = measure(outputs, course.values, experiment.lengths_h)
        own = found if is_forward else jnp.diagonal(found)
        return own, (found[0], course.result[0])

    rows = jnp.broadcast_to(x, (lanes, x.size))
    if is_forward:
        _, slopes, (values, code) = jax.jvp(
            outcome, (rows,), (jnp.eye(lanes, dtype=x.dtype),), has_aux=True
        )
        return values, slopes.T, code
    _, pull, (values, code) = jax.vjp(outcome, rows, has_aux=True)
    return values, pull(jnp.ones(lanes, x.dtype))[0], code
