"""Training on ready-made rows, as the reference API names it."""

import equinox as eqx
import jax
import numpy as np
from jaxtyping import ArrayLike, Float

from perfusio_jax._core import Key
from perfusio_jax.gp import (
    FitConfig,
    FitReport,
    GaussianLikelihood,
    MultiTaskRateGP,
    append_rows,
    fit,
    from_indexed,
)


def train_hybrid(
    train_x: Float[ArrayLike, "..."],
    train_y: Float[ArrayLike, "..."],
    model: MultiTaskRateGP,
    likelihood: GaussianLikelihood,
    n_iter_lbfgs: int = 50,
    n_iter_adam: int = 200,
    lr_adam: float = 0.05,
    *,
    key: Key | None = None,
) -> tuple[MultiTaskRateGP, FitReport]:
    """Fit a residual GP on ready-made rows.

    Args:
        train_x: (N, D) inputs, or (M, D + 1) indexed rows.
        train_y: (N, T) residual rates with NaN where missing, or (M,).
        model: GP whose kernel, mean and priors are kept; its data are replaced.
        likelihood: Noise to start from.
        n_iter_lbfgs: L-BFGS evaluations.
        n_iter_adam: Adam steps of the fallback.
        lr_adam: Adam's rate.
        key: Random starts of the search; `jax.random.key(0)` by default.

    Returns:
        Fitted and conditioned model, and the report.
    """
    fresh = MultiTaskRateGP(
        train_x,
        train_y,
        likelihood,
        model.mean_module,
        model.kernel,
        model.n_tasks,
        model.n_state_dims,
        priors=model.priors,
    )
    config = FitConfig(
        max_iterations=n_iter_lbfgs, adam_iterations=n_iter_adam, learning_rate=lr_adam
    )
    key = jax.random.key(0) if key is None else key
    return fit(fresh, key=key, config=config)


def retrain_online(
    new_x: Float[ArrayLike, "..."],
    new_y: Float[ArrayLike, "..."],
    model: MultiTaskRateGP,
    likelihood: GaussianLikelihood | None = None,
    n_iter: int = 50,
    lr: float = 0.05,
    *,
    key: Key | None = None,
) -> MultiTaskRateGP:
    """Append rows and take a few Adam steps from the present parameters.

    Args:
        new_x: New inputs, (M, D) or indexed (M, D + 1).
        new_y: New targets, (M, T) or (M,).
        model: Fitted GP.
        likelihood: Noise to start from; the model's own by default.
        n_iter: Adam steps; 0 only conditions.
        lr: Adam's rate.
        key: Random starts of the search; `jax.random.key(0)` by default.

    Returns:
        Updated and conditioned model.
    """
    x, y = np.asarray(new_x, float), np.asarray(new_y, float)
    if y.ndim == 1:
        x, y = (np.asarray(a) for a in from_indexed(x, y, model.n_tasks))
    if likelihood is not None:
        noise = GaussianLikelihood(likelihood.variance(model.n_tasks))
        model = eqx.tree_at(lambda m: m.likelihood, model, noise)
    grown = append_rows(model, x, y)
    if n_iter == 0:
        return grown
    config = FitConfig(adam_iterations=n_iter, learning_rate=lr)
    key = jax.random.key(0) if key is None else key
    return fit(grown, key=key, config=config, method="adam")[0]
