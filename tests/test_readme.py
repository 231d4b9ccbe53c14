"""The README's code runs as printed, and its lines name things that exist."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_library_example_runs_as_printed(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}  # the user's own is left alone
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=env
    )
    assert done.returncode == 0, done.stderr
    titer, slope, best = (float(v) for v in re.findall(r"(-?\d+) mg/L", done.stdout))
    assert 100 < titer < 5000 and best >= titer and slope < 0


def test_every_command_line_names_a_command_and_every_target_exists():
    from typer.main import get_command

    from perfusio_jax.cli import app

    known = set(get_command(app).commands)  # pyright: ignore[reportAttributeAccessIssue]
    named = re.findall(r"^perfusio-jax ([a-z-]+)", TEXT, re.M)
    assert named and set(named) <= known
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make ([a-z]+)", TEXT, re.M):
        assert re.search(rf"^{target}:", makefile, re.M)


def test_links_lead_somewhere():
    for link in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (ROOT / link).exists(), link


def test_the_map_leads_to_files_that_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| [^|]+\? \| `([\w/]+)` \| ([^|]+) \|$", text, re.M)
    assert len(rows) >= 10
    for folder, files in rows:
        for name in re.findall(r"`(\w+\.py)`", files):
            assert (ROOT / "src" / "perfusio_jax" / folder / name).is_file(), (folder, name)
    table = (ROOT / "docs" / "twin.md").read_text(encoding="utf-8")
    inside = re.findall(r"`(\w+/\w+\.py)`", table)
    assert inside
    for name in inside:
        assert (ROOT / "src" / "perfusio_jax" / "twin" / name).is_file(), name
