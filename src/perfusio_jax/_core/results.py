"""Result codes per lane: numbers inside jitted code, sentences outside it."""

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import Final

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from perfusio_jax._core.errors import ConfigError


class Result(IntEnum):
    """How one lane of a batched computation ended; zero is success."""

    SUCCESS = 0
    MAX_STEPS = 1
    NONFINITE = 2
    STEP_TOO_SMALL = 3
    BAD_INPUT = 4
    NOT_CONVERGED = 5


MESSAGES: Final[Mapping[Result, str]] = MappingProxyType(
    {
        Result.SUCCESS: "finished within tolerance.",
        Result.MAX_STEPS: (
            "the step budget ran out before the end of the interval. Raise `max_steps`, loosen "
            "`rtol`/`atol`, or check whether a rate constant is orders of magnitude too large."
        ),
        Result.NONFINITE: (
            "a state or rate became NaN or infinite. Check the initial state and the controls "
            "for missing values, and the parameters for overflow."
        ),
        Result.STEP_TOO_SMALL: (
            "the step size fell below the resolution of time: the problem is too stiff for this "
            "solver at this tolerance. Choose the implicit fallback or loosen `atol`."
        ),
        Result.BAD_INPUT: (
            "the inputs of this lane are outside what the model accepts (negative volume, "
            "non-finite control, bleed above perfusion). Correct the row and run it again."
        ),
        Result.NOT_CONVERGED: (
            "the iteration stopped before meeting its tolerance. Allow more iterations, start "
            "from another point, or accept the value knowing that it is not a minimum."
        ),
    }
)
"""Cause and remedy of every code."""


def describe(code: int | Int[Array, ""]) -> str:
    """Say in one sentence what a result code means and what to do about it.

    Args:
        code: One concrete result code; a traced one has no value to describe.

    Returns:
        Name, cause and remedy.

    Raises:
        ConfigError: If the number is not a result code.

    Example:
        >>> describe(0)
        'SUCCESS: finished within tolerance.'
    """
    try:
        result = Result(int(code))
    except ValueError:
        allowed = ", ".join(f"{r.value}={r.name}" for r in Result)
        raise ConfigError(f"unknown result code {int(code)}; the codes are {allowed}.") from None
    return f"{result.name}: {MESSAGES[result]}"


def is_success(codes: Int[Array, "*lanes"]) -> Array:
    """Mask of the lanes whose numbers may be used.

    Args:
        codes: Result code of each lane.

    Returns:
        Boolean array of the same shape.
    """
    return jnp.asarray(codes) == Result.SUCCESS.value


def fraction_failed(codes: Int[Array, "*lanes"]) -> Float[Array, ""]:
    """Share of lanes lost, to be reported beside every batched result.

    Args:
        codes: Result code of each lane.

    Returns:
        Fraction between 0 and 1 [-]; 0 for an empty batch.
    """
    codes = jnp.asarray(codes)
    if codes.size == 0:
        return jnp.zeros((), float)
    return jnp.mean(jnp.asarray(~is_success(codes), float))


def worst(codes: Int[Array, "*lanes"]) -> Int[Array, ""]:
    """The largest code of a batch: 0 exactly when every lane succeeded.

    Args:
        codes: Result code of each lane.

    Returns:
        One code; 0 for an empty batch.
    """
    codes = jnp.asarray(codes, int)
    return jnp.max(codes, initial=Result.SUCCESS.value)


def summarise(codes: Int[Array, "*lanes"]) -> str:
    """Count the failures of a batch by cause, for a report or an error message.

    Args:
        codes: Concrete result codes.

    Returns:
        One line per cause that occurred; a single sentence when nothing failed.
    """
    flat = [int(code) for code in jnp.ravel(jnp.asarray(codes))]
    lines = [
        f"{flat.count(code)} of {len(flat)} lanes: {describe(code)}"
        for code in sorted(set(flat))
        if code
    ]
    return "\n".join(lines) if lines else f"all {len(flat)} lanes finished."
