"""The daily decision in the user's words: a class with names, defaults and a memory.

`decision.decide` is the pure function underneath, `rack.decide_rack` that of many vessels.
`BEDPolicy` adds defaults from the design space, the set-points of the last decision where none
are given, and a list of what was decided.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from perfusio_jax._core import FORECAST_SPECIES, HOURS_PER_DAY, Array, ArrayLike, ConfigError
from perfusio_jax.bed.goal.constraints import (
    Chance,
    ChanceConstraint,
    ControlLimits,
    control_limits,
)
from perfusio_jax.bed.goal.criteria import ProcessOFV
from perfusio_jax.bed.goal.objectives import TargetSpec, TargetTrackingOFV
from perfusio_jax.bed.goal.steps import closed, is_open, with_step
from perfusio_jax.bed.optimiser.progress import Say
from perfusio_jax.bed.optimiser.search import SearchSettings
from perfusio_jax.bed.policy.decision import BEDDecision as BEDDecision
from perfusio_jax.bed.policy.decision import SetPoints, decide
from perfusio_jax.bed.policy.explanations import explain as explain
from perfusio_jax.bed.policy.rack import ReactorNow as ReactorNow
from perfusio_jax.bed.policy.rack import decide_rack, targets_of
from perfusio_jax.bed.policy.recommend import ROLLOUT_SETTINGS, Preferences
from perfusio_jax.bed.policy.recommend import recommend as recommend
from perfusio_jax.bed.policy.settings import PolicySettings, check_sizes
from perfusio_jax.bed.policy.state import match_particles as match_particles

if TYPE_CHECKING:
    from datetime import datetime

SCAN_PATHS = 16
"""Paths on which a search is begun by default."""

SCAN_FROM = 64
"""Paths from which on it is begun on fewer by default."""


class BEDPolicy:
    """Daily self-driving control policy.

    The object holds a model, a design space, `settings` and an immutable tuple of past decisions,
    nothing else; the numbers come from `decision.decide`. Given `u_now`, a decision depends on
    its arguments alone, not on the history, so that a restarted process decides the same.

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
            acqf_name: Acquisition, any name `build_acquisition` takes; those of several
                objectives want two targets or more, qKG a plain surrogate.
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
                samples of a day the model learned from. Without a model the step is open, and
                the model of each decision closes it.

        Raises:
            ConfigError: If the acquisition is unknown, there is nothing to track, or a limit or
                a step is unusable.
        """
        check_sizes(acqf_name, n_paths)
        if n_scan_paths == "auto":
            n_scan_paths = SCAN_PATHS if n_paths >= SCAN_FROM else None
        if ofv is not None:
            if step_h is not None and is_open(ofv):
                ofv = with_step(ofv, step_h)
            elif step_h not in (None, own := getattr(ofv, "step_h", HOURS_PER_DAY)):
                raise ConfigError(
                    f"step_h={step_h:g} was given beside an objective with steps of {own:g} h; "
                    "give it to the objective."
                )
        self._own_targets = targets is not None or ofv is not None
        if ofv is None:
            ofv = TargetTrackingOFV(
                targets or default_targets(design_space),
                horizon=horizon,
                n_samples=n_paths,
                step_h=step_h,
            )
        search = ROLLOUT_SETTINGS if settings is None else settings
        self.hybrid, self.design_space = hybrid, design_space
        # what of the design space is in force, for a change of it
        self._limits_by = {"max_change": max_change, "soft_margin": soft_margin}
        self._probability = probability if chance is None else None
        self.settings = PolicySettings(
            control_names=tuple(design_space.control_names),
            ofv=ofv if hybrid is None else closed(ofv, hybrid),
            limits=control_limits(design_space, **self._limits_by),
            chance=chance or ChanceConstraint(design_space.viability_min, probability),
            preferences=Preferences() if preferences is None else preferences,
            acqf_name=acqf_name,
            allow_write=bool(allow_write),
            search=search._replace(
                n_restarts=n_restarts or search.n_restarts,
                n_raw_samples=n_raw_samples or search.n_raw_samples,
            ),
            plain_sizes=(n_restarts or 10, n_raw_samples or 512),
            n_paths=int(n_paths),
            n_scan_paths=n_scan_paths,
            functions=rollout_functions,
        )
        self._history: tuple[BEDDecision, ...] = ()

    @property
    def acqf_name(self) -> str:
        """Acquisition, by name."""
        return self.settings.acqf_name

    @property
    def allow_write(self) -> bool:
        """Whether recommendations are meant to be written."""
        return self.settings.allow_write

    @property
    def ofv(self) -> TargetTrackingOFV | ProcessOFV:
        """What a forecast is worth."""
        return self.settings.ofv

    @property
    def targets(self) -> tuple[TargetSpec, ...]:
        """What is tracked; nothing if the objective has criteria."""
        return targets_of(self.ofv)

    @property
    def limits(self) -> ControlLimits:
        """What set-points must keep."""
        return self.settings.limits

    @property
    def chance(self) -> Chance:
        """What the culture must keep, in probability."""
        return self.settings.chance

    @property
    def preferences(self) -> Preferences:
        """Exploration, move cost and other weights."""
        return self.settings.preferences

    @property
    def n_paths(self) -> int:
        """Roll-out paths."""
        return self.settings.n_paths

    @property
    def n_scan_paths(self) -> int | None:
        """Paths on which a search is begun; None: all of them."""
        return self.settings.n_scan_paths

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
        if tuple(design_space.control_names) != self.settings.control_names:
            raise ConfigError(
                f"the new design space has the controls {', '.join(design_space.control_names)}; "
                f"this policy was made for {', '.join(self.settings.control_names)}."
            )
        before, new = self.settings, copy.copy(self)
        changes: dict[str, Any] = {"limits": control_limits(design_space, **self._limits_by)}
        if self._probability is not None:
            changes["chance"] = ChanceConstraint(design_space.viability_min, self._probability)
        if not self._own_targets:
            changes["ofv"] = TargetTrackingOFV(
                default_targets(design_space),
                horizon=int(self.ofv.horizon),
                n_samples=self.n_paths,
                step_h=self.ofv.step_h,
            )
        new.design_space, new.settings = design_space, replace(before, **changes)
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
        decision = decide(
            self.settings,
            self.hybrid if surrogate_model is None else surrogate_model,
            c_current,
            SetPoints(self._in_force() if u_now is None else u_now, u_plan, fixed),
            day=day,
            best_f=best_f,
            seed=0 if seed is None else int(seed),
            timestamp=timestamp,
            say=say,
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
        return decide_rack(
            self.settings,
            self.hybrid,
            reactors,
            pending=pending,
            seed=0 if seed is None else int(seed),
            timestamp=timestamp,
            say=say,
        )

    def _in_force(self) -> Array | dict[str, float]:
        """Set-points in force where nobody says: the last recommendation, or the centre."""
        if self._history:
            return self._history[-1].recommended_controls
        return 0.5 * (self.limits.lower + self.limits.upper)


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
