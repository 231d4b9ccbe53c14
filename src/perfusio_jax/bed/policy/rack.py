"""Joint decisions on a rack: many vessels, each in its own state, under one model.

All vessels share the drawn functions of the model, so that what one decision will teach is known
to the next: decisions are made in turn, and what those before it (and pending ones) will teach
about the model is taken out of a vessel's reasons to explore.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp

from perfusio_jax._core import Array, ArrayLike, ConfigError
from perfusio_jax._core.instants import day_number
from perfusio_jax._core.programs import compiled
from perfusio_jax.bed.goal.criteria import ProcessOFV
from perfusio_jax.bed.goal.objectives import TargetSpec, TargetTrackingOFV, hybrid_functions
from perfusio_jax.bed.goal.steps import native_step
from perfusio_jax.bed.optimiser.progress import Say, in_words, tell, telling
from perfusio_jax.bed.policy.decision import (
    BEDDecision,
    check_call,
    drawn,
    in_words_of,
    on_record,
)
from perfusio_jax.bed.policy.recommend import recommend, suited
from perfusio_jax.bed.policy.settings import PolicySettings
from perfusio_jax.bed.policy.state import latent, match_particles
from perfusio_jax.bed.surrogate.surrogates import RolloutSurrogate

if TYPE_CHECKING:
    from datetime import datetime

_RACK = 24
"""Vessels of a rack."""


@dataclass(frozen=True)
class ReactorNow:
    """One vessel of a rack as it stands, for a joint decision."""

    c_current: Any
    """Measured state `(9,)` in `STATE_ORDER` without gaps, or a belief with `particles`."""
    day: float
    """Process day [d]."""
    u_now: ArrayLike | dict[str, float]
    """Set-points read back; of a pending vessel, those decided for it."""
    u_plan: ArrayLike | dict[str, float] | None = None
    """Last plan, where it was not carried out."""
    targets: Sequence[TargetSpec] | None = None
    """Its own targets, as many and of the same species as the policy's; the policy's if None."""
    fixed: dict[str, float] = field(default_factory=dict)
    """Set-points held at a value by the operator, by name."""
    model: Any = None
    """Its own model, of the same structure and step (another clone of a family); the policy's if
    None."""
    reactor_id: str | None = None
    """Name of the vessel."""


def decide_rack(
    settings: PolicySettings,
    model: Any,
    reactors: Sequence[ReactorNow],
    *,
    pending: Sequence[ReactorNow] = (),
    seed: int = 0,
    timestamp: datetime | None = None,
    say: Say | None = None,
) -> list[BEDDecision]:
    """Decide for several vessels at once.

    Pure: the same arguments give the same decisions.

    Args:
        settings: What the decisions are made with.
        model: Hybrid model of vessels that have none of their own.
        reactors: The vessels, up to 24 and more.
        pending: Vessels whose next set-points are settled already.
        seed: Seed of paths and search.
        timestamp: When, for the record.
        say: Called with a line before it begins (about how long it takes), whenever something
            compiles, and after every vessel.

    Returns:
        One decision per vessel, in their order.

    Raises:
        ConfigError: If there is no vessel, a name is unknown, the models' steps differ, or no
            set-points keep the limits of one.
        DataError: If a state has the wrong shape or a gap.
    """
    if not reactors:
        raise ConfigError("decide_rack was given no reactors; give at least one.")
    settings.check_rollouts()
    for vessel in (*pending, *reactors):
        check_call(vessel.day, seed, None)
    _check_steps(reactors, pending, model)
    settings = settings.closed(_model_of(reactors[0], model))
    with telling(say):
        work = len(reactors) * settings.seconds(_model_of(reactors[0], model))
        tell(f"deciding for {len(reactors)} reactors: {in_words(work)}")
        return _in_turn(settings, model, (reactors, pending), seed, timestamp)


def _in_turn(
    settings: PolicySettings,
    common: Any,
    vessels: tuple[Sequence[ReactorNow], Sequence[ReactorNow]],
    seed: int,
    timestamp: datetime | None,
) -> list[BEDDecision]:
    reactors, pending = vessels
    everyone = [*pending, *reactors]
    draw_paths, rollout = hybrid_functions(settings.functions)
    path_key, scan_key, noise_key = jax.random.split(jax.random.key(seed), 3)
    n, n_scan, longer = settings.n_paths, settings.n_scan_paths, settings.longer
    first = _model_of(everyone[0], common)
    shared = drawn(draw_paths, first, n, path_key, longer)
    scan_paths = None if n_scan is None else drawn(draw_paths, first, n_scan, scan_key, longer)
    # room in whole racks, so that racks of any size share what is compiled
    m = suited(settings.ofv, settings.acqf_name).n_objectives
    taught = jnp.zeros((n, -(-len(everyone) // _RACK) * _RACK * m))
    decisions: list[BEDDecision] = []
    for place, vessel in enumerate(everyone):
        mine = jax.random.fold_in(noise_key, place)
        paths = _own_noise(shared, key=mine)
        state, face, remark = latent(vessel.c_current)
        c0 = match_particles(state, n, key=jax.random.fold_in(mine, 1))
        ofv, model = _ofv_of(vessel, settings), _model_of(vessel, common)
        now = settings.set_points(vessel.u_now)
        template, positions = settings.embedding(now)
        if place < len(pending):
            u = now
        else:
            scan = None
            if scan_paths is not None:
                few = match_particles(state, n_scan or 1, key=jax.random.fold_in(mine, 2))
                scan = (_own_noise(scan_paths, key=jax.random.fold_in(mine, 3)), few)
            u, info = recommend(
                model,
                paths,
                c0,
                now,
                ofv=ofv,
                limits=settings.limits,
                day0=float(vessel.day),
                u_plan=None if vessel.u_plan is None else settings.set_points(vessel.u_plan),
                chance=settings.chance,
                preferences=settings.preferences,
                acquisition=settings.acqf_name,
                settings=settings.search,
                seed=seed + day_number(vessel.day),
                rollout=rollout,
                template=template,
                positions=positions,
                fixed=settings.held(vessel.fixed),
                scan=scan,
                taught=taught,
            )
            made = in_words_of(settings, u, jax.device_get(info), ofv)
            decisions.append(
                on_record(
                    settings,
                    made,
                    face,
                    day=vessel.day,
                    timestamp=timestamp,
                    remark=remark,
                    reactor_id=vessel.reactor_id,
                )
            )
            tell(f"{len(decisions)} of {len(reactors)} reactors decided")
        if place + 1 < len(everyone):
            held = RolloutSurrogate(
                model=model,
                paths=paths,
                c0=c0,
                ofv=suited(ofv, settings.acqf_name),
                day0=float(vessel.day),
                template=template,
                positions=positions,
                rollout=rollout,
            )
            taught = _learn(held, u, taught, jnp.asarray(place * m))
    return decisions


def _model_of(vessel: ReactorNow, common: Any) -> Any:
    model = common if vessel.model is None else vessel.model
    if model is None:
        raise ConfigError(
            "there is no model to forecast with; give the policy a hybrid model or each "
            "reactor its own."
        )
    return model


def _check_steps(
    reactors: Sequence[ReactorNow], pending: Sequence[ReactorNow], common: Any
) -> None:
    """Refuse models whose steps differ.

    What vessels share are functions drawn from one model, and each is a mean over the interval
    between the samples that model learned from: to a model of other intervals it means nothing.
    """
    models = {} if common is None else {id(common): ("the policy", common)}
    for kind, vessels in (("reactor", reactors), ("pending reactor", pending)):
        for k, vessel in enumerate(vessels, start=1):
            whose = k if vessel.reactor_id is None else vessel.reactor_id
            model = _model_of(vessel, common)
            models.setdefault(id(model), (f"{kind} {whose}", model))
    if len(models) == 1:
        return
    (first, step), *others = [(whose, native_step(model)) for whose, model in models.values()]
    for whose, hours in others:
        if hours != step:
            raise ConfigError(
                f"the model of {whose} has steps of {hours:g} h and that of {first} has steps of "
                f"{step:g} h: they learned from samples that far apart. Vessels of a joint "
                "decision share the functions drawn from one model, so that all need one step; "
                "decide for the others apart, with a policy made with their model."
            )


def _ofv_of(vessel: ReactorNow, settings: PolicySettings) -> TargetTrackingOFV | ProcessOFV:
    ofv = settings.ofv
    if vessel.targets is None:
        return ofv
    given, wanted = ([t.species for t in specs] for specs in (vessel.targets, targets_of(ofv)))
    if given != wanted:
        raise ConfigError(
            f"reactor {vessel.reactor_id} has targets for {given}; the policy was made for "
            f"{wanted}, in this order."
        )
    return TargetTrackingOFV(
        vessel.targets,
        horizon=int(ofv.horizon),
        n_samples=settings.n_paths,
        step_h=ofv.step_h,
        is_pareto=ofv.is_pareto,
    )


def targets_of(ofv: Any) -> tuple[TargetSpec, ...]:
    """Targets of an objective; none if it has criteria instead.

    Args:
        ofv: Objective.
    """
    return getattr(ofv, "targets", ())


@compiled
def _own_noise(paths: Any, *, key: Array) -> Any:
    """The same functions with other process noise: vessels share the model, not their luck."""
    if not hasattr(paths, "process"):
        return paths
    fresh = jax.random.normal(key, paths.process.shape, paths.process.dtype)
    return eqx.tree_at(lambda p: p.process, paths, fresh)


@compiled
def _learn(held: RolloutSurrogate, u: Array, taught: Array, place: Array) -> Array:
    """Add what a decision will teach to the basis: its deviations between paths.

    Several objectives teach one direction each, in places one after the other.
    """
    scores = held.scores(u)[0]
    each = [scores] if scores.ndim == 1 else list(scores.T)
    for k, score in enumerate(each):
        taught = _taught_too(taught, score - jnp.mean(score), place + k)
    return taught


def _taught_too(taught: Array, apart: Array, place: Array) -> Array:
    new = apart - taught @ (taught.T @ apart)
    size, before = jnp.linalg.norm(new), jnp.linalg.norm(apart)
    # nothing new, or rounding error of nothing new
    is_new = size > 1e-6 * before
    return taught.at[:, place].set(jnp.where(is_new, new / jnp.where(is_new, size, 1.0), 0.0))
