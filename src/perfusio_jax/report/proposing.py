"""`perfusio-jax propose`: the runs so far in, the next runs out."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import ValidationError

from perfusio_jax._core import (
    CONTROL_NAMES,
    FORECAST_SPECIES,
    HOURS_PER_DAY,
    ConfigError,
    DataError,
)
from perfusio_jax._core.hints import did_you_mean
from perfusio_jax._core.limits import read_toml
from perfusio_jax.bed import ChanceConstraint, control_limits
from perfusio_jax.bed.goal.cho_by_name import cho_goal, cho_limits, is_by_name
from perfusio_jax.bed.goal.criteria import (
    Criterion,
    FinalValue,
    MediumPerGram,
    ProcessOFV,
    SpaceTimeYield,
    TrackingError,
)
from perfusio_jax.bed.goal.profile import make_profile
from perfusio_jax.bed.goal.steps import native_step
from perfusio_jax.bed.policy.campaign import propose_runs
from perfusio_jax.bed.policy.campaign_settings import CampaignSettings
from perfusio_jax.bed.policy.campaign_words import explain_campaign
from perfusio_jax.bed.policy.recipes import recipe_box, start_state
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE, DesignSpace
from perfusio_jax.connectors import named_mechanism, read_culture
from perfusio_jax.connectors.files.cultures import CHO, FROM_TABLE
from perfusio_jax.connectors.files.parts import Tables, title_of
from perfusio_jax.connectors.tables.file_rules import FileRules
from perfusio_jax.hybrid import HybridConfig, draw_paths, fit_hybrid, for_clone
from perfusio_jax.hybrid.campaign import unmeasured
from perfusio_jax.hybrid.choice import fitted_best
from perfusio_jax.process import Process
from perfusio_jax.report.answer import answer, refuse_infeasible
from perfusio_jax.report.goal_file import GoalFile
from perfusio_jax.report.profiles import answer_profiles, grid_of, pending_plans, plan_of_run
from perfusio_jax.report.proposing_described import (
    Aims,
    aimed,
    propose_described,
    with_max_change,
)
from perfusio_jax.report.recipes import still_pending
from perfusio_jax.states import Trajectory, complete_setpoints
from perfusio_jax.viz import Card

GOALS = ("titre", "vcv", "front", "yield", "medium")
"""Titre at the end; VCV on its target; front of titre and -ammonium; space-time yield; medium
per gram."""

N_PATHS = 64
_COMPILE_SECONDS = 40.0
_AMMONIUM = FORECAST_SPECIES.index("Amm")


class Wishes(NamedTuple):
    """What the next runs should be like."""

    goal: str = "titre"
    """One of `GOALS`, or by name, as `max Titer`."""
    n_runs: int = 8
    days: int | None = None
    """Length of a run [d]; that of the longest so far."""
    target: float | None = None
    """VCV target [%]; the design space's."""
    viability: float | None = None
    """Lowest viability [%]; the design space's."""
    ammonium: float | None = None
    """Highest ammonium [mmol/L]; no limit by default."""
    limits: tuple[str, ...] = ()
    """Limits by name, as `Via>=80`."""
    probability: float = 0.8
    """With which limits are to be kept on every day [-]."""
    fixed: Mapping[str, float] = {}
    """Set-points held at a value, by name; that of the runs so far too, where their table lacks
    the control."""
    fill_down: bool = False
    """Whether a blank set-point in the table means that the one before it stayed."""
    clone: str | None = None
    """Clone to plan for, where the file holds several; that of the last run."""
    profile: int = 0
    """Changes of each set-point within a run, at most."""
    max_change: Mapping[str, float] = {}
    """Largest change of a set-point at once, by name; absent: not limited."""
    goals: tuple[str, ...] = ()
    """Several goals by name in place of one."""
    weights: tuple[float, ...] | None = None
    """What a unit of each of them is worth."""
    is_front: bool = False
    """Whether they are kept apart, for the front between them."""
    per: str = ""
    """`cost` or `day`: what there is to be most of counts per that."""
    costs: Mapping[str, float] = {}
    """Prices of a run of a described culture; see `bed.goal.costs`."""
    without: tuple[str, ...] = ()
    """Runs of the table that nothing is learned from."""
    seed: int = 0


