"""Archive files of the Cedex Bio HT: one line per result, put together to samples.

The first line tells instrument and version; the layout of the others changes with the version.
A sample that is measured again, whole or with another dilution, gets a row of its own.
"""

import datetime as dt
import re
from collections import Counter
from typing import Any, Final, NamedTuple

from perfusio_jax._core import DataError
from perfusio_jax._core.text import in_line

from ..tables.cells import find_decimal, to_tell
from ..tables.raw import RawTable
from .assembly import Assembly, Row
from .cedex import DOUBTS, HOW, TESTS
from .grid import Grid, as_text
from .instrument import Instrument
from .readings import Reading, dilution_of, limit_of, read_number, read_times

ARCHIVE_MARK: Final = "#ARC-FILE#"
_RESULT: Final = "40"
"""Type of a line that holds a result."""
_SAMPLE: Final = "SAM"
"""Role of a sample, beside controls and calibrators."""
_SET: Final = dt.timedelta(hours=1)
"""Results further apart are two measurements of a sample; those of one take minutes."""


_MARKS: Final = re.compile(r"->|[vcqr^CpQRd]")
_BLANKS: Final = re.compile(r"\s+")
_MOST_MARKS: Final = 8
"""Characters of a flag made of marks; what is longer is a word."""


class Places(NamedTuple):
    """Which cell of a line is what, from 0."""

    time: int
    sample: int
    batch: int | None
    role: int
    test: int
    dilution: int | None
    unit: int
    flag: int
    value: int


_LAYOUTS: Final = {
    "5": Places(1, 5, None, 6, 2, None, 7, 8, 9),
    "6": Places(1, 2, 3, 4, 6, 7, 8, 9, 10),
    "7": Places(1, 2, 3, 4, 6, 7, 8, 9, 10),
}
"""By the first number of the software's version. Cell 5 of versions 6 and 7, which stands before
the test, may hold a dilution made by the analyser; it is told like the other."""
_MADE_BEFORE: Final = 5


class Result(NamedTuple):
    """One line."""

    line: int
    time: str
    when: dt.datetime | None
    sample: str
    batch: str
    test: str
    unit: str
    reading: Reading
    dilution: float | None
    how: tuple[str, ...]
    """What its flags say of a value that stands."""


def read_archive(grid: Grid, instrument: Instrument) -> RawTable:
    """Samples with their results.

    Args:
        grid: The file.
        instrument: The analyser.

    Raises:
        DataError: If the version is not known, a line has another layout, or a value is none;
            with its line.
    """
    version, places = _version(grid, instrument)
    body = [*zip(grid.rows[1:], grid.lines[1:], strict=True)]
    notes: list[str] = list(grid.notes)
    held: int | None = None
    if grid.is_open and body and len(body[-1][0]) <= places.value + 1:
        held = body.pop()[1]
        notes.append(f"line {held} has no line end yet and is not read: it may be half written")
    values = [(row[places.value], line) for row, line in body if len(row) > places.value]
    texts = [(to_tell(cell), line) for cell, line in values if isinstance(cell, str)]
    decimal = find_decimal(texts, grid.separator, grid.word)
    results = _results(body, places, decimal, grid.word, notes)
    found = Assembly(f"{instrument.name} (software {version})", grid.word)
    found.notes += notes
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.sample, result.batch), []).append(result)
    for group in groups.values():
        _put_together(found, group)
    table = found.table(grid.separator, decimal)
    table.held_back = held
    table.notes.append("sampled_at is the time of a sample's first result, not of its drawing")
    return table


def _version(grid: Grid, instrument: Instrument) -> tuple[str, Places]:
    first = [as_text(cell) for cell in grid.rows[0]]
    version = first[8] if len(first) > 8 else ""
    number = version.split(".")[0]
    if number not in _LAYOUTS:
        raise DataError(
            f"{grid.word} {grid.lines[0]}: software {in_line(version)} of {instrument.name} is not "
            f"known; known are versions {', '.join(_LAYOUTS)}. Where the samples stand in a line "
            "changes with the version."
        )
    return version, _LAYOUTS[number]


