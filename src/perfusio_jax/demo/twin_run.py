"""`perfusio-jax run`: the twin on a folder, a TOML file or a sample file."""

import asyncio
import signal
import tomllib
from pathlib import Path
from typing import Any

from perfusio_jax._core import ConfigError
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE, TwinConfig
from perfusio_jax.connectors import FilesystemStore
from perfusio_jax.hybrid import load
from perfusio_jax.twin import AlarmNotifier, DigitalTwin

_KEYS = frozenset(
    {
        "source",
        "setpoints",
        "folder",
        "model",
        "reactor_id",
        "run_id",
        "startup_days",
        "volume_L",
        "column_map",
        "poll_seconds",
        "patience_seconds",
        "initial_controls",
    }
)
_TABLES = frozenset({"twin", "run", "design_space", "alarms"})


def read_settings(what: Path) -> tuple[dict[str, Any], Path]:
    """Settings of a run and the folder its paths are relative to.

    Args:
        what: A TOML file, a folder with `twin.toml` or `config.toml`, or a sample file.

    Returns:
        Tables `twin`, `run`, `design_space` and `alarms`, and the folder.

    Raises:
        ConfigError: If nothing usable is there, or a key is unknown.
    """
    if what.is_dir():
        found = next((what / n for n in ("twin.toml", "config.toml") if (what / n).exists()), None)
        if found is None:
            raise ConfigError(f"{what} holds neither twin.toml nor config.toml.")
        what = found
    if not what.exists():
        raise ConfigError(f"{what} does not exist.")
    if what.suffix.lower() != ".toml":
        return {"twin": {"source": what.name}}, what.parent
    try:
        settings = tomllib.loads(what.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{what} is not valid TOML: {error}") from None
    unknown = sorted(set(settings) - _TABLES)
    if unknown:
        raise ConfigError(f"{what}: unknown tables {unknown}; allowed are {sorted(_TABLES)}.")
    for name, table in settings.items():
        if not isinstance(table, dict):
            raise ConfigError(f"{what}: {name} must be a table, [{name}].")
    wrong = sorted(set(settings.get("twin", {})) - _KEYS)
    if wrong:
        raise ConfigError(f"{what}: unknown keys {wrong} in [twin]; allowed are {sorted(_KEYS)}.")
    if "source" not in settings.get("twin", {}):
        raise ConfigError(f"{what}: [twin] needs source, the file with the samples.")
    return settings, what.parent


def run_twin(
    what: Path,
    *,
    days: int | None,
    allow_write: bool | None,
    patience_s: float | None,
    console: Any,
) -> None:
    """Run the twin until its days are over or somebody stops it.

    Args:
        what: See `read_settings`.
        days: Days in all [d]; the configuration's by default.
        allow_write: Beats the configuration.
        patience_s: How long to wait for a sample [s].
        console: Where to print.
    """
    settings, base = read_settings(what)
    table = settings["twin"]

    def place(name: str) -> Path | None:
        value = table.get(name)
        return None if value is None else base / str(value)

    source = place("source")
    if source is None or not source.exists():
        raise ConfigError(f"source {source} does not exist.")
    rest = {k: v for k, v in settings.items() if k != "twin"}
    parts = TwinConfig(**{"design_space": DEFAULT_AMBR250_DESIGN_SPACE, **rest})
    model_folder = place("model")
    hybrid = None if model_folder is None else load(model_folder)
    store = FilesystemStore(
        source,
        place("setpoints"),
        reactor_id=table.get("reactor_id"),
        column_map=place("column_map"),
    )
    if hybrid is None:
        console.print("no model is named: starting from the mechanistic model alone")
    with console.status("starting") as status:
        twin = DigitalTwin(
            store,
            hybrid,
            parts.design_space,
            notifier=AlarmNotifier.from_config(parts.alarms),
            log_dir=place("folder") or base,
            run_id=str(table.get("run_id", source.stem)),
            allow_write=allow_write,
            run_config=parts.run,
            reactor_id=str(table.get("reactor_id", "R00")),
            volume_L=float(table.get("volume_L", 0.25)),
            startup_days=int(table.get("startup_days", 0)),
            initial_controls=table.get("initial_controls"),
            poll_seconds=float(table.get("poll_seconds", 5.0)),
            patience_seconds=table.get("patience_seconds") if patience_s is None else patience_s,
            say=lambda text: status.update(text),
        )
        with twin:
            if not twin.allow_write:
                console.print("advising only: set-points are not written (--allow-write writes)")
            asyncio.run(_until_stopped(twin, days, console))
    console.print(f"records: {twin.log_dir}")


async def _until_stopped(twin: DigitalTwin, days: int | None, console: Any) -> None:
    loop = asyncio.get_running_loop()

    def ask() -> None:
        console.print("stopping after the present day")
        twin.stop()

    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, ask)
    try:
        await twin.run(days)
    finally:
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(name)
