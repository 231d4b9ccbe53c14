"""Sixty days of a twin that searches and writes: memory stays, and nothing is compiled again."""

import json
import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest

DAYS, WARM_DAYS = 60, 10
MOST_A_DAY = 0.5e6
"""Growth that would be too much [bytes]."""

# A process of its own: this one's memory is that of all tests before. Objects that are there after
# three days are not looked at again, which spares most of the collector's work. The model is
# frozen: a new one would be compiled for at sample eight.
PROGRAM = """
import ctypes, gc, json, os, sys
from collections import Counter
from pathlib import Path
import jax
import perfusio_jax
perfusio_jax.enable_x64()
asked = Counter()
jax.monitoring.register_event_listener(lambda name, **_: asked.update([name]))
from perfusio_jax.bed import BEDPolicy
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE as SPACE, RunConfig
from perfusio_jax.hybrid import untrained_model
from perfusio_jax.mechanistic import CHOPerfusionModel
from perfusio_jax.simulator import CHOSimulator
from perfusio_jax.twin import DigitalTwin

folder, n_days = sys.argv[1], int(sys.argv[2])
trim = getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0)

def held():
    gc.collect()
    trim(0)  # what was given back is not held
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")

model = untrained_model(CHOPerfusionModel())
policy = BEDPolicy(
    model, SPACE, acqf_name="LogEI", horizon=1, n_paths=8, n_scan_paths=None, n_raw_samples=8,
    n_restarts=2,
)
config = RunConfig(seed=3, acquisition="LogEI", n_mc_samples=8, duration_days=n_days)
days = []
with DigitalTwin(
    CHOSimulator(controls=SPACE.centre, seed=1), model, SPACE, policy, log_dir=folder,
    allow_write=True, mode="frozen", run_config=config,
) as twin:
    for day in range(n_days):
        if day == 3:
            gc.collect()
            gc.freeze()
        outcome = twin.step(day)["outcome"]
        compiled = asked["/jax/compilation_cache/compile_requests_use_cache"]
        days.append({"outcome": outcome, "held": held(), "compiled": compiled})
print(json.dumps(days))
"""


@pytest.mark.timeout(600)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_two_months_of_decisions_leave_memory_where_it_was(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path), str(DAYS + 1)],
        capture_output=True,
        text=True,
        check=True,
    )
    days = json.loads(done.stdout)
    assert [d["outcome"] for d in days] == ["written"] * (DAYS + 1)
    assert days[3]["compiled"] == days[-1]["compiled"] > 0
    held = np.array([d["held"] for d in days[WARM_DAYS:]], float)
    # the median of all slopes: blocks come and go, and one late step is no growth
    pairs = combinations(range(held.size), 2)
    growth = np.median([(held[j] - held[i]) / (j - i) for i, j in pairs])
    print(f"{held[0] / 1e6:.0f} to {held[-1] / 1e6:.0f} MB, {growth / 1e6:.3f} MB a day")
    assert growth < MOST_A_DAY
