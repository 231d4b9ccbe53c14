"""What tests of this room share."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.viz.browser import browser


@pytest.fixture(scope="module")
def window() -> Iterator[Any]:
    """One browser for all tests of a file."""
    with browser() as found:
        yield found


@pytest.fixture
def driver(window) -> Any:
    """The browser, with nothing open and nothing told: pages of tests before ask no server."""
    window.get("about:blank")
    window.get_log("browser")
    return window
