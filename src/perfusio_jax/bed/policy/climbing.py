"""The search of one decision: incumbent, starts, and the climb on the roll-outs."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from perfusio_jax._core import Array
from perfusio_jax._core.programs import compiled
from perfusio_jax.bed.optimiser.polytope import Polytope
from perfusio_jax.bed.optimiser.progress import compiling
from perfusio_jax.bed.optimiser.search import (
    SearchInfo,
    SearchSettings,
    choose_starts,
    climb,
    to_unit,
)
from perfusio_jax.bed.policy.incumbents import Held, Rule, Sampled, acquisition_of, compare_with
from perfusio_jax.bed.policy.outlook import on_paths
from perfusio_jax.bed.surrogate.surrogates import RolloutSurrogate


class Found(NamedTuple):
    """What a climb left."""

    held: Held
    """What candidates were compared with."""
    u: Array
    """Best set-points."""
    value: Array
    """Their acquisition."""
    scores: Array
    """Acquisition of the points it could have started from."""
    search: SearchInfo
    """Diagnostics of the optimiser."""


@compiled
def climb_on_rollouts(
    surrogate: RolloutSurrogate,
    box: Polytope,
    worth: tuple[Array, Array],
    seen: tuple[Array, ...],
    rule: Rule,
    settings: SearchSettings,
) -> Found:
    """Incumbent, starts, and the climb.

    Args:
        surrogate: What forecasts and scores.
        box: Limits.
        worth: Scores and log feasibilities of the known points and of the others.
        seen: Known points a climb starts from, the others, and, if they are no starts, the known
            points.
        rule: Which acquisition, against what.
        settings: Sizes and tolerances.
    """
    compiling(f"the search{on_paths(surrogate)}")
    (samples, weights), starting, points = worth, seen[0], seen[1]
    n_known, n = seen[-1].shape[0] if len(seen) == 3 else starting.shape[0], points.shape[0]
    held = compare_with(rule, samples[:n_known], weights[:n_known])
    acqf = acquisition_of(rule, surrogate, held)

    def seen_worth(one: Array, weight: Array) -> Array:
        return acquisition_of(rule, Sampled(one, weight), held)(jnp.zeros((1, 1)))

    others = slice(n_known, n_known + n)
    scores = jax.vmap(seen_worth)(samples[others], weights[others])
    drawn = to_unit(box, points)[choose_starts(scores, settings, key=rule.key)]
    starts = jnp.concatenate([to_unit(box, starting), drawn], axis=0)[:, None, :]
    batch, value, search = climb(acqf, box, starts, scores, settings=settings)
    return Found(held, batch[0], value, scores, search)


def both(first: SearchInfo, last: SearchInfo) -> SearchInfo:
    """Diagnostics of a search in two parts: ends of the first, gradient of the last.

    Args:
        first: Of the part on few paths.
        last: Of the part on all.
    """
    return first._replace(
        n_rounds=first.n_rounds + last.n_rounds,
        n_evals=first.n_evals + last.n_evals,
        gradient=last.gradient,
        violation=last.violation,
        n_converged=first.n_converged,
    )
