"""Runs of a campaign against each other, as SVG text: what is expected of each, by goal."""

import html
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from perfusio_jax._core.text import cut, shown, shown_units

from .charts import Frame, ticks
from .views import Campaign

_WIDTH, _HEIGHT = 560.0, 330.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 62.0, 14.0, 14.0, 46.0
_TICKS: Final = 5


def front_chart(campaign: Campaign) -> str:
    """What is expected of the runs so far and of those proposed.

    Args:
        campaign: With one goal, runs stand beside each other; with several, the first two goals
            stand against each other, and a line joins what no other run beats.

    Returns:
        An `<svg>`; it says in words what it shows. Empty where nothing is known.
    """
    labels = list(campaign.goals)
    past = [run for run in campaign.runs if run.expected]
    if not labels or not (past or campaign.proposals):
        return ""
    if len(labels) == 1:
        return _beside(campaign, labels[0])
    first, second = labels[:2]
    old = np.array([[run.expected[first], run.expected[second]] for run in past]).reshape(-1, 2)
    new = np.array([[p.expected[first][0], p.expected[second][0]] for p in campaign.proposals])
    new = new.reshape(-1, 2)
    ends = [p.expected[label][1:] for label in (first, second) for p in campaign.proposals]
    half = len(campaign.proposals)
    x = np.concatenate([old[:, 0], new[:, 0], *map(np.asarray, ends[:half])])
    y = np.concatenate([old[:, 1], new[:, 1], *map(np.asarray, ends[half:])])
    frame = _frame(x, y)
    inside = [_axes(frame, first, second)]
    for p in campaign.proposals:
        (mx, lx, hx), (my, ly, hy) = p.expected[first], p.expected[second]
        inside.append(_line(frame, (lx, my), (hx, my), "bar"))
        inside.append(_line(frame, (mx, ly), (mx, hy), "bar"))
    every = np.concatenate([old, new])
    signs = np.array([campaign.goals[first], campaign.goals[second]])
    best = every[_unbeaten(every * signs)]
    best = best[np.argsort(best[:, 0], kind="stable")]
    inside.append(_joined(frame, best))
    inside += [_mark(frame, point, "past") for point in old]
    inside += [
        _mark(frame, point, "new", p.name) for point, p in zip(new, campaign.proposals, strict=True)
    ]
    told = (
        f"{_name(second)} against {_name(first)}: {len(old)} runs so far, {len(new)} proposed; "
        f"{len(best)} of them no other run beats."
    )
    return _svg("".join(inside), told)


def _beside(campaign: Campaign, label: str) -> str:
    """One goal: the runs so far in their order, the proposed ones behind them."""
    old = np.array([r.expected[label] for r in campaign.runs if r.expected], float)
    new = np.array([p.expected[label] for p in campaign.proposals], float).reshape(-1, 3)
    n = old.size + len(new)
    at = np.arange(1, n + 1, dtype=float)
    frame = _frame(np.array([0.4, n + 0.6]), np.concatenate([old, new.ravel()]), pads=(0.0, 0.08))
    inside = [_axes(frame, "", label)]
    if old.size and len(new):
        x = float(frame.x(old.size + 0.5))
        inside.append(f'<path class="now" d="M{x:.1f} {frame.top:.1f}v{frame.height:.1f}"/>')
    inside += [_mark(frame, (x, y), "past") for x, y in zip(at, old, strict=False)]
    for x, (middle, low, high), p in zip(at[old.size :], new, campaign.proposals, strict=True):
        inside.append(_line(frame, (x, low), (x, high), "bar"))
        inside.append(_mark(frame, (x, middle), "new"))
        if np.isfinite(high):  # above its bar, where neither that nor the next one lies on it
            inside.append(_strong(float(frame.x(x)), float(frame.y(high)) - 6, p.name, "middle"))
    words = (("runs so far", 0.5 * (1 + old.size)), ("proposed", old.size + 0.5 * (1 + len(new))))
    for word, place in words:
        if (word == "proposed" and not len(new)) or (word != "proposed" and not old.size):
            continue
        x, y = float(frame.x(place)), frame.top + frame.height + 18
        inside.append(f'<text class="t" x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{word}</text>')
    told = f"{_name(label)} of {old.size} runs so far and of {len(new)} proposed"
    if len(new):
        told += f", expected from {new[:, 0].min():.4g} to {new[:, 0].max():.4g}"
    return _svg("".join(inside), f"{told}.")


