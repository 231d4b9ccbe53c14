"""The model card: what a model is, what it learned from, how far it can be believed."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

import perfusio_jax
from perfusio_jax._core import HOURS_PER_DAY
from perfusio_jax._core.text import shown_unit
from perfusio_jax._core.units import canonical_unit
from perfusio_jax.gp import FitReport
from perfusio_jax.hybrid import (
    CALIBRATED,
    HybridStateSpaceModel,
    Layout,
    coverage_band,
)
from perfusio_jax.states import Trajectory, intervals_text, sampling_intervals

from .culture_card import culture_lines, mechanism_lines
from .scoring import Judged, number, share, shown_names, unit_of, with_nothing


class Subject(NamedTuple):
    """What a card is about."""

    runs: list[Trajectory]
    """What the model learned from."""
    model: HybridStateSpaceModel
    """The model, fitted to all runs."""
    report: FitReport
    """How it was found."""
    source: str
    """Name of the table."""
    assumptions: Sequence[str] = ()
    """What had to be assumed of the culture, one sentence each."""
    remarks: Sequence[str] = ()
    """What was said of the choice of a mechanism and of runs that were not left out."""


def model_card(subject: Subject, judgement: Judged) -> str:
    """The card in Markdown.

    Args:
        subject: The model and its runs.
        judgement: Forecasts of runs left out.
    """
    layout = subject.model.layout
    lines = [
        "# Model card",
        "",
        f"Hybrid model fitted by perfusio-jax {perfusio_jax.__version__} to `{subject.source}`.",
        "",
        judgement.verdict.line().replace("verdict", "**Verdict**", 1),
        "",
    ]
    if layout.process is not None:
        lines += [*culture_lines(layout.process, layout, subject.assumptions), ""]
    lines += [*_data(subject), "", *_model(subject), "", *_forecasts(judgement, layout), ""]
    lines += [*_limits(subject), ""]
    return "\n".join(lines)


def _data(subject: Subject) -> list[str]:
    runs, layout = subject.runs, subject.model.layout
    times = [np.asarray(t.times_h, float) for t in runs]
    days = [round(float(t[-1] - t[0]) / HOURS_PER_DAY, 1) for t in times]
    seen = [name for k, name in enumerate(layout.face) if layout.is_cho or k not in layout.latent]
    columns = [t.host_readings(seen) for t in runs]
    missing = np.mean([np.mean(np.isnan(c)) for c in columns])
    apart = intervals_text(sampling_intervals(runs))
    clones = ", ".join(sorted({t.clone_id for t in runs}))
    return [
        "## Data",
        "",
        f"- {len(runs)} runs of {min(days):g} to {max(days):g} d, clones "
        f"{clones}; samples {apart}; {subject.report.details['rows']} intervals.",
        f"- {100 * missing:.1f} % of the state readings are missing.",
    ]


def _model(subject: Subject) -> list[str]:
    report, layout = subject.report, subject.model.layout
    lines = ["## Model", ""]
    if layout.is_cho:
        lines.append(
            "- Mechanistic prior (Monod growth, Pirt maintenance, Luedeking-Piret product), its "
            "constants calibrated to the data; Gaussian process on the residual rates; ensemble "
            "Kalman filter for the state."
        )
    else:
        lines += [f"- {line}" for line in subject.remarks]
        lines += mechanism_lines(subject.model, report)
        lines.append(
            "- Gaussian process on the rates that are left; ensemble Kalman filter for the state."
        )
    lines.append(
        f"- Search: {report.optimiser}, {int(report.n_iterations)} iterations, "
        f"{'converged' if report.converged else '**not converged**'}; log evidence "
        f"{float(report.log_evidence):.1f}."
    )
    if layout.is_cho:
        lines += _moved_most(subject)
    if report.at_bounds:
        lines.append(f"- At the edge of what is sensible: {', '.join(report.at_bounds)}.")
    if layout.is_cho:
        lines += [f"- {line}" for line in subject.remarks]
    return lines


def _moved_most(subject: Subject) -> list[str]:
    """Constants of CHO perfusion that the data moved most, by clone."""
    moved = subject.report.details.get("calibration") or []
    clones = sorted({t.clone_id for t in subject.runs})
    names = clones if len(moved) > 1 else ["all runs"]
    lines = []
    for name, info in zip(names, moved, strict=False):
        factors = np.exp(np.asarray(info.constants)[:-1])
        order = np.argsort(-np.abs(np.log(factors)))[:6]
        text = ", ".join(f"{CALIBRATED[i]} x {factors[i]:.2f}" for i in order)
        lines.append(f"- Constants moved most ({name}): {text}.")
    return lines


def _forecasts(judgement: Judged, layout: Layout) -> list[str]:
    found, ahead, scores, beside = judgement
    names = shown_names(layout)
    index = [found.names.index(n) for n in names]
    n_folds = int(found.fold_of_run.max()) + 1
    unit = "days" if ahead.in_days else "hours"
    near = (
        "a whole number of days ahead counts for that day"
        if ahead.in_days
        else f"{', '.join(ahead.texts)} h ahead counts for that"
    )
    lines = [
        "## Forecasts of runs left out",
        "",
        f"{n_folds} folds, whole runs left out; forecast from every sample, compared with readings "
        f"(assay noise included). A forecast is made for the hour of its reading; one within "
        f"{ahead.tolerance_h:g} h of {near}.",
        "",
        f"| {unit} ahead | readings in 80 % | readings in 95 % | "
        + " | ".join(f"rRMSE {n}" for n in names)
        + " |",
        "|---:|---:|---:|" + "---:|" * len(names),
    ]
    for h, text in enumerate(ahead.texts):
        inside = [share(scores, level, h) for level in (0, 1)]
        values = [with_nothing(scores.rrmse[h, k], beside.nothing_changes[h, k]) for k in index]
        lines.append(f"| {text} | " + " | ".join([*inside, *values]) + " |")
    nis = ", ".join(f"{v:.2f}" for v in found.nis)
    return [
        *lines,
        "",
        "rRMSE is the root mean square error over the spread of the readings; in brackets the "
        "forecast that nothing changes; a dash where nothing was measured. Forecasts cannot be "
        "better than the assay.",
        "",
        *_beside(judgement, layout),
        "",
        _cells(judgement),
        "",
        f"Filter: mean normalised innovation per reading in training, by fold: {nis} (1 = noise "
        "and model are as assumed; below 1 = intervals rather wide).",
    ]


def _beside(judgement: Judged, layout: Layout) -> list[str]:
    """The trend's error and the model's in per cent, a row per quantity."""
    found, ahead, _, beside = judgement
    lines = [
        "Absolute errors of the model in per cent of the readings (sum over sum), and in brackets "
        "the rRMSE of the trend of the last two readings, exponential where both are positive and "
        "by no more than a factor of ten, else linear:",
        "",
        "| | " + " | ".join(f"{text} {ahead.unit} ahead" for text in ahead.texts) + " |",
        "|---|" + "---:|" * len(ahead.steps),
    ]
    for name in shown_names(layout):
        k = found.names.index(name)
        cells = []
        for h in range(len(ahead.steps)):
            wape, simple = beside.wape[h, k], beside.trend[h, k]
            if np.isfinite(wape) or np.isfinite(simple):
                per_cent = f"{100 * wape:.0f} %" if np.isfinite(wape) else "–"
                cells.append(f"{per_cent} ({number(simple)})")
            else:
                cells.append("–")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def _cells(judgement: Judged) -> str:
    """Which species at which horizon are covered otherwise than they should be."""
    found, ahead, scores, _ = judgement
    is_judged = found.fold_of_run >= 0
    if is_judged.sum() < 2:
        return "One run alone says nothing about single species."
    forecasts = jax.tree.map(lambda v: np.asarray(v)[is_judged], found.forecasts)
    band = coverage_band(forecasts, found.readings[is_judged])
    nominal = np.asarray([0.8, 0.95])[:, None, None]
    away = np.abs(scores.coverage - nominal) / band.half_width
    if not np.isfinite(away).any():
        days = "a whole number of days" if ahead.in_days else f"{', '.join(ahead.texts)} h"
        return f"No reading lies near {days} after another: no {_one(ahead.in_days)} can be judged."
    # cells without readings have no band
    which, h, k = np.unravel_index(np.nanargmax(away), away.shape)
    worst = (
        f"{found.names[k]} {ahead.texts[h]} {ahead.unit} ahead, "
        f"{100 * scores.coverage[which, h, k]:.0f} % in the "
        f"{(80, 95)[which]} % interval (band: {100 * band.half_width[which, h, k]:.0f} % to either "
        "side)"
    )
    return (
        f"Single cells (species x {_one(ahead.in_days)} ahead x interval): "
        f"{int(band.is_outside.sum())} of "
        f"{int(np.isfinite(band.half_width).sum())} lie outside their simultaneous 95 % band "
        f"(bootstrap over runs). The furthest: {worst}."
    )


def _one(in_days: bool) -> str:
    return "day" if in_days else "hour"


def _limits(subject: Subject) -> list[str]:
    runs, layout = subject.runs, subject.model.layout
    apart = intervals_text(sampling_intervals(runs))
    lines = ["## Limits", ""]
    ranges = _ranges(runs, layout)
    if ranges:
        lines.append(f"- Valid inside the ranges of the training set-points: {'; '.join(ranges)}.")
    if not layout.is_cho:
        began = _beginnings(runs, layout)
        lines.append(f"- The runs began with {'; '.join(began)}.")
    lines += [
        "- Intervals widen outside these ranges, but the mechanism's form is then unproven.",
        f"- One scale and one medium, sampled {apart}; others need new data.",
    ]
    return lines


def _ranges(runs: list[Trajectory], layout: Layout) -> list[str]:
    names = runs[0].control_names
    table = np.concatenate([np.asarray(t.controls) for t in runs])
    process = layout.process
    units = [canonical_unit(n) if process is None else process.control(n).unit for n in names]
    found = []
    for name, unit, values in zip(names, units, table.T, strict=True):
        low, high = np.nanmin(values), np.nanmax(values)
        found.append(f"{name} {low:.4g} to {high:.4g} {shown_unit(unit)}")
    return found


def _beginnings(runs: list[Trajectory], layout: Layout) -> list[str]:
    """Ranges of the first reading of a run, by quantity."""
    found = []
    for name in shown_names(layout):
        columns = [t.host_readings((name,))[:, 0] for t in runs]
        first = [c[np.isfinite(c)][0] for c in columns if np.isfinite(c).any()]
        if first:
            unit = shown_unit(unit_of(layout, name))
            found.append(f"{name} {min(first):.4g} to {max(first):.4g} {unit}")
    return found
