"""From a configuration to the twins it asks for."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perfusio_jax import connectors
from perfusio_jax._core import DEFAULT_CONTROLS, ConfigError, ConnectorError, DataError, UnitError
from perfusio_jax._core.text import shown_unit
from perfusio_jax._core.units import canonical_unit
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE, TwinConfig
from perfusio_jax.hybrid import HybridStateSpaceModel
from perfusio_jax.process import Process
from perfusio_jax.twin import AlarmNotifier, DigitalTwin, GateLimits
from perfusio_jax.twin.alarms.events import Draws
from perfusio_jax.twin.decision.cadence import Cadence
from perfusio_jax.twin.records.accounts import account

from .described_plan import DescribedPlan, check_model, described_plan
from .described_settings import process_of
from .fleet_file import fleet_of
from .posterior_draws import posterior_of_twin
from .saved_model import load_model
from .settings import archive_of, check_setpoints, folders_of, read_settings

if TYPE_CHECKING:
    from perfusio_jax.connectors import BioreactorConnectorBase, SQLStore
    from perfusio_jax.study import PosteriorMechanisms

_OPTIONS = (
    "approvals",
    "approvers",
    "page_accounts",
    "on_missed",
    "require_age",
    "approval_seconds",
    "online_seconds",
    "line_seconds",
    "device_seconds",
    "clock_tolerance_s",
    "call_timeout_s",
    "compute_timeout_s",
)
"""Keys that are settings of the loop."""


Pictures = Callable[[Path, str], Draws]
"""Makes what draws the alarms of a vessel, from its run folder and name."""


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
    culture: DescribedPlan | None = None
    """The culture, where it is a described one."""
    posterior: "PosteriorMechanisms | None" = None
    """Draws of its mechanism's constants, where it is decided under them."""

    @property
    def initial_controls(self) -> dict[str, float]:
        """Set-points in force until something else is known."""
        if self.culture is not None:
            return self.culture.initial_controls
        return {**DEFAULT_CONTROLS, **self.table.get("initial_controls", {})}

    @property
    def process(self) -> Process | None:
        """The culture, where it is a described one."""
        return None if self.culture is None else self.culture.process

    @property
    def reactors(self) -> tuple[str, ...]:
        """Vessels, in the order of the configuration."""
        return tuple(folders_of(self.table, self.base))

    @property
    def folder(self) -> Path:
        """Where the records go; with several vessels each has a folder in it."""
        return self.place("folder") or self.base

    def folder_of(self, reactor_id: str) -> Path:
        """Run folder of one vessel."""
        return folders_of(self.table, self.base)[reactor_id]

    def place(self, name: str) -> Path | None:
        """A path of `[twin]`."""
        value = self.table.get(name)
        return None if value is None else self.base / str(value)

    @property
    def run_id(self) -> str:
        """Name of the run."""
        source = self.place("source")
        return str(self.table.get("run_id", self.what.stem if source is None else source.stem))

    @property
    def device_steps(self) -> dict[str, float]:
        """Steps of the device's set-points, as far as a person tells them."""
        return {n: float(step) for n, step in self.table.get("resolution", {}).items()}

    def connector(self, reactor_id: str, *, allow_write: bool = False) -> "BioreactorConnectorBase":
        """The connector of one vessel.

        Raises:
            ConfigError: If a file it needs is not there.
        """
        table, kind = self.table, self.table.get("connector", "file")
        if kind == "sql":
            where = (str(table["url"]), str(table["experiment"]), reactor_id)
            return connectors.SQLStore(*where, process=self.process)
        if kind == "opcua":
            return connectors.OPCUAConnector(
                str(table["url"]),
                self.base / str(table["node_map"]),
                username=table.get("username"),
                cert_path=self.place("cert_path"),
                private_key_path=self.place("private_key_path"),
                server_cert_path=self.place("server_cert_path"),
                server_cert_allow=table.get("server_cert_allow", ()),
                security_policy=str(table.get("security_policy", "Basic256Sha256")),
                stamp_means=str(table.get("stamp_means", "measured")),
                allow_write=allow_write,
                allow_insecure=bool(table.get("allow_insecure", False)),
                reactor_id=reactor_id,
                acceleration=float(table.get("acceleration", 1.0)),
                process=self.process,
            )
        source = self.base / str(table["source"])
        if not source.exists():
            raise ConfigError(f"source {source} does not exist.")
        if source.is_dir():
            raise ConfigError(f"source {source} is a folder; name the file with the samples.")
        setpoints = self.place("setpoints") or source.with_name("setpoints.csv")
        if setpoints.is_dir():
            raise ConfigError(f"setpoints {setpoints} is a folder; name a file for the set-points.")
        return connectors.FilesystemStore(
            source,
            setpoints,
            reactor_id=reactor_id if "reactors" in table else table.get("reactor_id"),
            run_id=table.get("run_id"),
            column_map=self.place("column_map"),
            process=self.process,
        )

    def archive(self, reactor_id: str) -> "SQLStore | None":
        """The database for a copy of the audit trail, if one is named beside the connector."""
        target = archive_of(self.table)
        if target is None or self.table.get("connector") == "sql":
            return None
        return connectors.SQLStore(*target, reactor_id)

    def announce(self, console: Any) -> None:
        """Say what is odd about posterior and sample file before they are used.

        Raises:
            ConfigError: If a database or a device has a vessel of another culture.
        """
        if self.posterior is not None:
            for line in (*self.posterior.told, f"posterior: {self.posterior.note}"):
                console.print(line, soft_wrap=True)
        store = self.connector(self.reactors[0])
        if isinstance(store, connectors.SQLStore):
            self._check_database(store)
        if isinstance(store, connectors.OPCUAConnector) and self.culture is not None:
            asyncio.run(self._check_servers())
        self._announce_probes(console, is_read=not isinstance(store, connectors.FilesystemStore))
        if not isinstance(store, connectors.FilesystemStore):
            return
        try:
            report = store.inspect()
        except UnitError as error:
            raise DataError(str(error)) from error
        for line in report.oddities:
            console.print(f"{store.source_path.name}: {line}", soft_wrap=True)
        told = {c.name for c in report.columns if c.n_values} | set(
            self.table.get("initial_controls", {})
        )
        assumed = {n: v for n, v in self.initial_controls.items() if n not in told}
        if assumed:
            listed = ", ".join(f"{n} {v:g} {shown_unit(self._unit(n))}" for n, v in assumed.items())
            console.print(
                f"assumed to be in force until set-points are written: {listed}; neither the file "
                "nor initial_controls in [twin] tells",
                soft_wrap=True,
            )

    def _announce_probes(self, console: Any, *, is_read: bool) -> None:
        """Say of what probes read that nobody looks at it between samples."""
        online = () if self.culture is None else self.culture.process.online
        if not online or (is_read and self.table.get("online_seconds")):
            return
        why = "online_seconds in [twin] is 0" if is_read else "a file of samples has samples only"
        console.print(f"{', '.join(online)}: not read between samples; {why}", soft_wrap=True)

    def _check_database(self, store: "SQLStore") -> None:
        with closing(store.database):
            try:
                for name in self.reactors:
                    store.for_reactor(name).check_culture()
            except ConnectorError:
                return  # it is waited for, and refuses then

    async def _check_servers(self) -> None:
        async def look(name: str) -> None:
            connector = self.connector(name)
            if not isinstance(connector, connectors.OPCUAConnector):
                return
            connector.sample_every(self.parts.run.sampling_interval_hours)
            try:
                await connector.check_culture()
            except ConnectorError:
                return  # it is waited for, and refuses then
            finally:
                await connector.close()

        await asyncio.gather(*map(look, self.reactors))

    def _unit(self, control: str) -> str:
        if self.culture is not None:
            return self.culture.process.control(control).unit
        return canonical_unit(control)

    def notifier(self, draws: Draws | None = None) -> AlarmNotifier:
        """Alarms of one vessel.

        Args:
            draws: Draws what an alarm is about, for channels that take a picture.
        """
        if self.culture is None or self.model is None:
            alarms = self.parts.alarms
            if alarms.alarm_file is not None:  # beside the configuration, as every path in it
                place = self.base / alarms.alarm_file
                alarms = alarms.model_copy(update={"alarm_file": place})
            return AlarmNotifier.from_config(alarms, draws=draws)
        return self.culture.notifier(self.model.layout, self.base, draws)

    def twin(
        self,
        reactor_id: str,
        *,
        allow_write: bool | None,
        patience_s: float | None,
        say: Callable[[str], None],
        pictures: Pictures | None = None,
    ) -> DigitalTwin:
        """The twin of one vessel, holding its run folder."""
        table = self.table
        may_write = self.parts.run.allow_write if allow_write is None else allow_write
        draws = None if pictures is None else pictures(self.folder_of(reactor_id), reactor_id)
        is_real = table.get("connector", "file") != "file"
        options = {"require_age": is_real, "on_missed": "hold" if is_real else "end"}
        options |= {n: table[n] for n in _OPTIONS if n in table}
        for name in ("approvals", "page_accounts"):
            options[name] = tuple(options.get(name, ()))
        options["approvers"] = {r: tuple(v) for r, v in options.get("approvers", {}).items()}
        own: dict[str, Any] = {"design_space": self.parts.design_space}
        if self.culture is not None:
            own = {
                "objective": self.culture.objective,
                "max_change": self.culture.max_change,
                "clone_id": self.culture.clone_id,
                "posterior": self.posterior,
            }
        return DigitalTwin(
            self.connector(reactor_id, allow_write=may_write),
            self.model,
            **own,
            notifier=self.notifier(draws),
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
            user=account(),
            say=say,
            mode=table.get("mode", "adaptive"),
            signing_key=self.place("signing_key"),
            options=options,
            archive=self.archive(reactor_id),
            device_steps=self.device_steps,
        )


