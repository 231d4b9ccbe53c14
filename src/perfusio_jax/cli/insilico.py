"""The command for in-silico campaigns: clones, designs, policies and seeds."""

from pathlib import Path
from typing import Annotated

import typer

from perfusio_jax._core import ConfigError

from . import common, groups
from .common import console, writable

commands = typer.Typer(rich_markup_mode=None)


@commands.command("in-silico", rich_help_panel=groups.NEXT)
def in_silico(
    plan: Annotated[
        Path,
        typer.Argument(
            help="TOML: process, mechanism, clones, recipes or n_designs, policies, n_seeds, days."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results, Parquet part by part.")] = Path(
        "in-silico"
    ),
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray", help="Workers: local (on this machine), auto (its Ray cluster), an address."
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Of --ray local: how many.")
    ] = None,
) -> None:
    """Run virtual clones under every design and policy; give the same command to go on."""
    if workers is not None and ray != "local":
        raise ConfigError("--workers is of --ray local; a cluster has as many as it has.")
    writable(out, is_folder=True)
    common.set_up_jax()
    from perfusio_jax.service.insilico.campaign import run_campaign, tell_campaign
    from perfusio_jax.service.insilico.plan import CampaignPlan
    from perfusio_jax.service.insilico.workers import Cluster

    screen = console()
    asked = CampaignPlan.from_toml(plan)
    policies, clones, designs, seeds = asked.shape
    if asked.is_described:
        said = asked.mechanism or "its own, or monod"
        screen.print(f"culture {asked.culture.name}, mechanism {said}", soft_wrap=True)
    screen.print(
        f"{asked.n_runs} runs: {policies} policies x {clones} clones x {designs} designs x {seeds} "
        f"seeds, in {asked.n_parts} parts",
        soft_wrap=True,
    )
    cluster = None if ray is None else Cluster(ray, workers)
    done = run_campaign(asked, out, cluster=cluster, say=screen.print)
    tell_campaign(asked, out, done, screen)
