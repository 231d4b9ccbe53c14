"""What is told of an alarm, on what it was raised, and what became of telling it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from .channels import Picture


@dataclass(frozen=True)
class AlarmEvent:
    """A single alarm."""

    day: float
    """Culture day [d] on which it is raised; a fraction between two whole ones."""
    species: str
    """What it is about."""
    predicted_value: float
    """Mean forecast (or measurement, if `lead_days` is 0), in the species' unit; NaN if
    there is none."""
    threshold: float
    """Limit that is crossed; NaN if it cannot be judged."""
    direction: str
    """"below", "above" or "unknown": the forecast cannot tell, which is an alarm too."""
    lead_days: float
    """How many days [d] ahead; 0 for a measurement."""
    probability: float | None = None
    """Probability of being beyond the limit on that day, if the forecast has a spread."""
    probability_within_lead: float | None = None
    """Probability of crossing it on any day of the lead window (a lower bound if only
    quantiles are known)."""
    severity: str = "warning"
    """"warning" or "critical"."""
    kind: str = "forecast"
    """"forecast", "sample", "quality", "drift", "session" or "online"."""
    note: str = ""
    """The sentence itself, where it is not about a limit."""
    reactor_id: str = ""
    """Vessel, set where people are told; a rack of them tells through one channel."""

    @property
    def name(self) -> str:
        """What the alarm is about; one of a name stands at a time."""
        return f"{self.kind}/{self.species}/{self.direction}"

    @property
    def violation_day(self) -> float:
        """Culture day [d] on which the limit is crossed."""
        return self.day + self.lead_days

    @property
    def message(self) -> str:
        """One sentence for people."""
        whose = f"{self.reactor_id}: " if self.reactor_id else ""
        return f"{whose}{self._sentence()}"

    def _sentence(self) -> str:
        if self.note:
            return f"{self.severity}: {self.note}"
        if self.direction == "unknown":
            return f"{self.species}: no usable value for day {self.violation_day:g}"
        what = "is" if self.lead_days == 0 else "is forecast to be"
        odds = "" if self.probability is None else f" (probability {self.probability:.0%})"
        return (
            f"{self.severity}: {self.species} {what} {self.predicted_value:.3g} on day "
            f"{self.violation_day:g}, limit {self.threshold:.3g} from {self.direction}{odds}"
        )


class Foreseen(NamedTuple):
    """The forecast that alarms were raised on."""

    day: float
    """Culture day [d] it starts from."""
    species: Sequence[str]
    """Names of its columns."""
    forecast: Mapping[str, Any]
    """As `AlarmLimits.check_forecast` takes it."""


Draws = Callable[[Sequence[AlarmEvent], Foreseen | None], Picture]
"""Draws what alarms are about. Blocks; raises if it cannot."""


@dataclass(frozen=True)
class DispatchReport:
    """What became of a batch of alarms."""

    sent: tuple[str, ...] = ()
    """Channels that took them."""
    failed: tuple[tuple[str, str], ...] = ()
    """Channels that did not, with the reason; no secret is in it."""
    n_suppressed: int = 0
    """Alarms held back by the rate limit, counted per channel."""
    no_picture: str = ""
    """Why a channel that takes a picture told without one."""

    @property
    def ok(self) -> bool:
        """Whether no channel failed."""
        return not self.failed
