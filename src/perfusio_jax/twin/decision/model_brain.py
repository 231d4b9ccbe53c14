"""The brain of the real twin: a hybrid model that learns, and a policy that decides.

`frozen`: the model never changes; the same history gives the same bytes. `adaptive`: every
`retrain_every` samples a challenger is trained on the run so far. It replaces the champion only if
it explains the samples that come after no worse: neither model was fitted on those, so one that
has learnt the run by heart gains nothing by it. Both are functions of the samples alone, so that
a restart, or a replay, comes to the same model.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

import jax
import numpy as np

from perfusio_jax._core import (
    CONTROL_NAMES,
    FORECAST_SPECIES,
    HOURS_PER_DAY,
    SimulationError,
)
from perfusio_jax._core.instants import day_number
from perfusio_jax.hybrid import (
    HybridConfig,
    HybridStateSpaceModel,
    advance_online,
    condition_on,
    fit_hybrid,
    fit_sensors,
)
from perfusio_jax.states import Trajectory

from .brain import Lesson, Proposal, Row, Situation
from .step import (
    Decision,
    decide,
    digest,
    estimate,
    forecast,
    history_from_records,
    hours_ahead,
)

if TYPE_CHECKING:
    from perfusio_jax.bed import BEDPolicy

Mode = Literal["frozen", "adaptive"]

MIN_ROWS_FOR_GP: Final = 8
"""Samples of one run before a residual process is fitted to it alone."""

TRIAL_SAMPLES: Final = 3
"""Samples after a challenger was made that it is judged by."""

TOLERANCE: Final = 0.5
"""How much worse [nats per sample] a challenger may explain them."""

DRIFT_ODDS: Final = 1e-3
"""Chance of a coverage as low as found, under a right model, from which on it is drift."""

FOLLOWS: Final[Mapping[str, str]] = {"capacitance": "VCD"}
"""Species each online tag follows."""


class ModelBrain:
    """Learns and proposes with a hybrid model and a policy.

    Args:
        model: Champion at the start.
        policy: Design space, targets, acquisition.
        seed: Of all random numbers.
        volume_L: Working volume [L].
        run_id: Name of the run.
        retrain_every: Samples between two challengers, at least; one is on trial at a time.
        n_paths: Paths of a forecast.
        mode: "frozen" or "adaptive".
        say: Called with a line about what is going on.
        sample_h: Time between two samples [h].
    """

    def __init__(
        self,
        model: HybridStateSpaceModel,
        policy: "BEDPolicy",
        *,
        seed: int,
        volume_L: float,
        run_id: str,
        retrain_every: int = 1,
        n_paths: int = 256,
        mode: Mode = "adaptive",
        say: Callable[[str], None] | None = None,
        sample_h: float = HOURS_PER_DAY,
    ) -> None:
        self.base_model = self.model = model
        self.policy = policy
        self.seed, self.volume_L, self.run_id = seed, volume_L, run_id
        self.retrain_every, self.n_paths, self.mode = retrain_every, n_paths, mode
        self.sample_h = float(sample_h)
        self._say = say or (lambda _: None)
        self._learnt_rows = 0
        self._trial: tuple[HybridStateSpaceModel, int] | None = None
        self._mutex, self._turn = threading.Lock(), 0

    def history(self, rows: Any) -> Trajectory:
        """The run so far as arrays."""
        return history_from_records(rows, volume_L=self.volume_L, run_id=self.run_id)

    def learn(self, situation: Situation) -> Lesson | None:
        """Judge the challenger if enough samples came since it was made; make one if it is time.

        After a restart the steps that were taken before are made up for first.

        Raises:
            Exception: Whatever a fit can think of, if it failed at the last sample.
        """
        n, turn = len(situation.rows), self._turn
        lesson = None
        while self._learnt_rows < n and turn == self._turn:
            self._learnt_rows += 1  # a step that fails is not taken again
            try:
                lesson = self._step(situation.rows[: self._learnt_rows], turn)
            except Exception:
                if self._learnt_rows == n:
                    raise
                lesson = None
        return lesson

    def abandon(self) -> None:
        """Let nothing that is still being computed change the model."""
        with self._mutex:
            self._turn += 1

    def propose(self, situation: Situation) -> Proposal:
        """Recommend set-points; see `step.decide`.

        Raises:
            SimulationError: If what was computed is not finite: nothing follows from it.
        """
        decision = decide(
            self.history(situation.rows),
            self.model,
            self.policy,
            **self._asked(situation),
        )
        trouble = not_finite(decision)
        if trouble:
            raise SimulationError(trouble)
        return as_proposal(decision)

    def _asked(self, situation: Situation) -> dict[str, Any]:
        """What a decision rests on besides the run, the model and the policy."""
        return {
            "seed": self.seed,
            "u_now": dict(situation.u_now),
            "fixed": dict(situation.fixed),
            "grids": situation.grids,
            "n_paths": self.n_paths,
            "day": None if self.sample_h == HOURS_PER_DAY else situation.day,
            "sample_h": self.sample_h,
        }

    def outlook(self, situation: Situation) -> Proposal | None:
        """Forecast from the last sample carried through the online readings since."""
        run = self.history(situation.rows)
        tags = sorted({r.tag for r in situation.readings if r.tag in FOLLOWS})
        pairs = np.array(
            [[(row.get("tags") or {}).get(t, np.nan) for t in tags] for row in situation.rows],
            float,
        )
        usable = [k for k, t in enumerate(tags) if _n_pairs(run, pairs[:, k], FOLLOWS[t]) >= 3]
        if not usable:
            return None
        names = tuple(tags[k] for k in usable)
        species = run.host_readings(run.species_names).astype(float)
        sensors, _ = fit_sensors(
            species, pairs[:, usable], names, follows=tuple(FOLLOWS[t] for t in names)
        )
        start = float(situation.rows[-1]["time_h"])
        good = [r for r in situation.readings if r.tag in names and r.quality == "good"]
        hours = sorted({r.time_h - start for r in good if r.time_h > start})
        if not hours:
            return None
        table = np.full((len(hours), len(names)), np.nan)
        for r in good:
            if r.time_h > start and r.value is not None:
                table[hours.index(r.time_h - start), names.index(r.tag)] = r.value
        seed = self.seed + 1009 * day_number(situation.day) + 7
        belief, _ = estimate(run, self.model, seed=self.seed)
        u = np.array([situation.u_now[n] for n in CONTROL_NAMES])
        belief, _ = advance_online(
            self.model,
            belief,
            u,
            np.array(hours),
            table,
            sensors=sensors,
            key=jax.random.key(seed),
        )
        ends = hours_ahead(self.policy.ofv, self.sample_h, self.model)
        ahead = forecast(
            self.model,
            belief,
            situation.u_now,
            horizon=int(self.policy.ofv.horizon) if ends is None else len(ends),
            seed=seed,
            n_paths=self.n_paths,
            hours=ends,
        )
        return Proposal({}, forecast=ahead.from_day(situation.day), species=FORECAST_SPECIES)

    def _is_due(self, n_rows: int) -> bool:
        if self.mode == "frozen" or n_rows < 3 or (n_rows - 1) % self.retrain_every:
            return False
        return self.base_model.gp is not None or n_rows >= MIN_ROWS_FOR_GP

    def _step(self, rows: Sequence[Row], turn: int) -> Lesson | None:
        """What is due at one sample: a verdict, a new challenger, both or nothing."""
        verdict = None
        if self._trial is not None and len(rows) - self._trial[1] >= TRIAL_SAMPLES:
            verdict = self._judge(rows, turn)
        if self._trial is not None or not self._is_due(len(rows)):
            return verdict
        self._say(f"day {rows[-1]['day']:g}: a new model is fitted")
        challenger = self._trained(self.history(rows))
        with self._mutex:
            if turn != self._turn:
                return verdict
            self._trial = (challenger, len(rows))
        if verdict is not None:
            return verdict
        why = f"made of {len(rows)} samples; judged by the next {TRIAL_SAMPLES}"
        old, new = digest(self.model), digest(challenger)
        return Lesson(False, old, new, why, {"rows": len(rows)}, is_trial=True)

    def _judge(self, rows: Sequence[Row], turn: int) -> Lesson | None:
        """Promote the challenger or drop it, by samples that came after it was made."""
        if self._trial is None:
            return None
        challenger, cut_off = self._trial
        run, champion = self.history(rows), self.model
        scores = {
            "champion": self._score(run, champion, cut_off),
            "challenger": self._score(run, challenger, cut_off),
        }
        n_new = len(rows) - cut_off
        details = {"rows": cut_off, "judged_by": n_new, **scores}
        is_better = np.isfinite(scores["challenger"]) and not (
            scores["challenger"] < scores["champion"] - TOLERANCE
        )
        with self._mutex:
            if turn != self._turn:
                return None
            self._trial = None
            if is_better:
                self.model = challenger
        says = f"{scores['challenger']:.2f} against {scores['champion']:.2f} nats per sample"
        how = "no worse" if is_better else "worse"
        why = f"the challenger explains {n_new} samples neither model was fitted on {how}: {says}"
        return Lesson(bool(is_better), digest(champion), digest(challenger), why, details)

    def _score(self, run: Trajectory, model: HybridStateSpaceModel, cut_off: int) -> float:
        """Mean log density [nats] of each sample since a cut-off given those before it."""
        _, beliefs = estimate(run, model, seed=self.seed)
        info = np.asarray(beliefs.info.log_likelihood)[: run.n_days]
        return float(np.mean(info[cut_off:]))

    def _trained(self, run: Trajectory) -> HybridStateSpaceModel:
        """The model with this run's rows; without a campaign, one fitted to this run alone.

        A fit judges itself on runs it has not seen. Of a single run, each half stands in for
        a run.
        """
        key = jax.random.key(self.seed)
        if self.base_model.gp is not None:
            return condition_on(self.base_model, [run], key=key)
        half = run.n_days // 2
        length = 32
        while length < run.n_days:
            length *= 2
        parts = [_rows(run, slice(None, half)), _rows(run, slice(half, None))]
        model, report = fit_hybrid(
            parts,
            key=key,
            config=HybridConfig(length=length),
            mech_model=self.base_model.mech_model,
        )
        self._say(f"fitted {report.details['rows']} rows of this run")
        return model


def _rows(run: Trajectory, rows: slice) -> Trajectory:
    """Some rows of a run; days would not tell rows apart where several are of one."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[rows], run)


