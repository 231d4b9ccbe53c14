"""Policies of tests, as a user has them: functions of a module."""

import os
import signal
from pathlib import Path

import numpy as np


def hot(seen):
    """One degree more every day, where the reading of the product is there."""
    found = seen.set_points.copy()
    found[:, 3] = np.minimum(found[:, 3] + 0.5, 37.5)
    return found


def deadly(seen):
    """`hot`, but the first worker that gets here on day 1 is killed."""
    marker = Path(os.environ["TEST_KILL_MARKER"])
    if seen.day == 1:
        try:
            marker.touch(exist_ok=False)
        except FileExistsError:
            pass
        else:
            os.kill(os.getpid(), signal.SIGKILL)
    return hot(seen)


def narrow(seen):
    """Too few set-points."""
    return seen.set_points[:, :2]
