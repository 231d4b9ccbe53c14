"""Transfer of a rate model from clones with data to a clone with little.

Two ways. Two stages: a warm start on the source clones, then fine-tuning with the new clone's
rows added, at separate learning rates or with everything but the new vector frozen. One stage
(Hutter et al. 2021): parameters and vectors of all clones together, by the evidence.

The baselines are the same object with another table: `EntityEmbedding.one_hot`, and, without
transfer, a fit to the new clone's rows alone.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple

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
from perfusio_jax._core.programs import compiled
from perfusio_jax.embedding.clones import PRIOR_CLONE, EntityEmbedding
from perfusio_jax.embedding.inputs import EmbeddedInputs, fit_embedded
from perfusio_jax.embedding.posterior import EmbeddingPosterior, Method, laplace, nuts
from perfusio_jax.gp import (
    FitConfig,
    FitReport,
    GaussianLikelihood,
    MultiTaskRateGP,
    PerfusionKernel,
    ZeroMeanMultiTask,
    fit,
    log_posterior,
    trainable_filter,
    with_form,
)

SCHEMA_VERSION = 1
_KIND = "TransferLearner"
_BLOCK = 64


class Mixture(NamedTuple):
    """Prediction averaged over draws of a clone's vector."""

    mean: Float[Array, "M T"]
    """Mean [target unit]."""
    variance: Float[Array, "M T"]
    """Variance: the process's own, plus that of its mean between draws [target unit squared]."""


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
            inner = _features(model).embedding
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
        model = _train(start, self.lr_embedding, self.lr_embedding, n_iter, False)
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
        x, y, ids = _table(train_x, train_y, clone_ids, old.n_tasks)
        embedding = self.embedding
        if ids.size and ids.max() == embedding.n_clones:
            embedding = embedding.with_clone()
        seen = np.asarray(old.data.row_present)
        inputs = np.asarray(old.data.inputs)[seen]
        targets = np.where(np.asarray(old.data.present), np.asarray(old.data.targets), np.nan)[seen]
        _check_ids(ids, embedding.n_clones)
        rows = np.insert(x, x.shape[1] - 1, ids, axis=1)
        if rows.shape[1] != inputs.shape[1]:
            raise DataError(
                f"rows have {x.shape[1]} columns; the process was trained on {inputs.shape[1] - 1}."
            )
        features = EmbeddedInputs(_features(old).base, embedding)
        model = _rebuild(old, np.vstack([inputs, rows]), np.vstack([targets, y]), features)
        move = np.zeros(embedding.n_clones)
        move[np.unique(ids) if freeze_backbone else slice(None)] = 1.0
        model = _train(
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
        bare = _bare(self._fitted())
        start = self.embedding(clone)
        density = _VectorDensity(jnp.asarray(clone, int))
        if method == "laplace":
            return laplace(density, bare, start, spread=self.embedding.spread)
        return nuts(density, bare, start, key=key, n_samples=n_samples, n_warmup=n_warmup)

    def models(self, clone: int, vectors: Float[Array, "S D"]) -> MultiTaskRateGP:
        """Conditioned processes, one per draw of a clone's vector, stacked along axis 0.

        A roll-out takes one of them per path: the mixture then carries what is not known of
        the clone. A clone without data (`PRIOR_CLONE`) gets the index after the last.

        Args:
            clone: Index, or `PRIOR_CLONE`.
            vectors: Draws of its vector [kernel lengths].
        """
        model = _bare(self._fitted())
        if clone == PRIOR_CLONE:
            clone = self.embedding.n_clones
            table = self.embedding.with_clone()
            model = eqx.tree_at(lambda m: m.scaling.embedding, model, table)
        return _conditioned(model, jnp.asarray(clone, int), vectors)

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
        return _mixture(many, inputs)

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
        architecture = _architecture(self.embedding, model)
        built = _skeleton(architecture)[1]
        if jax.tree.structure(built) != jax.tree.structure(_bare(model)):
            # it would be read back as something else
            raise ConfigError(
                f"a process with a {type(model.kernel).__name__} over "
                f"{type(model.scaling).__name__} is not covered by this schema; allowed is what "
                "warm_start and fit_jointly build. Pickle the learner to keep it on this version."
            )
        saved = (self.embedding, _bare(model), self.lr_backbone, self.lr_embedding)
        return write_checkpoint(
            path,
            named_arrays(saved),
            kind=_KIND,
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
        stored, arrays = read_checkpoint(path, kind=_KIND, schema_version=SCHEMA_VERSION)
        mine: dict[str, Any] = dict(_table_shape(self.embedding))
        if self.model is not None:
            mine = _architecture(self.embedding, self.model)
            of_the_table = ("capacity", "is_complete", "n_missing")
            mine = {k: v for k, v in mine.items() if k not in of_the_table}
        different = {k: (stored.get(k), v) for k, v in mine.items() if stored.get(k) != v}
        if different:
            told = "; ".join(f"{k} is {a} there and {b} here" for k, (a, b) in different.items())
            raise DataError(f"{path} holds a learner of another architecture: {told}.")
        check_sizes(stored, path)
        embedding, model = _skeleton(stored)
        zero = jnp.zeros(())
        saved = fill((embedding, model, zero, zero), arrays, where=str(path))
        embedding, model, backbone, table = saved
        fresh = TransferLearner(embedding, None, self.likelihood, float(backbone), float(table))
        return fresh._with(_finish(model))

    # ------------------------------------------------------------------ inside

    def _fitted(self) -> MultiTaskRateGP:
        if self.model is None:
            raise ConfigError("this learner holds no process yet; call warm_start or fit_jointly.")
        return self.model

    def _with(self, model: MultiTaskRateGP) -> "TransferLearner":
        embedding = _features(model).embedding
        return eqx.tree_at(
            lambda t: (t.embedding, t.model), self, (embedding, model), is_leaf=lambda n: n is None
        )

    def _built(self, train_x: Any, train_y: Any, clone_ids: Any) -> MultiTaskRateGP:
        require_x64("Fitting a Gaussian process")
        n_tasks = None if self.model is None else self.model.n_tasks
        x, y, ids = _table(train_x, train_y, clone_ids, n_tasks)
        _check_ids(ids, self.embedding.n_clones)
        rows = np.insert(x, x.shape[1] - 1, ids, axis=1)
        if self.model is not None:
            features = EmbeddedInputs(_features(self.model).base, self.embedding)
            return _rebuild(_bare(self.model), rows, y, features)
        features = fit_embedded(rows, self.embedding)
        return _new_model(rows, y, features, self.likelihood)


class _VectorDensity(eqx.Module):
    """Log posterior as a function of one clone's vector."""

    clone: Array

    def __call__(self, model: MultiTaskRateGP, vector: Array) -> Scalar:
        table = model.scaling.embedding.replace(self.clone, vector)
        return log_posterior(eqx.tree_at(lambda m: m.scaling.embedding, model, table))


def _features(model: MultiTaskRateGP) -> EmbeddedInputs:
    if not isinstance(model.scaling, EmbeddedInputs):
        raise ConfigError(
            f"the model's feature map is {type(model.scaling).__name__}; transfer needs "
            "EmbeddedInputs."
        )
    return model.scaling


def _table(x: Any, y: Any, ids: Any, n_tasks: int | None) -> tuple[np.ndarray, ...]:
    rows, targets, clones = np.asarray(x, float), np.asarray(y, float), np.asarray(ids)
    if targets.ndim == 1:
        targets = targets[:, None]
    if rows.ndim != 2 or rows.shape[1] < 2 or targets.ndim != 2:
        raise DataError(
            f"rows of shape {rows.shape} and targets of shape {targets.shape}; expected (N, d) "
            "with at least one state column and the day, and (N, T) or (N,)."
        )
    if not len(rows) == len(targets) == clones.size or clones.ndim != 1 or len(rows) == 0:
        raise DataError(
            f"{len(rows)} rows, {len(targets)} targets and {clones.size} clone indices; there "
            "must be equally many, and at least one."
        )
    if not np.isfinite(rows).all():
        raise DataError("rows hold values that are not finite; estimate missing states first.")
    if n_tasks is not None and targets.shape[1] != n_tasks:
        raise DataError(f"{targets.shape[1]} target columns; the process has {n_tasks}.")
    return rows, targets, clones.astype(int)


def _check_ids(ids: np.ndarray, n_clones: int) -> None:
    wrong = sorted(set(ids[(ids < 0) | (ids >= n_clones)].tolist()))
    if wrong:
        raise DataError(f"clone index {wrong}; allowed are 0 to {n_clones - 1}.")


def _new_model(
    rows: np.ndarray, y: np.ndarray, features: EmbeddedInputs, noise: GaussianLikelihood | None
) -> MultiTaskRateGP:
    n_tasks, size = y.shape[1], features.n_features - 1
    kernel = PerfusionKernel(
        n_tasks, size, min(1, n_tasks - 1), size, lengthscale=max(1.0, float(np.sqrt(size)))
    )
    return MultiTaskRateGP(
        rows, y, noise, None, kernel, n_tasks, scaling=features, capacity=_capacity(len(rows))
    )


def _capacity(n_rows: int) -> int:
    """Rows reserved, so that a few more do not mean a new compile."""
    return -(-n_rows // _BLOCK) * _BLOCK


def _rebuild(
    old: MultiTaskRateGP, rows: np.ndarray, y: np.ndarray, features: EmbeddedInputs
) -> MultiTaskRateGP:
    """Other rows, same parameters, scaling and units."""
    return MultiTaskRateGP(
        rows,
        y,
        old.likelihood,
        old.mean_module,
        old.kernel,
        old.n_tasks,
        scaling=features,
        target_scale=old.target_scale,
        priors=old.priors,
        capacity=_capacity(len(rows)),
    )


def _bare(model: MultiTaskRateGP) -> MultiTaskRateGP:
    return eqx.tree_at(lambda m: m.state, model, None, is_leaf=lambda node: node is None)


@compiled
def _finish(model: MultiTaskRateGP) -> MultiTaskRateGP:
    return model.condition()


def _train(
    model: MultiTaskRateGP,
    lr_backbone: Scalar,
    lr_embedding: Scalar,
    n_iter: int,
    freeze_backbone: bool,
    move: Array | None = None,
) -> MultiTaskRateGP:
    if n_iter < 0:
        raise ConfigError(f"n_iter={n_iter}; it must not be negative.")
    spec = trainable_filter(model)
    if freeze_backbone:
        spec = jax.tree.map(lambda _: False, spec)
        spec = eqx.tree_at(lambda m: m.scaling.trainable(), spec, (True,))
    if move is None:
        move = jnp.ones((_features(model).embedding.n_clones,))
    return _adam(model, spec, (lr_backbone, lr_embedding), move, n_iter)


@compiled
def _adam(
    model: MultiTaskRateGP,
    spec: Any,
    rates: tuple[Scalar, Scalar],
    move: Float[Array, " P"],
    n_iter: int,
) -> MultiTaskRateGP:
    """Adam with one rate for the table and one for the rest; the best point met is kept."""
    import optax

    params, fixed = eqx.partition(model, spec)
    labels = jax.tree.map(lambda _: "backbone", params)
    labels = eqx.tree_at(lambda m: m.scaling.trainable(), labels, ("embedding",))

    def fading(rate: Scalar) -> Any:
        """Adam whose rate falls to zero, so that a narrow optimum is not stepped over."""
        end = max(n_iter, 1)
        return optax.adam(lambda step: rate * 0.5 * (1.0 + jnp.cos(jnp.pi * step / end)))

    # the tree of labels is callable itself, as a process is: hence a function that returns it
    solver = optax.multi_transform(
        {"backbone": fading(rates[0]), "embedding": fading(rates[1])}, lambda _: labels
    )
    count = jnp.sum(model.data.present).astype(float)

    def loss(p: Any) -> Scalar:
        return -log_posterior(eqx.combine(p, fixed)) / count

    def body(carry: Any, _: Any) -> Any:
        here, state, best, lowest = carry
        value, slope = jax.value_and_grad(loss)(here)
        is_better = value < lowest
        best = jax.tree.map(lambda a, b: jnp.where(is_better, a, b), here, best)
        slope = jax.tree.map(lambda g: jnp.where(jnp.isfinite(g), g, 0.0), slope)
        held = slope.scaling.embedding.weight * move[:, None]
        slope = eqx.tree_at(lambda m: m.scaling.embedding.weight, slope, held)
        updates, state = solver.update(slope, state, here)
        here = optax.apply_updates(here, updates)
        return (here, state, best, jnp.minimum(value, lowest)), None

    first = (params, solver.init(params), params, jnp.full((), jnp.inf))
    (last, _, best, lowest), _ = jax.lax.scan(body, first, None, length=n_iter)
    is_better = loss(last) < lowest
    best = jax.tree.map(lambda a, b: jnp.where(is_better, a, b), last, best)
    return eqx.combine(best, fixed).condition()


@compiled
def _conditioned(
    model: MultiTaskRateGP, clone: Array, vectors: Float[Array, "S D"]
) -> MultiTaskRateGP:
    def one(vector: Array) -> MultiTaskRateGP:
        table = model.scaling.embedding.replace(clone, vector)
        return eqx.tree_at(lambda m: m.scaling.embedding, model, table).condition()

    return eqx.filter_vmap(one)(vectors)


@compiled
def _mixture(models: MultiTaskRateGP, inputs: Float[Array, "M D"]) -> Mixture:
    means, covariances = eqx.filter_vmap(lambda m: m.posterior(inputs))(models)
    variances = jnp.maximum(jnp.diagonal(covariances, axis1=2, axis2=3), 0.0)
    return Mixture(jnp.mean(means, axis=0), jnp.mean(variances, axis=0) + jnp.var(means, axis=0))


def _table_shape(embedding: EntityEmbedding) -> dict[str, Any]:
    return {
        "n_clones": embedding.n_clones,
        "embed_dim": embedding.embed_dim,
        "is_one_hot": embedding.is_one_hot,
    }


def _architecture(embedding: EntityEmbedding, model: MultiTaskRateGP) -> dict[str, Any]:
    return {
        **_table_shape(embedding),
        "n_raw": _features(model).n_raw,
        "n_tasks": model.n_tasks,
        "rank": model.kernel.rank,
        "kernel": type(model.kernel).__name__,
        "capacity": int(model.data.inputs.shape[0]),
        "is_complete": model.is_complete,
        "n_missing": model.n_missing,
    }


def _skeleton(shape: dict[str, Any]) -> tuple[EntityEmbedding, MultiTaskRateGP]:
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
