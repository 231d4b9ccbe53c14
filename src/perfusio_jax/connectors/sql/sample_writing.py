"""Samples into a database: each stored once, corrected by further revisions."""

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from perfusio_jax._core import DataError
from perfusio_jax.twin.records.entries import Stored

from ..base import Reading, SampleRecord
from . import schema
from .clones import settle_clone
from .readings import insert_samples, rows_apart, with_readings
from .records import check_name, clean, from_row, merge, record_of, to_row
from .rows import Rows
from .schema import CHUNK


class SampleWriting(Rows):
    """Samples of one reactor, stored exactly once."""

    def write_sample(
        self,
        day: int,
        sample: Mapping[str, Any],
        *,
        time_h: float | None = None,
        quality: Mapping[str, str] | None = None,
        sampled_at: dt.datetime | None = None,
        volume_L: float | None = None,
        is_correction: bool = False,
        user: str = "system",
        reason: str | None = None,
    ) -> Stored:
        """Store the sample of one day, exactly once; it is on the disk on return.

        Blocks for as long as the database takes; from a coroutine use `asyncio.to_thread`.

        A name that had no value yet is filled in. Other values than those stored are refused
        unless `is_correction` says so; the earlier ones stay as an older revision.

        Args:
            day: Culture day [d].
            sample: Value by name of species, stream total, control or tag, in canonical units;
                NaN and `None` are missing.
            time_h: Time since inoculation [h]; 24 h x day by default. What matches two rows.
            quality: Quality by name, "good" by default.
            sampled_at: When it was taken, with a zone.
            volume_L: Working volume [L].
            is_correction: Whether other values replace those stored.
            user: Who stores it.
            reason: Why it is corrected.

        Returns:
            Whether it was new, known already, or changed what was stored.

        Raises:
            DataError: If a name is unknown, a value is not a number, or it contradicts what is
                stored and is no correction.
            DatabaseError: If the database cannot be used; nothing is stored then.
        """
        record = record_of(
            day,
            sample,
            time_h=time_h,
            quality=quality,
            sampled_at=sampled_at,
            volume_L=volume_L,
            words=self.words,
        )
        return self.write_records([record], is_correction=is_correction, user=user, reason=reason)[
            0
        ]

    def write_records(
        self,
        records: Iterable[SampleRecord],
        *,
        kind: str = "daily",
        clone_id: str | None = None,
        is_correction: bool = False,
        user: str = "system",
        reason: str | None = None,
    ) -> list[Stored]:
        """Store many samples in one transaction: all of them, or none.

        Args:
            records: Samples.
            kind: "daily", or "online" for tags between the daily samples.
            clone_id: Clone they are of, if that is known; it is kept with the vessel.
            is_correction: Whether other values replace those stored.
            user: Who stores them.
            reason: Why they are corrected.

        Returns:
            For each, whether it was new, known already, or changed what was stored.

        Raises:
            DataError: If one cannot be stored, naming it; see `write_sample`. If the vessel holds
                another clone.
            DatabaseError: If the database cannot be used.
        """
        if kind not in ("daily", "online"):
            raise DataError(f"kind is {kind!r}; allowed are 'daily' and 'online'.")
        ready = [clean(record, self.words) for record in records]
        stamps = {"kind": kind, "stored_by": check_name(user, "user"), "stored_at": self._now()}

        def work(connection: sa.Connection) -> list[Stored]:
            reactor = self._vessel(connection)
            if clone_id is not None:
                settle_clone(connection, reactor, clone_id)
            fates: list[Stored] = []
            for start in range(0, len(ready), CHUNK):
                part = ready[start : start + CHUNK]
                known = self._newest(connection, reactor, kind, [r.time_h for r in part])
                rows: list[dict[str, Any]] = []
                apart: list[list[dict[str, Any]]] = []
                for record in part:
                    fate, row = self._fate(record, known, is_correction, reason)
                    fates.append(fate)
                    if row is not None:
                        rows.append({**row, **stamps, "reactor_id": reactor})
                        apart.append(rows_apart(known[record.time_h][1], self.words))
                if rows:
                    insert_samples(connection, rows, apart)
            return fates

        return self.database.call(work, is_write=True)

    def write_tags(
        self, tags: Mapping[str, Reading | float | None], time_h: float, *, user: str = "system"
    ) -> Stored:
        """Store online tags of one instant.

        Args:
            tags: Value or reading by name of tag, or of what a probe of the process reads.
            time_h: Time since inoculation [h].
            user: Who stores them.

        Raises:
            DataError: If a name is no tag, or other values are stored for that time.
            DatabaseError: If the database cannot be used.
        """
        rich = {n: t if isinstance(t, Reading) else None for n, t in tags.items()}
        plain = {n: t.value if isinstance(t, Reading) else t for n, t in tags.items()}
        record = SampleRecord(
            day=int(time_h // 24.0),
            time_h=time_h,
            values={n: v for n, v in plain.items() if n in self.words.online},
            tags={n: v for n, v in plain.items() if n not in self.words.online},
            quality={n: t.quality for n, t in rich.items() if t is not None},
            source_times={
                n: t.source_time for n, t in rich.items() if t is not None and t.source_time
            },
        )
        return self.write_records([record], kind="online", user=user)[0]

    def _newest(
        self, connection: sa.Connection, reactor: int, kind: str, times: list[float]
    ) -> dict[float, tuple[int, SampleRecord]]:
        """Newest revision by time."""
        table = schema.sample
        query = (
            sa.select(table)
            .where(table.c.reactor_id == reactor, table.c.kind == kind, table.c.time_h.in_(times))
            .order_by(table.c.revision)
        )
        found = connection.execute(query).mappings().all()
        newest = {row["time_h"]: row for row in found}
        records = self._as_records(connection, [*newest.values()])
        return {
            time_h: (row["revision"], record)
            for (time_h, row), record in zip(newest.items(), records, strict=True)
        }

    def _as_records(
        self, connection: sa.Connection, rows: Sequence[Mapping[Any, Any]]
    ) -> list[SampleRecord]:
        """Records of rows of the table `sample`."""
        now = self._now()
        return [
            from_row(row, reactor_id=self.reactor_name, read_at=now, words=self.words)
            for row in with_readings(connection, rows, self.words)
        ]

    def _fate(
        self,
        record: SampleRecord,
        known: dict[float, tuple[int, SampleRecord]],
        is_correction: bool,
        reason: str | None,
    ) -> tuple[Stored, dict[str, Any] | None]:
        """What becomes of a record, and the row to insert if there is one."""
        if record.time_h not in known:
            known[record.time_h] = (1, record)
            return Stored.NEW, {**to_row(record, self.words), "revision": 1, "reason": reason}
        revision, old = known[record.time_h]
        merged = merge(old, record)
        if merged.differing and not is_correction:
            raise DataError(
                f"another sample of {self.reactor_name} is stored for {record.time_h:g} h (day "
                f"{old.day}): {'; '.join(merged.differing)}. If the new one is right, store it as "
                "a correction (--correct); if it is of another run, it needs an experiment of its "
                "own (--experiment)."
            )
        if not merged.differing and not merged.filled:
            return Stored.DUPLICATE, None
        known[record.time_h] = (revision + 1, merged.record)
        why = reason or (
            f"filled in: {', '.join(merged.filled)}"
            if merged.filled and not merged.differing
            else "; ".join(merged.differing)
        )
        return Stored.CORRECTED, {
            **to_row(merged.record, self.words),
            "revision": revision + 1,
            "reason": why,
        }
