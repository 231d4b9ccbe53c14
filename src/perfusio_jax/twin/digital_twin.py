"""The twin: reads, learns, forecasts, decides, and writes through the gate.

One cycle of a day:

    read -> validate -> journal -> update the model -> estimate -> forecast -> alarms ->
    decide -> gate -> journal the intent -> write -> read back -> journal the result -> audit

A crash between any two arrows is recovered from the journal: no sample is lost or doubled, and
a write whose outcome is unknown is settled by reading back, never sent again blindly.
"""

import asyncio
import datetime as dt
import inspect
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import jax
import numpy as np

from perfusio_jax._core import (
    CONTROL_NAMES,
    FORECAST_SPECIES,
    HOURS_PER_DAY,
    STATE_ORDER,
    BioreactorConnector,
    ConfigError,
    ConnectorError,
    DataError,
    StopRun,
)
from perfusio_jax.bed import BEDPolicy
from perfusio_jax.config import DesignSpace, RunConfig
from perfusio_jax.hybrid import (
    HybridConfig,
    HybridStateSpaceModel,
    condition_on,
    fit_hybrid,
    untrained_model,
)
from perfusio_jax.mechanistic import DEFAULT_CONTROLS, CHOPerfusionModel
from perfusio_jax.states import Trajectory

from .audit import AuditLogger
from .entries import Settlement, Stage
from .gate import GateLimits, GateRequest, GateVerdict, gate, operator_edits
from .journal import Journal
from .lock import RunLock
from .notifications import AlarmNotifier
from .records import append_recommendation, store_forecast
from .samples import as_plain
from .scheduler import DailyScheduler
from .step import Decision, decide, digest, history_from_records

Say = Callable[[str], None]

READ_TIMEOUT_S: Final[float] = 60.0
"""How long one call to the connector may take [s]."""

MIN_ROWS_FOR_GP: Final[int] = 8
"""Samples of one run before a residual process is fitted to it alone."""


class NotReady(ConnectorError):
    """The sample of a day did not come within the time given."""


