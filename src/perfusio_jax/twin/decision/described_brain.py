"""The brain of a twin of a described culture: `ModelBrain` by the names of a process."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from perfusio_jax._core import HOURS_PER_DAY, SimulationError
from perfusio_jax._core.instants import day_number
from perfusio_jax.bed.policy.described import DescribedPolicy
from perfusio_jax.hybrid import DrawnMechanisms, HybridStateSpaceModel, condition_on
from perfusio_jax.states import Trajectory, on_grid

from .brain import Proposal, Situation
from .described_step import (
    decide_for_culture,
    described_history,
    estimate_described,
    forecast_described,
)
from .model_brain import Mode, ModelBrain, as_proposal, not_finite
from .probed import probed_rows
from .step import hours_ahead

if TYPE_CHECKING:
    from perfusio_jax.study import PosteriorMechanisms


class DescribedBrain(ModelBrain):
    """Learns and proposes for a culture that is described.

    Args:
        model: Champion at the start, of the culture.
        policy: Goals, limits and ranges.
        seed: Of all random numbers.
        run_id: Name of the run.
        clone_id: Clone of the run, for a model that knows several.
        retrain_every: Samples between two challengers, at least; one is on trial at a time.
        n_paths: Paths of a forecast.
        mode: "frozen" or "adaptive".
        say: Called with a line about what is going on.
        sample_h: Time between two samples [h].
        posterior: Draws of the mechanism's constants, under which it is decided; what is learned is
            learned around the model's own.
    """

    def __init__(
        self,
        model: HybridStateSpaceModel,
        policy: DescribedPolicy,
        *,
        seed: int,
        run_id: str,
        clone_id: str = "unknown",
        retrain_every: int = 1,
        n_paths: int = 256,
        mode: Mode = "adaptive",
        say: Callable[[str], None] | None = None,
        sample_h: float = HOURS_PER_DAY,
        posterior: "PosteriorMechanisms | None" = None,
    ) -> None:
        super().__init__(
            model,
            policy,  # pyright: ignore[reportArgumentType]
            seed=seed,
            volume_L=policy.process.volume_L,
            run_id=run_id,
            retrain_every=retrain_every,
            n_paths=n_paths,
            mode=mode,
            say=say,
            sample_h=sample_h,
        )
        self.goals, self.clone_id, self.posterior = policy, clone_id, posterior

    @property
    def mechanisms(self) -> DrawnMechanisms | None:
        """Draws of the mechanism's constants; None where the model's own count."""
        return None if self.posterior is None else self.posterior.drawn

    def history(self, rows: Any) -> Trajectory:
        """The run so far as arrays."""
        return described_history(
            rows, self.goals.process, run_id=self.run_id, clone_id=self.clone_id
        )

    def propose(self, situation: Situation) -> Proposal:
        """Recommend set-points; see `described_step.decide_for_culture`.

        Raises:
            SimulationError: If what was computed is not finite: nothing follows from it.
        """
        decision = decide_for_culture(
            self.history(situation.rows),
            self.model,
            self.goals,
            mechanisms=self.mechanisms,
            **self._asked(situation),
        )
        names = self.model.layout.forecast
        trouble = not_finite(decision, names)
        if trouble:
            raise SimulationError(trouble)
        made = replace(as_proposal(decision, names), volume_L=decision.volume_L)
        if self.posterior is None:
            return made
        told = {**made.explanation, "posterior": self.posterior.as_record()}
        return replace(made, explanation=told)

    def outlook(self, situation: Situation) -> Proposal | None:
        """Forecast from the last sample carried on to what probes read last."""
        rows = probed_rows(situation, self.model.layout, sample_h=self.sample_h)
        if rows is None:
            return None
        known = estimate_described(
            self.history(rows), self.model, seed=self.seed, mechanisms=self.mechanisms
        )
        ends = hours_ahead(self.goals.ofv, self.sample_h, self.model)
        daily = (HOURS_PER_DAY * np.arange(1, self.goals.horizon + 1)).tolist()
        ahead = forecast_described(
            known,
            rows[-1]["controls"],
            hours=daily if ends is None else ends,
            seed=self.seed + 1009 * day_number(situation.day) + 7,
            n_paths=self.n_paths,
            is_daily=ends is None,
        )
        names = self.model.layout.forecast
        return Proposal({}, forecast=ahead.from_day(situation.day), species=names)

    def _is_due(self, n_rows: int) -> bool:
        """A model without a learned part has nothing that rows of this run could be put to."""
        return self.base_model.gp is not None and super()._is_due(n_rows)

    def _score(self, run: Trajectory, model: HybridStateSpaceModel, cut_off: int) -> float:
        """Mean log density [nats] of each sample since a cut-off given those before it."""
        found = estimate_described(run, model, seed=self.seed)
        since = float(np.asarray(run.times_h)[cut_off]) / HOURS_PER_DAY
        info, days = found.beliefs.info, np.asarray(found.beliefs.days)
        n_rows = on_grid(run, float(model.dt_hours), once=self.goals.process.boluses).n_days
        counts = (days >= since - 1e-9) & (np.arange(days.size) < n_rows)
        total = float(np.sum(np.asarray(info.log_likelihood)[counts]))
        return total / (run.n_days - cut_off)

    def _trained(self, run: Trajectory) -> HybridStateSpaceModel:
        """The model with this run's rows."""
        gridded = on_grid(run, float(self.base_model.dt_hours), once=self.goals.process.boluses)
        return condition_on(self.base_model, [gridded], key=jax.random.key(self.seed))
