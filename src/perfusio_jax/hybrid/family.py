"""Several cell lines in one model: what is shared, and what each has of its own.

A clone has constants of its own in the mechanism and a vector of its own in the process. The
constants are drawn towards those of its family, as far as the clone's data leave them open:
each clone is calibrated by itself, then mean and spread over the clones are estimated, each
clone weighing in every constant as much as its data say of it, and taken as prior when each is
calibrated again (empirical Bayes). With one historic clone the family's spread is the prior's;
with many it is what they show. What stays open of a clone's constants goes into its forecasts:
every path has constants of its own.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from perfusio_jax._core import STATE_ORDER
from perfusio_jax.embedding import PRIOR_CLONE, CloneRegistry
from perfusio_jax.hybrid.calibration import (
    CENTRE_WIDTH,
    N_CONSTANTS,
    SWITCH_WIDTH,
    CalibrationInfo,
    Intervals,
    calibrate,
    with_constants,
)
from perfusio_jax.hybrid.transition import ResidualBasis

_N = len(STATE_ORDER)
_PRIOR_CLONES = 2.0
"""How many clones the prior's spread counts as when a family's is estimated [-]."""
_BETWEEN = 0.2
"""That spread: log-standard deviation of a constant between clones of one family [-]."""
_ALIKE = 2.25
"""Intervals of one run resemble each other more than `calibrate` allows for when it weighs the
data: with a persistence of 0.8 nine of them count as one, not four [-]."""
_TURNS = 300
"""Expectation-maximisation steps; each costs a few small inverses."""


class CloneFamily(eqx.Module):
    """Clones a model knows, and the mechanism's constants of each."""

    registry: CloneRegistry
    """Names and indices."""
    mech_model: Any
    """Mechanism the constants are relative to."""
    constants: Float[Array, "K P"]
    """Per clone: log factors in `CALIBRATED` order, then the logit of the lactate switch [-]."""
    centre: Float[Array, " P"]
    """The family's mean, which stands for a clone without data."""
    factors: Float[Array, "K P P"]
    """Per clone: Cholesky factor of the posterior covariance of its constants [-]."""
    spread: Float[Array, " P"]
    """Standard deviation of the constants between clones [-]."""
    process_sd: Float[Array, "K 9"]
    """Per clone: spread of what neither mechanism nor process explains [residual units]."""
    is_calibrated: bool = eqx.field(static=True, default=True)
    """False leaves every clone the mechanism as it is."""
    diameters: Float[Array, "K 2"] | None = None
    """Per clone: cell diameter at full viability and its increase per unit dead fraction [um]; None
    where all share the model's."""

    def index(self, clone: str | int, *, unknown: str = "error") -> int:
        """Index of a clone given by name or index.

        Args:
            clone: Name or index.
            unknown: `"error"` refuses an unknown name; `"prior"` takes the family's mean.

        Raises:
            ConfigError: If the clone is unknown.
        """
        if isinstance(clone, str):
            return self.registry.clone_id(clone, unknown=unknown)  # pyright: ignore
        names = self.registry.names
        if clone == PRIOR_CLONE:
            return PRIOR_CLONE
        return self.registry.clone_id(names[clone] if 0 <= clone < len(names) else str(clone))

    def mechanism(self, index: Array) -> Any:
        """The mechanism of one clone; the index may be traced."""
        if not self.is_calibrated:
            return self.mech_model
        at = jnp.round(jnp.asarray(index)).astype(int)
        known = self.constants[jnp.clip(at, 0, self.constants.shape[0] - 1)]
        return with_constants(self.mech_model, jnp.where(at < 0, self.centre, known))

    def openness(self, index: Array) -> Float[Array, "P P"]:
        """Cholesky factor of what is not known of one clone's constants; may be traced."""
        at = jnp.round(jnp.asarray(index)).astype(int)
        known = self.factors[jnp.clip(at, 0, self.factors.shape[0] - 1)]
        return jnp.where(at < 0, jnp.diag(self.spread), known)

    def noise(self, index: Array) -> Float[Array, " 9"]:
        """Process noise of one clone; of the noisiest for one without data; may be traced."""
        at = jnp.round(jnp.asarray(index)).astype(int)
        known = self.process_sd[jnp.clip(at, 0, self.process_sd.shape[0] - 1)]
        return jnp.where(at < 0, jnp.max(self.process_sd, axis=0), known)

    def diameter(self, index: Array, shared: Float[Array, " 2"]) -> Float[Array, " 2"]:
        """Diameter at full viability and its increase [um] of one clone; may be traced.

        Args:
            index: Clone; the mean over all for one without data.
            shared: What stands where clones have none of their own.
        """
        if self.diameters is None:
            return shared
        at = jnp.round(jnp.asarray(index)).astype(int)
        known = self.diameters[jnp.clip(at, 0, self.diameters.shape[0] - 1)]
        return jnp.where(at < 0, jnp.mean(self.diameters, axis=0), known)


