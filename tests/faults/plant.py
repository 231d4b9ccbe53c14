"""A reactor as seen through a connector that lies, forgets, dawdles and breaks, by a plan."""

import asyncio
import datetime as dt
import math
import random
from collections.abc import Callable

from perfusio_jax._core import STATE_ORDER, AccessRefused, ConnectorError, DataError
from perfusio_jax.connectors.base import (
    BioreactorConnectorBase,
    Reading,
    SampleNotReady,
    SampleRecord,
)
from perfusio_jax.twin.decision.cadence import DAILY, Cadence

from .virtual_time import EPOCH

START = {
    "perfusion_rate": 1.0,
    "bleed_rate": 0.1,
    "glucose_setpoint": 2.0,
    "temperature": 37.0,
    "agitation": 900.0,
    "pyruvate_feed": 1.0,
}
LEVELS = (12.0, 96.0, 3.0, 4.0, 2.0, 15.0, 3.0, 1.0, 400.0)
BOUNDS = {name: (0.0, 3.0 * level) for name, level in zip(STATE_ORDER, LEVELS, strict=True)}

SAMPLE_FAULTS = (
    "late",
    "missing",
    "corrected",
    "early",
    "nan",
    "inf",
    "bad",
    "uncertain",
    "stuck",
    "drift",
    "spike",
    "swapped",
    "text",
    "wrong_time",
    "wrong_vessel",
    "empty",
    "error",
    "hang",
    "old",
)
WRITE_FAULTS = (
    "refused",
    "hang_before",
    "hang_after",
    "error_after",
    "partial",
    "delayed",
    "ignored",
    "float32",
    "os_error",
)
READ_BACK_FAULTS = ("error", "hang", "nan", "gaps", "bad")


