"""Two strains under light, learned and held: `python -m benchmarks.science.consortium`.

A chemostat of two strains, each kept by an amino acid that light lets it make; glucose and both
biomasses are read every hour with noise, the amino acids never. Twelve runs of 24 h under random
lights, from random inocula, train a hybrid whose mechanism has other constants than the culture
(each drawn as far from the truth as its prior says, the decay of the amino acids half as fast
again). Eight runs nobody has seen are forecast six hours ahead from every second hour: rRMSE of the
noise-free truth.

That model then holds both strains at 3.5 g/L from a fresh inoculum for 18 h by a decision every
hour (`DescribedPolicy`), reading what the analyser shows. Beside it, on the same plant: a policy
trained by REINFORCE on the plant itself, and control by optimisation through the plant itself; both
see the whole state without noise. Error: mean of |b - 3.5| / 3.5 over strains and k = 1 ... 18.
"""

import argparse
import os
import time
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import perfusio_jax

perfusio_jax.enable_x64()

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax.bed.goal.by_name import daily_goal
from perfusio_jax.bed.policy.described import DescribedPolicy, decide_described
from perfusio_jax.bed.policy.effort import ROLLOUT_SETTINGS
from perfusio_jax.hybrid import (
    HybridConfig,
    filter_step,
    fit_hybrid,
    forecast_unseen,
    initial_belief,
    skill,
    stack_runs,
)
from perfusio_jax.hybrid.evaluate import pick, spread_of
from perfusio_jax.mechanistic import ConsortiumKinetics
from perfusio_jax.mechanistic.mechanism import moved, n_movable
from perfusio_jax.process import CONSORTIUM
from perfusio_jax.rl import Consortium, Problem, TrainSettings, saturation, train
from perfusio_jax.rl.baselines import find_optimum, light_then_hold, make_mpc
from perfusio_jax.rl.consortium import LIGHT_NAMES, start_setpoint
from perfusio_jax.rl.controllers import PolicyController, run_closed_loop
from perfusio_jax.rl.process_env import ProcessEnv
from perfusio_jax.rl.scenarios import SCENARIOS, build
from perfusio_jax.simulator import simulate_runs, virtual_plant
from perfusio_jax.simulator.virtual_runs import readings_of_states, with_noise

TARGET = 3.5
"""Biomass of either strain to hold [g/L]."""
N_RUNS, HOURS, N_UNSEEN = 12, 24, 8
AHEAD = 6
"""Hours of a forecast, and of what a decision looks ahead [h]."""
READ = ("glucose", "biomass_1", "biomass_2")
"""What is read, and judged; the first of what a model forecasts."""
MODELS = ("hybrid", "mechanism calibrated", "mechanism as told", "no mechanism")
DILUTION = 0.15


def culture() -> Any:
    """The process, told that inocula come from full light."""
    light = np.asarray([CONSORTIUM.control(n).hi for n in LIGHT_NAMES])
    full = np.asarray(start_setpoint(Consortium(), jnp.asarray(light)))[3:]
    begins = dict(zip(("lysine", "leucine"), full.tolist(), strict=True))
    quantities = tuple(
        q.model_copy(update={"start": begins[q.name]}) if q.name in begins else q
        for q in CONSORTIUM.quantities
    )
    return CONSORTIUM.model_copy(update={"quantities": quantities})


def told(seed: int) -> ConsortiumKinetics:
    """The mechanism as somebody has it who never saw this culture."""
    usual = ConsortiumKinetics()
    z = np.random.default_rng(900 + seed).standard_normal(n_movable(usual))
    other = moved(usual, jnp.asarray(z))
    return eqx.tree_at(lambda m: m.degradation, other, 1.5 * other.degradation)


def runs_of(plant: Any, n: int, seed: int) -> list[Any]:
    """Runs under random lights, each held two to six hours, from random inocula."""
    rng = np.random.default_rng(seed)
    low, high = (
        np.log([getattr(CONSORTIUM.control(c), end) for c in LIGHT_NAMES]) for end in ("lo", "hi")
    )
    u = np.full((n, HOURS, 3), DILUTION)
    for run in range(n):
        for light in range(2):
            k = 0
            while k < HOURS:
                held = int(rng.integers(2, 7))
                u[run, k : k + held, light] = np.exp(rng.uniform(low[light], high[light]))
                k += held
    begun = np.tile(np.asarray(start_setpoint(Consortium(), jnp.asarray(np.exp(high)))), (n, 1))
    begun[:, 0] = np.exp(rng.uniform(0.0, np.log(50.0), n))
    begun[:, 1:3] = np.exp(rng.uniform(np.log(0.005), np.log(4.0), (n, 2)))
    hours = np.arange(HOURS + 1.0)
    key = jax.random.key(seed)
    noisy = simulate_runs(plant, begun, u, hours, key=key)
    clean = simulate_runs(plant, begun, u, hours, key=key, noise=False)
    return [noisy, clean]


