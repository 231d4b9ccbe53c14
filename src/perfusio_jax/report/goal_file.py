"""The file that says what the next runs are for: goals, limits, prices, how often they change."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from perfusio_jax._core import ConfigError
from perfusio_jax._core.hints import did_you_mean
from perfusio_jax._core.limits import read_toml


class GoalFile(NamedTuple):
    """What a goal file says; None and empty where it does not."""

    goals: tuple[str, ...] = ()
    """Each `max EXPR`, `min EXPR` or `EXPR = value`."""
    weights: tuple[float, ...] | None = None
    """What a unit of each is worth."""
    front: bool = False
    """Whether the goals are kept apart, for the front between them."""
    limits: tuple[str, ...] = ()
    """As `Via>=80` or `used(feed) <= 3`."""
    probability: float | None = None
    """With which limits are kept [-]."""
    per: str = ""
    """`cost` or `day`."""
    profile: int | None = None
    """Changes of each control within a run, at most."""
    max_change: Mapping[str, float] = {}
    """Largest change at once, by control."""
    cost: Mapping[str, float] = {}
    """Prices; see `bed.goal.costs`."""


_KINDS: dict[str, tuple[Any, str]] = {
    "goals": (list, "a list of texts"),
    "weights": (list, "a list of numbers"),
    "front": (bool, "true or false"),
    "limits": (list, "a list of texts"),
    "probability": ((int, float), "a number"),
    "per": (str, "cost or day"),
    "profile": (int, "a whole number"),
    "max_change": (dict, "a table of numbers"),
    "cost": (dict, "a table of numbers"),
}


def read_goal_file(path: Path) -> GoalFile:
    """A goal file.

    Args:
        path: TOML file.

    Returns:
        What it says.

    Raises:
        ConfigError: If it is no file, a key is unknown, or a value is of another kind.
    """
    if not path.is_file():
        raise ConfigError(f"{path} is not a file; name a TOML file with goals.")
    told: dict[str, Any] = dict(read_toml(path))
    found: dict[str, Any] = {}
    for key, value in told.items():
        if key not in _KINDS:
            raise ConfigError(
                f"{path}: {key!r} is unknown{did_you_mean([key], _KINDS)}; there are "
                f"{', '.join(_KINDS)}."
            )
        kind, said = _KINDS[key]
        is_right = _is_right(key, value, kind)
        if not is_right:
            raise ConfigError(f"{path}: {key} is {value!r}; {said} is needed.")
        found[key] = tuple(value) if isinstance(value, list) else value
    return GoalFile(**found)


def _is_right(key: str, value: Any, kind: Any) -> bool:
    """Whether a value is of its key's kind, down to its entries."""
    if not _is_kind(value, kind):
        return False
    if key in ("goals", "limits"):
        return all(isinstance(entry, str) for entry in value)
    if key == "weights":
        return all(_is_number(entry) for entry in value)
    if key in ("max_change", "cost"):
        return all(_is_number(entry) for entry in value.values())
    return True


def _is_kind(value: Any, kind: Any) -> bool:
    """Whether a value is of a kind; true and false are no numbers."""
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
