"""The demonstration for a described culture: past runs, fit, closed loop through files, a rival.

The twin sees `campaign.csv`, `samples.csv` and `setpoints.csv`, and nothing else of the plant.
Where the goal is a set-point, a PI controller on one control is measured beside it; its gains are
tuned on the true plant over several seeds of noise, which is more than an engineer could do.
"""

import asyncio
import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import tomli_w

from perfusio_jax._core import HOURS_PER_DAY, ConfigError, Result
from perfusio_jax._core.programs import compiled
from perfusio_jax.bed.goal.by_name import parse_goal
from perfusio_jax.config import RunConfig
from perfusio_jax.connectors import FilesystemStore, write_described
from perfusio_jax.hybrid import HybridStateSpaceModel, fitted_best, layout_of, load, save
from perfusio_jax.process import Process, volume_balance
from perfusio_jax.simulator import VirtualPlant, simulate_runs, spread_controls, usual_start
from perfusio_jax.simulator.virtual_runs import readings_of_states, with_noise
from perfusio_jax.states import Trajectory
from perfusio_jax.twin import DigitalTwin, Objective, verify_audit

from .described_rig import DescribedFileReactor, PlantRun

Say = Callable[[str], None]

STARTUP_DAYS: Final = 4
"""Days on the start-up recipe before control begins [d]."""
GAINS: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 4.0)
"""Range of the lever over the target that a controller may move it by; either sign is tried."""
RESETS: Final = (2.0, 5.0, 12.0, 40.0)
"""Reset times, in intervals between two samples."""
TUNING_SEEDS: Final = 4
"""Seeds of noise a controller is tuned over."""


@dataclass(frozen=True)
class Setting:
    """What every controller meets."""

    plant: VirtualPlant
    """The truth."""
    start: np.ndarray
    """State at inoculation, in the order of the plant."""
    recipe: Mapping[str, float]
    """Set-points of the start-up, and of whatever a controller does not move."""
    interval_h: float = HOURS_PER_DAY
    """Time between two samples [h]."""
    n_days: int = 14
    """Days of control after the start-up [d]."""

    @property
    def process(self) -> Process:
        """The culture."""
        return self.plant.process

    @property
    def first(self) -> int:
        """Cycle of the first decision that acts."""
        return round(STARTUP_DAYS * HOURS_PER_DAY / self.interval_h)

    @property
    def n_cycles(self) -> int:
        """Intervals in all."""
        return round((STARTUP_DAYS + self.n_days) * HOURS_PER_DAY / self.interval_h)


@dataclass
class Held:
    """A quantity to be held."""

    name: str
    value: float
    lever: str
    """Control that the rival moves."""


@dataclass
class DescribedResult:
    """One seed's run."""

    seed: int
    folder: Path
    truth: np.ndarray
    """Noise-free readings of every sample, in the order of the process's readings."""
    applied: list[dict[str, float]]
    rivals: dict[str, np.ndarray] = field(default_factory=dict)
    """Noise-free readings under other controllers."""
    tuned: dict[str, float] = field(default_factory=dict)
    """Gain and reset time [intervals] of the PI controller."""
    verified: bool = False
    """Whether the audit trail verifies."""

    def errors(self, setting: Setting, held: Held) -> dict[str, float]:
        """Mean absolute distance from the target after the start-up, by controller."""
        column = setting.process.readings.index(held.name)
        found = {"twin": self.truth, **self.rivals}
        return {
            name: float(np.mean(np.abs(table[setting.first + 1 :, column] - held.value)))
            for name, table in found.items()
        }


# ------------------------------------------------------------------ past runs and the model


def past_runs(
    plant: VirtualPlant, *, n_runs: int, n_days: int, interval_h: float, seed: int
) -> list[Trajectory]:
    """Runs that somebody made before, their set-points filling the ranges.

    Args:
        plant: The truth.
        n_runs: Number of runs.
        n_days: Length of each [d].
        interval_h: Time between two samples [h].
        seed: Of the design and the noise.
    """
    process = plant.process
    n = round(n_days * HOURS_PER_DAY / interval_h)
    usual = usual_start(process)
    starts = np.tile([usual[name] for name in plant.states], (n_runs, 1))
    if process.biomass is not None:
        rng = np.random.default_rng(seed)
        starts[:, plant.states.index(process.biomass)] *= rng.uniform(0.5, 1.5, n_runs)
    held = spread_controls(process, n_runs, seed=seed)
    held[:, [c.role == "bolus" for c in process.controls]] = 0.0
    return simulate_runs(
        plant,
        starts,
        np.repeat(held[:, None], n, axis=1),
        np.arange(n + 1) * interval_h,
        key=jax.random.key(1000 + seed),
    )


