"""Compiled programs kept on disk between processes."""

import warnings
from pathlib import Path

import jax

from perfusio_jax._core.errors import ConfigError
from perfusio_jax._core.executables import keep_executables


def default_compile_cache() -> Path:
    """Folder of this user's compiled programs."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("perfusio-jax")) / "compiled"


def enable_compile_cache(folder: Path | str | None = None) -> Path:
    """Keep compiled programs on disk, so that the next process need not compile them again.

    Switches on JAX's persistent cache, for the rest of the process, for whatever is compiled, the
    small programs too, of which a command has up to three hundred; and for the programs of this
    package the folder of finished executables, which need not even be traced again. Programs are
    found again by what they compute, the versions of JAX and this package, and the device: a stale
    entry is never used. Call it before anything is compiled. What is in the folder is run: it must
    be yours alone.

    Args:
        folder: Where; made if it is not there. The user's cache folder by default, which the
            command line uses too.

    Returns:
        The folder.

    Raises:
        ConfigError: If no folder is named, the folder cannot be made, or others may write there.
    """
    if folder is not None and not str(folder).strip():
        raise ConfigError("folder='' was given; name a folder, or leave it out for the user's own.")
    place = default_compile_cache() if folder is None else Path(folder).expanduser()
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        keep_executables(place / "executables")
    except OSError as error:
        raise ConfigError(
            f"compiled programs cannot be kept in {place}: {error.strerror or error}. Name another "
            "folder, or go on without: every process then compiles for itself."
        ) from error
    # another process may have only begun to write what is read here: it is compiled once more
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache entry")
    jax.config.update("jax_compilation_cache_dir", str(place))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    return place
