"""`perfusio-jax replay`: a run decided again from its journal."""

from pathlib import Path
from typing import Any

import jax

from perfusio_jax._core import ConfigError
from perfusio_jax.hybrid import untrained_model
from perfusio_jax.mechanistic import CHOPerfusionModel
from perfusio_jax.twin import GateLimits, ModelBrain, RunRecords, replay
from perfusio_jax.twin.decision.cadence import Cadence
from perfusio_jax.twin.decision.given import default_policy
from perfusio_jax.twin.loop.commands import reactors
from perfusio_jax.twin.records.run_files import JOURNAL_NAME

from .plan import RunPlan, plans_of


def replay_run(what: Path, *, reactor_id: str | None, console: Any) -> bool:
    """Decide every standing decision of a run again and compare bytes.

    Args:
        what: The configuration the run was made with, or a fleet.
        reactor_id: Only this vessel.
        console: Where to print.

    Returns:
        Whether everything came out the same.

    Raises:
        ConfigError: If there is no journal.
    """
    plans = plans_of(what)
    return all([_replayed(plan, reactor_id, console) for plan in plans])


def _replayed(plan: RunPlan, reactor_id: str | None, console: Any) -> bool:
    is_same = True
    with jax.default_device(plan.device):
        for name in plan.reactors:
            if reactor_id not in (None, name):
                continue
            path = plan.folder_of(name) / JOURNAL_NAME
            if not path.is_file():
                raise ConfigError(f"there is no journal {path}; has this run been made?")
            with RunRecords(path) as records:
                for known in reactors(records):
                    report = replay(
                        records,
                        known,
                        brain_of(plan),
                        plan.initial_controls,
                        given=() if plan.culture is None else plan.culture.process.boluses,
                    )
                    console.print(f"{known}: {report}", soft_wrap=True)
                    is_same = is_same and report.ok
    return is_same


def brain_of(plan: RunPlan) -> ModelBrain:
    """A fresh brain as the run started with."""
    if plan.culture is not None and plan.model is not None:
        return plan.culture.brain(
            plan.model,
            plan.parts.run,
            run_id=plan.run_id,
            mode=plan.table.get("mode", "adaptive"),
        )
    space, run = plan.parts.design_space, plan.parts.run
    volume = float(plan.table.get("volume_L", 0.25))
    model = plan.model
    if model is None:
        model = untrained_model(CHOPerfusionModel(volume_L=volume))
    limits, cadence = GateLimits.from_design_space(space), Cadence(run.sampling_interval_hours)
    return ModelBrain(
        model,
        default_policy(model, space, limits, cadence=cadence, acqf_name=run.acquisition),
        seed=0 if run.seed is None else run.seed,
        volume_L=volume,
        run_id=plan.run_id,
        retrain_every=run.retrain_every,
        n_paths=run.n_mc_samples,
        mode=plan.table.get("mode", "adaptive"),
        sample_h=cadence.interval_h,
    )
