"""What a candidate has to be better than: the set-points in force and the last plan.

Both are forecast on the same paths as every candidate, so that an improvement is counted path by
path and what no set-point can change cancels. Which of the two is the incumbent, or what front
they make together, is the acquisition's choice:

- PI, EI and LogEI take the better one by its mean;
- LogNEI takes the better one of each path;
- the hypervolume kinds take the front they make, EHVI by their means, NEHVI on each path;
- NParEGO takes the better one of each path by one random scalarisation.

The acquisitions are the room's own; only the samples of the known points, which are there
already, are handed over instead of being drawn again.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import Array, Bool, ConfigError, Float, Int, Key
from perfusio_jax.bed.acquisition import montecarlo, multiobjective
from perfusio_jax.bed.acquisition.acquisitions import MULTI_OBJECTIVE
from perfusio_jax.bed.acquisition.boxes import BoxDecomposition, few_boxes
from perfusio_jax.bed.acquisition.draws import Draws, PinnedDraws

SINGLE_OBJECTIVE: Final = ("PI", "EI", "LogEI", "UCB", "qEI", "qLogEI", "qUCB", "qLogNEI")
"""Acquisitions of one objective that work on roll-outs."""

SEVERAL_OBJECTIVES: Final = ("qEHVI", "qNEHVI", "qLogNEHVI", "qNParEGO")
"""Acquisitions that weigh two targets or more against each other."""

HAS_REFERENCE: Final = frozenset({"qEHVI", "qNEHVI", "qLogNEHVI"})
"""Of those, the ones that measure a hypervolume above a reference point."""

TAKES_BEST_F: Final = frozenset({"PI", "EI", "LogEI", "UCB", "qEI", "qLogEI", "qUCB", "qKG"})
"""Acquisitions whose incumbent is one number; the others compare with known points."""

BOTH: Final = 2
"""Stands for set-points in force and last plan together."""

_AUGMENTATION = 0.05
"""Weight of the sum beside the worst objective in a scalarisation [-]."""

_WORSE = 0.1
"""How much worse than the worst known value the reference point is [-]."""


class Rule(eqx.Module):
    """Which acquisition, against what incumbent, with what key."""

    beta: Float[Array, ""]
    """Weight of exploration of UCB kinds [-]."""
    best_f: Float[Array, "*S"] | None
    """Incumbent in place of the known set-points."""
    key: Key
    """Draws the starts."""
    kind: str = eqx.field(static=True)
    """Name of the acquisition without its q."""
    ref_point: Float[Array, "m"] | None = None
    """Reference point in place of the default, scaled score [-]."""
    weights: Float[Array, "m"] | None = None
    """Weights of a scalarisation [-]."""


class Held(NamedTuple):
    """What a candidate is compared with."""

    best_f: Float[Array, "*S"]
    """Incumbent on every path, scaled score; for a front the best sum of the objectives, for a
    scalarisation its best value."""
    incumbent: Int[Array, ""]
    """Row of the incumbent, `BOTH` if each path has its own."""
    boxes: BoxDecomposition | None = None
    """Region the known points leave; `(C,m)`, or `(S,C,m)` with a front for each path."""
    scale: tuple[Array, Array] | None = None
    """Smallest and largest value of each objective in a scalarisation."""
    ref_point: Float[Array, "m"] = np.zeros(0)  # type: ignore[assignment]
    """Reference point; empty if there is none."""
    is_passed: Bool[Array, ""] = np.ones((), bool)  # type: ignore[assignment]
    """Whether a known point is better than the reference in every objective."""


class Sampled(eqx.Module):
    """One candidate whose samples are known already, in the shape of a surrogate."""

    samples: Float[Array, "S *m"]
    """Its scores on the paths."""
    log_weight: Float[Array, ""] = eqx.field(default_factory=lambda: jnp.zeros(()))
    """Its log feasibility [-]."""

    def sample_and_feasibility(self, X: Array) -> tuple[Array, Array]:
        """Samples and log feasibility, whatever the candidate."""
        return jnp.expand_dims(self.samples, 1), self.log_weight[None]


def compare_with(
    rule: Rule, samples: Float[Array, "P S *m"], log_weight: Float[Array, "P"]
) -> Held:
    """What the known set-points ask of a candidate.

    Args:
        rule: Which acquisition.
        samples: Scores of the known set-points on every path, one objective or several.
        log_weight: Their log feasibility [-].

    Returns:
        Incumbent or front.
    """
    total = samples if samples.ndim == 2 else jnp.sum(samples, axis=-1)
    means = jnp.mean(total, axis=1)
    better = jnp.argmax(jnp.where(jnp.isfinite(means), means, -jnp.inf))
    if samples.ndim == 2 and rule.kind != "LogNEI":
        return Held(samples[better] if rule.best_f is None else rule.best_f, better)
    both = jnp.asarray(BOTH) if samples.shape[0] > 1 else better
    known = jnp.swapaxes(samples, 0, 1)
    is_finite = jnp.isfinite(known).reshape(*known.shape[:2], -1).all(axis=-1)
    legal = is_finite & (log_weight > -jnp.log(2.0))[None, :]
    # a path without any legal point is compared with the worst that is finite
    apart = (...,) if samples.ndim == 2 else (..., None)
    worst = jnp.min(jnp.where(is_finite[apart], known, jnp.inf), axis=(0, 1))
    if samples.ndim == 2:
        filled = jnp.where(is_finite, known, worst)
        return Held(montecarlo.best_known(filled, legal), both)
    if rule.kind == "NParEGO":
        filled = jnp.where(is_finite[apart], known, worst.reshape(1, 1, -1))
        # scores are in units of each target's scale: the same value twice leaves them as they are
        top = jnp.max(jnp.mean(filled, axis=0), axis=0)
        return Held(_scalar_best(rule, filled, legal, (top, top)), both, scale=(top, top))
    ref = rule.ref_point
    if ref is None:
        ref = default_reference(worst)
    row = ref.reshape(1, 1, -1)
    if rule.kind == "EHVI":
        # known results, as certain as their means
        mean = jnp.mean(known, axis=0)
        front = jnp.where(legal.all(axis=0)[:, None], mean, row[0])
        boxes = few_boxes(front, ref)
        passed = jnp.any(jnp.all(front > row[0], axis=-1))
    else:
        front = jnp.where(legal[apart], known, row)
        boxes = jax.vmap(few_boxes, (0, None))(front, ref)
        passed = jnp.any(jnp.all(front > row, axis=-1))
    best = jnp.max(jnp.where(is_finite, jnp.swapaxes(total, 0, 1), -jnp.inf), axis=1)
    return Held(best, both, boxes=boxes, ref_point=ref, is_passed=passed)


def _scalar_best(
    rule: Rule, known: Array, legal: Array, scale: tuple[Array, Array]
) -> Float[Array, "S"]:
    value = multiobjective.scalarise(known, _weights(rule), scale, jnp.asarray(_AUGMENTATION))
    return montecarlo.best_known(value, legal)


def _weights(rule: Rule) -> Array:
    if rule.weights is None:
        raise ConfigError("qNParEGO was asked for without weights; draw one per objective.")
    return rule.weights


def acquisition_of(rule: Rule, model: Any, held: Held) -> Callable[[Array], Array]:
    """The acquisition of candidates, against what is known.

    Args:
        rule: Which one.
        model: `RolloutSurrogate`, or `Sampled`.
        held: What a candidate is compared with.

    Returns:
        A batch of one candidate `(1,d)` in, one number out.
    """
    draws, best_f = Draws(model=model, base=None), held.best_f
    # smooth on the scale of what can still be gained
    size = jnp.abs(jnp.mean(best_f)) + 1e-4
    if rule.kind == "LogEI":
        return montecarlo.MCLogExpectedImprovement(draws, best_f, 1e-4 * size)
    if rule.kind == "EI":
        return montecarlo.MCExpectedImprovement(draws, best_f)
    if rule.kind == "PI":
        return montecarlo.MCProbabilityOfImprovement(draws, best_f, 1e-2 * size)
    if rule.kind == "UCB":
        return montecarlo.MCUpperConfidenceBound(draws, rule.beta)
    # what is known was forecast on the same paths: nothing has to be drawn jointly with it
    pinned = PinnedDraws(draws, jnp.zeros((0, 0)), None, ())
    if rule.kind == "LogNEI":
        return montecarlo.MCLogNoisyExpectedImprovement(pinned, best_f, 1e-4 * size)
    if held.scale is not None:
        low, high = held.scale
        share = jnp.asarray(_AUGMENTATION)
        return multiobjective.NoisyParEGO(pinned, _weights(rule), low, high, share, best_f)
    if held.boxes is None:
        raise ConfigError(f"acquisition {rule.kind!r} needs what one objective does not give.")
    if rule.kind == "EHVI":
        return multiobjective.ExpectedHypervolumeImprovement(draws, held.boxes)
    if rule.kind == "NEHVI":
        return multiobjective.NoisyExpectedHypervolumeImprovement(pinned, held.boxes)
    width = 1e-4 * (jnp.min(jnp.abs(held.ref_point)) + 1e-4)
    return multiobjective.LogNoisyExpectedHypervolumeImprovement(pinned, held.boxes, width)


def default_reference(worst: Any) -> Any:
    """Reference point where nobody says: a tenth worse than the worst known value.

    A target that is met now cannot be given up for another then; a reference further away allows
    that.

    Args:
        worst: Worst known value of each objective.
    """
    return worst - _WORSE * abs(worst)


def check_acquisition(name: str, n_objectives: int, is_apart: bool) -> None:
    """Refuse an acquisition that does not work on roll-outs of an objective.

    Args:
        name: Acquisition.
        n_objectives: Targets or criteria.
        is_apart: Whether the objective keeps them apart.

    Raises:
        ConfigError: If it does not.
    """
    if name in MULTI_OBJECTIVE:
        if n_objectives < 2:
            raise ConfigError(
                f"acquisition {name!r} weighs several objectives against each other: it cannot "
                f"track targets where there is one. Use one of {', '.join(SINGLE_OBJECTIVE)} "
                "(qLogNEI is its like), or give two targets or more."
            )
        return
    if name == "qKG":
        raise ConfigError(
            "acquisition 'qKG' asks what a result would teach. Roll-outs are frozen paths: a "
            "result would tell which path is the true one, so that every run would seem to teach "
            "everything. Use qLogNEI or qLogEI, or give `decide` a Gaussian surrogate."
        )
    if name not in SINGLE_OBJECTIVE:
        raise ConfigError(
            f"acquisition {name!r} cannot track targets; use one of "
            f"{', '.join(SINGLE_OBJECTIVE + SEVERAL_OBJECTIVES)}."
        )
    if is_apart:
        raise ConfigError(
            f"the objective keeps {n_objectives} parts apart (is_pareto) and {name} takes one "
            f"number; leave is_pareto out, or use one of {', '.join(SEVERAL_OBJECTIVES)}."
        )


def check_numbers(name: str, n_objectives: int, best_f: Any, ref_point: Any) -> None:
    """Refuse an incumbent or a reference point that the acquisition has no use for.

    Args:
        name: Acquisition.
        n_objectives: Targets or criteria.
        best_f: Incumbent, or None.
        ref_point: Reference point, or None.

    Raises:
        ConfigError: If it has none, or the reference point has another number of entries.
    """
    if best_f is not None and name not in TAKES_BEST_F:
        raise ConfigError(
            f"best_f was given and {name} compares with known set-points; leave best_f out, or use "
            "qLogEI."
        )
    if ref_point is None:
        return
    if name not in HAS_REFERENCE:
        raise ConfigError(
            f"a reference point was given and {name} has none; leave ref_point out, or use one of "
            f"{', '.join(sorted(HAS_REFERENCE))}."
        )
    given = np.asarray(ref_point, float)
    if given.shape != (n_objectives,) or not np.isfinite(given).all():
        raise ConfigError(
            f"ref_point={given.tolist()} was given; it needs one finite number for each of "
            f"{n_objectives} objectives."
        )


def draw_weights(n_objectives: int, seed: int) -> Float[np.ndarray, "m"]:
    """Weights of one scalarisation, uniform over those that sum to one.

    Args:
        n_objectives: How many.
        seed: The same seed gives the same weights.
    """
    return np.random.default_rng(seed).dirichlet(np.ones(n_objectives))
