"""The twin: a pure decision and a pure gate, with everything effectful around them.

Loaded on first use, so that a connector that writes a file does not import a model.
"""

import importlib
from typing import TYPE_CHECKING, Any

_FACES = {
    "AlarmEvent": "notifications",
    "AlarmNotifier": "notifications",
    "AuditLogger": "audit",
    "AuditReport": "chain",
    "DEFAULT_RESOLUTION": "gate",
    "DailyScheduler": "scheduler",
    "DispatchReport": "notifications",
    "Decision": "step",
    "DigitalTwin": "digital_twin",
    "FileLock": "lock",
    "GateLimits": "gate",
    "GateRequest": "gate",
    "GateVerdict": "gate",
    "Journal": "journal",
    "JournalError": "entries",
    "RunLock": "lock",
    "Settlement": "entries",
    "Stage": "entries",
    "Stored": "entries",
    "append_durably": "files",
    "decide": "step",
    "digest": "step",
    "estimate": "step",
    "forecast": "step",
    "forecast_paths": "step",
    "history_from_records": "step",
    "gate": "gate",
    "neutralise": "files",
    "operator_edits": "gate",
    "replace_durably": "files",
    "sha256_of": "audit",
    "verify_audit": "audit",
}

if TYPE_CHECKING:
    from .audit import AuditLogger as AuditLogger
    from .audit import sha256_of as sha256_of
    from .audit import verify_audit as verify_audit
    from .chain import AuditReport as AuditReport
    from .digital_twin import DigitalTwin as DigitalTwin
    from .entries import JournalError as JournalError
    from .entries import Settlement as Settlement
    from .entries import Stage as Stage
    from .entries import Stored as Stored
    from .files import append_durably as append_durably
    from .files import neutralise as neutralise
    from .files import replace_durably as replace_durably
    from .gate import DEFAULT_RESOLUTION as DEFAULT_RESOLUTION
    from .gate import GateLimits as GateLimits
    from .gate import GateRequest as GateRequest
    from .gate import GateVerdict as GateVerdict
    from .gate import gate as gate
    from .gate import operator_edits as operator_edits
    from .journal import Journal as Journal
    from .lock import FileLock as FileLock
    from .lock import RunLock as RunLock
    from .notifications import AlarmEvent as AlarmEvent
    from .notifications import AlarmNotifier as AlarmNotifier
    from .notifications import DispatchReport as DispatchReport
    from .scheduler import DailyScheduler as DailyScheduler
    from .step import Decision as Decision
    from .step import decide as decide
    from .step import digest as digest
    from .step import estimate as estimate
    from .step import forecast as forecast
    from .step import forecast_paths as forecast_paths
    from .step import history_from_records as history_from_records


def __getattr__(name: str) -> Any:
    if name not in _FACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_FACES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_FACES})
