"""What may be asked of a twin from the page: the terminal's commands, and no other way.

Each goes through `twin.loop.commands.send` into the run's inbox; the twin judges it, does it, and
writes both into its audit trail. Towards the twin the account is that of this process; who is
signed in stands beside it, as with `--by`.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from perfusio_jax._core import ConfigError, PerfusioError
from perfusio_jax._core.text import plain_number
from perfusio_jax.twin.loop.commands import is_running, outcomes, send
from perfusio_jax.twin.records.secrets import in_short

from .door import Person
from .guard import form_of
from .pages import Pages, local_path
from .sessions import is_theirs

WHAT: Final = (
    *("acknowledge", "suppress", "approve", "reject"),
    *("manual", "automatic", "arm", "disarm", "stop"),
)
"""What may be asked; `accounts.ROLES` says by whom."""

LONGEST_REASON: Final = 500
"""Characters of a reason."""


class Actions:
    """Answers what is sent by a form.

    Args:
        pages: Where people are led back to.
        wait: Waits [s], while a twin has not answered yet.
    """

    def __init__(self, pages: Pages, *, wait: Callable[[float], object] = time.sleep) -> None:
        self.pages, self.door, self._wait = pages, pages.door, wait

    async def sign_in(self, request: Request) -> Response:
        """Name and password of somebody."""
        form = await form_of(request)
        if form is None:
            return self.pages.told("Not understood", "This is no form of the page.", 400, request)
        name, place = form.get("name", ""), request.client.host if request.client else "nowhere"
        token, why = await run_in_threadpool(self.door.enter, name, form.get("password", ""), place)
        if not token:
            status = 429 if why.startswith("Too many") else 403
            return self.pages.sign_in(request, why=why, name=name[:64], status=status)
        to = request.query_params.get("to", "/")
        answer = RedirectResponse(local_path(to), 303)
        self.door.give(answer, token)
        return answer

    async def sign_out(self, request: Request) -> Response:
        """Somebody goes."""
        form, person = await form_of(request), self.door.person(request)
        if person is None or form is None or not is_theirs(person.session, form.get("csrf", "")):
            return self.pages.told(
                "Not signed out", "You were not signed in, or this form is an old one.", 403,
                request,
            )  # fmt: skip
        answer = RedirectResponse("/", 303)
        self.door.leave(request, answer)
        return answer

    def ask(self, what: str) -> Callable[[Request], Any]:
        """An end point for one thing that may be asked.

        Args:
            what: One of `WHAT`.
        """

        async def answer(request: Request) -> Response:
            form = await form_of(request)
            return await run_in_threadpool(self._ask, what, form, request)

        return answer

    def _ask(self, what: str, form: Mapping[str, str] | None, request: Request) -> Response:
        """Whether it may be asked, and what came of it."""
        person = self.door.person(request)
        if person is None:
            return self._refused("Sign in first; nothing was asked.", 401, request)
        if form is None or not is_theirs(person.session, form.get("csrf", "")):
            text = "This form is an old one, or none of this page; nothing was asked. Load it anew."
            return self._refused(text, 403, request)
        if not self.door.settings.is_armed:
            text = "This page only shows; it was started without --armed. Nothing was asked."
            return self._refused(text, 403, request)
        if not person.may(what):
            text = f"A {person.account.role} may not ask for '{what}'; nothing was asked."
            return self._refused(text, 403, request)
        key = str(request.path_params["key"])
        place = self.pages.watched.place(key)
        if place is None:
            return self._refused("No reactor here has this address.", 404, request)
        self.door.sessions.touch(person.session)
        try:
            role, payload = _asked(what, form, person)
            said = self._send(what, place, person, role=role, payload=payload)
        except (PerfusioError, OSError) as error:
            said = (False, f"{what}: not asked: {in_short(error)}")
        person.session.said.append(said)
        return RedirectResponse(f"/reactor/{key}", 303)

    def _send(
        self, what: str, place: Any, person: Person, *, role: str, payload: Mapping[str, Any]
    ) -> tuple[bool, str]:
        """Ask the twin, and tell what it made of it."""
        folder, reactor_id = place
        name = person.account.name
        sent = send(folder, what, actor=name, role=role, payload=payload, reactor_id=reactor_id)
        self.door.tell(f"{what} of {reactor_id} in {folder.name} asked for by {name} as {role}")
        came_to = outcomes(folder, sent, sleep=self._wait)[reactor_id]
        if came_to == "done":
            return True, f"{what}: done"
        if came_to is not None:
            return False, f"{what}: refused by the twin: {came_to}"
        why = "it has not answered yet" if is_running(folder) else "nothing runs here now"
        return True, f"{what}: left for the twin to carry out ({why})"

    def _refused(self, text: str, status: int, request: Request) -> Response:
        return self.pages.told("Refused", text, status, request)


def _asked(what: str, form: Mapping[str, str], person: Person) -> tuple[str, dict[str, Any]]:
    """Role and details of what is asked.

    Raises:
        ConfigError: If a number or the reason is missing, or the role is not theirs.
    """
    reason = " ".join(form.get("reason", "").split())
    if not reason or len(reason) > LONGEST_REASON or not reason.isprintable():
        raise ConfigError(
            f"a reason is needed, of 1 to {LONGEST_REASON} characters; it goes into the audit trail"
        )
    payload: dict[str, Any] = {"reason": reason, "through": "page"}
    role = person.account.role
    if what in ("acknowledge", "suppress"):
        payload["alarm"] = _number(form, "alarm")
    if what == "suppress":
        try:
            payload["hours"] = plain_number(form.get("hours", ""))
        except ValueError:
            raise ConfigError("how many hours the alarm is silenced for is no number") from None
    if what in ("approve", "reject"):
        payload["decision"] = _number(form, "decision")
        allowed = person.account.approves_as or (role,)
        role = form.get("role", allowed[0])
        if role not in allowed:
            raise ConfigError(f"your account may not approve as {role!r}")
    return role, payload


def _number(form: Mapping[str, str], name: str) -> int:
    text = form.get(name, "")
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise ConfigError(f"the number of the {name} is missing")
    return int(text)
