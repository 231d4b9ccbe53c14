"""How an acquisition draws: joint samples at candidates and pending points, with their weights.

Shared by every Monte Carlo acquisition. Base samples are made once and stored, so that the
acquisition is a deterministic, differentiable function of the candidates.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from perfusio_jax._core import Array, Bool, ConfigError, Float, Int
from perfusio_jax.bed.acquisition.smooth import log_fatmoid
from perfusio_jax.bed.optimiser.sampling import normal_base_samples

Constraint = Callable[[Array], Array]
"""`c(X (n,d)) -> (n,)` or `(S,n)`; a candidate is feasible where it is at most zero."""

_OWN_DRAWS = 0x0B5E
"""Sets the draws of a surrogate that takes a key apart from whatever a caller draws with it."""


def never(like: Array) -> float:
    """Log weight of what does not count: below all that does, its square finite like itself."""
    return -(float(jnp.finfo(like.dtype).max) ** 0.25)


class OutcomeConstraint(eqx.Module):
    """A limit on something else the runs produce, judged on samples of its own surrogate.

    Feasible where the sampled outcome is at most `upper` (or at least `-upper` of the negated
    outcome: set `sign` to -1 for a lower limit).
    """

    model: Any
    """Surrogate of the outcome, one output, with `sample_from`."""
    base: Float[Array, "S n"] | None = None
    """Base samples. Leave them out: `build_acquisition` deals every outcome its part of one joint
    set. Given ones have as many rows as the acquisition has samples and columns for every point;
    beside a number of samples their rows are paired anew, beside an array they are checked."""
    limit: Float[Array, ""] = eqx.field(converter=lambda v: jnp.asarray(v, float), default=0.0)
    """Limit, unit of the outcome."""
    sign: float = eqx.field(static=True, default=1.0)
    """1 for an upper limit, -1 for a lower one."""
    rows: Int[Array, "S"] | None = None
    """Sample of the surrogate that each sample of the objective is paired with; the same if not
    given."""

    def __call__(self, X: Float[Array, "n d"]) -> Float[Array, "S n"]:
        """Amount by which each sample exceeds the limit.

        Raises:
            ConfigError: If there are no base samples yet, or too few columns.
        """
        return self._excess(self.model.sample_from(self._columns(X.shape[0])[:, : X.shape[0]], X))

    def pinned(self, points: Float[Array, "P d"]) -> tuple[Array, Constraint]:
        """Values at points that stay, and the constraint at further ones, jointly sampled.

        Args:
            points: Points that every later call is joint with.

        Returns:
            Values `(S,P)` and the constraint.
        """
        if not hasattr(self.model, "pinned"):
            return self(points), _After(self, points)
        sampler = self.model.pinned(points, self._columns(points.shape[0]))
        return self._excess(sampler.known), _Excess(self, sampler)

    def _columns(self, n: int) -> Array:
        if self.base is None:
            raise ConfigError(
                "this OutcomeConstraint has no base samples yet; pass it to `build_acquisition` "
                "in `constraints`, not inside another function, and it is dealt its own."
            )
        if n > self.base.shape[1]:
            raise ConfigError(
                f"an OutcomeConstraint with base samples for {self.base.shape[1]} points was "
                f"called with {n} (pending and baseline points included); build the acquisition "
                "with a larger `q`."
            )
        return self.base

    def _excess(self, samples: Array) -> Array:
        paired = samples if self.rows is None else samples[self.rows]
        return self.sign * (paired - self.limit)


class _Excess(eqx.Module):
    constraint: OutcomeConstraint
    sampler: Any

    def __call__(self, X: Array) -> Array:
        return self.constraint._excess(self.sampler(X))


class _After(eqx.Module):
    """A constraint at further points, evaluated jointly with pinned ones every time."""

    constraint: Any
    points: Array

    def __call__(self, X: Array) -> Array:
        P = self.points.shape[0]
        return self.constraint(jnp.concatenate([self.points, X]))[..., P:]


class Draws(eqx.Module):
    """Everything that turns candidates into weighted samples."""

    model: Any
    """Surrogate; more is better."""
    base: Float[Array, "S n"] | None
    """Standard normal base samples, or None for surrogates that hold their own paths."""
    constraints: tuple[Constraint, ...] = ()
    """Feasible where at most zero; callables of the candidates."""
    pending: Float[Array, "p d"] | None = None
    """Candidates already under way, whose results are not known yet."""
    eta: Float[Array, ""] = eqx.field(converter=lambda v: jnp.asarray(v, float), default=1e-3)
    """Width of the smooth step of a constraint, unit of the constraint."""
    seed: int = eqx.field(static=True, default=0)
    """Seed for surrogates that only know `sample(key, X, n)`."""
    n_samples: int = eqx.field(static=True, default=512)
    """Number of samples asked of such surrogates."""
    is_pending: Bool[Array, "p"] | None = None
    """Which rows of `pending` hold a point; all if not given."""
    fat: bool = eqx.field(static=True, default=False)
    """Whether the smooth step has a tail that falls like a power."""

    def joint(self, X: Float[Array, "q d"]) -> Float[Array, "n d"]:
        """Candidates followed by pending points."""
        if self.pending is None:
            return X
        if X.shape[1] != self.pending.shape[1]:
            raise ConfigError(
                f"candidates of {X.shape[1]} coordinates meet pending points of "
                f"{self.pending.shape[1]}; they must agree."
            )
        return jnp.concatenate([X, self.pending], axis=0)

    def __call__(self, X: Float[Array, "n d"]) -> tuple[Array, Array]:
        """Joint samples at the given points, and their log weights.

        Args:
            X: All points, pending ones included.

        Returns:
            Samples `(S,n)` or `(S,n,m)`, and log feasibilities `(S,n)` or `(1,n)`.
        """
        samples, log_weight = sample_and_weight(self, X)
        log_weight = log_weight + _paired(samples, self.log_feasibility(X))
        there = self.is_there(X.shape[0])
        if there is not None:
            # what a surrogate makes of an empty place may be no number at all
            own = there.reshape(1, -1, *[1] * (samples.ndim - 2))
            samples = jnp.where(own, samples, jax.lax.stop_gradient(samples[:, :1]))
            log_weight = jnp.where(there[None, :], log_weight, never(log_weight))
        return samples, log_weight

    def is_there(self, n: int) -> Bool[Array, "n"] | None:
        """Which of n joint points are points; None if all are.

        Args:
            n: Number of points, pending ones included.

        Returns:
            False for the empty places among the pending points.
        """
        if self.is_pending is None:
            return None
        n_candidates = n - self.is_pending.shape[0]
        return jnp.concatenate([jnp.ones((n_candidates,), bool), self.is_pending])

    def log_feasibility(self, X: Float[Array, "n d"]) -> Float[Array, "s n"]:
        """Log feasibility of every point on every sample, all constraints together.

        Args:
            X: Points.

        Returns:
            `(1,n)`, or `(S,n)` if a constraint gives one value per sample.
        """
        return log_feasibility(self.constraints, X, self.eta, self.fat)

    def pin(self, points: Float[Array, "P d"]) -> tuple[Array, Array, "PinnedDraws"]:
        """Samples at points that stay where they are, and the draws at further points.

        Args:
            points: Points already run, and pending ones.

        Returns:
            Samples `(S,P)` or `(S,P,m)`; whether each is feasible `(S,P)` or `(1,P)`; and the
            draws at further points, joint with these.
        """
        sampler = None
        if _is_reparameterised(self) and hasattr(self.model, "pinned"):
            sampler = self.model.pinned(points, self.base)
            known, legal = sampler.known, jnp.ones((1, points.shape[0]), bool)
        else:
            known, log_weight = sample_and_weight(self, points)
            legal = log_weight > -jnp.log(2.0)
        kept: list[Constraint] = []
        for constraint in self.constraints:
            if isinstance(constraint, OutcomeConstraint):
                value, constraint = constraint.pinned(points)
            else:
                value = constraint(points)
            kept.append(constraint)
            legal = legal & ((value if value.ndim == 2 else value[None, :]) <= 0.0)
        return known, legal, PinnedDraws(self, points, sampler, tuple(kept))


class PinnedDraws(eqx.Module):
    """Draws at new points, joint with the samples at pinned ones."""

    draws: Draws
    """How to draw."""
    points: Float[Array, "P d"]
    """The pinned points."""
    sampler: Any
    """What the surrogate made of them, or None."""
    constraints: tuple[Constraint, ...]
    """The constraints, joint with the pinned points."""

    def __call__(self, X: Float[Array, "n d"]) -> tuple[Array, Array]:
        """Samples and log weights at new points, as `Draws`."""
        draws, P = self.draws, self.points.shape[0]
        if self.sampler is not None:
            samples = self.sampler(X)
            log_weight = jnp.zeros((1, X.shape[0]), samples.dtype)
        elif hasattr(draws.model, "sample_and_feasibility"):
            # paths are stored: what the pinned points do changes nothing here
            samples, log_weight = sample_and_weight(draws, X)
        else:
            samples, log_weight = sample_and_weight(draws, jnp.concatenate([self.points, X]))
            samples, log_weight = samples[:, P:], log_weight[:, P:]
        feasible = log_feasibility(self.constraints, X, draws.eta, draws.fat)
        return samples, log_weight + _paired(samples, feasible)


def sample_and_weight(draws: Draws, X: Array) -> tuple[Array, Array]:
    """Samples of the surrogate and the log weights it gives itself.

    Args:
        draws: How to draw.
        X: All points.

    Returns:
        Samples `(S,n)` or `(S,n,m)`, log weights `(1,n)`.
    """
    if hasattr(draws.model, "sample_and_feasibility"):
        samples, log_weight = draws.model.sample_and_feasibility(X)
        return samples, log_weight[None, :]
    if not _is_reparameterised(draws):
        key = jax.random.fold_in(jax.random.key(draws.seed), _OWN_DRAWS)
        samples = draws.model.sample(key, X, draws.n_samples)
    else:
        base, n = draws.base, X.shape[0]
        if base is None or n > base.shape[1]:
            raise ConfigError(
                f"the acquisition was built with base samples for "
                f"{0 if base is None else base.shape[1]} points and was called with {n} (pending "
                "and baseline points included); build it with a larger `q`."
            )
        samples = draws.model.sample_from(base[:, :n], X)
    return samples, jnp.zeros((1, X.shape[0]), samples.dtype)


def _is_reparameterised(draws: Draws) -> bool:
    return draws.base is not None and hasattr(draws.model, "sample_from")


def log_feasibility(
    constraints: tuple[Constraint, ...], X: Float[Array, "n d"], eta: Array, fat: bool = False
) -> Float[Array, "s n"]:
    """Sum over the constraints of the log of a smooth step, sample by sample.

    The step of all constraints together is that of one sample. Its mean over the samples is the
    joint feasibility, for outcomes that are independent (then the product of their means) and for
    two limits on one outcome alike.

    Args:
        constraints: Callables, feasible where at most zero.
        X: Points.
        eta: Width of the step.
        fat: Whether the step has a tail that falls like a power.

    Returns:
        Log feasibility `(1,n)`, or `(S,n)` if a constraint gives one value per sample.
    """
    total = jnp.zeros((1, X.shape[0]), X.dtype)
    for constraint in constraints:
        value = constraint(X)
        value = value[None, :] if value.ndim == 1 else value
        step = log_fatmoid if fat else jax.nn.log_sigmoid
        total = total + step(-value / eta)
    return total


def _paired(samples: Array, log_weight: Array) -> Array:
    """Log weights with one row, or one per sample."""
    if log_weight.shape[0] not in (1, samples.shape[0]):
        raise ConfigError(
            f"a constraint gives {log_weight.shape[0]} samples and the objective "
            f"{samples.shape[0]}; every sample of one is paired with one of the other. Leave "
            "`base` out of the constraint, and choose `sampler` as a multiple of the members of "
            "an ensemble."
        )
    return log_weight


def make_base(
    model: Any, sampler: Any, n_points: int, n_objectives: int | None, *, seed: int
) -> tuple[Float[Array, "S n"] | None, int]:
    """Base samples for a surrogate, and how many samples there are.

    Args:
        model: Surrogate.
        sampler: Number of samples, or an array of base samples `(S,n)` or `(S,n,m)`, or None
            for 512 samples.
        n_points: Points sampled jointly, pending and baseline points included.
        n_objectives: Number of objectives, or None for one objective without a last axis.
        seed: Sobol scrambling seed.

    Returns:
        Base samples or None, and the number of samples.

    Raises:
        ConfigError: If given base samples have the wrong shape.
    """
    if getattr(model, "is_gaussian", True) is False and not hasattr(model, "sample_from"):
        return None, 0
    tail = () if n_objectives is None else (n_objectives,)
    if sampler is None or isinstance(sampler, int):
        n_samples = 512 if sampler is None else sampler
        if n_samples < 1:
            raise ConfigError(f"sampler={sampler} was given; ask for at least one sample.")
        if not hasattr(model, "sample_from"):
            return None, n_samples
        return normal_base_samples(n_samples, (n_points, *tail), seed=seed), n_samples
    base = jnp.asarray(sampler, float)
    if base.ndim and base.shape[0] < 1:
        raise ConfigError(
            f"base samples of shape {base.shape} were given; at least one sample is needed."
        )
    if base.ndim != 2 + len(tail) or base.shape[1] < n_points or base.shape[2:] != tail:
        raise ConfigError(
            f"base samples of shape {base.shape} were given; this acquisition needs "
            f"(S, {n_points}{''.join(f', {m}' for m in tail)})."
        )
    return base, base.shape[0]
