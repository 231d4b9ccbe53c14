"""A brain without a model: quick, deterministic, and as mad as the plan says."""

import hashlib
import json
import math
from collections.abc import Callable

import numpy as np

from perfusio_jax._core import STATE_ORDER
from perfusio_jax.twin import Lesson, Proposal, Situation

from .plant import START

BRAIN_FAULTS = (
    "raise",
    "memory",
    "nan",
    "inf",
    "wild",
    "unknown",
    "text",
    "empty",
    "bleed",
    "retrain_worse",
    "retrain_fails",
    "no_forecast",
    "flood",
)


class LightBrain:
    """Proposes from a hash of what it sees, and forecasts that tomorrow is like today.

    Args:
        fault: Fault of a day.
        is_frozen: Whether it never learns.
    """

    def __init__(self, fault: Callable[[float], str], *, is_frozen: bool = True) -> None:
        self._fault, self.is_frozen = fault, is_frozen
        self.n_asked = 0

    def learn(self, situation: Situation) -> Lesson | None:
        if self._fault(situation.day) == "retrain_fails":
            raise FloatingPointError("the fit came to nothing; api_key=hunter2")
        if self.is_frozen:
            return None
        is_worse = self._fault(situation.day) == "retrain_worse"
        return Lesson(not is_worse, "old", "new", "worse" if is_worse else "no worse")

    def propose(self, situation: Situation) -> Proposal:
        self.n_asked += 1
        fault = self._fault(situation.day)
        if fault == "raise":
            raise ValueError("the optimiser found nothing")
        if fault == "memory":
            raise MemoryError
        digest = digest_of(situation)
        draw = np.random.default_rng(int(digest[:12], 16))
        setpoints: dict = {
            n: v * float(draw.uniform(0.7, 1.3)) for n, v in START.items() if n != "pyruvate_feed"
        }
        if fault in ("nan", "inf"):
            setpoints["temperature"] = math.nan if fault == "nan" else -math.inf
        elif fault == "wild":
            setpoints = {n: 1e6 * (-1) ** k for k, n in enumerate(setpoints)}
        elif fault == "unknown":
            setpoints["warp_factor"] = 9.0
        elif fault == "text":
            setpoints["temperature"] = "hot"
        elif fault == "empty":
            setpoints = {}
        elif fault == "bleed":
            setpoints["bleed_rate"], setpoints["perfusion_rate"] = 0.6, 0.5
        if fault == "no_forecast":
            return Proposal(setpoints, digest)
        now = situation.rows[-1]["values"]
        level = np.array([[now.get(n) or math.nan for n in STATE_ORDER]] * 3)
        if fault == "flood":
            level = level * 50.0
        forecast = {
            "days": [situation.day + 1.0 + k for k in range(3)],
            "mean": level,
            "q10": 0.8 * level,
            "q50": level,
            "q90": 1.2 * level,
        }
        return Proposal(setpoints, digest, forecast, STATE_ORDER)

    def abandon(self) -> None:
        return None

    def outlook(self, situation: Situation) -> Proposal | None:
        return None


def digest_of(situation: Situation) -> str:
    def sorted_floats(table) -> list:
        return [(n, None if v is None else float(v)) for n, v in sorted(table.items())]

    rows = [
        [float(r["time_h"]), sorted_floats(r["values"]), sorted_floats(r["controls"])]
        for r in situation.rows
    ]
    now = [sorted_floats(situation.u_now), sorted_floats(situation.fixed)]
    return hashlib.sha256(json.dumps([situation.day, rows, now]).encode()).hexdigest()
