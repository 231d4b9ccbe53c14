"""Settings of one reactor's loop."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from perfusio_jax._core import CONTROL_NAMES, HOURS_PER_DAY, STATE_ORDER, ConfigError

from ..decision.cadence import Cadence

OnMissed = Literal["end", "hold"]


@dataclass(frozen=True)
class LoopSettings:
    """How one reactor is run; everything a person may choose besides limits and model.

    Raises:
        ConfigError: For a setting that makes no sense.
    """

    reactor_id: str = "R00"
    run_id: str = "default"
    user: str = "system"
    """Who armed the session."""
    allow_write: bool = False
    """Whether this run may write at all."""
    startup_days: float = 0
    """Days on which is watched only."""
    sampling_interval_h: float = HOURS_PER_DAY
    """Time between two samples, and so between two decisions [h]."""
    controls: tuple[str, ...] = CONTROL_NAMES
    """Controls that are held, in the order of records."""
    given: tuple[str, ...] = ()
    """Controls that act at their own sample only, as boluses do: what the row of a sample says."""
    measured: tuple[str, ...] = STATE_ORDER
    """What a sample is of; one without any of it is none."""
    keeps_volume: bool = False
    """Whether the volume that came with a sample is kept: of a culture whose volume moves."""
    odds: str = "viability_probability"
    """What `recommendations.csv` calls the probability that all limits are kept."""
    initial_controls: Mapping[str, float] = field(default_factory=dict)
    """Set-points in force at the start, where nobody else can say."""
    species_bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Physical limits of each species; a value beyond is not believed."""
    poll_seconds: float = 5.0
    """Time between two looks for a sample [s]."""
    patience_seconds: float = 86400.0
    """How long a sample is waited for before it counts as missed [s]."""
    line_seconds: float = 300.0
    """How long the source may be out of reach before it is an alarm [s]."""
    on_missed: OnMissed = "end"
    """What a missed sample does: end the run, or hold (later: fallback, disarm) and go on."""
    look_back_days: float = 3
    """Earlier days [d] looked at again for late and corrected samples."""
    approvals: tuple[str, ...] = ()
    """Roles of which one person each must approve a write; one or two, or none."""
    approvers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Accounts that may act in a role; one without names is open to all who may leave a command."""
    page_accounts: tuple[str, ...] = ()
    """Accounts of pages whose word on who signed in counts: a vote through one is that of
    `page:NAME`, with which `approvers` names people too. None: it is the page's own account's."""
    approval_seconds: float = 4 * 3600.0
    """How long an approval is waited for [s]."""
    require_age: bool = False
    """Refuse to act on a sample whose age the source does not tell."""
    clock_tolerance_s: float = 60.0
    """Largest jump of our clock, and largest difference to the device's [s]."""
    call_timeout_s: float = 60.0
    """How long one call to the connector may take [s]."""
    compute_timeout_s: float = 3600.0
    """How long learning or deciding may take [s]."""
    beat_seconds: float = 0.5
    """Time between two looks for commands [s]."""
    lease_seconds: float = 120.0
    """How long the lease on the reactor holds without being renewed [s]."""
    max_writes: int = 3
    """How often a cycle's set-points may be sent, each time only after a read-back."""
    device_seconds: float = 60.0
    """Least time between two looks at whether the device restarted, while a sample is waited
    for [s]."""
    online_seconds: float = 0.0
    """Time between two looks at online tags [s]; 0: they are not read."""
    must_be_read: tuple[str, ...] | None = None
    """Of what a limit of an assay is no reading to act on; of everything, if None."""

    @property
    def cadence(self) -> Cadence:
        """When samples are due."""
        return Cadence(self.sampling_interval_h)

    def __post_init__(self) -> None:
        _ = self.cadence  # refuses an interval nobody samples at
        for name in (
            "startup_days",
            "poll_seconds",
            "patience_seconds",
            "look_back_days",
            "approval_seconds",
            "line_seconds",
            "device_seconds",
            "online_seconds",
        ):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{name} is {value}; it must be at least 0.")
        for name in (
            "clock_tolerance_s",
            "call_timeout_s",
            "compute_timeout_s",
            "beat_seconds",
            "lease_seconds",
            "max_writes",
        ):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} is {value}; it must be above 0.")
        if len(self.approvals) > 2 or len(set(self.approvals)) != len(self.approvals):
            raise ConfigError(
                f"approvals names {list(self.approvals)}; one or two different roles, or none."
            )
        if self.on_missed not in ("end", "hold"):
            raise ConfigError(f"on_missed is {self.on_missed!r}; allowed are 'end' and 'hold'.")
        if not self.reactor_id:
            raise ConfigError("reactor_id is empty; every record names its reactor.")
