"""What an episode is worth: quadratic cost, and multiplicative reciprocal saturation.

With tracked quantities x_i(k), references and e_i(k) = (x_i(k) - ref_i(k))^2, over k = 1 ... N:

    quadratic     J = - sum_{k<N} d(k)' Q d(k) - d(N)' Q_N d(N),   d = x - ref
    saturation    J = sum_{k<N} w r(k) + w_N r(N),   r(k) = m prod_i K_i / (K_i + e_i(k))

The initial state carries no reward: no action led to it. K_i is the squared error at which a
factor is one half; every factor has to be large for their product to be.

Reference:
    Espinel-Rios et al. (2025); the printed text gives the meaning of m, K and the weights, the
    formula is inferred from it (a product of reciprocal Monod terms).
"""

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from perfusio_jax._core import ConfigError

SCHEMES = {
    "tr": (0.0, 1.0),
    "1_sr_1_tr": (1.0, 1.0),
    "1_sr_2_tr": (1.0, 2.0),
    "1_sr_3_tr": (1.0, 3.0),
}
"""Weight of each stage and of the end, by the publication's names."""
HALF_SATURATIONS = (3.0, 9.0, 27.0)
"""K of the screening; 9 and 27 are printed, 3 is inferred as their neighbour."""


def _array(value: ArrayLike) -> Array:
    return jnp.asarray(value, float)


class TrackingReturn(eqx.Module):
    """Either return; every field is traced, so that a screening is one vmapped call."""

    stage_matrix: Float[Array, "n n"] = eqx.field(converter=_array)
    """Q."""
    terminal_matrix: Float[Array, "n n"] = eqx.field(converter=_array)
    """Q_N."""
    half_saturation: Float[Array, " n"] = eqx.field(converter=_array)
    """K [unit of the state, squared]."""
    max_reward: Float[Array, ""] = eqx.field(converter=_array)
    """m [-]."""
    stage_weight: Float[Array, ""] = eqx.field(converter=_array)
    """w [-]."""
    terminal_weight: Float[Array, ""] = eqx.field(converter=_array)
    """w_N [-]."""
    is_quadratic: Bool[Array, ""] = eqx.field(converter=lambda v: jnp.asarray(v, bool))
    """Which of the two."""

    def __check_init__(self) -> None:
        n = jnp.shape(self.half_saturation)[-1:]
        for name in ("stage_matrix", "terminal_matrix"):
            shape = jnp.shape(getattr(self, name))
            if not n or shape[-2:] != (*n, *n):
                raise ConfigError(f"{name} has shape {shape}; {(*n, *n)} is needed, as K has {n}.")

    def stage(self, tracked: Float[Array, " n"], reference: Float[Array, " n"]) -> Array:
        """Reward of one sampling time before the last."""
        return self._reward(tracked, reference, self.stage_matrix, self.stage_weight)

    def terminal(self, tracked: Float[Array, " n"], reference: Float[Array, " n"]) -> Array:
        """Reward of the last sampling time."""
        return self._reward(tracked, reference, self.terminal_matrix, self.terminal_weight)

    def _reward(self, tracked: Array, reference: Array, matrix: Array, weight: Array) -> Array:
        gap = tracked - reference
        cost = jnp.sum(gap * jnp.sum(matrix * gap[None, :], axis=1))
        share = jnp.prod(self.half_saturation / (self.half_saturation + gap * gap))
        return jnp.where(self.is_quadratic, -cost, weight * self.max_reward * share)

    def __call__(self, tracked: Float[Array, "T n"], reference: Float[Array, "T n"]) -> Array:
        """Return of one episode.

        Args:
            tracked: Tracked quantities at k = 0 ... N.
            reference: References at the same times.

        Returns:
            J; at most zero (quadratic), or between zero and m (w (N-1) + w_N).
        """
        return jnp.sum(self.rewards(tracked, reference))

    def rewards(
        self, tracked: Float[Array, "T n"], reference: Float[Array, "T n"]
    ) -> Float[Array, " N"]:
        """Reward of each action: of the sampling times k = 1 ... N."""
        if tracked.shape != reference.shape:
            raise ConfigError(
                f"tracked quantities have shape {tracked.shape}, references {reference.shape}; "
                "both need a row for each k = 0 ... N."
            )
        stages = [self.stage(tracked[k], reference[k]) for k in range(1, tracked.shape[0] - 1)]
        return jnp.stack([*stages, self.terminal(tracked[-1], reference[-1])])


