"""How much a search for recipes computes."""

from typing import NamedTuple

from perfusio_jax.bed.optimiser.search import SearchSettings


class CampaignSettings(NamedTuple):
    """Sizes of a search over recipes; a change of any of them but the widths compiles anew."""

    n_raw: int = 256
    """Sobol points looked at first; a multiple of `batch`."""
    n_children: int = 64
    """Points looked at in each refinement; a multiple of `batch`."""
    n_parents: int = 16
    """Points the next refinement spreads around."""
    widths: tuple[float, ...] = (0.2, 0.1, 0.05)
    """Spread of each refinement, as a share of each range [-]."""
    climb_rounds: int = 6
    """Value-and-gradient evaluations by which every pick is improved; 0 for none."""
    n_time_rounds: int = 3
    """Rounds, at most, in which a pick's changes within a run are moved and its values climb."""
    n_expected: int = 1
    """Runs of a batch with one objective that are chosen for their mean."""
    distance: float = 0.03
    """Runs of one batch closer than about this share of the ranges repel each other [-]."""
    batch: int = 16
    """Recipes rolled out at once: memory against speed."""


CLIMB = SearchSettings(
    n_restarts=1,
    n_raw_samples=1,
    memory=6,
    gradient_tolerance=1e-3,
    value_tolerance=1e-4,
    derivative="difference",
    is_sequential=True,
)
"""Tolerances of the last improvement. Differences: over 14 days one value takes 13 ms, its
differences, forward and reverse derivatives about 100, 117 and 133 ms on one core."""


def count_rollouts(
    settings: CampaignSettings, q: int, n_controls: int, n_times: int | None = None
) -> int:
    """Roll-outs a search makes at most, for a time estimate.

    Args:
        settings: Sizes of the search.
        q: Runs to propose.
        n_controls: Set-points searched; with changes, the numbers of a recipe.
        n_times: Times at which they change within a run; None if they are held.

    Returns:
        Number of recipes rolled out, differences included.
    """
    pool = settings.n_raw + len(settings.widths) * settings.n_children
    if n_times is not None:
        climbs = (1 + settings.n_time_rounds) * settings.climb_rounds * (n_controls + 1)
        tried = -(-2 * n_times // settings.batch) * settings.batch
        return pool + q * (climbs + settings.n_time_rounds * (tried + 2 * settings.batch))
    return pool + q * (3 + settings.climb_rounds * (n_controls + 1))
