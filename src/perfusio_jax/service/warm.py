"""`perfusio-jax warm`: everything a run will compile, compiled before it begins.

The brain of the run decides for a few days as it will then, on its own forecasts in place of
samples. Nothing of the run is opened: no connector, no journal, no folder.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from perfusio_jax._core import FORECAST_SPECIES, HOURS_PER_DAY
from perfusio_jax._core.executables import keeper
from perfusio_jax._core.instants import as_day
from perfusio_jax.bed import telling
from perfusio_jax.bed.policy.described import faces
from perfusio_jax.chemistry import report
from perfusio_jax.hybrid.ahead import rows_for
from perfusio_jax.mechanistic import DEFAULT_CONTROLS
from perfusio_jax.twin import ModelBrain, Situation
from perfusio_jax.twin.decision.model_brain import MIN_ROWS_FOR_GP, TRIAL_SAMPLES
from perfusio_jax.twin.decision.step import padded_length

from .plan import RunPlan, plans_of
from .replay import brain_of


def warm_run(what: Path, *, console: Any) -> None:
    """Compile what a run of these sizes will need, and keep it for the programs that follow.

    Args:
        what: The configuration of the run, or a fleet.
        console: Where to print.

    Raises:
        ConfigError: If the configuration cannot be used.
    """
    for plan in plans_of(what):
        _warm(plan, console)


def _warm(plan: RunPlan, console: Any) -> None:
    begun, before = time.monotonic(), _n_kept()
    n = days_needed(plan)
    console.print(
        f"{plan.what}: {n} decisions as the run will make them; compiling, where it is needed, "
        "takes minutes",
        soft_wrap=True,
    )

    def say(text: str) -> None:
        console.print(f"{time.monotonic() - begun:5.0f} s  {text}", soft_wrap=True)

    with jax.default_device(plan.device), telling(say):
        rehearse(plan, brain_of(plan), n, say)
    took, new = time.monotonic() - begun, _n_kept() - before
    store = keeper()
    if store is None:
        console.print(f"done after {took:.0f} s; compiled programs are not kept here, see above.")
    elif new:
        console.print(
            f"done after {took:.0f} s; compiled programs: {new} new in "
            f"{store.folder}; a run begins without compiling.",
            soft_wrap=True,
        )
    else:
        console.print(f"done after {took:.0f} s: everything was there already.")


def days_needed(plan: RunPlan) -> int:
    """Decisions after which nothing new is compiled: the first challenger has had its verdict."""
    if plan.table.get("mode", "adaptive") == "frozen":
        return 2
    first = 3 if plan.model is not None and plan.model.gp is not None else MIN_ROWS_FOR_GP
    return first + TRIAL_SAMPLES + 1


def rehearse(plan: RunPlan, brain: ModelBrain, n: int, say: Callable[[str], None]) -> None:
    """Learn and decide `n` times on the model's own forecasts, and once at each longer length.

    Args:
        plan: The run.
        brain: Its brain, fresh; it is used up.
        n: Decisions.
        say: Called with a line per decision.
    """
    interval = plan.parts.run.sampling_interval_hours
    wanted = plan.initial_controls
    known = DEFAULT_CONTROLS if plan.culture is None else wanted
    u_now = {name: float(wanted[name]) for name in known}
    given = () if plan.culture is None else plan.culture.process.boluses
    values, rows = start_values(brain), []
    for k in range(n):
        hours = k * interval
        day = as_day(hours / HOURS_PER_DAY)
        acting = {**u_now, **dict.fromkeys(given, 0.0)}
        rows.append({"day": day, "time_h": hours, "values": values, "controls": acting})
        situation = Situation(day=day, rows=tuple(rows), u_now=u_now)
        brain.learn(situation)
        made = brain.propose(situation)
        u_now = {**u_now, **{name: float(value) for name, value in made.setpoints.items()}}
        ahead = np.asarray((made.forecast or {})["q50"])[0]
        names = FORECAST_SPECIES if plan.culture is None else made.species
        values = dict(zip(names, ahead.tolist(), strict=True))
        say(f"{k + 1} of {n} decisions")
    size = padded_length if plan.culture is None else rows_for
    length = size(1)
    while length < size(round(plan.parts.run.duration_days * HOURS_PER_DAY / interval)):
        last = rows[-1]
        rows += [
            {**last, "day": as_day(j * interval / HOURS_PER_DAY), "time_h": j * interval}
            for j in range(len(rows), length + 1)
        ]
        brain.propose(Situation(day=rows[-1]["day"], rows=tuple(rows), u_now=u_now))
        length = size(len(rows))
        say(f"a decision after {len(rows)} samples")


def start_values(brain: ModelBrain) -> dict[str, float]:
    """What the model expects a run to begin with, by reported species."""
    model = brain.base_model
    state = model.latent.inverse(model.initial.mean)
    if not model.layout.is_cho:
        shown = np.asarray(faces(model, state[None, :]))[0]
        return dict(zip(model.layout.forecast, shown.tolist(), strict=True))
    face = np.asarray(report(state, model.diam_base, model.diam_death_coeff))
    return dict(zip(FORECAST_SPECIES, face.tolist(), strict=True))


def _n_kept() -> int:
    store = keeper()
    return 0 if store is None else sum(1 for _ in store.folder.iterdir())
