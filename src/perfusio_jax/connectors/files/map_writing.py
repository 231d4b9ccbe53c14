"""The column map that files would be read with, for somebody to look over (`--write-map`)."""

import datetime as dt
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from perfusio_jax._core.limits import TABLE_BYTES, read_file
from perfusio_jax._core.text import in_line

from ..tables.aliases import letters, remark_words
from ..tables.cells import parse_number, qualified
from ..tables.column_map import meaning_of
from ..tables.date_formats import by_format
from ..tables.file_rules import FileRules
from ..tables.labels import NAME, TIMES, bare_label
from ..tables.stamps import find_order, read_stamp, zone_of
from ..tables.suggestions import fits, nearest
from .campaign_cells import sidecar_of
from .opening import Opened, open_table
from .parts import Part, Tables, parts_of

_GUESS: Final = "a guess"
_NOTHING: Final = "no measurement, it seems"


class Line(NamedTuple):
    """An entry of the map."""

    label: str
    """As the file calls the column."""
    value: Any
    """What it is taken for."""
    remark: str
    """Why somebody should look; empty for what is sure."""


class ColumnMapText(NamedTuple):
    """A column map as text."""

    text: str
    """TOML."""
    guesses: tuple[str, ...]
    """What was guessed, a sentence each."""


def column_map_of(tables: Tables, rules: FileRules) -> ColumnMapText:
    """The map that files would be read with.

    Names we know are kept, words that people use are guesses, and so is the start of a run of which
    only time stamps are known.

    Args:
        tables: A file, several, or a folder of them.
        rules: What is said of them already.

    Raises:
        DataError: If one cannot be read at all.
        ConfigError: If what is said makes no sense.
    """
    opened = [(part, _open(part)) for part in parts_of(tables, rules)]
    opened = [(part, one) for part, one in opened if not part.may_be_none or _is_table(one)]
    lines: dict[str, Line] = {}
    taken: set[str] = set()
    for _, one in opened:
        for line in _columns(one, rules, taken):
            lines.setdefault(line.label, line)
    lines |= {line.label: line for line in _clock(opened, taken)}
    settings = _settings(rules, opened, {line.value for line in lines.values()})
    text = "".join(_rendered(lines.values(), settings, rules))
    guesses = [
        f"{in_line(line.label)} is taken for {line.value}"
        for line in lines.values()
        if line.remark == _GUESS
    ]
    guesses += [f"{line.label} is {_toml(line.value)}" for line in settings if line.remark]
    return ColumnMapText(text, tuple(guesses))


def _open(part: Part) -> Opened:
    content = read_file(part.path, most=TABLE_BYTES)
    beside = sidecar_of(part.path)
    return open_table(content, part.path.suffix, part.rules, beside, is_open=True)


def _is_table(opened: Opened) -> bool:
    return sum(bool(_name(label, opened)) for label in opened.table.header) > 1


def _columns(opened: Opened, rules: FileRules, taken: set[str]) -> list[Line]:
    """An entry for every column that is not called by our own name."""
    table, lines = opened.table, []
    labels = list(enumerate(table.header))
    names = {label: meaning_of(label, opened.column_map).name for label in table.header}
    taken |= {name for name in names.values() if name}
    if rules.is_long and "species" in names.values():
        k = [*names.values()].index("species")
        species = dict.fromkeys(str(row[k] or "").strip() for row in table.rows)
        labels += [(-1, label) for label in species if label]
    for n, label in labels:
        said = opened.column_map.entry(label)
        name = names.get(label) or meaning_of(label, opened.column_map).name
        bare = bare_label(label)[0]
        if said is not None:
            lines.append(Line(said, rules.columns[said], ""))
        elif name:
            taken.add(name)
            if name not in (label, bare) and not name.endswith("_quality"):
                lines.append(Line(label, name, ""))
        elif guess := nearest(bare, taken):
            taken.add(guess)
            lines.append(Line(label, guess, _GUESS))
        elif "sampled_at" in taken and _are_clocks(table.rows, n):
            taken.add("time_of_day")
            lines.append(Line(label, "time_of_day", _GUESS))
        elif _is_remark(label, opened) or not _has_numbers(table.rows, n):
            lines.append(Line(label, "ignore", _NOTHING))
        elif not NAME.fullmatch(bare):
            lines.append(Line(label, _plain_name(bare), "a name a process can have"))
    return lines


