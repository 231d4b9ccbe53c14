"""The state a decision starts from: a reading or a belief as samples of the latent state."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import STATE_ORDER, Array, DataError, Float
from perfusio_jax._core.programs import compiled
from perfusio_jax.chemistry import from_balanced, to_balanced

# each of their operations would be a program of its own
_measured, _balanced = compiled(from_balanced), compiled(to_balanced)


def latent(c_current: Any) -> tuple[Array, np.ndarray, str]:
    """Latent state (samples or one), the measured face for the record, and a remark.

    Args:
        c_current: Measured state `(9,)` in `STATE_ORDER`, or a belief with `particles (N, 9)` in
            `BALANCED` order.

    Returns:
        Samples `(N, 9)` or one state `(9,)` in `BALANCED` order; the measured state; what was
        left out, in a sentence, or nothing.

    Raises:
        DataError: If the state has the wrong shape or a gap.
    """
    if hasattr(c_current, "particles"):
        particles = np.asarray(c_current.particles, float)
        if particles.ndim != 2 or particles.shape[0] == 0:
            raise DataError(
                f"the belief holds particles of shape {particles.shape}; they must be (N, 9), at "
                "least one."
            )
        is_whole = np.isfinite(particles).all(axis=1)
        n, lost, remark = len(particles), int((~is_whole).sum()), ""
        if 0 < lost < n:
            particles = particles[is_whole]
            remark = f"{lost} of {n} particles of the belief were not finite and were left out."
        face = _measured(particles.mean(axis=0))
        return jnp.asarray(particles), np.asarray(face), remark
    face = jnp.asarray(c_current, float)
    if face.shape != (len(STATE_ORDER),):
        raise DataError(
            f"c_current has shape {face.shape}; give the measured state ({len(STATE_ORDER)},) in "
            f"the order {', '.join(STATE_ORDER)}, or a belief with particles."
        )
    missing = [n for n, v in zip(STATE_ORDER, np.asarray(face), strict=True) if np.isnan(v)]
    if missing:
        raise DataError(
            f"c_current lacks {', '.join(missing)}; a state with gaps must be filtered first: "
            "pass the belief of `perfusio_jax.hybrid.filter_step`."
        )
    return _balanced(face), np.asarray(face), ""


def match_particles(
    state: Float[Array, "N 9"] | Float[Array, "D N 9"], n: int, *, key: Array
) -> Float[Array, "n 9"]:
    """As many state samples as there are paths: a random subset, or every one several times.

    Args:
        state: Samples of the latent state, or one state `(9,)`; or samples for each of D draws of
            constants, which the paths take in turn.
        n: Number of paths.
        key: Random key.

    Returns:
        Samples, one per path.
    """
    return _matched(state, n, key)


@compiled
def _matched(state: Array, n: int, key: Array) -> Array:
    if state.ndim == 1:
        return jnp.broadcast_to(state[None, :], (n, state.shape[0]))
    N = state.shape[-2]
    picked = jax.random.permutation(key, N)[jnp.arange(n) % N]
    # the same particles of every draw, so that draws which are alike change nothing
    return state[picked] if state.ndim == 2 else state[jnp.arange(n) % state.shape[0], picked]
