"""The edge everything for a person leaves by: nothing a terminal obeys, nothing secret.

Names and messages come from files, servers and configurations. Here, and nowhere else, their
control characters are written out and passwords are taken away; square brackets and colons are
no markup, wherever they stand.
"""

from typing import Any

import typer
from rich.console import Console, RenderableType
from rich.status import Status
from rich.text import Text

from perfusio_jax._core.text import shown
from perfusio_jax.twin.records.secrets import redact


def fit_to_show(text: str) -> str:
    """A text as it may be shown or written into a report."""
    return shown(redact(text))


def say(text: object, *, err: bool = False) -> None:
    """Print a line.

    Args:
        text: What to say.
        err: To the error stream.
    """
    typer.echo(fit_to_show(str(text)), err=err)


class Screen(Console):
    """A console that takes text as text."""

    def __init__(self, **more: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **more)

    def render_str(self, text: str, **more: Any) -> Text:
        """Text of a line, a title or a cell: all of them pass here."""
        return super().render_str(fit_to_show(text), **more)

    def status(self, status: RenderableType, **more: Any) -> Status:
        """A line that says what is going on."""
        return _Line(status, console=self, **more)


class _Line(Status):
    """A status whose text is no markup either, first and later."""

    def __init__(self, status: RenderableType, **more: Any) -> None:
        super().__init__(_as_text(status), **more)

    def update(self, status: RenderableType | None = None, **more: Any) -> None:
        """Say something else."""
        super().update(None if status is None else _as_text(status), **more)


def _as_text(status: RenderableType) -> RenderableType:
    return Text(fit_to_show(status)) if isinstance(status, str) else status
