"""Which records of a log somebody vouches for: the journal, or a signature over a head. Pure.

The journal keeps two heads of the log: that of the last record that was acknowledged, and that
of the record begun after it, written before the record is. Both are signed where the log is. A
record is vouched for if one of these, or the signed head beside the log, fits the chain at that
record or a later one. What is beyond was written by somebody else.
"""

import dataclasses
from typing import Final

from perfusio_jax._core import AuditError

from .chain import GENESIS, Head, check_signature, records
from .keys import key_id
from .segments import Segments


@dataclasses.dataclass(frozen=True, slots=True)
class Known:
    """What the journal keeps of a log."""

    acknowledged: bytes
    """Head of the last record that was acknowledged, as bytes of `audit.head`."""
    begun: bytes
    """Head of the record begun last; the same where none is. One that begins a new segment is
    begun while the journal still holds what it knew before."""
    public_key: str | None = None
    """Key that signs the log; `None` if none does."""


@dataclasses.dataclass(frozen=True, slots=True)
class Trail:
    """The chain of a verified log, without the content of its records."""

    hashes: tuple[str, ...]
    """Hash after each record; first that before any."""
    signers: tuple[str | None, ...]
    """Key that signs the head after each record; first that before any."""

    @property
    def n_records(self) -> int:
        """How many records there are."""
        return len(self.hashes) - 1


@dataclasses.dataclass(frozen=True, slots=True)
class Standing:
    """How far a log is vouched for."""

    n_vouched: int
    """Records up to the last one somebody vouches for."""
    n_unvouched: int
    """Records after it."""
    evidence: bytes
    """The head that fits there."""
    trouble: str = ""
    """What the journal says against the log; empty where it says nothing."""
    n_known: int = 0
    """Records the journal knows of."""


NO_TRAIL: Final = Trail((GENESIS,), (None,))


def trail_of(log: bytes) -> Trail:
    """The chain of a log that has been verified; a torn tail is left out."""
    segments, hashes = Segments(), [GENESIS]
    for record in records(log):
        segments.add(record)
        hashes.append(record["hash"])
    return Trail(tuple(hashes), tuple(segments.signers))


def standing(trail: Trail, run_id: str, head: bytes, known: Known | None) -> Standing:
    """How far a verified log is vouched for.

    Args:
        trail: Its chain.
        run_id: The run it belongs to.
        head: Bytes of the head beside it, verified.
        known: What the journal keeps of it; `None`: the journal knows nothing, or there is none.

    Returns:
        The standing. Without a journal a signed log is vouched for up to its head, and one that
        is not signed up to its end, for nobody could say otherwise.
    """
    n = trail.n_records
    is_signed = trail.signers[n] is not None
    if known is None:
        upto = Head.from_bytes(head).count if is_signed else n
        return Standing(upto, n - upto, head)
    nothing = Head(run_id, 0, GENESIS, 0).to_bytes()
    seen = [raw for raw in (known.acknowledged, known.begun) if _fits(raw, trail, run_id)]
    signed = [head] if _fits(head, trail, run_id) and _is_signed_there(head, trail) else []
    evidence = max([nothing, *seen, *signed], key=lambda raw: Head.from_bytes(raw).count)
    upto = Head.from_bytes(evidence).count
    n_known, trouble = _against(known, trail, run_id)
    if evidence == known.begun and upto == n:
        trouble = ""  # the record begun last is there: what was wrong before it, it says itself
    if not trouble and upto < n:
        trouble = f"{_n(n - upto)} beyond record {upto}, of which the journal knows nothing"
    return Standing(upto, n - upto, evidence, trouble, n_known)


def _fits(raw: bytes, trail: Trail, run_id: str) -> bool:
    """Whether a head is one of this chain, signed by whom it has to be."""
    try:
        head = Head.from_bytes(raw)
        return (
            head.run_id == run_id
            and head.seq == head.count
            and 0 <= head.count <= trail.n_records
            and trail.hashes[head.count] == head.hash
            and check_signature(raw, trail.signers[head.count]) is None
        )
    except AuditError:
        return False


def _is_signed_there(raw: bytes, trail: Trail) -> bool:
    return trail.signers[Head.from_bytes(raw).count] is not None


def _against(known: Known, trail: Trail, run_id: str) -> tuple[int, str]:
    """How many records the journal knows of, and what it says against the log."""
    try:
        head = Head.from_bytes(known.acknowledged)
    except AuditError:
        return 0, "what the journal keeps of this log is not readable"
    n = trail.n_records
    if _fits(known.acknowledged, trail, run_id):
        return head.count, ""
    knows = f"the journal knows {_n(head.count)}"
    if known.public_key is not None:
        knows += f", signed by key {key_id(known.public_key)}"
    if head.run_id != run_id:
        return head.count, f"{knows}, of run {head.run_id!r}"
    if n < head.count:
        return head.count, f"{knows}; {n} stand here"
    if trail.hashes[head.count] != head.hash:
        signer = trail.signers[n]
        by = "nobody" if signer is None else f"key {key_id(signer)}"
        return head.count, f"{knows}; record {head.count} here is another one, signed by {by}"
    return head.count, "what the journal keeps of this log is not signed as the log is"


def _n(n: int) -> str:
    return f"{n} record" if n == 1 else f"{n} records"
