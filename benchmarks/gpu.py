"""What a card does, beside the CPU of the same machine: `python -m benchmarks.gpu`.

One script of at most eight minutes (`--minutes`). Five parts, each in float32 and float64, with as
many lanes as the part's share of the time allows, a decade at a time from 1,000 to 1,000,000:

  plant     28-day runs over random designs, both virtual clones; beside them diffrax (Kvaerno5 and
            Tsit5 at 1e-5) under `vmap` on the same device
  hybrid    paths of 28 days of a hybrid model: mechanism, drawn residual functions, noise
  evidence  of the step-wise Gaussian process, with its gradient; rows are runs of 28 days
  search    qLogEI of four candidates in six dimensions, 20 restarts; searches per second
  reinforce steps of the environment per second while a policy is trained

Where JAX has a card, all of it is measured there and again on the CPU; where it has none, on the
CPU alone, and the last line says so. On a CPU jobs that would not fit their time are left out.

Share of the roofline: arithmetic and memory traffic as XLA's cost analysis counts them for one pass
of the program's loop, times the passes that were made, over the time; each as a share of what a
large matrix product and a large sum reach on the same device in the same precision. The larger of
the two is told, and which it is. Counted traffic includes what caches serve, so that small batches
on a CPU can come out above one.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import contextlib
import platform
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import perfusio_jax

perfusio_jax.enable_x64()

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import gp
from perfusio_jax.bed import build_acquisition, gaussian_process, optimise_acquisition_with_info
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE
from perfusio_jax.hybrid import HybridStateSpaceModel, draw_paths, rollout, untrained_model
from perfusio_jax.hybrid.observation import to_states
from perfusio_jax.mechanistic import (
    CHOPerfusionModel,
    Reactor,
    Tolerances,
    integrate,
    make_plan,
    stack,
)
from perfusio_jax.mechanistic.with_diffrax import integrate_diffrax
from perfusio_jax.rl import SCENARIOS, Problem, TrainSettings, build, saturation
from perfusio_jax.rl.reinforce import begin, continue_training
from perfusio_jax.simulator import initial_state, virtual_kinetics

DAYS = 28
SIZES = (1_000, 10_000, 100_000, 1_000_000)
PARTS = ("plant", "hybrid", "evidence", "search", "reinforce")
FACE = (10.0, 97.0, 4.0, 3.0, 0.8, 8.0, 2.0, 0.8, 200.0)


class Work(NamedTuple):
    """Something to be timed."""

    call: Callable[[], Any]
    """Runs it; compiled on its first call."""
    unit: str
    n: float
    """Units of one call."""
    counted: Callable[[], dict[str, float]] | None = None
    """Flops and bytes of one pass."""
    passes: Callable[[Any], float] = lambda _: 1.0
    """Passes of the loop, from the result."""


class Ceiling(NamedTuple):
    """What a device reaches."""

    flops: float
    bytes: float


def in_precision(tree: Any, dtype: Any) -> Any:
    """Floating arrays in one precision."""
    return jax.tree.map(lambda v: v.astype(dtype) if eqx.is_inexact_array(v) else v, tree)


def only(dtype: Any) -> Any:
    """Single precision throughout, where it is asked: constants in double would carry over."""
    is_double = jnp.dtype(dtype) == jnp.float64
    return contextlib.nullcontext() if is_double else jax.enable_x64(False)


def analysed(function: Callable, *arguments: Any) -> dict[str, float]:
    """What XLA counts of a jitted function."""
    arrays, static = eqx.partition(arguments, eqx.is_array)
    whole = jax.jit(lambda a: eqx.filter(function(*eqx.combine(a, static)), eqx.is_array))
    found = whole.lower(arrays).compile().cost_analysis()
    found = found[0] if isinstance(found, list) else found
    return dict(found or {})


def plant_arguments(n: int, dtype: Any) -> tuple[Reactor, Any]:
    """Runs over random designs."""
    rng = np.random.default_rng(0)
    lo, hi = (np.asarray(b) for b in DEFAULT_AMBR250_DESIGN_SPACE.bounds_array)
    controls = lo + (hi - lo) * rng.random((n, len(lo)))
    two = stack([virtual_kinetics("CloneX"), virtual_kinetics("CloneY")])
    kinetics = jax.tree.map(lambda v: jnp.asarray(v)[np.arange(n) % 2], two)
    reactor, initial, controls, lengths = in_precision(
        (
            Reactor(kinetics=kinetics),
            jnp.tile(initial_state(), (n, 1)),
            jnp.asarray(controls),
            jnp.full(DAYS, 24.0),
        ),
        dtype,
    )
    return reactor, make_plan(reactor, initial, controls, lengths)


def plant_work(n: int, dtype: Any) -> Work:
    """Our batched integrator."""
    reactor, plan = plant_arguments(n, dtype)
    tolerances = in_precision(Tolerances(), dtype)
    run = eqx.filter_jit(lambda r, p, t: integrate(r, p, t, chunk=n))
    return Work(
        lambda: run(reactor, plan, tolerances),
        "runs/s",
        n,
        lambda: analysed(lambda r, p, t: integrate(r, p, t, chunk=n), reactor, plan, tolerances),
        lambda out: float(jnp.max(out.n_steps)),
    )


def diffrax_work(solver: str) -> Callable[[int, Any], Work]:
    """The same runs by diffrax, at the tolerance that gives an error like ours."""

    def work(n: int, dtype: Any) -> Work:
        import diffrax

        reactor, plan = plant_arguments(n, dtype)
        method = getattr(diffrax, solver)()
        run = eqx.filter_jit(
            lambda r, p: integrate_diffrax(r, p, solver=method, rtol=1e-5, atol=1e-7)
        )
        return Work(lambda: run(reactor, plan), "runs/s", n)

    return work


def hybrid_model(dtype: Any = jnp.float64) -> HybridStateSpaceModel:
    """A hybrid model of the shape that a campaign of 27 runs gives; its residuals are made up."""
    x, y, _, _ = gp.make_table()
    process = gp.build(np.concatenate([np.abs(x[:, :9]), x[:, 9:]], axis=1), 0.02 * y)
    process = process.condition()
    model = untrained_model(CHOPerfusionModel())
    whole = eqx.tree_at(lambda m: m.gp, model, process, is_leaf=lambda v: v is None)
    return in_precision(whole, dtype)


def hybrid_work(n: int, dtype: Any) -> Work:
    """Paths of the hybrid model, in pieces of at most 4,096: functions drawn take memory."""
    model = hybrid_model(dtype)
    start = in_precision(to_states(model.layout, jnp.asarray(FACE)), dtype)
    controls = jnp.tile(jnp.asarray([1.0, 0.15, 4.0, 36.5, 850.0, 1.0], dtype), (DAYS, 1))
    piece = min(n, 4096)

    def one(model: Any, seed: Any) -> Any:
        paths = draw_paths(model, piece, key=jax.random.key(seed), max_steps=DAYS)
        day = jnp.zeros((), dtype)
        return rollout(model, in_precision(paths, dtype), start, controls, day)

    run = eqx.filter_jit(one)

    def call() -> Any:
        with only(dtype):
            return [run(model, jnp.asarray(k)) for k in range(-(-n // piece))]

    def counted() -> dict[str, float]:
        with only(dtype):
            return analysed(one, model, jnp.asarray(0))

    pieces = -(-n // piece)
    return Work(
        call,
        "paths/s",
        n,
        counted,
        lambda _: float(DAYS * pieces),
    )


def evidence_work(n: int, dtype: Any) -> Work:
    """Evidence and gradient of a table of as many rows as fit 28-day runs."""
    del n
    x, y, _, _ = gp.make_table()
    model = in_precision(gp.build(x, y), dtype)
    return Work(
        lambda: gp.value_and_slope(model),
        "evaluations/s",
        1,
        lambda: analysed(gp.value_and_slope, model),
    )


def search_work(n: int, dtype: Any) -> Work:
    """One search; precision is that of the surrogate, double."""
    del n
    rng = np.random.default_rng(0)
    X = rng.random((50, 6))
    y = -np.sum((X - 0.4) ** 2, axis=1) + 0.05 * rng.standard_normal(50)
    model = gaussian_process(X, y, lengthscale=np.full(6, 0.5), noise=0.01)
    acquisition = in_precision(
        build_acquisition("qLogEI", model, best_f=float(y.max()), q=4, sampler=128), dtype
    )
    box = (np.zeros(6), np.ones(6))
    return Work(
        lambda: optimise_acquisition_with_info(acquisition, box, 4, 20, n_raw_samples=512, seed=0)[
            :2
        ],
        "searches/s",
        1,
    )


def reinforce_work(n: int, dtype: Any) -> Work:
    """Epochs of a training, five at a time."""
    env, params = build(SCENARIOS[3])
    problem = Problem(env, params, saturation(27.0))
    settings = TrainSettings(
        n_episodes=n, n_epochs=10_000, n_devices=1, is_single=dtype == jnp.float32
    )
    state = begin(problem, settings, key=jax.random.key(0))
    run = eqx.filter_jit(lambda s, until: continue_training(problem, settings, s, until))
    return Work(lambda: run(state, jnp.asarray(5)).epoch, "steps/s", 5.0 * 18 * n)


def ceiling(dtype: Any) -> Ceiling:
    """What a matrix product and a sum reach."""
    size = 4096 if jax.default_backend() != "cpu" else 1024
    a = jnp.ones((size, size), dtype)
    b = jnp.ones(64 * size * 256, dtype)
    product, total = jax.jit(lambda v: v @ v), jax.jit(lambda v: v + 1.0)

    def best(call: Callable[[], Any]) -> float:
        times = [timed(call)[1] for _ in range(4)]
        return min(times[1:])

    return Ceiling(
        2.0 * size**3 / best(lambda: product(a)), 2.0 * b.nbytes / best(lambda: total(b))
    )


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """Result and seconds."""
    begun = time.perf_counter()
    found = jax.block_until_ready(call())
    return found, time.perf_counter() - begun


def share_of(work: Work, result: Any, seconds: float, most: Ceiling) -> str:
    """Share of the roofline, and by what."""
    if work.counted is None:
        return ""
    counted = work.counted()
    passes = work.passes(result)
    flops = passes * counted.get("flops", 0.0) / seconds / most.flops
    traffic = passes * counted.get("bytes accessed", 0.0) / seconds / most.bytes
    return f"{max(flops, traffic):.2g} {'flops' if flops > traffic else 'bytes'}"


class Measured(NamedTuple):
    """One line."""

    part: str
    who: str
    device: str
    dtype: str
    n: int
    first_s: float
    warm_s: float
    spread_s: float
    rate: float
    unit: str
    share: str


def measure(
    part: str, who: str, make: Callable, device: Any, dtype: Any, until: float, sizes: tuple
) -> list[Measured]:
    """Sizes in turn, as long as the next one promises to fit the time."""
    found: list[Measured] = []
    with jax.default_device(device):
        most = ceiling(dtype)
        for n in sizes:
            left = until - time.perf_counter()
            if found and (left < 0.0 or _promised(found[-1], n) > left):
                break
            try:
                work = make(n, dtype)
                result, first = timed(work.call)
                times = [timed(work.call)[1]]
                while len(times) < 3 and time.perf_counter() + times[-1] < until:
                    times.append(timed(work.call)[1])
                warm = float(np.median(times))
                share = share_of(work, result, warm, most) if left > first else ""
            except jax.errors.JaxRuntimeError as error:
                if "RESOURCE_EXHAUSTED" not in str(error):
                    raise
                break  # the device's memory ends here
            found.append(
                Measured(
                    part, who, device.platform, jnp.dtype(dtype).name, n, first, warm,
                    float(np.ptp(times)), work.n / warm, work.unit, share,
                )
            )  # fmt: skip
    return found


def _promised(before: Measured, n: int) -> float:
    """Seconds of a first call and three more, by those of a smaller size."""
    return before.first_s + 3.0 * before.warm_s * n / before.n


def jobs(parts: tuple[str, ...], is_quick: bool) -> list[tuple[str, str, Callable, tuple, bool]]:
    """Part, who, what, sizes, whether a card alone is asked."""
    sizes = SIZES[:1] if is_quick else SIZES
    ours = "perfusio-jax"
    every = [
        ("plant", ours, plant_work, sizes, False),
        ("hybrid", ours, hybrid_work, sizes, False),
        ("evidence", ours, evidence_work, (756,), False),
        ("search", ours, search_work, (1,), False),
        ("reinforce", ours, reinforce_work, sizes, False),
        ("plant", "diffrax Kvaerno5", diffrax_work("Kvaerno5"), sizes, False),
        ("plant", "diffrax Tsit5", diffrax_work("Tsit5"), sizes, False),
    ]
    return [job for job in every if job[0] in parts]


def run(minutes: float, parts: tuple[str, ...], is_quick: bool = False) -> list[Measured]:
    """All that fits the time, the card first."""
    devices = [jax.devices()[0]]
    if devices[0].platform != "cpu":
        devices.append(jax.devices("cpu")[0])
    kinds = (jnp.float32, jnp.float64)
    todo = [
        (job, device, dtype)
        for device in devices
        for job in jobs(parts, is_quick)
        for dtype in kinds
        if not (job[0] == "search" and dtype == jnp.float32)  # its surrogates are double
    ]
    begun = time.perf_counter()
    found: list[Measured] = []
    for k, ((part, who, make, sizes, _), device, dtype) in enumerate(todo):
        now = time.perf_counter()
        left = begun + 60.0 * minutes - now
        if left < 0.0:
            break
        found += measure(part, who, make, device, dtype, now + left / (len(todo) - k), sizes)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=7.5, help="most time, compiling included")
    parser.add_argument("--part", action="append", choices=PARTS, help="only these; may repeat")
    parser.add_argument("--quick", action="store_true", help="the smallest batch of each")
    options = parser.parse_args()
    device = jax.devices()[0]
    console = Console(highlight=False, width=118)
    console.print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"{device.platform}:{device.device_kind}, jax {jax.__version__}; load "
        f"{os.getloadavg()[0]:.1f}"
    )
    found = run(options.minutes, tuple(options.part or PARTS), options.quick)
    table = Table(title="one device each; median of up to three warm calls, and their spread")
    for name in Measured._fields:
        left = name in ("part", "who", "device", "dtype", "unit", "share")
        table.add_column(name, justify="left" if left else "right")
    for row in found:
        table.add_row(*(f"{v:.3g}" if isinstance(v, float) else str(v) for v in row))
    console.print(table)
    keys = {"device": device.platform, "is_card": str(device.platform != "cpu").lower()}
    for row in found:
        if row.device == device.platform and row.who == "perfusio-jax":
            keys[f"{row.part}_{row.dtype}"] = f"{row.rate:.3g}"  # the largest batch stays
    print("gpu: " + " ".join(f"{k}={v}" for k, v in keys.items()))


if __name__ == "__main__":
    main()
