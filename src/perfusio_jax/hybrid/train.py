"""From a campaign to a fitted hybrid model, and from a new day to an updated one.

1. The mechanistic model, corrected by a drifting disturbance, is run as a filter and
   smoother over every run. That gives the latent states (noise reduced, gaps filled) and the
   residual rate of every interval with its variance.
2. The Gaussian process is fitted to the residual rates.
3. The hybrid model is run as filter and smoother in turn; its states and residuals train the
   final process. This may be repeated.
4. Spreads are read off: what the process does not explain becomes process noise.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from perfusio_jax._core import HOURS_PER_DAY, STATE_ORDER, DataError, Key, require_x64
from perfusio_jax.chemistry import balance_rates, perfusion_flows, to_balanced
from perfusio_jax.gp import (
    FitConfig,
    FitReport,
    GaussianLikelihood,
    HyperPriors,
    KroneckerPosterior,
    MultiTaskRateGP,
    PerfusionKernel,
    RateData,
    append_rows,
    fit,
    fit_scaling,
    from_indexed,
    with_data,
)
from perfusio_jax.hybrid.assimilate import (
    Disturbance,
    RunArrays,
    RunBeliefs,
    assimilate_arrays,
    assimilate_run,
    run_arrays,
)
from perfusio_jax.hybrid.model import HybridStateSpaceModel, InitialState
from perfusio_jax.hybrid.observation import AssayNoise, LatentMap
from perfusio_jax.hybrid.transition import Limits, ResidualBasis
from perfusio_jax.mechanistic import CHOPerfusionModel
from perfusio_jax.states import Trajectory

_N = len(STATE_ORDER)
_CELLS_OFFSET = (0.5, 0.5, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0)
_SMALLEST_OFFSET = (0.05, 0.02, 0.05, 0.02, 0.02, 0.05, 0.02, 0.02, 2.0)
_FLOOR = (0.01, 0.01, 0.01, 0.01, 0.01, 0.02, 0.01, 0.01, 0.5)


def _leaf(value: Any) -> Array:
    return jnp.asarray(value, float)


class HybridConfig(eqx.Module):
    """Settings of `fit_hybrid`."""

    n_particles: int = eqx.field(static=True, default=96)
    """Ensemble size of the smoother."""
    rounds: int = eqx.field(static=True, default=1)
    """Passes of the hybrid smoother after the first fit."""
    rank: int = eqx.field(static=True, default=1)
    """Rank of the coupling between species."""
    growth: int = eqx.field(static=True, default=64)
    """Rows kept free for new days, and step in which capacity grows."""
    length: int | None = eqx.field(static=True, default=None)
    """Samples a run is padded to, so that a growing one does not recompile; the longest run's."""
    use_mechanism: bool = eqx.field(static=True, default=True)
    """False leaves the mechanistic rates out (ablation)."""
    use_gp: bool = eqx.field(static=True, default=True)
    """False leaves the residual out (ablation)."""
    fit: FitConfig = FitConfig(max_rows=256)
    """Hyper-parameter search."""
    persistence: Array = eqx.field(converter=_leaf, default=0.8)
    """Day-to-day persistence of the mechanism's error in the first pass [-]."""
    assay: AssayNoise = AssayNoise(floor=_FLOOR)
    """Measurement noise."""


class _Smoothed(NamedTuple):
    inputs: Array
    targets: Array
    variance: Array
    steps: Array


def _rows(run: RunArrays, beliefs: RunBeliefs) -> _Smoothed:
    """Training rows of one run: smoothed states, set-points, day; residuals and variances."""
    states = jnp.mean(beliefs.smoothed[:-1], axis=1)
    day = beliefs.days[:-1, None]
    return _Smoothed(
        inputs=jnp.concatenate([states, run.controls[:-1], day], axis=1),
        targets=jnp.mean(beliefs.residuals, axis=1),
        variance=jnp.var(beliefs.residuals, axis=1),
        steps=run.mask[1:] & run.mask[:-1],
    )


@eqx.filter_jit
def _smooth(
    model: HybridStateSpaceModel, runs: RunArrays, law: Disturbance, keys: Array, n: int
) -> tuple[_Smoothed, Any]:
    def one(run: RunArrays, key: Array) -> tuple[_Smoothed, Any]:
        beliefs = assimilate_arrays(model, run, law, key=key, n_particles=n)
        return _rows(run, beliefs), beliefs.info

    return jax.vmap(one)(runs, keys)


