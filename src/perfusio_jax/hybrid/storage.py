"""Saving and loading a model: arrays and a readable header, no pickle.

The files are those of `_core.checkpoint`; this module knows what is needed to build an empty
model of the same shape. Loading refuses anything that does not fit.
"""

import dataclasses
import os
import warnings
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import ConfigError, DataError, unwrap
from perfusio_jax._core.checkpoint import VERDICT as VERDICT
from perfusio_jax._core.checkpoint import (
    check_sizes,
    digest,
    fill,
    named_arrays,
    read_checkpoint,
    write_checkpoint,
)
from perfusio_jax._core.text import in_line
from perfusio_jax.embedding import (
    CloneInfo,
    CloneRegistry,
    EmbeddedInputs,
    EntityEmbedding,
    fit_embedded,
)
from perfusio_jax.gp import DataWarning, MultiTaskRateGP, PerfusionKernel, with_form
from perfusio_jax.hybrid.calibration import N_CONSTANTS
from perfusio_jax.hybrid.culture_storage import culture_of, empty_latent, empty_vessel
from perfusio_jax.hybrid.family import CloneFamily
from perfusio_jax.hybrid.layout import CHO
from perfusio_jax.hybrid.model import HybridStateSpaceModel
from perfusio_jax.hybrid.observation import AssayNoise
from perfusio_jax.hybrid.transition import ResidualBasis
from perfusio_jax.mechanistic import CHOPerfusionModel

SCHEMA_VERSION = 4
KIND = "HybridStateSpaceModel"


def model_hash(model: Any) -> str:
    """SHA-256 over the names, types, shapes and bytes of all arrays of a model.

    Args:
        model: A model, or any tree of arrays; static fields of it do not count.

    Returns:
        64 hexadecimal digits; the same after saving and loading.
    """
    return digest(named_arrays(model))


def _shape_of(model: HybridStateSpaceModel) -> dict[str, Any]:
    gp = model.gp
    shape = None
    if gp is not None:
        shape = {
            "capacity": int(gp.data.inputs.shape[0]),
            "n_state_dims": gp.n_state_dims,
            "n_tasks": gp.n_tasks,
            "rank": gp.kernel.rank,
            "lengthscales": int(jnp.size(unwrap(gp.kernel.state.lengthscale))),
            "is_complete": gp.is_complete,
            "n_missing": gp.n_missing,
            "is_conditioned": gp.state is not None,
        }
    return {
        "gp": shape,
        "mechanistic": type(model.mech_model).__name__,
        "use_mechanism": model.use_mechanism,
        "clones": _clones_of(model),
        **culture_of(model),
    }


def _clones_of(model: HybridStateSpaceModel) -> dict[str, Any] | None:
    family = model.embedding
    if family is None:
        return None
    scaling = None if model.gp is None else model.gp.scaling
    return {
        "registry": [dataclasses.asdict(clone) for clone in family.registry],
        "is_calibrated": family.is_calibrated,
        "dim": scaling.embedding.embed_dim if isinstance(scaling, EmbeddedInputs) else 0,
        "has_diameters": family.diameters is not None,
    }


def save(model: HybridStateSpaceModel, folder: str | os.PathLike[str]) -> Path:
    """Write a model into a folder.

    Args:
        model: Hybrid model.
        folder: Folder, made if it does not exist; files of an earlier save are replaced, and
            its verdict is taken away.

    Returns:
        The folder.

    Raises:
        ConfigError: If the model has a part this layout does not know, so that it would not come
            back as it is: another kernel, a mean function, rows that share samples.
    """
    shape = _shape_of(model)
    _check_covered(model, shape)
    (Path(folder) / VERDICT).unlink(missing_ok=True)
    return write_checkpoint(
        folder,
        named_arrays(model),
        kind=KIND,
        schema_version=SCHEMA_VERSION,
        architecture={
            "species_names": list(model.species_names),
            "control_names": list(model.control_names),
            **shape,
        },
    )


def _check_covered(model: HybridStateSpaceModel, shape: dict[str, Any]) -> None:
    """Refuse to save what `load` would give back as something else."""
    built = _empty(shape, model.mech_model)
    if jax.tree.structure(built) == jax.tree.structure(model):
        return
    parts = {"": (model, built)}
    if model.gp is not None and built.gp is not None:
        names = ("kernel", "mean_module", "scaling", "data", "priors", "state")
        parts = {n: (getattr(model.gp, n), getattr(built.gp, n)) for n in names} | parts
    other = next(n for n, (a, b) in parts.items() if jax.tree.structure(a) != jax.tree.structure(b))
    what = (
        f"{other} {type(parts[other][0]).__name__} of the process" if other else "one of its parts"
    )
    raise ConfigError(
        f"the model cannot be saved: {what} is not covered by schema {SCHEMA_VERSION}. Allowed are "
        "what fit_hybrid makes: PerfusionKernel, no mean function, independent noise of the rows. "
        "Pickle the model to keep it on this version."
    )


