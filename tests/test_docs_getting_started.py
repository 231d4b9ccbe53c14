"""docs/getting_started.md: every command and piece of code that takes seconds, in order."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "getting_started.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(sh|python)\n(.*?)```", PAGE, re.S)
SAYS = {
    "doctor": "64-bit floats",
    "rates": "1/d",
    "perfusio-jax examples": "examples/reactor",
    "glucose_tomorrow": "g/L per vvd",
    "recipes": "best of 16 random recipes after a week",
}
"""What a block that holds the word prints."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One for all blocks."""
    return tmp_path_factory.mktemp("start")


@pytest.mark.parametrize("n", range(len(BLOCKS)))
def test_the_page_runs(n, folder):
    kind, code = BLOCKS[n]
    command = f'perfusio-jax() {{ "{sys.executable}" -m perfusio_jax.cli "$@"; }}\nset -e\n'
    args = ["bash", "-c", command + code] if kind == "sh" else [sys.executable, "-c", code]
    done = subprocess.run(
        args,
        cwd=folder,
        env={**os.environ, "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, code + done.stdout + done.stderr
    for word, expected in SAYS.items():
        if word in code:
            assert expected in done.stdout, done.stdout