def _unbeaten(gains: np.ndarray) -> np.ndarray:
    """Which points no other one is better than in one goal and no worse in the other."""
    no_worse = (gains[:, None, :] >= gains[None, :, :]).all(axis=2)
    better = (gains[:, None, :] > gains[None, :, :]).any(axis=2)
    return np.logical_not((no_worse & better).any(axis=0))


def _frame(x: np.ndarray, y: np.ndarray, *, pads: tuple[float, float] = (0.07, 0.08)) -> Frame:
    spans = []
    for values, pad in zip((x, y), pads, strict=True):
        known = values[np.isfinite(values)]
        low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
        room = pad * (high - low) if high > low else max(0.05 * abs(high), 1e-9)
        spans.append((low - room, high + room))
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    return Frame(_LEFT, _TOP, width, height, *spans[0], *spans[1])


def _axes(frame: Frame, across: str, up: str) -> str:
    right, bottom = frame.left + frame.width, frame.top + frame.height
    parts = []
    for value in ticks(frame.low, frame.high, _TICKS):
        y = float(frame.y(value))
        parts.append(f'<path class="g" d="M{frame.left:.1f} {y:.1f}H{right:.1f}"/>')
        parts.append(_text(frame.left - 6, y + 3.8, f"{value:.6g}", "end"))
    for value in ticks(frame.first, frame.last, _TICKS) if across else ():
        x = float(frame.x(value))
        parts.append(f'<path class="g" d="M{x:.1f} {frame.top:.1f}V{bottom:.1f}"/>')
        parts.append(_text(x, bottom + 16, f"{value:.6g}", "middle"))
    if across:
        parts.append(_text(frame.left + 0.5 * frame.width, bottom + 36, _name(across), "middle"))
    x, y = 13.0, frame.top + 0.5 * frame.height
    turned = f'transform="rotate(-90 {x:.1f} {y:.1f})"'
    parts.append(
        f'<text class="t" x="{x:.1f}" y="{y:.1f}" text-anchor="middle" {turned}>'
        f"{html.escape(_name(up))}</text>"
    )
    return "".join(parts)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return (
        f'<text class="t" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>'
    )


def _line(frame: Frame, a: tuple[float, float], b: tuple[float, float], kind: str) -> str:
    (ax, ay), (bx, by) = ((float(frame.x(p[0])), float(frame.y(p[1]))) for p in (a, b))
    return f'<path class="{kind}" d="M{ax:.1f} {ay:.1f}L{bx:.1f} {by:.1f}"/>'


def _joined(frame: Frame, points: np.ndarray) -> str:
    if len(points) < 2:
        return ""
    places = zip(frame.x(points[:, 0]), frame.y(points[:, 1]), strict=True)
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    return f'<path class="best" d="M{path}"/>'


def _mark(frame: Frame, point: Sequence[float] | np.ndarray, kind: str, name: str = "") -> str:
    if not np.isfinite(np.asarray(point, float)).all():
        return ""
    x, y = float(frame.x(point[0])), float(frame.y(point[1]))
    drawn = (
        f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{5.5 if kind == "new" else 4.0}"/>'
    )
    if name:
        drawn += _strong(x + 9, y - 7, name, "start")
    return drawn


def _strong(x: float, y: float, text: str, anchor: str) -> str:
    return _text(x, y, text, anchor).replace('class="t"', 'class="t strong"')


def _name(text: str) -> str:
    return cut(shown(shown_units(text)), 60)


def _svg(inside: str, told: str) -> str:
    label = html.escape(told, quote=True)
    return (
        f'<svg class="chart front" viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" role="img" '
        f'aria-label="{label}">{inside}</svg>'
    )


def goals_of(campaign: Campaign) -> Mapping[str, str]:
    """What is wanted of each goal, in a word."""
    return {label: "more" if sign > 0 else "less" for label, sign in campaign.goals.items()}
