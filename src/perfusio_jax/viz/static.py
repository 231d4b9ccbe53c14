"""Matplotlib figures of campaigns, predictions, Pareto fronts and closed loops.

The first four follow Gadiyar et al. (2026), figures 4, 6, 7 and 8. All take plain arrays and
mappings, return a figure and change no global state. NaN leaves a gap.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from perfusio_jax._core import CONTROL_NAMES, DataError

from .parts import (
    band,
    clone_of,
    from_zero,
    legend_entry,
    reading_band,
    series_of,
    series_style,
    shade_start,
    strip_margin,
    tick_text,
)
from .theme import (
    DASHES,
    PALETTE,
    SERIES,
    day_axis,
    describe,
    label,
    new_figure,
    themed,
    title_axis,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@themed
def fig4_training_trajectories(
    runs: Sequence[Any],
    species: str = "VCD",
    clone_labels: Sequence[str] | None = None,
    alt_text: bool = False,
) -> "Figure":
    """Trajectories of a training campaign, one line per run.

    Args:
        runs: Mappings with "trajectory" (T, n_species) in the order of the measured face, the
            forecast species or the registry (or with "species_names"), optionally "days" and
            "noisy_samples" (a mapping per day); or `Trajectory` objects.
        species: Which species to draw.
        clone_labels: Label per run; runs with the same label share colour and legend entry.
        alt_text: Print the description that `figure.get_label()` holds.

    Returns:
        The figure.

    Raises:
        DataError: If there are no runs, labels do not fit them, or a run lacks the species.
    """
    if not runs:
        raise DataError("There are no runs to draw.")
    labels = list(clone_labels) if clone_labels is not None else [clone_of(run) for run in runs]
    if len(labels) != len(runs):
        raise DataError(f"{len(labels)} clone labels were given for {len(runs)} runs.")
    groups = list(dict.fromkeys(labels))
    figure = new_figure(7.2, 4.2, f"Training campaign: {len(runs)} runs")
    axes = figure.add_subplot()
    last = 1.0
    alpha = float(np.clip(6.0 / len(runs), 0.45, 0.9))
    for run, name in zip(runs, labels, strict=True):
        index = groups.index(name)
        style = {"color": SERIES[index % len(SERIES)], "zorder": 3}
        days, values, dots = series_of(run, species)
        axes.plot(days, values, ls=DASHES[index % len(DASHES)], lw=1.2, alpha=alpha, **style)
        if dots is not None:
            axes.plot(days[: len(dots)], dots, "o", ms=2.4, mew=0, alpha=0.6 * alpha, **style)
        last = max(last, float(days[-1]))
    for index, name in enumerate(groups):
        axes.plot(
            [], [], color=SERIES[index % len(SERIES)], ls=DASHES[index % len(DASHES)], label=name
        )
    if any(groups):
        figure.legend(loc="outside lower left", ncols=min(len(groups), 5))
    title_axis(axes, species)
    day_axis(axes, 0.0, last)
    from_zero(axes, species)
    text = (
        f"Line chart of {label(species)} over culture days 0 to {last:g} for {len(runs)} training "
        f"runs of {len(groups)} clone(s)."
    )
    return describe(figure, text, is_printed=alt_text)


@themed
def fig6_model_predictions(
    true_traj: Any,
    pred_mean: Any,
    pred_q10: Any,
    pred_q90: Any,
    species_names: Sequence[str],
    horizon: int = 3,
    alt_text: bool = False,
    *,
    days: Any | None = None,
) -> "Figure":
    """Predictions against observations, a panel per species.

    Args:
        true_traj: Observations (T, n_species).
        pred_mean: Predicted means (T, n_species).
        pred_q10: 10 % quantiles (T, n_species).
        pred_q90: 90 % quantiles (T, n_species).
        species_names: Names of the columns.
        horizon: Length [d] of the forecast at the end, drawn as a shaded region; 0 for none.
        alt_text: Print the description that `figure.get_label()` holds.
        days: Culture days (T,) [d]; a row a day by default.

    Returns:
        The figure.

    Raises:
        DataError: If the shapes differ.
    """
    names = list(species_names)
    arrays = [np.asarray(a, float) for a in (true_traj, pred_mean, pred_q10, pred_q90)]
    if any(a.shape != arrays[0].shape for a in arrays) or arrays[0].shape[1:] != (len(names),):
        shapes = ", ".join(str(a.shape) for a in arrays)
        raise DataError(f"Four arrays of one shape (T, {len(names)}) are needed; given {shapes}.")
    truth, mean, low, high = arrays
    days = np.arange(len(truth)) if days is None else np.asarray(days, float).ravel()
    if len(days) != len(truth):
        raise DataError(f"{len(days)} days were given for {len(truth)} rows.")
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = new_figure(3.4 * columns, 1.1 + 1.9 * rows, "Predictions and observations")
    grid = figure.subplots(rows, columns, squeeze=False)
    for n, axes in enumerate(grid.flat):
        if n >= len(names):
            axes.set_axis_off()
            continue
        if horizon > 0:
            axes.axvspan(days[-1] - horizon, days[-1], color=PALETTE["shade"], lw=0, zorder=0)
        band(axes, days, low[:, n], high[:, n])
        axes.plot(days, mean[:, n], color=PALETTE["twin"], zorder=3)
        axes.plot(days, truth[:, n], "o", color=PALETTE["ink"], ms=3.2, mew=0, zorder=4)
        title_axis(axes, names[n])
        day_axis(axes, 0.0, float(days[-1]), show_label=n >= len(names) - columns)
        from_zero(axes, names[n])
    handles = [
        legend_entry("line", "predicted mean", PALETTE["twin"]),
        legend_entry("band", "80 % interval", PALETTE["band"]),
        legend_entry("dot", "observed", PALETTE["ink"]),
    ]
    if horizon > 0:
        handles.append(legend_entry("shade", f"last {horizon} days", "#dfe3e8"))
    figure.legend(handles=handles, loc="outside lower left", ncols=len(handles))
    inside = np.mean(((truth >= low) & (truth <= high))[np.isfinite(truth)])
    text = (
        f"{len(names)} panels over {len(days)} samples: predicted mean, 80 % interval and observed "
        f"values of {', '.join(names)}; {inside:.0%} of the observations lie inside the interval."
    )
    return describe(figure, text, is_printed=alt_text)


@themed
def fig7_pareto_front(
    pareto_titer: Any,
    pareto_vcv: Any,
    feasible_titer: Any | None = None,
    feasible_vcv: Any | None = None,
    alt_text: bool = False,
) -> "Figure":
    """Pareto front of titer against viable cell volume.

    Args:
        pareto_titer: Titer [mg/L] of the points on the front.
        pareto_vcv: Their viable cell volume [%].
        feasible_titer: Titer [mg/L] of all feasible points, drawn behind.
        feasible_vcv: Their viable cell volume [%].
        alt_text: Print the description that `figure.get_label()` holds.

    Returns:
        The figure.

    Raises:
        DataError: If two arrays that belong together differ in length.
    """
    titer, vcv = (np.asarray(a, float).ravel() for a in (pareto_titer, pareto_vcv))
    if len(titer) != len(vcv) or (feasible_titer is None) != (feasible_vcv is None):
        raise DataError("Titer and VCV belong together: give both, of one length.")
    figure = new_figure(5.6, 4.4, "Titer against cell volume")
    axes = figure.add_subplot()
    n_feasible = 0
    if feasible_titer is not None:
        points = [np.asarray(a, float).ravel() for a in (feasible_vcv, feasible_titer)]
        if len(points[0]) != len(points[1]):
            raise DataError("feasible_titer and feasible_vcv differ in length.")
        n_feasible = len(points[0])
        axes.plot(*points, "o", color=PALETTE["muted"], ms=4, alpha=0.35, mew=0, label="feasible")
    order = np.argsort(vcv)
    axes.step(
        vcv[order], titer[order], where="pre", color=PALETTE["twin"], lw=1.4, alpha=0.6, zorder=3
    )
    axes.plot(
        vcv, titer, "o", color=PALETTE["twin"], ms=6.5, mec="white", mew=0.9, zorder=4,
        label="Pareto front",
    )  # fmt: skip
    axes.set_xlabel(label("VCV"))
    axes.set_ylabel(label("Titer"))
    axes.margins(0.08)
    figure.legend(loc="outside lower left", ncols=2)
    text = (
        f"Scatter plot of titer against viable cell volume: {len(titer)} points on the Pareto "
        f"front before {n_feasible} feasible ones."
    )
    return describe(figure, text, is_printed=alt_text)


@themed
def fig8_closed_loop_performance(
    days: Any,
    vcd: Any,
    vcd_target: float,
    glc: Any,
    glc_target: float,
    titer: Any,
    titer_target: float,
    alt_text: bool = False,
) -> "Figure":
    """Closed-loop control of cell density, glucose and titer.

    Args:
        days: Culture days [d].
        vcd: Measured viable cell density [1e6 cells/mL].
        vcd_target: Its target.
        glc: Measured glucose [g/L].
        glc_target: Its target.
        titer: Measured titer [mg/L].
        titer_target: Its target.
        alt_text: Print the description that `figure.get_label()` holds.

    Returns:
        The figure.

    Raises:
        DataError: If the lengths differ.
    """
    time = np.asarray(days, float).ravel()
    panels = [("VCD", vcd, vcd_target), ("Glc", glc, glc_target), ("Titer", titer, titer_target)]
    figure = new_figure(7.2, 6.4, "Closed-loop control")
    grid = figure.subplots(3, 1, sharex=True)
    parts = []
    for axes, (name, values, target) in zip(grid, panels, strict=True):
        path = np.asarray(values, float).ravel()
        if len(path) != len(time):
            raise DataError(f"{name} has {len(path)} values for {len(time)} days.")
        axes.axhline(target, color=PALETTE["target"], ls=DASHES[1], lw=1.4, zorder=2)
        axes.plot(time, path, "o-", color=PALETTE["twin"], ms=4, mec="white", mew=0.6, zorder=3)
        title_axis(axes, name)
        from_zero(axes, name, target)
        day_axis(axes, float(time[0]), float(time[-1]), show_label=name == "Titer")
        parts.append(f"{label(name)} ends at {path[-1]:.3g}, target {target:g}")
    handles = [
        legend_entry("line", "measured", PALETTE["twin"]),
        legend_entry("dashes", "target", PALETTE["target"]),
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=2)
    text = f"Three charts over culture days {time[0]:g} to {time[-1]:g}: " + "; ".join(parts) + "."
    return describe(figure, text, is_printed=alt_text)


@themed
def closed_loop_figure(
    run: Mapping[str, Any],
    baselines: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    title: str = "Closed loop",
    species: Sequence[str] = ("VCV", "Via", "Glc", "Titer"),
    alt_text: bool = False,
) -> "Figure":
    """A controlled run: the tracked species large, others beside it, set-points below.

    Args:
        run: A mapping with

            - "days": (T,) [d],
            - "measured": per species (T,), NaN where missing,
            - "truth": per species (T,), the noise-free path, if it is known,
            - "forecast": per species a mapping of "days", "q10", "q90" and optionally "mean",
              each the forecast of the noise-free value made some days earlier for that day;
              with "reading_q10" and "reading_q90" also the interval of readings,
            - "forecast_label": what that band is, for the legend,
            - "setpoints": per control (T,), the value in force from that day on,
            - "targets": per species its target,
            - "limits": per species (lower, upper), `None` for no limit,
            - "start_day": day [d] on which control begins; the days up to it are shaded, those
              after it count.
        baselines: Per controller a mapping of "days" and species, drawn as thin lines.
        title: Heading.
        species: The four species of the panels, the tracked one first.
        alt_text: Print the description that `figure.get_label()` holds.

    Returns:
        The figure.

    Raises:
        DataError: If the run has no days, or fewer or more than four species are named.
    """
    days = np.asarray(run.get("days", ()), float).ravel()
    if len(days) == 0 or len(species) != 4:
        raise DataError("A closed loop needs days and exactly four species to draw.")
    baselines = baselines or {}
    controls = [name for name in CONTROL_NAMES if name in run.get("setpoints", {})]
    controls += [name for name in run.get("setpoints", {}) if name not in controls]
    strips = -(-len(controls) // 2)
    figure = new_figure(11.5, 5.6 + 0.8 * strips, title)
    heights = [1.0] * 3 + [0.62] * strips
    grid = figure.add_gridspec(3 + strips, 2, height_ratios=heights, width_ratios=[1.55, 1.0])
    panels = [figure.add_subplot(grid[0:3, 0])]
    panels += [figure.add_subplot(grid[n, 1]) for n in range(3)]
    first, last = float(days[0]), float(days[-1])
    for n, (axes, name) in enumerate(zip(panels, species, strict=True)):
        _loop_panel(axes, name, run, baselines, is_large=n == 0)
        day_axis(axes, first, last, show_label=False)
        if not (n == 0 or n == 3) or controls:
            axes.tick_params(labelbottom=n == 0 or n == 3)
    for n, name in enumerate(controls):
        axes = figure.add_subplot(grid[3 + n // 2, n % 2])
        _strip(axes, name, days, np.asarray(run["setpoints"][name], float).ravel())
        is_lowest = n + 2 >= len(controls)
        shade_start(axes, run, first)
        day_axis(axes, first, last, show_label=is_lowest)
        axes.tick_params(labelbottom=is_lowest)
    handles = _loop_legend(run, baselines)
    figure.legend(handles=handles, loc="outside lower left", ncols=min(len(handles), 7))
    return describe(figure, _loop_text(run, baselines, species[0], controls), is_printed=alt_text)


@themed
def tracking_error_figure(
    days: Any,
    errors: Mapping[str, Any],
    *,
    start_day: float | None = None,
    species: str = "VCV",
    alt_text: bool = False,
) -> "Figure":
    """Tracking error by day and on average, by controller.

    Args:
        days: Culture days (T,) [d].
        errors: Absolute tracking error (T,) by controller, in the species' unit; the first is
            drawn as the one in question.
        start_day: Day [d] on which control begins; the days up to it are shaded, and the average
            is over the days after it, as what is decided on a day acts on the next.
        species: What is tracked.
        alt_text: Print the description that `figure.get_label()` holds.

    Returns:
        The figure.

    Raises:
        DataError: If there is nothing to draw or lengths differ.
    """
    time = np.asarray(days, float).ravel()
    if len(time) == 0 or not errors:
        raise DataError("Tracking errors need at least one day and one controller.")
    unit = label(species).rpartition(" ")[2]
    counted = np.ones_like(time, bool) if start_day is None else time > start_day
    figure = new_figure(10.0, 3.9, f"Tracking error of {label(species).partition(' [')[0].lower()}")
    left, right = figure.subplots(1, 2, width_ratios=[1.7, 1.0])
    shade_start(left, {"start_day": start_day}, float(time[0]), text="start-up", is_low=True)
    means = {}
    for n, (name, values) in enumerate(errors.items()):
        path = np.abs(np.asarray(values, float).ravel())
        if len(path) != len(time):
            raise DataError(f"{name} has {len(path)} errors for {len(time)} days.")
        used = path[counted & np.isfinite(path)]
        means[name] = float(np.mean(used)) if len(used) else np.nan
        left.plot(time, path, **series_style(n), zorder=4 - n / 10, label=name)
    left.set_title("by day")
    left.set_ylabel(f"|error| {unit}")
    left.set_ylim(bottom=0.0)
    day_axis(left, float(time[0]), float(time[-1]))
    positions = np.arange(len(means))[::-1]
    colours = [series_style(n)["color"] for n in range(len(means))]
    bars = np.nan_to_num(np.array(list(means.values())))
    right.barh(positions, bars, color=colours, height=0.58, zorder=3)
    for position, value in zip(positions, means.values(), strict=True):
        right.annotate(
            "no data" if np.isnan(value) else f"{value:.2f}",
            (0.0 if np.isnan(value) else value, position),
            xytext=(4, 0), textcoords="offset points", va="center", fontsize=8.5,
        )  # fmt: skip
    right.set_yticks(positions, list(means))
    right.tick_params(axis="y", length=0)
    right.grid(axis="y", visible=False)
    right.set_xlim(0.0, 1.18 * max(float(bars.max()), 1e-12))
    right.set_xlabel(f"mean |error| {unit}")
    right.set_title("on average" if start_day is None else f"on average after day {start_day:g}")
    best = ", ".join(f"{name} {value:.2f}" for name, value in means.items())
    text = f"Absolute tracking error of {label(species)} by day and controller; means: {best}."
    return describe(figure, text, is_printed=alt_text)


def _loop_panel(
    axes: Any,
    name: str,
    run: Mapping[str, Any],
    baselines: Mapping[str, Mapping[str, Any]],
    *,
    is_large: bool,
) -> None:
    days = np.asarray(run["days"], float).ravel()
    size = 1.0 if is_large else 0.75
    shade_start(axes, run, float(days[0]), text="start-up" if is_large else "")
    target = run.get("targets", {}).get(name)
    if target is not None:
        axes.axhline(target, color=PALETTE["target"], ls=DASHES[1], lw=1.5, zorder=2)
    limits = run.get("limits", {}).get(name, ())
    for limit in limits:
        if limit is not None:
            axes.axhline(limit, color=PALETTE["ink"], ls=DASHES[2], lw=1.0, zorder=2)
    for n, (_, other) in enumerate(baselines.items(), start=1):
        if name in other:
            path = np.asarray(other[name], float).ravel()
            when = np.asarray(other.get("days", days), float).ravel()
            style = series_style(n) | {"lw": 1.3 * size}
            axes.plot(when, path, alpha=0.9, zorder=3, **style)
    forecast = run.get("forecast", {}).get(name)
    if forecast is not None and "reading_q10" in forecast:
        ends = ("days", "reading_q10", "reading_q90")
        reading_band(axes, *(np.asarray(forecast[key], float).ravel() for key in ends))
    if forecast is not None:
        band(axes, *(np.asarray(forecast[key], float).ravel() for key in ("days", "q10", "q90")))
    if name in run.get("truth", {}):
        axes.plot(days, np.asarray(run["truth"][name], float).ravel(), color=PALETTE["twin"],
                  lw=2.2 * size, zorder=5)  # fmt: skip
    if name in run.get("measured", {}):
        values = np.asarray(run["measured"][name], float).ravel()
        axes.plot(days, values, "o", color=PALETTE["ink"], ms=4.6 * size, mec="white",
                  mew=0.6 * size, zorder=6)  # fmt: skip
    title_axis(axes, name, size=11.0 if is_large else None)
    from_zero(axes, name, target)


def _strip(axes: "Axes", name: str, days: np.ndarray, values: np.ndarray) -> None:
    """A set-point as steps: each value holds until the next day's."""
    n = min(len(days), len(values))
    # The last day's value only starts to act where the axis ends.
    held = values[: max(n - 1, 1)]
    edges = days[: len(held) + 1] if n > 1 else np.array([days[0], days[0] + 1.0])
    axes.step(edges, np.append(held, held[-1]), where="post", color=PALETTE["green"], lw=1.6)
    title_axis(axes, name, size=8.5)
    finite = held[np.isfinite(held)]
    if len(finite):
        low, high = float(finite.min()), float(finite.max())
        margin = strip_margin(low, high)
        axes.set_ylim(low - margin, high + margin)
        ticks = [low] if high - low < 1e-6 * max(abs(low), abs(high), 1e-9) else [low, high]
        axes.set_yticks(ticks, [tick_text(tick) for tick in ticks])


