"""What somebody may have meant by a name that is not known."""

import difflib
from collections.abc import Iterable


def did_you_mean(unknown: Iterable[str], known: Iterable[str]) -> str:
    """The nearest known name to each unknown one, as the middle of a sentence.

    Args:
        unknown: Names as they were given.
        known: Names that are allowed.

    Returns:
        The words, in parentheses; empty where nothing is near.

    Example:
        >>> did_you_mean(["sorce", "zzz"], ["source", "folder"])
        " (did you mean 'source'?)"
    """
    allowed = {name.casefold(): name for name in known}
    near = [difflib.get_close_matches(n.casefold(), allowed, n=1, cutoff=0.6) for n in unknown]
    said = list(dict.fromkeys(f"'{allowed[match[0]]}'" for match in near if match))
    return f" (did you mean {', '.join(said)}?)" if said else ""
