"""Every instrument that is read."""

from typing import Final

from .cedex import CEDEX_BIO, CEDEX_HIRES
from .flex2 import FLEX2
from .instrument import Instrument
from .nucleoview import NUCLEOVIEW
from .vicell import VICELL_BLU, VICELL_XR, VICELL_XR_REPORT

ALLOTROPE: Final = Instrument(name="Allotrope simple model (ASM)", layout="allotrope")

INSTRUMENTS: Final = (
    FLEX2,
    VICELL_XR,
    VICELL_XR_REPORT,
    VICELL_BLU,
    CEDEX_HIRES,
    CEDEX_BIO,
    NUCLEOVIEW,
    ALLOTROPE,
)
"""In the order they are tried."""
