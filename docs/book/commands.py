"""The table of commands, as `--help` knows them."""

from typing import Any

import typer

from perfusio_jax.cli import app
from perfusio_jax.cli.groups import GROUPS


def table() -> str:
    """All commands under what one wants, each with its first sentence; groups with theirs."""
    program: Any = typer.main.get_command(app)
    parts = []
    for group in GROUPS:
        rows = [
            f"| `{name}` | {_sentence(command)} |"
            for name, command in program.commands.items()
            if command.rich_help_panel == group and not command.hidden
            for name, command in [(name, command), *_within(name, command)]
        ]
        parts.append("\n".join([f"### {group}", "", "| command | what it does |", "| --- | --- |"]))
        parts[-1] += "\n" + "\n".join(rows)
    return "\n\n".join(parts) + "\n"


def _within(name: str, command: Any) -> list[tuple[str, Any]]:
    inner = getattr(command, "commands", {})
    return [(f"{name} {sub}", part) for sub, part in inner.items() if not part.hidden]


def _sentence(command: Any) -> str:
    return command.get_short_help_str(limit=1000).replace("|", "\\|")
