"""The command that says what an installation has."""

import importlib.metadata
import os
import platform
import sys
from pathlib import Path

import typer

from . import common, groups
from .screen import say

commands = typer.Typer(rich_markup_mode=None)


@commands.command(rich_help_panel=groups.START)
def doctor() -> None:
    """Say what this installation has: versions, devices, precision, cache, write access."""
    refused = common.set_up_jax()
    import jax

    from perfusio_jax import __version__
    from perfusio_jax._core import default_compile_cache

    lines: list[tuple[str, str, bool]] = [
        ("perfusio-jax", __version__, True),
        ("Python", platform.python_version(), sys.version_info >= (3, 11)),
    ]
    for package, needs in (("jax", "0.10"), ("jaxlib", "0.10"), ("gpjax", "1.0"), ("diffrax", "")):
        found = importlib.metadata.version(package)
        lines.append((package, found, found.startswith(needs)))
    devices = ", ".join(str(d) for d in jax.devices())
    lines.append(("devices", devices, True))
    lines.append(("64-bit floats", str(bool(jax.numpy.zeros(1).dtype == "float64")), True))
    lines.append(("cores", str(os.cpu_count()), True))
    cache = default_compile_cache()
    for name, folder in (("compilation cache", cache), ("working folder", Path.cwd())):
        is_cache = name.startswith("comp")
        writable = os.access(folder, os.W_OK) if folder.exists() else False
        size = sum(p.stat().st_size for p in folder.glob("*")) if is_cache else 0
        note = f"{folder}" + (f" ({size / 1e6:.0f} MB)" if size else "")
        trouble = "" if writable else " is not writable"
        if is_cache and refused:
            trouble = " is not used, see the note above"
        lines.append((name, note + trouble, not trouble))
    lines.append(("BLAS threads", os.environ.get("OPENBLAS_NUM_THREADS", "not limited"), True))
    for name, value, good in lines:
        say(f"{'ok ' if good else 'BAD'} {name:18s} {value}")
    if not all(good for _, _, good in lines):
        raise typer.Exit(2)
