"""Functions as programs of their own: saved by `jax.export`, run without this library.

A program is one file: a ZIP of the program itself and of `about.json`, which says what goes in and
what comes out. Whoever has JAX runs it in three lines:

    with zipfile.ZipFile("run.jaxprogram") as file:
        program = jax.export.deserialize(bytearray(file.read("program")))
    values = program.call(x, controls)
"""

import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import Array, Float

from perfusio_jax._core import ConfigError, DataError
from perfusio_jax.rl import Bounds, GaussianPolicy
from perfusio_jax.rl.policy import fold
from perfusio_jax.study import Experiment, Lever

PROGRAM, ABOUT = "program", "about.json"
PLATFORMS: Final = ("cpu", "cuda")
"""Where a program runs, unless others are asked for."""
_KIND = "perfusio-jax program"


def require_flatbuffers() -> None:
    """Refuse to go on without what JAX serialises programs with.

    Raises:
        ConfigError: If it is not installed.
    """
    if find_spec("flatbuffers") is None:
        raise ConfigError(
            "JAX saves and loads programs by flatbuffers, which is not installed: "
            "pip install 'perfusio-jax[exchange]'."
        )


class Program(NamedTuple):
    """A program that was read."""

    call: Callable[..., Any]
    """Runs it."""
    about: dict[str, Any]
    """What goes in and what comes out, as it was noted."""


def save_program(
    function: Callable[..., Any],
    examples: Sequence[Any],
    path: Path,
    *,
    about: Mapping[str, Any],
    platforms: Sequence[str] = PLATFORMS,
) -> None:
    """Save a function of arrays.

    Args:
        function: Pure; what it closes over goes with it.
        examples: One argument each, of the shapes and types it will be called with.
        path: File to write.
        about: What goes in and what comes out, for people; JSON.
        platforms: Where it is to run: `cpu`, `cuda`, `rocm`, `tpu`.

    Raises:
        ConfigError: If what JAX writes programs with is not installed.
    """
    require_flatbuffers()
    shapes = [jax.tree.map(lambda v: jax.ShapeDtypeStruct(v.shape, v.dtype), e) for e in examples]
    made = export.export(jax.jit(function), platforms=tuple(platforms))(*shapes)
    told = {
        "kind": _KIND,
        "jax": jax.__version__,
        "platforms": list(platforms),
        "in": [f"{v.dtype}{list(v.shape)}" for v in made.in_avals],
        "out": [f"{v.dtype}{list(v.shape)}" for v in made.out_avals],
        **about,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(PROGRAM, bytes(made.serialize()))
        file.writestr(ABOUT, json.dumps(told, indent=1) + "\n")


def load_program(path: Path) -> Program:
    """Read a program.

    Args:
        path: File that `save_program` wrote.

    Raises:
        ConfigError: If what JAX reads programs with is not installed.
        DataError: If the file holds none.
    """
    require_flatbuffers()
    try:
        with zipfile.ZipFile(path) as file:
            body, text = file.read(PROGRAM), file.read(ABOUT)
        about = json.loads(text)
        made = export.deserialize(bytearray(body))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist.") from None
    except (zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
        raise DataError(f"{path} holds no program: {error}.") from None
    return Program(made.call, about)


def save_run(
    experiment: Experiment,
    levers: Sequence[Lever],
    path: Path,
    *,
    platforms: Sequence[str] = PLATFORMS,
) -> None:
    """Save a run as a program of its levers.

    It takes their values (P,), and returns what can be read at the samples (T+1,Q) and a result
    code, 0 if the run got to its end.

    Args:
        experiment: The run.
        levers: What can be changed, in the order of the argument.
        path: File to write.
        platforms: Where it is to run.
    """
    chosen = tuple(levers)

    def run(x: Float[Array, " P"]) -> tuple[Array, Array]:
        course = experiment.pulled(chosen, x).course()
        return course.values, course.result

    at = jnp.asarray(experiment.lever_values(chosen))
    about = {
        "what": "a run: values of levers in, columns at the samples and a result code out",
        "levers": [
            {"name": v.name, "unit": v.unit, "at": float(a)}
            for v, a in zip(chosen, np.asarray(at), strict=True)
        ],
        "columns": [{"name": c, "unit": experiment.unit(c)} for c in experiment.columns],
        "hours": experiment.hours.tolist(),
    }
    save_program(run, [at], path, about=about, platforms=platforms)


def save_policy(
    policy: GaussianPolicy,
    bounds: Bounds,
    path: Path,
    *,
    observed: Sequence[str] = (),
    inputs: Sequence[str] = (),
    platforms: Sequence[str] = PLATFORMS,
) -> None:
    """Save a policy as a program that acts by its mean: an observation in, inputs out.

    Args:
        policy: Trained.
        bounds: Of the inputs.
        path: File to write.
        observed: Names of what it sees, for people.
        inputs: Names of what it sets.
        platforms: Where it is to run.
    """

    def act(seen: Float[Array, " n_obs"]) -> Float[Array, " n_u"]:
        mean, _ = policy(seen)
        return bounds.inputs(fold(mean))

    dtype = policy.mean_head.weight.dtype
    about = {
        "what": "a policy: an observation in, inputs in their units out",
        "observed": list(observed),
        "inputs": list(inputs),
    }
    example = jnp.zeros(policy.n_observed, dtype)
    save_program(act, [example], path, about=about, platforms=platforms)