def read_plan(what: Path) -> RunPlan:
    """Read and check a configuration; see `read_settings`.

    Raises:
        ConfigError: If it cannot be used.
    """
    settings, base = read_settings(what)
    process = process_of(settings["twin"], base)
    left_out = ("twin",) if process is None else ("twin", "objective", "alarms")
    rest = {k: v for k, v in settings.items() if k not in left_out}
    try:
        parts = TwinConfig(**{"design_space": DEFAULT_AMBR250_DESIGN_SPACE, **rest})
        device = parts.run.jax_device
    except ConfigError as error:
        raise type(error)(f"{what}: {error}") from None
    if parts.run.dtype != "float64":
        raise ConfigError(f"{what}: dtype in [run] is {parts.run.dtype}; the twin needs float64.")
    table = settings["twin"]
    plan = RunPlan(what, base, table, parts, device, None)
    if process is not None:
        return _described(plan, settings, process)
    try:
        GateLimits.from_design_space(parts.design_space, device_steps=plan.device_steps)
        Cadence(parts.run.sampling_interval_hours)
        bounds = {n: (b.lo, b.hi) for n, b in parts.design_space.control_bounds.items()}
        initial = {**DEFAULT_CONTROLS, **table.get("initial_controls", {})}
        check_setpoints(initial, "initial_controls", bounds)
    except ConfigError as error:
        raise ConfigError(f"{what}: {error}") from None
    plan.connector(plan.reactors[0])  # a source that is not there is found before the model
    folder = plan.place("model")
    model = None if folder is None else load_model(folder)
    if model is not None and model.layout.process is not None:
        raise ConfigError(
            f"{what}: the model is of process {model.layout.process.name}; name it with process "
            "in [twin], and what is wanted in [objective]."
        )
    return replace(plan, model=model)


