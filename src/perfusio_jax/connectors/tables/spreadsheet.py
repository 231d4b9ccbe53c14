"""Text cells that spreadsheets do not run, and back.

A cell that begins with `=`, `+`, `-`, `@`, a tab or a line break is a formula to a spreadsheet. A
leading apostrophe makes it text. So that nothing is lost, a text that begins with apostrophes and
then one of these gets one more, and reading takes one away.
"""

import re
from typing import Final

_FORMULA: Final = re.compile(r"'*[=+\-@\t\r\n]")
_GUARDED: Final = re.compile(r"'+[=+\-@\t\r\n]")


def guard(text: str) -> str:
    """A text cell as it is written to CSV."""
    return "'" + text if _FORMULA.match(text) else text


def unguard(cell: str) -> str:
    """The text of a cell written by `guard`; any other cell as it is."""
    return cell[1:] if _GUARDED.match(cell) else cell
