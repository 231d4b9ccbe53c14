"""docs/your_culture.md: every command and every piece of code on the page, in order."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "your_culture.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(sh|python)\n(.*?)```", PAGE, re.S)
COMMAND = f'perfusio-jax() {{ "{sys.executable}" -m perfusio_jax.cli "$@"; }}\nset -e\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One for all blocks: each goes on where the one before it ended."""
    return tmp_path_factory.mktemp("culture")


SAYS = {
    "process init": "assumed: feed_S: taken for the S that feed brings.",
    "process check": "intervals with a balance",
    "run-id": "forecast of runs from 48 h",
    "perfusio-jax replay": "4 of 4 decisions came out the same, byte for byte",
    "MyCells --out mine": "mechanism MyCells",
    "--posterior constants": "constants of its mechanism: 64 draws of constants (SHA-256",
    "simulate_runs": "('X', 'S', 'P')",
}
"""What a block that holds the word prints."""


@pytest.mark.timeout(900)  # a fit tries two models; a busy machine stretches their compiles
@pytest.mark.parametrize("n", range(len(BLOCKS)))
def test_the_page_runs(n, folder):
    kind, code = BLOCKS[n]
    if code.startswith("# my_model.py"):
        (folder / "my_model.py").write_text(code, encoding="utf-8")
        return
    command = ["bash", "-c", COMMAND + code] if kind == "sh" else [sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, code + done.stdout + done.stderr
    for word, expected in SAYS.items():
        if word in code:
            assert expected in done.stdout, done.stdout


def test_links_lead_somewhere():
    for link in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / link).exists(), link


def test_the_page_knows_every_key():
    from perfusio_jax.process import Control, Process, Quantity, Stream

    for part, missing in (
        (Process, {"description", "quantities", "controls", "streams"}),
        (Quantity, {"label", "formula", "of"}),
        (Control, {"name", "unit", "label"}),
        (Stream, {"name", "adds", "total"}),
    ):
        for key in set(part.model_fields) - missing:
            assert re.search(rf"`[^`]*\b{key}\b[^`]*`", PAGE), (part.__name__, key)
