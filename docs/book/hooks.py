"""Hooks of MkDocs: pages that are made, and links that lead out of `docs/`."""

import os
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
for _place in (str(ROOT), str(ROOT / "src")):
    if _place not in sys.path:
        sys.path.insert(0, _place)

from docs.book import api, commands, tutorials  # noqa: E402

COPIED = {
    "results.md": "benchmarks/RESULTS.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}
"""Pages that lie elsewhere, because who reads the sources looks for them there."""

NAMES_ONLY = "BOOK_NAMES_ONLY"
"""Variable that leaves docstrings out, which take most of the time, for a quick check."""

COMMANDS = "<!-- commands -->"
"""Is replaced by a table of all commands."""

_LINK = re.compile(r"\]\(([^)\s#]+)(#[^)]*)?\)")


def made_pages() -> dict[str, str]:
    """Text of the pages that are in no file of `docs/`, by their place in it."""
    pages = {place: (ROOT / file).read_text(encoding="utf-8") for place, file in COPIED.items()}
    pages["api/index.md"] = api.index()
    directive = "" if os.environ.get(NAMES_ONLY) else ":::"
    for room, face in api.faces().items():
        pages[f"api/{room}.md"] = api.page_of(room, face, directive)
    scripts = tutorials.all_scripts()
    rows = [f"- [{tutorials.title_of(path)}]({path.stem}.md)" for path in scripts]
    pages["tutorials/index.md"] = (
        "# Tutorials\n\nEach is one script of the examples, made to be changed; "
        "`perfusio-jax examples` writes all of them into a folder.\n\n" + "\n".join(rows) + "\n"
    )
    for path in scripts:
        pages[f"tutorials/{path.stem}.md"] = tutorials.page_of(path)
    return pages


def on_config(config: Any) -> Any:
    """Fill the two parts of the table of contents that follow from the sources."""
    rooms = [{f"perfusio_jax.{room}": f"api/{room}.md"} for room in api.ROOMS]
    scripts = [
        {tutorials.title_of(path).partition(":")[0]: f"tutorials/{path.stem}.md"}
        for path in tutorials.all_scripts()
    ]
    filled = {"api/": ["api/index.md", *rooms], "tutorials/": ["tutorials/index.md", *scripts]}
    for entry in config.nav:
        ((title, place),) = entry.items()
        if isinstance(place, str) and place in filled:
            entry[title] = filled[place]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made, and the pictures of tutorials."""
    for place, text in made_pages().items():
        files.append(File.generated(config, place, content=text))
    for path in tutorials.all_scripts():
        for picture in tutorials.pictures_of(path):
            place = f"tutorials/{path.stem}/{picture.name}"
            files.append(File.generated(config, place, abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links to files of the repository into links to their pages."""
    if COMMANDS in markdown:
        markdown = markdown.partition(COMMANDS)[0] + commands.table()
    return with_links(markdown, page.file.src_uri)


def with_links(markdown: str, place: str) -> str:
    """A page whose links stay within the book.

    Args:
        markdown: Text of the page.
        place: Where it lies in the book.

    Returns:
        The text; a link to a file that has no page is left as the words it stood under.
    """
    lies = {made: file for made, file in COPIED.items()}.get(place, f"docs/{place}")
    pages = {file: made for made, file in COPIED.items()}
    pages |= {f"examples/{p.name}": f"tutorials/{p.stem}.md" for p in tutorials.all_scripts()}
    pages |= {"examples": "tutorials/index.md", "README.md": "index.md"}

    def turned(found: re.Match[str]) -> str:
        target, anchor = found[1], found[2] or ""
        if ":" in target or place.startswith(("api/", "tutorials/")):
            return found[0]
        file = posixpath.normpath(posixpath.join(posixpath.dirname(lies), target))
        wanted = pages.get(file) or (file[5:] if file.startswith("docs/") else "")
        if not wanted:
            raise ValueError(f"{place} links to {target}, which has no page in the book")
        return f"]({posixpath.relpath(wanted, posixpath.dirname(place) or '.')}{anchor})"

    return _LINK.sub(turned, markdown)
