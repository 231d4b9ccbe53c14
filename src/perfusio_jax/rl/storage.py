"""Trainings on disk: stopped, resumed, and refused where they do not fit."""

import hashlib
import os
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import DataError
from perfusio_jax._core.checkpoint import fill, named_arrays, read_checkpoint, write_checkpoint
from perfusio_jax.process import Process
from perfusio_jax.rl.process_env import ProcessEnv
from perfusio_jax.rl.reinforce import Problem, TrainState, begin
from perfusio_jax.rl.settings import TrainSettings

SCHEMA_VERSION: Final = 3
KIND: Final = "policy training"


def _architecture(problem: Problem, settings: TrainSettings) -> dict[str, Any]:
    """Everything that decides what an epoch does, so that a training is resumed as itself."""
    given = {f.name: getattr(settings, f.name) for f in fields(settings) if f.name != "n_devices"}
    env = problem.env
    # what is told apart is the motion; names and sizes are told as if they were the environment's
    motion = env.motion if isinstance(env, ProcessEnv) else None
    owner, name = (env, type(env).__name__) if motion is None else (motion, motion.stored_as)
    told = {f.name: getattr(owner, f.name) for f in fields(owner) if f.metadata.get("static")}
    told["n_steps"] = env.n_steps
    return {
        "environment": name,
        **{f"environment's {n}": _plain_value(value) for n, value in told.items()},
        "observed": problem.env.n_observed,
        "inputs": problem.env.n_inputs,
        **{n: np.asarray(v).tolist() if eqx.is_array(v) else v for n, v in given.items()},
        "problem": _digest(problem),
    }


def _plain_value(value: Any) -> Any:
    """A static value as JSON gives it back."""
    if isinstance(value, Process):
        return hashlib.sha256(value.model_dump_json().encode()).hexdigest()[:16]
    return [_plain_value(v) for v in value] if isinstance(value, tuple) else value


def _digest(problem: Problem) -> str:
    """Of the numbers of plant, references, bounds and return."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(problem):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.asarray(leaf).astype(float).tobytes())
    return digest.hexdigest()[:16]


def _is_rounding(a: Any, b: Any) -> bool:
    """Whether two settings are one number in either precision."""
    return isinstance(a, float) and isinstance(b, float) and abs(a - b) <= 1e-6 * abs(b)


def _check_precision(wanted: TrainState, arrays: dict[str, np.ndarray], where: str) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(wanted):
        name = jax.tree_util.keystr(path)
        if name in arrays and arrays[name].dtype != leaf.dtype:
            raise DataError(
                f"{where} has {name} in {arrays[name].dtype}; these settings keep {leaf.dtype}: "
                "it was begun in another precision."
            )


def _plain(state: TrainState) -> TrainState:
    return eqx.tree_at(lambda s: s.key, state, jax.random.key_data(state.key))


def _empty(problem: Problem, settings: TrainSettings) -> Any:
    """Shapes of a training's state."""
    return eqx.filter_eval_shape(lambda: _plain(begin(problem, settings, key=jax.random.key(0))))


def save_training(
    folder: str | os.PathLike[str], problem: Problem, settings: TrainSettings, state: TrainState
) -> Path:
    """Write a training; an earlier one in the folder is replaced.

    Args:
        folder: Made if it does not exist.
        problem: What is being learned.
        settings: Its settings.
        state: Where it stands.

    Returns:
        The folder.

    Raises:
        DataError: If the state is not one of this problem and these settings.
    """
    arrays = named_arrays(_plain(state))
    wanted = _empty(problem, settings)
    fill(wanted, arrays, where="the training that is to be saved")
    _check_precision(wanted, arrays, "the training that is to be saved")
    return write_checkpoint(
        folder,
        arrays,
        kind=KIND,
        schema_version=SCHEMA_VERSION,
        architecture=_architecture(problem, settings),
    )


def load_training(
    folder: str | os.PathLike[str], problem: Problem, settings: TrainSettings
) -> TrainState:
    """Read a training of the same problem and settings, to go on with or to use.

    Args:
        folder: Written by `save_training`.
        problem: What is being learned; its numbers have to be those it was begun with.
        settings: Settings, likewise.

    Returns:
        Where it stands.

    Raises:
        DataError: If it is not there or damaged, or was begun with another problem, network,
            settings or precision.
    """
    architecture, arrays = read_checkpoint(folder, kind=KIND, schema_version=SCHEMA_VERSION)
    wanted = _architecture(problem, settings)
    different = [k for k in wanted if architecture.get(k) != wanted[k]]
    if different:
        pairs = [(architecture.get(k), wanted[k]) for k in different if k != "problem"]
        if pairs and all(_is_rounding(*pair) for pair in pairs):
            raise DataError(
                f"the training in {folder} was begun with JAX's 64-bit mode "
                f"{'off' if jax.config.read('jax_enable_x64') else 'on'}; switch it so again "
                "(perfusio_jax.enable_x64), or choose another folder to begin afresh."
            )
        raise DataError(
            f"the training in {folder} is another one: "
            + ", ".join(f"{k} {architecture.get(k)} instead of {wanted[k]}" for k in different)
            + ". Give the settings it was begun with, or choose another folder to begin afresh."
        )
    empty = _empty(problem, settings)
    state = fill(empty, arrays, where=str(folder))
    _check_precision(empty, arrays, str(folder))
    return eqx.tree_at(lambda s: s.key, state, jax.random.wrap_key_data(jnp.asarray(state.key)))