def calibrate_family(
    mech: Any,
    basis: ResidualBasis,
    data: Intervals,
    clone_of_row: Float[Array, " N"],
    *,
    registry: CloneRegistry,
) -> tuple[CloneFamily, list[CalibrationInfo]]:
    """Constants of every clone, drawn towards the family's.

    Args:
        mech: Mechanism; its constants are the prior's centre.
        basis: Unit of the residual.
        data: Smoothed intervals of all clones.
        clone_of_row: Clone index of each interval.
        registry: The clones.

    Returns:
        The clones with their constants, and how the second calibration of each went.
    """
    clones = range(registry.n_clones)
    used = [data._replace(is_used=_of(data.is_used, clone_of_row, k)) for k in clones]
    wide = jnp.full(N_CONSTANTS, CENTRE_WIDTH).at[-1].set(SWITCH_WIDTH)
    first = [calibrate(mech, basis, part, spread=wide)[1] for part in used]
    centre, spread = family_prior(*likelihood(first, jnp.zeros(N_CONSTANTS), wide))
    second = [calibrate(mech, basis, part, centre=centre, spread=spread)[1] for part in used]
    precision, _ = found = likelihood(second, centre, spread)
    centre, spread = family_prior(*found)
    covariance = jnp.linalg.inv(precision / _ALIKE + jnp.diag(1.0 / spread**2)[None])
    constants = jnp.stack([info.constants for info in second])
    factors = jnp.linalg.cholesky(covariance)
    quiet = jnp.zeros((registry.n_clones, _N))
    return CloneFamily(registry, mech, constants, centre, factors, spread, quiet), second


def likelihood(
    infos: list[CalibrationInfo], centre: Float[Array, " P"], spread: Float[Array, " P"]
) -> tuple[Float[Array, "K P P"], Float[Array, "K P"]]:
    """What the data alone say of each clone's constants, as a Gaussian.

    Args:
        infos: Calibrations under one prior, one per clone.
        centre: That prior's mean.
        spread: Its standard deviations.

    Returns:
        Precision, and precision times mean; the prior's share is taken out.
    """
    precision = jnp.stack([info.precision for info in infos])
    at = jnp.stack([info.constants for info in infos])
    pull = (at - centre[None, :]) / spread[None, :] ** 2
    return precision, jnp.einsum("kpq,kq->kp", precision, at) + pull


def _of(is_used: Bool[Array, " N"], clone_of_row: Array, k: int) -> Array:
    return is_used & (jnp.round(clone_of_row) == k)


@jax.jit
def family_prior(
    precision: Float[Array, "K P P"], weighted: Float[Array, "K P"]
) -> tuple[Float[Array, " P"], Float[Array, " P"]]:
    """Mean and spread of the constants over clones, by expectation maximisation.

    A clone counts in each constant as much as its data say of it. The mean is shrunk towards
    the mechanism's own constants, the spread towards a typical one, so that one clone suffices.

    Args:
        precision: Of the data's part, per clone.
        weighted: Precision times mean, per clone.

    Returns:
        Centre and standard deviation per constant.
    """
    n = weighted.shape[0]
    wide = jnp.full(N_CONSTANTS, CENTRE_WIDTH).at[-1].set(SWITCH_WIDTH) ** 2
    typical = jnp.full(N_CONSTANTS, _BETWEEN).at[-1].set(SWITCH_WIDTH) ** 2

    def turn(_: int, state: tuple[Array, Array]) -> tuple[Array, Array]:
        mean, variance = state
        inside = jnp.linalg.inv(precision + jnp.diag(1.0 / variance)[None])
        each = jnp.einsum("kpq,kq->kp", inside, weighted + (mean / variance)[None, :])
        mean = jnp.sum(each, axis=0) / (n + variance / wide)
        away = (each - mean[None, :]) ** 2 + jnp.diagonal(inside, axis1=1, axis2=2)
        return mean, (jnp.sum(away, axis=0) + _PRIOR_CLONES * typical) / (n + _PRIOR_CLONES)

    start = jnp.zeros(N_CONSTANTS), wide
    mean, variance = jax.lax.fori_loop(0, _TURNS, turn, start)
    return mean, jnp.sqrt(variance)
