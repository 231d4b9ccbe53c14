"""What a file beside a table tells that the table does not."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from perfusio_jax._core import STREAM_TOTALS, DataError
from perfusio_jax._core.limits import parse_toml

from .stamps import DATE_ORDERS, DateOrder
from .totals import TOTALS

DECIMALS: Final = {"comma": ",", "point": ".", ",": ",", ".": "."}
"""Decimal mark by what people call it."""


class Sidecar(NamedTuple):
    """Content of `<name>.units.toml`."""

    units: Mapping[str, str] = {}
    """Unit by canonical name, `[units]`."""
    totals: Mapping[str, str] = {}
    """ "cumulative" or "increments" by stream total, `[totals]`."""
    decimal: str | None = None
    """Decimal mark, `decimal = "comma"` or "point"."""
    date_order: DateOrder | None = None
    """`date_order = "dmy"` or "mdy"."""
    metadata: Mapping[str, Any] = {}
    """Of a campaign table, by run, `[metadata]`."""


def read_sidecar(content: bytes) -> Sidecar:
    """Read a sidecar.

    Args:
        content: TOML; empty where there is none.

    Raises:
        DataError: If it is not TOML, or says something nobody knows.
    """
    try:
        found = parse_toml(content, "it", error=DataError)
    except DataError as error:
        raise DataError(f"cannot be read: {error}") from None
    strangers = sorted(set(found) - set(Sidecar._fields))
    if strangers:
        raise DataError(
            f"has tables {', '.join(strangers)}; it may have {', '.join(Sidecar._fields)}."
        )
    tables = {name: found.get(name, {}) for name in ("units", "totals", "metadata")}
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise DataError(f"has {name} = {table!r}; it is a table, [{name}].")
    for key, allowed in (("decimal", tuple(DECIMALS)), ("date_order", DATE_ORDERS)):
        if found.get(key) not in (None, *allowed):
            raise DataError(f"has {key} = {found[key]!r}; allowed are {', '.join(allowed)}.")
    strangers = sorted(set(tables["totals"]) - set(STREAM_TOTALS))
    if strangers:
        raise DataError(
            f"has {', '.join(strangers)} in [totals]; allowed are {', '.join(STREAM_TOTALS)}."
        )
    for run, entry in tables["metadata"].items():
        if not isinstance(entry, dict):
            raise DataError(
                f"has {run} = {entry!r} in [metadata]; it is a table for each run, "
                f"[metadata.{run}]."
            )
    for name, kind in tables["totals"].items():
        if kind not in TOTALS:
            raise DataError(f"has {name} = {kind!r} in [totals]; allowed are {', '.join(TOTALS)}.")
    decimal = found.get("decimal")
    order: DateOrder | None = found.get("date_order")
    return Sidecar(
        {name: str(unit) for name, unit in tables["units"].items()},
        tables["totals"],
        None if decimal is None else DECIMALS[decimal],
        order,
        tables["metadata"],
    )
