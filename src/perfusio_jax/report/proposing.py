"""`perfusio-jax propose`: the runs so far in, the next runs out."""

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import ValidationError

from perfusio_jax._core import CONTROL_NAMES, FORECAST_SPECIES, ConfigError, DataError
from perfusio_jax._core.limits import TABLE_BYTES, read_file, read_toml
from perfusio_jax._core.text import plain_number
from perfusio_jax._core.units import canonical_unit
from perfusio_jax.bed import ChanceConstraint, control_limits
from perfusio_jax.bed.campaign import (
    CampaignSettings,
    explain_campaign,
    propose_runs,
    start_state,
)
from perfusio_jax.bed.criteria import (
    Criterion,
    FinalValue,
    MediumPerGram,
    ProcessOFV,
    SpaceTimeYield,
    TrackingError,
)
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE, DesignSpace
from perfusio_jax.connectors import read_campaign
from perfusio_jax.connectors.packed import check_text
from perfusio_jax.hybrid import HybridConfig, draw_paths, fit_hybrid, for_clone
from perfusio_jax.states import Trajectory

GOALS = ("titre", "vcv", "front", "yield", "medium")
"""Titre at the end; VCV on its target; front of titre and -ammonium; space-time yield; medium
per gram."""

N_PATHS = 64
_COMPILE_SECONDS = 40.0
_AMMONIUM = FORECAST_SPECIES.index("Amm")


class Wishes(NamedTuple):
    """What the next runs should be like."""

    goal: str = "titre"
    """One of `GOALS`."""
    n_runs: int = 8
    days: int | None = None
    """Length of a run [d]; that of the longest so far."""
    target: float | None = None
    """VCV target [%]; the design space's."""
    viability: float | None = None
    """Lowest viability [%]; the design space's."""
    ammonium: float | None = None
    """Highest ammonium [mmol/L]; no limit by default."""
    probability: float = 0.8
    """With which limits are to be kept on every day [-]."""
    fixed: Mapping[str, float] = {}
    """Set-points held at a value, by name."""
    clone: str | None = None
    """Clone to plan for, where the file holds several; that of the last run."""
    seed: int = 0


def propose_file(
    runs: Path,
    *,
    wishes: Wishes,
    pending: Path | None,
    space: Path | None,
    out: Path,
    console: Any,
    settings: CampaignSettings | None = None,
    config: HybridConfig | None = None,
) -> dict[str, Any]:
    """Read runs, fit, propose the next ones, write them and say why.

    Args:
        runs: Campaign table.
        wishes: What is wanted.
        pending: Table of recipes that are running, as this command writes it.
        space: TOML file with a table `[design_space]`; the default one if None.
        out: CSV file to write.
        console: Where to print.
        settings: Sizes of the search.
        config: Settings of the fit.

    Returns:
        The explanation.

    Raises:
        DataError: If the runs cannot train a model.
        ConfigError: If a wish is unusable, or no recipe keeps the limits.
    """
    settings = CampaignSettings() if settings is None else settings
    design = read_space(space)
    names = list(design.control_names)
    wrong = [n for n in wishes.fixed if n not in names]
    if wrong:
        raise ConfigError(f"--set names unknown controls {wrong}; allowed are {names}.")
    if sorted(names) != sorted(CONTROL_NAMES):
        raise ConfigError(
            f"the design space has the controls {names}; all of {list(CONTROL_NAMES)} are needed. "
            "Hold one with --set name=value."
        )
    table = read_campaign(runs)
    console.print(str(table.report), soft_wrap=True)
    trajectories = [t for t in table.trajectories if t.n_days >= 2]
    if len(trajectories) < 2:
        raise DataError(
            f"{runs} holds {len(trajectories)} run(s) with at least two samples; two or more are "
            "needed to learn from, better eight spread over the design space."
        )
    days = wishes.days or max(round(float(t.times_h[-1]) / 24.0) for t in trajectories)
    ofv = objective(wishes, design, days)
    chance = limits_of(wishes, design)
    recipes, changed = recipes_of(trajectories, names)
    for line in changed:
        console.print(line, soft_wrap=True)
    waiting = np.zeros((0, len(names))) if pending is None else read_recipes(pending, names)
    fixed = {names.index(name): value for name, value in wishes.fixed.items()}

    _announce(console, 4.0 + 0.3 * len(trajectories))
    model, _ = fit_hybrid(
        trajectories,
        key=jax.random.key(wishes.seed),
        config=HybridConfig() if config is None else config,
    )
    if model.embedding is not None:
        clone = wishes.clone or trajectories[-1].clone_id
        console.print(f"planning for clone {clone}")
        model = for_clone(model, clone)
    positions = tuple(CONTROL_NAMES.index(name) for name in names)
    is_plain = positions == tuple(range(len(CONTROL_NAMES)))
    U, info = propose_runs(
        model,
        draw_paths(model, N_PATHS, key=jax.random.key(wishes.seed), max_steps=days),
        jnp.asarray(start_state(trajectories)),
        jnp.asarray(recipes),
        ofv=ofv,
        limits=control_limits(design),
        q=wishes.n_runs,
        chance=chance,
        pending=waiting,
        settings=settings,
        seed=wishes.seed,
        template=None if is_plain else jnp.zeros(len(CONTROL_NAMES)),
        positions=() if is_plain else positions,
        fixed=fixed,
        say=lambda line: console.print(line, soft_wrap=True),
    )
    found = explain_campaign(info, ofv, chance, names)
    if not found["is_feasible"]:
        wanted = " and ".join(c["limit"] for c in found["constraints"])
        raise ConfigError(
            f"no recipe was found that keeps {wanted} on every day with probability "
            f"{wishes.probability:g}; the best of {found['n_rollouts']} keeps it with probability "
            f"{found['best_probability']:.2f}. Relax --viability, --ammonium or --probability, or "
            "widen the design space."
        )
    write_recipes(out, np.asarray(U), names, trajectories, found)
    for line in in_words(found, np.asarray(U), names):
        console.print(line, soft_wrap=True)
    console.print(f"proposed runs: {out}")
    return found