def stack_runs(trajectories: list[Trajectory], *, length: int | None = None) -> RunArrays:
    """Runs as the filter reads them, padded to one length.

    Args:
        trajectories: Runs.
        length: Rows; the longest run's by default.

    Returns:
        Arrays with a leading run axis.
    """
    size = max(t.n_days for t in trajectories) if length is None else length
    arrays = [run_arrays(t, length=size) for t in trajectories]
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *arrays)


def check_campaign(trajectories: list[Trajectory]) -> None:
    """Refuse a campaign that cannot train a model.

    Args:
        trajectories: Runs.

    Raises:
        DataError: If there are fewer than two runs with two samples, or a species was never
            measured; the message names it.
    """
    usable = [t for t in trajectories if t.n_days >= 2]
    if len(usable) < 2:
        raise DataError(
            f"{len(usable)} run(s) with at least two samples; a hybrid model needs two or more. "
            "With fewer, use the mechanistic model alone (HybridConfig(use_gp=False))."
        )
    for name in STATE_ORDER:
        columns = [
            np.asarray(t.select_species((name,), missing_ok=True))[:, 0] for t in trajectories
        ]
        if not any(np.isfinite(column).any() for column in columns):
            raise DataError(
                f"species '{name}' was not measured in any of the {len(trajectories)} runs; "
                "every state species needs at least some readings."
            )


def _filled(face: np.ndarray) -> np.ndarray:
    """Gaps bridged linearly in time within a run, by the campaign's median where a run has none."""
    out = face.copy()
    with np.errstate(all="ignore"):
        typical = np.nanmedian(face.reshape(-1, face.shape[-1]), axis=0)
    rows = np.arange(face.shape[1])
    for run in out:
        for k in range(run.shape[1]):
            seen = np.isfinite(run[:, k])
            run[:, k] = np.interp(rows, rows[seen], run[seen, k]) if seen.any() else typical[k]
    return out


def _base_model(
    trajectories: list[Trajectory], runs: RunArrays, config: HybridConfig, mech: Any
) -> HybridStateSpaceModel:
    """Scales, diameter and start read off the raw data; no GP yet."""
    face = _filled(np.asarray(runs.face))
    mask = np.asarray(runs.mask)
    states = np.asarray(to_balanced(jnp.asarray(face)))
    typical = np.median(states[mask], axis=0)
    latent = LatentMap(np.maximum(0.03 * typical, np.asarray(_SMALLEST_OFFSET)))
    first = np.asarray(latent.forward(jnp.asarray(states[:, 0])))
    initial = InitialState(first.mean(axis=0), np.maximum(1.5 * first.std(axis=0), 0.3))

    steps = mask[:, 1:] & mask[:, :-1]
    dt = np.diff(np.asarray(runs.times_h), axis=1)
    offset = np.asarray(_CELLS_OFFSET)
    per_cell = np.asarray(_raw_rates(jnp.asarray(states), runs, mech)) / (
        offset + np.sqrt(states[:, :-1, :1] * states[:, 1:, :1])
    )
    scale = np.sqrt(np.mean(np.clip(per_cell[steps], -1e6, 1e6) ** 2, axis=0)) + 1e-9
    return HybridStateSpaceModel(
        mech,
        None,
        dt_hours=float(np.median(dt[steps])),
        basis=ResidualBasis(scale, offset, np.ones(_N)),
        limits=Limits(),
        assay=config.assay,
        latent=latent,
        initial=initial,
        diameter=fit_diameter(trajectories, mech),
        use_mechanism=True,
    )


@eqx.filter_jit
def _raw_rates(states: Array, runs: RunArrays, mech: Any) -> Array:
    """Balance rates straight from the gap-filled samples: orders of magnitude, no more."""
    fed = jnp.nan_to_num(runs.feed_L[:, 1:])
    volume, dt = jnp.asarray(mech.volume_L), jnp.diff(runs.times_h, axis=1)
    flows = perfusion_flows(runs.controls[:, :-1], volume, fed, mech.medium, dt, mech.sieving)
    return balance_rates(states[:, :-1], states[:, 1:], volume, volume, flows, dt)


