"""Do proposed runs find good processes: `python -m benchmarks.science.campaign`.

In-silico campaigns of whole 14-day runs with constant set-points, on plants drawn by
`sample_clones` that the model does not know (other constants, and two mechanisms its prior
lacks). Every campaign starts from the same 8 Sobol runs, read with noise and gaps; then come
batches of 8 runs. Methods:

  hybrid   `perfusio_jax.bed.propose_runs` on the hybrid model fitted to the runs so far
  gp       BoTorch on a plain Gaussian process per outcome: qLogNEI, or qLogNEHVI, with the
           viability as an outcome constraint (left out where torch is missing)
  ccd      face-centred central composite design (2^(6-2) + 12 + 1 = 29 runs, pydoe), a quadratic
           response surface by ridge regression, and its 8 best recipes as confirmation: 37 runs
  sobol    more Sobol runs

Problems: the titre on day 14; the front of titre and -ammonium on day 14; the distance of the
cell volume from a target on days 7 to 14. A run counts if its true viability stays above the
plant's limit on every day. All scores are of noise-free truth at the nominal inoculum, best run
so far; the optimum is found on the plant itself (Sobol points, then evolution from many starts).

Limit and target of a plant are drawn from its own landscape so that problems are equally hard:
a share of the design space keeps the limit, and the target is met or exceeded by a tenth.
"""

import argparse
import csv
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import perfusio_jax

perfusio_jax.enable_x64()

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import qmc

from perfusio_jax._core import FORECAST_SPECIES
from perfusio_jax.bed import ChanceConstraint, control_limits
from perfusio_jax.bed.goal.criteria import FinalValue, ProcessOFV, TrackingError
from perfusio_jax.bed.policy.campaign import propose_runs
from perfusio_jax.bed.policy.recipes import start_state
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE
from perfusio_jax.hybrid import HybridConfig, draw_paths, fit_hybrid
from perfusio_jax.simulator import NoiseModel, initial_state, sample_clones, virtual_reactor
from perfusio_jax.simulator.plant import simulate_campaign, to_trajectories

FAMILY_KEY = 2026
"""Key of the reported plants; everything was tuned on those of key 7."""
N_PLANTS = 20
DAYS = 14
START, BATCH, N_BATCHES = 8, 8, 2
MOST_BATCHES = 5
GOAL = 0.95
SETTLED = 6
"""First row of a run that counts for tracking: day 7."""
FEASIBLE_SHARE = 0.25
N_PATHS = 64
PROBABILITY = 0.8
CHUNK = 256
"""Runs simulated at once; every call compiles for this size."""
PROBLEMS = ("titre", "pareto", "tracking")
METHODS = ("hybrid", "gp", "ccd", "sobol")
LOWER, UPPER = (np.asarray(b) for b in DEFAULT_AMBR250_DESIGN_SPACE.bounds_array)
CONFIG = HybridConfig(length=DAYS + 1, lanes=START + N_BATCHES * BATCH)
QUIET = NoiseModel(cv_by_species={}, default_cv=0.0, missing_prob=0.0, jitter_hours=0.0)
VCV, VIA, AMM, TITRE = (FORECAST_SPECIES.index(s) for s in ("VCV", "Via", "Amm", "Titer"))


class Problem(NamedTuple):
    """One plant and what is asked of it."""

    kinetics: Any
    seed: int
    limit: float
    """Viability [%]."""
    target: float
    """VCV [%]."""
    best_titre: float
    front: np.ndarray
    """True front of (titre, -ammonium)."""
    reference: np.ndarray
    best_distance: float


class Outcomes(NamedTuple):
    """What matters of some runs."""

    titre: np.ndarray
    ammonium: np.ndarray
    distance: np.ndarray
    viability: np.ndarray
    vcv: np.ndarray


def simulate(kinetics: Any, U: np.ndarray, seed: int, noise: NoiseModel, vary: float) -> Any:
    """Runs of one plant, padded so that one size is compiled; inocula vary by a share.

    Recipes are held (n, 6), or set-points of every day (n, days, 6).
    """
    padded = np.concatenate([U, np.repeat(U[-1:], -len(U) % CHUNK, axis=0)])
    n = len(padded)
    start = np.tile(np.asarray(initial_state()), (n, 1))
    start = start * np.exp(vary * np.random.default_rng(seed).standard_normal((n, 1)))
    controls = jnp.asarray(padded if U.ndim == 3 else np.repeat(padded[:, None, :], DAYS, axis=1))
    parts = [
        simulate_campaign(
            virtual_reactor(kinetics),
            jnp.asarray(start[i : i + CHUNK]),
            controls[i : i + CHUNK],
            noise,
            key=jax.random.fold_in(jax.random.key(seed), i),
        )
        for i in range(0, n, CHUNK)
    ]
    return jax.tree.map(lambda *v: np.concatenate(v)[: len(U)], *parts)


