"""Double precision: switched on by the user, demanded where it matters, never flipped silently."""

import jax

from perfusio_jax._core.errors import PrecisionError


def enable_x64() -> None:
    """Make JAX compute in 64-bit floats for the rest of the process.

    Call it before any array is made; arrays that already exist keep their 32 bits.
    """
    jax.config.update("jax_enable_x64", True)


def is_x64_enabled() -> bool:
    """Whether JAX makes 64-bit arrays now."""
    return bool(jax.config.read("jax_enable_x64"))


def require_x64(what: str) -> None:
    """Refuse to go on in 32-bit mode.

    Args:
        what: The computation that needs double precision, as the user knows it.

    Raises:
        PrecisionError: If 64-bit mode is off; the message says how to switch it on.
    """
    if not is_x64_enabled():
        raise PrecisionError(
            f"{what} needs 64-bit floats, and JAX is in 32-bit mode. Call "
            "perfusio_jax.enable_x64() once before making any array, or set the environment "
            "variable JAX_ENABLE_X64=1 before Python starts."
        )
