"""`perfusio-jax validate`: leave runs out, forecast them, write down how good that was."""

import csv
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

import perfusio_jax
from perfusio_jax._core import FORECAST_SPECIES, HOURS_PER_DAY, STATE_ORDER
from perfusio_jax._core.text import shown as fit_to_show
from perfusio_jax._core.units import canonical_unit
from perfusio_jax.connectors import read_campaign
from perfusio_jax.hybrid import (
    CALIBRATED,
    TOLERANCE_H,
    HybridConfig,
    HybridStateSpaceModel,
    Skill,
    Validation,
    Verdict,
    coverage_band,
    cross_validate,
    fit_hybrid,
    pick,
    save,
    skill,
    spread_of,
    write_verdict,
)
from perfusio_jax.states import (
    Trajectory,
    complete_setpoints,
    intervals_text,
    sampling_intervals,
)

KEY_SPECIES = ("VCD", "VCV", "Via", "Glc", "Gln", "Lac", "Amm", "Titer")
"""Species shown in tables for people; `scores.csv` has all."""


def persistence_error(found: Validation, *, horizon: int) -> np.ndarray:
    """Error (H, 12) of the forecast that nothing changed since the start's sample."""
    about = pick(found.forecasts, found.readings)
    rows = np.arange(found.readings.shape[0])[:, None]
    last = _last_seen(found.readings)[rows, np.asarray(found.forecasts.start)]
    square = (last[:, :, None, :] - about) ** 2
    seen = np.isfinite(square)
    with np.errstate(invalid="ignore"):
        error = np.where(seen, square, 0.0).sum(axis=(0, 1)) / seen.sum(axis=(0, 1))
    return np.sqrt(error)[:horizon] / spread_of(found.readings)


def _last_seen(readings: np.ndarray) -> np.ndarray:
    out = readings.copy()
    for t in range(1, out.shape[1]):
        out[:, t] = np.where(np.isnan(out[:, t]), out[:, t - 1], out[:, t])
    return out


def verdict_of(scores: Skill, naive: np.ndarray) -> Verdict:
    """What the model is fit for, over all days ahead together.

    Args:
        scores: Of forecasts of runs left out.
        naive: Error (H, 12) of the forecast that nothing changes, over the same spread.
    """
    count = scores.n_readings.astype(float)

    def pooled(values: np.ndarray, power: int) -> tuple[float, ...]:
        """Mean over the days ahead by readings; NaN where there are none."""
        counted = np.isfinite(values) & (count > 0)
        weight = np.where(counted, count, 0.0)
        total = np.sum(np.where(counted, values, 0.0) ** power * weight, axis=0)
        with np.errstate(invalid="ignore"):
            return tuple(((total / weight.sum(axis=0)) ** (1.0 / power)).tolist())

    horizon = scores.rrmse.shape[0]
    return Verdict(
        f"runs left out, 1 to {horizon} d ahead, error over the spread of the readings",
        tuple(FORECAST_SPECIES),
        pooled(scores.rrmse, 2),
        pooled(naive, 2),
        pooled(scores.coverage[0], 1),
    )


def _number(value: float, digits: int = 2) -> str:
    """A figure, or a dash where nothing was measured."""
    return f"{value:.{digits}f}" if np.isfinite(value) else "–"


def _beside(error: float, nothing: float) -> str:
    """An error with that of "nothing changes" in brackets; one dash where there is neither."""
    if not (np.isfinite(error) or np.isfinite(nothing)):
        return "–"
    return f"{_number(error)} ({_number(nothing)})"


def _share(scores: Skill, level: int, h: int) -> str:
    """Share of readings inside an interval in per cent, or a dash."""
    share = float(scores.pooled_coverage[level, h])
    return f"{100 * share:.0f} %" if np.isfinite(share) else "–"


