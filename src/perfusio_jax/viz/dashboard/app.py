"""The page as an ASGI application: which address leads where."""

from collections.abc import Callable
from importlib import resources
from pathlib import PurePath
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from .actions import WHAT, Actions
from .door import Door
from .guard import Guard
from .pages import Pages
from .settings import PageSettings
from .tables import Tables
from .views import Proposing, Tried, Watched

_KINDS: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def build_app(
    watched: Watched,
    settings: PageSettings,
    *,
    say: Callable[[str], None],
    tried: Tried | None = None,
    proposing: Proposing | None = None,
    **more: Any,
) -> Guard:
    """The whole page.

    Args:
        watched: Where it gets what it shows.
        settings: How it is served.
        say: Told who came, who was turned away, and what was asked.
        tried: Answers what a run would come to under other set-points; None: nobody does.
        proposing: Proposes the next runs of a campaign; None: nobody does.
        more: Clock of the door, `monotonic`.

    Returns:
        An ASGI application; the routes are those of its `app`.
    """
    door = Door(settings, say, **more)
    pages = Pages(watched, door, tried, proposing)
    tables, actions = Tables(pages), Actions(pages)
    pages.prepare()
    at = "/reactor/{key:str}"
    look = [
        ("/", pages.rack),
        ("/campaign", pages.campaign),
        (at, pages.reactor),
        (f"{at}/audit", pages.audit),
        (f"{at}/what-if", pages.what_if),
        (f"{at}/model", pages.model),
        (f"{at}/settings", pages.settings),
        (f"{at}/readings.csv", tables.readings),
        (f"{at}/alarms.csv", tables.alarms),
        (f"{at}/audit.csv", tables.audit),
        ("/sign-in", lambda request: pages.sign_in(request)),
        ("/assets/{name:str}", _asset),
    ]
    ask = [("/sign-in", actions.sign_in), ("/sign-out", actions.sign_out)]
    ask += [(f"{at}/{what}", actions.ask(what)) for what in WHAT]

    async def not_found(request: Request, error: Exception) -> Response:
        return pages.told("Not here", "There is no such page.", 404, request)

    async def not_allowed(request: Request, error: Exception) -> Response:
        return pages.told("Not so", "This address takes no such request.", 405, request)

    async def failed(request: Request, error: Exception) -> Response:
        text = "Nobody foresaw this. It is a fault of the program; its log says where it arose."
        return pages.told("An error", text, 500, request)

    routed = Starlette(
        routes=[
            *(Route(path, end, methods=["GET"]) for path, end in look),
            *(Route(path, end, methods=["POST"]) for path, end in ask),
        ],
        exception_handlers={404: not_found, 405: not_allowed, Exception: failed},
    )
    return Guard(routed, hosts=settings.allowed_hosts, is_secure=settings.is_secure)


def _asset(request: Request) -> Response:
    """A file that comes with the program; others are not there."""
    name = str(request.path_params["name"])
    kind = _KINDS.get(PurePath(name).suffix)
    folder = resources.files("perfusio_jax.viz.dashboard") / "assets"
    known = {found.name for found in folder.iterdir()}
    if kind is None or name not in known:
        return PlainTextResponse("There is no such file.\n", 404)
    content = (folder / name).read_bytes()
    return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})
