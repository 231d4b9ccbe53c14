"""What the shell needs from whatever decides: a model and a policy, or a stand-in in tests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from .grid import Grid

Row = Mapping[str, Any]
"""One sample: `day`, `time_h`, `values`, `controls` in force after it, `stream_totals`."""


@dataclass(frozen=True, slots=True)
class OnlineReading:
    """One reading of an online tag."""

    tag: str
    time_h: float
    """Culture time [h]."""
    value: float | None
    quality: str


@dataclass(frozen=True)
class Situation:
    """All that a decision may depend on; kept in the journal, so that it can be repeated."""

    day: float
    """Culture day [d]; an `int` where it is a whole one."""
    rows: Sequence[Row]
    """Samples so far, the last one being today's."""
    u_now: Mapping[str, float]
    """Set-points in force, by control."""
    fixed: Mapping[str, float] = field(default_factory=dict)
    """Set-points an operator holds by hand."""
    readings: Sequence[OnlineReading] = ()
    """Online readings so far, in order of time."""
    grids: Mapping[str, Grid] = field(default_factory=dict)
    """What the device can hold, by control; one without a grid holds any number."""


@dataclass(frozen=True)
class Proposal:
    """What a brain recommends; nothing in it has passed the gate."""

    setpoints: Mapping[str, float]
    """Recommended set-points by control."""
    digest: str = ""
    """SHA-256 over everything the recommendation was made from."""
    forecast: Mapping[str, Any] | None = None
    """Forecast in the form alarms read: `days`, `mean`, `q10`, `q50`, `q90`, `samples`; where its
    rows are no days apart also `lead_days`, how far ahead [d] of the decision each one is."""
    species: Sequence[str] = ()
    """Columns of the forecast."""
    explanation: Mapping[str, Any] = field(default_factory=dict)
    """Why, for people."""
    native: Any = None
    """The brain's own record of the decision."""
    volume_L: float | None = None
    """Volume in the vessel [L], for a culture whose volume moves."""


@dataclass(frozen=True)
class Lesson:
    """What learning came to."""

    is_promoted: bool
    """Whether a new model is in use from now on."""
    old: str
    """Digest of the model before."""
    new: str
    """Digest of the model that was made."""
    reason: str
    """Why it was promoted or not."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Scores, number of rows."""
    is_trial: bool = False
    """Whether the new model is still to be judged."""


class Brain(Protocol):
    """Learns and proposes. Calls block; the shell makes them in a thread, one at a time."""

    def learn(self, situation: Situation) -> Lesson | None:
        """Learn from the run so far; `None` if there is nothing to do today."""
        ...

    def propose(self, situation: Situation) -> Proposal:
        """Recommend set-points. The same situation and model give the same bytes."""
        ...

    def abandon(self) -> None:
        """Nobody waits for the call under way any more: it may no longer change anything."""
        ...

    def outlook(self, situation: Situation) -> Proposal | None:
        """Forecast from online readings between two samples; `None` if it cannot."""
        ...
