"""Figures to turn, zoom and point at, made with Plotly (extra `dash`).

The functions take plain arrays and mappings as those of `static` do, share their colours and
units, and return a `plotly.graph_objects.Figure`. NaN leaves a gap. `save_html` writes one as a
page that asks nothing of the network.
"""

import html
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from perfusio_jax._core import HOURS_PER_DAY, ConfigError, DataError
from perfusio_jax._core.text import LONGEST_NAME, cut, shown
from perfusio_jax.process import Compared

from .golden import described
from .parts import NOT_FROM_ZERO, series_of
from .theme import PALETTE, SERIES, label

_DASHES: Final = ("solid", "dash", "dot", "dashdot")
"""Line styles in the order of those of `theme.DASHES`."""

_FONT: Final = "DejaVu Sans, Verdana, sans-serif"

_CONTOURS: Final = "Cividis"
"""A colour scale that the common colour vision deficiencies leave in order."""


def acquisition_surface(
    x1: Any,
    x2: Any,
    acq_values: Any,
    x1_label: str = "Perfusion rate (vvd)",
    x2_label: str = "Bleed rate (vvd)",
    title: str = "Acquisition function surface",
) -> Any:
    """Contours of an acquisition function over two set-points, its best point marked.

    Args:
        x1: Grid of the first set-point (n1,), rising.
        x2: Grid of the second set-point (n2,), rising.
        acq_values: Values (n1, n2); NaN where none is known.
        x1_label: Name and unit of the first.
        x2_label: Name and unit of the second.
        title: Heading.

    Returns:
        The figure.

    Raises:
        ConfigError: If Plotly is not installed.
        DataError: If shapes do not fit, or no value is a number.
    """
    go = _plotly()
    first, second = (np.asarray(x, float).ravel() for x in (x1, x2))
    values = np.asarray(acq_values, float)
    if values.shape != (len(first), len(second)):
        raise DataError(
            f"acq_values of shape {values.shape} were given; grids of {len(first)} and "
            f"{len(second)} need ({len(first)}, {len(second)}): a row for each value of x1."
        )
    if not np.isfinite(values).any():
        raise DataError("acq_values holds no number; there is no surface to draw.")
    names = _written(x1_label), _written(x2_label)
    figure = go.Figure(
        go.Contour(
            x=first,
            y=second,
            z=values.T,  # Plotly's rows are y
            colorscale=_CONTOURS,
            colorbar={"title": {"text": "acquisition [-]"}},
            hovertemplate=f"{names[0]}: %{{x:.4g}}<br>{names[1]}: %{{y:.4g}}<br>"
            "acquisition: %{z:.4g}<extra></extra>",
        )
    )
    best = np.unravel_index(int(np.nanargmax(values)), values.shape)
    at = float(first[best[0]]), float(second[best[1]])
    figure.add_trace(
        go.Scatter(
            x=[at[0]],
            y=[at[1]],
            mode="markers",
            name="highest value",
            marker={"symbol": "star", "size": 15, "color": PALETTE["target"],
                    "line": {"color": "white", "width": 1}},
        )
    )  # fmt: skip
    text = (
        f"{title}: contours over {x1_label} and {x2_label}; the highest value, "
        f"{np.nanmax(values):.3g}, is at {at[0]:.3g} and {at[1]:.3g}."
    )
    return _laid_out(figure, title, x1_label, x2_label, text)


