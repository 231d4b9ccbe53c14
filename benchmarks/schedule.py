"""Best schedules beside CasADi with IPOPT: `python -m benchmarks.schedule`.

Five fed-batch problems of the literature, each with piecewise constant feeds; limits hold at the
ends of the intervals for both. CasADi solves them by direct collocation (Radau, third order, eight
elements an interval) with exact second derivatives, from the same middle feeds and from two other
constant feeds, of which the best end counts. Both schedules are then run by SciPy's Radau at
rtol=1e-10, and compared there. Needs the extra `bench`.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import resource
from typing import Any

import perfusio_jax

perfusio_jax.enable_x64()

import casadi
import numpy as np
from scipy.integrate import solve_ivp

from benchmarks.schedule_problems import PROBLEMS, Problem
from perfusio_jax.study import best_schedule

_ELEMENTS, _DEGREE = 8, 3


def cpu_seconds() -> float:
    """CPU time of this process, all threads [s]."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def slopes(problem: Problem, y: Any, u: Any, exp: Any) -> list[Any]:
    """Time derivatives of states, inner states and volume."""
    names = (*problem.states, *problem.inner)
    values = {name: y[k] for k, name in enumerate(names)}
    rates, volume = problem.rates(values, exp), y[len(names)]
    found = []
    for name in names:
        rate = rates.get(name, 0.0)
        if name in problem.states:
            for flow, (_, carries) in zip(u, problem.feeds.values(), strict=True):
                rate = rate + flow / volume * (carries.get(name, 0.0) - values[name])
        found.append(rate)
    return [*found, sum(u)]


def truth(problem: Problem, table: np.ndarray) -> tuple[float, float]:
    """Amount made, and how far limits are passed (in parts), by an independent solver."""
    names = (*problem.states, *problem.inner)
    y = np.array([*(problem.start[n] for n in names), problem.volume_L])
    length = problem.hours / problem.intervals
    path = []
    for u in table:
        run = solve_ivp(
            lambda _, v, u=u: np.asarray(slopes(problem, v, list(u), np.exp), float),
            (0.0, length), y, method="Radau", rtol=1e-10, atol=1e-12,
        )  # fmt: skip
        y = run.y[:, -1]
        path.append(y)
    passed = 0.0
    for text in problem.limits:
        words, bound = text.split(" <= ")
        is_last, name = words.startswith("last "), words.removeprefix("last ")
        column = len(names) if name == "volume_L" else names.index(name)
        own = [row[column] for row in (path[-1:] if is_last else path)]
        passed = max(passed, max(own) / float(bound) - 1.0)
    return float(y[names.index(problem.objective)] * y[-1]), passed


