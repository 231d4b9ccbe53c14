"""Transfer of a rate model from clones with data to a clone with little.

Two ways. Two stages: a warm start on the source clones, then fine-tuning with the new clone's
rows added, at separate learning rates or with everything but the new vector frozen. One stage
(Hutter et al. 2021): parameters and vectors of all clones together, by the evidence.

The baselines are the same object with another table: `EntityEmbedding.one_hot`, and, without
transfer, a fit to the new clone's rows alone.
"""

import os
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from perfusio_jax._core import ConfigError, DataError, Key, Scalar, require_x64
from perfusio_jax._core.checkpoint import (
    check_sizes,
    fill,
    named_arrays,
    read_checkpoint,
    write_checkpoint,
)
from perfusio_jax.embedding.clones import PRIOR_CLONE, EntityEmbedding
from perfusio_jax.embedding.inputs import EmbeddedInputs, fit_embedded
from perfusio_jax.embedding.learner_storage import (
    KIND,
    SCHEMA_VERSION,
    architecture_of,
    skeleton,
    table_shape,
)
from perfusio_jax.embedding.mixture import Mixture, VectorDensity, at_vectors, mixture_of
from perfusio_jax.embedding.posterior import EmbeddingPosterior, Method, laplace, nuts
from perfusio_jax.embedding.teaching import (
    bare,
    check_ids,
    conditioned,
    features_of,
    new_process,
    rebuilt,
    trained,
    training_table,
)
from perfusio_jax.gp import (
    FitConfig,
    FitReport,
    GaussianLikelihood,
    MultiTaskRateGP,
    ZeroMeanMultiTask,
    fit,
)


