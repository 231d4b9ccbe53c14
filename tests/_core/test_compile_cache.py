"""Compiled programs that are kept between processes."""

import os
import pickle
import subprocess
import sys

import jax
import pytest

from perfusio_jax._core import ConfigError, default_compile_cache, enable_compile_cache
from perfusio_jax.gp.kernels import PerfusionKernel

PROGRAM = """
import sys, jax, jax.numpy as jnp, perfusio_jax
place = perfusio_jax.enable_compile_cache(sys.argv[1])
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
x = jax.jit(lambda a: jnp.linalg.solve(a @ a.T + jnp.eye(30), a))(jnp.ones((30, 30)))
print(place, hits.count("/jax/compilation_cache/cache_hits"))
"""


def test_a_second_process_finds_what_the_first_compiled(tmp_path):
    place = tmp_path / "a" / "b"
    said = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM, str(place)], capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(2)
    ]
    assert said[0][0] == said[1][0] == str(place)
    assert int(said[0][1]) == 0 < int(said[1][1])


def test_an_entry_another_process_has_only_begun_to_write_is_compiled_again_in_silence(tmp_path):
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    subprocess.run(command, capture_output=True, check=True)
    entries = [path for path in tmp_path.rglob("*") if path.is_file()]
    for entry in entries:
        entry.write_bytes(entry.read_bytes()[: entry.stat().st_size // 2])
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert entries and again.stderr == ""
    assert int(again.stdout.split()[1]) == 0


def test_a_folder_that_cannot_be_made_is_refused_by_name(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot be kept in .*file/cache.*Name another"):
        enable_compile_cache(tmp_path / "file" / "cache")


@pytest.mark.parametrize("folder", ["", "  "])
def test_no_folder_is_not_the_working_folder(folder):
    with pytest.raises(ConfigError, match="name a folder"):
        enable_compile_cache(folder)


@pytest.mark.skipif(os.name != "posix", reason="where caches lie differs")
def test_the_default_is_the_users_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_compile_cache() == tmp_path / "perfusio-jax" / "compiled"


def test_the_structure_of_a_module_is_itself_after_it_was_kept():
    """What an executable returns is made by a structure that was written: no model of another."""
    kernel = PerfusionKernel(3, 4, rank=2, ard_num_dims=4)
    structure = jax.tree.structure(kernel)
    kept = pickle.loads(pickle.dumps(structure))
    assert kept == structure
    made = jax.tree.unflatten(kept, jax.tree.leaves(kernel))
    assert jax.tree.structure(made) == structure and made.__dict__.keys() == kernel.__dict__.keys()