class DigitalTwin:
    """Online digital twin with a closed loop through a connector.

    Arguments given here beat the fields of `run_config`.

    Args:
        connector: Source of samples and sink of set-points.
        hybrid: Fitted hybrid model; without one the twin starts from the mechanistic model and
            learns from its own run.
        design_space: Controls, their bounds and the targets.
        bed_policy: Policy; by default one for the design space's targets.
        notifier: Alarms, optional.
        log_dir: Run folder: audit, journal, recommendations and forecasts; the working directory
            by default.
        run_id: Name of the run in every record.
        allow_write: Whether set-points may be written. False by default: recommendations then
            go to the audit and `recommendations.csv` only.
        species_names: Species the source is expected to deliver; the nine of `STATE_ORDER`.
        retrain_every: Days between two updates of the model.
        run_config: Seed, sizes, duration.
        gate_limits: What the reactor tolerates; from the design space by default.
        reactor_id: Vessel, for journal and records.
        volume_L: Working volume [L].
        startup_days: Days on which the twin watches and does not write.
        initial_controls: Set-points in force at the start, where the connector cannot say.
        poll_seconds: Time between two looks for a sample that is not there yet [s].
        patience_seconds: How long to wait for a sample before the day counts as missed [s];
            by default the sampling interval in real time.
        user: Who armed the session.
        clock: Source of time stamps, UTC.
        say: Called with one line about what is going on, for progress displays.

    Raises:
        ConfigError: If the design space has no controls or a setting makes no sense.
        RunLockedError: If a live process uses the run folder.
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
    ) -> None:
        if design_space is None:
            raise ConfigError(
                "the twin needs a design space; config.DEFAULT_AMBR250_DESIGN_SPACE is one."
            )
        config = RunConfig() if run_config is None else run_config
        self.config = config
        self.connector = connector
        self.design_space = design_space
        self.run_id, self.reactor_id = run_id, reactor_id
        self.allow_write = config.allow_write if allow_write is None else bool(allow_write)
        self.retrain_every = config.retrain_every if retrain_every is None else int(retrain_every)
        if self.retrain_every < 1:
            raise ConfigError(f"retrain_every is {self.retrain_every}; it must be at least 1.")
        for name, value in (
            ("startup_days", startup_days),
            ("poll_seconds", poll_seconds),
            ("patience_seconds", 0.0 if patience_seconds is None else patience_seconds),
        ):
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{name} is {value}; it must be at least 0.")
        self.seed = 0 if config.seed is None else config.seed
        self.species_names = tuple(STATE_ORDER if species_names is None else species_names)
        self.notifier = notifier
        self.volume_L = float(volume_L)
        self.startup_days = int(startup_days)
        self.user = user
        self._clock = clock or (lambda: dt.datetime.now(dt.UTC))
        self._say: Say = say or (lambda _: None)
        self._poll_s = float(poll_seconds)
        self._patience_s = (
            config.sampling_interval_hours * 3600.0
            if patience_seconds is None
            else float(patience_seconds)
        )
        names = design_space.control_names
        if not names:
            raise ConfigError(f"design space {design_space.name!r} has no controls to decide.")
        unknown = [n for n in names if n not in CONTROL_NAMES]
        if unknown:
            raise ConfigError(
                f"design space {design_space.name!r} names unknown controls {unknown}; the twin "
                f"knows {list(CONTROL_NAMES)}."
            )
        strange = [n for n in initial_controls or {} if n not in CONTROL_NAMES]
        if strange:
            raise ConfigError(
                f"initial_controls names unknown controls {strange}; the twin knows "
                f"{list(CONTROL_NAMES)}."
            )
        self._initial = {**DEFAULT_CONTROLS, **dict(initial_controls or {})}
        self.limits = gate_limits or GateLimits.from_design_space(design_space)
        self.base_model = (
            hybrid
            if hybrid is not None
            else untrained_model(CHOPerfusionModel(volume_L=self.volume_L))
        )
        self.model = self.base_model
        self.policy = bed_policy or self._default_policy()
        self._last_plan: dict[str, float] | None = None
        self._is_armed = self.allow_write
        self._overridden: frozenset[str] = frozenset()
        self._last_write_day: float | None = None
        self._last_good_h: float | None = None
        self._scheduler: DailyScheduler | None = None
        self._read_back_trouble: str | None = None
        self.timings: list[dict[str, float]] = []
        """Seconds each part of each cycle took."""

        self.log_dir = Path.cwd() if log_dir is None else Path(log_dir)
        self._lock = RunLock(self.log_dir)
        self._lock.acquire()
        try:
            self.audit = AuditLogger(self.log_dir, run_id, clock=self._clock)
            self.journal = Journal(self.log_dir / "journal.sqlite", clock=self._clock)
        except BaseException:
            self._lock.release()
            raise
        self._recover_plans()
        self.audit.log(
            "SESSION_STARTED",
            {
                "reactor_id": reactor_id,
                "allow_write": self.allow_write,
                "model_sha256": digest(self.model),
                "design_space": design_space.model_dump(mode="json"),
                "config": config.model_dump(mode="json"),
                "recovered_from": self._lock.recovered_from,
            },
            user=user,
            reason="armed" if self.allow_write else "advisory: set-points are not written",
        )

    # ---------------------------------------------------------------- public

    async def run(self, n_days: int | None = None, interval_seconds: float | None = None) -> None:
        """Run the twin day by day.

        A day whose sample is in the source already is processed at once; otherwise the source
        is polled. A run that was interrupted goes on after the last finished day. `stop` ends
        it after the day at hand, or at once while it waits for a sample.

        Args:
            n_days: Number of culture days in all; `run_config.duration_days` by default.
            interval_seconds: Least real time between two steps [s]; 0 by default, because the
                source sets the pace.

        Raises:
            NotReady: If a sample does not come within the patience given.
        """
        total = self.config.duration_days if n_days is None else int(n_days)
        first = await self._first_day()
        done = self._days_done(first)
        if done >= total:
            self._say(f"all {total} days, from day {first} on, are done already")
        scheduler = DailyScheduler(
            self.step_async,
            max(total - done, 0),
            interval_seconds=0.0 if interval_seconds is None else float(interval_seconds),
            start_day=first + done,
        )
        self._scheduler = scheduler
        try:
            await scheduler.run()
        finally:
            self._scheduler = None
            self.audit.log(
                "RUN_ENDED", {"ending": scheduler.ending, "last_day": scheduler.completed_day}
            )
            self.audit.flush()

    def run_sync(self, n_days: int | None = None, interval_seconds: float = 0.0) -> None:
        """`run`, blocking."""
        asyncio.run(self.run(n_days, interval_seconds))

    def step(self, day: int) -> dict[str, Any]:
        """One day, blocking.

        Args:
            day: Culture day [d].

        Returns:
            `sample`, `forecast`, `decision` and the gate's `verdict`.
        """
        return asyncio.run(self.step_async(day))

    def stop(self) -> None:
        """Ask a running `run` to end: after the present day, or while it waits for a sample."""
        if self._scheduler is not None:
            self._scheduler.stop()

    def disarm(self, reason: str, user: str = "system") -> None:
        """Stop writing until somebody arms the session again."""
        self._is_armed = False
        self.audit.log("SESSION_DISARMED", {}, user=user, reason=reason)

    def arm(self, user: str) -> None:
        """Allow writing again.

        Raises:
            ConfigError: If this run may not write at all.
        """
        if not self.allow_write:
            raise ConfigError("this run was started with allow_write=False and cannot be armed.")
        self._is_armed = True
        self._overridden = frozenset()
        self.audit.log("SESSION_ARMED", {}, user=user)

    def close(self) -> None:
        """Flush the records and let go of the folder; closing twice does nothing."""
        self.audit.close()
        self.journal.close()
        self._lock.release()

    def __enter__(self) -> "DigitalTwin":
        """Use as a context manager; closes at the end."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close."""
        self.close()

    @property
    def history(self) -> list[dict[str, Any]]:
        """Samples in the journal, oldest first."""
        return [{"day": s.day, **s.values} for s in self.journal.samples(self.reactor_id)]

    # ---------------------------------------------------------------- one cycle

    async def step_async(self, day: int) -> dict[str, Any]:
        """One day; see `step`."""
        started = time.perf_counter()
        marks: dict[str, float] = {}

        def mark(what: str) -> None:
            marks[what] = time.perf_counter() - started - sum(marks.values())

        read_back = await self._read_back()
        await self._settle_open_writes(day, read_back)
        if self.journal.stage(self.reactor_id, day) is Stage.DONE:
            self._say(f"day {day}: already done")
            return {"sample": None, "forecast": None, "decision": None, "verdict": None}
        self._say(f"day {day}: waiting for the sample")
        record = await self._sample(day)
        self._note_overrides(day, read_back)
        self._store(day, record, read_back)
        mark("read")
        rows = self._rows()
        is_retrained = self._update_model(day, rows)
        mark("learn")
        self._say(f"day {day}: deciding")
        trajectory = history_from_records(rows, volume_L=self.volume_L, run_id=self.run_id)
        decision = await asyncio.to_thread(self._decide, trajectory, read_back)
        mark("decide")
        alarms = await self._alarm(day, decision, record)
        verdict = await self._act(day, decision, record, read_back)
        mark("write")
        store_forecast(self.log_dir, decision, reactor_id=self.reactor_id)
        append_recommendation(
            self.log_dir, decision, verdict, reactor_id=self.reactor_id, at=self._clock()
        )
        self._say(f"day {day}: {_in_words(decision.setpoints, verdict)}")
        self.timings.append({"day": float(day), **marks})
        return {
            "sample": dict(record["values"]),
            "forecast": decision.outlook.as_dict(),
            "decision": decision,
            "verdict": verdict,
            "alarms": alarms,
            "is_retrained": is_retrained,
        }

    async def _sample(self, day: int) -> dict[str, Any]:
        """The sample of a day, polled for until it is there."""
        reader: Any = getattr(self.connector, "read_record", self.connector.read_sample)
        deadline = time.monotonic() + self._patience_s
        while True:
            try:
                record = await asyncio.wait_for(reader(day), READ_TIMEOUT_S)
                return as_plain(record, day)
            except (ConnectorError, TimeoutError) as error:
                if self._scheduler is not None and self._scheduler.is_stop_requested:
                    raise StopRun(f"stopped while waiting for the sample of day {day}") from error
                if time.monotonic() >= deadline:
                    self.audit.log("SAMPLE_MISSED", {"error": str(error)}, day=day)
                    raise NotReady(
                        f"the sample of day {day} did not come within {self._patience_s:g} s: "
                        f"{error}"
                    ) from error
            pause_s = min(self._poll_s, max(deadline - time.monotonic(), 0.0))
            if self._scheduler is None:
                await asyncio.sleep(pause_s)
            else:
                await self._scheduler.pause(pause_s)

    def _store(
        self, day: int, record: dict[str, Any], read_back: Mapping[str, float | None]
    ) -> None:
        """Validate, journal and audit one sample."""
        record["implausible"] = self._implausible(record["values"])
        record["read_back"] = {n: read_back.get(n) for n in CONTROL_NAMES}
        if not any(record["values"].get(s) is not None for s in STATE_ORDER):
            record["implausible"] = [*record["implausible"], "no measurement at all"]
        stored = self.journal.record_sample(
            self.reactor_id, day, {k: v for k, v in record.items() if k != "age_h"}
        )
        if record["quality"] == "good" and not record["implausible"]:
            self._last_good_h = float(record["time_h"])
        self.audit.log(
            "SAMPLE_READ",
            {
                "stored": stored.value,
                "values": record["values"],
                "quality": record["quality"],
                "implausible": record["implausible"],
                "notes": record["notes"],
                "age_h": record["age_h"],
            },
            day=day,
        )

    def _implausible(self, values: Mapping[str, float | None]) -> list[str]:
        wrong = []
        for name, value in values.items():
            bounds = self.design_space.species_bounds.get(name)
            if value is None or bounds is None:
                continue
            if not math.isfinite(value) or not bounds.lo <= value <= bounds.hi:
                wrong.append(f"{name}={value:g} outside {bounds.lo:g} to {bounds.hi:g}")
        return wrong

    def _rows(self) -> list[dict[str, Any]]:
        """Samples so far, with the set-points that acted after each."""
        samples = self.journal.samples(self.reactor_id)
        rows = []
        for k, sample in enumerate(samples):
            following = samples[k + 1].values["read_back"] if k + 1 < len(samples) else None
            acting = dict(sample.values["read_back"])
            reported = samples[k + 1].values.get("controls") if k + 1 < len(samples) else None
            for source in (following, reported):
                acting.update({n: v for n, v in (source or {}).items() if v is not None})
            acting = {n: self._initial[n] if v is None else v for n, v in acting.items()}
            values = {
                n: v
                for n, v in sample.values["values"].items()
                if not any(note.startswith(f"{n}=") for note in sample.values["implausible"])
            }
            rows.append({**sample.values, "values": values, "controls": acting})
        return rows

    def _update_model(self, day: int, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Teach the model what this run has shown, every `retrain_every` days."""
        if len(rows) < 3 or (len(rows) - 1) % self.retrain_every:
            return False
        run = history_from_records(rows, volume_L=self.volume_L, run_id=self.run_id)
        if self.base_model.gp is None and len(rows) < MIN_ROWS_FOR_GP:
            return False
        self._say(f"day {day}: updating the model")
        before = digest(self.model)
        self.model = self._learn(run)
        self.audit.log(
            "MODEL_RETRAIN",
            {"rows": len(rows)},
            day=day,
            old=before,
            new=digest(self.model),
            reason=f"every {self.retrain_every} d",
        )
        return True

    def _learn(self, run: Trajectory) -> HybridStateSpaceModel:
        """The model with this run's rows; without a campaign, one fitted to this run alone.

        A fit judges itself on runs it has not seen. Of a single run, each half stands in for
        a run.
        """
        key = jax.random.key(self.seed)
        if self.base_model.gp is not None:
            return condition_on(self.base_model, [run], key=key)
        half = run.n_days // 2
        length = 32
        while length < run.n_days:
            length *= 2
        first, middle, last = (int(run.days[k]) for k in (0, half, -1))
        parts = [run.slice_days(first, middle), run.slice_days(middle, last + 1)]
        model, report = fit_hybrid(
            parts,
            key=key,
            config=HybridConfig(length=length),
            mech_model=self.base_model.mech_model,
        )
        self._say(f"fitted {report.details['rows']} rows of this run")
        return model

    def _decide(self, trajectory: Any, read_back: Mapping[str, float | None]) -> Decision:
        u_now = {
            n: self._initial[n] if read_back.get(n) is None else read_back[n] for n in CONTROL_NAMES
        }
        fixed = {n: float(u_now[n]) for n in self._overridden}  # pyright: ignore
        return decide(
            trajectory,
            self.model,
            self.policy,
            seed=self.seed,
            u_now={n: float(v) for n, v in u_now.items()},  # pyright: ignore
            fixed=fixed,
            timestamp=self._clock(),
            n_paths=self.config.n_mc_samples,
        )

    async def _alarm(self, day: int, decision: Decision, record: Mapping[str, Any]) -> list[Any]:
        if self.notifier is None:
            return []
        events = [
            *self.notifier.check_sample(record["values"], day),
            *self.notifier.check_forecast(decision.outlook.as_dict(), list(FORECAST_SPECIES), day),
        ]
        for event in events:
            self.audit.log("ALARM_RAISED", vars_of(event), day=day)
        if events:
            report = await self.notifier.dispatch(events)
            for channel, problem in report.failed:
                self.audit.log("ALARM_NOT_DELIVERED", {"channel": channel}, day=day, reason=problem)
        return events

    async def _act(
        self,
        day: int,
        decision: Decision,
        record: Mapping[str, Any],
        read_back: Mapping[str, float | None],
    ) -> GateVerdict:
        """Gate, journal, write, read back."""
        current = {n: self._initial[n] if v is None else v for n, v in read_back.items()}
        time_h = float(record["time_h"])
        since = (
            HOURS_PER_DAY
            if self._last_write_day is None
            else (HOURS_PER_DAY * (day - self._last_write_day))
        )
        is_startup = day < self.startup_days
        request = GateRequest(
            setpoints=decision.setpoints,
            read_back=current,
            data_age_h=0.0 if record["age_h"] is None else record["age_h"],
            hours_without_good_data=time_h - (self._last_good_h or 0.0),
            quality=record["quality"],
            implausible=tuple(record["implausible"]),
            allow_write=self.allow_write and not is_startup,
            armed=self._is_armed,
            operator_override=self._overridden,
            hours_since_write=since,
        )
        verdict = gate(request, self.limits)
        payload = {
            "recommended": decision.setpoints,
            "action": verdict.action,
            "setpoints": dict(verdict.setpoints),
            "reasons": list(verdict.reasons),
            "is_startup": is_startup,
            "digest": decision.digest,
            "explanation": decision.policy.explanation,
        }
        number = self.journal.record_decision(
            self.reactor_id, day, payload, supersedes_because="decided again after a restart"
        )
        self.audit.log(
            "DECISION_MADE",
            payload,
            day=day,
            state_sha256=decision.digest,
            old=dict(current),
            new=dict(verdict.setpoints),
            reason="; ".join(verdict.reasons) or "within all limits",
        )
        intent = self.journal.open_intent(number, dict(verdict.setpoints))
        if verdict.action == "disarm":
            self.disarm("; ".join(verdict.reasons))
        if not verdict.is_write:
            self.journal.close_intent(intent, is_written=False, result={"action": verdict.action})
            return verdict
        await self._write(day, time_h, dict(verdict.setpoints))
        after = await self._read_back()
        self.journal.close_intent(intent, is_written=True, result={"read_back": dict(after)})
        self._last_write_day = float(day)
        self._last_plan = dict(verdict.setpoints)
        self.audit.log(
            "SETPOINT_CHANGE",
            {"read_back": dict(after)},
            day=day,
            old=dict(current),
            new=dict(verdict.setpoints),
        )
        return verdict

    async def _write(self, day: int, time_h: float, setpoints: dict[str, float]) -> None:
        writer: Any = self.connector.write_setpoints
        extra = inspect.signature(writer).parameters
        known = {"day": float(day), "time_h": time_h}
        call: Awaitable[None] = writer(setpoints, **{k: v for k, v in known.items() if k in extra})
        await asyncio.wait_for(call, READ_TIMEOUT_S)

    # ---------------------------------------------------------------- read-back and recovery

    async def _read_back(self) -> dict[str, float | None]:
        """Set-points in force; None where neither device nor journal can say."""
        reader = getattr(self.connector, "read_setpoints", None)
        known: Mapping[str, float] = {}
        if reader is not None:
            try:
                known = await asyncio.wait_for(reader(), READ_TIMEOUT_S)
                self._read_back_trouble = None
            except (ConnectorError, TimeoutError) as error:
                reader = None  # no read-back, never or now: the plan stands in, and is said to
                self._note_no_read_back(str(error) or type(error).__name__)
        if reader is None:
            simulated = getattr(self.connector, "controls", None)
            known = simulated if isinstance(simulated, Mapping) else (self._last_plan or {})
        values = {n: known.get(n) for n in CONTROL_NAMES}
        return {n: self._initial[n] if v is None else float(v) for n, v in values.items()}

    def _note_no_read_back(self, trouble: str) -> None:
        """Audit once per trouble that the last plan stands in for the set-points in force."""
        if trouble != self._read_back_trouble:
            self._read_back_trouble = trouble
            self.audit.log("READ_BACK_UNAVAILABLE", {"stands_in": "last plan"}, reason=trouble)

    async def _settle_open_writes(self, day: int, read_back: Mapping[str, float | None]) -> None:
        for intent in self.journal.pending(self.reactor_id):
            tolerance = {n: 0.5 * r for n, r in self.limits.resolution.items()}
            verdict = self.journal.settle(
                intent.id, read_back, current_day=day, tolerance=tolerance
            )
            if verdict is Settlement.ARRIVED:
                self._last_write_day, self._last_plan = intent.day, dict(intent.setpoints)
            self.audit.log(
                "WRITE_SETTLED",
                {"intent": intent.id, "verdict": verdict.value, "read_back": dict(read_back)},
                day=day,
                reason="its outcome was unknown after a restart",
            )

    def _note_overrides(self, day: int, read_back: Mapping[str, float | None]) -> None:
        if self._last_plan is None:
            return
        edited = operator_edits(self._last_plan, read_back, self.limits.resolution)
        if edited != self._overridden:
            self._overridden = edited
            self.audit.log(
                "OPERATOR_OVERRIDE",
                {"controls": sorted(edited)},
                day=day,
                user="operator",
                new={n: read_back[n] for n in sorted(edited)},
            )

    def _recover_plans(self) -> None:
        """Last confirmed write and last good sample, from the journal."""
        for intent in self.journal.intents(self.reactor_id):
            if intent.outcome in ("written", "arrived") and intent.setpoints:
                self._last_plan = dict(intent.setpoints)
                self._last_write_day = intent.day
        for sample in self.journal.samples(self.reactor_id):
            if sample.values["quality"] == "good" and not sample.values["implausible"]:
                self._last_good_h = float(sample.values["time_h"])

    def _days_done(self, first: int) -> int:
        done = 0
        while self.journal.stage(self.reactor_id, first + done) is Stage.DONE:
            done += 1
        return done

    async def _first_day(self) -> int:
        """First day of the run: that of the journal, else of the source, else inoculation."""
        samples = self.journal.samples(self.reactor_id)
        if samples:
            return int(samples[0].day)
        lister = getattr(self.connector, "days_available", None)
        if lister is None:
            return 0
        try:
            days = await asyncio.wait_for(lister(), READ_TIMEOUT_S)
        except DataError:
            raise
        except ConnectorError:
            return 0
        return int(min(days)) if days else 0

    def _default_policy(self) -> BEDPolicy:
        change = {
            n: r for n, r in self.limits.max_rate.items() if n in self.design_space.control_names
        }
        return BEDPolicy(
            self.base_model,
            self.design_space,
            acqf_name=self.config.acquisition,
            allow_write=self.allow_write,
            max_change=change,
        )


def _in_words(wanted: Mapping[str, float], verdict: GateVerdict) -> str:
    """One line: what is recommended and what became of it."""
    text = "recommends " + ", ".join(f"{name} {value:.4g}" for name, value in wanted.items())
    if verdict.is_write:
        text += f"; {'written' if verdict.action == 'write' else 'fallback written'}"
    else:
        text += "; not written"
    return text + (f": {'; '.join(verdict.reasons)}" if verdict.reasons else "")


def vars_of(event: Any) -> dict[str, Any]:
    """Fields of an alarm as plain numbers and text."""
    return {
        k: (v.item() if isinstance(v, np.generic) else v)
        for k, v in ((f, getattr(event, f)) for f in event.__dataclass_fields__)
    }