def fit_diameter(trajectories: list[Trajectory], mech: Any) -> tuple[float, float]:
    """Cell diameter over dead fraction, by ridge regression towards the mechanistic model.

    Args:
        trajectories: Runs; those without diameter are passed over.
        mech: Mechanistic model, the prior.

    Returns:
        Diameter at full viability [um] and increase per unit dead fraction [um].
    """
    prior = np.array([float(mech.kinetics.diam_base), float(mech.kinetics.diam_death_coeff)])
    dead, size = [], []
    for run in trajectories:
        if "Diam" not in run.species_names or "Via" not in run.species_names:
            continue
        d = np.asarray(run.get_species("Diam"))
        v = 1.0 - np.asarray(run.get_species("Via")) / 100.0
        seen = np.isfinite(d) & np.isfinite(v)
        dead.append(v[seen])
        size.append(d[seen])
    if not dead or not np.concatenate(dead).size:
        return float(prior[0]), float(prior[1])
    x, y = np.concatenate(dead), np.concatenate(size)
    noise, spread = 0.01 * float(prior[0]), np.array([3.0, 3.0])
    design = np.column_stack([np.ones_like(x), x])
    precision = design.T @ design / noise**2 + np.diag(1.0 / spread**2)
    shift = np.linalg.solve(precision, design.T @ (y - design @ prior) / noise**2)
    return float(prior[0] + shift[0]), float(max(prior[1] + shift[1], 0.0))


def _row_noise(variance: Array, reference: Array) -> Array:
    """Relative noise per row: geometric mean over the species, tamed."""
    logs = jnp.log(jnp.maximum(variance, 1e-12)) - jnp.log(reference)[None, :]
    return jnp.exp(jnp.clip(jnp.mean(logs, axis=1), np.log(0.2), np.log(10.0)))