def write_scores(scores: Skill, path: Path) -> None:
    """All figures by day ahead and species as CSV; widths and scores in the species' spread."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            ("days_ahead", "species", "readings", "rrmse", "coverage_80", "coverage_95",
             "width_80", "width_95", "crps")
        )  # fmt: skip
        for h in range(scores.rrmse.shape[0]):
            for k, name in enumerate(FORECAST_SPECIES):
                if not scores.n_readings[h, k]:
                    continue
                numbers = (
                    scores.rrmse[h, k],
                    *scores.coverage[:, h, k],
                    *scores.sharpness[:, h, k],
                    scores.crps[h, k],
                )
                cells = [f"{v:.5g}" for v in numbers]
                writer.writerow((h + 1, name, int(scores.n_readings[h, k]), *cells))


def model_card(
    trajectories: list[Trajectory],
    model: HybridStateSpaceModel,
    report: Any,
    found: tuple[Validation, Skill, np.ndarray],
    source: str,
) -> str:
    """What the model is, what it learned from, and how far it can be believed, in Markdown."""
    checked, scores, naive = found
    times = [np.asarray(t.times_h, float) for t in trajectories]
    days = [round(float(t[-1] - t[0]) / HOURS_PER_DAY, 1) for t in times]
    apart = intervals_text(sampling_intervals(trajectories))
    clones = sorted({t.clone_id for t in trajectories})
    columns = [np.asarray(t.select_species(STATE_ORDER, missing_ok=True)) for t in trajectories]
    missing = np.mean([np.mean(np.isnan(c)) for c in columns])
    n_folds = int(checked.fold_of_run.max()) + 1
    horizon = scores.rrmse.shape[0]
    lines = [
        "# Model card",
        "",
        f"Hybrid model fitted by perfusio-jax {perfusio_jax.__version__} to `{source}`.",
        "",
        verdict_of(scores, naive).line().replace("verdict", "**Verdict**", 1),
        "",
        "## Data",
        "",
        f"- {len(trajectories)} runs of {min(days):g} to {max(days):g} d, clones "
        f"{', '.join(clones)}; samples {apart}; {report.details['rows']} intervals.",
        f"- {100 * missing:.1f} % of the state readings are missing.",
        "",
        "## Model",
        "",
        "- Mechanistic prior (Monod growth, Pirt maintenance, Luedeking-Piret product), its "
        "constants calibrated to the data; Gaussian process on the residual rates; ensemble "
        "Kalman filter for the state.",
        f"- Search: {report.optimiser}, {int(report.n_iterations)} iterations, "
        f"{'converged' if report.converged else '**not converged**'}; log evidence "
        f"{float(report.log_evidence):.1f}.",
    ]
    moved = report.details.get("calibration") or []
    names = clones if len(moved) > 1 else ["all runs"]
    for name, info in zip(names, moved, strict=False):
        factors = np.exp(np.asarray(info.constants)[:-1])
        order = np.argsort(-np.abs(np.log(factors)))[:6]
        text = ", ".join(f"{CALIBRATED[i]} x {factors[i]:.2f}" for i in order)
        lines.append(f"- Constants moved most ({name}): {text}.")
    if report.at_bounds:
        lines.append(f"- At the edge of what is sensible: {', '.join(report.at_bounds)}.")
    lines += [
        "",
        "## Forecasts of runs left out",
        "",
        f"{n_folds} folds, whole runs left out; forecast from every sample, compared with readings "
        f"(assay noise included). A forecast is made for the hour of its reading; one within "
        f"{TOLERANCE_H:g} h of a whole number of days ahead counts for that day.",
        "",
        "| days ahead | readings in 80 % | readings in 95 % | "
        + " | ".join(f"rRMSE {n}" for n in KEY_SPECIES)
        + " |",
        "|---:|---:|---:|" + "---:|" * len(KEY_SPECIES),
    ]
    index = [FORECAST_SPECIES.index(n) for n in KEY_SPECIES]
    for h in range(horizon):
        inside = [_share(scores, level, h) for level in (0, 1)]
        values = [_beside(scores.rrmse[h, k], naive[h, k]) for k in index]
        lines.append(f"| {h + 1} | " + " | ".join([*inside, *values]) + " |")
    nis = ", ".join(f"{v:.2f}" for v in checked.nis)
    lines += [
        "",
        "rRMSE is the root mean square error over the spread of the readings; in brackets the "
        "forecast that nothing changes; a dash where nothing was measured. Forecasts cannot be "
        "better than the assay.",
        "",
        _cells(checked, scores),
        "",
        f"Filter: mean normalised innovation per reading in training, by fold: {nis} (1 = noise "
        "and model are as assumed; below 1 = intervals rather wide).",
        "",
        "## Limits",
        "",
        "- Valid inside the ranges of the training set-points: "
        + "; ".join(_ranges(trajectories))
        + ".",
        "- Intervals widen outside these ranges, but the mechanism's form is then unproven.",
        f"- One scale and one medium, sampled {apart}; others need new data.",
        "",
    ]
    return "\n".join(lines)


def _cells(checked: Validation, scores: Skill) -> str:
    """Which species on which day are covered otherwise than they should be."""
    if checked.readings.shape[0] < 2:
        return "One run alone says nothing about single species."
    band = coverage_band(checked.forecasts, checked.readings)
    nominal = np.asarray([0.8, 0.95])[:, None, None]
    away = np.abs(scores.coverage - nominal) / band.half_width
    if not np.isfinite(away).any():
        return "No reading lies near a whole number of days after another: no day can be judged."
    # cells without readings have no band
    which, h, k = np.unravel_index(np.nanargmax(away), away.shape)
    worst = (
        f"{FORECAST_SPECIES[k]} {h + 1} d ahead, {100 * scores.coverage[which, h, k]:.0f} % in the "
        f"{(80, 95)[which]} % interval (band: {100 * band.half_width[which, h, k]:.0f} % to either "
        "side)"
    )
    return (
        f"Single cells (species x day ahead x interval): {int(band.is_outside.sum())} of "
        f"{int(np.isfinite(band.half_width).sum())} lie outside their simultaneous 95 % band "
        f"(bootstrap over runs). The furthest: {worst}."
    )


def _ranges(trajectories: list[Trajectory]) -> list[str]:
    names = trajectories[0].control_names
    table = np.concatenate([np.asarray(t.controls) for t in trajectories])
    low, high = np.nanmin(table, axis=0), np.nanmax(table, axis=0)
    return [
        f"{n} {a:.4g} to {b:.4g} {canonical_unit(n)}"
        for n, a, b in zip(names, low, high, strict=True)
    ]


def validate_campaign(
    campaign: Path,
    out: Path,
    *,
    n_folds: int,
    horizon: int,
    seed: int,
    console: Any,
    config: HybridConfig | None = None,
    mech_model: Any = None,
    fill_down: bool = False,
) -> None:
    """Cross-validate on a campaign table and write scores, figures, model and model card.

    Args:
        campaign: Campaign table.
        out: Folder for the results.
        n_folds: Number of folds.
        horizon: Days ahead.
        seed: Random seed.
        console: Where to print.
        config: Settings of the fits.
        mech_model: Mechanistic prior; `CHOPerfusionModel()` by default.
        fill_down: Whether a blank set-point means that the one before it stayed.
    """
    from rich.table import Table

    table = read_campaign(campaign)
    console.print(str(table.report), soft_wrap=True)
    complete, told = complete_setpoints(table.trajectories, fill_down=fill_down)
    table = table._replace(trajectories=complete)
    for line in told:
        console.print(line, soft_wrap=True)
    runs = table.trajectories
    console.print(f"samples {intervals_text(sampling_intervals(runs))}.", soft_wrap=True)
    n_folds = min(n_folds, len(runs))
    with console.status("compiling and running the first fold") as status:

        def tell(fold: int, count: int) -> None:
            kind = "compiling and running" if fold == 0 else "running"
            status.update(f"{kind} fold {fold + 1} of {count}")
            if not console.is_terminal:
                console.print(f"fold {fold + 1} of {count}")

        found = cross_validate(
            runs,
            key=jax.random.key(seed),
            config=config,
            n_folds=n_folds,
            horizon=horizon,
            mech_model=mech_model,
            on_fold=tell,
        )
        status.update("fitting to all runs")
        model, report = fit_hybrid(
            runs, key=jax.random.key(seed), config=config, mech_model=mech_model
        )
    scores = skill(found.forecasts, found.readings)
    naive = persistence_error(found, horizon=horizon)
    out.mkdir(parents=True, exist_ok=True)
    write_scores(scores, out / "scores.csv")
    card = model_card(runs, model, report, (found, scores, naive), campaign.name)
    (out / "model_card.md").write_text(fit_to_show(card), encoding="utf-8")
    verdict = verdict_of(scores, naive)
    summary = {**_summary(scores, naive), "verdict": verdict.as_dict()}
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    write_verdict(verdict, model, save(model, out / "model"))
    write_figures(found, scores, out / "figures", horizon)
    steps = sorted({0, min(2, horizon - 1), horizon - 1})
    shown = Table(title=f"{n_folds} folds, runs left out: rRMSE (in brackets: nothing changes)")
    shown.add_column("species")
    for h in steps:
        shown.add_column(f"{h + 1} d ahead", justify="right")
    for name in KEY_SPECIES:
        k = FORECAST_SPECIES.index(name)
        shown.add_row(name, *(_beside(scores.rrmse[h, k], naive[h, k]) for h in steps))
    for row, level in enumerate((80, 95)):
        shown.add_row(f"in {level} %", *(_share(scores, row, h) for h in steps))
    console.print(shown)
    console.print(verdict.line(), soft_wrap=True)
    console.print(f"model card, scores, figures and model: {out}")


def _summary(scores: Skill, naive: np.ndarray) -> dict[str, Any]:
    def rounded(values: np.ndarray, digits: int) -> list[float | None]:
        return [None if np.isnan(v) else round(float(v), digits) for v in values]

    def by_species(values: np.ndarray) -> dict[str, list[float | None]]:
        return {name: rounded(values[:, k], 5) for k, name in enumerate(FORECAST_SPECIES)}

    return {
        "days_ahead": list(range(1, scores.rrmse.shape[0] + 1)),
        "coverage_80": rounded(scores.pooled_coverage[0], 4),
        "coverage_95": rounded(scores.pooled_coverage[1], 4),
        "rrmse": by_species(scores.rrmse),
        "rrmse_persistence": by_species(naive),
        "crps": by_species(scores.crps),
    }


def write_figures(found: Validation, scores: Skill, folder: Path, horizon: int) -> None:
    """Parity plots one and `horizon` days ahead, and the calibration figure."""
    from perfusio_jax.viz import calibration_figure, parity_figure, save_figure

    folder.mkdir(parents=True, exist_ok=True)
    about = pick(found.forecasts, found.readings)
    index = [FORECAST_SPECIES.index(n) for n in KEY_SPECIES]
    mean, quantiles = np.asarray(found.forecasts.mean), np.asarray(found.forecasts.quantiles)
    for h in sorted({0, horizon - 1}):
        seen, forecast = (a[:, :, h][..., index].reshape(-1, len(index)) for a in (about, mean))
        ends = [quantiles[:, :, h][..., index, q].reshape(-1, len(index)) for q in (1, 3)]
        figure = parity_figure(seen, forecast, KEY_SPECIES, steps=h + 1, low=ends[0], high=ends[1])
        save_figure(figure, folder / f"parity_{h + 1}d.png")
    place = np.asarray(found.forecasts.position)[..., index]
    place = place.reshape(-1, horizon, len(index))
    cover = {0.8: scores.coverage[0][:, index], 0.95: scores.coverage[1][:, index]}
    save_figure(calibration_figure(place, cover, KEY_SPECIES), folder / "calibration.png")