def outcomes(Y: np.ndarray, target: float) -> Outcomes:
    """Outcomes of trajectories (n, samples, 12); readings that are missing are bridged."""
    Y = np.array(Y)
    for run in Y:
        for k in (VCV, VIA, AMM, TITRE):
            seen = np.isfinite(run[:, k])
            run[:, k] = np.interp(np.arange(len(run)), np.flatnonzero(seen), run[seen, k])
    gap = Y[:, 1 + SETTLED :, VCV] - target
    return Outcomes(
        Y[:, -1, TITRE],
        Y[:, -1, AMM],
        np.sqrt(np.mean(gap**2, axis=1)),
        Y[:, :, VIA].min(axis=1),
        Y[:, 1 + SETTLED :, VCV].mean(axis=1),
    )


def true_outcomes(problem: Problem, U: np.ndarray) -> Outcomes:
    """Noise-free outcomes at the nominal inoculum."""
    found = simulate(problem.kinetics, U, 0, QUIET, 0.0)
    return outcomes(np.asarray(found.truth[..., :12]), problem.target)


def is_balanced(U: np.ndarray) -> np.ndarray:
    """Bleed within the perfusion."""
    return U[:, 1] <= U[:, 0]


def pose(kinetics: Any, seed: int) -> Problem:
    """Limits and targets of a plant, and what the best runs on it would be."""
    points = LOWER + (UPPER - LOWER) * qmc.Sobol(6, seed=12345).random_base2(12)
    points = points[is_balanced(points)]
    blank = Problem(kinetics, seed, 0.0, 0.0, 0.0, np.zeros((0, 2)), np.zeros(2), 0.0)
    seen = true_outcomes(blank, points)
    limit = float(np.floor(2.0 * np.quantile(seen.viability, 1.0 - FEASIBLE_SHARE)) / 2.0)
    kept = seen.viability >= limit
    target = float(np.round(2.0 * np.quantile(seen.vcv[kept], 0.9)) / 2.0)
    problem = blank._replace(limit=limit, target=target)
    problem = problem._replace(
        reference=np.array([np.median(seen.titre[kept]), -np.quantile(seen.ammonium[kept], 0.9)])
    )
    rng = np.random.default_rng(seed)
    titre, distance = (
        _evolve(problem, points, rng, score) for score in (lambda o: o.titre, lambda o: -o.distance)
    )
    front = _evolve_front(problem, points, rng)
    return problem._replace(
        best_titre=max(titre, front[:, 0].max()), front=front, best_distance=-distance
    )


def _evolve(problem: Problem, points: np.ndarray, rng: Any, score: Any) -> float:
    """Largest true value with the limit kept; 256 children of the 32 best, 15 times."""
    best, value = points, np.array([])
    for step in range(16):
        seen = true_outcomes(problem, best if step == 0 else best[32:])
        fresh = np.where(seen.viability >= problem.limit, score(seen), -np.inf)
        value = fresh if step == 0 else np.concatenate([value, fresh])
        order = np.argsort(-value)[:32]
        best, value = best[order], value[order]
        width = 0.2 * 0.75**step
        best = np.concatenate([best, _children(best, 256, width, rng)])
    return float(value[0])


def _children(parents: np.ndarray, n: int, width: float, rng: Any) -> np.ndarray:
    z = (parents[rng.integers(len(parents), size=n)] - LOWER) / (UPPER - LOWER)
    move = width * rng.standard_normal(z.shape) * (rng.random(z.shape) < 0.5)
    U = LOWER + (UPPER - LOWER) * np.clip(z + move, 0.0, 1.0)
    U[:, 1] = np.minimum(U[:, 1], U[:, 0])
    return U


