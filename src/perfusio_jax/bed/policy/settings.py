"""What a daily decision is made with: everything but the model, the state and the set-points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import CONTROL_NAMES, Array, ArrayLike, ConfigError, Float
from perfusio_jax.bed.acquisition.acquisitions import ACQUISITION_NAMES, OWN_ACQUISITIONS
from perfusio_jax.bed.goal.constraints import Chance, ControlLimits
from perfusio_jax.bed.goal.criteria import ProcessOFV
from perfusio_jax.bed.goal.objectives import MOST_STEPS, TargetTrackingOFV
from perfusio_jax.bed.goal.steps import (
    check_takes_hours,
    closed,
    is_open,
    n_steps_of,
    steps_of,
)
from perfusio_jax.bed.optimiser.search import SearchSettings
from perfusio_jax.bed.policy.incumbents import check_acquisition, check_numbers
from perfusio_jax.bed.policy.recommend import (
    ROLLOUT_SETTINGS,
    Preferences,
    decision_seconds,
    n_parts_of,
)
from perfusio_jax.bed.surrogate.surrogates import RolloutSurrogate


def check_sizes(acqf_name: str, n_paths: int) -> None:
    """Refuse an acquisition nobody knows and a forecast without a path.

    Args:
        acqf_name: Acquisition, by name.
        n_paths: Roll-out paths.

    Raises:
        ConfigError: If either is given.
    """
    names = ACQUISITION_NAMES + OWN_ACQUISITIONS
    if acqf_name not in names:
        raise ConfigError(f"unknown acquisition {acqf_name!r}; the names are {', '.join(names)}.")
    if n_paths < 1:
        raise ConfigError(f"n_paths={n_paths} was given; at least one path is needed.")


@dataclass(frozen=True)
class PolicySettings:
    """Settings of a decision; `decision.decide` takes them and remembers nothing.

    Raises:
        ConfigError: If the acquisition is unknown or a number of paths is unusable.
    """

    control_names: tuple[str, ...]
    """Set-points searched, in array order."""
    ofv: TargetTrackingOFV | ProcessOFV
    """What a forecast is worth; an open step is closed by the model of each decision."""
    limits: ControlLimits
    """What set-points must keep, in the order of `control_names`."""
    chance: Chance = None
    """What the culture must keep, in probability."""
    preferences: Preferences = field(default_factory=Preferences)
    """Exploration, move cost and other weights."""
    acqf_name: str = "qLogEI"
    """Acquisition, by name."""
    allow_write: bool = False
    """Whether recommendations are meant to be written; goes into the record."""
    search: SearchSettings = ROLLOUT_SETTINGS
    """Sizes of a search on roll-outs."""
    plain_sizes: tuple[int, int] = (10, 512)
    """Starts that climb and Sobol points scored first, on a plain surrogate."""
    n_paths: int = 64
    """Roll-out paths."""
    n_scan_paths: int | None = None
    """Paths on which a search is begun; None: all of them."""
    functions: tuple[Callable, Callable] | None = None
    """`(draw_paths, rollout)` in place of those of `perfusio_jax.hybrid`."""

    def __post_init__(self) -> None:
        """Refuse what no decision can be made with."""
        check_sizes(self.acqf_name, self.n_paths)
        if self.n_scan_paths is not None and not 1 <= self.n_scan_paths <= self.n_paths:
            raise ConfigError(
                f"n_scan_paths={self.n_scan_paths} must lie from 1 to n_paths={self.n_paths}."
            )
        if is_open(self.ofv) or self.functions is None:
            return
        if steps_of(self.ofv) is not None:
            check_takes_hours(self.functions[1])

    @property
    def longer(self) -> int | None:
        """Steps to draw paths for, where they are more than those drawn anyway."""
        n = n_steps_of(self.ofv)
        return n if n > MOST_STEPS else None

    def closed(self, model: Any) -> PolicySettings:
        """The same settings with the objective's step closed.

        Args:
            model: Hybrid model, or a surrogate that holds one.

        Raises:
            ConfigError: If the step does not suit targets or roll-out.
        """
        held = model.model if isinstance(model, RolloutSurrogate) else model
        return replace(self, ofv=closed(self.ofv, held)) if is_open(self.ofv) else self

    def check_rollouts(self, best_f: float | None = None) -> None:
        """Refuse, before any work, an acquisition that roll-outs of this objective have no use for.

        Args:
            best_f: Incumbent, or None.

        Raises:
            ConfigError: If it cannot be had.
        """
        m = n_parts_of(self.ofv)
        check_acquisition(self.acqf_name, m, getattr(self.ofv, "is_pareto", False))
        check_numbers(self.acqf_name, m, best_f, self.preferences.ref_point)

    def seconds(self, model: Any) -> float:
        """About how long one decision on roll-outs takes, once compiled [s].

        Args:
            model: Hybrid model, or a surrogate that holds one.
        """
        return decision_seconds(
            model.model if isinstance(model, RolloutSurrogate) else model,
            self.search,
            len(self.control_names),
            self.n_paths,
            self.n_scan_paths or 0,
            n_steps_of(self.ofv),
        )

    def named(self, u: Array) -> dict[str, float]:
        """Set-points by name.

        Args:
            u: Set-points `(d,)`.
        """
        return dict(zip(self.control_names, np.asarray(u, float).tolist(), strict=True))

    def position(self, name: str) -> int:
        """Where a control sits among the set-points.

        Args:
            name: Control.

        Raises:
            ConfigError: If there is no such control.
        """
        if name not in self.control_names:
            raise ConfigError(
                f"{name!r} is not a control of this design space; its controls are "
                f"{', '.join(self.control_names)}."
            )
        return self.control_names.index(name)

    def held(self, fixed: dict[str, float] | None) -> dict[int, float]:
        """Set-points held at a value, by position.

        Args:
            fixed: The same by name.

        Raises:
            ConfigError: If there is no such control.
        """
        return {self.position(name): value for name, value in (fixed or {}).items()}

    def set_points(self, given: ArrayLike | dict[str, float]) -> Float[Array, "d"]:
        """Set-points in array order.

        Args:
            given: By name or in array order.

        Raises:
            ConfigError: If one is missing or not finite.
        """
        if isinstance(given, dict):
            missing = [name for name in self.control_names if name not in given]
            if missing:
                raise ConfigError(f"u_now lacks {', '.join(missing)}.")
            given = np.array([given[name] for name in self.control_names], float)
        values = jnp.asarray(given, float)
        if values.shape != (len(self.control_names),) or not np.all(np.isfinite(values)):
            raise ConfigError(
                f"u_now is {values}; it must hold one finite value for each of "
                f"{', '.join(self.control_names)}."
            )
        return values

    def embedding(self, now: Array) -> tuple[Array | None, tuple[int, ...]]:
        """How the searched controls sit in the full control vector.

        Args:
            now: Set-points in force.

        Returns:
            The full vector and the places of the searched ones; nothing if they are all.

        Raises:
            ConfigError: If a control a roll-out needs is missing, or one is unknown to it.
        """
        names = self.control_names
        if names == CONTROL_NAMES:
            return None, ()
        unknown = [name for name in names if name not in CONTROL_NAMES]
        missing = [name for name in CONTROL_NAMES if name not in names]
        if unknown or missing:
            raise ConfigError(
                "roll-outs of the hybrid model need the six controls "
                f"{', '.join(CONTROL_NAMES)} in the design space; unknown here: "
                f"{', '.join(unknown) or 'none'}; missing: {', '.join(missing) or 'none'}. To hold "
                "one at a value, keep it and pass `fixed=` to `decide`."
            )
        positions = tuple(CONTROL_NAMES.index(name) for name in names)
        return jnp.zeros((len(CONTROL_NAMES),)).at[jnp.asarray(positions)].set(now), positions
