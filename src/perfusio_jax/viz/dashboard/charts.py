"""Small charts as SVG text, drawn from numbers alone; the page's style sheet colours them.

Nothing here is fetched or run by the browser, colours follow light and dark, and a chart takes
half a millisecond, which a plotting library does not allow for two hundred of them.
"""

import html
import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from perfusio_jax._core.text import cut, shown, shown_unit

from ..clock import Clock, clock_of
from ..runs import Band, RunView

_WIDTH, _HEIGHT = 340.0, 168.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 40.0, 8.0, 8.0, 22.0
_SPARK: Final = (150.0, 62.0)
_STEPS: Final = (1.0, 2.0, 2.5, 5.0, 10.0)
_TICKS: Final = 4
_DAY_STEPS: Final = (1, 2, 4, 7, 14, 28, 56)
_HOUR_STEPS: Final = (1, 2, 3, 6, 12, 24, 48)


class Frame(NamedTuple):
    """Where numbers lie on a drawing."""

    left: float
    top: float
    width: float
    height: float
    first: float
    """Lowest of the horizontal axis."""
    last: float
    """Highest of it."""
    low: float
    """Lowest of the vertical axis."""
    high: float
    """Highest of it."""

    def x(self, value: Any) -> np.ndarray:
        """Horizontal places of numbers."""
        span = max(self.last - self.first, 1e-12)
        return self.left + (np.asarray(value, float) - self.first) / span * self.width

    def y(self, value: Any) -> np.ndarray:
        """Vertical places of numbers; those far beyond the frame stay near it."""
        span = max(self.high - self.low, 1e-300)
        share = np.clip((np.asarray(value, float) - self.low) / span, -2.0, 3.0)
        return self.top + (1.0 - share) * self.height


def reading_chart(run: RunView, name: str, unit: str, *, other: Band | None = None) -> str:
    """Readings of one quantity with forecasts, target and limits.

    Args:
        run: The run.
        name: Quantity.
        unit: Its unit.
        other: Another forecast, of which the median and the ends are drawn as lines.

    Returns:
        An `<svg>`; it says in words what it shows.
    """
    clock = run_clock(run)
    hours, values = np.asarray(run.hours, float), _of(run, name)
    band = run.bands.get(name)
    marks = [v for v in (run.targets.get(name), *run.limits.get(name, ())) if v is not None]
    parts = [values, *([] if band is None else [band.q10, band.q90]), marks]
    parts += [] if other is None else [other.q10, other.q90]
    near = values if other is None else ()
    frame = _frame(clock, *_span(parts, near=near), pad=0.02)
    inside = [_grid(frame, clock), *_lines(run, name, frame)]
    if band is not None:
        inside.append(_band(frame, clock, band))
    if other is not None:
        x = frame.x(clock.of(other.hours))
        for kind, line in (("ends", other.q10), ("ends", other.q90), ("other", other.middle)):
            inside.append(
                f'<path class="{kind}" d="{_path(x, frame.y(np.asarray(line, float)))}"/>'
            )
    if hours.size:
        inside.append(_upright(frame, float(clock.of(hours[-1])), "now"))
    inside += [_thread(frame, clock.of(hours), values), _dots(frame, clock.of(hours), values)]
    if not np.isfinite(values).any() and band is None:
        inside.append(_words(frame, "no reading yet"))
    return _svg(_WIDTH, _HEIGHT, "".join(inside), _told(run, name, unit, clock))


def control_chart(run: RunView, name: str, unit: str) -> str:
    """Set-points of one control, each in force until the next.

    Args:
        run: The run.
        name: Control.
        unit: Its unit.
    """
    clock = run_clock(run)
    hours, values = np.asarray(run.hours, float), np.asarray(run.set_points[name], float)
    height = 0.62 * _HEIGHT
    frame = _frame(clock, *_span([values]), pad=0.02, height=height)
    known = values[np.isfinite(values)]
    last = f"last {known[-1]:.4g} {shown_unit(unit)}".strip() if known.size else "none known"
    told = f"Set-point of {_name(name)}: {last}."
    drawn = _stairs(frame, clock.of(hours), values)
    return _svg(_WIDTH, height, _grid(frame, clock) + drawn, told)


def spark(run: RunView, name: str, unit: str) -> str:
    """The same as a small picture without axes.

    Args:
        run: The run.
        name: Quantity.
        unit: Its unit.
    """
    width, height = _SPARK
    clock = run_clock(run)
    hours, values = np.asarray(run.hours, float), _of(run, name)
    band, target = run.bands.get(name), run.targets.get(name)
    parts = [values, *([] if band is None else [band.q10, band.q90]),
             [] if target is None else [target]]  # fmt: skip
    low, high = _span(parts, near=values)
    frame = Frame(3.0, 4.0, width - 6.0, height - 8.0, clock.first, clock.last, low, high)
    inside = "" if target is None else _flat(frame, target, "target")
    if band is not None:
        inside += _band(frame, clock, band)
    inside += _thread(frame, clock.of(hours), values) + _dots(frame, clock.of(hours), values)
    return _svg(width, height, inside, _told(run, name, unit, clock), kind="spark")


