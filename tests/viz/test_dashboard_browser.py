"""The page in a real browser: Chromium without a window, the program as one starts it."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perfusio_jax.twin import verify_audit
from perfusio_jax.twin.records.chain import records as records_of
from perfusio_jax.twin.records.records_file import RunRecords
from perfusio_jax.viz import Band
from perfusio_jax.viz.dashboard.accounts import Account, hashed, write_accounts
from perfusio_jax.viz.dashboard.views import Slider, Trial
from tests.report.run_folders import make_run
from tests.viz.browser import find, nameless, no_errors, served, text, to_reactor, until
from tests.viz.page_folders import attended, dressed_run, keep_mode

PASSWORD = "four words nobody guesses"
BAD = "<img src=x onerror=document.title='taken'>" + "n" * 300


INSIDE = "return document.documentElement.scrollWidth <= window.innerWidth"


class Program:
    """`perfusio-jax dashboard`, as a process of its own."""

    def __init__(self, place: Path) -> None:
        self.place, self.port = place, 0
        self.accounts = place.parent / "accounts.toml"
        cheap = hashed(PASSWORD, cost=(2**4, 8, 1))
        write_accounts(self.accounts, {
            "vera": Account("vera", "viewer", (), cheap),
            "susi": Account("susi", "supervisor", ("qa",), cheap),
        })  # fmt: skip
        self.process: Any = None

    def start(self) -> None:
        command = [sys.executable, "-m", "perfusio_jax.cli", "dashboard", str(self.place)]
        command += ["--armed", "--accounts", str(self.accounts), "--port", str(self.port)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        line = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
        assert found is not None, line + self.process.stdout.read()
        self.port = int(found[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def end(self, how: int = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        code = self.process.wait(30)
        self.process.stdout.close()
        return code


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Iterator[Program]:
    place = tmp_path_factory.mktemp("browser") / "rack"
    dressed_run(place / "R01")
    make_run(place / "odd", run_id=f"E {BAD}", reactor=BAD, reason=BAD, n_days=3)
    program = Program(place)
    program.start()
    yield program
    if program.process.poll() is None:
        program.end()


def sign_in(driver, program: Program, name: str) -> None:
    driver.get(f"{program.url}/sign-in")
    find(driver, "input[name=name]").send_keys(name)
    find(driver, "input[name=password]").send_keys(PASSWORD)
    find(driver, "form.sign button").click()
    until(lambda: name in text(driver, "header.top"), f"{name} is signed in")


def test_the_rack_is_shown_names_are_text_and_nothing_is_run(driver, program):
    driver.get(program.url)
    assert driver.title == "Reactors of rack"
    assert "1 critical alarm nobody has seen" in text(driver)
    assert "<img src=x onerror" in text(driver)
    to_reactor(driver, program.url, "<img")
    for _ in range(2):
        assert driver.title.startswith("Reactor <img src=x")
        for link in ("audit", "model", "settings"):
            driver.get(f"{driver.current_url.rstrip('/')}/{link}")
            assert "taken" != driver.title and "<img" in driver.title
            driver.back()
    assert driver.execute_script("return document.querySelectorAll('main img').length") == 0
    blocked = "return document.cookie + '|' + typeof window.__nothing"
    assert driver.execute_script(blocked) == "|undefined"
    no_errors(driver)


@pytest.mark.parametrize("width", [390, 1440])
def test_pages_fit_and_can_be_reached_by_keyboard(driver, program, width):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        to_reactor(driver, program.url)
        base = driver.current_url
        for path in (program.url, base, f"{base}/audit", f"{base}/model", f"{program.url}/sign-in"):
            driver.get(path)
            until(lambda: driver.execute_script(INSIDE), f"{path} fits")
            assert nameless(driver) == [], path
        driver.get(base)
        from selenium.webdriver.common.keys import Keys

        active = driver.switch_to.active_element
        active.send_keys(Keys.TAB)
        first = driver.switch_to.active_element
        assert first.text == "To the content" and first.is_displayed()
        first.send_keys(Keys.ENTER)
        assert driver.execute_script("return document.activeElement.id") == "main"
        reached = set()
        for _ in range(40):
            driver.switch_to.active_element.send_keys(Keys.TAB)
            reached.add(driver.switch_to.active_element.tag_name)
        assert {"a", "summary"} <= reached
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    no_errors(driver)


def test_a_viewer_is_offered_nothing_and_a_form_made_by_hand_is_refused(driver, program):
    sign_in(driver, program, "vera")
    to_reactor(driver, program.url)
    assert driver.find_elements("css selector", "main form") == []
    path = driver.current_url.removeprefix(program.url)
    csrf = find(driver, "input[name=csrf]").get_attribute("value")
    status = driver.execute_async_script(
        """const [path, csrf, done] = arguments;
        const body = new URLSearchParams({csrf, alarm: "2", reason: "mine"});
        fetch(path, {method: "POST", body}).then((a) => done(a.status));""",
        f"{path}/acknowledge", csrf,
    )  # fmt: skip
    assert status == 403 and not list((program.place / "R01" / "inbox").glob("*.json"))
    driver.get_log("browser")  # the refusal stands there, as it should
    find(driver, "header.top form button").click()
    until(lambda: "Sign in" in text(driver, "header.top"), "signed out")


def test_an_alarm_is_acknowledged_with_a_reason_and_stands_in_journal_and_trail(driver, program):
    folder = program.place / "R01"
    with attended(folder):
        sign_in(driver, program, "susi")
        to_reactor(driver, program.url)
        until(lambda: "running, armed" in text(driver), "the twin runs")
        box = find(driver, ".alarm.critical")
        box.find_element("css selector", "input[name=reason]").send_keys("feed bag was empty")
        box.find_element("css selector", "button.go").click()
        until(lambda: "acknowledge: done" in text(driver), "done")
        until(lambda: "seen by" in find(driver, ".alarm.critical").text, "seen")
        until(lambda: "The audit trail verifies" in text(driver), "verified")
        driver.get(f"{driver.current_url}/audit?text=feed+bag")
        until(lambda: "1 record found" in text(driver), "found in the trail")
        assert "command acknowledge" in text(driver)
        no_errors(driver)
    with RunRecords(folder / "journal.sqlite", is_read_only=True) as book:
        assert "says to be susi" in (book.alarm(2).acknowledged_by or "")
    assert verify_audit(folder).ok
    last = list(records_of((folder / "audit.jsonl").read_bytes()))[-1]
    assert last["reason"] == "feed bag was empty" and last["payload"]["says_to_be"] == "susi"


def test_the_page_renews_itself_and_leaves_alone_what_one_writes(driver, program):
    sign_in(driver, program, "susi")
    to_reactor(driver, program.url)
    until(lambda: "In touch with the server" in text(driver, "#live"), "in touch")
    typed = find(driver, ".alarm.warning input[name=reason]")
    typed.send_keys("half a sen")
    driver.execute_script("document.querySelector('details').open = true")
    keep_mode(program.place / "R01", "R01", "manual")
    until(lambda: "under manual control" in text(driver), "renewed")
    assert typed.get_attribute("value") == "half a sen"
    assert driver.execute_script("return document.querySelector('details').open")
    assert driver.switch_to.active_element == typed
    no_errors(driver)


def test_a_slider_that_is_moved_is_answered_and_stands_in_the_address(driver, program):
    asked = []

    def tried(folder, reactor_id, set_points) -> Trial:
        asked.append(dict(set_points))
        if len(asked) == 1:
            return Trial("working", "it is being estimated")
        rate = set_points.get("bleed_rate", 0.173)
        sliders = (Slider("bleed_rate", "vvd", 0.0, 0.4, 0.002, 0.173, rate),
                   Slider("agitation", "rpm", 700.0, 1050.0, 2.0, 875.0,
                          set_points.get("agitation", 875.0)))  # fmt: skip
        hours = np.array([120.0, 144.0])
        band = Band(hours, [1.0, 2.0], [9.0, 9.0], [5.0, 10.0 * rate])
        return Trial("ready", "a model", sliders, {"VCD": band}, {"VCD": band}, 0.1)

    with served(program.place, tried) as url:
        driver.get(url)
        links = driver.find_elements("css selector", ".card h2 a")
        driver.get(f"{links[0].get_attribute('href')}/what-if")
        assert "it is being estimated" in text(driver)
        until(lambda: "Tried: what is in force now" in text(driver), "ready by itself")
        move = (
            "const s = document.querySelector('input[name=bleed_rate]'); s.value = arguments[0];"
            "s.dispatchEvent(new Event('input', {bubbles: true}))"
        )
        driver.execute_script(move, 0.2)
        until(lambda: "Tried: bleed_rate 0.201" in text(driver), "answered")  # whole steps away
        assert driver.current_url.endswith("/what-if?bleed_rate=0.201")
        assert asked[-1] == {"bleed_rate": 0.201}
        driver.refresh()
        until(lambda: find(driver, "output").text == "0.201", "it is there again")
        from selenium.webdriver.common.keys import Keys

        find(driver, "input[name=bleed_rate]").send_keys(Keys.ARROW_RIGHT)
        until(lambda: "bleed_rate=0.2" in driver.current_url and asked[-1]["bleed_rate"] > 0.201,
              "moved by keyboard")  # fmt: skip
        find(driver, "form.sliders button[type=reset]").click()
        until(lambda: "Tried: what is in force now" in text(driver), "as it is now")
        assert driver.current_url.endswith("/what-if")
        no_errors(driver)


def test_the_server_is_killed_and_comes_back_and_the_page_goes_on(driver, program):
    to_reactor(driver, program.url)
    until(lambda: "In touch with the server" in text(driver, "#live"), "in touch")
    program.end(signal.SIGKILL)
    until(lambda: "No word from the server since" in text(driver, "#live"), "lost")
    assert "may be old" in text(driver, "#live")
    driver.get_log("browser")  # refused connections stand there, as they should
    keep_mode(program.place / "R01", "R01", "override", controls=["temperature"])
    program.start()
    until(lambda: "In touch with the server" in text(driver, "#live"), "back")
    until(lambda: "held by hand: temperature" in text(driver), "what happened meanwhile")
    assert "Sign in" in text(driver, "header.top") or "susi" in text(driver, "header.top")
    driver.refresh()
    assert "Sign in" in text(driver, "header.top")  # a new server knows nobody
    assert program.end() == 0 or program.process.returncode == -signal.SIGTERM
