"""What stands before every answer: names it is asked under, forms from elsewhere, headers."""

from collections.abc import Sequence
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
"""What a browser may load and do: our own files, nothing written into the page."""

HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # a form's Origin is told to ourselves; with no-referrer it would be null
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
"""Sent with every answer."""

FORM_BYTES: Final = 16_384
"""A form has no more bytes."""
FORM_FIELDS: Final = 20
"""And no more fields."""


class Guard:
    """ASGI middleware in front of the page.

    Args:
        app: The page.
        hosts: Names it may be asked under, without port.
        is_secure: Whether it is served over TLS.
    """

    def __init__(self, app: Starlette, *, hosts: Sequence[str], is_secure: bool) -> None:
        self.app = app
        self.hosts = frozenset(name.casefold() for name in hosts)
        self.more = {"Strict-Transport-Security": "max-age=31536000"} if is_secure else {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse."""
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                out = MutableHeaders(scope=message)
                for name, value in {**HEADERS, **self.more}.items():
                    out[name] = value
                if "cache-control" not in out:
                    out["Cache-Control"] = "no-store"
            await send(message)

        why = self._refusal(scope, headers)
        if why:
            await PlainTextResponse(why, status_code=400)(scope, receive, sent)
            return
        await self.app(scope, receive, sent)

    def _refusal(self, scope: Scope, headers: Headers) -> str:
        """Why a request is not answered; empty if it is."""
        host = headers.get("host", "")
        if host_name(host) not in self.hosts:
            return "This page is not known under that name; --name adds one.\n"
        if scope["method"] in ("GET", "HEAD"):
            return ""
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return "This form was sent by a page elsewhere.\n"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.casefold() != host.casefold():
            return "This form was sent by a page elsewhere.\n"
        return ""


def host_name(host: str) -> str:
    """The name in a Host header, without its port."""
    name, colon, port = host.casefold().rpartition(":")
    return name if colon and port.isdigit() else host.casefold()


async def form_of(request: Request) -> dict[str, str] | None:
    """Fields of a form; None if it is too large or no form.

    Args:
        request: With a body as browsers encode forms.
    """
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > FORM_BYTES:
            return None
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        return None
    try:
        pairs = parse_qsl(body.decode("ascii"), max_num_fields=FORM_FIELDS, keep_blank_values=True)
    except ValueError:
        return None
    return dict(pairs)
