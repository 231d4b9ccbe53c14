"""The search beside BoTorch's: `python -m benchmarks.bed`.

Both search the same acquisition: BoTorch fits the processes, its hyper-parameters and its base
samples are given to ours, and the two values at one batch must agree before a clock starts.
LogEI in six dimensions, qLogEI with four candidates and 128 samples, qNEHVI with two candidates
and 128 samples over a pruned baseline; 20 restarts, 512 raw samples, several seeds. A speed-up
counts with the value found beside it. `--agreement` compares values only, on seven problems;
`--first-seed` gives it tables and searches on which nothing was tuned.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import platform
import statistics
import sys
import time
from typing import Any, NamedTuple

import perfusio_jax

perfusio_jax.enable_x64()

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table as RichTable

from benchmarks import bed_peers
from benchmarks.bed_problems import PROBLEMS, SPEED, Problem, Table, make_table
from perfusio_jax.bed import (
    OutcomeConstraint,
    build_acquisition,
    gaussian_process,
    gaussian_processes,
    optimise_acquisition_with_info,
)

RESTARTS, RAW = 20, 512
STORED = {
    "Branin": 2,
    "Hartmann-6, cut": 2,
    "Ackley-10": 2,
    "Branin-Currin": 1,
    "DTLZ2": 1,
    "C2-DTLZ2": 2,
}
"""Problems whose surrogates the tests search, and how many seeds of each; see `--store`. Of the
two of C2-DTLZ2 the second has no point that keeps the constraint among its training points."""


class Found(NamedTuple):
    """One search."""

    X: np.ndarray
    value: float
    seconds: float
    note: str = ""


def say(text: str) -> None:
    """Name the phase."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def make_ours(problem: Problem, table: Table, given: dict[str, Any]) -> Any:
    """Our acquisition from hyper-parameters, base samples and baseline."""
    m = problem.n_objectives
    hyper = {k: given[k] for k in ("lengthscale", "variance", "noise", "constant")}
    base = given["base"]
    if problem.acquisition != "qNEHVI":
        model = gaussian_process(
            table.X, table.Y[:, 0], **{k: np.asarray(v)[0] for k, v in hyper.items()}
        )
        best_f = float(table.Y[:, 0].max())
        if problem.acquisition == "LogEI":
            return build_acquisition("LogEI", model, best_f=best_f)
        return build_acquisition("qLogEI", model, best_f=best_f, q=problem.q, sampler=base[..., 0])
    model = gaussian_processes(table.X, table.Y[:, :m], **{k: v[:m] for k, v in hyper.items()})
    limits = []
    if problem.has_constraint:
        outcome = gaussian_process(table.X, table.Y[:, m], **{k: v[m] for k, v in hyper.items()})
        limits = [OutcomeConstraint(outcome, jnp.asarray(base[..., m]), table.limit)]
    return build_acquisition(
        "qNEHVI",
        model,
        ref_point=table.ref_point,
        X_baseline=given["baseline"],
        constraints=limits,
        eta=0.05,
        q=problem.q,
        sampler=base[..., :m],
    )


def search_ours(problem: Problem, acqf: Any, seed: int) -> Found:
    """One search of ours."""
    rows = None
    if problem.largest_mean is not None:
        rows = (np.full((1, problem.d), 1.0 / problem.d), np.array([problem.largest_mean]))
    box = (np.zeros(problem.d), np.ones(problem.d))
    start = time.perf_counter()
    X, value, info = jax.block_until_ready(
        optimise_acquisition_with_info(
            acqf, box, problem.q, RESTARTS, n_raw_samples=RAW, seed=seed, linear_constraints=rows
        )
    )
    spent = time.perf_counter() - start
    note = f"{int(info.n_converged)}/{RESTARTS} converged, {int(info.n_evals)} evaluations"
    return Found(np.asarray(X), float(value[0]), spent, note)


