"""Chromium without a window, and what tests ask of it."""

import contextlib
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from perfusio_jax.report.watching import Watching
from perfusio_jax.viz.dashboard.app import build_app
from perfusio_jax.viz.dashboard.settings import PageSettings

NEEDED = "apt-get install chromium chromium-driver; pip install selenium"
WAIT_S = 60.0
SWITCHES = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--no-first-run", "--window-size=1440,900"),
)


def lacking() -> str:
    """What is not there; empty if all is."""
    found = [n for n in ("chromium", "chromedriver") if shutil.which(n) is None]
    with contextlib.suppress(ImportError):
        import selenium  # noqa: F401

        return f"no {' nor '.join(found)}: {NEEDED}" if found else ""
    return f"selenium is not installed: {NEEDED}"


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """A browser; the test is skipped where there is none."""
    why = lacking()
    if why:
        print(why)
        pytest.skip(why)
    from selenium import webdriver
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for word in SWITCHES:
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    try:
        found = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    except WebDriverException as error:  # a machine without the rights or the memory for one
        pytest.skip(f"the browser does not start: {error.msg}")
    found.set_page_load_timeout(WAIT_S)
    try:
        yield found
    finally:
        found.quit()


def until(true: Callable[[], Any], what: str = "") -> Any:
    """Wait until something is so."""
    from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException

    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        with contextlib.suppress(StaleElementReferenceException, NoSuchElementException):
            found = true()
            if found:
                return found
        time.sleep(0.05)
    raise AssertionError(f"it did not become so: {what}")


def find(driver, css: str) -> Any:
    return driver.find_element("css selector", css)


def text(driver, css: str = "main") -> str:
    return " ".join(find(driver, css).text.split())


def nameless(driver) -> list[str]:
    """What can be used on a page and is read aloud without a name."""
    used = {"button", "link", "textbox", "searchbox", "slider", "combobox", "img", "region"}
    tree = driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    assert any(node.get("role", {}).get("value") == "main" for node in tree)
    return [
        node["role"]["value"]
        for node in tree
        if not node.get("ignored") and node.get("role", {}).get("value") in used
        and not node.get("name", {}).get("value")
    ]  # fmt: skip


def no_errors(driver) -> None:
    """Nothing on the console that is wrong: no policy broken, no script that failed."""
    told = [e for e in driver.get_log("browser") if e["level"] in ("SEVERE", "WARNING")]
    assert told == []


def to_reactor(driver, url: str, name: str = "R01") -> None:
    """The page of a vessel, from the card of it."""
    driver.get(url)
    link = next(a for a in driver.find_elements("css selector", ".card h2 a")
                if a.text.startswith(name))  # fmt: skip
    driver.get(link.get_attribute("href"))


@contextlib.contextmanager
def served(
    place: Path, tried: Any, settings: PageSettings | None = None, **more: Any
) -> Iterator[str]:
    """The page in a thread, with something else to ask; its address."""
    settings = settings or PageSettings(place.parent / "nobody.toml", port=0)
    app = build_app(Watching(place), settings, say=print, tried=tried, **more)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", ws="none"))
        thread = threading.Thread(target=lambda: server.run(sockets=[listening]), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join(20)
