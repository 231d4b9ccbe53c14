"""Identifiability of a mechanism's constants from recorded runs."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from perfusio_jax._core import ConfigError, DataError, SimulationError
from perfusio_jax.states import Trajectory
from perfusio_jax.study.experiment import CONSTANT, Experiment, Lever, choose_levers
from perfusio_jax.study.identifiability.fitting import (
    Asked,
    deviations,
    readings_at,
    searched,
    values_at,
)
from perfusio_jax.study.identifiability.records import Records, records_of
from perfusio_jax.study.identifiability.words import OpenDirection, open_directions
from perfusio_jax.study.sensitivity.laws import Laws, laws_of

_ROUNDS = 3
"""Times that deviations are taken anew from what would be read."""
_SINGULAR = 1e-9
"""Information, in parts of the largest, that is none but rounding [-]."""


class Identifiability(NamedTuple):
    """What recorded runs say of constants."""

    levers: tuple[Lever, ...]
    """The constants."""
    values: Float[np.ndarray, " P"]
    """Where readings and priors agree best [units of the constants]."""
    is_log: Float[np.ndarray, " P"]
    """Which constants have their prior on the logarithm."""
    prior_sd: Float[np.ndarray, " P"]
    """Prior standard deviations, of the logarithm where that is so."""
    data_sd: Float[np.ndarray, " P"]
    """Standard errors from the readings alone, in the same measure; infinite where they say
    nothing."""
    sd: Float[np.ndarray, " P"]
    """Standard deviations with the priors, in the same measure."""
    correlation: Float[np.ndarray, "P P"]
    """Between constants, with the priors [-]."""
    information: Float[np.ndarray, "P P"]
    """Of the readings, starts unknown, by prior standard deviations."""
    eigenvalues: Float[np.ndarray, " P"]
    """Of the information, rising [-]."""
    open: list[OpenDirection]
    """What is left open."""
    n_readings: int
    """How many readings there are."""
    misfit: float
    """Mean square of what is left, in deviations of the assays [-]; about 1 where the mechanism
    fits."""
    is_converged: bool
    """Whether the search for the best constants came to its end."""
    problem: "Problem"
    """What was asked, for profiles."""

    def lines(self) -> list[str]:
        """In words, the open ones first."""
        said = [f"{d.words}." for d in self.open]
        if not said:
            said.append("all constants are known better from these runs than from their priors.")
        strong = self._strongest_pair()
        if strong:
            said.append(strong)
        if self.misfit > 4.0:
            said.append(
                f"the mechanism misses the readings by {np.sqrt(self.misfit):.2g} of their "
                "deviations: what is said of constants is said of a mechanism that does not fit."
            )
        if not self.is_converged:
            said.append("the search for the constants did not come to its end; do not rely on it.")
        return said

    def _strongest_pair(self) -> str:
        size = np.abs(np.tril(self.correlation, -1))
        if size.size < 2 or size.max() < 0.9:
            return ""
        i, j = np.unravel_index(int(np.argmax(size)), size.shape)
        names = f"{self.levers[j].name} and {self.levers[i].name}"
        return f"{names} go together most: correlation {self.correlation[i, j]:.2f}."


class Problem(NamedTuple):
    """Recorded runs, constants and where the search ended."""

    experiment: Experiment
    records: Records
    levers: tuple[Lever, ...]
    laws: Laws
    asked: Asked
    loss: float
    by_run: Float[np.ndarray, "R D D"]
    """Information of each run on the constants and its own start."""


def identify(
    experiment: Experiment,
    runs: Sequence[Trajectory] | Records,
    levers: Iterable[str] | None = None,
    *,
    laws: Laws | None = None,
    with_prior: bool = True,
    starts_known: bool = False,
) -> Identifiability:
    """What recorded runs tell of a mechanism's constants.

    The information is that of the readings as they are: their times, gaps and assays, at the
    constants where they and the priors agree best. That the spread of readings grows with their
    size tells a little of the constants too, which is left out.

    Args:
        experiment: The plant, any run of it.
        runs: What was recorded.
        levers: Constants by name; all that have a prior if None.
        laws: Priors of the constants; those of the mechanism if None.
        with_prior: Whether priors take part in the search and in standard deviations.
        starts_known: Whether the first sample of a run is taken for true.

    Returns:
        Standard errors, correlation, and what is left open.

    Raises:
        ConfigError: If a lever is unknown or no constant.
        DataError: If the runs cannot be used.
        SimulationError: If the runs cannot be simulated with the constants as they stand.
    """
    chosen = choose_levers(experiment, [CONSTANT] if levers is None else levers)
    wrong = [lever.name for lever in chosen if lever.group != CONSTANT]
    if wrong:
        raise ConfigError(
            f"{', '.join(wrong)} is no constant of the mechanism; set-points are known, and "
            "starts are unknown anyway."
        )
    records = runs if isinstance(runs, Records) else records_of(experiment, runs)
    laws = laws_of(experiment, chosen) if laws is None else laws
    asked = Asked(
        z=_standing(experiment, chosen, laws),
        w=jnp.zeros(records.start.shape),
        sd=jnp.ones(records.readings.shape),
        is_free=jnp.ones(len(chosen)),
        prior=jnp.asarray(float(with_prior)),
        is_start_free=jnp.asarray(float(not starts_known)),
    )
    for turn in range(_ROUNDS):
        shown = readings_at(experiment, records, chosen, laws, (asked.z, asked.w))
        if turn == 0:
            _refuse_failed(shown, records)
        asked = asked._replace(sd=deviations(experiment, records, shown))
        found = searched(experiment, records, chosen, laws, asked)
        asked = asked._replace(z=found.z, w=found.w)
    problem = Problem(
        experiment, records, chosen, laws, asked, float(found.loss), np.asarray(found.by_run)
    )
    return _summary(problem, np.asarray(found.information), found, with_prior)


def _standing(experiment: Experiment, levers: tuple[Lever, ...], laws: Laws) -> Array:
    """Where the constants stand, in prior standard deviations from the priors' middles."""
    middle = np.asarray(values_at(laws, jnp.zeros(len(levers))))
    unit = np.asarray(values_at(laws, jnp.ones(len(levers))))
    is_log, at = np.asarray(laws.is_log), np.asarray(experiment.lever_values(levers))
    in_logs = np.log(np.where(is_log, at, 1.0) / np.where(is_log, middle, 1.0))
    width = np.log(np.where(is_log, unit, 1.0) / np.where(is_log, middle, 1.0))
    plain = (at - middle) / np.where(is_log, 1.0, unit - middle)
    return jnp.asarray(np.where(is_log, in_logs / np.where(is_log, width, 1.0), plain))


