"""Values of the wire and values of the library: types, units, quality and time."""

import datetime as dt
import math
from dataclasses import dataclass
from fractions import Fraction
from numbers import Real
from typing import Any, Final

import numpy as np
from asyncua import ua

from perfusio_jax._core import ConnectorError, DataError, UnitError
from perfusio_jax._core.instants import EARLIEST, LATEST, known_instant
from perfusio_jax._core.text import cut
from perfusio_jax._core.units import (
    CANONICAL_UNITS,
    Conversion,
    conversion,
    to_device,
)
from perfusio_jax.connectors.base import Quality, Reading
from perfusio_jax.connectors.opcua.names import (
    CULTURE,
    INTERVAL,
    SAMPLE_DAY,
    SAMPLE_TIME,
    SPECIAL,
)
from perfusio_jax.connectors.opcua.nodes import INTEGERS
from perfusio_jax.connectors.tables.vocabulary import OURS, Vocabulary

# The protocol library re-exports its types by wildcards and declares numbers as subclasses.
# pyright: reportPrivateImportUsage=false, reportArgumentType=false

_NOTHING_THERE: Final = frozenset(
    (
        ua.StatusCodes.BadNoData,
        ua.StatusCodes.BadNoDataAvailable,
        ua.StatusCodes.BadWaitingForInitialData,
    )
)
_COUNTED: Final = {SAMPLE_TIME: "time_h", INTERVAL: "time_h", SAMPLE_DAY: "day"}
"""Columns of what counts time."""
_TEXTS: Final = (CULTURE,)
"""What is no number."""
_NEVER: Final = dt.datetime(1601, 1, 1, tzinfo=dt.UTC)
"""Zero on the wire."""
_NEWEST: Final = LATEST - dt.timedelta(seconds=1)


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
    step: float | None = None
    """Distance of the values it can hold, multiples of it in that unit; None: it does not say."""
    unit_node: ua.NodeId | None = None
    """Where it states its unit, if it does."""
    stated: Any = None
    """What stood there when it was found."""
    unit_since: dt.datetime | None = None
    """Since when its unit is this one, if it was another before; what is older is of that one."""
    is_array: bool = False
    """Whether it holds many values."""
    doubt: str | None = None
    """Why nothing may be written to it, if so."""
    remark: str | None = None
    """What is odd about its values, if anything is."""


def unit_text(content: Any) -> str | None:
    """How a node spells its unit; None if it does not say."""
    text = getattr(getattr(content, "DisplayName", None), "Text", None)
    return cut(text) if isinstance(text, str) and text else None


def range_of(content: Any) -> tuple[float, float] | None:
    """Range a node declares; None if it does not: nothing, no range, or 0 to 0.

    Raises:
        ConnectorError: If the ends of the range are no numbers or in the wrong order.
    """
    low, high = getattr(content, "Low", None), getattr(content, "High", None)
    if not isinstance(low, Real) or not isinstance(high, Real):
        return None
    low, high = float(low), float(high)
    if low == high == 0.0:  # as a range is when nobody has filled it in
        return None
    if not low <= high:
        raise ConnectorError(f"its EURange is from {low:g} to {high:g}, which is none")
    return low, high