def _is_remark(label: str, opened: Opened) -> bool:
    """Whether a column is called as a remark is; with a unit, a dilution is what was set."""
    bare, unit = bare_label(label)
    return letters(bare) in remark_words() and not (unit or opened.table.units.get(label))


def _clock(opened: Sequence[tuple[Part, Opened]], taken: set[str]) -> list[Line]:
    """Where nothing is known to be the time: the first column of hours or of days."""
    if taken & {*TIMES, "sampled_at"}:
        return []
    for _, one in opened:
        for n, label in enumerate(one.table.header):
            unit = (bare_label(label)[1] or one.table.units.get(label, "")).strip()
            ours = next((name for name in TIMES if unit and fits(name, unit)), None)
            if ours is not None and _has_numbers(one.table.rows, n):
                return [Line(label, ours, _GUESS)]
    return []


def _are_clocks(rows: Sequence[Sequence[Any]], column: int) -> bool:
    """Whether a column holds times of the day, as beside a column of dates."""
    cells = [str(row[column]).strip() for row in rows if column >= 0 and row[column] is not None]
    times = [cell for cell in cells if re.fullmatch(r"[0-9]{1,2}:[0-9]{2}(:[0-9]{2})?", cell)]
    return bool(times) and len(times) >= len([cell for cell in cells if cell]) - 1


def _has_numbers(rows: Sequence[Sequence[Any]], column: int) -> bool:
    if column < 0:
        return True
    for row in rows:
        cell = row[column]
        number = parse_number(cell, ".")
        if isinstance(number, float) or (isinstance(number, str) and qualified(number)):
            return True
        if isinstance(number, str) and isinstance(parse_number(cell, ","), float):
            return True
    return False


def _plain_name(label: str) -> str:
    for mark, plain in (("\u00e4", "ae"), ("\u00f6", "oe"), ("\u00fc", "ue"), ("\u00df", "ss")):
        label = label.replace(mark, plain).replace(mark.upper(), plain.capitalize())
    name = re.sub(r"[^A-Za-z0-9]+", "_", label).strip("_")[:40]
    return name if NAME.fullmatch(name) else f"column_{name}"[:40].rstrip("_")


def _settings(
    rules: FileRules, opened: Sequence[tuple[Part, Opened]], names: set[Any]
) -> list[Line]:
    """Entries of `[reading]`: what is said, and what time stamps make necessary."""
    lines = [
        Line(key, value, "")
        for key, value in (
            ("long", rules.is_long or None),
            ("sheet", rules.sheet),
            ("header_row", rules.header_row),
            ("skip_lines", list(rules.skip_lines) or None),
            ("skip_footer", rules.skip_footer or None),
            ("date_order", rules.date_order),
            ("date_format", rules.date_format),
            ("time_zone", rules.time_zone),
            ("inoculated_at", rules.inoculated_at),
            ("join_within", rules.join_within_h),
            ("totals", rules.totals),
            ("unknown", rules.unknown),
            ("missing", list(rules.missing) or None),
            ("sample_id", rules.sample_id),
            ("run", rules.run),
            ("run_from", list(rules.run_from) or None),
        )
        if value is not None
    ]
    marks = {one.table.decimal for _, one in opened if one.table.separator is not None}
    if marks == {","}:
        lines.append(Line("decimal", "comma", ""))
    elif rules.decimal:
        lines.append(Line("decimal", "point", ""))
    known = {meaning_of(label, one.column_map).name for _, one in opened
             for label in one.table.header}  # fmt: skip
    known |= {name for name in names if isinstance(name, str)}
    if "sampled_at" in known and not known & {*TIMES, "inoculated_at"}:
        lines += _started(rules, opened)
    return lines


