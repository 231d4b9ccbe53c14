"""What a journal holds, and the rule by which a write of unknown outcome is judged."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from perfusio_jax._core import PerfusioError


class JournalError(PerfusioError, RuntimeError):
    """The journal cannot be used, or was asked for what its rules forbid."""


class Stored(enum.Enum):
    """What became of a sample."""

    NEW = "new"
    """It was not there before."""
    DUPLICATE = "duplicate"
    """The same sample was there already; nothing changed."""
    CORRECTED = "corrected"
    """It replaces an earlier one, which is kept as an older revision."""


class Stage(enum.IntEnum):
    """How far the cycle of one reactor and day has come."""

    NOTHING = 0
    SAMPLED = 1
    DECIDED = 2
    INTENT_OPEN = 3
    DONE = 4


class Settlement(enum.Enum):
    """What a read-back says about a write whose outcome was unknown."""

    ARRIVED = "arrived"
    """The device holds what was intended: closed as written."""
    DECIDE_ANEW = "decide_anew"
    """It does not: the decision is superseded, and today's cycle decides again."""
    EXPIRED = "expired"
    """It does not, and its day is over: the decision is superseded and nothing is sent."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One stored sample."""

    reactor_id: str
    day: float
    """Culture day [d]."""
    values: dict[str, Any]
    """What was stored; `None` where a value is missing."""
    revision: int
    """1 for the first, higher for corrections."""
    stored_at: str
    """ISO 8601, UTC."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One standing decision."""

    id: int
    reactor_id: str
    day: float
    payload: dict[str, Any]
    decided_at: str


@dataclass(frozen=True, slots=True)
class Intent:
    """A write that was begun, and what became of it."""

    id: int
    decision_id: int
    reactor_id: str
    day: float
    setpoints: dict[str, float]
    opened_at: str
    outcome: str | None
    """`None` while open; else "written", "failed", "arrived", "decide_anew" or "expired"."""
    result: dict[str, Any] | None
    """Read-back and details given on closing."""


@dataclass(frozen=True, slots=True)
class Command:
    """What a person asked of a running twin."""

    id: int
    """Its number in the journal; 0 while it lies in the inbox."""
    reactor_id: str
    kind: str
    actor: str
    """Who asks, by their own word."""
    role: str | None
    payload: dict[str, Any]
    sent_at: str
    """When it was taken in, or left in the inbox."""
    account: str | None = None
    """Account it came from, as the system says; `None`: kept by an earlier version."""

    @property
    def who(self) -> str:
        """For people: the account, and whom it says to be if that is somebody else."""
        account = self.account or "an account nobody noted"
        return account if account == self.actor else f"{account}, who says to be {self.actor}"


def settled_as_written(
    intended: Mapping[str, float],
    read_back: Mapping[str, float | None],
    tolerance: Mapping[str, float],
) -> bool | None:
    """Whether the device holds what was intended.

    Args:
        intended: Values sent, perhaps.
        read_back: Values in force.
        tolerance: Difference per control that is rounding; 1e-6 relative is always allowed,
            which covers a device that keeps 32-bit floats.

    Returns:
        True or False; `None` if a control was not read back, unless another one already
        differs.
    """
    is_unknown = False
    for name, wanted in intended.items():
        actual = read_back.get(name)
        if actual is None or actual != actual:
            is_unknown = True
        elif abs(actual - wanted) > tolerance.get(name, 0.0) + 1e-6 * max(abs(wanted), abs(actual)):
            return False
    return None if is_unknown else True
