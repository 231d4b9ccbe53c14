"""Functions as programs that run without this library."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import DataError
from perfusio_jax.exchange import load_program, save_policy, save_run
from perfusio_jax.rl import Bounds, make_policy
from perfusio_jax.rl.policy import fold
from perfusio_jax.study import choose_levers
from tests.study.cultures import fed_batch

pytest.importorskip("flatbuffers", reason="jax.export needs flatbuffers (extra exchange)")

ALONE = """
import sys, zipfile
import jax, numpy as np
jax.config.update("jax_enable_x64", True)
for path, x in ((sys.argv[1], sys.argv[2]), (sys.argv[3], sys.argv[4])):
    with zipfile.ZipFile(path) as file:
        program = jax.export.deserialize(bytearray(file.read("program")))
    found = program.call(np.load(x))
    np.save(x + ".out.npy", np.asarray(found[0] if isinstance(found, (tuple, list)) else found))
assert not [m for m in sys.modules if m.startswith("perfusio")]
"""


def test_a_run_and_a_policy_run_without_the_library(tmp_path):
    run = fed_batch()
    levers = choose_levers(run, ["mu_max", "feed_rate", "start.S"])
    save_run(run, levers, tmp_path / "run.jaxprogram", platforms=("cpu",))
    at = np.asarray(run.lever_values(levers)) * [1.1, 0.9, 1.2]
    policy = make_policy(5, 2, key=jax.random.key(0), width=8, depth=2)
    bounds = Bounds(low=[0.1, 1.0], high=[1.0, 3.0])
    save_policy(policy, bounds, tmp_path / "act.jaxprogram", inputs=("a", "b"))
    seen = np.linspace(-1.0, 1.0, 5)
    np.save(tmp_path / "x.npy", at)
    np.save(tmp_path / "seen.npy", seen)
    words = ["run.jaxprogram", "x.npy", "act.jaxprogram", "seen.npy"]
    subprocess.run(
        [sys.executable, "-c", ALONE, *(str(tmp_path / w) for w in words)],
        check=True,
        env={"PYTHONPATH": os.environ.get("PYTHONPATH", ""), "JAX_PLATFORMS": "cpu"},
        cwd=tmp_path,
        timeout=240,
    )
    ours = np.asarray(jax.jit(lambda x: run.pulled(levers, x).course().values)(jnp.asarray(at)))
    np.testing.assert_allclose(np.load(tmp_path / "x.npy.out.npy"), ours, rtol=1e-12)
    acted = bounds.inputs(fold(policy(jnp.asarray(seen))[0]))
    np.testing.assert_allclose(np.load(tmp_path / "seen.npy.out.npy"), acted, rtol=1e-12)
    about = load_program(tmp_path / "run.jaxprogram").about
    assert [v["name"] for v in about["levers"]] == ["mu_max", "feed_rate", "start.S"]
    assert about["columns"][0] == {"name": "X", "unit": "g/L"}


def test_what_is_no_program_is_refused(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        load_program(tmp_path / "lost.jaxprogram")
    (tmp_path / "odd.jaxprogram").write_text("no zip")
    with pytest.raises(DataError, match="holds no program"):
        load_program(tmp_path / "odd.jaxprogram")
