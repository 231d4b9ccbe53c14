"""Commands for an emulated rack and its certificates."""

from pathlib import Path
from typing import Annotated

import typer

from perfusio_jax._core import ConfigError

from . import common, groups
from .common import Seed
from .screen import say

commands = typer.Typer(rich_markup_mode=None)


@commands.command("serve-emulator", rich_help_panel=groups.DEVICES)
def serve_emulator_command(
    reactors: Annotated[int, typer.Option(min=1, max=24, help="Number of vessels.")] = 5,
    accelerate: Annotated[
        float, typer.Option(min=0.0, help="Culture time over real time; 1440: a day a minute.")
    ] = 1440.0,
    host: Annotated[str, typer.Option(help="Name or address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 4840,
    certificates: Annotated[
        Path | None,
        typer.Option(help="Folder of certificates, made if needed; without it, no security."),
    ] = None,
    clone: Annotated[
        list[str] | None, typer.Option(help="CloneX or CloneY, once per vessel or in turn.")
    ] = None,
    state: Annotated[Path | None, typer.Option(help="File that keeps the culture.")] = None,
    reset_setpoints: Annotated[
        bool, typer.Option("--reset-setpoints", help="Forget set-points on a restart.")
    ] = False,
    paused: Annotated[
        bool, typer.Option("--paused", help="Stand still until the first set-point.")
    ] = False,
    node_map: Annotated[
        Path | None, typer.Option(help="File to write the node map of all vessels to.")
    ] = None,
    process: Annotated[
        list[str] | None,
        typer.Option(
            help="Culture, a file (.toml) or a built-in name; several are the vessels' in turn."
        ),
    ] = None,
    mechanism: Annotated[
        list[str] | None,
        typer.Option(help="monod, cho or module:Class, of each --process in turn."),
    ] = None,
    every: Annotated[
        float, typer.Option(min=0.25, help="Hours between samples, with --process.")
    ] = 24.0,
    seed: Seed = 42,
) -> None:
    """Serve an emulated rack over OPC UA until Ctrl-C; user and password by environment."""
    common.set_up_jax()
    from perfusio_jax.connectors.opcua.serve import Serving, serve_emulator

    if not process and (mechanism or every != 24.0):
        raise ConfigError(
            "--mechanism and --every are of described cultures; name one with --process."
        )
    settings = Serving(
        reactors=reactors,
        clones=tuple(clone or ()),
        acceleration=accelerate,
        host=host,
        port=port,
        certificates=certificates,
        state=state,
        reset_setpoints=reset_setpoints,
        is_paused=paused,
        node_map=node_map,
        seed=seed,
    )
    if not process:
        serve_emulator(settings, say=say)
        return
    from perfusio_jax.service.emulating import serve_cultures

    serve_cultures(settings, process, mechanism or [], every_h=every, say=say)


@commands.command("opcua-certificates", rich_help_panel=groups.DEVICES)
def opcua_certificates(
    folder: Annotated[Path, typer.Argument(help="Where the files go.")],
    host: Annotated[str | None, typer.Option(help="Name or address of the server.")] = None,
    days: Annotated[int, typer.Option(min=1, max=3650, help="How long they are valid [d].")] = 365,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace old ones.")] = False,
) -> None:
    """Make self-signed certificates for an OPC UA server and a client."""
    from perfusio_jax.connectors import make_certificates

    for name, pair in make_certificates(folder, host=host, days=days, overwrite=overwrite).items():
        say(f"{name}: {pair.certificate}, {pair.key} (SHA-256 {pair.fingerprint})")