def plans_of(what: Path) -> list[RunPlan]:
    """Plans of the runs of a fleet, or of the one run that `what` configures.

    Raises:
        ConfigError: If one cannot be used, two have a vessel of one name, or they are computed on
            different devices.
    """
    configs = fleet_of(what)
    if configs is None:
        return [read_plan(what)]
    plans = [read_plan(config) for config in configs]
    whose: dict[str, Path] = {}
    for plan in plans:
        for name in plan.reactors:
            if name in whose:
                raise ConfigError(
                    f"{whose[name]} and {plan.what} both have a vessel {name}; name them apart "
                    "(reactor_id, or reactors, in [twin])."
                )
            whose[name] = plan.what
    if len({str(plan.device) for plan in plans}) > 1:
        raise ConfigError(f"the runs of {what} name several devices in [run]; name one.")
    return plans


def _described(plan: RunPlan, settings: Mapping[str, Any], process: Process) -> RunPlan:
    """The plan of a described culture, with its model and objective checked."""
    try:
        culture = described_plan(settings, process)
        culture.limits(plan.parts.run)
        plan = replace(plan, culture=culture)
        plan.connector(plan.reactors[0])  # a source that is not there is found before the model
        model = load_model(plan.base / str(plan.table["model"]), plan.table.get("mechanism"))
        check_model(process, model, str(plan.table["process"]))
        culture.brain(model, plan.parts.run, run_id=plan.run_id, mode="frozen")
        culture.notifier(model.layout, plan.base)
        run = plan.parts.run
        posterior = posterior_of_twin(
            plan.table,
            plan.base,
            model,
            process,
            n_paths=run.n_mc_samples,
            seed=run.seed or 0,
        )
    except ConfigError as error:
        raise ConfigError(f"{plan.what}: {error}") from None
    return replace(plan, model=model, posterior=posterior)
