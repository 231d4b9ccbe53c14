"""Nova BioProfile FLEX2: one row per sample, a row of units at times.

Layout of exports of 2020 to 2022. Most of them state no unit; what stands here is what the
analyser is delivered with. `pH`, `PCO2` and `PO2` are measured at 37 degC; what is reckoned to
the temperature of the vessel (`@ Temp`) keeps its label.
"""

from typing import Final

from .instrument import Column, Instrument

FLEX2: Final = Instrument(
    name="Nova BioProfile FLEX2",
    layout="table",
    marks=(
        "Date & Time",
        "Sample Type",
        "Chemistry Dilution Ratio",
        "Chemistry Flow Time",
        "pH / Gas Flow Time",
        "pH @ Temp",
        "PCO2 @ Temp",
        "Sparging O2%",
        "Time In Tray",
        "Pre-Dilution Multiplier",
        "Cell Inspection Type",
    ),
    n_marks=4,
    samples=("Sample ID",),
    times=(("Date & Time",),),
    has_units_row=True,
    counts=(("Total Density", "Total Cell Count"), ("Viable Density", "Total Live Count")),
    columns=(
        Column(("Gluc",), "Glc", "g/L", is_stated=False),
        Column(("Gln",), "Gln", "mmol/L", is_stated=False),
        Column(("Glu",), "Glu", "mmol/L", is_stated=False),
        Column(("Lac",), "Lac", "g/L", is_stated=False),
        Column(("NH4+",), "Amm", "mmol/L", is_stated=False),
        Column(("Na+",), "", "mmol/L", is_stated=False),
        Column(("K+",), "", "mmol/L", is_stated=False),
        Column(("Ca++",), "", "mmol/L", is_stated=False),
        Column(("HCO3",), "", "mmol/L", is_stated=False),
        Column(("pH",), "pH", "pH"),
        Column(("PCO2",), "pCO2", "mmHg", is_stated=False),
        Column(("PO2",), "", "mmHg", is_stated=False),
        Column(("Osm",), "osmolality", "mOsm/kg", is_stated=False),
        Column(("Viable Density",), "VCD", "1e6 cells/mL", is_stated=False),
        Column(("Total Density",), "", "1e6 cells/mL", is_stated=False),
        Column(("Viability",), "Via", "%", is_stated=False),
        Column(("Avg. Live Diameter", "Average Live Cell Diameter"), "Diam", "um", is_stated=False),
        Column(("Live Cell Std. Deviation",), "", "um", is_stated=False),
        Column(("Total Live Count",)),
        Column(("Total Cell Count",)),
        Column(("pH @ Temp",), "", "pH"),
        Column(("PCO2 @ Temp",), "", "mmHg", is_stated=False),
        Column(("PO2 @ Temp",), "", "mmHg", is_stated=False),
        Column(("O2 Saturation",), "", "%", is_stated=False),
        Column(("CO2 Saturation",), "", "%", is_stated=False),
        Column(("Vessel Temperature (\u00b0C)",), "", "degC"),
        Column(("Vessel ID",), kind="text"),
        Column(("Batch ID",), kind="text"),
        Column(("Sample Time",), kind="text"),
        Column(("Pre-Dilution Multiplier",), kind="dilution"),
        Column(("Chemistry Dilution Ratio",), kind="dilution"),
        Column(("Cell Density Dilution",), kind="dilution"),
    ),
    settings=(
        "Sample Type",
        "Cell Type",
        "Cell Inspection Type",
        "Valid Images",
        "Vessel Pressure (psi)",
        "Sparging O2%",
        "Chemistry Flow Time",
        "pH / Gas Flow Time",
        "Cell Density Flow",
        "Tray Location",
        "Time In Tray",
        "Operator",
    ),
    footnote="'Date & Time' is when the sample was analysed",
)