def not_finite(decision: Decision, names: Sequence[str] = FORECAST_SPECIES) -> str:
    """Why nothing follows from a decision: a sentence, empty if all of it is finite.

    A model that has come to NaN lets every search end where it began, which looks like a
    recommendation and is none.

    Args:
        decision: The decision.
        names: What is forecast.
    """
    for what, table in (("state", decision.state_mean), ("spread", decision.state_sd)):
        lost = [name for name, value in table.items() if not np.isfinite(value)]
        if lost:
            return f"the {what} of {', '.join(lost)} is not a finite number"
    ahead = decision.outlook.as_dict()
    lost = [
        name
        for column, name in enumerate(names)
        if not all(np.all(np.isfinite(ahead[k][:, column])) for k in ("mean", "q10", "q50", "q90"))
    ]
    if lost:
        return f"the forecast of {', '.join(lost)} is not finite: the model cannot be solved here"
    value = decision.policy.acqf_value
    if not np.isfinite(value):
        return f"no set-points with a finite value of {decision.policy.acqf_name} were found"
    return ""


def as_proposal(decision: Decision, names: Sequence[str] = FORECAST_SPECIES) -> Proposal:
    """A decision in the form the shell takes.

    Args:
        decision: The decision.
        names: What is forecast.
    """
    from scipy.special import bdtr  # the binomial distribution

    inside, total = decision.coverage
    explanation = {**decision.policy.explanation, "coverage": [inside, total]}
    odds = float(bdtr(inside, total, 0.8)) if total >= 15 else 1.0
    if odds < DRIFT_ODDS:
        explanation["drift"] = (
            f"{inside} of the last {total} readings lay in their 80 % bands; the model drifts"
        )
    return Proposal(
        decision.setpoints,
        digest=decision.digest,
        forecast=decision.outlook.from_day(decision.day),
        species=names,
        explanation=explanation,
        native=decision,
    )


def _n_pairs(run: Trajectory, readings: np.ndarray, species: str) -> int:
    known = run.host_readings((species,))[:, 0]
    return len(set(known[np.isfinite(readings) & np.isfinite(known)].tolist()))
