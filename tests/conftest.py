"""Settings every test runs under: 64-bit floats, no silent rank promotion, one BLAS thread."""

import gc
import os
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# Programs that tests start import the same sources.
_SOURCES = str(Path(__file__).parents[1] / "src")
_PATHS = [_SOURCES, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(_PATHS))

from collections.abc import Callable, Iterator
from typing import Any

import jax
import pytest
from hypothesis import HealthCheck, settings

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
# Workers share what they compile, and so does the next run; `make clean` takes it away.
jax.config.update(
    "jax_compilation_cache_dir", str(Path(__file__).parents[1] / ".pytest_cache" / "xla")
)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)

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


_LONG = (
    "demo/test_demo.py", "tests/test_examples.py", "faults/test_soak.py", "faults/test_closing.py",
    "report/test_proposing.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with files of few tests and many seconds: no worker is left with one at the end."""
    items.sort(key=lambda item: not item.path.as_posix().endswith(_LONG))


_MOST_MAPS = 20_000


@pytest.fixture(scope="module", autouse=True)
def _compiled_programs_are_given_back() -> Iterator[None]:
    """Drop compiled programs when a process holds many.

    Each keeps a few memory maps; the kernel allows 65 530 in a process, and a worker that runs
    all rooms would meet that limit as a crash in the compiler.
    """
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > _MOST_MAPS:
        jax.clear_caches()
        gc.collect()
