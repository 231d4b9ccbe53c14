"""Recording what came over OPC UA, and replaying it as a connector.

One JSON object a line: `day` [d] (null for online tags and set-points), `name`, `node`, `value`
(canonical unit; null if unusable), `quality`, `status`, `time` (source time, ISO 8601), `at`
(when it was read or written) and `kind`: "sample", "tag", "read_back" or "write".
"""

import asyncio
import datetime as dt
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from perfusio_jax._core import (
    HOURS_PER_DAY,
    STREAM_TOTALS,
    ConnectorError,
    DataError,
)
from perfusio_jax._core.instants import hours_between, instant_of_text
from perfusio_jax._core.limits import RECORD_BYTES, parse_json, read_file
from perfusio_jax.connectors.base import (
    QUALITIES,
    BioreactorConnectorBase,
    Reading,
    SampleNotReady,
    SampleRecord,
    check_setpoints,
)
from perfusio_jax.connectors.tables.vocabulary import Vocabulary
from perfusio_jax.process import Process

KINDS: Final = ("sample", "tag", "read_back", "write")


def line_of(
    kind: str,
    name: str,
    reading: Reading,
    *,
    node: str,
    day: int | None = None,
    at: dt.datetime | None = None,
) -> str:
    """One record as a line of JSON, newline included.

    Args:
        kind: One of `KINDS`.
        name: Species, tag, total or control.
        reading: What was read or written.
        node: Where.
        day: Culture day [d] of a sample.
        at: When it was read or written; the reading's own time by default.
    """
    read_at = at or reading.read_at
    return (
        json.dumps(
            {
                "kind": kind,
                "day": day,
                "name": name,
                "node": node,
                "value": reading.value,
                "quality": reading.quality,
                "status": reading.status,
                "time": None if reading.source_time is None else reading.source_time.isoformat(),
                "at": None if read_at is None else read_at.isoformat(),
            },
            allow_nan=False,
        )
        + "\n"
    )


