"""The rate process beside its peers: `python -m benchmarks.gp`.

One data set for all: 27 runs of 28 days (756 rows), nine rates, 16 inputs (nine states, six
set-points, the day). Ours is the process `train_hybrid` ships by default: one Matern-5/2 (ARD)
kernel over state and set-points times linear-plus-constant day, coupled over the species by an
index kernel of rank one, Kronecker form, exact Gaussian noise. BoTorch is SingleTaskGP, nine
independent outputs in one batch. The held-out log density stands beside each.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import functools
import io
import logging
import platform
import sys
import time
from collections.abc import Callable
from typing import Any

import perfusio_jax

perfusio_jax.enable_x64()

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import gp_peers
from perfusio_jax.gp import (
    FitConfig,
    MultiTaskRateGP,
    RateStep,
    StepwiseGP,
    append_rows,
    draw_gp_paths,
    fit,
    fit_scaling,
    log_evidence,
    trainable_filter,
)

RUNS, DAYS, TASKS, WIDTH = 27, 28, 9, 16
PATHS, RACK, STEP = 256, 24, 0.05
CORES = len(os.sched_getaffinity(0))
"""Threads of the peers: XLA takes all cores too."""


def make_table(seed: int = 0, runs: int = RUNS) -> tuple[np.ndarray, ...]:
    """Training inputs and targets, and a held-out set of a third of the size."""
    rng = np.random.default_rng(seed)

    def rows(runs: int) -> np.ndarray:
        start = rng.normal(size=(runs, 1, 9))
        walk = start + 0.35 * np.cumsum(rng.normal(size=(runs, DAYS, 9)), axis=1)
        controls = np.repeat(rng.normal(size=(runs, DAYS // 7, 6)), 7, axis=1)
        day = np.broadcast_to(np.arange(DAYS)[None, :, None], (runs, DAYS, 1))
        return np.concatenate([np.tanh(0.4 * walk) * 2.0, controls, day], axis=2)

    one, two = rng.normal(size=(2, WIDTH - 1, 4)) / 4.0
    mixing = rng.normal(size=(4, TASKS))

    def rates(x: np.ndarray) -> np.ndarray:
        smooth = np.sin(x[..., :-1] @ one) + 0.5 * np.tanh(x[..., :-1] @ two)
        return (smooth * (1.0 + 0.2 * x[..., -1:] / DAYS)) @ mixing

    train, test = rows(runs).reshape(-1, WIDTH), rows(runs // 3).reshape(-1, WIDTH)
    noise = 0.3
    y = rates(train) + noise * rng.normal(size=(train.shape[0], TASKS))
    held = rates(test) + noise * rng.normal(size=(test.shape[0], TASKS))
    return train, y, test, held


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """Result and seconds of one call."""
    start = time.perf_counter()
    result = jax.block_until_ready(call())
    return result, time.perf_counter() - start


def warm(call: Callable[[], Any], repeats: int) -> float:
    """Best of some calls [s]."""
    return min(timed(call)[1] for _ in range(repeats))


def build(x: np.ndarray, y: np.ndarray, **options: Any) -> MultiTaskRateGP:
    """The default process on a table."""
    scaling = fit_scaling(x, day_column=WIDTH - 1)
    return MultiTaskRateGP(x, y, n_tasks=TASKS, scaling=scaling, **options)


def log_density(model: MultiTaskRateGP, x: np.ndarray, y: np.ndarray) -> float:
    """Held-out log density per target, noise included."""
    mean, covariance = model.posterior(jnp.asarray(x))
    noise = model.likelihood.variance(TASKS) * model.target_scale**2
    variance = np.asarray(jnp.diagonal(covariance, axis1=1, axis2=2) + noise[None, :])
    error = y - np.asarray(mean)
    return float(np.mean(-0.5 * (np.log(2 * np.pi * variance) + error**2 / variance)))


@eqx.filter_jit
def value_and_slope(model: MultiTaskRateGP) -> tuple[Any, Any]:
    """Evidence and its gradient in what is trained."""
    params, fixed = eqx.partition(model, trainable_filter(model))
    return jax.value_and_grad(lambda p: log_evidence(eqx.combine(p, fixed)))(params)


@eqx.filter_jit
def rollout(model: MultiTaskRateGP, start: Any, plan: Any, key: Any, n_paths: int) -> Any:
    """Draw functions and follow them: (paths, days, outputs)."""
    paths = draw_gp_paths(model, n_paths, key=key)
    first = jnp.broadcast_to(start[None, :], (n_paths, start.size))

    def body(state: Any, rest: Any) -> Any:
        rows = jnp.concatenate(
            [state, jnp.broadcast_to(rest[None, :], (n_paths, rest.size))], axis=1
        )
        after = state + STEP * (model.mean_at(rows) + paths(rows))
        return after, after

    return jax.lax.scan(body, first, plan)[1]


@eqx.filter_jit
def rack(model: MultiTaskRateGP, starts: Any, plans: Any, key: Any, n_paths: int) -> Any:
    """All reactors on the same functions."""
    paths = draw_gp_paths(model, n_paths, key=key)

    def one(args: Any) -> Any:
        start, plan = args
        first = jnp.broadcast_to(start[None, :], (n_paths, start.size))

        def body(state: Any, rest: Any) -> Any:
            rows = jnp.concatenate(
                [state, jnp.broadcast_to(rest[None, :], (n_paths, rest.size))], axis=1
            )
            after = state + STEP * paths(rows)
            return after, after

        return jax.lax.scan(body, first, plan)[1]

    # together: the weights of a path are read once for all reactors
    return jax.vmap(lambda start, plan: one((start, plan)))(starts, plans)


class CompileCounter(logging.Handler):
    """Counts XLA compiles by function name, from JAX' own log."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the names of what is compiled."""
        text = record.getMessage()
        if text.startswith("Compiling"):
            self.names.append(text.split()[1])


