"""The page in a real browser over days: a live run over OPC UA, two people, odd places, axe."""

import asyncio
import contextlib
import importlib.util
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import perfusio_jax
from perfusio_jax.report.run_record import read_records
from perfusio_jax.twin import verify_audit
from perfusio_jax.twin.records.accounts import account
from perfusio_jax.viz.dashboard.accounts import Account, hashed, write_accounts
from perfusio_jax.viz.dashboard.settings import PageSettings
from tests.connectors.opcua_campaign import Campaign
from tests.faults.world import read_log
from tests.report.run_folders import make_run
from tests.viz.browser import find, nameless, no_errors, served, text, to_reactor, until
from tests.viz.page_folders import add_alarm, add_waiting, attended, dressed_run, later
from tests.viz.test_dashboard_browser import BAD, PASSWORD
from tests.viz.test_dashboard_campaign import Asked

N_DAYS = 10
SECONDS_PER_DAY = 3.0


def axe_script() -> str:
    """axe-core, as a package for Python brings it along; empty where there is none."""
    for package in ("axe_selenium_python", "axe_playwright_python"):
        found = importlib.util.find_spec(package)
        for place in (found.submodule_search_locations or ()) if found is not None else ():
            for script in sorted(Path(place).rglob("axe.min.js")):
                return script.read_text(encoding="utf-8")
    return ""


@pytest.fixture(scope="module")
def axe() -> str:
    script = axe_script()
    if not script:
        pytest.skip("axe-core is not there: pip install axe-selenium-python")
    return script


def serious(driver, script: str) -> list[str]:
    """What axe-core finds on a page that keeps somebody from using it."""
    # by the protocol of the browser: the page itself takes no script from elsewhere
    driver.execute_cdp_cmd("Runtime.evaluate", {"expression": script})
    told = driver.execute_async_script(
        "axe.run(document, {resultTypes: ['violations']}).then(arguments[0])"
    )
    return [
        f"{v['id']} ({v['impact']}): {v['help']}: {n['html'][:160]}"
        for v in told["violations"]
        if v["impact"] in ("serious", "critical")
        for n in v["nodes"]
    ]


