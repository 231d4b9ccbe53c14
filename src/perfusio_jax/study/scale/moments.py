"""Means and variances of blocks of lanes, merged by a tree that the blocks' numbers fix.

Sums of floating-point numbers depend on their order. Here the order does not depend on who
computed what: blocks are merged in pairs (0 with 1, 2 with 3), pairs of pairs, and so on. Whoever
holds neighbouring blocks merges them at once and keeps a logarithm of them only; what devices and
processes have left is put together in the end, and the result is bit for bit that of one device.

Reference:
    Chan, Golub, LeVeque (1983), the pairwise update of mean and sum of squares.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float


class Moments(NamedTuple):
    """Of some lanes, by output; arrays of JAX where they are computed."""

    n: Float[np.ndarray, ""]
    """Lanes counted."""
    mean: Float[np.ndarray, " O"]
    """Their mean."""
    squares: Float[np.ndarray, " O"]
    """Sum of squared distances from it."""
    least: Float[np.ndarray, " O"]
    """Smallest value; infinite if there is none."""
    most: Float[np.ndarray, " O"]
    """Largest."""


def moments_of(values: Float[Array, "B O"], is_used: Bool[Array, " B"]) -> Moments:
    """Of the rows that are used; traced."""
    used = is_used[:, None]
    n = jnp.sum(is_used).astype(values.dtype)
    mean = jnp.sum(jnp.where(used, values, 0.0), axis=0) / jnp.maximum(n, 1.0)
    away = jnp.where(used, values - mean[None], 0.0)
    least = jnp.min(jnp.where(used, values, jnp.inf), axis=0)
    most = jnp.max(jnp.where(used, values, -jnp.inf), axis=0)
    parts: Any = (n, mean, jnp.sum(away**2, axis=0), least, most)
    return Moments(*parts)


def merged(left: Moments, right: Moments) -> Moments:
    """Of both; not traced, in 64 bits whatever the lanes were computed in."""
    n = left.n + right.n
    if n == 0:
        return left
    away = right.mean - left.mean
    share = right.n / n
    return Moments(
        n,
        left.mean + away * share,
        left.squares + right.squares + away**2 * left.n * share,
        np.minimum(left.least, right.least),
        np.maximum(left.most, right.most),
    )


class Tree:
    """Moments of blocks, merged as far as neighbours are there."""

    def __init__(self, n_outputs: int) -> None:
        """A tree without blocks."""
        self.n_outputs = n_outputs
        self._nodes: dict[tuple[int, int], Moments] = {}

    def add(self, block: int, moments: Moments) -> None:
        """Put a block in its place.

        Args:
            block: Its number, from 0.
            moments: What it counted.
        """
        wide = Moments(*(np.asarray(v, np.float64) for v in moments))
        self._put(0, block, wide)

    def _put(self, level: int, place: int, node: Moments) -> None:
        while (beside := self._nodes.pop((level, place ^ 1), None)) is not None:
            node = merged(beside, node) if place & 1 else merged(node, beside)
            level, place = level + 1, place >> 1
        self._nodes[level, place] = node

    @property
    def n_nodes(self) -> int:
        """Nodes that wait for a neighbour."""
        return len(self._nodes)

    def packed(self) -> Float[np.ndarray, "N W"]:
        """The nodes as rows of numbers, to be sent elsewhere."""
        width = 3 + 4 * self.n_outputs
        rows = [np.concatenate([[*at, v.n], *v[1:]]) for at, v in self._nodes.items()]
        return np.stack(rows) if rows else np.zeros((0, width))

    def unpack(self, rows: Iterable[Float[np.ndarray, " W"]]) -> None:
        """Take the nodes of another tree in."""
        for row in rows:
            parts = np.split(row[3:], 4)
            self._put(int(row[0]), int(row[1]), Moments(row[2], *parts))

    def total(self) -> Moments:
        """Of everything: the nodes that are left, largest first."""
        nothing = np.zeros(self.n_outputs)
        whole = Moments(
            np.zeros(()), nothing, nothing, np.full_like(nothing, np.inf), nothing - np.inf
        )
        for at in sorted(self._nodes, key=lambda at: (-at[0], at[1])):
            whole = merged(whole, self._nodes[at])
        return whole
