"""Settings of a training, and what they do to numbers."""

from typing import Any, Final

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float

from perfusio_jax._core import ConfigError

ADVANTAGES: Final = ("normalised", "centred", "leave_one_out", "plain")
"""How returns become weights of the gradient."""
METHODS: Final = ("reinforce", "ppo", "pathwise")
"""How a policy is improved: the score function of whole episodes; the clipped surrogate on the
same episodes several times, with rewards still to come against their mean at that time; or the
derivative of the return through the plant, which needs a model that has one."""


def _number(default: float) -> Any:
    return eqx.field(converter=lambda v: jnp.asarray(v, float), default=default)


_MOST: Final = {"learning_rate": 1.0, "floor": 10.0, "decay": 1.0, "clip": 1.0}
"""Largest value of each traced setting; all are above zero."""
_LEAST: Final = {
    "n_episodes": 2, "n_epochs": 1, "patience": 1, "n_passes": 1, "width": 1, "depth": 1,
    "n_devices": 1, "n_per_plant": 0,
}  # fmt: skip
"""Smallest value of each whole number."""


def check_count(name: str, value: object, least: int = 1) -> None:
    """Refuse what is not an int (one is part of what is compiled for), or too small.

    Raises:
        ConfigError: With the name, what was given and the least that is allowed.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(
            f"{name} is {value!r}; a whole number (int), at least {least}, is needed."
        )


class TrainSettings(eqx.Module):
    """Settings of a training."""

    n_episodes: int = eqx.field(static=True, default=100)
    """Episodes per epoch; the publication's number is not to be had. Many small epochs came
    nearer to the optimum than few large ones of as many episodes in all."""
    n_epochs: int = eqx.field(static=True, default=4800)
    """Most epochs."""
    patience: int = eqx.field(static=True, default=2400)
    """Epochs without improvement after which a training ends; the publication's are 100, of an
    unknown number of episodes."""
    advantage: str = eqx.field(static=True, default="normalised")
    """One of `ADVANTAGES`."""
    method: str = eqx.field(static=True, default="reinforce")
    """One of `METHODS`."""
    n_passes: int = eqx.field(static=True, default=8)
    """Ascents per epoch of "ppo"."""
    width: int = eqx.field(static=True, default=20)
    """Nodes per hidden layer."""
    depth: int = eqx.field(static=True, default=4)
    """Hidden layers."""
    is_mirrored: bool = eqx.field(static=True, default=True)
    """Whether every second episode has the draws of the one before with the other sign: the
    estimate keeps its mean and loses what the curvature of the return adds to its variance."""
    n_per_plant: int = eqx.field(static=True, default=0)
    """Episodes on one plant and start, of "reinforce": each is judged against the others on its
    plant, not against the whole epoch, so that luck with the plant does not count as skill.
    0: pairs (or single episodes) have plants of their own and are judged against all."""
    n_devices: int = eqx.field(static=True, default=1)
    """Devices that share the episodes of an epoch: cores made devices by `jax_num_cpu_devices`,
    or GPUs. Sums are taken in another order, so bytes are the same for the same number."""
    is_single: bool = eqx.field(static=True, default=False)
    """Whether plant, policy and update are computed in single precision: half the time. The
    consortium's integrator keeps errors of 1e-4 there, 3e-4 in glucose."""
    learning_rate: Float[Array, ""] = _number(0.003)
    """Of Adam, at first [-]."""
    floor: Float[Array, ""] = _number(0.1)
    """Smallest spread of the policy, at first [-]."""
    decay: Float[Array, ""] = _number(0.1)
    """Share of both left at the last epoch; they fall exponentially, and together, so that an
    ascent moves a draw by a steady share of its spread [-]."""
    clip: Float[Array, ""] = _number(0.2)
    """How far "ppo" lets a probability move from one, as a ratio [-]."""

    def __check_init__(self) -> None:
        if self.advantage not in ADVANTAGES:
            raise ConfigError(f"advantage {self.advantage!r} is unknown; choose from {ADVANTAGES}.")
        if self.method not in METHODS:
            raise ConfigError(f"method {self.method!r} is unknown; choose from {METHODS}.")
        for name, least in _LEAST.items():
            check_count(name, getattr(self, name), least)
        for name in ("is_mirrored", "is_single"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} is {getattr(self, name)!r}; True or False is needed.")
        for name, most in _MOST.items():
            value = getattr(self, name)
            if isinstance(value, Tracer):
                continue
            if value.shape != () or not 0.0 < float(value) <= most:
                raise ConfigError(f"{name} is {value}; above 0, and at most {most:g}, is allowed.")
        least = 4 if self.advantage == "leave_one_out" else 2  # pairs against other pairs
        if self.is_mirrored and (self.n_episodes % 2 or self.n_episodes < least):
            raise ConfigError(
                f"{self.n_episodes} episodes per epoch; they come in pairs of opposite draws, so "
                f"an even number from {least} on is needed (or is_mirrored=False)."
            )
        self._check_plants()
        if self.n_episodes % self.n_devices:
            raise ConfigError(
                f"{self.n_episodes} episodes cannot be shared by {self.n_devices} devices; "
                "the number must divide."
            )

    def _check_plants(self) -> None:
        least = 4 if self.is_mirrored else 2
        if self.n_per_plant == 0:
            return
        if self.method != "reinforce" or self.advantage == "plain":
            raise ConfigError("episodes share plants only where a baseline judges them.")
        if self.n_per_plant < least or self.n_episodes % self.n_per_plant or self.n_per_plant % 2:
            raise ConfigError(
                f"{self.n_per_plant} episodes per plant, {self.n_episodes} in all: an even number "
                f"from {least} on that divides them is needed, or 0."
            )


def share_left(settings: TrainSettings, epoch: Array) -> Array:
    """Share of the first learning rate and floor that an epoch has."""
    done = jnp.asarray(epoch / settings.n_epochs, settings.decay.dtype)
    return settings.decay**done


def in_precision(tree: Any, settings: TrainSettings) -> Any:
    """The same with every floating number in the precision of a training."""
    if not settings.is_single:
        return tree
    return jax.tree.map(lambda v: v.astype(jnp.float32) if eqx.is_inexact_array(v) else v, tree)