def learn(name: str, runs: list[Any], seed: int, small: bool) -> Any:
    """A model of a kind."""
    config = HybridConfig(
        use_gp=not name.startswith("mechanism"),
        calibrate=name != "mechanism as told",
        n_particles=48 if small else 96,
    )
    kinetics = "none" if name == "no mechanism" else told(seed)
    return fit_hybrid(
        runs, process=culture(), mech_model=kinetics, key=jax.random.key(seed), config=config
    )[0]


def forecasts(model: Any, unseen: list[Any], small: bool) -> tuple[np.ndarray, np.ndarray, float]:
    """Error of the truth by quantity 6 h ahead, of persistence, and coverage of 80 % intervals."""
    noisy, clean = unseen
    names = model.layout.forecast
    read, true = (np.stack([t.host_readings(names) for t in runs]) for runs in (noisy, clean))
    found = forecast_unseen(
        model,
        stack_runs(noisy, layout=model.layout),
        jnp.asarray(read),
        key=jax.random.key(1),
        starts=tuple(range(0, HOURS - AHEAD + 1, 6 if small else 2)),
        horizon=AHEAD,
        n_paths=32 if small else 128,
        step_h=1.0,
    )
    told_of = skill(found, read, true)
    at = np.asarray(found.start)
    last = np.take_along_axis(read, at[..., None], axis=1)[:, :, None]
    gap = ((last - pick(found, true)) ** 2)[..., : len(READ)]
    held = np.sqrt(np.nanmean(gap, axis=(0, 1))) / spread_of(true)[: len(READ)]
    return told_of.rrmse[-1, : len(READ)], held[-1], float(told_of.pooled_coverage[0, -1])


def held_by_model(model: Any, plant: Any, n_steps: int, seed: int, small: bool) -> np.ndarray:
    """Biomasses (n_steps + 1, 2) under a decision every hour, from what is read."""
    process = model.layout.process
    goals = [f"{name} = {TARGET}" for name in ("biomass_1", "biomass_2")]
    ofv = daily_goal(goals, process, model.layout, horizon=AHEAD / 24.0, step_h=1.0)
    sizes: dict[str, Any] = {"n_paths": 64, "n_scan_paths": 16}
    if small:
        few = ROLLOUT_SETTINGS._replace(max_rounds=6, n_restarts=3, n_raw_samples=64)
        sizes = {"n_paths": 16, "n_scan_paths": 8, "search": few}
    policy = DescribedPolicy(
        process=process,
        ofv=ofv,
        controls=LIGHT_NAMES,
        bounds={n: (process.control(n).lo, process.control(n).hi) for n in LIGHT_NAMES},
        **sizes,
    )
    key = jax.random.key(7000 + seed)
    x = start_setpoint(Consortium(), jnp.asarray([process.control(n).hi for n in LIGHT_NAMES]))
    u = {name: process.control(name).default for name in process.control_names}
    u["dilution"], belief, course = DILUTION, None, [np.asarray(x[1:3])]
    step = eqx.filter_jit(lambda x, u: plant.advance(x, plant.volume_L, u, jnp.asarray(1.0)).state)
    for k in range(n_steps):
        for_noise, for_filter = jax.random.split(jax.random.fold_in(key, k))
        shown = readings_of_states(process, plant.states, x)
        shown = with_noise(process, shown[None], key=for_noise)[0]
        place = [
            process.readings.index(n) if n in process.readings else -1 for n in model.layout.face
        ]
        face = jnp.asarray([float(shown[p]) if p >= 0 else np.nan for p in place])
        if belief is None:
            belief = initial_belief(model, face, key=for_filter)
        else:
            acted = jnp.asarray([u[n] for n in process.control_names])
            belief, _ = filter_step(model, belief, acted, None, face, 1.0, key=for_filter)
        made = decide_described(
            policy, model, belief, u, day=k / 24.0, volume_L=float(plant.volume_L), seed=seed
        )
        u |= made.recommended_controls
        x = step(x, jnp.asarray([u[n] for n in process.control_names]))
        course.append(np.asarray(x[1:3]))
    return np.stack(course)


