"""The page of a campaign and the page of a database, without a browser."""

import asyncio
import datetime as dt
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from perfusio_jax._core import ConfigError
from perfusio_jax.cli import main
from perfusio_jax.connectors import SQLStore
from perfusio_jax.report.watching_sql import WatchingSQL
from perfusio_jax.twin import AuditLogger
from perfusio_jax.twin.records.chain import records as records_of
from perfusio_jax.twin.records.forecasts_made import Step, packed
from perfusio_jax.viz.dashboard.app import build_app
from perfusio_jax.viz.dashboard.fronts import front_chart
from perfusio_jax.viz.dashboard.settings import PageSettings
from perfusio_jax.viz.dashboard.views import Campaign, NoRuns, PastRun, Proposal
from tests.connectors.postgres import Server
from tests.viz.test_dashboard_page import BAD, LOCAL, Page

UNITS = {"perfusion_rate": "vvd", "temperature": "degC"}
GOALS = {"final Titer [mg/L]": 1.0, "final Amm [mmol/L]": -1.0}


def campaign(without=(), refused=(), *, goals=GOALS, names=("E1", "E2", BAD)) -> Campaign:
    """A campaign that is proposed for."""
    values = dict(zip(goals, (300.0, 6.0), strict=False))
    runs = [
        PastRun(name, "X", 8, name in without,
                {} if name in without else {n: v + k for n, v in values.items()})
        for k, name in enumerate(names)
    ]  # fmt: skip
    proposals = [
        Proposal(str(k + 1), {"perfusion_rate": 1.25 + k, "temperature": 36.5},
                 {n: (v + 10 * k, v - 1.0, v + 11.0 * (k + 1)) for n, v in values.items()},
                 (0.9, 1.0))
        for k in range(2)
    ]  # fmt: skip
    words = ["final Titer [mg/L]: best expected", f"run {BAD}"]
    return Campaign(
        "runs.csv", "ready", "", runs, proposals, UNITS, goals, ("Via >= 90", "Amm <= 5"), words,
        tuple(refused), 3.2, "" if refused else "perfusio-jax propose runs.csv",
    )  # fmt: skip


class Asked:
    """Answers at the second time of asking."""

    def __init__(self) -> None:
        self.asked: list = []

    def version(self) -> str:
        return "1"

    def __call__(self, without, refused, /) -> Campaign:
        self.asked.append((list(without), [list(r) for r in refused]))
        if len(self.asked) == 1:
            return Campaign("runs.csv", "working", "is being searched", units=UNITS)
        return campaign(without, refused)


def test_goals_stand_with_their_units_as_people_write_them(tmp_path):
    cells = {"final VCD [1e6 cells/mL]": 1.0}

    def proposing(without, refused, /) -> Campaign:
        return campaign(without, refused, goals=cells)

    proposing.version = lambda: "1"
    text = client_of(NoRuns(), tmp_path, proposing=proposing).get("/campaign").text
    heads = [head.split("<small>")[0] for head in re.findall(r'scope="col"[^>]*>([^\n]*)', text)]
    assert sum("final VCD [10⁶ cells/mL]" in head for head in heads) == 2  # of both tables
    assert "final VCD [10⁶ cells/mL]" in front_chart(campaign(goals=cells))
    assert "1e6" not in text + front_chart(campaign(goals=cells))


def client_of(watched, tmp_path, **more) -> TestClient:
    app = build_app(watched, PageSettings(tmp_path / "nobody.toml"), say=print, **more)
    return TestClient(app, base_url=LOCAL, follow_redirects=False, client=("127.0.0.1", 50000))


def test_the_next_runs_are_shown_and_what_is_left_out_stands_in_the_address(tmp_path):
    asked = Asked()
    client = client_of(NoRuns(), tmp_path, proposing=asked)
    assert client.get("/").headers["location"] == "/campaign"
    first = client.get("/campaign")
    assert "is being searched" in Page(first.text).text
    assert 'data-version="unfinished"' in first.text
    answer = client.get("/campaign")
    page = Page(answer.text)
    assert "Campaign runs.csv" in page.text and 'data-version="unfinished"' not in answer.text
    assert BAD not in answer.text and "alert(" in page.text  # as text
    assert "temperature °C" in " ".join(page.text.split()) and "degC" not in page.text
    link = re.search(r'<a href="([^"]*)"[^>]*>not this one', answer.text)
    assert link is not None and link[1] == "/campaign?not=1.25%2C36.5"
    client.get(f"{link[1]}&without=E1")
    assert asked.asked[-1] == (["E1"], [[1.25, 36.5]])
    told = Page(client.get(f"{link[1]}&without=E1").text)
    boxes = {a["value"]: "checked" in a for a in told.all("input") if a.get("type") == "checkbox"}
    assert boxes == {"E1": True, "E2": False, BAD: False}
    assert {"type": "hidden", "name": "not", "value": "1.25,36.5"} in told.all("input")
    back = [a["href"] for a in told.all("a") if a["href"].startswith("/campaign")]
    assert back[-1] == "/campaign?without=E1"


