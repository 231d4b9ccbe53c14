"""Samples put together to a table of our names, with a sentence on everything that was done."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from perfusio_jax._core import DataError, UnitError
from perfusio_jax._core.text import cut, in_line, shown
from perfusio_jax._core.unit_text import parse_unit
from perfusio_jax._core.units import canonical_unit, conversion

from ..tables.labels import KNOWN, NUMBERS, bare_label, fold
from ..tables.raw import RawTable

SAMPLE, TIME = "sample_id", "sampled_at"
_WITHOUT_UNIT: Final = ("pH",)
"""Names of what has only one unit, which files may leave away."""
_FEW: Final = 3
"""So many examples are named."""


@dataclass(slots=True)
class Row:
    """What was measured of one sample at one time."""

    line: int
    sample: str
    time: str | None
    values: dict[str, tuple[Any, str]] = field(default_factory=dict)
    """Cell and unit by our name, or by the instrument's label."""


class Assembly:
    """Rows of samples that become a table."""

    def __init__(self, source: str, word: str = "line") -> None:
        self.word = word
        """What a line is called in messages."""
        self.rows: list[Row] = []
        self.notes: list[str] = [f"the file is an export of {source}"]
        self._why: dict[tuple[str, str], list[str]] = {}
        self._misfits: dict[tuple[str, str, str], int] = {}
        self._remarks: dict[tuple[str, str], list[str]] = {}
        self._failed: dict[tuple[str, str], list[str]] = {}
        self._dilutions: list[tuple[str, float]] = []

    def add(self, line: int, sample: str, time: str | None) -> Row:
        """Begin a row."""
        self.rows.append(Row(line, sample, time))
        return self.rows[-1]

    def put(self, row: Row, name: str, label: str, cell: Any, unit: str, why: str = "") -> None:
        """Put a value into a row.

        Args:
            row: The row.
            name: Our name for it; empty where we have none.
            label: The instrument's.
            cell: Number, limit, text or `None`.
            unit: As the file states it; empty for none.
            why: Why there is no value, to be told.

        Raises:
            DataError: If the value has a name of ours and a unit that cannot be read, or none.
        """
        if name and not unit and cell is not None:
            if name not in _WITHOUT_UNIT:
                raise DataError(
                    f"'{label}' of sample {in_line(row.sample)} ({self.word} {row.line}) states no "
                    f"unit, and that of {name} is not guessed; allowed are units such as "
                    f"{canonical_unit(name)}. Export it with units."
                )
            unit = canonical_unit(name)
        if name and not _fits(name, label, unit):
            misfit = (label, unit, name)
            self._misfits[misfit] = self._misfits.get(misfit, 0) + 1
            name = ""
        if not name:
            label = own_label(label)
        if why:
            self._why.setdefault((label, why), []).append(row.sample)
        row.values[name or label] = (cell, unit)

    def has(self, row: Row, name: str, label: str, unit: str) -> bool:
        """Whether a row has a value of this name already."""
        return (name if name and _fits(name, label, unit) else own_label(label)) in row.values

    def dilute(self, row: Row, factor: float | None) -> None:
        """Note the dilution of a sample."""
        if factor is not None and factor != 1.0:
            self._dilutions.append((row.sample, factor))

    def remark(self, label: str, how: str, sample: str) -> None:
        """Note how a value came about."""
        self._remarks.setdefault((label, how), []).append(sample)

    def fail(self, sample: str, error: str, is_all: bool) -> None:
        """Note an error: of everything in a measurement, or of nothing that was read."""
        what = "no value is taken" if is_all else "nothing that is read is concerned"
        self._failed.setdefault((error, what), []).append(sample)

    def table(self, separator: str | None = None, decimal: str = ".") -> RawTable:
        """All rows as one table; of a text all cells are text, what is missing is empty.

        Args:
            separator: Field separator of a text; `None` for anything else.
            decimal: Decimal mark of text.

        Raises:
            DataError: If there is no row.
        """
        if not self.rows:
            raise DataError(f"{self.notes[0]} and holds no sample.")
        values = dict.fromkeys(key for row in self.rows for key in row.values)
        filled = [
            k for k in values if any(row.values.get(k, (None,))[0] is not None for row in self.rows)
        ]
        units = {key: self._unit(key) for key in filled}
        header = [label_of(key, units[key]) for key in filled]
        table = RawTable([SAMPLE, TIME, *header], separator=separator, decimal=decimal)
        for row in self.rows:
            cells = [_cell(row.values.get(key), units[key]) for key in filled]
            found = [row.sample or None, row.time, *cells]
            if separator is not None:  # a table of text has only texts
                found = ["" if cell is None else str(cell) for cell in found]
            table.rows.append(found)
            table.lines.append(row.line)
        table.units = {label_of(k, unit): unit for k, unit in units.items() if unit}
        empty = [key for key in values if key not in units]
        table.notes = [*self.notes, *self._told(empty)]
        return table

    def _unit(self, key: str) -> str:
        """The unit of a column: the first that stands in it."""
        return next(
            (row.values[key][1] for row in self.rows if key in row.values and row.values[key][1]),
            "",
        )

    def _told(self, empty: list[str]) -> Iterable[str]:
        if empty:
            yield f"columns without a single value are left out: {listed(empty)}"
        for (label, why), samples in self._why.items():
            yield f"{_values(samples)} of '{label}' missing for {why}: {few(samples)}"
        for (label, how), samples in self._remarks.items():
            yield f"{_values(samples)} of '{label}' {how}: {few(samples)}"
        for (error, what), samples in self._failed.items():
            yield f"error {error} in {len(samples)} measurements, {what}: {few(samples)}"
        for (label, unit, name), n in self._misfits.items():
            yield (
                f"'{label}' in {unit} keeps its label ({n} values): {unit} cannot be converted to "
                f"the unit of {name}"
            )
        if self._dilutions:
            found = ", ".join(
                f"{shown(sample)} {factor:g}" for sample, factor in self._dilutions[:_FEW]
            )
            dots = ", ..." if len(self._dilutions) > _FEW else ""
            yield (
                f"dilutions ({found}{dots}) are counted in by the instrument: its values are taken "
                "as they are"
            )
        times = Counter(row.sample for row in self.rows if row.sample)
        again = [sample for sample, n in times.items() if n > 1]
        if again:
            yield f"measured more than once, with a row for each measurement: {few(again)}"
        timeless = sum(row.time is None for row in self.rows)
        if timeless:
            yield f"{timeless} rows have no time"
        nameless = sum(not row.sample for row in self.rows)
        if nameless:
            yield f"{nameless} rows have no name of a sample"


