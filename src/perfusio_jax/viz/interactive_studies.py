"""Figures of studies to turn and point at, of the data that `studies` draws."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from perfusio_jax._core import HOURS_PER_DAY, DataError

from .interactive import _laid_out, _plotly, _written
from .studies import Bars, Followed, ranked, strongest_rows
from .theme import PALETTE


def tornado(bars: Bars, *, title: str = "What moves the run") -> Any:
    """A bar for each lever of one output; see `studies.tornado_figure`.

    Raises:
        ConfigError: If Plotly is not installed.
        DataError: If nothing moves the output.
    """
    go = _plotly()
    names, values, halves = ranked(bars)
    colours = [PALETTE["twin"] if v > 0.0 else PALETTE["target"] for v in values]
    figure = go.Figure(
        go.Bar(
            x=values[::-1],
            y=[_written(name) for name in names[::-1]],
            orientation="h",
            marker={"color": colours[::-1]},
            error_x={"type": "data", "array": np.nan_to_num(halves[::-1]), "thickness": 1.2}
            if np.any(np.isfinite(halves))
            else None,
            hovertemplate="%{y}: %{x:.4g}<extra></extra>",
        )
    )
    text = f"{bars.output}, strongest first: {', '.join(names[:3])}."
    laid = _laid_out(figure, f"{title}: {bars.output}", bars.measure, "", text)
    return laid.update_layout(height=220 + 24 * len(names), margin={"l": 190})


def lever_map(
    values: Any,
    names: Sequence[str],
    hours: Any,
    *,
    measure: str,
    title: str = "What moves the run, and when",
) -> Any:
    """A heat map of levers by time; see `studies.lever_map_figure`.

    Raises:
        ConfigError: If Plotly is not installed.
        DataError: If shapes do not fit, or nothing moves anything.
    """
    go = _plotly()
    times = np.asarray(hours, float)
    kept = strongest_rows(values, names, times.size)
    table = np.asarray(values, float)[kept]
    largest = float(np.nanmax(np.abs(table)))
    is_signed = bool(np.nanmin(table) < 0.0)
    in_days = times[-1] >= 3.0 * HOURS_PER_DAY
    scale = [[0.0, PALETTE["target"]], [0.5, "#ffffff"], [1.0, PALETTE["twin"]]]
    figure = go.Figure(
        go.Heatmap(
            z=table,
            x=times / HOURS_PER_DAY if in_days else times,
            y=[_written(names[k]) for k in kept],
            colorscale=scale if is_signed else "Cividis",
            zmin=-largest if is_signed else 0.0,
            zmax=largest,
            colorbar={"title": {"text": _written(measure)}},
            hovertemplate="%{y} at %{x:.4g}: %{z:.4g}<extra></extra>",
        )
    )
    axis = "Culture day [d]" if in_days else "Time [h]"
    text = f"{len(kept)} levers at {times.size} times, the strongest on top: {names[kept[0]]}."
    laid = _laid_out(figure, title, axis, "", text)
    laid.update_yaxes(autorange="reversed")
    return laid.update_layout(height=220 + 24 * len(kept), margin={"l": 190})


def profiles(
    followed: Sequence[Followed],
    *,
    threshold: float = 3.841,
    title: str = "How well runs bound the constants",
) -> Any:
    """Profiles over one axis, each from its own best value; see `studies.profiles_figure`.

    Raises:
        ConfigError: If Plotly is not installed.
        DataError: If there is none.
    """
    if not followed:
        raise DataError("No constant was followed; there is no profile to draw.")
    go = _plotly()
    figure = go.Figure()
    for one in followed:
        x, y = np.asarray(one.at, float), np.asarray(one.rise, float)
        best = float(x[int(np.nanargmin(y))]) or 1.0
        figure.add_trace(
            go.Scatter(
                x=x / best,
                y=y,
                mode="lines+markers",
                name=_written(one.name),
                customdata=x,
                hovertemplate=f"{_written(one.name)} %{{customdata:.4g}} {_written(one.unit)}"
                "<br>rise: %{y:.3g}<extra></extra>",
            )
        )
    figure.add_hline(threshold, line={"color": PALETTE["target"], "dash": "dash", "width": 1.4})
    text = f"Profiles of {', '.join(one.name for one in followed)}; the dashed line bounds 95 %."
    laid = _laid_out(figure, title, "constant / its best value [-]", "rise of the loss [-]", text)
    return laid.update_yaxes(range=[0.0, 2.2 * threshold])


def schedule(
    hours: Any,
    controls: Mapping[str, Any],
    readings: Mapping[str, Any],
    units: Mapping[str, str],
    *,
    title: str = "Schedule",
) -> Any:
    """Set-points and readings of a run, each a line that can be switched on.

    Args:
        hours: Starts of the intervals and the end (T+1,) [h].
        controls: Set-points by interval (T,), by name.
        readings: Columns at the samples (T+1,), by name.
        units: Unit of each.
        title: Heading.

    Raises:
        ConfigError: If Plotly is not installed.
        DataError: If there is nothing to draw.
    """
    if not controls and not readings:
        raise DataError("There is no set-point and no reading to draw.")
    go = _plotly()
    times = np.asarray(hours, float)
    in_days = times[-1] >= 3.0 * HOURS_PER_DAY
    x = times / HOURS_PER_DAY if in_days else times
    figure = go.Figure()
    for k, (name, values) in enumerate([*controls.items(), *readings.items()]):
        is_control = name in controls
        y = np.asarray(values, float)
        y = np.append(y, y[-1]) if is_control else y
        unit = units.get(name, "")
        figure.add_trace(
            go.Scatter(
                x=x,
                y=y,
                mode="lines",
                name=_written(f"{name} [{unit}]" if unit else name),
                line={
                    "shape": "hv" if is_control else "linear",
                    "dash": "dash" if is_control else "solid",
                },
                visible=True if k < 2 else "legendonly",
                hovertemplate="%{x:.4g}: %{y:.4g}<extra></extra>",
            )
        )
    axis = "Culture day [d]" if in_days else "Time [h]"
    text = f"Set-points {', '.join(controls)} and readings {', '.join(readings)}."
    return _laid_out(figure, title, axis, "value in its unit", text)
