"""The journal file with all its uses: journal, commands, alarms, how far the audit trail is."""

from .alarm_book import AlarmBook
from .audit_memory import AuditMemory
from .journal import Journal
from .mailbox import Mailbox


class RunRecords(Journal, Mailbox, AlarmBook, AuditMemory):
    """One open file of a run: what was done, what people ask, what is wrong."""
