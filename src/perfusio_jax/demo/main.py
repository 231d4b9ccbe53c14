"""Face of the demonstration: progress, table on the terminal, figures, summary."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from perfusio_jax._core import CONTROL_NAMES, FORECAST_SPECIES, ConfigError
from perfusio_jax.demo.run import (
    TARGET_VCV,
    DemoResult,
    demo_space,
    prepare_folder,
    run_seed,
    write_summary,
)

NAMES = {
    "twin": "twin",
    "centre": "fixed centre recipe",
    "bleed_trigger": "bleed trigger",
    "bleed_pi": "PI on bleed",
    "mpc": "MPC that knows the plant",
}


def run_demo(
    out: Path,
    *,
    seeds: Sequence[int],
    n_days: int,
    target: float | None,
    with_oracle: bool,
    console: Any,
) -> dict[str, Any]:
    """Run the demonstration and show what came of it.

    Args:
        out: Folder for everything; an older demonstration in it is replaced.
        seeds: One repetition per seed.
        n_days: Days of control [d].
        target: VCV [%]; the demonstration's own by default.
        with_oracle: Whether to run the controller that knows the plant as well.
        console: A rich console.

    Returns:
        What `summary.json` holds.

    Raises:
        RunLockedError: If a live process uses the folder.
        ConfigError: If the folder holds something else.
    """
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    aim = TARGET_VCV if target is None else float(target)
    try:
        demo_space(aim)
    except ConfigError as error:
        raise ConfigError(f"the target {aim:g} % cannot be used: {error}") from None
    prepare_folder(out)
    begun = time.perf_counter()
    results: list[DemoResult] = []
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting", total=None)
        for seed in seeds:
            folder = out if len(seeds) == 1 else out / f"seed{seed}"

            def say(text: str, seed: int = seed) -> None:
                prefix = f"seed {seed}: " if len(seeds) > 1 else ""
                progress.update(task, description=prefix + text)
                if text.startswith("day") or not console.is_terminal:
                    progress.console.print(f"{prefix}{text}")

            results.append(
                run_seed(
                    folder,
                    seed=seed,
                    n_days=n_days,
                    target=aim,
                    with_oracle=with_oracle,
                    say=say,
                )
            )
        progress.update(task, description="drawing")
        for result in results:
            draw(result)
    summary = write_summary(out, results, time.perf_counter() - begun)
    show(summary, console)
    console.print(
        f"everything is in {out}; check the record: perfusio-jax verify-audit {results[0].folder}",
        soft_wrap=True,
    )
    return summary


def draw(result: DemoResult) -> list[Path]:
    """Write the figures of one run into its folder.

    Returns:
        Paths of the pictures.
    """
    from perfusio_jax.viz import closed_loop_figure, tracking_error_figure

    folder = result.folder / "figures"
    folder.mkdir(exist_ok=True)
    days = result.days
    ahead = 2  # the third row of an outlook is three days after it was made
    kinds = ("mean", "q10", "q90", "reading_q10", "reading_q90")
    band: dict[str, dict[str, list[float]]] = {}
    for decision in result.decisions:
        if decision.day < result.startup_days:
            continue
        for k, name in enumerate(FORECAST_SPECIES):
            entry = band.setdefault(name, {"days": [], **{key: [] for key in kinds}})
            if decision.outlook.days[ahead] <= days[-1]:
                entry["days"].append(decision.outlook.days[ahead])
                for key in kinds:
                    entry[key].append(float(getattr(decision.outlook, key)[ahead, k]))
    setpoints = {n: np.array([u[n] for u in result.applied]) for n in CONTROL_NAMES}
    others = {
        NAMES[name]: {"days": days, "VCV": path}
        for name, path in result.vcv().items()
        if name != "twin"
    }
    space = demo_space(result.target)
    figure = closed_loop_figure(
        {
            "days": days,
            "measured": {s: result.measured[s] for s in ("VCV", "Via", "Glc", "Titer")},
            "truth": result.truth,
            "forecast": band,
            "forecast_label": "80 % forecast, 3 d ahead",
            "setpoints": setpoints,
            "targets": {"VCV": result.target},
            "limits": {"Via": (space.viability_min, None)},
            "start_day": result.startup_days,
        },
        others,
        title=f"Virtual reactor under the twin, seed {result.seed}",
    )
    errors = {NAMES[n]: np.asarray(t["by_day"]) for n, t in result.tracking().items()}
    second = tracking_error_figure(days, errors, start_day=result.startup_days)
    paths = [folder / "closed_loop.png", folder / "tracking_error.png"]
    for picture, path in zip((figure, second), paths, strict=True):
        picture.savefig(path, dpi=150)
    return paths


def show(summary: dict[str, Any], console: Any) -> None:
    """Print the comparison as a table."""
    from rich.table import Table

    pooled = summary["pooled"]
    table = Table(
        title=f"VCV held at {summary['target']['value']:g} % (noise-free, after start-up)"
    )
    table.add_column("controller")
    table.add_column("mean |error| [% VCV]", justify="right")
    for run in summary["runs"]:
        if len(summary["runs"]) > 1:
            table.add_column(f"seed {run['seed']}", justify="right")
    for name, error in sorted(pooled["error"].items(), key=lambda item: item[1]):
        cells = [f"{run['tracking'][name]['error']:.2f}" for run in summary["runs"]]
        table.add_row(NAMES[name], f"{error:.2f}", *(cells if len(cells) > 1 else ()))
    console.print(table)
    rrmse = float(np.mean([pooled["rrmse"][s] for s in ("VCD", "Via", "Glc", "Gln", "Lac", "Amm")]))
    console.print(
        f"3-day forecasts: rRMSE {rrmse:.3f} (mean of six species), 80 % intervals cover "
        f"{100 * pooled['coverage_80']:.0f} %; twin best in {pooled['wins']} of {pooled['seeds']}"
    )
    audit = summary["audit"]
    console.print(
        f"audit: {audit['records']} records, "
        f"{'verified' if audit['verified'] else 'NOT VERIFIED'}; "
        f"{summary['seconds']['total']:.0f} s in all"
    )
