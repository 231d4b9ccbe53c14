"""A file of samples that others write to: read again when it changes, and only then."""

import datetime as dt
import hashlib
import threading
import time
import zoneinfo
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from perfusio_jax._core import ConfigError, ConnectorError, DataError
from perfusio_jax._core.instants import instant_of_seconds
from perfusio_jax._core.limits import SETTINGS_BYTES
from perfusio_jax.process import Process

from ..tables.columns import ColumnMap, is_known_label, is_number_label
from ..tables.content import Signature, read_bytes, signature
from ..tables.formats import read_table
from ..tables.joining import DEFAULT_JOIN_H
from ..tables.samples import Samples, interpret
from ..tables.settling import Conflicts
from ..tables.sidecar import Sidecar, read_sidecar
from ..tables.stamps import DateOrder
from ..tables.starts import Starts
from ..tables.totals import Totals
from ..tables.vocabulary import Vocabulary

_SETTLED_NS: Final = 2_000_000_000
"""Coarsest grain of a file system's time stamps [ns]; FAT has two seconds."""


class _Read(NamedTuple):
    """A file as it was read."""

    marks: tuple[Signature, Signature | None]
    """Of the file and of its sidecar."""
    digest: bytes
    """SHA-256 of the content of both."""
    is_settled: bool
    """Whether neither had changed for a while, so that any change will show in the marks."""
    samples: Samples


class SourceFile:
    """Samples of a file and its sidecar of units, cached until one of them changes.

    Args:
        path: The file.
        wide: One column per species; else rows of `day, species, value`.
        column_map: What the user says about the columns.
        units: Unit by canonical name; by default from the sidecar `<name>.units.toml`.
        on_conflict: What two different values for one time mean.
        inoculated_at: When the runs began, to tell the time from `sampled_at`.
        zone: Zone of time stamps without an offset.
        date_order: Day or month first, in dates with the year last.
        join_within_h: How long after its first row [h] a sample takes further ones.
        totals: What stream totals are, if it is known.
        process: The culture whose quantities and controls are read beside our names.
        reading: How to read it; see `tables.read_table`.
    """

    def __init__(
        self,
        path: Path,
        *,
        wide: bool,
        column_map: ColumnMap,
        units: Mapping[str, str] | None,
        on_conflict: Conflicts,
        inoculated_at: Starts | None,
        zone: zoneinfo.ZoneInfo | None,
        date_order: DateOrder | None = None,
        join_within_h: float = DEFAULT_JOIN_H,
        totals: Totals | None = None,
        process: Process | None = None,
        **reading: Any,
    ) -> None:
        self.path = path
        self._words = Vocabulary.of(process)
        self._sidecar = path.with_suffix(".units.toml")
        self._column_map = column_map
        self._units = units
        self._reading = reading
        self._meaning: dict[str, Any] = {
            "wide": wide,
            "column_map": column_map,
            "on_conflict": on_conflict,
            "inoculated_at": inoculated_at,
            "zone": zone,
            "join_within_h": join_within_h,
            "process": process,
        }
        self._date_order: DateOrder | None = date_order
        self._totals: Totals | None = totals
        self._mutex = threading.Lock()
        self._cache: _Read | None = None

    @property
    def changed_at(self) -> dt.datetime | None:
        """When the file had last changed when it was read; `None` before that, or if never."""
        if self._cache is None:
            return None
        return instant_of_seconds(self._cache.marks[0][0] / 1e9)

    def join_within(self, hours: float) -> None:
        """Take further rows of a sample for so long after its first one [h], from now on."""
        if hours != self._meaning["join_within_h"]:
            self._meaning["join_within_h"] = hours
            self.forget()

    def forget(self) -> None:
        """Read the file anew next time, changed or not."""
        self._cache = None

    def samples(self, *, afresh: bool = True) -> Samples:
        """The samples there are.

        Args:
            afresh: Look whether the file changed; else what was read last will do.

        Raises:
            ConnectorError: If the file is not there or cannot be read.
            DataError: If it cannot be understood.
            UnitError: If a unit cannot be read or does not fit its column.
        """
        with self._mutex:
            known = self._cache
            if known is not None and (not afresh or self._is_unchanged(known)):
                return known.samples
            content, mark = read_bytes(self.path)
            sidecar, sidecar_mark = self._read_sidecar()
            # A file changed again within the grain of its time stamp looks unchanged.
            newest = max(mark[0], 0 if sidecar_mark is None else sidecar_mark[0])
            is_settled = time.time_ns() - newest > _SETTLED_NS
            digest = hashlib.sha256(content + b"\0" + sidecar).digest()
            if known is not None and known.digest == digest:
                samples = known.samples
            else:
                samples = self._understand(content, sidecar)
            self._cache = _Read((mark, sidecar_mark), digest, is_settled, samples)
            return samples

    def _is_unchanged(self, known: _Read) -> bool:
        return known.is_settled and known.marks == (signature(self.path), self._sidecar_mark())

    def _understand(self, content: bytes, sidecar: bytes) -> Samples:
        try:
            told = self._told_by(sidecar)
            reading = dict(self._reading)
            reading["decimal"] = reading.get("decimal") or told.decimal
            table = read_table(
                content,
                self.path.suffix,
                is_known=lambda label: is_known_label(label, self._column_map, self._words),
                is_number=lambda label: is_number_label(label, self._column_map, self._words),
                **reading,
            )
            return interpret(
                table,
                units=told.units if self._units is None else self._units,
                totals=self._totals or told.totals,
                date_order=self._date_order or told.date_order,
                **self._meaning,
            )
        except (DataError, ConfigError) as error:  # UnitError is one of the latter
            raise type(error)(f"{self.path}: {error}") from None

    def _sidecar_mark(self) -> Signature | None:
        try:
            return signature(self._sidecar) if self._units is None else None
        except ConnectorError:
            return None

    def _read_sidecar(self) -> tuple[bytes, Signature | None]:
        if self._sidecar_mark() is None:
            return b"", None
        return read_bytes(self._sidecar, most=SETTINGS_BYTES)

    def _told_by(self, sidecar: bytes) -> Sidecar:
        try:
            return read_sidecar(sidecar)
        except DataError as error:
            raise DataError(f"its sidecar {self._sidecar.name} {error}") from None
