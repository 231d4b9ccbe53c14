"""Recipes that change within a run: values of every control, and when they change.

A control takes up to `k + 1` values, one after the other, and changes from one to the next between
two samples. As numbers a recipe is `[values of the first segment, ..., of the last, times]`. Times
are counted in steps of the roll-out; what lies between two samples is told by its mean over the
step. So the plan is continuous in the times, has a slope in them while a search is under way, and
is exact where they are whole numbers, which they are in every answer.

Order and limits need no inequalities: times are sorted and kept a step apart, and a change that is
larger than may be made at once is cut short.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import HOURS_PER_DAY, Array, ConfigError, Float
from perfusio_jax.bed.goal.constraints import ControlLimits


class Profile(eqx.Module):
    """How numbers of a search become set-points of every step; make it with `make_profile`."""

    lower: Float[Array, " d"]
    """Lower bounds, unit of each control."""
    upper: Float[Array, " d"]
    """Upper bounds, unit of each control."""
    max_change: Float[Array, " d"]
    """Largest change at once, unit of each control; the whole range if unlimited."""
    n_changes: int = eqx.field(static=True)
    """Changes of each control within a run, at most."""
    n_steps: int = eqx.field(static=True)
    """Steps of a run."""
    groups: tuple[int, ...] = eqx.field(static=True)
    """Which times each control changes at; -1 for one that is held. Controls that a linear
    constraint ties to each other change together."""
    strides: tuple[int, ...] = eqx.field(static=True)
    """Steps to a unit of each group's times: 1, or those of a day for what is given daily."""

    @property
    def d(self) -> int:
        """Number of controls."""
        return len(self.groups)

    @property
    def size(self) -> int:
        """Numbers of a recipe."""
        return (self.n_changes + 1) * self.d + self.n_changes * len(self.strides)

    @property
    def latest(self) -> np.ndarray:
        """Largest number that stands for a time, by group; the least is 1."""
        units = [-(-self.n_steps // stride) for stride in self.strides]
        return np.asarray(units, float) - self.n_changes

    def parts(
        self, x: Float[Array, " D"]
    ) -> tuple[Float[Array, "segments d"], Float[Array, "G k"]]:
        """Values of the segments, as they may follow each other, and times of the changes.

        Args:
            x: Recipe.

        Returns:
            Values in the units of the controls, and times in units of each group.
        """
        k, d = self.n_changes, self.d
        asked = x[: (k + 1) * d].reshape(k + 1, d)
        raw = x[(k + 1) * d :].reshape(len(self.strides), k)
        # sorted and a unit apart: two changes at one time would be one larger change
        times = jnp.sort(raw, axis=1) + jnp.arange(k, dtype=x.dtype)[None, :]
        rows = [asked[0]]
        for j in range(1, k + 1):
            move = asked[j] - rows[-1]
            size = jnp.abs(move)
            is_large = size > self.max_change
            share = jnp.where(is_large, self.max_change / jnp.where(is_large, size, 1.0), 1.0)
            rows.append(rows[-1] + self._together(share) * move)
        return jnp.stack(rows), times

    def plan(self, x: Float[Array, " D"]) -> Float[Array, "H d"]:
        """Set-points of every step.

        Args:
            x: Recipe.

        Returns:
            Their means over the steps, which are the values themselves for whole times.
        """
        values, times = self.parts(x)
        weights = []
        for stride, changes in zip(self.strides, times, strict=True):
            begin = jnp.asarray(np.arange(self.n_steps) // stride, x.dtype)[:, None]
            first, last = jnp.zeros(1, x.dtype), jnp.full(1, self.n_steps + 1.0, x.dtype)
            edges = jnp.concatenate([first, changes, last])[None, :]
            overlap = jnp.minimum(edges[:, 1:], begin + 1.0) - jnp.maximum(edges[:, :-1], begin)
            weights.append(jnp.clip(overlap, 0.0, 1.0))
        columns = [
            jnp.broadcast_to(values[0, c], (self.n_steps,))
            if group < 0
            else weights[group] @ values[:, c]
            for c, group in enumerate(self.groups)
        ]
        return jnp.stack(columns, axis=1)

    def snapped(self, x: Float[Array, " D"]) -> Float[Array, " D"]:
        """The recipe with every change at a whole time.

        Args:
            x: Recipe.
        """
        n = (self.n_changes + 1) * self.d
        raw = jnp.sort(x[n:].reshape(len(self.strides), self.n_changes), axis=1)
        # halves go up everywhere, so that times that are apart stay apart
        return x.at[n:].set(jnp.floor(raw + 0.5).reshape(-1))

    def held(self, u: Float[Array, " d"]) -> Float[Array, " D"]:
        """The recipe that holds set-points; its changes, which change nothing, lie evenly.

        Args:
            u: Set-points.
        """
        k = self.n_changes
        share = np.arange(1, k + 1) / (k + 1)
        evenly = 1.0 + np.round((self.latest[:, None] - 1.0) * share[None, :])
        return jnp.concatenate([jnp.tile(u, k + 1), jnp.asarray(evenly, u.dtype).reshape(-1)])

    def place(self, plan: Float[Array, "H d"]) -> Float[Array, " Hd"]:
        """Where a plan lies in the design space, one coordinate from 0 to 1 for every step.

        Args:
            plan: Set-points of every step.
        """
        width = self.upper - self.lower
        safe = jnp.where(width > 0, width, 1.0)
        unit = (plan - self.lower[None, :]) / safe[None, :]
        return jnp.where((width > 0)[None, :], unit, 0.5).reshape(-1)

    def neighbours(self, x: Float[Array, " D"]) -> Float[np.ndarray, "N D"]:
        """Recipes with one change a unit earlier or later, for each change.

        Args:
            x: Recipe with whole times, outside of `jit`.

        Returns:
            One per row; those that would leave the run are left out.
        """
        values, n = np.asarray(x, float), (self.n_changes + 1) * self.d
        latest = np.repeat(self.latest, self.n_changes)
        found = []
        for place, most in enumerate(latest):
            for step in (-1.0, 1.0):
                if 1.0 <= values[n + place] + step <= most:
                    moved = values.copy()
                    moved[n + place] += step
                    found.append(moved)
        return np.asarray(found).reshape(-1, values.size)

    def of_plan(self, plan: Float[np.ndarray, "H d"]) -> Float[np.ndarray, " D"]:
        """The recipe nearest to a plan, in the mean square over its steps.

        Args:
            plan: Set-points of every step, outside of `jit`.

        Returns:
            Recipe with whole times; it is the plan where that changes no more often.
        """
        table = np.asarray(plan, float)
        k = self.n_changes
        width = np.asarray(self.upper - self.lower)
        unit = table / np.where(width > 0, width, 1.0)[None, :]
        values = np.tile(table.mean(axis=0), (k + 1, 1))
        times = np.ones((len(self.strides), k))
        for group, stride in enumerate(self.strides):
            mine = [c for c, g in enumerate(self.groups) if g == group]
            edges = _cuts(unit[::stride][:, mine], k)
            times[group] = edges[1:-1] - np.arange(k)
            for j, (a, b) in enumerate(pairwise(edges)):
                values[j, mine] = table[a * stride : b * stride, mine].mean(axis=0)
        return np.concatenate([values.reshape(-1), times.reshape(-1)])

    def _together(self, share: Array) -> Array:
        """The smallest share among controls that change together: they stay within their rows."""
        rows = []
        for c, group in enumerate(self.groups):
            tied = [i for i, g in enumerate(self.groups) if g == group and group >= 0] or [c]
            rows.append(jnp.min(share[np.asarray(tied)]))
        return jnp.stack(rows)


def make_profile(
    limits: ControlLimits,
    n_changes: int,
    n_steps: int,
    *,
    fixed: Mapping[int, float] | None = None,
    daily: Sequence[int] = (),
    step_h: float = HOURS_PER_DAY,
    names: Sequence[str] | None = None,
) -> Profile:
    """Where set-points may change within a run.

    Args:
        limits: What set-points must keep; `max_change` counts at every change.
        n_changes: Changes of each control, at most.
        n_steps: Steps of a run.
        fixed: Set-points held at a value, by position.
        daily: Positions of what is given once a day, as a bolus: it changes between days.
        step_h: Length of a step [h].
        names: Names of the controls, for messages.

    Returns:
        The profile.

    Raises:
        ConfigError: If a run has no room for so many changes.

    Example:
        >>> import numpy as np
        >>> from perfusio_jax.bed import control_limits
        >>> from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE as space
        >>> profile = make_profile(control_limits(space), 1, 14)
        >>> profile.size, profile.groups
        (18, (0, 1, 2, 3, 4, 5))
    """
    lower = np.array(limits.lower - limits.soft_margin_lower, float)
    upper = np.array(limits.upper + limits.soft_margin_upper, float)
    held = {**dict(fixed or {}), **{i: v for i, v in enumerate(lower) if v == upper[i]}}
    for i, value in held.items():
        lower[i] = upper[i] = value
    called = names or [f"set-point {i}" for i in range(lower.size)]
    a_day = max(1, round(HOURS_PER_DAY / step_h))
    tied = _tied(lower, upper, np.asarray(limits.A), np.asarray(limits.b))
    groups, strides = [-1] * lower.size, []
    for members in tied:
        free = [i for i in members if i not in held]
        if not free:
            continue
        stride = a_day if any(i in daily for i in free) else 1
        room = -(-n_steps // stride) - 1
        if not 1 <= n_changes <= room:
            what = "steps" if stride == 1 else "days"
            raise ConfigError(
                f"{n_changes} changes of {', '.join(called[i] for i in free)} within a run of "
                f"{room + 1} {what} were asked for; there is room for 1 to {room}. Ask for fewer, "
                "for a longer run, or for 0: set-points that are held."
            )
        for i in free:
            groups[i] = len(strides)
        strides.append(stride)
    if not strides:
        raise ConfigError(
            f"{n_changes} changes of every control were asked for, and all are held at a value; "
            "release one, or ask for none."
        )
    most = np.minimum(np.asarray(limits.max_change, float), upper - lower)
    return Profile(
        lower=jnp.asarray(lower),
        upper=jnp.asarray(upper),
        max_change=jnp.asarray(most),
        n_changes=int(n_changes),
        n_steps=int(n_steps),
        groups=tuple(groups),
        strides=tuple(strides),
    )


def profile_bounds(
    profile: Profile, A: Float[np.ndarray, "m d"], b: Float[np.ndarray, " m"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Limits of the numbers of a recipe: lower, upper, and rows with their right-hand sides.

    Args:
        profile: The profile.
        A: Rows of the linear constraints of set-points.
        b: Their right-hand sides.
    """
    k = profile.n_changes
    ends = [np.tile(np.asarray(v, float), k + 1) for v in (profile.lower, profile.upper)]
    latest = np.repeat(profile.latest, k)
    lower = np.concatenate([ends[0], np.ones(latest.size)])
    upper = np.concatenate([ends[1], latest])
    rows, sides = [], []
    for row, side in zip(np.asarray(A, float), np.asarray(b, float), strict=True):
        if not _can_bind(row, side, np.asarray(profile.lower), np.asarray(profile.upper)):
            continue
        for j in range(k + 1):
            wide = np.zeros(profile.size)
            wide[j * profile.d : (j + 1) * profile.d] = row
            rows.append(wide)
            sides.append(side)
    return lower, upper, np.asarray(rows).reshape(-1, profile.size), np.asarray(sides)


def _can_bind(row: np.ndarray, side: float, lower: np.ndarray, upper: np.ndarray) -> bool:
    """Whether a row forbids some part of the box."""
    return float(np.sum(np.where(row > 0, row * upper, row * lower))) > side


def _tied(lower: np.ndarray, upper: np.ndarray, A: np.ndarray, b: np.ndarray) -> list[list[int]]:
    """Controls in sets: those of one row that can bind are in one."""
    sets = [{i} for i in range(lower.size)]
    for row, side in zip(A, b, strict=True):
        if not _can_bind(row, side, lower, upper):
            continue
        hit = {int(i) for i in np.flatnonzero(row)}
        joined = set().union(hit, *(s for s in sets if s & hit))
        sets = [s for s in sets if not s & hit] + [joined]
    return sorted(sorted(s) for s in sets)


def _cuts(table: np.ndarray, k: int) -> np.ndarray:
    """Edges of the k + 1 stretches that leave least of the squares around their means."""
    n = len(table)
    sums = np.concatenate([np.zeros((1, table.shape[1])), np.cumsum(table, axis=0)])
    squares = np.concatenate([[0.0], np.cumsum(np.sum(table**2, axis=1))])
    first, last = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    length = np.maximum(last - first, 1)
    left = squares[last] - squares[first] - np.sum((sums[last] - sums[first]) ** 2, -1) / length
    cost = np.where(last > first, np.maximum(left, 0.0), np.inf)
    best, came = [cost[0]], []
    for _ in range(k):
        total = best[-1][:, None] + cost
        came.append(np.argmin(total, axis=0))
        best.append(np.min(total, axis=0))
    edges = [n]
    for back in reversed(came):
        edges.append(int(back[edges[-1]]))
    return np.asarray([0, *reversed(edges)])
