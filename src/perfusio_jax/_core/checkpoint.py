"""Checkpoints without pickle: a folder with arrays and a readable header.

`arrays.npz` holds arrays by name. `header.json` holds the schema version, the kind of object,
what is needed to build an empty one, and two SHA-256 sums: over the names, types, shapes and
bytes of the arrays, and over the header itself. Reading refuses whatever does not fit.
"""

import hashlib
import json
import math
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core.errors import DataError
from perfusio_jax._core.limits import (
    ELEMENTS,
    SETTINGS_BYTES,
    check_regular,
    in_mb,
    parse_json,
    read_file,
)
from perfusio_jax._core.text import in_line

HEADER, ARRAYS, PART = "header.json", "arrays.npz", ".part"
VERDICT = "verdict.json"
"""File beside a model that says what it is fit for (`hybrid.verdict`)."""

Tree = TypeVar("Tree")


def named_arrays(tree: Any) -> dict[str, np.ndarray]:
    """Arrays of a tree by the name of their place."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(eqx.filter(tree, eqx.is_array))
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over names, types, shapes and bytes, whatever the order."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        leaf = np.ascontiguousarray(arrays[name])
        total.update(f"{name}|{leaf.dtype.str}|{leaf.shape}|".encode())
        total.update(leaf.tobytes())
    return total.hexdigest()


def _header_digest(header: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in header.items() if name != "header_sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def write_checkpoint(
    folder: str | os.PathLike[str],
    arrays: Mapping[str, np.ndarray],
    *,
    kind: str,
    schema_version: int,
    architecture: Mapping[str, Any],
) -> Path:
    """Write a checkpoint; files of an earlier one are replaced.

    Args:
        folder: Made if it does not exist.
        arrays: Arrays by name.
        kind: What is saved.
        schema_version: Version of the layout.
        architecture: What is needed to build an empty object, JSON values only.

    Returns:
        The folder.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    header: dict[str, Any] = {
        "schema_version": schema_version,
        "kind": kind,
        "architecture": dict(architecture),
        "arrays": {n: [a.dtype.str, list(a.shape)] for n, a in sorted(arrays.items())},
        "sha256": digest(arrays),
    }
    header["header_sha256"] = _header_digest(header)
    # both are whole on disk before either takes its place; cut between the two moves, the new
    # arrays are read with the new header, which still has its other name
    with open(target / (ARRAYS + PART), "wb") as handle:
        np.savez(handle, **dict(arrays))  # pyright: ignore[reportArgumentType]
    text = json.dumps(header, indent=1, sort_keys=True)
    (target / (HEADER + PART)).write_text(text, encoding="utf-8")
    os.replace(target / (ARRAYS + PART), target / ARRAYS)
    os.replace(target / (HEADER + PART), target / HEADER)
    return target


def holds_checkpoint(folder: str | os.PathLike[str]) -> bool:
    """Whether a save was ever completed here; what a first one left when it was cut is nothing."""
    return any((Path(folder) / name).exists() for name in (HEADER, ARRAYS))


