"""Measurement noise: what an analyser makes of the true state.

Concentrations, densities and diameters are read with a *lognormal* factor of mean one and
the assay's coefficient of variation: unbiased, never negative, and Gaussian to first order.

Viability is a fraction, and what is uncertain about it is the dead fraction. A reading is a
*beta* draw with the true fraction `p` as its mean and the standard deviation
`sqrt(p (1 - p) k)`, as if a fixed number of cells had been counted; `k` is set so that the
coefficient of variation is the stated one at 90 % viability. At 2 % this equals a count of
277 cells: 1.8 points at 90 %, 0.8 at 98 %, none at 100 %, and never above 100 %.
"""

import dataclasses
import math
import zlib
from collections.abc import Mapping, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from perfusio_jax._core import ConfigError, Key
from perfusio_jax.chemistry import SpeciesRegistry, cell_volume_fraction, dead_cells

VIABILITY_REFERENCE = 0.9
"""Viable fraction [-] at which the coefficient of variation of viability is the stated one."""

_REGISTRY = SpeciesRegistry.DEFAULT
_COLUMN = {name: i for i, name in enumerate(_REGISTRY.names)}


def default_cvs() -> dict[str, float]:
    """Coefficients of variation of the thirteen species [-].

    VCD 5 %, viability 2 %, metabolites 7 %, product 8 %, diameter 1 %.

    Reference:
        Gadiyar et al. (2026), section 3.3; the diameter's is typical of image-based counters.
    """
    return {s.short_name: s.cv for s in _REGISTRY}


def viability_sd(
    via: Float[Array, "..."] | float, cv: Float[Array, "..."] | float = 0.02
) -> Float[Array, "..."]:
    """Standard deviation of a viability reading [percentage points].

    Args:
        via: True viability [%].
        cv: Coefficient of variation at 90 % viability [-].
    """
    p = jnp.clip(jnp.asarray(via) / 100.0, 0.0, 1.0)
    return 100.0 * jnp.sqrt(p * (1.0 - p) * _dispersion(cv))


def _dispersion(cv: Array | float) -> Array:
    return jnp.asarray(cv) ** 2 * VIABILITY_REFERENCE / (1.0 - VIABILITY_REFERENCE)


def _noisy_concentration(values: Array, cv: Array, key: Key) -> Array:
    sigma = jnp.sqrt(jnp.log1p(cv**2))
    z = jax.random.normal(key, values.shape, values.dtype)
    return jnp.maximum(values, 0.0) * jnp.exp(sigma * z - 0.5 * sigma**2)


def _noisy_viability(via: Array, cv: Array, key: Key) -> Array:
    p = jnp.clip(via / 100.0, 0.0, 1.0)
    dispersion = _dispersion(cv)
    is_random = (p > 1e-6) & (p < 1.0 - 1e-6) & (dispersion > 0.0)
    safe_p = jnp.where(is_random, p, 0.5)
    count = 1.0 / jnp.where(dispersion > 0.0, dispersion, 1.0) - 1.0
    count = jnp.maximum(count, 1e-3)
    drawn = jax.random.beta(key, safe_p * count, (1.0 - safe_p) * count, via.shape, via.dtype)
    return 100.0 * jnp.where(is_random, drawn, jnp.where(jnp.isnan(via), jnp.nan, p))


def apply_noise(
    values: Float[Array, "... K"],
    cv: Float[Array, " K"],
    missing_prob: Float[Array, ""] | float = 0.0,
    *,
    key: Key,
    via_index: int | None = None,
) -> Float[Array, "... K"]:
    """Noisy readings of a state, NaN where a reading is lost.

    Args:
        values: True values; NaN stays NaN.
        cv: Coefficient of variation per column [-]; zero reads exactly.
        missing_prob: Probability that one reading is lost [-].
        key: Random key.
        via_index: Column that holds viability [%], if any; see the module's text.

    Returns:
        Readings, none negative, viability within [0, 100].
    """
    values = jnp.asarray(values)
    noise_key, via_key, missing_key = jax.random.split(key, 3)
    lifted = jnp.asarray(cv, values.dtype).reshape((1,) * (values.ndim - 1) + (-1,))
    readings = _noisy_concentration(values, lifted, noise_key)
    if via_index is not None:
        column = _noisy_viability(values[..., via_index], lifted[..., via_index], via_key)
        readings = readings.at[..., via_index].set(column)
    is_lost = jax.random.uniform(missing_key, values.shape, values.dtype) < missing_prob
    return jnp.where(is_lost, jnp.nan, readings)


def jitter_times(
    times_h: Float[Array, "..."], jitter_hours: Float[Array, ""] | float, *, key: Key
) -> Float[Array, "..."]:
    """Sampling times [h] moved by up to `jitter_hours` either way, uniformly.

    Args:
        times_h: Planned times [h]; each is moved by a draw of its own.
        jitter_hours: Largest shift [h], not negative. More than half the shortest interval may
            change the order of samples, which is not looked at here.
        key: Random key.
    """
    times = jnp.asarray(times_h)
    return times + jitter_hours * jax.random.uniform(
        key, times.shape, times.dtype, minval=-1.0, maxval=1.0
    )


