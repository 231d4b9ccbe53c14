"""What the page shows, as values: whoever reads run folders fills them, templates draw them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from perfusio_jax.twin.records.alarm_book import Alarm

from ..runs import Band, RunView


class Need(NamedTuple):
    """Why somebody should look at a reactor."""

    rank: int
    """0 before all others."""
    text: str
    """In a few words."""


class Chain(NamedTuple):
    """How the audit trail of a run stands."""

    state: str
    """"ok", "bad", "unknown" while it is being verified, or "copy": it is one, in a database."""
    text: str
    """In a sentence."""
    n_records: int = 0
    """Records that verified."""
    head_hash: str = ""
    """Hash of the last of them."""
    key_id: str = ""
    """Who signed it; empty if nobody did."""
    notes: Sequence[str] = ()
    """What is odd but no sign of tampering."""


class Option(NamedTuple):
    """Set-points somebody could choose, and what is expected of them."""

    name: str
    """What they are: recommended, as it is now, or another good recipe."""
    set_points: Mapping[str, float]
    """By control, in canonical units."""
    cost: float
    """Expected cost; NaN where nobody reckoned it."""
    probability: float
    """Of keeping every limit; NaN where nobody reckoned it."""


class Chosen(NamedTuple):
    """One decision."""

    number: int
    """Its number in the journal."""
    day: float
    """Culture day [d]."""
    decided_at: str
    """When, UTC."""
    action: str
    """"write", "hold" or what else the gate said; empty while it is open."""
    changes: Sequence[str]
    """Set-points that change, as "name before → after unit"."""
    reasons: Sequence[str]
    """Why, one sentence each."""
    options: Sequence[Option]
    """What was compared, the recommendation first."""
    votes: Sequence[str]
    """Who approved or refused it."""
    outcome: str
    """What it came to; empty while it is open."""
    roles: Sequence[str] = ()
    """Roles whose approval is waited for."""


class Reactor(NamedTuple):
    """One vessel of one run folder."""

    key: str
    """Its place in addresses: letters and digits."""
    name: str
    """Vessel, from anywhere."""
    run_id: str
    """Run, from anywhere."""
    folder: str
    """Name of the run folder."""
    culture: str
    """What grows there."""
    is_running: bool
    """Whether a process drives it now."""
    mode: str
    """"armed", "disarmed", "manual" or "advising"."""
    closed: str
    """How far it is, in words."""
    overridden: Sequence[str]
    """Controls held by hand."""
    n_open_writes: int
    """Writes whose outcome is unknown."""
    commands: Sequence[str]
    """What was asked and is not carried out yet."""
    alarms: Sequence[Alarm]
    """Alarms, those that stand first, the newest first."""
    waiting: Sequence[Chosen]
    """Decisions of a cycle that is not closed."""
    decisions: Sequence[Chosen]
    """Decisions on record, the newest first; empty where the trail does not verify."""
    run: RunView
    """Readings, forecasts, set-points."""
    units: Mapping[str, str]
    """Unit of each quantity and control."""
    key_names: Sequence[str]
    """Readings an overview shows."""
    chain: Chain
    """How the audit trail stands."""
    needs: Sequence[Need]
    """What wants a person, the most urgent first."""
    notes: Sequence[str]
    """What could not be read."""


class Trouble(NamedTuple):
    """A folder that cannot be shown."""

    folder: str
    """Its name."""
    text: str
    """Why not, in a sentence."""


class Rack(NamedTuple):
    """Everything at a place."""

    title: str
    """Name of the place."""
    reactors: Sequence[Reactor]
    """Those that want a person first."""
    troubles: Sequence[Trouble]
    """Folders that cannot be shown."""


class Table(NamedTuple):
    """Rows under headings."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: Sequence[int] = ()
    """Columns of numbers."""
    note: str = ""
    """A sentence below it."""


class Remark(NamedTuple):
    """A sentence between tables."""

    text: str
    is_warning: bool = False


class Trail(NamedTuple):
    """A stretch of an audit trail."""

    chain: Chain
    records: Sequence[Mapping[str, Any]]
    """Those found, the newest first."""
    n_found: int
    """How many were found in all."""
    kinds: Sequence[str]
    """Kinds of events there are."""


class Slider(NamedTuple):
    """A set-point that may be tried."""

    name: str
    """Control."""
    unit: str
    low: float
    """Lowest that may be tried."""
    high: float
    """Highest."""
    step: float
    """Between two values."""
    now: float
    """In force."""
    value: float
    """Tried."""

    @property
    def is_still(self) -> bool:
        """Whether what is tried is what is in force."""
        return self.value == self.now


