"""The best schedule of a run, by gradient through the plant.

Set-points are held over pieces of the run. The search goes from one piece to many: the best
constant recipe first, from several starts; then twice as many pieces, each search beginning where
the last one ended. Each is a sequential quadratic program (SciPy's SLSQP) over the pieces, scaled
to their ranges, with derivatives taken in forward mode through the integrator. All have one
program: what is coarser has fewer directions in the same arrays.

Constants may be several draws. Then the mean is maximised, and a limit is kept with a margin: the
mean of what is limited, less so many standard deviations as a normal law needs for the chance that
is asked. How many draws keep it is counted and told, which no law is needed for.
"""

from collections.abc import Mapping, Sequence

from jaxtyping import ArrayLike

from perfusio_jax._core import ConfigError
from perfusio_jax.study.experiment import Experiment
from perfusio_jax.study.outputs import Output, read_output
from perfusio_jax.study.schedule.limits import read_limits
from perfusio_jax.study.schedule.pieces import chosen_of
from perfusio_jax.study.schedule.result import Schedule
from perfusio_jax.study.schedule.search import Search


def best_schedule(
    experiment: Experiment,
    objective: str | Output,
    *,
    controls: Sequence[str] | None = None,
    pieces: int | None = None,
    limits: Sequence[str] = (),
    ranges: Mapping[str, tuple[float, float]] | None = None,
    steps: Mapping[str, float] | None = None,
    least: bool = False,
    draws: Mapping[str, ArrayLike] | None = None,
    chance: float = 0.9,
    n_starts: int = 3,
    seed: int = 0,
) -> Schedule:
    """The schedule that gives most under limits.

    Args:
        experiment: The run; its schedule is where the search begins (of the CHO plant with
            `by_interval=True`).
        objective: What is to be large, as in `read_output`: `last Titer`, `amount of P`,
            `integral of VCD`.
        controls: Which controls may be chosen; all that have a range if None.
        pieces: How many pieces the run is cut into, each with its own set-points; one for every
            interval if None.
        limits: What must hold, as in `read_limit`: `Via >= 80`, `last volume_L <= 2`.
        ranges: Ranges of set-points, where those of the process are not meant.
        steps: Largest change of a control from one piece to the next, by name.
        least: Whether the objective is to be small instead.
        draws: Draws of constants by name, `(K,)` each: the mean over them is sought.
        chance: Probability with which a limit is to hold over the draws [-].
        n_starts: Best candidates that are searched from.
        seed: Of the candidates.

    Returns:
        The schedule. Where no schedule keeps the limits, the one that comes nearest, which says so.

    Raises:
        ConfigError: If a name, a limit, a range or a number makes no sense.
        SimulationError: If no candidate can be run.

    Reference:
        Kraft (1988) for SLSQP; Binder et al. (2001) for refinement from coarse to fine.

    Example:
        >>> import numpy as np
        >>> from perfusio_jax.process import MONOD_CHEMOSTAT
        >>> from perfusio_jax.simulator import plain_monod, virtual_plant
        >>> from perfusio_jax.study import described_experiment
        >>> plant = virtual_plant(MONOD_CHEMOSTAT, plain_monod(MONOD_CHEMOSTAT))
        >>> run = described_experiment(plant, 12.0 * np.arange(5))
        >>> found = best_schedule(run, "last X", controls=["dilution"], pieces=2)
        >>> found.is_feasible and found.value >= found.constant >= found.before
        True
    """
    target = objective if isinstance(objective, Output) else read_output(experiment, objective)
    held = read_limits(experiment, limits)
    chosen = chosen_of(experiment, controls, dict(ranges or {}), dict(steps or {}))
    n_intervals = experiment.lengths_h.shape[0]
    if pieces is not None and not 1 <= pieces <= n_intervals:
        raise ConfigError(
            f"{pieces} pieces of a run of {n_intervals} intervals; 1 to {n_intervals} can be had."
        )
    if not 0.5 <= chance < 1.0 or n_starts < 1:
        raise ConfigError(
            f"chance={chance:g}, n_starts={n_starts}; a chance is 0.5 or more and below 1, and one "
            "start is needed at least."
        )
    search = Search(experiment, target, held, chosen, pieces or n_intervals, least, chance, draws)
    return search.run(n_starts, seed)