def _results(
    body: list[tuple[list[Any], int]],
    places: Places,
    decimal: str,
    word: str,
    notes: list[str],
) -> list[Result]:
    seen: set[tuple[str, ...]] = set()
    results: list[Result] = []
    again = 0
    roles: Counter[str] = Counter()
    times, left = read_times(
        [row[places.time] if len(row) > places.time else None for row, _ in body],
        "measurement time",
        [f"{word} {line}" for _, line in body],
    )
    if left:
        raise DataError(f"the time {in_line(left[0])} is none an archive file writes.")
    for (row, line), time in zip(body, times, strict=True):
        cells = [as_text(cell) for cell in row]
        where = f"{word} {line}"
        if not cells or cells[0] != _RESULT or len(cells) <= places.value or time is None:
            raise DataError(
                f"{where} is no result: it begins with {in_line(cells[0] if cells else '')} and "
                f"has {len(cells)} cells, where a result begins with '{_RESULT}' and has more than "
                f"{places.value}. Is the file cut off, or of another version?"
            )
        if tuple(cells) in seen:
            again += 1
            continue
        seen.add(tuple(cells))
        if cells[places.role] != _SAMPLE:
            roles[cells[places.role]] += 1
            continue
        results.append(_result(row, cells, time, places, decimal, where, line))
    if again:
        notes.append(f"{again} {word}s repeat another one and are left out")
    for role, n in roles.items():
        notes.append(f"{n} {word}s are of no sample (role {in_line(role)}) and are left out")
    return results


def _result(
    row: list[Any],
    cells: list[str],
    time: str,
    places: Places,
    decimal: str,
    where: str,
    line: int,
) -> Result:
    test, flag = cells[places.test], cells[places.flag]
    if not test or not cells[places.sample]:
        raise DataError(
            f"{where} names no {'test' if not test else 'sample'}; it cannot be placed."
        )
    dilution = dilution_of(cells[places.dilution], decimal) if places.dilution else None
    if places.dilution and dilution is None:
        dilution = dilution_of(cells[_MADE_BEFORE], decimal)
    reading = _reading(row[places.value], flag, decimal, test, where)
    return Result(
        line,
        time,
        dt.datetime.fromisoformat(time).replace(tzinfo=None),
        cells[places.sample],
        cells[places.batch] if places.batch else "",
        test,
        cells[places.unit],
        reading,
        dilution,
        tuple(
            HOW[mark] for mark in _MARKS.findall(flag) if mark in HOW and reading.cell is not None
        ),
    )


def _reading(cell: Any, flag: str, decimal: str, test: str, where: str) -> Reading:
    """The value of a result: none if a flag casts doubt on it, a limit if it is out of range."""
    text = as_text(cell)
    if "RNG" in flag.upper() or text.startswith(("<", ">")):
        if not text.startswith(("<", ">")):
            return Reading(None, f"the flag '{flag[:20]}'")
        found = limit_of(text, decimal)
        return found if found.cell is not None else Reading(None, f"the limit '{text[:20]}'")
    found = read_number(cell, decimal, test, where)
    marks = _MARKS.findall(flag)
    if "".join(marks) == _BLANKS.sub("", flag) and not set(marks) & set(DOUBTS):
        return found
    known = next((f" ({DOUBTS[mark]})" for mark in marks if mark in DOUBTS), "")
    return Reading(None, f"the flag '{flag[:20]}'{known if len(flag) <= _MOST_MARKS else ''}")


def _put_together(found: Assembly, results: list[Result]) -> None:
    """Rows of one sample: a new one where a test comes again, or an hour after the last."""
    row: Row | None = None
    last: dt.datetime | None = None
    for result in sorted(results, key=lambda r: (r.when or dt.datetime.min, r.line)):
        name = TESTS.get(result.test, "")
        is_late = last is not None and result.when is not None and result.when - last > _SET
        if row is None or is_late or found.has(row, name, result.test, result.unit):
            row = found.add(result.line, result.sample, result.time)
            if result.batch:
                found.put(row, "", "batch", result.batch, "")
        last = result.when
        reading = result.reading
        found.put(row, name, result.test, reading.cell, result.unit, reading.why)
        found.dilute(row, result.dilution)
        for how in result.how:
            found.remark(result.test, how, result.sample)
