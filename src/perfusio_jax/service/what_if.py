"""What a run would come to under other set-points, asked again and again while it goes on.

The state is estimated once per sample, with the model the session began with; then each question
is one roll-out on the same paths, so that what differs is due to the set-points.
"""

import math
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from perfusio_jax._core import (
    DEFAULT_CONTROLS,
    HOURS_PER_DAY,
    ConfigError,
    DataError,
    PerfusioError,
)
from perfusio_jax._core.limits import RECORD_BYTES, read_file
from perfusio_jax._core.units import canonical_unit
from perfusio_jax.hybrid import DrawnMechanisms, HybridStateSpaceModel, untrained_model
from perfusio_jax.mechanistic import CHOPerfusionModel
from perfusio_jax.process import Process
from perfusio_jax.twin.decision.described_step import (
    described_history,
    estimate_described,
    forecast_described,
)
from perfusio_jax.twin.decision.step import (
    Outlook,
    digest,
    estimate,
    forecast,
    history_from_records,
)
from perfusio_jax.twin.loop.commands import sampled
from perfusio_jax.twin.loop.reader import rows_of
from perfusio_jax.twin.records.chain import records as records_of
from perfusio_jax.twin.records.records_file import RunRecords
from perfusio_jax.twin.records.run_files import JOURNAL_NAME
from perfusio_jax.twin.records.secrets import in_short
from perfusio_jax.twin.records.trail_files import LOG_NAME
from perfusio_jax.viz.dashboard.views import Slider, Trial
from perfusio_jax.viz.runs import Band

from .posterior_draws import posterior_of_twin
from .saved_model import load_model
from .settings import config_in, read_settings

CHO_DAYS: Final = 7
"""How far a run of CHO perfusion is looked ahead [d]."""
_HORIZONS: Final = 2
"""How many horizons of its objective a described culture is looked ahead."""
_MOST_STEPS: Final = 48
_SEED: Final = 0
_STEPS: Final = (1.0, 2.0, 5.0, 10.0)

_WORKING: Final = (
    "The state after the last sample is being estimated. The first time this takes up to a few "
    "minutes, later a moment; the page shows it when it is there."
)

Ask = Callable[[Mapping[str, float]], Outlook]


class _Ready(NamedTuple):
    """Everything to answer questions about one vessel after its last sample."""

    stamp: tuple[Any, ...]
    trouble: str = ""
    """Why none can be answered; empty if they can."""
    sliders: tuple[Slider, ...] = ()
    names: tuple[str, ...] = ()
    """What is forecast."""
    now: Mapping[str, float] = {}
    """Set-points in force."""
    ask: Ask | None = None
    unchanged: Mapping[str, Band] = {}
    remark: str = ""


