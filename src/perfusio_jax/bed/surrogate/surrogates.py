"""What an acquisition function can ask about: Gaussian beliefs and sampled roll-outs.

A surrogate answers two questions about candidate set-points, of which more is better:
`posterior(X) -> (mean, variance)` and `sample(key, X, n_samples) -> samples`. Objects that can
turn given base samples into samples say so by a method `sample_from(base, X)`.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp

from perfusio_jax._core import Array, ArrayLike, ConfigError, Float, Key
from perfusio_jax.bed.goal.constraints import (
    Chance,
    ControlCost,
    chance_feasibility,
    each_constraint,
)
from perfusio_jax.bed.goal.criteria import ProcessOFV
from perfusio_jax.bed.goal.objectives import MultiObjectiveOFV, Rollout, TargetTrackingOFV
from perfusio_jax.bed.goal.profile import Profile
from perfusio_jax.bed.goal.steps import closed, n_steps_of, steps_of


def _scalar(value: Any) -> Array:
    return jnp.asarray(value, float)


@runtime_checkable
class Surrogate(Protocol):
    """Anything that predicts the objective at candidate set-points; more is better.

    With `m` objectives every array gains a last axis of that size. `is_gaussian`, where it
    exists and is False, says that the marginals are not normal: analytic acquisitions are then
    replaced by their Monte Carlo forms.
    """

    def posterior(self, X: Float[Array, "n d"]) -> tuple[Float[Array, "n"], Float[Array, "n"]]:
        """Mean and variance at each candidate."""
        ...

    def sample(self, key: Key, X: Float[Array, "n d"], n_samples: int) -> Float[Array, "S n"]:
        """Joint samples at all candidates."""
        ...


class GaussianSurrogate(eqx.Module):
    """A Gaussian belief given by its mean and covariance functions.

    Both are callables, best `equinox` modules or `jax.tree_util.Partial`, whose arrays are
    then traced and may change without a new compile.
    """

    mean: Callable[[Array], Array]
    """`mean(X (n,d)) -> (n,)` or `(n,m)`, unit of the objective."""
    covariance: Callable[[Array, Array], Array]
    """`covariance(X (n,d), Z (k,d)) -> (n,k)` or `(m,n,k)`, that unit squared."""
    jitter: float = eqx.field(static=True, default=1e-10)
    """Added to the diagonal before the Cholesky factor, relative to its mean [-]."""

    is_gaussian: ClassVar[bool] = True

    def posterior(self, X: Float[Array, "n d"]) -> tuple[Array, Array]:
        """Mean and variance at each candidate.

        Args:
            X: Candidates, one per row.

        Returns:
            Arrays `(n,)`, or `(n,m)` for several objectives; the variance is not negative.
        """
        mean = self.mean(X)
        pointwise = jax.vmap(lambda x: self.covariance(x[None, :], x[None, :])[..., 0, 0])(X)
        return mean, jnp.maximum(pointwise, 0.0)

    def sample_from(self, base: Float[Array, "S n"], X: Float[Array, "n d"]) -> Array:
        """Samples made from base samples through the Cholesky factor, differentiable in X.

        Args:
            base: Standard normal base samples `(S,n)`, or `(S,n,m)` for several objectives.
            X: Candidates, one per row.

        Returns:
            Joint samples, same shape as `base`.

        Raises:
            ConfigError: If the base samples do not fit points and objectives.
        """
        mean = self.mean(X)
        if base.shape[1:] != mean.shape:
            raise ConfigError(
                f"base samples of shape {base.shape} do not fit a posterior of shape {mean.shape}; "
                "the axes after the first must agree."
            )
        factor = self._factor(X)
        if mean.ndim == 1:
            return mean[None, :] + base @ factor.T
        return mean[None, :, :] + jnp.einsum("mij,sjm->sim", factor, base)

    def sample(self, key: Key, X: Float[Array, "n d"], n_samples: int) -> Array:
        """Joint samples from pseudo-random base samples.

        Args:
            key: Random key.
            X: Candidates, one per row.
            n_samples: Number of samples.

        Returns:
            Samples `(S,n)`, or `(S,n,m)` for several objectives.
        """
        shape = jax.eval_shape(self.mean, X).shape
        return self.sample_from(jax.random.normal(key, (n_samples, *shape)), X)

    def _factor(self, X: Array) -> Array:
        """Cholesky factor of the covariance at X, `(n,n)` or `(m,n,n)`."""
        covariance = self.covariance(X, X)
        diagonal = jnp.diagonal(covariance, axis1=-2, axis2=-1)
        scale = jnp.mean(diagonal, axis=-1, keepdims=True)[..., None]
        # a variance of zero everywhere still has to give a factor
        nugget = self.jitter * scale + jnp.finfo(covariance.dtype).tiny
        eye = jnp.eye(X.shape[0], dtype=covariance.dtype)
        eye = eye.reshape((1,) * (covariance.ndim - 2) + eye.shape)
        return jnp.linalg.cholesky(covariance + nugget * eye)


def plain_score(ofv: Any, trajectories: Float[Array, "S H K"], u: Float[Array, "6"]) -> Array:
    """Scaled score per path, of objectives that read set-points too and of those that do not.

    Args:
        ofv: Objective.
        trajectories: Forecast samples.
        u: Set-points held, `CONTROL_NAMES` order.

    Returns:
        Scores `(S,)`, or `(S,m)` for several objectives.
    """
    if isinstance(ofv, ProcessOFV):
        return ofv.score_with_controls(trajectories, u)
    return ofv.scaled_score(trajectories)


class RolloutSurrogate(eqx.Module):
    """The hybrid model's own forecast as a surrogate: one score per path and candidate.

    `sample` ignores its key: the paths are drawn once and every candidate meets the same ones
    (common random numbers), so differences between candidates carry no sampling noise and
    gradients flow through the roll-out to the set-points.
    """

    model: Any
    """Fitted hybrid model."""
    paths: Any
    """Paths drawn from it by `draw_paths`."""
    c0: Float[Array, "S 9"]
    """Samples of the current latent state, `BALANCED` order, or one state `(9,)`."""
    ofv: TargetTrackingOFV | MultiObjectiveOFV | ProcessOFV
    """Objective; its scaled score is what is maximised."""
    day0: Float[Array, ""] = eqx.field(converter=_scalar)
    """Process day of the current state [d]."""
    control_cost: ControlCost | None = None
    """Deterministic cost of set-points, subtracted from every score."""
    chance: Chance = None
    """Constraints on the latent trajectory, returned as a log feasibility."""
    exploration: Float[Array, ""] = eqx.field(converter=_scalar, default=1.0)
    """Share of the spread between paths that is kept [-]: 1 all of it, 0 the mean only."""
    feasibility_weight: Float[Array, ""] = eqx.field(converter=_scalar, default=0.0)
    """Score per unit of log feasibility [-]. Zero: the acquisition weighs improvements by the
    feasibility. Above zero: it is added to the score as a barrier instead, so that what is
    best does not depend on the incumbent."""
    template: Float[Array, "6"] | None = None
    """Full control vector whose entries at `positions` the candidate replaces; None if the
    candidate is the full vector."""
    positions: tuple[int, ...] = eqx.field(static=True, default=())
    """Where the candidate's entries sit in the full control vector."""
    rollout: Rollout | None = eqx.field(static=True, default=None)
    """Roll-out function; that of `perfusio_jax.hybrid` if not given."""
    taught: Float[Array, "S p"] | None = None
    """What decisions still pending will teach: an orthonormal basis of deviations between
    paths, zeros where there is none. It is taken out of the spread before exploration."""
    profile: Profile | None = None
    """What makes set-points of every step out of a candidate; None if it is held."""

    is_gaussian: ClassVar[bool] = False

    def __init__(
        self,
        model: Any,
        paths: Any,
        c0: Float[Array, "S 9"],
        ofv: TargetTrackingOFV | MultiObjectiveOFV | ProcessOFV,
        day0: ArrayLike,
        control_cost: ControlCost | None = None,
        chance: Chance = None,
        exploration: ArrayLike = 1.0,
        feasibility_weight: ArrayLike = 0.0,
        template: Float[Array, "6"] | None = None,
        positions: tuple[int, ...] = (),
        rollout: Rollout | None = None,
        taught: Float[Array, "S p"] | None = None,
        profile: Profile | None = None,
    ):
        """Collect what a forecast needs; an open step of the objective becomes the model's own.

        Raises:
            ConfigError: If the objective's targets do not fit that step.
        """
        self.model, self.paths, self.c0, self.ofv = model, paths, c0, closed(ofv, model)
        self.day0, self.control_cost, self.chance = _scalar(day0), control_cost, chance
        self.exploration = _scalar(exploration)
        self.feasibility_weight = _scalar(feasibility_weight)
        self.template, self.positions, self.rollout = template, positions, rollout
        self.taught, self.profile = taught, profile

    def full(self, x: Float[Array, "*H d"]) -> Float[Array, "*H 6"]:
        """The whole control vector of a candidate.

        Args:
            x: Set-points, in `CONTROL_NAMES` order or as `positions` says; a recipe of the
                profile, if there is one; or set-points of every step.

        Returns:
            Set-points in `CONTROL_NAMES` order, of every step where they may change.
        """
        if self.profile is not None and x.ndim == 1:
            x = self.profile.plan(x)
        if x.ndim == 2:
            if self.template is None:
                return x
            rows = jnp.broadcast_to(self.template[None, :], (x.shape[0], self.template.shape[0]))
            return rows.at[:, jnp.asarray(self.positions)].set(x)
        return x if self.template is None else self.template.at[jnp.asarray(self.positions)].set(x)

    def trajectories(self, x: Float[Array, "d"]) -> Float[Array, "S H K"]:
        """Forecast samples when one candidate is held over the horizon.

        Args:
            x: Set-points, in `CONTROL_NAMES` order or as `positions` says.

        Returns:
            Samples, `FORECAST_SPECIES` last.
        """
        u = self.full(x)
        controls = u
        if u.ndim == 1:
            controls = jnp.broadcast_to(u[None, :], (n_steps_of(self.ofv), u.shape[-1]))
        hours = steps_of(self.ofv)
        lengths = {} if hours is None else {"dt_h": jnp.asarray(hours)}
        return self._rollout()(self.model, self.paths, self.c0, controls, self.day0, **lengths)

    def scores(self, x: Float[Array, "d"]) -> tuple[Array, Array]:
        """Score of one candidate on every path, and the log of its feasibility.

        Args:
            x: Set-points, as in `trajectories`.

        Returns:
            Scores `(S,)` or `(S,m)`, and a log feasibility `()`, at most zero.
        """
        return self.score_of(self.trajectories(x), x)

    def score_of(
        self, trajectories: Float[Array, "S H K"], x: Float[Array, "d"]
    ) -> tuple[Array, Array]:
        """`scores` of a candidate whose forecast is known.

        Args:
            trajectories: Its forecast samples.
            x: The candidate.

        Returns:
            Scores and log feasibility.
        """
        score = plain_score(self.ofv, trajectories, self.full(x))
        mean = jnp.mean(score, axis=0, keepdims=True)
        apart = score - mean
        if self.taught is not None:
            apart = apart - self.taught @ (self.taught.T @ apart)
        score = mean + self.exploration * apart
        if self.control_cost is not None:
            score = score - self.control_cost(x)
        limits = each_constraint(self.chance)
        if not limits:
            return score, jnp.zeros((), score.dtype)
        each = [chance_feasibility(trajectories[:, None, :, :], limit)[0] for limit in limits]
        feasibility = sum(each[1:], start=each[0])
        score = score + self.feasibility_weight * feasibility
        return score, jnp.where(self.feasibility_weight > 0, 0.0, feasibility)

    def sample_and_feasibility(self, X: Float[Array, "n d"]) -> tuple[Array, Array]:
        """Scores and log feasibilities of several candidates from one roll-out each.

        Args:
            X: Candidates, one per row.

        Returns:
            Scores `(S,n)` or `(S,n,m)`, and log feasibilities `(n,)`.
        """
        if X.shape[0] == 1:
            score, feasibility = self.scores(X[0])
            return jnp.expand_dims(score, 1), feasibility[None]
        scores, feasibility = jax.vmap(self.scores)(X)
        return jnp.swapaxes(scores, 0, 1), feasibility

    def posterior(self, X: Float[Array, "n d"]) -> tuple[Array, Array]:
        """Mean and variance of the score over the paths; the score is not Gaussian.

        Args:
            X: Candidates, one per row.

        Returns:
            Arrays `(n,)`, or `(n,m)` for several objectives.
        """
        samples, _ = self.sample_and_feasibility(X)
        return jnp.mean(samples, axis=0), jnp.var(samples, axis=0)

    def sample(
        self, key: Key | None, X: Float[Array, "n d"], n_samples: int | None = None
    ) -> Float[Array, "S n"]:
        """Scores on the stored paths.

        Args:
            key: Not used.
            X: Candidates, one per row.
            n_samples: At most this many paths, from the first; all if not given.

        Returns:
            Samples `(S,n)`, or `(S,n,m)` for several objectives.

        Raises:
            ConfigError: If more samples are asked for than paths are stored.
        """
        samples, _ = self.sample_and_feasibility(X)
        if n_samples is None:
            return samples
        if n_samples > samples.shape[0]:
            raise ConfigError(
                f"{n_samples} samples were asked for, but the surrogate holds "
                f"{samples.shape[0]} paths; draw more paths."
            )
        return samples[:n_samples]

    def _rollout(self) -> Rollout:
        if self.rollout is not None:
            return self.rollout
        from perfusio_jax.hybrid import rollout

        return rollout
