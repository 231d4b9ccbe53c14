"""An instrument as a value: how its export is recognised, and what its labels mean.

Labels are compared without blanks, case and the two signs for micro, because versions of one
program differ in these. A unit is part of a description in one of two ways: the label states it
(`Viability (%)`), or it is the one the instrument writes where the file says nothing, which is
then told.
"""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

Layout = Literal["table", "report", "archive", "allotrope"]
"""One row per sample; one sample per file; one row per result; a tree of documents."""

_BRACKETS: Final = re.compile(r"[\[(][^\])]{0,40}[\])]")
_BLANKS: Final = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Column:
    """What stands under one label of an instrument."""

    labels: tuple[str, ...]
    """How versions of the instrument write it; the first is used in messages."""
    name: str = ""
    """Our name; empty where we have none and the label stays."""
    unit: str = ""
    """Of the numbers; empty where they have none."""
    is_stated: bool = True
    """Whether the label (or the name, for pH) says the unit."""
    kind: Literal["number", "text", "dilution"] = "number"
    """Numbers and texts are kept, of dilutions it is told."""


@dataclass(frozen=True)
class Instrument:
    """An instrument and the layout of its export."""

    name: str
    """As its maker writes it."""
    layout: Layout
    """How samples lie in the file."""
    marks: tuple[str, ...] = ()
    """Labels that no other table has all of."""
    n_marks: int = 1
    """How many of them tell it."""
    title: str = ""
    """Pattern of the first cell, where the instrument writes one; group `version`."""
    samples: tuple[str, ...] = ()
    """Labels of the sample's name."""
    times: tuple[tuple[str, ...], ...] = ()
    """Labels of the time of the sample, the best first."""
    columns: tuple[Column, ...] = ()
    """What is kept."""
    settings: tuple[str, ...] = ()
    """Labels of settings and remarks, which are left out."""
    header_rows: int = 1
    """Rows a label is spread over."""
    has_units_row: bool = False
    """Whether a row of units may stand below the header."""
    counts: tuple[tuple[str, str], ...] = ()
    """Labels of densities with those of the cells counted for them."""
    between: str = " :"
    """What stands between a label and its value in the text of a report."""
    offset: str = ""
    """Label of the hours by which times are ahead of UTC, where a report has one."""
    has_doubts: bool = False
    """Whether a value may have a doubt of the instrument in brackets behind it."""
    footnote: str = ""
    """What is told of every file."""

    @cached_property
    def known(self) -> Mapping[str, Column]:
        """Column by label as `folded` writes it."""
        return {folded(label): c for c in self.columns for label in c.labels}

    @cached_property
    def stems(self) -> Mapping[str, Column]:
        """Column by label without what stands in brackets."""
        return {stem(label): c for c in self.columns for label in c.labels}

    @cached_property
    def left_out(self) -> frozenset[str]:
        """Labels of settings as `folded` writes them."""
        return frozenset(map(folded, self.settings))

    @cached_property
    def all_labels(self) -> frozenset[str]:
        """Every label of the description as `folded` writes it."""
        others = {*self.samples, *self.settings, *(label for ls in self.times for label in ls)}
        others |= {self.offset} - {""}
        return frozenset(self.known) | frozenset(map(folded, others))

    @property
    def time_labels(self) -> tuple[str, ...]:
        """Labels of every time."""
        return tuple(label for labels in self.times for label in labels)


def folded(label: str) -> str:
    """A label without blanks, case and differences nobody sees.

    Example:
        >>> folded("Average diameter (\u00b5m)") == folded("average  diameter (\u03bcm)")
        True
    """
    return _BLANKS.sub("", unicodedata.normalize("NFKC", label)).casefold()


def stem(label: str) -> str:
    """A label without what stands in brackets, folded.

    Example:
        >>> stem("Viable (x10^6) cells/mL")
        'viablecells/ml'
    """
    return folded(_BRACKETS.sub("", label))


def bracketed(label: str) -> str:
    """What stands in the last brackets of a label; empty for none."""
    found = _BRACKETS.findall(label)
    return found[-1][1:-1].strip() if found else ""
