"""Scores of runs left out: what is judged, its table and summary, the verdict, the figures."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from perfusio_jax._core import FORECAST_SPECIES
from perfusio_jax._core.units import canonical_unit
from perfusio_jax.hybrid import (
    Layout,
    Skill,
    Validation,
    Verdict,
    Yardsticks,
    pick,
    skill,
    yardsticks_of,
)

from .horizons import Horizons

KEY_SPECIES = ("VCD", "VCV", "Via", "Glc", "Gln", "Lac", "Amm", "Titer")
"""Species of CHO perfusion shown in tables for people; `scores.csv` has all."""

_MOST_SHOWN = 12
"""Columns that a table for people has room for."""


class Judged(NamedTuple):
    """Forecasts of runs left out, and everything they are judged by."""

    found: Validation
    """The forecasts, at the horizons."""
    ahead: Horizons
    """How far ahead."""
    scores: Skill
    """Of the model."""
    beside: Yardsticks
    """Of what costs nothing."""

    @property
    def verdict(self) -> Verdict:
        """What the model is fit for."""
        return verdict_of(
            self.scores,
            self.beside.nothing_changes,
            names=self.found.names,
            ahead=self.ahead.text(),
        )


def judged(found: Validation, ahead: Horizons) -> Judged:
    """Score forecasts of runs left out."""
    return Judged(found, ahead, skill(found.forecasts, found.readings), yardsticks_of(found))


def verdict_of(
    scores: Skill,
    naive: np.ndarray,
    *,
    names: tuple[str, ...] = FORECAST_SPECIES,
    ahead: str | None = None,
) -> Verdict:
    """What the model is fit for, over all horizons together.

    Args:
        scores: Of forecasts of runs left out.
        naive: Error (H, F) of the forecast that nothing changes, over the same spread.
        names: What is forecast, F of them.
        ahead: How far ahead, for people; days by default.
    """
    count = scores.n_readings.astype(float)

    def pooled(values: np.ndarray, power: int) -> tuple[float, ...]:
        """Mean over the horizons by readings; NaN where there are none."""
        counted = np.isfinite(values) & (count > 0)
        weight = np.where(counted, count, 0.0)
        total = np.sum(np.where(counted, values, 0.0) ** power * weight, axis=0)
        with np.errstate(invalid="ignore"):
            return tuple(((total / weight.sum(axis=0)) ** (1.0 / power)).tolist())

    text = f"1 to {scores.rrmse.shape[0]} d ahead" if ahead is None else ahead
    return Verdict(
        f"runs left out, {text}, error over the spread of the readings",
        tuple(names),
        pooled(scores.rrmse, 2),
        pooled(naive, 2),
        pooled(scores.coverage[0], 1),
    )


def shown_names(layout: Layout) -> tuple[str, ...]:
    """What tables for people show: of a described culture what is measured."""
    if layout.process is None:
        return KEY_SPECIES
    never = {layout.face[k] for k in layout.latent}
    return tuple(n for n in layout.forecast if n not in never)[:_MOST_SHOWN]


def unit_of(layout: Layout, name: str) -> str:
    """Unit of what is forecast."""
    return canonical_unit(name) if layout.process is None else layout.process.quantity(name).unit


def write_scores(judgement: Judged, layout: Layout, path: Path) -> None:
    """All figures by horizon and species as CSV; errors, widths, scores in the species' spread."""
    found, ahead, scores, beside = judgement
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            ("days_ahead", "species", "readings", "rrmse", "coverage_80", "coverage_95",
             "width_80", "width_95", "crps", "hours_ahead", "unit", "rrmse_persistence",
             "rrmse_trend", "wape")
        )  # fmt: skip
        for h, (days, hours) in enumerate(zip(ahead.days, ahead.hours, strict=True)):
            for k, name in enumerate(found.names):
                if not scores.n_readings[h, k]:
                    continue
                numbers = (
                    scores.rrmse[h, k],
                    *scores.coverage[:, h, k],
                    *scores.sharpness[:, h, k],
                    scores.crps[h, k],
                )
                others = (beside.nothing_changes[h, k], beside.trend[h, k], beside.wape[h, k])
                writer.writerow(
                    (
                        f"{days:g}",
                        name,
                        int(scores.n_readings[h, k]),
                        *(f"{v:.5g}" for v in numbers),
                        f"{hours:g}",
                        unit_of(layout, name),
                        *(f"{v:.5g}" if np.isfinite(v) else "" for v in others),
                    )
                )