class WhatIf:
    """Answers what a run would come to; one question at a time.

    Args:
        monotonic: Clock [s].
    """

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._now = monotonic
        self._lock = threading.Lock()
        self._ready: dict[tuple[Path, str], _Ready] = {}
        self._asked: dict[tuple[Path, str], Future[None]] = {}
        self._models: dict[Path, tuple[tuple[Any, ...], HybridStateSpaceModel]] = {}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="what-if")

    def close(self) -> None:
        """Begin nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def __call__(self, folder: Path, reactor_id: str, set_points: Mapping[str, float]) -> Trial:
        """A forecast under other set-points, held from the last sample on.

        Args:
            folder: Run folder.
            reactor_id: Vessel.
            set_points: Those that are another, by name; of what has no slider, and beyond one's
                ends, nothing is taken.

        Returns:
            The forecast; or that the state is being estimated, or why there is none.
        """
        key, stamp = (folder, reactor_id), _stamp_of(folder)
        with self._lock:
            ready, asked = self._ready.get(key), self._asked.get(key)
            if ready is None or ready.stamp != stamp:
                if asked is None or asked.done():
                    self._asked[key] = self._pool.submit(self._prepare, key, stamp)
                return Trial("working", _WORKING)
            if ready.ask is None:
                return Trial("none", ready.trouble)
            sliders = tuple(
                s._replace(value=min(max(set_points.get(s.name, s.now), s.low), s.high))
                if math.isfinite(set_points.get(s.name, s.now))
                else s
                for s in ready.sliders
            )
            chosen = {**ready.now, **{s.name: s.value for s in sliders}}
            began = self._now()
            bands = _bands(ready.ask(chosen), ready.names)
            took = self._now() - began
        return Trial("ready", ready.remark, sliders, bands, ready.unchanged, took)

    def _prepare(self, key: tuple[Path, str], stamp: tuple[Any, ...]) -> None:
        folder, reactor_id = key
        try:
            ready = self._estimated(folder, reactor_id, stamp)
        except (PerfusioError, OSError) as error:
            ready = _Ready(stamp, f"There is no forecast: {in_short(error)}")
        except Exception as error:  # the page goes on, and this is told
            text = f"There is no forecast ({type(error).__name__}: {in_short(error)})."
            ready = _Ready(stamp, text)
        with self._lock:
            self._ready[key] = ready

    def _estimated(self, folder: Path, reactor_id: str, stamp: tuple[Any, ...]) -> _Ready:
        told = _session(folder)
        model, table = self._model(folder)
        if digest(model) != told.get("model_sha256"):
            return _Ready(
                stamp,
                "The model that the settings name is not the one the session began with; what it "
                "forecasts would not be what the twin sees.",
            )
        process = model.layout.process
        with RunRecords(folder / JOURNAL_NAME, is_read_only=True) as journal:
            cadence = sampled(journal, reactor_id)
            samples = [s.values for s in journal.samples(reactor_id)]
            written = [
                i for i in journal.intents(reactor_id) if i.outcome in ("written", "arrived")
            ]
        if not samples:
            raise DataError("no sample has come yet")
        initial = defaultdict(lambda: math.nan, _initial(process) | dict(
            table.get("initial_controls", {})))  # fmt: skip
        rows = rows_of(samples, initial, cadence, given=() if process is None else process.boluses)
        now = {n: float(v) for n, v in rows[-1]["controls"].items() if v is not None}
        if written and written[-1].day >= float(samples[-1]["day"]):
            now |= written[-1].setpoints
        ask: Ask
        if process is None:
            ask = _cho(model, rows)
        else:
            hours = _hours(told, cadence.interval_h)
            clone, drawn = str(table.get("clone_id", "unknown")), _drawn(folder, told, model)
            ask = _described(model, process, rows, clone, hours, drawn)
        names = tuple(model.layout.forecast)
        unchanged = _bands(ask(now), names)
        is_learning = told.get("mode") == "adaptive"
        remark = "With the model the session began with" + (
            "; what the twin learned since is not in it." if is_learning else "."
        )
        sliders = _sliders(told, process, now)
        return _Ready(stamp, "", sliders, names, now, ask, unchanged, remark)

    def _model(self, folder: Path) -> tuple[HybridStateSpaceModel, Mapping[str, Any]]:
        """The model the settings name, and their table of the twin."""
        config = config_in(folder) or config_in(folder.parent)
        if config is None:
            return untrained_model(CHOPerfusionModel()), {}
        settings, base = read_settings(config)
        table = settings["twin"]
        if table.get("model") is None:
            volume = float(table.get("volume_L", CHOPerfusionModel().volume_L))
            return untrained_model(CHOPerfusionModel(volume_L=volume)), table
        if table.get("mechanism") is not None:
            _check_ours(config)
        where = base / str(table["model"])
        stamp = tuple(_stamp(where / name) for name in ("header.json", "arrays.npz"))
        known = self._models.get(where)
        if known is None or known[0] != stamp:
            known = (stamp, load_model(where, table.get("mechanism")))
            self._models[where] = known
        return known[1], table


def _drawn(
    folder: Path, told: Mapping[str, Any], model: HybridStateSpaceModel
) -> DrawnMechanisms | None:
    """Draws of constants that the session decides by; None if it has none.

    Raises:
        DataError: If the settings name another posterior by now.
    """
    begun = told.get("posterior")
    config = config_in(folder) or config_in(folder.parent)
    if begun is None or config is None or model.layout.process is None:
        return None
    settings, base = read_settings(config)
    found = posterior_of_twin(
        settings["twin"],
        base,
        model,
        model.layout.process,
        n_paths=int(begun["draws"]),
        seed=int((told.get("config") or {}).get("seed") or 0),
    )
    if found is None or found.sha256 != begun["sha256"]:
        raise DataError(
            "the posterior that the settings name is not the one the session began with"
        )
    return found.drawn


def _check_ours(config: Path) -> None:
    """Run code that settings name only where nobody else could have named it.

    Raises:
        ConfigError: If another account owns the file, or may change it.
    """
    status = config.stat()
    if os.name != "posix" or (status.st_uid == os.geteuid() and not status.st_mode & 0o022):
        return
    raise ConfigError(
        f"{config.name} names a mechanism, which is code, and others than the page's account may "
        "change that file; perfusio-jax forecast runs it for whoever trusts it"
    )


def _session(folder: Path) -> Mapping[str, Any]:
    """What the last session said of itself.

    Raises:
        DataError: If none is on record.
    """
    told = None
    for event in records_of(read_file(folder / LOG_NAME, most=RECORD_BYTES)):
        if event["event_type"] == "SESSION_STARTED":
            told = event["payload"]
    if told is None:
        raise DataError("no session is on record")
    return told


def _cho(model: HybridStateSpaceModel, rows: Sequence[Mapping[str, Any]]) -> Ask:
    history = history_from_records(rows, volume_L=float(model.mech_model.volume_L))
    belief, _ = estimate(history, model, seed=_SEED)
    return lambda u: forecast(model, belief, u, horizon=CHO_DAYS, seed=_SEED)


def _described(
    model: HybridStateSpaceModel,
    process: Process,
    rows: Sequence[Mapping[str, Any]],
    clone_id: str,
    hours: list[float],
    drawn: DrawnMechanisms | None,
) -> Ask:
    known = estimate_described(
        described_history(rows, process, clone_id=clone_id), model, seed=_SEED, mechanisms=drawn
    )
    return lambda u: forecast_described(
        known, u, hours=hours, seed=_SEED, n_paths=256, is_daily=False
    )


def _hours(told: Mapping[str, Any], interval_h: float) -> list[float]:
    days = _HORIZONS * float((told.get("objective") or {}).get("horizon_days", 3))
    n = min(max(round(days * HOURS_PER_DAY / interval_h), 1), _MOST_STEPS)
    return [interval_h * (k + 1) for k in range(n)]


def _initial(process: Process | None) -> dict[str, float]:
    if process is None:
        return dict(DEFAULT_CONTROLS)
    return {c.name: float(c.default) for c in process.controls}


def _sliders(
    told: Mapping[str, Any], process: Process | None, now: Mapping[str, float]
) -> tuple[Slider, ...]:
    """What may be moved, within the limits of the session."""
    found = []
    if process is None:
        bounds = (told.get("design_space") or {}).get("control_bounds") or {}
        ranges = {n: (float(b["lo"]), float(b["hi"])) for n, b in bounds.items()}
        units = {n: canonical_unit(n) for n in ranges}
    else:
        narrowed = (told.get("objective") or {}).get("ranges") or {}
        ranges, units = {}, {}
        for control in process.controls:
            span = narrowed.get(control.name, (control.lo, control.hi))
            if np.isfinite(span).all() and control.name not in process.boluses:
                ranges[control.name] = (float(span[0]), float(span[1]))
                units[control.name] = control.unit
    for name, (low, high) in ranges.items():
        value = now.get(name)
        if value is None or not high > low:
            continue
        low, high = min(low, value), max(high, value)
        found.append(Slider(name, units[name], low, high, _step(high - low), value, value))
    return tuple(found)


def _step(span: float) -> float:
    """About two hundredths of a range, as 1, 2 or 5 of a decimal place."""
    power = 10.0 ** math.floor(math.log10(span / 200.0))
    return next(s * power for s in _STEPS if span / (s * power) <= 200.0 + 1e-9)


def _bands(outlook: Outlook, names: tuple[str, ...]) -> dict[str, Band]:
    hours = HOURS_PER_DAY * np.asarray(outlook.days, float)
    return {
        name: Band(hours, outlook.q10[:, k], outlook.q90[:, k], outlook.q50[:, k])
        for k, name in enumerate(names)
    }


def _stamp_of(folder: Path) -> tuple[Any, ...]:
    configs = [p / n for p in (folder, folder.parent) for n in ("twin.toml", "config.toml")]
    wal = _stamp(folder / f"{JOURNAL_NAME}-wal")
    idle = wal is not None and wal[1] == 0
    found = [_stamp(folder / JOURNAL_NAME), None if idle else wal, *map(_stamp, configs)]
    return tuple(found)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
