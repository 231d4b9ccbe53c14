"""The whole demonstration: campaign, fit, start-up, control, judgement.

The twin sees `campaign.csv`, `samples.csv` and `setpoints.csv`, and nothing else of the plant.
"""

import asyncio
import contextlib
import datetime as dt
import fnmatch
import json
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import tomli_w

import perfusio_jax
from perfusio_jax._core import CONTROL_NAMES, FORECAST_SPECIES, ConfigError
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE, DesignSpace, RunConfig
from perfusio_jax.connectors import FilesystemStore, read_campaign, write_campaign
from perfusio_jax.demo.baselines import Loop, run_baselines
from perfusio_jax.demo.evaluate import ForecastScore, score_forecasts
from perfusio_jax.demo.rig import FileReactor
from perfusio_jax.hybrid import HybridStateSpaceModel, fit_hybrid, save
from perfusio_jax.mechanistic import CHOPerfusionModel, controls_from_dict
from perfusio_jax.simulator import (
    CHOSimulator,
    NoiseModel,
    campaign_design,
    initial_state,
    simulate_campaign,
    to_trajectories,
    virtual_reactor,
)
from perfusio_jax.twin import AlarmNotifier, DigitalTwin, verify_audit

Say = Callable[[str], None]

TARGET_VCV: Final[float] = 16.0
"""Target of the demonstration [%]; the centre recipe settles near 14."""

STARTUP_DAYS: Final[int] = 4
"""Days on the start-up recipe before control begins [d]."""

STARTUP_RECIPE: Final[Mapping[str, float]] = {
    "perfusion_rate": 1.25,
    "bleed_rate": 0.175,
    "glucose_setpoint": 5.0,
    "temperature": 36.25,
    "agitation": 875.0,
    "pyruvate_feed": 2.5,
}
"""Centre of the design space."""

MARKER: Final[str] = "summary.json"

NOTE: Final[str] = "demo.json"

WRITTEN: Final[tuple[str, ...]] = (
    NOTE,
    MARKER,
    "config.toml",
    "process.toml",
    "campaign*",
    "samples.csv",
    "setpoints.csv*",
    ".setpoints.csv*",
    "recommendations.csv",
    "forecasts.parquet",
    "alarms.jsonl",
    "audit*",
    "journal.sqlite*",
    "inbox",
    "run.lock",
    "model",
    "figures",
    ".audit*",
    ".config*",
)
"""What a demonstration, and a twin run in its folder, leave behind."""


@dataclass
class DemoResult:
    """One seed's run, with what the figures need."""

    seed: int
    folder: Path
    target: float
    startup_days: int
    days: np.ndarray
    truth: Mapping[str, np.ndarray]
    measured: Mapping[str, np.ndarray]
    applied: list[dict[str, float]]
    decisions: list[Any]
    forecast: ForecastScore
    baselines: Mapping[str, dict[str, np.ndarray]]
    oracle: Mapping[str, np.ndarray] | None
    timings: dict[str, float] = field(default_factory=dict)
    audit: dict[str, Any] = field(default_factory=dict)

    def vcv(self) -> dict[str, np.ndarray]:
        """True VCV per controller and day [%]."""
        out = {"twin": self.truth["VCV"]}
        out.update({name: b["vcv"] for name, b in self.baselines.items()})
        if self.oracle is not None:
            out["mpc"] = self.oracle["VCV"]
        return out

    def tracking(self) -> dict[str, dict[str, Any]]:
        """Mean absolute error after start-up and error by day, per controller [%]."""
        after = slice(self.startup_days + 1, None)
        return {
            name: {
                "error": float(np.mean(np.abs(v[after] - self.target))),
                "by_day": np.abs(v - self.target).tolist(),
            }
            for name, v in self.vcv().items()
        }

    def as_dict(self) -> dict[str, Any]:
        """Entry of `runs` in `summary.json`."""
        return {
            "seed": self.seed,
            "folder": self.folder.name,
            "tracking": self.tracking(),
            "forecast": self.forecast.as_dict(),
            "lowest_viability": float(np.min(self.truth["Via"][self.startup_days :])),
            "tuned": {
                name: {k: float(v) for k, v in b.items() if np.ndim(v) == 0}
                for name, b in self.baselines.items()
            },
            "seconds": self.timings,
        }


