"""The names every other folder builds on, and their order.

The orders below are contracts: arrays carry no column names inside jitted code, so a
column *is* its position in one of these tuples. Nothing here needs JAX.
"""

from collections.abc import Mapping
from typing import Final, Literal

CONTROL_NAMES: Final[tuple[str, ...]] = (
    "perfusion_rate",
    "bleed_rate",
    "glucose_setpoint",
    "temperature",
    "agitation",
    "pyruvate_feed",
)
"""The six set-points [vvd, vvd, g/L, degC, rpm, mmol/L], in array order."""

DEFAULT_CONTROLS: Final[Mapping[str, float]] = {
    "perfusion_rate": 1.25,
    "bleed_rate": 0.175,
    "glucose_setpoint": 5.0,
    "temperature": 36.25,
    "agitation": 875.0,
    "pyruvate_feed": 2.5,
}
"""Centre of the default design space, in its units, used where a control is not given."""

STATE_ORDER: Final[tuple[str, ...]] = (
    "VCD",
    "Via",
    "Glc",
    "Gln",
    "Glu",
    "Lac",
    "Amm",
    "Pyr",
    "Titer",
)
"""The measured face: nine columns as an analyser reports them (viability, not dead cells)."""

BALANCED: Final[tuple[str, ...]] = (
    "Xv",
    "Xd",
    "Glc",
    "Gln",
    "Glu",
    "Lac",
    "Amm",
    "Pyr",
    "Titer",
)
"""The nine balanced concentrations of the latent state; `Xd` replaces viability."""

REGISTRY: Final[tuple[str, ...]] = (
    "VCD",
    "VCV",
    "Via",
    "Diam",
    "Glc",
    "Gln",
    "Glu",
    "Lac",
    "Amm",
    "Pyr",
    "Titer",
    "DCD",
    "Lys",
)
"""All thirteen reported species, in the order of the default species registry."""

FORECAST_SPECIES: Final[tuple[str, ...]] = REGISTRY[:-1]
"""The twelve species a forecast reports: the registry without lysed cells."""

STREAM_TOTALS: Final[tuple[str, ...]] = (
    "V_perfusion_L",
    "V_bleed_L",
    "V_glucose_L",
    "V_sample_L",
)
"""Totalised volume of each stream since the previous sample [L]."""

AUXILIARY_TAGS: Final[tuple[str, ...]] = (
    "pH",
    "DO",
    "pCO2",
    "osmolality",
    "capacitance",
    "TMP",
)
"""Optional online tags: stored, alarmed, usable as model inputs."""

AlarmChannel = Literal["log", "file", "email", "slack", "webhook"]
"""Ways to reach people; those of `twin.alarms.channels`."""

HOURS_PER_DAY: Final[float] = 24.0
"""[h/d]; time is in hours inside, in days where people speak of days."""
