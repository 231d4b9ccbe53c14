"""Which libraries compute: what a record of a run has to say to be reckoned again."""

import importlib.metadata
import platform
from typing import Final

LIBRARIES: Final = (
    *("jax", "jaxlib", "numpy", "scipy", "equinox", "gpjax", "diffrax", "numpyro", "optax"),
    "optimistix",
)
"""Libraries whose version may move a digit."""


def versions() -> dict[str, str]:
    """Version of Python and of `LIBRARIES`, by name.

    One that is not installed as a package is told as "unknown".
    """
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found
