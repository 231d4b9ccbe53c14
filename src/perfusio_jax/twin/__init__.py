"""The twin: a pure decision and a pure gate, with everything effectful around them.

Loaded on first use, so that a connector that writes a file does not import a model.
"""

import importlib
from typing import TYPE_CHECKING, Any

_FACES = {
    "AlarmDesk": "desk",
    "AlarmEvent": "notifications",
    "AlarmNotifier": "notifications",
    "AuditLogger": "audit",
    "AuditReport": "chain",
    "Brain": "brain",
    "DEFAULT_RESOLUTION": "gate",
    "DailyScheduler": "scheduler",
    "Decision": "step",
    "DigitalTwin": "digital_twin",
    "DispatchReport": "notifications",
    "Fate": "fleet",
    "ReactorStatus": "commands",
    "ReplayReport": "commands",
    "replay": "commands",
    "FileLock": "lock",
    "Fleet": "fleet",
    "RunFiles": "run_files",
    "GateLimits": "gate",
    "GateRequest": "gate",
    "GateVerdict": "gate",
    "Journal": "journal",
    "JournalError": "entries",
    "Lesson": "brain",
    "LoopSettings": "settings",
    "Mailbox": "mailbox",
    "ModelBrain": "model_brain",
    "Proposal": "brain",
    "ReactorLoop": "loop",
    "RunLock": "lock",
    "RunRecords": "records_file",
    "Runtime": "runtime",
    "Settlement": "entries",
    "Signer": "keys",
    "Situation": "brain",
    "Stage": "entries",
    "Stored": "entries",
    "append_durably": "files",
    "decide": "step",
    "digest": "step",
    "estimate": "step",
    "forecast": "step",
    "forecast_paths": "step",
    "gate": "gate",
    "generate_key": "keys",
    "history_from_records": "step",
    "load_key": "keys",
    "load_public_key": "keys",
    "open_run": "run_files",
    "neutralise": "files",
    "operator_edits": "gate",
    "redact": "secrets",
    "refuse_secrets": "secrets",
    "replace_durably": "files",
    "sha256_of": "audit",
    "system_runtime": "runtime",
    "verify_audit": "audit",
}

if TYPE_CHECKING:
    from .audit import AuditLogger as AuditLogger
    from .audit import sha256_of as sha256_of
    from .audit import verify_audit as verify_audit
    from .brain import Brain as Brain
    from .brain import Lesson as Lesson
    from .brain import Proposal as Proposal
    from .brain import Situation as Situation
    from .chain import AuditReport as AuditReport
    from .commands import ReactorStatus as ReactorStatus
    from .commands import ReplayReport as ReplayReport
    from .commands import replay as replay
    from .desk import AlarmDesk as AlarmDesk
    from .digital_twin import DigitalTwin as DigitalTwin
    from .entries import JournalError as JournalError
    from .entries import Settlement as Settlement
    from .entries import Stage as Stage
    from .entries import Stored as Stored
    from .files import append_durably as append_durably
    from .files import neutralise as neutralise
    from .files import replace_durably as replace_durably
    from .fleet import Fate as Fate
    from .fleet import Fleet as Fleet
    from .gate import DEFAULT_RESOLUTION as DEFAULT_RESOLUTION
    from .gate import GateLimits as GateLimits
    from .gate import GateRequest as GateRequest
    from .gate import GateVerdict as GateVerdict
    from .gate import gate as gate
    from .gate import operator_edits as operator_edits
    from .journal import Journal as Journal
    from .keys import Signer as Signer
    from .keys import generate_key as generate_key
    from .keys import load_key as load_key
    from .keys import load_public_key as load_public_key
    from .lock import FileLock as FileLock
    from .lock import RunLock as RunLock
    from .loop import ReactorLoop as ReactorLoop
    from .mailbox import Mailbox as Mailbox
    from .model_brain import ModelBrain as ModelBrain
    from .notifications import AlarmEvent as AlarmEvent
    from .notifications import AlarmNotifier as AlarmNotifier
    from .notifications import DispatchReport as DispatchReport
    from .records_file import RunRecords as RunRecords
    from .run_files import RunFiles as RunFiles
    from .run_files import open_run as open_run
    from .runtime import Runtime as Runtime
    from .runtime import system_runtime as system_runtime
    from .scheduler import DailyScheduler as DailyScheduler
    from .secrets import redact as redact
    from .secrets import refuse_secrets as refuse_secrets
    from .settings import LoopSettings as LoopSettings
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
