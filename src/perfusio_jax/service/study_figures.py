"""Pictures of studies: still ones, and ones to point at, by the ending of the file."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from perfusio_jax.study import Experiment, Profile, Schedule
from perfusio_jax.viz import (
    Bound,
    Followed,
    lever_map_figure,
    profiles_figure,
    save_figure,
    schedule_figure,
    tornado_figure,
)
from perfusio_jax.viz.studies import Bars

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHOWN: Final = 6
"""Readings that are drawn under a schedule."""


class Drawing(NamedTuple):
    """One figure, drawn when it is asked for."""

    still: "Callable[[], Figure]"
    """With Matplotlib."""
    moving: Callable[[], Any]
    """With Plotly."""


def draw(drawing: Drawing, path: Path, console: Any) -> None:
    """Write a figure; `.html` is one to point at.

    Args:
        drawing: The figure.
        path: Where to.
        console: Where to say so.

    Raises:
        ConfigError: If Plotly is needed and not installed.
    """
    if path.suffix.lower() == ".html":
        from perfusio_jax.viz.interactive import save_html

        path.parent.mkdir(parents=True, exist_ok=True)
        save_html(drawing.moving(), path)
    else:
        save_figure(drawing.still(), path)
    console.print(f"figure: {path}", soft_wrap=True)


def tornado_of(panels: Sequence[Bars]) -> Drawing:
    """Bars of levers; one to point at shows the first output."""
    from perfusio_jax.viz import interactive_studies

    return Drawing(lambda: tornado_figure(panels), lambda: interactive_studies.tornado(panels[0]))


def map_of(
    values: np.ndarray, names: Sequence[str], hours: Any, measure: str, what: str
) -> Drawing:
    """Levers by time.

    Args:
        values: Numbers (P, T).
        names: Levers.
        hours: Times [h].
        measure: What the numbers are.
        what: The quantity that is moved.
    """
    from perfusio_jax.viz import interactive_studies

    asked: dict[str, Any] = {"measure": measure, "title": f"What moves {what}, and when"}
    return Drawing(
        lambda: lever_map_figure(values, names, hours, **asked),
        lambda: interactive_studies.lever_map(values, names, hours, **asked),
    )


def profiles_of(followed: Sequence[Profile], units: Mapping[str, str]) -> Drawing:
    """Profiles of constants."""
    from perfusio_jax.viz import interactive_studies

    found = [
        Followed(p.name, units.get(p.name, ""), p.at, p.rise, p.lower, p.upper) for p in followed
    ]
    return Drawing(lambda: profiles_figure(found), lambda: interactive_studies.profiles(found))


def schedule_of_run(found: Schedule, run: Experiment, boluses: Sequence[str]) -> Drawing:
    """A schedule, and what the mechanism expects of it.

    Args:
        found: The schedule.
        run: Any run of the plant, of the same samples.
        boluses: Controls that are given at the start of an interval.
    """
    from perfusio_jax.viz import interactive_studies

    one = run.of_run(run.start, np.asarray(found.controls), run.lengths_h, _volume(run))  # pyright: ignore[reportArgumentType]
    values = np.asarray(one.course().values)
    columns = list(run.columns)
    wanted = [columns[found.objective.column]]
    wanted += [columns[k.output.column] for k in found.kept]
    wanted += [name for name in columns if np.ptp(values[:, columns.index(name)]) > 0.0]
    shown = [*dict.fromkeys(wanted)][:_SHOWN]
    readings = {name: values[:, columns.index(name)] for name in shown}
    controls = {n: found.controls[:, found.names.index(n)] for n in found.moved}
    units = {**dict(zip(found.names, found.units, strict=True)), **{n: run.unit(n) for n in shown}}
    bounds = [
        Bound(
            columns[k.output.column],
            k.limit.bound,
            k.limit.sign > 0.0,
            None if len(k.limit.outputs) > 1 else float(run.hours[k.output.row]),
        )
        for k in found.kept
        if k.output.kind == "value"
    ]
    bounds += [
        Bound(columns[k.output.column], k.limit.bound, k.limit.sign > 0.0)
        for k in found.kept
        if k.output.kind in ("min", "max")
    ]
    title = f"Schedule for {found.objective.name}"
    return Drawing(
        lambda: schedule_figure(
            found.hours,
            controls,
            readings,
            units,
            bounds=bounds,
            boluses=[b for b in boluses if b in controls],
            title=title,
        ),
        lambda: interactive_studies.schedule(found.hours, controls, readings, units, title=title),
    )


def _volume(run: Experiment) -> Any:
    """What the first sample of a run left [L]."""
    taken = getattr(run, "sample_L", 0.0)
    return getattr(run, "volume_L", 1.0) - taken


def steps_of(
    hours: Any,
    controls: Mapping[str, Any],
    readings: Mapping[str, Any],
    units: Mapping[str, str],
    boluses: Sequence[str],
    title: str,
) -> Drawing:
    """Set-points of a run, and curves under them.

    Args:
        hours: Starts of the intervals and the end [h].
        controls: Set-points by interval, by name.
        readings: Values at the samples, by name.
        units: Unit of each.
        boluses: Controls that are given at the start of an interval.
        title: Heading.
    """
    from perfusio_jax.viz import interactive_studies

    given = [b for b in boluses if b in controls]
    return Drawing(
        lambda: schedule_figure(hours, controls, readings, units, boluses=given, title=title),
        lambda: interactive_studies.schedule(hours, controls, readings, units, title=title),
    )