def wishes_of(
    told: GoalFile,
    *,
    goal: str | None = None,
    limits: Sequence[str] = (),
    probability: float | None = None,
    **more: Any,
) -> Wishes:
    """What a goal file and options ask for; options count more.

    Args:
        told: What the file says.
        goal: Goal of the options.
        limits: Limits of the options.
        probability: With which limits are to be kept.
        **more: Further fields of `Wishes`.
    """
    return Wishes(
        goal=goal or ("titre" if not told.goals else told.goals[0]),
        goals=told.goals if goal is None and len(told.goals) > 1 else (),
        weights=told.weights if goal is None else None,
        is_front=told.front and goal is None,
        limits=tuple(limits or told.limits),
        probability=(told.probability or 0.8) if probability is None else probability,
        **{"per": told.per, "costs": told.cost, "profile": told.profile or 0,
           "max_change": told.max_change, **more},
    )  # fmt: skip


def propose_file(
    runs: Tables,
    *,
    wishes: Wishes,
    pending: Path | None,
    space: Path | None,
    out: Path,
    console: Any,
    settings: CampaignSettings | None = None,
    config: HybridConfig | None = None,
    culture: str | None = None,
    mechanism: Any = None,
    rules: FileRules | None = None,
    on_card: Callable[[Card], None] | None = None,
) -> dict[str, Any]:
    """Read runs, fit, propose the next ones, write them and say why.

    Args:
        runs: Campaign table, several, or a folder of them.
        wishes: What is wanted.
        pending: Table of recipes that are running, as this command writes it.
        space: TOML file with a table `[design_space]`; the default one if None.
        out: CSV file to write.
        console: Where to print.
        settings: Sizes of the search.
        config: Settings of the fit.
        culture: Which culture the runs are of; see `read_culture`.
        mechanism: Mechanism of a described one; the best of those that suit it by default.
        rules: How the table of runs is read.
        on_card: Is given what was concluded.

    Returns:
        The explanation.

    Raises:
        DataError: If the runs cannot train a model.
        ConfigError: If a wish is unusable, or no recipe keeps the limits.
    """
    settings = CampaignSettings() if settings is None else settings
    _keep_apart(out, runs, pending)
    table = read_culture(runs, culture_of(wishes, culture), rules)
    console.print(str(table.report), soft_wrap=True)
    for line in table.assumptions if table.process is not None else ():
        console.print(f"assumed: {line}", soft_wrap=True)
    trajectories = _long_enough(runs, _without(wishes, table.trajectories, console), console)
    _check_clone(wishes.clone, trajectories)
    if table.process is not None:
        return _described(
            table.process,
            trajectories,
            wishes,
            mechanism,
            pending=pending,
            space=space,
            out=out,
            console=console,
            settings=settings,
            config=config,
            is_read_off=bool(table.assumptions),
            on_card=on_card,
        )
    if mechanism is not None:
        raise ConfigError(
            "--mechanism is of cultures that are described; CHO perfusion has one of its own."
        )
    if wishes.costs or wishes.per:
        raise ConfigError(
            "--cost and --per are of cultures that are described (--process); CHO perfusion as the "
            "reference API has it has the goals yield and medium."
        )
    design = read_space(space)
    names = list(design.control_names)
    fixed = check_wishes(wishes, design)
    trajectories, told = complete_setpoints(
        trajectories,
        fill_down=wishes.fill_down,
        stated=wishes.fixed,
        remedy="If it was the same in all of them and is to stay so, say --set name=value. Another "
        "culture is proposed for with --goal 'max NAME'.",
    )
    days = wishes.days or max(round(float(t.times_h[-1]) / 24.0) for t in trajectories)
    measured = objective(wishes, design, days)
    chance = limits_of(wishes, design)
    recipes, changed = recipes_of(trajectories, names)
    is_partly_read = bool(unmeasured(trajectories))
    start = None if is_partly_read else start_state(trajectories)
    ids = [t.run_id for t in trajectories]
    grid = grid_of(measured, names)
    if wishes.profile:
        limits = with_max_change(control_limits(design), wishes.max_change, names)
        make_profile(limits, wishes.profile, measured.n_steps, fixed=fixed, names=names)
        waiting, about = pending_plans(pending, grid, ids)
        changed = []
    else:
        limits = control_limits(design)
        waiting, about = still_pending(pending, names, ids)
    for line in [*told, *changed, *about]:
        console.print(line, soft_wrap=True)

    _announce(console, 4.0 + 0.3 * len(trajectories))
    for_fit, for_paths = jax.random.split(jax.random.key(wishes.seed))
    model, _ = fit_hybrid(
        trajectories,
        key=for_fit,
        config=HybridConfig() if config is None else config,
    )
    clone = wishes.clone or trajectories[-1].clone_id
    if model.embedding is not None:
        console.print(f"planning for clone {clone}")
        model = for_clone(model, clone)
    ofv = objective(wishes, design, days, step_h=native_step(model))
    positions = tuple(CONTROL_NAMES.index(name) for name in names)
    is_plain = positions == tuple(range(len(CONTROL_NAMES)))
    grid = grid_of(ofv, names)
    plans = recipes
    if wishes.profile:
        plans = np.stack([plan_of_run(run, grid) for run in trajectories])
        waiting, _ = pending_plans(pending, grid, ids)
    U, info = propose_runs(
        model,
        draw_paths(model, N_PATHS, key=for_paths, max_steps=ofv.n_steps),
        model.latent.inverse(model.initial.mean) if start is None else jnp.asarray(start),
        jnp.asarray(plans),
        ofv=ofv,
        limits=limits,
        q=wishes.n_runs,
        chance=chance,
        pending=np.asarray([recipe for _, recipe in waiting]).reshape(-1, *plans.shape[1:]),
        settings=settings,
        seed=wishes.seed,
        template=None if is_plain else jnp.zeros(len(CONTROL_NAMES)),
        positions=() if is_plain else positions,
        fixed=fixed,
        profile=wishes.profile,
        say=lambda line: console.print(line, soft_wrap=True),
    )
    found = explain_campaign(info, ofv, chance, names, ids)
    refuse_infeasible(
        found,
        wishes.probability,
        "Relax --viability, --ammonium, --limit or --probability, or widen the design space.",
    )
    lower, upper = (np.asarray(bound) for bound in design.bounds_array)
    taken = {*(t.run_id for t in table.trajectories), *(name for name, _ in waiting)}
    alike: dict[str, Any] = {
        "ofv": measured,
        "span": upper - lower,
        "held": list(wishes.fixed),
        "taken": taken,
        "clone": clone,
        "out": out,
        "console": console,
        "on_card": on_card,
    }
    if wishes.profile:
        answer_profiles(found, np.asarray(U), trajectories, plans, grid=grid, **alike)
    else:
        answer(found, np.asarray(U), trajectories, recipes, names=names, **alike)
    return found


