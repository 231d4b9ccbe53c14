"""How the process of a transfer learner is made from rows, and trained at separate rates."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from perfusio_jax._core import ConfigError, DataError, Scalar
from perfusio_jax._core.programs import compiled
from perfusio_jax.embedding.inputs import EmbeddedInputs
from perfusio_jax.gp import (
    GaussianLikelihood,
    MultiTaskRateGP,
    PerfusionKernel,
    log_posterior,
    trainable_filter,
)

_BLOCK = 64


def features_of(model: MultiTaskRateGP) -> EmbeddedInputs:
    """The feature map of a process that knows clones.

    Raises:
        ConfigError: If it has another one.
    """
    if not isinstance(model.scaling, EmbeddedInputs):
        raise ConfigError(
            f"the model's feature map is {type(model.scaling).__name__}; transfer needs "
            "EmbeddedInputs."
        )
    return model.scaling


def training_table(x: Any, y: Any, ids: Any, n_tasks: int | None) -> tuple[np.ndarray, ...]:
    """Rows, targets and clones of a table, checked.

    Args:
        x: Rows `[state, controls, day]`.
        y: (N, T) or (N,), NaN where missing.
        ids: Clone index per row.
        n_tasks: Targets a process has; any number if None.

    Raises:
        DataError: If shapes do not fit, or a row is not finite.
    """
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


def check_ids(ids: np.ndarray, n_clones: int) -> None:
    """Refuse an index that no clone has.

    Raises:
        DataError: If there is one.
    """
    wrong = sorted(set(ids[(ids < 0) | (ids >= n_clones)].tolist()))
    if wrong:
        raise DataError(f"clone index {wrong}; allowed are 0 to {n_clones - 1}.")


def new_process(
    rows: np.ndarray, y: np.ndarray, features: EmbeddedInputs, noise: GaussianLikelihood | None
) -> MultiTaskRateGP:
    """A process on rows `[state, controls, clone index, day]`, nothing learned yet."""
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


def rebuilt(
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


def bare(model: MultiTaskRateGP) -> MultiTaskRateGP:
    """The process without what its rows left behind."""
    return eqx.tree_at(lambda m: m.state, model, None, is_leaf=lambda node: node is None)


@compiled
def conditioned(model: MultiTaskRateGP) -> MultiTaskRateGP:
    """The process, solved for its rows."""
    return model.condition()


def trained(
    model: MultiTaskRateGP,
    lr_backbone: Scalar,
    lr_embedding: Scalar,
    n_iter: int,
    freeze_backbone: bool,
    move: Array | None = None,
) -> MultiTaskRateGP:
    """The process after steps of Adam, conditioned; the best point met is kept.

    Args:
        model: Where it begins.
        lr_backbone: Rate for kernel and noise [-].
        lr_embedding: Rate for the table [-].
        n_iter: Steps.
        freeze_backbone: Whether the table alone moves.
        move: One for each clone whose vector moves, zero for the others; all of them if None.

    Raises:
        ConfigError: If the number of steps is negative.
    """
    if n_iter < 0:
        raise ConfigError(f"n_iter={n_iter}; it must not be negative.")
    spec = trainable_filter(model)
    if freeze_backbone:
        spec = jax.tree.map(lambda _: False, spec)
        spec = eqx.tree_at(lambda m: m.scaling.trainable(), spec, (True,))
    if move is None:
        move = jnp.ones((features_of(model).embedding.n_clones,))
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
