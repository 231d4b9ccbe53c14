"""`perfusio-jax replay`: a run decided again from its journal."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from perfusio_jax._core import ConfigError
from perfusio_jax._core.compiler_flags import POLISHED, completed
from perfusio_jax.hybrid import untrained_model
from perfusio_jax.mechanistic import CHOPerfusionModel
from perfusio_jax.twin import GateLimits, ModelBrain, RunRecords, replay
from perfusio_jax.twin.decision.cadence import Cadence
from perfusio_jax.twin.decision.given import default_policy
from perfusio_jax.twin.loop.commands import reactors
from perfusio_jax.twin.records.run_files import JOURNAL_NAME

from .plan import RunPlan, plans_of

if TYPE_CHECKING:
    from perfusio_jax.study import PosteriorMechanisms


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
                    told = sessions_of(records, known)
                    for line in (*other_posteriors(told, plan.posterior), *other_compilers(told)):
                        console.print(f"{known}: {line}", soft_wrap=True)
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


def sessions_of(records: RunRecords, reactor_id: str) -> list[Mapping[str, Any]]:
    """What each session of a run said of itself.

    Args:
        records: The journal.
        reactor_id: Vessel.
    """
    return [c.payload for c in records.handled(reactor_id) if c.kind == "session"]


def other_posteriors(
    sessions: Sequence[Mapping[str, Any]], now: "PosteriorMechanisms | None"
) -> list[str]:
    """Posteriors that sessions decided by and the settings do not name, one sentence each.

    Args:
        sessions: What they said of themselves.
        now: What the settings name.
    """
    wanted = None if now is None else now.as_record()
    found = []
    for told in sessions:
        then = told.get("posterior")
        if _name_of(then) != _name_of(wanted):
            found.append(
                f"a session decided by {_name_of(then)}, and the settings name {_name_of(wanted)}"
            )
    return list(dict.fromkeys(found))


def other_compilers(sessions: Sequence[Mapping[str, Any]]) -> list[str]:
    """Settings of the compiler that sessions ran with and this process does not, a sentence each.

    Args:
        sessions: What they said of themselves; those of earlier versions had none of their own.
    """
    now = os.environ.get("XLA_FLAGS", "")
    found = []
    for told in sessions:
        then = str(told.get("xla_flags", ""))
        if sorted(then.split()) != sorted(now.split()):
            found.append(
                f"a session was compiled with XLA_FLAGS={then!r}, this process has {now!r}: last "
                f"digits may differ; set XLA_FLAGS={completed(then, POLISHED)!r} for the same"
            )
    return list(dict.fromkeys(found))


def _name_of(told: Mapping[str, Any] | None) -> str:
    if told is None:
        return "no posterior"
    return f"{told['draws']} draws of the posterior with SHA-256 {str(told['sha256'])[:16]}"


def brain_of(plan: RunPlan) -> ModelBrain:
    """A fresh brain as the run started with."""
    if plan.culture is not None and plan.model is not None:
        return plan.culture.brain(
            plan.model,
            plan.parts.run,
            run_id=plan.run_id,
            mode=plan.table.get("mode", "adaptive"),
            posterior=plan.posterior,
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
