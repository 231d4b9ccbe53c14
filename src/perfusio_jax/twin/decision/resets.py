"""A device that restarted with its default set-points, told apart from an operator's hand. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from .gate import operator_edits

ReadBack = Mapping[str, float | None]

LEAST_AT_ONCE: Final = 2
"""Controls that must be back at their defaults together where the device does not say when it
started; one alone is what an operator does."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What speaks for a restart of the device since it was last looked at."""

    has_restarted: bool | None = None
    """Whether the device says so itself; `None` if it says nothing about its start."""
    was_away: bool = False
    """Whether it could not be reached meanwhile, or nobody looked."""


def forgotten(
    plan: Mapping[str, float],
    read_back: ReadBack,
    defaults: Iterable[ReadBack],
    resolution: Mapping[str, float],
    evidence: Evidence,
) -> frozenset[str]:
    """Controls whose set-point the device lost in a restart; other edits are an operator's.

    A device that restarts forgets all of them. So one control that still holds what was planned,
    and whose default is another value, shows that it did not; and a value that is neither planned
    nor a default was set by somebody, unless the restart is certain and nothing is known of any.

    Args:
        plan: Values that should be in force, by control.
        read_back: Values in force; `None` where nobody can say.
        defaults: Set-points the device may start with, as far as they are known.
        resolution: Device step; half of it is rounding.
        evidence: What speaks for a restart.

    Returns:
        Names among those that differ from the plan; empty where no restart explains it.
    """
    if evidence.has_restarted is False or not (evidence.has_restarted or evidence.was_away):
        return frozenset()
    changed = operator_edits(plan, read_back, resolution)
    readable = {n for n in plan if read_back.get(n) is not None}
    known = [dict(table) for table in defaults]

    def at_default(name: str, value: float | None) -> bool:
        return any(
            default is not None and not operator_edits({name: default}, {name: value}, resolution)
            for default in (table.get(name) for table in known)
        )

    kept = {
        n
        for n in readable - changed
        if any(table.get(n) is not None for table in known) and not at_default(n, plan[n])
    }
    if kept or not changed:
        return frozenset()
    back = frozenset(n for n in changed if at_default(n, read_back[n]))
    if evidence.has_restarted:
        is_all_new = not back and changed == readable and len(changed) >= LEAST_AT_ONCE
        return changed if is_all_new else back
    return back if back == changed and len(back) >= LEAST_AT_ONCE else frozenset()