def _evolve_front(problem: Problem, points: np.ndarray, rng: Any) -> np.ndarray:
    """True front: 512 children of it, 12 times."""
    known, values = np.zeros((0, 6)), np.zeros((0, 2))
    fresh = points
    for step in range(13):
        seen = true_outcomes(problem, fresh)
        legal = seen.viability >= problem.limit
        both = np.stack([seen.titre, -seen.ammonium], axis=1)[legal]
        known = np.concatenate([known, fresh[legal]])
        values = np.concatenate([values, both])
        order = np.argsort(-values[:, 0])
        known, values = known[order], values[order]
        top = np.concatenate([[-np.inf], np.maximum.accumulate(values[:, 1])[:-1]])
        known, values = known[values[:, 1] > top], values[values[:, 1] > top]
        fresh = _children(known, 512, 0.2 * 0.8**step, rng)
    return values


def volume(problem: Problem, points: np.ndarray) -> float:
    """Hypervolume of (titre, -ammonium) above the reference."""
    above = points[np.all(points > problem.reference[None, :], axis=1)]
    if len(above) == 0:
        return 0.0
    order = np.argsort(-above[:, 0])
    above = above[order]
    width = above[:, 0] - problem.reference[0]
    heights = np.maximum.accumulate(above[:, 1]) - problem.reference[1]
    rises = np.diff(np.concatenate([[0.0], heights]))
    return float(np.sum(rises * width))


def score(problem: Problem, name: str, U: np.ndarray) -> float:
    """Score of the runs so far, limits kept: share of the optimum, or distance [VCV %]."""
    seen = true_outcomes(problem, U)
    kept = seen.viability >= problem.limit
    if name == "titre":
        return float(np.max(np.where(kept, seen.titre, 0.0)) / problem.best_titre)
    if name == "pareto":
        both = np.stack([seen.titre, -seen.ammonium], axis=1)[kept]
        return volume(problem, both) / volume(problem, problem.front)
    return float(np.min(np.where(kept, seen.distance, np.inf)))


class Records:
    """Runs of one campaign as a user has them: recipes and readings."""

    def __init__(self, problem: Problem, U: np.ndarray):
        """Make the start runs."""
        self.problem, self.U, self.runs = problem, np.zeros((0, 6)), []
        self.readings = np.zeros((0, DAYS + 1, 12))
        self.add(U)

    def add(self, U: np.ndarray) -> None:
        """Make runs and read them."""
        seed = 1000 * (self.problem.seed + 1) + len(self.U)
        found = simulate(self.problem.kinetics, U, seed, NoiseModel(), 0.1)
        ids = [f"RUN{len(self.U) + i:03d}" for i in range(len(U))]
        self.runs += to_trajectories(found, clone_ids=["plant"] * len(U), run_ids=ids)
        self.U = np.concatenate([self.U, U])
        self.readings = np.concatenate([self.readings, np.asarray(found.measured)])


def ask_hybrid(name: str, records: Records, batch: int) -> np.ndarray:
    """The next runs by the hybrid model."""
    problem = records.problem
    lanes = max(START + N_BATCHES * BATCH, len(records.runs))
    config = HybridConfig(length=DAYS + 1, lanes=lanes)
    model, _ = fit_hybrid(records.runs, key=jax.random.key(problem.seed), config=config)
    if name == "tracking":
        goal = TrackingError("VCV", problem.target, from_day=SETTLED)
        ofv = ProcessOFV([goal], horizon=DAYS)
    elif name == "pareto":
        both = [FinalValue("Titer"), FinalValue("Amm", direction=-1)]
        ofv = ProcessOFV(both, horizon=DAYS, is_pareto=True)
    else:
        ofv = ProcessOFV([FinalValue("Titer")], horizon=DAYS)
    key = jax.random.fold_in(jax.random.key(problem.seed), batch)
    U, _ = propose_runs(
        model,
        draw_paths(model, N_PATHS, key=key, max_steps=DAYS),
        jnp.asarray(start_state(records.runs)),
        jnp.asarray(records.U),
        ofv=ofv,
        limits=control_limits(DEFAULT_AMBR250_DESIGN_SPACE),
        q=BATCH,
        chance=ChanceConstraint(problem.limit, PROBABILITY),
        seed=batch,
    )
    return np.asarray(U)


