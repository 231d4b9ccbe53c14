"""The feature map of a Gaussian process that knows clones."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from perfusio_jax._core import ConfigError
from perfusio_jax.embedding.clones import EntityEmbedding
from perfusio_jax.gp import InputScaling, fit_scaling


class EmbeddedInputs(eqx.Module):
    """From `[state, controls, clone index, day]` to `[scaled state, controls, e, scaled day]`.

    Stands in a process's `scaling` field: whatever it computes goes through these features,
    and training moves the table through `trainable`.
    """

    base: InputScaling
    """Scaling of state, controls and day (the raw columns without the clone's)."""
    embedding: EntityEmbedding
    """Table of clone vectors."""
    fixed_columns: tuple[int, ...] = eqx.field(static=True)
    """Feature columns whose kernel lengthscale is one and stays one: those of the embedding."""

    def __init__(self, base: InputScaling, embedding: EntityEmbedding):
        """Put a table behind a scaling.

        Args:
            base: Scaling of the raw columns without the clone's; the last one is the day.
            embedding: Table of clone vectors.

        Raises:
            ConfigError: If the scaling has fewer than two columns.
        """
        width = int(base.shift.shape[0])
        if width < 2:
            raise ConfigError(
                f"the scaling has {width} columns; at least one of state or controls and the day "
                "are needed."
            )
        self.base, self.embedding = base, embedding
        first = width - 1
        self.fixed_columns = tuple(range(first, first + embedding.embed_dim))

    @property
    def n_raw(self) -> int:
        """Number of raw columns, the clone's included."""
        return int(self.base.shift.shape[0]) + 1

    @property
    def n_features(self) -> int:
        """Number of feature columns, the day's included."""
        return self.n_raw - 1 + self.embedding.embed_dim

    @property
    def clone_column(self) -> int:
        """Raw column that holds the clone index, the last but one."""
        return self.n_raw - 2

    def __call__(self, inputs: Float[Array, "... n_raw"]) -> Float[Array, "... n_features"]:
        """Features of raw inputs.

        Args:
            inputs: Raw inputs; the clone index is a whole number stored as float.

        Returns:
            Scaled state and controls, clone vector, scaled day.

        Raises:
            ConfigError: If the number of columns is not `n_raw`.
        """
        if inputs.shape[-1] != self.n_raw:
            raise ConfigError(
                f"inputs have {inputs.shape[-1]} columns; expected {self.n_raw}: state and "
                "controls, the clone index, and the day."
            )
        column = self.clone_column
        plain = jnp.concatenate([inputs[..., :column], inputs[..., column + 1 :]], axis=-1)
        scaled = self.base(plain)
        vectors = self.embedding(inputs[..., column])
        return jnp.concatenate([scaled[..., :-1], vectors, scaled[..., -1:]], axis=-1)

    def trainable(self) -> tuple[Array, ...]:
        """Leaves that training moves: the table."""
        return (self.embedding.weight,)

    def log_prior(self) -> Float[Array, ""]:
        """Log density of the table, up to a constant."""
        return self.embedding.log_prior()


def fit_embedded(
    inputs: Float[ArrayLike, "N n_raw"],
    embedding: EntityEmbedding,
    *,
    log_columns: tuple[int, ...] = (),
    day_scale: float = 14.0,
    offset_share: float = 0.1,
) -> EmbeddedInputs:
    """Feature map with the scaling chosen from data.

    Args:
        inputs: Raw training inputs `[state, controls, clone index, day]`.
        embedding: Table of clone vectors.
        log_columns: State columns to take as logarithms.
        day_scale: Divisor of the day [d].
        offset_share: Offset of a logarithm over the column's median [-].

    Returns:
        The feature map.

    Raises:
        ConfigError: If there are fewer than three columns.
    """
    x = np.asarray(inputs, float)
    if x.ndim != 2 or x.shape[1] < 3:
        raise ConfigError(
            f"inputs of shape {x.shape}; expected rows of state and controls, clone index, day."
        )
    plain = np.delete(x, x.shape[1] - 2, axis=1)
    base = fit_scaling(
        plain,
        log_columns=log_columns,
        day_column=plain.shape[1] - 1,
        day_scale=day_scale,
        offset_share=offset_share,
    )
    return EmbeddedInputs(base, embedding)
