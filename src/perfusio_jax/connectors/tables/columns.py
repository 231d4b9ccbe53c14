"""Columns: which label means what, in which unit."""

import difflib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from perfusio_jax._core import (
    AUXILIARY_TAGS,
    CONTROL_NAMES,
    REGISTRY,
    STREAM_TOTALS,
    ConfigError,
    DataError,
    UnitError,
)
from perfusio_jax._core.limits import read_toml
from perfusio_jax._core.text import LONGEST_NAME, in_line
from perfusio_jax._core.unit_text import parse_unit

from .aliases import COMMON_WORDS, EXACT_WORDS, UNCLEAR_WORDS, letters, remark_words
from .raw import RawTable
from .totals import TOTALS
from .vocabulary import OURS, Vocabulary

IDS: Final = ("run_id", "reactor_id", "clone_id", "sample_id")
TIMES: Final = ("time_h", "day")
NUMBERS: Final = (*REGISTRY, *CONTROL_NAMES, *STREAM_TOTALS, *AUXILIARY_TAGS, "volume_L")
KNOWN: Final = (*IDS, *TIMES, "sampled_at", "time_of_day", "inoculated_at", "quality", *NUMBERS)
LONG: Final = ("species", "value", "unit")
UNITS: Final = frozenset((*TIMES, *NUMBERS))
"""Names of columns that have a unit."""

NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,39}")
"""What a quantity or a control may be called."""

_WITH_UNIT: Final = re.compile(r"(?P<name>[^\[(]+?)\s*[\[(](?P<unit>[^\])]*)[\])]")
FOLDED: Final = {name.casefold(): name for name in (*KNOWN, *LONG)}
_QUALIFIERS: Final = frozenset(
    "total dead lysed set setpoint sp target rate feed count counts number raw sd std cv min max "
    "mean error flow volume added".split()
)
"""Words that make another quantity of a name; a name that lacks them is not meant."""
_SHORT: Final = 4
"""Names up to this length [characters] are only ever themselves: Glu, Gln and Glc are three."""

_LONG: Final = 40
"""Names beyond this length [characters] are a slip of nothing we know."""

IS_LONG: Final = (
    "has the columns 'species' and 'value', so it is in long format; say wide_format=False (--long "
    "on the command line)."
)
ANOTHER_CULTURE: Final = (
    "A culture of another kind is described first: perfusio-jax process init FILE reads it off "
    "such a table, and --process takes it."
)
HOMONYMS: Final = {"Lys": ("lysed cells", "lysine")}
"""Names that mean something else in other people's tables."""
_OTHERS: Final = (
    "Other names are told in the column map (--map), in its table [columns]: variable = 'species', "
    "where a column is called variable."
)

_AMINO_ACIDS: Final = frozenset(
    "ala arg asn asp cys gly his ile leu met phe pro ser thr trp tyr val".split()
)


_SPOKEN: Final = frozenset(letters(word) for word in (*COMMON_WORDS, *EXACT_WORDS))


class ColumnMap(NamedTuple):
    """What a user says about columns: label to canonical name, and to unit."""

    names: Mapping[str, str]
    """Canonical name, or "ignore", by label."""
    units: Mapping[str, str]
    """Unit by label or canonical name."""
    totals: Mapping[str, str] = {}
    """"cumulative" or "increments" by label, of stream totals."""

    def entry(self, label: str) -> str | None:
        """The label in the map that a label of the table is meant by, if any.

        Case, blanks and the two signs for micro make no difference; a map may leave the unit
        in brackets away.
        """
        if label in self.names:
            return label
        known = {_folded(name): name for name in reversed([*self.names])}
        return known.get(_folded(label)) or known.get(_folded(bare_label(label)[0]))

    def overruled(self, label: str) -> str:
        """A sentence where a label states another unit than the map; empty if it does not."""
        entry, stated = self.entry(label), bare_label(label)[1]
        said = "" if entry is None else self.units.get(entry, "")
        if not said or not stated or _folded(said) == _folded(stated):
            return ""
        return f"'{label}' states {stated}; the column map says {said}, which counts"

    @classmethod
    def of(
        cls,
        source: Mapping[str, Any] | Path | str | None,
        words: Vocabulary = OURS,
        *,
        is_open: bool = False,
    ) -> "ColumnMap":
        """Read a column map.

        Args:
            source: A mapping of label to name, or to a mapping with `name`, `unit` and, for a
                stream total, `totals`; or a TOML file with such a table under `[columns]`.
            words: Names and units of columns.
            is_open: Whether a column may have any name a process can have.

        Returns:
            The map; empty for `None`.

        Raises:
            ConfigError: If the file cannot be read or an entry means nothing.
        """
        if source is None:
            return cls({}, {})
        if not isinstance(source, Mapping):
            source = _columns_of(Path(source))
        names: dict[str, str] = {}
        units: dict[str, str] = {}
        totals: dict[str, str] = {}
        for label, entry in source.items():
            fields = {"name": entry} if isinstance(entry, str) else entry
            if not isinstance(fields, Mapping) or set(fields) - {"name", "unit", "totals"}:
                raise ConfigError(
                    f"Column map: '{label}' is {entry!r}; it is a name, 'ignore', or a table with "
                    "'name', 'unit' and 'totals'."
                )
            name = str(fields.get("name", label))
            # a name that is nearly one of ours is a slip, whatever the culture
            is_free = is_open and NAME.fullmatch(name) is not None and name != "rest"
            is_free = is_free and nearest(name, words=words) is None
            if name not in (*KNOWN, *words.numbers, *LONG, "ignore") and not is_free:
                hint = suggest(name, words=words)
                raise ConfigError(f"Column map: '{label}' is to be '{name}'. {hint}")
            names[label] = name
            if "unit" in fields:
                units[label] = str(fields["unit"])
            if "totals" in fields:
                totals[label] = str(fields["totals"])
                if totals[label] not in TOTALS or name not in STREAM_TOTALS:
                    raise ConfigError(
                        f"Column map: totals of '{label}' is {fields['totals']!r}; allowed are "
                        f"{' and '.join(TOTALS)}, for {', '.join(STREAM_TOTALS)}."
                    )
        return cls(names, units, totals)


