"""Training of a policy beside the publication's stack: `python -m benchmarks.rl`.

One epoch is 500 episodes of 18 hours of the set-point case (3.5, 3.5), the return of all of them
and one ascent, from an untrained policy. Every episode counts, those that run out of glucose too.
Both plants are checked against SciPy's Radau at 1e-10 on episodes that do; the peer's tolerance is
the loosest of a half-decade grid at which its biomass and amino acids err by at most 1e-4.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import platform
import time
from typing import Any

import perfusio_jax

perfusio_jax.enable_x64()

import equinox as eqx
import jax
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
)
from perfusio_jax.rl.reinforce import begin, continue_training

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
    options = parser.parse_args()
    console = Console(highlight=False, width=110)
    console.print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"{jax.devices()[0].platform}, jax {jax.__version__}; load {os.getloadavg()[0]:.1f}"
    )
    env, params = build(SCENARIOS[3])
    problem = Problem(env, params, saturation(27.0))
    settings = TrainSettings(n_episodes=N_EPISODES, n_epochs=10_000)
    with console.status("running: reference episodes with Radau at 1e-10"):
        low, high = np.asarray(params.bounds.low), np.asarray(params.bounds.high)
        lights, truth = checked_episodes(params.plant, np.asarray(params.initial), low, high)
    gone = (truth[:, 1:, 0] < 0.01).any(axis=1).mean()

    def hour(x: jax.Array, light: jax.Array) -> tuple[jax.Array, jax.Array]:
        after = advance(params.plant, x, light)
        return after, after

    course = jax.jit(jax.vmap(lambda u: jax.lax.scan(hour, params.initial, u)[1]))
    ours_error = largest(np.asarray(course(jnp.asarray(lights))), truth[:, 1:])

    run = eqx.filter_jit(lambda s, until: continue_training(problem, settings, s, until))
    state = begin(problem, settings, key=jax.random.key(0))

    def go(until: int) -> Any:
        return jax.block_until_ready(run(state, jnp.asarray(until)).epoch)

    with console.status("compiling: one epoch"):
        first = timed(lambda: go(1), 1)[0]
    with console.status("running: ours"):
        ours = min(timed(lambda: go(options.epochs), 3)) / options.epochs
    table = Table(title=f"{N_EPISODES} episodes of 18 h per epoch; {gone:.0%} run out of glucose")
    for name in ("who", "error", "error, glucose", "first [s]", "epoch [s]", "epochs/s", "steps/s"):
        table.add_column(name, justify="left" if name == "who" else "right")

    def row(who: str, error: tuple[float, float], begun: float, each: float) -> None:
        rates = (f"{1 / each:.3g}", f"{18 * N_EPISODES / each:.3g}")
        table.add_row(who, *(f"{e:.1e}" for e in error), f"{begun:.1f}", f"{each:.4f}", *rates)

    row(f"perfusio-jax, {len(GRID)} substeps per hour", ours_error, first, ours)
    keys = {"epochs_per_s": f"{1 / ours:.2f}"}
    if not options.no_peer:
        keys = peer(console, row, problem, settings, lights, truth, ours) | keys
    console.print(table)
    print("rl: " + " ".join(f"{k}={v}" for k, v in keys.items()))


def peer(
    console: Console,
    row: Any,
    problem: Problem,
    settings: TrainSettings,
    lights: np.ndarray,
    truth: np.ndarray,
    ours: float,
) -> dict[str, str]:
    """PyTorch and CasADi at the loosest tolerance that meets the bar."""
    try:
        from benchmarks import rl_peer
    except ImportError as error:
        console.print(f"{error}: pip install 'perfusio-jax[bench]'")
        return {}
    params = problem.params
    low, high = np.asarray(params.bounds.low), np.asarray(params.bounds.high)
    constants = {n: np.asarray(getattr(params.plant, n)).tolist() for n in PARAMETERS}
    n = lights.shape[0]
    for exponent in range(8, 21):
        rtol = 10.0 ** (-0.5 * exponent)
        step = rl_peer.make_step(n, constants, rtol)
        x, states = truth[:, 0].T, []
        for k in range(18):
            x = np.maximum(step(x, lights[:, k].T), 0.0)
            states.append(x.T)
        error = largest(np.stack(states, axis=1), truth[:, 1:])
        if error[0] <= BAR and error[1] <= BAR:
            break
    begun = time.perf_counter()
    training = rl_peer.Training(
        np.asarray(params.initial),
        np.asarray(params.reference),
        rl_peer.make_step(N_EPISODES, constants, rtol),
        N_EPISODES,
        (low, high),
        float(settings.learning_rate),
    )
    training.epoch()
    first = time.perf_counter() - begun
    with console.status("running: PyTorch and CasADi"):
        each = min(timed(training.epoch, 5))
    row(f"PyTorch + CasADi CVODES, rtol {rtol:.0e}", error, first, each)
    return {"ratio": f"{each / ours:.0f}"}


if __name__ == "__main__":
    main()
