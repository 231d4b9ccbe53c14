"""The journal file with all its uses: journal, commands, alarms."""

from .alarm_book import AlarmBook
from .journal import Journal
from .mailbox import Mailbox


class RunRecords(Journal, Mailbox, AlarmBook):
    """One open file of a run: what was done, what people ask, what is wrong."""
