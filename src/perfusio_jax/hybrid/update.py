"""A fitted model and what came after: rows of later days, and a new search."""

import equinox as eqx
import jax
import jax.numpy as jnp

from perfusio_jax._core import DataError, Key
from perfusio_jax._core.programs import compiled
from perfusio_jax._core.progress import compiling
from perfusio_jax.gp import FitConfig, FitReport, MultiTaskRateGP, RateData, fit
from perfusio_jax.hybrid.assimilate import assimilate_run
from perfusio_jax.hybrid.model import HybridStateSpaceModel
from perfusio_jax.hybrid.residual_gp import row_noise
from perfusio_jax.hybrid.runs import clone_of, run_arrays
from perfusio_jax.hybrid.smoothing import Smoothed, rows_of
from perfusio_jax.hybrid.spread import gp_noise_sd
from perfusio_jax.states import Trajectory


@compiled
def _put_rows(model: HybridStateSpaceModel, data: Smoothed) -> HybridStateSpaceModel:
    base = _drop_rows(model)
    gp = _require_gp(base)
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), data)
    table = gp.data
    capacity = table.inputs.shape[0]
    # valid rows go behind the campaign's, one after the other; the others fall off the end
    rank = jnp.cumsum(flat.steps) - 1
    place = jnp.where(flat.steps, model.base_rows + rank, capacity)
    noise = row_noise(flat.variance, model.row_reference)
    table = RateData(
        inputs=table.inputs.at[place].set(flat.inputs, mode="drop"),
        targets=table.targets.at[place].set(flat.targets, mode="drop"),
        present=table.present.at[place].set(True, mode="drop"),
        row_noise=table.row_noise.at[place].set(noise, mode="drop"),
    )
    gp = eqx.tree_at(lambda g: (g.data, g.state), gp, (table, None)).condition()
    return eqx.tree_at(lambda m: m.gp, model, gp)


def _require_gp(model: HybridStateSpaceModel) -> MultiTaskRateGP:
    if model.gp is None:
        raise DataError("this model has no Gaussian process; fit one with fit_hybrid.")
    return model.gp


def _drop_rows(model: HybridStateSpaceModel) -> HybridStateSpaceModel:
    """The model without the rows behind the campaign's; weights as they were."""
    data = _require_gp(model).data
    rows = jnp.arange(data.inputs.shape[0]) < model.base_rows
    kept = RateData(
        inputs=data.inputs * rows[:, None],
        targets=data.targets * rows[:, None],
        present=data.present & rows[:, None],
        row_noise=jnp.where(rows, data.row_noise, 1.0),
    )
    return eqx.tree_at(lambda m: m.gp.data, model, kept)


def condition_on(
    model: HybridStateSpaceModel,
    trajectories: list[Trajectory],
    *,
    key: Key,
    n_particles: int = 128,
    length: int = 32,
) -> HybridStateSpaceModel:
    """Take in runs that came after the fit, without touching hyper-parameters.

    The runs are filtered and smoothed with the model, and their rows put behind those of
    the campaign. Rows of an earlier call are replaced, so hand in everything since the fit,
    every time; nothing recompiles as a run grows.

    Args:
        model: Fitted hybrid model.
        trajectories: Runs since the fit; those with one sample have no row yet.
        key: Random key.
        n_particles: Ensemble size.
        length: Samples a run is padded to; doubled while a run is longer.

    Returns:
        Updated model.

    Raises:
        DataError: If the rows reserved at the fit do not suffice; `fit_hybrid` again, or
            with a larger `growth`.
    """
    usable = [t for t in trajectories if t.n_days >= 2]
    if model.gp is None or not usable:
        return model
    longest = max(t.n_days for t in usable)
    while length < longest:
        length *= 2
    needed = int(model.base_rows) + sum(t.n_days - 1 for t in usable)
    capacity = model.gp.data.inputs.shape[0]
    if needed > capacity:
        raise DataError(
            f"{needed} rows do not fit the {capacity} reserved at the fit. Fit again on all runs, "
            "or fit with HybridConfig(growth=...) large enough for the days to come."
        )
    # always from the fitted model, run by run: the compile is shared with assimilate_run
    fitted = _forget(model)
    parts = []
    for run, k in zip(usable, jax.random.split(key, len(usable)), strict=True):
        mine, index = clone_of(fitted, run)
        beliefs = assimilate_run(mine, run, key=k, n_particles=n_particles, length=length)
        parts.append(
            rows_of(mine, run_arrays(run, length=length, clone=index, layout=mine.layout), beliefs)
        )
    return _put_rows(model, jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts))


@compiled
def _recondition(model: HybridStateSpaceModel) -> HybridStateSpaceModel:
    compiling("the taking in of new rows")
    base = _drop_rows(model)
    gp = eqx.tree_at(lambda g: g.state, _require_gp(base), None).condition()
    return eqx.tree_at(lambda m: m.gp, base, gp)


def _forget(model: HybridStateSpaceModel) -> HybridStateSpaceModel:
    """The model as fitted, if rows of later days are in it."""
    rows = int(jnp.sum(_require_gp(model).data.row_present))
    return model if rows == int(model.base_rows) else _recondition(model)


def refit(
    model: HybridStateSpaceModel, *, key: Key, config: FitConfig | None = None
) -> tuple[HybridStateSpaceModel, FitReport]:
    """Search the hyper-parameters again on the rows the model holds.

    Args:
        model: Hybrid model.
        key: Random key.
        config: Settings; one start from the present parameters by default.

    Returns:
        The model and the report.

    Raises:
        DataError: If the model has no GP.
    """
    present = _require_gp(model)
    settings = (
        FitConfig(n_restarts=1, max_rows=256, max_iterations=30) if config is None else config
    )
    gp, report = fit(present, key=key, config=settings)
    sd = jnp.asarray(gp_noise_sd(gp))
    family = model.embedding
    if family is not None:
        more = jnp.maximum(family.process_sd**2 - jnp.asarray(gp_noise_sd(present)) ** 2, 0.0)
        family = eqx.tree_at(lambda f: f.process_sd, family, jnp.sqrt(sd**2 + more))
        model = eqx.tree_at(lambda m: m.embedding, model, family)
        sd = family.noise(model.clone)
    return eqx.tree_at(lambda m: (m.gp, m.process_sd), model, (gp, sd)), report
