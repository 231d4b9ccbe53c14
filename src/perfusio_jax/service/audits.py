"""`perfusio-jax verify-audit`: the audit trails of a run, and their copies in a database."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from perfusio_jax._core import ConfigError, PerfusioError
from perfusio_jax._core.limits import RECORD_BYTES, read_file
from perfusio_jax.twin import AuditReport, verify_audit
from perfusio_jax.twin.records.chain import records
from perfusio_jax.twin.records.trail_files import LOG_NAME

from .fleet_file import fleet_of
from .settings import archive_of, config_in, folders_of, read_settings


@dataclass(frozen=True)
class Verified:
    """One audit trail and what was found."""

    folder: Path
    """Run folder."""
    report: AuditReport
    copy: str = ""
    """How the copy in the database stands; empty where the run has none."""


def verify_run(where: Path, *, trusted: Collection[str] | None = None) -> list[Verified]:
    """Verify every audit trail of a place.

    The file is judged. Where a configuration names a database with a copy, the copy is
    compared with it and what differs is said; it changes no verdict.

    Args:
        where: `audit.jsonl`, a run folder, a folder above several, `twin.toml`, or a fleet.
        trusted: Public keys [hexadecimal] of which one must have signed each head.

    Returns:
        One result per trail.

    Raises:
        AuditError: If a trail is there and cannot be read.
        ConfigError: If the configuration cannot be used.
    """
    runs = fleet_of(where)
    if runs is not None:
        return [found for run in runs for found in verify_run(run, trusted=trusted)]
    config = config_in(where)
    if config is None or (where.is_dir() and not _is_of_a_twin(config)):
        below = sorted(p.parent for p in where.glob(f"*/{LOG_NAME}")) if where.is_dir() else []
        folders = below if below and not (where / LOG_NAME).exists() else [where]
        return [Verified(f, verify_audit(f, trusted=trusted)) for f in folders]
    settings, base = read_settings(config)
    found = []
    for reactor_id, folder in folders_of(settings["twin"], base).items():
        report = verify_audit(folder, trusted=trusted)
        target = archive_of(settings["twin"])
        copy = _compare(folder, *target, reactor_id) if target and report.is_intact else ""
        found.append(Verified(folder, report, copy))
    return found


def _is_of_a_twin(config: Path) -> bool:
    """Whether a configuration in a folder is one `perfusio-jax run` takes.

    Other programs leave a `config.toml` too; what they recorded is verified all the same.
    """
    try:
        return bool(read_settings(config)[0].get("twin"))
    except ConfigError:
        return False


def _compare(folder: Path, url: str, experiment: str, reactor_id: str) -> str:
    from perfusio_jax.connectors import SQLStore

    log = list(records(read_file(folder / LOG_NAME, most=RECORD_BYTES)))
    run_id = str(log[0]["run_id"]) if log else ""
    try:
        store = SQLStore(url, experiment, reactor_id)
        try:
            return f"copy in {store.database.where}: {store.compare_audit(run_id, log)}"
        finally:
            store.database.close()
    except PerfusioError as error:
        return f"copy: it cannot be looked at: {error}"
