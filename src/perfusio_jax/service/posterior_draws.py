"""A fitted model with constants drawn from a posterior."""

from pathlib import Path

import numpy as np

from perfusio_jax.hybrid import HybridStateSpaceModel, at_draw
from perfusio_jax.process import Process
from perfusio_jax.study import posterior_mechanisms

N_DRAWS = 16
"""Draws that become models; each has a filter and paths of its own."""


def with_draws(
    model: HybridStateSpaceModel,
    process: Process,
    folder: Path,
    clone: str,
    *,
    seed: int = 0,
) -> tuple[list[HybridStateSpaceModel], list[str]]:
    """Models that differ in the constants of their mechanism; see `study.posterior_mechanisms`.

    Args:
        model: Model of a described culture.
        process: The culture.
        folder: Folder of the posterior.
        clone: Clone of the run that is forecast.
        seed: Of the choice of draws.

    Returns:
        The models, and what is to be told, in sentences; what speaks against the draws is told and
        not refused, since a forecast is looked at before anything follows from it.

    Raises:
        ConfigError: If the model has no mechanism, or clones of its own, or the posterior belongs
            to another culture or another mechanism.
        DataError: If the folder holds no posterior.
    """
    found = posterior_mechanisms(
        model, process, folder, clone, n=N_DRAWS, seed=seed, accept_warnings=True
    )
    models = [at_draw(model, found.drawn, np.asarray(k)) for k in range(found.drawn.n)]
    return models, list(found.told)
