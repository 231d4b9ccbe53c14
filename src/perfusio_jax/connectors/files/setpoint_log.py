"""The set-point log: a CSV file the twin appends to and the plant obeys."""

import csv
import datetime as dt
import io
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from perfusio_jax._core import ConnectorError, DataError, RunLockedError
from perfusio_jax._core.instants import instant_of_text
from perfusio_jax._core.text import plain_number
from perfusio_jax.twin import FileLock, append_durably, neutralise, replace_durably

from ..base import check_setpoints

LEADING = ("written_at", "day", "time_h", "reactor_id")


class SetpointLog:
    """Append-only CSV of set-points; the last value of each control is the one in force.

    Columns: `written_at` (ISO 8601, UTC), `day` [d], `time_h` [h], `reactor_id`, then one per
    control in canonical units. A cell that is empty leaves that control as it was.

    Args:
        path: The file; made, with its header, on the first write.
        controls: Names of the controls.
        reactor_id: Vessel the set-points are for; rows of other vessels are not read back.
        patience_s: How long to wait for another writer [s]; reactors may share the file.
    """

    def __init__(
        self,
        path: Path | str,
        controls: Sequence[str],
        reactor_id: str | None = None,
        *,
        patience_s: float = 5.0,
    ) -> None:
        self.patience_s = patience_s
        self.path = Path(path)
        self.controls = tuple(controls)
        self.reactor_id = reactor_id
        self.columns = (*LEADING, *self.controls)

    def append(
        self,
        setpoints: Mapping[str, float],
        written_at: dt.datetime,
        *,
        day: float | None = None,
        time_h: float | None = None,
    ) -> None:
        """Append one row: one write, on the disk on return.

        Args:
            setpoints: Value per control, in canonical units; at least one.
            written_at: Time stamp with a zone.
            day: Culture day [d] they are for.
            time_h: Time since inoculation [h] they are for.

        Raises:
            DataError: If a name is not a control, a value is not finite, or the file has
                another header.
            ConnectorError: If the file cannot be written; it is then as it was before.
        """
        setpoints = check_setpoints(setpoints, self.controls)
        lead = {
            "written_at": written_at.astimezone(dt.UTC).isoformat(timespec="milliseconds"),
            "day": "" if day is None else f"{day:g}",
            "time_h": "" if time_h is None else f"{time_h:g}",
            "reactor_id": neutralise(self.reactor_id or ""),
        }
        cells = lead | {name: repr(value) for name, value in setpoints.items()}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path.with_name(f".{self.path.name}.lock"))
            self._acquire(lock)
            try:
                header = self._prepare()
                row = _line([cells.get(name, "") for name in header or self.columns])
                text = row if header else _line(self.columns) + row
                append_durably(self.path, text.encode())
            finally:
                lock.release()
        except RunLockedError as error:
            raise ConnectorError(
                f"{self.path} is being written by another process, for {self.patience_s:g} s now."
            ) from error
        except OSError as error:
            raise ConnectorError(f"{self.path} cannot be written: {error}") from error

    def _acquire(self, lock: FileLock) -> None:
        deadline = time.monotonic() + self.patience_s
        while True:
            try:
                return lock.acquire()
            except RunLockedError as error:
                cause = error.__cause__
                if isinstance(cause, OSError) and not isinstance(cause, BlockingIOError):
                    raise cause from None  # nobody holds it: it cannot be opened
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.005)

    def last(self) -> dict[str, float]:
        """The values in force, by control name; empty before the first write.

        Raises:
            DataError: If the file is not a set-point log or holds a value that is no number.
            ConnectorError: If it cannot be read.
        """
        return {name: value for name, (value, _) in self.last_with_times().items()}

    def last_with_times(self) -> dict[str, tuple[float, dt.datetime | None]]:
        """The values in force and when each was written; `None` where the row does not say.

        Raises:
            DataError: If the file is not a set-point log or holds a value that is no number.
            ConnectorError: If it cannot be read.
        """
        content = self._read()
        whole = content[: content.rfind(b"\n") + 1]
        if not whole.strip():
            return {}
        try:
            rows = list(csv.reader(io.StringIO(whole.decode("utf-8-sig"), newline="")))
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{self.path} is not a set-point log: {error}") from None
        header = self._check_header(rows[0])
        ours = {"", neutralise(self.reactor_id or ""), self.reactor_id or ""}
        in_force: dict[str, tuple[float, dt.datetime | None]] = {}
        for number, row in enumerate(rows[1:], start=2):
            if not any(row):
                continue
            if len(row) != len(header):
                raise DataError(
                    f"{self.path}: line {number} has {len(row)} fields where the header has "
                    f"{len(header)}."
                )
            cells = dict(zip(header, row, strict=True))
            if self.reactor_id is not None and cells.get("reactor_id", "").strip() not in ours:
                continue
            written_at = _instant(cells.get("written_at", ""))
            in_force |= {n: (v, written_at) for n, v in self._values(cells, number).items()}
        return in_force

    def _values(self, cells: Mapping[str, str], number: int) -> dict[str, float]:
        values = {}
        for name in self.controls:
            text = cells.get(name, "").strip()
            if not text:
                continue
            try:
                value = plain_number(text)
            except ValueError:
                value = math.nan
            if not math.isfinite(value):
                raise DataError(
                    f"{self.path}: {name} is '{text}' in line {number}; a finite number is needed."
                )
            values[name] = value
        return values

    def _prepare(self) -> list[str] | None:
        """The header of the file, after moving an unfinished last line out of the way."""
        content = self._read()
        cut = content.rfind(b"\n") + 1
        if cut < len(content):
            append_durably(self.path.with_name(self.path.name + ".torn"), content[cut:] + b"\n")
            replace_durably(self.path, content[:cut])
            content = content[:cut]
        if not content.strip():
            return None
        first = content.splitlines()[0].decode("utf-8-sig", "replace")
        return self._check_header(next(csv.reader([first])))

    def _check_header(self, header: list[str]) -> list[str]:
        header = [name.strip() for name in header]
        lacking = [name for name in self.columns if name not in header]
        if lacking:
            raise DataError(
                f"{self.path} is not a set-point log of these controls: its header lacks "
                f"{', '.join(lacking)}. Move the file away, or name another."
            )
        return header

    def _read(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise ConnectorError(f"{self.path} cannot be read: {error}") from error


def _instant(text: str) -> dt.datetime | None:
    """A time with a zone; operators who append by hand may leave it out."""
    try:
        return instant_of_text(text, "written_at")
    except DataError:
        return None


def _line(cells: Sequence[str]) -> str:
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\n").writerow(cells)
    return out.getvalue()