def _empty(shape: dict[str, Any], mech: Any) -> HybridStateSpaceModel:
    clones, family, scaling = shape["clones"], None, None
    latent = empty_latent(mech, shape)
    layout = latent.layout
    if clones is not None:
        registry = CloneRegistry(CloneInfo(**clone) for clone in clones["registry"])
        constants = jnp.zeros((len(registry), N_CONSTANTS))
        factors = jnp.zeros((len(registry), N_CONSTANTS, N_CONSTANTS))
        family = CloneFamily(
            registry,
            mech,
            constants,
            constants[0],
            factors,
            constants[0],
            jnp.zeros((len(registry), layout.n)),
            is_calibrated=clones["is_calibrated"],
            # models of earlier versions have one diameter for all clones
            diameters=jnp.zeros((len(registry), 2)) if clones.get("has_diameters") else None,
        )
    gp = None
    if shape["gp"] is not None:
        g = shape["gp"]
        raw, tasks = g["n_state_dims"], g["n_tasks"]
        width = raw
        if clones is not None and clones["dim"]:
            width = raw - 1 + clones["dim"]
            table = EntityEmbedding(len(clones["registry"]), clones["dim"])
            scaling = fit_embedded(np.zeros((2, raw + 1)), table)
        kernel = PerfusionKernel(tasks, width, g["rank"], width if g["lengthscales"] > 1 else 1)
        targets = np.zeros((2, tasks))
        if not g["is_complete"]:
            targets[1, 0] = np.nan
        with warnings.catch_warnings():
            # zeros on purpose: only shapes matter here
            warnings.simplefilter("ignore", DataWarning)
            gp = MultiTaskRateGP(
                np.zeros((2, raw + 1)),
                targets,
                None,
                None,
                kernel,
                tasks,
                scaling=scaling,
                capacity=g["capacity"],
            )
        if not g["is_complete"]:
            gp = with_form(gp, is_complete=False, n_missing=g.get("n_missing", 0))
        if g["is_conditioned"]:
            gp = eqx.filter_eval_shape(lambda m: m.condition(), gp)
    nothing = jnp.zeros(layout.n)
    bare = HybridStateSpaceModel(
        mech,
        None,
        family,
        latent=latent,
        basis=ResidualBasis(nothing, nothing, nothing, nothing),
        assay=AssayNoise(nothing, nothing, via=layout.via),
        use_mechanism=True,
    )
    return _replace_static(bare, gp, bool(shape["use_mechanism"]))


def _replace_static(model: Any, gp: Any, use_mechanism: bool) -> HybridStateSpaceModel:
    filled = eqx.tree_at(lambda m: m.gp, model, gp, is_leaf=lambda node: node is None)
    return (
        eqx.tree_at(lambda m: m.use_mechanism, filled, use_mechanism)
        if (use_mechanism != model.use_mechanism)
        else filled
    )


def load(folder: str | os.PathLike[str], *, mech_model: Any = None) -> HybridStateSpaceModel:
    """Read a model back.

    Args:
        folder: Folder written by `save`.
        mech_model: Mechanistic model of the same class as the saved one; its numbers are
            replaced. `CHOPerfusionModel()` by default; needed where a described culture has a
            mechanism of one's own.

    Returns:
        The model, bit for bit.

    Raises:
        DataError: If a file is missing, truncated or changed, or the schema is another.
        ConfigError: If the mechanistic model is of another class.
    """
    shape, arrays = read_checkpoint(folder, kind=KIND, schema_version=SCHEMA_VERSION)
    try:
        culture = empty_vessel(shape, mech_model)
    except ConfigError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(
            f"{folder} describes a culture that cannot be read ({in_line(str(error))}). Restore "
            "the folder from a good copy."
        ) from None
    layout = CHO if culture is None else culture.layout
    named = (shape.get("species_names"), shape.get("control_names"))
    if named != (list(layout.face), list(layout.controls)):
        raise DataError(f"{folder} names another layout of species or controls.")
    mech = CHOPerfusionModel() if mech_model is None else mech_model
    mech = mech if culture is None else culture
    wanted = shape.get("mechanistic")
    if type(mech).__name__ != wanted:
        raise ConfigError(
            f"the model was saved with mechanistic class {wanted}, {type(mech).__name__} was "
            "given; hand in one of the same class as mech_model."
        )
    check_sizes(shape, folder)
    try:
        empty = _empty(shape, mech)
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise DataError(
            f"{folder} names an architecture nobody can build ({type(error).__name__}: "
            f"{in_line(str(error))}). Restore the folder from a good copy."
        ) from None
    return fill(empty, arrays, where=str(folder))