def demo_space(target: float = TARGET_VCV) -> DesignSpace:
    """Design space of the demonstration: the default one with its target."""
    return DEFAULT_AMBR250_DESIGN_SPACE.replace(
        name="demo", vcv_target=float(target), viability_min=90.0
    )


def prepare_folder(folder: Path) -> None:
    """Make room for a new demonstration: an older one is removed, and nothing else is.

    Raises:
        RunLockedError: If a live process works in the folder.
        ConfigError: If it is no folder, or holds something no demonstration wrote.
    """
    from perfusio_jax.twin import RunLock

    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file, not a folder; name another with --out.")
    if not folder.exists() or not any(folder.iterdir()):
        folder.mkdir(parents=True, exist_ok=True)
        _mark(folder)
        return
    if not _is_demo(folder):
        raise ConfigError(
            f"{folder} is not empty and holds no demonstration; name another folder with --out."
        )
    strangers = _strangers(folder)
    if strangers:
        raise ConfigError(
            f"{folder} holds an older demonstration, but also {', '.join(strangers)}, which it "
            "did not write. Move that away, or name another folder with --out."
        )
    locks = [p.parent for p in folder.rglob("run.lock")]
    with contextlib.ExitStack() as held:
        for place in locks:
            held.enter_context(RunLock(place))  # raises if a live process has it
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    _mark(folder)


def _mark(folder: Path) -> None:
    """Leave the note by which the next demonstration knows the folder as one of its own."""
    note = {"schema_version": 1, "version": perfusio_jax.__version__}
    (folder / NOTE).write_text(json.dumps(note) + "\n", encoding="utf-8")


def _is_demo(folder: Path) -> bool:
    """Whether a folder carries the note, or the summary of a finished demonstration."""
    if (folder / NOTE).is_file():
        return True
    try:
        summary = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(summary, dict) and summary.get("name") == "demo"


def _strangers(folder: Path) -> list[str]:
    """What lies in the folder, or in a seed's, that no demonstration writes."""
    found = []
    for path in sorted(folder.iterdir()):
        name = path.name
        if path.is_dir() and (re.fullmatch(r"seed\d+", name) or name == "oracle"):
            found += [f"{name}/{inner}" for inner in _strangers(path)]
        elif not any(fnmatch.fnmatch(name, pattern) for pattern in WRITTEN):
            found.append(name)
    return found


def make_campaign(folder: Path, seed: int) -> Path:
    """Simulate 27 historic runs of clone X and write them as a campaign table.

    Args:
        folder: Run folder.
        seed: Seed of the design, the noise and the sampling times.

    Returns:
        Path of `campaign.csv`.
    """
    design = jnp.asarray(campaign_design(seed=seed))
    runs = design.shape[0]
    readings = simulate_campaign(
        virtual_reactor("CloneX"),
        jnp.broadcast_to(initial_state(), (runs, 10)),
        jnp.broadcast_to(design[:, None, :], (runs, 28, 6)),
        NoiseModel(),
        key=jax.random.key(1000 + seed),
    )
    path = folder / "campaign.csv"
    write_campaign(to_trajectories(readings, clone_ids=["CloneX"] * runs), path)
    return path


def learn(campaign: Path, folder: Path, seed: int) -> tuple[HybridStateSpaceModel, Any, np.ndarray]:
    """Fit the hybrid model to a campaign table and save it.

    Returns:
        The model, the fit report, and the standard deviation of each species over the table.
    """
    table = read_campaign(campaign)
    model, report = fit_hybrid(table.trajectories, key=jax.random.key(seed))
    save(model, folder / "model")
    values = np.concatenate([np.asarray(t.species) for t in table.trajectories])
    return model, report, np.nanstd(values, axis=0)


