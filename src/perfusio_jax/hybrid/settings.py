"""Settings of a fit."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from perfusio_jax.gp import FitConfig
from perfusio_jax.hybrid.observation import AssayNoise

ASSAY_FLOOR = (0.01, 0.01, 0.01, 0.01, 0.01, 0.02, 0.01, 0.01, 0.5)
"""Least noise of a reading, in `STATE_ORDER` [unit of the species]."""


def _leaf(value: Any) -> Array:
    return jnp.asarray(value, float)


class HybridConfig(eqx.Module):
    """Settings of `fit_hybrid`."""

    n_particles: int = eqx.field(static=True, default=96)
    """Ensemble size of the smoother."""
    rounds: int = eqx.field(static=True, default=1)
    """Passes of the hybrid smoother after the first fit."""
    rank: int = eqx.field(static=True, default=1)
    """Rank of the coupling between species."""
    growth: int = eqx.field(static=True, default=64)
    """Rows kept free for new days, and step in which capacity grows."""
    length: int | None = eqx.field(static=True, default=None)
    """Samples a run is padded to, so that a growing one does not recompile; the longest run's."""
    cut_h: float | None = eqx.field(static=True, default=None)
    """Steps that long intervals of a described culture are cut into [h]; the median interval of
    the runs by default. Folds of one campaign share that of the whole."""
    lanes: int | None = eqx.field(static=True, default=None)
    """Runs the campaign is padded to, so that campaigns of different sizes share what is
    compiled; the rows of the process are reserved to match."""
    calibrate: bool = eqx.field(static=True, default=True)
    """Whether the mechanism's constants are moved towards the campaign first. Only a
    `CHOPerfusionModel` has constants to move."""
    use_mechanism: bool = eqx.field(static=True, default=True)
    """False leaves the mechanistic rates out (ablation)."""
    use_gp: bool = eqx.field(static=True, default=True)
    """False leaves the residual out (ablation)."""
    embedding_dim: int = eqx.field(static=True, default=3)
    """Length of a clone's vector when the campaign holds several clones; 0 treats all runs as
    one clone."""
    fit: FitConfig = FitConfig(max_rows=256)
    """Hyper-parameter search."""
    persistence: Array = eqx.field(converter=_leaf, default=0.8)
    """Day-to-day persistence of the mechanism's error in the first pass [-]."""
    assay: AssayNoise = AssayNoise(floor=ASSAY_FLOOR)
    """Measurement noise."""