def read_checkpoint(
    folder: str | os.PathLike[str], *, kind: str, schema_version: int
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read a checkpoint and verify both sums.

    Args:
        folder: Folder written by `write_checkpoint`.
        kind: What is expected.
        schema_version: Version of the layout that is understood.

    Returns:
        The architecture and the arrays.

    Raises:
        DataError: If a file is missing, truncated or changed, or kind or schema is another.
    """
    source = Path(folder)
    header = _checked_header(source, HEADER, kind, schema_version)
    arrays = _read_arrays(source)
    total = digest(arrays)
    if total != header.get("sha256") and (source / (HEADER + PART)).exists():
        # a save cut after its arrays had moved: its header still has its other name
        header = _checked_header(source, HEADER + PART, kind, schema_version)
    if total != header.get("sha256"):
        raise DataError(
            f"the arrays in {source} do not match the hash in {HEADER}: a file was changed or "
            "belongs to another save. Restore the folder from a good copy."
        )
    return header["architecture"], arrays


def fill(skeleton: Tree, arrays: Mapping[str, np.ndarray], *, where: str) -> Tree:
    """Put arrays into an object of the same architecture.

    Args:
        skeleton: Object with arrays, or their shapes alone; numbers are replaced.
        arrays: Arrays by name.
        where: Where they come from, for messages.

    Returns:
        The object.

    Raises:
        DataError: If names, shapes or types differ.
    """
    leaves, tree = jax.tree_util.tree_flatten_with_path(skeleton)
    wanted = {jax.tree_util.keystr(p): leaf for p, leaf in leaves if _is_place(leaf)}
    missing, extra = sorted(set(wanted) - set(arrays)), sorted(set(arrays) - set(wanted))
    if missing or extra:
        raise DataError(
            f"the object in {where} has another architecture: missing {missing[:3]}, unknown "
            f"{extra[:3]}. It was written by another version; fit it again."
        )
    for name, leaf in wanted.items():
        stored = arrays[name]
        if stored.shape != leaf.shape or stored.dtype.kind != leaf.dtype.kind:
            raise DataError(
                f"array {name} in {where} is {stored.dtype} {stored.shape}; {leaf.dtype} "
                f"{leaf.shape} is needed: another architecture."
            )
    filled = [
        jnp.asarray(arrays[jax.tree_util.keystr(path)]) if _is_place(leaf) else leaf
        for path, leaf in leaves
    ]
    return jax.tree_util.tree_unflatten(tree, filled)


def _is_place(leaf: Any) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)


def _checked_header(source: Path, name: str, kind: str, schema_version: int) -> dict[str, Any]:
    """A header of the kind and layout that are expected, as it was written."""
    header = _read_header(source, name)
    given = header.get("schema_version")
    if given != schema_version:
        raise DataError(
            f"{source / name} has schema version {given}; this version reads {schema_version}."
        )
    if header.get("kind") != kind:
        raise DataError(f"{source} holds a {header.get('kind')}, not a {kind}.")
    if header.get("header_sha256") != _header_digest(header):
        raise DataError(
            f"{source / name} does not match its own hash: it was changed after the save. "
            "Restore the folder from a good copy."
        )
    return header


def check_sizes(architecture: Any, where: str | os.PathLike[str]) -> None:
    """Refuse an architecture no model has, before room is made for an empty one.

    Args:
        architecture: As the header holds it.
        where: The header, for the message.

    Raises:
        DataError: If a size is negative, or the product of the two largest is beyond
            `limits.ELEMENTS`.
    """
    sizes, parts = [1, 1], [architecture]
    while parts:
        part = parts.pop()
        if isinstance(part, Mapping):
            parts += part.values()
        elif isinstance(part, list):
            parts += part
        elif isinstance(part, int) and not isinstance(part, bool):
            sizes.append(part)
    sizes.sort()
    if sizes[0] < 0 or sizes[-1] * sizes[-2] > ELEMENTS:
        raise DataError(
            f"{where} declares sizes of {in_line(sizes[-1])} and {in_line(sizes[-2])}; no model "
            f"has more than {ELEMENTS:,} numbers. Restore the folder from a good copy."
        )


def _open_at_once(path: str, flags: int) -> int:
    """Open a file; a pipe nobody writes to would be waited for."""
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    try:
        check_regular(os.fstat(descriptor), path)
    except DataError:
        os.close(descriptor)
        raise
    return descriptor


def _check_archive(handle: Any, where: Path) -> None:
    """Hold what the parts of an archive of arrays declare against the limit and each other."""
    total = 0
    with zipfile.ZipFile(handle) as archive:
        for part in archive.infolist():
            total += part.file_size
            if total > 8 * ELEMENTS:
                raise DataError(
                    f"{where} unpacks to more than {in_mb(8 * ELEMENTS)}, the most a model has."
                )
            with archive.open(part) as array:
                shape, dtype = _declared(array)
                declared = math.prod(shape) * dtype.itemsize
                if dtype.hasobject or declared + array.tell() != part.file_size:
                    raise DataError(
                        f"{where} cannot be read: its array {in_line(part.filename)} declares "
                        f"{in_line(declared)} bytes and holds {part.file_size - array.tell()}. "
                        "Restore the folder from a good copy."
                    )
    handle.seek(0)


def _declared(array: Any) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type an array of NumPy's format says it has."""
    kinds = np.lib.format
    read = (
        kinds.read_array_header_1_0
        if kinds.read_magic(array) == (1, 0)
        else kinds.read_array_header_2_0
    )
    try:
        shape, _, dtype = read(array)
    except Exception as error:  # it is read as Python text, which fails in many ways
        raise ValueError(f"no header of an array: {in_line(str(error))}") from None
    return shape, dtype


def _read_header(source: Path, name: str) -> dict[str, Any]:
    if name == HEADER and not (source / name).exists() and (source / (name + PART)).exists():
        name += PART  # the first save, cut before its header had moved
    try:
        raw = read_file(source / name, most=SETTINGS_BYTES)
        header = parse_json(raw.decode("utf-8"), str(source / name))
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{source} holds no {HEADER}: not a checkpoint.") from None
    except IsADirectoryError:
        raise DataError(f"{source / name} is a folder: not a checkpoint.") from None
    except (DataError, UnicodeDecodeError) as error:
        why = "" if isinstance(error, DataError) else f"{source / name} is not JSON: "
        raise DataError(
            f"{why}{error}. Restore the folder from a good copy, or take it away to begin afresh."
        ) from None
    if not isinstance(header, dict):
        raise DataError(f"{source / name} holds no table of values: not a checkpoint.")
    return header


def _read_arrays(source: Path) -> dict[str, np.ndarray]:
    # the file is opened here: NumPy leaves it open when the archive is damaged
    try:
        with (
            open(source / ARRAYS, "rb", opener=_open_at_once) as handle,
            np.load(handle, allow_pickle=False) as stored,
        ):
            _check_archive(handle, source / ARRAYS)
            return {name: stored[name] for name in stored.files}
    except FileNotFoundError:
        raise DataError(
            f"{source} holds no {ARRAYS}: the save is not complete. Restore the folder from a good "
            "copy, or take it away to begin afresh."
        ) from None
    # a damaged archive fails in many ways, an unsupported compression among them
    except (
        OSError,
        OverflowError,
        MemoryError,
        ValueError,
        KeyError,
        EOFError,
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        # NumPy takes what is no archive for a pickle and says how to load it unsafely
        if isinstance(error, DataError):
            raise
        why = "it is no archive of arrays" if isinstance(error, ValueError) else str(error)
        raise DataError(
            f"{source / ARRAYS} cannot be read: {why.rstrip('.')}. Restore the folder from a good "
            "copy, or take it away to begin afresh."
        ) from error