def violation(problem: Problem, X: np.ndarray) -> float:
    """Largest amount by which candidates break a bound or the row."""
    worst = max(float(np.max(-X)), float(np.max(X - 1.0)), 0.0)
    if problem.largest_mean is None:
        return worst
    return max(worst, float(np.max(X.mean(axis=1))) - problem.largest_mean)


def is_no_worse(ours: float, theirs: float) -> bool:
    """The bar: at least their value, but for 1e-6 of its size."""
    return ours >= theirs - 1e-6 * (1.0 + abs(theirs))


def theirs_and_given(problem: Problem, table: Table, seed: int, **options: Any) -> tuple[Any, Any]:
    """BoTorch's side of a problem and what ours is built from."""
    peer = bed_peers.BoTorch(problem, table, seed, **options)
    return peer, {**peer.hyper, "base": peer.base, "baseline": peer.baseline}


def check_same(problem: Problem, peer: Any, acqf: Any) -> float:
    """Difference of the two acquisitions at one batch, relative to `1 + |value|`."""
    X = np.random.default_rng(3).random((problem.q, problem.d))
    theirs = peer.value(X)
    return abs(float(eqx.filter_jit(acqf)(jnp.asarray(X))) - theirs) / (1.0 + abs(theirs))


def speed(
    seeds: int, first: int, n_threads: int
) -> tuple[list[tuple[str, ...]], list[float], bool]:
    """Rows of the table, speed-ups, and whether every value is no worse."""
    rows, ratios, all_good = [], [], True
    for problem in SPEED:
        table = make_table(problem, first)
        say(f"{problem.name}: BoTorch fits the surrogate")
        peer, given = theirs_and_given(problem, table, first, n_threads=n_threads, is_pruned=True)
        acqf = make_ours(problem, table, given)
        gap = check_same(problem, peer, acqf)
        if gap > 1e-6:
            raise SystemExit(f"{problem.name}: the acquisitions differ by {gap:.1e}")
        say(f"{problem.name}: values agree to {gap:.0e}; BoTorch searches, {seeds + 1} runs")
        theirs = []
        for seed in range(first, first + seeds + 1):
            start = time.perf_counter()
            X, value = peer.search(seed, RESTARTS, RAW)
            theirs.append(Found(X, value, time.perf_counter() - start))
        say(f"{problem.name}: ours compiles and searches (about 10 s)")
        ours = [search_ours(problem, acqf, first)]
        say(f"{problem.name}: ours searches, {seeds} runs")
        ours += [search_ours(problem, acqf, first + k) for k in range(1, seeds + 1)]
        good = sum(is_no_worse(a.value, b.value) for a, b in zip(ours, theirs, strict=True))
        all_good &= good >= 0.9 * len(ours)
        fast, slow = (statistics.median(f.seconds for f in side[1:]) for side in (ours, theirs))
        ratios.append(slow / fast)
        for who, side, typical in (("perfusio-jax", ours, fast), ("BoTorch", theirs, slow)):
            values = [f.value for f in side]
            rows.append(
                (
                    problem.name,
                    who,
                    f"{side[0].seconds:.3f}",
                    f"{1e3 * typical:.1f}",
                    f"{statistics.median(values):.6g}",
                    f"{slow / fast:.1f}x, no worse in {good}/{len(ours)}; {ours[-1].note}"
                    if who == "perfusio-jax"
                    else "",
                )
            )
        say(f"{problem.name}: {rows[-2][3]} ms against {rows[-1][3]} ms, {rows[-2][5]}")
    return rows, ratios, all_good