def _gp_on(
    data: _Smoothed, previous: MultiTaskRateGP | None, config: HybridConfig
) -> tuple[MultiTaskRateGP, np.ndarray]:
    """A process on smoothed residuals, and the typical variance of its targets."""
    keep = np.asarray(data.steps).reshape(-1)
    inputs = np.asarray(data.inputs).reshape(keep.size, -1)[keep]
    targets = np.asarray(data.targets).reshape(keep.size, -1)[keep]
    variance = np.asarray(data.variance).reshape(keep.size, -1)[keep]
    reference = np.maximum(np.median(variance, axis=0), 1e-12)
    capacity = -(-(inputs.shape[0] + config.growth) // config.growth) * config.growth
    size = inputs.shape[1] - 1
    if previous is None:
        kernel = PerfusionKernel(_N, size, config.rank, size, lengthscale=4.0)
        likelihood = GaussianLikelihood(0.2)
        scaling = fit_scaling(inputs, log_columns=tuple(range(_N)), day_column=size)
    else:
        kernel, likelihood, scaling = previous.kernel, previous.likelihood, previous.scaling
    model = MultiTaskRateGP(
        inputs,
        targets,
        likelihood,
        None,
        kernel,
        _N,
        size,
        row_noise=np.asarray(_row_noise(jnp.asarray(variance), jnp.asarray(reference))),
        scaling=scaling,
        target_scale=np.sqrt(np.mean(targets**2, axis=0)) + 1e-6,
        capacity=capacity,
        priors=HyperPriors(),
    )
    return model, reference


def leave_run_out(
    gp: MultiTaskRateGP, run_of_row: np.ndarray
) -> tuple[Float[np.ndarray, "N T"], Float[np.ndarray, "N T"]]:
    """Prediction errors of each run's targets by the process without that run.

    The hyper-parameters stay, so this costs one small solve per run and species and no
    further fit. Rows of one run resemble each other; leaving out single rows would flatter.

    Args:
        gp: Conditioned process on complete rows.
        run_of_row: Run number of each row that holds data.

    Returns:
        Errors and predicted variances with noise, both in target unit.

    Reference:
        Rasmussen and Williams (2006), section 5.4.2, for blocks instead of single points.
    """
    if gp.state is None or not isinstance(gp.state.solved, KroneckerPosterior):
        raise DataError("leave-run-out errors need a conditioned process on complete targets.")
    solved = gp.state.solved
    vectors, values = np.asarray(solved.vectors), np.asarray(solved.values)
    rows = np.flatnonzero(np.asarray(gp.data.row_present))
    row_sd, task_sd = np.asarray(solved.row_sd), np.asarray(solved.task_sd)
    turn = np.asarray(solved.task_vectors)
    targets = np.asarray(gp.data.targets) / np.asarray(gp.target_scale)[None, :]
    white = targets / row_sd[:, None] / task_sd[None, :] @ turn
    spectrum = values[:, None] * np.asarray(solved.task_values)[None, :] + 1.0
    weights = vectors @ ((vectors.T @ white) / spectrum)
    error, variance = np.zeros((rows.size, _N)), np.zeros((rows.size, _N))
    for run in np.unique(run_of_row):
        inside = np.flatnonzero(run_of_row == run)
        part = vectors[rows[inside]]
        apart, spread = np.zeros((inside.size, _N)), np.zeros((inside.size, _N))
        for j in range(_N):
            block = np.linalg.inv((part / spectrum[:, j][None, :]) @ part.T)
            apart[:, j] = block @ weights[rows[inside], j]
            spread[:, j] = np.diagonal(block)
        error[inside] = apart @ turn.T
        variance[inside] = spread @ (turn.T**2)
    unit = task_sd * np.asarray(gp.target_scale)
    scale = row_sd[rows][:, None] * unit[None, :]
    return error * scale, variance * scale**2


@eqx.filter_jit
def _function_sd(gp: MultiTaskRateGP) -> Array:
    """Root mean square posterior spread of the function over the training inputs."""
    rows = gp.data.row_present.astype(float)
    _, covariance = gp.posterior(gp.data.inputs)
    variance = jnp.diagonal(covariance, axis1=1, axis2=2)
    mean = jnp.sum(variance * rows[:, None], axis=0) / jnp.sum(rows)
    return jnp.sqrt(jnp.maximum(mean, 0.0))


def _with_gp(
    model: HybridStateSpaceModel,
    gp: MultiTaskRateGP,
    process_sd: ArrayLike,
    function_sd: ArrayLike,
    reference: ArrayLike,
) -> HybridStateSpaceModel:
    return eqx.tree_at(
        lambda m: (m.gp, m.process_sd, m.function_sd, m.base_rows, m.row_reference),
        model,
        (
            gp,
            jnp.asarray(process_sd, float),
            jnp.asarray(function_sd, float),
            jnp.sum(gp.data.row_present),
            jnp.asarray(reference, float),
        ),
        is_leaf=lambda node: node is None,
    )


def fit_hybrid(
    trajectories: list[Trajectory],
    *,
    key: Key,
    config: HybridConfig | None = None,
    mech_model: Any = None,
) -> tuple[HybridStateSpaceModel, FitReport]:
    """Campaign to fitted model.

    Args:
        trajectories: Historic runs; NaN where missing.
        key: Random key.
        config: Settings.
        mech_model: Mechanistic prior; `CHOPerfusionModel()` by default.

    Returns:
        The model and the report of its last fit; `report.details` holds the filter's mean
        normalised innovation per pass and the number of rows.

    Raises:
        DataError: If the campaign cannot train a model.
        PrecisionError: In 32-bit mode.
    """
    require_x64("Fitting a hybrid model")
    config = HybridConfig() if config is None else config
    mech = CHOPerfusionModel() if mech_model is None else mech_model
    check_campaign(trajectories)
    runs = stack_runs(trajectories, length=config.length)
    model = _base_model(trajectories, runs, config, mech)
    keys = jax.random.split(key, 8)
    lanes = runs.mask.shape[0]

    law = Disturbance(config.persistence, jnp.full(_N, 0.3, float))
    # a process that knows nothing yet: same structure as the fitted one, so one compile
    blank, _ = _gp_on(_blank_rows(runs), None, config)
    model = _with_gp(
        model, with_data(blank, blank.data), jnp.zeros(_N), jnp.zeros(_N), jnp.ones(_N)
    )
    passes = []
    for turn in range(2):
        data, info = _smooth(
            model, runs, law, jax.random.split(keys[turn], lanes), config.n_particles
        )
        passes.append(_mean_nis(info, runs))
        steps = np.asarray(data.steps)
        spread = np.sqrt(
            np.mean((np.asarray(data.targets) ** 2 + np.asarray(data.variance))[steps], axis=0)
        )
        fresh = np.sqrt(1.0 - float(config.persistence) ** 2) * spread
        law = Disturbance(config.persistence, jnp.asarray(np.maximum(fresh, 1e-3)))
    gp, reference = _gp_on(data, None, config)
    gp, report = fit(gp, key=keys[3], config=config.fit)
    process, function = _spreads(gp, data)
    model = _with_gp(model, gp, process, function, reference)
    for turn in range(config.rounds):
        law = Disturbance(jnp.zeros(()), jnp.sqrt(model.process_sd**2 + model.function_sd**2))
        data, info = _smooth(
            model, runs, law, jax.random.split(keys[4 + turn], lanes), config.n_particles
        )
        passes.append(_mean_nis(info, runs))
        gp, reference = _gp_on(data, gp, config)
        gp, report = fit(gp, key=keys[3], config=config.fit)
        process, function = _spreads(gp, data)
        model = _with_gp(model, gp, process, function, reference)
    details = {"nis_per_reading": passes, "rows": int(np.asarray(data.steps).sum())}
    return model, report._replace(details=details)


def _blank_rows(runs: RunArrays) -> _Smoothed:
    states = to_balanced(jnp.asarray(_filled(np.asarray(runs.face))))[:, :-1]
    day = runs.times_h[:, :-1, None] / HOURS_PER_DAY
    inputs = jnp.concatenate([states, runs.controls[:, :-1], day], axis=2)
    nothing = jnp.zeros_like(states)
    return _Smoothed(inputs, nothing, nothing + 1.0, runs.mask[:, 1:] & runs.mask[:, :-1])


def _spreads(gp: MultiTaskRateGP, data: _Smoothed) -> tuple[np.ndarray, np.ndarray]:
    """Process noise, and what more a run nobody has seen must be granted.

    An unseen run's error persists from day to day, while the filter adds it as if it were
    fresh each day. The white noise of equal long-run variance is larger by
    `(1 + a) / (1 - a)`, with `a` the day-to-day correlation of the leave-run-out errors.
    """
    steps = np.asarray(data.steps)
    run_of_row = np.broadcast_to(np.arange(steps.shape[0])[:, None], steps.shape)[steps]
    error, _ = leave_run_out(gp, run_of_row)
    process = _process_sd(gp)
    unseen = np.maximum(np.mean(error**2, axis=0) - process**2, np.asarray(_function_sd(gp)) ** 2)
    inside = run_of_row[1:] == run_of_row[:-1]
    lagged = np.mean((error[1:] * error[:-1])[inside], axis=0) / np.mean(error**2, axis=0)
    persistence = np.clip(np.nan_to_num(lagged), 0.0, 0.7)
    return process, np.sqrt(unseen * (1.0 + persistence) / (1.0 - persistence))


def _process_sd(gp: MultiTaskRateGP) -> np.ndarray:
    total = np.asarray(gp.likelihood.variance(_N)) * np.asarray(gp.target_scale) ** 2
    return np.sqrt(total)


def _mean_nis(info: Any, runs: RunArrays) -> float:
    mask = np.asarray(runs.mask)[:, 1:]
    nis, count = np.asarray(info.nis)[:, 1:][mask], np.asarray(info.n_observed)[:, 1:][mask]
    return float(nis.sum() / max(count.sum(), 1.0))


@eqx.filter_jit
def _put_rows(model: HybridStateSpaceModel, data: _Smoothed) -> HybridStateSpaceModel:
    base = _drop_rows(model)
    gp = _require_gp(base)
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), data)
    table = gp.data
    capacity = table.inputs.shape[0]
    # valid rows go behind the campaign's, one after the other; the others fall off the end
    rank = jnp.cumsum(flat.steps) - 1
    place = jnp.where(flat.steps, model.base_rows + rank, capacity)
    noise = _row_noise(flat.variance, model.row_reference)
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
        beliefs = assimilate_run(fitted, run, key=k, n_particles=n_particles, length=length)
        parts.append(_rows(run_arrays(run, length=length), beliefs))
    return _put_rows(model, jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts))


