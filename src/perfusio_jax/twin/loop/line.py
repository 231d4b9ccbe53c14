"""Whether the source of samples can be read: said at once, and an alarm if it lasts."""

from collections.abc import Callable

from ..alarms.desk import AlarmDesk, event
from ..records.runtime import Runtime


class SourceLine:
    """Follows one reactor's source.

    Args:
        desk: Alarms.
        runtime: Clocks.
        patience_s: How long it may be away before people are told [s].
        say: Called with one line when it goes, changes its reason, and comes back.
    """

    def __init__(
        self, desk: AlarmDesk, runtime: Runtime, *, patience_s: float, say: Callable[[str], None]
    ) -> None:
        self._desk = desk
        self._rt = runtime
        self._patience_s = patience_s
        self._say = say
        self._since: float | None = None
        self._why = ""
        self._may_stand = True  # an alarm of an earlier session may still stand
        self._is_raised = False
        self.has_answered = False
        """Whether it answered in this session."""

    async def lost(self, day: float, why: str) -> None:
        """It cannot be read, or what it holds cannot be understood."""
        now = self._rt.monotonic()
        if self._since is None:
            self._since = now
        if why != self._why:
            self._why = why
            self._say(f"day {day:g}: the source cannot be read: {why}")
        away_s = now - self._since
        if away_s >= self._patience_s and not self._is_raised:
            self._is_raised = self._may_stand = True
            note = f"the source could not be read for {away_s / 60.0:.3g} min: {why}"
            await self._desk.raise_one(event("session", "source", note, day))

    async def back(self, day: float) -> None:
        """It answers."""
        if self._since is not None:
            self._say(f"day {day:g}: the source answers again")
        self._since, self._why, self._is_raised = None, "", False
        self.has_answered = True
        if self._may_stand:
            await self._desk.clear(event("session", "source", "", day))
            self._may_stand = False
