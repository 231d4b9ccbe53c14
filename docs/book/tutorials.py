"""Example scripts as tutorial pages: what they draw, their text and code, what they print.

A script is written in cells. `# %% [markdown]` begins one of text, each line a comment; `# %%` one
of code. The docstring is the introduction.
"""

import ast
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import perfusio_jax

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
KEPT = ROOT / "build" / "tutorials"
PRINTED = "printed.txt"
MARK = re.compile(r"^# %%[ \t]*(\[markdown\])?[ \t]*(.*)$", re.M)
FIRST = ("0", "1")
"""What the names of scripts begin with that are to be read in order."""


def all_scripts() -> list[Path]:
    """Scripts in the order of the book: those with a number, then the others."""
    return sorted(EXAMPLES.glob("*.py"), key=lambda p: (not p.name.startswith(FIRST), p.name))


def title_of(path: Path) -> str:
    """First sentence of a script, without its end."""
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return doc.split("\n\n", 1)[0].replace("\n", " ").rstrip(".")


def cells_of(text: str) -> Iterator[tuple[str, str]]:
    """Kind, "markdown" or "code", and content of the cells of a script, its docstring first.

    Args:
        text: The script.

    Raises:
        ValueError: If it has no docstring, or a line of a cell of text is no comment.
    """
    tree = ast.parse(text)
    doc = ast.get_docstring(tree)
    if doc is None:
        raise ValueError("the script has no docstring, which is the introduction of its page")
    yield "markdown", doc
    end = tree.body[0].end_lineno or 1
    rest = "".join(text.splitlines(keepends=True)[end:])
    marks = list(MARK.finditer(rest))
    edges = [m.start() for m in marks] + [len(rest)]
    if rest[: edges[0]].strip():
        yield "code", rest[: edges[0]].strip()
    for mark, stop in zip(marks, edges[1:], strict=True):
        body = rest[mark.end() : stop].strip("\n")
        if mark[1] is None:
            if body.strip():
                yield "code", body
            continue
        lines = body.splitlines()
        wrong = next((line for line in lines if line and not line.startswith("#")), None)
        if wrong is not None:
            raise ValueError(f"in a cell of text stands {wrong!r}; begin it with '#', or `# %%`")
        yield "markdown", "\n".join(line[1:].removeprefix(" ") for line in lines).strip()


def page_of(path: Path) -> str:
    """The page of a script, with what it printed and drew where that is kept."""
    parts = [f"# {title_of(path)}\n"]
    cells = cells_of(path.read_text(encoding="utf-8"))
    _, introduction = next(cells)
    parts.append(introduction.partition("\n\n")[2])
    parts.append(f"Script: `examples/{path.name}`; `perfusio-jax examples` writes it out.\n")
    for picture in pictures_of(path):
        parts.append(f"![{picture.stem.replace('_', ' ')}]({path.stem}/{picture.name})")
    for kind, content in cells:
        parts.append(content if kind == "markdown" else f"```python\n{content}\n```")
    kept = kept_of(path)
    if not (kept / PRINTED).is_file():
        parts.append("!!! note\n    What it prints and draws is made by `python -m docs.book`.")
        return "\n\n".join(parts) + "\n"
    printed = (kept / PRINTED).read_text(encoding="utf-8")
    parts.append(f"## What it prints\n\n```text\n{printed.strip()}\n```")
    return "\n\n".join(parts) + "\n"


def kept_of(path: Path) -> Path:
    """Folder of what a script printed and drew; another one after any change of it."""
    said = f"{perfusio_jax.__version__}\n{path.read_text(encoding='utf-8')}"
    return KEPT / f"{path.stem}-{hashlib.sha256(said.encode()).hexdigest()[:12]}"


def pictures_of(path: Path) -> list[Path]:
    """Pictures a script drew."""
    return sorted(kept_of(path).glob("*.png"))


def run_script(path: Path) -> str:
    """Run a script and keep what it prints and draws.

    Args:
        path: The script; its one argument is the folder for its results.

    Returns:
        What was done, in words.

    Raises:
        RuntimeError: If the script ends with an error.
    """
    kept = kept_of(path)
    if (kept / PRINTED).is_file():
        return "as before"
    for old in KEPT.glob(f"{path.stem}-*"):
        shutil.rmtree(old)
    work = KEPT / f".{path.stem}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(path), "results"],
        cwd=work,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{path.name} ended with {done.returncode}:\n{done.stdout}")
    kept.mkdir()
    for picture in (work / "results").glob("*.png"):
        shutil.copy(picture, kept)
    (kept / PRINTED).write_text(done.stdout, encoding="utf-8")
    shutil.rmtree(work)
    return f"{time.perf_counter() - begin:.0f} s"
