"""The pages one looks at, in parts: a browser that has most of them is sent the others."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import jinja2
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

import perfusio_jax
from perfusio_jax._core.text import plain_number, shown, shown_unit, shown_units
from perfusio_jax.twin.records.secrets import redact

from ..runs import RunView
from .accounts import ROLES
from .campaign_links import allowing, recipe_of, recipe_text, refusing
from .charts import control_chart, last_reading, reading_chart, run_clock, spark
from .door import Door, Person
from .fronts import front_chart, goals_of
from .views import (
    NoRuns,
    Option,
    Proposing,
    Rack,
    Reactor,
    Trial,
    Tried,
    Watched,
)

HAVE: Final = "x-have"
"""Header in which a browser says which parts it has: "version;id=hash,id=hash"."""
PER_PAGE: Final = 50
"""Records of an audit trail on a page."""
_MOST_SEARCH: Final = 200

Parts = Sequence[tuple[str, str]]
"""Names of parts and their markup, in order."""


class Words(NamedTuple):
    """What stands in the head of a page."""

    title: str
    here: str
    """Which of the links above is this one."""


class Pages:
    """Draws what is watched.

    Args:
        watched: Where it comes from.
        door: Who is signed in.
        tried: Answers what a run would come to; None where nobody does.
        proposing: Proposes the next runs of a campaign; None where nobody does.
    """

    def __init__(
        self,
        watched: Watched,
        door: Door,
        tried: Tried | None = None,
        proposing: Proposing | None = None,
    ) -> None:
        self.watched, self.door, self.tried, self.proposing = watched, door, tried, proposing
        self._cards: dict[str, tuple[Reactor, str]] = {}
        self._charts: dict[str, tuple[Reactor, str]] = {}
        self.env = jinja2.Environment(
            loader=jinja2.PackageLoader("perfusio_jax.viz.dashboard"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=_fit,
        )
        self.env.filters |= {
            "number": number_text, "when": _when, "unit": shown_unit, "told_apart": told_apart,
            "json_text": _json_text, "recipe_text": recipe_text, "units": shown_units,
        }  # fmt: skip
        self.env.globals |= {
            "is_armed": door.settings.is_armed,
            "last_reading": last_reading,
            "needs_sign_in": door.settings.needs_sign_in,
            "has_what_if": tried is not None,
            "has_campaign": proposing is not None,
            "has_runs": not isinstance(watched, NoRuns),
        }

    def prepare(self) -> None:
        """Draw what takes long the first time before somebody waits for it."""
        for reactor in self.watched.rack().reactors:
            self._card(reactor)

    # ------------------------------------------------------------------ pages

    def rack(self, request: Request) -> Response:
        """Everything there is, what wants a person first."""
        if isinstance(self.watched, NoRuns):
            return RedirectResponse("/campaign", 303)

        def parts(person: Person | None) -> tuple[Words, Parts, int]:
            rack = self.watched.rack()
            found = [("summary", self._draw("rack_summary.html", rack=rack, **_counts(rack)))]
            found += [(f"card-{r.key}", self._card(r)) for r in rack.reactors]
            for gone in set(self._cards) - {r.key for r in rack.reactors}:
                self._cards.pop(gone, None)
                self._charts.pop(gone, None)
            return Words(f"Reactors of {rack.title}", "rack"), found, 200

        return self._answer(request, parts)

    def reactor(self, request: Request) -> Response:
        """One vessel: readings, forecast, set-points, alarms, decisions."""
        reactor, key = None, str(request.path_params["key"])

        def parts(person: Person | None) -> tuple[Words, Parts, int]:
            nonlocal reactor
            reactor = self.watched.reactor(key)
            if reactor is None:
                return self._nothing()
            more = {"r": reactor, "person": person, "may": _rights(self.door, person)}
            found = [
                ("state", self._draw("reactor_state.html", **more)),
                ("waiting", self._draw("reactor_waiting.html", **more)),
                ("alarms", self._draw("reactor_alarms.html", **more)),
                ("charts", self._chart_part(reactor)),
                ("decisions", self._draw("reactor_decisions.html", **more)),
                ("commands", self._draw("reactor_commands.html", **more)),
            ]
            return Words(f"Reactor {reactor.name}", "reactor"), found, 200

        return self._answer(request, parts, reactor_of=lambda: reactor)

    def audit(self, request: Request) -> Response:
        """The audit trail of a run: how it stands, and a search."""
        reactor, key = None, str(request.path_params["key"])
        text = request.query_params.get("text", "")[:_MOST_SEARCH]
        kind = request.query_params.get("kind", "")[:_MOST_SEARCH]
        first = _whole(request.query_params.get("first", "0"))

        def parts(person: Person | None) -> tuple[Words, Parts, int]:
            nonlocal reactor
            reactor = self.watched.reactor(key)
            trail = self.watched.trail(key, text=text, kind=kind, first=first, most=PER_PAGE)
            if reactor is None or trail is None:
                return self._nothing()
            more = {"r": reactor, "trail": trail, "text": text, "kind": kind, "first": first}
            found = [
                ("chain", self._draw("audit_chain.html", **more)),
                ("search", self._draw("audit_search.html", **more)),
                ("records", self._draw("audit_records.html", most=PER_PAGE, **more)),
            ]
            return Words(f"Audit trail of {reactor.name}", "audit"), found, 200

        return self._answer(request, parts, reactor_of=lambda: reactor)

    def model(self, request: Request) -> Response:
        """What is known of a vessel's model."""
        return self._tables(request, "model", "Model of", self.watched.model)

    def what_if(self, request: Request) -> Response:
        """What a vessel would come to under other set-points."""
        reactor, key, is_done = None, str(request.path_params["key"]), [True]
        wanted = {n: float(v) for n, v in request.query_params.items() if _is_number(v)}

        def parts(person: Person | None) -> tuple[Words, Parts, int]:
            nonlocal reactor
            reactor, place = self.watched.reactor(key), self.watched.place(key)
            if reactor is None or place is None or self.tried is None:
                return self._nothing()
            trial = self.tried(*place, wanted)
            is_done[0] = trial.state != "working"
            charts = [
                (n, unit, Markup(reading_chart(view, n, unit, other=trial.unchanged.get(n))))
                for n, unit, view in _views(reactor, trial)
            ]
            found = [
                ("sliders", self._draw("what_if_sliders.html", r=reactor, trial=trial)),
                ("outcome", self._draw("what_if_outcome.html", trial=trial, charts=charts)),
            ]
            return Words(f"What if: {reactor.name}", "what-if"), found, 200

        return self._answer(request, parts, reactor_of=lambda: reactor, is_done=lambda: is_done[0])

    def campaign(self, request: Request) -> Response:
        """The runs of a campaign and the next ones; what is left out stands in the address."""
        is_done = [True]
        asked = request.query_params
        without = [name[:_MOST_SEARCH] for name in asked.getlist("without")]
        refused = [r for r in map(recipe_of, asked.getlist("not")) if r]

        def parts(person: Person | None) -> tuple[Words, Parts, int]:
            if self.proposing is None:
                return self._nothing()
            found = self.proposing(without, refused)
            is_done[0] = found.state != "working"
            more = {"c": found, "goals": goals_of(found), "link": refusing, "back": allowing}
            picture = Markup(front_chart(found))
            drawn = [
                ("next", self._draw("campaign_next.html", picture=picture, **more)),
                ("runs", self._draw("campaign_runs.html", **more)),
                ("words", self._draw("campaign_words.html", **more)),
            ]
            return Words(f"Campaign {found.title}", "campaign"), drawn, 200

        return self._answer(request, parts, is_done=lambda: is_done[0])

    def settings(self, request: Request) -> Response:
        """What a vessel's run was told."""
        return self._tables(request, "settings", "Settings of", self.watched.settings)

    def sign_in(self, request: Request, *, why: str = "", name: str = "", status: int = 200) -> Any:
        """The form one signs in with.

        Args:
            request: What was asked.
            why: Why the last try did not count.
            name: Account of the last try.
            status: Of the answer.
        """
        person = self.door.person(request)
        to = local_path(request.query_params.get("to", "/"))
        content = self._draw("sign_in.html", why=why, name=name, to=to, person=person)
        words = Words("Sign in", "sign-in")
        return self._page(words, [("form", content)], person, None, "", status=status)

    def told(self, title: str, text: str, status: int, request: Request) -> Response:
        """A page of one sentence.

        Args:
            title: Heading.
            text: Sentence.
            status: Of the answer.
            request: What was asked.
        """
        content = self._draw("told.html", text=text)
        person = self.door.person(request)
        return self._page(Words(title, ""), [("told", content)], person, None, "", status=status)

    # ------------------------------------------------------------------ how they are answered

    def _answer(
        self,
        request: Request,
        parts: Callable[[Person | None], tuple[Words, Parts, int]],
        *,
        reactor_of: Callable[[], Reactor | None] = lambda: None,
        is_done: Callable[[], bool] = lambda: True,
    ) -> Response:
        """A whole page, or to a browser that has it what has changed of it.

        Args:
            request: What was asked.
            parts: Draws the page.
            reactor_of: The reactor it is about, once it is drawn.
            is_done: Whether nothing is missing in it that will come by itself.
        """
        person = self.door.person(request)
        have = request.headers.get(HAVE)
        if self.door.settings.needs_sign_in and person is None:
            if have is not None:
                return JSONResponse({"signed_out": True}, 401)
            to = request.url.path
            return RedirectResponse(f"/sign-in?to={to}", 303)
        version = self._version(person)
        if have is not None and have.partition(";")[0] == version:
            return Response(status_code=204)
        words, found, status = parts(person)
        version = version if is_done() else "unfinished"
        if have is not None:
            return JSONResponse(_changed(version, found, have), status)
        if person is not None:
            self.door.sessions.touch(person.session)
        return self._page(words, found, person, reactor_of(), version, status=status)

    def _version(self, person: Person | None) -> str:
        """Changes when something of the page may; of the program and of who looks, too."""
        who = "" if person is None else f"{person.account.name}{person.account.role}"
        runs = "" if self.proposing is None else self.proposing.version()
        text = f"{perfusio_jax.__version__}|{who}|{self.watched.version()}|{runs}"
        return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:20]

    def _page(
        self,
        words: Words,
        parts: Parts,
        person: Person | None,
        reactor: Reactor | None,
        version: str,
        *,
        status: int = 200,
    ) -> Response:
        said: list[tuple[bool, str]] = []
        if person is not None:
            said, person.session.said = person.session.said, []
        text = self._draw(
            "page.html",
            words=words,
            parts=[(name, Markup(markup), _hash(markup)) for name, markup in parts],
            person=person,
            reactor=reactor,
            page_version=version,
            version=perfusio_jax.__version__,
            said=said,
        )
        return HTMLResponse(text, status)

    def _tables(
        self, request: Request, here: str, title: str, read: Callable[[str], Any]
    ) -> Response:
        reactor, key = None, str(request.path_params["key"])

        def parts(person: Person | None) -> tuple[Words, Parts, int]:
            nonlocal reactor
            reactor, tables = self.watched.reactor(key), read(key)
            if reactor is None or tables is None:
                return self._nothing()
            found = [(here, self._draw("tables.html", parts=tables))]
            return Words(f"{title} {reactor.name}", here), found, 200

        return self._answer(request, parts, reactor_of=lambda: reactor)

    def _nothing(self) -> tuple[Words, Parts, int]:
        text = "No reactor here has this address; it may have been moved or renamed."
        return Words("Not here", ""), [("told", self._draw("told.html", text=text))], 404

    def _card(self, reactor: Reactor) -> str:
        kept = self._cards.get(reactor.key)
        if kept is None or kept[0] is not reactor:
            units = reactor.units
            sparks = [
                (n, units.get(n, ""), Markup(spark(reactor.run, n, units.get(n, ""))))
                for n in reactor.key_names
            ]
            clock = run_clock(reactor.run)
            kept = (reactor, self._draw("rack_card.html", r=reactor, sparks=sparks, clock=clock))
            self._cards[reactor.key] = kept
        return kept[1]

    def _chart_part(self, reactor: Reactor) -> str:
        kept = self._charts.get(reactor.key)
        if kept is None or kept[0] is not reactor:
            run, units = reactor.run, reactor.units
            readings = [
                (n, units.get(n, ""), Markup(reading_chart(run, n, units.get(n, ""))))
                for n in run.readings
            ]
            controls = [
                (n, units.get(n, ""), Markup(control_chart(run, n, units.get(n, ""))))
                for n in run.set_points
            ]
            text = self._draw(
                "reactor_charts.html",
                r=reactor,
                readings=readings,
                controls=controls,
                rows=_numbers(reactor),
                clock=run_clock(run),
            )
            kept = (reactor, text)
            self._charts[reactor.key] = kept
        return kept[1]

    def _draw(self, template: str, **values: Any) -> str:
        return self.env.get_template(template).render(**values)


