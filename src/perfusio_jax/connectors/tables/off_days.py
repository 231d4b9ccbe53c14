"""Samples that no whole day finds: a culture begun at 16:00 and sampled at 08:00."""

from collections.abc import Sequence

import numpy as np

from perfusio_jax._core import HOURS_PER_DAY

DAY_TOLERANCE_H = 6.0
"""How far [h] a sample may lie from 24 h times its day, for those who count by days."""

_SHOWN = 6


def off_the_days(times_h: Sequence[float], *, tolerance_h: float = DAY_TOLERANCE_H) -> list[float]:
    """Times that lie near a day without a sample of its own [h].

    Samples between the days are in order as long as the days beside them are sampled, too, and
    so is one on the way from the last of these to the next.

    Args:
        times_h: Sample times of one run [h].
        tolerance_h: How far from a whole day a sample still counts for it [h].
    """
    times = np.asarray(times_h, float)
    days = np.rint(times / HOURS_PER_DAY)
    near = np.abs(times - HOURS_PER_DAY * days) <= tolerance_h
    found = set(days[near].tolist())
    last = max(found, default=-1.0)
    return [
        float(t)
        for t, day in zip(times, days, strict=True)
        if day not in found and t // HOURS_PER_DAY != last
    ]


def off_days_text(times_h: Sequence[float]) -> str:
    """What to say of the samples of one run that no whole day finds; empty if there are none."""
    lost = off_the_days(times_h)
    if not lost:
        return ""
    shown = ", ".join(f"{t:g}" for t in lost[:_SHOWN])
    more = f" and {len(lost) - _SHOWN} more" if len(lost) > _SHOWN else ""
    what = "samples are" if len(lost) > 1 else "samples is"
    return (
        f"{len(lost)} of {len(times_h)} {what} more than {DAY_TOLERANCE_H:g} h from a whole day "
        f"({shown}{more} h since inoculation), and no other sample stands for that day"
    )
