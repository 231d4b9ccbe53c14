"""What a session is in: armed or not, manual or automatic, and what it believes is in force.

State only, with the rules by which it changes. All of it can be worked out again from the
journal, so that a crash forgets nothing: who was disarmed stays so until somebody arms it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..decision.gate import operator_edits
from ..records.entries import Command, Intent, Sample, Settlement


@dataclass
class Session:
    """State of one reactor's session."""

    resolution: Mapping[str, float]
    """Step of the device's grid, by control; half of it is rounding."""
    is_armed: bool = False
    """Whether set-points may be written."""
    is_manual: bool = False
    """Whether a person has taken the reactor over: everything is watched, nothing written."""
    overridden: frozenset[str] = frozenset()
    """Controls an operator moved by hand since the session was armed."""
    plan: dict[str, float] = field(default_factory=dict)
    """Set-points that should be in force as far as we have moved them."""
    stated: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Day of the latest sample that told a set-point, and what it told: in force where neither the
    device nor the plan says, as in a file nobody has written set-points for."""
    last_write_day: float | None = None
    """Day [d] of the last write that reached the device, in part or whole."""
    last_good_h: float | None = None
    """Culture time [h] of the last good and plausible sample."""
    strays: dict[str, list[float]] = field(default_factory=dict)
    """Values sent without known effect: one that turns up later is ours, not an operator's."""

    reset: dict[str, float] = field(default_factory=dict)
    """What the device was left with by a restart, by control, until it holds the plan again."""
    defaults: list[Mapping[str, float | None]] = field(default_factory=list)
    """Set-points the device is known to start with: those before the first write, those after
    each restart."""
    started: str | None = None
    """When the device started, as it said last."""
    was_away: bool = True
    """Whether the device could not be reached since it was last looked at, or nobody looked."""

    before: dict[str, float | None] = field(default_factory=dict)
    """Read-back before the write that is open: what it is compared with."""

    @property
    def mode(self) -> str:
        """One word for people: "manual", "armed" or "disarmed"."""
        return "manual" if self.is_manual else ("armed" if self.is_armed else "disarmed")

    def recover(
        self, commands: Iterable[Command], intents: Iterable[Intent], samples: Iterable[Sample]
    ) -> None:
        """Take up the state where the journal left it."""
        story: list[tuple[str, Command | Intent]] = [(c.sent_at, c) for c in commands]
        story += [(i.opened_at, i) for i in intents]
        for _, item in sorted(story, key=lambda entry: entry[0]):
            if isinstance(item, Command):
                self.apply(item.kind, item.payload)
            elif item.outcome in ("written", "arrived"):
                self.written(item)
            elif item.outcome in ("decide_anew", "expired"):
                self.settled(item, Settlement(item.outcome), _read_back(item))
        for sample in samples:
            self.sampled(sample.values)

    def apply(self, kind: str, payload: Mapping[str, object]) -> None:
        """Change mode as a command says."""
        if kind == "arm":
            # What an operator set by hand is where the twin takes over from.
            self.plan = {n: v for n, v in self.plan.items() if n not in self.overridden}
            self.is_armed, self.overridden = True, frozenset()
        elif kind == "disarm":
            self.is_armed = False
        elif kind in ("manual", "automatic"):
            self.is_manual = kind == "manual"
        elif kind == "override":
            names = payload.get("controls")
            if isinstance(names, (list, tuple)):
                self.overridden |= {str(name) for name in names}
                for name in names:
                    self.reset.pop(str(name), None)
        elif kind == "device_reset":
            values, everything = payload.get("values"), payload.get("all")
            if isinstance(values, Mapping) and isinstance(everything, Mapping):
                self.reset.update({str(n): float(v) for n, v in values.items()})
                self.defaults.append(dict(everything))
        elif kind == "device_start":
            self.started = str(payload["at"])

    def sampled(self, record: Mapping[str, object]) -> None:
        """Note a sample, as the journal holds it."""
        time_h, found = record.get("time_h"), record.get("read_back")
        if not self.defaults and not self.plan and isinstance(found, Mapping):
            self.defaults.append(dict(found))
        self.tell(record)
        if record.get("quality") == "good" and not record.get("implausible"):
            if isinstance(time_h, (int, float)):
                self.last_good_h = max(float(time_h), self.last_good_h or 0.0)

    def tell(self, record: Mapping[str, object]) -> None:
        """Note the set-points that came with a sample; one that comes late undoes no later one."""
        day, controls = record.get("day"), record.get("controls")
        if not isinstance(controls, Mapping) or not isinstance(day, (int, float)):
            return
        for name, value in controls.items():
            if value is not None and day >= self.stated.get(name, (day, 0.0))[0]:
                self.stated[name] = (float(day), float(value))

    def believed(self, initial: Mapping[str, float]) -> dict[str, float]:
        """Set-points where the device says nothing.

        Args:
            initial: What the run is told to begin with, by control.

        Returns:
            The plan; what is not in it as samples told last, else as `initial` says.
        """
        told = {name: value for name, (_, value) in self.stated.items()}
        return {**initial, **told, **self.plan}

    def written(self, intent: Intent) -> None:
        """Note a write that reached the device."""
        self.plan.update(intent.setpoints)
        self.last_write_day = intent.day
        for name in intent.setpoints:
            self.strays.pop(name, None)
            self.reset.pop(name, None)

    def settled(
        self, intent: Intent, verdict: Settlement, read_back: Mapping[str, float | None]
    ) -> None:
        """Note what a write of unknown outcome came to."""
        if verdict is Settlement.ARRIVED:
            self.written(intent)
            return
        missing = operator_edits(intent.setpoints, read_back, self.resolution)
        for name, value in intent.setpoints.items():
            if name in missing or read_back.get(name) is None:
                self.strays.setdefault(name, []).append(value)
                continue
            self.plan[name] = value
            self.reset.pop(name, None)
            was = self.before.get(name)
            if was is None or operator_edits({name: was}, read_back, self.resolution):
                self.last_write_day = intent.day  # it moved: a part of the write arrived

    def edits(self, read_back: Mapping[str, float | None]) -> frozenset[str]:
        """Controls somebody else moved since we last did.

        A value that was sent without known effect and is in force now came late: it is taken
        for ours.
        """
        edited = operator_edits(self.plan, read_back, self.resolution)
        late = set()
        for name in edited:
            actual = read_back[name]
            for value in self.strays.get(name, []):
                if not operator_edits({name: value}, {name: actual}, self.resolution):
                    self.plan[name] = value
                    late.add(name)
        return edited - late


def _read_back(intent: Intent) -> Mapping[str, float | None]:
    found = (intent.result or {}).get("read_back")
    return found if isinstance(found, Mapping) else {}