def ask_gp(name: str, records: Records, batch: int) -> np.ndarray:
    """The next runs by BoTorch on a plain Gaussian process per outcome."""
    import warnings

    import torch
    from botorch.acquisition.logei import qLogNoisyExpectedImprovement
    from botorch.acquisition.multi_objective.logei import (
        qLogNoisyExpectedHypervolumeImprovement,
    )
    from botorch.acquisition.multi_objective.objective import IdentityMCMultiOutputObjective
    from botorch.acquisition.objective import GenericMCObjective
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import ModelListGP, SingleTaskGP
    from botorch.models.transforms import Normalize, Standardize
    from botorch.optim import optimize_acqf
    from botorch.sampling import SobolQMCNormalSampler
    from gpytorch.mlls import SumMarginalLogLikelihood

    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(records.problem.seed * 100 + batch)
    problem, seen = records.problem, outcomes(records.readings, records.problem.target)
    columns = {
        "titre": [seen.titre],
        "pareto": [seen.titre, -seen.ammonium],
        "tracking": [-seen.distance],
    }[name]
    x = torch.tensor(records.U)
    bounds = torch.tensor(np.stack([LOWER, UPPER]))
    models = [
        SingleTaskGP(
            x,
            torch.tensor(np.asarray(y))[:, None],
            input_transform=Normalize(6, bounds=bounds),
            outcome_transform=Standardize(1),
        )
        for y in [*columns, seen.viability]
    ]
    model = ModelListGP(*models)
    fit_gpytorch_mll(SumMarginalLogLikelihood(model.likelihood, model))
    m = len(columns)
    sampler = SobolQMCNormalSampler(torch.Size([128]), seed=batch)
    constraints = [lambda Z: problem.limit - Z[..., m]]
    if name == "pareto":
        acqf = qLogNoisyExpectedHypervolumeImprovement(
            model,
            ref_point=problem.reference.tolist(),
            X_baseline=x,
            sampler=sampler,
            objective=IdentityMCMultiOutputObjective(outcomes=[0, 1]),
            constraints=constraints,
            prune_baseline=True,
        )
    else:
        acqf = qLogNoisyExpectedImprovement(
            model,
            X_baseline=x,
            sampler=sampler,
            objective=GenericMCObjective(lambda Z, X=None: Z[..., 0]),
            constraints=constraints,
            prune_baseline=True,
        )
    # in optimize_acqf: sum coefficients * x >= rhs
    balance = (torch.tensor([0, 1]), torch.tensor([1.0, -1.0], dtype=torch.double), 0.0)
    U, _ = optimize_acqf(
        acqf,
        bounds=bounds,
        q=BATCH,
        num_restarts=4,
        raw_samples=128,
        sequential=True,
        inequality_constraints=[balance],
        options={"maxiter": 60, "batch_limit": 4},
    )
    return U.detach().numpy()


def _quadratic(U: np.ndarray) -> np.ndarray:
    z = 2.0 * (U - LOWER) / (UPPER - LOWER) - 1.0
    pairs = [z[:, i] * z[:, j] for i in range(6) for j in range(i, 6)]
    return np.column_stack([np.ones(len(z)), z, *pairs])


def _surface(U: np.ndarray, y: np.ndarray) -> Any:
    """Quadratic response surface; the ridge is chosen by leave-one-out error."""
    A = _quadratic(U)
    best, chosen = np.inf, None
    for ridge in np.geomspace(1e-4, 10.0, 12):
        penalty = ridge * np.eye(A.shape[1])
        penalty[0, 0] = 1e-9
        hat = np.linalg.solve(A.T @ A + penalty, A.T)
        left_out = (y - A @ (hat @ y)) / (1.0 - np.einsum("ij,ji->i", A, hat))
        error = float(np.sum(left_out**2))
        if error < best:
            best, chosen = error, hat @ y
    return lambda V: _quadratic(V) @ chosen


