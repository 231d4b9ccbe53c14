"""The twin of one reactor: a hybrid model and a policy in a loop that survives anything.

`loop.py` has the cycle, `model_brain.py` what decides, `gate.py` what may be written. Here they
are put together from plain arguments, with the files of a run folder.
"""

import asyncio
import contextlib
import datetime as dt
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import perfusio_jax
from perfusio_jax._core import (
    BioreactorConnector,
    ConfigError,
    ConnectorError,
    DataError,
    PerfusioError,
)
from perfusio_jax._core.versions import versions
from perfusio_jax.bed import BEDPolicy
from perfusio_jax.config import DesignSpace, RunConfig
from perfusio_jax.hybrid import HybridStateSpaceModel, untrained_model
from perfusio_jax.mechanistic import CHOPerfusionModel

from .alarms.notifications import AlarmNotifier
from .decision.cadence import cadence_of, kept
from .decision.described_brain import DescribedBrain
from .decision.described_objective import Objective, described_policy, must_be_read
from .decision.gate_limits import GateLimits
from .decision.given import (
    ages,
    agree,
    check_controls,
    check_drawn,
    check_kind,
    default_policy,
    limits_of_process,
    settings_of_cho,
    settings_of_process,
    space_of,
)
from .decision.model_brain import Mode, ModelBrain
from .decision.step import digest
from .loop.loop import CycleResult, ReactorLoop
from .loop.mirror import AuditArchive, is_archive
from .loop.reader import NotReady as NotReady
from .loop.settings import LoopSettings
from .records.accounts import account
from .records.keys import Signer, load_key
from .records.run_files import open_run
from .records.runtime import LoopThread, system_runtime

if TYPE_CHECKING:
    from perfusio_jax.study import PosteriorMechanisms

Say = Callable[[str], None]

READ_TIMEOUT_S: Final[float] = 60.0
"""How long one call to the connector may take [s]."""