def forecast_figure(
    days: Any,
    mean: Any,
    q10: Any,
    q90: Any,
    observed_days: Any | None = None,
    observed_values: Any | None = None,
    species: str = "VCD",
    title: str = "3-step forecast",
) -> Any:
    """A forecast with its 80 % interval, and what was measured.

    Args:
        days: Culture days of the forecast (H,) [d].
        mean: Predicted means (H,) in the species' unit.
        q10: 10 % quantiles (H,).
        q90: 90 % quantiles (H,).
        observed_days: Culture days of readings (N,) [d]; none by default.
        observed_values: The readings (N,); NaN where missing.
        species: What is forecast; names of CHO perfusion get their unit.
        title: Heading.

    Returns:
        The figure.

    Raises:
        ConfigError: If Plotly is not installed.
        DataError: If lengths differ, or days are given without readings or the reverse.
    """
    go = _plotly()
    time, middle, low, high = (np.asarray(a, float).ravel() for a in (days, mean, q10, q90))
    lengths = {len(a) for a in (time, middle, low, high)}
    if len(lengths) != 1 or not len(time):
        told = ", ".join(str(len(a)) for a in (time, middle, low, high))
        raise DataError(f"days, mean, q10 and q90 are of one length, at least 1; given {told}.")
    if (observed_days is None) != (observed_values is None):
        raise DataError("observed_days and observed_values belong together: give both, or none.")
    figure = go.Figure()
    number = "%{x:.4g} d: %{y:.4g}<extra></extra>"
    edge = {"mode": "lines", "line": {"width": 0}, "hovertemplate": "%{y:.4g}<extra></extra>"}
    figure.add_trace(go.Scatter(x=time, y=high, showlegend=False, **edge))
    figure.add_trace(
        go.Scatter(
            x=time, y=low, fill="tonexty", fillcolor=_faint(PALETTE["band"], 0.32),
            name="80 % interval", **edge,
        )
    )  # fmt: skip
    figure.add_trace(
        go.Scatter(
            x=time, y=middle, name="mean", hovertemplate=number,
            mode="lines+markers" if len(time) == 1 else "lines",
            line={"color": PALETTE["twin"], "width": 2.5},
        )
    )  # fmt: skip
    n_seen = 0
    if observed_days is not None:
        when, seen = (np.asarray(a, float).ravel() for a in (observed_days, observed_values))
        if len(when) != len(seen):
            raise DataError(f"{len(when)} observed_days and {len(seen)} observed_values.")
        n_seen = int(np.isfinite(seen).sum())
        figure.add_trace(
            go.Scatter(
                x=when, y=seen, mode="markers", name="measured", hovertemplate=number,
                marker={"color": PALETTE["ink"], "size": 7, "line": {"color": "white", "width": 1}},
            )
        )  # fmt: skip
    text = (
        f"{title}: mean and 80 % interval of {label(species)} over culture days {time[0]:g} to "
        f"{time[-1]:g}, with {n_seen} readings."
    )
    return _laid_out(
        figure, title, "Culture day [d]", label(species), text,
        is_from_zero=species not in NOT_FROM_ZERO,
    )  # fmt: skip


def pareto_scatter(
    titer: Any,
    vcv: Any,
    is_pareto: Any | None = None,
    hover_text: Sequence[str] | None = None,
    title: str = "Pareto front Titer vs. VCV",
) -> Any:
    """Titer against viable cell volume, points on the front told apart.

    Args:
        titer: Titer (N,) [mg/L].
        vcv: Viable cell volume (N,) [%].
        is_pareto: Which points lie on the front (N,); none by default.
        hover_text: A text per point, shown where one points at it; markup is shown as it stands.
        title: Heading.

    Returns:
        The figure.

    Raises:
        ConfigError: If Plotly is not installed.
        DataError: If lengths differ.
    """
    go = _plotly()
    y, x = (np.asarray(a, float).ravel() for a in (titer, vcv))
    on_front = np.zeros(len(y), bool) if is_pareto is None else np.asarray(is_pareto, bool).ravel()
    told = [""] * len(y) if hover_text is None else [_written(t) for t in hover_text]
    if not len(y) == len(x) == len(on_front) == len(told):
        raise DataError(
            f"{len(y)} values of titer, {len(x)} of vcv, {len(on_front)} of is_pareto and "
            f"{len(told)} of hover_text were given; they are of one length."
        )
    figure = go.Figure()
    names = [("on the front", on_front, PALETTE["twin"], "circle", 11, 1.0)]
    names.insert(0, ("other points", ~on_front, PALETTE["muted"], "diamond", 8, 0.55))
    for name, chosen, colour, symbol, size, opacity in names:
        if not chosen.any():
            continue
        figure.add_trace(
            go.Scatter(
                x=x[chosen],
                y=y[chosen],
                mode="markers",
                name=name,
                text=[t for t, is_in in zip(told, chosen, strict=True) if is_in],
                marker={"color": colour, "symbol": symbol, "size": size, "opacity": opacity,
                        "line": {"color": "white", "width": 1}},
                hovertemplate="%{text}<br>VCV %{x:.4g} %<br>titer %{y:.4g} mg/L<extra></extra>",
            )
        )  # fmt: skip
    text = f"{title}: {int(on_front.sum())} of {len(y)} points lie on the front."
    return _laid_out(figure, title, label("VCV"), label("Titer"), text)


