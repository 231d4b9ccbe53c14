"""Several cell lines in one model: what is shared, and what each has of its own.

A clone has constants of its own in the mechanism and a vector of its own in the process. The
constants are drawn towards those of its family, as far as the clone's data leave them open:
each clone is calibrated by itself, then mean and spread over the clones are taken as prior
and each is calibrated again (empirical Bayes). With one historic clone the family's spread is
the prior's; with many it is what they show.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from perfusio_jax.embedding import PRIOR_CLONE, CloneRegistry
from perfusio_jax.hybrid.calibrate import (
    N_CONSTANTS,
    SWITCH_WIDTH,
    CalibrationInfo,
    Intervals,
    calibrate,
    with_constants,
)
from perfusio_jax.hybrid.transition import ResidualBasis

_PRIOR_CLONES = 2.0
"""How many clones the prior's spread counts as when a family's is estimated [-]."""


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
    is_calibrated: bool = eqx.field(static=True, default=True)
    """False leaves every clone the mechanism as it is."""

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


def calibrate_family(
    mech: Any,
    basis: ResidualBasis,
    data: Intervals,
    clone_of_row: Float[Array, " N"],
    *,
    n_clones: int,
) -> tuple[Float[Array, "K P"], Float[Array, " P"], list[CalibrationInfo]]:
    """Constants of every clone, drawn towards the family's.

    Args:
        mech: Mechanism; its constants are the prior's centre.
        basis: Unit of the residual.
        data: Smoothed intervals of all clones.
        clone_of_row: Clone index of each interval.
        n_clones: Number of clones.

    Returns:
        Constants per clone, the family's mean, and how the second calibration of each went.
    """
    used = [data._replace(is_used=_of(data.is_used, clone_of_row, k)) for k in range(n_clones)]
    first = jnp.stack([calibrate(mech, basis, part)[1].constants for part in used])
    centre, spread = family_prior(first)
    infos = [calibrate(mech, basis, part, centre=centre, spread=spread)[1] for part in used]
    constants = jnp.stack([info.constants for info in infos])
    return constants, family_prior(constants)[0], infos


def _of(is_used: Bool[Array, " N"], clone_of_row: Array, k: int) -> Array:
    return is_used & (jnp.round(clone_of_row) == k)


def family_prior(
    constants: Float[Array, "K P"], tau: float = 0.3
) -> tuple[Float[Array, " P"], Float[Array, " P"]]:
    """Mean and spread over clones, both shrunk towards the prior's.

    Args:
        constants: Per clone.
        tau: The prior's spread of a log factor [-].

    Returns:
        Centre and standard deviation per constant.
    """
    n = constants.shape[0]
    width = jnp.full(N_CONSTANTS, tau).at[-1].set(SWITCH_WIDTH)
    mean = jnp.sum(constants, axis=0) / (n + 1.0)  # the prior's zero counts as one clone
    away = jnp.sum((constants - mean[None, :]) ** 2, axis=0)
    variance = (away + _PRIOR_CLONES * width**2) / (n + _PRIOR_CLONES)
    return mean, jnp.sqrt(variance)
