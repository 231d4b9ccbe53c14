"""A fitted model with constants drawn from a posterior."""

from pathlib import Path

import equinox as eqx
import numpy as np

from perfusio_jax._core import ConfigError
from perfusio_jax.hybrid import HybridStateSpaceModel
from perfusio_jax.mechanistic.mechanism import with_constants
from perfusio_jax.process import Process
from perfusio_jax.states.checks import UNKNOWN
from perfusio_jax.study import load_posterior

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
    """Models that differ in the constants of their mechanism.

    What was learned beside the mechanism stays as it is: it was learned around the model's own
    constants, and is right as far as the posterior lies about them.

    Args:
        model: Model of a described culture.
        process: The culture.
        folder: Folder of the posterior.
        clone: Clone of the run that is forecast.
        seed: Of the choice of draws.

    Returns:
        The models, and what is to be told, in sentences.

    Raises:
        ConfigError: If the model has no mechanism, or clones of its own, or the posterior belongs
            to another culture or another mechanism.
        DataError: If the folder holds no posterior.
    """
    found, culture = load_posterior(folder)
    kinetics = getattr(model.mech_model, "kinetics", None)
    if kinetics is None:
        raise ConfigError(
            f"the model has no mechanism, and the posterior in {folder} is of constants of one; "
            "fit with the same --mechanism."
        )
    if model.embedding is not None:
        raise ConfigError(
            "the model knows several clones, each with constants of its own; fit one to the runs "
            "of one clone to forecast it with a posterior."
        )
    if culture.get("process") != process.name:
        raise ConfigError(
            f"the posterior in {folder} is of {culture.get('process')}, the model of "
            f"{process.name}."
        )
    own = clone if clone in found.clones and clone != UNKNOWN else None
    draws = found.of_clone(own)
    rng = np.random.default_rng(seed)
    rows = rng.choice(len(draws), size=N_DRAWS, replace=len(draws) < N_DRAWS)
    names = [name.removeprefix("constant.") for name in found.names]
    models = [
        eqx.tree_at(
            lambda m: m.mech_model.kinetics,
            model,
            with_constants(kinetics, dict(zip(names, draws[row].tolist(), strict=True))),
        )
        for row in rows
    ]
    told = [
        f"constants of {len(rows)} draws of {folder} stand in for the model's own; what was "
        "learned beside the mechanism stays"
    ]
    told += [f"the posterior is not to be believed as it is: {line}" for line in found.problems]
    return models, told
