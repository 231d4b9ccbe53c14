"""What the search asks of an acquisition it maximises."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from perfusio_jax._core import Array, Float, Scalar


class Acquisition(Protocol):
    """A batch of candidates in, one number out; more is better."""

    def __call__(self, X: Float[Array, "q d"]) -> Scalar:
        """Value of a batch."""
        ...


@runtime_checkable
class WithDecisions(Protocol):
    """An acquisition whose batch goes on with rows that are no candidates.

    A one-shot knowledge gradient is called with `(q + n_extra, d)`: candidates first, then the
    decision every imagined result would lead to. The search lets all rows climb and returns the
    candidates. An acquisition without these two has candidates only.
    """

    @property
    def n_extra(self) -> int:
        """Rows after the candidates; 0 for none."""
        ...

    def arrange(self, points: Float[Array, "N n d"]) -> Float[Array, "N n d"]:
        """Starting points with better decisions than arbitrary ones.

        Args:
            points: Feasible batches in their own units, candidates first.

        Returns:
            Batches of the same shape with the same candidates.
        """
        ...

    def __call__(self, X: Float[Array, "n d"]) -> Scalar:
        """Value of candidates and decisions."""
        ...


def n_extra_of(acqf: Callable[[Array], Any]) -> int:
    """Rows an acquisition wants after the candidates; 0 for one of candidates only."""
    return acqf.n_extra if isinstance(acqf, WithDecisions) else 0