def run_ccd(problem: Problem, name: str) -> list[tuple[int, float]]:
    """Central composite design, response surface, confirmation; score after each part."""
    import pydoe

    core = np.asarray(pydoe.fracfact("a b c d abc bcd"))
    star = np.concatenate([np.eye(6), -np.eye(6)])
    coded = np.concatenate([core, star, np.zeros((1, 6))])
    records = Records(problem, LOWER + (UPPER - LOWER) * (coded + 1.0) / 2.0)
    seen = outcomes(records.readings, problem.target)
    points = LOWER + (UPPER - LOWER) * qmc.Sobol(6, seed=3).random_base2(15)
    corners = LOWER + (UPPER - LOWER) * (np.round(2 * qmc.Sobol(6, seed=4).random_base2(12)) / 2)
    points = np.concatenate([points, corners])
    points = points[is_balanced(points)]
    legal = _surface(records.U, seen.viability)(points) >= problem.limit
    points = points[legal] if legal.any() else points
    titre = _surface(records.U, seen.titre)(points)
    if name == "titre":
        worth = titre
    elif name == "tracking":
        worth = -np.abs(_surface(records.U, seen.vcv)(points) - problem.target)
    else:
        clean = -_surface(records.U, seen.ammonium)(points)
        # eight directions along the front
        scaled = np.stack([(v - v.mean()) / v.std() for v in (titre, clean)], axis=1)
        shares = np.linspace(0.0, 1.0, BATCH)
        picks = [int(np.argmax(scaled @ np.array([w, 1.0 - w]))) for w in shares]
        chosen = points[picks]
    if name != "pareto":
        # recipes at least a tenth of the ranges apart
        chosen = np.zeros((0, 6))
        for i in np.argsort(-worth):
            gap = np.abs((chosen - points[i]) / (UPPER - LOWER)).max(axis=1, initial=0.0)
            if len(chosen) == 0 or gap.min() > 0.1:
                chosen = np.concatenate([chosen, points[i : i + 1]])
            if len(chosen) == BATCH:
                break
    first = (len(records.U), score(problem, name, records.U))
    return [
        first,
        (len(records.U) + BATCH, score(problem, name, np.concatenate([records.U, chosen]))),
    ]


def run_method(problem: Problem, name: str, method: str, first: np.ndarray) -> list[dict[str, Any]]:
    """One campaign; a row per batch."""
    begun = time.perf_counter()
    if method == "ccd":
        found = run_ccd(problem, name)
    elif method == "sobol":
        more = LOWER + (UPPER - LOWER) * qmc.Sobol(6, seed=problem.seed).random_base2(6)
        more[:, 1] = np.minimum(more[:, 1], more[:, 0])
        counts = range(START, START + MOST_BATCHES * BATCH + 1, BATCH)
        found = [(n, score(problem, name, more[:n])) for n in counts]
    else:
        records = Records(problem, first)
        found = [(START, score(problem, name, records.U))]
        ask = ask_hybrid if method == "hybrid" else ask_gp
        most = MOST_BATCHES if name == "titre" else N_BATCHES
        for batch in range(1, most + 1):
            if batch > N_BATCHES and found[-1][1] >= GOAL:
                break
            records.add(ask(name, records, batch))
            found.append((len(records.U), score(problem, name, records.U)))
    spent = round(time.perf_counter() - begun, 1)
    return [
        {
            "seed": problem.seed,
            "problem": name,
            "method": method,
            "runs": n,
            "score": round(value, 5),
            "limit": problem.limit,
            "target": problem.target,
            "best_titre": round(problem.best_titre, 1),
            "best_distance": round(problem.best_distance, 3),
            "seconds": spent,
        }
        for n, value in found
    ]


def _at(rows: list[dict[str, Any]], problem: str, method: str, runs: int) -> dict[int, float]:
    """Score per seed after so many runs; a campaign that stopped keeps its last."""
    out: dict[int, float] = {}
    for row in sorted(rows, key=lambda r: r["runs"]):
        if row["problem"] == problem and row["method"] == method and row["runs"] <= runs:
            out[row["seed"]] = row["score"]
    return out


def _needed(rows: list[dict[str, Any]], method: str) -> dict[int, float]:
    """Runs until the goal per seed; infinite where it was not reached."""
    out: dict[int, float] = {}
    for row in rows:
        if row["problem"] == "titre" and row["method"] == method:
            hit = row["runs"] if row["score"] >= GOAL else np.inf
            out[row["seed"]] = min(out.get(row["seed"], np.inf), hit)
    return out


