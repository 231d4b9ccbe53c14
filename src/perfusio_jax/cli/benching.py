"""Commands that measure: the speed of this machine, and methods on frozen problems."""

import time
from pathlib import Path
from typing import Annotated

import typer

from perfusio_jax._core import ConfigError

from . import common, groups
from .common import console, writable

commands = typer.Typer(rich_markup_mode=None)

benchmark = typer.Typer(
    help="Methods of anybody on frozen problems.", no_args_is_help=True, rich_markup_mode=None
)
commands.add_typer(
    benchmark, name="benchmark", cls=groups.GroupedCommands, rich_help_panel=groups.NEXT
)

Json = Annotated[Path | None, typer.Option(help="File to write, .json.")]


@commands.command(rich_help_panel=groups.START)
def bench(
    quick: Annotated[
        bool, typer.Option("--quick", help="A few figures, in less than two minutes.")
    ] = False,
    out: Json = None,
) -> None:
    """Measure how fast this machine simulates and forecasts."""
    if not quick:
        raise ConfigError(
            "the whole suite needs the sources and its peers: 'make bench' there. Here there is "
            "--quick, without peers."
        )
    if out is not None:
        writable(out, suffixes=(".json",))
    screen = console()
    common.set_up_jax()
    from perfusio_jax.service.benching.quick import tell_figures
    from perfusio_jax.study.scale.speed import quick_figures

    tell_figures(quick_figures(screen.status, time.perf_counter), screen, out)


@benchmark.command("run")
def run(
    method: Annotated[
        str, typer.Argument(help="random, a module, or a file.py with make(space, seed).")
    ],
    on: Annotated[
        list[str] | None, typer.Option("--on", help="A frozen problem; may repeat. All if none.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=10, help="Repeats, the first seeds.")] = 10,
    out: Json = None,
) -> None:
    """Let a method ask for runs of frozen problems, and say how good what it found is."""
    if out is not None:
        writable(out, suffixes=(".json",))
    common.set_up_jax()
    from perfusio_jax.service.benching.methods import run_method, tell_scores
    from perfusio_jax.study.frozen.problems import FROZEN, frozen_problem

    screen = console()
    problems = [frozen_problem(name) for name in (on or FROZEN)]
    tell_scores(method, run_method(method, problems, seeds, screen), screen, out)


@benchmark.command("list")
def list_problems() -> None:
    """Say which problems there are."""
    common.set_up_jax()
    from perfusio_jax.study.frozen.problems import FROZEN

    screen = console()
    for problem in FROZEN.values():
        space = problem.space
        screen.print(
            f"{problem.name}: {problem.text}; {len(space.names)} numbers, {space.n_rounds} rounds "
            f"of {space.batch} runs",
            soft_wrap=True,
        )
