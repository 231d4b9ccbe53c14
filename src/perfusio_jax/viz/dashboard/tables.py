"""What can be taken along: readings, alarms and audit trail as CSV that runs no formula."""

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from perfusio_jax._core.text import shown
from perfusio_jax.twin.records.files import neutralise
from perfusio_jax.twin.records.secrets import redact

from .pages import Pages
from .views import Reactor

_ALARMS: Final = ("id", "name", "severity", "message", "raised_at", "last_at", "times",
                  "acknowledged_by", "suppressed_until", "cleared_at")  # fmt: skip
_EVENTS: Final = ("seq", "timestamp", "run_id", "event_type", "day", "user", "role", "reason")


class Tables:
    """Answers with CSV.

    Args:
        pages: Where the same is shown.
    """

    def __init__(self, pages: Pages) -> None:
        self.pages = pages

    def readings(self, request: Request) -> Response:
        """Readings and set-points, with a row of units."""

        def rows(r: Reactor) -> Iterable[Sequence[Any]]:
            names = [*r.run.readings, *r.run.set_points]
            yield ("time_h", *names)
            yield ("h", *(r.units.get(n, "") for n in names))
            columns = [*r.run.readings.values(), *r.run.set_points.values()]
            for k, hour in enumerate(r.run.hours):
                yield (float(hour), *(float(column[k]) for column in columns))

        return self._answer(request, "readings", rows)

    def alarms(self, request: Request) -> Response:
        """All alarms there ever were."""

        def rows(r: Reactor) -> Iterable[Sequence[Any]]:
            yield _ALARMS
            for alarm in sorted(r.alarms, key=lambda a: a.id):
                yield tuple(getattr(alarm, name) for name in _ALARMS)

        return self._answer(request, "alarms", rows)

    def audit(self, request: Request) -> Response:
        """The audit trail, where it is intact; the file itself is the record."""
        key = str(request.path_params["key"])

        def rows(r: Reactor) -> Iterable[Sequence[Any]]:
            yield (*_EVENTS, "payload")
            trail = self.pages.watched.trail(key, text="", kind="", first=0, most=10**6)
            for event in reversed(() if trail is None else trail.records):
                yield (*(event.get(n) for n in _EVENTS), json.dumps(event.get("payload")))

        return self._answer(request, "audit", rows)

    def _answer(self, request: Request, what: str, rows: Any) -> Response:
        door = self.pages.door
        if door.settings.needs_sign_in and door.person(request) is None:
            return PlainTextResponse("Sign in first.\n", 401)
        reactor = self.pages.watched.reactor(str(request.path_params["key"]))
        if reactor is None:
            return PlainTextResponse("No reactor here has this address.\n", 404)
        name = f"{what}-{reactor.key}.csv"
        return Response(
            csv_text(rows(reactor)),
            media_type="text/csv; charset=utf-8",
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV; text a spreadsheet would run gets an apostrophe, what is missing is empty.

    Args:
        rows: Headings first.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        writer.writerow([_cell(value) for value in row])
    return text.getvalue()


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return neutralise(shown(redact(value))) if isinstance(value, str) else value