@pytest.mark.parametrize("text", ["x", "1,nan", "1,,2", "1e999", "1," * 3000])
def test_an_address_with_no_recipe_in_it_refuses_none(tmp_path, text):
    asked = Asked()
    client = client_of(NoRuns(), tmp_path, proposing=asked)
    assert client.get("/campaign", params={"not": text}).status_code == 200
    assert asked.asked == [([], [])]


def test_nothing_but_looking_leads_to_a_campaign_and_without_one_there_is_none(tmp_path):
    client = client_of(NoRuns(), tmp_path, proposing=Asked())
    assert client.post("/campaign", data={"without": "E1"}).status_code in (403, 405)
    bare = client_of(NoRuns(), tmp_path)
    assert bare.get("/campaign").status_code == 404


def test_the_chart_says_in_words_what_it_shows_and_joins_what_nothing_beats():
    found = campaign()
    beaten = PastRun("E9", "X", 8, False, dict(zip(GOALS, (299.0, 9.0), strict=True)))
    chart = front_chart(found._replace(runs=[*found.runs, beaten]))
    assert "final Amm [mmol/L] against final Titer [mg/L]: 4 runs so far, 2 proposed" in chart
    assert chart.count('class="past"') == 4 and chart.count('class="new"') == 2
    line = re.search(r'class="best" d="M([^"]+)"', chart)
    assert line is not None and "5 of them no other run beats" in chart
    one = front_chart(campaign(goals={"final Titer [mg/L]": 1.0}))
    assert "of 3 runs so far and of 2 proposed, expected from 300 to 310" in one
    bars = re.findall(r'class="bar" d="M([\d.]+) [\d.]+L[\d.]+ ([\d.]+)"', one)
    names = re.findall(r'class="t strong" x="([\d.]+)" y="([\d.]+)"', one)
    assert len(names) == len(bars) == 2
    for (x, top), (at, y) in zip(bars, names, strict=True):
        assert at == x and float(y) < float(top), "a number stands above its bar, not on the next"
    assert front_chart(Campaign("x", "none", "nothing")) == ""


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url(request, tmp_path_factory) -> Iterator[str]:
    """A database with two vessels, one with a copy of an audit trail."""
    folder = tmp_path_factory.mktemp("sql")
    if request.param == "sqlite":
        yield filled(f"sqlite:///{folder / 'site.db'}", folder)
        return
    server: Server = request.getfixturevalue("postgres")
    name = server.create_database()
    yield filled(server.url(name), folder)
    server.drop_database(name)


def filled(url: str, folder: Path) -> str:
    """The same database, with runs."""
    store = SQLStore(url, "EXP1", "R1")
    store.create_tables()
    for day in range(4):
        store.write_sample(day, {"VCD": 2.0 + day, "Via": 98.0, "Glc": 5.0 - day})
    asyncio.run(store.write_setpoints({"bleed_rate": 0.12}, day=1, time_h=24.0, reason="so"))
    trail = folder / "trail"
    trail.mkdir()
    with AuditLogger(trail, "EXP1", clock=lambda: dt.datetime(2026, 3, 1, tzinfo=dt.UTC)) as audit:
        audit.log("SESSION_STARTED", {"mode": "frozen"}, day=0, user="ada")
        audit.log("DECISION_MADE", {
            "action": "write", "decision": 1, "reasons": [f"because {BAD}"],
            "recommended": {"temperature": 35.0},
        }, day=2, old={"temperature": 36.5}, new={"temperature": 35.0})  # fmt: skip
    store.mirror_audit(list(records_of((trail / "audit.jsonl").read_bytes())))
    alarm = {"day": 2, "species": "Glc", "severity": "critical", "message": "Glc is 0.2"}
    for state in ("raised", "acknowledged"):
        store.log_alarm("EXP1", alarm, key="a", state=state, user="ann",
                        happened_at=dt.datetime(2026, 3, 3, tzinfo=dt.UTC))  # fmt: skip
    store.log_alarm("EXP1", {**alarm, "species": "Via", "message": "Via low"}, key="b")
    ahead = [Step(day, day + h, "VCD", (day, day + h, day + 9.0)) for day in (1, 2) for h in (1, 2)]
    assert store.mirror_forecasts("EXP1", packed(ahead).values()) == 2
    assert store.mirror_forecasts("EXP1", packed(ahead).values()) == 0
    add_sample(url, "R2", 0, 1.0)
    store.database.close()
    return url


