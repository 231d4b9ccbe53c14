"""Composition of what flows into the reactor."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from perfusio_jax._core import BALANCED, Scalar
from perfusio_jax._core.glucose import GLUCOSE_FEED


def _leaf(value: float | Array) -> Array:
    return jnp.asarray(value, float)


class Medium(eqx.Module):
    """Perfusion medium and concentrated glucose feed; all fields are traced scalars.

    Rich enough in glutamine to carry several tens of millions of cells per millilitre at
    two vessel volumes a day, with glucose held mainly by the concentrated feed.
    """

    glucose: Scalar = eqx.field(converter=_leaf, default=6.0)
    """Glucose of the perfusion medium [g/L]."""
    glutamine: Scalar = eqx.field(converter=_leaf, default=8.0)
    """Glutamine of the perfusion medium [mmol/L]."""
    glutamate: Scalar = eqx.field(converter=_leaf, default=0.5)
    """Glutamate of the perfusion medium [mmol/L]."""
    lactate: Scalar = eqx.field(converter=_leaf, default=0.0)
    """Lactate of the perfusion medium [mmol/L]."""
    ammonium: Scalar = eqx.field(converter=_leaf, default=0.2)
    """Ammonium of the perfusion medium [mmol/L], from glutamine that decays in storage."""
    pyruvate: Scalar = eqx.field(converter=_leaf, default=0.0)
    """Pyruvate of the basal medium [mmol/L]; the control `pyruvate_feed` comes on top."""
    glucose_feed: Scalar = eqx.field(converter=_leaf, default=GLUCOSE_FEED)
    """Glucose of the concentrated feed [g/L]."""


MEDIUM_FIELDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "Glc": "glucose",
        "Gln": "glutamine",
        "Glu": "glutamate",
        "Lac": "lactate",
        "Amm": "ammonium",
        "Pyr": "pyruvate",
    }
)
"""Field of `Medium` by species; what is not here is in no medium."""


def inflow_concentrations(
    medium: Medium, pyruvate_feed: Float[Array, "..."] | float
) -> Float[Array, "... 9"]:
    """Concentrations of the perfusion stream in `BALANCED` order.

    Args:
        medium: Basal medium.
        pyruvate_feed: Pyruvate supplement [mmol/L], scalar or batch-shaped.

    Returns:
        No cells, no product; glucose in g/L, the rest in mmol/L.
    """
    supplement = jnp.asarray(pyruvate_feed, float)
    zero = jnp.zeros_like(supplement)
    content = {name: getattr(medium, field) for name, field in MEDIUM_FIELDS.items()}
    content["Pyr"] = content["Pyr"] + supplement
    return jnp.stack([zero + content.get(name, 0.0) for name in BALANCED], axis=-1)


def glucose_feed_concentrations(medium: Medium) -> Float[Array, " 9"]:
    """Concentrations of the concentrated glucose feed in `BALANCED` order.

    Args:
        medium: What flows in; only its `glucose_feed` [g/L] counts here.

    Returns:
        Glucose [g/L], and zero for the eight others.
    """
    column = BALANCED.index("Glc")
    return jnp.zeros(len(BALANCED), medium.glucose_feed.dtype).at[column].set(medium.glucose_feed)
