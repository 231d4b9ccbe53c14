"""What earlier cell lines are worth to a new one: `python -m benchmarks.science.transfer`.

`--mode fedbatch` is the experiment of Hutter et al. (2021) in our simulator: five historic
products with 16 runs each, a novel one with 2 to 16, 100 test runs rolled out from their first
sample. Products are drawn anew for every repeat. Three models: the novel product alone,
one-hot coding, embedding (three entries). Every repeat draws other products, runs and noise.

`--mode perfusion` fits the hybrid model to runs of known clones and two runs of a new one, and
forecasts 20 unseen runs of the new clone: clone X to clone Y or to a member of a family, and a
family of clones to a new member. rRMSE is that of the noise-free truth, mean over eight species.

Records are written one by one; a run that was stopped goes on where it was. `--table` prints
the tables of what there is.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import perfusio_jax

perfusio_jax.enable_x64()

import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax.embedding import (
    COUNTS,
    evidence_by_dimension,
    markdown,
    simulate_study,
    study_config,
    study_repeat,
)

OUT = Path("runs/transfer")
STEPS = (1, 3, 7)


def fedbatch(
    repeats: range, counts: tuple[int, ...], spread: float, own_noise: bool
) -> Iterator[dict[str, Any]]:
    """Records of the published experiment."""
    config = study_config(counts=counts, own_noise=own_noise)
    for repeat in repeats:
        k_data, k_fit = jax.random.split(jax.random.key(repeat))
        data = simulate_study(k_data, spread=spread)
        begun = time.perf_counter()
        for record in study_repeat(data, config, key=k_fit):
            seconds = round(time.perf_counter() - begun, 2)
            yield {"repeat": repeat, **record._asdict(), "seconds": seconds}
            begun = time.perf_counter()


def dimensions(repeats: range) -> Iterator[dict[str, Any]]:
    """Log evidence by the length of the vectors, eight novel runs."""
    for repeat in repeats:
        k_data, k_fit = jax.random.split(jax.random.key(repeat))
        data = simulate_study(k_data)
        for dim, evidence in evidence_by_dimension(data, config=study_config(), key=k_fit):
            yield {"repeat": repeat, "dim": dim, "log_evidence": evidence}


def perfusion(repeats: range, n_target: int = 2) -> Iterator[dict[str, Any]]:
    """Records of the hybrid model with and without other clones' runs."""
    from benchmarks.science.hybrid import (
        DAYS,
        HORIZON,
        INDEX,
        STARTS,
        campaign,
    )
    from perfusio_jax.hybrid import (
        HybridConfig,
        fit_hybrid,
        forecast_unseen,
        skill,
        stack_runs,
    )
    from perfusio_jax.simulator import sample_clones, to_trajectories, virtual_kinetics

    n_unseen = 20

    def runs_of(kinetics: Any, n: int, seed: int, phases: int, name: str) -> tuple[Any, list[Any]]:
        readings = campaign(kinetics, n, seed, phases)
        ids = [f"{name}-{i}" for i in range(n)]
        return readings, to_trajectories(readings, clone_ids=[name] * n, run_ids=ids)

    for repeat in repeats:
        drawn = sample_clones(jax.random.key(5000 + repeat), 5)
        family = [jax.tree.map(lambda v, k=k: v[k], drawn) for k in range(5)]
        cases = {
            "X to Y": ([virtual_kinetics("CloneX")], virtual_kinetics("CloneY")),
            "X to new": ([virtual_kinetics("CloneX")], family[4]),
            "family to new": (family[:4], family[4]),
        }
        for case, (sources, target) in cases.items():
            seed = 100 * repeat + 7
            known: list[Any] = []
            each = 12 // len(sources) if len(sources) == 1 else 6
            for k, kinetics in enumerate(sources):
                known += runs_of(kinetics, each, seed + 1 + k, 1, f"known {k + 1}")[1]
            few = runs_of(target, n_target, seed + 50, 1, "new")[1]
            unseen, new_runs = runs_of(target, n_unseen, seed + 60, 2, "new")
            truth, measured = np.asarray(unseen.truth[..., :12]), np.asarray(unseen.measured)
            for method, training in (("transfer", known + few), ("no transfer", few)):
                begun = time.perf_counter()
                config = HybridConfig(length=DAYS + 1)
                model, _ = fit_hybrid(training, key=jax.random.key(repeat), config=config)
                registry = None if model.embedding is None else model.embedding.registry
                stacked = stack_runs(new_runs, length=DAYS + 1, registry=registry)
                found = forecast_unseen(
                    model,
                    stacked,
                    jnp.asarray(measured),
                    key=jax.random.key(1),
                    starts=STARTS,
                    horizon=HORIZON,
                    n_paths=64,
                )
                real = skill(found, measured, truth)
                errors = {f"rrmse_{h}": float(np.mean(real.rrmse[h - 1, INDEX])) for h in STEPS}
                cover = {f"in80_{h}": float(real.pooled_coverage[0, h - 1]) for h in STEPS}
                seconds = round(time.perf_counter() - begun, 1)
                yield {
                    "repeat": repeat,
                    "case": case,
                    "method": method,
                    **errors,
                    **cover,
                    "seconds": seconds,
                }


