"""Cell diameter over viability, of all runs and of each clone."""

from typing import Any

import numpy as np
from jaxtyping import Float

from perfusio_jax.embedding import CloneRegistry
from perfusio_jax.states import Trajectory

_SPREAD = 3.0
"""Prior standard deviation of either number around its centre [um]."""
_NOISE = 0.01
"""Of a reading, in parts of the diameter [-]."""


def fit_diameter(trajectories: list[Trajectory], mech: Any) -> tuple[float, float]:
    """Cell diameter over dead fraction, by ridge regression towards the mechanistic model.

    Args:
        trajectories: Runs; those without diameter are passed over.
        mech: Mechanistic model, the prior.

    Returns:
        Diameter at full viability [um] and increase per unit dead fraction [um].
    """
    prior = np.array([float(mech.kinetics.diam_base), float(mech.kinetics.diam_death_coeff)])
    found = _towards(prior, trajectories)
    return float(found[0]), float(found[1])


def fit_diameters(
    trajectories: list[Trajectory], mech: Any, registry: CloneRegistry
) -> Float[np.ndarray, "K 2"]:
    """The same for each clone, towards what all runs show together.

    Cells of one clone are as wide as they are, whatever those of another.

    Args:
        trajectories: Runs of all clones.
        mech: Mechanistic model, the prior of all runs together.
        registry: The clones.

    Returns:
        Diameter at full viability [um] and increase per unit dead fraction [um] of each; what all
        show, for a clone whose diameter nobody read.
    """
    shared = np.asarray(fit_diameter(trajectories, mech))
    own = [[t for t in trajectories if t.clone_id == name] for name in registry.names]
    return np.stack([_towards(shared, runs) for runs in own])


def _towards(
    prior: Float[np.ndarray, " 2"], trajectories: list[Trajectory]
) -> Float[np.ndarray, " 2"]:
    """Ridge regression of what was read towards a prior."""
    dead, size = [], []
    for run in trajectories:
        if "Diam" not in run.species_names or "Via" not in run.species_names:
            continue
        d, via = run.host_readings(("Diam", "Via")).T
        v = 1.0 - via / 100.0
        seen = np.isfinite(d) & np.isfinite(v)
        dead.append(v[seen])
        size.append(d[seen])
    if not dead or not np.concatenate(dead).size:
        return prior
    x, y = np.concatenate(dead), np.concatenate(size)
    noise = _NOISE * float(prior[0])
    design = np.column_stack([np.ones_like(x), x])
    precision = design.T @ design / noise**2 + np.eye(2) / _SPREAD**2
    shift = np.linalg.solve(precision, design.T @ (y - design @ prior) / noise**2)
    return np.array([prior[0] + shift[0], max(prior[1] + shift[1], 0.0)])
