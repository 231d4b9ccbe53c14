"""What a log says about itself: who signs from where on, and what nobody vouches for.

A log has segments. One ends where the program that went on with it could not vouch for what it
found; the record that begins the next one names that. Pure.
"""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, Final

SIGNED_BY: Final = "AUDIT_SIGNED_BY"
"""Event by which a log says whose key signs its heads from that record on."""

BREAK: Final = "AUDIT_BREAK"
"""Event by which a log says that what stands before it is not what was written."""

RECOVERED: Final = "AUDIT_HEAD_RECOVERED"
"""Event by which a log says that a crash left records beyond the head."""

NOT_IN_JOURNAL: Final = "AUDIT_NOT_IN_JOURNAL"
"""Event by which a log says that the journal beside it knew nothing of what stands before."""

_ANNOUNCING: Final = (SIGNED_BY, BREAK, RECOVERED)


def named_key(record: Mapping[str, Any]) -> str | None:
    """Public key a record announces, if it is one that does."""
    payload = record.get("payload")
    if record.get("event_type") not in _ANNOUNCING or not isinstance(payload, Mapping):
        return None
    named = payload.get("public_key")
    return named if isinstance(named, str) else None


@dataclasses.dataclass
class Segments:
    """The segments of a log, read record by record."""

    signers: list[str | None] = dataclasses.field(default_factory=lambda: [None])
    """Key that signs the head after each record; first that before any record."""
    kinds: list[str] = dataclasses.field(default_factory=lambda: [""])
    """Event of each record; none before the first."""
    breaks: dict[int, str] = dataclasses.field(default_factory=dict)
    """What each record that begins a segment says was found, by its number."""
    _unvouched: dict[int, int] = dataclasses.field(default_factory=dict)
    _announced: dict[int, str] = dataclasses.field(default_factory=dict)
    _unknown: dict[int, Any] = dataclasses.field(default_factory=dict)

    def add(self, record: Mapping[str, Any]) -> None:
        """Read the next record of a log."""
        seq = len(self.kinds)
        kind = record.get("event_type")
        key = named_key(record)
        self.kinds.append(kind if isinstance(kind, str) else "")
        self.signers.append(key or self.signers[-1])
        if key is not None:
            self._announced[seq] = key
        given = record.get("payload")
        payload = given if isinstance(given, Mapping) else {}
        if kind == BREAK:
            self.breaks[seq] = str(payload.get("found", "it does not say what was found"))
        if kind in (BREAK, RECOVERED):
            n = payload.get("unvouched", None if kind == BREAK else 0)
            whole = isinstance(n, int) and not isinstance(n, bool) and 0 <= n < seq
            self._unvouched[seq] = n if whole else seq - 1
        elif kind == NOT_IN_JOURNAL:
            self._unknown[seq] = payload.get("records")

    def unvouched_before(self, seq: int) -> tuple[int, int] | None:
        """First and last record that the one of this number says nobody vouches for."""
        n = self._unvouched.get(seq)
        return (seq - n, seq - 1) if n else None

    @property
    def unvouched(self) -> frozenset[int]:
        """Numbers of all records nobody vouches for."""
        return frozenset(
            k for seq, n in self._unvouched.items() for k in range(max(seq - n, 1), seq)
        )

    def before_key(self, trusted: Collection[str] | None) -> int | None:
        """How many records precede the first signature that counts.

        Args:
            trusted: Public keys of which one must sign; `None`: any.

        Returns:
            Their number; `None` where no such key signs.
        """
        doubtful = self.unvouched
        numbers = (
            seq
            for seq, key in self._announced.items()
            if seq not in doubtful and (trusted is None or key in trusted)
        )
        first = min(numbers, default=None)
        return None if first is None else first - 1

    def notes(self, trusted: Collection[str] | None) -> list[str]:
        """What a person should know about an intact log, one sentence each; breaks apart."""
        notes = []
        n = self.before_key(trusted)
        if n:
            whose = "the first signature" if trusted is None else "the first signature by that key"
            notes.append(f"{_counted(n)} {'precedes' if n == 1 else 'precede'} {whose}")
        for seq in self._unvouched:
            span = self.unvouched_before(seq)
            if span is not None and seq not in self.breaks:
                notes.append(
                    f"{_span(*span)} stood beyond the head when record {seq} was written, and "
                    "nothing tells a crash from a forgery: nobody vouches for it"
                )
        notes += [
            f"the journal knew nothing of the {_counted(n)} there {'was' if n == 1 else 'were'} "
            f"when record {seq} was written"
            for seq, n in self._unknown.items()
        ]
        return notes

    def broken(self, seq: int) -> str:
        """One sentence about a break."""
        span = self.unvouched_before(seq)
        whose = "nothing that is here" if span is None else f"{_span(*span)}"
        n = 0 if span is None else span[1] - span[0] + 1
        return (
            f"record {seq} begins a new segment: {self.breaks[seq]}; "
            f"nobody vouches for {whose} ({_counted(n)} unvouched)"
        )


def _counted(n: int) -> str:
    return f"{n} record" if n == 1 else f"{n} records"


def _span(first: int, last: int) -> str:
    return f"record {first}" if first == last else f"records {first} to {last}"