def trajectory_figure(
    runs: Sequence[Any],
    species: str = "VCD",
    title: str = "Perfusion run trajectories",
) -> Any:
    """One species of several runs over time.

    Args:
        runs: Mappings with "run_id" and "trajectory" (T, n_species) as `fig4_training_trajectories`
            takes them; or `Trajectory` objects, of any culture.
        species: Which one; names of CHO perfusion get their unit.
        title: Heading.

    Returns:
        The figure.

    Raises:
        ConfigError: If Plotly is not installed.
        DataError: If there are no runs, or one lacks the species.
    """
    go = _plotly()
    if not runs:
        raise DataError("There are no runs to draw.")
    figure = go.Figure()
    last = 0.0
    for n, run in enumerate(runs):
        days, values, dots = series_of(run, species)
        name = _run_name(run, n)
        style = {"color": SERIES[n % len(SERIES)], "dash": _DASHES[n // len(SERIES) % 4]}
        hover = f"{name}, %{{x:.4g}} d: %{{y:.4g}}<extra></extra>"
        figure.add_trace(
            go.Scatter(
                x=days, y=values, name=name, legendgroup=str(n), hovertemplate=hover,
                mode="lines+markers", line=style | {"width": 1.8}, marker={"size": 5},
            )
        )  # fmt: skip
        if dots is not None:
            figure.add_trace(
                go.Scatter(
                    x=days[: len(dots)], y=dots, name=f"{name}, readings", legendgroup=str(n),
                    showlegend=False, hovertemplate=hover, mode="markers",
                    marker={"color": style["color"], "symbol": "x", "size": 6, "opacity": 0.6},
                )
            )  # fmt: skip
        last = max(last, float(days[-1])) if len(days) else last
    text = f"{title}: {label(species)} of {len(runs)} runs over culture days up to {last:g}."
    return _laid_out(
        figure, title, "Culture day [d]", label(species), text,
        is_from_zero=species not in NOT_FROM_ZERO,
    )  # fmt: skip


def golden_figure(found: Compared, units: Mapping[str, str], *, title: str | None = None) -> Any:
    """A run beside reference runs: `perfusio_jax.viz.golden_figure` to zoom and point at.

    Args:
        found: A run beside reference runs.
        units: Unit of each quantity.
        title: Heading; names the run by default.

    Returns:
        The figure. Pointing at T2 or Q tells what each quantity adds to it.

    Raises:
        ConfigError: If Plotly is not installed.
        DataError: If the run has no sample.
    """
    go = _plotly()
    if not found.hours.size:
        raise DataError(f"run '{shown(cut(found.run_id, 40))}' has no sample to compare.")
    heading = title or f"Run {found.run_id} beside {len(found.references)} reference runs"
    days = found.hours / HOURS_PER_DAY
    heads = [f"{name} [{units.get(name) or '-'}]" for name in found.names]
    panels = _subplots([*heads, "Hotelling's T²", "Q (SPE)"])
    edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    for k in range(len(found.names)):
        at = {"row": k // 2 + 1, "col": k % 2 + 1}
        is_first = k == 0
        panels.add_trace(go.Scatter(x=days, y=found.high[:, k], **edge), **at)
        fill = {"fill": "tonexty", "fillcolor": _faint(PALETTE["band"], 0.32)}
        shown_once = {"legendgroup": "band", "name": "95 % of readings of a further run"}
        low = {**edge, **fill, **shown_once, "showlegend": is_first}
        panels.add_trace(go.Scatter(x=days, y=found.low[:, k], **low), **at)
        panels.add_trace(
            go.Scatter(
                x=days, y=found.band.mean[:, k], mode="lines", name="mean of the reference runs",
                legendgroup="mean", showlegend=is_first, hoverinfo="skip",
                line={"color": PALETTE["twin"], "dash": "dash"},
            ),
            **at,
        )  # fmt: skip
        values = found.readings[:, k]
        is_out = (values < found.low[:, k]) | (values > found.high[:, k])
        panels.add_trace(
            go.Scatter(
                x=days, y=values, mode="lines+markers", name="reading", legendgroup="reading",
                showlegend=is_first, line={"color": PALETTE["muted"], "width": 1},
                marker={"size": 6, "color": _in_or_out(is_out)},
                hovertemplate="%{x:.4g} d: %{y:.4g}<extra></extra>",
            ),
            **at,
        )  # fmt: skip
    n_rows = -(-len(found.names) // 2) + 1
    statistics = (
        (found.t2, found.t2_limits, found.t2_by), (found.q, found.q_limits, found.q_by)
    )  # fmt: skip
    for k, (values, limits, by) in enumerate(statistics):
        at = {"row": n_rows, "col": k + 1}
        lines = (("95 %", "dot", PALETTE["muted"]), ("99 %", "dash", PALETTE["target"]))
        for column, (level, dash, colour) in enumerate(lines):
            panels.add_trace(
                go.Scatter(
                    x=days, y=limits[:, column], mode="lines", name=f"limit, {level}",
                    legendgroup=level, showlegend=k == 0, hoverinfo="skip",
                    line={"color": colour, "dash": dash, "shape": "hvh"},
                ),
                **at,
            )  # fmt: skip
        panels.add_trace(
            go.Scatter(
                x=days, y=values, mode="lines+markers", name="T2, Q", showlegend=False,
                line={"color": PALETTE["muted"], "width": 1},
                marker={"size": 7, "color": _in_or_out(values > limits[:, 0])},
                text=[_parts_text(found.names, row) for row in by],
                hovertemplate="%{x:.4g} d: %{y:.4g}<br>%{text}<extra></extra>",
            ),
            **at,
        )  # fmt: skip
    _laid_out(panels, heading, "", "", described(found, heading))
    tall = 230 * n_rows  # the legend lies below the words of the lowest axis, however many rows
    panels.update_layout(height=tall + 194, margin={"b": 130}, legend={"y": -70.0 / tall})
    axis = {"gridcolor": PALETTE["grid"], "zeroline": False, "showline": True,
            "linecolor": PALETTE["muted"], "ticks": "outside"}  # fmt: skip
    panels.update_xaxes(**axis, matches="x", title={"text": ""})
    panels.update_yaxes(**axis, title={"text": ""})
    panels.update_xaxes(title={"text": "Culture day [d]", "standoff": 6}, row=n_rows)
    return panels


def save_html(figure: Any, path: Path | str) -> Path:
    """Write a figure as one page with everything it needs inside; nothing is fetched.

    Args:
        figure: A figure of this module.
        path: Where to; must end in .html.

    Returns:
        The path.

    Raises:
        ConfigError: If it has another ending.
    """
    path = Path(path)
    if path.suffix.lower() != ".html":
        raise ConfigError(f"{path} ends in '{path.suffix}'; a page ends in .html.")
    path.parent.mkdir(parents=True, exist_ok=True)
    page = figure.to_html(
        include_plotlyjs=True,  # all of it inside: no network
        full_html=True,
        div_id="figure",  # else a random one, and no two files the same
        config={"displaylogo": False},
    )
    path.write_text(page, encoding="utf-8")
    return path


def _plotly() -> Any:
    try:
        return importlib.import_module("plotly.graph_objects")
    except ImportError:
        raise ConfigError(
            "Plotly is not installed, which interactive figures are made with: "
            "pip install 'perfusio-jax[dash]'."
        ) from None


def _subplots(heads: Sequence[str]) -> Any:
    """Panels in two columns, the last two a row of their own."""
    own = -(-(len(heads) - 2) // 2)
    titles: list[str] = [*heads[:-2], *[""] * (2 * own - len(heads) + 2), *heads[-2:]]
    made = importlib.import_module("plotly.subplots")
    return made.make_subplots(
        rows=own + 1, cols=2, vertical_spacing=0.22 / (own + 1), horizontal_spacing=0.08,
        subplot_titles=[_written(text) for text in titles],
    )  # fmt: skip


def _in_or_out(is_out: np.ndarray) -> list[str]:
    return [PALETTE["target"] if out else PALETTE["ink"] for out in is_out]


def _parts_text(names: Sequence[str], parts: np.ndarray) -> str:
    """What adds most, the first five."""
    order = [k for k in np.argsort(-np.nan_to_num(parts), kind="stable") if parts[k] > 0.0][:5]
    return "<br>".join(f"{_written(names[int(k)])}: {parts[k]:.3g}" for k in order)


def _written(text: str) -> str:
    """A name from outside as Plotly shows it as it stands: its texts are markup, and templates."""
    safe = html.escape(shown(cut(str(text), LONGEST_NAME)), quote=False)
    return safe.replace("%{", "%&#123;")


def _run_name(run: Any, n: int) -> str:
    if isinstance(run, Mapping):
        return _written(str(run.get("run_id", f"run {n + 1}")))
    return _written(str(getattr(run, "run_id", f"run {n + 1}")))


def _faint(colour: str, opacity: float) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:g})"


def _laid_out(
    figure: Any, title: str, x: str, y: str, text: str, *, is_from_zero: bool = False
) -> Any:
    """Heading, axes and the look all figures share; the description travels as `layout.meta`."""
    axis = {"gridcolor": PALETTE["grid"], "zeroline": False, "ticks": "outside",
            "linecolor": PALETTE["muted"], "showline": True}  # fmt: skip
    figure.update_layout(
        template="none",
        title={"text": _written(title), "x": 0.02, "xanchor": "left"},
        font={"family": _FONT, "size": 13, "color": PALETTE["ink"]},
        paper_bgcolor="white",
        plot_bgcolor="white",
        colorway=list(SERIES),
        hovermode="closest",
        legend={"orientation": "h", "yanchor": "top", "y": -0.18, "x": 0.0},
        margin={"l": 70, "r": 24, "t": 64, "b": 72},
        meta={"description": text},
        xaxis={**axis, "title": {"text": _written(x)}},
        yaxis={**axis, "title": {"text": _written(y)}},
    )
    if is_from_zero:
        figure.update_yaxes(rangemode="tozero")
    return figure
