"""Saving and loading a model: arrays and a readable header, no pickle.

`arrays.npz` holds every array under the name of its place in the model; `header.json` holds
the schema version, what is needed to build an empty model of the same shape, and a SHA-256
over names, types, shapes and bytes. Loading refuses anything that does not fit.
"""

import dataclasses
import hashlib
import json
import os
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import CONTROL_NAMES, STATE_ORDER, ConfigError, DataError, unwrap
from perfusio_jax.embedding import (
    CloneInfo,
    CloneRegistry,
    EmbeddedInputs,
    EntityEmbedding,
    fit_embedded,
)
from perfusio_jax.gp import DataWarning, MultiTaskRateGP, PerfusionKernel
from perfusio_jax.hybrid.calibrate import N_CONSTANTS
from perfusio_jax.hybrid.family import CloneFamily
from perfusio_jax.hybrid.model import HybridStateSpaceModel
from perfusio_jax.mechanistic import CHOPerfusionModel

SCHEMA_VERSION = 2
_HEADER, _ARRAYS = "header.json", "arrays.npz"


def _named(model: Any) -> dict[str, Any]:
    arrays = eqx.filter(model, eqx.is_array)
    leaves, _ = jax.tree_util.tree_flatten_with_path(arrays)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def model_hash(model: Any) -> str:
    """SHA-256 over the names, types, shapes and bytes of all arrays of a model."""
    return _digest({name: np.asarray(leaf) for name, leaf in _named(model).items()})


def _digest(arrays: dict[str, np.ndarray]) -> str:
    total = hashlib.sha256()
    for name in sorted(arrays):
        leaf = np.ascontiguousarray(arrays[name])
        total.update(f"{name}|{leaf.dtype.str}|{leaf.shape}|".encode())
        total.update(leaf.tobytes())
    return total.hexdigest()


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
            "is_conditioned": gp.state is not None,
        }
    return {
        "gp": shape,
        "mechanistic": type(model.mech_model).__name__,
        "use_mechanism": model.use_mechanism,
        "clones": _clones_of(model),
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
    }


def save(model: HybridStateSpaceModel, folder: str | os.PathLike[str]) -> Path:
    """Write a model into a folder.

    Args:
        model: Hybrid model.
        folder: Folder, made if it does not exist; files of an earlier save are replaced.

    Returns:
        The folder.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    arrays = {name: np.asarray(leaf) for name, leaf in _named(model).items()}
    header = {
        "schema_version": SCHEMA_VERSION,
        "kind": "HybridStateSpaceModel",
        "species_names": list(model.species_names),
        "control_names": list(model.control_names),
        "shape": _shape_of(model),
        "arrays": {n: [a.dtype.str, list(a.shape)] for n, a in sorted(arrays.items())},
        "sha256": _digest(arrays),
    }
    # arrays first, header last: a torn save has no header and is refused
    (target / _HEADER).unlink(missing_ok=True)
    with open(target / (_ARRAYS + ".part"), "wb") as handle:
        np.savez(handle, **arrays)  # pyright: ignore[reportArgumentType]
    os.replace(target / (_ARRAYS + ".part"), target / _ARRAYS)
    text = json.dumps(header, indent=1, sort_keys=True)
    (target / (_HEADER + ".part")).write_text(text, encoding="utf-8")
    os.replace(target / (_HEADER + ".part"), target / _HEADER)
    return target


def _empty(shape: dict[str, Any], mech: Any) -> HybridStateSpaceModel:
    clones, family, scaling = shape["clones"], None, None
    if clones is not None:
        registry = CloneRegistry(CloneInfo(**clone) for clone in clones["registry"])
        constants = jnp.zeros((len(registry), N_CONSTANTS))
        family = CloneFamily(
            registry, mech, constants, constants[0], is_calibrated=clones["is_calibrated"]
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
        if g["is_conditioned"]:
            gp = eqx.filter_eval_shape(lambda m: m.condition(), gp)
    bare = HybridStateSpaceModel(mech, None, family, use_mechanism=True)
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
            replaced. `CHOPerfusionModel()` by default.

    Returns:
        The model, bit for bit.

    Raises:
        DataError: If a file is missing, truncated or changed, or the schema is another.
        ConfigError: If the mechanistic model is of another class.
    """
    source = Path(folder)
    header = _read_header(source)
    arrays = _read_arrays(source)
    if _digest(arrays) != header.get("sha256"):
        raise DataError(
            f"the arrays in {source} do not match the hash in {_HEADER}: a file was changed or "
            "belongs to another save. Restore the folder from a good copy."
        )
    mech = CHOPerfusionModel() if mech_model is None else mech_model
    wanted = header["shape"]["mechanistic"]
    if type(mech).__name__ != wanted:
        raise ConfigError(
            f"the model was saved with mechanistic class {wanted}, {type(mech).__name__} was "
            "given; hand in one of the same class as mech_model."
        )
    skeleton = _empty(header["shape"], mech)
    names = _named_structs(skeleton)
    missing, extra = sorted(set(names) - set(arrays)), sorted(set(arrays) - set(names))
    if missing or extra:
        raise DataError(
            f"the model in {source} has another architecture: missing {missing[:3]}, unknown "
            f"{extra[:3]}. It was written by another version; fit it again."
        )
    for name, leaf in names.items():
        if tuple(arrays[name].shape) != tuple(leaf.shape):
            raise DataError(
                f"array {name} in {source} has shape {arrays[name].shape}, {leaf.shape} is needed."
            )
    is_leaf = _is_struct
    leaves, tree = jax.tree_util.tree_flatten_with_path(skeleton, is_leaf=is_leaf)
    filled = [
        jnp.asarray(arrays[jax.tree_util.keystr(path)]) if _is_struct(leaf) else leaf
        for path, leaf in leaves
    ]
    return jax.tree_util.tree_unflatten(tree, filled)


def _is_struct(leaf: Any) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)


def _named_structs(model: Any) -> dict[str, Any]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(model, is_leaf=_is_struct)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves if _is_struct(leaf)}


def _read_header(source: Path) -> dict[str, Any]:
    try:
        header = json.loads((source / _HEADER).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{source} holds no {_HEADER}: not a saved model.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{source / _HEADER} is not readable JSON: {error}.") from None
    if not isinstance(header, dict) or header.get("schema_version") != SCHEMA_VERSION:
        given = header.get("schema_version") if isinstance(header, dict) else None
        raise DataError(
            f"{source / _HEADER} has schema version {given}; this version reads {SCHEMA_VERSION}."
        )
    layout = (list(STATE_ORDER), list(CONTROL_NAMES))
    if (header.get("species_names"), header.get("control_names")) != layout:
        raise DataError(f"{source / _HEADER} names another layout of species or controls.")
    return header


def _read_arrays(source: Path) -> dict[str, np.ndarray]:
    # the file is opened here: NumPy leaves it open when the archive is damaged
    try:
        with (
            open(source / _ARRAYS, "rb") as handle,
            np.load(handle, allow_pickle=False) as stored,
        ):
            return {name: stored[name] for name in stored.files}
    except FileNotFoundError:
        raise DataError(f"{source} holds no {_ARRAYS}: the save is not complete.") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{source / _ARRAYS} cannot be read: {error}.") from error