@lru_cache(maxsize=4096)
def _fits(name: str, label: str, unit: str) -> bool:
    """Whether numbers in a unit can be those of our name; a text that is no unit is refused."""
    if not unit:
        return True
    try:
        conversion(unit, name)
        return True
    except UnitError as error:
        try:
            parse_unit(unit)
        except UnitError:
            raise DataError(
                f"'{label}' is in {in_line(unit)}, which is no unit of {name}: {error}"
            ) from None
    return False


@lru_cache(maxsize=4096)
def own_label(label: str) -> str:
    """An instrument's label, never one that would be taken for a name of ours.

    Example:
        >>> own_label("Na+"), own_label("Temperature")
        ('Na+', 'analyser Temperature')
    """
    is_ours = fold(bare_label(label)[0]) in KNOWN
    return f"analyser {label}" if is_ours else label


def _values(samples: list[str]) -> str:
    return "1 value" if len(samples) == 1 else f"{len(samples)} values"


def label_of(key: str, unit: str) -> str:
    """The header of a column: our names carry their unit, an instrument's label is as it was."""
    return f"{key} [{unit}]" if unit and key in NUMBERS else key


def _cell(value: tuple[Any, str] | None, unit: str) -> Any:
    """A cell; with its unit where that is not the column's."""
    if value is None or value[0] is None:
        return None
    cell, own = value
    return cell if not own or same_unit(own, unit) else f"{cell} {own}"


@lru_cache(maxsize=4096)
def same_unit(one: str, other: str) -> bool:
    """Whether two spellings are of one unit."""
    if one == other:
        return True
    try:
        a, b = parse_unit(one), parse_unit(other)
    except UnitError:
        return one.casefold() == other.casefold()
    return (a.dimensions, a.factor, a.zero) == (b.dimensions, b.factor, b.zero)


def few(names: Iterable[str]) -> str:
    """The first three different names."""
    known = [*dict.fromkeys(names)]
    told = ", ".join(shown(cut(name, 40)) or "without a name" for name in known[:_FEW])
    return f"{told}, ..." if len(known) > _FEW else told


def listed(labels: Iterable[str]) -> str:
    """Labels in quotes."""
    return ", ".join(f"'{shown(cut(label, 60))}'" for label in labels)
