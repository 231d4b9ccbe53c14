"""`perfusio-jax propose` for a culture that is described: goals and limits by name."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import HOURS_PER_DAY, ConfigError, DataError
from perfusio_jax._core.hints import did_you_mean
from perfusio_jax.bed import ChanceConstraint
from perfusio_jax.bed.goal.constraints import ControlLimits
from perfusio_jax.bed.goal.criteria import FinalValue, ProcessOFV, TrackingError
from perfusio_jax.bed.goal.steps import native_step
from perfusio_jax.bed.policy.campaign import propose_runs
from perfusio_jax.bed.policy.campaign_settings import CampaignSettings
from perfusio_jax.bed.policy.campaign_words import explain_campaign
from perfusio_jax.hybrid import HybridStateSpaceModel, Layout, draw_paths, for_clone
from perfusio_jax.hybrid.layout import VOLUME, layout_of
from perfusio_jax.hybrid.recipes import recipe_rollout
from perfusio_jax.process import Process
from perfusio_jax.process.parts import REST, litres_per_hour
from perfusio_jax.report.answer import answer, refuse_infeasible
from perfusio_jax.report.recipes import still_pending
from perfusio_jax.report.setpoints import never_varied
from perfusio_jax.states import Trajectory

N_PATHS = 64
_GOAL = re.compile(r"\s*(max|min)(?:\s+|\s*:\s*)(\w+)\s*")
_TARGET = re.compile(r"\s*(\w+)\s*=\s*([-+.\deE]+)\s*")
_LIMIT = re.compile(r"\s*(\w+)\s*(<=|>=)\s*([-+.\deE]+)\s*")
_SMOOTH = 0.005
"""Width of a limit's smooth step over the span of its quantity [-]."""


class Aims(NamedTuple):
    """What the next runs of a described culture should be like."""

    goal: str
    """`max P`, `min P` at the end of a run, or `P=12` to be held from the middle on."""
    limits: Sequence[str] = ()
    """As `Via>=80` or `NH4<=5`, to be kept at the end of every day."""
    n_runs: int = 8
    days: int | None = None
    """Length of a run [d]; that of the longest so far."""
    probability: float = 0.8
    """With which limits are to be kept [-]."""
    fixed: Mapping[str, float] = {}
    """Controls held at a value."""
    clone: str | None = None
    """Clone to plan for; that of the last run."""
    seed: int = 0
    is_within_runs: bool = False
    """Whether recipes stay where the runs so far have been, widened by a tenth, since nobody has
    told how far the controls may go."""