def aim_of(goal: str | None, process: Process, runs: Sequence[Trajectory]) -> str:
    """A goal in words; by default to hold the biomass where the past runs ended in the median.

    Args:
        goal: As a person says it, or None.
        process: The culture.
        runs: Past runs.

    Raises:
        ConfigError: If there is none and the culture has no biomass that is measured.
    """
    if goal is not None:
        parse_goal(goal, process, layout_of(process))
        return goal
    if process.biomass is None or process.biomass not in process.readings:
        raise ConfigError(f"{process.name} has no biomass that is measured; say --goal.")
    ends = [float(np.asarray(run.get_species(process.biomass))[-1]) for run in runs]
    return f"{process.biomass} = {float(np.nanmedian(ends)):.3g}"


def held_of(goal: str, process: Process, lever: str | None = None) -> Held | None:
    """What is to be held, and the control of the rival; None for a goal that is no set-point.

    Args:
        goal: Goal in words.
        process: The culture.
        lever: Control the rival moves; by default one that takes cells away, else the first.

    Raises:
        ConfigError: If the lever is none.
    """
    found = parse_goal(goal, process, layout_of(process))
    if found.value is None:
        return None
    free = [c.name for c in process.controls if c.role != "bolus" and c.lo < c.hi]
    if lever is not None and lever not in free:
        raise ConfigError(
            f"--lever {lever!r} cannot be set; of {process.name} can be set "
            f"{', '.join(free) or 'nothing'}."
        )
    out = [s.flow for s in process.streams if s.direction == "out" and s.flow in free]
    flows = [s.flow for s in process.streams if s.flow in free]
    return Held(found.name, found.value, lever or (out + flows + free)[0])


# ------------------------------------------------------------------ closed loop


async def drive(
    folder: Path,
    setting: Setting,
    model: HybridStateSpaceModel,
    objective: Objective,
    *,
    seed: int,
    mode: Any = "adaptive",
    say: Say = lambda _: None,
) -> tuple[PlantRun, DigitalTwin]:
    """Close the loop over files, from inoculation to the last sample.

    Args:
        folder: Run folder.
        setting: Plant, start, recipe, lengths.
        model: Model of the culture.
        objective: What is wanted.
        seed: Of the noise, and of the twin.
        mode: "adaptive" or "frozen".
        say: Called with a line per cycle.

    Returns:
        The plant's run, and the closed twin.
    """
    process, every = setting.process, setting.interval_h
    run = PlantRun(setting.plant, setting.start, setting.recipe, seed=seed)
    days = setting.n_cycles * every / HOURS_PER_DAY
    inoculated = dt.datetime.now(dt.UTC) - dt.timedelta(days=days)
    reactor = DescribedFileReactor(folder, run, interval_h=every, inoculated=inoculated)
    now = {"h": 0.0}
    store = FilesystemStore(
        reactor.samples,
        reactor.setpoints,
        process=process,
        clock=lambda: inoculated + dt.timedelta(hours=now["h"], minutes=3),
    )
    twin = DigitalTwin(
        store,
        model,
        objective=objective,
        log_dir=folder,
        run_id=folder.name,
        allow_write=True,
        run_config=run_config(setting, seed),
        reactor_id="R01",
        startup_days=STARTUP_DAYS,
        initial_controls=_held_only(setting),
        user="demo",
        mode=mode,
        patience_seconds=30.0,
    )
    try:
        for cycle in range(setting.n_cycles):
            now["h"] = cycle * every
            await reactor.sample()
            found = await twin.step_async(twin.cadence.day(cycle))
            goal = ", ".join(objective.goals)
            state = found["decision"].state_mean if found["decision"] else {}
            seen = ", ".join(f"{n} {v:.3g}" for n, v in list(state.items())[:3])
            say(f"day {now['h'] / HOURS_PER_DAY:5.4g}  {seen}  ({goal})  {found['outcome']}")
        await reactor.sample()
    finally:
        twin.close()
    return run, twin


def run_config(setting: Setting, seed: int) -> RunConfig:
    """Lengths and seed as the configuration has them."""
    days = setting.n_cycles * setting.interval_h / HOURS_PER_DAY
    return RunConfig(
        seed=seed,
        allow_write=True,
        duration_days=round(days) + 1,
        sampling_interval_hours=setting.interval_h,
    )


