"""Draws of a posterior as mechanisms of a model, and what has to agree before they may be."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from perfusio_jax._core import ConfigError, DataError
from perfusio_jax._core.checkpoint import digest
from perfusio_jax.hybrid import DrawnMechanisms, HybridStateSpaceModel, drawn_mechanisms
from perfusio_jax.mechanistic import (
    Build,
    as_built,
    build_of,
    differing_units,
    differs_in_kind,
    read_build,
)
from perfusio_jax.mechanistic.mechanism import constant_places
from perfusio_jax.process import Process
from perfusio_jax.states.checks import UNKNOWN
from perfusio_jax.study.calibration.posterior import Posterior
from perfusio_jax.study.calibration.storage import load_posterior

_FAR = (0.025, 0.975)
"""Quantiles of a posterior outside of which a model's own constant is told."""
_SHOWN = 4
"""Of a list in a message."""


class PosteriorMechanisms(NamedTuple):
    """Mechanisms with the constants of draws, and where they are from."""

    drawn: DrawnMechanisms
    """The mechanisms, in an order that the seed says."""
    sha256: str
    """Hash of the posterior: names, draws and clones."""
    source: str
    """Where it lies, as it was named."""
    told: tuple[str, ...]
    """What a person is to be told, in sentences."""

    @property
    def note(self) -> str:
        """Which posterior it is, for a record."""
        return f"{self.drawn.n} draws of {self.source} (SHA-256 {self.sha256[:16]})"

    def as_record(self) -> dict[str, Any]:
        """The same in values that JSON has."""
        return {"source": self.source, "sha256": self.sha256, "draws": self.drawn.n}


def posterior_hash(posterior: Posterior) -> str:
    """SHA-256 of what a posterior says of constants; the same after saving and loading.

    Args:
        posterior: The posterior.
    """
    names = "|".join((*posterior.names, "clones", *posterior.clones))
    arrays = {"draws": posterior.draws, "by_clone": posterior.by_clone}
    return digest({f"{name}|{names}": np.asarray(v, float) for name, v in arrays.items()})


def posterior_mechanisms(
    model: HybridStateSpaceModel,
    process: Process,
    folder: str | os.PathLike[str],
    clone: str = UNKNOWN,
    *,
    n: int,
    seed: int = 0,
    accept_warnings: bool = False,
) -> PosteriorMechanisms:
    """Mechanisms for the paths of a model, with constants drawn from a posterior.

    What the model learned beside its mechanism stays as it is: it was learned around the model's
    own constants, and is right as far as the posterior lies about them.

    Args:
        model: Model of a described culture.
        process: The culture.
        folder: Folder of the posterior.
        clone: Clone of the run; its own constants where the posterior has them.
        n: Draws, at most as many as there are paths.
        seed: Of the choice of draws.
        accept_warnings: Whether draws count that something speaks against.

    Returns:
        The mechanisms.

    Raises:
        ConfigError: If the model has no mechanism, or clones of its own; if the posterior belongs
            to another culture, to one that was changed, or to another mechanism; or if something
            speaks against its draws and nobody accepted that.
        DataError: If the folder holds no posterior.
    """
    found, culture = load_posterior(folder)
    kinetics = _kinetics_of(model, folder)
    check_culture(culture, process, folder, "the model")
    check_accepted(found, culture, folder, accept_warnings)
    names = plain_names(found)
    base, told, is_alike = _base(kinetics, names, culture, folder)
    own = clone if clone in found.clones and clone != UNKNOWN else None
    draws = found.of_clone(own)
    rng = np.random.default_rng(seed)
    rows = rng.choice(len(draws), size=n, replace=len(draws) < n)
    drawn = drawn_mechanisms(base, names, draws[rows])
    lines = [
        f"constants of {n} draws of {folder} stand in for the model's own; what was "
        "learned beside the mechanism stays",
        *(f"the posterior is not to be believed as it is: {line}" for line in found.problems),
        *told,
        *(_far(kinetics, names, draws) if is_alike else ()),
    ]
    return PosteriorMechanisms(drawn, posterior_hash(found), str(folder), tuple(lines))


def plain_names(posterior: Posterior) -> list[str]:
    """Constants of a posterior as their mechanism calls them.

    Args:
        posterior: The posterior.
    """
    return [name.removeprefix("constant.") for name in posterior.names]


def check_culture(
    culture: Mapping[str, Any], process: Process, folder: str | os.PathLike[str], whose: str
) -> None:
    """Refuse a posterior that is of another culture, or of one that was changed since.

    Args:
        culture: What the posterior says its constants belong to.
        process: The culture.
        folder: Folder of the posterior, for the message.
        whose: What has the culture, for the message.

    Raises:
        ConfigError: If it is another, with the differences.
    """
    if culture.get("process") != process.name:
        raise ConfigError(
            f"the posterior in {folder} is of {culture.get('process')}, {whose} of {process.name}."
        )
    told = culture.get("description")
    if told is None:  # of an earlier version
        return
    differs = _bare(Process.model_validate(told)).differences(_bare(process))
    if differs:
        more = f"; and {len(differs) - _SHOWN} more" if differs[_SHOWN:] else ""
        raise ConfigError(
            f"the posterior in {folder} is of {process.name} as it was described then; it was "
            f"changed since: {'; '.join(differs[:_SHOWN])}{more} (the posterior's first). "
            "Calibrate again, or undo the change."
        )