def _announce(console: Any, seconds: float) -> None:
    """Say how long fitting takes; the search says so itself."""
    console.print(
        f"fitting: about {math.ceil(seconds / 5) * 5} s, and up to {_COMPILE_SECONDS:g} s more "
        "the first time on this machine (compiling)",
        soft_wrap=True,
    )


def read_space(path: Path | None) -> DesignSpace:
    """Design space of a TOML file.

    Raises:
        ConfigError: If there is no usable table `[design_space]`.
    """
    if path is None:
        return DEFAULT_AMBR250_DESIGN_SPACE
    if not path.is_file():
        raise ConfigError(f"{path} is not a file; name a TOML file with a table [design_space].")
    try:
        tables = read_toml(path)
        if "design_space" not in tables:
            raise ConfigError(f"{path} holds no table [design_space].")
        return DesignSpace(**tables["design_space"])
    except (ValidationError, TypeError) as error:
        raise ConfigError(f"{path}: {error}") from None


def objective(wishes: Wishes, design: DesignSpace, days: int) -> ProcessOFV:
    """The goal as an objective over a whole run.

    Raises:
        ConfigError: If the goal is unknown, or has no target.
    """
    if wishes.goal not in GOALS:
        raise ConfigError(f"goal {wishes.goal!r} is unknown; choose from {', '.join(GOALS)}.")
    if days < 1 or wishes.n_runs < 1:
        raise ConfigError(f"{wishes.n_runs} runs of {days} days; both must be at least 1.")
    settled = days // 2
    if wishes.goal == "front":
        both = [FinalValue("Titer"), FinalValue("Amm", direction=-1)]
        return ProcessOFV(both, horizon=days, is_pareto=True)
    target = design.vcv_target if wishes.target is None else wishes.target
    if wishes.goal == "vcv" and (target is None or not math.isfinite(target) or target <= 0):
        raise ConfigError(f"goal vcv needs a target above 0; given: {target}. Use --target.")
    one: Criterion = {
        "titre": lambda: FinalValue("Titer"),
        "vcv": lambda: TrackingError("VCV", target or 0.0, from_day=settled),
        "yield": lambda: SpaceTimeYield(settled),
        "medium": lambda: MediumPerGram(settled),
    }[wishes.goal]()
    return ProcessOFV([one], horizon=days)


def limits_of(wishes: Wishes, design: DesignSpace) -> tuple[ChanceConstraint, ...]:
    """Limits to be kept on every day.

    Raises:
        ConfigError: If one is unusable.
    """
    low = design.viability_min if wishes.viability is None else wishes.viability
    if not 0.0 <= low < 100.0:
        raise ConfigError(f"--viability {low:g} must lie from 0 to below 100 %.")
    if not 0.0 < wishes.probability < 1.0:
        raise ConfigError(f"--probability {wishes.probability:g} must lie between 0 and 1.")
    limits = [ChanceConstraint(low, wishes.probability)]
    if wishes.ammonium is not None:
        if not wishes.ammonium > 0.0:
            raise ConfigError(f"--ammonium {wishes.ammonium:g} must be above 0 mmol/L.")
        limits.append(
            ChanceConstraint(
                wishes.ammonium,
                wishes.probability,
                species_index=_AMMONIUM,
                is_upper=True,
                temperature=0.05,
                backoff=0.15,
            )
        )
    return tuple(limits)


def recipes_of(trajectories: list[Trajectory], names: list[str]) -> tuple[np.ndarray, list[str]]:
    """Set-points of each run, and a line per run that changed them on the way."""
    recipes, lines = [], []
    for run in trajectories:
        have = list(run.control_names)
        table = np.asarray(run.controls, float)
        hours = np.diff(np.asarray(run.times_h, float))
        held = table[: len(hours)]
        mean = hours @ held / hours.sum()
        recipes.append([mean[have.index(name)] for name in names])
        moved = [
            name
            for name in names
            if np.ptp(held[:, have.index(name)]) > 1e-6 * max(abs(mean[have.index(name)]), 1.0)
        ]
        if moved:
            lines.append(
                f"run {run.run_id} changed {', '.join(moved)} on the way; it counts with their "
                "mean over time"
            )
    return np.asarray(recipes), lines


