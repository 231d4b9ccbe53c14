"""How many programs are asked for: of a first decision, of the next days, with what was kept."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, sys
from collections import Counter
import jax
import perfusio_jax
perfusio_jax.enable_x64()
perfusio_jax.enable_compile_cache(sys.argv[1])
seen = Counter()
jax.monitoring.register_event_listener(lambda name, **_: seen.update([name]))
from perfusio_jax._core import FORECAST_SPECIES
from perfusio_jax.bed import ROLLOUT_SETTINGS, BEDPolicy, TargetSpec
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE as SPACE
from perfusio_jax.hybrid import untrained_model
from perfusio_jax.mechanistic import CHOPerfusionModel
from perfusio_jax.twin import decide, history_from_records

model = untrained_model(CHOPerfusionModel())
policy = BEDPolicy(
    model,
    SPACE.replace(viability_min=90.0),
    targets=[TargetSpec(FORECAST_SPECIES.index("VCV"), 16.0)],
    n_paths=16, n_scan_paths=8, n_raw_samples=8, n_restarts=2,
    settings=ROLLOUT_SETTINGS._replace(max_rounds=3),
)
START = {"VCD": 2.0, "Via": 98.0, "Glc": 6.0, "Gln": 5.0, "Glu": 1.0, "Lac": 0.5, "Amm": 0.5,
         "Pyr": 1.0, "Titer": 10.0}

def rows(n):
    def values(day):
        return {k: v * 1.3**day if k in ("VCD", "Titer") else v for k, v in START.items()}

    held = SPACE.centre
    return [{"day": d, "time_h": 24.0 * d, "values": values(d), "controls": held} for d in range(n)]

asked, made = [], []
for n in (2, 3, 4, 41):
    before = seen["/jax/compilation_cache/compile_requests_use_cache"]
    run = history_from_records(rows(n), volume_L=0.25)
    found = decide(run, model, policy, seed=1, u_now=SPACE.centre, n_particles=16, n_paths=16)
    asked.append(seen["/jax/compilation_cache/compile_requests_use_cache"] - before)
    made.append(found.setpoints)
print(json.dumps({"asked": asked, "made": made}))
"""


@pytest.mark.timeout(900)
def test_a_decision_asks_for_few_programs_and_the_next_days_for_none(tmp_path):
    first, second = (
        json.loads(
            subprocess.run(
                [sys.executable, "-c", PROGRAM, str(tmp_path)],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for _ in range(2)
    )
    # everything kept: what is left are copies of arrays to the device and the like
    assert first["asked"][0] <= 42 and second["asked"][0] <= 20
    # a longer history has the same size: days 3 to 40 ask for nothing
    assert first["asked"][1:] == second["asked"][1:] == [0, 0, 0]
    assert first["made"] == second["made"]  # the same executables, so the same bits
