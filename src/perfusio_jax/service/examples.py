"""`perfusio-jax examples`: the scripts and the example reactor, out of the installation."""

from collections.abc import Iterator
from pathlib import Path

from perfusio_jax._core import ConfigError

_SUFFIXES = (".py", ".csv", ".toml")


def source_folder() -> Path:
    """Where the examples lie: in an installation beside the code, else in the source tree.

    Raises:
        ConfigError: If the installation lacks them.
    """
    package = Path(__file__).resolve().parents[1]
    for place in (package / "examples", package.parents[1] / "examples"):
        if (place / "reactor" / "twin.toml").is_file():
            return place
    raise ConfigError(
        f"This installation of perfusio-jax has no examples beside {package}. Install it anew "
        "from a wheel, or take them from the source tree."
    )


def write_examples(folder: Path) -> list[Path]:
    """Write all examples into a folder; what is there already stays as it is.

    Args:
        folder: Where to; made if it is not there.

    Returns:
        The files that were written, none if all were there.

    Raises:
        ConfigError: If a file there has the name of an example and other content; nothing is
            written then.
    """
    source = source_folder()
    new = []
    for path in _files(source):
        target = folder / path.relative_to(source)
        if not target.exists():
            new.append((path, target))
        elif not target.is_file() or target.read_bytes() != path.read_bytes():
            raise ConfigError(
                f"{target} is there and is not the example as it comes. Name another folder, or "
                "move it away."
            )
    for path, target in new:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return [target for _, target in new]


def _files(source: Path) -> Iterator[Path]:
    for path in sorted(source.rglob("*")):
        if path.suffix in _SUFFIXES and "__pycache__" not in path.parts:
            yield path
