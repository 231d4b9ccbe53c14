"""Recipes of runs: where they may lie, and the state they start from."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import STATE_ORDER, Array, ConfigError, Float
from perfusio_jax.bed.goal.constraints import ControlLimits
from perfusio_jax.bed.optimiser.polytope import Polytope, make_polytope


def recipe_box(
    limits: ControlLimits,
    fixed: dict[int, float],
    *,
    q: int = 1,
    control_names: Sequence[str] | None = None,
) -> Polytope:
    """Where recipes may lie; checks before any work what `propose_runs` is asked for.

    Args:
        limits: What set-points must keep.
        fixed: Set-points held at a value, by position.
        q: Runs to propose.
        control_names: Names of the set-points, for messages.

    Returns:
        The set of recipes.

    Raises:
        ConfigError: If a value lies outside its bounds, no recipe keeps the linear constraints,
            or more than one run is asked for and every set-point is held.
    """
    lower = np.array(limits.lower - limits.soft_margin_lower)
    upper = np.array(limits.upper + limits.soft_margin_upper)
    names = control_names or [f"set-point {index}" for index in range(lower.size)]
    for index, value in fixed.items():
        if not 0 <= index < lower.size:
            raise ConfigError(
                f"set-point {index} does not exist; positions are 0 to {lower.size - 1}."
            )
        if not lower[index] <= value <= upper[index]:
            raise ConfigError(
                f"{names[index]} is to be held at {value:g}; the design space allows "
                f"{lower[index]:g} to {upper[index]:g}."
            )
        lower[index] = upper[index] = value
    if q > 1 and (lower == upper).all():
        raise ConfigError(
            f"{q} different runs were asked for, and every set-point is held at a value; release "
            "one, or ask for a single run."
        )
    return make_polytope(lower, upper, np.asarray(limits.A), np.asarray(limits.b))


def start_state(trajectories: Sequence[Any]) -> Float[np.ndarray, "9"]:
    """Latent state runs begin from: the geometric mean of what was read on their first day.

    Args:
        trajectories: Runs.

    Returns:
        State in `BALANCED` order.

    Raises:
        ConfigError: If a species was read on no first day.
    """
    from perfusio_jax.chemistry import to_balanced

    faces = np.stack(
        [np.asarray(t.select_species(STATE_ORDER, missing_ok=True))[0] for t in trajectories]
    )
    lost = [n for n, c in zip(STATE_ORDER, faces.T, strict=True) if not np.isfinite(c).any()]
    if lost:
        raise ConfigError(f"{', '.join(lost)} was not read on the first day of any run.")
    logs = np.log(np.maximum(faces, 1e-6))
    face = np.exp(np.nanmean(logs, axis=0))
    # nothing of it in most runs: the logarithm would make a trace of it
    face = np.where(np.nanmedian(faces, axis=0) <= 0, 0.0, face)
    face[STATE_ORDER.index("Via")] = min(face[STATE_ORDER.index("Via")], 100.0)
    return np.asarray(to_balanced(jnp.asarray(face)))


def recipe_table(name: str, values: Any, d: int) -> Float[Array, "n d"]:
    """Recipes as a table.

    Args:
        name: What they are, for messages.
        values: One per row; may be empty.
        d: Set-points of a recipe.

    Raises:
        ConfigError: If the shape is another or a number is missing.
    """
    table = np.asarray(values, float)
    if table.size == 0:
        return jnp.zeros((0, d))
    if table.ndim != 2 or table.shape[1] != d or not np.isfinite(table).all():
        raise ConfigError(
            f"{name} of shape {table.shape} with {int((~np.isfinite(table)).sum())} entries that "
            f"are not finite were given; they must be (n, {d}), one recipe per row, only numbers."
        )
    return jnp.asarray(table)


def plan_table(name: str, values: Any, n_steps: int, d: int) -> Float[Array, "n H d"]:
    """Set-points of every step of recipes.

    Args:
        name: What they are, for messages.
        values: Plans `(n,H,d)`, or recipes that are held `(n,d)`; may be empty.
        n_steps: Steps of a run.
        d: Set-points of a recipe.

    Raises:
        ConfigError: If the shape is another or a number is missing.
    """
    table = np.asarray(values, float)
    if table.ndim < 3:
        held = np.asarray(recipe_table(name, values, d))
        table = np.repeat(held[:, None, :], n_steps, axis=1)
    if table.shape[1:] != (n_steps, d) or not np.isfinite(table).all():
        raise ConfigError(
            f"{name} of shape {table.shape} with {int((~np.isfinite(table)).sum())} entries that "
            f"are not finite were given; they must be (n, {n_steps}, {d}), set-points of every "
            "step, only numbers."
        )
    return jnp.asarray(table)