@contextlib.contextmanager
def seen_as(driver, *, width: int = 1440, is_dark: bool = False) -> Iterator[None]:
    """A window of a width, by day or by night."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    try:
        yield
    finally:
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def people(place: Path) -> PageSettings:
    """Two who may approve, each in a role of their own, and one in both; the page is armed."""
    cheap = hashed(PASSWORD, cost=(2**4, 8, 1))
    path = place.parent / "people.toml"
    write_accounts(path, {
        "ann": Account("ann", "operator", ("operator",), cheap),
        "quentin": Account("quentin", "supervisor", ("qa",), cheap),
        "both": Account("both", "supervisor", ("operator", "qa"), cheap),
    })  # fmt: skip
    return PageSettings(path, is_armed=True, port=0)


def sign_in(driver, url: str, name: str) -> None:
    driver.get(f"{url}/sign-in")
    find(driver, "input[name=name]").send_keys(name)
    find(driver, "input[name=password]").send_keys(PASSWORD)
    find(driver, "form.sign button").click()
    until(lambda: name in text(driver, "header.top"), f"{name} is signed in")


def sign_out(driver) -> None:
    find(driver, "header.top form button").click()
    until(lambda: "Sign in" in text(driver, "header.top"), "signed out")


# ------------------------------------------------------------------ ten days over OPC UA


class Watched(Campaign):
    """A campaign without faults whose loops a browser looks at."""

    def promise(self) -> None:
        """Live through the days in a thread of its own."""
        self.fates: dict[str, Any] = {}
        self.thread = threading.Thread(target=lambda: asyncio.run(self._live()), daemon=True)
        self.thread.start()

    async def _live(self) -> None:
        await self.start()
        try:
            self.fates = await self.loops(self.port)
        finally:
            await self.stop()


def test_a_run_over_opcua_is_followed_for_ten_days_with_the_page_open(driver, tmp_path):
    place = tmp_path / "rack"
    place.mkdir()
    run = Watched(place, 2, N_DAYS, SECONDS_PER_DAY, seed=3, kinds=())
    run.promise()
    with served(place, None) as url:
        driver.get(url)
        until(
            lambda: len(driver.find_elements("css selector", ".card h2 a")) == 2, "both are there"
        )
        to_reactor(driver, url, "R01")
        shown = set()

        def is_over() -> bool:
            told = text(driver)
            shown.update(d for d in range(N_DAYS) if f"last day {d} " in told)
            return f"{N_DAYS} days closed" in told and "not running" in told

        until(is_over, "all days are closed")
        run.thread.join(60)
        assert {name: fate.ending for name, fate in run.fates.items()} == {
            "R01": "completed", "R02": "completed",
        }  # fmt: skip
        assert len(shown) > N_DAYS // 2, shown  # not the end alone: it renews itself as days go
        until(lambda: "The audit trail verifies" in text(driver), "verified")
        (record,) = read_records(place, "R01")
        readings = record.view().readings["VCD"]
        last = f"{float(readings[np.isfinite(readings)][-1]):.4g}"
        figures = driver.find_elements("css selector", "#part-charts figure figcaption")
        told = {f.text.split()[0]: f.text.split()[1] for f in figures}
        assert told["VCD"] == last  # to the digit, as terminal and report have it
        no_errors(driver)
    assert verify_audit(place / "R01").ok


# ------------------------------------------------------------------ two people


def test_two_people_approve_through_the_page_and_one_alone_does_not(driver, tmp_path):
    place = tmp_path / "rack"
    numbers = dressed_run(place / "R01", roles=("operator", "qa"))
    two = {"approvals": ("operator", "qa"), "page_accounts": (account(),),
           "approvers": {"qa": ("page:quentin", "page:both")}}  # fmt: skip
    folder = place / "R01"
    with attended(folder, **two) as attendant, served(place, None, people(place)) as url:

        def vote(name: str, role: str, reason: str) -> str:
            sign_in(driver, url, name)
            to_reactor(driver, url)
            form = find(driver, "#part-waiting form.ask")
            form.find_element("css selector", "input[name=reason]").send_keys(reason)
            for choice in form.find_elements("css selector", "select[name=role] option"):
                if choice.text == role:
                    choice.click()
            form.find_element("css selector", "button.go").click()
            until(lambda: driver.find_elements("css selector", ".said"), "it was answered")
            told = text(driver, ".said")
            sign_out(driver)
            return told

        decision = numbers["decision"]
        assert vote("both", "qa", "looks right") == "approve: done"
        refused = vote("both", "operator", "and again")
        assert "account page:both has voted as qa" in refused and "refused by the twin" in refused
        assert set(attendant._votes[decision]) == {"qa"}
        assert vote("ann", "operator", "feed is fine") == "approve: done"
        assert {r: v for r, (v, _) in attendant._votes[decision].items()} == {
            "qa": "page:both", "operator": "page:ann",
        }  # fmt: skip
        no_errors(driver)
    log = [r for r in read_log(folder) if r["event_type"] == "COMMAND_APPROVE"][-3:]
    assert [(r["payload"]["says_to_be"], r["role"], r["payload"]["outcome"]) for r in log] == [
        ("both", "qa", "done"), ("both", "operator", log[1]["payload"]["outcome"]),
        ("ann", "operator", "done"),
    ]  # fmt: skip
    assert all(r["user"] == account() and r["payload"]["through"] == "page" for r in log)
    assert verify_audit(folder).ok


# ------------------------------------------------------------------ axe, and odd places


@pytest.fixture(scope="module")
def odd(tmp_path_factory) -> Path:
    """A rack with a name of markup and 300 letters, folders half written, and one of the future."""
    place = tmp_path_factory.mktemp("odd") / "rack"
    dressed_run(place / "R01")
    make_run(place / "odd", run_id=f"E {BAD}", reactor=BAD, reason=BAD, n_days=3)
    whole = make_run(place / "torn", run_id="torn", reactor="R03", n_days=3)
    journal = (whole / "journal.sqlite").read_bytes()
    (whole / "journal.sqlite").write_bytes(journal[: len(journal) // 2])
    begun = make_run(place / "begun", run_id="begun", reactor="R04", n_days=3)
    trail = (begun / "audit.jsonl").read_bytes()
    (begun / "audit.jsonl").write_bytes(trail[:-40])
    (begun / "forecasts.parquet").write_bytes(b"PAR1 and no more")
    empty = place / "empty"
    empty.mkdir()
    (empty / "journal.sqlite").write_bytes(b"")
    return place


@pytest.mark.parametrize("is_dark", [False, True])
@pytest.mark.parametrize("width", [390, 1440])
def test_axe_finds_nothing_serious_on_any_page(driver, axe, odd, width, is_dark):
    asked = Asked()
    asked("", "")  # the first answer is that it is being searched
    with (
        served(odd, None, people(odd), proposing=asked) as url,
        seen_as(driver, width=width, is_dark=is_dark),
    ):
        sign_in(driver, url, "quentin")
        to_reactor(driver, url)
        base = driver.current_url
        strange = [
            a.get_attribute("href")
            for a in (driver.get(url), *driver.find_elements("css selector", ".card h2 a"))
            if a is not None
        ]
        paths = [url, *strange, *(f"{base}/{name}" for name in ("audit", "model", "settings"))]
        paths += [f"{url}/{p}" for p in ("campaign?without=E1&not=1.25,36.5", "sign-in", "no")]
        for path in paths:
            driver.get(path)
            assert serious(driver, axe) == [], path
            inside = "return document.documentElement.scrollWidth <= window.innerWidth"
            assert driver.execute_script(inside), path
            assert nameless(driver) == [], path
        driver.get_log("browser")  # that there is no such page stands there
        sign_out(driver)


def test_folders_that_are_half_written_are_told_and_names_are_text(driver, odd):
    with served(odd, None) as url:
        driver.get(url)
        told = text(driver)
        assert "torn" in told and "It cannot be read" in told
        assert "<img src=x onerror" in told and driver.title == "Reactors of rack"
        cards = [a.text for a in driver.find_elements("css selector", ".card h2 a")]
        assert {"R01", "R04"} <= set(cards) and len(cards) == 3
        to_reactor(driver, url, "R04")
        until(lambda: "does NOT verify" in text(driver), "the cut trail is told")
        assert "Left out: forecasts.parquet cannot be read" in text(driver)
        no_errors(driver)


def test_two_hundred_reactors_are_shown_and_stay_quick(driver, tmp_path):
    place = tmp_path / "rack"
    make_run(place / "R000", run_id="E0", reactor="R000", n_days=3)
    for k in range(1, 200):
        shutil.copytree(place / "R000", place / f"R{k:03d}")
    with served(place, None) as url:
        driver.get(url)
        assert len(driver.find_elements("css selector", ".card")) == 200
        until(lambda: "In touch with the server" in text(driver, "#live"), "in touch")
        inside = "return document.documentElement.scrollWidth <= window.innerWidth"
        assert driver.execute_script(inside)
        add_alarm(place / "R117", "R000", run_id="E0", severity="critical",
                  message="Glc is 0.2 g/L", clock=later())  # fmt: skip
        until(lambda: "critical alarm nobody has seen" in find(driver, ".card").text,
              "the one that wants a person comes first")  # fmt: skip
        no_errors(driver)


def test_a_tab_left_open_over_an_upgrade_loads_itself_and_keeps_what_is_being_written(
    driver,
    tmp_path,
    monkeypatch,
):
    place = tmp_path / "rack"
    dressed_run(place / "R01")
    with served(place, None, people(place)) as url:
        sign_in(driver, url, "ann")
        to_reactor(driver, url)
        until(lambda: "In touch with the server" in text(driver, "#live"), "in touch")
        before = perfusio_jax.__version__
        typed = find(driver, ".alarm.warning input[name=reason]")
        typed.send_keys("half a sen")
        monkeypatch.setattr(perfusio_jax, "__version__", "9.9.9")
        look = "return document.body.dataset.program"
        add_waiting(place / "R01", "R01", run_id="E1", day=6, clock=later(600))
        until(lambda: "day 6" in text(driver, "#part-waiting"), "it goes on renewing")
        assert driver.execute_script(look) == before
        assert typed.get_attribute("value") == "half a sen"
        typed.clear()
        driver.execute_script("document.activeElement.blur()")
        until(lambda: driver.execute_script(look) == "9.9.9", "loaded itself")
        no_errors(driver)


def test_the_next_runs_are_refused_and_left_out_in_a_browser(driver, tmp_path):
    place = tmp_path / "rack"
    make_run(place / "R01", n_days=2)
    asked = Asked()
    with served(place, None, proposing=asked) as url:
        driver.get(url)
        find(driver, "header.top").find_element("link text", "Campaign").click()
        assert "is being searched" in text(driver)
        until(lambda: "not this one" in text(driver), "it comes by itself")
        find(driver, "#part-next").find_element("link text", "not this one").click()
        until(lambda: "Not wanted" in text(driver), "refused")
        find(driver, "input[name=without][value=E2]").click()
        find(driver, "#part-runs button.go").click()
        until(lambda: "without=E2" in driver.current_url, "left out")
        assert asked.asked[-1] == (["E2"], [[1.25, 36.5]])
        find(driver, "#part-next").find_element("link text", "allow it again").click()
        until(lambda: "not=" not in driver.current_url, "allowed again")
        assert asked.asked[-1] == (["E2"], [])
        no_errors(driver)
