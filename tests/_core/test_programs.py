"""Programs that are compiled once per size, and kept with their executables."""

import copy
import inspect
import os
import pickle
import subprocess
import sys
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import perfusio_jax
from perfusio_jax._core import ConfigError, enable_compile_cache, executables
from perfusio_jax._core.executables import UNCOMPILED, Unnamed, describe, keep_executables
from perfusio_jax._core.programs import compiled
from perfusio_jax.gp import log_evidence

SOURCES = Path(perfusio_jax.__file__).parent
PROGRAM = """
import sys, jax, jax.numpy as jnp, numpy as np, equinox as eqx
from perfusio_jax._core import enable_compile_cache
from perfusio_jax._core.programs import compiled
enable_compile_cache(sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
traced = []

def solve(layer, matrix, key, scale=2):
    traced.append(1)
    root = jnp.linalg.cholesky(matrix)
    drawn = scale * jax.random.normal(key, (3,))
    return eqx.tree_at(lambda m: m.bias, layer, root @ drawn), {"name": "x", "n": None, "k": 3}

solve.__module__ = "perfusio_jax.made_up"
call = compiled(solve)
layer = eqx.nn.Linear(3, 3, key=jax.random.key(0))
for _ in range(2):
    made, rest = call(layer, 4.0 * jnp.eye(3), jax.random.key(1))
assert rest == {"name": "x", "n": None, "k": 3}
print(len(traced), *np.asarray(made.bias).tolist())
"""


def run(place: Path) -> list[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(place)], capture_output=True, text=True, check=True
    ).stdout.split()


@pytest.fixture
def place(tmp_path):
    """A folder of executables in use, and none afterwards."""
    keep_executables(tmp_path / "executables")
    return tmp_path / "executables"


def known(fn):
    """A function as if it were one of this package, which alone have names that last."""
    fn.__module__ = "perfusio_jax.made_up"
    return fn


def test_the_next_process_neither_traces_nor_compiles(tmp_path):
    first, second = run(tmp_path), run(tmp_path)
    assert (first[0], second[0]) == ("1", "0")
    # a factorisation by LAPACK ran in a process that had compiled none
    assert first[1:] == second[1:] and len(first) == 4
    (kept,) = (tmp_path / "executables").iterdir()
    content = bytearray(kept.read_bytes())
    content[-1] ^= 1
    kept.write_bytes(content)  # damaged: compiled again, and kept again
    assert run(tmp_path) == first and run(tmp_path) == second


def test_what_jaxs_own_cache_holds_is_kept_whole_too(tmp_path):
    first = run(tmp_path)
    for kept in (tmp_path / "executables").iterdir():
        kept.unlink()
    assert run(tmp_path) == first
    assert run(tmp_path) == ["0", *first[1:]]


def test_an_executable_that_does_not_run_here_is_compiled_again(place, monkeypatch):
    def add(x):
        return x + 1.0

    assert compiled(known(add))(jnp.ones(3)).tolist() == [2.0] * 3

    def broken(self, name, key):
        def fail(arrays):
            raise jax.errors.JaxRuntimeError("NOT_FOUND: Function fusion.1 not found")

        return fail, None

    monkeypatch.setattr(executables.Executables, "load", broken)
    again = compiled(add)
    assert again(jnp.ones(3)).tolist() == again(jnp.ones(3)).tolist() == [2.0] * 3
    assert len(list(place.iterdir())) == 1


def test_static_arguments_have_programs_of_their_own(place):
    traced = []

    @known
    def scaled(x, by, how="a"):
        traced.append(how)
        return x * by

    call = compiled(scaled)
    assert float(call(jnp.ones(()), 2)) == 2.0 and float(call(jnp.ones(()), 3)) == 3.0
    assert float(call(jnp.ones(()), 2, how="b")) == 2.0 and len(traced) == 3
    assert call(jnp.ones(2), 2).shape == (2,) and call(np.ones(2), 2).shape == (2,)
    assert len(traced) == 4 and len(list(place.iterdir())) == 4


def test_static_numbers_that_are_equal_are_not_the_same(place):
    traced = []

    @known
    def times(x, by):
        traced.append(by)
        return by * x if isinstance(by, int) else jnp.where(jnp.signbit(by), -1.0, 1.0) * x

    call = compiled(times)
    x = jnp.ones((), int)
    assert call(x, 1).dtype == int and call(x, 1.0).dtype == float
    assert float(call(x, 0.0)) == 1.0 and float(call(x, -0.0)) == -1.0
    for _ in range(2):
        call(x, float("nan"))
    call(x, True)
    assert len(traced) == 6 and len(list(place.iterdir())) == 6


def test_a_device_named_and_taken_by_default_is_one(place):
    traced = []

    @known
    def half(x):
        traced.append(1)
        return 0.5 * x

    call, device = compiled(half), jax.devices()[0]
    with jax.default_device(device):  # of this thread alone
        call(np.ones(2))
        with ThreadPoolExecutor() as pool:
            assert pool.submit(call, np.ones(2)).result().tolist() == [0.5, 0.5]
    assert call(np.ones(2)).devices() == {device} and len(traced) == 1


def test_it_behaves_as_a_function_of_its_module():
    assert pickle.loads(pickle.dumps(log_evidence)) is log_evidence
    assert copy.deepcopy(log_evidence) is log_evidence
    assert list(inspect.signature(log_evidence).parameters) == ["model"]
    assert log_evidence.__name__ == "log_evidence" and log_evidence.__doc__