def is_known_label(
    label: str, column_map: ColumnMap | None = None, words: Vocabulary = OURS
) -> bool:
    """Whether a column label would be understood."""
    if column_map is not None and column_map.entry(label) is not None:
        return True
    bare = bare_label(label)[0]
    return bool(_meant(bare.casefold(), bare, words)) or label.casefold().endswith("_quality")


def looks_like_label(
    label: str, column_map: ColumnMap | None = None, words: Vocabulary = OURS
) -> bool:
    """Whether a text would be understood as a label, or is a word that people use for one.

    It tells a header from what stands above it; what a column means it does not tell.
    """
    if is_known_label(label, column_map, words):
        return True
    bare = letters(bare_label(label)[0])
    return bool(bare) and (bare in _SPOKEN or bare in remark_words())


def is_number_label(
    label: str, column_map: ColumnMap | None = None, words: Vocabulary = OURS
) -> bool:
    """Whether a column of this label would be read as numbers."""
    said = None if column_map is None else column_map.entry(label)
    if column_map is not None and said is not None:
        return words.is_numeric(column_map.names[said])
    bare = bare_label(label)[0]
    return words.is_numeric(_meant(_folded(bare), bare, words))


def _meant(folded: str, bare: str, words: Vocabulary) -> str:
    """The name a label without its unit is, as it is or but for its case; empty for none."""
    if bare in words.units:
        return bare
    return FOLDED.get(folded, "") or words.folded.get(folded, "")


class Meaning(NamedTuple):
    """What a label of a table stands for."""

    name: str
    """Canonical name; empty if it has none."""
    unit: str
    """Unit that label or map state; empty if they state none."""
    entry: str | None
    """The label of the column map that says so; None if it is not in it."""


def meaning_of(label: str, column_map: ColumnMap, words: Vocabulary = OURS) -> Meaning:
    """What a label stands for, by a column map or by itself."""
    bare, unit = bare_label(label)
    said = column_map.entry(label)
    if said is not None:
        name = column_map.names[said]
    elif bare.casefold().endswith("_quality"):
        name = fold(bare[: -len("_quality")]) + "_quality"
    else:
        name = _meant(_folded(bare), bare, words)
    units = column_map.units
    return Meaning(name, units.get(said or "") or units.get(name) or unit, said)


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
                    "(--header-row)? A column map can give your names: perfusio-jax inspect "
                    "--write-map columns.toml writes one to look over."
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


def bare_label(label: str) -> tuple[str, str]:
    """Name and unit of a label such as "Glc [g/L]"."""
    # A long label is no name; the pattern would try each of its spaces against each bracket.
    found = _WITH_UNIT.fullmatch(label.strip()) if len(label) <= LONGEST_NAME else None
    if found is None:
        return label.strip(), ""
    return found["name"].strip(), found["unit"].strip()


def fold(name: str) -> str:
    """Canonical spelling of a name, whatever its case; unknown names come back as they are."""
    return FOLDED.get(name.casefold(), name)


def role_of(name: str, words: Vocabulary = OURS) -> str:
    """What a column of this canonical name is for; "unknown" for the empty name."""
    roles: tuple[tuple[str, tuple[str, ...]], ...] = (
        ("time", TIMES),
        ("id", IDS),
        ("species", words.species),
        ("control", words.controls),
        ("species", REGISTRY),
        ("stream total", STREAM_TOTALS),
        ("tag", (*AUXILIARY_TAGS, *words.tags)),
        ("volume", ("volume_L",)),
        ("time stamp", ("sampled_at", "time_of_day", "inoculated_at")),
        ("long format", LONG),
        ("ignored", ("ignore",)),
        ("unknown", ("",)),
    )
    return next((role for role, names in roles if name in names), "quality")


