"""Self-driving development of perfusion cell culture, and the JAX library under it.

Everything here is loaded on first use: `import perfusio_jax` itself reads no heavy library
and changes no JAX setting.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_FACES = {
    "enable_x64": "perfusio_jax._core",
    "PerfusioError": "perfusio_jax._core",
    "AlarmConfig": "perfusio_jax.config",
    "ControlBounds": "perfusio_jax.config",
    "DEFAULT_AMBR250_DESIGN_SPACE": "perfusio_jax.config",
    "DesignSpace": "perfusio_jax.config",
    "RunConfig": "perfusio_jax.config",
    "SpeciesBounds": "perfusio_jax.config",
    "State": "perfusio_jax.states",
    "StateBatch": "perfusio_jax.states",
    "Trajectory": "perfusio_jax.states",
}

_ROOMS = (
    "bed",
    "chemistry",
    "cli",
    "config",
    "connectors",
    "demo",
    "embedding",
    "gp",
    "hybrid",
    "mechanistic",
    "metrics",
    "rl",
    "simulator",
    "states",
    "study",
    "twin",
    "viz",
)

if TYPE_CHECKING:
    from perfusio_jax._core import PerfusioError as PerfusioError
    from perfusio_jax._core import enable_x64 as enable_x64
    from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE as DEFAULT_AMBR250_DESIGN_SPACE
    from perfusio_jax.config import AlarmConfig as AlarmConfig
    from perfusio_jax.config import ControlBounds as ControlBounds
    from perfusio_jax.config import DesignSpace as DesignSpace
    from perfusio_jax.config import RunConfig as RunConfig
    from perfusio_jax.config import SpeciesBounds as SpeciesBounds
    from perfusio_jax.states import State as State
    from perfusio_jax.states import StateBatch as StateBatch
    from perfusio_jax.states import Trajectory as Trajectory


def __getattr__(name: str) -> Any:
    if name in _FACES:
        value = getattr(importlib.import_module(_FACES[name]), name)
        globals()[name] = value
        return value
    if name in _ROOMS:
        target = f"{__name__}.{name}"
        try:
            return importlib.import_module(target)
        except ModuleNotFoundError as error:
            if error.name != target:
                raise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_FACES, *_ROOMS})
