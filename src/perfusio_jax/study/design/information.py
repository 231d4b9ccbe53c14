"""What runs that were never made would tell of constants.

A reading tells of the constants what its derivative by them is, in deviations of its assay; see
`identify`. Here every sample of every schedule is looked at on its own, so that samples can be left
out later without another simulation.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from perfusio_jax._core.programs import compiled
from perfusio_jax._core.progress import compiling, tell
from perfusio_jax.study.experiment import Experiment, Lever
from perfusio_jax.study.identifiability.fitting import deviations, looked, readings_at
from perfusio_jax.study.identifiability.records import Records, planned_runs
from perfusio_jax.study.sensitivity.laws import Laws

START_WIDTH = 0.1
"""How far a start may be from what was intended [logarithm]: an inoculum is weighed in."""


class Told(NamedTuple):
    """What samples of schedules would tell, in prior standard deviations of the constants."""

    by_sample: Float[np.ndarray, "N D T+1 E E"]
    """Information of each sample of each schedule on constants and start, at each draw of the
    constants."""
    is_possible: np.ndarray
    """Whether a schedule can be run at all draws `(N,)`."""
    n_constants: int
    """How many of the `E` are constants."""

    def of_run(self, schedule: int, samples: np.ndarray) -> Float[np.ndarray, "D P P"]:
        """What one run tells of the constants, its start known as well as it is made.

        Args:
            schedule: Which.
            samples: Whether each sample is taken `(T+1,)`.
        """
        whole = np.sum(self.by_sample[schedule][:, samples], axis=1)
        p = self.n_constants
        own, cross, start = whole[:, :p, :p], whole[:, :p, p:], whole[:, p:, p:]
        start = start + np.eye(start.shape[-1])[None] / START_WIDTH**2
        return own - cross @ np.linalg.solve(start, np.swapaxes(cross, 1, 2))


def told_by(
    experiment: Experiment,
    levers: tuple[Lever, ...],
    laws: Laws,
    draws: Float[np.ndarray, "D P"],
    controls: Float[np.ndarray, "N T M"],
) -> Told:
    """What samples of schedules would tell of constants.

    Args:
        experiment: A run of the plant: its start, its sampling times and its volume.
        levers: The constants.
        laws: Their priors.
        draws: Constants at which it is asked [prior standard deviations].
        controls: Set-points of each schedule, by interval.
    """
    records = planned_runs(experiment, controls)
    found = []
    for k, z in enumerate(draws):
        tell(f"{len(controls)} schedules, draw {k + 1} of {len(draws)} of the constants")
        found.append(np.asarray(_samples(experiment, records, levers, laws, jnp.asarray(z))))
    by_sample = np.stack(found, axis=1)
    possible = np.all(np.isfinite(by_sample), axis=tuple(range(1, by_sample.ndim)))
    return Told(np.where(np.isfinite(by_sample), by_sample, 0.0), possible, len(levers))


@compiled
def _samples(
    experiment: Experiment,
    records: Records,
    levers: tuple[Lever, ...],
    laws: Laws,
    z: Float[Array, " P"],
) -> Float[Array, "N T+1 E E"]:
    """Information of every sample on constants and start."""
    compiling("what schedules would tell")
    w = jnp.zeros(records.start.shape)
    shown = readings_at(experiment, records, levers, laws, (z, w))
    sd = deviations(experiment, records, shown)
    seen = looked(experiment, records, levers, laws, (z, w, sd))
    slopes = jnp.concatenate([seen.by_constants, seen.by_start], axis=-1)
    n, t, a = records.readings.shape
    rows = slopes.reshape(n, t, a, -1)
    return jnp.einsum("ntae,ntaf->ntef", rows, rows)
