"""All benchmarks of this machine: `python -m benchmarks.everything`, or `make bench`.

Each runs in a process of its own, one after the other; its last line `NAME: key=value ...` is kept.
What lacks its peers runs without them or is told as left out. Writes
`benchmarks/results/MACHINE.json`, with what it was measured on, and the tables as they were printed
beside it (`.txt`).
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

RESULTS = Path(__file__).parent / "results"


class Part(NamedTuple):
    """One benchmark."""

    name: str
    arguments: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    """Packages without which it says nothing."""
    minutes: float = 20.0
    """Most time."""


PARTS = (
    Part("simulate"),
    Part("scale"),
    Part("sensitivity", needs=("SALib",)),
    Part("schedule", needs=("casadi",)),
    Part("gp"),
    Part("bed", needs=("torch", "botorch")),
    Part("decision", ("--modes", "difference", "--scans", "16")),
    Part("rl", ("--no-peer",)),
    Part("reading"),
    Part("start"),
    Part("gpu", ("--minutes", "7.5"), minutes=10.0),
)


def machine_name() -> str:
    """A name for a file: processor, cores, device; no name of a host."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE)
        model = found[1] if found else model
    import jax

    device = jax.devices()[0]
    kind = "" if device.platform == "cpu" else f"-{device.device_kind}"
    text = f"{model}-{os.cpu_count()}-cores{kind}"
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def read_last(name: str, output: str) -> dict[str, str]:
    """The figures of a benchmark's last line.

    Raises:
        ValueError: If there is no such line.
    """
    for line in reversed(output.strip().splitlines()):
        if line.startswith(f"{name}: "):
            return dict(re.findall(r"(\S+)=(\S+)", line))
    raise ValueError(f"benchmarks.{name} printed no line '{name}: key=value ...'.")


def missing(part: Part) -> list[str]:
    """Packages that it needs and that are not there."""
    import importlib.util

    return [name for name in part.needs if importlib.util.find_spec(name) is None]


def run_part(part: Part) -> tuple[dict[str, Any], str]:
    """Figures of a benchmark, or why there are none; and what it printed."""
    absent = missing(part)
    if absent:
        return {"left_out": f"not installed: {', '.join(absent)}"}, ""
    command = [sys.executable, "-m", f"benchmarks.{part.name}", *part.arguments]
    begun = time.perf_counter()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60.0 * part.minutes, check=False
        )
    except subprocess.TimeoutExpired:
        return {"left_out": f"took longer than {part.minutes:g} minutes"}, ""
    spent = {"seconds": round(time.perf_counter() - begun, 1), "load_before": load}
    if done.returncode:
        why = done.stderr.strip().splitlines()[-1:] or ["no message"]
        return {"left_out": f"ended with {done.returncode}: {why[0]}", **spent}, done.stdout
    try:
        return {"figures": read_last(part.name, done.stdout), **spent}, done.stdout
    except ValueError as error:
        return {"left_out": str(error), **spent}, done.stdout


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", action="append", choices=[p.name for p in PARTS])
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args()
    from perfusio_jax.service.benching.quick import machine

    chosen = [p for p in PARTS if options.only is None or p.name in options.only]
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{machine_name()}.json"
    # parts that are not run now stay as they were
    whole = json.loads(path.read_text()) if path.exists() else {}
    whole |= {"machine": machine(), "date": time.strftime("%Y-%m-%d")}
    parts = whole.setdefault("parts", {})
    for part in chosen:
        print(f"[{time.strftime('%H:%M:%S')}] {part.name}", file=sys.stderr, flush=True)
        parts[part.name], printed = run_part(part)
        path.write_text(json.dumps(whole, indent=1) + "\n")
        if printed:
            path.with_name(f"{path.stem}-{part.name}.txt").write_text(printed)
    for name, found in parts.items():
        told = found.get("left_out") or " ".join(f"{k}={v}" for k, v in found["figures"].items())
        print(f"{name:12} {told}")
    n = sum("figures" in parts[p.name] for p in chosen)
    print(f"everything: parts={len(chosen)} measured={n} left_out={len(chosen) - n}")


if __name__ == "__main__":
    main()
