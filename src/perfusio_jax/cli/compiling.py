"""How much trouble the compiler takes over what a command runs."""

from collections.abc import Sequence
from typing import Final

from perfusio_jax._core.compiler_flags import enable_quick_compile

LONG: Final = frozenset({"bench", "benchmark", "calibrate", "in-silico", "rl", "sensitivity"})
"""Commands that compute for much longer than they compile."""


def choose_pains(arguments: Sequence[str]) -> bool:
    """Have what a short command needs compiled quickly, if JAX has not begun to compute.

    Args:
        arguments: Of the command line, the command among them.

    Returns:
        Whether it was done.
    """
    command = next((a for a in arguments if not a.startswith("-")), "")
    return command not in LONG and enable_quick_compile()
