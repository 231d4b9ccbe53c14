"""The daily decision in the user's words: state in, named set-points and an explanation out.

`recommend` is the pure function underneath. `BEDPolicy` adds names, defaults from the design
space and a memory of what was decided. It writes nothing and reads no clock: the caller passes
the time stamp, and the write gate decides what reaches a device.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import (
    CONTROL_NAMES,
    FORECAST_SPECIES,
    HOURS_PER_DAY,
    STATE_ORDER,
    Array,
    ArrayLike,
    ConfigError,
    DataError,
    Float,
)
from perfusio_jax._core.instants import as_day, day_number
from perfusio_jax.bed.acquisition.acquisitions import ACQUISITION_NAMES, build_acquisition
from perfusio_jax.bed.goal.constraints import (
    Chance,
    ChanceConstraint,
    control_limits,
)
from perfusio_jax.bed.goal.criteria import ProcessOFV
from perfusio_jax.bed.goal.objectives import (
    MOST_STEPS,
    TargetSpec,
    TargetTrackingOFV,
    hybrid_functions,
)
from perfusio_jax.bed.goal.steps import check_takes_hours, n_steps_of, native_step, steps_of
from perfusio_jax.bed.optimiser.progress import Say, compiling, in_words, tell, telling
from perfusio_jax.bed.optimiser.search import (
    SearchSettings,
    describe_search,
    optimise_acquisition_with_info,
)
from perfusio_jax.bed.policy.explanations import by_species
from perfusio_jax.bed.policy.explanations import explain as explain
from perfusio_jax.bed.policy.recommend import (
    ROLLOUT_SETTINGS,
    SINGLE_OBJECTIVE,
    Preferences,
    RecommendInfo,
    decision_seconds,
)
from perfusio_jax.bed.policy.recommend import recommend as recommend
from perfusio_jax.bed.surrogate.surrogates import RolloutSurrogate

if TYPE_CHECKING:
    from datetime import datetime


_RACK = 24
"""Vessels of a rack."""

SCAN_PATHS = 16
"""Paths on which a search is begun by default."""

SCAN_FROM = 64
"""Paths from which on it is begun on fewer by default."""


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
    """Its own model, of the same structure (another clone of a family); the policy's if None."""
    reactor_id: str | None = None
    """Name of the vessel."""


