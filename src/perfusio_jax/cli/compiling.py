"""How much trouble the compiler takes over what a command runs."""

import importlib.util
import os
import sys
from collections.abc import MutableMapping, Sequence
from typing import Final

from perfusio_jax._core.compiler_flags import QUICK, completed

LONG: Final = frozenset({"bench", "benchmark", "calibrate", "in-silico", "rl", "sensitivity"})
"""Commands that compute for much longer than they compile."""


def choose_pains(arguments: Sequence[str], environ: MutableMapping[str, str] = os.environ) -> bool:
    """Have what a short command needs compiled quickly; before JAX is imported, or not at all.

    The choice holds for this process and for those it starts. What `XLA_FLAGS` names stays as it
    is. Where JAX has a package for another device than the processor, nothing is changed: there
    the same settings mean something else.

    Args:
        arguments: Of the command line, the command among them.
        environ: The process's environment, in which `XLA_FLAGS` is set.

    Returns:
        Whether anything was set.
    """
    command = next((a for a in arguments if not a.startswith("-")), "")
    if command in LONG or "jax" in sys.modules:
        return False
    if importlib.util.find_spec("jax_plugins") or importlib.util.find_spec("libtpu"):
        return False
    before = environ.get("XLA_FLAGS", "")
    environ["XLA_FLAGS"] = completed(before, QUICK)
    return environ["XLA_FLAGS"] != before
