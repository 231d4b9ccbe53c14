"""Command line; `groups` holds the order of the commands.

Exit codes: 0 done; 1 an error nobody foresaw; 2 a wrong argument or configuration; 3 data that
cannot be used; 4 the outside world (files, locks, devices); 5 an audit trail that does not
verify; 6 a computation that failed; 7 a posterior that is not to be believed.
"""

import json
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, Any

import typer

from perfusio_jax._core import (
    AuditError,
    ConfigError,
    ConnectorError,
    DataError,
    PerfusioError,
    PrecisionError,
    SimulationError,
)
from perfusio_jax._core.text import LONGEST_MESSAGE, cut
from perfusio_jax.twin.records.entries import JournalError

from . import (
    benching,
    common,
    compiling,
    dashboard,
    data,
    devices,
    doctor,
    examples,
    exchanging,
    groups,
    insilico,
    learning,
    modelling,
    planning,
    process,
    proposing,
    running,
    seeing,
    simulating,
    studying,
)

__all__ = ["EXIT_CODES", "app", "common", "exit_code", "in_words", "main"]

app = typer.Typer(
    name="perfusio-jax",
    cls=groups.GroupedCommands,
    no_args_is_help=True,
    subcommand_metavar="COMMAND ...",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # square brackets hold units here, not markup
)
for _room in (
    *(simulating, modelling, proposing, studying, insilico, planning, exchanging, running, data),
    *(process, devices, learning, seeing, dashboard, doctor, examples, benching),
):
    app.add_typer(_room.commands)


def _version(is_asked: bool) -> None:
    if is_asked:
        from perfusio_jax import __version__

        typer.echo(f"perfusio-jax {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Errors show where they arose.")] = False,
) -> None:
    """Develops a perfusion cell-culture process by itself."""


EXIT_CODES: dict[type[BaseException], int] = {
    PrecisionError: 2,
    ConfigError: 2,
    DataError: 3,
    SimulationError: 6,
    ConnectorError: 4,
    JournalError: 4,
    AuditError: 5,
    OSError: 4,
}


def in_words(error: BaseException) -> str:
    """An error as one paragraph; errors of the operating system without their number."""
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror[0].lower()}{error.strerror[1:]}."
    return str(error)


def exit_code(error: BaseException) -> int:
    """Exit code of an error."""
    for kind, code in EXIT_CODES.items():
        if isinstance(error, kind):
            return code
    return 1


def main(arguments: list[str] | None = None) -> None:
    """Entry point: runs a command, turns errors into one paragraph and an exit code."""
    from .screen import show_every_sign

    show_every_sign()
    args = list(sys.argv[1:] if arguments is None else arguments)
    is_debug = "--debug" in args
    args = [a for a in args if a != "--debug"]
    compiling.choose_pains(args)
    command: Callable[..., Any] = typer.main.get_command(app)
    try:
        command(args=args, prog_name="perfusio-jax", standalone_mode=True)
    except KeyboardInterrupt:
        typer.echo("stopped.", err=True)
        raise SystemExit(130) from None
    except SystemExit as end:  # what Typer makes of Ctrl-C says nothing
        if end.code == 130:
            typer.echo("stopped.", err=True)
        raise
    except Exception as error:
        from .screen import say

        if is_debug:
            say(traceback.format_exc(), err=True)
            raise SystemExit(exit_code(error)) from None
        if isinstance(error, PerfusioError | OSError):
            text = in_words(error)
        elif isinstance(error, json.JSONDecodeError):
            text = f"a file is not valid JSON: {error}"
        else:
            text = (
                f"nobody foresaw this {type(error).__name__}: {error}. It is a fault of the "
                "program; --debug shows where."
            )
        say(f"error: {cut(text, LONGEST_MESSAGE)}", err=True)
        is_json = isinstance(error, json.JSONDecodeError)
        raise SystemExit(3 if is_json else exit_code(error)) from None
