"""The commands in the order of what one wants, for `--help`."""

from typing import Any, Final

from typer._click import HelpFormatter
from typer.core import TyperGroup

START: Final = "To begin"
DATA: Final = "Data"
MODEL: Final = "Models and forecasts"
NEXT: Final = "Next runs"
REACTOR: Final = "Run a reactor"
SEEING: Final = "To see it"
RECORDS: Final = "Records"
DEVICES: Final = "Devices"
LEARNING: Final = "Learning to control"

GROUPS: Final = (START, DATA, MODEL, NEXT, REACTOR, SEEING, RECORDS, DEVICES, LEARNING)
"""In the order in which they are shown; each command names its own."""


class GroupedCommands(TyperGroup):
    """Shows commands under what they are for, each with its whole first sentence.

    One that names no group stands under "Commands".
    """

    def format_commands(self, ctx: Any, formatter: HelpFormatter) -> None:
        """Write one section per group."""
        rows: dict[str, list[tuple[str, str]]] = {group: [] for group in (*GROUPS, "Commands")}
        for name in self.list_commands(ctx):
            command: Any = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                text = command.get_short_help_str(limit=1000)
                rows[command.rich_help_panel or "Commands"].append((name, text))
        widest = max(len(name) for section in rows.values() for name, _ in section)
        for group, section in rows.items():
            if section:  # the same column in every section
                padded = [(name.ljust(widest), text) for name, text in section]
                with formatter.section(group):
                    formatter.write_dl(padded, col_max=widest + 2)
