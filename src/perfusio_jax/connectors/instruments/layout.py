"""Which column of a file is what, by the description of its instrument."""

from dataclasses import dataclass, field
from typing import Any, Final

from perfusio_jax._core import DataError
from perfusio_jax._core.text import in_line

from ..tables.cells import parse_number
from .assembly import listed
from .grid import as_text, is_blank
from .instrument import Column, Instrument, bracketed, folded, stem

_LONGEST_UNIT: Final = 40


@dataclass(slots=True)
class Layout:
    """Which column of a file is what."""

    labels: list[str]
    sample: int = -1
    times: list[int] = field(default_factory=list)
    """Best first."""
    kept: dict[int, tuple[Column, str, str]] = field(default_factory=dict)
    """Column, label and unit by position."""
    assumed: set[int] = field(default_factory=set)
    """Positions whose unit the file does not state."""
    left_out: list[str] = field(default_factory=list)
    unknown: list[int] = field(default_factory=list)

    def numbers(self, row: list[Any]) -> list[Any]:
        """Cells of a row that are described as numbers."""
        return [row[n] for n, (c, *_) in self.kept.items() if c.kind == "number" and n < len(row)]


def layout_of(labels: list[str], instrument: Instrument, where: str) -> Layout:
    """What stands where.

    Args:
        labels: The header.
        instrument: What wrote the file.
        where: Line of the header, for messages.

    Raises:
        DataError: If a label stands twice, what the samples need is missing, or a label has
            another unit in it than the instrument writes.
    """
    layout = Layout(labels)
    samples = [folded(label) for label in instrument.samples]
    times = {folded(label): n for n, group in enumerate(instrument.times) for label in group}
    ranked: list[tuple[int, int]] = []
    seen: dict[str, int] = {}
    for n, label in enumerate(labels):
        key = folded(label)
        if key in seen:
            raise DataError(
                f"{where}: '{label}' stands above columns {seen[key] + 1} and {n + 1}; which of "
                "them is meant? Keep one."
            )
        if key:
            seen[key] = n
        column = instrument.known.get(key)
        if key in samples and layout.sample < 0:
            layout.sample = n
        elif key in times:
            ranked.append((times[key], n))
        elif column is not None:
            _keep(layout, n, column, column.unit)
        elif key in instrument.left_out:
            layout.left_out.append(label)
        else:
            _other(layout, n, instrument, where)
    layout.times = [n for _, n in sorted(ranked)]
    _check_complete(layout, instrument, where)
    return layout


def _keep(layout: Layout, n: int, column: Column, unit: str) -> None:
    twin = [layout.labels[k] for k, (c, *_) in layout.kept.items() if c is column]
    if twin:
        raise DataError(f"'{twin[0]}' and '{layout.labels[n]}' are the same; keep one of them.")
    layout.kept[n] = (column, layout.labels[n], unit)
    if unit and not column.is_stated:
        layout.assumed.add(n)


def _other(layout: Layout, n: int, instrument: Instrument, where: str) -> None:
    """A label that is not in the description: the same with another unit, or something new."""
    label = layout.labels[n]
    column = instrument.stems.get(stem(label))
    unit = bracketed(label)
    if column is None or not unit or (column.name and column.is_stated):
        if column is not None and column.name:
            raise DataError(
                f"{where}: '{label}' is not how {instrument.name} writes '{column.labels[0]}', and "
                "the unit may be another; it is not read. Is it another version, or was it edited?"
            )
        layout.unknown.append(n)
        return
    layout.kept[n] = (column, label, unit)


def _check_complete(layout: Layout, instrument: Instrument, where: str) -> None:
    for found, labels in (
        (layout.sample >= 0, instrument.samples),
        (bool(layout.times), instrument.time_labels),
        (
            any(column.name for column, *_ in layout.kept.values()),
            [c.labels[0] for c in instrument.columns if c.name],
        ),
    ):
        if not found:
            raise DataError(
                f"{where}: an export of {instrument.name} without {listed(labels[:1])} cannot be "
                f"read; there are {listed(layout.labels[:20])}. Choose the column in the export."
            )


def is_units_row(row: list[Any], layout: Layout) -> bool:
    """Whether a row below the header holds units: no sample, no time, no number."""
    if not all(is_blank(row[n]) for n in (layout.sample, *layout.times)):
        return False
    texts = [as_text(cell) for cell in layout.numbers(row) if not is_blank(cell)]
    return bool(texts) and not any(isinstance(parse_number(text), float) for text in texts)


def take_units(row: list[Any], layout: Layout, where: str) -> None:
    """Take the units a row states in place of those the instrument is known to write."""
    for n, (column, label, _) in list(layout.kept.items()):
        unit = " ".join(as_text(row[n]).split())
        if unit in ("", "-") or column.kind != "number":
            continue
        if len(unit) > _LONGEST_UNIT:
            raise DataError(f"{where}: '{label}' has the unit {in_line(unit)}, which is none.")
        layout.kept[n] = (column, label, unit.replace(" / ", "/"))
        layout.assumed.discard(n)


def layout_notes(layout: Layout, instrument: Instrument) -> list[str]:
    """What is to be told of the columns."""
    told: list[str] = []
    if layout.times:
        others = "".join(f", where that is empty '{layout.labels[n]}'" for n in layout.times[1:])
        told.append(f"sampled_at is '{layout.labels[layout.times[0]]}'{others}")
    if instrument.footnote:
        told.append(instrument.footnote)
    units = [f"{layout.kept[n][1]} in {layout.kept[n][2]}" for n in sorted(layout.assumed)]
    if units:
        told.append(
            f"the file states no unit of these; the ones {instrument.name} is delivered with are "
            f"taken: {', '.join(units)}"
        )
    if layout.left_out:
        told.append(f"settings and remarks are left out: {listed(layout.left_out)}")
    return told
