"""What the next runs should be like, in the words of whoever asks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from perfusio_jax.connectors.files.cultures import CHO, FROM_TABLE
from perfusio_jax.report.goal_file import GoalFile

GOALS = ("titre", "vcv", "front", "yield", "medium")
"""Titre at the end; VCV on its target; front of titre and -ammonium; space-time yield; medium
per gram."""


class Wishes(NamedTuple):
    """What the next runs should be like."""

    goal: str = "titre"
    """One of `GOALS`, or by name, as `max Titer`."""
    n_runs: int = 8
    days: int | None = None
    """Length of a run [d]; that of the longest so far."""
    target: float | None = None
    """VCV target [%]; the design space's."""
    viability: float | None = None
    """Lowest viability [%]; the design space's."""
    ammonium: float | None = None
    """Highest ammonium [mmol/L]; no limit by default."""
    limits: tuple[str, ...] = ()
    """Limits by name, as `Via>=80`."""
    probability: float = 0.8
    """With which limits are to be kept on every day [-]."""
    fixed: Mapping[str, float] = {}
    """Set-points held at a value, by name; that of the runs so far too, where their table lacks
    the control."""
    fill_down: bool = False
    """Whether a blank set-point in the table means that the one before it stayed."""
    clone: str | None = None
    """Clone to plan for, where the file holds several; that of the last run."""
    profile: int = 0
    """Changes of each set-point within a run, at most."""
    max_change: Mapping[str, float] = {}
    """Largest change of a set-point at once, by name; absent: not limited."""
    goals: tuple[str, ...] = ()
    """Several goals by name in place of one."""
    weights: tuple[float, ...] | None = None
    """What a unit of each of them is worth."""
    is_front: bool = False
    """Whether they are kept apart, for the front between them."""
    per: str = ""
    """`cost` or `day`: what there is to be most of counts per that."""
    costs: Mapping[str, float] = {}
    """Prices of a run of a described culture; see `bed.goal.costs`."""
    without: tuple[str, ...] = ()
    """Runs of the table that nothing is learned from."""
    posterior: Path | None = None
    """Folder of a posterior, whose draws stand in for the constants of the fit."""
    accept_warnings: bool = False
    """Whether draws count that something speaks against."""
    seed: int = 0


def wishes_of(
    told: GoalFile,
    *,
    goal: str | None = None,
    limits: Sequence[str] = (),
    probability: float | None = None,
    **more: Any,
) -> Wishes:
    """What a goal file and options ask for; options count more.

    Args:
        told: What the file says.
        goal: Goal of the options.
        limits: Limits of the options.
        probability: With which limits are to be kept.
        **more: Further fields of `Wishes`.
    """
    return Wishes(
        goal=goal or ("titre" if not told.goals else told.goals[0]),
        goals=told.goals if goal is None and len(told.goals) > 1 else (),
        weights=told.weights if goal is None else None,
        is_front=told.front and goal is None,
        limits=tuple(limits or told.limits),
        probability=(told.probability or 0.8) if probability is None else probability,
        **{"per": told.per, "costs": told.cost, "profile": told.profile or 0,
           "max_change": told.max_change, **more},
    )  # fmt: skip


def _is_ours(wishes: Wishes) -> bool:
    """Whether the goal is a word of ours, which is of CHO perfusion."""
    return not wishes.goals and wishes.goal in GOALS


def culture_of(wishes: Wishes, culture: str | None) -> str:
    """How the table is read: of CHO perfusion for a goal by a word of ours, else of any culture.

    Args:
        wishes: With the goal.
        culture: What a person said, which counts more; None for nothing.
    """
    return culture or (CHO if _is_ours(wishes) else FROM_TABLE)