def by_casadi(problem: Problem, parts: tuple[float, ...]) -> tuple[np.ndarray, int]:
    """The schedule CasADi and IPOPT find, and how many starts came to an end."""
    names = (*problem.states, *problem.inner)
    d = len(names) + 1
    y, u = casadi.SX.sym("y", d), casadi.SX.sym("u", len(problem.feeds))
    rhs = casadi.vertcat(*slopes(problem, y, casadi.vertsplit(u), casadi.exp))
    field = casadi.Function("field", [y, u], [rhs])
    tau = [0.0, *casadi.collocation_points(_DEGREE, "radau")]
    c = np.zeros((_DEGREE + 1, _DEGREE + 1))
    for j in range(_DEGREE + 1):
        p = np.poly1d([1.0])
        for r in range(_DEGREE + 1):
            if r != j:
                p *= np.poly1d([1.0, -tau[r]]) / (tau[j] - tau[r])
        c[j] = [np.polyder(p)(t) for t in tau]
    h = problem.hours / problem.intervals / _ELEMENTS
    ends = np.array([hi for hi, _ in problem.feeds.values()])
    limits = {t.split(" <= ")[0]: float(t.split(" <= ")[1]) for t in problem.limits}
    best, best_value, n_done = np.zeros((problem.intervals, ends.size)), -np.inf, 0
    for part in parts:
        opti = casadi.Opti()
        feeds = opti.variable(ends.size, problem.intervals)
        opti.subject_to(opti.bounded(0.0, casadi.vec(feeds), np.tile(ends, problem.intervals)))
        at = casadi.DM([*(problem.start[n] for n in names), problem.volume_L])
        guess = np.array(at, float).ravel()
        opti.set_initial(feeds, np.tile((part * ends)[:, None], problem.intervals))
        state: Any = at
        for k in range(problem.intervals):
            flows = part * ends
            for _ in range(_ELEMENTS):
                run = solve_ivp(
                    lambda _, v, u=flows: np.asarray(slopes(problem, v, list(u), np.exp), float),
                    (0.0, h), guess, method="LSODA",
                )  # fmt: skip
                guess = run.y[:, -1]
                points = [opti.variable(d) for _ in range(_DEGREE)]
                for point in points:
                    opti.set_initial(point, guess)
                    opti.subject_to(point >= -1e-8)
                every = [state, *points]
                for i in range(1, _DEGREE + 1):
                    slope = sum(c[j][i] * every[j] for j in range(_DEGREE + 1))
                    opti.subject_to(slope == h * field(points[i - 1], feeds[:, k]))
                state = points[-1]
            for words, bound in limits.items():
                is_last, name = words.startswith("last "), words.removeprefix("last ")
                if not is_last or k == problem.intervals - 1:
                    column = d - 1 if name == "volume_L" else names.index(name)
                    opti.subject_to(state[column] <= bound)
            for m, name in enumerate(problem.feeds):
                if k and name in problem.steps:
                    step = problem.steps[name]
                    opti.subject_to(opti.bounded(-step, feeds[m, k] - feeds[m, k - 1], step))
        opti.minimize(-state[names.index(problem.objective)] * state[d - 1])
        opti.solver("ipopt", {"print_time": False}, {"print_level": 0, "sb": "yes", "tol": 1e-8})
        try:
            solved = opti.solve()
        except RuntimeError as error:
            print(f"  IPOPT from {part:g}: {str(error).splitlines()[-1]}")
            continue
        n_done += 1
        table = np.asarray(solved.value(feeds), float).reshape(ends.size, -1).T
        value = truth(problem, table)[0]
        if value > best_value:
            best, best_value = table, value
    return best, n_done


def main() -> None:
    """Solve all, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="name of one problem")
    asked = parser.parse_args()
    print("| problem | ours | CasADi, IPOPT | ours over theirs | limits passed | looks "
          "| CPU s first, warm | CPU s theirs |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|")
    worst = np.inf
    for problem in PROBLEMS:
        if asked.only not in (None, problem.name):
            continue
        run, used, found = problem.experiment(), [], None
        for _ in range(2):
            begun = cpu_seconds()
            found = best_schedule(
                run, f"amount of {problem.objective}", limits=problem.limits, steps=problem.steps
            )
            used.append(cpu_seconds() - begun)
        assert found is not None
        begun = cpu_seconds()
        table, n_done = by_casadi(problem, (0.5, 0.25, 0.1))
        theirs_s = cpu_seconds() - begun
        ours, passed = truth(problem, found.controls)
        theirs, theirs_passed = truth(problem, table)
        ratio = ours / theirs if n_done else np.nan
        worst = min(worst, ratio)
        print(
            f"| {problem.name} ({problem.source}) | {ours:.4f} | {theirs:.4f} ({n_done} of 3) "
            f"| {ratio:.5f} | {max(passed, 0.0):.1e}, {max(theirs_passed, 0.0):.1e} "
            f"| {found.n_looks} | {used[0]:.1f}, {used[1]:.1f} | {theirs_s:.1f} |",
            flush=True,
        )
    print(f"\nschedule: worst_ratio={worst:.5f}")


if __name__ == "__main__":
    main()
