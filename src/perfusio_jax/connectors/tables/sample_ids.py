"""What the name of a sample says: run, reactor, clone, day and hour, by a pattern.

A pattern such as `{run}-D{day}-BR{reactor}` is fields with text between them; `*` stands for
anything, also for nothing. Days and hours are numbers, the other fields any text. A name that
fits in two ways is refused, never read in one of them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from perfusio_jax._core import ConfigError, DataError
from perfusio_jax._core.text import LONGEST_NAME, in_line

from .raw import RawTable

FIELDS: Final = ("run", "day", "hour", "reactor", "clone", "sample")
"""What a pattern may hold; `sample` is matched and not used further."""
_COLUMNS: Final = {"run": "run_id", "reactor": "reactor_id", "clone": "clone_id"}
_NUMBERS: Final = ("day", "hour")
_NUMBER: Final = re.compile(r"(?a:\d{1,6}(?:\.\d{1,6})?)")
_LONGEST_NUMBER: Final = 13
"""Characters of such a number."""
_PIECE: Final = re.compile(r"\{(?P<field>[^{}]*)\}|(?P<any>\*+)|(?P<text>[^{}*]+)|(?P<stray>[{}])")
_HOURS: Final = 24.0
_FEW: Final = 3


@dataclass(frozen=True, slots=True)
class _Part:
    """A field, a text, or `*`."""

    kind: str
    """A name of `FIELDS`, "text" or "any"."""
    text: str = ""

    def starts(self, name: str, ends: set[int]) -> set[int]:
        """Where this part may begin in a name so that it ends at one of some places."""
        if self.kind == "text":
            size = len(self.text)
            return {e - size for e in ends if e >= size and name.startswith(self.text, e - size)}
        if self.kind in _NUMBERS:
            return {
                start
                for end in ends
                for start in range(max(end - _LONGEST_NUMBER, 0), end)
                if _NUMBER.fullmatch(name, start, end)
            }
        return set(range(max(ends, default=0) + (self.kind == "any" and bool(ends))))

    def ends(self, name: str, start: int) -> Iterator[int]:
        """Where this part may end in a name, from the shortest on."""
        if self.kind == "text":
            if name.startswith(self.text, start):
                yield start + len(self.text)
            return
        for end in range(start + (self.kind != "any"), len(name) + 1):
            if self.kind not in _NUMBERS or _NUMBER.fullmatch(name, start, end):
                yield end


@dataclass(frozen=True, slots=True)
class SamplePattern:
    """A pattern for names of samples, compiled once.

    Example:
        >>> SamplePattern.of("{run}-D{day}-BR{reactor}").fields_of("CHO-7-D03-BR2")
        {'run': 'CHO-7', 'day': '03', 'reactor': '2'}
    """

    text: str
    """As a person wrote it."""
    parts: tuple[_Part, ...]

    @classmethod
    def of(cls, text: str) -> "SamplePattern":
        """Compile a pattern.

        Args:
            text: Such as "{run}-D{day}-BR{reactor}".

        Raises:
            ConfigError: If a field is unknown, stands twice or next to another one without text
                between, if there is no {run}, or a brace is alone.
        """
        allowed = ", ".join(f"{{{field}}}" for field in FIELDS)

        def refused(why: str) -> ConfigError:
            return ConfigError(
                f"sample pattern {in_line(text)}: {why} Allowed are the fields {allowed}, text "
                "between them and * for anything, such as {run}-D{day}-BR{reactor}."
            )

        if not isinstance(text, str) or not text.strip() or len(text) > LONGEST_NAME:
            raise refused(f"it is empty or longer than {LONGEST_NAME} characters.")
        parts: list[_Part] = []
        for found in _PIECE.finditer(text.strip()):
            field = found["field"]
            if found["stray"]:
                raise refused(f"the brace '{found['stray']}' has no partner.")
            if field is not None and field not in FIELDS:
                raise refused(f"{{{in_line(field)[1:-1]}}} is no field.")
            if field is not None and any(part.kind == field for part in parts):
                raise refused(f"{{{field}}} stands twice.")
            is_open = field is not None or found["any"]
            if is_open and parts and parts[-1].kind != "text":
                raise refused(
                    f"'{found[0]}' follows the part before it without text between; where the one "
                    "ends and the other begins, nothing tells."
                )
            kind = field or ("any" if found["any"] else "text")
            parts.append(_Part(kind, found["text"] or ""))
        if not any(part.kind == "run" for part in parts):
            raise refused("there is no {run}.")
        return cls(text.strip(), tuple(parts))

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields, in order."""
        return tuple(part.kind for part in self.parts if part.kind in FIELDS)

    def fields_of(self, sample_id: str) -> dict[str, str] | None:
        """What a name says.

        Args:
            sample_id: Name of a sample.

        Returns:
            Text by field; `None` if the name does not fit.

        Raises:
            DataError: If it fits in two ways.
        """
        name = sample_id.strip()
        if len(name) > LONGEST_NAME:
            return None
        starts = self._starts(name)
        if 0 not in starts[0]:
            return None
        shortest, longest = (self._walk(name, starts, pick) for pick in (min, max))
        if shortest != longest:
            raise DataError(
                f"sample {in_line(name)} fits the pattern {in_line(self.text)} in two ways, as "
                f"{_told(shortest)} and as {_told(longest)}; write more text between the fields."
            )
        return shortest

    def _starts(self, name: str) -> list[set[int]]:
        """For each part, and the end, where it may begin so that all that follows fits."""
        starts: list[set[int]] = [{len(name)}]
        for part in reversed(self.parts):
            starts.append(part.starts(name, starts[-1]))
        return starts[::-1]

    def _walk(self, name: str, starts: list[set[int]], pick: Any) -> dict[str, str]:
        at = 0
        found: dict[str, str] = {}
        for part, after in zip(self.parts, starts[1:], strict=True):
            end = pick(e for e in part.ends(name, at) if e in after)
            if part.kind in FIELDS:
                found[part.kind] = name[at:end]
            at = end
        return found

    def apply(self, table: RawTable, label: str = "sample_id") -> RawTable:
        """A table with what the names of its samples say as columns of its own.

        `run_id`, `reactor_id`, `clone_id` are texts; `day` [d] is a number (in a table of text as
        text), and so is `time_h` [h] where the pattern has hours, counted from the start of the
        day where it has both.

        Args:
            table: With a column of names.
            label: What that column is called.

        Returns:
            A new table. Samples whose name does not fit are left out, and told.

        Raises:
            DataError: If there is no such column, a column is there already, no name fits, one
                fits in two ways, or an hour of a day is none.
        """
        if label not in table.header:
            raise DataError(f"there is no column '{label}' for the pattern {in_line(self.text)}.")
        columns = self._columns()
        for column in columns:
            if column in table.header:
                raise DataError(
                    f"there is a column '{column}' already, which the pattern {in_line(self.text)} "
                    "would make; leave one of them out."
                )
        at = table.header.index(label)
        made = RawTable(
            [*columns, *table.header],
            units=dict(table.units),
            notes=list(table.notes),
            held_back=table.held_back,
            separator=table.separator,
            decimal=table.decimal,
        )
        strange: list[str] = []
        known: dict[str, dict[str, str] | None] = {}
        for row, line in zip(table.rows, table.lines, strict=True):
            name = "" if row[at] is None else str(row[at])
            if name not in known:
                known[name] = self.fields_of(name)
            fields = known[name]
            if fields is None:
                strange.append(f"{in_line(name, 40)} (line {line})")
                continue
            cells = self._cells(fields, name)
            if table.separator is not None:  # a table of text has only texts
                cells = [_as_text(cell, table.decimal) for cell in cells]
            made.rows.append([*cells, *row])
            made.lines.append(line)
        if strange and not made.rows:
            raise DataError(
                f"no sample fits the pattern {in_line(self.text)}: {', '.join(strange[:_FEW])}."
            )
        made.notes.append(f"{', '.join(columns)} are read from '{label}' by {in_line(self.text)}")
        if strange:
            dots = ", ..." if len(strange) > _FEW else ""
            made.notes.append(
                f"{len(strange)} rows are left out because '{label}' does not fit "
                f"{in_line(self.text)}: {', '.join(strange[:_FEW])}{dots}"
            )
        return made

    def _columns(self) -> list[str]:
        names = [column for field, column in _COLUMNS.items() if field in self.fields]
        if "hour" in self.fields:
            return [*names, "time_h"]
        return [*names, "day"] if "day" in self.fields else names

    def _cells(self, fields: dict[str, str], name: str) -> list[Any]:
        cells: list[Any] = [fields[field] for field in _COLUMNS if field in fields]
        if "hour" in fields:
            hour = float(fields["hour"])
            if "day" in fields and hour >= _HOURS:
                raise DataError(
                    f"sample {in_line(name)} is of hour {hour:g} of a day; hours beside a day are "
                    "counted from its start and are below 24."
                )
            cells.append(_HOURS * float(fields.get("day", 0)) + hour)
        elif "day" in fields:
            cells.append(float(fields["day"]))
        return cells


def _as_text(cell: str | float, decimal: str) -> str:
    return cell if isinstance(cell, str) else f"{cell:.12g}".replace(".", decimal)


def _told(fields: dict[str, str]) -> str:
    return ", ".join(f"{field} {in_line(text, 40)}" for field, text in fields.items())
