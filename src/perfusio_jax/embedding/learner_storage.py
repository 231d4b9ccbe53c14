"""What a stored transfer learner says of its architecture, and an empty one of that kind."""

from typing import Any

import numpy as np

from perfusio_jax._core import DataError
from perfusio_jax.embedding.clones import EntityEmbedding
from perfusio_jax.embedding.inputs import fit_embedded
from perfusio_jax.embedding.teaching import features_of
from perfusio_jax.gp import MultiTaskRateGP, PerfusionKernel, with_form

SCHEMA_VERSION = 1
KIND = "TransferLearner"


def table_shape(embedding: EntityEmbedding) -> dict[str, Any]:
    """What is stored of a table of vectors."""
    return {
        "n_clones": embedding.n_clones,
        "embed_dim": embedding.embed_dim,
        "is_one_hot": embedding.is_one_hot,
    }


def architecture_of(embedding: EntityEmbedding, model: MultiTaskRateGP) -> dict[str, Any]:
    """What is stored of a learner besides its numbers."""
    return {
        **table_shape(embedding),
        "n_raw": features_of(model).n_raw,
        "n_tasks": model.n_tasks,
        "rank": model.kernel.rank,
        "kernel": type(model.kernel).__name__,
        "capacity": int(model.data.inputs.shape[0]),
        "is_complete": model.is_complete,
        "n_missing": model.n_missing,
    }


def skeleton(shape: dict[str, Any]) -> tuple[EntityEmbedding, MultiTaskRateGP]:
    """An empty learner of a stored architecture."""
    try:
        embedding = EntityEmbedding(
            shape["n_clones"], shape["embed_dim"], is_one_hot=shape["is_one_hot"]
        )
        rows = np.zeros((shape["capacity"], shape["n_raw"]))
        rows[:, 0] = np.arange(len(rows))
        y = np.tile(np.arange(len(rows), dtype=float)[:, None], (1, shape["n_tasks"]))
        if not shape["is_complete"] and len(rows):
            y[0, 0] = np.nan
        features = fit_embedded(rows, embedding)
        size = features.n_features - 1
        kernel = PerfusionKernel(shape["n_tasks"], size, shape["rank"], size)
        model = MultiTaskRateGP(rows, y, None, None, kernel, shape["n_tasks"], scaling=features)
        room = shape.get("n_missing", model.n_missing)
        model = with_form(model, is_complete=shape["is_complete"], n_missing=room)
    except (KeyError, TypeError) as error:
        raise DataError(f"the stored architecture is not complete: {error}.") from None
    return embedding, model
