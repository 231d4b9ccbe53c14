"""A campaign table together with the culture it is of: told, built in, or read off the table."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from perfusio_jax._core import (
    AUXILIARY_TAGS,
    CONTROL_NAMES,
    DEFAULT_CONTROLS,
    REGISTRY,
    ConfigError,
    DataError,
)
from perfusio_jax._core.units import canonical_unit
from perfusio_jax.process import Process, read_process
from perfusio_jax.states import (
    Trajectory,
    complete_setpoints,
    intervals_text,
    sampling_intervals,
)

from ..tables.file_rules import FileRules
from ..tables.plain_text import cutting_up_once
from .campaign_files import check_campaign, read_campaign
from .describing import Described, describe_table
from .frame_report import FrameReport
from .frames import Campaign
from .parts import Tables

CHO: Final = "cho_perfusion"
"""The culture that has a mechanism of its own."""

FROM_TABLE: Final = "table"
"""The culture that is read off the table, whatever it looks like."""

_LACKING: Final[Mapping[str, tuple[float, str]]] = MappingProxyType(
    {
        "bleed_rate": (0.0, "nothing is bled"),
        "glucose_setpoint": (0.0, "no pump feeds glucose"),
        "pyruvate_feed": (0.0, "no pyruvate is fed"),
        "temperature": (DEFAULT_CONTROLS["temperature"], "it was the same in all runs"),
        "agitation": (DEFAULT_CONTROLS["agitation"], "it was the same in all runs"),
    }
)
"""What a table of CHO perfusion without a column of a control is taken to mean."""


class CultureTable(NamedTuple):
    """Runs, and what they are runs of."""

    trajectories: list[Trajectory]
    """Runs, as read."""
    report: FrameReport
    """What was understood of the table."""
    process: Process | None
    """The culture; None for CHO perfusion."""
    assumptions: tuple[str, ...]
    """What had to be assumed, one sentence each."""
    lacking: Mapping[str, float]
    """Values of controls of CHO perfusion that the table has no column of."""


def read_culture(
    path: Tables, which: str | None = None, rules: FileRules | None = None
) -> CultureTable:
    """Read a campaign table as one of a culture.

    Args:
        path: The table, several, or a folder of them.
        which: `cho_perfusion`, another built-in name, a file that ends in .toml, or `table` to
            read the culture off the table. By default a table with VCD and perfusion_rate whose
            columns are all known to CHO perfusion is of that, and any other is read off.
        rules: How the file is read.

    Returns:
        Runs and culture.

    Raises:
        ConfigError: If there is no such culture.
        DataError: If the table cannot be read as one of it.
    """
    with cutting_up_once():
        return _read_culture(path, which, rules or FileRules(), read_campaign)


def check_culture(path: Tables, rules: FileRules) -> Process | None:
    """Refuse what `read_culture` would refuse, by the same reading, without making runs.

    Args:
        path: The table, several, or a folder of them.
        rules: How the file is read.

    Returns:
        The culture; None for CHO perfusion.

    Raises:
        DataError: If the table cannot be read as one of a culture.
        UnitError: If a unit cannot be read or does not fit its column.
    """
    with cutting_up_once():
        return _read_culture(path, None, rules, check_campaign).process


def _read_culture(
    path: Tables, which: str | None, rules: FileRules, read: Callable[..., Campaign]
) -> CultureTable:
    unknown = "error" if rules.unknown == "refuse" else "ignore"
    if which is not None and which not in (CHO, FROM_TABLE):
        process = read_process(which)
        found = read(path, process=process, rules=rules, unknown=unknown)
        return CultureTable(found.trajectories, found.report, process, (), {})
    # where nothing can be read off a table, the strict reader says what is wrong with it
    described = _described(path, rules) if which is None else None
    if which is None and described is None and rules.unknown is None:
        unknown = "error"
    if which == CHO or (which is None and (described is None or _is_cho(described.process))):
        found = read(path, rules=rules, unknown=unknown)
        return CultureTable(found.trajectories, found.report, None, *_as_cho(found.trajectories))
    described = described or describe_table(path, rules=rules)
    found = read(path, process=described.process, unknown="ignore", rules=rules)
    return CultureTable(
        found.trajectories, found.report, described.process, described.assumptions, {}
    )


def completed(table: CultureTable, *, fill_down: bool, console: Any) -> list[Trajectory]:
    """Runs of a table with every set-point, everything that was assumed told.

    Args:
        table: As read.
        fill_down: Whether a blank set-point means that the one before it stayed.
        console: Where to print.
    """
    console.print(str(table.report), soft_wrap=True)
    for line in table.assumptions:
        console.print(f"assumed: {line}", soft_wrap=True)
    runs, told = complete_setpoints(
        table.trajectories,
        fill_down=fill_down,
        stated=table.lacking,
        source="",
        names=CONTROL_NAMES if table.process is None else table.process.control_names,
        once=() if table.process is None else table.process.boluses,
    )
    for line in told:
        console.print(line, soft_wrap=True)
    apart = intervals_text(sampling_intervals(runs))
    console.print(f"samples {apart}.", soft_wrap=True)
    return runs


def _described(path: Tables, rules: FileRules) -> Described | None:
    """The culture as the table tells it; None if it tells none."""
    try:
        return describe_table(path, rules=rules)
    except (DataError, ConfigError):
        return None


def _is_cho(process: Process) -> bool:
    """Whether a table says nothing that CHO perfusion does not know."""
    ours = {*REGISTRY, *CONTROL_NAMES, *AUXILIARY_TAGS}
    names = {q.name for q in process.quantities if q.is_measured} | set(process.control_names)
    return {"VCD", "perfusion_rate"} <= names and names <= ours


def _as_cho(runs: list[Trajectory]) -> tuple[tuple[str, ...], Mapping[str, float]]:
    """What a table of CHO perfusion without some controls is taken to mean."""
    lacking, lines = {}, []
    for name in CONTROL_NAMES:
        if name in _LACKING and not any(name in run.control_names for run in runs):
            lacking[name], meaning = _LACKING[name]
            unit = canonical_unit(name)
            lines.append(
                f"{name}: the table has no such column; {lacking[name]:g} {unit} is assumed, as if "
                f"{meaning}."
            )
    return tuple(lines), lacking
