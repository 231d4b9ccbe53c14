"""Beckman Coulter Vi-CELL: the XR as a table of runs or a report of one, and the BLU.

Layouts of the XR 2.04 and 2.06 and of BLU exports of 2021 to 2022. Labels state every unit. The
average diameter of both is that of all cells counted, living or not; of the BLU that of the
living alone keeps its label.
"""

from typing import Final

from .instrument import Column, Instrument

_CELLS: Final = "1e6 cells/mL"
_XR_COLUMNS: Final = (
    Column(("Viable cells /ml (x10^6)", "Total viable cells /ml (x10^6)"), "VCD", _CELLS),
    Column(("Total cells /ml (x10^6)",), "", _CELLS),
    Column(("Viability (%)",), "Via", "%"),
    Column(("Avg. diam. (microns)", "Average diameter (microns)"), "Diam", "um"),
    Column(("Avg. circ.", "Average circularity")),
    Column(("Total cells",)),
    Column(("Viable cells",)),
    Column(("Nonviable cells",)),
    Column(("Elapsed time (hrs)",), "", "h"),
    Column(("Comment",), kind="text"),
    Column(("Dilution factor", "Dilution"), kind="dilution"),
)
_XR_SETTINGS: Final = (
    "File name",
    "Cell type",
    "Min diam. (microns)",
    "Min. diam. (microns)",
    "Minimum diameter (microns)",
    "Max diam. (microns)",
    "Max. diam. (microns)",
    "Maximum diameter (microns)",
    "Brightness (%)",
    "Cell brightness (%)",
    "Sharpness",
    "Cell sharpness",
    "V. cell spot brightness (%)",
    "Viable cell spot brightness (%)",
    "Viable cell spot area (%)",
    "Viable spot area",
    "Images",
    "Saved images",
    "Avg. cells / image",
    "Average cells / image",
    "Avg. bg intensity",
    "Avg. background intensity",
    "Average background intensity",
    "Minimum circularity",
    "Aspirate cycles",
    "Trypan blue mixing cycles",
    "Decluster degree",
)
_XR_TITLE: Final = r"vi-cell xr (?P<version>\d{1,3}(?:\.\d{1,4}){1,3})"

VICELL_XR: Final = Instrument(
    name="Beckman Coulter Vi-CELL XR",
    layout="table",
    title=_XR_TITLE,
    samples=("Sample ID",),
    times=(("Sample date/time", "Sample data/time", "Sample date"),),
    header_rows=2,
    columns=_XR_COLUMNS,
    settings=_XR_SETTINGS,
)

VICELL_XR_REPORT: Final = Instrument(
    name="Beckman Coulter Vi-CELL XR, a report of one run",
    layout="report",
    title=_XR_TITLE,
    samples=("Sample ID",),
    times=(("RunDate", "Sample date", "Sample date/time"),),
    columns=_XR_COLUMNS,
    settings=_XR_SETTINGS,
)

VICELL_BLU: Final = Instrument(
    name="Beckman Coulter Vi-CELL BLU",
    layout="table",
    marks=(
        "Viable (x10^6) cells/mL",
        "Total (x10^6) cells/mL",
        "Average viable diameter (\u00b5m)",
        "Average viable circularity",
        "Analysis date/time",
        "Reanalysis date/time",
        "Viable spot brightness (%)",
        "Aspiration cycles",
        "Decluster degree",
    ),
    n_marks=4,
    samples=("Sample ID",),
    times=(("Analysis date/time",),),
    columns=(
        Column(("Viable (x10^6) cells/mL",), "VCD", _CELLS),
        Column(("Total (x10^6) cells/mL",), "", _CELLS),
        Column(("Viability (%)",), "Via", "%"),
        Column(("Average diameter (\u00b5m)",), "Diam", "um"),
        Column(("Average viable diameter (\u00b5m)",), "", "um"),
        Column(("Average circularity",)),
        Column(("Average viable circularity",)),
        Column(("Cell count",)),
        Column(("Viable cells",)),
        Column(("Tag",), kind="text"),
        Column(("Dilution",), kind="dilution"),
    ),
    settings=(
        "Average cells per image",
        "Average background intensity",
        "Bubble count",
        "Cluster count",
        "Images for analysis",
        "Cell type",
        "Minimum Diameter (\u00b5m)",
        "Maximum Diameter (\u00b5m)",
        "Images",
        "Cell sharpness",
        "Minimum circularity",
        "Decluster degree",
        "Aspiration cycles",
        "Viable spot brightness (%)",
        "Viable spot area (%)",
        "Mixing cycles",
        "Reanalysis date/time",
        "Analysis by",
        "Reanalysis by",
        "Wash",
    ),
    footnote="'Analysis date/time' is when the sample was counted",
)
