"""Several surrogates as one: a mixture of their posteriors.

The members may be the same process with other hyper-parameters, or trained on other subsets of
the runs. A mixture of Gaussians is not Gaussian: acquisitions take their Monte Carlo forms.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from perfusio_jax._core import Array, ConfigError, Float, Key


class EnsembleSurrogate(eqx.Module):
    """An equal-weight mixture; made by `ensemble`.

    Base samples are dealt to the members in blocks: of S rows each of K members uses S // K,
    and what does not divide is left out.
    """

    members: Any
    """The members, every array with a first axis over them."""
    n_members: int = eqx.field(static=True)
    """K."""

    is_gaussian: ClassVar[bool] = False

    def posterior(self, X: Float[Array, "n d"]) -> tuple[Array, Array]:
        """Mean and variance of the mixture.

        Args:
            X: Candidates, one per row.

        Returns:
            Arrays `(n,)`, or `(n,m)` for several objectives; the variance is that within the
            members and that between their means.
        """
        means, variances = eqx.filter_vmap(lambda member: member.posterior(X))(self.members)
        return jnp.mean(means, axis=0), jnp.mean(variances, axis=0) + jnp.var(means, axis=0)

    def sample_from(self, base: Float[Array, "S n"], X: Float[Array, "n d"]) -> Array:
        """Joint samples, member after member.

        Args:
            base: Base samples `(S,n)`, or `(S,n,m)` for several objectives.
            X: Candidates, one per row.

        Returns:
            Samples; the first axis is the largest multiple of K within S.

        Raises:
            ConfigError: If there are fewer samples than members.
        """
        one = eqx.filter_vmap(lambda member, part: member.sample_from(part, X))
        return _joined(one(self.members, self._dealt(base)))

    def sample(self, key: Key, X: Float[Array, "n d"], n_samples: int) -> Array:
        """Joint samples from pseudo-random base samples.

        Args:
            key: Random key.
            X: Candidates, one per row.
            n_samples: Number of samples; rounded up to a multiple of K.

        Returns:
            Samples `(S,n)`, or `(S,n,m)` for several objectives.
        """
        each = -(-n_samples // self.n_members)
        keys = jax.random.split(key, self.n_members)
        one = eqx.filter_vmap(lambda member, own: member.sample(own, X, each))
        return _joined(one(self.members, keys))

    def pinned(self, points: Float[Array, "P d"], base: Array) -> "PinnedEnsemble":
        """Joint samples whose first points stay where they are, as the members pin them.

        Args:
            points: Points that every later call is joint with.
            base: Base samples of all points.

        Returns:
            Sampler of further points.
        """
        one = eqx.filter_vmap(lambda member, part: member.pinned(points, part))
        samplers = one(self.members, self._dealt(base))
        return PinnedEnsemble(samplers, _joined(samplers.known))

    def _dealt(self, base: Array) -> Array:
        each = base.shape[0] // self.n_members
        if each == 0:
            raise ConfigError(
                f"{base.shape[0]} samples were given to an ensemble of {self.n_members} members; "
                "give at least one per member."
            )
        return base[: each * self.n_members].reshape(self.n_members, each, *base.shape[1:])


class PinnedEnsemble(eqx.Module):
    """Samples at further points, joint with those at pinned ones."""

    samplers: Any
    """The members' samplers, stacked."""
    known: Array
    """Samples at the pinned points."""

    def __call__(self, X: Float[Array, "n d"]) -> Float[Array, "S n"]:
        """Samples at further points."""
        return _joined(eqx.filter_vmap(lambda sampler: sampler(X))(self.samplers))


def ensemble(members: Sequence[Any]) -> EnsembleSurrogate:
    """Join surrogates of one kind and shape.

    Args:
        members: Surrogates, for example of `gaussian_process`, on as many rows each.

    Returns:
        Their mixture.

    Raises:
        ConfigError: If there is none, or they differ in kind or shape.
    """
    if not members:
        raise ConfigError("an ensemble of no members was asked for; give at least one.")
    shapes = [jax.tree.map(lambda leaf: jnp.shape(leaf), member) for member in members]
    for k, shape in enumerate(shapes):
        same_kind = jax.tree.structure(members[k]) == jax.tree.structure(members[0])
        if not same_kind or jax.tree.leaves(shape) != jax.tree.leaves(shapes[0]):
            raise ConfigError(
                f"member {k} differs from member 0 in kind or shape; members are the same kind of "
                "surrogate on the same number of rows."
            )
    return EnsembleSurrogate(
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *members), len(members)
    )


def _joined(samples: Array) -> Array:
    """Members' samples one after the other."""
    return samples.reshape(-1, *samples.shape[2:])