def agreement(seeds: range, store: str, names: list[str], n_threads: int) -> list[tuple[str, ...]]:
    """Values found on every problem, ours beside BoTorch's, same budget."""
    rows, kept = [], {}
    for problem in PROBLEMS:
        if names and problem.name not in names:
            continue
        good, worst, behind, spent, missed = 0, 0.0, [], [0.0, 0.0], []
        for seed in seeds:
            table = make_table(problem, seed)
            peer, given = theirs_and_given(problem, table, seed, n_threads=n_threads)
            acqf = make_ours(problem, table, given)
            gap = check_same(problem, peer, acqf)
            if gap > 1e-6:
                raise SystemExit(f"{problem.name}, seed {seed}: acquisitions differ by {gap:.1e}")
            start = time.perf_counter()
            _, value = peer.search(seed, RESTARTS, RAW)
            spent[1] += time.perf_counter() - start
            mine = search_ours(problem, acqf, seed)
            spent[0] += mine.seconds
            if is_no_worse(mine.value, value):
                good += 1
            else:
                missed.append(seed)
            behind.append((value - mine.value) / (1.0 + abs(value)))
            worst = max(worst, violation(problem, mine.X))
            if seed < STORED.get(problem.name, 0):
                whole = {**given, **table._asdict(), "value": np.asarray(value)}
                whole = {k: v for k, v in whole.items() if v is not None}
                kept |= {f"{problem.name}.{seed}.{k}": np.asarray(v) for k, v in whole.items()}
        row = (
            problem.name,
            f"{problem.acquisition} q={problem.q}",
            f"{good}/{len(seeds)}" + (f", not {missed}" if missed else ""),
            f"{max(behind):.1e}",
            f"{min(behind):.1e}",
            f"{worst:.0e}",
            f"{spent[0]:.1f}, {spent[1]:.1f}",
        )
        rows.append(row)
        say(": ".join((row[0], ", ".join(row[1:]))))
    if store:
        np.savez_compressed(store, **kept)
    return rows


def show(title: str, names: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Print a table."""
    table = RichTable(title=title)
    for name in names:
        table.add_column(name)
    for row in rows:
        table.add_row(*row)
    Console(width=150).print(table)


def main() -> None:
    """Run the parts and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="searches per problem")
    parser.add_argument("--agreement", action="store_true", help="values on seven problems")
    parser.add_argument("--first-seed", type=int, default=0, help="of tables and searches")
    parser.add_argument("--threads", type=int, default=0, help="of BoTorch; 0: all it may use")
    parser.add_argument("--problems", nargs="*", default=[], help="only these, by name")
    parser.add_argument("--store", default="", help="keep what --agreement found for the tests")
    options = parser.parse_args()
    if not bed_peers.has_torch():
        raise SystemExit(
            "torch, gpytorch and botorch are missing: pip install 'perfusio-jax[bench]'"
        )
    n_threads = options.threads or len(os.sched_getaffinity(0))
    if options.agreement:
        say("seven searches of ours compile, about 10 s each; BoTorch takes a few minutes")
        seeds = range(options.first_seed, options.first_seed + options.seeds)
        rows = agreement(seeds, options.store, options.problems, n_threads)
        names = ("problem", "acquisition", "no worse", "behind by at most", "at least",
                 "violation", "seconds (ours with compiling, BoTorch)")  # fmt: skip
        show(f"best value of {RESTARTS} restarts, {RAW} raw samples", names, rows)
        return
    say("about two minutes, most of it BoTorch")
    rows, ratios, all_good = speed(options.seeds, options.first_seed, n_threads)
    show(
        f"{RESTARTS} restarts, {RAW} raw samples, {len(os.sched_getaffinity(0))} cores, "
        f"{n_threads} threads of BoTorch; "
        f"{platform.machine()}",
        ("search", "who", "first [s]", "warm [ms]", "median value", "note"),
        rows,
    )
    if not all_good:
        print("a search of ours fell behind in more than one seed of ten: see the table")
    print(f"bed: ratio={statistics.geometric_mean(ratios):.1f} "
          + " ".join(f"{p.acquisition}={r:.1f}" for p, r in zip(SPEED, ratios, strict=True))
          + f" no_worse={all_good}")  # fmt: skip


if __name__ == "__main__":
    main()
