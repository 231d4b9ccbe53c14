"""What `perfusio-jax serve-emulator` does: a rack, its security, a server, and a clean end."""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from perfusio_jax._core import ConfigError
from perfusio_jax._core.text import counted
from perfusio_jax.connectors.opcua.rack import Rack
from perfusio_jax.connectors.opcua.security import (
    PASSWORD_VARIABLE,
    USER_VARIABLE,
    ServerSecurity,
    make_certificates,
)
from perfusio_jax.connectors.opcua.server import RackServer
from perfusio_jax.connectors.opcua.shown import REFERENCE, Shown, node_map_of
from perfusio_jax.connectors.stop_signals import heard

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Serving:
    """What to serve, and how."""

    reactors: int = 5
    """Number of vessels."""
    clones: tuple[str, ...] = ()
    """Clone of each; three of clone X to two of clone Y where not given."""
    acceleration: float = 1440.0
    """Culture time over real time."""
    host: str = "127.0.0.1"
    """Name or address to listen on."""
    port: int = 4840
    """Port; 0 takes a free one."""
    certificates: Path | None = None
    """Folder of certificates, made if needed; None: no security."""
    state: Path | None = None
    """File that keeps the culture over restarts."""
    reset_setpoints: bool = False
    """Whether set-points fall back to the recipe on a restart."""
    is_paused: bool = False
    """Whether culture time stands still until the first set-point is written."""
    node_map: Path | None = None
    """File the node map of all vessels is written to, for `node_map` in `twin.toml`."""
    seed: int = 42
    """Seed of the samples' noise."""


def clones_of(reactors: int, given: Sequence[str]) -> list[str]:
    """A clone for each vessel: the given ones in turn, by default X, X, X, Y, Y."""
    pattern = tuple(given) or ("CloneX",) * 3 + ("CloneY",) * 2
    return [pattern[i % len(pattern)] for i in range(reactors)]


def security_of(
    folder: Path, host: str, environment: Mapping[str, str] = os.environ
) -> ServerSecurity:
    """Security from a folder of certificates and the user in the environment.

    Raises:
        ConfigError: If a user comes without a password, or a certificate cannot be used.
    """
    pairs = make_certificates(folder, host=host)
    user, password = environment.get(USER_VARIABLE), environment.get(PASSWORD_VARIABLE)
    if bool(user) != bool(password):
        raise ConfigError(
            f"{USER_VARIABLE} and {PASSWORD_VARIABLE} belong together; set both or neither."
        )
    users = {user: SecretStr(password)} if user and password else {}
    return ServerSecurity(pairs["server"], (pairs["client"].certificate,), users)


def write_node_map(path: Path, shown: Shown = REFERENCE) -> None:
    """Write the node map of the emulated rack, one for all its vessels of a culture.

    Args:
        path: The file.
        shown: What these vessels show.

    Raises:
        ConfigError: If the file cannot be written.
    """
    lines = [f'{name} = "{node}"' for name, node in node_map_of("{reactor_id}", shown).items()]
    try:
        path.write_text("\n".join(["[nodes]", *lines, ""]), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"the node map {path} cannot be written: {error.strerror}.") from None


def serve_emulator(
    settings: Serving,
    *,
    say: Say,
    rack: Rack | None = None,
    shows: Sequence[Shown] | None = None,
) -> None:
    """Serve an emulated rack until SIGINT or SIGTERM.

    Args:
        settings: What to serve, and how.
        say: Called with each line of what is to be told.
        rack: Vessels to serve; of the reference culture, as the settings say, if None.
        shows: What each vessel shows; that of the reference culture if None.

    Raises:
        ConfigError: For settings that make no sense.
        ConnectorError: If the port is taken.
    """
    if not 0 <= settings.port <= 65535:
        raise ConfigError(f"port {settings.port} does not exist; allowed are 0 to 65535.")
    kinds = clones_of(settings.reactors, settings.clones)
    for path, shown in node_maps(settings.node_map, shows).items():
        write_node_map(path, shown)
    security = None
    if settings.certificates is not None:
        security = security_of(settings.certificates, settings.host)
    if shows is not None:
        kinds = _names(shows)
    say(f"{counted(settings.reactors, 'vessel')}: {_counted(kinds)} (compiling the plant)")
    if rack is None:
        from perfusio_jax.simulator import VirtualRack  # needs JAX; other racks need not

        rack = VirtualRack(kinds, seed=settings.seed)
    server = RackServer(
        rack,
        shows=shows,
        url=f"opc.tcp://{settings.host}:{settings.port}/perfusio",
        acceleration=settings.acceleration,
        security=security,
        is_paused=settings.is_paused,
        state_path=settings.state,
        reset_setpoints=settings.reset_setpoints,
    )
    asyncio.run(_serve(server, settings, say))


def node_maps(path: Path | None, shows: Sequence[Shown] | None) -> dict[Path, Shown]:
    """Node map of each culture by file: the one named, with the process in it if there are several.

    Args:
        path: The file; None for none.
        shows: What each vessel shows; that of the reference culture if None.

    Raises:
        ConfigError: If two different cultures have one name.
    """
    if path is None:
        return {}
    found: dict[str, Shown] = {}
    for shown in (REFERENCE,) if shows is None else shows:
        (name,) = _names([shown])
        if found.setdefault(name, shown) != shown:
            raise ConfigError(f"two cultures are called {name}; their node maps need two names.")
    if len(found) == 1:
        return {path: next(iter(found.values()))}
    return {path.with_stem(f"{path.stem}_{name}"): shown for name, shown in found.items()}


def _names(shows: Sequence[Shown]) -> list[str]:
    return ["cho" if shown.process is None else shown.process.name for shown in shows]


async def _serve(server: RackServer, settings: Serving, say: Say) -> None:
    stop = asyncio.Event()
    names: list[str] = []

    def hear(name: str) -> None:
        names.append(name)
        stop.set()

    with heard(hear):
        async with server:
            for line in _welcome(server, settings):
                say(line)
            await stop.wait()
            say(f"{names[0]}: stopping on day {server.rack.time_h / 24.0:.2f}")
    say("stopped" + (f"; the culture is kept in {settings.state}" if settings.state else ""))


def _welcome(server: RackServer, settings: Serving) -> list[str]:
    seconds = server.clock.seconds_per_day
    pace = f"a culture day takes {seconds:g} s"
    if settings.is_paused:
        pace += ", from the first set-point on"
    lines = [f"endpoint   {server.url}", f"vessels    {', '.join(server.rack.ids)}"]
    security = server.security
    if security is None:
        lines.append("security   none: this machine only, anybody on it may write")
    else:
        lines += [
            "security   Basic256Sha256, SignAndEncrypt only",
            f"server     {security.pair.certificate} (SHA-256 {security.pair.fingerprint})",
            f"clients    {', '.join(str(path) for path in security.trusted)}",
            f"users      {', '.join(security.users) or 'none: a trusted certificate is enough'}",
        ]
    lines.append(f"time       day {server.rack.time_h / 24.0:.2f}; {pace}")
    lines.append("ready; Ctrl-C stops")
    return lines


def _counted(clones: Sequence[str]) -> str:
    names: dict[str, Any] = dict.fromkeys(clones, 0)
    for name in clones:
        names[name] += 1
    return ", ".join(f"{count} {name}" for name, count in names.items())