def quadratic(
    stage: ArrayLike = 1.0, terminal: ArrayLike | None = None, *, n: int = 2
) -> TrackingReturn:
    """Negated quadratic cost.

    Args:
        stage: Q: one number, a diagonal, or a matrix.
        terminal: Q_N; the same as Q if not given.
        n: Number of tracked quantities, if Q is one number.

    Raises:
        ConfigError: If a matrix has the wrong shape, is not finite, not symmetric or has a
            negative eigenvalue, or both are zero.
    """
    q = _matrix("the stage weight", stage, n)
    q_end = q if terminal is None else _matrix("the terminal weight", terminal, q.shape[0])
    if q.shape != q_end.shape:
        raise ConfigError(f"stage and terminal weights have shapes {q.shape} and {q_end.shape}.")
    if not (np.any(q) or np.any(q_end)):
        raise ConfigError("all weights are zero: every policy would be as good; give one a weight.")
    size = q.shape[0]
    return TrackingReturn(q, q_end, np.ones(size), 1.0, 1.0, 1.0, True)


def saturation(
    half_saturation: float | Sequence[float],
    stage_weight: float = 1.0,
    terminal_weight: float = 1.0,
    *,
    max_reward: float = 1.0,
    n: int = 2,
) -> TrackingReturn:
    """Multiplicative reciprocal saturation.

    Args:
        half_saturation: K, one number or one per tracked quantity.
        stage_weight: w.
        terminal_weight: w_N.
        max_reward: m.
        n: Number of tracked quantities, if K is one number.

    Raises:
        ConfigError: If K or m is not positive, or a weight is negative, or both are zero.
    """
    k = np.atleast_1d(np.asarray(half_saturation, float))
    k = np.repeat(k, n) if k.size == 1 else k
    if k.ndim != 1 or k.size < 1:
        raise ConfigError(
            f"K has shape {np.shape(half_saturation)}, for {n} quantities; one number, or one "
            "per tracked quantity, is needed."
        )
    if not (np.all(np.isfinite(k)) and np.all(k > 0.0)):
        raise ConfigError(
            f"K is {half_saturation}; it must be positive: at zero no error is small."
        )
    weights = np.array([stage_weight, terminal_weight], float)
    if not np.all(np.isfinite(weights)) or np.any(weights < 0.0) or not np.any(weights):
        raise ConfigError(
            f"stage and terminal weights are {stage_weight} and {terminal_weight}; they must not "
            "be negative, and one must be positive."
        )
    if not (np.isfinite(max_reward) and max_reward > 0.0):
        raise ConfigError(f"the largest reward is {max_reward}; it must be positive.")
    eye = np.eye(k.size)
    return TrackingReturn(eye, eye, k, max_reward, stage_weight, terminal_weight, False)


def screening(*, n: int = 2) -> dict[str, TrackingReturn]:
    """The thirteen returns of the publication's screening, by its names.

    Args:
        n: Number of tracked quantities, all with the same K and weight.

    Returns:
        Four schemes of weights at three K each, named like `1_sr_3_tr__9`, and `qc`, the
        quadratic cost.

    Reference:
        Espinel-Rios et al. (2025); which numbers are inferred stands beside them.
    """
    table = {
        f"{name}__{k:g}": saturation(k, stage, end, n=n)
        for name, (stage, end) in SCHEMES.items()
        for k in HALF_SATURATIONS
    }
    return {**table, "qc": quadratic(n=n)}


def _matrix(what: str, value: ArrayLike, n: int) -> np.ndarray:
    given = np.asarray(value, float)
    if given.size == 0 or n < 1:
        raise ConfigError(f"{what} has shape {given.shape}, for {n} quantities; one or more.")
    if given.ndim == 0:
        given = np.full(n, float(given))
    if given.ndim == 1:
        given = np.diag(given)
    if given.ndim != 2 or len(given) != len(given.T):
        raise ConfigError(f"{what} has shape {given.shape}; a number, diagonal or square matrix.")
    is_fine = np.all(np.isfinite(given)) and np.allclose(given, given.T)
    if not is_fine or np.linalg.eigvalsh(given).min() < -1e-12:
        raise ConfigError(f"{what} must be finite, symmetric, without negative eigenvalues.")
    return given
