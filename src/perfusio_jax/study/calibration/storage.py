"""A posterior as a folder: arrays, and a header that says what they are and what is wrong."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from perfusio_jax._core import DataError
from perfusio_jax._core.checkpoint import read_checkpoint, write_checkpoint
from perfusio_jax.study.calibration.chains import Agreement
from perfusio_jax.study.calibration.checks import Check
from perfusio_jax.study.calibration.posterior import Diagnostics, Posterior

KIND = "posterior of constants"
SCHEMA_VERSION = 1
_PLAIN = ("prior", "draws", "by_clone", "noise", "starts")
_TEXTS = ("names", "units", "clones", "columns", "column_units", "run_ids", "problems", "notes")
_CHAIN = ("n_divergent", "n_deep", "depth", "accepted", "n_gradients")
_AGREEMENT = ("constants", "beside")
_CHECKS = ("check", "before")


def save_posterior(
    posterior: Posterior, folder: str | os.PathLike[str], *, culture: dict[str, Any] | None = None
) -> Path:
    """Write a posterior.

    Args:
        posterior: What was found.
        folder: Made if it does not exist; an earlier posterior there is replaced.
        culture: What the constants belong to: process and mechanism, JSON values only.

    Returns:
        The folder.
    """
    arrays = {name: np.asarray(getattr(posterior, name), float) for name in _PLAIN}
    header: dict[str, Any] = {name: list(getattr(posterior, name)) for name in _TEXTS}
    header |= {"method": posterior.method, "culture": dict(culture or {})}
    for name in _CHECKS:
        check: Check = getattr(posterior, name)
        arrays |= {
            f"{name}.quantiles": check.quantiles,
            f"{name}.place": check.place,
            f"{name}.inside": np.stack([check.inside[level] for level in sorted(check.inside)]),
            f"{name}.n_read": np.asarray(check.n_read, float),
        }
        header[name] = {"n_lost": check.n_lost, "n_draws": check.n_draws}
    said = posterior.diagnostics
    header["diagnostics"] = None
    if said is not None:
        header["diagnostics"] = {name: getattr(said, name) for name in _CHAIN}
        arrays |= {"e_bfmi": said.e_bfmi, "step_size": said.step_size}
        for name in _AGREEMENT:
            arrays[f"agreement.{name}"] = np.stack(getattr(said, name))
    return write_checkpoint(
        folder,
        {name: np.asarray(value, float) for name, value in arrays.items()},
        kind=KIND,
        schema_version=SCHEMA_VERSION,
        architecture=header,
    )


def load_posterior(folder: str | os.PathLike[str]) -> tuple[Posterior, dict[str, Any]]:
    """Read a posterior and verify it.

    Args:
        folder: Folder written by `save_posterior`.

    Returns:
        The posterior, and what its constants belong to.

    Raises:
        DataError: If it is no posterior, damaged, or of another version.
    """
    header, arrays = read_checkpoint(folder, kind=KIND, schema_version=SCHEMA_VERSION)
    try:
        parts: dict[str, Any] = {name: _check(name, header, arrays) for name in _CHECKS}
        parts |= {name: arrays[name] for name in _PLAIN}
        parts |= {name: tuple(header[name]) for name in _TEXTS}
        told = header["diagnostics"]
        said = None
        if told is not None:
            both = {name: Agreement(*arrays[f"agreement.{name}"]) for name in _AGREEMENT}
            said = Diagnostics(
                **both, e_bfmi=arrays["e_bfmi"], step_size=arrays["step_size"], **told
            )
        posterior = Posterior(**parts, method=header["method"], diagnostics=said)
        return posterior, header["culture"]
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{folder} is a posterior without {error}: it was written by another version; "
            "calibrate again."
        ) from None


def _check(name: str, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> Check:
    low, high = arrays[f"{name}.inside"]
    return Check(
        columns=tuple(header["columns"]),
        quantiles=arrays[f"{name}.quantiles"],
        place=arrays[f"{name}.place"],
        inside={0.8: low, 0.95: high},
        n_read=arrays[f"{name}.n_read"],
        n_lost=int(header[name]["n_lost"]),
        n_draws=int(header[name]["n_draws"]),
    )
