"""Commands for descriptions of cultures."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perfusio_jax._core import ConfigError, DataError

from . import common, groups
from .file_options import reads_files
from .screen import say

if TYPE_CHECKING:
    from perfusio_jax.process import Process

commands = typer.Typer(rich_markup_mode=None)
process = typer.Typer(
    help="Descriptions of cultures: list, show, read off a table, check a table by one."
)
commands.add_typer(
    process,
    name="process",
    no_args_is_help=True,
    cls=groups.GroupedCommands,
    rich_help_panel=groups.DATA,
)

TABLE = "Campaign table: CSV, Parquet or Excel; several files or a folder are one campaign."

Which = Annotated[str, typer.Argument(help="A built-in name, or a file that ends in .toml.")]


@process.command("list")
def process_list() -> None:
    """Name the cultures that are built in."""
    from perfusio_jax.process import BUILT_IN

    width = max(map(len, BUILT_IN))
    for name, culture in BUILT_IN.items():
        say(f"{name.ljust(width)}  {culture.description}")


@process.command("show")
def process_show(
    which: Which,
    out: Annotated[
        Path | None, typer.Option(help="File to write it to, to change and use; ends in .toml.")
    ] = None,
) -> None:
    """Say what a culture consists of, what is set and what flows; exit code 2 if it cannot be."""
    if out is not None:
        common.writable(out, suffixes=(".toml",))
    from perfusio_jax.process import read_process

    culture = read_process(which)
    for line in in_words(culture):
        say(line)
    if out is not None:
        culture.to_toml(out)
        say(f"written: {out}")


@process.command("init")
@reads_files
def process_init(
    table: Annotated[list[Path], typer.Argument(help=TABLE)],
    out: Annotated[Path, typer.Option(help="File to write; ends in .toml.")] = Path("process.toml"),
    name: Annotated[str | None, typer.Option(help="Name of the culture; the file's.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write over a file that is there.")
    ] = False,
    *,
    rules: Any,
) -> None:
    """Read a culture off a campaign table, write it as TOML, and say what was assumed."""
    common.writable(out, suffixes=(".toml",))
    if out.exists() and not force:
        raise ConfigError(f"{out} exists; name another file (--out), or say --force.")
    from perfusio_jax.connectors.files.describing import describe_table
    from perfusio_jax.connectors.files.process_comments import commented_toml

    with common.as_data():
        found = describe_table(table, name=name, rules=rules)
    out.write_text(commented_toml(found.process, found.assumptions), encoding="utf-8")
    for line in in_words(found.process):
        say(line)
    for line in found.assumptions:
        say(f"assumed: {line}")
    say(f"written: {out}")


@process.command("check")
@reads_files
def process_check(
    table: Annotated[list[Path], typer.Argument(help=TABLE)],
    which: Annotated[
        str | None,
        typer.Option("--process", help="A built-in name or a .toml; read off the table."),
    ] = None,
    *,
    rules: Any,
) -> None:
    """Look at a table with the eyes of its process; exit code 2 if it cannot be read."""
    common.set_up_jax()
    from perfusio_jax.connectors import describe_table, read_campaign
    from perfusio_jax.connectors.files.checking import check_campaign
    from perfusio_jax.process import read_process

    try:
        if which is None:
            found = describe_table(table, rules=rules)
            culture, assumptions = found.process, found.assumptions
        else:
            culture, assumptions = read_process(which), ()
        campaign = read_campaign(table, unknown="ignore", process=culture, rules=rules)
    except DataError as error:  # a table that cannot be read cannot be checked
        raise ConfigError(str(error)) from error
    check_pumps(culture, which)
    for line in assumptions:
        say(f"assumed: {line}")
    for line in str(campaign.report).splitlines():
        say(line)
    checked = check_campaign(campaign, culture)
    for line in checked.overview:
        say(line)
    for line in checked.findings:
        say(f"look at this: {line}")
    say(f"{len(checked.findings)} finding(s)")


def check_pumps(culture: "Process", which: str | None) -> None:
    """Refuse a pump law that cannot hold anything, by its name and its line in the file.

    Args:
        culture: The process.
        which: Its file, if it has one.

    Raises:
        ConfigError: If there is one, and what its pump gave is not recorded either.
    """
    import re

    from perfusio_jax.process.laws import laws_of

    try:
        laws_of(culture)
    except ConfigError as error:
        driven = {s.flow: s for s in culture.streams}
        named = [c.name for c in culture.controls if f"control {c.name} " in str(error)]
        if named and driven[named[0]].total is not None:
            say(f"look at this: {error} What it gave is recorded, and counts.")
            return
        where = ""
        if named and which is not None and which.endswith(".toml"):
            text = Path(which).read_text(encoding="utf-8-sig")
            pattern = re.compile(rf"""^\s*name\s*=\s*["']{re.escape(named[0])}["']""")
            lines = [n for n, line in enumerate(text.splitlines(), 1) if pattern.match(line)]
            where = f"{which}, line {lines[0]}: " if lines else f"{which}: "
        raise ConfigError(f"{where}{error}") from None


def in_words(culture: "Process") -> list[str]:
    """A process for people, line by line."""
    from perfusio_jax.process.laws import GAIN, MOST

    moves = "constant" if culture.is_constant_volume else "moving"
    lines = [f"{culture.name}: {culture.description}".rstrip(": ")]
    lines.append(f"volume {culture.volume_L:g} L at the start, {moves}")
    per = culture.rates_per
    lines.append(f"rates are per {per}" if per else "rates are volumetric")
    lines.append("quantities")
    for q in culture.quantities:
        seen = "" if q.is_measured else ", not measured"
        errs = f"{100 * q.cv:g} %" if q.cv else f"{q.floor:g} {q.unit}"
        noise = f", assay {errs}" if q.is_measured else ""
        follows = f" ({q.formula} of {' and '.join(q.of)})" if q.formula else ""
        lines.append(f"  {q.name} [{q.unit}] {q.kind}{follows}{seen}, {q.lo:g} to {q.hi:g}{noise}")
    lines.append("controls" if culture.controls else "controls: none")
    for c in culture.controls:
        of = f" of {c.quantity}" if c.quantity else ""
        if c.role == "target":
            gain, most = c.gain or GAIN, c.most or MOST
            of += f" (pump: gain {gain:g} 1/h, at most {most:g} vessel volumes/h)"
        span = f"{c.lo:g} to {c.hi:g}, else {c.default:g}"
        lines.append(f"  {c.name} [{c.unit}] {c.role}{of}, {span}")
    lines.append("streams" if culture.streams else "streams: none")
    for s in culture.streams:
        flow = "what the others leave of the balance" if s.flow == "rest" else s.flow
        brings = [f"{n} {v if isinstance(v, str) else f'{v:g}'}" for n, v in s.carries.items()]
        brings += [f"{by} on top of {n}" for n, by in s.adds.items()]
        holds = [f"{100 * (1 - share):g} % of {n}" for n, share in s.passes.items() if share < 1]
        text = f"  {s.name} {s.direction}, flow: {flow}"
        text += f"; brings {', '.join(brings)}" if brings else ""
        text += f"; holds back {', '.join(holds)}" if holds else ""
        lines.append(text + (f"; recorded in {s.total}" if s.total else ""))
    return lines
