"""Online probes of the virtual plant: what sensors in the vessel show between two samples.

Correlations of ours with field-typical slopes, good enough to give every tag a level, a trend
and a noise. They are no part of the plant's balances and nothing is learned from their form.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
from jaxtyping import Float

from perfusio_jax._core import AUXILIARY_TAGS, CONTROL_NAMES, FORECAST_SPECIES, HOURS_PER_DAY

PROBE_SD: Final[Mapping[str, float]] = MappingProxyType(
    {
        "pH": 0.01,
        "DO": 0.8,
        "pCO2": 0.7,
        "osmolality": 1.5,
        "capacitance": 0.12,
        "TMP": 0.5,
    }
)
"""Standard deviation of one reading, in the tag's unit."""


def probe_means(
    species: Float[np.ndarray, "n 12"], controls: Float[np.ndarray, "n 6"], time_h: float
) -> Float[np.ndarray, "n 6"]:
    """Noise-free online tags.

    Args:
        species: True readings in `FORECAST_SPECIES` order.
        controls: Set-points in `CONTROL_NAMES` order.
        time_h: Time since inoculation [h], for the fouling of the filter.

    Returns:
        One row per vessel in `AUXILIARY_TAGS` order: pH, DO [%], pCO2 [mmHg], osmolality
        [mOsm/kg], capacitance [pF/cm], transmembrane pressure [mbar].
    """
    read = dict(zip(FORECAST_SPECIES, species.T, strict=True))
    perfusion = controls[:, CONTROL_NAMES.index("perfusion_rate")]
    columns = {
        "pH": np.clip(7.15 - 0.006 * read["Lac"] + 0.004 * read["Amm"], 6.6, 7.5),
        "DO": np.full_like(perfusion, 40.0),
        "pCO2": np.clip(35.0 + 1.1 * read["VCD"], 0.0, 200.0),
        "osmolality": 255.0
        + 5.55 * read["Glc"]
        + 2.0 * read["Lac"]
        + read["Gln"]
        + read["Glu"]
        + read["Amm"]
        + read["Pyr"],
        "capacitance": 0.4 + 3.0 * read["VCV"],
        "TMP": 15.0 + 1.5 * read["VCV"] * perfusion + time_h / HOURS_PER_DAY,
    }
    return np.stack([columns[name] for name in AUXILIARY_TAGS], axis=1)


def read_probes(
    means: Float[np.ndarray, "n 6"], rng: np.random.Generator
) -> Float[np.ndarray, "n 6"]:
    """Noisy readings of the tags; what cannot be negative is not."""
    sd = np.array([PROBE_SD[name] for name in AUXILIARY_TAGS])
    noisy = means + sd[None, :] * rng.standard_normal(means.shape)
    floor = np.array(
        [-np.inf if name in ("capacitance", "TMP") else 0.0 for name in AUXILIARY_TAGS]
    )
    return np.maximum(noisy, floor[None, :])
