"""A policy for clones it has not met: `python -m benchmarks.science.rl_cho`.

Cell volume and titre are to reach set-points of clone X and stay there for two weeks, with the
viability up; the cultures are of clones drawn from the family, which no controller was tuned on.
All see the state without noise, once a day; only the twin has to estimate what it is not shown.

  RL        policies trained on clones drawn anew in every epoch, four episodes on each, one per
            training seed; two days of states and set-points tell them what clone they have
  twin      hybrid model of clone X, fitted to 27 runs of it, updated every four days with what
            each vessel has shown; decisions by `BEDPolicy`
  MPC       gradient through the plant, with the constants of clone X; with eight clones drawn
            from the family; and with the vessel's own constants (the limit)
  P         bleed control on the cell volume, its gain tuned on clone X
  fixed     the centre recipe

They want different things: the return of RL and the error that MPC makes small count cell volume,
titre and viability on every day, the twin aims at cell volume and titre, P at cell volume. RL, MPC
and P act from the first day, the twin from the fifth: errors of cell volume and titre are therefore
means from day 7 on, while NAAE, from day 1 on, is not like for like for the twin.

Set-points of all are judged on the accurate plant. One line per vessel goes to
`runs/science_rl_cho.csv`; started again, it goes on with what is missing.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import csv
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import perfusio_jax

perfusio_jax.enable_x64()

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.science.closed_loop import (
    CENTRE,
    FACE,
    LIMIT,
    LOWER,
    QUIET,
    SETTINGS,
    SPACE,
    TITRE,
    UPPER,
    VCV,
    VIA,
    choose_goal,
    learn,
    run_plant,
)
from perfusio_jax._core import CONTROL_NAMES
from perfusio_jax.bed import BEDPolicy, TargetSpec
from perfusio_jax.bed.policy.policies import ReactorNow
from perfusio_jax.demo.baselines import LANES, Loop, proportional, run_lanes, tracking_error
from perfusio_jax.hybrid import condition_on, filter_step, initial_belief
from perfusio_jax.rl import (
    EnvParams,
    PerfusionEnv,
    Problem,
    TrainSettings,
    perfusion_params,
    saturation,
    train,
)
from perfusio_jax.rl.baselines import make_mpc
from perfusio_jax.rl.controllers import PolicyController, run_closed_loop
from perfusio_jax.simulator import initial_state, sample_clones, to_trajectories, virtual_reactor

DAYS, FIRST, LEARN_EVERY, JUDGED_FROM = 14, 4, 4, 7
N_CLONES = 8
SPREAD = 1.0
HEADS = ("controller", "seed", "vessel", "vcv_error", "titre_error", "naae", "lowest_viability",
         "days_below", "effort", "seconds")  # fmt: skip
ENV = PerfusionEnv(n_steps=DAYS)
VIABILITY = 98.0


def unseen() -> Any:
    """The test clones, stacked."""
    return sample_clones(jax.random.key(2026), N_CLONES, spread=SPREAD)


def problem(goal: Any) -> Problem:
    """Tracking of a goal on clones drawn from the family."""
    target = np.tile([goal.vcv, goal.titre, VIABILITY], (DAYS + 1, 1))
    params = perfusion_params(target, spread=SPREAD)
    half = [(0.2 * goal.vcv) ** 2, (0.2 * goal.titre) ** 2, 5.0**2]
    return Problem(ENV, params, saturation(half))


def nominal(task: Problem) -> Any:
    """Parameters of a controller that knows clone X and no other."""
    return eqx.tree_at(lambda p: p.uncertainty, task.params, jnp.asarray(0.0))


def own(task: Problem, clone: Any) -> Any:
    """Parameters of a plant with the constants of one clone."""
    return eqx.tree_at(lambda p: p.plant.kinetics, nominal(task), clone)


def vessel(clones: Any, v: int) -> Any:
    """One of several clones."""
    return jax.tree.map(lambda leaf: leaf[v], clones)


def inputs_of(
    task: Problem, controller: Any, clones: Any, known: Callable[[Any], EnvParams]
) -> np.ndarray:
    """Set-points (vessels, days, 6) a controller chooses, told `known(clone)` of each vessel."""

    def one(clone: Any) -> Any:
        key, truth = jax.random.key(7), own(task, clone)
        return run_closed_loop(ENV, known(clone), controller, key=key, truth=truth).inputs

    return np.asarray(eqx.filter_jit(jax.vmap(one))(clones))


def twin(model: Any, goal: Any, reactor: Any, *, seed: int) -> np.ndarray:
    """Set-points of the twin, every vessel under its own copy of the model."""
    aims = [TargetSpec(VCV, goal.vcv), TargetSpec(TITRE, goal.titre)]
    policy = BEDPolicy(None, SPACE, targets=aims, n_paths=32, settings=SETTINGS)
    controls = np.tile(CENTRE, (N_CLONES, DAYS, 1))
    fitted: list[Any] = [model] * N_CLONES
    beliefs: list[Any] = [None] * N_CLONES
    for day in range(DAYS):
        readings = run_plant(reactor, controls, QUIET, 0)
        measured = np.asarray(readings.measured)
        for v in range(N_CLONES):
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), day), v)
            face = jnp.asarray(measured[v, day][FACE])
            if day == 0:
                beliefs[v] = initial_belief(fitted[v], face, key=key)
                continue
            fed = readings.stream_totals[v, day, 2]
            beliefs[v], _ = filter_step(
                fitted[v], beliefs[v], controls[v, day - 1], fed, face, 24.0, key=key
            )
        if day > FIRST and (day - FIRST) % LEARN_EVERY == 0:
            past = jax.tree.map(lambda x, d=day: x[:, : d + 1] if x.ndim > 1 else x, readings)
            runs = to_trajectories(past, clone_ids=["CloneX"] * N_CLONES)
            fitted = [condition_on(model, [run], key=jax.random.key(day)) for run in runs]
        if day < FIRST:
            continue
        racks = [
            ReactorNow(beliefs[v], day, controls[v, day - 1], model=fitted[v])
            for v in range(N_CLONES)
        ]
        for v, made in enumerate(policy.decide_rack(racks, seed=1000 * seed + day)):
            u = [made.recommended_controls[name] for name in CONTROL_NAMES]
            controls[v, day:] = np.asarray(u)[None]
    return controls


def bleed(goal: Any, clones: Any) -> np.ndarray:
    """Set-points of proportional bleed control, from the first day on."""

    def loop(kinetics: Any) -> Loop:
        return Loop(
            reactor=virtual_reactor(kinetics),
            initial=initial_state(),
            recipe=jnp.asarray(CENTRE),
            target=goal.vcv,
            startup_days=0,
            n_days=DAYS,
            bleed_bounds=(float(LOWER[1]), float(UPPER[1])),
            noise=QUIET,
        )

    tuned = loop(virtual_reactor("CloneX").kinetics)
    keys = jnp.tile(jax.random.key(0)[None], LANES)
    gains = np.geomspace(0.003, 0.5, LANES)
    vcv, _ = run_lanes(tuned, proportional(gains, tuned), keys)
    best = float(gains[tracking_error(tuned, vcv[:, JUDGED_FROM:]).argmin()])
    controls = np.tile(CENTRE, (N_CLONES, DAYS, 1))
    for v in range(N_CLONES):
        mine = loop(vessel(clones, v))
        _, found = run_lanes(mine, proportional(np.full(LANES, best), mine), keys)
        controls[v, :, 1] = found[0]
    return controls


def judge(
    name: str, seed: int, controls: np.ndarray, goal: Any, reactor: Any, seconds: float
) -> list[list[Any]]:
    """A line per vessel, on the accurate plant."""
    truth = np.asarray(run_plant(reactor, controls, QUIET, 0).truth)[:, : DAYS + 1]
    width = (UPPER - LOWER)[None]
    rows = []
    for v in range(N_CLONES):
        gaps = [np.abs(truth[v, :, k] / t - 1.0) for k, t in ((VCV, goal.vcv), (TITRE, goal.titre))]
        low = truth[v, 1:, VIA]
        moves = np.abs(np.diff(controls[v], axis=0)) / width
        numbers = [g[JUDGED_FROM:].mean() for g in gaps]
        numbers += [np.mean([g[1:].mean() for g in gaps]), low.min()]
        rows.append(
            [name, seed, v, *(f"{x:.4f}" for x in numbers), int(np.sum(low < LIMIT)),
             f"{moves.mean():.4f}", f"{seconds:.1f}"]
        )  # fmt: skip
    return rows


def studies(
    goal: Any, clones: Any, reactor: Any, options: Any, done: set[tuple[str, int]]
) -> Iterator[tuple[str, int, np.ndarray, float]]:
    """Name, seed, set-points and seconds of what is missing."""
    task = problem(goal)
    start = jnp.zeros((DAYS, ENV.n_inputs))

    def timed(name: str, seed: int, work: Any) -> Iterator[tuple[str, int, np.ndarray, float]]:
        if (name, seed) not in done:
            begun = time.perf_counter()
            yield name, seed, work(), time.perf_counter() - begun

    yield from timed("fixed", 0, lambda: np.tile(CENTRE, (N_CLONES, DAYS, 1)))
    yield from timed("P", 0, lambda: bleed(goal, clones))
    for name, controller, known in (
        ("MPC, clone X", make_mpc(ENV, start, n_iterations=30), lambda _: nominal(task)),
        (
            "MPC, 8 clones",
            make_mpc(ENV, start, n_scenarios=8, n_iterations=30),
            lambda _: task.params,
        ),
        (
            "MPC, own clone",
            make_mpc(ENV, start, n_iterations=30),
            lambda clone: own(task, clone),
        ),
    ):
        yield from timed(name, 0, lambda c=controller, k=known: inputs_of(task, c, clones, k))
    settings = TrainSettings(
        n_episodes=options.episodes,
        n_epochs=options.epochs,
        patience=options.epochs,
        n_per_plant=options.per_plant,
    )
    fit = eqx.filter_jit(train)
    for seed in range(options.seeds):

        def trained(seed: int = seed) -> np.ndarray:
            state = fit(task, settings, key=jax.random.key(seed))
            # the last policy: the best epoch is also the one with the luckiest clones
            return inputs_of(task, PolicyController(state.policy), clones, lambda _: nominal(task))

        yield from timed("RL", seed, trained)
    for seed in range(options.twins):
        yield from timed(
            "twin", seed, lambda s=seed: twin(learn("CloneX", s), goal, reactor, seed=s)
        )


def report(path: Path) -> None:
    """Print the table as Markdown."""
    rows = read(path)
    print("| controller | VCV error | titre error | worst vessel | NAAE | lowest viability | "
          "vessel-days below 95 % | effort | s |")  # fmt: skip
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for name in dict.fromkeys(r["controller"] for r in rows):
        mine = [r for r in rows if r["controller"] == name]
        vcv, titre, naae, low, below, effort, spent = (
            np.array([float(r[k]) for r in mine]) for k in HEADS[3:]
        )
        worst = np.maximum(vcv, titre).max()
        print(
            f"| {name} | {100 * vcv.mean():.1f} % | {100 * titre.mean():.1f} % | "
            f"{100 * worst:.0f} % | {naae.mean():.3f} | {low.min():.1f} | "
            f"{100 * below.sum() / (DAYS * len(mine)):.1f} % | {effort.mean():.3f} | "
            f"{np.unique(spent).mean():.0f} |"
        )


def read(path: Path) -> list[dict[str, str]]:
    """Lines of an earlier call."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def main() -> None:
    """Fill the file until nothing is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3, help="trainings")
    parser.add_argument("--twins", type=int, default=1, help="twins, each with its own campaign")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=6000)
    parser.add_argument("--per-plant", type=int, default=4, help="episodes on one clone")
    parser.add_argument("--out", type=Path, default=Path("runs/science_rl_cho.csv"))
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    if options.report:
        report(options.out)
        return
    rows = read(options.out)
    done = {(r["controller"], int(r["seed"])) for r in rows}
    goal, clones = choose_goal("CloneX"), unseen()
    reactor = virtual_reactor(clones)
    print(f"targets: cell volume {goal.vcv:.1f} %, titre {goal.titre:.0f} mg/L", flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with open(options.out, "a", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        if not rows:
            writer.writerow(HEADS)
        for name, seed, controls, seconds in studies(goal, clones, reactor, options, done):
            lines = judge(name, seed, controls, goal, reactor, seconds)
            writer.writerows(lines)
            handle.flush()
            vcv, titre = (np.mean([float(r[k]) for r in lines]) for k in (3, 4))
            print(f"{name} {seed}: {vcv:.3f} {titre:.3f} ({seconds:.0f} s)", flush=True)
    report(options.out)


if __name__ == "__main__":
    main()
