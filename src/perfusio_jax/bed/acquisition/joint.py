"""One joint set of base samples: the objective's part and a part for every constrained outcome.

Two sets drawn side by side are not independent because their seeds differ: two scrambles of one
Sobol dimension correlate by 0.66 to 1, and no number of samples mends it. So an acquisition draws
one sequence and deals its dimensions out: first the objective's, then those of each outcome.

Reference:
    Owen (1997), Scrambled net variance for integrals of smooth functions: the dimensions of one
    scrambled net are independent of each other, two nets of the same dimension are not.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from scipy.special import ndtr

from perfusio_jax._core import Array, ConfigError, Float
from perfusio_jax.bed.acquisition.draws import Constraint, OutcomeConstraint, make_base
from perfusio_jax.bed.optimiser.sampling import normal_base_samples

_CHANCE = 1e-4
"""How often independent sets are taken for dependent ones [-]."""
_REMEDY = (
    "Leave `base` out of OutcomeConstraint: the acquisition then deals one joint set out. Or split "
    "the columns of one set, normal_base_samples(S, (n_objective + n_constraint,), seed=...), "
    "between `sampler` and `base`."
)


class JointBase(NamedTuple):
    """What an acquisition draws with."""

    base: Float[Array, "S n"] | None
    """The objective's base samples; None if its surrogate needs none."""
    n_samples: int
    """Number of samples."""
    constraints: tuple[Constraint, ...]
    """The constraints, every one with its part."""


def joint_base(
    model: Any,
    sampler: Any,
    constraints: Sequence[Constraint],
    n_points: int,
    n_objectives: int | None,
    *,
    seed: int,
) -> JointBase:
    """Base samples of an objective and of the outcomes that constrain it.

    With a number of samples the acquisition owns the set: constraints get dimensions of their
    own, and base samples that were given to a constraint keep their values, but their rows are
    paired anew in the order of the joint set. With an array as `sampler` the set is the caller's:
    base samples of constraints are used as they are and refused where they depend on the
    objective's or on each other; a constraint without any gets a Sobol set in random order.
    Constraints on one surrogate share its samples, and a constraint on the objective's own
    surrogate takes the objective's.

    Args:
        model: Surrogate of the objective.
        sampler: Number of samples, base samples `(S, n)` or `(S, n, m)`, or None for as many as
            a constraint was given, else 512.
        constraints: Callables; every `OutcomeConstraint` in them is dealt its part.
        n_points: Points sampled jointly; 0 for closed forms, which draw for constraints only.
        n_objectives: Number of objectives, or None for one without a last axis.
        seed: Sobol scrambling seed.

    Returns:
        The objective's base samples, their number, and the constraints with theirs.

    Raises:
        ConfigError: If shapes do not fit, or sets that were given depend on each other.
    """
    leaves, form = jax.tree.flatten(tuple(constraints), is_leaf=_is_outcome)
    limits = [leaf for leaf in leaves if _is_outcome(leaf)]
    if not limits:
        base, n_samples = (
            make_base(model, sampler, n_points, n_objectives, seed=seed) if n_points else (None, 0)
        )
        return JointBase(base, n_samples, tuple(constraints))
    is_given = not (sampler is None or isinstance(sampler, int))
    if sampler is None:
        sampler = next((c.base.shape[0] for c in limits if c.base is not None), None)
    base, n_samples = make_base(model, sampler, max(n_points, 1), n_objectives, seed=seed)
    if not n_points:
        base = None
    n_samples = n_samples or _stated(sampler, model)
    own = None if base is None else model
    outcomes = [c.model for c in limits if c.model is not own]
    outcomes = list({id(outcome): outcome for outcome in outcomes}.values())
    n = max(n_points, 1)
    _check_shapes(limits, n_samples, n)
    if is_given:
        parts = _beside_given(outcomes, limits, n_samples, n, seed)
        _check_independent(base, n, outcomes, parts)
    else:
        base, parts = _dealt(base, outcomes, limits, n_samples, n, seed)
    numbers = {id(outcome): k for k, outcome in enumerate(outcomes)}

    def dealt(limit: OutcomeConstraint) -> OutcomeConstraint:
        k = numbers.get(id(limit.model))
        part, rows = (base, None) if k is None else _crossed(limit.model, parts[k], seed + k)
        return OutcomeConstraint(limit.model, part, limit.limit, limit.sign, rows)

    leaves = [dealt(leaf) if _is_outcome(leaf) else leaf for leaf in leaves]
    return JointBase(base, n_samples, jax.tree.unflatten(form, leaves))


def _is_outcome(leaf: Any) -> bool:
    return isinstance(leaf, OutcomeConstraint)


def _stated(sampler: Any, model: Any) -> int:
    """Rows for a surrogate that holds its own paths: only the caller knows how many."""
    if isinstance(sampler, int):
        return sampler
    if sampler is not None:
        return jnp.shape(sampler)[0]
    raise ConfigError(
        f"{type(model).__name__} holds its own paths, and an OutcomeConstraint needs one sample "
        "per path: say `sampler=` number of paths."
    )