class TransferLearner(eqx.Module):
    """A rate model of several clones and how it was taught; methods return changed copies.

    Rows are `[state, controls, day]` with the clone's index beside them. The process inside
    takes `[state, controls, clone index, day]`.
    """

    embedding: EntityEmbedding
    """Table of clone vectors."""
    model: MultiTaskRateGP | None
    """Conditioned process; None before the first fit."""
    likelihood: GaussianLikelihood | None
    """Noise to start from; the process's default if None."""
    lr_backbone: Scalar
    """Adam's rate for kernel and noise [-]."""
    lr_embedding: Scalar
    """Adam's rate for the table [-]."""

    def __init__(
        self,
        embedding: EntityEmbedding,
        model: MultiTaskRateGP | None = None,
        likelihood: GaussianLikelihood | None = None,
        lr_backbone: float = 0.01,
        lr_embedding: float = 0.1,
    ):
        """Start from a table, and optionally from a process that reads it.

        Args:
            embedding: Table of clone vectors.
            model: Process whose feature map is an `EmbeddedInputs`; built from the data of
                the first fit if None.
            likelihood: Noise to start from.
            lr_backbone: Adam's rate for kernel and noise [-].
            lr_embedding: Adam's rate for the table [-].

        Raises:
            ConfigError: If a rate is not positive, or the process reads no table of this shape.
        """
        if not (lr_backbone > 0 and lr_embedding > 0):
            raise ConfigError(
                f"lr_backbone={lr_backbone}, lr_embedding={lr_embedding}; both must be above 0."
            )
        if model is not None:
            inner = features_of(model).embedding
            if inner.weight.shape != embedding.weight.shape:
                raise ConfigError(
                    f"the model's table has shape {inner.weight.shape}, the embedding "
                    f"{embedding.weight.shape}; they must be the same."
                )
            model = eqx.tree_at(lambda m: m.scaling.embedding, model, embedding)
        self.embedding, self.model, self.likelihood = embedding, model, likelihood
        self.lr_backbone = jnp.asarray(lr_backbone, float)
        self.lr_embedding = jnp.asarray(lr_embedding, float)

    # ------------------------------------------------------------------ teaching

    def warm_start(
        self,
        train_x: Float[ArrayLike, "N d"],
        train_y: Float[ArrayLike, "..."],
        clone_ids: ArrayLike,
        n_iter: int = 300,
    ) -> "TransferLearner":
        """First stage: train everything on the source clones.

        Args:
            train_x: Rows `[state, controls, day]`.
            train_y: (N, T) or (N,), NaN where missing.
            clone_ids: Index per row.
            n_iter: Steps of Adam; kernel and table both move at `lr_embedding`, since nothing
                has been learned yet that a fast rate could spoil.

        Returns:
            Learner with a conditioned process.

        Raises:
            DataError: If shapes do not fit or a clone is outside the table.
        """
        start = self._built(train_x, train_y, clone_ids)
        model = trained(start, self.lr_embedding, self.lr_embedding, n_iter, False)
        return self._with(model)

    def joint_finetune(
        self,
        train_x: Float[ArrayLike, "M d"],
        train_y: Float[ArrayLike, "..."],
        clone_ids: ArrayLike,
        n_iter: int = 100,
        freeze_backbone: bool = False,
    ) -> "TransferLearner":
        """Second stage: add the target clone's rows and go on training.

        The source rows stay in the process, so nothing is forgotten. An index one beyond the
        table adds a clone, which starts at the mean of the others.

        Args:
            train_x: Rows `[state, controls, day]` of the target clone.
            train_y: (M, T) or (M,), NaN where missing.
            clone_ids: Index per row.
            n_iter: Steps of Adam.
            freeze_backbone: Move the vectors of the clones named in `clone_ids` only; for very
                few runs.

        Returns:
            Learner with a conditioned process.

        Raises:
            ConfigError: If there was no warm start.
            DataError: If shapes do not fit or an index leaves a gap.
        """
        old = self._fitted()
        x, y, ids = training_table(train_x, train_y, clone_ids, old.n_tasks)
        embedding = self.embedding
        if ids.size and ids.max() == embedding.n_clones:
            embedding = embedding.with_clone()
        seen = np.asarray(old.data.row_present)
        inputs = np.asarray(old.data.inputs)[seen]
        targets = np.where(np.asarray(old.data.present), np.asarray(old.data.targets), np.nan)[seen]
        check_ids(ids, embedding.n_clones)
        rows = np.insert(x, x.shape[1] - 1, ids, axis=1)
        if rows.shape[1] != inputs.shape[1]:
            raise DataError(
                f"rows have {x.shape[1]} columns; the process was trained on {inputs.shape[1] - 1}."
            )
        features = EmbeddedInputs(features_of(old).base, embedding)
        model = rebuilt(old, np.vstack([inputs, rows]), np.vstack([targets, y]), features)
        move = np.zeros(embedding.n_clones)
        move[np.unique(ids) if freeze_backbone else slice(None)] = 1.0
        model = trained(
            model, self.lr_backbone, self.lr_embedding, n_iter, freeze_backbone, jnp.asarray(move)
        )
        return self._with(model)

    def fit_jointly(
        self,
        train_x: Float[ArrayLike, "N d"],
        train_y: Float[ArrayLike, "..."],
        clone_ids: ArrayLike,
        *,
        key: Key,
        config: FitConfig | None = None,
    ) -> tuple["TransferLearner", FitReport]:
        """One stage: kernel, noise and all vectors together, by evidence and L-BFGS.

        Args:
            train_x: Rows `[state, controls, day]` of all clones.
            train_y: (N, T) or (N,), NaN where missing.
            clone_ids: Index per row.
            key: Random starts.
            config: Settings of the search.

        Returns:
            Learner with a conditioned process, and the report of the fit.

        Raises:
            DataError: If shapes do not fit or a clone is outside the table.
        """
        start = self._built(train_x, train_y, clone_ids)
        model, report = fit(start, key=key, config=config)
        return self._with(model), report

    # ------------------------------------------------------------------ forecasting

    def embedding_posterior(
        self,
        clone: int,
        *,
        key: Key,
        method: Method = "laplace",
        n_samples: int = 200,
        n_warmup: int = 200,
    ) -> EmbeddingPosterior:
        """What is known of one clone's vector, everything else at its optimum.

        Args:
            clone: Index. `PRIOR_CLONE` gives the distribution of a clone without data.
            key: Random key.
            method: `"laplace"`, or `"nuts"` for small data.
            n_samples: Draws of NUTS, or of the prior.
            n_warmup: Draws of the adaptation of NUTS.

        Returns:
            The posterior.

        Raises:
            ConfigError: If nothing was fitted yet or the method is unknown.
            DataError: If the clone is outside the table.
        """
        if method not in ("laplace", "nuts"):
            raise ConfigError(f"method {method!r}; allowed are 'laplace' and 'nuts'.")
        if clone == PRIOR_CLONE:
            samples = self.embedding.draw_unknown(n_samples, key=key)
            away = samples - jnp.mean(samples, axis=0)[None, :]
            covariance = away.T @ away / max(n_samples - 1, 1)
            return EmbeddingPosterior(self.embedding.mean, covariance, samples)
        model = bare(self._fitted())
        start = self.embedding(clone)
        density = VectorDensity(jnp.asarray(clone, int))
        if method == "laplace":
            return laplace(density, model, start, spread=self.embedding.spread)
        return nuts(density, model, start, key=key, n_samples=n_samples, n_warmup=n_warmup)

    def models(self, clone: int, vectors: Float[Array, "S D"]) -> MultiTaskRateGP:
        """Conditioned processes, one per draw of a clone's vector, stacked along axis 0.

        A roll-out takes one of them per path: the mixture then carries what is not known of
        the clone. A clone without data (`PRIOR_CLONE`) gets the index after the last.

        Args:
            clone: Index, or `PRIOR_CLONE`.
            vectors: Draws of its vector [kernel lengths].
        """
        model = bare(self._fitted())
        if clone == PRIOR_CLONE:
            clone = self.embedding.n_clones
            table = self.embedding.with_clone()
            model = eqx.tree_at(lambda m: m.scaling.embedding, model, table)
        return at_vectors(model, jnp.asarray(clone, int), vectors)

    def predict(
        self,
        x: Float[ArrayLike, "M d"],
        clone: int,
        *,
        vectors: Float[Array, "S D"] | None = None,
    ) -> Mixture:
        """Posterior of the rates of one clone.

        Args:
            x: Rows `[state, controls, day]`.
            clone: Index, or `PRIOR_CLONE`.
            vectors: Draws of its vector; its point estimate if None.

        Returns:
            Mean and variance over process and draws.

        Raises:
            ConfigError: If nothing was fitted yet.
            DataError: If shapes do not fit or the clone is outside the table.
        """
        rows = np.asarray(x, float)
        if rows.ndim != 2 or rows.shape[1] != self._fitted().n_state_dims:
            raise DataError(
                f"rows of shape {rows.shape}; expected (M, {self._fitted().n_state_dims}): "
                "state, controls, day."
            )
        point = self.embedding(clone)
        many = self.models(clone, point[None, :] if vectors is None else vectors)
        index = self.embedding.n_clones if clone == PRIOR_CLONE else clone
        inputs = jnp.asarray(np.insert(rows, rows.shape[1] - 1, index, axis=1))
        return mixture_of(many, inputs)

    # ------------------------------------------------------------------ keeping

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the learner into a folder: arrays and a JSON header, no pickle.

        Args:
            path: Folder, made if it does not exist.

        Returns:
            The folder.

        Raises:
            ConfigError: If nothing was fitted yet, or the process has parts this schema does
                not cover (a mean function, noise shared between rows, another kernel).
        """
        model = self._fitted()
        if not isinstance(model.mean_module, ZeroMeanMultiTask):
            raise ConfigError(
                f"mean function {type(model.mean_module).__name__} is not covered by this schema; "
                "save the hybrid model it belongs to."
            )
        if getattr(model.data, "shared", None) is not None:
            raise ConfigError("noise shared between rows is not covered by this schema.")
        architecture = architecture_of(self.embedding, model)
        built = skeleton(architecture)[1]
        if jax.tree.structure(built) != jax.tree.structure(bare(model)):
            # it would be read back as something else
            raise ConfigError(
                f"a process with a {type(model.kernel).__name__} over "
                f"{type(model.scaling).__name__} is not covered by this schema; allowed is what "
                "warm_start and fit_jointly build. Pickle the learner to keep it on this version."
            )
        saved = (self.embedding, bare(model), self.lr_backbone, self.lr_embedding)
        return write_checkpoint(
            path,
            named_arrays(saved),
            kind=KIND,
            schema_version=SCHEMA_VERSION,
            architecture=architecture,
        )

    def load(self, path: str | os.PathLike[str]) -> "TransferLearner":
        """Read a learner of the same architecture.

        Args:
            path: Folder written by `save`.

        Returns:
            The saved learner, its process conditioned anew.

        Raises:
            DataError: If a file is missing, truncated or changed, the schema is another, or
                the architecture differs from this learner's.
        """
        stored, arrays = read_checkpoint(path, kind=KIND, schema_version=SCHEMA_VERSION)
        mine: dict[str, Any] = dict(table_shape(self.embedding))
        if self.model is not None:
            mine = architecture_of(self.embedding, self.model)
            of_the_table = ("capacity", "is_complete", "n_missing")
            mine = {k: v for k, v in mine.items() if k not in of_the_table}
        different = {k: (stored.get(k), v) for k, v in mine.items() if stored.get(k) != v}
        if different:
            told = "; ".join(f"{k} is {a} there and {b} here" for k, (a, b) in different.items())
            raise DataError(f"{path} holds a learner of another architecture: {told}.")
        check_sizes(stored, path)
        embedding, model = skeleton(stored)
        zero = jnp.zeros(())
        saved = fill((embedding, model, zero, zero), arrays, where=str(path))
        embedding, model, backbone, table = saved
        fresh = TransferLearner(embedding, None, self.likelihood, float(backbone), float(table))
        return fresh._with(conditioned(model))

    # ------------------------------------------------------------------ inside

    def _fitted(self) -> MultiTaskRateGP:
        if self.model is None:
            raise ConfigError("this learner holds no process yet; call warm_start or fit_jointly.")
        return self.model

    def _with(self, model: MultiTaskRateGP) -> "TransferLearner":
        embedding = features_of(model).embedding
        return eqx.tree_at(
            lambda t: (t.embedding, t.model), self, (embedding, model), is_leaf=lambda n: n is None
        )

    def _built(self, train_x: Any, train_y: Any, clone_ids: Any) -> MultiTaskRateGP:
        require_x64("Fitting a Gaussian process")
        n_tasks = None if self.model is None else self.model.n_tasks
        x, y, ids = training_table(train_x, train_y, clone_ids, n_tasks)
        check_ids(ids, self.embedding.n_clones)
        rows = np.insert(x, x.shape[1] - 1, ids, axis=1)
        if self.model is not None:
            features = EmbeddedInputs(features_of(self.model).base, self.embedding)
            return rebuilt(bare(self.model), rows, y, features)
        features = fit_embedded(rows, self.embedding)
        return new_process(rows, y, features, self.likelihood)
