"""Values of the wire and values of the library: types, units, quality and time."""

import datetime as dt
import math
from dataclasses import dataclass
from numbers import Real
from typing import Any, Final

from asyncua import ua

from perfusio_jax._core import ConnectorError, UnitError
from perfusio_jax._core.instants import known_instant
from perfusio_jax._core.text import cut
from perfusio_jax._core.units import CANONICAL_UNITS, convert, is_canonical
from perfusio_jax.connectors.base import Quality, Reading
from perfusio_jax.connectors.opcua_names import SPECIAL

# The protocol library re-exports its types by wildcards and declares numbers as subclasses.
# pyright: reportPrivateImportUsage=false, reportArgumentType=false

_NOTHING_THERE: Final = frozenset(
    (
        ua.StatusCodes.BadNoData,
        ua.StatusCodes.BadNoDataAvailable,
        ua.StatusCodes.BadWaitingForInitialData,
    )
)


@dataclass(frozen=True, slots=True)
class Node:
    """A node as it was found on the server."""

    id: ua.NodeId
    kind: ua.VariantType
    """Type of its values."""
    unit: str | None
    """Unit its values come in; None: the canonical one."""
    limits: tuple[float, float] | None = None
    """Lowest and highest value it takes, in that unit, if it says."""


def unit_text(content: Any) -> str | None:
    """How a node spells its unit; None if it does not say."""
    text = getattr(getattr(content, "DisplayName", None), "Text", None)
    return cut(text) if isinstance(text, str) and text else None


def range_of(content: Any) -> tuple[float, float] | None:
    """Range a node declares; None if it does not, or declares an empty one."""
    low, high = getattr(content, "Low", None), getattr(content, "High", None)
    if not isinstance(low, Real) or not isinstance(high, Real) or not float(low) < float(high):
        return None
    return float(low), float(high)


def reading_of(
    value: ua.DataValue, at: dt.datetime, *, name: str = "", unit: str | None = None
) -> Reading:
    """A value of the wire as a reading: what cannot be used is None and says why.

    Args:
        value: Value, status and times.
        at: When it was read.
        name: Whose it is, to convert units.
        unit: Unit it comes in; None: the canonical one.
    """
    status = value.StatusCode if value.StatusCode is not None else ua.StatusCode()
    when = time_of(value)
    content = plain(value)
    if status.is_bad():
        quality: Quality = "missing" if status.value in _NOTHING_THERE else "bad"
        return Reading(None, quality, when, at, status.name)
    if content is None:
        return Reading(None, "missing", when, at, status.name)
    if isinstance(content, bool) or not isinstance(content, Real):
        return Reading(None, "bad", when, at, f"not a number: {type(content).__name__}")
    number = float(content)
    if not math.isfinite(number):
        return Reading(None, "bad", when, at, f"not finite: {number}")
    if unit is not None:
        number = float(convert([number], unit, CANONICAL_UNITS[name], name)[0])
    return Reading(number, "good" if status.is_good() else "uncertain", when, at, status.name)


def plain(value: ua.DataValue) -> Any:
    """Content of a value; None where there is none."""
    return None if value.Value is None else value.Value.Value


def aware(when: dt.datetime) -> dt.datetime:
    """A time with a zone; the wire means UTC."""
    return when if when.tzinfo is not None else when.replace(tzinfo=dt.UTC)


def time_of(value: ua.DataValue) -> dt.datetime | None:
    """Source time of a value, else the server's; None if neither says."""
    when = value.SourceTimestamp or value.ServerTimestamp
    if when is None or when.year < 1971:  # the epoch of OPC UA means that nobody knows
        return None
    return known_instant(when)


def variant_type(kind: ua.DataValue, value: ua.DataValue) -> ua.VariantType:
    """Type of a node's values: that of the value it has, else the one it declares."""
    if value.Value is not None and value.Value.VariantType is not ua.VariantType.Null:
        held = value.Value.VariantType
        if held is not ua.VariantType.String:
            return held
    declared = plain(kind)
    if isinstance(declared, ua.NodeId) and declared.NamespaceIndex == 0:
        try:
            return ua.VariantType(declared.Identifier)
        except ValueError:
            return ua.VariantType.Double
    return ua.VariantType.Double


def foreign_unit(name: str, unit: str | None) -> str | None:
    """The unit of a node if it is not the canonical one.

    Raises:
        ConnectorError: If it cannot be that of the quantity.
    """
    if unit is None or unit == CANONICAL_UNITS.get(name, unit) or name in SPECIAL:
        return None
    try:
        if is_canonical(unit, name):
            return None
    except UnitError as error:
        raise ConnectorError(f"node of {name}: {error} Say `unit` in the node map.") from error
    return unit


def to_node_unit(name: str, value: float, unit: str) -> float:
    """A set-point in the unit of its node."""
    return float(convert([value], CANONICAL_UNITS[name], unit, name)[0])


def has_arrived(wanted: float, shown: float, sent: ua.Variant, node: Node) -> bool:
    """Whether what is read back is what was sent, as well as the node's type can hold it."""
    relative = 1e-6 if sent.VariantType is ua.VariantType.Float else 1e-12
    if node.unit is not None:
        relative = max(relative, 1e-9)
    return math.isclose(wanted, shown, rel_tol=relative, abs_tol=1e-12)
