"""`perfusio-jax propose`: the runs so far in, the next runs out."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import (
    CONTROL_NAMES,
    HOURS_PER_DAY,
    ConfigError,
    DataError,
)
from perfusio_jax._core.hints import did_you_mean
from perfusio_jax.bed import control_limits
from perfusio_jax.bed.goal.profile import make_profile
from perfusio_jax.bed.goal.steps import native_step
from perfusio_jax.bed.policy.campaign import propose_runs
from perfusio_jax.bed.policy.campaign_settings import CampaignSettings
from perfusio_jax.bed.policy.campaign_words import explain_campaign
from perfusio_jax.bed.policy.recipes import start_state
from perfusio_jax.connectors import named_mechanism, read_culture
from perfusio_jax.connectors.files.parts import Tables, title_of
from perfusio_jax.connectors.tables.file_rules import FileRules
from perfusio_jax.hybrid import (
    HybridConfig,
    HybridStateSpaceModel,
    deal,
    draw_paths,
    fit_hybrid,
    for_clone,
)
from perfusio_jax.hybrid.campaign import unmeasured
from perfusio_jax.hybrid.choice import fitted_best
from perfusio_jax.mechanistic import CHOPerfusionModel
from perfusio_jax.process import CHO_PERFUSION, Process
from perfusio_jax.report.answer import answer, refuse_infeasible
from perfusio_jax.report.cho_aims import check_wishes, limits_of, objective, read_space
from perfusio_jax.report.profiles import answer_profiles, grid_of, pending_plans, plan_of_run
from perfusio_jax.report.proposing_described import (
    Aims,
    aimed,
    name_posterior,
    propose_described,
    with_max_change,
)
from perfusio_jax.report.recipes import recipes_of, still_pending
from perfusio_jax.report.wishes import Wishes, culture_of
from perfusio_jax.states import Trajectory, complete_setpoints
from perfusio_jax.viz import Card

if TYPE_CHECKING:
    from perfusio_jax.study import PosteriorMechanisms

N_PATHS = 64
_COMPILE_SECONDS = 40.0

FittedBy = Callable[[Callable[[], Any]], Any]
"""Is given a fit and returns what it gave."""


def _fitted_now(fit: Callable[[], Any]) -> Any:
    return fit()


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
    fitted_by: FittedBy = _fitted_now,
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
        fitted_by: Is given the fit and returns what it gave, now or before: whoever asks again
            about the same runs need not wait for the same model.

    Returns:
        The explanation.

    Raises:
        DataError: If the runs cannot train a model.
        ConfigError: If a wish is unusable, or no recipe keeps the limits.
    """
    settings = CampaignSettings() if settings is None else settings
    if wishes.posterior is not None:  # what is learned is learned around the middle of the draws
        config = replace(HybridConfig() if config is None else config, calibrate=False)
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
            fitted_by=fitted_by,
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

    kinetics = _calibrated(wishes, None, None, trajectories)
    _announce(console, 4.0 + 0.3 * len(trajectories))
    for_fit, for_paths = jax.random.split(jax.random.key(wishes.seed))
    config = HybridConfig() if config is None else config
    prior = None if kinetics is None else CHOPerfusionModel(kinetics)
    model, _ = fitted_by(
        lambda: fit_hybrid(trajectories, key=for_fit, config=config, mech_model=prior)
    )
    clone = wishes.clone or trajectories[-1].clone_id
    posterior = _draws(wishes, model, CHO_PERFUSION, clone)
    for line in () if posterior is None else posterior.told:
        console.print(line, soft_wrap=True)
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
    paths = draw_paths(model, N_PATHS, key=for_paths, max_steps=ofv.n_steps)
    U, info = propose_runs(
        model,
        paths if posterior is None else deal(paths, posterior.drawn),
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
    name_posterior(found, posterior)
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
    fitted_by: FittedBy,
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
    mechanism = _calibrated(wishes, process, mechanism, runs)
    _announce(console, 10.0 + 0.3 * len(runs))
    named = named_mechanism(mechanism) if isinstance(mechanism, str) else mechanism
    fitted, told = fitted_by(
        lambda: fitted_best(runs, process, seed=wishes.seed, mechanism=named, config=config)
    )
    model = fitted.model
    posterior = _draws(wishes, model, process, aims.clone or runs[-1].clone_id)
    told = [*told, *(() if posterior is None else posterior.told)]
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
        posterior=posterior,
    )


def _calibrated(
    wishes: Wishes, process: Process | None, mechanism: Any, runs: list[Trajectory]
) -> Any:
    """The mechanism a model is fitted with: that of the posterior, if there is one."""
    if wishes.posterior is None:
        return mechanism
    from perfusio_jax.connectors.files.calibrated import (  # here: it brings the samplers along
        calibrated_mechanism,
        refuse_clones,
    )

    found = calibrated_mechanism(
        wishes.posterior, process, mechanism, accept_warnings=wishes.accept_warnings
    )
    refuse_clones(runs)
    return found


def _draws(
    wishes: Wishes, model: HybridStateSpaceModel, process: Process, clone: str
) -> "PosteriorMechanisms | None":
    """Draws for the paths of a model, if there is a posterior."""
    if wishes.posterior is None:
        return None
    from perfusio_jax.study import posterior_mechanisms

    return posterior_mechanisms(
        model,
        process,
        wishes.posterior,
        clone,
        n=N_PATHS,
        seed=wishes.seed,
        accept_warnings=wishes.accept_warnings,
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


def _announce(console: Any, seconds: float) -> None:
    """Say how long fitting takes; the search says so itself."""
    console.print(
        f"fitting: about {math.ceil(seconds / 5) * 5} s, and up to {_COMPILE_SECONDS:g} s more "
        "the first time on this machine (compiling)",
        soft_wrap=True,
    )
