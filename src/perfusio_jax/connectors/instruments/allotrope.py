"""Allotrope simple models (ASM): JSON that converters of many instruments write.

Read is the structure and no schema, so any version of the manifest will do: an aggregate document
holds documents of a technique, each with measurement documents, and a quantity is an object of
`value` and `unit`. What is known of the names is the table below.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from perfusio_jax._core import DataError
from perfusio_jax._core import limits as bounds
from perfusio_jax._core.limits import parse_json
from perfusio_jax._core.text import in_line

from ..tables.raw import RawTable
from .assembly import Assembly, Row, listed
from .instrument import Instrument, folded
from .readings import read_times

NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "viable cell density": "VCD",
        "dead cell density": "DCD",
        "viability": "Via",
        "glucose": "Glc",
        "glutamine": "Gln",
        "glutamate": "Glu",
        "lactate": "Lac",
        "ammonium": "Amm",
        "ammonia": "Amm",
        "pyruvate": "Pyr",
        "igg human": "Titer",
        "ph": "pH",
        "pco2": "pCO2",
        "osmolality": "osmolality",
    }
)
"""Our name by a property or analyte, without "(cell counter)", in lower case."""
_DIAMETERS: Final = ("average total cell diameter", "average live cell diameter")
"""The first that a file has is our diameter."""
_PLACES: Final = ("processed data document", "analyte document")
"""Documents of a measurement that hold quantities; others hold settings, texts, or what was
reckoned from quantities, and are left out."""
_AGGREGATE: Final = "aggregate document"
_DOCUMENT: Final = "document"
_MEASUREMENT: Final = "measurement document"
_QUANTITY: Final = "@quantity value"
_CELLS: Final = "(cell counter)"
_NO_UNIT: Final = ("(unitless)", "unitless", "")
_MOST: Final = 100_000
"""Measurements of one file."""


@dataclass(slots=True)
class Measurement:
    """One measurement document."""

    number: int
    sample: str
    batch: str
    time: Any
    quantities: list[tuple[str, Any, str, str]] = field(default_factory=list)
    """Label, value, unit and the range of the test."""
    errors: list[tuple[str, str]] = field(default_factory=list)
    """What failed, and the error."""
    dilution: float | None = None
    technique: str = ""
    """Such as "cell counting"; an error of it is one of all quantities."""


def is_allotrope(content: bytes) -> bool:
    """Whether a file begins like one."""
    head = content[: 1 << 16].lstrip(b"\xef\xbb\xbf \t\r\n")
    return head.startswith(b"{") and (
        b'"$asm.manifest"' in head
        or b"http://purl.allotrope.org" in head
        or b'aggregate document"' in head
    )


def read_allotrope(content: bytes, instrument: Instrument) -> RawTable:
    """Rows of measurements, one for each sample and time.

    Args:
        content: The file.
        instrument: The door to all instruments.

    Raises:
        DataError: If it is not JSON of this structure, or holds nothing we know.
    """
    tree = parse_json(content, "the file")
    if not isinstance(tree, dict):
        raise DataError("is JSON and no Allotrope simple model: it is not an object.")
    groups = [*_groups(tree)]
    measurements = [m for group in groups for m in group]
    names = {_bare(label) for m in measurements for label, *_ in m.quantities}
    diameter = next((d for d in _DIAMETERS if d in names), "")
    known = {*NAMES, diameter}
    if not names & known:
        raise DataError(
            f"is an Allotrope simple model ({in_line(tree.get('$asm.manifest', 'no manifest'))}) "
            f"without a quantity of a cell culture; it has {listed(sorted(names)[:12]) or 'none'}."
        )
    found = Assembly(f"{instrument.name}{_device(tree)}", "measurement")
    times, left = _times(measurements)
    for group in groups:
        rows: dict[tuple[str, str | None], list[Row]] = {}
        for measurement in group:
            _put(found, rows, measurement, times[measurement.number], diameter)
    table = found.table()
    table.notes += _told(tree, times, left, diameter)
    return table


def _groups(tree: dict[str, Any]) -> Iterator[list[Measurement]]:
    """Measurements by the document of a technique they stand in, which is one of a sample."""
    number = 0
    for aggregate, technique in _documents(tree, "", 0):
        group: list[Measurement] = []
        inherited = {k: v for k, v in aggregate.items() if k != _MEASUREMENT}
        for document in _list(aggregate.get(_MEASUREMENT)):
            number += 1
            if number > _MOST:
                raise DataError(f"holds more than {_MOST:,} measurements, the most that are read.")
            group.append(_measurement(document, inherited, number))
            group[-1].technique = technique
        yield group


def _documents(node: Any, technique: str, depth: int) -> Iterator[tuple[dict[str, Any], str]]:
    """Every document that holds measurement documents, in order, and its technique."""
    if depth > bounds.DEPTH:
        raise DataError(f"is nested more than {bounds.DEPTH} deep, as no model is.")
    if isinstance(node, list):
        for item in node:
            yield from _documents(item, technique, depth + 1)
    elif isinstance(node, dict):
        if _MEASUREMENT in node:
            yield node, technique
            return
        for key, value in node.items():
            is_own = key.endswith(_DOCUMENT) and not key.endswith(_AGGREGATE)
            name = key.removesuffix(_DOCUMENT).strip() if is_own else technique
            yield from _documents(value, name, depth + 1)


def _list(node: Any) -> list[dict[str, Any]]:
    items = node if isinstance(node, list) else [node]
    return [item for item in items if isinstance(item, dict)]


def _parts(document: dict[str, Any], name: str) -> Iterator[dict[str, Any]]:
    """Documents of a name below one, with or without the aggregate around them."""
    around = document.get(name.replace("document", _AGGREGATE))
    for holder in [document, *_list(around)]:
        yield from _list(holder.get(name))


def _measurement(document: dict[str, Any], above: dict[str, Any], number: int) -> Measurement:
    where = f"measurement {number}"
    samples = [*_parts(document, "sample document"), *_parts(above, "sample document"), {}]
    made = Measurement(
        number,
        _text(samples[0].get("sample identifier"), where),
        _text(samples[0].get("batch identifier"), where),
        document.get("measurement time", above.get("measurement time")),
    )
    made.quantities += _quantities(document, where)
    for name in _PLACES:
        for part in _parts(document, name):
            made.quantities += _quantities(part, where)
            for settings in _parts(part, "data processing document"):
                made.dilution = made.dilution or _dilution(settings, where)
    for error in _parts(document, "error document"):
        feature = _text(error.get("error feature"), where)
        made.errors.append((feature, _text(error.get("error"), where)))
    return made


def _quantities(document: dict[str, Any], where: str) -> Iterator[tuple[str, Any, str, str]]:
    analyte = document.get("analyte name")
    custom = document.get("custom information document")
    kit = custom.get("detection kit", "") if isinstance(custom, dict) else ""
    for label, value in document.items():
        found = _quantity(value, f"{where}: '{label[:40]}'")
        if found is not None:
            name = _text(analyte, where) if analyte is not None else label
            yield name, found[0], found[1], str(kit)


def _quantity(node: Any, where: str) -> tuple[Any, str] | None:
    if isinstance(node, dict) and isinstance(node.get(_QUANTITY), dict):
        node = node[_QUANTITY]
    if not isinstance(node, dict) or "value" not in node or "unit" not in node:
        return None
    unit = _text(node["unit"], where)
    return node["value"], "" if unit in _NO_UNIT else unit


def _dilution(settings: dict[str, Any], where: str) -> float | None:
    for label, value in settings.items():
        found = _quantity(value, where) if "dilution factor" in label else None
        if found is not None and isinstance(found[0], int | float):
            return float(found[0])
    return None


def _text(node: Any, where: str) -> str:
    if node is None:
        return ""
    if isinstance(node, str | int | float) and len(str(node)) <= bounds.TEXT_CHARS:
        return str(node).strip()
    raise DataError(f"{where}: {in_line(node)} stands where a text is needed.")


def _bare(label: str) -> str:
    return label.replace(_CELLS, "").strip().casefold()


def _put(
    found: Assembly,
    rows: dict[tuple[str, str | None], list[Row]],
    measurement: Measurement,
    time: str | None,
    diameter: str,
) -> None:
    """Values of one measurement, in a row of its sample and time that has none of them yet."""
    known = rows.setdefault((measurement.sample, time), [])
    is_failed = _tell_errors(found, measurement)
    for label, value, unit, kit in measurement.quantities:
        name = "Diam" if _bare(label) == diameter else NAMES.get(_bare(label), "")
        row = next((r for r in known if not found.has(r, name, label, unit)), None)
        if row is None:
            row = found.add(measurement.number, measurement.sample, time)
            known.append(row)
            if measurement.batch:
                found.put(row, "", "batch identifier", measurement.batch, "")
            found.dilute(row, measurement.dilution)
        errors = [error for feature, error in measurement.errors if _concerns(feature, label, kit)]
        cell, why = _cell(value, f"measurement {measurement.number}: '{label}'")
        if errors or is_failed:
            cell, why = None, f"the error '{errors[0][:40]}'" if errors else ""
        found.put(row, name, label, cell, unit, why)


def _tell_errors(found: Assembly, measurement: Measurement) -> bool:
    """Tell the errors that concern no quantity by name; whether one is of all of them."""
    is_failed = False
    for feature, error in measurement.errors:
        if any(_concerns(feature, label, kit) for label, _, _, kit in measurement.quantities):
            continue
        is_all = folded(feature) in ("", folded(measurement.technique))
        is_failed = is_failed or is_all
        found.fail(
            measurement.sample,
            f"'{error[:40]}'" + ("" if is_all else f" of '{feature[:40]}'"),
            is_all,
        )
    return is_failed


def _concerns(feature: str, label: str, kit: str) -> bool:
    """Whether an error is of a quantity; `glucose - Low` is of that test of it alone."""
    said = folded(feature)
    return said in (folded(label), folded(_bare(label)), folded(f"{label} - {kit}"))


def _cell(value: Any, where: str) -> tuple[Any, str]:
    """A number; nothing where a converter writes that there is none."""
    if value is None or isinstance(value, str):
        return None, "" if value is None else f"'{value[:20]}'"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"{where} is {in_line(value)}, which is no number.")
    try:
        number = float(value)
    except OverflowError:
        raise DataError(f"{where} is {in_line(value)}, larger than any number.") from None
    if number != number or number in (float("inf"), float("-inf")):
        return None, f"'{value}'"
    if number == 0 and str(number).startswith("-"):
        return None, "-0.0, which converters write where there is no value"
    return value, ""


def _times(measurements: list[Measurement]) -> tuple[dict[int, str | None], list[str]]:
    places = [f"measurement {m.number}" for m in measurements]
    cells = [m.time if isinstance(m.time, str | None) else str(m.time) for m in measurements]
    found, left = read_times(cells, "measurement time", places)
    return {m.number: t for m, t in zip(measurements, found, strict=True)}, left


def _device(tree: dict[str, Any]) -> str:
    for key, value in tree.items():
        if key.endswith(_AGGREGATE) and isinstance(value, dict):
            device = value.get("device system document")
            model = device.get("model number") if isinstance(device, dict) else None
            if isinstance(model, str) and model.strip():
                return f" of a {in_line(model.strip(), 60)[1:-1]}"
    return ""


def _told(
    tree: dict[str, Any], times: dict[int, str | None], left: list[str], diameter: str
) -> Iterator[str]:
    manifest = tree.get("$asm.manifest")
    if isinstance(manifest, str):
        yield f"its manifest is {in_line(manifest, 160)[1:-1]}"
    yield "sampled_at is the time of the measurement; a line is the number of a measurement"
    stated = [t for t in times.values() if t]
    if stated and all(t.endswith("+00:00") for t in stated):
        yield "all times say +00:00, which converters also write where no zone is stated"
    if left:
        yield f"{len(left)} times are left as they are: nothing tells which date is meant"
    if diameter == _DIAMETERS[1]:
        yield "Diam is that of the living cells; the file has none of all cells"
