"""Profile likelihoods: how much worse the best fit gets as one constant is held away from it.

Reference:
    Raue et al. (2009), Bioinformatics 25, 1923.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from perfusio_jax._core import ConfigError
from perfusio_jax._core.hints import did_you_mean
from perfusio_jax._core.progress import tell
from perfusio_jax.study.identifiability.fitting import searched, values_at
from perfusio_jax.study.identifiability.identify import Identifiability

THRESHOLD = 3.841
"""Rise of the loss that bounds a 95 % interval: chi-squared of one degree of freedom [-]."""
_FARTHEST = 6.0
"""How far a constant is followed [prior standard deviations]."""
_FIRST = 0.5
"""First step, in standard deviations."""
_GROWTH = 1.4
_MOST = 16
"""Points on each side."""


class Profile(NamedTuple):
    """The profile of one constant."""

    name: str
    """The constant."""
    at: Float[np.ndarray, " N"]
    """Where it was held, rising [its unit]."""
    rise: Float[np.ndarray, " N"]
    """How much the loss rose [-]; NaN where the others found no end."""
    lower: float
    """Lower end of the 95 % interval; minus infinity, or 0 of a logarithm, where it is open."""
    upper: float
    """Upper end; infinity where it is open."""

    @property
    def line(self) -> str:
        """In words."""
        low = "no lower end" if not np.isfinite(self.lower) or self.lower == 0.0 else ""
        high = "no upper end" if not np.isfinite(self.upper) else ""
        if low and high:
            return f"{self.name}: open on both sides; these runs do not bound it."
        if low or high:
            end = self.upper if low else self.lower
            word = "at most" if low else "at least"
            return f"{self.name}: {word} {end:.4g}, {low or high}."
        return f"{self.name}: between {self.lower:.4g} and {self.upper:.4g}."


def profile(found: Identifiability, name: str) -> Profile:
    """Follow one constant away from its best value, all others and the starts at their best.

    Args:
        found: From `identify`; priors count if they did there.
        name: The constant.

    Returns:
        The profile, followed until the loss has risen enough on both sides, or six prior standard
        deviations.

    Raises:
        ConfigError: If it is none of the constants.
    """
    names = [lever.name for lever in found.levers]
    if name not in names:
        raise ConfigError(
            f"{name!r} is none of the constants{did_you_mean([name], names)}: {', '.join(names)}."
        )
    i = names.index(name)
    tell(f"profile of {name}")
    best = float(found.problem.asked.z[i])
    sides = [_followed(found, i, sign) for sign in (-1.0, 1.0)]
    z = np.concatenate([sides[0][0][::-1], [best], sides[1][0]])
    rise = np.concatenate([sides[0][1][::-1], [0.0], sides[1][1]])
    ends = [_crossing(best, *side) for side in sides]
    laws = found.problem.laws

    def value(at: np.ndarray) -> np.ndarray:
        one = type(laws)(*(v[i : i + 1] for v in laws))
        return np.array([float(values_at(one, jnp.asarray([v]))[0]) for v in at])

    low, high = value(np.array(ends))
    return Profile(name, value(z), rise, float(low), float(high))


def _followed(found: Identifiability, i: int, sign: float) -> tuple[np.ndarray, np.ndarray]:
    """Places on one side, outwards, and how much the loss rose there."""
    problem = found.problem
    asked = problem.asked
    held = asked._replace(is_free=asked.is_free.at[i].set(0.0))
    own = float(found.sd[i] / found.prior_sd[i])
    step = _FIRST * (own if np.isfinite(own) else 1.0)
    step = float(np.clip(step, 1e-6, 1.0))
    places, rises, z = [], [], float(asked.z[i])
    for _ in range(_MOST):
        z += sign * step
        if abs(z - float(asked.z[i])) > _FARTHEST:
            break
        held = held._replace(z=held.z.at[i].set(z))
        point = searched(problem.experiment, problem.records, problem.levers, problem.laws, held)
        rise = float(point.loss) - problem.loss
        places.append(z)
        rises.append(rise if np.isfinite(rise) else np.nan)
        if not np.isfinite(rise) or rise > 1.5 * THRESHOLD:
            break
        held = held._replace(z=point.z, w=point.w)
        step *= _GROWTH if rise < 0.5 * THRESHOLD else 1.0
    return np.array(places), np.array(rises)


def _crossing(best: float, places: np.ndarray, rises: np.ndarray) -> float:
    """Where the rise reaches the threshold; infinite if it does not.

    Between two points the square root of the rise is taken for straight, as it is for a parabola.
    """
    z, root = best, 0.0
    for place, rise in zip(places, rises, strict=True):
        if not np.isfinite(rise):
            return float(place)
        new = np.sqrt(max(rise, 0.0))
        if rise >= THRESHOLD:
            share = (np.sqrt(THRESHOLD) - root) / max(new - root, 1e-12)
            return float(z + share * (place - z))
        z, root = float(place), new
    return np.inf if places.size == 0 or places[-1] > best else -np.inf
