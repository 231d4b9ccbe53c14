"""The runs that tell most of constants, chosen together.

Many schedules are simulated with their derivatives, once. Runs are then chosen among them one after
the other and exchanged as long as that helps (Fedorov 1972); the samples of a run are those that
tell most beside the others. Both are arithmetic on small matrices, for information adds up.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import qmc

from perfusio_jax._core import ConfigError, SimulationError
from perfusio_jax._core.hints import did_you_mean
from perfusio_jax._core.progress import tell
from perfusio_jax.study.design.criteria import CRITERIA, Criterion, goodness
from perfusio_jax.study.design.information import Told, told_by
from perfusio_jax.study.experiment import (
    CONSTANT,
    SET_POINT,
    WHOLE_RUN,
    Experiment,
    Lever,
    choose_levers,
)
from perfusio_jax.study.identifiability.words import OpenDirection, open_directions
from perfusio_jax.study.sensitivity.laws import Laws, from_unit, laws_of

_ROUNDS = 10
_GAIN = 1e-6


class Design(NamedTuple):
    """Runs to be made."""

    levers: tuple[Lever, ...]
    """The constants they are for."""
    controls: Float[np.ndarray, "R T M"]
    """Set-points of each run, by interval."""
    samples: Bool[np.ndarray, "R T+1"]
    """Which samples are taken; the first always is."""
    information: Float[np.ndarray, "D P P"]
    """What they tell of the constants, those already there and the priors included, at each draw
    [per squared prior standard deviation]."""
    before: Float[np.ndarray, "D P P"]
    """The same without them."""
    criterion: Criterion
    """What was asked for."""
    value: float
    """How good it is."""
    is_log: np.ndarray
    """Which constants have their prior on the logarithm."""
    prior_sd: Float[np.ndarray, " P"]
    """Prior standard deviations."""
    n_lost: int
    """Schedules that cannot be run with some draw of the constants."""

    @property
    def sd(self) -> Float[np.ndarray, " P"]:
        """Expected standard deviations, of the logarithm where the prior is on that."""
        spread = np.sqrt(np.mean(np.diagonal(np.linalg.inv(self.information), axis1=1, axis2=2), 0))
        return self.prior_sd * spread

    @property
    def open(self) -> list[OpenDirection]:
        """What will still be open."""
        data = np.mean(self.information, axis=0) - np.eye(len(self.levers))
        names = [lever.name for lever in self.levers]
        return open_directions(data, names, self.is_log, self.prior_sd)


class Wanted(NamedTuple):
    """What may be done."""

    n_runs: int = 4
    """Runs."""
    n_changes: int = 1
    """Changes of each set-point within a run."""
    n_samples: int | None = None
    """Samples of each run beside the first; all that the experiment has if None. A volume that
    may be taken, over that of a sample, says how many."""
    criterion: Criterion = "D"
    """What is asked for."""
    n_candidates: int = 128
    """Schedules that are looked at."""
    n_draws: int = 4
    """Draws of the constants, if none are given."""

    def checked(self, n_intervals: int) -> "Wanted":
        """As it is.

        Raises:
            ConfigError: If a number is out of range.
        """
        if self.criterion not in CRITERIA:
            raise ConfigError(
                f"criterion {self.criterion!r} is unknown; choose {', '.join(CRITERIA)}."
            )
        if min(self.n_runs, self.n_candidates, self.n_draws) < 1:
            raise ConfigError(
                f"{self.n_runs} runs out of {self.n_candidates} schedules at {self.n_draws} draws; "
                "at least one each."
            )
        if not 0 <= self.n_changes < n_intervals:
            raise ConfigError(
                f"{self.n_changes} changes in {n_intervals} intervals; allowed are 0 to "
                f"{n_intervals - 1}."
            )
        if self.n_samples is not None and not 1 <= self.n_samples <= n_intervals:
            raise ConfigError(
                f"{self.n_samples} samples beside the first; allowed are 1 to {n_intervals}, those "
                "the experiment has. A volume budget below one sample leaves none."
            )
        return self


def design_for_constants(
    experiment: Experiment,
    levers: Iterable[str] | None = None,
    wanted: Wanted | None = None,
    *,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    draws: Float[np.ndarray, "D P"] | None = None,
    known: Float[np.ndarray, "P P"] | None = None,
    seed: int = 0,
) -> Design:
    """Runs that tell most of a mechanism's constants.

    Args:
        experiment: A run of the plant: its start, and every time at which a sample could be taken;
            set-points by interval.
        levers: Constants by name; all that have a prior if None.
        wanted: What may be done.
        ranges: Ranges of set-points; those of the process where nothing is said. One number twice
            holds a set-point.
        draws: Constants at which schedules are judged [prior standard deviations]; drawn from the
            priors if None. Those of a posterior lead to runs for what is believed now.
        known: What runs already there tell, as `Identifiability.information`.
        seed: Of schedules and draws.

    Raises:
        ConfigError: If a name is unknown, a range is none, or a number is out of range.
        SimulationError: If no schedule can be run.

    Reference:
        Fedorov (1972); Chaloner, Verdinelli (1995) for averages over a prior.
    """
    n_intervals = int(experiment.lengths_h.shape[0])
    wanted = (Wanted() if wanted is None else wanted).checked(n_intervals)
    chosen = choose_levers(experiment, [CONSTANT] if levers is None else levers)
    wrong = [lever.name for lever in chosen if lever.group != CONSTANT]
    if wrong:
        raise ConfigError(f"{', '.join(wrong)} is no constant of the mechanism.")
    laws = laws_of(experiment, chosen)
    p = len(chosen)
    if draws is None:
        rng = np.random.default_rng(seed)
        draws = np.concatenate([np.zeros((1, p)), rng.standard_normal((wanted.n_draws, p))])
        draws = draws[: wanted.n_draws]  # the middle is one of them
    before = np.eye(p) + (np.zeros((p, p)) if known is None else np.asarray(known))
    base = np.repeat(before[None], len(draws), axis=0)
    table = candidates(experiment, wanted, ranges or {}, seed)
    told = told_by(experiment, chosen, laws, np.asarray(draws), table)
    usable = np.flatnonzero(told.is_possible)
    if not usable.size:
        raise SimulationError(
            f"none of {len(table)} schedules can be run with all {len(draws)} draws of the "
            "constants; narrow the ranges of set-points."
        )
    runs, samples, total = _chosen(told, usable, base, wanted)
    return Design(
        levers=chosen,
        controls=table[runs],
        samples=samples,
        information=total,
        before=base,
        criterion=wanted.criterion,
        value=float(goodness(wanted.criterion, total)),
        is_log=np.asarray(laws.is_log),
        prior_sd=_widths(laws),
        n_lost=int(len(table) - usable.size),
    )


def candidates(
    experiment: Experiment,
    wanted: Wanted,
    ranges: Mapping[str, tuple[float, float]],
    seed: int,
) -> Float[np.ndarray, "N T M"]:
    """Schedules that fill the ranges of set-points, with changes at times of their own.

    Args:
        experiment: The run whose set-points and times they are.
        wanted: How many, and how many changes.
        ranges: Ranges by control.
        seed: Of the Sobol sequence.

    Raises:
        ConfigError: If a name is no control's, or a range is none.
    """
    every = [v for v in experiment.levers if v.group == SET_POINT and v.interval == WHOLE_RUN]
    names = [v.name for v in every]
    unknown = [name for name in ranges if name not in names]
    if unknown:
        raise ConfigError(
            f"a range is given for {', '.join(unknown)}, which is no control"
            f"{did_you_mean(unknown, names)}: {', '.join(names)}."
        )
    held = {name for name, (lo, hi) in ranges.items() if lo == hi}
    moved = [
        v for v in every if v.name not in held
        and (v.name in ranges or experiment.usual_law(v) is not None)
    ]  # fmt: skip
    t = int(experiment.lengths_h.shape[0])
    table = np.broadcast_to(np.asarray(experiment.controls), (t, len(names)))
    found = np.repeat(table[None], wanted.n_candidates, axis=0).copy()
    for name in held:
        found[:, :, names.index(name)] = ranges[name][0]
    if not moved:  # the samples are all there is to choose
        return found[:1]
    levels = wanted.n_changes + 1
    law = laws_of(experiment, moved, {v.name: ranges[v.name] for v in moved if v.name in ranges})
    n_places = levels * len(moved) + wanted.n_changes
    sampler = qmc.Sobol(n_places, scramble=True, rng=np.random.default_rng(seed))
    u = sampler.random(2 ** int(np.ceil(np.log2(max(wanted.n_candidates, 2)))))
    u = u[: wanted.n_candidates]
    places = u[:, : levels * len(moved)].reshape(-1, levels, len(moved))
    values = np.stack(
        [np.asarray(from_unit(law, jnp.asarray(places[:, k]))) for k in range(levels)], axis=1
    )
    # changes at whole intervals, rising; an interval may pass unused
    when = np.sort(1 + np.floor(u[:, levels * len(moved) :] * (t - 1)).astype(int), axis=1)
    step = (np.arange(t)[None, :, None] >= when[:, None, :]).sum(axis=-1)
    for k, lever in enumerate(moved):
        found[:, :, lever.place] = np.take_along_axis(values[:, :, k], step, axis=1)
    return found


def _chosen(
    told: Told, usable: np.ndarray, base: np.ndarray, wanted: Wanted
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs, their samples, and what all of them tell."""
    samples = {int(c): _best_samples(told, int(c), base, wanted) for c in usable}
    alone = np.stack([told.of_run(int(c), samples[int(c)]) for c in usable])
    picked: list[int] = []
    total = base.copy()
    for _ in range(wanted.n_runs):
        best = int(np.argmax(goodness(wanted.criterion, total[None] + alone)))
        picked.append(best)
        total = total + alone[best]
    for turn in range(_ROUNDS):
        value = float(goodness(wanted.criterion, total))
        for k in range(wanted.n_runs):
            rest = total - alone[picked[k]]
            picked[k] = int(np.argmax(goodness(wanted.criterion, rest[None] + alone)))
            total = rest + alone[picked[k]]
        gained = float(goodness(wanted.criterion, total)) - value
        tell(f"exchange {turn + 1}: {wanted.criterion} gained {gained:.3g}")
        if gained < _GAIN:
            break
    # and once more the samples of each run, beside all others
    runs = usable[np.array(picked)]
    own = [alone[k] for k in picked]
    taken = []
    for k, run in enumerate(runs):
        rest = base + np.sum([v for j, v in enumerate(own) if j != k], axis=0)
        again = _best_samples(told, int(run), rest, wanted)
        new = told.of_run(int(run), again)
        if goodness(wanted.criterion, rest + new) < goodness(wanted.criterion, rest + own[k]):
            again, new = samples[int(run)], own[k]
        own[k] = new
        taken.append(again)
    return runs, np.stack(taken), base + np.sum(own, axis=0)


def _best_samples(told: Told, run: int, rest: np.ndarray, wanted: Wanted) -> np.ndarray:
    """Samples that tell most beside the rest; those that tell least are left out one by one."""
    n = told.by_sample.shape[2]
    taken = np.ones(n, bool)
    if wanted.n_samples is None:
        return taken
    while taken.sum() > wanted.n_samples + 1:
        left = [t for t in np.flatnonzero(taken) if t > 0]
        trials = []
        for t in left:
            taken[t] = False
            trials.append(rest + told.of_run(run, taken))
            taken[t] = True
        taken[left[int(np.argmax(goodness(wanted.criterion, np.stack(trials))))]] = False
    return taken


def _widths(laws: Laws) -> np.ndarray:
    return np.where(laws.is_normal, laws.b, np.asarray(laws.b) / np.sqrt(12.0))
