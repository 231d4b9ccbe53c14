"""Files of the audit trail."""

from pathlib import Path

from perfusio_jax._core import AuditError
from perfusio_jax._core.limits import RECORD_BYTES, read_file

LOG_NAME = "audit.jsonl"
HEAD_NAME = "audit.head"
TORN_NAME = "audit.torn"
CSV_NAME = "audit_events.csv"
PARQUET_NAME = "audit_events.parquet"


def read_trail(path: Path) -> bytes | None:
    """Content of one of the files; None if it is not there.

    Raises:
        AuditError: If it cannot be read.
    """
    try:
        return read_file(path, most=RECORD_BYTES, error=AuditError)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise AuditError(f"{path} cannot be read: {error}") from error
