"""A report as Markdown: all words and tables, figures in words."""

import re
from typing import Final

from perfusio_jax._core import DataError
from perfusio_jax._core.text import shown
from perfusio_jax.twin.records.secrets import redact

from .document import Block, Command, Document, Grid, Listing, Picture, Words

_MARKS: Final = re.compile(r"([\\`*_{}\[\]<>#|~$])")


def plain(text: str) -> str:
    """A text from anywhere in one line, without what Markdown or HTML would take for markup."""
    line = " ".join(shown(redact(str(text))).split())
    return _MARKS.sub(r"\\\1", line)


def markdown_text(document: Document) -> str:
    """A report as Markdown.

    Args:
        document: The report.

    Returns:
        The text; figures are told in the words that go with them.
    """
    lines = [f"# {plain(document.title)}", ""]
    lines += [f"- {plain(name)}: {plain(value)}" for name, value in document.facts]
    for n, section in enumerate(document.sections, start=1):
        lines += ["", f"## {n}. {plain(section.title)}", ""]
        for block in section.blocks:
            lines += [*_lines(block), ""]
    return "\n".join(lines).rstrip() + "\n"


def _lines(block: Block) -> list[str]:
    if isinstance(block, Words):
        return [f"**{plain(block.text)}**" if block.is_warning else plain(block.text)]
    if isinstance(block, Listing):
        return [f"- {plain(item)}" for item in block.items]
    if isinstance(block, Command):
        return [f"    {shown(redact(block.text))}"]
    if isinstance(block, Grid):
        rule = ["---:" if k in block.numeric else "---" for k in range(len(block.heads))]
        rows = [block.heads, rule, *([plain(c) for c in row] for row in block.rows)]
        return ["| " + " | ".join(row) + " |" for row in rows]
    if isinstance(block, Picture):
        try:
            told = str(block.draw().get_label() or "")
        except DataError as error:
            told = f"not drawn. {error}"
        return [f"Figure, {plain(block.caption)}: {plain(told)}"]
    return [
        "| Role | Name | Date | Signature |",
        "| --- | --- | --- | --- |",
        *(f"| {plain(role)} | | | |" for role in block.roles),
    ]
