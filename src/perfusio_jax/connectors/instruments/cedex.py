"""Roche Cedex: the counter HiRes and the analyser Bio HT.

Layouts of HiRes exports of 2018 to 2021, which state no unit, and of the archive file of Bio HT
with software 5, 6 and 7. A name of a test is the analyte and its range (low, standard, high, with
dilution): `GLC2B` and `GLC2D` are both glucose. Human IgG is taken for the product; `FAB...` and
mouse IgG may be anything and keep the name of their test.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from .instrument import Column, Instrument

_PER_ML: Final = "cells/mL"

CEDEX_HIRES: Final = Instrument(
    name="Roche Cedex HiRes",
    layout="table",
    marks=(
        "Cedex ID",
        "Workarea name",
        "Data set name",
        "Viable Cell Conc.",
        "Avg Segm. Area",
        "Avg Compactness",
        "Total Object Count",
        "Aggregate Rate",
    ),
    n_marks=4,
    samples=("Sample identifier", "Sample identifer"),
    times=(("Sample draw Time",), ("Date finished",)),
    counts=(
        ("Viable Cell Conc.", "Viable Cell Count"),
        ("Dead Cell Conc.", "Dead Cell Count"),
        ("Total Cell Conc.", "Total Cell Count"),
    ),
    columns=(
        Column(("Viable Cell Conc.",), "VCD", _PER_ML, is_stated=False),
        Column(("Dead Cell Conc.",), "DCD", _PER_ML, is_stated=False),
        Column(("Total Cell Conc.",), "", _PER_ML, is_stated=False),
        Column(("Viability",), "Via", "%", is_stated=False),
        Column(("Avg Diameter",), "Diam", "um", is_stated=False),
        Column(("Avg Compactness",)),
        Column(("Viable Cell Count",)),
        Column(("Dead Cell Count",)),
        Column(("Total Cell Count",)),
        Column(("Std Dev.",), "", _PER_ML, is_stated=False),
        Column(("Aggregate Rate",), "", "%", is_stated=False),
        Column(("Reactor identifier", "Reactor identifer"), kind="text"),
        Column(("Data set name",), kind="text"),
        Column(("Comment",), kind="text"),
        Column(("Dilution",), kind="dilution"),
    ),
    settings=(
        "Cedex ID",
        "System name",
        "System description",
        "Default system",
        "Cedex ID (processed)",
        "System name (processed)",
        "System description (processed)",
        "Default system (processed)",
        "Workarea name",
        "Sample volume",
        "Cell type name",
        "Username",
        "Avg Area",
        "Avg Perimeter",
        "Avg Segm. Area",
        "Total Object Count",
    ),
)

CEDEX_BIO: Final = Instrument(name="Roche Cedex Bio HT", layout="archive")
"""Recognised by the mark of its archive files."""

TESTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        **dict.fromkeys(("GLC2L", "GLC2B", "GLC2D", "GLC3L", "GLC3B", "GLC3D"), "Glc"),
        **dict.fromkeys(("GLN2B", "GLN2D"), "Gln"),
        **dict.fromkeys(("GLU2B", "GLU2D"), "Glu"),
        **dict.fromkeys(("LAC2B", "LAC2D"), "Lac"),
        **dict.fromkeys(("NH3LB", "NH3B", "NH3D"), "Amm"),
        **dict.fromkeys(("PYRB", "PYRD"), "Pyr"),
        **dict.fromkeys(("IGGLB", "IGGHB", "IGGHD"), "Titer"),
        "OSM2B": "osmolality",
    }
)
"""Our name of what a test measures; a test that is not here keeps its own name."""

HOW: Final[Mapping[str, str]] = MappingProxyType(
    {
        "v": "measured after a dilution",
        "^": "measured after a concentration",
        "->": "measured with a replicate",
        "c": "calculated with a corrected calibration, which was accepted",
        "q": "measured beside a corrected control, which was accepted",
        "r": "corrected, or its replicate is, and was accepted",
    }
)
"""Flags of results that stand, and what they say; somebody at the analyser accepted them."""

DOUBTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "C": "a calibration that was not accepted",
        "p": "a postponed calibration",
        "Q": "a control that was not accepted",
        "R": "a result that was not accepted",
        "d": "a deleted result",
    }
)
"""Flags of results that do not stand. Any other flag is taken for one of these. The meaning of
both is that of the host interface of the analyser (Roche, version 1.24, software 3.6 and 5.1)."""
