"""Names of the OPC UA address space: namespaces, browse paths, units and ranges.

The shape is that of LADS (OPC 30500-1): the rack is one device in the DeviceSet, each vessel a
FunctionalUnit, each measurement a sensor function with a SensorValue, each set-point a control
function with TargetValue and CurrentValue. The browse names are LADS's; the type definitions
are those of the base standard.
"""

# The protocol library re-exports its types by wildcards and declares numbers as subclasses.
# pyright: reportPrivateImportUsage=false, reportArgumentType=false

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from asyncua import ua

from perfusio_jax._core import (
    AUXILIARY_TAGS,
    CONTROL_NAMES,
    FORECAST_SPECIES,
    REGISTRY,
    STREAM_TOTALS,
    ConfigError,
)
from perfusio_jax._core.units import CANONICAL_UNITS

DI_URI: Final = "http://opcfoundation.org/UA/DI/"
LADS_URI: Final = "http://opcfoundation.org/UA/LADS/"
RACK_URI: Final = "urn:perfusio-jax:rack"
"""Namespace of everything that is this rack's own."""

NAMESPACES: Final[Mapping[str, str]] = MappingProxyType(
    {"ua": "http://opcfoundation.org/UA/", "di": DI_URI, "lads": LADS_URI, "rack": RACK_URI}
)
"""Short names that browse paths may use without saying what they mean."""

DEVICE: Final = "ambr250"
"""Browse name of the rack."""

UNITS_URI: Final = "http://www.opcfoundation.org/UA/units/un/cefact"

_COMMON_CODES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "%": "P1",
        "degC": "CEL",
        "g/L": "GL",
        "mg/L": "M1",
        "mmol/L": "M33",
        "um": "4H",
        "rpm": "RPM",
        "L": "LTR",
        "h": "HUR",
        "d": "DAY",
        "mmHg": "HN",
        "mbar": "MBR",
        "pH": "Q30",
        "vvd": "E91",
    }
)
"""UNECE Recommendation 20 common codes; vessel volumes per day are reciprocal days."""

CONTROL_RANGES: Final[Mapping[str, tuple[float, float]]] = MappingProxyType(
    {
        "perfusion_rate": (0.0, 4.0),
        "bleed_rate": (0.0, 1.0),
        "glucose_setpoint": (0.0, 12.0),
        "temperature": (30.0, 40.0),
        "agitation": (200.0, 1500.0),
        "pyruvate_feed": (0.0, 20.0),
    }
)
"""What the emulated device accepts, in canonical units; a write outside is refused."""

SENSOR_RANGES: Final[Mapping[str, tuple[float, float]]] = MappingProxyType(
    {
        "VCD": (0.0, 150.0),
        "VCV": (0.0, 60.0),
        "Via": (0.0, 100.0),
        "Diam": (5.0, 40.0),
        "Glc": (0.0, 20.0),
        "Gln": (0.0, 20.0),
        "Glu": (0.0, 20.0),
        "Lac": (0.0, 100.0),
        "Amm": (0.0, 40.0),
        "Pyr": (0.0, 20.0),
        "Titer": (0.0, 20000.0),
        "DCD": (0.0, 100.0),
        "pH": (6.0, 8.0),
        "DO": (0.0, 100.0),
        "pCO2": (0.0, 250.0),
        "osmolality": (0.0, 1000.0),
        "capacitance": (-5.0, 300.0),
        "TMP": (-200.0, 1000.0),
        "V_perfusion_L": (0.0, 10.0),
        "V_bleed_L": (0.0, 10.0),
        "V_glucose_L": (0.0, 10.0),
        "V_sample_L": (0.0, 10.0),
        "volume_L": (0.0, 0.5),
    }
)
"""Ranges of the sensors, in canonical units."""

SAMPLED: Final = (*FORECAST_SPECIES, *STREAM_TOTALS)
"""What comes with the daily sample."""
ONLINE: Final = (*AUXILIARY_TAGS, "volume_L")
"""What is refreshed all the time."""
SAMPLE_DAY: Final = "sample_day"
"""Key of the node that says which culture day the sampled values are of."""
SAMPLE_TIME: Final = "sample_time_h"
"""Key of the node that says how long after inoculation [h] they were taken."""
HEARTBEAT: Final = "heartbeat"
"""Key of the node that counts while the device lives."""
CONFIGURATION: Final = "configuration_version"
"""Key of the node whose value changes with the configuration of the device."""
CULTURE: Final = "process"
"""Key of the node that says, as JSON, which described culture a vessel has; empty for ours."""
INTERVAL: Final = "sample_interval_h"
"""Key of the node that says how far apart samples are [h]."""
SPECIAL: Final = (SAMPLE_DAY, SAMPLE_TIME, HEARTBEAT, CONFIGURATION, CULTURE, INTERVAL)

