"""`perfusio-jax run`: the twin on a folder, a TOML file or a sample file."""

import asyncio
import math
import signal
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from perfusio_jax._core import CONTROL_NAMES, ConfigError, DataError, UnitError
from perfusio_jax._core.units import canonical_unit
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE, TwinConfig
from perfusio_jax.connectors import FilesystemStore
from perfusio_jax.connectors.report import ReadReport
from perfusio_jax.hybrid import HybridStateSpaceModel, load
from perfusio_jax.mechanistic import DEFAULT_CONTROLS
from perfusio_jax.twin import AlarmNotifier, DigitalTwin

_NUMBER = (int, float)
_KEYS: dict[str, tuple[tuple[type, ...], str]] = {
    "source": ((str,), "the file with the samples"),
    "setpoints": ((str,), "the file for set-points"),
    "folder": ((str,), "the folder for the records"),
    "model": ((str,), "the folder of a fitted model"),
    "reactor_id": ((str,), "the vessel, in quotes"),
    "run_id": ((str,), "the name of the run, in quotes; rows of other runs do not count"),
    "startup_days": ((int,), "a whole number of days, 0 or more"),
    "volume_L": (_NUMBER, "a volume in litres above 0"),
    "column_map": ((str,), "a TOML file with a table [columns]"),
    "poll_seconds": (_NUMBER, "seconds, 0 or more"),
    "patience_seconds": (_NUMBER, "seconds, 0 or more"),
    "initial_controls": ((dict,), "a table of set-points by name"),
}
"""Keys of `[twin]` with their types and what to write there."""

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
    try:
        _check_twin_table(settings.get("twin", {}))
    except ConfigError as error:
        raise ConfigError(f"{what}: {error}") from None
    return settings, what.parent


def _check_twin_table(table: Mapping[str, Any]) -> None:
    """Refuse keys nobody knows and values of the wrong kind, before anything starts."""
    wrong = sorted(set(table) - set(_KEYS))
    if wrong:
        raise ConfigError(f"unknown keys {wrong} in [twin]; allowed are {sorted(_KEYS)}.")
    if "source" not in table:
        raise ConfigError("[twin] needs source, the file with the samples.")
    for name, value in table.items():
        kinds, says = _KEYS[name]
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise ConfigError(f"{name} in [twin] is {value!r}; it must be {says}.")
        if isinstance(value, _NUMBER):
            is_small = value <= 0 if name == "volume_L" else value < 0
            if is_small or not math.isfinite(value):
                raise ConfigError(f"{name} in [twin] is {value!r}; it must be {says}.")
    controls = table.get("initial_controls", {})
    unknown = [name for name in controls if name not in CONTROL_NAMES]
    if unknown:
        raise ConfigError(
            f"initial_controls names unknown controls {unknown}; allowed are {list(CONTROL_NAMES)}."
        )
    check_setpoints({**DEFAULT_CONTROLS, **controls}, "initial_controls")


def check_setpoints(setpoints: Mapping[str, Any], where: str) -> None:
    """Refuse set-points no reactor can have.

    Args:
        setpoints: Value per control.
        where: What to call them in a message.

    Raises:
        ConfigError: If one is not a finite number of at least 0, or the bleed exceeds the
            perfusion.
    """
    for name, value in setpoints.items():
        is_number = isinstance(value, _NUMBER) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or value < 0.0:
            raise ConfigError(
                f"{where}: {name} is {value!r}; a finite number of at least 0 "
                f"{canonical_unit(name)} is needed."
            )
    bleed, perfusion = setpoints["bleed_rate"], setpoints["perfusion_rate"]
    if bleed > perfusion:
        raise ConfigError(
            f"{where}: bleed above perfusion, {bleed:g} against {perfusion:g} vvd; what is bled "
            "must be fed, so the bleed may not exceed the perfusion."
        )


def load_model(folder: Path) -> HybridStateSpaceModel:
    """A saved model.

    Raises:
        ConfigError: If it is not a folder.
        DataError: If what it holds is not a saved model.
    """
    if not folder.exists():
        raise ConfigError(f"model {folder} does not exist; perfusio-jax fit makes one.")
    if not folder.is_dir():
        raise ConfigError(f"model {folder} is a file; name the folder of a fitted model.")
    return load(folder)


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
    if source.is_dir():
        raise ConfigError(f"source {source} is a folder; name the file with the samples.")
    setpoints = place("setpoints") or source.with_name("setpoints.csv")
    if setpoints.is_dir():
        raise ConfigError(f"setpoints {setpoints} is a folder; name a file for the set-points.")
    rest = {k: v for k, v in settings.items() if k != "twin"}
    try:
        parts = TwinConfig(**{"design_space": DEFAULT_AMBR250_DESIGN_SPACE, **rest})
        device = parts.run.jax_device
    except ConfigError as error:
        raise type(error)(f"{what}: {error}") from None
    if parts.run.dtype != "float64":
        raise ConfigError(f"{what}: dtype in [run] is {parts.run.dtype}; the twin needs float64.")
    model_folder = place("model")
    hybrid = None if model_folder is None else load_model(model_folder)
    store = FilesystemStore(
        source,
        setpoints,
        reactor_id=table.get("reactor_id"),
        run_id=table.get("run_id"),
        column_map=place("column_map"),
    )
    if hybrid is None:
        console.print("no model is named: starting from the mechanistic model alone")
    try:
        report = store.inspect()
    except UnitError as error:
        raise DataError(str(error)) from error
    for line in oddities(report):
        console.print(f"{source.name}: {line}", soft_wrap=True)

    with jax.default_device(device), console.status("starting") as status:

        def say(text: str) -> None:
            status.update(text)
            if not console.is_terminal or "recommends" in text:
                console.print(text, soft_wrap=True)

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
            say=say,
        )
        with twin:
            if not twin.allow_write:
                console.print("advising only: set-points are not written (--allow-write writes)")
            asyncio.run(_until_stopped(twin, days, console))
    console.print(f"records: {twin.log_dir}")


def oddities(report: ReadReport) -> list[str]:
    """What was not taken from a sample file as it stood, one sentence each."""
    lines = [note for note in report.notes if not note.endswith("as a row of units")]
    for column in report.columns:
        if column.role == "unknown":
            lines.append(f"column '{column.label}' is not known and not read. {column.remark}")
        elif column.remark == "no value in any row":
            lines.append(f"{column.name} has no value in any row")
        elif column.unit and column.canonical_unit and column.unit != column.canonical_unit:
            lines.append(f"{column.name} converted from {column.unit} to {column.canonical_unit}")
    return [line.strip() for line in lines]


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