def _refuse_failed(shown: Array, records: Records) -> None:
    seen, read = np.asarray(shown), np.isfinite(np.asarray(records.readings))
    lost = [r + 1 for r in range(len(seen)) if not np.all(np.isfinite(seen[r][read[r]]))]
    if lost:
        raise SimulationError(
            f"run {', '.join(map(str, lost[:8]))} cannot be simulated with the constants as they "
            "stand, so nothing can be said of them; look at its set-points, or at the mechanism."
        )


def _summary(
    problem: Problem, information: np.ndarray, found: object, with_prior: bool
) -> Identifiability:
    laws, levers = problem.laws, problem.levers
    if not np.all(np.isfinite(information)):
        raise DataError("the information of these runs is no number; look at their readings.")
    p = len(levers)
    is_log = np.asarray(laws.is_log)
    width = np.where(laws.is_normal, laws.b, np.asarray(laws.b) / np.sqrt(12.0))
    values, vectors = np.linalg.eigh(0.5 * (information + information.T))
    values = np.maximum(values, 0.0)
    covariance = np.linalg.inv(information + np.eye(p))
    alone = width * _standard_errors(values, vectors)
    sd = width * np.sqrt(np.diag(covariance)) if with_prior else alone
    scale = np.sqrt(np.diag(covariance))
    return Identifiability(
        levers=levers,
        values=np.asarray(values_at(laws, problem.asked.z)),
        is_log=is_log,
        prior_sd=width,
        data_sd=alone,
        sd=sd,
        correlation=covariance / np.outer(scale, scale),
        information=information,
        eigenvalues=values,
        open=open_directions(information, [lever.name for lever in levers], is_log, width),
        n_readings=problem.records.n_readings,
        misfit=float(found.misfit) / max(problem.records.n_readings, 1),  # pyright: ignore[reportAttributeAccessIssue]
        is_converged=bool(found.is_converged),  # pyright: ignore[reportAttributeAccessIssue]
        problem=problem,
    )


def _standard_errors(values: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """From information alone; infinite for what takes part in a direction without any."""
    is_none = values <= _SINGULAR * max(float(values.max()), 1e-300)
    part = vectors**2
    known = np.sum(part[:, ~is_none] / values[None, ~is_none], axis=1)
    touched = np.sum(part[:, is_none], axis=1) > _SINGULAR
    return np.where(touched, np.inf, np.sqrt(known))
