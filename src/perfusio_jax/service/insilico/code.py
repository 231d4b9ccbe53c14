"""Files of your own that a campaign rests on, and whether they are as they were."""

import hashlib
import importlib.util
from pathlib import Path

from .plan import CampaignPlan


def sources_of(plan: CampaignPlan) -> dict[str, str]:
    """What a campaign takes from files that are not this library's.

    Args:
        plan: The campaign, whose policies and mechanism can be had.

    Returns:
        SHA-256 of the file by what the plan names: `module:name`, or a file of SBML. A module
        without a file of source is left out.
    """
    named = [p.kind for p in plan.policies] + ([plan.mechanism] if plan.mechanism else [])
    found = {}
    for text in dict.fromkeys(named):
        module, colon, _ = text.partition(":")
        if colon:
            spec = importlib.util.find_spec(module)
            path = None if spec is None or not spec.has_location else spec.origin
        else:
            path = text
        if path is not None and Path(path).is_file():
            found[text] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return found


def differing(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """What both name, and is not as it was.

    Args:
        before: As `sources_of` gave them.
        now: The same.
    """
    return [name for name, digest in now.items() if before.get(name, digest) != digest]
