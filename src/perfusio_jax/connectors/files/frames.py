"""Pandas frames to trajectories and back, by the rules of `campaign_table.py`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import pandas as pd

from perfusio_jax.states import Trajectory, trajectories_of

from ..tables.totals import Totals
from ..tables.vocabulary import Vocabulary
from .campaign_table import runs_of, table_of
from .frame_report import FrameReport

if TYPE_CHECKING:
    from perfusio_jax.process import Process

VOLUME_L: Final = 0.25
"""Of a vessel nobody tells the volume of [L]."""


class Campaign(NamedTuple):
    """Runs and the report on the table they came from."""

    trajectories: list[Trajectory]
    """One per run, in order of first appearance."""
    report: FrameReport
    """What was understood, converted, assumed, reordered and left out."""


def campaign_to_frame(trajectories: Sequence[Trajectory]) -> pd.DataFrame:
    """Write runs as one campaign table, in canonical units.

    Species or controls that some runs lack become NaN there. Metadata is not part of the table.

    Args:
        trajectories: Runs with distinct `run_id`.

    Returns:
        The table; `frame.attrs["units"]` holds the unit of each numeric column.

    Raises:
        DataError: If two runs share an id or a column has a name outside the contract.
    """
    return table_of(trajectories)


def campaign_from_frame(
    frame: pd.DataFrame,
    *,
    units: Mapping[str, str] | None = None,
    unknown: Literal["error", "ignore"] = "error",
    volume_L: float | None = None,
    lines: Sequence[int] | None = None,
    totals: Totals | Mapping[str, str] | None = None,
    decimal: str | None = None,
    process: "Process | None" = None,
) -> Campaign:
    """Read the runs of a campaign table.

    Args:
        frame: The table; a header may carry its unit, as in `"Glc [mmol/L]"`.
        units: Unit per column; without it `frame.attrs["units"]`, then the canonical unit.
        unknown: What to do with a column outside the contract: refuse it, or leave it out
            and say so in the report.
        volume_L: Working volume [L] where the table has no such column; by default the process's,
            0.25 without one.
        lines: Line of the file each row came from, for messages.
        totals: What stream totals are, all of them or by name: "cumulative" for counters, which
            are differenced, "increments" for volumes since the sample before. By default
            `frame.attrs["totals"]`, else told apart: what looks like a counter is not used.
        decimal: "." or ",", of numbers that are text; found out if not given.
        process: The culture, where it is not the one our names are of; see `read_campaign`.

    Returns:
        Runs and report.

    Raises:
        DataError: If a column is unknown, duplicate or missing, a value is not a number,
            infinite or negative where it cannot be, or two rows of a run have one time.
        UnitError: If a unit cannot be read or does not fit its column.
    """
    if volume_L is None:
        volume_L = VOLUME_L if process is None else process.volume_L
    fields, report = runs_of(
        frame,
        units=units,
        unknown=unknown,
        volume_L=volume_L,
        lines=lines,
        totals=totals,
        decimal=decimal,
        words=Vocabulary.of(process),
    )
    return Campaign(trajectories_of(fields), report)
