"""Training of a policy beside the publication's stack: `python -m benchmarks.rl`.

One epoch is 500 episodes of 18 hours of the set-point case (3.5, 3.5), the return of all of them
and one ascent, from an untrained policy. Every episode counts, those that run out of glucose too.
Both plants are checked against SciPy's Radau at 1e-10 on episodes that do; the peer's tolerance is
the loosest of a half-decade grid at which every state errs by at most 1e-4. CasADi and we
use all cores, PyTorch one thread (on matrices this small two are slower). The ratio is that of our
single precision on all cores; its plant is held to the same error.

`--target` trains with the settings of `rl case1` as well, three seeds of ours and one of the peer,
until the mean error of an epoch is within 5 % of the least of another training; `--seeds 10` times
that many trainings as one call, each on a core of its own.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import platform
import time
from dataclasses import replace
from typing import Any

import perfusio_jax

perfusio_jax.enable_x64()

import equinox as eqx
import jax

CORES = os.cpu_count() or 1
os.environ.setdefault("NPROC", str(2 * CORES))  # devices wait in threads: some to spare
jax.config.update("jax_num_cpu_devices", CORES)

import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.integrate import solve_ivp

from perfusio_jax.rl import (
    GRID,
    PARAMETERS,
    SCENARIOS,
    Problem,
    TrainSettings,
    advance,
    balances,
    build,
    saturation,
    train_settings,
)
from perfusio_jax.rl.reinforce import begin, continue_training, train
from perfusio_jax.rl.settings import in_precision

FLOOR = np.array([10.0, 0.02, 0.02, 0.5, 0.05])
"""Scale below which an error is absolute: 5 % of the feed for glucose."""
BAR = 1e-4
N_EPISODES = 500


def checked_episodes(
    plant: Any, initial: np.ndarray, low: np.ndarray, high: np.ndarray, n: int = 16
) -> tuple[np.ndarray, np.ndarray]:
    """Random courses of light and their states by Radau: (n, 18, 2) and (n, 19, 5)."""
    rng = np.random.default_rng(5)
    share = 1.0 / (1.0 + np.exp(-rng.normal(1.0, 2.0, (n, 18, 2))))
    share[:2] = 0.999
    lights = low * (high / low) ** share
    field = jax.jit(lambda x, u: balances(plant, x, u))
    states = np.zeros((n, 19, 5))
    for i in range(n):
        x = initial
        states[i, 0] = x
        for k, light in enumerate(lights[i]):
            u = jnp.asarray(light)
            out = solve_ivp(
                lambda _, y, u=u: np.asarray(field(jnp.asarray(y), u)),
                (0.0, 1.0), x, "Radau", rtol=1e-10, atol=1e-13,
            )  # fmt: skip
            x = out.y[:, -1]
            states[i, k + 1] = x
    return lights, states


def largest(mine: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Largest error of biomass and amino acids, and of glucose."""
    error = np.abs(mine - truth) / np.maximum(np.abs(truth), FLOOR)
    return float(error[..., 1:].max()), float(error[..., 0].max())