def test_switched_off_compiling_is_respected(place):
    @known
    def values(x):
        return float(x)  # only where nothing is traced

    with jax.disable_jit():
        assert compiled(values)(jnp.ones(())) == 1.0
    assert list(place.iterdir()) == []


def test_inside_another_function_it_is_part_of_that(place):
    @known
    def square(x):
        return x**2

    call = compiled(square)
    assert float(jax.grad(call)(3.0)) == 6.0
    assert jax.vmap(call)(jnp.arange(3.0)).tolist() == [0.0, 1.0, 4.0]
    assert float(eqx.filter_jit(lambda x: call(x) + 1.0)(jnp.asarray(2.0))) == 5.0


def test_functions_of_the_caller_are_compiled_and_not_kept(place):
    @known
    def apply(fn, x):
        return fn(x)

    by = 3.0
    assert float(compiled(apply)(lambda x: by * x, jnp.ones(()))) == 3.0
    assert float(compiled(apply)(jnp.sin, jnp.zeros(()))) == 0.0
    assert [path.name.split("-")[0] for path in place.iterdir()] == ["apply"]


def test_a_program_with_a_callback_is_left_to_jax(place):
    traced = []

    @known
    def back(x):
        traced.append(1)
        return jax.pure_callback(lambda v: np.asarray(v) + 1.0, x, x)

    for _ in range(2):
        assert float(compiled(back)(jnp.zeros(()))) == 1.0
    (kept,) = place.iterdir()
    assert kept.stat().st_size < 1000


def test_a_description_holds_values_where_they_are_static_and_sizes_where_not():
    class Held(eqx.Module):
        x: jax.Array
        table: tuple[float, ...] = eqx.field(static=True)

    Held.__module__ = "perfusio_jax.made_up"
    one, other = (1.0, 1.0), (0.0, 0.0)
    assert describe(Held(jnp.ones(2), one)) == describe(Held(jnp.zeros(2), one))
    assert describe(Held(jnp.ones(2), one)) != describe(Held(jnp.ones(2), other))
    assert describe(Held(jnp.ones(2), one)) != describe(Held(jnp.ones(3), one))
    assert describe((1, 2.0)) != describe((1, 2)) != describe([1, 2])
    assert describe({"a": 1, "b": 2}) == describe({"b": 2, "a": 1})
    ordered = OrderedDict(a=1, b=2), OrderedDict(b=2, a=1)
    assert describe(ordered[0]) != describe(ordered[1])

    def made(by):
        def inner(x):
            return by * x

        return known(inner)

    assert describe(made(2.0)) == describe(made(2.0)) != describe(made(3.0))
    assert describe(made(np.ones(2))) != describe(made(np.zeros(2)))
    with pytest.raises(Unnamed, match="test_programs"):
        describe(run)
    with pytest.raises(Unnamed):
        describe(object())


def test_settings_of_jax_have_programs_of_their_own(place):
    @known
    def one(x):
        return x + jnp.ones(())

    call = compiled(one)
    call(np.float32(1.0))
    with jax.numpy_dtype_promotion("strict"), pytest.raises(Exception, match="promotion"):
        call(np.float32(1.0))


@pytest.mark.skipif(os.name != "posix", reason="permissions differ")
@pytest.mark.parametrize("which", ["cache", "cache/executables"])
def test_a_folder_where_others_may_write_is_refused(tmp_path, which):
    (tmp_path / "cache" / "executables").mkdir(parents=True)
    (tmp_path / which).chmod(0o777)
    before = jax.config.jax_compilation_cache_dir
    with pytest.raises(ConfigError, match="can be written by others"):
        enable_compile_cache(tmp_path / "cache")
    assert jax.config.jax_compilation_cache_dir == before


@pytest.mark.skipif(os.name != "posix", reason="links differ")
def test_a_link_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "executables").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="is a link"):
        enable_compile_cache(tmp_path / "cache")


def test_an_executable_under_another_name_is_not_taken(place):
    @known
    def shifted(x, by):
        return x + by

    x = jnp.zeros(())
    assert float(compiled(shifted)(x, 1)) == 1.0 and float(compiled(shifted)(x, 2)) == 2.0
    one, other = place.iterdir()
    other.write_bytes(one.read_bytes())
    again = compiled(shifted)
    assert float(again(x, 1)) == 1.0 and float(again(x, 2)) == 2.0


def test_what_cannot_be_put_in_place_leaves_nothing_behind(place):
    def add(x):
        return x + 2.0

    compiled(known(add))(jnp.ones(()))
    (kept,) = place.iterdir()
    kept.unlink()
    kept.mkdir()
    assert float(compiled(add)(jnp.ones(()))) == 3.0
    assert list(place.iterdir()) == [kept]


def test_old_executables_and_too_many_are_removed(tmp_path, monkeypatch):
    for name, days, size in (("old", 61, 1), ("new", 0, 60), ("newer", -1, 50)):
        (tmp_path / name).write_bytes(b"x" * size)
        then = (tmp_path / name).stat().st_mtime - 86_400 * days
        os.utime(tmp_path / name, (then, then))
    tmp_path.chmod(0o700)
    monkeypatch.setattr(executables, "_LARGEST", 100)
    executables.Executables(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["newer"]


def test_rooms_that_leave_executables_alone_hold_nothing_compiled():
    for room in UNCOMPILED:
        assert (SOURCES / room).is_dir()
        for file in (SOURCES / room).rglob("*.py"):
            text = file.read_text()
            assert "programs import" not in text and "filter_jit" not in text, file
