"""`perfusio-jax` with a brain that decides at once: `python -m tests.faults.quick run ...`.

Everything else is the program itself: configuration, connectors, loops, records, commands.
"""

import sys
from typing import Any

from perfusio_jax.cli import main
from perfusio_jax.service import replay
from perfusio_jax.twin import digital_twin

from .thinking import LightBrain


class QuickBrain(LightBrain):
    """Stands where the hybrid model and its policy would."""

    def __init__(self, model: Any, policy: Any, *, mode: str, **settings: Any) -> None:
        super().__init__(lambda day: "")
        self.model, self.mode = model, mode


if __name__ == "__main__":
    digital_twin.ModelBrain = QuickBrain  # pyright: ignore[reportAttributeAccessIssue]
    replay.ModelBrain = QuickBrain  # pyright: ignore[reportAttributeAccessIssue]
    main(sys.argv[1:])
