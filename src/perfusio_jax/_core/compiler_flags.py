"""Settings of XLA for programs that run for less time than they compile."""

import importlib.util
import os
import sys
from collections.abc import Mapping
from typing import Final

from perfusio_jax._core.errors import ConfigError

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


def threads_for(n_devices: int) -> str:
    """For `NPROC`: how many threads XLA needs where cores count as devices of their own.

    Its pool has as many threads as there are cores or devices. Each device waits in one of them for
    a product of matrices that another is to compute: with no more than that all wait for ever.

    Args:
        n_devices: Devices made of the processor.
    """
    return str((os.cpu_count() or 1) + n_devices)


def check_threads(n_used: int, n_there: int) -> None:
    """Refuse devices made of the processor that would wait for each other for ever.

    Args:
        n_used: Devices of this process that share a job.
        n_there: Devices that this process has.

    Raises:
        ConfigError: If XLA's pool has no thread to spare beside one for each of them.
    """
    if n_used < 2:
        return
    told = os.environ.get("NPROC", "")
    # as XLA sizes its pool: NPROC where it is a number, else the cores this process may use
    n_threads = int(told) if told.isdigit() and int(told) > 0 else _n_cores()
    if max(n_threads, n_there) > n_used:
        return
    raise ConfigError(
        f"{n_used} devices made of this processor share {max(n_threads, n_there)} threads: where "
        "each of them waits for a product of matrices no thread is left to compute it, and they "
        f"wait for ever. Start Python with NPROC={threads_for(n_used)} in the environment."
    )


def _n_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def is_changeable() -> bool:
    """Whether JAX has not begun to compute yet, and has the processor alone to compute on.

    Where it has a package for another device, the same settings mean something else.
    """
    if importlib.util.find_spec("jax_plugins") or importlib.util.find_spec("libtpu"):
        return False
    if "jax" not in sys.modules:
        return True
    from jax._src import xla_bridge  # there is no public way to ask

    return not xla_bridge.backends_are_initialized()


def enable_quick_compile() -> bool:
    """Have XLA take less trouble, for this process and those it starts.

    A decision then compiles in two fifths of the time and computes a fifth slower: for what is
    over soon. The command line does so for its short commands. Settings that `XLA_FLAGS` names
    stay as they are; last digits of results depend on them. Call it before anything is computed,
    best right after `import perfusio_jax`.

    Returns:
        Whether it was done: not once JAX has begun to compute, nor where it has a package for
        another device than the processor.
    """
    if not is_changeable():
        return False
    os.environ["XLA_FLAGS"] = completed(os.environ.get("XLA_FLAGS", ""), QUICK)
    return True