def to_float32(tree: Any) -> Any:
    """Every floating leaf in single precision."""
    return jax.tree.map(
        lambda leaf: leaf.astype(jnp.float32) if eqx.is_inexact_array(leaf) else leaf, tree
    )


class Bench:
    """Runs the parts and keeps the rows of the table."""

    def __init__(self, repeats: int, with_peers: bool, steps: int) -> None:
        self.console = Console(stderr=True)
        self.repeats, self.steps = repeats, steps
        self.peers = with_peers and gp_peers.has_torch()
        self.rows: list[tuple[str, ...]] = []
        self.keys: dict[str, str] = {}
        self.x, self.y, self.x_test, self.y_test = make_table()

    def say(self, text: str) -> None:
        """Name the phase."""
        print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)

    def add(self, part: str, who: str, first: float, best: float, note: str = "") -> None:
        """A row of the table."""
        self.rows.append((part, who, f"{first:.3f}", f"{best:.4f}", note))
        # said at once too: a run that is stopped keeps what it has measured
        self.say(f"{part}, {who}: first {first:.3f} s, warm {best:.4f} s {note}")

    def note(self, text: str) -> None:
        """A word on the last row."""
        self.rows[-1] = (*self.rows[-1][:-1], text)
        self.say(f"{self.rows[-1][0]}, {self.rows[-1][1]}: {text}")

    def ours(self, part: str, call: Callable[[], Any], note: str = "") -> float:
        """Compile and run one of our calls."""
        self.say(f"compile and run: {part}, ours")
        _, first = timed(call)
        self.say(f"run: {part}, ours")
        best = warm(call, self.repeats)
        self.add(part, "perfusio-jax", first, best, note)
        return best

    def theirs(self, part: str, who: str, call: Callable[[], Any], repeats: int = 2) -> float:
        """Run one of the peers' calls."""
        self.say(f"run: {part}, {who}")
        _, first = timed(call)
        best = warm(call, repeats) if repeats else first
        self.add(part, who, first, best)
        return best

    def evidence(self) -> None:
        """(a) evidence and gradient, complete and with gaps, beside the fastest peer."""
        rng = np.random.default_rng(1)
        gappy = np.where(rng.random(self.y.shape) < 0.05, np.nan, self.y)
        for part, y in (("a evidence + gradient", self.y), ("a same, 5 % missing", gappy)):
            model = build(self.x, y)
            mine = self.ours(part, lambda m=model: value_and_slope(m))
            key = "evidence" if y is self.y else "missing"
            params = gp_peers.vmapped_parameters(TASKS, WIDTH)
            x, target = jnp.asarray(self.x), jnp.asarray(y)
            found = [
                self.theirs(
                    part,
                    "JAX, 9 kernels, vmapped",
                    lambda t=target, p=params, x=x: gp_peers.vmapped_gradient(p, x, t),
                )
            ]
            self.keys[f"{key}_vs_vmapped"] = f"{found[0] / mine:.1f}"
            if self.peers:
                found += self.structured(part, self.x, y, is_whole=y is self.y)
            self.keys[f"{key}_ratio"] = f"{min(found) / mine:.1f}"

    def structured(self, part: str, x: np.ndarray, y: np.ndarray, *, is_whole: bool) -> list[float]:
        """Seconds of BoTorch's models on a table."""
        if is_whole:
            batched = gp_peers.BoTorch(x, y, CORES)
            found = [self.theirs(part, "BoTorch, SingleTaskGP, batched", batched.evidence)]
        else:
            each = gp_peers.botorch_per_output(x, y, CORES)
            found = [
                self.theirs(
                    part, "BoTorch, one per output", lambda e=each: [m.evidence() for m in e]
                )
            ]
        latent = gp_peers.LatentKronecker(x, y, CORES)
        name = "BoTorch, LatentKroneckerGP"
        start = self.theirs(part, f"{name}, at the start", latent.evidence, 3)
        self.note(f"gradient off by {latent.slope_error():.1%}")
        self.say(f"{part}: 60 steps of {name}")
        latent.train()
        trained = self.theirs(part, f"{name}, after 60 steps", latent.evidence, 3)
        self.note(f"gradient off by {latent.slope_error():.1%}")
        key = "evidence" if is_whole else "missing"
        self.keys[f"{key}_iterative_start_s"] = f"{start:.3f}"
        # Of a search most evaluations are made near its end.
        return [*found, trained]

    def many_rows(self) -> None:
        """(g) evidence and gradient of ten times the rows, where iterative methods shine."""
        x, y, _, _ = make_table(runs=10 * RUNS)
        part = f"g evidence + gradient, {len(x)} rows"
        model = build(x, y)
        mine = self.ours(part, lambda: value_and_slope(model))
        if self.peers:
            latent = gp_peers.LatentKronecker(x, y, CORES)
            peer = self.theirs(part, "BoTorch, LatentKroneckerGP", latent.evidence, 0)
            self.keys["many_rows_ratio"] = f"{peer / mine:.1f}"

    def training(self) -> None:
        """(b) training to the same gradient norm, on the evidence per row."""
        tolerance = 1e-3
        config = FitConfig(max_iterations=400, n_restarts=1, tolerance=tolerance)
        model = build(self.x, self.y)
        self.say("compile and run: b training, ours")
        (self.model, report), first = timed(
            lambda: fit(model, key=jax.random.key(0), config=config)
        )
        self.say("run: b training, ours")
        (self.model, report), best = timed(lambda: fit(model, key=jax.random.key(0), config=config))
        density = log_density(self.model, self.x_test, self.y_test)
        note = f"{int(report.n_iterations)} evaluations, converged {report.converged}, "
        self.add("b training", "perfusio-jax", first, best, note + f"held-out {density:.3f}")
        self.refit = best
        if self.peers:
            spread = self.y.std(axis=0)
            scaled = (self.x - self.x.mean(axis=0)) / self.x.std(axis=0)
            self.torch = gp_peers.BoTorch(scaled, (self.y - self.y.mean(axis=0)) / spread, CORES)
            self.say(f"run: b training, BoTorch (up to {self.steps} iterations)")
            (count, size), spent = timed(lambda: self.torch.fit(self.steps, tolerance))
            test = (self.x_test - self.x.mean(axis=0)) / self.x.std(axis=0)
            held = (self.y_test - self.y.mean(axis=0)) / spread
            density = self.torch.log_density(test, held) - float(np.mean(np.log(spread)))
            note = f"{count} iterations, gradient {size:.1e}, held-out {density:.3f}"
            self.add("b training", "BoTorch, L-BFGS-B", spent, spent, note)
            self.keys["training_ratio"] = f"{spent / best:.1f}"

    def appending(self) -> None:
        """(c) a day of 24 reactors, and (e) compiles while a data set grows."""
        count = (DAYS - 1) * RACK
        base = build(self.x[:count], self.y[:count], capacity=RUNS * DAYS)
        base = eqx.tree_at(lambda m: (m.kernel, m.likelihood), base,
                           (self.model.kernel, self.model.likelihood)).condition()  # fmt: skip
        point = jnp.asarray(self.x_test[:RACK])

        def day() -> Any:
            grown = append_rows(base, self.x[count : count + RACK], self.y[count : count + RACK])
            return grown.predict_with_ci(point)

        best = self.ours("c append 24 rows + predict", day, "Kronecker form: solved again")
        self.keys["append_ratio"] = f"{self.refit / best:.0f}"
        counter = CompileCounter()
        logger = logging.getLogger("jax._src.interpreters.pxla")
        logger.addHandler(counter)
        was, logger.propagate = logger.propagate, False
        self.say("compile and run: e growing data set")
        with jax.log_compiles(True):
            model = build(self.x[:RACK], self.y[:RACK], capacity=256).condition()
            for d in range(1, DAYS):
                part = slice(d * RACK, (d + 1) * RACK)
                model = append_rows(model, self.x[part], self.y[part], growth=256)
                jax.block_until_ready(model.predict_with_ci(point))
        logger.removeHandler(counter)
        logger.propagate = was
        per = {n: sum(n in name for name in counter.names) for n in ("_recondition", "_posterior")}
        self.keys["compiles"] = str(max(per.values()))
        self.rows.append(("e 28 days of 24 reactors", "perfusio-jax", "", "", f"compiles {per}"))

    def forecasts(self) -> None:
        """(d) roll-outs of 256 paths, and (f) a rack."""
        start, rest = jnp.zeros(9), jnp.asarray(self.x[:DAYS, 9:])
        key = jax.random.key(1)
        part = f"d roll-out {PATHS} x {DAYS} days"
        best = self.ours(f"{part}, float64", lambda: rollout(self.model, start, rest, key, PATHS))
        small, start32, rest32 = to_float32((self.model, start, rest))
        with jax.enable_x64(False):
            fast = self.ours(
                f"{part}, float32", lambda: rollout(small, start32, rest32, key, PATHS)
            )
        if self.peers:
            scale = self.x.std(axis=0)
            plan = (np.asarray(rest) - self.x[:, 9:].mean(axis=0)) / scale[9:]
            peer = self.theirs(part, "GPyTorch, fast_pred_var",
                               lambda: self.torch.rollout(np.zeros(9), plan, PATHS), 1)  # fmt: skip
            follow = functools.partial(self.torch.matheron, np.zeros(9), plan, PATHS)
            paths = self.theirs(part, "BoTorch, Matheron paths", follow, 1)
            self.keys["matheron_ratio"] = f"{paths / best:.1f}"
            peer = min(peer, paths)
            self.keys["rollout_ratio"] = f"{peer / best:.1f}"
            self.keys["rollout_ratio_float32"] = f"{peer / fast:.1f}"
        step = StepwiseGP(self.model, self.model.likelihood, 9, [f"u{k}" for k in range(6)],
                          step=RateStep(STEP))  # fmt: skip
        plan = rest[:, :6]
        truth = step.predict_quantiles(start, plan, DAYS, 4096, method="mc-marginal")
        spread = (truth["q90"] - truth["q10"]) / 2.563
        for method, options in (("mc", {}), ("mc-marginal", {}), ("moment_matching", {}),
                                ("moment_matching", {"closed_form": False})):  # fmt: skip
            result = step.predict_quantiles(start, plan, DAYS, PATHS, method=method, **options)
            sd = (result["q90"] - result["q10"]) / 2.563
            off = float(jnp.max(jnp.abs(result["mean"] - truth["mean"]) / spread))
            wide = float(jnp.max(jnp.abs(sd / spread - 1.0)))
            name = "moments, all by cubature" if options else method
            note = f"off 4096 marginal paths: mean {off:.2f} sd, sd {100 * wide:.0f} %"

            def forecast(how: str = method, more: Any = options) -> Any:
                return step.predict_quantiles(start, plan, DAYS, PATHS, method=how, **more)

            self.ours(f"d by {name}", forecast, note)
        starts = jnp.asarray(np.random.default_rng(3).normal(size=(RACK, 9)))
        plans = jnp.broadcast_to(rest[None, :, :], (RACK, *rest.shape))
        self.ours(f"f {RACK} reactors x {DAYS} x {PATHS}, float64",
                  lambda: rack(self.model, starts, plans, key, PATHS))  # fmt: skip
        small, starts32, plans32 = to_float32((self.model, starts, plans))
        with jax.enable_x64(False):
            both = self.ours(f"f {RACK} reactors x {DAYS} x {PATHS}, float32",
                             lambda: rack(small, starts32, plans32, key, PATHS))  # fmt: skip
        self.keys["rack_s"] = f"{both:.2f}"
        self.with_mechanism(key)

    def with_mechanism(self, key: Any) -> None:
        """(d) once more with the mechanistic prior integrated inside every step."""
        from perfusio_jax._core import CONTROL_NAMES, STATE_ORDER
        from perfusio_jax.gp import MechanisticPriorMean
        from perfusio_jax.mechanistic import CHOPerfusionModel

        mean = MechanisticPriorMean(CHOPerfusionModel(), 9, STATE_ORDER, CONTROL_NAMES)
        model = eqx.tree_at(lambda m: m.mean_module, self.model, mean)
        start = jnp.asarray([10.0, 0.5, 4.0, 2.0, 1.0, 10.0, 2.0, 0.5, 100.0])
        plan = jnp.tile(jnp.asarray([[1.0, 0.1, 5.0, 37.0, 850.0, 1.0, 0.0]]), (DAYS, 1))
        plan = plan.at[:, -1].set(jnp.arange(DAYS))
        part = f"d roll-out {PATHS} x {DAYS}, mechanistic prior on"
        self.ours(part, lambda: rollout(model, start, plan, key, PATHS), "adaptive integrator")

    def table(self) -> str:
        """The table in Markdown."""
        text = io.StringIO()
        print("| part | who | first [s] | warm [s] | note |\n|---|---|---:|---:|---|", file=text)
        for row in self.rows:
            print("| " + " | ".join(row) + " |", file=text)
        return text.getvalue()


