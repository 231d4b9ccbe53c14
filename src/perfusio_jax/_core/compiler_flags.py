"""Settings of XLA for programs that run for less time than they compile."""

from collections.abc import Mapping
from typing import Final

QUICK: Final[Mapping[str, str]] = {
    "xla_backend_optimization_level": "1",
    "xla_llvm_disable_expensive_passes": "true",
    "xla_cpu_use_fusion_emitters": "false",
}
"""A decision compiles in two fifths of the time; it then runs a fifth slower."""

POLISHED: Final[Mapping[str, str]] = {
    "xla_backend_optimization_level": "3",
    "xla_llvm_disable_expensive_passes": "false",
    "xla_cpu_use_fusion_emitters": "true",
}
"""The same as XLA has them by itself."""


def completed(flags: str, settings: Mapping[str, str]) -> str:
    """Flags as `XLA_FLAGS` holds them, with settings that they do not name.

    Args:
        flags: What is there; it stays as it is.
        settings: By name, without dashes.
    """
    given = flags.split()
    named = {flag.removeprefix("--").partition("=")[0] for flag in given}
    more = [f"--{name}={value}" for name, value in settings.items() if name not in named]
    return " ".join([*given, *more])
