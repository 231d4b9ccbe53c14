"""docs/your_culture.md: every command and every piece of code on the page, in order."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "your_culture.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(sh|python)\n(.*?)```", PAGE, re.S)
COMMAND = f'perfusio-jax() {{ "{sys.executable}" -m perfusio_jax.cli "$@"; }}\nset -e\n'


def test_the_page_runs(tmp_path):
    said = ""
    for kind, code in BLOCKS:
        if code.startswith("# my_model.py"):
            (tmp_path / "my_model.py").write_text(code, encoding="utf-8")
            continue
        command = ["bash", "-c", COMMAND + code] if kind == "sh" else [sys.executable, "-c", code]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, "PYTHONWARNINGS": "error"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, code + done.stdout + done.stderr
        said += done.stdout
    assert "assumed: feed_S: taken for the S that feed brings." in said
    assert "mechanism MyCells" in said and "('X', 'S', 'P')" in said
    assert (tmp_path / "more.csv").exists()


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
