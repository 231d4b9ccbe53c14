"""The book: it builds without a warning, and its pages are true of the code."""

import importlib.util
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from docs.book import api, commands, tutorials
from perfusio_jax.cli import app

ROOT = Path(__file__).parents[1]
NEW = ("index", "getting_started", "concepts", "how_to", "command_line")
NEW += ("regulatory", "limitations", "comparison")
needs_mkdocs = pytest.mark.skipif(
    importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("material") is None,
    reason="MkDocs is not installed: pip install 'perfusio-jax[docs]'",
)


def page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The built book; docstrings, which take most of the time, are left to `make docs`."""
    folder = tmp_path_factory.mktemp("book")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "BOOK_NAMES_ONLY": "1", "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    return folder


@needs_mkdocs
def test_every_page_is_in_the_book(site):
    made = {p.relative_to(site).as_posix() for p in site.rglob("*.html")}
    wanted = {f"{p.stem}.html" for p in (ROOT / "docs").glob("*.md")}
    wanted |= {f"tutorials/{p.stem}.html" for p in (ROOT / "examples").glob("*.py")}
    wanted |= {f"api/{room}.html" for room in api.ROOMS}
    wanted |= {"results.html", "changelog.html", "contributing.html", "tutorials/index.html"}
    assert sorted(wanted - made) == []


@needs_mkdocs
def test_nothing_is_fetched_from_elsewhere(site):
    for path in site.rglob("*.html"):
        loaded = re.findall(
            r'<(?:script|link|img)[^>]+(?:src|href)="(https?://[^"]+)"', path.read_text("utf-8")
        )
        assert loaded == [], path.name


@needs_mkdocs
def test_the_table_of_commands_is_whole(site):
    text = (site / "command_line.html").read_text(encoding="utf-8")
    for name in typer.main.get_command(app).commands:  # pyright: ignore
        assert f"<code>{name}</code>" in text, name


@needs_mkdocs
def test_links_that_lead_out_are_turned_and_unknown_ones_refused():
    from docs.book.hooks import with_links

    turned = with_links("[a](../examples/fed_batch.py) [b](../benchmarks/RESULTS.md#x)", "twin.md")
    assert turned == "[a](tutorials/fed_batch.md) [b](results.md#x)"
    assert with_links("[a](docs/twin.md#y)", "changelog.md") == "[a](twin.md#y)"
    assert with_links("[a](https://x.org)", "twin.md") == "[a](https://x.org)"
    with pytest.raises(ValueError, match="has no page in the book"):
        with_links("[a](../src/perfusio_jax/config.py)", "twin.md")


def test_every_room_has_a_page_and_its_names():
    public = {p.parent.name for p in (ROOT / "src" / "perfusio_jax").glob("*/__init__.py")}
    inner = {"_core", "cli", "demo", "report", "service"}
    assert set(api.ROOMS) == (public - inner) | {"config"}
    for room, face in api.faces().items():
        text = api.page_of(room, face)
        assert text.count(":::") >= 5, room
    assert "::: perfusio_jax.hybrid.fit.fit_hybrid" in api.page_of("hybrid", api.faces()["hybrid"])


def test_every_public_name_is_documented():
    bare, brief, n = [], [], 0
    for face in api.faces().values():
        for path in api.sources_of(face).values():
            thing = api._resolved(path)
            if not (inspect.isclass(thing) or inspect.isroutine(thing)):
                continue  # constants, other names of types, and modules
            n += 1
            doc = vars(thing).get("__doc__") if inspect.isclass(thing) else inspect.getdoc(thing)
            if not doc:
                bare.append(path)
            elif inspect.isroutine(thing) and inspect.signature(thing).parameters:
                brief += [path] if "Args:" not in doc else []
    assert n > 550 and bare == []
    assert brief == []  # none tells what it takes in a sentence alone


def test_groups_of_commands_are_listed_with_theirs():
    table = commands.table()
    assert "| `rl case1` |" in table and "| `db upgrade` |" in table
    assert table.count("###") >= 8


def test_every_script_is_a_page():
    scripts = tutorials.all_scripts()
    assert len(scripts) >= 7 and scripts[0].name.startswith("0")
    for path in scripts:
        text = tutorials.page_of(path)
        assert text.startswith(f"# {tutorials.title_of(path)}\n")
        assert "```python" in text and "examples/" in text


def test_cells_are_told_apart_and_spoilt_ones_refused():
    script = (
        '"""A title.\n\nMore."""\n\nimport sys\n\n# %% [markdown]\n# ## Text\n#\n# of a cell\n\n'
    )
    script += "# %%\nx = 1\n"
    assert list(tutorials.cells_of(script)) == [
        ("markdown", "A title.\n\nMore."),
        ("code", "import sys"),
        ("markdown", "## Text\n\nof a cell"),
        ("code", "x = 1"),
    ]
    with pytest.raises(ValueError, match="in a cell of text stands 'x = 1'"):
        list(tutorials.cells_of('"""T."""\n# %% [markdown]\nx = 1\n'))
    with pytest.raises(ValueError, match="no docstring"):
        list(tutorials.cells_of("x = 1\n"))


def test_a_script_is_run_once_and_what_it_drew_is_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(tutorials, "KEPT", tmp_path / "kept")
    script = tmp_path / "09_small.py"
    script.write_text(
        '"""Small.\n\nOne."""\nimport pathlib, sys\nf = pathlib.Path(sys.argv[1])\nf.mkdir()\n'
        '(f / "a_line.png").write_bytes(b"x")\nprint("said")\n',
        encoding="utf-8",
    )
    assert "python -m docs.book" in tutorials.page_of(script)
    assert tutorials.run_script(script).endswith(" s")
    assert tutorials.run_script(script) == "as before"
    text = tutorials.page_of(script)
    assert "![a line](09_small/a_line.png)" in text and "```text\nsaid\n```" in text
    script.write_text(
        script.read_text(encoding="utf-8") + "raise SystemExit(3)\n", encoding="utf-8"
    )
    with pytest.raises(RuntimeError, match="ended with 3"):
        tutorials.run_script(script)


@pytest.mark.parametrize("name", NEW)
def test_links_lead_somewhere(name):
    for link in re.findall(r"\]\(([^)#\s]+)", page(name)):
        if not link.startswith("http"):
            made = link in ("api/index.md",)
            assert made or (ROOT / "docs" / link).exists(), link


@pytest.mark.parametrize("name", NEW)
def test_commands_and_options_exist(name):
    known = typer.main.get_command(app).commands  # pyright: ignore
    text = page(name)
    for command, rest in re.findall(r"perfusio-jax ([a-z][a-z-]*)([^`\n#]*)", text):
        assert command in known, command
        if not hasattr(known[command], "commands"):
            options = {opt for param in known[command].params for opt in param.opts}
            assert set(re.findall(r"--[a-z-]+", rest)) - {"--help"} <= options, (command, rest)


def test_places_in_the_code_exist():
    for place in re.findall(r"`([a-z_]+(?:/[a-z_]+\.py)?)`", page("concepts")):
        if "/" in place:
            assert (ROOT / "src" / "perfusio_jax" / place).is_file(), place


def test_the_comparison_is_dated_and_linked():
    text = page("comparison")
    assert re.search(r"As of \*\*[A-Z][a-z]+ 20\d\d\*\*", text)
    for row in re.findall(r"^\| (?!tool|---)(.+) \|$", text, re.M):
        assert "https://" in row, row


def test_regulation_is_not_claimed():
    text = page("regulatory")
    assert "No compliance is claimed" in text and "It is a draft" in text
