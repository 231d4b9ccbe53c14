"""Settings every test runs under: 64-bit floats, no silent rank promotion, one BLAS thread."""

import ctypes
import gc
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# Most of a run is the compiler's work on programs that run once, so it is told to take no pains:
# the same operations in the same 64 bits, in machine code that is less polished. The older
# emitters take half the time of the fusion emitters. In one piece: a program cut for parallel code
# generation rounds as its pieces do, and two programs of one sum would differ in last bits.
_FLAGS = (
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",
)
_GIVEN = os.environ.get("XLA_FLAGS", "").split()
_NAMED = {flag.partition("=")[0] for flag in _GIVEN}
os.environ["XLA_FLAGS"] = " ".join(
    [*_GIVEN, *(flag for flag in _FLAGS if flag.partition("=")[0] not in _NAMED)]
)

# Workers share what they compile, with each other, with programs that tests start, and with the
# next run; `make clean` takes it away.
_CACHE = {
    "JAX_COMPILATION_CACHE_DIR": str(Path(__file__).parents[1] / ".pytest_cache" / "xla"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
}
os.environ.update(_CACHE)

# Commands keep what they compile in the user's cache: tests, which put stand-ins in place of parts,
# have one of their own.
os.environ["XDG_CACHE_HOME"] = str(Path(__file__).parents[1] / ".pytest_cache" / "user")

# Journals and audit trails wait for the disk at every record. Files of tests lie in memory where
# there is room; `TMPDIR` chooses another place.
_MEMORY = Path("/dev/shm")
_ROOM = 4 << 30
if "TMPDIR" not in os.environ and os.access(_MEMORY, os.W_OK | os.X_OK):
    if shutil.disk_usage(_MEMORY).free >= _ROOM:
        os.environ["TMPDIR"] = tempfile.tempdir = str(_MEMORY)

# Programs that tests start import the same sources.
_SOURCES = str(Path(__file__).parents[1] / "src")
_PATHS = [_SOURCES, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(_PATHS))

from collections.abc import Callable, Iterator
from typing import Any

import jax
import pytest
from hypothesis import HealthCheck, settings

from perfusio_jax._core.executables import keep_executables
from tests.connectors.postgres import INSTALL, Server, find_binaries, running_server
from tests.slow import slow_files

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")

# Tracing makes many objects and little garbage: it is looked for less often.
gc.set_threshold(20_000, 20, 20)

settings.register_profile(
    "house",
    deadline=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("house")


@pytest.fixture
def strict_dtypes() -> Iterator[None]:
    """Strict dtype promotion, for our own functions (NumPyro and optax do not survive it)."""
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server with its password in the environment: one per worker, for all rooms."""
    text = ""
    if importlib.util.find_spec("psycopg") is None:
        text = "psycopg is not installed: pip install 'perfusio-jax[postgres]'"
    elif find_binaries() is None:
        text = f"PostgreSQL is not installed: {INSTALL}"
    if text:
        print(text)
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(text)
        pytest.skip(text)
    with running_server() as server:
        before = os.environ.get("PGPASSWORD")
        os.environ["PGPASSWORD"] = server.password
        yield server
        if before is None:
            del os.environ["PGPASSWORD"]
        else:
            os.environ["PGPASSWORD"] = before


class TraceCounter:
    """Counts how often Python runs a function's body: once per compile under `jit`."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function so that each run of its body is counted."""

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            return function(*args, **kwargs)

        return counted


@pytest.fixture
def traces() -> TraceCounter:
    """A fresh trace counter: `jax.jit(traces(f))`, then look at `traces.count`."""
    return TraceCounter()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest: no worker is left with one at the end."""
    rank = {path: k for k, path in enumerate(slow_files())}
    items.sort(key=lambda item: rank.get(item.nodeid.partition("::")[0], len(rank)))


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over what was loaded so far: it stays to the end."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _executables_are_kept_within_a_test() -> Iterator[None]:
    """A command keeps what it compiles; a test that counts compiles later has to see them all."""
    yield
    keep_executables(None)


_MOST_MAPS = 20_000
_MOST_BYTES = 3 << 29
_LEAST_GROWTH = 1 << 29
_after_the_last = [0]


def _held() -> int:
    """Memory of this process [B]; 0 where nothing tells."""
    told = Path("/proc/self/statm")
    return int(told.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if told.exists() else 0


def _are_too_many() -> bool:
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > _MOST_MAPS:
        return True
    return _held() > max(_MOST_BYTES, _after_the_last[0] + _LEAST_GROWTH)


@pytest.fixture(scope="module", autouse=True)
def _compiled_programs_are_given_back() -> Iterator[None]:
    """Drop compiled programs when a process holds many; a file that needs one reads it again.

    Each keeps a few memory maps; the kernel allows 65 530 in a process, and a worker that runs
    all rooms would meet that limit as a crash in the compiler. With what tracing leaves behind
    they take memory too: what is dropped is handed back to the system where the C library can.
    """
    yield
    if _are_too_many():
        jax.clear_caches()
        gc.collect()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
        _after_the_last[0] = _held()