def rivals(small: bool) -> dict[str, tuple[np.ndarray, float]]:
    """Biomasses under a trained policy and under control by optimisation, and seconds."""
    scenario = next(s for s in SCENARIOS if s.name == "setpoint 3.5, 3.5")
    env, params = build(scenario)
    assert isinstance(env, ProcessEnv)
    out = {}
    begun = time.process_time()
    epochs = 60 if small else 4800
    problem = Problem(env, params, saturation(27.0))
    settings = TrainSettings(n_epochs=epochs, n_episodes=100, patience=epochs, is_single=True)
    state = eqx.filter_jit(train)(problem, settings, key=jax.random.key(0))
    key = jax.random.key(3)
    best = jax.tree.map(lambda v: v.astype(float) if eqx.is_inexact_array(v) else v, state.best)
    episode = run_closed_loop(env, params, PolicyController(best), key=key)
    out["RL, saturation"] = (np.asarray(episode.tracked), time.process_time() - begun)
    begun = time.process_time()
    starts = light_then_hold(env.n_steps, (6.0, 8.0) if small else (5.0, 6.0, 7.0, 8.0))
    first = find_optimum(env, params, starts, 40 if small else 400).z
    mpc = make_mpc(env, first, n_iterations=10 if small else 40)
    episode = eqx.filter_jit(run_closed_loop)(env, params, mpc, key=key)
    out["MPC"] = (np.asarray(episode.tracked), time.process_time() - begun)
    return out


def errors(course: np.ndarray) -> tuple[float, float]:
    """Mean relative error from k = 1 on, and of the last six hours."""
    gap = np.abs(course[1:] - TARGET) / TARGET
    return float(gap.mean()), float(gap[-6:].mean())


def study(seeds: range, *, small: bool = False, say: Any = print) -> dict[str, Any]:
    """Everything; see the module's docstring.

    Args:
        seeds: One campaign, told mechanism and noise each.
        small: Sizes of a test.
        say: Called with a line now and then.
    """
    plant = virtual_plant(culture(), ConsortiumKinetics())
    skills: dict[str, list[Any]] = {}
    courses: dict[str, list[np.ndarray]] = {}
    for seed in seeds:
        noisy, _ = runs_of(plant, N_RUNS, 100 + seed)
        unseen = runs_of(plant, N_UNSEEN if not small else 3, 200 + seed)
        for name in MODELS if not small else ("hybrid",):
            begun = time.process_time()
            model = learn(name, noisy, seed, small)
            fitted = time.process_time() - begun
            rrmse, held, inside = forecasts(model, unseen, small)
            say(f"seed {seed}, {name}: {np.round(rrmse, 3)}, inside {inside:.2f}, {fitted:.0f} s")
            skills.setdefault(name, []).append((*rrmse, inside))
            if name == "hybrid":
                skills.setdefault("persistence", []).append((*held, np.nan))
                course = held_by_model(model, plant, 18, seed, small)
                courses.setdefault("BED, learned from 12 runs", []).append(course)
                say(f"seed {seed}, held: {errors(course)}")
    found = {name: [errors(c) for c in each] for name, each in courses.items()}
    for name, (course, seconds) in rivals(small).items():
        found[name] = [errors(course)]
        say(f"{name}: {errors(course)}, {seconds:.0f} s")
    return {"skills": skills, "errors": found}


def main() -> None:
    """Run the seeds and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="sizes of the test")
    asked = parser.parse_args()
    out = study(range(asked.seeds), small=asked.small, say=lambda text: print(text, flush=True))
    print("\n| model | glucose | strain 1 | strain 2 | mean | in 80 % |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, rows in out["skills"].items():
        *each, inside = np.median(np.asarray(rows), axis=0)
        shown = "" if np.isnan(inside) else f"{100 * inside:.0f} %"
        cells = " | ".join(f"{v:.3f}" for v in (*each, np.mean(each)))
        print(f"| {name} | {cells} | {shown} |")
    print("\n| controller | error, k = 1 ... 18 | last 6 h | seeds |\n|---|---:|---:|---:|")
    for name, rows in out["errors"].items():
        whole, last = np.mean(np.asarray(rows), axis=0)
        print(f"| {name} | {whole:.4f} | {last:.4f} | {len(rows)} |")


if __name__ == "__main__":
    main()