def main() -> None:
    """Run all parts and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="warm calls of ours")
    parser.add_argument("--no-peers", action="store_true", help="leave torch out")
    parser.add_argument("--peer-steps", type=int, default=40, help="BoTorch's L-BFGS iterations")
    parser.add_argument(
        "--parts", default="abcdf", help="which parts to run; g: ten times the rows"
    )
    parser.add_argument("--markdown", default="", help="file for the table")
    options = parser.parse_args()
    bench = Bench(options.repeats, not options.no_peers, options.peer_steps)
    if not options.no_peers and not bench.peers:
        print("torch, gpytorch and botorch are not installed: pip install 'perfusio-jax[bench]'. "
              "Measured beside the JAX peer only.")  # fmt: skip
    if "a" in options.parts:
        bench.evidence()
    if {*"bcd"} & {*options.parts}:
        bench.training()
    if "g" in options.parts:
        bench.many_rows()
    if "c" in options.parts:
        bench.appending()
    if "d" in options.parts:
        bench.forecasts()
    table = Table(
        title=f"{RUNS * DAYS} rows, {TASKS} outputs, {WIDTH} inputs; {platform.machine()}"
    )
    for name in ("part", "who", "first [s]", "warm [s]", "note"):
        table.add_column(name, justify="right" if "[s]" in name else "left")
    for row in bench.rows:
        table.add_row(*row)
    Console(width=150).print(table)
    if options.markdown:
        with open(options.markdown, "w", encoding="utf-8") as handle:
            handle.write(bench.table())
    order = [k for k in ("rollout_ratio", "rollout_ratio_float32") if k in bench.keys]
    order += [k for k in bench.keys if k not in order]
    if "rollout_ratio" not in bench.keys:
        bench.keys["rollout_ratio"] = "nan"
        order.insert(0, "rollout_ratio")
    print("gp: " + " ".join(f"{k}={bench.keys[k]}" for k in order))


if __name__ == "__main__":
    main()