def _started(rules: FileRules, opened: Sequence[tuple[Part, Opened]]) -> list[Line]:
    """Zone and starts where only time stamps tell the time: the first sample of every run."""
    lines = []
    zone = rules.time_zone or "UTC"
    if rules.time_zone is None and rules.inoculated_at is None:
        lines.append(Line("time_zone", zone, f"{_GUESS}: that of time stamps that state none"))
    if rules.inoculated_at is not None:
        return lines
    starts: dict[str, Any] = {}
    for part, one in opened:
        names = _names(one)
        if "sampled_at" not in names:
            continue
        column = names.index("sampled_at")
        name = meaning_of(one.table.header[column], one.column_map).name
        whose = next((names.index(n) for n in ("run_id", "reactor_id") if n in names), None)
        clock = names.index("time_of_day") if "time_of_day" in names else None
        texts = [
            _stamp(row[column], None if clock is None else row[clock]) for row in one.table.rows
        ]
        order = one.date_order or find_order(texts)
        for row, text in zip(one.table.rows, texts, strict=True):
            if not any(character.isdigit() for character in text):
                continue
            run = part.run_name if whose is None else str(row[whose] or "").strip()
            if rules.date_format is not None and name != "sampled_at":
                text = str(by_format(text, rules.date_format, f"sampled_at of {run}"))
            stamp = read_stamp(text, f"sampled_at of {run}", zone_of(zone), order)
            starts[run] = min(starts.get(run, stamp), stamp)
    local = {run: at.replace(tzinfo=None) for run, at in starts.items()}
    is_named = len(opened) > 1 or bool({"run_id", "reactor_id"} & {*_names(opened[0][1])})
    if local and is_named:
        lines.append(Line("inoculated_at", local, f"{_GUESS}: the first sample of every run"))
    elif local:
        lines.append(Line("inoculated_at", min(local.values()), f"{_GUESS}: the first sample"))
    return lines


def _stamp(date: Any, clock: Any) -> str:
    """A time stamp, of a date and a time of the day where they stand apart."""
    if clock and isinstance(date, dt.datetime):
        date = date.date()
    text = str(date or "").strip()
    return f"{text} {str(clock).strip():0>5}" if clock and text else text


def _names(opened: Opened) -> list[str]:
    return [_name(label, opened) for label in opened.table.header]


def _name(label: str, opened: Opened) -> str:
    known = meaning_of(label, opened.column_map).name
    return known or nearest(bare_label(label)[0]) or ""


def _rendered(lines: Iterable[Line], settings: Sequence[Line], rules: FileRules) -> Iterable[str]:
    yield "# How the columns of these files are read. Look at every line with a remark: it was\n"
    yield "# not certain. What is right stays; what is wrong is changed here, and the file is\n"
    yield "# given to every command with --map.\n\n[columns]\n"
    for line in lines:
        yield f"{_key(line.label)} = {_toml(line.value)}{_remark(line.remark)}\n"
    if settings:
        yield "\n[reading]\n"
    for line in settings:
        if not isinstance(line.value, dict):
            yield f"{line.label} = {_toml(line.value)}{_remark(line.remark)}\n"
    for line in settings:
        if isinstance(line.value, dict):
            yield f"\n[reading.{line.label}]{_remark(line.remark)}\n"
            yield from (f"{_key(run)} = {_toml(at)}\n" for run, at in line.value.items())
    if rules.constants:
        yield "\n[set]\n"
        yield from (f"{_key(name)} = {value!r}\n" for name, value in rules.constants.items())


def _remark(text: str) -> str:
    return f"  # {text}" if text else ""


def _key(text: str) -> str:
    return text if re.fullmatch(r"[A-Za-z0-9_-]+", text) else json.dumps(text, ensure_ascii=False)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(k)} = {_toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return value.isoformat() if hasattr(value, "isoformat") else repr(value)