@eqx.filter_jit
def _recondition(model: HybridStateSpaceModel) -> HybridStateSpaceModel:
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
    sd = jnp.asarray(_process_sd(gp))
    return eqx.tree_at(lambda m: (m.gp, m.process_sd), model, (gp, sd)), report


def train_hybrid(
    train_x: Float[ArrayLike, "..."],
    train_y: Float[ArrayLike, "..."],
    model: MultiTaskRateGP,
    likelihood: GaussianLikelihood,
    n_iter_lbfgs: int = 50,
    n_iter_adam: int = 200,
    lr_adam: float = 0.05,
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
    return fit(fresh, key=jax.random.key(0), config=config)


def retrain_online(
    new_x: Float[ArrayLike, "..."],
    new_y: Float[ArrayLike, "..."],
    model: MultiTaskRateGP,
    likelihood: GaussianLikelihood | None = None,
    n_iter: int = 50,
    lr: float = 0.05,
) -> MultiTaskRateGP:
    """Append rows and take a few Adam steps from the present parameters.

    Args:
        new_x: New inputs, (M, D) or indexed (M, D + 1).
        new_y: New targets, (M, T) or (M,).
        model: Fitted GP.
        likelihood: Noise to start from; the model's own by default.
        n_iter: Adam steps; 0 only conditions.
        lr: Adam's rate.

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
    return fit(grown, key=jax.random.key(0), config=config, method="adam")[0]
