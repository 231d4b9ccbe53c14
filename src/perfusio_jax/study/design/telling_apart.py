"""The runs that tell two mechanisms apart.

Where two mechanisms expect readings y_1 and y_2 of a run, their distance in deviations of the
assays is what data could decide by, as far as constants that are moved do not close it:

    D = d^T (I + G G^T)^-1 d,   d = (y_1 - y_2) / sd

with G what constants of either, each by its prior, and the start of a run do to the difference.
Without G this is Hunter and Reiner's criterion; with it, Buzzi-Ferraris and Forzatti's, over all
readings of all runs at once: constants are the same in all of them. As a matrix of the size of
constants is enough, runs are chosen and exchanged as those for constants are.

A distance of D is a logarithm of the odds of D / 2 on average, for the mechanism that is right.

Reference:
    Hunter and Reiner (1965), Technometrics 7, 307; Buzzi-Ferraris, Forzatti, Emig and Hofmann
    (1984), Chem. Eng. Sci. 39, 81; Box and Hill (1967), Technometrics 9, 57.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from perfusio_jax._core import ConfigError, SimulationError
from perfusio_jax._core.programs import compiled
from perfusio_jax._core.progress import compiling, tell
from perfusio_jax.study.design.information import START_WIDTH
from perfusio_jax.study.design.optimal import Wanted, candidates
from perfusio_jax.study.experiment import CONSTANT, Experiment, Lever, choose_levers
from perfusio_jax.study.identifiability.fitting import deviations, looked, readings_at
from perfusio_jax.study.identifiability.records import Records, planned_runs
from perfusio_jax.study.sensitivity.laws import Laws, laws_of

CLEAR = 10.0
"""Distance from which two mechanisms are told apart: odds of 150 to one on average [-]."""
_ROUNDS = 10
_GAIN = 1e-9


class Apart(NamedTuple):
    """Runs that tell two mechanisms apart."""

    controls: Float[np.ndarray, "R T M"]
    """Set-points of each run, by interval."""
    distance: float
    """Of all runs together, constants at their best for either [-]."""
    plain: float
    """The same with constants held, as Hunter and Reiner count [-]."""
    alone: Float[np.ndarray, " R"]
    """Distance of each run by itself [-]."""
    usual: float
    """Distance of as many runs with set-points as they stand [-]."""
    by_reading: Float[np.ndarray, "R T+1 A"]
    """Where the difference is, in deviations of the assay, first mechanism less second."""
    n_lost: int
    """Schedules that one of the mechanisms cannot run."""

    def lines(self) -> list[str]:
        """In words."""
        said = [
            f"{len(self.controls)} run(s) set the two {np.sqrt(self.distance):.3g} standard "
            f"deviations apart (D = {self.distance:.3g}; {self.plain:.3g} if their constants could "
            f"not move); as many runs with set-points as they stand: D = {self.usual:.3g}"
        ]
        if self.distance < CLEAR:
            said.append(
                f"that is not enough to be sure (D = {CLEAR:g} is odds of 150 to one): within "
                "their priors either can do what the other does. Ask for more runs or wider ranges"
            )
        if self.n_lost:
            said.append(f"{self.n_lost} schedules cannot be run by both and were left out")
        return said


class _Parts(NamedTuple):
    """What each schedule adds, with starts taken out."""

    plain: Float[np.ndarray, " N"]
    """d^T A^-1 d."""
    pull: Float[np.ndarray, "N Q"]
    """G^T A^-1 d."""
    bend: Float[np.ndarray, "N Q Q"]
    """G^T A^-1 G."""
    held: Float[np.ndarray, " N"]
    """d^T d."""
    gap: Float[np.ndarray, "N T+1 A"]
    """d, reading by reading."""

    def distance(self, runs: np.ndarray) -> float:
        """D of runs together."""
        pull, bend = self.pull[runs].sum(axis=0), self.bend[runs].sum(axis=0)
        closed = pull @ np.linalg.solve(np.eye(pull.size) + bend, pull)
        return float(self.plain[runs].sum() - closed)


def design_to_tell_apart(
    first: Experiment,
    second: Experiment,
    wanted: Wanted | None = None,
    *,
    levers: tuple[Iterable[str] | None, Iterable[str] | None] = (None, None),
    ranges: Mapping[str, tuple[float, float]] | None = None,
    seed: int = 0,
) -> Apart:
    """Runs that tell two mechanisms of one culture apart.

    Args:
        first: A run by the first mechanism: its start, set-points by interval, and samples.
        second: The same run by the second.
        wanted: Runs, changes and schedules that are looked at; all samples are taken.
        levers: Constants of either that may move; all that have a prior if None.
        ranges: Ranges of set-points; those of the process where nothing is said.
        seed: Of the schedules.

    Raises:
        ConfigError: If the two are not runs of one culture, or a name or number makes no sense.
        SimulationError: If no schedule can be run by both.
    """
    n_intervals = int(first.lengths_h.shape[0])
    wanted = (Wanted() if wanted is None else wanted).checked(n_intervals)
    if wanted.n_samples is not None:
        raise ConfigError(
            "mechanisms are told apart by all samples of a run; leave out how many are taken."
        )
    same = first.assays == second.assays and first.start.shape == second.start.shape
    if not same or not np.array_equal(first.hours, second.hours):
        raise ConfigError(
            "the two are not runs of one culture: quantities, assays and samples are to be the "
            "same, and only the mechanism another."
        )
    table = candidates(first, wanted, ranges or {}, seed)
    n_controls = table.shape[2]
    usual = np.broadcast_to(np.asarray(first.controls), (n_intervals, n_controls))
    parts = _parts((first, second), levers, np.concatenate([table, usual[None]]))
    is_possible = np.isfinite(parts.plain) & np.all(np.isfinite(parts.bend), axis=(1, 2))
    usable = np.flatnonzero(is_possible[:-1])
    if not usable.size:
        raise SimulationError(
            f"none of {len(table)} schedules can be run by both mechanisms; narrow the ranges of "
            "set-points."
        )
    runs = _chosen(parts, usable, wanted.n_runs)
    at_usual = np.full(wanted.n_runs, len(table))
    return Apart(
        controls=table[runs],
        distance=parts.distance(runs),
        plain=float(parts.held[runs].sum()),
        alone=np.array([parts.distance(runs[[k]]) for k in range(len(runs))]),
        usual=parts.distance(at_usual) if is_possible[-1] else float("nan"),
        by_reading=parts.gap[runs],
        n_lost=int(len(table) - usable.size),
    )


def _chosen(parts: _Parts, usable: np.ndarray, n_runs: int) -> np.ndarray:
    """Runs one after the other, then exchanged as long as that helps."""

    def best(rest: list[int]) -> int:
        found = [parts.distance(np.array([*rest, int(c)])) for c in usable]
        return int(usable[int(np.argmax(found))])

    picked: list[int] = []
    for _ in range(n_runs):
        picked.append(best(picked))
    for turn in range(_ROUNDS):
        before = parts.distance(np.array(picked))
        for k in range(n_runs):
            picked[k] = best([c for j, c in enumerate(picked) if j != k])
        gained = parts.distance(np.array(picked)) - before
        tell(f"exchange {turn + 1}: D gained {gained:.3g}")
        if gained <= _GAIN * max(before, 1.0):
            break
    return np.array(picked)


def _parts(
    both: tuple[Experiment, Experiment],
    levers: tuple[Iterable[str] | None, Iterable[str] | None],
    controls: Float[np.ndarray, "N T M"],
) -> _Parts:
    records = [planned_runs(one, controls) for one in both]
    chosen: list[tuple[Lever, ...]] = []
    for one, names in zip(both, levers, strict=True):
        found = choose_levers(one, [CONSTANT] if names is None else names)
        wrong = [lever.name for lever in found if lever.group != CONSTANT]
        if wrong:
            raise ConfigError(f"{', '.join(wrong)} is no constant of a mechanism.")
        chosen.append(found)
    laws = [laws_of(one, own) for one, own in zip(both, chosen, strict=True)]
    asked = [*zip(both, records, chosen, laws, strict=True)]
    sd = [np.asarray(_deviations(*one)) for one in asked]
    width = jnp.asarray(np.sqrt(0.5 * (sd[0] ** 2 + sd[1] ** 2)))
    seen = [[np.asarray(v) for v in _seen(*one, width)] for one in asked]
    gap = seen[0][0] - seen[1][0]
    slopes = np.concatenate([seen[0][1], -seen[1][1]], axis=-1)
    # the start of a run is one start, whichever mechanism is right
    starts = START_WIDTH * (seen[0][2] - seen[1][2])
    spread = np.eye(gap.shape[1])[None] + starts @ np.swapaxes(starts, 1, 2)
    is_fine = np.all(np.isfinite(gap), axis=1) & np.all(np.isfinite(spread), axis=(1, 2))
    is_fine &= np.all(np.isfinite(slopes), axis=(1, 2))
    spread[~is_fine] = np.eye(gap.shape[1])
    gap = np.where(is_fine[:, None], gap, np.nan)
    right = np.concatenate([gap[..., None], slopes], axis=-1)
    solved = np.linalg.solve(spread, right)
    n, t = controls.shape[:2]
    return _Parts(
        plain=np.einsum("na,na->n", gap, solved[..., 0]),
        pull=np.einsum("naq,na->nq", slopes, solved[..., 0]),
        bend=np.einsum("naq,nar->nqr", slopes, solved[..., 1:]),
        held=np.einsum("na,na->n", gap, gap),
        gap=gap.reshape(n, t + 1, -1),
    )


@compiled
def _deviations(
    experiment: Experiment, records: Records, levers: tuple[Lever, ...], laws: Laws
) -> Float[Array, "N T+1 A"]:
    """Deviations of readings, constants where they stand."""
    compiling("what schedules would show")
    at = (jnp.zeros(laws.a.size), jnp.zeros(records.start.shape))
    return deviations(experiment, records, readings_at(experiment, records, levers, laws, at))


@compiled
def _seen(
    experiment: Experiment,
    records: Records,
    levers: tuple[Lever, ...],
    laws: Laws,
    sd: Float[Array, "N T+1 A"],
) -> tuple[Array, Array, Array]:
    """Readings in deviations, and their derivatives by constants and start."""
    compiling("how schedules depend on constants")
    at = (jnp.zeros(laws.a.size), jnp.zeros(records.start.shape), sd)
    look = looked(experiment, records, levers, laws, at)
    return look.residual, look.by_constants, look.by_start