class BEDPolicy:
    """Daily self-driving control policy.

    The object holds settings and an immutable tuple of past decisions, nothing else; the
    numbers come from `recommend`. Given `u_now`, a decision depends on its arguments alone, not
    on the history, so that a restarted process decides the same.

    Reference:
        Gadiyar et al. (2026), section 3.2 and figure 5.
    """

    def __init__(
        self,
        hybrid: Any,
        design_space: Any,
        acqf_name: str = "qLogEI",
        allow_write: bool = False,
        targets: Sequence[TargetSpec] | None = None,
        n_restarts: int | None = None,
        n_raw_samples: int | None = None,
        *,
        horizon: int = 3,
        n_paths: int = 64,
        probability: float = 0.9,
        max_change: dict[str, float] | None = None,
        soft_margin: float = 0.05,
        preferences: Preferences | None = None,
        settings: SearchSettings | None = None,
        rollout_functions: tuple[Callable, Callable] | None = None,
        n_scan_paths: int | Literal["auto"] | None = "auto",
        ofv: TargetTrackingOFV | ProcessOFV | None = None,
        chance: Chance = None,
        step_h: float | None = None,
    ):
        """Set up a policy.

        Args:
            hybrid: Fitted hybrid model, used when `decide` is given no surrogate.
            design_space: A `config.DesignSpace`; its targets and `viability_min` apply.
            acqf_name: Acquisition, by name.
            allow_write: Whether recommendations are meant to be written.
            targets: What to track; the design space's VCV and titre targets if None.
            n_restarts: Starts that climb: by default 10 on a plain surrogate, 3 (and the
                set-points in force and the last plan) on roll-outs.
            n_raw_samples: Sobol points scored first: by default 512, or 64 on roll-outs.
            horizon: Days ahead [d].
            n_paths: Roll-out paths.
            probability: Share of the paths that must keep `viability_min` [-].
            max_change: Largest change per decision by control name.
            soft_margin: How far a soft bound may be crossed, as a share of the range [-].
            preferences: Exploration, move cost and other weights.
            settings: Sizes of the roll-out search in place of `ROLLOUT_SETTINGS`.
            rollout_functions: `(draw_paths, rollout)` in place of those of
                `perfusio_jax.hybrid`.
            n_scan_paths: Paths on which a search is begun; see `recommend`. None: all of them.
                By default `SCAN_PATHS` if there are `SCAN_FROM` paths or more.
            ofv: Objective in place of tracking `targets`; its horizon and steps apply.
            chance: Constraints in place of `viability_min` alone.
            step_h: Length of a roll-out's step [h]; by default a day, in as many parts as the
                samples of a day the model learned from.

        Raises:
            ConfigError: If the acquisition is unknown, there is nothing to track, or a limit or
                a step is unusable.
        """
        if acqf_name not in ACQUISITION_NAMES:
            raise ConfigError(
                f"unknown acquisition {acqf_name!r}; the names are {', '.join(ACQUISITION_NAMES)}."
            )
        if n_paths < 1:
            raise ConfigError(f"n_paths={n_paths} was given; at least one path is needed.")
        self.hybrid, self.design_space = hybrid, design_space
        self.acqf_name, self.allow_write = acqf_name, bool(allow_write)
        if n_scan_paths == "auto":
            n_scan_paths = SCAN_PATHS if n_paths >= SCAN_FROM else None
        elif n_scan_paths is not None and not 1 <= n_scan_paths <= n_paths:
            raise ConfigError(f"n_scan_paths={n_scan_paths} must lie from 1 to n_paths={n_paths}.")
        if ofv is None:
            self.targets = tuple(targets) if targets else default_targets(design_space)
            self.ofv = TargetTrackingOFV(
                self.targets,
                horizon=horizon,
                n_samples=n_paths,
                step_h=native_step(hybrid) if step_h is None else step_h,
            )
        else:
            if step_h not in (None, own := getattr(ofv, "step_h", HOURS_PER_DAY)):
                raise ConfigError(
                    f"step_h={step_h:g} was given beside an objective with steps of {own:g} h; "
                    "give it to the objective."
                )
            self.targets, self.ofv = getattr(ofv, "targets", ()), ofv
        self._made_with = {
            "max_change": max_change,
            "soft_margin": soft_margin,
            "probability": probability,
            "own_targets": targets is not None or ofv is not None,
            "own_chance": chance is not None,
        }
        self.limits = control_limits(design_space, max_change=max_change, soft_margin=soft_margin)
        self.chance = chance or ChanceConstraint(design_space.viability_min, probability)
        self.n_scan_paths = n_scan_paths
        self.preferences = Preferences() if preferences is None else preferences
        self.n_paths = int(n_paths)
        self._names = tuple(design_space.control_names)
        self._n_restarts, self._n_raw_samples = n_restarts, n_raw_samples
        chosen = ROLLOUT_SETTINGS if settings is None else settings
        self._settings = chosen._replace(
            n_restarts=n_restarts or chosen.n_restarts,
            n_raw_samples=n_raw_samples or chosen.n_raw_samples,
        )
        self._functions = rollout_functions
        if rollout_functions is not None and steps_of(self.ofv) is not None:
            check_takes_hours(rollout_functions[1])
        self._history: tuple[BEDDecision, ...] = ()

    @property
    def history(self) -> list[BEDDecision]:
        """All decisions made so far, oldest first; a copy."""
        return list(self._history)

    def with_space(self, design_space: Any) -> "BEDPolicy":
        """The same policy in another design space, for a change in mid-run.

        Bounds, rate limits, the viability limit and (unless the caller gave targets) the targets
        are those of the new space. Set-points in force that lie outside it are led to its nearest
        bound, as fast as the rate limits allow; the history stays.

        Args:
            design_space: A `config.DesignSpace` with the same controls.

        Returns:
            A new policy; this one does not change.

        Raises:
            ConfigError: If the controls differ, or a limit is unusable.
        """
        if tuple(design_space.control_names) != self._names:
            raise ConfigError(
                f"the new design space has the controls {', '.join(design_space.control_names)}; "
                f"this policy was made for {', '.join(self._names)}."
            )
        made, new = self._made_with, copy.copy(self)
        new.design_space = design_space
        new.limits = control_limits(
            design_space, max_change=made["max_change"], soft_margin=made["soft_margin"]
        )
        if not made["own_chance"]:
            new.chance = ChanceConstraint(design_space.viability_min, made["probability"])
        if not made["own_targets"]:
            new.targets = default_targets(design_space)
            new.ofv = TargetTrackingOFV(
                new.targets,
                horizon=self.ofv.horizon,
                n_samples=self.n_paths,
                step_h=self.ofv.step_h,
            )
        return new

    def decide(
        self,
        c_current: Any,
        day: float,
        surrogate_model: Any = None,
        best_f: float | None = None,
        seed: int | None = None,
        *,
        u_now: ArrayLike | dict[str, float] | None = None,
        u_plan: ArrayLike | dict[str, float] | None = None,
        timestamp: datetime | None = None,
        fixed: dict[str, float] | None = None,
        say: Say | None = None,
    ) -> BEDDecision:
        """Recommend set-points until the next decision and remember this one.

        Args:
            c_current: Measured state `(9,)` in `STATE_ORDER`, without gaps, or a belief with
                `particles (N, 9)` in `BALANCED` order.
            day: Process day [d], also between two whole ones.
            surrogate_model: A hybrid model (the policy's own if None), a `RolloutSurrogate`, or
                any object with `posterior` and `sample` over set-points.
            best_f: Incumbent in the surrogate's own score; by default the better of the
                set-points in force and the last plan in this state.
            seed: Seed of paths and search, combined with `day`; None is 0.
            u_now: Set-points in force, by name or in the design space's order; by default the
                last recommendation, or the centre of the design space on the first call.
            u_plan: Last plan, where it was not carried out; competes for the incumbent.
            timestamp: When, for the record.
            fixed: Set-points held at a value by the operator, by name.
            say: Called with a line about how long it takes and what compiles.

        Returns:
            The decision, also appended to `history`.

        Raises:
            ConfigError: If a name is unknown, no set-points keep the limits, or the
                acquisition cannot work with the surrogate.
            DataError: If the state has the wrong shape or a gap.
        """
        _check_call(day, seed, best_f)
        now = self._set_points(u_now)
        plan = None if u_plan is None else self._set_points(u_plan)
        held = {self._position(name): value for name, value in (fixed or {}).items()}
        number = 0 if seed is None else int(seed)
        state, face, remark = _latent(c_current)
        model = self.hybrid if surrogate_model is None else surrogate_model
        is_plain = hasattr(model, "posterior") and hasattr(model, "sample")
        with telling(say):
            if is_plain and not isinstance(model, RolloutSurrogate):
                made = self._on_plain_surrogate(model, now, best_f, number + day_number(day), held)
            else:
                tell(f"deciding: {in_words(self._seconds(model))}")
                when = (float(day), number)
                made = self._on_rollouts(model, state, (now, plan), best_f, when, held)
        decision = BEDDecision(
            timestamp=timestamp,
            day=as_day(day),
            acqf_name=self.acqf_name,
            current_state=dict(zip(STATE_ORDER, map(float, face), strict=True)),
            allow_write=self.allow_write,
            **_with_remark(made, remark),
        )
        self._history = (*self._history, decision)
        return decision

    def decide_rack(
        self,
        reactors: Sequence[ReactorNow],
        *,
        pending: Sequence[ReactorNow] = (),
        seed: int | None = None,
        timestamp: datetime | None = None,
        say: Say | None = None,
    ) -> list[BEDDecision]:
        """Decide for several vessels at once, each in its own state, under one model.

        All vessels share the drawn functions of the model, so that what one decision will teach
        is known to the next: decisions are made in turn, and what those before it (and pending
        ones) will teach about the model is taken out of a vessel's reasons to explore. Pure:
        the history is neither read nor written.

        Args:
            reactors: The vessels, up to 24 and more.
            pending: Vessels whose next set-points are settled already.
            seed: Seed of paths and search; None is 0.
            timestamp: When, for the record.
            say: Called with a line before it begins (about how long it takes), whenever
                something compiles, and after every vessel.

        Returns:
            One decision per vessel, in their order.

        Raises:
            ConfigError: If there is no vessel, a name is unknown, or no set-points keep the
                limits of one.
            DataError: If a state has the wrong shape or a gap.
        """
        if not reactors:
            raise ConfigError("decide_rack was given no reactors; give at least one.")
        if self.acqf_name not in SINGLE_OBJECTIVE:
            raise ConfigError(self._several())
        for vessel in (*pending, *reactors):
            _check_call(vessel.day, seed, None)
        with telling(say):
            work = len(reactors) * self._seconds(self._model_of(reactors[0]))
            tell(f"deciding for {len(reactors)} reactors: {in_words(work)}")
            return self._rack(reactors, pending, seed, timestamp)

    def _rack(
        self,
        reactors: Sequence[ReactorNow],
        pending: Sequence[ReactorNow],
        seed: int | None,
        timestamp: datetime | None,
    ) -> list[BEDDecision]:
        number = 0 if seed is None else int(seed)
        everyone = [*pending, *reactors]
        draw_paths, rollout = hybrid_functions(self._functions)
        path_key, scan_key, noise_key = jax.random.split(jax.random.key(number), 3)
        first = self._model_of(everyone[0])
        shared = _drawn(draw_paths, first, self.n_paths, path_key, self._longer)
        scan_paths = None
        if self.n_scan_paths is not None:
            scan_paths = _drawn(draw_paths, first, self.n_scan_paths, scan_key, self._longer)
        # room in whole racks, so that racks of any size share what is compiled
        taught = jnp.zeros((self.n_paths, -(-len(everyone) // _RACK) * _RACK))
        decisions: list[BEDDecision] = []
        for place, vessel in enumerate(everyone):
            mine = jax.random.fold_in(noise_key, place)
            paths = _own_noise(shared, key=mine)
            state, face, remark = _latent(vessel.c_current)
            c0 = match_particles(state, self.n_paths, key=jax.random.fold_in(mine, 1))
            ofv, model = self._ofv_of(vessel), self._model_of(vessel)
            now = self._set_points(vessel.u_now)
            template, positions = self._embedding(now)
            if place < len(pending):
                u = now
            else:
                scan = None
                if scan_paths is not None:
                    few = match_particles(
                        state, self.n_scan_paths or 1, key=jax.random.fold_in(mine, 2)
                    )
                    scan = (_own_noise(scan_paths, key=jax.random.fold_in(mine, 3)), few)
                plan = None if vessel.u_plan is None else self._set_points(vessel.u_plan)
                u, info = recommend(
                    model,
                    paths,
                    c0,
                    now,
                    ofv=ofv,
                    limits=self.limits,
                    day0=float(vessel.day),
                    u_plan=plan,
                    chance=self.chance,
                    preferences=self.preferences,
                    acquisition=self.acqf_name,
                    settings=self._settings,
                    seed=number + day_number(vessel.day),
                    rollout=rollout,
                    template=template,
                    positions=positions,
                    fixed={self._position(n): v for n, v in vessel.fixed.items()},
                    scan=scan,
                    taught=taught,
                )
                made = self._made(u, jax.device_get(info), ofv)
                decisions.append(
                    BEDDecision(
                        timestamp=timestamp,
                        day=as_day(vessel.day),
                        acqf_name=self.acqf_name,
                        current_state=dict(zip(STATE_ORDER, map(float, face), strict=True)),
                        allow_write=self.allow_write,
                        reactor_id=vessel.reactor_id,
                        **_with_remark(made, remark),
                    )
                )
                tell(f"{len(decisions)} of {len(reactors)} reactors decided")
            if place + 1 < len(everyone):
                held = RolloutSurrogate(
                    model=model,
                    paths=paths,
                    c0=c0,
                    ofv=ofv,
                    day0=float(vessel.day),
                    template=template,
                    positions=positions,
                    rollout=rollout,
                )
                taught = _learn(held, u, taught, jnp.asarray(place))
        return decisions

    def _seconds(self, model: Any) -> float:
        """About how long one decision on roll-outs takes, once compiled [s]."""
        held = model.model if isinstance(model, RolloutSurrogate) else model
        return decision_seconds(
            held,
            self._settings,
            len(self._names),
            self.n_paths,
            self.n_scan_paths or 0,
            n_steps_of(self.ofv),
        )

    @property
    def _longer(self) -> int | None:
        """Steps to draw paths for, where they are more than those drawn anyway."""
        n = n_steps_of(self.ofv)
        return n if n > MOST_STEPS else None

    def _model_of(self, vessel: ReactorNow) -> Any:
        model = self.hybrid if vessel.model is None else vessel.model
        if model is None:
            raise ConfigError(
                "there is no model to forecast with; give the policy a hybrid model or each "
                "reactor its own."
            )
        return model

    def _ofv_of(self, vessel: ReactorNow) -> TargetTrackingOFV | ProcessOFV:
        if vessel.targets is None:
            return self.ofv
        given = [t.species for t in vessel.targets]
        if given != [t.species for t in self.targets]:
            raise ConfigError(
                f"reactor {vessel.reactor_id} has targets for {given}; the policy was made for "
                f"{[t.species for t in self.targets]}, in this order."
            )
        return TargetTrackingOFV(
            vessel.targets,
            horizon=self.ofv.horizon,
            n_samples=self.n_paths,
            step_h=self.ofv.step_h,
        )

    def _several(self) -> str:
        return (
            f"{self.acqf_name} designs for several objectives; a policy that tracks targets "
            f"uses one of {', '.join(SINGLE_OBJECTIVE)}."
        )

    def _on_rollouts(
        self,
        model: Any,
        state: Array,
        known: tuple[Array, Array | None],
        best_f: float | None,
        when: tuple[float, int],
        held: dict[int, float],
    ) -> dict[str, Any]:
        (day, seed), (now, plan) = when, known
        if self.acqf_name not in SINGLE_OBJECTIVE:
            raise ConfigError(self._several())
        draw_paths, rollout = hybrid_functions(self._functions)
        drawn_for = jax.random.fold_in(jax.random.key(seed), day_number(day))
        path_key, particle_key = jax.random.split(drawn_for)
        scan = None
        if isinstance(model, RolloutSurrogate):
            paths, rollout, model = model.paths, model.rollout or rollout, model.model
        else:
            if model is None:
                raise ConfigError(
                    "there is no model to forecast with; give the policy a hybrid model or "
                    "`decide` a surrogate."
                )
            paths = _drawn(draw_paths, model, self.n_paths, path_key, self._longer)
            if self.n_scan_paths is not None:
                few, some = jax.random.split(jax.random.fold_in(path_key, 1))
                scan = (
                    _drawn(draw_paths, model, self.n_scan_paths, few, self._longer),
                    match_particles(state, self.n_scan_paths, key=some),
                )
        template, positions = self._embedding(now)
        u, info = recommend(
            model,
            paths,
            match_particles(state, self.n_paths, key=particle_key),
            now,
            ofv=self.ofv,
            limits=self.limits,
            day0=day,
            u_plan=plan,
            chance=self.chance,
            preferences=self.preferences,
            acquisition=self.acqf_name,
            best_f=best_f,
            settings=self._settings,
            seed=seed + day_number(day),
            rollout=rollout,
            template=template,
            positions=positions,
            fixed=held,
            scan=scan,
        )
        return self._made(u, jax.device_get(info), self.ofv)

    def _made(
        self, u: Array, info: RecommendInfo, ofv: TargetTrackingOFV | ProcessOFV
    ) -> dict[str, Any]:
        outlook = info.recommended
        return {
            "recommended_controls": self._named(u),
            "acqf_value": float(info.acquisition),
            "forecast_mean": by_species(outlook.mean),
            "forecast_q10": by_species(outlook.q10),
            "forecast_q50": by_species(outlook.q50),
            "forecast_q90": by_species(outlook.q90),
            "explanation": explain(info, ofv, self._names, self.chance),
        }

    def _on_plain_surrogate(
        self, model: Any, now: Array, best_f: float | None, seed: int, held: dict[int, float]
    ) -> dict[str, Any]:
        if best_f is None:
            best_f = float(model.posterior(now[None, :])[0][0])
        acqf = build_acquisition(self.acqf_name, model, best_f=best_f, seed=seed)
        lower, upper = (np.array(bound) for bound in self.limits.box(now))
        candidates, values, info = optimise_acquisition_with_info(
            acqf,
            (lower, upper),
            1,
            self._n_restarts or 10,
            n_raw_samples=self._n_raw_samples or 512,
            fixed_features=held,
            seed=seed,
            linear_constraints=(self.limits.A, self.limits.b),
            initial_points=now[None, :],
        )
        report = {
            "n_converged": int(info.n_converged),
            "n_evals": int(info.n_evals),
            "is_flat": bool(info.is_flat),
        }
        return {
            "recommended_controls": self._named(candidates[0]),
            "acqf_value": float(values[0]),
            "explanation": {"search": report, "remarks": list(describe_search(info)[:-1])},
        }

    def _named(self, u: Array) -> dict[str, float]:
        return dict(zip(self._names, np.asarray(u, float).tolist(), strict=True))

    def _position(self, name: str) -> int:
        if name not in self._names:
            raise ConfigError(
                f"{name!r} is not a control of this design space; its controls are "
                f"{', '.join(self._names)}."
            )
        return self._names.index(name)

    def _set_points(self, u_now: ArrayLike | dict[str, float] | None) -> Array:
        """Set-points in force, in the design space's order."""
        if u_now is None:
            if not self._history:
                return 0.5 * (self.limits.lower + self.limits.upper)
            u_now = self._history[-1].recommended_controls
        if isinstance(u_now, dict):
            missing = [name for name in self._names if name not in u_now]
            if missing:
                raise ConfigError(f"u_now lacks {', '.join(missing)}.")
            u_now = np.array([u_now[name] for name in self._names], float)
        values = jnp.asarray(u_now, float)
        if values.shape != (len(self._names),) or not bool(jnp.all(jnp.isfinite(values))):
            raise ConfigError(
                f"u_now is {values}; it must hold one finite value for each of "
                f"{', '.join(self._names)}."
            )
        return values

    def _embedding(self, now: Array) -> tuple[Array | None, tuple[int, ...]]:
        """How the searched controls sit in the full control vector."""
        if self._names == CONTROL_NAMES:
            return None, ()
        unknown = [name for name in self._names if name not in CONTROL_NAMES]
        missing = [name for name in CONTROL_NAMES if name not in self._names]
        if unknown or missing:
            raise ConfigError(
                "roll-outs of the hybrid model need the six controls "
                f"{', '.join(CONTROL_NAMES)} in the design space; unknown here: "
                f"{', '.join(unknown) or 'none'}; missing: {', '.join(missing) or 'none'}. To hold "
                "one at a value, keep it and pass `fixed=` to `decide`."
            )
        positions = tuple(CONTROL_NAMES.index(name) for name in self._names)
        return jnp.zeros((len(CONTROL_NAMES),)).at[jnp.asarray(positions)].set(now), positions


def default_targets(design_space: Any) -> tuple[TargetSpec, ...]:
    """Targets a design space names: viable cell volume and titre, weight one each.

    Args:
        design_space: A `config.DesignSpace`.

    Returns:
        Targets.

    Raises:
        ConfigError: If it names none.
    """
    named = (("VCV", design_space.vcv_target), ("Titer", design_space.titer_target))
    targets = tuple(
        TargetSpec(FORECAST_SPECIES.index(name), value)
        for name, value in named
        if value is not None
    )
    if not targets:
        raise ConfigError(
            "there is nothing to track: give `targets`, or set vcv_target or titer_target in the "
            "design space."
        )
    return targets


def match_particles(state: Float[Array, "N 9"], n: int, *, key: Array) -> Float[Array, "n 9"]:
    """As many state samples as there are paths: a random subset, or every one several times.

    Args:
        state: Samples of the latent state, or one state `(9,)`.
        n: Number of paths.
        key: Random key.

    Returns:
        Samples, one per path.
    """
    if state.ndim == 1:
        return jnp.broadcast_to(state[None, :], (n, state.shape[0]))
    N = state.shape[0]
    order = jax.random.permutation(key, N)
    return state[order[jnp.arange(n) % N]]


@eqx.filter_jit
def _drawn(draw_paths: Callable, model: Any, n: int, key: Array, longer: int | None) -> Any:
    """Paths of a model; uncompiled, drawing them takes longer than rolling them out."""
    compiling(f"the draw of {n} paths")
    return draw_paths(model, n, key=key, **({} if longer is None else {"max_steps": longer}))


def _own_noise(paths: Any, *, key: Array) -> Any:
    """The same functions with other process noise: vessels share the model, not their luck."""
    if not hasattr(paths, "process"):
        return paths
    fresh = jax.random.normal(key, paths.process.shape, paths.process.dtype)
    return eqx.tree_at(lambda p: p.process, paths, fresh)


@eqx.filter_jit
def _learn(held: RolloutSurrogate, u: Array, taught: Array, place: Array) -> Array:
    """Add what a decision will teach to the basis: its deviations between paths."""
    score = held.scores(u)[0]
    apart = score - jnp.mean(score)
    new = apart - taught @ (taught.T @ apart)
    size, before = jnp.linalg.norm(new), jnp.linalg.norm(apart)
    # nothing new, or rounding error of nothing new
    is_new = size > 1e-6 * before
    return taught.at[:, place].set(jnp.where(is_new, new / jnp.where(is_new, size, 1.0), 0.0))


def _check_call(day: Any, seed: int | None, best_f: float | None) -> None:
    if not float(day) >= 0:
        raise ConfigError(f"day={day} was given; process days count from 0.")
    if seed is not None and seed < 0:
        raise ConfigError(f"seed={seed} was given; a seed is an integer from 0.")
    if best_f is not None and not np.isfinite(best_f):
        raise ConfigError(
            f"best_f={best_f} was given; it must be a finite score, or None for the better of the "
            "set-points in force and the last plan."
        )


def _with_remark(made: dict[str, Any], remark: str) -> dict[str, Any]:
    if remark:
        explanation = made["explanation"]
        made["explanation"] = {**explanation, "remarks": [remark, *explanation["remarks"]]}
    return made


def _latent(c_current: Any) -> tuple[Array, np.ndarray, str]:
    """Latent state (samples or one), the measured face for the record, and a remark."""
    from perfusio_jax.chemistry import from_balanced, to_balanced

    if hasattr(c_current, "particles"):
        particles = np.asarray(c_current.particles, float)
        if particles.ndim != 2 or particles.shape[0] == 0:
            raise DataError(
                f"the belief holds particles of shape {particles.shape}; they must be (N, 9), at "
                "least one."
            )
        is_whole = np.isfinite(particles).all(axis=1)
        n, lost, remark = len(particles), int((~is_whole).sum()), ""
        if 0 < lost < n:
            particles = particles[is_whole]
            remark = f"{lost} of {n} particles of the belief were not finite and were left out."
        face = from_balanced(jnp.asarray(particles.mean(axis=0)))
        return jnp.asarray(particles), np.asarray(face), remark
    face = jnp.asarray(c_current, float)
    if face.shape != (len(STATE_ORDER),):
        raise DataError(
            f"c_current has shape {face.shape}; give the measured state ({len(STATE_ORDER)},) in "
            f"the order {', '.join(STATE_ORDER)}, or a belief with particles."
        )
    missing = [n for n, v in zip(STATE_ORDER, np.asarray(face), strict=True) if np.isnan(v)]
    if missing:
        raise DataError(
            f"c_current lacks {', '.join(missing)}; a state with gaps must be filtered first: "
            "pass the belief of `perfusio_jax.hybrid.filter_step`."
        )
    return to_balanced(face), np.asarray(face), ""
