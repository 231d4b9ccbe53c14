"""What all commands share: the application, options, checks before work starts."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from perfusio_jax._core import ConfigError, DataError, UnitError
from perfusio_jax._core.compiler_flags import threads_for
from perfusio_jax._core.text import plain_number


def set_up_jax(device: str | None = None, *, n_devices: int = 1) -> str:
    """Double precision and a persistent compilation cache, for programs started here.

    With more than one device, as many cores count as devices of their own.

    Returns:
        Why nothing that is compiled is kept, which has been said; empty if it is.
    """
    import jax

    from perfusio_jax import enable_compile_cache, enable_x64

    if device:
        jax.config.update("jax_platforms", device)
    if n_devices > 1:
        os.environ.setdefault("NPROC", threads_for(n_devices))
        jax.config.update("jax_num_cpu_devices", n_devices)
    enable_x64()
    # Ctrl-C ends a program after what it computes; one that ends before would crash
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    try:
        enable_compile_cache()
    except ConfigError as error:
        from .screen import say

        say(f"note: {error}", err=True)
        return str(error)
    return ""


def console() -> Any:
    """A console that shows text as it is, without anything a terminal would obey."""
    from .screen import Screen

    return Screen()


MechanismOf = Annotated[
    str | None,
    typer.Option(
        "--mechanism",
        help="Of a culture that is not CHO perfusion: monod, none, cho (CHO cells in any vessel), "
        "or module:Class; by default the best of monod, none and, where cells and glucose have "
        "the names of CHO cells, cho.",
    ),
]
TABLES = (
    "Campaign table: CSV, Parquet or Excel; several files, or a folder of them, are one campaign."
)

FillDown = Annotated[
    bool, typer.Option("--fill-down", help="A blank set-point means that the one above it stayed.")
]

Culture = Annotated[
    str | None,
    typer.Option(
        "--process",
        help="Culture: a file (.toml), a built-in name, or 'table' to read it off the table.",
    ),
]

References = Annotated[
    list[str] | None,
    typer.Option(
        "--reference",
        help="Runs to compare with, three at least: names or patterns with commas between, run "
        "folders, a table. May repeat.",
    ),
]

CardFile = Annotated[
    Path | None,
    typer.Option(
        "--card",
        help="What is concluded, as a file: .html, .pdf, .md; .json in the folder cards of a run "
        "for its report and page.",
    ),
]

FigureFile = Annotated[
    Path | None,
    typer.Option("--figure", help="Picture as well: .png, .svg, .pdf; .html to point at."),
]

Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of all random numbers.")]


def writable(path: Path, *, is_folder: bool = False, suffixes: tuple[str, ...] = ()) -> None:
    """Refuse a place for results before the work rather than after it.

    Args:
        path: The place.
        is_folder: Whether a folder is to be made there.
        suffixes: Endings that tell what is written; any if empty.

    Raises:
        ConfigError: If something of the other kind is there, nothing can be written there, it is
            a record of a run, or its name promises another kind of file.
    """
    from perfusio_jax.twin.records.run_files import RECORD_NAMES

    if suffixes and path.suffix.lower() not in suffixes:
        raise ConfigError(
            f"{path} ends in '{path.suffix}', which is not what is written; it must end in "
            f"{' or '.join(suffixes)}."
        )
    if path.name.lower() in RECORD_NAMES:
        raise ConfigError(f"{path} has the name of a record of a run; name another file.")
    if path.exists() and path.is_dir() != is_folder:
        here, wanted = ("a file", "a folder") if is_folder else ("a folder", "a file")
        raise ConfigError(f"{path} is {here}; {wanted} is to be written there. Name another.")
    place = path if path.exists() else path.parent
    while not place.exists():
        place = place.parent
    if not place.is_dir() and place != path:
        raise ConfigError(f"{path} cannot be made: {place} is a file, not a folder.")
    if not os.access(place, os.W_OK):
        raise ConfigError(f"{path} cannot be written: {place} is read-only for this user.")


_CARDS = (".html", ".pdf", ".md", ".json")


def figure_writable(path: Path | None) -> None:
    """Refuse a place for a picture before the work.

    Raises:
        ConfigError: If it cannot be written there.
    """
    if path is not None:
        writable(path, suffixes=(".png", ".svg", ".pdf", ".html"))


def card_writable(path: Path | None) -> None:
    """Refuse a place for a card before the work.

    Raises:
        ConfigError: If it cannot be written there, or nothing can set a PDF here.
    """
    if path is None:
        return
    writable(path, suffixes=_CARDS)
    if path.suffix.lower() == ".pdf":
        from perfusio_jax.report.pdf_pages import require_weasyprint

        require_weasyprint()


def keeping(path: Path | None) -> Callable[[Any], None] | None:
    """What writes a conclusion into a file; None if no file is named for it."""
    if path is None:
        return None

    def keep(card: Any) -> None:
        from perfusio_jax.report.cards import write_card

        write_card(card, path)
        console().print(f"card: {path}", soft_wrap=True)

    return keep


@contextlib.contextmanager
def as_data() -> Iterator[None]:
    """A unit that does not fit in a table is trouble with data, not with the configuration."""
    try:
        yield
    except UnitError as error:
        raise DataError(str(error)) from error


def assignments(items: list[str], option: str = "--set") -> dict[str, float]:
    """Numbers by name, from `name=value`.

    Args:
        items: As a command line gives them.
        option: What gave them, for messages.

    Raises:
        ConfigError: If one is not of that form.
    """
    out: dict[str, float] = {}
    for item in items:
        name, sign, value = item.partition("=")
        try:
            out[name.strip()] = plain_number(value)
        except ValueError:
            sign = ""
        if not sign:
            raise ConfigError(
                f"{option} {item!r} is not of the form name=value, with a number such as 3.5."
            )
    return out


def ranges_of(items: list[str]) -> dict[str, tuple[float, float]]:
    """Ranges by name, from `name=low:high`."""
    found = {}
    for item in items:
        name, _, text = item.partition("=")
        low, sign, high = text.partition(":")
        if not sign:
            raise ConfigError(f"--between {item!r} is not of the form name=low:high.")
        ends = assignments([f"low={low}", f"high={high}"], "--between")
        found[name.strip()] = (ends["low"], ends["high"])
    return found
