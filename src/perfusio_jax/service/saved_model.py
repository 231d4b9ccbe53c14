"""A model that was saved, as a command names it."""

from pathlib import Path

from perfusio_jax._core import ConfigError
from perfusio_jax.connectors import named_mechanism
from perfusio_jax.hybrid import HybridStateSpaceModel, load


def load_model(folder: Path, mechanism: str | None = None) -> HybridStateSpaceModel:
    """A saved model.

    Args:
        folder: Where it lies.
        mechanism: Class of its own mechanism, as `module:Class`; None for one of this library.

    Raises:
        ConfigError: If it is not a folder, or its mechanism is another.
        DataError: If what it holds is not a saved model.
    """
    if not folder.exists():
        raise ConfigError(f"model {folder} does not exist; perfusio-jax fit makes one.")
    if not folder.is_dir():
        raise ConfigError(f"model {folder} is a file; name the folder of a fitted model.")
    own = named_mechanism(mechanism)
    return load(folder) if mechanism is None else load(folder, mech_model=own)