async def drive(
    folder: Path,
    model: HybridStateSpaceModel,
    *,
    seed: int,
    n_days: int,
    target: float,
    say: Say,
    is_oracle: bool = False,
) -> tuple[DigitalTwin, FileReactor, list[Any], list[Any]]:
    """Close the loop over files, from inoculation to the last day.

    Returns:
        The closed twin, the reactor, the decisions, and model and belief of each day.
    """
    simulator = CHOSimulator("CloneX", controls=STARTUP_RECIPE, noise=NoiseModel(seed=seed))
    now = dt.datetime.now(dt.UTC)
    inoculated = now - dt.timedelta(days=n_days)
    reactor = FileReactor(folder, simulator, inoculated=inoculated)
    day_box = {"day": 0}
    twin = DigitalTwin(
        FilesystemStore(
            reactor.samples,
            reactor.setpoints,
            clock=lambda: inoculated + dt.timedelta(days=day_box["day"], minutes=30),
        ),
        model,
        demo_space(target),
        notifier=AlarmNotifier(
            {"Via": (88.0, 100.0), "Amm": (0.0, 8.0)},
            channels=["file"],
            alarm_file=folder / "alarms.jsonl",
        )
        if not is_oracle
        else None,
        log_dir=folder,
        run_id=folder.name,
        allow_write=True,
        retrain_every=10_000 if is_oracle else 1,
        run_config=RunConfig(seed=seed, allow_write=True, duration_days=n_days),
        reactor_id="R01",
        startup_days=STARTUP_DAYS,
        initial_controls=STARTUP_RECIPE,
        user="demo",
        patience_seconds=30.0,
    )
    decisions, snapshots = [], []
    try:
        for day in range(n_days):
            day_box["day"] = day
            await reactor.sample(day)
            result = await twin.step_async(day)
            decision = result["decision"]
            decisions.append(decision)
            snapshots.append((twin.model, decision.belief, day))
            seen = decision.state_mean["VCV"]
            act = result["verdict"].action
            say(f"day {day:2d}  VCV {seen:5.1f} %  (target {target:g} %)  {act}")
        day_box["day"] = n_days
        await reactor.sample(n_days)
    finally:
        twin.close()
    return twin, reactor, decisions, snapshots


