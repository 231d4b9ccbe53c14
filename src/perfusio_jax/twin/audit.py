"""The audit trail; `twin/records` holds it."""

from perfusio_jax.twin.records.audit import AuditLogger as AuditLogger
from perfusio_jax.twin.records.verifying import verify_audit as verify_audit