def _is_ours(wishes: Wishes) -> bool:
    """Whether the goal is a word of ours, which is of CHO perfusion."""
    return not wishes.goals and wishes.goal in GOALS


def culture_of(wishes: Wishes, culture: str | None) -> str:
    """How the table is read: of CHO perfusion for a goal by a word of ours, else of any culture."""
    return culture or (CHO if _is_ours(wishes) else FROM_TABLE)


def _without(wishes: Wishes, runs: list[Trajectory], console: Any) -> list[Trajectory]:
    """The runs but those that are left out.

    Raises:
        ConfigError: If one of them is not there.
    """
    known = [t.run_id for t in runs]
    strange = [name for name in wishes.without if name not in known]
    if strange:
        raise ConfigError(
            f"--without {', '.join(strange)}: there is no such run{did_you_mean(strange, known)}; "
            f"the runs are {', '.join(known[:40])}."
        )
    if wishes.without:
        console.print(f"left out, as asked: {', '.join(wishes.without)}", soft_wrap=True)
    return [t for t in runs if t.run_id not in wishes.without]


def _long_enough(tables: Tables, runs: list[Trajectory], console: Any) -> list[Trajectory]:
    """Runs with at least two samples.

    Raises:
        DataError: If fewer than two are left.
    """
    kept = [t for t in runs if t.n_days >= 2]
    short = [t.run_id for t in runs if t.n_days < 2]
    if short:
        console.print(f"left out, with a single sample: {', '.join(short)}", soft_wrap=True)
    if len(kept) < 2:
        raise DataError(
            f"{title_of(tables)} holds {len(kept)} run(s) with at least two samples; two or more "
            "are needed to learn from, better eight spread over the design space."
        )
    return kept


