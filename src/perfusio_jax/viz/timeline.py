"""What happened in a run and when: samples, decisions, writes, alarms, people."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from perfusio_jax._core import HOURS_PER_DAY, DataError

from .clock import clock_of
from .runs import plain_name
from .theme import PALETTE, describe, new_figure, no_math, themed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS: Final[dict[str, tuple[str, str, str]]] = {
    "sample": ("sample", "o", PALETTE["ink"]),
    "missed": ("sample that did not come", "x", PALETTE["target"]),
    "decision": ("decision", "D", PALETTE["twin"]),
    "hold": ("decision to hold", "d", PALETTE["muted"]),
    "failed": ("no decision, or write refused", "X", PALETTE["target"]),
    "write": ("set-points written", "^", PALETTE["green"]),
    "person": ("command of a person", "P", PALETTE["purple"]),
    "model": ("model changed or kept", "s", PALETTE["orange"]),
    "trouble": ("trouble", "v", PALETTE["brown"]),
    "session": ("session begins or ends", "|", PALETTE["ink"]),
    "alarm": ("alarm, from raised to cleared", "o", PALETTE["target"]),
}
"""What marks mean, their shape and colour."""

_LANES: Final = (
    ("Samples", ("sample", "missed")),
    ("Decisions", ("decision", "hold", "failed")),
    ("Writes", ("write",)),
    ("People", ("person",)),
    ("Model", ("model",)),
    ("Sessions", ("session",)),
    ("Troubles", ("trouble",)),
)
_MOST_ALARMS: Final = 14


class Happening(NamedTuple):
    """One mark of a time line."""

    day: float
    """Culture day [d]."""
    kind: str
    """One of `KINDS`."""


class AlarmSpan(NamedTuple):
    """One alarm from its cause to its end."""

    name: str
    """What it is about."""
    first_day: float
    """When it was raised [d]."""
    last_day: float | None
    """When it was cleared [d]; None while it stands."""
    is_critical: bool
    """Whether it is critical, not a warning."""
    acknowledged_day: float | None = None
    """When somebody said to have seen it [d]."""


@themed
def timeline_figure(
    happenings: Sequence[Happening], alarms: Sequence[AlarmSpan] = (), *, title: str = "Time line"
) -> "Figure":
    """A lane for each kind of event, and one for each alarm.

    Args:
        happenings: Events, in any order; several of a kind on one day are counted.
        alarms: Alarms, oldest first; the last are drawn where there are many.
        title: Heading.

    Returns:
        The figure.

    Raises:
        DataError: If nothing happened.
    """
    if not happenings and not alarms:
        raise DataError("Nothing happened in this run; there is no time line to draw.")
    lanes = [lane for lane in _LANES if any(h.kind in lane[1] for h in happenings)]
    shown = list(alarms)[-_MOST_ALARMS:]
    days = [h.day for h in happenings]
    days += [d for a in alarms for d in (a.first_day, a.last_day) if d is not None]
    clock = clock_of(HOURS_PER_DAY * np.asarray(days))
    end = clock.last
    n = len(lanes) + len(shown)
    figure = new_figure(10.4, 1.5 + 0.32 * n, plain_name(title, 80))
    axes = figure.add_subplot()
    used = []
    for row, (_, kinds) in enumerate(lanes):
        for kind in kinds:
            at, counts = np.unique([h.day for h in happenings if h.kind == kind],
                                   return_counts=True)  # fmt: skip
            if not at.size:
                continue
            used.append(kind)
            _, marker, colour = KINDS[kind]
            x = clock.of(HOURS_PER_DAY * at)
            is_line = marker in "x|"
            edge: dict[str, Any] = {"mew": 1.8} if is_line else {"mec": "white", "mew": 0.5}
            axes.plot(x, np.full(x.size, row), ls="", marker=marker, ms=7, color=colour, zorder=3,
                      **edge)  # fmt: skip
            for place, count in zip(x, counts, strict=True):
                if count > 1:
                    axes.annotate(f"{count}", (place, row), xytext=(5, 3), fontsize=7,
                                  textcoords="offset points", color=PALETTE["muted"])  # fmt: skip
    for k, alarm in enumerate(shown):
        _draw_alarm(axes, len(lanes) + k, alarm, clock, end)
    left_out = len(alarms) - len(shown)
    names = [lane for lane, _ in lanes] + [no_math(plain_name(a.name, 34)) for a in shown]
    axes.set_yticks(range(n), names)
    axes.set_ylim(n - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    for row in range(0, n, 2):
        axes.axhspan(row - 0.5, row + 0.5, color=PALETTE["shade"], lw=0, zorder=0)
    clock.apply(axes)
    handles = _legend(used, shown)
    if handles:
        figure.legend(handles=handles, loc="outside lower left", ncols=min(len(handles), 5))
    more = f"; {left_out} earlier alarms are not drawn" if left_out else ""
    counted = ", ".join(
        f"{KINDS[kind][0]} {sum(h.kind == kind for h in happenings)} times" for kind in used
    )
    text = f"{plain_name(title, 80)}: {counted or 'no events'}; {len(alarms)} alarms{more}."
    return describe(figure, text, is_printed=False)


def _draw_alarm(axes: Any, row: int, alarm: AlarmSpan, clock: Any, end: float) -> None:
    colour = PALETTE["target"] if alarm.is_critical else PALETTE["orange"]
    first = float(clock.of(HOURS_PER_DAY * alarm.first_day))
    stands = alarm.last_day is None
    last = end if alarm.last_day is None else float(clock.of(HOURS_PER_DAY * alarm.last_day))
    axes.plot([first, last], [row, row], color=colour, lw=5.0, solid_capstyle="butt", zorder=2,
              alpha=0.8)  # fmt: skip
    axes.plot([first], [row], "o", color=colour, ms=6, zorder=3)
    if stands:
        axes.plot([last], [row], ">", color=colour, ms=7, zorder=3)
    if alarm.acknowledged_day is not None:
        seen = float(clock.of(HOURS_PER_DAY * alarm.acknowledged_day))
        axes.plot([seen], [row], "P", color=PALETTE["purple"], mec="white", mew=0.5, ms=7.5,
                  zorder=4)  # fmt: skip


def _legend(used: Sequence[str], alarms: Sequence[AlarmSpan]) -> list[Any]:
    from matplotlib.lines import Line2D

    handles = []
    for kind in used:
        text, marker, colour = KINDS[kind]
        handles.append(Line2D([], [], ls="", marker=marker, ms=6, color=colour, label=text))
    for is_critical, colour in ((False, PALETTE["orange"]), (True, PALETTE["target"])):
        if any(a.is_critical == is_critical for a in alarms):
            word = "critical alarm" if is_critical else "warning"
            handles.append(Line2D([], [], color=colour, lw=5.0, alpha=0.8, label=word))
    if any(a.last_day is None for a in alarms):
        handles.append(Line2D([], [], ls="", marker=">", ms=6, color=PALETTE["muted"],
                              label="stands"))  # fmt: skip
    if any(a.acknowledged_day is not None for a in alarms):
        handles.append(Line2D([], [], ls="", marker="P", ms=6, color=PALETTE["purple"],
                              label="acknowledged"))  # fmt: skip
    return handles
