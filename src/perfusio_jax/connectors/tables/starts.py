"""When runs began, for files that give the time of day only."""

import datetime as dt
import zoneinfo
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from perfusio_jax._core import ConfigError, DataError
from perfusio_jax._core.instants import instant, parsed


@dataclass(frozen=True, slots=True)
class Starts:
    """One time for the only run of a file, or a time for each run."""

    of_all: dt.datetime | None = None
    """Start of the only run, in UTC."""
    of_run: Mapping[str, dt.datetime] = field(default_factory=dict)
    """Start by run, or by reactor where that names the run."""
    run_id: str | None = None
    """The only run that is looked at, if one was asked for."""
    reactor_id: str | None = None
    """The only reactor that is looked at, if one was asked for."""

    def find(
        self, run_id: str, reactor_id: str, so_far: set[tuple[str, str]]
    ) -> dt.datetime | None:
        """Start of the run a row belongs to.

        Args:
            run_id: Run of the row; empty if the file names none.
            reactor_id: Its reactor; the same.
            so_far: Runs met before; the row's is put in.

        Returns:
            The start in UTC; `None` for a run that was not asked for.

        Raises:
            DataError: If one time would be that of two runs, or the run has none.
        """
        for asked, own in ((self.run_id, run_id), (self.reactor_id, reactor_id)):
            if asked is not None and own and own != asked:
                return None
        so_far.add((run_id, reactor_id))
        if self.of_all is None:
            for name in (run_id, reactor_id):
                if name in self.of_run:
                    return self.of_run[name]
            raise DataError(
                f"no start is given for {_name(run_id, reactor_id)}; there are starts of "
                f"{', '.join(self.of_run)}. Add --inoculated-at {run_id or reactor_id}=TIME."
            )
        if len(so_far) > 1:
            names = " and ".join(sorted(_name(*key) for key in so_far))
            raise DataError(
                f"one start, {self.of_all.isoformat()}, is given, and the file holds {names}: runs "
                "need not begin together. Give each its own with --inoculated-at RUN=TIME, once "
                "for each, or name the run that counts."
            )
        return self.of_all


def starts_of(
    given: dt.datetime | Mapping[str, dt.datetime] | Starts | None,
    zone: zoneinfo.ZoneInfo | None = None,
    *,
    run_id: str | None = None,
    reactor_id: str | None = None,
) -> Starts | None:
    """Starts in UTC from whatever way they are given.

    Args:
        given: A time, times by run (or reactor), or nothing.
        zone: Zone of times without an offset.
        run_id: The only run that is looked at.
        reactor_id: The only reactor that is looked at.

    Raises:
        ConfigError: If a time has no zone.
    """
    if given is None or isinstance(given, Starts):
        return given
    if isinstance(given, Mapping):
        each = {str(name): _utc(at, zone, f" of {name}") for name, at in given.items()}
        if not each:
            raise ConfigError("inoculated_at names no run; leave it out or name some.")
        return Starts(of_run=each, run_id=run_id, reactor_id=reactor_id)
    return Starts(_utc(given, zone, ""), run_id=run_id, reactor_id=reactor_id)


def parse_starts(
    given: str | Sequence[str] | None,
) -> dt.datetime | dict[str, dt.datetime] | None:
    """Starts from a command line: one time, or RUN=TIME for each run.

    Raises:
        ConfigError: If a time cannot be read, a run is named twice, or both forms are mixed.
    """
    items = [given] if isinstance(given, str) else list(given or ())
    if not items:
        return None
    pairs = [item.rpartition("=")[::2] for item in items]
    names = [name.strip() for name, _ in pairs]
    times = [_read(text.strip()) for _, text in pairs]
    if names == [""]:
        return times[0]
    twice = sorted({n for n in names if n and names.count(n) > 1})
    if twice:
        raise ConfigError(f"--inoculated-at gives more than one start of {', '.join(twice)}.")
    if "" in names:
        raise ConfigError(
            f"--inoculated-at is {', '.join(items)}; one time is for the only run of a file, "
            "several need RUN=TIME each."
        )
    return dict(zip(names, times, strict=True))


def _read(text: str) -> dt.datetime:
    try:
        return parsed(text, "--inoculated-at")
    except DataError as error:
        raise ConfigError(
            f"{error} A time such as 2026-05-06T08:00 is meant, or RUN=2026-05-06T08:00 for each "
            "run."
        ) from None


def _utc(at: dt.datetime, zone: zoneinfo.ZoneInfo | None, whose: str) -> dt.datetime:
    if at.tzinfo is None:
        if zone is None:
            raise ConfigError(f"inoculated_at {at}{whose} has no time zone; add one.")
        at = at.replace(tzinfo=zone)
    try:
        return instant(at, f"inoculated_at{whose}")
    except DataError as error:
        raise ConfigError(str(error)) from None


def _name(run_id: str, reactor_id: str) -> str:
    parts = [f"run {run_id}"] * bool(run_id) + [f"reactor {reactor_id}"] * bool(reactor_id)
    return ", ".join(parts) or "rows without a run"
