"""`perfusio-jax propose` for a culture that is described: goals and limits by name."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import HOURS_PER_DAY, ConfigError
from perfusio_jax._core.text import shown_unit
from perfusio_jax.bed.goal.by_name import box_of as box_of
from perfusio_jax.bed.goal.by_name import goal_of as goal_of
from perfusio_jax.bed.goal.by_name import limits_of as limits_of
from perfusio_jax.bed.goal.constraints import ChanceConstraint, ControlLimits
from perfusio_jax.bed.goal.costs import Costs, read_costs
from perfusio_jax.bed.goal.criteria import ProcessOFV
from perfusio_jax.bed.goal.expressions import RunForm
from perfusio_jax.bed.goal.profile import make_profile
from perfusio_jax.bed.goal.steps import native_step, step_hours
from perfusio_jax.bed.policy.campaign import propose_runs
from perfusio_jax.bed.policy.campaign_settings import CampaignSettings
from perfusio_jax.bed.policy.campaign_words import explain_campaign
from perfusio_jax.bed.policy.described import faces
from perfusio_jax.hybrid import HybridStateSpaceModel, deal, draw_paths, for_clone
from perfusio_jax.hybrid.layout import VOLUME, Layout
from perfusio_jax.hybrid.recipes import recipe_rollout
from perfusio_jax.process import Process
from perfusio_jax.report.answer import answer, refuse_infeasible
from perfusio_jax.report.costing import costs_of
from perfusio_jax.report.profiles import answer_profiles, grid_of, pending_plans, plan_of_run
from perfusio_jax.report.recipes import still_pending
from perfusio_jax.report.setpoints import beyond_runs, changed_within, never_varied
from perfusio_jax.states import Trajectory
from perfusio_jax.viz import Card

if TYPE_CHECKING:
    from perfusio_jax.study import PosteriorMechanisms

N_PATHS = 64


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
    profile: int = 0
    """Changes of each control within a run, at most."""
    max_change: Mapping[str, float] = {}
    """Largest change of a control at once, by name; absent: not limited."""
    goals: Sequence[str] = ()
    """Several goals in place of one."""
    weights: Sequence[float] | None = None
    """What a unit of each of them is worth [-]."""
    is_front: bool = False
    """Whether they are kept apart, for the front between them."""
    per: str = ""
    """`cost` or `day`: what there is to be most of counts per that."""
    costs: Mapping[str, float] = {}
    """Prices; see `bed.goal.costs`."""
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
    on_card: Callable[[Card], None] | None = None,
    posterior: "PosteriorMechanisms | None" = None,
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
        on_card: Is given what was concluded.
        posterior: Draws of the mechanism's constants; every path has one of them, and the same
            ones for every recipe.

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
    start = faces(model, model.latent.inverse(model.initial.mean)[None, :])[0]
    ofv, chance, costs = aimed(
        aims, process, days, step_h=native_step(model), layout=model.layout, start=start
    )
    recipes = np.stack([_recipe(run, process) for run in runs])
    once = tuple(names.index(name) for name in process.boluses)
    grid = grid_of(ofv, names, once, units.__getitem__)
    fixed, told = _held(aims.fixed, process, runs, names)
    for line in told:
        console.print(line, soft_wrap=True)
    ids = [t.run_id for t in runs]
    if aims.profile:
        waiting, about = pending_plans(pending, grid, ids)
    else:
        waiting, about = still_pending(pending, names, ids, units.__getitem__)
    for line in about:
        console.print(line, soft_wrap=True)
    clone = aims.clone or runs[-1].clone_id
    if model.embedding is not None:
        console.print(f"planning for clone {clone}")
        model = for_clone(model, clone)
    spans = _spans(recipes, names) if aims.is_within_runs else {}
    for name, (low, high) in spans.items():
        if name not in fixed:
            unit = shown_unit(units[name])
            console.print(
                f"{name} is looked for from {low:.4g} to {high:.4g} {unit}: where the runs so far "
                "have been, widened by a tenth. A process file says how far it may go.",
                soft_wrap=True,
            )
    free = [n for n in names if n not in fixed and n not in process.boluses]
    changed = [] if aims.profile else changed_within(runs, free)
    if changed:
        console.print(
            f"{', '.join(changed)} changed within most of the runs so far, and the runs proposed "
            "hold one value throughout; the runs so far are compared by their means. --profile 2 "
            "looks for runs that change, too.",
            soft_wrap=True,
        )
    limits = with_max_change(box_of(process, fixed, spans), aims.max_change, names)
    positions = {names.index(name): value for name, value in fixed.items()}
    if aims.profile:  # refuses by name before the work
        make_profile(
            limits,
            aims.profile,
            ofv.n_steps,
            fixed=positions,
            daily=once,
            step_h=float(grid.lengths_h[0]),
            names=names,
        )
    plans = np.stack([plan_of_run(run, grid) for run in runs]) if aims.profile else recipes
    moves = VOLUME in model.layout.controls
    paths = draw_paths(model, N_PATHS, key=jax.random.key(aims.seed), max_steps=ofv.n_steps)
    U, info = propose_runs(
        model,
        paths if posterior is None else deal(paths, posterior.drawn),
        model.latent.inverse(model.initial.mean),
        jnp.asarray(plans),
        ofv=ofv,
        limits=limits,
        q=aims.n_runs,
        chance=chance,
        pending=np.asarray([recipe for _, recipe in waiting]).reshape(-1, *plans.shape[1:]),
        settings=CampaignSettings() if settings is None else settings,
        seed=aims.seed,
        rollout=recipe_rollout,
        template=jnp.zeros(model.layout.m) if moves else None,
        positions=tuple(range(len(names))) if moves else (),
        fixed=positions,
        profile=aims.profile,
        daily=once,
        say=lambda line: console.print(line, soft_wrap=True),
    )
    found = explain_campaign(info, ofv, chance, names, ids)
    name_posterior(found, posterior)
    refuse_infeasible(
        found,
        aims.probability,
        "Relax --limit or --probability, or widen the ranges of the controls in the process.",
    )
    held = [n for n in names if n in process.boluses or n in fixed]  # a bolus is so much a day
    looked = [k for k, n in enumerate(names) if n not in held]
    found["remarks"] = [
        *found["remarks"],
        *beyond_runs(
            runs, np.asarray(U)[..., looked], [names[k] for k in looked], units.__getitem__
        ),
    ]
    if costs is not None:
        form = RunForm(process, model.layout, tuple(grid.lengths_h.tolist()))
        found["costs"] = costs_of(costs, form, np.asarray(info.forecast), np.asarray(U))
    span = np.asarray(limits.upper) - np.asarray(limits.lower)
    taken = {*ids, *(name for name, _ in waiting)}
    alike: dict[str, Any] = {
        "ofv": ofv,
        "span": span,
        "held": list(fixed),
        "taken": taken,
        "clone": clone,
        "out": out,
        "console": console,
        "on_card": on_card,
    }
    if aims.profile:
        answer_profiles(found, np.asarray(U), runs, plans, grid=grid, **alike)
    else:
        answer(found, np.asarray(U), runs, recipes, names=names, unit_of=units.__getitem__, **alike)
    return found


def name_posterior(found: dict[str, Any], posterior: "PosteriorMechanisms | None") -> None:
    """Say in an explanation by which posterior recipes were compared.

    Args:
        found: The explanation.
        posterior: The draws, if there are any.
    """
    if posterior is not None:
        found["posterior"] = posterior.as_record()
        found["remarks"].append(f"constants of its mechanism: {posterior.note}")


def aimed(
    aims: Aims,
    process: Process,
    days: int,
    *,
    step_h: float = HOURS_PER_DAY,
    layout: Layout | None = None,
    start: Any = None,
) -> tuple[ProcessOFV, tuple[ChanceConstraint, ...], Costs | None]:
    """What aims ask for, as an objective over a run, limits, and prices.

    Args:
        aims: What the next runs should be like.
        process: The culture.
        days: Length of a run [d].
        step_h: Length of a roll-out's step [h].
        layout: Of the model that forecasts.
        start: What is there when a run begins, as forecast.

    Raises:
        ConfigError: If one of them is unusable.
    """
    costs = read_costs(aims.costs, process) if aims.costs else None
    ofv = goal_of(
        list(aims.goals) or aims.goal,
        process,
        days,
        step_h=step_h,
        layout=layout,
        weights=aims.weights,
        is_front=aims.is_front,
        costs=costs,
        per=aims.per,
        start=start,
    )
    chance = limits_of(
        aims.limits,
        process,
        aims.probability,
        layout=layout,
        hours=step_hours(days, step_h).tolist(),
        costs=costs,
        start=start,
    )
    return ofv, chance, costs


def with_max_change(
    limits: ControlLimits, max_change: Mapping[str, float], names: Sequence[str]
) -> ControlLimits:
    """Limits with the largest change of some controls.

    Args:
        limits: What set-points must keep.
        max_change: Largest change at once, by name.
        names: Controls, in array order.

    Raises:
        ConfigError: If a control is unknown, or a change is not above zero.
    """
    most = np.array(limits.max_change, float)
    for name, change in max_change.items():
        if name not in names or not (np.isfinite(change) and change > 0.0):
            raise ConfigError(
                f"--max-change {name}={change:g} is not usable; give a number above 0 for one of "
                f"{', '.join(names)}."
            )
        most[list(names).index(name)] = change
    return dataclasses.replace(limits, max_change=jnp.asarray(most))


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
            unit = shown_unit(process.control(name).unit)
            lines.append(
                f"{name} was {value:.4g} {unit} in all runs so far and is held there: nothing says "
                f"what it does. --set {name}=value moves it."
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
