"""A file of samples that others write to: read again when it changes, and only then."""

import contextlib
import datetime as dt
import gc
import hashlib
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from perfusio_jax._core import ConfigError, ConnectorError, DataError
from perfusio_jax._core.instants import instant_of_seconds
from perfusio_jax._core.limits import SETTINGS_BYTES
from perfusio_jax.process import Process

from ..tables.content import Signature, read_bytes, signature
from ..tables.file_rules import FileRules
from ..tables.samples import Samples, interpret
from ..tables.sidecar import Sidecar, read_sidecar
from ..tables.stamps import zone_of
from ..tables.starts import Starts
from ..tables.vocabulary import Vocabulary
from .opening import open_table

_SETTLED_NS: Final = 2_000_000_000
"""Coarsest grain of a file system's time stamps [ns]; FAT has two seconds."""


@contextlib.contextmanager
def without_collecting() -> Iterator[None]:
    """Let the collector of garbage rest: reading makes many objects and none that is garbage."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


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
        rules: How it is read.
        units: Unit by canonical name; by default from the sidecar `<name>.units.toml`.
        starts: When the runs began, where not all of the file is looked at; by default what
            `rules` says.
        process: The culture whose quantities and controls are read beside our names.
        allow_unterminated: Read a last line that has no line end.
    """

    def __init__(
        self,
        path: Path,
        rules: FileRules | None = None,
        *,
        units: Mapping[str, str] | None = None,
        starts: Starts | None = None,
        process: Process | None = None,
        allow_unterminated: bool = False,
    ) -> None:
        self.path = path
        self._rules = rules or FileRules()
        self._words = Vocabulary.of(process)
        self._process = process
        self._rules.column_map(self._words)  # what makes no sense is refused at once
        self._sidecar = path.with_suffix(".units.toml")
        self._units = units
        self._starts = starts
        self._allow_unterminated = allow_unterminated
        self._mutex = threading.Lock()
        self._cache: _Read | None = None

    @property
    def rules(self) -> FileRules:
        """How the file is read."""
        return self._rules

    @property
    def changed_at(self) -> dt.datetime | None:
        """When the file had last changed when it was read; `None` before that, or if never."""
        if self._cache is None:
            return None
        return instant_of_seconds(self._cache.marks[0][0] / 1e9)

    def join_within(self, hours: float) -> None:
        """Take further rows of a sample for so long after its first one [h], from now on."""
        if hours != self._rules.joins_within_h:
            self._rules = self._rules.but(join_within_h=hours)
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
            both = hashlib.sha256(content)
            both.update(b"\0" + sidecar)
            digest = both.digest()
            if known is not None and known.digest == digest:
                samples = known.samples
            else:
                samples = self._understand(content, sidecar)
            self._cache = _Read((mark, sidecar_mark), digest, is_settled, samples)
            return samples

    def _is_unchanged(self, known: _Read) -> bool:
        return known.is_settled and known.marks == (signature(self.path), self._sidecar_mark())

    def _understand(self, content: bytes, sidecar: bytes) -> Samples:
        with without_collecting():
            return self._understood(content, sidecar)

    def _understood(self, content: bytes, sidecar: bytes) -> Samples:
        try:
            opened = open_table(
                content,
                self.path.suffix,
                self._rules,
                self._told_by(sidecar),
                self._words,
                allow_unterminated=self._allow_unterminated,
                starts=self._starts,
            )
            if self._rules.feeds == "bolus":
                opened.table.notes.append(
                    "a row after a feed stays a sample here; where runs are read as a campaign it "
                    "is a bolus of the row before"
                )
            return interpret(
                opened.table,
                wide=not self._rules.is_long,
                column_map=opened.column_map,
                units=opened.units if self._units is None else self._units,
                on_conflict=self._rules.on_conflict,
                inoculated_at=opened.starts,
                zone=zone_of(self._rules.time_zone),
                date_order=opened.date_order,
                join_within_h=self._rules.joins_within_h,
                totals=opened.totals,
                process=self._process,
                unknown=self._rules.unknown,
                negative_time=self._rules.negative_time,
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