GROUPED: Final = (*REGISTRY, *STREAM_TOTALS)
"""What may belong to a daily sample, whoever serves it."""
EXTRA: Final = "x_"
"""Names that begin so are streamed and recorded; the twin makes nothing of them."""
KNOWN: Final = (*GROUPED, *ONLINE, *CONTROL_NAMES, *SPECIAL)
"""Names a node map may hold."""


def unit_id(unit: str) -> int:
    """OPC UA's number of a unit: the characters of its UNECE code, -1 if it has none."""
    code = _COMMON_CODES.get(unit)
    return -1 if code is None else int.from_bytes(code.encode("ascii"), "big")


def engineering_unit(name: str, unit: str | None = None) -> ua.EUInformation:
    """Engineering unit of a node; by name where UNECE has no code.

    Args:
        name: Species, control or tag.
        unit: Its unit; the canonical one if None.
    """
    unit = CANONICAL_UNITS[name] if unit is None else unit
    number = unit_id(unit)
    return ua.EUInformation(
        NamespaceUri=UNITS_URI if number >= 0 else RACK_URI,
        UnitId=number,
        DisplayName=ua.LocalizedText(unit),
        Description=ua.LocalizedText(f"canonical unit of {name}"),
    )


@dataclass(frozen=True, slots=True)
class BrowsePath:
    """A way from the Objects folder to a node, by namespace URI and browse name."""

    steps: tuple[tuple[str, str], ...]
    """(namespace URI, browse name) of each step."""

    def __str__(self) -> str:
        short = {uri: name for name, uri in NAMESPACES.items()}
        return "".join(f"/{short.get(uri, uri)}:{name}" for uri, name in self.steps)

    def relative(self, indices: Mapping[str, int]) -> ua.RelativePath:
        """The same in the indices of one server.

        Raises:
            KeyError: If the server does not know one of the namespaces.
        """
        return ua.RelativePath(
            Elements=[
                ua.RelativePathElement(
                    ReferenceTypeId=ua.NodeId(ua.ObjectIds.HierarchicalReferences),
                    IsInverse=False,
                    IncludeSubtypes=True,
                    TargetName=ua.QualifiedName(name, indices[uri]),
                )
                for uri, name in self.steps
            ]
        )


def parse_path(text: str, namespaces: Mapping[str, str] = NAMESPACES) -> BrowsePath:
    """A browse path such as `/di:DeviceSet/rack:ambr250/...`, from the Objects folder.

    Args:
        text: Steps separated by slashes, each a short name of a namespace, a colon and a browse
            name; without the first two the standard's own namespace is meant.
        namespaces: URI by short name.

    Raises:
        ConfigError: If it has no steps or uses a short name nobody has explained.
    """
    steps = []
    for part in text.strip().lstrip("/").split("/"):
        short, colon, name = part.rpartition(":")
        if not name:
            raise ConfigError(f"browse path {text!r} has an empty step.")
        if short.isdigit():
            raise ConfigError(
                f"browse path {text!r} uses the namespace index {short}, which a server may "
                f"change when it restarts; name the namespace: {', '.join(namespaces)}."
            )
        if colon and short not in namespaces:
            raise ConfigError(
                f"browse path {text!r} uses the namespace {short!r}; explained are "
                f"{', '.join(namespaces)} (a table [namespaces] in the node map explains more)."
            )
        steps.append((namespaces[short] if colon else NAMESPACES["ua"], name))
    return BrowsePath(tuple(steps))


_LEAVES: Final[Mapping[str, str]] = MappingProxyType(
    {
        SAMPLE_DAY: "SampleDay",
        SAMPLE_TIME: "SampleTime",
        HEARTBEAT: "Heartbeat",
        CULTURE: "Process",
        INTERVAL: "SampleInterval",
    }
)


def unit_steps(reactor_id: str) -> tuple[tuple[str, str], ...]:
    """Steps from the Objects folder to the FunctionalUnit of a vessel."""
    return (
        (DI_URI, "DeviceSet"),
        (RACK_URI, DEVICE),
        (LADS_URI, "FunctionalUnitSet"),
        (RACK_URI, reactor_id),
    )


def rack_path(
    reactor_id: str, name: str, *, leaf: str | None = None, is_control: bool | None = None
) -> BrowsePath:
    """Where the emulated rack keeps a value.

    Args:
        reactor_id: Vessel.
        name: Species, tag, stream total, control, or one of `SPECIAL`.
        leaf: `SensorValue`, `TargetValue` or `CurrentValue`; by default the sensor's value or
            the control's target.
        is_control: Whether it is a control; told by its name if None.
    """
    unit = unit_steps(reactor_id)
    if name == HEARTBEAT:
        return BrowsePath((*unit[:2], (RACK_URI, _LEAVES[name])))
    if name in _LEAVES:
        return BrowsePath((*unit, (RACK_URI, _LEAVES[name])))
    is_set = name in CONTROL_NAMES if is_control is None else is_control
    default = "TargetValue" if is_set else "SensorValue"
    return BrowsePath(
        (*unit, (LADS_URI, "FunctionSet"), (RACK_URI, name), (LADS_URI, leaf or default))
    )
