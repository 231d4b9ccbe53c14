"""Face of the demonstration for a described culture: progress, table on the terminal, summary."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import perfusio_jax
from perfusio_jax._core import ConfigError
from perfusio_jax.connectors import plant_mechanism
from perfusio_jax.hybrid import layout_of
from perfusio_jax.process import read_process
from perfusio_jax.simulator import virtual_plant

from .described_run import (
    STARTUP_DAYS,
    DescribedResult,
    Held,
    Setting,
    aim_of,
    held_of,
    run_described_seed,
    usual_setting,
)
from .run import MARKER, prepare_folder

_NAMES = {"twin": "twin", "pi": "PI, tuned on the plant", "fixed": "set-points left as they are"}


def run_described_demo(
    out: Path,
    which: str,
    *,
    mechanism: str | None,
    goal: str | None,
    limits: Sequence[str],
    lever: str | None,
    seeds: Sequence[int],
    n_days: int,
    every_h: float,
    console: Any,
) -> dict[str, Any]:
    """Drive a virtual plant of a described culture through files and show what came of it.

    Args:
        out: Folder for everything; an older demonstration in it is replaced.
        which: A built-in name, or a file that ends in .toml.
        mechanism: The plant's, `monod` or `module:Class`; `monod` if None.
        goal: What is wanted; the biomass is held where past runs ended, by default.
        limits: Limits in words.
        lever: Control that the PI controller moves.
        seeds: One repetition per seed.
        n_days: Days of control [d].
        every_h: Hours between samples [h].
        console: A rich console.

    Returns:
        What `summary.json` holds.

    Raises:
        RunLockedError: If a live process uses the folder.
        ConfigError: If there is no such culture, goal, limit, lever or mechanism, or the folder
            holds something else.
    """
    process = read_process(which)
    setting = usual_setting(
        virtual_plant(process, plant_mechanism(process, mechanism)),
        interval_h=every_h,
        n_days=n_days,
    )
    if setting.first * every_h != STARTUP_DAYS * 24.0:
        raise ConfigError(
            f"--every {every_h:g}: a day has to be a whole number of samples (24, 12, 8, 6, ... h)."
        )
    layout_of(process)  # refuses what cannot be modelled before the work
    if goal is not None:
        held_of(aim_of(goal, process, []), process, lever)
    prepare_folder(out)
    begun, found = time.perf_counter(), []
    with console.status("starting") as status:

        def say(text: str) -> None:
            status.update(text)
            if not console.is_terminal or text.startswith("day"):
                console.print(text, soft_wrap=True)

        for seed in seeds:
            folder = out if len(seeds) == 1 else out / f"seed{seed}"
            found.append(
                run_described_seed(
                    folder,
                    setting,
                    seed=seed,
                    goal=goal,
                    limits=limits,
                    lever=lever,
                    say=say,
                )
            )
    summary = summary_of(setting, found, time.perf_counter() - begun)
    (out / MARKER).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    show(summary, console)
    console.print(
        f"everything is in {out}; decide it again: perfusio-jax replay {found[0][0].folder}",
        soft_wrap=True,
    )
    return summary


def summary_of(
    setting: Setting, found: Sequence[tuple[DescribedResult, Any, Held | None]], seconds: float
) -> dict[str, Any]:
    """What `summary.json` of a described demonstration holds; see docs/contracts.md."""
    process, runs = setting.process, []
    for result, objective, held in found:
        tables = {"twin": result.truth, **result.rivals}
        runs.append(
            {
                "seed": result.seed,
                "folder": result.folder.name,
                "goal": objective.goals[0],
                "lever": None if held is None else held.lever,
                "error": None if held is None else result.errors(setting, held),
                "final": {
                    name: dict(zip(process.readings, map(_number, table[-1]), strict=True))
                    for name, table in tables.items()
                },
                "tuned": result.tuned,
                "audit_verified": result.verified,
            }
        )
    errors = [run["error"] for run in runs if run["error"] is not None]
    pooled = None
    if errors:
        pooled = {
            "error": {name: float(np.mean([e[name] for e in errors])) for name in errors[0]},
            "wins": sum(e["twin"] < e["pi"] for e in errors),
            "seeds": len(errors),
        }
    return {
        "schema_version": 1,
        "version": perfusio_jax.__version__,
        "name": "demo",
        "process": process.name,
        "start_up_days": STARTUP_DAYS,
        "seeds": [run["seed"] for run in runs],
        "runs": runs,
        "pooled": pooled,
        "seconds": {"total": seconds},
    }


def show(summary: dict[str, Any], console: Any) -> None:
    """Print what came of it as a table."""
    from rich.table import Table

    runs = summary["runs"]
    goal, pooled = runs[0]["goal"], summary["pooled"]
    table = Table(title=f"{summary['process']}: {goal} (noise-free, after start-up)")
    table.add_column("controller")
    if pooled is not None:
        table.add_column("mean |error|", justify="right")
        for run in runs if len(runs) > 1 else ():
            table.add_column(f"seed {run['seed']}", justify="right")
        for name, error in sorted(pooled["error"].items(), key=lambda item: item[1]):
            each = [f"{run['error'][name]:.3g}" for run in runs]
            table.add_row(_NAMES[name], f"{error:.3g}", *(each if len(each) > 1 else ()))
    else:
        names = list(runs[0]["final"]["twin"])
        for name in names:
            table.add_column(f"{name} at the end", justify="right")
        for controller in runs[0]["final"]:
            means = [np.mean([run["final"][controller][n] for run in runs]) for n in names]
            table.add_row(_NAMES[controller], *(f"{v:.3g}" for v in means))
    console.print(table)
    verified = all(run["audit_verified"] for run in runs)
    console.print(
        f"audit: {'verified' if verified else 'NOT VERIFIED'}; "
        f"{summary['seconds']['total']:.0f} s in all"
    )


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
