"""How much one decision on roll-outs computes, and about how long that takes."""

from typing import Any

from perfusio_jax.bed.optimiser.progress import rollout_seconds
from perfusio_jax.bed.optimiser.search import SearchSettings

ROLLOUT_SETTINGS = SearchSettings(
    n_restarts=3,
    n_raw_samples=64,
    max_rounds=15,
    memory=6,
    raw_batch=16,
    gradient_tolerance=1e-3,
    value_tolerance=1e-4,
    derivative="difference",
    is_sequential=True,
)
"""Sizes for roll-outs, where one evaluation costs paths x days. The set-points in force, and the
last plan where there is one, are further starts.

Derivatives: one-sided differences. With the prior's exponential predictor-corrector exact ones
are within reach but no faster: 64 paths over 14 days with 448 rows in the process take 17 ms on
one core, seven of them 120 ms, all six tangents in forward mode 117 ms (2 s to compile), reverse
mode 133 ms (4 s to compile), because the kernel's rows are read once more per tangent. Under
common random numbers the score is a smooth function of the set-points, so that differences are
good to about 1e-5, far below the search's tolerance, and they are only taken at points that are
kept.
"""

N_ALTERNATIVES = 3
"""Other good recipes named with every decision."""

SCAN_ROUNDS = 6
"""Value-and-gradient evaluations per start on the paths a search is begun on."""

SCAN_LANES = 4
"""Starts that climb side by side there: few paths alone leave the machine waiting."""


def room(d: int) -> int:
    """Rows of the last table: the answer, what is in force, 2 d variations, alternatives.

    Args:
        d: Set-points searched.
    """
    return 2 + 2 * d + N_ALTERNATIVES


def decision_seconds(
    model: Any, settings: SearchSettings, n_controls: int, n_paths: int, n_scan: int, horizon: int
) -> float:
    """About how long one decision takes on one core, once compiled [s].

    Args:
        model: Hybrid model.
        settings: Sizes of the search.
        n_controls: Set-points searched.
        n_paths: Paths.
        n_scan: Paths on which the search is begun; 0 if there is no such part.
        horizon: Steps ahead.
    """
    gradient = 1 + (n_controls if settings.derivative == "difference" else 3)
    ends, last = settings.n_restarts + 2, room(n_controls)
    # about a third of the trial points are refused, and their differences not taken
    climb = 0.65 * gradient * settings.max_rounds
    if not n_scan:
        count = settings.n_raw_samples + ends * climb + last
        return count * rollout_seconds(model, n_paths, horizon)
    few = settings.n_raw_samples + 0.65 * gradient * ends * SCAN_ROUNDS
    return few * rollout_seconds(model, n_scan, horizon) + (ends + climb + last) * (
        rollout_seconds(model, n_paths, horizon)
    )