def propose_described(
    model: HybridStateSpaceModel,
    runs: list[Trajectory],
    aims: Aims,
    *,
    pending: Path | None,
    out: Path,
    console: Any,
    settings: CampaignSettings | None = None,
) -> dict[str, Any]:
    """Propose the next runs of a culture, write them and say why.

    Args:
        model: Model of the runs.
        runs: The runs so far, with every set-point.
        aims: What is wanted.
        pending: Table of recipes that are running, as this command writes it.
        out: CSV file to write.
        console: Where to print.
        settings: Sizes of the search.

    Returns:
        The explanation.

    Raises:
        ConfigError: If an aim is unusable, or no recipe keeps the limits.
    """
    process = model.layout.process
    if process is None:
        raise ConfigError("this model is of CHO perfusion, which has goals of its own.")
    names, units = list(process.control_names), {c.name: c.unit for c in process.controls}
    days = aims.days or max(1, round(max(float(t.times_h[-1]) for t in runs) / HOURS_PER_DAY))
    ofv = goal_of(aims.goal, process, days, step_h=native_step(model))
    chance = limits_of(aims.limits, process, aims.probability)
    recipes = np.stack([_recipe(run, process) for run in runs])
    fixed, told = _held(aims.fixed, process, runs, names)
    for line in told:
        console.print(line, soft_wrap=True)
    waiting, about = still_pending(pending, names, [t.run_id for t in runs], units.__getitem__)
    for line in about:
        console.print(line, soft_wrap=True)
    clone = aims.clone or runs[-1].clone_id
    if model.embedding is not None:
        console.print(f"planning for clone {clone}")
        model = for_clone(model, clone)
    spans = _spans(recipes, names) if aims.is_within_runs else {}
    for name, (low, high) in spans.items():
        if name not in fixed:
            console.print(
                f"{name} is looked for from {low:.4g} to {high:.4g} {units[name]}: where the runs "
                "so far have been, widened by a tenth. A process file says how far it may go.",
                soft_wrap=True,
            )
    limits = box_of(process, fixed, spans)
    moves = VOLUME in model.layout.controls
    U, info = propose_runs(
        model,
        draw_paths(model, N_PATHS, key=jax.random.key(aims.seed), max_steps=ofv.n_steps),
        model.latent.inverse(model.initial.mean),
        jnp.asarray(recipes),
        ofv=ofv,
        limits=limits,
        q=aims.n_runs,
        chance=chance,
        pending=np.asarray([recipe for _, recipe in waiting]).reshape(-1, len(names)),
        settings=CampaignSettings() if settings is None else settings,
        seed=aims.seed,
        rollout=recipe_rollout,
        template=jnp.zeros(model.layout.m) if moves else None,
        positions=tuple(range(len(names))) if moves else (),
        fixed={names.index(name): value for name, value in fixed.items()},
        say=lambda line: console.print(line, soft_wrap=True),
    )
    ids = [t.run_id for t in runs]
    found = explain_campaign(info, ofv, chance, names, ids)
    refuse_infeasible(
        found,
        aims.probability,
        "Relax --limit or --probability, or widen the ranges of the controls in the process.",
    )
    answer(
        found,
        np.asarray(U),
        runs,
        recipes,
        ofv=ofv,
        span=np.asarray(limits.upper) - np.asarray(limits.lower),
        names=names,
        held=list(fixed),
        taken={*ids, *(name for name, _ in waiting)},
        clone=clone,
        out=out,
        console=console,
        unit_of=units.__getitem__,
    )
    return found


def goal_of(text: str, process: Process, days: int, *, step_h: float = HOURS_PER_DAY) -> ProcessOFV:
    """A goal in words as an objective over a whole run.

    Args:
        text: `max P`, `min P` or `P=12`.
        process: The culture.
        days: Length of a run [d].
        step_h: Length of a roll-out's step [h].

    Raises:
        ConfigError: If it says something else, or of a quantity that is not forecast.
    """
    layout = layout_of(process)
    one = _GOAL.fullmatch(text)
    if one is not None:
        way, name = one[1], one[2]
        unit = _unit(name, process, layout)
        criterion = FinalValue(
            name, direction=1 if way == "max" else -1, names=layout.forecast, unit=unit
        )
        return ProcessOFV([criterion], horizon=days, step_h=step_h)
    held = _TARGET.fullmatch(text)
    if held is None:
        raise ConfigError(
            f"goal {text!r} is unknown; allowed are 'max NAME' and 'min NAME' for the end of a "
            f"run, and 'NAME=value' to be held, with NAME out of {', '.join(layout.forecast)}."
        )
    unit = _unit(held[1], process, layout)
    tracked: Any = TrackingError(
        held[1], _value(held[2], text), from_day=days // 2, names=layout.forecast, unit=unit
    )
    return ProcessOFV([tracked], horizon=days, step_h=step_h)


def limits_of(
    texts: Sequence[str], process: Process, probability: float
) -> tuple[ChanceConstraint, ...]:
    """Limits in words as constraints of every day.

    Args:
        texts: As `Via>=80`.
        process: The culture.
        probability: With which they are to be kept [-].

    Raises:
        ConfigError: If one says something else, or of a quantity that is not forecast.
    """
    if not 0.0 < probability < 1.0:
        raise ConfigError(f"--probability {probability:g} must lie between 0 and 1.")
    layout = layout_of(process)
    found = []
    for text in texts:
        parts = _LIMIT.fullmatch(text)
        if parts is None:
            raise ConfigError(f"--limit {text!r}: a limit is NAME>=value or NAME<=value.")
        _unit(parts[1], process, layout)
        quantity = process.quantity(parts[1])
        width = _SMOOTH * (quantity.hi - quantity.lo)
        found.append(
            ChanceConstraint(
                _value(parts[3], text),
                probability,
                temperature=width,
                backoff=3.0 * width,
                species_index=layout.forecast.index(parts[1]),
                is_upper=parts[2] == "<=",
                species=parts[1],
            )
        )
    return tuple(found)


