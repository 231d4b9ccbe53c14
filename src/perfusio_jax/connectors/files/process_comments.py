"""A process as TOML with a comment above every part that was assumed."""

import re
from collections.abc import Sequence
from typing import Final

from perfusio_jax._core.text import shown
from perfusio_jax.process.description import Process

_PART: Final = re.compile(r'name = "(?P<name>\w+)"')
_TABLE: Final = re.compile(r"\[\[\w+\]\]")
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
    about: dict[str, list[str]] = {}
    for sentence in assumptions:
        about.setdefault(sentence.split(":", 1)[0], []).append(_comment(sentence))
    out: list[str] = []
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        found = _PART.match(after) if _TABLE.fullmatch(line) else _KEY.match(line)
        out += about.pop(found["name"], []) if found else []
        out.append(line)
    top = [line for lines in about.values() for line in lines]
    head = ["# What the table does not say was assumed, and is told in a comment: look at each."]
    return "\n".join([*head, *top, "", *out]) + "\n"


def _comment(sentence: str) -> str:
    return f"# {shown(' '.join(sentence.split()))}"
