"""Commands for policies that learn to track references."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from . import common, groups
from .common import Seed, console, writable
from .screen import say

commands = typer.Typer(rich_markup_mode=None)

rl = typer.Typer(
    help="Policies that track several references, and what they are measured against.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
commands.add_typer(rl, name="rl", cls=groups.GroupedCommands, rich_help_panel=groups.LEARNING)

RlOut = Annotated[
    Path, typer.Option(help="Folder; trainings of the same sizes found in it are gone on with.")
]


def _even(value: int) -> int:
    if value % 2:
        raise typer.BadParameter(f"{value} is odd; episodes come in pairs of opposite draws.")
    return value


RlEpochs = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=10_000_000,
        help="Epochs, over which rate and spread fall; 9600, or 9900 for trajectories.",
    ),
]
RlEpisodes = Annotated[
    int,
    typer.Option(min=2, max=100_000, callback=_even, help="Episodes per epoch, an even number."),
]
RlDevices = Annotated[
    int, typer.Option(min=1, help="Cores, or GPUs, that share the episodes of an epoch.")
]
RlSingle = Annotated[
    bool,
    typer.Option(
        "--single/--double", help="Train in single precision (half the time) or in double."
    ),
]


@contextmanager
def _alone_in(out: Path, devices: int) -> Iterator[Any]:
    """What trains and reports, for one process at a time in a folder."""
    writable(out, is_folder=True)
    common.set_up_jax(n_devices=devices)
    from perfusio_jax.report import tracking
    from perfusio_jax.report.stopping import between_chunks
    from perfusio_jax.twin.records.lock import RunLock

    with RunLock(out), between_chunks():
        try:
            yield tracking
        except KeyboardInterrupt:
            say(f"what is finished is kept in {out}; the same command goes on.", err=True)
            raise


def _case(number: int, what: str) -> None:
    def command(
        out: RlOut = Path("runs/rl"),
        seed: Seed = 0,
        epochs: RlEpochs = None,
        episodes: RlEpisodes = 100,
        devices: RlDevices = 1,
        single: RlSingle = True,
    ) -> None:
        with _alone_in(out, devices) as tracking:
            sizes = tracking.Sizes(seed, epochs, episodes, devices, single)
            tracking.run_case(number, out, sizes, console=console())

    rl.command(f"case{number}", help=what)(command)


_case(1, "Four pairs of set-points, both returns.")
_case(2, "Two pairs of trajectories, both returns.")
_case(3, "Set-points with uncertain starts and constants.")
_case(4, "Trajectories with uncertain starts and constants.")


@rl.command()
def screen(
    out: RlOut = Path("runs/rl"),
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Seeds.")] = 1,
    epochs: Annotated[
        int | None,
        typer.Option(min=2, max=10_000_000, help="Epochs of each training; 2400 if not given."),
    ] = None,
    episodes: RlEpisodes = 100,
    devices: RlDevices = 1,
    single: RlSingle = True,
) -> None:
    """Thirteen learning schemes on four pairs of set-points, ranked."""
    with _alone_in(out, devices) as tracking:
        from perfusio_jax.report.screening import run_screening

        sizes = tracking.Sizes(0, epochs, episodes, devices, single)
        run_screening(out, sizes, seeds=seeds, console=console())


@rl.command()
def compare(
    case: Annotated[int, typer.Option(min=1, max=4, help="Control case.")] = 3,
    out: RlOut = Path("runs/rl"),
    seed: Seed = 0,
    epochs: RlEpochs = None,
    episodes: RlEpisodes = 100,
    devices: RlDevices = 1,
    single: RlSingle = True,
) -> None:
    """Policies beside PID and model-predictive control, on the last scenario of a case.

    Minutes beside the trainings, whatever their sizes: model-predictive control optimises anew at
    every step of every test episode.
    """
    with _alone_in(out, devices) as tracking:
        sizes = tracking.Sizes(seed, epochs, episodes, devices, single)
        tracking.run_comparison(case, out, sizes, console=console())
