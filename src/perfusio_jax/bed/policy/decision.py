"""One daily decision as a pure function: settings, model, state and set-points in, decision out.

It remembers nothing, writes nothing and reads no clock: the caller passes the time stamp, and
the write gate decides what reaches a device. `recommend` is the numbers underneath; here are
names, draws and the record.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from perfusio_jax._core import STATE_ORDER, Array, ArrayLike, ConfigError
from perfusio_jax._core.instants import as_day, day_number
from perfusio_jax._core.programs import compiled
from perfusio_jax.bed.goal.criteria import ProcessOFV
from perfusio_jax.bed.goal.objectives import TargetTrackingOFV, hybrid_functions
from perfusio_jax.bed.optimiser.progress import Say, compiling, in_words, tell, telling
from perfusio_jax.bed.policy.explanations import by_species, explain
from perfusio_jax.bed.policy.plain import decide_plain
from perfusio_jax.bed.policy.recommend import RecommendInfo, recommend
from perfusio_jax.bed.policy.settings import PolicySettings
from perfusio_jax.bed.policy.state import latent, match_particles
from perfusio_jax.bed.surrogate.surrogates import RolloutSurrogate

if TYPE_CHECKING:
    from datetime import datetime


@dataclass(frozen=True)
class BEDDecision:
    """One decision, in plain numbers and names, ready for a record."""

    timestamp: datetime | None
    """When it was made, as the caller says; None if the caller did not say."""
    day: float
    """Process day [d]; an `int` where it is a whole one."""
    recommended_controls: dict[str, float]
    """Set-points by control name, in their canonical units."""
    acqf_value: float
    """Acquisition at the recommendation."""
    acqf_name: str
    """Name of the acquisition."""
    current_state: dict[str, float]
    """Measured state the decision started from (its mean, if it was a belief)."""
    forecast_mean: dict[str, list[float]] = field(default_factory=dict)
    """Mean forecast per species, one value per step of the horizon: a day, if the objective says
    no other."""
    forecast_q10: dict[str, list[float]] = field(default_factory=dict)
    """10 % quantiles of the latent forecast."""
    forecast_q50: dict[str, list[float]] = field(default_factory=dict)
    """Medians of the latent forecast."""
    forecast_q90: dict[str, list[float]] = field(default_factory=dict)
    """90 % quantiles of the latent forecast."""
    explanation: dict[str, Any] = field(default_factory=dict)
    """Why: targets, constraints, limits reached, what each move gains, optimiser's report."""
    allow_write: bool = False
    """Whether the policy was made for closed-loop operation; the gate has the last word."""
    reactor_id: str | None = None
    """Vessel, for a decision on a rack."""


class SetPoints(NamedTuple):
    """Set-points a decision starts from, by name or in the order of the settings."""

    now: ArrayLike | dict[str, float]
    """In force, as read back."""
    plan: ArrayLike | dict[str, float] | None = None
    """Last plan, where it was not carried out; competes for the incumbent."""
    fixed: dict[str, float] | None = None
    """Held at a value by the operator, by name."""


def decide(
    settings: PolicySettings,
    model: Any,
    c_current: Any,
    set_points: SetPoints,
    *,
    day: float,
    best_f: float | None = None,
    seed: int = 0,
    timestamp: datetime | None = None,
    say: Say | None = None,
) -> BEDDecision:
    """Recommend set-points until the next decision.

    Pure: the same arguments give the same decision.

    Args:
        settings: What it is made with.
        model: A hybrid model, a `RolloutSurrogate`, or any object with `posterior` and `sample`
            over set-points.
        c_current: Measured state `(9,)` in `STATE_ORDER`, without gaps, or a belief with
            `particles (N, 9)` in `BALANCED` order.
        set_points: Those in force, those planned, those held.
        day: Process day [d], also between two whole ones.
        best_f: Incumbent in the surrogate's own score; by default the better of the set-points in
            force and the last plan in this state. Acquisitions that compare with both take none.
        seed: Seed of paths and search, combined with `day`.
        timestamp: When, for the record.
        say: Called with a line about how long it takes and what compiles.

    Returns:
        The decision.

    Raises:
        ConfigError: If a name is unknown, no set-points keep the limits, or the acquisition
            cannot work with the surrogate.
        DataError: If the state has the wrong shape or a gap.
    """
    check_call(day, seed, best_f)
    now = settings.set_points(set_points.now)
    plan = None if set_points.plan is None else settings.set_points(set_points.plan)
    held = settings.held(set_points.fixed)
    state, face, remark = latent(c_current)
    is_plain = hasattr(model, "posterior") and hasattr(model, "sample")
    with telling(say):
        if is_plain and not isinstance(model, RolloutSurrogate):
            known = (now, plan, best_f, held)
            made = decide_plain(settings, model, known, seed=seed + day_number(day))
        else:
            settings = settings.closed(model)
            tell(f"deciding: {in_words(settings.seconds(model))}")
            known = (now, plan, best_f, held)
            made = _on_rollouts(settings, model, state, known, (float(day), seed))
    return on_record(settings, made, face, day=day, timestamp=timestamp, remark=remark)


