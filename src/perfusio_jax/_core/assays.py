"""Names for people and noise of assays: one table for the registry and for what reads tables."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple


class Assay(NamedTuple):
    """What is known of how a species is read."""

    label: str
    """Name for axis labels."""
    cv: float = 0.07
    """Coefficient of variation of a typical at-line assay [-]."""


ASSAYS: Final[Mapping[str, Assay]] = MappingProxyType(
    {
        "VCD": Assay("Viable cell density", 0.05),
        "VCV": Assay("Viable cell volume", 0.05),
        "Via": Assay("Viability", 0.02),
        "Diam": Assay("Mean cell diameter", 0.01),
        "Glc": Assay("Glucose"),
        "Gln": Assay("Glutamine"),
        "Glu": Assay("Glutamate"),
        "Lac": Assay("Lactate"),
        "Amm": Assay("Ammonium"),
        "Pyr": Assay("Pyruvate"),
        "Titer": Assay("Product concentration", 0.08),
        "DCD": Assay("Dead cell density", 0.05),
        "Lys": Assay("Lysed cell density", 0.05),
    }
)
"""By species, in the order of the registry."""