def run_clock(run: RunView) -> Clock:
    """The time axis all charts of a run share."""
    return clock_of(run.hours, *(band.hours for band in run.bands.values()))


def last_reading(run: RunView, name: str) -> tuple[float, float] | None:
    """Time [h] and value of the last reading of a quantity; None before the first."""
    values = _of(run, name)
    at = np.flatnonzero(np.isfinite(values))
    if not at.size:
        return None
    return float(np.asarray(run.hours, float)[at[-1]]), float(values[at[-1]])


def _of(run: RunView, name: str) -> np.ndarray:
    found = run.readings.get(name)
    return np.full(np.size(run.hours), np.nan) if found is None else np.asarray(found, float)


def _span(parts: Sequence[Any], *, near: Any = ()) -> tuple[float, float]:
    """Lowest and highest of the numbers, with room; from zero where that is near.

    Args:
        parts: What is drawn.
        near: Readings: a band or limit far beyond ten times their span does not hide them.
    """
    every = np.concatenate([np.ravel(np.asarray(p, float)) for p in parts] + [np.zeros(0)])
    every = every[np.isfinite(every)]
    if not every.size:
        return 0.0, 1.0
    seen = np.asarray(near, float)
    seen = seen[np.isfinite(seen)]
    if seen.size:
        width = max(float(np.ptp(seen)), 0.2 * abs(float(seen[-1])), 1e-12)
        every = np.clip(every, seen.min() - 4.0 * width, seen.max() + 4.0 * width)
    low, high = float(every.min()), float(every.max())
    if 0.0 <= low < 0.6 * high:
        low = 0.0
    room = 0.07 * (high - low) or 0.05 * abs(high) or 1.0
    return (low if low == 0.0 else low - room), high + room


def _frame(clock: Clock, low: float, high: float, *, pad: float, height: float = _HEIGHT) -> Frame:
    room = pad * (clock.last - clock.first)
    return Frame(
        _LEFT,
        _TOP,
        _WIDTH - _LEFT - _RIGHT,
        height - _TOP - _BOTTOM,
        clock.first - room,
        clock.last + room,
        low,
        high,
    )


def ticks(low: float, high: float, most: int = _TICKS) -> list[float]:
    """Round numbers between two, at most `most` and one more.

    Args:
        low: Lower end.
        high: Upper end.
        most: About how many.
    """
    span = high - low
    if not (math.isfinite(span) and span > 0.0):
        return [low] if math.isfinite(low) else []
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next((s * power for s in _STEPS if span / (s * power) <= most), 10.0 * power)
    begin = math.ceil(low / step - 1e-9)
    return [round(step * n, 12) for n in range(begin, math.floor(high / step + 1e-9) + 1)]


def _grid(frame: Frame, clock: Clock) -> str:
    parts = []
    right, bottom = frame.left + frame.width, frame.top + frame.height
    for value in ticks(frame.low, frame.high, 3 if frame.height < 0.5 * _HEIGHT else _TICKS):
        y = float(frame.y(value))
        parts.append(f'<path class="g" d="M{frame.left:.1f} {y:.1f}H{right:.1f}"/>')
        parts.append(
            f'<text class="t" x="{frame.left - 5:.1f}" y="{y + 3.6:.1f}" '
            f'text-anchor="end">{_short(value)}</text>'
        )
    steps = _DAY_STEPS if clock.unit == "d" else _HOUR_STEPS
    span = clock.last - clock.first
    step = next((s for s in steps if span / s <= 8), 10.0 ** math.ceil(math.log10(span / 8)))
    value = step * math.ceil(clock.first / step - 1e-9)
    while value <= clock.last + 1e-9:
        x = float(frame.x(value))
        parts.append(f'<path class="g" d="M{x:.1f} {bottom:.1f}v3"/>')
        is_last = value + step > clock.last + 1e-9
        unit = f" {clock.unit}" if is_last else ""
        anchor = "end" if is_last and x > right - 12 else "middle"
        place = min(x + 8, right) if anchor == "end" else x
        parts.append(
            f'<text class="t" x="{place:.1f}" y="{bottom + 15:.1f}" '
            f'text-anchor="{anchor}">{_short(value)}{unit}</text>'
        )
        value += step
    return "".join(parts)


def _short(value: float) -> str:
    return f"{value:.6g}" if abs(value) < 1e5 else f"{value:.0e}".replace("e+0", "e")


