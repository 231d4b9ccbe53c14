"""Pages of the public names: one per room, each name from where it is defined."""

import ast
import importlib
import inspect
from pathlib import Path
from types import ModuleType

import perfusio_jax

ROOMS = (
    *("config", "states", "chemistry", "process", "mechanistic", "simulator"),
    *("gp", "embedding", "hybrid", "bed", "rl", "study", "exchange"),
    *("twin", "connectors", "metrics", "viz"),
)
"""In the order of the book: from what a culture is to what is done with it."""


def faces() -> dict[str, ModuleType]:
    """Modules whose names are public, by the name of their page."""
    return {room: importlib.import_module(f"perfusio_jax.{room}") for room in ROOMS}


def sources_of(face: ModuleType) -> dict[str, str]:
    """Dotted path of the definition of each name of a face, as the face itself imports it.

    Args:
        face: A package whose `__init__` (its stub, where it is loaded on first use) imports from
            files of its own.
    """
    file = Path(face.__file__ or "")
    if file.name != "__init__.py":
        names = getattr(face, "__all__", None) or [n for n in vars(face) if not n.startswith("_")]
        own = [n for n in names if getattr(getattr(face, n), "__module__", "") == face.__name__]
        return {name: f"{face.__name__}.{name}" for name in own}
    stub = file.with_suffix(".pyi")
    tree = ast.parse((stub if stub.exists() else file).read_text(encoding="utf-8"))
    found = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            place = face.__name__ if node.level == 1 else face.__name__.rpartition(".")[0]
            place = f"{place}.{node.module}" if node.level else node.module
            found |= {a.asname or a.name: f"{place}.{a.name}" for a in node.names}
    return {name: path for name, path in found.items() if not name.startswith("_")}


def page_of(room: str, face: ModuleType, directive: str = ":::") -> str:
    """Page of a room: its own words, then its names.

    Args:
        room: Its name.
        face: Its module.
        directive: What asks for the docstring of the name behind it; a list of names if empty.
    """
    words = inspect.getdoc(face) or ""
    parts = [f"# perfusio_jax.{room}", words]
    for _, path in sorted(sources_of(face).items(), key=lambda pair: pair[0].lower()):
        if not isinstance(_resolved(path), ModuleType):
            parts.append(f"{directive} {path}" if directive else f"- `{path}`")
    return "\n\n".join(parts) + "\n"


def index() -> str:
    """The page that lists the rooms."""
    rows = []
    for room, face in faces().items():
        first = (inspect.getdoc(face) or "").split("\n\n", 1)[0].replace("\n", " ")
        rows.append(f"| [`perfusio_jax.{room}`]({room}.md) | {first} |")
    table = "\n".join(["| room | what it is |", "| --- | --- |", *rows])
    return (
        f"# Public names\n\nVersion {perfusio_jax.__version__}. Each name comes from its room: "
        "`from perfusio_jax.hybrid import fit_hybrid`. "
        "[Names of the reference API](../parity.md) lists those that have to exist.\n\n"
        f"{table}\n"
    )


def _resolved(path: str) -> object:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)
