"""The edge everything for a person leaves by: nothing a terminal obeys, nothing secret.

Names and messages come from files, servers and configurations. Here, and nowhere else, their
control characters are written out and passwords are taken away; square brackets and colons are
no markup, wherever they stand.
"""

import io
import sys
from typing import Any

import typer
from rich.console import Console, RenderableType
from rich.status import Status
from rich.text import Text

from perfusio_jax._core.progress import telling
from perfusio_jax._core.text import shown
from perfusio_jax.twin.records.secrets import redact


def fit_to_show(text: str) -> str:
    """A text as it may be shown or written into a report."""
    return shown(redact(text))


def show_every_sign() -> None:
    """Write signs that the encoding of a pipe has no place for as their number, not as an error.

    A console shows all of them; what is sent into a file on Windows may have 256.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and "utf" not in stream.encoding.lower():
            stream.reconfigure(errors="backslashreplace")


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
    """A status whose text is no markup either, first and later.

    Inside it, what long calls say stands behind what is being done; where nobody watches, as in a
    file, that is a line of its own, and so is what it began with.
    """

    def __init__(self, status: RenderableType, *, console: Console, **more: Any) -> None:
        super().__init__(_as_text(status), console=console, **more)
        self._what, self._screen, self._last = status, console, ""
        self._listening = telling(self._hear)

    def __enter__(self) -> "_Line":
        """Say what is done from here on."""
        super().__enter__()
        self._listening.__enter__()
        self._print(self._what)
        return self

    def __exit__(self, *raised: Any) -> None:
        """Nothing more is said."""
        self._listening.__exit__(*raised)
        super().__exit__(*raised)

    def update(self, status: RenderableType | None = None, **more: Any) -> None:
        """Say something else."""
        if status is not None:
            self._what = status
        super().update(None if status is None else _as_text(status), **more)

    def _hear(self, text: str) -> None:
        line = f"{self._what}: {text}"
        self._print(line)
        super().update(_as_text(line))

    def _print(self, status: RenderableType) -> None:
        if isinstance(status, str) and not self._screen.is_terminal and status != self._last:
            self._last = status
            if status:
                self._screen.print(status, soft_wrap=True)


def _as_text(status: RenderableType) -> RenderableType:
    return Text(fit_to_show(status)) if isinstance(status, str) else status