class Plant(BioreactorConnectorBase):
    """One vessel with a fault plan per day.

    Args:
        seed: Of the culture's noise.
        time: Culture time now [h].
        clock: Our wall clock.
        plan: Fault names by (kind, day): kinds "sample", "write", "read_back", "device",
            "line" (hours without an answer).
        on_write: Called with the set-points at the moment a write begins.
        cadence: When samples are taken.
    """

    def __init__(
        self,
        seed: int,
        *,
        reactor_id: str,
        time: Callable[[], float],
        clock: Callable[[], dt.datetime],
        plan: dict[tuple[str, float], str],
        on_write: Callable[[dict[str, float]], None],
        cadence: Cadence = DAILY,
    ) -> None:
        self.cadence = cadence
        self.reactor_id, self._time, self._clock, self.plan = reactor_id, time, clock, plan
        self._on_write = on_write
        self.noise = random.Random(seed)
        self.device = dict(START)
        self.writes: list[tuple[float, dict[str, float]]] = []
        self.last_read: dict[str, float] | None = None
        self.reads_since_write = 1
        self.delayed: list[tuple[float, dict[str, float]]] = []
        self.clock_wrong_s = 0.0
        self.served: dict[float, list[dict[str, float | None]]] = {}
        self.started_s = 0.0
        self._truth: dict[int, dict[str, float]] = {}
        self._done: set[tuple[str, float]] = set()

    @property
    def day(self) -> int:
        return int(self._time() // 24)

    def fault(self, kind: str, day: float | None = None) -> str:
        return self.plan.get((kind, self.day if day is None else day), "")

    def truth(self, day: float) -> dict[str, float]:
        number = self.cadence.number(day)
        for d in range(number + 1):
            if d not in self._truth:
                self._truth[d] = {
                    n: level * (1.0 + 0.2 * math.sin(d / 3 + k)) * self.noise.gauss(1.0, 0.01)
                    for k, (n, level) in enumerate(zip(STATE_ORDER, LEVELS, strict=True))
                }
        return dict(self._truth[number])

    async def is_alive(self) -> bool:
        return True

    def _due(self, day: float) -> float:
        late = {"late": 5.0, "missing": 1e9, "early": -2.0}.get(self.fault("sample", day), 0.0)
        return self.cadence.due(day) + late

    def sample_every(self, interval_h: float) -> None:
        self.cadence = Cadence(interval_h)

    async def days_available(self) -> list[float]:
        days = map(self.cadence.day, range(self.cadence.count(self.day + 2)))
        return [d for d in days if self._due(d) <= self._time()]

    async def read_sample(self, day: float):
        return dict((await self.read_record(day)).values)

    async def read_record(self, day: float) -> SampleRecord:
        fault, now = self.fault("sample", day), self._time()
        self._settle_device()
        if self._is_dark():
            raise ConnectorError("the line is dead")
        if self.fault("access") == "refused":
            raise AccessRefused("the rack does not let us in")
        if now < self._due(day):
            raise SampleNotReady(f"day {day} is not there")
        if fault in ("error", "hang") and ("sample", day) not in self._done:
            self._done.add(("sample", day))
            if fault == "hang":
                await asyncio.sleep(1e6)
            raise ConnectorError("the line is dead; password=hunter2")
        values: dict = self.truth(day)
        quality = dict.fromkeys(values, "good")
        time_h, vessel = self.cadence.due(day), self.reactor_id
        age_h = max(now - time_h, 0.0)
        if fault == "corrected" and now > time_h + 12.0:
            values["VCD"] *= 1.05
        elif fault in ("nan", "inf"):
            values["Glc"] = math.nan if fault == "nan" else math.inf
        elif fault in ("bad", "uncertain"):
            quality["Lac"] = fault
            values["Lac"] = None if fault == "bad" else values["Lac"]
        elif fault == "stuck" and day > 0:
            values = self.truth(self.cadence.day(self.cadence.number(day) - 1))
        elif fault == "drift":
            values["Glc"] *= 1.1
        elif fault == "spike":
            values["VCD"] *= 2.6
        elif fault == "swapped":
            values["Glc"], values["VCD"] = values["VCD"], values["Glc"]
        elif fault == "text":
            values["Amm"] = "n/a"
        elif fault == "wrong_time":
            time_h -= 30.0
        elif fault == "wrong_vessel":
            vessel = "R99"
        elif fault == "empty":
            values = dict.fromkeys(values)
        elif fault == "old":
            age_h += 100.0
        record = SampleRecord(
            day, time_h, values, quality, vessel, age_h, controls=dict(self.device)
        )
        if fault != "text":
            self.served.setdefault(day, []).append(
                {n: None if v is None or not math.isfinite(v) else v for n, v in values.items()}
            )
        return record

    def _settle_device(self) -> None:
        due = [entry for entry in self.delayed if entry[0] <= self._time()]
        self.delayed = [entry for entry in self.delayed if entry[0] > self._time()]
        for _, setpoints in due:
            self.device.update(setpoints)
        fault = self.fault("device")
        hour = float(self.plan.get(("hour", self.day), "0"))
        is_due = self._time() >= 24.0 * self.day + hour
        if fault and is_due and ("device", self.day) not in self._done:
            self._done.add(("device", self.day))
            if fault == "by_hand":
                self.device = dict(START)
            elif fault == "reboot":
                self.started_s = self._time() * 3600.0
            elif fault == "edit":
                self.device["temperature"] = 36.3
            elif fault in ("restart", "power_cut", "restart_and_edit"):
                self.device = dict(START)
                if fault == "restart_and_edit":
                    self.device["temperature"] = 36.3
                self.started_s = self._time() * 3600.0
            elif fault == "clock":
                self.clock_wrong_s = 900.0

    async def read_back(self) -> dict[str, Reading]:
        self._settle_device()
        fault = self.fault("read_back")
        if fault == "error" or self._is_dark():
            raise ConnectorError("no read-back: opc.tcp://user:hunter2@rack:4840")
        if fault == "hang":
            await asyncio.sleep(1e6)
        found = {n: Reading(v) for n, v in self.device.items()}
        self.last_read = dict(self.device)
        self.reads_since_write += 1
        if fault == "bad":
            found["temperature"] = Reading(None, "bad")
        elif fault == "nan":
            found["bleed_rate"] = Reading(None, "missing")
        elif fault == "gaps":
            found["agitation"] = Reading(950.0, "uncertain")
        return found

    def _is_dark(self) -> bool:
        """Hours of no answer from 10 h on; or one failed call, which tells of a power cut (the
        device says nothing of its start then)."""
        if 0.0 <= self._time() % 24.0 - 10.0 < float(self.fault("line") or 0.0):
            return True
        is_cut = self.fault("device") == "power_cut" and ("device", self.day) in self._done
        if not is_cut or ("dark", self.day) in self._done:
            return False
        self._done.add(("dark", self.day))
        return True

    async def read_start(self) -> dt.datetime | None:
        if "power_cut" in self.plan.values():
            return None
        self._settle_device()
        return EPOCH + dt.timedelta(seconds=self.started_s)

    async def read_clock(self) -> dt.datetime | None:
        if self.fault("clock") == "silent":
            return None
        return self._clock() + dt.timedelta(seconds=self.clock_wrong_s)

    async def write_setpoints(self, setpoints: dict[str, float]) -> None:
        self._on_write(dict(setpoints))
        self.writes.append((self._time(), dict(setpoints)))
        self.reads_since_write = 0
        fault = self.fault("write")
        if fault == "refused":
            raise DataError("the device refuses these values")
        if fault == "os_error":
            raise OSError(5, "input/output error")
        if fault == "hang_before":
            await asyncio.sleep(1e6)
        if fault == "delayed":
            self.delayed.append((self._time() + 0.5, dict(setpoints)))
            raise ConnectorError("no answer")
        if fault == "ignored":
            return
        if fault == "partial":
            first = sorted(setpoints)[0]
            self.device[first] = setpoints[first]
            raise ConnectorError("broke off in the middle")
        if fault == "float32":
            import struct

            setpoints = {
                n: struct.unpack("f", struct.pack("f", v))[0] for n, v in setpoints.items()
            }
        self.device.update(setpoints)
        if fault == "hang_after":
            await asyncio.sleep(1e6)
        if fault == "error_after":
            raise ConnectorError("no confirmation")