def summary_of(judgement: Judged, layout: Layout) -> dict[str, Any]:
    """The same by name, as plain data; None where nothing was measured."""
    found, ahead, scores, beside = judgement

    def rounded(values: np.ndarray, digits: int) -> list[float | None]:
        return [round(float(v), digits) if np.isfinite(v) else None for v in values]

    def by_species(values: np.ndarray) -> dict[str, list[float | None]]:
        return {name: rounded(values[:, k], 5) for k, name in enumerate(found.names)}

    return {
        "days_ahead": list(ahead.days),
        "coverage_80": rounded(scores.pooled_coverage[0], 4),
        "coverage_95": rounded(scores.pooled_coverage[1], 4),
        "rrmse": by_species(scores.rrmse),
        "rrmse_persistence": by_species(beside.nothing_changes),
        "crps": by_species(scores.crps),
        "hours_ahead": list(ahead.hours),
        "rrmse_trend": by_species(beside.trend),
        "wape": by_species(beside.wape),
        "units": {name: unit_of(layout, name) for name in found.names},
    }


def number(value: float, digits: int = 2) -> str:
    """A figure, or a dash where nothing was measured."""
    return f"{value:.{digits}f}" if np.isfinite(value) else "–"


def with_nothing(error: float, nothing: float) -> str:
    """An error with that of "nothing changes" in brackets; one dash where there is neither."""
    if not (np.isfinite(error) or np.isfinite(nothing)):
        return "–"
    return f"{number(error)} ({number(nothing)})"


def share(scores: Skill, level: int, h: int) -> str:
    """Share of readings inside an interval in per cent, or a dash."""
    value = float(scores.pooled_coverage[level, h])
    return f"{100 * value:.0f} %" if np.isfinite(value) else "–"


def write_figures(judgement: Judged, layout: Layout, folder: Path) -> None:
    """Parity plots at the nearest and the furthest horizon, and the calibration figure."""
    from perfusio_jax.viz import calibration_figure, parity_figure, save_figure

    folder.mkdir(parents=True, exist_ok=True)
    found, ahead, scores, _ = judgement
    names = shown_names(layout)
    index = [found.names.index(n) for n in names]
    units: Mapping[str, str] | None = None
    if layout.process is not None:
        units = {n: unit_of(layout, n) for n in names}
    about = pick(found.forecasts, found.readings)
    mean, quantiles = np.asarray(found.forecasts.mean), np.asarray(found.forecasts.quantiles)
    for h in sorted({0, len(ahead.steps) - 1}):
        seen, forecast = (a[:, :, h][..., index].reshape(-1, len(index)) for a in (about, mean))
        ends = [quantiles[:, :, h][..., index, q].reshape(-1, len(index)) for q in (1, 3)]
        text = ahead.texts[h]
        figure = parity_figure(
            seen,
            forecast,
            names,
            steps=float(text),
            low=ends[0],
            high=ends[1],
            unit=ahead.unit,
            units=units,
        )
        save_figure(figure, folder / f"parity_{text}{ahead.unit}.png")
    place = np.asarray(found.forecasts.position)[..., index]
    place = place.reshape(-1, len(ahead.steps), len(index))
    cover = {0.8: scores.coverage[0][:, index], 0.95: scores.coverage[1][:, index]}
    figure = calibration_figure(place, cover, names, ahead=ahead.texts, unit=ahead.unit)
    save_figure(figure, folder / "calibration.png")
