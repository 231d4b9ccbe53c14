"""One decision for a described culture: a belief and a model in, set-points by name out. Pure.

What `decision.py` is for CHO perfusion. Controls, ranges and the balance of volumes are those of
the process; `recommend` underneath is the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import HOURS_PER_DAY, Array, ConfigError, Float
from perfusio_jax._core.instants import as_day, day_number
from perfusio_jax._core.programs import compiled
from perfusio_jax.bed.goal.constraints import ChanceConstraint, ControlLimits
from perfusio_jax.bed.goal.criteria import ProcessOFV
from perfusio_jax.bed.goal.objectives import MOST_STEPS
from perfusio_jax.bed.goal.steps import n_steps_of, steps_of
from perfusio_jax.bed.optimiser.progress import Say, in_words, tell, telling
from perfusio_jax.bed.optimiser.search import SearchSettings
from perfusio_jax.bed.policy.decision import BEDDecision, drawn, keys_of
from perfusio_jax.bed.policy.explanations import by_species, explain
from perfusio_jax.bed.policy.recommend import (
    ROLLOUT_SETTINGS,
    Preferences,
    decision_seconds,
    recommend,
)
from perfusio_jax.bed.policy.settings import check_sizes
from perfusio_jax.bed.policy.state import match_particles
from perfusio_jax.hybrid import DrawnRun, Paths, deal, draw_paths, offset_paths
from perfusio_jax.hybrid.layout import VOLUME
from perfusio_jax.hybrid.observation import reported
from perfusio_jax.hybrid.recipes import held_rollout
from perfusio_jax.process import Process, VolumeBalance

if TYPE_CHECKING:
    from datetime import datetime

    from perfusio_jax.hybrid import Belief, HybridStateSpaceModel


@dataclass(frozen=True)
class DescribedPolicy:
    """What a decision for a described culture is made with, but model, state and set-points.

    Raises:
        ConfigError: If a control is unknown, cannot be set or has no range, or a size is unusable.
    """

    process: Process
    """The culture."""
    ofv: ProcessOFV
    """What a forecast is worth; see `goal.by_name.daily_goal`."""
    controls: tuple[str, ...]
    """Controls that are searched, in the order of the process; the others stay as they are."""
    bounds: Mapping[str, tuple[float, float]]
    """Range of each of them."""
    chance: tuple[ChanceConstraint, ...] = ()
    """What the culture must keep, in probability."""
    max_change: Mapping[str, float] = field(default_factory=dict)
    """Largest change of each in one decision; absent: not limited."""
    balance: VolumeBalance | None = None
    """What set-points must keep, so that the vessel neither runs dry nor over."""
    acqf_name: str = "qLogEI"
    """Acquisition, by name."""
    allow_write: bool = False
    """Whether recommendations are meant to be written; goes into the record."""
    preferences: Preferences = field(default_factory=Preferences)
    """Exploration, move cost and other weights."""
    search: SearchSettings = ROLLOUT_SETTINGS
    """Sizes of the search."""
    n_paths: int = 64
    """Roll-out paths."""
    n_scan_paths: int | None = 16
    """Paths on which a search is begun; None: all of them."""

    def __post_init__(self) -> None:
        """Refuse what no decision can be made with."""
        check_sizes(self.acqf_name, self.n_paths)
        if self.n_scan_paths is not None and not 1 <= self.n_scan_paths <= self.n_paths:
            raise ConfigError(
                f"n_scan_paths={self.n_scan_paths} must lie from 1 to n_paths={self.n_paths}."
            )
        if not self.controls:
            raise ConfigError(
                f"no control of {self.process.name} is to be decided; it has "
                f"{', '.join(self.process.control_names) or 'none'}."
            )
        for name in self.controls:
            refuse_unsettable(self.process, name)
            low, high = self.bounds[name]
            if not low < high:
                raise ConfigError(
                    f"{name} may lie from {low:g} to {high:g}, so nothing can be set."
                )

    @property
    def horizon(self) -> float:
        """Days ahead [d]."""
        return self.ofv.horizon

    def limits(self, now: Mapping[str, float], volume_L: float) -> ControlLimits:
        """What the searched set-points must keep, given what the others are.

        Args:
            now: Set-points in force, by name.
            volume_L: Volume in the vessel [L].
        """
        d = len(self.controls)
        ends = np.asarray([self.bounds[name] for name in self.controls], float)
        rows, spare = np.zeros((0, d)), np.zeros(0)
        if self.balance is not None:
            weights, most = self.balance.row(volume_L)
            taken = sum(w * now[n] for n, w in weights.items() if n not in self.controls)
            rows = np.asarray([[weights.get(name, 0.0) for name in self.controls]])
            spare = np.asarray([most - taken])
            if not rows.any():
                rows, spare = np.zeros((0, d)), np.zeros(0)
        nothing = jnp.asarray(np.zeros(d))
        return ControlLimits(
            lower=jnp.asarray(ends[:, 0]),
            upper=jnp.asarray(ends[:, 1]),
            soft_margin_lower=nothing,
            soft_margin_upper=nothing,
            max_change=jnp.asarray([self.max_change.get(n, np.inf) for n in self.controls], float),
            A=jnp.asarray(rows),
            b=jnp.asarray(spare),
        )


def refuse_unsettable(process: Process, name: str) -> None:
    """Refuse a control that nobody can set from one sample to the next.

    Args:
        process: The culture.
        name: Control.

    Raises:
        ConfigError: If there is none of this name, it is a bolus or a target, or its range is one
            number.
    """
    control = process.control(name)
    if control.role == "bolus":
        raise ConfigError(
            f"{name} is a bolus, which is given once and not held; the twin decides what is held. "
            "What is given stands in the row of its sample."
        )
    if control.lo >= control.hi:
        raise ConfigError(
            f"{name} may only be {control.lo:g} {control.unit} by process {process.name}, so "
            "nobody can set it; widen lo and hi there."
        )


def decide_described(
    policy: DescribedPolicy,
    model: HybridStateSpaceModel,
    belief: Belief,
    now: Mapping[str, float],
    *,
    day: float,
    volume_L: float,
    fixed: Mapping[str, float] | None = None,
    offset: Float[Array, " K"] | None = None,
    draws: DrawnRun | None = None,
    seed: int = 0,
    timestamp: datetime | None = None,
    say: Say | None = None,
) -> BEDDecision:
    """Recommend set-points until the next decision.

    Args:
        policy: What it is made with.
        model: Model of the culture, set to the run's clone.
        belief: State now.
        now: What acts from now on if nothing is changed, by control: set-points in force, and
            boluses that are given at this sample.
        day: Culture day [d].
        volume_L: Volume in the vessel [L].
        fixed: Set-points an operator holds, by name.
        offset: What the run keeps showing beyond the model; see `hybrid.run_offset`.
        draws: What draws of the mechanism's constants make of the run: each path has a draw of its
            own, with the state and the offset that go with it, in place of those above.
        seed: Seed of paths and search, combined with `day`.
        timestamp: When, for the record.
        say: Called with a line about how long it takes and what compiles.

    Returns:
        The decision.

    Raises:
        ConfigError: If no set-points keep the limits.
    """
    process, names = policy.process, policy.controls
    n_steps = n_steps_of(policy.ofv)
    longer = n_steps if n_steps > MOST_STEPS else None
    path_key, particle_key, few, some = keys_of(np.asarray(seed), np.asarray(day_number(day)))
    full = [float(now[name]) for name in process.control_names]
    full += [volume_L] if VOLUME in model.layout.controls else []
    positions = tuple(process.control_names.index(name) for name in names)
    is_whole = names == model.layout.controls
    steps = steps_of(policy.ofv)
    hours = jnp.asarray(np.full(n_steps, HOURS_PER_DAY) if steps is None else steps)

    def drawn_for(n: int, key: Array) -> Paths:
        paths = drawn(draw_paths, model, n, key, longer)
        if draws is not None:
            paths = deal(paths, draws.mechanisms)
            return offset_paths(model, paths, draws.offset_of(n), hours)
        return paths if offset is None else offset_paths(model, paths, offset, hours)

    particles = belief.particles if draws is None else draws.particles

    with telling(say):
        took = decision_seconds(
            model, policy.search, len(names), policy.n_paths, policy.n_scan_paths or 0, n_steps
        )
        tell(f"deciding: {in_words(took)}")
        scan = None
        if policy.n_scan_paths is not None:
            scan = (
                drawn_for(policy.n_scan_paths, few),
                match_particles(particles, policy.n_scan_paths, key=some),
            )
        u, found = recommend(
            model,
            drawn_for(policy.n_paths, path_key),
            match_particles(particles, policy.n_paths, key=particle_key),
            jnp.asarray([float(now[name]) for name in names]),
            ofv=policy.ofv,
            limits=policy.limits(now, volume_L),
            day0=float(day),
            chance=policy.chance or None,
            preferences=policy.preferences,
            acquisition=policy.acqf_name,
            settings=policy.search,
            seed=seed + day_number(day),
            rollout=held_rollout,
            template=None if is_whole else jnp.asarray(full),
            positions=() if is_whole else positions,
            fixed={names.index(n): float(v) for n, v in (fixed or {}).items() if n in names},
            scan=scan,
        )
    return _on_record(policy, model, belief, (u, found), day=day, timestamp=timestamp)


@compiled
def faces(model: HybridStateSpaceModel, particles: Float[Array, "N K"]) -> Float[Array, "N F"]:
    """What analysers would show of states, without noise.

    Args:
        model: Model of the culture.
        particles: States.
    """
    return reported(model, particles)


def _on_record(
    policy: DescribedPolicy,
    model: HybridStateSpaceModel,
    belief: Belief,
    made: tuple[Array, Any],
    *,
    day: float,
    timestamp: datetime | None,
) -> BEDDecision:
    """What was found, in names and plain numbers."""
    info, forecast = jax.device_get(made[1]), model.layout.forecast
    outlook = info.recommended
    face = np.asarray(faces(model, belief.particles)).mean(axis=0)
    explanation = explain(
        info,
        policy.ofv,
        policy.controls,
        policy.chance or None,
        acquisition=policy.acqf_name,
        names=forecast,
    )
    return BEDDecision(
        timestamp=timestamp,
        day=as_day(day),
        recommended_controls=dict(
            zip(policy.controls, np.asarray(made[0], float).tolist(), strict=True)
        ),
        acqf_value=float(info.acquisition),
        acqf_name=policy.acqf_name,
        current_state=dict(zip(model.layout.face, map(float, face), strict=True)),
        forecast_mean=by_species(outlook.mean, forecast),
        forecast_q10=by_species(outlook.q10, forecast),
        forecast_q50=by_species(outlook.q50, forecast),
        forecast_q90=by_species(outlook.q90, forecast),
        explanation=explanation,
        allow_write=policy.allow_write,
    )
