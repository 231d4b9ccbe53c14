"""The header of a table: which of its labels means what, in which unit."""

from typing import Final

from perfusio_jax._core import (
    DataError,
)
from perfusio_jax._core.text import in_line

from .column_map import ColumnMap, meaning_of
from .labels import KNOWN, LONG, TIMES
from .raw import RawTable
from .vocabulary import OURS, Vocabulary

IS_LONG: Final = (
    "has the columns 'species' and 'value', so it is in long format; say wide_format=False (--long "
    "on the command line)."
)
ANOTHER_CULTURE: Final = (
    "A culture of another kind is described first: perfusio-jax process init FILE reads it off "
    "such a table, and --process takes it."
)
_OTHERS: Final = (
    "Other names are told in the column map (--map), in its table [columns]: variable = 'species', "
    "where a column is called variable."
)


class Header:
    """Labels and what they mean."""

    def __init__(
        self,
        table: RawTable,
        column_map: ColumnMap,
        wide: bool,
        *,
        has_start: bool = False,
        words: Vocabulary = OURS,
    ) -> None:
        self.words = words
        """Names and units of columns."""
        self.times = (*TIMES, "sampled_at") if has_start else TIMES
        self.labels = table.header
        self.column_map = column_map
        self.used: set[str] = set()
        """Labels of the map that meant something."""
        self._known: dict[str, tuple[str, str]] = {}
        self.names: list[str] = []
        self.units: list[str] = []
        self.totals: dict[str, str] = {}
        """What is known of stream totals, by canonical name."""
        self.is_wide = wide
        known = {*KNOWN, *LONG, *words.numbers, "ignore"}
        for label in self.labels:
            name, unit = self.meaning(label)
            if name not in known and not name.endswith("_quality"):
                name = ""  # a name of a culture that is not read here
            self.names.append(name)
            self.units.append(unit or table.units.get(label, ""))
        self.names = words.with_cells(self.names)
        self._check()

    def meaning(self, label: str) -> tuple[str, str]:
        """Canonical name of a label, empty if it has none, and its unit, if it states one."""
        if label not in self._known:
            self._known[label] = self._look_up(label)
        return self._known[label]

    def _look_up(self, label: str) -> tuple[str, str]:
        name, unit, said = meaning_of(label, self.column_map, self.words)
        if said is not None:
            self.used.add(said)
        if said is not None and said in self.column_map.totals:
            self.totals[name] = self.column_map.totals[said]
        return name, unit

    @property
    def unused(self) -> list[str]:
        """Labels of the map that nothing in the table is called by."""
        return [label for label in self.column_map.names if label not in self.used]

    def _check(self) -> None:
        known = [name for name in self.names if name not in ("", "ignore")]
        for name in known:
            if known.count(name) > 1:
                where = [n + 1 for n, other in enumerate(self.names) if other == name]
                labels = ", ".join(f"'{self.labels[n - 1]}' (column {n})" for n in where)
                raise DataError(f"{name} occurs more than once: {labels}. Keep one of them.")
        if not set(self.times) & set(known):
            stamped = "sampled_at" in known
            raise DataError(
                f"there is no column 'day' or 'time_h' among {self._listed()}. "
                + (
                    "Say when the run began (--inoculated-at, or RUN=TIME once for each run), and "
                    "sampled_at will do."
                    if stamped
                    else "Is the separator right, or does the header stand on another line "
                    "(--header-row)? Else a column map says which of them is the time, as "
                    '\'"EFT (h)" = "time_h"\' does: perfusio-jax inspect FILE --write-map '
                    "columns.toml writes one to look over, --map columns.toml takes it."
                )
            )
        has_long = {"species", "value"} <= set(known)
        numbers = set(self.words.numbers)
        if self.is_wide and has_long and not numbers & set(known):
            raise DataError(IS_LONG)
        if not self.is_wide and not has_long:
            raise DataError(lacks_long(self._listed()))
        if self.is_wide and not numbers & set(known):
            is_long = any(label.strip().casefold() == "value" for label in self.labels)
            raise DataError(
                f"none of its columns is a measurement: {self._listed()}. Known are "
                f"{', '.join(self.words.species)}; a column map can give your names."
                + ("" if self.words.process else f" {ANOTHER_CULTURE}")
                + (f" A table of one value a row is read with --long. {_OTHERS}" if is_long else "")
            )
        for name in known:
            self.refuse_strange(name)

    def refuse_strange(self, name: str) -> None:
        """Refuse a control of ours that the process does not know.

        Raises:
            DataError: If it is one.
        """
        if self.words.process and name in self.words.strange_controls:
            raise DataError(
                f"{name} is a control that process '{self.words.process}' does not know; allowed: "
                f"{', '.join(self.words.controls) or 'none'}. Add it to the process, or say "
                '"ignore" in a column map.'
            )

    def _listed(self) -> str:
        return ", ".join(in_line(label) for label in self.labels[:20])


def lacks_long(labels: str) -> str:
    """What to say of a table of one value a row that does not call its columns so.

    Args:
        labels: What they are called.
    """
    return f"long format needs the columns 'species' and 'value'; there are {labels}. {_OTHERS}"