def read_recipes(path: Path, names: list[str]) -> np.ndarray:
    """Recipes from a table with a column per control; a row of units is passed over.

    Args:
        path: CSV file, as `write_recipes` writes it.
        names: Controls, in the order wanted.

    Returns:
        One recipe per row, canonical units; none if the table holds its header only.

    Raises:
        DataError: If the file cannot be read so.
    """
    if not path.is_file():
        raise DataError(f"pending runs {path} is not a file.")
    try:
        text = read_file(path, most=TABLE_BYTES).decode("utf-8-sig")
        check_text(text, ",")
        reader = csv.DictReader(io.StringIO(text, newline=""))
        rows = list(reader)
        header = reader.fieldnames
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"pending runs {path} are no table of text: {error}.") from None
    if not header:
        raise DataError(f"{path} is empty; a table of recipes has at least its header.")
    lost = [n for n in names if n not in header]
    if lost:
        raise DataError(f"{path} lacks the columns {', '.join(lost)}.")
    out = []
    for number, row in enumerate(rows, start=2):
        if number == 2 and all(row[n] == canonical_unit(n) for n in names):
            continue
        try:
            values = [plain_number(row[name]) for name in names]
        except (TypeError, ValueError):
            raise DataError(f"{path}, line {number}: not a number for every control.") from None
        if not np.isfinite(values).all():
            raise DataError(f"{path}, line {number}: not a finite number for every control.")
        out.append(values)
    return np.asarray(out, float).reshape(-1, len(names))


def write_recipes(
    path: Path,
    U: np.ndarray,
    names: list[str],
    trajectories: list[Trajectory],
    found: Mapping[str, Any],
) -> None:
    """Proposed runs as CSV: names, units, one row per run."""
    taken = {t.run_id for t in trajectories}
    ids: list[str] = []
    number = len(trajectories)
    while len(ids) < len(U):
        number += 1
        if f"NEXT{number:03d}" not in taken:
            ids.append(f"NEXT{number:03d}")
    labels = list(found["best_expected"])
    header = ["run_id", "clone_id", *names]
    units = ["", "", *(canonical_unit(n) for n in names)]
    for label in labels:
        header += [f"{label}: {what}" for what in ("expected", "10 %", "90 %")]
        units += ["", "", ""]
    header += [f"P({c['limit']})" for c in found["constraints"]]
    units += [""] * len(found["constraints"])
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerow(units)
        for name, u, run in zip(ids, U, found["runs"], strict=True):
            cells = [f"{v:.6g}" for v in u]
            for label in labels:
                cells += [f"{run[what][label]:.5g}" for what in ("expected", "q10", "q90")]
            cells += [f"{p:.3f}" for p in run["probability_kept"]]
            writer.writerow([name, trajectories[-1].clone_id, *cells])


def in_words(found: Mapping[str, Any], U: np.ndarray, names: list[str]) -> list[str]:
    """The explanation, one sentence or two per line."""
    lines = []
    for label, value in found["best_expected"].items():
        text = f"{label}: best expected {value:.4g}"
        if found["best_of_runs_so_far"]:
            text += f"; of the runs so far {found['best_of_runs_so_far'][label]:.4g}"
        lines.append(text)
    for limit in found["constraints"]:
        text = (
            f"{limit['limit']} on every day with probability {limit['probability']:g}: "
            f"{100 * limit['share_of_space']:.0f} % of the design space keeps it"
        )
        for label, value in limit["best_without"].items():
            best = found["best_expected"][label]
            if abs(value - best) > 1e-3 * max(abs(best), 1e-9):
                text += f"; without it {label} could be {value:.4g}"
            else:
                text += f"; it costs nothing in {label}"
        lines.append(text)
    for k, (run, u) in enumerate(zip(found["runs"], U, strict=True), start=1):
        recipe = ", ".join(f"{n} {v:.4g}" for n, v in zip(names, u, strict=True))
        values = ", ".join(
            f"{label} {run['expected'][label]:.4g} "
            f"({run['q10'][label]:.4g} to {run['q90'][label]:.4g})"
            for label in run["expected"]
        )
        held = [f"{n} at its lower bound" for n in run["at_lower_bound"]]
        held += [f"{n} at its upper bound" for n in run["at_upper_bound"]]
        kept = ", ".join(f"{p:.2f}" for p in run["probability_kept"])
        lines.append(f"{k}. {recipe}")
        lines.append(f"   {values}; limits kept with probability {kept}")
        if held:
            lines.append(f"   {', '.join(held)}")
    return lines