def number_text(value: Any, digits: int = 4) -> str:
    """A number as people read it; a dash for one nobody knows."""
    if not isinstance(value, int | float) or math.isnan(value):
        return "–"
    text = f"{value:.{digits}g}"
    return f"{float(text):.0f}" if "e+" in text and abs(value) < 1e7 else text


def told_apart(options: Sequence[Option], order: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Controls in which options differ, and those that are the same in all.

    Args:
        options: What is compared.
        order: Names in the order of the run.
    """
    every = {name for option in options for name in option.set_points}
    names = [*(n for n in order if n in every), *sorted(every - set(order))]
    shown_as = {n: {number_text(o.set_points.get(n)) for o in options} for n in names}
    other = [n for n in names if len(shown_as[n]) > 1]
    return other, [n for n in names if n not in other]


def _fit(value: Any) -> Any:
    """What a template puts in: nothing secret, nothing a screen obeys; markup of ours as it is."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return shown(redact(value))
    return value


def _json_text(value: Any) -> str:
    """A record as it may be read, its text as it stands."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def _when(text: str) -> Markup:
    """A moment to the second, in one piece."""
    return Markup("<time>{}</time>").format(shown(str(text)[:19].replace("T", " ")))


def _rights(door: Door, person: Person | None) -> frozenset[str]:
    """What the page offers: nothing unless it is armed and somebody is signed in."""
    if not door.settings.is_armed or person is None:
        return frozenset()
    return ROLES[person.account.role]


def _counts(rack: Rack) -> dict[str, int]:
    wanting = [r for r in rack.reactors if r.needs and r.needs[0].rank < 7]
    return {
        "n_wanting": len(wanting) + len(rack.troubles),
        "n_running": sum(r.is_running for r in rack.reactors),
        "n_all": len(rack.reactors),
        "n_held": sum(r.chain.state == "copy" for r in rack.reactors),
    }


def _numbers(reactor: Reactor) -> list[tuple[str, list[str]]]:
    """Hours and values of all readings, row by row, the newest first."""
    run = reactor.run
    columns = [*run.readings.values(), *run.set_points.values()]
    return [
        (f"{float(h):g}", [number_text(float(column[k])) for column in columns])
        for k, h in reversed(list(enumerate(run.hours)))
    ][:400]


def _views(reactor: Reactor, trial: Trial) -> list[tuple[str, str, RunView]]:
    """Quantities that are forecast, those that are looked at first in front, as they would go."""
    run = reactor.run
    read = [n for n in run.readings if n in trial.bands]
    names = dict.fromkeys([*(n for n in reactor.key_names if n in trial.bands), *read])
    return [(n, reactor.units.get(n, ""), run._replace(bands={n: trial.bands[n]})) for n in names]


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(plain_number(text))
    except ValueError:
        return False


def _changed(version: str, parts: Parts, have: str) -> Mapping[str, Any]:
    """Order of all parts, and the markup of those a browser has not."""
    known = dict(item.split("=", 1) for item in have.partition(";")[2].split(",") if "=" in item)
    new = {
        name: {"hash": _hash(markup), "html": markup}
        for name, markup in parts
        if known.get(name) != _hash(markup)
    }
    return {
        "version": version,
        "program": perfusio_jax.__version__,
        "order": [name for name, _ in parts],
        "parts": new,
    }


def _hash(markup: str) -> str:
    return hashlib.sha256(markup.encode("utf-8", "replace")).hexdigest()[:12]


def local_path(to: str) -> str:
    """Where to go after signing in: a page of ours, never one elsewhere.

    Args:
        to: As an address asks for.
    """
    is_ours = to.startswith("/") and not to.startswith(("//", "/\\")) and to.isprintable()
    return to if is_ours and "\\" not in to else "/"


def _whole(text: str) -> int:
    return min(int(text), 10**9) if text.isascii() and text.isdigit() and len(text) < 10 else 0
