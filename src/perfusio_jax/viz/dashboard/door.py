"""Who stands before the page: signing in and out, and what each may ask."""

import threading
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from perfusio_jax._core import ConfigError
from perfusio_jax._core.text import cut, in_line, shown

from .accounts import Account, fits, read_accounts
from .sessions import FREE_FROM_ONE_PLACE, LONGEST_S, Session, Sessions, Tries
from .settings import PageSettings

COOKIE: Final = "perfusio_session"
_DECOY: Final = f"scrypt$32768$8$3${'00' * 16}${'00' * 32}"
"""Tried where there is no account, which takes as long as a new one; no password fits it."""


class Person(NamedTuple):
    """Somebody who is signed in."""

    account: Account
    session: Session

    def may(self, what: str) -> bool:
        """Whether they may ask for something of a twin."""
        return self.account.may(what)


class Door:
    """Lets people in.

    Args:
        settings: How the page is served.
        say: Told who came and who was turned away.
        monotonic: Clock [s].
    """

    def __init__(
        self,
        settings: PageSettings,
        say: Callable[[str], None],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings, self._say = settings, say
        self.sessions = Sessions(monotonic)
        self._by_name = Tries(monotonic)
        self._by_place = Tries(monotonic, free=FREE_FROM_ONE_PLACE)
        # one at a time: each takes 32 MiB, and nobody guesses faster for asking more at once
        self._one = threading.Lock()

    def person(self, request: Request) -> Person | None:
        """Who is signed in; None if nobody is, or their account is gone or has another password."""
        session = self.sessions.find(request.cookies.get(COOKIE))
        if session is None:
            return None
        try:
            account = read_accounts(self.settings.accounts).get(session.name)
        except ConfigError:
            account = None
        if account is None or account.password != session.password:
            self.sessions.end_all_of(session.name)
            return None
        return Person(account, session)

    def enter(self, name: str, password: str, place: str) -> tuple[str, str]:
        """Sign somebody in.

        Args:
            name: Account.
            password: As it was typed.
            place: Address they come from.

        Returns:
            What their cookie holds, or nothing and why not.
        """
        key = cut(name, 64).casefold()
        wait = max(self._by_name.wait(key), self._by_place.wait(place))
        if wait > 0.0:
            return "", f"Too many failed tries. The next one counts in {wait:.0f} s."
        try:
            account = read_accounts(self.settings.accounts).get(name)
        except ConfigError as error:
            self._say(f"page: nobody can sign in: {error}")
            return "", "The accounts cannot be read; whoever started the page was told why."
        with self._one:
            kept = _DECOY if account is None else account.password
            is_right = fits(password, kept)
        if account is None or not is_right:
            self._by_name.failed(key)
            self._by_place.failed(place)
            self._say(f"page: {in_line(name, 40)} from {shown(place)} was not let in")
            return "", "Name and password do not fit."
        self._by_name.went_well(key)
        token, _ = self.sessions.begin(name, account.password)
        self._say(f"page: {in_line(name, 40)} from {shown(place)} signed in")
        return token, ""

    def leave(self, request: Request, response: Response) -> None:
        """Sign somebody out."""
        self.sessions.end(request.cookies.get(COOKIE))
        response.delete_cookie(COOKIE, **self._cookie())

    def give(self, response: Response, token: str) -> None:
        """Hand over the cookie of a session: no script reads it, no other page sends it."""
        response.set_cookie(COOKIE, token, max_age=int(LONGEST_S), **self._cookie())

    def tell(self, text: str) -> None:
        """Say something to whoever started the page."""
        self._say(f"page: {text}")

    def _cookie(self) -> dict[str, Any]:
        return {
            "path": "/",
            "httponly": True,
            "samesite": "strict",
            "secure": self.settings.is_secure,
        }
