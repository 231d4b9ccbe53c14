"""Source times of a sample's values: which values they let belong to it."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import replace
from typing import Final, NamedTuple

from perfusio_jax.connectors.base import Reading

MEANINGS: Final = ("measured", "changed", "read")
"""What a server may mean by a source time: when the value was measured, when it last changed,
or when the server read it from the device."""

_MOMENT_S: Final = 5.0
"""How far [s] from the server's clock a stamp may lie and still be the time of reading."""


class Judged(NamedTuple):
    """Readings that belong to a sample."""

    readings: dict[str, Reading]
    """By name; what is of another sample is missing."""
    remarks: list[str]
    sampled: dt.datetime | None
    """When the sample was taken, as far as anything tells."""


class Stamps:
    """Tells values of a sample from those of another one by their source times.

    Args:
        means: One of `MEANINGS`.
        slack_s: How far [s] a value's source time may lie from the sample's.
    """

    def __init__(self, means: str, slack_s: float) -> None:
        self.means, self.slack_s = means, slack_s
        self._moment_s = min(_MOMENT_S, 0.1 * slack_s)
        self._is_proven = False  # whether stamps have been seen to be those of a sample

    def judge(
        self, readings: Mapping[str, Reading], due: dt.datetime | None, clock: dt.datetime
    ) -> Judged:
        """Keep what belongs to the sample.

        A server that stamps with the time of reading shows the values of an older sample with
        stamps of this moment, all of them, and keeps doing so. Unless it is said to, or has been
        seen to stamp otherwise, such values are taken as uncertain.

        Args:
            readings: What may belong to it, by name.
            due: Source time of the node that says which day is shown; None if it has none.
            clock: What time it is for the server.
        """
        kept, remarks = dict(readings), []
        if due is None:
            return Judged(
                kept,
                ["sample_day has no time stamp: it cannot be told of when the values are"],
                None,
            )
        bare = [n for n, r in readings.items() if r.value is not None and r.source_time is None]
        if bare:
            remarks.append(f"{', '.join(bare)}: no time stamp, taken for this sample")
        off_s = {
            n: (r.source_time - due).total_seconds()
            for n, r in readings.items()
            if r.source_time is not None
        }
        outside = {n: s for n, s in off_s.items() if abs(s) > self.slack_s}
        if len(outside) < len(off_s) and not self._is_moment(due, clock):
            self._is_proven = True
        if self.means == "read":
            return self._as_read(kept, remarks, outside, due, clock)
        is_read = (
            self.means == "measured"
            and self._moment_s > 0.0
            and outside
            and not self._is_proven
            and all(s > self.slack_s for s in off_s.values())
            and all(self._is_moment(r.source_time, clock) for r in readings.values())
        )
        if is_read:
            remarks.append(
                f"{', '.join(outside)}: stamped with the time of reading, which does not say of "
                'when they are; taken for this sample as uncertain (stamp_means = "read" if '
                "this server always stamps so)"
            )
            for name in outside:
                if kept[name].quality == "good":
                    kept[name] = replace(kept[name], quality="uncertain", status="StampedAtRead")
            return Judged(kept, remarks, due)
        for name, seconds in outside.items():
            when = readings[name].source_time
            if self.means == "changed" and seconds < 0 and when is not None:
                since = when.astimezone(dt.UTC)
                remarks.append(
                    f"{name} is unchanged since {since:%Y-%m-%d %H:%M:%S} UTC, {-seconds:.0f} s "
                    "before the sample, by its stamp"
                )
            else:
                remarks.append(self._drop(kept, name, seconds))
        if self.means == "measured" and any(s < 0 for s in outside.values()):
            remarks.append('stamp_means = "changed" if this server stamps the last change')
        return Judged(kept, remarks, due)

    def _as_read(
        self,
        kept: dict[str, Reading],
        remarks: list[str],
        outside: Mapping[str, float],
        due: dt.datetime,
        clock: dt.datetime,
    ) -> Judged:
        newer = [n for n, s in outside.items() if s > 0]
        if newer:
            remarks.append(f"{', '.join(newer)}: by sample_day, as stamps are times of reading")
        for name, seconds in outside.items():
            if seconds < 0:
                remarks.append(self._drop(kept, name, seconds))
        if self._is_moment(due, clock):
            remarks.append("of when the sample is cannot be told, as stamps are times of reading")
            return Judged(kept, remarks, None)
        return Judged(kept, remarks, due)

    def _is_moment(self, when: dt.datetime | None, clock: dt.datetime) -> bool:
        return when is None or abs((clock - when).total_seconds()) <= self._moment_s

    def _drop(self, kept: dict[str, Reading], name: str, seconds: float) -> str:
        kept[name] = replace(kept[name], value=None, quality="missing", status="OtherSample")
        order = "older" if seconds < 0 else "newer"
        return f"{name} is {abs(seconds):.0f} s {order} than the sample"