def tables(rows: list[dict[str, Any]]) -> tuple[str, str]:
    """Markdown, and the line that sums it up."""
    count = {p: len({r["seed"] for r in rows if r["problem"] == p}) for p in PROBLEMS}
    lines = [
        "Median over the seeds (10 % to 90 % quantile), best run so far; titre as a share of the "
        "true optimum, front as a share of the true hypervolume, distance of VCV in %. `ccd` had "
        "29 runs where the others had 8 or 16, and 37 in the last column.",
        "",
        "| problem | method | seeds | 8 runs | 16 runs | 24 runs |",
        "|---|---|---:|---|---|---|",
    ]
    for p in PROBLEMS:
        for method in METHODS:
            cells = []
            for runs in (8, 16, 24):
                asked = runs if method != "ccd" else (29 if runs < 24 else 37)
                found = np.array(list(_at(rows, p, method, asked).values()))
                if found.size == 0:
                    cells.append("")
                    continue
                low, high = np.quantile(found, [0.1, 0.9], method="nearest")
                cells.append(f"{np.median(found):.3f} ({low:.3f}-{high:.3f})")
            seeds = len(_at(rows, p, method, 99))
            if seeds:
                lines.append(f"| {p} | {method} | {seeds} | " + " | ".join(cells) + " |")
    hybrid, plain = _needed(rows, "hybrid"), _needed(rows, "gp")
    n = len(hybrid)
    within = sum(v <= START + N_BATCHES * BATCH for v in hybrid.values())
    shared = sorted(set(hybrid) & set(plain))
    easy = [s for s in shared if plain[s] <= START + BATCH]
    counted = [s for s in shared if plain[s] > START + BATCH]
    censored = sum(np.isinf(plain[s]) for s in counted)
    lost = sum(np.isinf(hybrid[s]) for s in counted)
    lines += [
        "",
        f"Titre, {100 * GOAL:.0f} % of the optimum: hybrid within {START} + {N_BATCHES} x {BATCH} "
        f"runs in {within} of {n} seeds (after the first batch in "
        f"{sum(v <= START + BATCH for v in hybrid.values())}).",
    ]
    ratio = np.nan
    if counted:
        mine, theirs = (np.array([d[s] for s in counted]) for d in (hybrid, plain))
        a, b = float(np.median(mine)), float(np.median(theirs))
        most = START + MOST_BATCHES * BATCH
        ratio = a / (b if np.isfinite(b) else most)
        text = f"{b:.0f}" if np.isfinite(b) else f"more than {most}"
        lines.append(
            f"Runs until then, start runs included, in steps of {BATCH}: median {a:.0f} (hybrid) "
            f"and {text} (gp) over {len(counted)} seeds; {censored} of gp's and {lost} of the "
            f"hybrid's did not get there in {most} runs; {len(easy)} seeds that gp solved by its "
            "first batch are left out."
        )
    lines.append(f"Seeds: {', '.join(f'{p} {k}' for p, k in count.items())}.")
    summary = (
        f"campaign: seeds={n} within={within / max(n, 1):.2f} run_ratio={ratio:.2f} "
        f"excluded={len(easy)} censored={censored}"
    )
    return "\n".join(lines) + "\n", summary


def read(path: Path) -> list[dict[str, Any]]:
    """Rows of an earlier call."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    texts = {"problem", "method"}
    whole = {"seed", "runs"}
    return [
        {k: v if k in texts else int(v) if k in whole else float(v) for k, v in row.items()}
        for row in rows
    ]


def main() -> None:
    """Measure what is missing, keep every row, print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(N_PLANTS)))
    parser.add_argument("--key", type=int, default=FAMILY_KEY, help="key of the family")
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS), choices=PROBLEMS)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--minutes", type=float, default=1e9, help="begin nothing after this")
    parser.add_argument("--out", type=Path, default=Path("runs/science_campaign.csv"))
    options = parser.parse_args()
    methods = list(options.methods)
    if "gp" in methods:
        try:
            import botorch  # noqa: F401
        except ImportError:
            print("gp left out: botorch is not installed (pip install 'perfusio-jax[bench]')")
            methods.remove("gp")
    begun = time.perf_counter()
    family = sample_clones(jax.random.key(options.key), N_PLANTS)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    rows = read(options.out)
    done = {(r["seed"], r["problem"], r["method"]) for r in rows}
    for seed in options.seeds:
        wanted = [(p, m) for p in options.problems for m in methods if (seed, p, m) not in done]
        problem = None
        for name, method in wanted:
            if time.perf_counter() - begun > 60.0 * options.minutes:
                break
            if problem is None:
                problem = pose(jax.tree.map(lambda v, s=seed: v[s], family), seed)
            first = LOWER + (UPPER - LOWER) * qmc.Sobol(6, seed=seed).random_base2(3)
            first[:, 1] = np.minimum(first[:, 1], first[:, 0])
            rows += run_method(problem, name, method, first)
            with options.out.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, fieldnames=list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
            mine = [
                r for r in rows if (r["seed"], r["problem"], r["method"]) == (seed, name, method)
            ]
            text = " ".join(f"{r['runs']}:{r['score']:.3f}" for r in mine)
            print(f"seed {seed} {name} {method}: {text} ({mine[0]['seconds']:.0f} s)", flush=True)
    text, summary = tables(rows)
    print(text)
    print(summary)


if __name__ == "__main__":
    main()