def run_seed(
    folder: Path,
    *,
    seed: int,
    n_days: int,
    target: float,
    with_oracle: bool,
    say: Say,
) -> DemoResult:
    """One complete demonstration.

    Args:
        folder: Run folder, empty.
        seed: Seed of everything.
        n_days: Days of control after start-up [d].
        target: VCV [%].
        with_oracle: Whether to run the controller that knows the plant.
        say: Progress, one line at a time.

    Returns:
        The result; files are in the folder.
    """
    clock = {}
    last = STARTUP_DAYS + n_days
    begun = time.perf_counter()

    def lap(name: str) -> None:
        clock[name] = time.perf_counter() - begun - sum(clock.values())

    folder.mkdir(parents=True, exist_ok=True)
    space = demo_space(target)
    settings = {
        "twin": {
            "source": "samples.csv",
            "setpoints": "setpoints.csv",
            "model": "model",
            "reactor_id": "R01",
            "run_id": folder.name,
            "startup_days": STARTUP_DAYS,
            "initial_controls": dict(STARTUP_RECIPE),
        },
        "run": RunConfig(seed=seed, duration_days=last + 1).model_dump(
            mode="json", exclude_none=True
        ),
        "design_space": space.model_dump(mode="json", exclude_none=True),
    }
    (folder / "config.toml").write_text(tomli_w.dumps(settings), encoding="utf-8")
    say("simulating 27 historic runs (compiles on first use)")
    campaign = make_campaign(folder, seed)
    lap("campaign")
    say("fitting the hybrid model to campaign.csv (compiles on first use)")
    model, report, spread = learn(campaign, folder, seed)
    lap("fit")
    say(f"fitted {report.details['rows']} rows in {int(report.n_iterations)} iterations")
    say("closing the loop over samples.csv and setpoints.csv (the first days compile)")
    twin, reactor, decisions, snapshots = asyncio.run(
        drive(folder, model, seed=seed, n_days=last, target=target, say=say)
    )
    lap("control")
    say("running the baselines on the same plant")
    loop = Loop(
        reactor=virtual_reactor("CloneX"),
        initial=initial_state(),
        recipe=controls_from_dict(STARTUP_RECIPE),
        target=target,
        startup_days=STARTUP_DAYS,
        n_days=last,
        bleed_bounds=(
            space.control_bounds["bleed_rate"].lo,
            space.control_bounds["bleed_rate"].hi,
        ),
        noise=NoiseModel(seed=seed),
    )
    baselines = run_baselines(loop, key=jax.random.key(77), sample_key=jax.random.key(seed))
    lap("baselines")
    oracle = None
    if with_oracle:
        say("running the controller that knows the plant (compiles on first use)")
        known = HybridStateSpaceModel(CHOPerfusionModel(virtual_reactor("CloneX").kinetics), None)
        _, best, _, _ = asyncio.run(
            drive(
                folder / "oracle",
                known,
                seed=seed,
                n_days=last,
                target=target,
                say=lambda _: None,
                is_oracle=True,
            )
        )
        oracle = best.truth(last)
        lap("oracle")
    say("scoring the forecasts")
    truth = reactor.truth(last)
    control = [s for s in snapshots if s[2] >= STARTUP_DAYS]
    score = score_forecasts(control, reactor.applied, truth, spread=spread)
    lap("score")
    measured = asyncio.run(_measured(folder, last))
    check = verify_audit(folder)
    clock["total"] = time.perf_counter() - begun
    return DemoResult(
        seed=seed,
        folder=folder,
        target=target,
        startup_days=STARTUP_DAYS,
        days=np.arange(last + 1),
        truth=truth,
        measured=measured,
        applied=reactor.applied,
        decisions=decisions,
        forecast=score,
        baselines=baselines,
        oracle=oracle,
        timings=clock,
        audit={
            "records": check.n_records,
            "verified": bool(check.ok),
            "head": twin.audit.head.hash,
        },
    )


async def _measured(folder: Path, last: int) -> dict[str, np.ndarray]:
    store = FilesystemStore(folder / "samples.csv")
    rows = [await store.read_sample(day) for day in range(last + 1)]
    return {
        s: np.array([np.nan if r.get(s) is None else r[s] for r in rows], float)
        for s in FORECAST_SPECIES
    }


def pool(results: list[DemoResult]) -> dict[str, Any]:
    """Figures over all seeds."""
    wins, against_oracle = 0, []
    for r in results:
        errors = {name: t["error"] for name, t in r.tracking().items()}
        rivals = [errors[n] for n in r.baselines]
        wins += errors["twin"] < min(rivals)
        if "mpc" in errors:
            against_oracle.append(errors["twin"] / errors["mpc"])
    inside = sum(r.forecast.inside for r in results)
    counted = sum(r.forecast.n for r in results)
    names = list(results[0].forecast.rrmse)
    return {
        "coverage_80": inside / counted,
        "rrmse": {n: float(np.mean([r.forecast.rrmse[n] for r in results])) for n in names},
        "wins": int(wins),
        "seeds": len(results),
        "error": {
            name: float(np.mean([r.tracking()[name]["error"] for r in results]))
            for name in results[0].tracking()
        },
        "twin_over_mpc": against_oracle or None,
    }


def write_summary(folder: Path, results: list[DemoResult], seconds: float) -> dict[str, Any]:
    """Write `summary.json`; its keys are documented in docs/contracts.md."""
    summary = {
        "schema_version": 1,
        "version": perfusio_jax.__version__,
        "name": "demo",
        "seeds": [r.seed for r in results],
        "target": {"species": "VCV", "value": results[0].target, "unit": "%"},
        "start_up_days": results[0].startup_days,
        "controls": list(CONTROL_NAMES),
        "runs": [r.as_dict() for r in results],
        "pooled": pool(results),
        "seconds": {"total": seconds},
        "audit": results[0].audit,
    }
    (folder / MARKER).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return summary
