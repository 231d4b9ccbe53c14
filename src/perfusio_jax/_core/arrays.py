"""Array types of annotations, in one place."""

from jaxtyping import Array as Array
from jaxtyping import ArrayLike as ArrayLike
from jaxtyping import Bool as Bool
from jaxtyping import Float as Float
from jaxtyping import Int as Int
from jaxtyping import PRNGKeyArray

Scalar = Float[Array, ""]
"""A zero-dimensional floating array."""

Key = PRNGKeyArray
"""A JAX random key; always keyword-only, used once."""