class DigitalTwin:
    """Online digital twin with a closed loop through a connector.

    Arguments given here beat the fields of `run_config`.

    Args:
        connector: Source of samples and sink of set-points.
        hybrid: Fitted hybrid model; without one the twin starts from the mechanistic model and
            learns from its own run.
        design_space: Controls, their bounds and the targets; None for a culture that is described,
            whose controls and their ranges the model's process says.
        bed_policy: Policy; by default one for the design space's targets, which rolls out in
            steps of the sampling interval.
        notifier: Alarms, optional.
        log_dir: Run folder: audit, journal, recommendations and forecasts; the working directory
            by default.
        run_id: Name of the run in every record.
        allow_write: Whether set-points may be written. False by default: recommendations then
            go to the audit and `recommendations.csv` only.
        species_names: Species the source is expected to deliver; the nine of `STATE_ORDER`.
        retrain_every: Samples between two updates of the model.
        run_config: Seed, sizes, duration, and the time between two samples: the twin waits for
            one every `sampling_interval_hours` and decides after each.
        gate_limits: What the reactor tolerates; from the design space by default. Where samples
            come less often than daily, the times without data it allows are longer by as much.
        reactor_id: Vessel, for journal and records.
        volume_L: Working volume [L].
        startup_days: Days on which the twin watches and does not write.
        initial_controls: Set-points in force at the start, where the connector cannot say.
        poll_seconds: Time between two looks for a sample that is not there yet [s].
        patience_seconds: How long to wait for a sample before it counts as missed [s];
            by default one and a quarter of the sampling interval in real time.
        user: Who armed the session.
        clock: Source of time stamps, UTC.
        say: Called with one line about what is going on, for progress displays.
        mode: "frozen": the model never changes; "adaptive": a challenger replaces it if it is
            no worse.
        signing_key: Key, or its file, that signs the head of the audit trail.
        options: Further fields of `LoopSettings` by name: approvals, time-outs and others.
        archive: Database that gets a copy of the audit trail, a `SQLStore`; by default the
            connector, if it is one.
        device_steps: Steps of the device's set-points by control, in canonical units, where they
            are not the default ones; they go into the limits made from the design space.
        objective: Of a culture that is described: goals, limits and what the twin decides, by
            name. In place of design space and policy.
        max_change: Of a culture that is described: largest change per day by control, where it is
            not half of its range.
        clone_id: Clone of the run, for a model that knows several.
        posterior: Of a culture that is described: draws of its mechanism's constants, as
            `study.posterior_mechanisms` gives them; it is then decided under what is not known of
            them.

    Raises:
        ConfigError: If the design space has no controls, a setting makes no sense, the connector
            does not serve samples at this interval, the run in the folder has another one, or
            what was given is of CHO perfusion and the model of a described culture, or the reverse.
        RunLockedError: If a live process uses the run folder or writes to the reactor.
        AuditError: If the audit trail in the folder does not verify.
    """

    def __init__(
        self,
        connector: BioreactorConnector,
        hybrid: HybridStateSpaceModel | None = None,
        design_space: DesignSpace | None = None,
        bed_policy: BEDPolicy | None = None,
        notifier: AlarmNotifier | None = None,
        log_dir: Path | str | None = None,
        run_id: str = "default",
        allow_write: bool | None = None,
        species_names: Sequence[str] | None = None,
        retrain_every: int | None = None,
        *,
        run_config: RunConfig | None = None,
        gate_limits: GateLimits | None = None,
        reactor_id: str = "R00",
        volume_L: float = 0.25,
        startup_days: int = 0,
        initial_controls: Mapping[str, float] | None = None,
        poll_seconds: float = 5.0,
        patience_seconds: float | None = None,
        user: str = "system",
        clock: Callable[[], dt.datetime] | None = None,
        say: Say | None = None,
        mode: Mode = "adaptive",
        signing_key: Signer | Path | str | None = None,
        options: Mapping[str, Any] | None = None,
        archive: AuditArchive | None = None,
        device_steps: Mapping[str, float] | None = None,
        objective: Objective | None = None,
        max_change: Mapping[str, float] | None = None,
        clone_id: str = "unknown",
        posterior: "PosteriorMechanisms | None" = None,
    ) -> None:
        process = None if hybrid is None else hybrid.layout.process
        check_kind(process, objective, max_change, (design_space, bed_policy))
        if posterior is not None:
            check_drawn(hybrid, posterior.drawn)
        config = RunConfig() if run_config is None else run_config
        self.config = config
        self.connector = connector
        self.design_space = design_space
        self.run_id, self.reactor_id = run_id, reactor_id
        self.allow_write = config.allow_write if allow_write is None else bool(allow_write)
        self.retrain_every = config.retrain_every if retrain_every is None else int(retrain_every)
        if self.retrain_every < 1:
            raise ConfigError(f"retrain_every is {self.retrain_every}; it must be at least 1.")
        if mode not in ("frozen", "adaptive"):
            raise ConfigError(f"mode is {mode!r}; allowed are 'frozen' and 'adaptive'.")
        if process is None:
            check_controls(space_of(design_space), initial_controls)
            of_culture = settings_of_cho(space_of(design_space), initial_controls)
        else:
            of_culture = settings_of_process(process, initial_controls)
            if isinstance(objective, Objective):
                of_culture["must_be_read"] = must_be_read(objective, process)
        if patience_seconds is None:
            patience_seconds = 1.25 * config.sampling_interval_hours * 3600.0
        settings = LoopSettings(
            reactor_id=reactor_id,
            run_id=run_id,
            user=user,
            allow_write=self.allow_write,
            startup_days=startup_days,
            **of_culture,
            poll_seconds=poll_seconds,
            patience_seconds=patience_seconds,
            sampling_interval_h=config.sampling_interval_hours,
        )
        try:
            settings = replace(settings, **dict(options or {}))
        except TypeError as error:
            raise ConfigError(f"options holds what no setting is called: {error}") from None
        self.settings = settings
        self.cadence = settings.cadence
        agree(connector, self.cadence)
        self.seed = 0 if config.seed is None else config.seed
        self.species_names = settings.measured if species_names is None else tuple(species_names)
        self.notifier = notifier
        self.volume_L = float(volume_L) if process is None else process.volume_L
        self.startup_days, self.user = settings.startup_days, user
        self._say: Say = say or (lambda _: None)
        signer = load_key(signing_key) if isinstance(signing_key, (str, Path)) else signing_key
        if gate_limits is not None and device_steps:
            raise ConfigError(
                "device_steps were given beside gate_limits; give the steps as its resolution."
            )
        self.objective, self.posterior = objective, posterior
        if gate_limits is not None:
            self.limits = gate_limits
        elif process is None:
            self.limits = GateLimits.from_design_space(
                design_space, device_steps=device_steps, **ages(self.cadence)
            )
        else:
            self.limits = limits_of_process(
                process, self.cadence, device_steps=device_steps, max_change=max_change
            )
        self.base_model = (
            hybrid
            if hybrid is not None
            else untrained_model(CHOPerfusionModel(volume_L=self.volume_L))
        )
        more: dict[str, Any] = {
            "seed": self.seed,
            "run_id": run_id,
            "retrain_every": self.retrain_every,
            "n_paths": config.n_mc_samples,
            "mode": mode,
            "say": self._say,
            "sample_h": self.cadence.interval_h,
        }
        asked = {"cadence": self.cadence, "acqf_name": config.acquisition}
        asked["allow_write"] = self.allow_write
        if objective is not None:
            self.policy = described_policy(self.base_model, objective, self.limits, **asked)
            self.brain: ModelBrain = DescribedBrain(
                self.base_model, self.policy, clone_id=clone_id, posterior=posterior, **more
            )
        else:
            self.policy = bed_policy or default_policy(
                self.base_model, space_of(design_space), self.limits, **asked
            )
            self.brain = ModelBrain(self.base_model, self.policy, volume_L=self.volume_L, **more)
        self.archive = connector if archive is None and is_archive(connector) else archive
        self._is_running = False
        self._blocking = LoopThread()
        self.timings: list[dict[str, float]] = []
        """Seconds each part of each cycle took."""
        self.log_dir = Path.cwd() if log_dir is None else Path(log_dir)
        self.runtime = runtime = system_runtime(clock)
        self._files = open_run(
            self.log_dir,
            run_id=run_id,
            runtime=runtime,
            connector=connector,
            reactor_id=reactor_id,
            may_write=self.allow_write,
            signer=signer,
        )
        self.audit, self.journal = self._files.audit, self._files.records
        try:
            self._check_folder()
            self.loop = ReactorLoop(
                connector,
                self.brain,
                folder=self.log_dir,
                records=self.journal,
                audit=self.audit,
                limits=self.limits,
                settings=settings,
                runtime=runtime,
                notifier=notifier,
                say=self._say,
                archive=self.archive,
            )
            self.loop.attendant.on_beat = self._files.lock.beat
            # The operating system's lock says that no holder on this host is alive.
            self.loop.take_lease(f"{user} on {socket.gethostname()}", force=True)
            self._begin(config)
        except BaseException:
            self._files.close()
            raise

    def _check_folder(self) -> None:
        """Refuse to go on with a run at another interval: its cycles are others.

        Raises:
            ConfigError: If the journal has closed cycles of another interval.
        """
        sessions = [c.payload for c in self.journal.handled(self.reactor_id) if c.kind == "session"]
        before = cadence_of(sessions)
        if before != self.cadence and self.journal.cycles(self.reactor_id):
            raise ConfigError(
                f"sampling_interval_hours is {self.cadence.interval_h:g}, and the run in "
                f"{self.log_dir} has one of {before.interval_h:g}; set it to "
                f"{before.interval_h:g} to go on with it, or begin another in a folder of its own."
            )

    def _begin(self, config: RunConfig) -> None:
        if not self.cadence.is_daily:
            hours = self.cadence.interval_h
            self._say(f"samples come every {hours:g} h; the twin decides after each")
        armed = self.loop.session.is_armed
        reason = "armed" if armed else "advisory: set-points are not written"
        if self.allow_write and not armed:
            reason = "disarmed in an earlier session, and not armed since"
            self._say(f"{reason}; to arm it: perfusio-jax tell {self.log_dir} arm")
        may: dict[str, Any] = {"allow_write": self.allow_write, **kept(self.cadence)}
        if self.posterior is not None:
            may["posterior"] = self.posterior.as_record()
        may["xla_flags"] = os.environ.get("XLA_FLAGS", "")  # last digits depend on them
        self.journal.keep(self.reactor_id, "session", actor=self.user, payload=may)
        self.audit.log(
            "SESSION_STARTED",
            {
                "reactor_id": self.reactor_id,
                "allow_write": self.allow_write,
                "mode": self.brain.mode,
                "model_sha256": digest(self.base_model),
                **self._told(),
                "config": config.model_dump(mode="json"),
                "recovered_from": self._files.lock.recovered_from,
                "account": account(),
                "versions": {"perfusio-jax": perfusio_jax.__version__, **versions()},
                "xla_flags": may["xla_flags"],
            },
            user=self.user,
            reason=reason,
        )

    def _told(self) -> dict[str, Any]:
        """What the run is about, for the audit trail."""
        process = self.base_model.layout.process
        if process is None or self.objective is None:
            return {"design_space": space_of(self.design_space).model_dump(mode="json")}
        told = {
            "process": process.model_dump(mode="json", exclude_defaults=True),
            "objective": asdict(self.objective),
        }
        if self.posterior is not None:
            told["posterior"] = self.posterior.as_record()
        return told

    # ---------------------------------------------------------------- public

    async def run(self, n_days: int | None = None, interval_seconds: float | None = None) -> None:
        """Run the twin, day by day or at whatever interval samples come.

        A sample that is in the source already is processed at once; otherwise the source
        is polled. A run that was interrupted goes on after the last finished cycle. `stop` ends
        it: nothing is written from then on.

        Args:
            n_days: Number of culture days in all; `run_config.duration_days` by default. Every
                sample that is due in them counts, the first one at their beginning: 3 days have
                days 0, 1 and 2, or at 12 h days 0, 0.5, ... 2.5.
            interval_seconds: Least real time between two steps [s]; 0 by default, because the
                source sets the pace.

        Raises:
            NotReady: If a sample does not come within the patience given and the settings say
                that this ends the run.
        """
        total = self.config.duration_days if n_days is None else int(n_days)
        self._is_running = True
        try:
            first = await self.first_day()
            if self.loop.cycles_done(first) >= self.cadence.count(total):
                self._say(f"all {total} days, from day {first:g} on, are done already")
            interval = 0.0 if interval_seconds is None else float(interval_seconds)
            await self.loop.run(total, first_day=first, interval_seconds=interval)
        finally:
            self._is_running = False

    def run_sync(self, n_days: int | None = None, interval_seconds: float = 0.0) -> None:
        """`run`, blocking."""
        self._blocking.run(self.run(n_days, interval_seconds))

    def step(self, day: float) -> dict[str, Any]:
        """One cycle, blocking; connections are kept from one call to the next.

        Args:
            day: Culture day [d]; a fraction where samples come between the days.

        Returns:
            `sample`, `forecast`, `decision` and the gate's `verdict`.

        Raises:
            ConfigError: If no sample is due on that day.
        """
        return self._blocking.run(self.step_async(day))

    async def step_async(self, day: float) -> dict[str, Any]:
        """One cycle; see `step`."""
        if not self.cadence.is_cycle(day):
            raise ConfigError(
                f"no sample is due on day {day:g}; with one every {self.cadence.interval_h:g} h "
                f"the nearest is that of day {self.cadence.day(self.cadence.number(day)):g}."
            )
        result = await self.loop.cycle(self.cadence.day(self.cadence.number(day)))
        await self.loop.desk.drain(self.settings.call_timeout_s)
        await self.loop.copy_audit()
        if result.timings:
            self.timings.append({"day": float(day), **result.timings})
        return _as_dict(result)

    async def first_day(self) -> float:
        """First day of the run: that of the journal, else of the source, else inoculation."""
        cadence = self.cadence
        samples = self.journal.samples(self.reactor_id)
        days = [s.day for s in samples[:1]] + list(self.journal.cycles(self.reactor_id))
        if days:
            return cadence.day(cadence.number(min(days)))
        lister = getattr(self.connector, "days_available", None)
        if lister is None:
            return 0
        try:
            async with asyncio.timeout(self.settings.call_timeout_s):
                there = await lister()
        except DataError:
            raise
        except (ConnectorError, TimeoutError, OSError):
            return 0
        due = cadence.numbers(there)
        return cadence.day(min(due)) if due else 0

    def stop(self) -> None:
        """Ask a running `run` to end; from now on nothing is written."""
        if self._is_running:
            self.loop.stop()

    def disarm(self, reason: str, user: str = "system") -> None:
        """Stop writing until somebody arms the session again."""
        self.loop.session.apply("disarm", {})
        self.journal.keep(self.reactor_id, "disarm", actor=user)
        self.audit.log("SESSION_DISARMED", {"account": account()}, user=user, reason=reason)

    def arm(self, user: str) -> None:
        """Allow writing again, also of what an operator had moved by hand.

        Raises:
            ConfigError: If this run may not write at all.
        """
        if not self.allow_write:
            raise ConfigError("this run was started with allow_write=False and cannot be armed.")
        self.loop.session.apply("arm", {})
        self.journal.keep(self.reactor_id, "arm", actor=user)
        self.audit.log("SESSION_ARMED", {"account": account()}, user=user)

    def close(self) -> None:
        """Flush the records and let go of the folder; closing twice does nothing.

        A connector that blocking calls (`step`, `run_sync`) have opened is closed.
        """
        try:
            self._blocking.close(self._let_go)
            if self._files.lock.is_held:
                self.loop.release_lease()
        finally:
            self._files.close()

    async def _let_go(self) -> None:
        """Close what was opened by blocking calls, on the loop they ran on."""
        close = getattr(self.connector, "close", None)
        if close is not None:
            with contextlib.suppress(PerfusioError, TimeoutError, OSError):
                async with asyncio.timeout(self.settings.call_timeout_s):
                    await close()

    def __enter__(self) -> "DigitalTwin":
        """Use as a context manager; closes at the end."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close."""
        self.close()

    @property
    def model(self) -> HybridStateSpaceModel:
        """The model in use now."""
        return self.brain.model

    @property
    def history(self) -> list[dict[str, Any]]:
        """Samples in the journal, oldest first."""
        return [{"day": s.day, **s.values} for s in self.journal.samples(self.reactor_id)]


def _as_dict(result: CycleResult) -> dict[str, Any]:
    if result.outcome == "done before":
        return {"sample": None, "forecast": None, "decision": None, "verdict": None}
    proposal = result.proposal
    return {
        "sample": None if result.sample is None else dict(result.sample["values"]),
        "forecast": None if proposal is None else proposal.forecast,
        "decision": None if proposal is None else proposal.native,
        "verdict": result.verdict,
        "alarms": list(result.alarms),
        "is_retrained": result.lesson is not None and result.lesson.is_promoted,
        "outcome": result.outcome,
    }
