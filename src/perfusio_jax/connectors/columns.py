"""Columns: which label means what, in which unit."""

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from perfusio_jax._core import (
    AUXILIARY_TAGS,
    CONTROL_NAMES,
    REGISTRY,
    STREAM_TOTALS,
    ConfigError,
    DataError,
)
from perfusio_jax._core.limits import read_toml
from perfusio_jax._core.text import LONGEST_NAME, in_line

from .tables import RawTable

IDS: Final = ("run_id", "reactor_id", "clone_id")
TIMES: Final = ("time_h", "day")
NUMBERS: Final = (*REGISTRY, *CONTROL_NAMES, *STREAM_TOTALS, *AUXILIARY_TAGS, "volume_L")
KNOWN: Final = (*IDS, *TIMES, "sampled_at", "quality", *NUMBERS)
LONG: Final = ("species", "value", "unit")

_WITH_UNIT: Final = re.compile(r"(?P<name>[^\[(]+?)\s*[\[(](?P<unit>[^\])]*)[\])]")
FOLDED: Final = {name.casefold(): name for name in (*KNOWN, *LONG)}
_COMMON_WORDS: Final = {
    "glucose": "Glc",
    "glutamine": "Gln",
    "glutamate": "Glu",
    "lactate": "Lac",
    "ammonium": "Amm",
    "ammonia": "Amm",
    "pyruvate": "Pyr",
    "titre": "Titer",
    "product": "Titer",
    "viability": "Via",
    "viable cells": "VCD",
    "viable cell density": "VCD",
    "diameter": "Diam",
    "perfusion": "perfusion_rate",
    "bleed": "bleed_rate",
    "stirring": "agitation",
    "culture day": "day",
    "time": "time_h",
}


class ColumnMap(NamedTuple):
    """What a user says about columns: label to canonical name, and to unit."""

    names: Mapping[str, str]
    """Canonical name, or "ignore", by label."""
    units: Mapping[str, str]
    """Unit by label or canonical name."""

    @classmethod
    def of(cls, source: Mapping[str, Any] | Path | str | None) -> "ColumnMap":
        """Read a column map.

        Args:
            source: A mapping of label to name, or to a mapping with `name` and `unit`; or a
                TOML file with such a table under `[columns]`.

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
        for label, entry in source.items():
            fields = {"name": entry} if isinstance(entry, str) else entry
            if not isinstance(fields, Mapping) or set(fields) - {"name", "unit"}:
                raise ConfigError(
                    f"Column map: '{label}' is {entry!r}; it is a name, 'ignore', or a table with "
                    "'name' and 'unit'."
                )
            name = str(fields.get("name", label))
            if name not in (*KNOWN, *LONG, "ignore"):
                raise ConfigError(f"Column map: '{label}' is to be '{name}'. {suggest(name)}")
            names[label] = name
            if "unit" in fields:
                units[label] = str(fields["unit"])
        return cls(names, units)


def is_known_label(label: str, column_map: ColumnMap | None = None) -> bool:
    """Whether a column label would be understood."""
    if column_map is not None and label in column_map.names:
        return True
    return bare_label(label)[0].casefold() in FOLDED or label.casefold().endswith("_quality")


class Header:
    """Labels and what they mean."""

    def __init__(
        self, table: RawTable, column_map: ColumnMap, wide: bool, *, has_start: bool = False
    ) -> None:
        self.times = (*TIMES, "sampled_at") if has_start else TIMES
        self.labels = table.header
        self.names: list[str] = []
        self.units: list[str] = []
        self.is_wide = wide
        for label in self.labels:
            bare, unit = bare_label(label)
            self.units.append(column_map.units.get(label, unit) or table.units.get(label, ""))
            if label in column_map.names:
                self.names.append(column_map.names[label])
            elif bare.casefold().endswith("_quality"):
                self.names.append(fold(bare[: -len("_quality")]) + "_quality")
            else:
                self.names.append(FOLDED.get(bare.casefold(), ""))
        self._check()

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
                    "Say when the run began (inoculated_at), and sampled_at will do."
                    if stamped
                    else "Is the separator right? A column map can give your names."
                )
            )
        has_long = {"species", "value"} <= set(known)
        if self.is_wide and has_long and not set(NUMBERS) & set(known):
            raise DataError(
                "has the columns 'species' and 'value', so it is in long format; say "
                "wide_format=False (--long on the command line)."
            )
        if not self.is_wide and not has_long:
            raise DataError(
                f"long format needs the columns 'species' and 'value'; there are {self._listed()}."
            )
        if self.is_wide and not set(NUMBERS) & set(known):
            raise DataError(
                f"none of its columns is a measurement: {self._listed()}. Known are "
                f"{', '.join(REGISTRY)}; a column map can give your names."
            )

    def _listed(self) -> str:
        return ", ".join(in_line(label) for label in self.labels[:20])


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


def is_numeric(name: str) -> bool:
    """Whether a column of this name holds numbers."""
    return name in NUMBERS or name in TIMES or name == "value"


def role_of(name: str) -> str:
    """What a column of this canonical name is for; "unknown" for the empty name."""
    roles: tuple[tuple[str, tuple[str, ...]], ...] = (
        ("time", TIMES),
        ("id", IDS),
        ("species", REGISTRY),
        ("control", CONTROL_NAMES),
        ("stream total", STREAM_TOTALS),
        ("tag", AUXILIARY_TAGS),
        ("volume", ("volume_L",)),
        ("time stamp", ("sampled_at",)),
        ("long format", LONG),
        ("ignored", ("ignore",)),
        ("unknown", ("",)),
    )
    return next((role for role, names in roles if name in names), "quality")


def suggest(name: str) -> str:
    """A sentence about a name nobody knows: the nearest known one, and what to do."""
    if len(name) > LONGEST_NAME:
        return f"{in_line(name)} is no name; is the separator right?"
    words = FOLDED | _COMMON_WORDS
    near = difflib.get_close_matches(name.casefold(), words, n=1, cutoff=0.6)
    if near:
        return f"Did you mean '{words[near[0]]}'? Say so in a column map."
    return f"'{name}' is no known name; a column map can give it one, or 'ignore' it."


def _columns_of(path: Path) -> Mapping[str, Any]:
    try:
        content = read_toml(path)
    except (OSError, ConfigError) as error:
        raise ConfigError(f"The column map {path} cannot be read: {error}") from error
    if set(content) != {"columns"} or not isinstance(content["columns"], dict):
        raise ConfigError(f"The column map {path} needs one table, [columns].")
    return content["columns"]
