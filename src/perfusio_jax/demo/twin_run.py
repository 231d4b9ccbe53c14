"""`perfusio-jax run`: the twin on a folder, a TOML file or a sample file."""

import asyncio
import contextlib
import getpass
import math
import signal
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax

from perfusio_jax._core import CONTROL_NAMES, ConfigError, ConnectorError, DataError, UnitError
from perfusio_jax._core.units import canonical_unit
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE, TwinConfig
from perfusio_jax.connectors import (
    BioreactorConnectorBase,
    FilesystemStore,
    OPCUAConnector,
    SQLStore,
)
from perfusio_jax.connectors.report import ReadReport
from perfusio_jax.hybrid import HybridStateSpaceModel, load
from perfusio_jax.mechanistic import DEFAULT_CONTROLS
from perfusio_jax.twin import AlarmNotifier, DigitalTwin, Fleet, refuse_secrets

_NUMBER = (int, float)
_KEYS: dict[str, tuple[tuple[type, ...], str]] = {
    "connector": ((str,), "file, sql or opcua"),
    "source": ((str,), "the file with the samples"),
    "url": ((str,), "the address of the database or server, without a password"),
    "node_map": ((str,), "a TOML file of node ids, see docs/opcua.md"),
    "username": ((str,), "the user at the server"),
    "cert_path": ((str,), "our certificate"),
    "private_key_path": ((str,), "its private key"),
    "server_cert_path": ((str,), "the server's certificate"),
    "allow_insecure": ((bool,), "true or false"),
    "acceleration": (_NUMBER, "culture time over real time, above 0"),
    "experiment": ((str,), "the name of the experiment in the database"),
    "reactors": ((list,), "names of vessels, each of them driven by itself"),
    "mode": ((str,), "frozen or adaptive"),
    "signing_key": ((str,), "a key file made by perfusio-jax keygen"),
    "approvals": ((list,), "one or two roles that must approve each write"),
    "approvers": ((dict,), "a table of names by role"),
    "on_missed": ((str,), "end or hold"),
    "require_age": ((bool,), "true or false"),
    "approval_seconds": (_NUMBER, "seconds, 0 or more"),
    "online_seconds": (_NUMBER, "seconds, 0 or more"),
    "clock_tolerance_s": (_NUMBER, "seconds, above 0"),
    "call_timeout_s": (_NUMBER, "seconds, above 0"),
    "compute_timeout_s": (_NUMBER, "seconds, above 0"),
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

_NEEDS = {"file": ("source",), "sql": ("url", "experiment"), "opcua": ("url", "node_map")}
"""Keys each connector needs."""

_OPTIONS = (
    "approvals",
    "approvers",
    "on_missed",
    "require_age",
    "approval_seconds",
    "online_seconds",
    "clock_tolerance_s",
    "call_timeout_s",
    "compute_timeout_s",
)
"""Keys that are settings of the loop."""

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
    try:
        refuse_secrets(settings)
    except ConfigError as error:
        raise ConfigError(f"{what}: {error}") from None
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
    kind = table.get("connector", "file")
    if kind not in _NEEDS:
        raise ConfigError(f"connector in [twin] is {kind!r}; allowed are {', '.join(_NEEDS)}.")
    for name in _NEEDS[kind]:
        if name not in table:
            raise ConfigError(f"[twin] needs {name}, {_KEYS[name][1]}.")
    for name, value in table.items():
        kinds, says = _KEYS[name]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise ConfigError(f"{name} in [twin] is {value!r}; it must be {says}.")
        if isinstance(value, _NUMBER) and not isinstance(value, bool):
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
    plan = read_plan(what)
    if plan.model is None:
        console.print("no model is named: starting from the mechanistic model alone")
    plan.announce(console)
    with jax.default_device(plan.device), console.status("starting") as status:

        def say(text: str) -> None:
            status.update(text)
            if not console.is_terminal or "recommends" in text:
                console.print(text, soft_wrap=True)

        with contextlib.ExitStack() as opened:
            twins = {}
            for name in plan.reactors:
                twins[name] = plan.twin(
                    name, allow_write=allow_write, patience_s=patience_s, say=say
                )
                opened.enter_context(twins[name])
            if not any(twin.allow_write for twin in twins.values()):
                console.print("advising only: set-points are not written (--allow-write writes)")
            asyncio.run(_until_stopped(twins, days, console))
    console.print(f"records: {plan.folder}")


@dataclass(frozen=True)
class RunPlan:
    """A configuration, read and checked: everything to build its twins from."""

    what: Path
    base: Path
    """Folder its paths are relative to."""
    table: Mapping[str, Any]
    """`[twin]`."""
    parts: TwinConfig
    device: Any
    model: HybridStateSpaceModel | None

    @property
    def reactors(self) -> tuple[str, ...]:
        """Vessels, in the order of the configuration."""
        return tuple(self.table.get("reactors") or [str(self.table.get("reactor_id", "R00"))])

    @property
    def folder(self) -> Path:
        """Where the records go; with several vessels each has a folder in it."""
        return self.place("folder") or self.base

    def folder_of(self, reactor_id: str) -> Path:
        """Run folder of one vessel."""
        return self.folder / reactor_id if "reactors" in self.table else self.folder

    def place(self, name: str) -> Path | None:
        """A path of `[twin]`."""
        value = self.table.get(name)
        return None if value is None else self.base / str(value)

    @property
    def run_id(self) -> str:
        """Name of the run."""
        source = self.place("source")
        return str(self.table.get("run_id", self.what.stem if source is None else source.stem))

    def connector(self, reactor_id: str, *, allow_write: bool = False) -> BioreactorConnectorBase:
        """The connector of one vessel.

        Raises:
            ConfigError: If a file it needs is not there.
        """
        table, kind = self.table, self.table.get("connector", "file")
        if kind == "sql":
            return SQLStore(str(table["url"]), str(table["experiment"]), reactor_id)
        if kind == "opcua":
            return OPCUAConnector(
                str(table["url"]),
                self.base / str(table["node_map"]),
                username=table.get("username"),
                cert_path=self.place("cert_path"),
                private_key_path=self.place("private_key_path"),
                server_cert_path=self.place("server_cert_path"),
                allow_write=allow_write,
                allow_insecure=bool(table.get("allow_insecure", False)),
                reactor_id=reactor_id,
                acceleration=float(table.get("acceleration", 1.0)),
            )
        source = self.base / str(table["source"])
        if not source.exists():
            raise ConfigError(f"source {source} does not exist.")
        if source.is_dir():
            raise ConfigError(f"source {source} is a folder; name the file with the samples.")
        setpoints = self.place("setpoints") or source.with_name("setpoints.csv")
        if setpoints.is_dir():
            raise ConfigError(f"setpoints {setpoints} is a folder; name a file for the set-points.")
        return FilesystemStore(
            source,
            setpoints,
            reactor_id=reactor_id if "reactors" in table else table.get("reactor_id"),
            run_id=table.get("run_id"),
            column_map=self.place("column_map"),
        )

    def announce(self, console: Any) -> None:
        """Say what is odd about a sample file before it is used."""
        store = self.connector(self.reactors[0])
        if not isinstance(store, FilesystemStore):
            return
        try:
            report = store.inspect()
        except UnitError as error:
            raise DataError(str(error)) from error
        for line in oddities(report):
            console.print(f"{store.source_path.name}: {line}", soft_wrap=True)

    def twin(
        self,
        reactor_id: str,
        *,
        allow_write: bool | None,
        patience_s: float | None,
        say: Callable[[str], None],
    ) -> DigitalTwin:
        """The twin of one vessel, holding its run folder."""
        table = self.table
        may_write = self.parts.run.allow_write if allow_write is None else allow_write
        is_real = table.get("connector", "file") != "file"
        options = {"require_age": is_real, "on_missed": "hold" if is_real else "end"}
        options |= {n: table[n] for n in _OPTIONS if n in table}
        options["approvals"] = tuple(options.get("approvals", ()))
        options["approvers"] = {r: tuple(v) for r, v in options.get("approvers", {}).items()}
        return DigitalTwin(
            self.connector(reactor_id, allow_write=may_write),
            self.model,
            self.parts.design_space,
            notifier=AlarmNotifier.from_config(self.parts.alarms),
            log_dir=self.folder_of(reactor_id),
            run_id=self.run_id,
            allow_write=allow_write,
            run_config=self.parts.run,
            reactor_id=reactor_id,
            volume_L=float(table.get("volume_L", 0.25)),
            startup_days=int(table.get("startup_days", 0)),
            initial_controls=table.get("initial_controls"),
            poll_seconds=float(table.get("poll_seconds", 5.0)),
            patience_seconds=table.get("patience_seconds") if patience_s is None else patience_s,
            user=str(_account()),
            say=say,
            mode=table.get("mode", "adaptive"),
            signing_key=self.place("signing_key"),
            options=options,
        )


def read_plan(what: Path) -> RunPlan:
    """Read and check a configuration; see `read_settings`.

    Raises:
        ConfigError: If it cannot be used.
    """
    settings, base = read_settings(what)
    rest = {k: v for k, v in settings.items() if k != "twin"}
    try:
        parts = TwinConfig(**{"design_space": DEFAULT_AMBR250_DESIGN_SPACE, **rest})
        device = parts.run.jax_device
    except ConfigError as error:
        raise type(error)(f"{what}: {error}") from None
    if parts.run.dtype != "float64":
        raise ConfigError(f"{what}: dtype in [run] is {parts.run.dtype}; the twin needs float64.")
    table = settings["twin"]
    plan = RunPlan(what, base, table, parts, device, None)
    plan.connector(plan.reactors[0])  # a source that is not there is found before the model
    folder = plan.place("model")
    return replace(plan, model=None if folder is None else load_model(folder))


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


async def _until_stopped(twins: Mapping[str, DigitalTwin], days: int | None, console: Any) -> None:
    loop = asyncio.get_running_loop()

    def ask() -> None:
        console.print("stopping: nothing more is written")
        for twin in twins.values():
            twin.stop()

    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, ask)
    try:
        if len(twins) == 1:
            await next(iter(twins.values())).run(days)
        else:
            await _run_several(twins, days, console)
    finally:
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(name)
        for twin in twins.values():
            close = getattr(twin.connector, "close", None)
            if close is not None:
                await close()


async def _run_several(twins: Mapping[str, DigitalTwin], days: int | None, console: Any) -> None:
    first = next(iter(twins.values()))
    fleet = Fleet(
        {name: twin.loop for name, twin in twins.items()}, runtime=first.runtime, say=console.print
    )
    total = first.config.duration_days if days is None else days
    fates = await fleet.run(total)
    for name, fate in fates.items():
        console.print(f"{name}: {fate.ending}{'; ' + fate.reason if fate.reason else ''}")
    bad = [f for f in fates.values() if f.ending not in ("completed", "stopped")]
    if bad:
        raise ConnectorError(f"{len(bad)} of {len(fates)} reactors did not come to their end.")


def _account() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "system"
