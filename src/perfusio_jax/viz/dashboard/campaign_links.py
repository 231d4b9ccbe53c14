"""Addresses of a campaign: which runs are left out and which recipes are refused stands in them."""

import math
import urllib.parse
from collections.abc import Sequence
from typing import Final

from perfusio_jax._core.text import plain_number

from .views import Campaign, Proposal

_LONGEST: Final = 2000
"""Characters of a recipe that are looked at."""


def recipe_text(recipe: Sequence[float]) -> str:
    """A recipe as an address has it."""
    return ",".join(f"{value!r}" for value in recipe)


def recipe_of(text: str) -> list[float]:
    """A recipe of an address; nothing where it is none."""
    try:
        found = [plain_number(part) for part in text[:_LONGEST].split(",")]
    except ValueError:
        return []
    return found if all(map(math.isfinite, found)) else []


def refusing(c: Campaign, p: Proposal) -> str:
    """The address of the same campaign without a recipe that is proposed."""
    return _campaign_at(c, [*c.refused, [p.set_points[name] for name in c.units]])


def allowing(c: Campaign, recipe: Sequence[float]) -> str:
    """The address of the same campaign with a recipe that was refused."""
    return _campaign_at(c, [r for r in c.refused if r != recipe])


def _campaign_at(c: Campaign, refused: Sequence[Sequence[float]]) -> str:
    asked = [("without", run.name) for run in c.runs if run.is_left_out]
    asked += [("not", recipe_text(recipe)) for recipe in refused]
    return f"/campaign?{urllib.parse.urlencode(asked)}" if asked else "/campaign"