def suggest(name: str, present: Iterable[str] = (), words: Vocabulary = OURS) -> str:
    """A sentence about a name nobody knows: what is probably meant, and what to do.

    Args:
        name: Label without its unit.
        present: Canonical names the table has already; none of them is meant.
        words: Names and units of columns.
    """
    if len(name) > LONGEST_NAME:
        return f"{in_line(name)} is no name; is the separator right?"
    split = [] if letters(name) in _SPOKEN else _with_trailing_unit(name)
    for head, unit in split:
        meant = FOLDED.get(head.casefold()) or nearest(head, present, words)
        if meant in UNITS and meant not in {*present} and fits(meant, unit):
            return (
                f"Did you mean '{meant}' in {unit}? Write '{meant} [{unit}]', or say so in a "
                "column map."
            )
    meant = nearest(name, present, words)
    if meant and (not split or any(fits(meant, unit) for _, unit in split)):
        return f"Did you mean '{meant}'? Say so in a column map."
    return f"'{name}' is no known name; a column map can give it one, or 'ignore' it."


def _with_trailing_unit(name: str) -> list[tuple[str, str]]:
    """Labels with a unit behind them that has no brackets: `Glc g/L`, `VCD 10^6 cells/mL`."""
    parts, found = name.split(), []
    for n in (1, 2):
        unit = " ".join(parts[-n:])
        head = re.sub(r"(?i)(?:^|\s+)in$", "", " ".join(parts[:-n])).rstrip(" ,.:;")
        if not head or (len(unit) < 2 and unit != "%"):
            continue
        try:
            parse_unit(unit)
        except UnitError:
            continue
        found.append((head, unit))
    return found


def nearest(name: str, present: Iterable[str] = (), words: Vocabulary = OURS) -> str | None:
    """The known name that is probably meant; none rather than a wrong one."""
    taken = set(present)
    spoken = {letters(w): meant for w, meant in (FOLDED | COMMON_WORDS | words.folded).items()}
    if name.endswith("+"):
        spoken = {letters(word): meant for word, meant in COMMON_WORDS.items()}
    said = letters(name)
    if said in UNCLEAR_WORDS:
        return None
    exact = {letters(word): meant for word, meant in EXACT_WORDS.items()}
    meant = spoken.get(said) or exact.get(said)
    if meant is None and _SHORT < len(said) <= _LONG:
        long = [w for w in spoken if len(w) > _SHORT]
        near = difflib.get_close_matches(said, long, n=1, cutoff=0.8)
        meant = spoken[near[0]] if near else None
        qualified = set(re.findall(r"[a-z]+", name.casefold())) & _QUALIFIERS
        if meant is None or qualified - set(re.findall(r"[a-z]+", f"{near[0]} {meant}".casefold())):
            return None
    return None if meant in taken else meant


def other_meaning(name: str, unit: str, labels: Sequence[str]) -> str:
    """Why a column is not what its name says here; empty if it is.

    Args:
        name: Canonical name.
        unit: Unit of the column; empty if it states none.
        labels: All labels of the table.
    """
    if name not in HOMONYMS:
        return ""
    ours, theirs = HOMONYMS[name]
    beside = [bare_label(label)[0] for label in labels]
    acids = [label for label in beside if label.casefold() in _AMINO_ACIDS]
    if unit and not fits(name, unit):
        why = f"in '{unit}'"
    elif not unit and len(acids) >= 2:
        why = f"beside {', '.join(acids[:3])}"
    else:
        return ""
    return (
        f"'{name}' is the density of {ours} here; {why} it is something else ({theirs}?) and is "
        'left out. A column map can say so: "ignore"'
    )


def fits(name: str, unit: str, words: Vocabulary = OURS) -> bool:
    """Whether a unit is one of this column's."""
    try:
        words.conversion(unit, name)
    except UnitError:
        return False
    return True


def refuse_second_header(
    line: int, stated: Sequence[tuple[str, str]], words: Vocabulary = OURS
) -> None:
    """Refuse a second row that holds names where units are looked for.

    Args:
        line: Its line in the file.
        stated: Canonical name and text of each cell in a column of numbers.
        words: Names and units of columns.

    Raises:
        DataError: If two cells or more are names, or none of them is a unit of its column.
    """
    if len(stated) < 2:
        return
    is_name = [FOLDED.get(_folded(text)) is not None for _, text in stated]
    if sum(is_name) >= 2 or not any(fits(name, text, words) for name, text in stated):
        raise DataError(
            f"line {line} ({', '.join(text for _, text in stated)}) looks like a second row of "
            "names: none of it is a unit of its column. Keep one of the two, give the units, or "
            f"leave the line out (--skip-line {line})."
        )


def _folded(label: str) -> str:
    """A label without what people do not see: case, blanks, one of two signs for micro."""
    return " ".join(unicodedata.normalize("NFKC", label).split()).casefold()


def _columns_of(path: Path) -> Mapping[str, Any]:
    try:
        content = read_toml(path)
    except (OSError, ConfigError) as error:
        raise ConfigError(f"The column map {path} cannot be read: {error}") from error
    table = content.get("columns")
    if not isinstance(table, dict):
        raise ConfigError(f"The column map {path} needs a table [columns].")
    return table