def _loop_legend(run: Mapping[str, Any], baselines: Mapping[str, Any]) -> list[Any]:
    handles = []
    if run.get("truth"):
        handles.append(legend_entry("line", "twin, noise-free", PALETTE["twin"]))
    if run.get("measured"):
        handles.append(legend_entry("dot", "twin, measured", PALETTE["ink"]))
    if run.get("forecast"):
        text = run.get("forecast_label", "80 % forecast interval")
        if any("reading_q10" in found for found in run["forecast"].values()):
            handles.append(legend_entry("band", f"{text}: noise-free", PALETTE["band"]))
            handles.append(legend_entry("readings", "the same: readings", PALETTE["band"]))
        else:
            handles.append(legend_entry("band", text, PALETTE["band"]))
    if run.get("targets"):
        handles.append(legend_entry("dashes", "target", PALETTE["target"]))
    if run.get("limits"):
        handles.append(legend_entry("dots", "limit", PALETTE["ink"]))
    for n, name in enumerate(baselines, start=1):
        handles.append(legend_entry("series", name, "", n))
    if run.get("setpoints"):
        handles.append(legend_entry("line", "set-point", PALETTE["green"]))
    return handles


def _loop_text(
    run: Mapping[str, Any], baselines: Mapping[str, Any], tracked: str, controls: Sequence[str]
) -> str:
    days = np.asarray(run["days"], float)
    text = f"Closed-loop run over culture days {days[0]:g} to {days[-1]:g}."
    target = run.get("targets", {}).get(tracked)
    path = run.get("truth", run.get("measured", {})).get(tracked)
    if target is not None and path is not None:
        path = np.asarray(path, float)
        start = run.get("start_day")
        counted = np.ones_like(days, bool) if start is None else days > start
        error = np.nanmean(np.abs(path[counted] - target))
        text += f" {label(tracked)} is held at {target:g} with a mean error of {error:.2g}."
    if baselines:
        text += f" Compared with {', '.join(baselines)}."
    if controls:
        text += f" Set-points of {', '.join(controls)} are shown below."
    return text