def _band(frame: Frame, clock: Clock, band: Band) -> str:
    """Interval and median of a forecast, where both ends are known."""
    hours = clock.of(band.hours)
    low, high = np.asarray(band.q10, float), np.asarray(band.q90, float)
    known = np.isfinite(low) & np.isfinite(high)
    if not known.any():
        return ""
    x = frame.x(hours[known])
    top, bottom = frame.y(high[known]), frame.y(low[known])
    if x.size == 1:  # one forecast alone is an upright line
        path = f"M{x[0]:.1f} {top[0]:.1f}V{bottom[0]:.1f}"
        drawn = f'<path class="bandline" d="{path}"/>'
    else:
        there = _points(x, top)
        back = _points(x[::-1], bottom[::-1])
        drawn = f'<polygon class="band" points="{there} {back}"/>'
    if band.middle is not None:
        middle = np.asarray(band.middle, float)
        drawn += f'<path class="mid" d="{_path(frame.x(hours), frame.y(middle))}"/>'
    return drawn


def _points(x: np.ndarray, y: np.ndarray) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))


def _path(x: np.ndarray, y: np.ndarray) -> str:
    """A line through points; a gap where one is missing."""
    parts, pen = [], "M"
    for a, b in zip(x, y, strict=True):
        if math.isfinite(a) and math.isfinite(b):
            parts.append(f"{pen}{a:.1f} {b:.1f}")
            pen = "L"
        else:
            pen = "M"
    return "".join(parts)


def _thread(frame: Frame, times: np.ndarray, values: np.ndarray) -> str:
    return f'<path class="thread" d="{_path(frame.x(times), frame.y(values))}"/>'


def _dots(frame: Frame, times: np.ndarray, values: np.ndarray) -> str:
    """All readings as one path: round ends of lines without length."""
    known = np.isfinite(values)
    places = zip(frame.x(times[known]), frame.y(values[known]), strict=True)
    return f'<path class="dot" d="{"".join(f"M{a:.1f} {b:.1f}h0" for a, b in places)}"/>'


def _stairs(frame: Frame, times: np.ndarray, values: np.ndarray) -> str:
    parts, pen = [], "M"
    for a, b in zip(frame.x(times), frame.y(values), strict=True):
        if not math.isfinite(b):
            pen = "M"
        elif pen == "M":
            parts.append(f"M{a:.1f} {b:.1f}")
            pen = "H"
        else:
            parts.append(f"H{a:.1f}V{b:.1f}")
    if pen == "H":  # in force until somebody changes it
        parts.append(f"H{frame.left + frame.width:.1f}")
    return f'<path class="step" d="{"".join(parts)}"/>'


def _lines(run: RunView, name: str, frame: Frame) -> list[str]:
    drawn = [_flat(frame, v, "limit") for v in run.limits.get(name, ()) if v is not None]
    if name in run.targets:
        drawn.append(_flat(frame, run.targets[name], "target"))
    return drawn


def _flat(frame: Frame, value: float, kind: str) -> str:
    y = float(frame.y(value))
    if not frame.top - 1 <= y <= frame.top + frame.height + 1:
        return ""
    return f'<path class="{kind}" d="M{frame.left:.1f} {y:.1f}H{frame.left + frame.width:.1f}"/>'


def _upright(frame: Frame, value: float, kind: str) -> str:
    x = float(frame.x(value))
    return f'<path class="{kind}" d="M{x:.1f} {frame.top:.1f}v{frame.height:.1f}"/>'


def _words(frame: Frame, text: str) -> str:
    x, y = frame.left + 0.5 * frame.width, frame.top + 0.5 * frame.height
    return f'<text class="t" x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{text}</text>'


def _told(run: RunView, name: str, unit: str, clock: Clock) -> str:
    """What a chart shows, in words."""
    values = _of(run, name)
    n = int(np.isfinite(values).sum())
    found = last_reading(run, name)
    parts = [f"{_name(name)}: {n} reading{'' if n == 1 else 's'}"]
    if found is not None:
        at = float(clock.of(found[0]))
        parts.append(
            f"the last {found[1]:.4g} {shown_unit(unit)}".strip() + f" at {at:.4g} {clock.unit}"
        )
    band = run.bands.get(name)
    if band is not None and np.size(band.hours):
        low, high = (float(np.asarray(v, float)[-1]) for v in (band.q10, band.q90))
        end = float(clock.of(np.asarray(band.hours, float)[-1]))
        parts.append(
            f"forecast at {end:.4g} {clock.unit} between {low:.4g} and {high:.4g} with 80 %"
        )
    if name in run.targets:
        parts.append(f"target {run.targets[name]:.4g}")
    for word, limit in zip(("not below", "not above"), run.limits.get(name, ()), strict=False):
        if limit is not None:
            parts.append(f"{word} {limit:.4g}")
    return "; ".join(parts) + "."


def _name(name: str) -> str:
    return cut(shown(name), 60)


def _svg(width: float, height: float, inside: str, told: str, *, kind: str = "chart") -> str:
    label = html.escape(shown(told), quote=True)
    return (
        f'<svg class="{kind}" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'aria-label="{label}">{inside}</svg>'
    )
