"""Text that came from outside: cut to a length, shown without what a screen would obey.

Names and messages come from files, servers and configurations. A terminal obeys escape
sequences in them, a reader is led astray by marks that turn the direction of writing, and a
pattern may take for ever on a text nobody expected to be long.
"""

import re
from typing import Any, Final

LONGEST_NAME: Final = 200
"""A label, unit or name of anything has no more characters."""
LONGEST_MESSAGE: Final = 20_000
"""A message or remark has no more characters."""

_OBEYED: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
"""Controls but tab and line feed; marks without a width or of direction; half characters."""
_MICROMETRE: Final = re.compile(r"\bum\b")
_BRACKETED: Final = re.compile(r"\[[^\[\]]*\]")


def shown(text: str) -> str:
    r"""A text as it may go to a screen or into a report.

    Args:
        text: From anywhere.

    Returns:
        The same with every character a terminal would obey written as `\x1b` or `\u202e`; tabs
        and line ends stay.
    """
    return _OBEYED.sub(_escaped, text)


def cut(text: str, most: int = LONGEST_NAME) -> str:
    """The beginning of a text, with dots where something was left out.

    Args:
        text: From outside.
        most: Characters it may have.
    """
    return text if len(text) <= most else text[: max(most - 3, 0)] + "..."


def shown_unit(unit: str) -> str:
    """A unit as people write it, from the spelling of tables.

    Examples:
        >>> from perfusio_jax._core.text import shown_unit
        >>> shown_unit("degC"), shown_unit("1e6 cells/mL"), shown_unit("um"), shown_unit("g/L")
        ('°C', '10⁶ cells/mL', 'µm', 'g/L')
    """
    plain = unit.replace("1e6 ", "10⁶ ").replace("degC", "°C")
    return _MICROMETRE.sub("µm", plain)


def shown_units(text: str) -> str:
    """A label or sentence with the units in it as people write them, those in square brackets.

    Args:
        text: With units in the spelling of tables; words outside of brackets stay as they are.

    Examples:
        >>> from perfusio_jax._core.text import shown_units
        >>> shown_units("final VCD [1e6 cells/mL] with temperature [degC] in column degC")
        'final VCD [10⁶ cells/mL] with temperature [°C] in column degC'
    """
    return _BRACKETED.sub(lambda found: shown_unit(found[0]), text)


def counted(n: int, what: str) -> str:
    """How many there are: one of them, or several.

    Args:
        n: Number.
        what: What one of them is called; several have an s.

    Examples:
        >>> from perfusio_jax._core.text import counted
        >>> counted(1, "run"), counted(3, "run")
        ('1 run', '3 runs')
    """
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def in_line(value: Any, most: int = 80) -> str:
    """A value as it was given, quoted, on one line and not longer than that.

    Args:
        value: Anything.
        most: Characters it may have.
    """
    if isinstance(value, str | bytes):
        return cut(shown(repr(value[: most + 1])), most)
    try:
        return cut(shown(repr(value)), most)
    except (ValueError, RecursionError):  # an integer of thousands of digits, a nest of lists
        return f"a {type(value).__name__} too large to show"


def plain_number(text: str) -> float:
    """A number from text, of the digits 0 to 9 only.

    Python also reads full-width, Arabic and many other digits, and `1_000`; nobody's analyser
    writes them, and nobody sees that they were read.

    Args:
        text: With a decimal point.

    Raises:
        ValueError: If it is no number in that sense.
    """
    if not text.isascii() or "_" in text:
        raise ValueError(f"{in_line(text)} is not a number")
    return float(text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