def _described(
    process: Process,
    runs: list[Trajectory],
    wishes: Wishes,
    mechanism: Any,
    *,
    pending: Path | None,
    space: Path | None,
    out: Path,
    console: Any,
    settings: CampaignSettings,
    config: HybridConfig | None,
    is_read_off: bool,
    on_card: Callable[[Card], None] | None,
) -> dict[str, Any]:
    """Fit and propose for a culture that is described."""
    if space is not None or wishes.target is not None or wishes.viability is not None:
        raise ConfigError(
            f"{process.name} is a described culture: its process file has the ranges (not "
            "--space), --goal NAME=value a target, --limit 'Via>=80' a limit."
        )
    if wishes.ammonium is not None:
        raise ConfigError("--ammonium is of CHO perfusion; say --limit 'NAME<=value'.")
    runs, told = complete_setpoints(
        runs,
        fill_down=wishes.fill_down,
        stated=wishes.fixed,
        names=process.control_names,
        unit_of=lambda name: process.control(name).unit,
        once=process.boluses,
    )
    for line in told:
        console.print(line, soft_wrap=True)
    aims = Aims(
        wishes.goal,
        wishes.limits,
        wishes.n_runs,
        wishes.days,
        wishes.probability,
        fixed=wishes.fixed,
        clone=wishes.clone,
        seed=wishes.seed,
        profile=wishes.profile,
        max_change=wishes.max_change,
        goals=wishes.goals,
        weights=wishes.weights,
        is_front=wishes.is_front,
        per=wishes.per,
        costs=wishes.costs,
        is_within_runs=is_read_off,
    )
    longest = max(float(run.times_h[-1]) for run in runs) / HOURS_PER_DAY
    aimed(aims, process, aims.days or max(1, round(longest)))  # refuses before the work
    _announce(console, 10.0 + 0.3 * len(runs))
    fitted, told = fitted_best(
        runs,
        process,
        seed=wishes.seed,
        mechanism=named_mechanism(mechanism) if isinstance(mechanism, str) else mechanism,
        config=config,
    )
    model = fitted.model
    for line in told:
        console.print(line, soft_wrap=True)
    return propose_described(
        model,
        runs,
        aims,
        pending=pending,
        out=out,
        console=console,
        settings=settings,
        on_card=on_card,
    )


def _keep_apart(out: Path, runs: Tables, pending: Path | None) -> None:
    """Refuse to write over what is read."""
    given = [runs] if isinstance(runs, str | Path) else list(runs)
    told = [(Path(path), "the runs so far") for path in given]
    for path, what in (*told, (pending, "the pending runs")):
        if path is not None and path.exists() and out.exists() and out.samefile(path):
            raise ConfigError(f"--out {out} would overwrite {what}; name another file.")


def _check_clone(clone: str | None, trajectories: list[Trajectory]) -> None:
    known = sorted({t.clone_id for t in trajectories})
    if clone is not None and clone not in known:
        raise ConfigError(f"--clone {clone} is not in the table; its clones are {known}.")


def check_wishes(wishes: Wishes, design: DesignSpace) -> dict[int, float]:
    """Everything about set-points that can be refused before the work.

    Args:
        wishes: What is wanted.
        design: Design space.

    Returns:
        Set-points held at a value, by position.

    Raises:
        ConfigError: If a set-point is unknown or outside its bounds, or too many are held.
    """
    names = list(design.control_names)
    wrong = [n for n in wishes.fixed if n not in names]
    if wrong:
        raise ConfigError(f"--set names unknown controls {wrong}; allowed are {names}.")
    if sorted(names) != sorted(CONTROL_NAMES):
        raise ConfigError(
            f"the design space has the controls {names}; all of {list(CONTROL_NAMES)} are needed. "
            "Hold one with --set name=value."
        )
    fixed = {names.index(name): value for name, value in wishes.fixed.items()}
    limits = control_limits(design)
    recipe_box(limits, fixed, q=max(wishes.n_runs, 1), control_names=names)
    return fixed


def _announce(console: Any, seconds: float) -> None:
    """Say how long fitting takes; the search says so itself."""
    console.print(
        f"fitting: about {math.ceil(seconds / 5) * 5} s, and up to {_COMPILE_SECONDS:g} s more "
        "the first time on this machine (compiling)",
        soft_wrap=True,
    )