def _bare(process: Process) -> Process:
    """A process without what constants do not depend on: ranges, defaults and errors of assays.

    A culture that is read off a table has other ranges with every run that is added to it.
    """
    spans: dict[str, Any] = {"lo": 0.0, "hi": 1.0}
    controls = [c.model_copy(update={**spans, "default": 0.0}) for c in process.controls]
    errors = {**spans, "cv": 0.0, "floor": 0.0}
    quantities = [q.model_copy(update=errors) for q in process.quantities]
    return process.model_copy(update={"controls": tuple(controls), "quantities": tuple(quantities)})


def check_accepted(
    posterior: Posterior,
    culture: Mapping[str, Any],
    folder: str | os.PathLike[str],
    accept_warnings: bool,
) -> None:
    """Refuse draws that something speaks against and nobody accepted.

    Args:
        posterior: The posterior.
        culture: What it says of itself; `is_accepted` if a person did so when it was made.
        folder: Its folder, for the message.
        accept_warnings: Whether a person accepts it now.

    Raises:
        ConfigError: If there is something, with the first of it.
    """
    if accept_warnings or culture.get("is_accepted") or not posterior.problems:
        return
    raise ConfigError(
        f"the posterior in {folder} is not to be believed as it is: {posterior.problems[0]}. "
        "--accept-warnings (accept_warnings = true in [twin]) decides by it all the same."
    )


def _kinetics_of(model: HybridStateSpaceModel, folder: str | os.PathLike[str]) -> Any:
    if getattr(model.mech_model, "kinetics", None) is None:
        raise ConfigError(
            f"the model has no mechanism, and the posterior in {folder} is of constants of one; "
            "fit with the same --mechanism."
        )
    if model.embedding is not None:
        raise ConfigError(
            "the model knows several clones, each with constants of its own; fit one to the runs "
            "of one clone to use a posterior with it."
        )
    return model.mech_model.kinetics


def _base(
    kinetics: Any,
    names: Sequence[str],
    culture: Mapping[str, Any],
    folder: str | os.PathLike[str],
) -> tuple[Any, list[str], bool]:
    """The mechanism that draws are put into, what is told of it, and whether units are the same.

    It is the one that was calibrated, for the draws are right beside its numbers only.
    """
    told = culture.get("build")
    if told is None:  # of an earlier version: the names of the constants are all there is
        return kinetics, [], True
    build = build_from(told, folder)
    differs = differs_in_kind(build, build_of(kinetics))
    if differs:
        raise ConfigError(
            f"the posterior in {folder} is of another mechanism than the model's: "
            f"{'; '.join(differs[:_SHOWN])} (the posterior's first). Fit with the mechanism that "
            "was calibrated, or calibrate the model's."
        )
    units = differing_units(kinetics, build)
    lines = []
    if units:
        lines.append(
            f"{', '.join(units)}, in which constants of {build.kind} are counted, are those of the "
            "calibration"
        )
    held = [
        entry
        for entry, (field, k) in constant_places(kinetics).items()
        if entry not in names
        and np.ravel(build.numbers[field])[k] != np.ravel(getattr(kinetics, field))[k]
    ]
    if held:
        more = f" and {len(held) - _SHOWN} more" if held[_SHOWN:] else ""
        lines.append(
            f"{', '.join(held[:_SHOWN])}{more} were not calibrated and stay as they were then"
        )
    return as_built(kinetics, build), lines, not units


def build_from(told: Any, folder: str | os.PathLike[str]) -> Build:
    """The build of a mechanism as a posterior holds it.

    Args:
        told: What is stored.
        folder: Where, for the message.

    Raises:
        DataError: If it is none.
    """
    try:
        return read_build(told)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"the posterior in {folder} does not say what mechanism it is of ({error!r}); "
            "calibrate again."
        ) from None


def _far(kinetics: Any, names: Sequence[str], draws: Float[np.ndarray, "N P"]) -> list[str]:
    """Constants of the model that lie outside of the posterior."""
    own = {
        entry: float(np.ravel(getattr(kinetics, field))[k])
        for entry, (field, k) in constant_places(kinetics).items()
    }
    low, high = np.quantile(draws, _FAR, axis=0)
    found = [
        f"{name} {own[name]:.4g} (posterior {low[k]:.4g} to {high[k]:.4g})"
        for k, name in enumerate(names)
        if not low[k] <= own[name] <= high[k]
    ]
    if not found:
        return []
    more = f" and {len(found) - _SHOWN} more" if found[_SHOWN:] else ""
    return [
        f"the model learned around constants outside of the posterior's 95 %: "
        f"{', '.join(found[:_SHOWN])}{more}; what it learned beside them may count twice"
    ]
