"""How large a search is and when it stops."""

from typing import NamedTuple


class SearchSettings(NamedTuple):
    """Sizes and tolerances of a search; a change of any of them compiles anew."""

    n_restarts: int = 10
    """Starts that climb."""
    n_raw_samples: int = 512
    """Sobol points scored first."""
    max_rounds: int = 400
    """Value-and-gradient evaluations per start, at most."""
    memory: int = 10
    """Curvature pairs kept."""
    raw_batch: int = 64
    """Raw points evaluated at once: memory against speed."""
    eta: float = 1.0
    """Sharpness of the Boltzmann rule [-]; 0 draws uniformly."""
    gradient_tolerance: float = 1e-7
    """Largest projected gradient entry at the end, per unit of value spread."""
    value_tolerance: float = 1e-11
    """Relative increase that counts as progress [-]."""
    derivative: str = "reverse"
    """`reverse` or `forward` mode, or `difference`: one-sided differences of `DIFFERENCE_STEP`
    in normalised coordinates, for acquisitions that run fast but compile slowly."""
    is_sequential: bool = False
    """Evaluate the starts one after the other, whatever `n_lanes` says."""
    n_lanes: int = 4
    """Starts evaluated at once; one that stops makes room for the next."""
    coarse_tolerance: float = 1e-4
    """As `value_tolerance`, for the first climb of all starts; the best ends climb on. Not with
    `is_sequential`, where every start climbs once."""
    n_second: int = 10
    """Ends or replacements that climb on in a later round, at most."""
    n_exchanges: int = 3
    """How often, at most, candidates of the best batches are replaced by those of other ends and
    of good raw points, and the best replacements climb; for batches only, and not with
    `is_sequential`."""
    exchange_pool: int = 64
    """Candidates that are tried in every place, half of them from ends."""
