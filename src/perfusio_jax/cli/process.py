"""Commands for descriptions of cultures."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import common, groups
from .screen import say

if TYPE_CHECKING:
    from perfusio_jax.process import Process

commands = typer.Typer(rich_markup_mode=None)
process = typer.Typer(help="Descriptions of cultures: list them, look at one, check a file.")
commands.add_typer(
    process,
    name="process",
    no_args_is_help=True,
    cls=groups.GroupedCommands,
    rich_help_panel=groups.DATA,
)

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


def in_words(culture: "Process") -> list[str]:
    """A process for people, line by line."""
    moves = "constant" if culture.is_constant_volume else "moving"
    lines = [f"{culture.name}: {culture.description}".rstrip(": ")]
    lines.append(f"volume {culture.volume_L:g} L at the start, {moves}")
    lines.append(f"rates are per {culture.biomass}" if culture.biomass else "rates are volumetric")
    lines.append("quantities")
    for q in culture.quantities:
        seen = "" if q.is_measured else ", not measured"
        noise = f", assay {100 * q.cv:g} %" if q.is_measured else ""
        follows = f" ({q.formula} of {' and '.join(q.of)})" if q.formula else ""
        lines.append(f"  {q.name} [{q.unit}] {q.kind}{follows}{seen}, {q.lo:g} to {q.hi:g}{noise}")
    lines.append("controls" if culture.controls else "controls: none")
    for c in culture.controls:
        of = f" of {c.quantity}" if c.quantity else ""
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
