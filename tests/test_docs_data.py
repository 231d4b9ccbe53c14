"""docs/data.md: every command and every piece of code on the page, in order."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.connectors.postgres import USER, Server, find_binaries

PAGE = (Path(__file__).parents[1] / "docs" / "data.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(sh|python)\n(.*?)```", PAGE, re.S)
POSTGRES = [n for n, (_, code) in enumerate(BLOCKS) if "psql" in code or "postgresql://" in code]
COMMAND = f'perfusio-jax() {{ "{sys.executable}" -m perfusio_jax.cli "$@"; }}\nset -e\n'


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Runs a block in one folder for all; what it prints."""
    folder = tmp_path_factory.mktemp("data")
    binaries = folder / "bin"
    binaries.mkdir()
    (binaries / "python").symlink_to(sys.executable)

    def runner(kind: str, code: str, **variables: str) -> str:
        command = ["bash", "-c", COMMAND + code] if kind == "sh" else [sys.executable, "-c", code]
        path = f"{binaries}:{find_binaries() or '.'}:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "PYTHONWARNINGS": "error", **variables}
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return runner


@pytest.fixture(scope="module")
def printed(run) -> list[str]:
    """Output of every block that needs no server."""
    return ["" if n in POSTGRES else run(kind, code) for n, (kind, code) in enumerate(BLOCKS)]


def test_the_page_runs(printed):
    text = "\n".join(printed)
    assert "mg/dL -> g/L" in text
    assert "V_bleed_L is cumulative and was differenced; it starts anew in line 5" in text
    assert "2.3 missing 2026-05-08 06:00:00+00:00" in text
    assert "{'perfusion_rate': 1.2}" in text
    assert "Exp1, R1: 3 samples (3 new, 0 duplicate, 0 corrected)" in text
    assert "'VCD': 4.6, 'Glc': 3.9, 'Titer': 210.0" in text
    assert "(3, 'Ada', 'recount')" in text
    assert "sqlite:///copy.db: tables at 0003" in text


def test_the_page_runs_with_a_server(printed, run, postgres: Server):
    if shutil.which("psql") is None and not (find_binaries() / "psql").exists():  # pyright: ignore
        pytest.skip("psql is not installed")
    where = {"PGHOST": "127.0.0.1", "PGPORT": str(postgres.port), "PGUSER": USER}
    text = ""
    for n in POSTGRES:
        text += run(*BLOCKS[n], **where, PGPASSWORD=postgres.password)
    postgres.execute("DROP DATABASE perfusio WITH (FORCE)")
    postgres.execute("DROP ROLE twin")
    assert "postgresql://twin@localhost/perfusio: tables at 0003" in text
    assert "3 samples (3 new" in text


def test_links_lead_somewhere():
    for link in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (Path(__file__).parents[1] / "docs" / link).exists(), link