def read_space(path: Path | None) -> DesignSpace:
    """Design space of a TOML file.

    Raises:
        ConfigError: If there is no usable table `[design_space]`.
    """
    if path is None:
        return DEFAULT_AMBR250_DESIGN_SPACE
    if not path.is_file():
        raise ConfigError(f"{path} is not a file; name a TOML file with a table [design_space].")
    try:
        tables = read_toml(path)
        if "design_space" not in tables:
            raise ConfigError(f"{path} holds no table [design_space].")
        return DesignSpace(**tables["design_space"])
    except (ValidationError, TypeError) as error:
        raise ConfigError(f"{path}: {error}") from None


def objective(
    wishes: Wishes, design: DesignSpace, days: int, *, step_h: float = HOURS_PER_DAY
) -> ProcessOFV:
    """The goal as an objective over a whole run.

    Args:
        wishes: The goal and its target.
        design: Design space, with targets of its own.
        days: Length of a run [d].
        step_h: Length of a roll-out's step [h].

    Raises:
        ConfigError: If the goal is unknown, or has no target.
    """
    if days < 1 or wishes.n_runs < 1:
        raise ConfigError(f"{wishes.n_runs} runs of {days} days; both must be at least 1.")
    if wishes.goals:
        return cho_goal(
            wishes.goals, days, step_h=step_h, weights=wishes.weights, is_front=wishes.is_front
        )
    if is_by_name(wishes.goal):
        if wishes.target is not None:
            raise ConfigError(
                f"--target is of goal vcv; goal {wishes.goal!r} says itself what is to be reached."
            )
        return cho_goal([wishes.goal], days, step_h=step_h)
    if wishes.goal not in GOALS:
        raise ConfigError(
            f"goal {wishes.goal!r} is unknown; choose from {', '.join(GOALS)}, or say 'max NAME', "
            "'min NAME' or 'NAME=value'."
        )
    settled = days // 2
    if wishes.goal == "front":
        both = [FinalValue("Titer"), FinalValue("Amm", direction=-1)]
        return ProcessOFV(both, horizon=days, is_pareto=True, step_h=step_h)
    target = design.vcv_target if wishes.target is None else wishes.target
    if wishes.goal == "vcv" and (target is None or not math.isfinite(target) or target <= 0):
        raise ConfigError(f"goal vcv needs a target above 0; given: {target}. Use --target.")
    one: Criterion = {
        "titre": lambda: FinalValue("Titer"),
        "vcv": lambda: TrackingError("VCV", target or 0.0, from_day=settled),
        "yield": lambda: SpaceTimeYield(settled),
        "medium": lambda: MediumPerGram(settled),
    }[wishes.goal]()
    return ProcessOFV([one], horizon=days, step_h=step_h)


def limits_of(wishes: Wishes, design: DesignSpace) -> tuple[ChanceConstraint, ...]:
    """Limits to be kept on every day.

    Raises:
        ConfigError: If one is unusable.
    """
    low = design.viability_min if wishes.viability is None else wishes.viability
    if not 0.0 <= low < 100.0:
        raise ConfigError(f"--viability {low:g} must lie from 0 to below 100 %.")
    if not 0.0 < wishes.probability < 1.0:
        raise ConfigError(f"--probability {wishes.probability:g} must lie between 0 and 1.")
    limits = [ChanceConstraint(low, wishes.probability)]
    if wishes.ammonium is not None:
        if not wishes.ammonium > 0.0:
            raise ConfigError(f"--ammonium {wishes.ammonium:g} must be above 0 mmol/L.")
        limits.append(
            ChanceConstraint(
                wishes.ammonium,
                wishes.probability,
                species_index=_AMMONIUM,
                is_upper=True,
                temperature=0.05,
                backoff=0.15,
            )
        )
    return (*limits, *cho_limits(wishes.limits, wishes.probability))


def recipes_of(trajectories: list[Trajectory], names: list[str]) -> tuple[np.ndarray, list[str]]:
    """Set-points of each run, and a line per run that changed them on the way."""
    recipes, lines = [], []
    for run in trajectories:
        have = list(run.control_names)
        table = np.asarray(run.controls, float)
        hours = np.diff(np.asarray(run.times_h, float))
        held = table[: len(hours)]
        mean = hours @ held / hours.sum()
        recipes.append([mean[have.index(name)] for name in names])
        moved = [
            name
            for name in names
            if np.ptp(held[:, have.index(name)]) > 1e-6 * max(abs(mean[have.index(name)]), 1.0)
        ]
        if moved:
            lines.append(
                f"run {run.run_id} changed {', '.join(moved)} on the way; it counts with their "
                "mean over time"
            )
    return np.asarray(recipes), lines