@partial(jax.jit, static_argnames="via_index")
def _read(
    values: Array, cv: Array, missing_prob: Array, key: Key, via_index: int | None = None
) -> Array:
    return apply_noise(values, cv, missing_prob, key=key, via_index=via_index)


@dataclasses.dataclass(frozen=True)
class NoiseModel:
    """Noise of a sample as a dictionary, decided by `(seed, day)` alone.

    Reading a day twice gives the same sample, and a species' reading does not depend on
    which other species are asked for. VCV and DCD are computed from the noisy readings of
    the same sample (VCV from VCD and Diam, DCD from VCD and Via), and are missing when one
    of those is; they have a noise of their own only if the state does not hold these.

    Raises:
        ConfigError: (a ValueError) for a negative or non-finite CV, a probability outside
            [0, 1] or a negative jitter.

    Examples:
        >>> noisy = NoiseModel(seed=0).apply({"VCD": 20.0, "Glc": 5.0}, day=7)
        >>> sorted(noisy)
        ['Glc', 'VCD']
    """

    cv_by_species: Mapping[str, float] = dataclasses.field(default_factory=default_cvs)
    """Coefficient of variation by species [-]."""
    default_cv: float = 0.07
    """Coefficient of variation of species not listed [-]."""
    missing_prob: float = 0.05
    """Probability that one reading of one day is lost [-]."""
    jitter_hours: float = 1.0
    """Half-width of the uniform jitter of the sampling time [h]."""
    seed: int = 42
    """Seed of all draws."""

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing."""
        for name, cv in [*self.cv_by_species.items(), ("default_cv", self.default_cv)]:
            if not (math.isfinite(cv) and cv >= 0.0):
                raise ConfigError(f"CV of {name!r} is {cv!r}; it must be finite and >= 0.")
        via = self.cv_by_species.get("Via", self.default_cv)
        largest = math.sqrt((1.0 - VIABILITY_REFERENCE) / VIABILITY_REFERENCE)
        if via >= largest:
            raise ConfigError(f"CV of 'Via' is {via!r}; a fraction allows less than {largest:.3f}.")
        if not 0.0 <= self.missing_prob <= 1.0:
            raise ConfigError(f"missing_prob={self.missing_prob!r} must lie in [0, 1].")
        if not (math.isfinite(self.jitter_hours) and self.jitter_hours >= 0.0):
            raise ConfigError(f"jitter_hours={self.jitter_hours!r} must be finite and >= 0.")

    def cv_array(self, names: Sequence[str]) -> Float[Array, " K"]:
        """Coefficients of variation of `names` in their order [-]."""
        return jnp.asarray([self.cv_by_species.get(n, self.default_cv) for n in names], float)

    def observe(
        self, values: Float[Array, "... K"], names: Sequence[str], *, key: Key
    ) -> Float[Array, "... K"]:
        """Noisy readings of an array with columns `names`; a pure function of the key.

        Every column is read on its own; nothing is derived here.
        """
        via_index = list(names).index("Via") if "Via" in names else None
        return apply_noise(
            values, self.cv_array(names), self.missing_prob, key=key, via_index=via_index
        )

    def key(self, day: int) -> Key:
        """The key that decides the sample of one day."""
        return jax.random.fold_in(jax.random.key(self.seed), day)

    def apply(self, state: Mapping[str, float], day: int) -> dict[str, float | None]:
        """One noisy sample.

        Args:
            state: True values by species name.
            day: Culture day.

        Returns:
            Readings for the same names in the same order; None where missing.
        """
        values = {name: float(value) for name, value in state.items()}
        registered = jnp.asarray([values.get(n, math.nan) for n in _REGISTRY.names], float)
        readings = _read(
            registered,
            self.cv_array(_REGISTRY.names),
            jnp.asarray(self.missing_prob, float),
            self.key(day),
            via_index=_COLUMN["Via"],
        )
        noisy = {n: float(readings[i]) for n, i in _COLUMN.items() if n in values}
        for name in values:
            if name not in _COLUMN:
                noisy[name] = self._unregistered(name, values[name], day)
        if {"VCV", "VCD", "Diam"} <= values.keys():
            noisy["VCV"] = float(cell_volume_fraction(noisy["VCD"], noisy["Diam"]))  # pyright: ignore
        if {"DCD", "VCD", "Via"} <= values.keys():
            noisy["DCD"] = float(dead_cells(noisy["VCD"], noisy["Via"]))  # pyright: ignore
        return {n: None if math.isnan(noisy[n]) else noisy[n] for n in values}

    def _unregistered(self, name: str, value: float, day: int) -> float:
        """A column the registry does not know draws from a key made of its name."""
        key = jax.random.fold_in(self.key(day), zlib.crc32(name.encode()))
        cv = jnp.asarray([self.cv_by_species.get(name, self.default_cv)], float)
        probability = jnp.asarray(self.missing_prob, float)
        return float(_read(jnp.asarray([value], float), cv, probability, key)[0])

    def time_jitter(self, day: int = 0) -> float:
        """Offset of one day's sampling time [h], within plus or minus `jitter_hours`."""
        key = jax.random.fold_in(self.key(day), zlib.crc32(b"time"))
        return float(jitter_times(jnp.zeros(()), self.jitter_hours, key=key))
