"""A process as TOML with a comment above every part that was assumed."""

import re
from collections.abc import Sequence
from typing import Final

from perfusio_jax._core.text import shown
from perfusio_jax.process.description import Process

CONTENT: Final = "[streams.carries]"
"""Where a file says what a stream brings."""
_PART: Final = re.compile(r'name = "(?P<name>\w+)"')
_TABLE: Final = re.compile(r"\[\[(?P<kind>\w+)\]\]")
_KEY: Final = re.compile(r"(?P<name>volume_L|biomass) = ")


def commented_toml(process: Process, assumptions: Sequence[str]) -> str:
    """TOML of a process with what was assumed.

    Args:
        process: The process.
        assumptions: Sentences that begin with the name they are about and a colon; those about
            no part of the process stand at the top.

    Returns:
        TOML text that reads back as the process.
    """
    lines = process.to_toml().splitlines()
    about: dict[tuple[str, str], list[str]] = {}
    for sentence in assumptions:
        # a stream often has the name of its control; what it brings is told above the stream
        kind = "streams" if CONTENT in sentence else ""
        about.setdefault((kind, sentence.split(":", 1)[0]), []).append(_comment(sentence))
    out: list[str] = []
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        table = _TABLE.fullmatch(line)
        found = _PART.match(after) if table else _KEY.match(line)
        for kind in ("", table["kind"] if table else ""):
            out += about.pop((kind, found["name"]), []) if found else []
        out.append(line)
    top = [line for lines in about.values() for line in lines]
    head = ["# What the table does not say was assumed, and is told in a comment: look at each."]
    return "\n".join([*head, *top, "", *out]) + "\n"


def _comment(sentence: str) -> str:
    return f"# {shown(' '.join(sentence.split()))}"