def reading_of(
    value: ua.DataValue,
    at: dt.datetime,
    *,
    name: str = "",
    unit: str | None = None,
    words: Vocabulary = OURS,
) -> Reading:
    """A value of the wire as a reading: what cannot be used is None and says why.

    Args:
        value: Value, status and times.
        at: When it was read.
        name: Whose it is, to convert units.
        unit: Unit it comes in; None: the one it is wanted in.
        words: The names of the culture and their units.
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
        with np.errstate(over="ignore"):
            number = float(line_of(name, unit, words)(number))
        if not math.isfinite(number):
            return Reading(None, "bad", when, at, f"not finite in {words.unit(name)}")
    return Reading(number, "good" if status.is_good() else "uncertain", when, at, status.name)


LAST_DAY: Final = 36_500
"""No culture is older [d]; a larger number is how some devices say that there is none."""


def day_in(value: ua.DataValue, where: str) -> int | None:
    """The culture day [d] a node shows: a whole number of any type; None if there is none yet.

    Args:
        value: What was read.
        where: The node, for messages.

    Raises:
        ConnectorError: If the server does not vouch for it.
        DataError: If it is not a whole number, or none that a day can be.
    """
    status, day = value.StatusCode, plain(value)
    if status is not None and status.is_bad():
        if status.value in _NOTHING_THERE:
            return None
        raise ConnectorError(f"{where} is {status.name}: nobody knows which day is shown.")
    if day is None:
        return None
    kind = value.Value.VariantType.name if value.Value is not None else ""
    if isinstance(day, list | tuple):
        kind = f"array of {kind}"
    number = float(day) if isinstance(day, Real) and not isinstance(day, bool) else math.nan
    if not number.is_integer() or number > LAST_DAY:
        raise DataError(
            f"{where} holds {_in_short(day)} ({kind}); a culture day is needed, a whole number "
            f"from 0 to {LAST_DAY}, of any type of number (below 0: there is no sample yet)."
        )
    return int(number) if number >= 0 else None


def _in_short(content: Any) -> str:
    """A value for a message, not longer than a line."""
    if isinstance(content, str):
        content = content[:40]  # before it is looked at
    elif isinstance(content, list | tuple):
        return f"{len(content)} values"
    elif not isinstance(content, Real):
        return f"a {type(content).__name__}"
    return repr(content)[:60]


def plain(value: ua.DataValue) -> Any:
    """Content of a value; None where there is none."""
    return None if value.Value is None else value.Value.Value


def aware(when: dt.datetime) -> dt.datetime:
    """A time with a zone; the wire means UTC."""
    return when if when.tzinfo is not None else when.replace(tzinfo=dt.UTC)


def time_of(value: ua.DataValue) -> dt.datetime | None:
    """Source time of a value, else the server's; None if neither says.

    Only the first moment the protocol can name means that nobody knows. The clock of a device
    that has lost the time begins in 1970 or 1980; such a stamp is a time like any other, and an
    old one. One no arithmetic should be done with, such as 9999, is the first or the last that
    may be: older or newer than any sample, and not without a stamp.
    """
    for when in (value.SourceTimestamp, value.ServerTimestamp):
        if when is not None and aware(when) > _NEVER:
            beyond = EARLIEST if aware(when) < EARLIEST else _NEWEST
            return known_instant(aware(when)) or beyond
    return None


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


def line_of(name: str, unit: str, words: Vocabulary = OURS) -> Conversion:
    """From the unit of a node to the one a quantity is wanted in.

    Args:
        name: The quantity.
        unit: The node's.
        words: The names of the culture and their units.

    Raises:
        UnitError: If it cannot be that of the quantity.
    """
    return conversion(unit, name) if words.is_ours(name) else words.conversion(unit, name)


def foreign_unit(name: str, unit: str | None, words: Vocabulary = OURS) -> str | None:
    """The unit of a node if it is not the one its quantity is wanted in.

    Raises:
        ConnectorError: If it cannot be that of the quantity.
    """
    column = _COUNTED.get(name, name)
    if unit is None or name in _TEXTS:
        return None
    wanted = words.units.get(column) or CANONICAL_UNITS.get(column, unit)
    if unit == wanted:
        return None
    try:
        if line_of(column, unit, words) == Conversion(Fraction(1)):
            return None
    except UnitError as error:
        if name in SPECIAL:
            return None
        raise ConnectorError(f"node of {name}: {error} Say `unit` in the node map.") from error
    if name in SPECIAL:
        raise ConnectorError(
            f"node of {name}: it counts in '{unit}'; '{CANONICAL_UNITS[column]}' is needed."
        )
    return unit


def to_node_unit(name: str, value: float, unit: str, words: Vocabulary = OURS) -> float:
    """A set-point in the unit of its node.

    Raises:
        DataError: If the conversion is not one of the control's own; nothing is to be sent.
    """
    try:
        if words.is_ours(name):
            return to_device(value, unit, name)
        return float(words.conversion(unit, name).inverse(value))
    except UnitError as error:
        raise DataError(f"nothing was sent: {error}") from None


def step_of(precision: Any, kind: ua.VariantType, held: Any) -> float | None:
    """Step of the values a node can hold, from its `ValuePrecision` and its type.

    Args:
        precision: Digits after the decimal point; negative: insignificant ones before it.
        kind: Type of the node; a whole number has steps of at least 1.
        held: Its value now, which a step that is meant must be able to give.

    Returns:
        The step in the node's unit; None if it says nothing, or nothing that fits its value.
    """
    whole = 1.0 if kind in INTEGERS else None
    if not _is_number(precision) or precision != round(precision) or not -6 <= precision <= 9:
        return whole
    step = max(float(f"1e{-round(precision)}"), whole or 0.0)
    if not _is_number(held):
        return step
    count = float(held) / step
    fits = math.isfinite(count) and abs(count - round(count)) <= 1e-6 * max(1.0, abs(count))
    return step if fits else whole


def grid_of(name: str, node: Node, words: Vocabulary = OURS) -> tuple[float, float] | None:
    """Step and one value of what a control's node can hold, in the unit it is wanted in."""
    if node.step is None:
        return None
    if node.unit is None:
        return node.step, 0.0
    line = line_of(name, node.unit, words)
    return float(Fraction(repr(node.step)) * line.slope), float(line.offset)


def fitted(value: float, node: Node) -> float:
    """A number as its node takes it: what rounding did to it on the way here is undone.

    A value of the node's grid is that value again, one at an end of its range is so after a
    change of unit, and one of 32 bits does not leave the range by its rounding.

    Args:
        value: In the node's unit.
        node: Where it goes.
    """
    if node.step is not None:
        near = float(round(value / node.step) * Fraction(repr(node.step)))
        if math.isclose(value, near, rel_tol=1e-9, abs_tol=1e-9 * node.step):
            value = near
    low, high = node.limits or (-math.inf, math.inf)
    for end in (low, high) if node.unit is not None else ():
        if math.isfinite(end) and math.isclose(value, end, rel_tol=1e-9):
            value = end
    if node.kind is ua.VariantType.Float and abs(value) < 3.4e38 and low <= value <= high:
        held = np.float32(value)
        if float(held) > high:
            held = np.nextafter(held, np.float32(-math.inf))
        elif float(held) < low:
            held = np.nextafter(held, np.float32(math.inf))
        value = float(held)
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def has_arrived(
    name: str,
    wanted: float,
    shown: float,
    sent: ua.Variant,
    node: Node,
    words: Vocabulary = OURS,
) -> bool:
    """Whether what is read back is what was sent, as well as the node can hold it."""
    grid = grid_of(name, node, words)
    if grid is not None and abs(wanted - shown) <= 0.5 * grid[0] * (1.0 + 1e-9):
        return True
    relative = 1e-6 if sent.VariantType is ua.VariantType.Float else 1e-12
    if node.unit is not None:
        relative = max(relative, 1e-9)
    return math.isclose(wanted, shown, rel_tol=relative, abs_tol=1e-12)