def _held_only(setting: Setting) -> dict[str, float]:
    boluses = setting.process.boluses
    return {n: float(v) for n, v in setting.recipe.items() if n not in boluses}


# ------------------------------------------------------------------ rivals


@compiled
def _lanes(
    plant: VirtualPlant,
    states: jax.Array,
    volumes: jax.Array,
    controls: jax.Array,
    hours: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    def one(state: jax.Array, volume: jax.Array, u: jax.Array) -> Any:
        return plant.advance(state, volume, u, hours)

    end = jax.vmap(one)(states, volumes, controls)
    return end.state, end.volume_L, end.result


@compiled
def _read(plant: VirtualPlant, states: jax.Array, keys: jax.Array) -> tuple[jax.Array, jax.Array]:
    true = readings_of_states(plant.process, plant.states, states)
    seen = jax.vmap(lambda row, key: with_noise(plant.process, row, key=key))(true, keys)
    return true, seen


def run_pi(
    setting: Setting, held: Held, gains: np.ndarray, resets: np.ndarray, keys: jax.Array
) -> np.ndarray:
    """A PI controller of the lever in velocity form in every lane, which cannot wind up.

    The lever stays where no more leaves than enters.

    Args:
        setting: Plant, start, recipe, lengths.
        held: What is held, by what.
        gains: Gain of each lane [range of the lever / target].
        resets: Reset time of each lane [intervals].
        keys: Key of each lane's noise.

    Returns:
        Noise-free readings (lanes, samples, readings); NaN from where a plant failed.
    """
    process, plant, lanes = setting.process, setting.plant, len(gains)
    control, place = process.control(held.lever), process.control_names.index(held.lever)
    column = process.readings.index(held.name)
    low, high = np.full(lanes, control.lo), np.full(lanes, control.hi)
    unit = gains * (control.hi - control.lo) / held.value
    states = jnp.asarray(np.tile(setting.start, (lanes, 1)))
    volumes = jnp.full(lanes, plant.volume_L)
    u = np.tile([float(setting.recipe.get(n, 0.0)) for n in process.control_names], (lanes, 1))
    most = _most(process, setting, held.lever)
    before, paths = None, []
    for cycle in range(setting.n_cycles + 1):
        now = jax.vmap(lambda key, c=cycle: jax.random.fold_in(key, c))(keys)
        true, seen = (np.asarray(v) for v in _read(plant, states, now))
        paths.append(true)
        error = seen[:, column] - held.value
        if cycle >= setting.first:
            last = error if before is None else before
            step = unit * (error - last + error / resets)
            u[:, place] = np.clip(u[:, place] + np.nan_to_num(step), low, np.minimum(high, most))
        before = error
        if cycle < setting.n_cycles:
            hours = jnp.asarray(setting.interval_h)
            states, volumes, code = _lanes(plant, states, volumes, jnp.asarray(u), hours)
            lost = np.asarray(code) != Result.SUCCESS.value
            states = jnp.where(jnp.asarray(lost)[:, None], jnp.nan, states)
    return np.stack(paths, axis=1)


def _most(process: Process, setting: Setting, lever: str) -> float:
    """Most a lever may be where the others stay as they are."""
    balance = volume_balance(process, setting.interval_h)
    if balance is None or balance.moves:
        return np.inf
    weights, spare = balance.row()
    if weights.get(lever, 0.0) <= 0.0:
        return np.inf
    rest = sum(w * setting.recipe.get(n, 0.0) for n, w in weights.items() if n != lever)
    return (spare - rest) / weights[lever]


def tuned_pi(setting: Setting, held: Held, *, seed: int) -> tuple[dict[str, float], np.ndarray]:
    """The best PI controller for a plant, and its run with the noise of a seed.

    Args:
        setting: Plant, start, recipe, lengths.
        held: What is held, by what.
        seed: Of the run; the noise it is tuned on is other.

    Returns:
        Gain and reset time, and noise-free readings.
    """
    both = [g * sign for g in GAINS for sign in (1.0, -1.0)]
    grid = np.array([(g, r) for g in both for r in RESETS])
    gains, resets = (np.repeat(grid[:, k], TUNING_SEEDS) for k in (0, 1))
    keys = jax.random.split(jax.random.key(77), TUNING_SEEDS)
    keys = jax.random.wrap_key_data(jnp.tile(jax.random.key_data(keys), (len(grid), 1)))
    column = setting.process.readings.index(held.name)
    paths = run_pi(setting, held, gains, resets, keys)
    apart = np.abs(paths[:, setting.first + 1 :, column] - held.value).mean(axis=1)
    cost = np.where(np.isfinite(apart), apart, np.inf).reshape(len(grid), -1).mean(axis=1)
    gain, reset = grid[int(np.argmin(cost))]
    lanes = len(gains)  # the size that is compiled
    again = run_pi(
        setting,
        held,
        np.full(lanes, gain),
        np.full(lanes, reset),
        jax.random.wrap_key_data(
            jnp.tile(jax.random.key_data(jax.random.key(seed))[None], (lanes, 1))
        ),
    )
    return {"gain": float(gain), "reset_intervals": float(reset)}, again[0]


def run_fixed(setting: Setting, *, seed: int) -> np.ndarray:
    """Noise-free readings under the start-up recipe throughout."""
    run = PlantRun(setting.plant, setting.start, setting.recipe, seed=seed)
    for cycle in range(setting.n_cycles + 1):
        if cycle:
            run.live(setting.interval_h)
        run.sample()
    return np.stack(run.true)


# ------------------------------------------------------------------ one seed


def usual_setting(plant: VirtualPlant, *, interval_h: float, n_days: int) -> Setting:
    """A plant at its usual start, on the defaults of its controls."""
    usual = usual_start(plant.process)
    recipe = {c.name: 0.0 if c.role == "bolus" else c.default for c in plant.process.controls}
    start = np.asarray([usual[name] for name in plant.states], float)
    return Setting(plant, start, recipe, interval_h, n_days)


def run_described_seed(
    folder: Path,
    setting: Setting,
    *,
    seed: int,
    goal: str | None,
    limits: Sequence[str] = (),
    lever: str | None = None,
    mechanism: Any = None,
    n_runs: int = 12,
    say: Say = lambda _: None,
) -> tuple[DescribedResult, Objective, Held | None]:
    """Past runs, fit, closed loop and rivals of one seed; files are in the folder.

    Args:
        folder: Run folder, empty.
        setting: Plant, start, recipe, lengths.
        seed: Seed of everything.
        goal: What is wanted; the biomass is held where past runs ended, by default.
        limits: Limits in words.
        lever: Control of the rival.
        mechanism: What the model knows of rates; the best of those that suit it by default.
        n_runs: Past runs.
        say: Progress, one line at a time.

    Raises:
        ConfigError: If goal, limits or lever do not fit the culture.
    """
    process, every = setting.process, setting.interval_h
    folder.mkdir(parents=True, exist_ok=True)
    process.to_toml(folder / "process.toml")
    say(f"simulating {n_runs} past runs")
    runs = past_runs(setting.plant, n_runs=n_runs, n_days=14, interval_h=every, seed=seed)
    write_described(runs, folder / "campaign.csv", process)
    objective = Objective(goals=(aim_of(goal, process, runs),), limits=tuple(limits))
    held = held_of(objective.goals[0], process, lever)
    say("fitting a model to campaign.csv (compiles on first use)")
    fitted, told = fitted_best(runs, process, seed=seed, mechanism=mechanism)
    for line in told:
        say(line)
    save(fitted.model, folder / "model")
    # as whoever decides the run again will have it
    model = load(folder / "model", mech_model=fitted.model.mech_model)
    write_config(folder, setting, objective, seed)
    say(f"closing the loop over files for {objective.goals[0]} (the first days compile)")
    run, _ = asyncio.run(drive(folder, setting, model, objective, seed=seed, say=say))
    result = DescribedResult(
        seed, folder, np.stack(run.true), run.applied, verified=bool(verify_audit(folder).ok)
    )
    result.rivals["fixed"] = run_fixed(setting, seed=seed)
    if held is not None:
        say(f"tuning a PI controller of {held.lever} on the true plant")
        result.tuned, result.rivals["pi"] = tuned_pi(setting, held, seed=seed)
    return result, objective, held


def write_config(folder: Path, setting: Setting, objective: Objective, seed: int) -> None:
    """The `config.toml` with which the run can be decided again and gone on with."""
    wanted: dict[str, Any] = {"goals": list(objective.goals)}
    if objective.limits:
        wanted["limits"] = list(objective.limits)
    settings = {
        "twin": {
            "source": "samples.csv",
            "setpoints": "setpoints.csv",
            "process": "process.toml",
            "model": "model",
            "reactor_id": "R01",
            "run_id": folder.name,
            "startup_days": STARTUP_DAYS,
            "initial_controls": _held_only(setting),
        },
        "run": run_config(setting, seed).model_dump(mode="json", exclude_none=True),
        "objective": wanted,
    }
    (folder / "config.toml").write_text(tomli_w.dumps(settings), encoding="utf-8")