class Recorder:
    """Appends records to a file; concurrent calls keep their lines whole.

    Args:
        path: The file; its folder is made.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._lock = asyncio.Lock()

    async def write(self, lines: Iterable[str]) -> None:
        """Append lines.

        Raises:
            ConnectorError: If the file cannot be written.
        """
        text = "".join(lines)
        if not text:
            return

        def append() -> None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(text)

        async with self._lock:
            try:
                await asyncio.to_thread(append)
            except OSError as error:
                raise ConnectorError(
                    f"the recording {self.path} cannot be written: {error.strerror}."
                ) from error


class ReplayConnector(BioreactorConnectorBase):
    """Plays a recording back, day by day, as the source it was made from.

    Set-points written here go nowhere but are read back, so that a loop can be run over it.

    Args:
        path: JSON lines as `Recorder` writes them; a line needs `day`, `value` and `name`, or
            `node` (`node_id` will do) with `nodes` saying whose it is.
        nodes: Name by node, for recordings without names.
        process: The culture, where it is another than CHO perfusion.

    Raises:
        DataError: If a line is not a record; a last line without its end is left out.
        ConnectorError: If the file is not there.
    """

    def __init__(
        self,
        path: Path | str,
        nodes: Mapping[str, str] | None = None,
        *,
        process: Process | None = None,
    ) -> None:
        self.path = Path(path)
        self._words = Vocabulary.of(process)
        self.notes: list[str] = []
        """What was odd about the recording, one sentence each."""
        try:
            content = read_file(self.path, most=RECORD_BYTES)
        except OSError as error:
            raise ConnectorError(f"{self.path} cannot be read: {error.strerror}.") from error
        self._days: dict[int, dict[str, Reading]] = {}
        self._tags: dict[str, Reading] = {}
        self._setpoints: dict[str, Reading] = {}
        lines = content.split(b"\n")
        if lines[-1].strip():
            self.notes.append(f"line {len(lines)} has no end and was left out")
        for number, line in enumerate(lines[:-1], start=1):
            if line.strip():
                self._take(line, number, nodes or {})

    def _take(self, line: bytes, number: int, nodes: Mapping[str, str]) -> None:
        where = f"{self.path}, line {number}"
        record = parse_json(line, where)
        if not isinstance(record, dict):
            raise DataError(f"{where} is not a record.")
        node = record.get("node", record.get("node_id"))
        name = record.get("name") or nodes.get(str(node))
        if not isinstance(name, str):
            raise DataError(f"{where}: nothing says what node {node!r} is.")
        kind = record.get("kind", "sample")
        reading = _reading(record, where)
        if kind == "sample":
            day = record.get("day")
            if isinstance(day, bool) or not isinstance(day, int) or day < 0:
                raise DataError(f"{where}: day is {day!r}; a whole number from 0 is needed.")
            self._days.setdefault(day, {})[name] = reading  # the last one counts
        elif kind == "tag":
            self._tags[name] = reading
        elif kind in ("read_back", "write"):
            self._setpoints[name] = reading
        else:
            raise DataError(f"{where}: kind is {kind!r}; allowed are {', '.join(KINDS)}.")

    async def is_alive(self) -> bool:
        """Whether there is anything to replay."""
        return bool(self._days)

    async def days_available(self) -> list[int]:
        """Days recorded."""
        return sorted(self._days)

    async def read_sample(self, day: int) -> dict[str, float | None]:
        """The sample recorded for one culture day.

        Raises:
            SampleNotReady: If there is none.
            DataError: If the day is none.
        """
        return dict((await self.read_record(day)).values)

    async def read_record(self, day: int) -> SampleRecord:
        """The sample recorded for one culture day, with quality and times as they were.

        Raises:
            SampleNotReady: If there is none.
            DataError: If the day is none.
        """
        if day < 0 or day != int(day):
            raise DataError(f"day {day} is not a culture day; days are whole numbers from 0.")
        held = self._days.get(int(day))
        if held is None:
            raise SampleNotReady(f"{self.path} has no sample of day {int(day)}.")

        def pick(names: Iterable[str]) -> dict[str, Reading]:
            return {name: held[name] for name in names if name in held}

        values = {n: r.value for n, r in pick(self._words.species).items()}
        times = {n: r.source_time for n, r in held.items() if r.source_time is not None}
        read_at = next((r.read_at for r in held.values() if r.read_at is not None), None)
        newest = max((times[n] for n in values if n in times), default=None)
        return SampleRecord(
            day=int(day),
            time_h=HOURS_PER_DAY * int(day),
            values=values,
            quality={n: r.quality for n, r in held.items()},
            age_h=None if newest is None or read_at is None else hours_between(read_at, newest),
            stream_totals={n: r.value for n, r in pick(STREAM_TOTALS).items()},
            controls={n: r.value for n, r in pick(self._words.controls).items()},
            tags={n: r.value for n, r in pick(self._words.tags).items()},
            source_times=times,
            read_at=read_at,
        )

    async def read_tags(self) -> dict[str, Reading]:
        """Online tags as they were last."""
        words = self._words
        return {n: r for n, r in self._tags.items() if n in (*words.tags, *words.online)}

    async def write_setpoints(self, setpoints: dict[str, float]) -> None:
        """Remember set-points.

        Raises:
            DataError: If a name is not a control or a value is not finite.
        """
        wanted = check_setpoints(setpoints, self._words.controls)
        self._setpoints.update({n: Reading(v) for n, v in wanted.items()})

    async def read_setpoints(self) -> dict[str, float]:
        """Set-points as last recorded, or as written since."""
        return {n: r.value for n, r in self._setpoints.items() if r.value is not None}

    async def read_back(self) -> dict[str, Reading]:
        """The same with quality and time."""
        return {n: r for n, r in self._setpoints.items() if n in self._words.controls}


def _reading(record: Mapping[str, Any], where: str) -> Reading:
    value = record.get("value")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    number = float(value) if is_number else math.nan  # pyright: ignore
    usable = math.isfinite(number)
    quality = record.get("quality", "good" if usable else "missing")
    if quality not in QUALITIES:
        raise DataError(f"{where}: quality is {quality!r}; allowed are {', '.join(QUALITIES)}.")
    if not usable and quality in ("good", "uncertain"):
        quality = "missing" if value is None else "bad"
    return Reading(
        number if usable and quality in ("good", "uncertain") else None,
        quality,
        _time(record.get("time"), where),
        _time(record.get("at"), where),
        str(record.get("status", "")),
    )


def _time(text: Any, where: str) -> dt.datetime | None:
    if text is None:
        return None
    return instant_of_text(text, f"{where}: the time")
