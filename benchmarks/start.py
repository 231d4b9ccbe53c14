"""How long one waits: `python -m benchmarks.start`.

Each command and entry point in fresh processes, first with an empty cache of compiled programs,
then with the one the first left: CPU seconds (which load on the machine changes little), wall
seconds, programs asked for and programs compiled.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

STEPS = (
    "import", "help", "status", "inspect", "fit", "forecast", "propose",
    "decision", "rack5", "rack24", "demo",
)  # fmt: skip


class Took(NamedTuple):
    """One process."""

    wall_s: float
    cpu_s: float
    peak_gb: float
    requests: int
    compiled: int


def words(step: str, here: Path) -> list[str]:
    """What a step runs; files lie in `here`."""
    campaign, model = str(here / "campaign.csv"), str(here / "model")
    return {
        "import": ["import"],
        "help": ["--help"],
        "status": ["status", str(here / "demo")],
        "inspect": ["inspect", campaign],
        "fit": ["fit", campaign, "--out", model],
        "forecast": ["forecast", model, str(here / "head.csv")],
        "propose": ["propose", campaign, "--out", str(here / "next.csv")],
        "decision": ["decision", model, campaign],
        "rack5": ["rack", model, campaign, "5"],
        "rack24": ["rack", model, campaign, "24"],
        "demo": ["demo", "--out", str(here / "demo")],
    }[step]


def run(arguments: list[str], here: Path, cache: Path) -> Took:
    """A fresh process with a cache folder of its own."""
    out = here / "took.json"
    out.unlink(missing_ok=True)
    threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.start_child", str(out), *arguments],
        env={**os.environ, **threads, "XDG_CACHE_HOME": str(cache)},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    wall = time.perf_counter() - begun
    if done.returncode or not out.exists():
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stdout}\n{done.stderr}")
    return Took(wall, **json.loads(out.read_text()))


def prepare(here: Path) -> None:
    """A campaign, the first days of one of its runs, a model, and the records of a run."""
    cache = here / "prepared"
    campaign = here / "campaign.csv"
    run(["simulate", str(campaign), "--days", "14"], here, cache)
    lines = campaign.read_text().splitlines()
    header, rows = lines[:2], lines[2:]  # names and units
    name = rows[0].split(",")[0]
    first = [line for line in rows if line.split(",")[0] == name]
    (here / "head.csv").write_text("\n".join([*header, *first[:8]]) + "\n")
    run(words("fit", here), here, cache)
    run(["demo", "--out", str(here / "demo"), "--days", "4"], here, cache)


def main() -> None:
    """Measure, print a table and the line a script reads."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=STEPS, default=list(STEPS))
    options = parser.parse_args()
    found: dict[str, tuple[Took, Took]] = {}
    with tempfile.TemporaryDirectory(prefix="start") as folder:
        here = Path(folder)
        print("preparing: a campaign, a model, a run", file=sys.stderr, flush=True)
        prepare(here)
        print("| what | cache | CPU [s] | wall [s] | asked for | compiled | peak [GB] |")
        print("|---|---|---:|---:|---:|---:|---:|")
        for step in options.only:
            cache = here / f"cache_{step}"
            cold, cached = (run(words(step, here), here, cache) for _ in range(2))
            found[step] = (cold, cached)
            for name, took in (("empty", cold), ("filled", cached)):
                print(
                    f"| {step} | {name} | {took.cpu_s:.1f} | {took.wall_s:.1f} | {took.requests} | "
                    f"{took.compiled} | {took.peak_gb:.2f} |",
                    flush=True,
                )
    parts = []
    if "decision" in found:
        cold, cached = found["decision"]
        parts += [f"decide_cached_cpu_s={cached.cpu_s:.1f}", f"decide_cold_cpu_s={cold.cpu_s:.1f}"]
    parts += [
        f"{step}_cached_cpu_s={found[step][1].cpu_s:.1f}"
        for step in ("forecast", "fit", "demo")
        if step in found
    ]
    if "demo" in found:
        parts.append(f"demo_requests={found['demo'][1].requests}")
    print(f"start: {' '.join(parts)}")


if __name__ == "__main__":
    main()