class Trial(NamedTuple):
    """What a run would come to under other set-points."""

    state: str
    """"ready", "working" while it is being prepared, or "none"."""
    text: str
    """With which model, or why there is none."""
    sliders: Sequence[Slider] = ()
    """What may be tried."""
    bands: Mapping[str, Band] = {}
    """Forecast under what is tried, by quantity."""
    unchanged: Mapping[str, Band] = {}
    """Forecast if the set-points in force stay."""
    seconds: float = 0.0
    """How long the answer took [s]."""


class Tried(Protocol):
    """Answers what a run would come to under other set-points."""

    def __call__(self, folder: Path, reactor_id: str, set_points: Mapping[str, float], /) -> Trial:
        """A forecast.

        Args:
            folder: Run folder.
            reactor_id: Vessel.
            set_points: Those that are another, by name.
        """
        ...


class PastRun(NamedTuple):
    """A run of a campaign."""

    name: str
    """Run, from anywhere."""
    clone: str
    n_samples: int
    is_left_out: bool
    """Whether nothing is learned from it."""
    expected: Mapping[str, float]
    """What the model makes of it, by goal; empty if nothing is known."""


class Proposal(NamedTuple):
    """A run that is proposed."""

    name: str
    set_points: Mapping[str, float]
    """By control; empty where they change within the run."""
    expected: Mapping[str, tuple[float, float, float]]
    """By goal: expected, 10 % and 90 % quantile."""
    kept: Sequence[float]
    """Probability of keeping each limit."""


class Campaign(NamedTuple):
    """The runs so far, and those that come next."""

    title: str
    """What the runs are of."""
    state: str
    """"ready", "working" while the next runs are being searched, or "none"."""
    text: str
    """How long it may take, or why there is none."""
    runs: Sequence[PastRun] = ()
    proposals: Sequence[Proposal] = ()
    units: Mapping[str, str] = {}
    """Of controls."""
    goals: Mapping[str, float] = {}
    """1 where there is to be more of it, -1 where less."""
    limits: Sequence[str] = ()
    """Limits, in the order of `Proposal.kept`."""
    words: Sequence[str] = ()
    """Why these, a sentence each."""
    refused: Sequence[Sequence[float]] = ()
    """Recipes nobody wants, in the order of `units`."""
    seconds: float = 0.0
    """How long it took [s]."""
    command: str = ""
    """What does the same on the command line and writes the runs to a table; empty if none does."""


class Proposing(Protocol):
    """Proposes the next runs of a campaign, in memory."""

    def version(self) -> str:
        """A text that changes whenever the runs so far may have changed."""
        ...

    def __call__(self, without: Sequence[str], refused: Sequence[Sequence[float]], /) -> Campaign:
        """The next runs.

        Args:
            without: Runs that nothing is learned from.
            refused: Recipes nobody wants.
        """
        ...


class Watched(Protocol):
    """Where the page gets what it shows; every call may come from another thread."""

    def version(self) -> str:
        """A text that changes whenever something at the place may have changed."""
        ...

    def rack(self) -> Rack:
        """Everything there is."""
        ...

    def reactor(self, key: str) -> Reactor | None:
        """One vessel; None if there is none of that key."""
        ...

    def trail(self, key: str, *, text: str, kind: str, first: int, most: int) -> Trail | None:
        """Records of the audit trail that hold a text, the newest first.

        Args:
            key: Vessel.
            text: What they hold, in any case; empty for all.
            kind: Kind of event; empty for all.
            first: How many of those found are passed over.
            most: How many are given.
        """
        ...

    def model(self, key: str) -> Sequence[Table | Remark] | None:
        """What is known of a vessel's model."""
        ...

    def settings(self, key: str) -> Sequence[Table | Remark] | None:
        """What a vessel's run was told."""
        ...

    def place(self, key: str) -> tuple[Path, str] | None:
        """Run folder and vessel, for commands."""
        ...


class NoRuns:
    """A `Watched` where there is none, because a campaign alone is shown."""

    def version(self) -> str:
        """Nothing changes."""
        return ""

    def rack(self) -> Rack:
        """No reactor."""
        return Rack("a campaign", (), ())

    def reactor(self, key: str) -> Reactor | None:
        """No reactor."""
        return None

    def trail(self, key: str, *, text: str, kind: str, first: int, most: int) -> Trail | None:
        """No trail."""
        return None

    def model(self, key: str) -> Sequence[Table | Remark] | None:
        """No model."""
        return None

    def settings(self, key: str) -> Sequence[Table | Remark] | None:
        """No settings."""
        return None

    def place(self, key: str) -> tuple[Path, str] | None:
        """No run folder."""
        return None
