"""A fleet: several runs side by side, each with its own culture, model and objective."""

from collections import Counter
from pathlib import Path

from perfusio_jax._core import ConfigError
from perfusio_jax._core.limits import read_toml
from perfusio_jax.twin.records.run_files import FLEET_NAME

from .settings import CONFIGS, config_in


def fleet_of(what: Path) -> list[Path] | None:
    """Configurations of the runs of a fleet; None where `what` is no fleet.

    Args:
        what: `fleet.toml`, with a table `[fleet]`, or a folder with one and no run of its own.

    Raises:
        ConfigError: If it names no runs, one twice, one that is not there, or one whose folder is
            not directly below.
    """
    file = what
    if what.is_dir():
        file = what / FLEET_NAME
        if config_in(what) is not None or not file.is_file():
            return None
    if file.suffix.lower() != ".toml" or not file.is_file():
        return None
    settings = read_toml(file)
    if "fleet" not in settings:
        return None
    if file.name != FLEET_NAME:
        raise ConfigError(f"{file} holds a fleet; call it {FLEET_NAME}, so that status finds it.")
    table = settings["fleet"]
    wrong = sorted(set(settings) - {"fleet"})
    wrong += sorted(set(table) - {"runs"}) if isinstance(table, dict) else ["fleet"]
    if wrong:
        raise ConfigError(
            f"{file}: {', '.join(wrong)} does not belong into a fleet; it has a table [fleet] with "
            "runs, a list of their twin.toml."
        )
    runs = table.get("runs")
    if not (isinstance(runs, list) and runs and all(isinstance(r, str) and r for r in runs)):
        raise ConfigError(
            f"{file}: runs in [fleet] is {runs!r}; it must be a list as ['a/twin.toml', 'b']."
        )
    found = [_config(file, name) for name in runs]
    twice = [str(p) for p, n in Counter(found).items() if n > 1]
    if twice:
        raise ConfigError(f"{file}: {', '.join(twice)} is named twice; a run is run once.")
    return found


def _config(file: Path, name: str) -> Path:
    path = file.parent / name
    config = config_in(path) if path.exists() else None
    if config is None:
        raise ConfigError(
            f"{file}: {name} in [fleet] is no configuration; name the {' or '.join(CONFIGS)} of a "
            "run, or the folder it lies in."
        )
    if config.resolve().parent.parent != file.resolve().parent:
        raise ConfigError(
            f"{file}: {name} in [fleet] lies elsewhere; each run of a fleet has a folder of its "
            "own directly beside the fleet's file, so that status and stop find it."
        )
    return config
