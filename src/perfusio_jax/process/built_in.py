"""Cultures that are described already."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from perfusio_jax._core import BALANCED, CONTROL_NAMES, DEFAULT_CONTROLS
from perfusio_jax._core.plausible import PLAUSIBLE
from perfusio_jax._core.units import canonical_unit
from perfusio_jax.chemistry import Medium, SpeciesRegistry
from perfusio_jax.chemistry.media import MEDIUM_FIELDS

from .description import Process
from .parts import REST, Control, Quantity, Stream

_REGISTRY = SpeciesRegistry.DEFAULT
_CELLS = ("Xv", "Xd")
_OF_REGISTRY = {"Xv": "VCD", "Xd": "DCD"}
"""Balanced cells under the names the registry has for them."""

_ROLES: Final[Mapping[str, tuple[str, str | None]]] = MappingProxyType(
    {
        "perfusion_rate": ("flow", None),
        "bleed_rate": ("flow", None),
        "glucose_setpoint": ("target", "Glc"),
        "temperature": ("environment", None),
        "agitation": ("environment", None),
        "pyruvate_feed": ("composition", "Pyr"),
    }
)


def _species(name: str, **more: Any) -> Quantity:
    known = _REGISTRY[_OF_REGISTRY.get(name, name)]
    return Quantity(
        name=name,
        unit=canonical_unit(name),
        label=known.full_name,
        lo=known.lo,
        hi=known.hi,
        cv=known.cv,
        **more,
    )


def _control(name: str) -> Control:
    role, quantity = _ROLES[name]
    span = PLAUSIBLE[name]
    return Control(
        name=name,
        unit=canonical_unit(name),
        role=role,  # pyright: ignore[reportArgumentType]
        lo=span.lo,
        hi=span.hi,
        default=DEFAULT_CONTROLS[name],
        quantity=quantity,
    )


def _default(field: str) -> float:
    """A number of the default medium as it is written: no array, which would have a precision."""
    return float(Medium.__dataclass_fields__[field].default)


def _medium() -> dict[str, float | str]:
    content = {name: _default(field) for name, field in MEDIUM_FIELDS.items()}
    return {name: value for name, value in content.items() if value > 0.0}


_CULTURE = (
    *(_species(n, is_measured=False) if n == "Xd" else _species(n) for n in BALANCED),
    _species("Via", kind="derived", formula="viability", of=_CELLS),
)

CHO_PERFUSION = Process(
    name="cho_perfusion",
    description="CHO cells in perfusion at constant volume, glucose held by a concentrated feed",
    volume_L=0.25,
    biomass="Xv",
    quantities=_CULTURE,
    controls=tuple(_control(n) for n in CONTROL_NAMES),
    streams=(
        Stream(
            name="medium",
            direction="in",
            flow="perfusion_rate",
            carries=_medium(),
            adds={"Pyr": "pyruvate_feed"},
            total="V_perfusion_L",
        ),
        Stream(
            name="glucose_feed",
            direction="in",
            flow="glucose_setpoint",
            carries={"Glc": _default("glucose_feed")},
            total="V_glucose_L",
        ),
        Stream(name="bleed", direction="out", flow="bleed_rate", total="V_bleed_L"),
        Stream(
            name="harvest",
            direction="out",
            flow=REST,
            passes=dict.fromkeys(_CELLS, 0.0),
        ),
    ),
)
"""The culture this library was first built for."""

CHO_FED_BATCH = Process(
    name="cho_fed_batch",
    description="CHO cells in fed-batch: boluses of glucose and glutamine, a volume that moves",
    volume_L=0.2,
    biomass="Xv",
    quantities=tuple(q for q in _CULTURE if q.name != "Pyr"),
    controls=(
        _control("temperature"),
        Control(
            name="pH",
            unit="pH",
            role="environment",
            lo=PLAUSIBLE["pH"].lo,
            hi=PLAUSIBLE["pH"].hi,
            default=7.0,
        ),
        Control(
            name="glucose_bolus",
            unit="g",
            role="bolus",
            lo=0.0,
            hi=5.0,
            default=0.0,
            quantity="Glc",
        ),
        Control(
            name="glutamine_bolus",
            unit="mmol",
            role="bolus",
            lo=0.0,
            hi=20.0,
            default=0.0,
            quantity="Gln",
        ),
    ),
)
"""A fed-batch: nothing flows between samples, boluses come at them."""

MONOD_CHEMOSTAT = Process(
    name="monod_chemostat",
    description="One organism on one substrate in a chemostat",
    volume_L=1.0,
    biomass="X",
    quantities=(
        Quantity(name="X", unit="g/L", label="Biomass, dry", hi=100.0),
        Quantity(name="S", unit="g/L", label="Substrate", hi=100.0),
        Quantity(name="P", unit="g/L", label="Product", hi=100.0),
    ),
    controls=(
        Control(name="dilution", unit="1/h", role="flow", lo=0.0, hi=1.0, default=0.1),
        Control(
            name="feed_S",
            unit="g/L",
            role="composition",
            lo=0.0,
            hi=100.0,
            default=10.0,
            quantity="S",
        ),
    ),
    streams=(
        Stream(name="feed", direction="in", flow="dilution", carries={"S": "feed_S"}),
        Stream(name="outflow", direction="out", flow=REST),
    ),
)
"""The plainest continuous culture."""

CONSORTIUM = Process(
    name="consortium",
    description="Two strains in one chemostat, each held by an amino acid that light lets it make",
    volume_L=1.0,
    biomass="biomass_1",
    strains=("biomass_2",),
    quantities=(
        Quantity(name="glucose", unit="mmol/L", label="Glucose", hi=250.0, cv=0.03, floor=0.05),
        Quantity(name="biomass_1", unit="g/L", label="Strain 1, dry", hi=20.0, cv=0.03, floor=0.01),
        Quantity(
            name="biomass_2",
            unit="g/L",
            label="Strain 2, dry",
            hi=20.0,
            cv=0.03,
            floor=0.01,
            start=1.0,
        ),
        Quantity(
            name="lysine",
            unit="mmol/L",
            kind="level",
            label="Lysine in the cells of strain 1",
            hi=1500.0,
            is_measured=False,
        ),
        Quantity(
            name="leucine",
            unit="mmol/L",
            kind="level",
            label="Leucine in the cells of strain 2",
            hi=200.0,
            is_measured=False,
        ),
    ),
    controls=(
        Control(name="blue", unit="W/m^2", role="environment", lo=0.005, hi=3.0, default=0.1),
        Control(name="red", unit="W/m^2", role="environment", lo=0.15, hi=3.0, default=0.4),
        Control(name="dilution", unit="1/h", role="flow", lo=0.0, hi=0.5, default=0.15),
    ),
    streams=(
        Stream(name="feed", direction="in", flow="dilution", carries={"glucose": 200.0}),
        Stream(name="outflow", direction="out", flow=REST),
    ),
)
"""A consortium steered by light; `mechanistic.ConsortiumKinetics` moves it."""

BUILT_IN: Final[Mapping[str, Process]] = MappingProxyType(
    {p.name: p for p in (CHO_PERFUSION, CHO_FED_BATCH, MONOD_CHEMOSTAT, CONSORTIUM)}
)
"""By name."""
