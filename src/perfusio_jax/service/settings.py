"""`twin.toml` and what may stand in it."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from perfusio_jax._core import CONTROL_NAMES, HOURS_PER_DAY, ConfigError
from perfusio_jax._core.hints import did_you_mean
from perfusio_jax._core.limits import read_toml
from perfusio_jax._core.plausible import unlikely
from perfusio_jax._core.units import canonical_unit
from perfusio_jax.twin import refuse_secrets
from perfusio_jax.twin.decision.cadence import KEY as INTERVAL
from perfusio_jax.twin.decision.cadence import Cadence
from perfusio_jax.twin.records.run_files import RECORD_NAMES

from .described_settings import check_described, process_of

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
    "server_cert_allow": ((list,), "a list of expired, not_yet_valid and foreign_host"),
    "security_policy": ((str,), "the policy spoken with certificates, see docs/opcua.md"),
    "stamp_means": ((str,), "measured, changed or read, see docs/opcua.md"),
    "allow_insecure": ((bool,), "true or false"),
    "acceleration": (_NUMBER, "culture time over real time, above 0"),
    "experiment": ((str,), "the name of the experiment in the database"),
    "archive": ((str,), "the address of a database for a copy of the audit trail"),
    "reactors": ((list,), "names of vessels, each of them driven by itself"),
    "mode": ((str,), "frozen or adaptive"),
    "signing_key": ((str,), "a key file made by perfusio-jax keygen"),
    "approvals": ((list,), "one or two roles that must approve each write"),
    "approvers": ((dict,), "a table of accounts by role"),
    "page_accounts": ((list,), "accounts of pages whose word on who signed in counts"),
    "on_missed": ((str,), "end or hold"),
    "require_age": ((bool,), "true or false"),
    "approval_seconds": (_NUMBER, "seconds, 0 or more"),
    "online_seconds": (_NUMBER, "seconds, 0 or more"),
    "line_seconds": (_NUMBER, "seconds, 0 or more"),
    "device_seconds": (_NUMBER, "seconds, 0 or more"),
    "clock_tolerance_s": (_NUMBER, "seconds, above 0"),
    "call_timeout_s": (_NUMBER, "seconds, above 0"),
    "compute_timeout_s": (_NUMBER, "seconds, above 0"),
    "setpoints": ((str,), "the file for set-points"),
    "folder": ((str,), "the folder for the records"),
    "model": ((str,), "the folder of a fitted model"),
    "reactor_id": ((str,), "the vessel, in quotes"),
    "run_id": ((str,), "the name of the run, in quotes; rows of other runs do not count"),
    "startup_days": ((int,), "a whole number of days, 0 or more"),
    "volume_L": (_NUMBER, "a volume in litres above 0, from 1e-6 (1 µL) to 1e6"),
    "column_map": ((str,), "a TOML file with a table [columns]"),
    "poll_seconds": (_NUMBER, "seconds, 0 or more"),
    "patience_seconds": (_NUMBER, "seconds, 0 or more"),
    "initial_controls": ((dict,), "a table of set-points by name"),
    "resolution": ((dict,), "a table of the device's steps by control"),
    "process": ((str,), "a file that describes the culture (.toml), or a built-in name"),
    "max_change": ((dict,), "a table of the largest change per day by control"),
    "clone_id": ((str,), "the clone of the run, in quotes"),
    "mechanism": ((str,), "the class of the model's own mechanism, as module:Class"),
    "posterior": ((str,), "the folder of a posterior of the mechanism's constants"),
    "accept_warnings": ((bool,), "true or false"),
}
"""Keys of `[twin]` with their types and what to write there."""

_NEEDS = {"file": ("source",), "sql": ("url", "experiment"), "opcua": ("url", "node_map")}
"""Keys each connector needs."""

_VOLUMES_L = (1e-6, 1e6)
"""From a droplet to the largest fermenter [L]."""
_ABOVE_ZERO = frozenset(
    {"acceleration", "clock_tolerance_s", "call_timeout_s", "compute_timeout_s"}
)
_LONGEST_TEXT = 1000
"""No path, address or name is longer."""
_LARGEST = 1e15
"""No number anybody means is larger; what is would not fit where numbers go."""

CONFIGS = ("twin.toml", "config.toml")
"""Names of a configuration in a folder, the first one first."""

_TABLES = frozenset({"twin", "run", "design_space", "alarms", "objective"})


def config_in(place: Path) -> Path | None:
    """The configuration at a place: itself, or the one in a folder; `None` without one."""
    if place.is_dir():
        return next((place / n for n in CONFIGS if (place / n).exists()), None)
    return place if place.suffix.lower() == ".toml" else None


def folders_of(table: Mapping[str, Any], base: Path) -> dict[str, Path]:
    """Run folder of each vessel of `[twin]`, in its order.

    Args:
        table: `[twin]`.
        base: Folder its paths are relative to.
    """
    folder = base / str(table.get("folder", "."))
    if table.get("reactors"):
        return {str(name): folder / str(name) for name in table["reactors"]}
    return {str(table.get("reactor_id", "R00")): folder}


def archive_of(table: Mapping[str, Any]) -> tuple[str, str] | None:
    """Url and experiment of the database with a copy of the audit trail, if there is one."""
    url = table.get("url") if table.get("connector") == "sql" else table.get("archive")
    return None if url is None else (str(url), str(table.get("experiment", "")))


def read_settings(what: Path) -> tuple[dict[str, Any], Path]:
    """Settings of a run and the folder its paths are relative to.

    Args:
        what: A TOML file, a folder with `twin.toml` or `config.toml`, or a sample file.

    Returns:
        Tables `twin`, `run`, `alarms`, and `design_space` or, of a described culture, `objective`;
        and the folder.

    Raises:
        ConfigError: If nothing usable is there, or a key is unknown.
    """
    if what.is_dir():
        found = config_in(what)
        if found is None:
            raise ConfigError(f"{what} holds neither {' nor '.join(CONFIGS)}.")
        what = found
    if not what.exists():
        raise ConfigError(f"{what} does not exist.")
    if what.suffix.lower() != ".toml":
        return {"twin": {"source": what.name}}, what.parent
    settings = read_toml(what)
    try:
        refuse_secrets(settings)
    except ConfigError as error:
        raise ConfigError(f"{what}: {error}") from None
    unknown = sorted(set(settings) - _TABLES)
    if unknown:
        raise ConfigError(
            f"{what}: unknown tables {unknown}{did_you_mean(unknown, _TABLES)}; "
            f"allowed are {sorted(_TABLES)}."
        )
    for name, table in settings.items():
        if not isinstance(table, dict):
            raise ConfigError(f"{what}: {name} must be a table, [{name}].")
    try:
        table = settings.get("twin", {})
        _check_keys(table)
        check_described(settings)
        process = process_of(table, what.parent)
        _check_twin_table(table, CONTROL_NAMES if process is None else process.control_names)
        _check_interval(settings.get("run", {}))
        _check_places(settings, what)
    except ConfigError as error:
        raise ConfigError(f"{what}: {error}") from None
    return settings, what.parent


def _check_keys(table: Mapping[str, Any]) -> None:
    """Refuse keys nobody knows and values of the wrong kind, before anything starts."""
    wrong = sorted(set(table) - set(_KEYS))
    if wrong:
        raise ConfigError(
            f"unknown keys {wrong} in [twin]{did_you_mean(wrong, _KEYS)}; "
            f"allowed are {sorted(_KEYS)}."
        )
    for name, value in table.items():
        if not _is_of_kind(name, value):
            raise ConfigError(f"{name} in [twin] is {_shown(value)}; it must be {_KEYS[name][1]}.")


def _check_twin_table(table: Mapping[str, Any], known: Sequence[str]) -> None:
    """Refuse connectors, names and numbers that mean nothing; `known` are the controls."""
    kind = table.get("connector", "file")
    if kind not in _NEEDS:
        raise ConfigError(
            f"connector in [twin] is {_shown(kind)}; allowed are {', '.join(_NEEDS)}."
        )
    for name in _NEEDS[kind]:
        if name not in table:
            raise ConfigError(f"[twin] needs {name}, {_KEYS[name][1]}.")
    if "archive" in table and (kind == "sql" or "experiment" not in table):
        raise ConfigError(
            "archive in [twin] needs experiment, "
            f"{_KEYS['experiment'][1]}; with connector = 'sql' the copy is there already."
        )
    _check_names(table)
    is_ours = "process" not in table
    if is_ours:
        _check_steps(table.get("resolution", {}))
    for what in ("initial_controls", "resolution", "max_change"):
        controls = table.get(what, {})
        unknown = [name for name in controls if name not in known]
        if unknown:
            raise ConfigError(
                f"{what} names unknown controls {unknown}"
                f"{did_you_mean(unknown, known)}; allowed are {list(known)}."
            )
    for name, value in table.get("initial_controls", {}).items() if is_ours else ():
        _check_number(name, value, "initial_controls")


def _check_interval(run: Mapping[str, Any]) -> None:
    """Refuse a time between samples that no run has; commands that only look need no more."""
    hours = run.get(INTERVAL, HOURS_PER_DAY)
    if not isinstance(hours, _NUMBER) or isinstance(hours, bool):
        raise ConfigError(f"{INTERVAL} in [run] is {_shown(hours)}; it must be a number of hours.")
    Cadence(float(hours))


_READ = (
    "source",
    "node_map",
    "column_map",
    "model",
    "posterior",
    "cert_path",
    "private_key_path",
    "server_cert_path",
    "signing_key",
)
"""Keys of files that are read."""


def _check_places(settings: Mapping[str, Any], what: Path) -> None:
    """Refuse to write into a record of a run, or into a file that is read."""
    table, base = settings.get("twin", {}), what.parent
    alarm_file = settings.get("alarms", {}).get("alarm_file")
    written = {"setpoints": table.get("setpoints"), "alarm_file": alarm_file}
    written = {n: _place(base, v) for n, v in written.items() if isinstance(v, str) and v}
    read = {name: _place(base, str(table[name])) for name in _READ if name in table}
    if str(table.get("process", "")).endswith(".toml"):
        read["process"] = _place(base, str(table["process"]))
    read["the configuration"] = what.resolve()
    for name in ("url", "archive"):
        url = str(table.get(name, ""))
        if url.startswith("sqlite") and Path(url).name.lower() in RECORD_NAMES:
            raise ConfigError(f"{name} is a record of the run; name a database of its own.")
    for name, place in written.items():
        if place.name.lower() in RECORD_NAMES:
            raise ConfigError(
                f"{name} is {_shown(place.name)}, the name of a record of the run, which nothing "
                "else may write to; name another file."
            )
        taken = next((n for n, other in read.items() if other == place), None)
        taken = taken or next((n for n in written if n != name and written[n] == place), None)
        if taken is not None:
            raise ConfigError(
                f"{name} is {_shown(place.name)}, the same file as {taken}; name another."
            )


def _place(base: Path, text: str) -> Path:
    """Where a path of a configuration leads."""
    try:
        return (base / text).resolve()
    except (OSError, ValueError, RuntimeError) as error:  # too long, or a circle of links
        raise ConfigError(f"{_shown(text)} names no place: {error}") from None


def _is_of_kind(name: str, value: Any) -> bool:
    kinds, _ = _KEYS[name]
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        return False
    if isinstance(value, str):
        return bool(value.strip()) and value.isprintable() and len(value) <= _LONGEST_TEXT
    if name == "volume_L":
        return _VOLUMES_L[0] <= value <= _VOLUMES_L[1]
    if isinstance(value, _NUMBER) and not isinstance(value, bool):
        return (value > 0 if name in _ABOVE_ZERO else value >= 0) and value <= _LARGEST
    return True


def _check_names(table: Mapping[str, Any]) -> None:
    """Names of vessels and people: text, each once, and fit to name a folder."""
    names = table.get("reactors")
    for name in names or ():
        if not isinstance(name, str) or not re.fullmatch(r"[\w-][\w.-]{0,63}", name):
            raise ConfigError(
                f"{_shown(name)} in [twin] names no vessel: its records lie in a folder of that "
                "name, so letters, digits, '_', '-' and '.' are allowed, up to 64."
            )
    if names is not None and (not names or len({n.lower() for n in names}) != len(names)):
        raise ConfigError(
            f"reactors in [twin] is {_shown(names)}; it must name vessels, each once."
        )
    if not all(isinstance(role, str) and role.strip() for role in table.get("approvals", [])):
        raise ConfigError(f"approvals in [twin] must be {_KEYS['approvals'][1]}, in quotes.")
    pages = table.get("page_accounts", [])
    if not all(isinstance(name, str) and name.strip() for name in pages):
        raise ConfigError(
            f"page_accounts in [twin] must be {_KEYS['page_accounts'][1]}, in quotes."
        )
    for role, people in table.get("approvers", {}).items():
        is_list = isinstance(people, list) and people
        if not is_list or not all(isinstance(name, str) and name.strip() for name in people):
            raise ConfigError(
                f"approvers in [twin] has {_shown(people)} for {_shown(role)}; a list of names in "
                "quotes is needed."
            )


def _check_steps(steps: Mapping[str, Any]) -> None:
    """Steps of a device: of controls, each above zero."""
    for name, step in steps.items():
        if name not in CONTROL_NAMES:
            raise ConfigError(
                f"resolution in [twin] names {_shown(name)}; allowed are {list(CONTROL_NAMES)}."
            )
        is_number = isinstance(step, _NUMBER) and not isinstance(step, bool)
        if not is_number or not 0.0 < step <= _LARGEST:
            raise ConfigError(
                f"resolution in [twin] has {_shown(step)} for {name}; a step above 0 "
                f"{canonical_unit(name)} is needed."
            )


def _shown(value: Any) -> str:
    """A value as it was given, not longer than a line."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def check_setpoints(
    setpoints: Mapping[str, Any],
    where: str,
    allowed: Mapping[str, tuple[float, float]] | None = None,
) -> None:
    """Refuse set-points no reactor can have.

    Args:
        setpoints: Value per control.
        where: What to call them in a message.
        allowed: Bounds of the design space by control; without them, as for a question of what
            would be, nothing is too unlikely.

    Raises:
        ConfigError: If one is not a finite number of at least 0, lies beyond what any vessel is
            run at, or the bleed exceeds the perfusion.
    """
    for name, value in setpoints.items():
        _check_number(name, value, where)
        why = "" if allowed is None else unlikely(name, float(value), allowed.get(name))
        if why:
            raise ConfigError(
                f"{where}: {name} is {_shown(value)} {canonical_unit(name)}, {why} Where a vessel "
                "is really run there, widen control_bounds of the design space."
            )
    bleed, perfusion = setpoints["bleed_rate"], setpoints["perfusion_rate"]
    if bleed > perfusion:
        raise ConfigError(
            f"{where}: bleed above perfusion, {bleed:g} against {perfusion:g} vvd; what is bled "
            "must be fed, so the bleed may not exceed the perfusion."
        )


def _check_number(name: str, value: Any, where: str) -> None:
    is_number = isinstance(value, _NUMBER) and not isinstance(value, bool)
    if not is_number or not 0.0 <= value <= _LARGEST:
        raise ConfigError(
            f"{where}: {name} is {_shown(value)}; a finite number of at least 0 "
            f"{canonical_unit(name)} is needed."
        )