def box_of(
    process: Process,
    fixed: Mapping[str, float],
    spans: Mapping[str, tuple[float, float]] | None = None,
) -> ControlLimits:
    """Where recipes of a culture may lie.

    Where a stream that leaves keeps the volume, what else leaves is not more than what enters.

    Args:
        process: The culture; bounds are those of its controls.
        fixed: Controls that are held, which may be so beyond their bounds.
        spans: Bounds by control in place of the process's.

    Returns:
        The limits.
    """
    ends = {c.name: (c.lo, c.hi) for c in process.controls} | dict(spans or {})
    held = {name: (value, value) for name, value in fixed.items()}
    both = [np.asarray([*ends[n], *held.get(n, ends[n])]) for n in process.control_names]
    lower = np.asarray([v.min() for v in both])
    upper = np.asarray([v.max() for v in both])
    d = lower.size
    row = np.zeros(d)
    closing = process.closing
    if closing is not None:
        for stream in process.streams:
            if stream.flow == REST:
                continue
            control = process.control(stream.flow)
            if control.role != "flow":
                continue
            per_unit = litres_per_hour(1.0, process.volume_L, control.unit, control.name)
            sign = 1.0 if stream.direction == closing.direction else -1.0
            row[process.control_names.index(control.name)] += sign * per_unit
    has_both = (row > 0).any() and (row < 0).any()
    rows = (row / np.abs(row).max())[None, :] if has_both else np.zeros((0, d))
    nothing = jnp.zeros(d)
    return ControlLimits(
        jnp.asarray(lower),
        jnp.asarray(upper),
        nothing,
        nothing,
        jnp.full(d, jnp.inf),
        jnp.asarray(rows),
        jnp.zeros(rows.shape[0]),
    )


def _held(
    asked: Mapping[str, float], process: Process, runs: Sequence[Trajectory], names: list[str]
) -> tuple[dict[str, float], list[str]]:
    """Controls that are held, and a sentence for each that nobody asked for.

    What no run has varied is held: without a mechanism that knows it, nothing says what it does.
    """
    for name in asked:
        process.control(name)
    fixed, lines = dict(asked), []
    for name, value in never_varied(runs, names).items():
        if name not in fixed:
            fixed[name] = value
            lines.append(
                f"{name} was {value:.4g} {process.control(name).unit} in all runs so far and is "
                f"held there: nothing says what it does. --set {name}=value moves it."
            )
    if len(fixed) == len(names):
        raise ConfigError(
            "every control is held, so there is nothing to propose: the runs so far have varied "
            f"none of {', '.join(names)}, or --set holds it."
        )
    return fixed, lines


def _spans(recipes: np.ndarray, names: list[str]) -> dict[str, tuple[float, float]]:
    """Where each control has been, widened by a tenth; not below zero if it never was."""
    low, high = recipes.min(axis=0), recipes.max(axis=0)
    more = 0.1 * (high - low)
    least = np.where(low >= 0.0, np.maximum(low - more, 0.0), low - more)
    return {n: (float(a), float(b)) for n, a, b in zip(names, least, high + more, strict=True)}


def _recipe(run: Trajectory, process: Process) -> np.ndarray:
    """Mean set-points of a run over its time; of a bolus what was given a day."""
    table = np.asarray(run.controls, float)[: max(run.n_days - 1, 1)]
    hours = np.diff(np.asarray(run.times_h, float))
    mean = hours @ table / hours.sum()
    given = table.sum(axis=0) * HOURS_PER_DAY / hours.sum()
    place = {name: k for k, name in enumerate(run.control_names)}
    return np.asarray(
        [(given if c.role == "bolus" else mean)[place[c.name]] for c in process.controls]
    )


def _unit(name: str, process: Process, layout: Layout) -> str:
    if name not in layout.forecast:
        raise ConfigError(
            f"{name!r} is not forecast{did_you_mean([name], layout.forecast)}; of {process.name} "
            f"are {', '.join(layout.forecast)}."
        )
    return process.quantity(name).unit


def _value(text: str, whole: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ConfigError(f"{whole!r}: {text!r} is no number.") from None
    if not np.isfinite(value):
        raise DataError(f"{whole!r}: {text!r} is not finite.")
    return value