def timed(function: Any, repeats: int) -> list[float]:
    """Seconds of repeated calls."""
    spent = []
    for _ in range(repeats):
        begun = time.perf_counter()
        function()
        spent.append(time.perf_counter() - begun)
    return spent


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=50, help="epochs per warm call of ours")
    parser.add_argument("--no-peer", action="store_true", help="our training only")
    parser.add_argument("--target", action="store_true", help="time to 5 % of the least error")
    parser.add_argument("--peer-minutes", type=float, default=30.0, help="most time for that")
    parser.add_argument("--seeds", type=int, default=0, help="trainings as one call")
    options = parser.parse_args()
    console = Console(highlight=False, width=110)
    console.print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"{jax.devices()[0].platform}, jax {jax.__version__}; load {os.getloadavg()[0]:.1f}"
    )
    env, params = build(SCENARIOS[3])
    problem = Problem(env, params, saturation(27.0))
    with console.status("running: reference episodes with Radau at 1e-10"):
        low, high = np.asarray(params.bounds.low), np.asarray(params.bounds.high)
        lights, truth = checked_episodes(params.plant, np.asarray(params.initial), low, high)
    gone = (truth[:, 1:, 0] < 0.01).any(axis=1).mean()

    def error_of(settings: TrainSettings) -> tuple[float, float]:
        mine, light = in_precision((params, jnp.asarray(lights)), settings)

        def hour(x: jax.Array, light: jax.Array) -> tuple[jax.Array, jax.Array]:
            after = advance(mine.plant, x, light)
            return after, after

        course = jax.jit(jax.vmap(lambda u: jax.lax.scan(hour, mine.initial, u)[1]))
        return largest(np.asarray(course(light)), truth[:, 1:])

    table = Table(
        title=f"{N_EPISODES} episodes of 18 h per epoch, {len(GRID)} substeps per hour of ours; "
        f"{gone:.0%} run out of glucose"
    )
    for name in ("who", "error", "error, glucose", "first [s]", "epoch [s]", "epochs/s", "steps/s"):
        table.add_column(name, justify="left" if name == "who" else "right")

    def row(who: str, error: tuple[float, float], begun: float, each: float) -> None:
        rates = (f"{1 / each:.3g}", f"{18 * N_EPISODES / each:.3g}")
        table.add_row(who, *(f"{e:.1e}" for e in error), f"{begun:.1f}", f"{each:.4f}", *rates)

    # a GPU is one device; cores are as many, as far as they divide the episodes
    cores = CORES if jax.devices()[0].platform == "cpu" else 1
    counts = sorted({1, shared_by(N_EPISODES, cores)})
    for is_single in (False, True):
        error = error_of(TrainSettings(is_single=is_single))
        for count in counts:
            settings = TrainSettings(
                n_episodes=N_EPISODES, n_epochs=10_000, n_devices=count, is_single=is_single
            )
            first, ours = epoch_time(console, problem, settings, options.epochs)
            name = f"perfusio-jax, {'single' if is_single else 'double'}, devices: {count}"
            row(name, error, first, ours)
    keys = {"epochs_per_s": f"{1 / ours:.2f}"}
    step = None
    if not options.no_peer:
        found, step = peer(console, row, problem, settings, lights, truth)
        keys = {"ratio": f"{found / ours:.0f}"} | keys if step else keys
    console.print(table)
    settings = train_settings(SCENARIOS[3], "saturation")
    if options.target:
        shared = replace(settings, n_devices=shared_by(settings.n_episodes, cores))
        keys |= to_target(console, problem, shared, step, 60.0 * options.peer_minutes)
    if options.seeds:
        keys["seeds_s"] = f"{many(console, problem, settings, options.seeds, cores):.0f}"
    print("rl: " + " ".join(f"{k}={v}" for k, v in keys.items()))


def many(console: Console, problem: Problem, settings: TrainSettings, n: int, cores: int) -> float:
    """Seconds of n trainings as one call, the seeds shared by the cores."""

    def one_training(key: jax.Array) -> jax.Array:
        return train(problem, settings, key=key).history.error

    count = shared_by(n, cores)
    kind = jax.sharding.AxisType.Auto
    mesh = jax.make_mesh((count,), ("seeds",), (kind,), devices=jax.devices()[:count])
    # on a core one after the other: what a training of a hundred episodes needs fits the cache
    run = jax.jit(
        jax.shard_map(
            lambda keys: jax.lax.map(one_training, keys),
            mesh=mesh, in_specs=jax.P("seeds"), out_specs=jax.P("seeds"), check_vma=False,
        )
    )  # fmt: skip
    with console.status(f"running: {n} trainings as one call"):
        begun = time.perf_counter()
        errors = np.nanmin(run(jax.random.split(jax.random.key(0), n)), axis=1)
        spent = time.perf_counter() - begun
    console.print(
        f"{n} trainings of {settings.n_epochs} epochs: {spent:.0f} s with compiling; least errors "
        f"{float(errors.min()):.3f} to {float(errors.max()):.3f}"
    )
    return spent


def shared_by(n_episodes: int, cores: int) -> int:
    """The largest number of devices, up to the cores, that divides the episodes."""
    return max(n for n in range(1, cores + 1) if n_episodes % n == 0)


def epoch_time(
    console: Console, problem: Problem, settings: TrainSettings, n: int
) -> tuple[float, float]:
    """Seconds of the first call, and of an epoch when warm."""
    run = eqx.filter_jit(lambda s, until: continue_training(problem, settings, s, until))
    state = begin(problem, settings, key=jax.random.key(0))

    def go(until: int) -> Any:
        return jax.block_until_ready(run(state, jnp.asarray(until)).epoch)

    with console.status("compiling: one epoch"):
        first = timed(lambda: go(1), 1)[0]
    with console.status("running: ours"):
        return first, min(timed(lambda: go(n), 3)) / n


