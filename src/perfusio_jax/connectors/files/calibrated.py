"""The mechanism that a posterior is of, for a model that is fitted to take draws of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from perfusio_jax._core import ConfigError
from perfusio_jax.connectors.files.mechanisms import plant_mechanism
from perfusio_jax.mechanistic import CHOKinetics, as_built, build_of, differs_in_kind
from perfusio_jax.mechanistic.mechanism import with_constants
from perfusio_jax.process import CHO_PERFUSION, Process
from perfusio_jax.states import Trajectory
from perfusio_jax.study import load_posterior
from perfusio_jax.study.calibration.mechanisms import (
    build_from,
    check_accepted,
    check_culture,
    plain_names,
)


def refuse_clones(runs: Sequence[Trajectory]) -> None:
    """Refuse runs of several clones, whose models have constants for each.

    Args:
        runs: Those a model is fitted to.

    Raises:
        ConfigError: If there is more than one clone.
    """
    clones = list(dict.fromkeys(run.clone_id for run in runs))
    if len(clones) > 1:
        raise ConfigError(
            f"--posterior is of one clone, and the runs are of {', '.join(clones[:6])}, each with "
            "constants of its own; give the runs of one."
        )


def calibrated_mechanism(
    folder: Path, process: Process | None, mechanism: Any, *, accept_warnings: bool
) -> Any:
    """The mechanism of a posterior with its constants in the middle of it.

    What a model learns beside it, with `calibrate=False` in its settings, is then learned around
    what the draws are around. All that can be refused is refused here, before the fit.

    Args:
        folder: Folder of the posterior.
        process: The culture; None for CHO perfusion, which has a mechanism of its own.
        mechanism: What a person named: a name, a `Mechanism`, or None for that of the posterior.
        accept_warnings: Whether draws count that something speaks against.

    Returns:
        The mechanism.

    Raises:
        ConfigError: If the posterior is of another culture or mechanism, or is not believed.
        DataError: If the folder holds no posterior.
    """
    found, culture = load_posterior(folder)
    check_culture(culture, CHO_PERFUSION if process is None else process, folder, "the runs")
    check_accepted(found, culture, folder, accept_warnings)
    named = culture.get("mechanism")
    if isinstance(mechanism, str) and mechanism != named:
        raise ConfigError(
            f"--mechanism {mechanism} was given, and the posterior in {folder} is of {named}; "
            "leave --mechanism out, or name a posterior of it."
        )
    own = mechanism
    if process is None:
        own = CHOKinetics()
    elif own is None or isinstance(own, str):
        own = plant_mechanism(process, None if named is None else str(named))
    told = culture.get("build")
    if told is not None:
        build = build_from(told, folder)
        differs = differs_in_kind(build, build_of(own))
        if differs:
            raise ConfigError(
                f"the posterior in {folder} is of another mechanism: {'; '.join(differs[:4])} (the "
                "posterior's first); calibrate again."
            )
        own = as_built(own, build)
    middle = np.median(found.pooled, axis=0).tolist()
    return with_constants(own, dict(zip(plain_names(found), middle, strict=True)))
