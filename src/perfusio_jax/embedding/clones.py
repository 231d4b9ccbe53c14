"""Clones by name, and the vector each of them is described by.

A clone becomes a point `e` in a space of few dimensions. The kernel multiplies its factor
over process inputs by one over the distance between two points, so that clones lying close
together learn from each other and distant ones do not.

Reference:
    Hutter et al. (2021), doi:10.1002/bit.27907.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float

from perfusio_jax._core import ConfigError, DataError, Key

PRIOR_CLONE = -1
"""Index of a clone nobody has seen; it sits at the centre of the known ones."""

DEFAULT_DIM = 4
"""Length of an embedding vector when none is asked for."""

START_RANGE = (0.1, 3.0)
"""Range of the uniform start of every entry [-] (Hutter et al. 2021)."""

Unknown = Literal["error", "prior"]
"""What to do with a clone that is not registered."""


@dataclasses.dataclass(frozen=True)
class CloneInfo:
    """What is known of one cell line besides its data."""

    clone_id: int
    """Index in the registry, from 0."""
    name: str
    """Name by which runs refer to it."""
    consumes_lactate: bool = True
    """Whether it switches from making to eating lactate at low glucose."""
    description: str = ""
    """Free text."""


class CloneRegistry(eqx.Module):
    """Names of clones and the indices they have in an embedding; immutable.

    Examples:
        >>> registry = CloneRegistry.default()
        >>> registry["CloneX"].clone_id, len(registry)
        (0, 2)
        >>> registry.with_clone("CloneZ").clone_id("CloneZ")
        2
    """

    clones: tuple[CloneInfo, ...] = eqx.field(static=True)
    """Clones in the order of their indices."""

    def __init__(self, clones: Iterable[CloneInfo]):
        """Register clones.

        Args:
            clones: Their indices are 0, 1, ... without a gap, their names differ.

        Raises:
            ConfigError: If there is no clone, an index is missing or a name occurs twice.
        """
        ordered = tuple(sorted(clones, key=lambda c: c.clone_id))
        if not ordered:
            raise ConfigError("a clone registry needs at least one clone; none was given.")
        ids = [c.clone_id for c in ordered]
        if ids != list(range(len(ordered))):
            raise ConfigError(f"clone_id must run 0, 1, ... without gaps; given {ids}.")
        names = [c.name for c in ordered]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice or not all(n.strip() for n in names):
            raise ConfigError(f"clone names must differ and not be empty; given {names}.")
        self.clones = ordered

    @classmethod
    def default(cls) -> "CloneRegistry":
        """Clone X, which eats lactate at low glucose, and clone Y, which never does."""
        return cls(
            (
                CloneInfo(0, "CloneX", True, "switches to lactate consumption at low glucose"),
                CloneInfo(1, "CloneY", False, "never consumes lactate"),
            )
        )

    @classmethod
    def from_names(cls, names: Iterable[str]) -> "CloneRegistry":
        """Registry of the names met in a data set, in order of appearance.

        Args:
            names: Clone per run; repetitions are fine.

        Raises:
            ConfigError: If there is no name.
        """
        return cls(CloneInfo(i, name) for i, name in enumerate(dict.fromkeys(names)))

    @property
    def names(self) -> tuple[str, ...]:
        """Names in the order of their indices."""
        return tuple(c.name for c in self.clones)

    @property
    def n_clones(self) -> int:
        """Number of registered clones."""
        return len(self.clones)

    def clone_id(self, name: str, *, unknown: Unknown = "error") -> int:
        """Index of a clone.

        Args:
            name: Its name.
            unknown: `"error"` refuses a name that is not registered; `"prior"` returns
                `PRIOR_CLONE`, which stands for a clone without data.

        Returns:
            Index from 0, or `PRIOR_CLONE`.

        Raises:
            ConfigError: If the name is unknown and no prior was asked for.
        """
        if unknown not in ("error", "prior"):
            raise ConfigError(f"unknown={unknown!r}; allowed are 'error' and 'prior'.")
        for clone in self.clones:
            if clone.name == name:
                return clone.clone_id
        if unknown == "prior":
            return PRIOR_CLONE
        raise ConfigError(
            f"clone {name!r} is unknown; registered are {', '.join(self.names)}. Add it with "
            "with_clone and data of its own, or ask for unknown='prior'."
        )

    def indices(self, names: Iterable[str], *, unknown: Unknown = "error") -> np.ndarray:
        """Indices of many clones, see `clone_id`."""
        return np.asarray([self.clone_id(n, unknown=unknown) for n in names], int)

    def with_clone(
        self, name: str, consumes_lactate: bool = True, description: str = ""
    ) -> "CloneRegistry":
        """A registry with one more clone, which gets the next index.

        Raises:
            ConfigError: If the name is taken.
        """
        new = CloneInfo(self.n_clones, name, consumes_lactate, description)
        return CloneRegistry((*self.clones, new))

    def __getitem__(self, name: str) -> CloneInfo:
        """What is known of a clone, by name."""
        return self.clones[self.clone_id(name)]

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __iter__(self) -> Iterator[CloneInfo]:
        return iter(self.clones)

    def __len__(self) -> int:
        return self.n_clones


class EntityEmbedding(eqx.Module):
    """Table of clone vectors, one row per clone; its entries are what training moves.

    The kernel sees differences of vectors only, with lengthscale 1, so that the table's own
    scale says how much clones share.

    Examples:
        >>> import jax
        >>> table = EntityEmbedding(n_clones=2, key=jax.random.key(0))
        >>> table(jnp.array([0, 1, 0])).shape
        (3, 4)
    """

    weight: Float[Array, "n_clones embed_dim"]
    """Vectors [kernel lengths]."""
    spread: Float[Array, ""]
    """Prior standard deviation of an entry around its column's mean [kernel lengths]."""
    is_one_hot: bool = eqx.field(static=True)
    """Whether each clone has an axis of its own: entries off the diagonal are not used."""

    def __init__(
        self,
        n_clones: int,
        embed_dim: int = DEFAULT_DIM,
        *,
        key: Key | None = None,
        weight: Float[ArrayLike, "n_clones embed_dim"] | None = None,
        spread: float = 1.0,
        is_one_hot: bool = False,
    ):
        """Start a table.

        Args:
            n_clones: Number of clones.
            embed_dim: Length of a vector.
            key: Random key of the uniform start; a fixed one by default.
            weight: Start values instead of random ones [kernel lengths].
            spread: Prior standard deviation around the mean clone [kernel lengths].
            is_one_hot: One axis per clone, the usual baseline; needs `embed_dim == n_clones`.

        Raises:
            ConfigError: If a size is below one, the spread not positive, or the start of
                another shape or not finite.
        """
        if int(n_clones) < 1 or int(embed_dim) < 1 or not spread > 0:
            raise ConfigError(
                f"n_clones={n_clones}, embed_dim={embed_dim}, spread={spread}: sizes start at 1 "
                "and the spread lies above 0."
            )
        shape = (int(n_clones), int(embed_dim))
        if is_one_hot and shape[0] != shape[1]:
            raise ConfigError(f"one-hot coding of {shape[0]} clones needs embed_dim={shape[0]}.")
        if weight is None:
            key = jax.random.key(0) if key is None else key
            lo, hi = START_RANGE
            weight = jax.random.uniform(key, shape, minval=lo, maxval=hi)
        table = jnp.asarray(weight, float)
        if table.shape != shape:
            raise ConfigError(f"weight has shape {table.shape}; expected {shape}.")
        if not isinstance(table, Tracer) and not np.all(np.isfinite(table)):
            raise ConfigError("the start of an embedding holds numbers that are not finite.")
        self.weight = table
        self.spread = jnp.asarray(spread, float)
        self.is_one_hot = bool(is_one_hot)

    @classmethod
    def one_hot(cls, n_clones: int, *, key: Key | None = None) -> "EntityEmbedding":
        """Baseline: clones at right angles, so that each pair's likeness is not free."""
        return cls(n_clones, n_clones, key=key, is_one_hot=True)

    @property
    def vectors(self) -> Float[Array, "n_clones embed_dim"]:
        """One vector per clone [kernel lengths]."""
        if not self.is_one_hot:
            return self.weight
        return self.weight * jnp.eye(self.n_clones, dtype=self.weight.dtype)

    @property
    def n_clones(self) -> int:
        """Number of clones."""
        return self.weight.shape[0]

    @property
    def embed_dim(self) -> int:
        """Length of a vector."""
        return self.weight.shape[1]

    def __call__(self, clone_ids: ArrayLike) -> Float[Array, "*batch embed_dim"]:
        """Vectors of clones.

        Args:
            clone_ids: Indices; `PRIOR_CLONE` gives the mean of all clones. Numbers stored as
                floats are rounded. Concrete indices outside the table are refused; traced
                ones give NaN, which no forecast survives unseen.

        Returns:
            One vector per index [kernel lengths].

        Raises:
            DataError: If a concrete index is outside the table.
        """
        ids = jnp.asarray(clone_ids)
        if jnp.issubdtype(ids.dtype, jnp.floating):
            ids = jnp.round(ids).astype(int)
        if not isinstance(ids, Tracer):
            wrong = np.unique(np.asarray(ids)[(ids < PRIOR_CLONE) | (ids >= self.n_clones)])
            if wrong.size:
                raise DataError(
                    f"clone index {wrong.tolist()} is outside the embedding; allowed are 0 to "
                    f"{self.n_clones - 1}, and {PRIOR_CLONE} for a clone without data."
                )
        legal = (ids >= 0) & (ids < self.n_clones)
        rows = self.vectors[jnp.clip(ids, 0, self.n_clones - 1)]
        other = jnp.where((ids == PRIOR_CLONE)[..., None], self.mean, jnp.nan)
        return jnp.where(legal[..., None], rows, other)

    def embed_and_concat(
        self, x: Float[ArrayLike, "N d"], clone_ids: ArrayLike
    ) -> Float[Array, "N d_plus"]:
        """Features with the clone's vector behind them.

        Args:
            x: Features.
            clone_ids: One index per row.

        Returns:
            Shape (N, d + embed_dim).

        Raises:
            DataError: If the numbers of rows differ.
        """
        rows, ids = jnp.asarray(x, float), jnp.asarray(clone_ids)
        if rows.ndim != 2 or ids.shape != rows.shape[:1]:
            raise DataError(
                f"features of shape {rows.shape} and clone indices of shape {ids.shape}; expected "
                "(N, d) and (N,)."
            )
        return jnp.concatenate([rows, self(ids)], axis=1)

    @property
    def mean(self) -> Float[Array, " embed_dim"]:
        """The mean clone."""
        return jnp.mean(self.vectors, axis=0)

    def log_prior(self) -> Float[Array, ""]:
        """Log density of the table, up to a constant: a normal around the mean clone.

        The mean is free, because the kernel does not see a shift of all clones.
        """
        away = (self.vectors - self.mean[None, :]) / self.spread
        return -0.5 * jnp.sum(away**2)

    def with_clone(self, vector: Float[ArrayLike, " embed_dim"] | None = None) -> "EntityEmbedding":
        """A table with one more clone, at the mean of the others unless a vector is given."""
        new = self.mean if vector is None else jnp.asarray(vector, float)
        table, size = self.weight, self.n_clones + 1
        if self.is_one_hot:
            if vector is None:
                new = jnp.mean(jnp.abs(jnp.diagonal(table))) * jnp.ones((size,))
            table = jnp.pad(table, ((0, 0), (0, 1)))
        table = jnp.concatenate([table, new[None, :]])
        return EntityEmbedding(
            size,
            table.shape[1],
            weight=table,
            spread=float(self.spread),
            is_one_hot=self.is_one_hot,
        )

    def replace(self, clone: ArrayLike, vector: Float[Array, " embed_dim"]) -> "EntityEmbedding":
        """The table with another vector for one clone; traces."""
        return eqx.tree_at(lambda t: t.weight, self, self.weight.at[clone].set(vector))

    def draw_unknown(self, n: int, *, key: Key) -> Float[Array, "n embed_dim"]:
        """Vectors a clone without data may have: normal around the mean clone.

        The spread per column is that of the known clones, shrunk towards the prior's.

        Args:
            n: Number of draws.
            key: Random key.
        """
        away = self.vectors - self.mean[None, :]
        degrees = 2.0  # the prior counts as much as two clones
        variance = (jnp.sum(away**2, axis=0) + degrees * self.spread**2) / (
            self.n_clones - 1 + degrees
        )
        z = jax.random.normal(key, (n, self.embed_dim))
        return self.mean[None, :] + jnp.sqrt(variance)[None, :] * z
