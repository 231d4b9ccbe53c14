"""The command that writes the examples."""

from pathlib import Path
from typing import Annotated

import typer

from . import groups
from .common import writable
from .screen import say

commands = typer.Typer(rich_markup_mode=None)


@commands.command(rich_help_panel=groups.START)
def examples(
    folder: Annotated[Path, typer.Argument(help="Where they go.")] = Path("examples"),
) -> None:
    """Write the example scripts and a week of a virtual reactor, to start from."""
    from perfusio_jax.service.examples import write_examples

    writable(folder, is_folder=True)
    written = write_examples(folder)
    for path in written:
        say(path)
    if not written:
        say(f"all examples are in {folder} already")
    say(f"next: python {next(iter(sorted(folder.glob('01*.py'))), folder / '*.py')}")
    say(f"      perfusio-jax run {folder / 'reactor'}")
