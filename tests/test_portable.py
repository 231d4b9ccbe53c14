"""What would work on one system alone is not in the sources: encodings, calls, places."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLACES = ("src", "examples", "docs")
FILES = [path for place in PLACES for path in sorted((ROOT / place).rglob("*.py"))]
OF_TEXT = {"read_text", "write_text"}
OPENERS = {"open", "fdopen", "NamedTemporaryFile", "TemporaryFile"}
OF_POSIX = {"fork", "forkpty", "pread", "pwrite", "mkfifo", "setsid", "killpg", "getpgid", "wait3"}


def calls(text: str) -> Iterator[tuple[int, ast.Call, str, str]]:
    """Line, call, what it is called on, and its name."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Attribute):
                yield node.lineno, node, ast.unparse(called.value), called.attr
            elif isinstance(called, ast.Name):
                yield node.lineno, node, "", called.id


def mode(call: ast.Call) -> str | None:
    """Mode of an opener, if it is written out."""
    given = [*call.args[:2], *(k.value for k in call.keywords if k.arg == "mode")]
    texts = [a.value for a in given if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    return next((t for t in texts if t and set(t) <= set("rwaxbt+")), None)


def troubles(text: str) -> list[str]:
    found = []
    for line, call, on, name in calls(text):
        has_encoding = any(k.arg == "encoding" for k in call.keywords)
        is_text = (
            (name in OF_TEXT and bool(on))
            or (name in OPENERS and (mode(call) or "b").count("b") == 0)
            or (name == "open" and not on and mode(call) is None)
        )
        if is_text and not has_encoding and "/proc/" not in on:
            found.append(f"line {line}: {name} without an encoding")
        if on == "os" and name in OF_POSIX:
            found.append(f"line {line}: os.{name} is not everywhere")
        if name == "add_signal_handler" and "def hand_over" not in text:
            found.append(f"line {line}: loops of Windows take no signal handlers")
        if name == "get_context" and any(
            isinstance(a, ast.Constant) and a.value == "fork" for a in call.args
        ):
            found.append(f"line {line}: fork is not everywhere")
    found += [
        f"line {node.lineno}: {node.value} is not a place everywhere"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node.value.startswith(("/tmp", "/var/", "/dev/"))
    ]
    return found


def test_the_sources_assume_no_system():
    found = {str(f.relative_to(ROOT)): troubles(f.read_text(encoding="utf-8")) for f in FILES}
    assert len(FILES) > 300
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "text",
    [
        "p.read_text()",
        "open('a')",
        "p.open('w')",
        "os.pwrite(1, b'', 0)",
        "get_context('fork')",
        "loop.add_signal_handler(2, f)",
        "p = '/tmp/x'",
    ],
)
def test_what_is_not_portable_is_found(text):
    assert len(troubles(text)) == 1


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda p: p.stem)
def test_pages_name_no_place_of_one_system(page):
    assert "/tmp" not in page.read_text(encoding="utf-8")


def test_a_pipe_that_knows_few_signs_is_no_error(tmp_path):
    (tmp_path / "σ.csv").write_text("", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "perfusio_jax", "inspect", "σ.csv"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "cp1252:strict"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert rb"\u03c3.csv" in done.stdout
