"""What a user says about columns, and what a label stands for by that or by itself."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from perfusio_jax._core import (
    STREAM_TOTALS,
    ConfigError,
)
from perfusio_jax._core.limits import read_toml

from .aliases import letters, remark_words
from .labels import FOLDED, KNOWN, LONG, NAME, bare_label, fold, folded_label
from .suggestions import SPOKEN, nearest, suggest
from .totals import TOTALS
from .vocabulary import OURS, Vocabulary


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
        known = {folded_label(name): name for name in reversed([*self.names])}
        return known.get(folded_label(label)) or known.get(folded_label(bare_label(label)[0]))

    def overruled(self, label: str) -> str:
        """A sentence where a label states another unit than the map; empty if it does not."""
        entry, stated = self.entry(label), bare_label(label)[1]
        said = "" if entry is None else self.units.get(entry, "")
        if not said or not stated or folded_label(said) == folded_label(stated):
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
    return bool(bare) and (bare in SPOKEN or bare in remark_words())


def is_number_label(
    label: str, column_map: ColumnMap | None = None, words: Vocabulary = OURS
) -> bool:
    """Whether a column of this label would be read as numbers."""
    said = None if column_map is None else column_map.entry(label)
    if column_map is not None and said is not None:
        return words.is_numeric(column_map.names[said])
    bare = bare_label(label)[0]
    return words.is_numeric(_meant(folded_label(bare), bare, words))


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
        name = _meant(folded_label(bare), bare, words)
    units = column_map.units
    return Meaning(name, units.get(said or "") or units.get(name) or unit, said)


def _columns_of(path: Path) -> Mapping[str, Any]:
    try:
        content = read_toml(path)
    except (OSError, ConfigError) as error:
        raise ConfigError(f"The column map {path} cannot be read: {error}") from error
    table = content.get("columns")
    if not isinstance(table, dict):
        raise ConfigError(f"The column map {path} needs a table [columns].")
    return table
