"""Serves the page until somebody ends it."""

import socket
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from perfusio_jax._core import ConnectorError

from .settings import PageSettings

MOST_AT_ONCE = 200
"""Requests that are answered at once; more are told to come again."""


def serve(app: ASGIApp, settings: PageSettings, *, say: Callable[[str], None]) -> None:
    """Serve the page; Ctrl-C or SIGTERM ends it.

    Args:
        app: The page.
        settings: How it is served.
        say: Told the address.

    Raises:
        ConnectorError: If the address is taken or none of this machine's.
    """
    where = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listening = socket.create_server((settings.host, settings.port), family=where)
    except OSError as error:
        why = (error.strerror or str(error)).partition(" (")[0].lower()
        raise ConnectorError(
            f"the page cannot be served at {settings.host}, port {settings.port}: "
            f"{why}. --port chooses another one, 0 any that is free."
        ) from None
    with listening:
        port = listening.getsockname()[1]
        name = settings.names[0] if settings.names else settings.host
        name = f"[{name}]" if ":" in name else name
        say(f"the page: http{'s' if settings.is_secure else ''}://{name}:{port}/  (Ctrl-C ends it)")
        config = uvicorn.Config(
            app,
            ssl_certfile=settings.certificate,
            ssl_keyfile=settings.private_key,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,  # whoever asks is who asks
            lifespan="off",
            ws="none",
            limit_concurrency=MOST_AT_ONCE,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=3,
        )
        uvicorn.Server(config).run(sockets=[listening])
