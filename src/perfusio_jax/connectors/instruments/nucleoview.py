"""ChemoMetec NucleoView: the count of one sample, as the NucleoCounter NC-200 exports it.

Layout of exports of 2023. A value the program is not sure of has its doubt in brackets behind it
(`13.2 (Uncertain determination)`); such a value is left out and told.
"""

from typing import Final

from .instrument import Column, Instrument

NUCLEOVIEW: Final = Instrument(
    name="ChemoMetec NucleoView",
    layout="report",
    between=";",
    has_doubts=True,
    marks=(
        "Estimated cell diameter (um)",
        "(%) of cells in aggregates with five or more cells",
    ),
    samples=("Image",),
    times=(("Date time",),),
    offset="Time zone offset",
    columns=(
        Column(("Live (cells/ml)",), "VCD", "cells/mL"),
        Column(("Dead (cells/ml)",), "DCD", "cells/mL"),
        Column(("Total (cells/ml)",), "", "cells/mL"),
        Column(("Viability (%)",), "Via", "%"),
        Column(("Estimated cell diameter (um)",), "Diam", "um"),
        Column(("Cell diameter standard deviation (um)",), "", "um"),
        Column(("(%) of cells in aggregates with five or more cells",), "", "%"),
        Column(("Operator",), kind="text"),
        Column(("Multiplication factor",), kind="dilution"),
    ),
    settings=(
        "Sample Volume (ul)",
        "Dilution Volume (ul)",
        "cm filename",
        "Protocol template title",
        "Protocol template purpose",
        "Protocol template filename",
        "Protocol adaptation title",
        "Protocol adaptation purpose",
        "Protocol adaptation filename",
        "Instrument type",
        "Instrument s/n",
        "Login ID",
    ),
)
