"""Cell diameter over viability."""

from typing import Any

import numpy as np

from perfusio_jax.states import Trajectory


def fit_diameter(trajectories: list[Trajectory], mech: Any) -> tuple[float, float]:
    """Cell diameter over dead fraction, by ridge regression towards the mechanistic model.

    Args:
        trajectories: Runs; those without diameter are passed over.
        mech: Mechanistic model, the prior.

    Returns:
        Diameter at full viability [um] and increase per unit dead fraction [um].
    """
    prior = np.array([float(mech.kinetics.diam_base), float(mech.kinetics.diam_death_coeff)])
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
        return float(prior[0]), float(prior[1])
    x, y = np.concatenate(dead), np.concatenate(size)
    noise, spread = 0.01 * float(prior[0]), np.array([3.0, 3.0])
    design = np.column_stack([np.ones_like(x), x])
    precision = design.T @ design / noise**2 + np.diag(1.0 / spread**2)
    shift = np.linalg.solve(precision, design.T @ (y - design @ prior) / noise**2)
    return float(prior[0] + shift[0]), float(max(prior[1] + shift[1], 0.0))