def to_target(
    console: Console, problem: Problem, settings: TrainSettings, step: Any, most_s: float
) -> dict[str, str]:
    """Seconds until the mean error of an epoch is within 5 % of the least of another training."""
    run = eqx.filter_jit(lambda s, until: continue_training(problem, settings, s, until))

    def curve_of(seed: int) -> tuple[np.ndarray, float]:
        state = begin(problem, settings, key=jax.random.key(seed))
        begun = time.perf_counter()
        done = jax.block_until_ready(run(state, jnp.asarray(settings.n_epochs)))
        spent = time.perf_counter() - begun
        return np.asarray(done.history.error)[: int(done.epoch)], spent

    with console.status("running: ours, four trainings"):
        target = 1.05 * curve_of(1000)[0].min()
        ours, epochs = [], []
        for seed in range(3):
            curve, spent = curve_of(seed)
            hits = np.flatnonzero(curve <= target)
            epochs.append(hits[0] + 1 if hits.size else np.inf)
            ours.append(spent * epochs[-1] / curve.size)
    console.print(
        f"error {target:.4f}: ours in epoch {', '.join(str(e) for e in sorted(epochs))}, after "
        f"{', '.join(f'{s:.1f}' for s in sorted(ours))} s"
    )
    keys = {"target_s": f"{np.median(ours):.1f}"}
    if step is None:
        return keys
    training = peer_training(problem, settings, step(settings.n_episodes))
    begun, least = time.perf_counter(), np.inf
    with console.status("running: PyTorch and CasADi, one training") as status:
        while least > target and training.epochs < settings.n_epochs:
            least = min(least, training.epoch()[1])
            spent = time.perf_counter() - begun
            status.update(f"running: PyTorch and CasADi, epoch {training.epochs}, {least:.3f}")
            if spent > most_s:
                break
    is_there = least <= target
    console.print(
        f"PyTorch + CasADi: {'reached' if is_there else 'not reached'} in epoch {training.epochs}, "
        f"{spent:.0f} s: {least:.4f}"
    )
    return keys | {"peer_target_s": f"{spent:.0f}" if is_there else f">{spent:.0f}"}


def peer_training(problem: Problem, settings: TrainSettings, step: Any) -> Any:
    """The same training by PyTorch and CasADi."""
    from benchmarks import rl_peer

    params = problem.params
    return rl_peer.Training(
        np.asarray(params.initial),
        np.asarray(params.reference),
        step,
        settings.n_episodes,
        (np.asarray(params.bounds.low), np.asarray(params.bounds.high)),
        settings,
    )


def peer(
    console: Console,
    row: Any,
    problem: Problem,
    settings: TrainSettings,
    lights: np.ndarray,
    truth: np.ndarray,
) -> tuple[float, Any]:
    """Seconds per epoch at the loosest tolerance that meets the bar, and what builds its plant."""
    try:
        from benchmarks import rl_peer
    except ImportError as error:
        console.print(f"{error}: pip install 'perfusio-jax[bench]'")
        return np.nan, None
    plant = problem.params.plant
    constants = {n: np.asarray(getattr(plant, n)).tolist() for n in PARAMETERS}
    for exponent in range(8, 21):
        rtol = 10.0 ** (-0.5 * exponent)
        step = rl_peer.make_step(lights.shape[0], constants, rtol)
        x, states = truth[:, 0].T, []
        for k in range(18):
            x = np.maximum(step(x, lights[:, k].T), 0.0)
            states.append(x.T)
        error = largest(np.stack(states, axis=1), truth[:, 1:])
        if max(error) <= BAR:
            break
    begun = time.perf_counter()
    training = peer_training(
        problem, settings, rl_peer.make_step(settings.n_episodes, constants, rtol)
    )
    training.epoch()
    first = time.perf_counter() - begun
    with console.status("running: PyTorch and CasADi"):
        each = min(timed(training.epoch, 5))
    row(f"PyTorch + CasADi CVODES, rtol {rtol:.0e}", error, first, each)
    return each, lambda n: rl_peer.make_step(n, constants, rtol)


if __name__ == "__main__":
    main()
