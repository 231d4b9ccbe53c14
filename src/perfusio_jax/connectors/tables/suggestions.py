"""What is probably meant by a name nobody knows, or by one that means several things."""

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Final

from perfusio_jax._core import (
    DataError,
    UnitError,
)
from perfusio_jax._core.text import LONGEST_NAME, in_line
from perfusio_jax._core.unit_text import parse_unit

from .aliases import COMMON_WORDS, EXACT_WORDS, UNCLEAR_WORDS, letters
from .labels import (
    FOLDED,
    UNITS,
    bare_label,
    folded_label,
)
from .vocabulary import OURS, Vocabulary

_QUALIFIERS: Final = frozenset(
    "total dead lysed set setpoint sp target rate feed count counts number raw sd std cv min max "
    "mean error flow volume added".split()
)
"""Words that make another quantity of a name; a name that lacks them is not meant."""
_SHORT: Final = 4
"""Names up to this length [characters] are only ever themselves: Glu, Gln and Glc are three."""
_LONG: Final = 40
"""Names beyond this length [characters] are a slip of nothing we know."""
HOMONYMS: Final = {"Lys": ("lysed cells", "lysine")}
"""Names that mean something else in other people's tables."""
_AMINO_ACIDS: Final = frozenset(
    "ala arg asn asp cys gly his ile leu met phe pro ser thr trp tyr val".split()
)
SPOKEN: Final = frozenset(letters(word) for word in (*COMMON_WORDS, *EXACT_WORDS))


def suggest(name: str, present: Iterable[str] = (), words: Vocabulary = OURS) -> str:
    """A sentence about a name nobody knows: what is probably meant, and what to do.

    Args:
        name: Label without its unit.
        present: Canonical names the table has already; none of them is meant.
        words: Names and units of columns.
    """
    if len(name) > LONGEST_NAME:
        return f"{in_line(name)} is no name; is the separator right?"
    split = [] if letters(name) in SPOKEN else _with_trailing_unit(name)
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
    is_name = [FOLDED.get(folded_label(text)) is not None for _, text in stated]
    if sum(is_name) >= 2 or not any(fits(name, text, words) for name, text in stated):
        raise DataError(
            f"line {line} ({', '.join(text for _, text in stated)}) looks like a second row of "
            "names: none of it is a unit of its column. Keep one of the two, give the units, or "
            f"leave the line out (--skip-line {line})."
        )