def perfusion_table(records: list[dict[str, Any]]) -> str:
    """Markdown: median rRMSE by case and method, and the median ratio over repeats."""
    lines = [
        "| case | method | 1 day | 3 days | 7 days | inside 80 % at 1, 3, 7 days | repeats |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for case in dict.fromkeys(r["case"] for r in records):
        pair = {
            m: {r["repeat"]: r for r in records if (r["case"], r["method"]) == (case, m)}
            for m in ("transfer", "no transfer")
        }
        for method, rows in pair.items():
            if rows:
                errors = [np.median([r[f"rrmse_{h}"] for r in rows.values()]) for h in STEPS]
                inside = [np.mean([r[f"in80_{h}"] for r in rows.values()]) for h in STEPS]
                cells = [f"{e:.3f}" for e in errors] + [", ".join(f"{c:.2f}" for c in inside)]
                lines.append(f"| {case} | {method} | {' | '.join(cells)} | {len(rows)} |")
        both = sorted(set(pair["transfer"]) & set(pair["no transfer"]))
        if both:
            ratios = [
                np.median(
                    [
                        pair["transfer"][r][f"rrmse_{h}"] / pair["no transfer"][r][f"rrmse_{h}"]
                        for r in both
                    ]
                )
                for h in STEPS
            ]
            cells = " | ".join(f"{v:.2f}" for v in ratios)
            lines.append(f"| {case} | ratio | {cells} | | {len(both)} |")
    return "\n".join(lines) + "\n"


def read(path: Path) -> list[dict[str, Any]]:
    """Records written so far."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    """Run a mode, or print what there is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mode", choices=("fedbatch", "perfusion", "dimensions"))
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="number of the first repeat")
    parser.add_argument("--counts", default=",".join(str(n) for n in COUNTS))
    parser.add_argument("--spread", type=float, default=1.0)
    parser.add_argument("--own-noise", action="store_true")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--table", action="store_true", help="print tables, run nothing")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    kind = "own" if args.own_noise else "shared"
    names = {
        "fedbatch": f"fedbatch_{args.spread:g}_{kind}.jsonl",
        "perfusion": "perfusion.jsonl",
        "dimensions": "dimensions.jsonl",
    }
    if args.mode and not args.table:
        path = args.out / names[args.mode]
        counts = tuple(int(n) for n in args.counts.split(","))
        done = {int(r["repeat"]) for r in read(path)}
        # the last repeat may be half written: it is done again
        if done:
            kept = [r for r in read(path) if r["repeat"] < max(done)]
            text = "".join(json.dumps(r) + "\n" for r in kept)
            path.write_text(text, encoding="utf-8")
        repeats = range(max(done) if done else args.first, args.first + args.repeats)
        records = {
            "fedbatch": lambda: fedbatch(repeats, counts, args.spread, args.own_noise),
            "perfusion": lambda: perfusion(repeats),
            "dimensions": lambda: dimensions(repeats),
        }[args.mode]()
        with open(path, "a", encoding="utf-8") as handle:
            for record in records:
                handle.write(json.dumps(record) + "\n")
                handle.flush()
    for path in sorted(args.out.glob("fedbatch_*.jsonl")):
        print(f"\n{path.stem}\n\n{markdown(read(path))}")
    if found := read(args.out / names["perfusion"]):
        print("\nperfusion\n\n" + perfusion_table(found))
    for record in read(args.out / names["dimensions"]):
        print(record)


if __name__ == "__main__":
    main()
