"""Labels of columns: the names there are, and what a label is without its unit."""

import re
import unicodedata
from typing import Final

from perfusio_jax._core import (
    AUXILIARY_TAGS,
    CONTROL_NAMES,
    REGISTRY,
    STREAM_TOTALS,
)
from perfusio_jax._core.text import LONGEST_NAME

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


def folded_label(label: str) -> str:
    """A label without what people do not see: case, blanks, one of two signs for micro."""
    return " ".join(unicodedata.normalize("NFKC", label).split()).casefold()
