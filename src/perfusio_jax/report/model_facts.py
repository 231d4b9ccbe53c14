"""What a run's model was fitted on, as its files tell without being loaded."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from perfusio_jax._core import PerfusioError
from perfusio_jax._core.checkpoint import HEADER
from perfusio_jax._core.limits import SETTINGS_BYTES, parse_json, read_file, read_toml

from .document import Block, Listing, Words

_CARD: Final = "model_card.md"
_PARTS: Final = ("## Data", "## Limits")


def model_facts(folder: Path, config: Path | None) -> list[Block]:
    """What can be said of the model a run began with.

    Args:
        folder: Run folder.
        config: Its configuration, which names the model; None without one.

    Returns:
        Sentences. What is not there is said, and so is what cannot be read.
    """
    where = _model_of(folder, config)
    if where is None and config is None:
        return [Words("No model lies in the run folder, and no settings say where one is.")]
    if where is None:
        return [Words("No model is named in the settings: the run began with the mechanism alone.")]
    blocks: list[Block] = []
    try:
        header = parse_json(read_file(where / HEADER, most=SETTINGS_BYTES), str(where / HEADER))
        blocks.append(Listing(_header(where, header)))
    except (PerfusioError, OSError, KeyError, TypeError, AttributeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        blocks.append(Words(f"The model {where.name} cannot be read: {why}", is_warning=True))
    for place in (where, where.parent):
        if (place / _CARD).is_file():
            try:
                text = read_file(place / _CARD, most=SETTINGS_BYTES).decode(errors="replace")
            except (PerfusioError, OSError) as error:
                blocks.append(Words(f"{_CARD} cannot be read: {error}", is_warning=True))
            else:
                blocks += _card(text)
            return blocks
    return [*blocks, Words("No model card lies with it; perfusio-jax validate writes one.")]


def _model_of(folder: Path, config: Path | None) -> Path | None:
    """Folder of the model: that of the settings, else `model/` in the run folder."""
    if config is not None:
        try:
            named = read_toml(config).get("twin", {}).get("model")
        except (PerfusioError, OSError, AttributeError):
            named = None
        if isinstance(named, str) and named:
            return config.parent / named
    own = folder / "model"
    return own if own.is_dir() else None


def _header(where: Path, header: Mapping[str, Any]) -> list[str]:
    built = header["architecture"]
    process, shape, clones = built.get("process"), built.get("gp"), built.get("clones")
    said = [
        f"Model folder {where.name}: {header['kind']}, layout {header['schema_version']}; SHA-256 "
        f"of its arrays {header['sha256']}.",
        f"It knows {', '.join(map(str, built['species_names']))}; set-points "
        f"{', '.join(map(str, built['control_names']))}.",
        f"Mechanism: {built.get('mechanistic', 'none')}.",
    ]
    if isinstance(process, Mapping) and process.get("name"):
        said.append(f"Culture: {process['name']}.")
    if shape:
        said.append(f"Its Gaussian process has room for {shape['capacity']} intervals.")
    else:
        said.append("It has no Gaussian process.")
    if clones:
        names = [str(c.get("clone_id", c.get("name", "?"))) for c in clones["registry"]]
        said.append(f"Clones: {', '.join(names)}.")
    return said


def _card(text: str) -> list[Block]:
    """The verdict of a model card, what it was fitted on, and within what it holds."""
    lines = text.splitlines()
    verdict = next((line for line in lines if line.startswith("**Verdict**")), None)
    blocks: list[Block] = [] if verdict is None else [Words(_plain(verdict))]
    source = next((line for line in lines if line.startswith("Hybrid model fitted by")), None)
    said = [] if source is None else [_plain(source)]
    for part in _PARTS:
        if part in lines:
            below = lines[lines.index(part) + 1 :]
            end = next((k for k, line in enumerate(below) if line.startswith("## ")), len(below))
            said += [_plain(line[2:]) for line in below[:end] if line.startswith("- ")]
    return [*blocks, Listing(said)] if said else blocks


def _plain(line: str) -> str:
    return line.replace("**", "").replace("`", "")
