"""A fitted model with constants drawn from a posterior."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from perfusio_jax.hybrid import HybridStateSpaceModel, at_draw
from perfusio_jax.process import Process
from perfusio_jax.states.checks import UNKNOWN

if TYPE_CHECKING:
    from perfusio_jax.study import PosteriorMechanisms

N_DRAWS = 16
"""Draws that become models; each has a filter and paths of its own."""
N_DECIDED = 32
"""Draws under which a twin decides, each with a filter of its own at every decision."""


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
    from perfusio_jax.study import posterior_mechanisms  # here: it brings the samplers along

    found = posterior_mechanisms(
        model, process, folder, clone, n=N_DRAWS, seed=seed, accept_warnings=True
    )
    models = [at_draw(model, found.drawn, np.asarray(k)) for k in range(found.drawn.n)]
    return models, list(found.told)


def posterior_of_twin(
    table: Mapping[str, Any],
    base: Path,
    model: HybridStateSpaceModel,
    process: Process,
    *,
    n_paths: int,
    seed: int,
) -> "PosteriorMechanisms | None":
    """The draws that `[twin]` names, or None.

    Args:
        table: `[twin]`.
        base: Folder its paths are relative to.
        model: Model of the twin.
        process: The culture.
        n_paths: Paths of a forecast; there are no more draws than these.
        seed: Seed of the run, so that a restart and a replay take the same draws.

    Raises:
        ConfigError: If the posterior and the model do not agree, or something speaks against the
            draws and nobody accepted it.
        DataError: If the folder holds no posterior.
    """
    named = table.get("posterior")
    if named is None:
        return None
    from perfusio_jax.study import posterior_mechanisms

    found = posterior_mechanisms(
        model,
        process,
        base / str(named),
        str(table.get("clone_id", UNKNOWN)),
        n=min(N_DECIDED, n_paths),
        seed=seed,
        accept_warnings=bool(table.get("accept_warnings", False)),
    )
    return found._replace(source=str(named))