def on_record(
    settings: PolicySettings,
    made: dict[str, Any],
    face: np.ndarray,
    *,
    day: float,
    timestamp: datetime | None,
    remark: str,
    reactor_id: str | None = None,
) -> BEDDecision:
    """A decision with what its record needs beside the numbers.

    Args:
        settings: What it was made with.
        made: From `in_words_of`.
        face: Measured state, `STATE_ORDER`.
        day: Process day [d].
        timestamp: When.
        remark: What was left out of the state, or nothing.
        reactor_id: Vessel.
    """
    if remark:
        explanation = made["explanation"]
        made["explanation"] = {**explanation, "remarks": [remark, *explanation["remarks"]]}
    return BEDDecision(
        timestamp=timestamp,
        day=as_day(day),
        acqf_name=settings.acqf_name,
        current_state=dict(zip(STATE_ORDER, map(float, face), strict=True)),
        allow_write=settings.allow_write,
        reactor_id=reactor_id,
        **made,
    )


def in_words_of(
    settings: PolicySettings, u: Array, info: RecommendInfo, ofv: TargetTrackingOFV | ProcessOFV
) -> dict[str, Any]:
    """What `recommend` found, by name.

    Args:
        settings: What it was made with.
        u: Recommended set-points.
        info: Diagnostics, on the host.
        ofv: Objective of this vessel.

    Returns:
        Fields of a `BEDDecision`.
    """
    outlook = info.recommended
    return {
        "recommended_controls": settings.named(u),
        "acqf_value": float(info.acquisition),
        "forecast_mean": by_species(outlook.mean),
        "forecast_q10": by_species(outlook.q10),
        "forecast_q50": by_species(outlook.q50),
        "forecast_q90": by_species(outlook.q90),
        "explanation": explain(
            info, ofv, settings.control_names, settings.chance, acquisition=settings.acqf_name
        ),
    }


@compiled
def drawn(draw_paths: Callable, model: Any, n: int, key: Array, longer: int | None) -> Any:
    """Paths of a model; uncompiled, drawing them takes longer than rolling them out.

    Args:
        draw_paths: Of `perfusio_jax.hybrid`, or in its place.
        model: Hybrid model.
        n: Paths.
        key: Random key.
        longer: Steps to draw them for, if not those drawn anyway.
    """
    compiling(f"the draw of {n} paths")
    return draw_paths(model, n, key=key, **({} if longer is None else {"max_steps": longer}))


def check_call(day: Any, seed: int, best_f: float | None) -> None:
    """Refuse a day, seed or incumbent that is no usable number.

    Raises:
        ConfigError: If one is not.
    """
    if not float(day) >= 0:
        raise ConfigError(f"day={day} was given; process days count from 0.")
    if seed < 0:
        raise ConfigError(f"seed={seed} was given; a seed is an integer from 0.")
    if best_f is not None and not np.isfinite(best_f):
        raise ConfigError(
            f"best_f={best_f} was given; it must be a finite score, or None for the better of the "
            "set-points in force and the last plan."
        )


@compiled
def keys_of(seed: ArrayLike, day: ArrayLike) -> tuple[Array, ...]:
    """Keys of paths and particles, and of the few ones a search is begun on."""
    path_key, particle_key = jax.random.split(jax.random.fold_in(jax.random.key(seed), day))
    return path_key, particle_key, *jax.random.split(jax.random.fold_in(path_key, 1))


def _on_rollouts(
    settings: PolicySettings,
    model: Any,
    state: Array,
    known: tuple[Array, Array | None, float | None, dict[int, float]],
    when: tuple[float, int],
) -> dict[str, Any]:
    (day, seed), (now, plan, best_f, held) = when, known
    settings.check_rollouts(best_f)
    draw_paths, rollout = hybrid_functions(settings.functions)
    path_key, particle_key, few, some = keys_of(np.asarray(seed), np.asarray(day_number(day)))
    scan, n_scan = None, settings.n_scan_paths
    if isinstance(model, RolloutSurrogate):
        paths, rollout, model = model.paths, model.rollout or rollout, model.model
    else:
        if model is None:
            raise ConfigError(
                "there is no model to forecast with; give the policy a hybrid model or "
                "`decide` a surrogate."
            )
        paths = drawn(draw_paths, model, settings.n_paths, path_key, settings.longer)
        if n_scan is not None:
            scan = (
                drawn(draw_paths, model, n_scan, few, settings.longer),
                match_particles(state, n_scan, key=some),
            )
    template, positions = settings.embedding(now)
    u, info = recommend(
        model,
        paths,
        match_particles(state, settings.n_paths, key=particle_key),
        now,
        ofv=settings.ofv,
        limits=settings.limits,
        day0=day,
        u_plan=plan,
        chance=settings.chance,
        preferences=settings.preferences,
        acquisition=settings.acqf_name,
        best_f=best_f,
        settings=settings.search,
        seed=seed + day_number(day),
        rollout=rollout,
        template=template,
        positions=positions,
        fixed=held,
        scan=scan,
    )
    return in_words_of(settings, u, jax.device_get(info), settings.ofv)