def add_sample(url: str, reactor: str, day: int, cells: float) -> None:
    store = SQLStore(url, "EXP1", reactor)
    store.write_sample(day, {"VCD": cells})
    store.database.close()


def test_runs_of_a_database_are_shown_and_not_commanded(url, tmp_path):
    held = WatchingSQL(url)
    rack = held.rack()
    assert [(r.run_id, r.name) for r in rack.reactors] == [("EXP1", "R1"), ("EXP1", "R2")]
    one = rack.reactors[0]
    assert list(one.run.hours) == [0.0, 24.0, 48.0, 72.0]
    assert list(one.run.readings["Glc"]) == [5.0, 4.0, 3.0, 2.0]
    assert list(one.run.bands) == ["VCD"]
    band = one.run.bands["VCD"]
    assert list(band.hours) == [48.0, 72.0, 96.0] and list(band.middle) == [2.0, 3.0, 4.0]
    bleed = one.run.set_points["bleed_rate"]
    assert str(bleed[0]) == "nan" and list(bleed[1:]) == [0.12] * 3
    assert [(a.message, a.acknowledged_by) for a in one.alarms] == [
        ("Via low", None),
        ("Glc is 0.2", "ann"),
    ]
    (decision,) = one.decisions
    assert decision.changes == ["temperature 36.5 → 35 °C"] and decision.day == 2.0
    client = client_of(held, tmp_path)
    shown = client.get("/").text
    assert "in a database" in shown and "running" not in Page(shown).text.split("want a person")[1]
    at = f"/reactor/{one.key}"
    for path in (at, f"{at}/audit", f"{at}/model", f"{at}/settings", f"{at}/readings.csv"):
        answer = client.get(path)
        assert answer.status_code == 200 and BAD not in answer.text, path
    told = Page(client.get(f"{at}/audit").text).text
    assert "A copy of an audit trail" in told and "2 records found" in " ".join(told.split())
    assert "verify-audit runs" not in told
    assert client.post(f"{at}/stop", data={"reason": "x"}).status_code in (401, 403)
    held.close()


def test_a_database_is_read_anew_when_a_row_was_added_and_troubles_are_told(url, tmp_path):
    held = WatchingSQL(url)
    before, seen = held.version(), held.rack()
    assert held.version() == before and held.rack().reactors[0] is seen.reactors[0]
    add_sample(url, "R2", 1, 1.6)
    assert held.version() != before
    assert list(held.rack().reactors[1].run.readings["VCD"]) == [1.0, 1.6]
    assert held.rack().reactors[0] is seen.reactors[0], "nothing of it was added"
    held.close()
    with pytest.raises(SystemExit) as stop:
        main(["dashboard", f"sqlite:///{tmp_path / 'none.db'}"])
    assert stop.value.code


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("sqlite:///x.db", "--armed"), "--armed is of run folders"),
        ((), "there is nothing to show"),
        (("http://x/y",), "kind 'http' is not supported"),
        (("--campaign", "runs.csv", "--goal-file", "none.toml"), "none.toml"),
    ],
)
def test_what_cannot_be_shown_is_refused_before_it_is_served(
    words, says, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    from perfusio_jax.viz.dashboard.accounts import Account, hashed, write_accounts

    accounts = tmp_path / "accounts.toml"
    write_accounts(accounts, {"a": Account("a", "viewer", (), hashed("x" * 12, cost=(16, 8, 1)))})
    with pytest.raises(SystemExit) as stop:
        main(["dashboard", *words, "--accounts", str(accounts)])
    said = " ".join(capsys.readouterr().err.split())
    assert stop.value.code and says in said, said


def test_the_database_itself_refuses_a_url_with_a_password():
    with pytest.raises(ConfigError, match="holds a password"):
        WatchingSQL("postgresql://ada:hunter2@host/db")