def _check_shapes(limits: Sequence[OutcomeConstraint], n_samples: int, n: int) -> None:
    for limit in limits:
        given = limit.base
        if given is not None and (
            given.ndim != 2 or given.shape[0] != n_samples or given.shape[1] < n
        ):
            raise ConfigError(
                f"a constraint was given base samples of shape {given.shape}; beside an "
                f"acquisition of {n_samples} samples and {n} points (pending and baseline points "
                f"included) they must be ({n_samples}, {n}), or be left out."
            )


def _dealt(
    base: Array | None,
    outcomes: Sequence[Any],
    limits: Sequence[OutcomeConstraint],
    n_samples: int,
    n: int,
    seed: int,
) -> tuple[Array | None, list[Array]]:
    """One Sobol sequence, its dimensions dealt to the objective and to every outcome."""
    n_own = 0 if base is None else math.prod(base.shape[1:])
    joint = normal_base_samples(n_samples, (n_own + n * len(outcomes),), seed=seed)
    parts = []
    for k, outcome in enumerate(outcomes):
        part = joint[:, n_own + k * n : n_own + (k + 1) * n]
        given = _given_to(outcome, limits)
        parts.append(part if given is None else _paired_anew(given[:, :n], part))
    return (None if base is None else joint[:, :n_own].reshape(base.shape)), parts


def _beside_given(
    outcomes: Sequence[Any], limits: Sequence[OutcomeConstraint], n_samples: int, n: int, seed: int
) -> list[Array]:
    """Parts beside a set nothing is known of: those given, else a Sobol set in random order."""
    rows = np.random.default_rng([seed, n_samples]).permutation(n_samples)
    fresh = normal_base_samples(n_samples, (max(n * len(outcomes), 1),), seed=seed)[rows]
    parts = []
    for k, outcome in enumerate(outcomes):
        given = [c.base for c in limits if c.model is outcome and c.base is not None]
        for other in given[1:]:
            if not _is_same(other, given[0]):
                raise ConfigError(
                    "two constraints on one surrogate were given different base samples; they "
                    "judge the same samples of one outcome. " + _REMEDY
                )
        parts.append(given[0] if given else fresh[:, k * n : (k + 1) * n])
    return parts


def _given_to(outcome: Any, limits: Sequence[OutcomeConstraint]) -> Array | None:
    return next((c.base for c in limits if c.model is outcome and c.base is not None), None)


def _is_same(a: Array, b: Array) -> bool:
    if isinstance(a, Tracer) or isinstance(b, Tracer):
        return a is b
    return a.shape == b.shape and bool(np.array_equal(a, b))


def _paired_anew(given: Array, part: Array) -> Array:
    """The values given, every column in the order of its dimension of the joint set."""
    xp: Any = jnp if isinstance(given, Tracer) else np
    rank = np.argsort(np.argsort(np.asarray(part), axis=0), axis=0)
    return jnp.asarray(xp.take_along_axis(xp.sort(given, axis=0), rank, axis=0))


def _crossed(model: Any, part: Array, seed: int) -> tuple[Array, Array | None]:
    """Base samples of a mixture, and which of its samples is whose partner.

    A mixture deals its samples out in blocks, member after member. Block by block beside another
    mixture, member k would only ever meet member k: the members are dealt to the rows at random.
    """
    n_members = getattr(model, "n_members", None)
    if n_members is None or part.shape[0] < n_members:
        return part, None
    n_rows = part.shape[0] // n_members * n_members
    rows = np.random.default_rng([seed, n_rows]).permutation(n_rows)
    return part[:n_rows][np.argsort(rows)], jnp.asarray(rows)


def _check_independent(
    base: Array | None, n: int, outcomes: Sequence[Any], parts: Sequence[Array]
) -> None:
    """Refuse sets whose columns of one rank, or distances from the middle, correlate.

    Column j of two sets drawn alike is the same Sobol dimension. Half of the columns must say so:
    single pairs of high dimensions correlate within one set too while samples are few.
    """
    sets = [("the objective's", base)] if base is not None else []
    sets += [(f"those of constraint {k + 1}", part) for k, part in enumerate(parts)]
    if any(isinstance(values, Tracer) for _, values in sets):
        return
    features = [(name, _features(np.asarray(values)[:, :n])) for name, values in sets]
    for i, (name, mine) in enumerate(features):
        for other, theirs in features[i + 1 :]:
            width = min(mine.shape[-1], theirs.shape[-1])
            each = np.abs(np.einsum("fsj,gsj->fgj", mine[..., :width], theirs[..., :width]))
            found = float(np.median(np.max(each, axis=(0, 1)))) if width else 0.0
            # independent columns: normal, of deviation 1 / sqrt(S)
            n_rows = mine.shape[1]
            allowed = math.sqrt(2.0 * math.log(2.0 * max(each.size, 1) / _CHANCE) / n_rows)
            if found > allowed:
                raise ConfigError(
                    f"base samples depend on each other: {name} and {other} correlate by "
                    f"{found:.2f} in {n_rows} samples, where chance allows {allowed:.2f}. "
                    + _REMEDY
                )


def _features(values: np.ndarray) -> np.ndarray:
    """Columns and their distances from the middle `(2,S,n)`, standardised to unit length."""
    flat = values.reshape(values.shape[0], -1)
    both = np.stack([flat, np.abs(ndtr(flat) - 0.5)])
    both = both - both.mean(axis=1, keepdims=True)
    size = np.linalg.norm(both, axis=1, keepdims=True)
    return both / np.where(size > 0, size, 1.0)
