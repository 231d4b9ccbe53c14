"""From a campaign to a fitted hybrid model, and from a new day to an updated one.

1. The mechanistic model, corrected by a drifting disturbance, is run as a filter and
   smoother over every run. That gives the latent states (noise reduced, gaps filled) and the
   residual rate of every interval with its variance. The mechanism's constants are moved
   towards these rates (`calibrate`), and the pass is repeated.
2. The Gaussian process is fitted to the residual rates.
3. The hybrid model is run as filter and smoother in turn; its states and residuals train the
   final process. This may be repeated.
4. Spreads are read off: what the process does not explain becomes process noise.
"""

import warnings
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from perfusio_jax._core import HOURS_PER_DAY, STATE_ORDER, DataError, Key, Result, require_x64
from perfusio_jax.chemistry import balance_rates, perfusion_flows, to_balanced
from perfusio_jax.embedding import PRIOR_CLONE, CloneRegistry, EntityEmbedding, fit_embedded
from perfusio_jax.gp import (
    DataWarning,
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
    clone_of,
    run_arrays,
    step_law,
)
from perfusio_jax.hybrid.calibrate import N_CONSTANTS, CalibrationInfo, Intervals, calibrate
from perfusio_jax.hybrid.family import CloneFamily, calibrate_family
from perfusio_jax.hybrid.model import HybridStateSpaceModel, InitialState, at_clone
from perfusio_jax.hybrid.observation import AssayNoise, LatentMap
from perfusio_jax.hybrid.prior import check_mechanism
from perfusio_jax.hybrid.transition import Limits, Prior, ResidualBasis, flat_prior, prior_step
from perfusio_jax.mechanistic import CHOPerfusionModel
from perfusio_jax.states import Trajectory

_N = len(STATE_ORDER)
_CELLS_OFFSET = (0.5, 0.5, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0)
_SMALLEST_OFFSET = (0.05, 0.02, 0.05, 0.02, 0.02, 0.05, 0.02, 0.02, 2.0)
_FLOOR = (0.01, 0.01, 0.01, 0.01, 0.01, 0.02, 0.01, 0.01, 0.5)

_TYPICAL_STATE = (20.0, 0.8, 4.0, 3.0, 0.8, 8.0, 2.0, 0.8, 200.0)
_TYPICAL_CONTROLS = (1.0, 0.15, 4.0, 36.5, 850.0, 1.0)
_SUBSTRATES = ("Gln", "Pyr")
_SHRINK_RUNS = 0.5
"""Runs that the clones' common spread counts as when a clone's own is estimated [-]."""
_UNTRAINED_ERROR = 0.25
"""Relative error of the mechanism's rates for a clone it was not made for [-]."""


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
    lanes: int | None = eqx.field(static=True, default=None)
    """Runs the campaign is padded to, so that campaigns of different sizes share what is
    compiled; the rows of the process are reserved to match."""
    calibrate: bool = eqx.field(static=True, default=True)
    """Whether the mechanism's constants are moved towards the campaign first. Only a
    `CHOPerfusionModel` has constants to move."""
    use_mechanism: bool = eqx.field(static=True, default=True)
    """False leaves the mechanistic rates out (ablation)."""
    use_gp: bool = eqx.field(static=True, default=True)
    """False leaves the residual out (ablation)."""
    embedding_dim: int = eqx.field(static=True, default=3)
    """Length of a clone's vector when the campaign holds several clones; 0 treats all runs as
    one clone."""
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


def _rows(model: HybridStateSpaceModel, run: RunArrays, beliefs: RunBeliefs) -> _Smoothed:
    """Training rows of one run: smoothed states, set-points, day; residuals and variances."""
    states = jnp.mean(beliefs.smoothed[:-1], axis=1)
    ends = [beliefs.days[:-1]]
    if model.embedding is not None:
        ends.insert(0, jnp.broadcast_to(jnp.asarray(run.clone), ends[0].shape))
    return _Smoothed(
        inputs=jnp.concatenate([states, run.controls[:-1], jnp.stack(ends, axis=1)], axis=1),
        targets=jnp.mean(beliefs.residuals, axis=1),
        variance=jnp.var(beliefs.residuals, axis=1),
        steps=run.mask[1:] & run.mask[:-1],
    )


@eqx.filter_jit
def _smooth(
    model: HybridStateSpaceModel, runs: RunArrays, law: Disturbance, keys: Array, n: int
) -> tuple[_Smoothed, Any]:
    def one(run: RunArrays, key: Array) -> tuple[_Smoothed, Any]:
        mine = at_clone(model, jnp.asarray(run.clone))
        beliefs = assimilate_arrays(mine, run, law, key=key, n_particles=n)
        return _rows(mine, run, beliefs), beliefs.info

    return jax.vmap(one)(runs, keys)


def stack_runs(
    trajectories: list[Trajectory],
    *,
    length: int | None = None,
    registry: CloneRegistry | None = None,
) -> RunArrays:
    """Runs as the filter reads them, padded to one length.

    Args:
        trajectories: Runs.
        length: Rows; the longest run's by default.
        registry: Clones of the model (`model.embedding.registry`), if it holds several.

    Returns:
        Arrays with a leading run axis.

    Raises:
        ConfigError: If a run's clone is not registered.
    """
    size = max(t.n_days for t in trajectories) if length is None else length
    index = [-1 if registry is None else registry.clone_id(t.clone_id) for t in trajectories]
    arrays = [run_arrays(t, length=size, clone=k) for t, k in zip(trajectories, index, strict=True)]
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *arrays)


def _with_lanes(runs: RunArrays, lanes: int | None) -> RunArrays:
    """Empty runs behind the real ones, up to a number."""
    n = runs.mask.shape[0]
    if lanes is None or lanes == n:
        return runs
    if lanes < n:
        raise DataError(f"{n} runs do not fit HybridConfig(lanes={lanes}).")
    copies = jax.tree.map(
        lambda v: jnp.concatenate([v, jnp.repeat(v[:1], lanes - n, axis=0)]), runs
    )
    return copies._replace(
        face=copies.face.at[n:].set(jnp.nan),
        feed_L=copies.feed_L.at[n:].set(jnp.nan),
        mask=copies.mask.at[n:].set(False),
    )


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


def _filled(face: np.ndarray, times_h: np.ndarray) -> np.ndarray:
    """Gaps bridged linearly in time within a run, by the campaign's median where a run has none."""
    out = face.copy()
    with np.errstate(all="ignore"):
        typical = np.nanmedian(face.reshape(-1, face.shape[-1]), axis=0)
    for run, times in zip(out, times_h, strict=True):
        for k in range(run.shape[1]):
            seen = np.isfinite(run[:, k])
            run[:, k] = np.interp(times, times[seen], run[seen, k]) if seen.any() else typical[k]
    return out


def _base_model(
    trajectories: list[Trajectory],
    runs: RunArrays,
    config: HybridConfig,
    parts: tuple[Any, MultiTaskRateGP, CloneFamily | None],
) -> HybridStateSpaceModel:
    """Scales, diameter and start read off the raw data, around mechanism, process, clones."""
    mech, blank, family = parts
    face = _filled(np.asarray(runs.face), np.asarray(runs.times_h))
    mask = np.asarray(runs.mask)
    states = np.asarray(to_balanced(jnp.asarray(face)))
    typical = np.median(states[mask], axis=0)
    latent = LatentMap(np.maximum(0.03 * typical, np.asarray(_SMALLEST_OFFSET)))
    first = np.asarray(latent.forward(jnp.asarray(states[:, 0])))[mask[:, 0]]
    initial = InitialState(first.mean(axis=0), np.maximum(1.5 * first.std(axis=0), 0.3))

    steps = mask[:, 1:] & mask[:, :-1]
    dt = np.diff(np.asarray(runs.times_h), axis=1)
    offset = np.asarray(_CELLS_OFFSET)
    per_cell = np.asarray(_raw_rates(jnp.asarray(states), runs, mech)) / (
        offset + np.sqrt(states[:, :-1, :1] * states[:, 1:, :1])
    )
    half = np.where(np.isin(STATE_ORDER, _SUBSTRATES), typical, 0.0) if config.use_mechanism else 0
    half = np.broadcast_to(half, (_N,))
    scale = np.sqrt(np.mean(np.clip(per_cell[steps], -1e6, 1e6) ** 2, axis=0)) + 1e-9
    return HybridStateSpaceModel(
        mech,
        blank,
        family,
        dt_hours=float(np.median(dt[steps])),
        basis=ResidualBasis(scale, offset, np.ones(_N), half),
        limits=Limits(),
        assay=config.assay,
        latent=latent,
        initial=initial,
        diameter=fit_diameter(trajectories, mech),
        use_mechanism=config.use_mechanism,
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
    data: _Smoothed,
    previous: MultiTaskRateGP | None,
    config: HybridConfig,
    registry: CloneRegistry | None,
) -> tuple[MultiTaskRateGP, np.ndarray]:
    """A process on smoothed residuals, and the typical variance of its targets."""
    keep = np.asarray(data.steps).reshape(-1)
    inputs = np.asarray(data.inputs).reshape(keep.size, -1)[keep]
    targets = np.asarray(data.targets).reshape(keep.size, -1)[keep]
    variance = np.asarray(data.variance).reshape(keep.size, -1)[keep]
    reference = np.maximum(np.median(variance, axis=0), 1e-12)
    rows = inputs.shape[0] if config.lanes is None else keep.size
    capacity = -(-(rows + config.growth) // config.growth) * config.growth
    size = inputs.shape[1] - 1
    if previous is not None:
        kernel, likelihood, scaling = previous.kernel, previous.likelihood, previous.scaling
    elif registry is None:
        kernel = PerfusionKernel(_N, size, config.rank, size, lengthscale=4.0)
        likelihood = GaussianLikelihood(0.2)
        scaling = fit_scaling(inputs, log_columns=tuple(range(_N)), day_column=size)
    else:
        # the clone's column makes room for its vector
        width = size - 1 + config.embedding_dim
        kernel = PerfusionKernel(_N, width, config.rank, width, lengthscale=4.0)
        likelihood = GaussianLikelihood(0.2)
        table = EntityEmbedding(registry.n_clones, config.embedding_dim)
        scaling = fit_embedded(inputs, table, log_columns=tuple(range(_N)))
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
    solved = None if gp.state is None else gp.state.solved
    if not isinstance(solved, KroneckerPosterior) or gp.data.shared is not None:
        raise DataError(
            "leave-run-out errors need a conditioned process on complete targets whose rows do not "
            "share samples."
        )
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


def _with_noise(model: HybridStateSpaceModel, by_clone: Array) -> HybridStateSpaceModel:
    return eqx.tree_at(lambda m: m.embedding.process_sd, model, by_clone)


def _with_gp(
    model: HybridStateSpaceModel,
    gp: MultiTaskRateGP,
    spreads: "_Spreads",
    reference: ArrayLike,
) -> HybridStateSpaceModel:
    if spreads.by_clone is not None:
        model = _with_noise(model, jnp.asarray(spreads.by_clone))
    return eqx.tree_at(
        lambda m: (m.gp, m.process_sd, m.function_sd, m.base_rows, m.row_reference),
        model,
        (
            gp,
            jnp.asarray(spreads.process, float),
            jnp.asarray(spreads.function, float),
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
        ConfigError: If the mechanism is of a process the balance does not know.
        DataError: If the campaign cannot train a model.
        PrecisionError: In 32-bit mode.
    """
    require_x64("Fitting a hybrid model")
    config = HybridConfig() if config is None else config
    mech = CHOPerfusionModel() if mech_model is None else mech_model
    check_mechanism(mech)
    check_campaign(trajectories)
    is_movable = config.calibrate and config.use_mechanism and isinstance(mech, CHOPerfusionModel)
    registry = _registry(trajectories, config)
    runs = _with_lanes(
        stack_runs(trajectories, length=config.length, registry=registry), config.lanes
    )
    keys = jax.random.split(key, 8)
    lanes = runs.mask.shape[0]

    law = Disturbance(config.persistence, jnp.full(_N, 0.3, float))
    # a process that knows nothing yet: same structure as the fitted one, so one compile
    data = _blank_rows(runs, registry)
    with warnings.catch_warnings():
        # its targets are all zero on purpose
        warnings.simplefilter("ignore", DataWarning)
        blank, _ = _gp_on(data, None, config, registry)
        blank = with_data(blank, blank.data)
    family = None if registry is None else _new_family(registry, mech, is_movable)
    model = _base_model(trajectories, runs, config, (mech, blank, family))
    model = _with_gp(model, blank, _Spreads(np.zeros(_N), np.zeros(_N), None), np.ones(_N))
    passes: list[float] = []
    moved: list[CalibrationInfo] = []
    for turn in range(2):
        data, info = _smooth(
            model, runs, law, jax.random.split(keys[turn], lanes), config.n_particles
        )
        passes.append(_mean_nis(info, runs))
        if is_movable:
            after, moved = _calibrated(model, mech, data, runs)
            data, model = _retarget(model, after, data, runs), after
        law = Disturbance(config.persistence, jnp.asarray(_fresh_sd(data, config)))
    details: dict[str, Any] = {"nis_per_reading": passes, "calibration": moved}
    gp, reference = _gp_on(data, None, config, registry)
    if not config.use_gp:
        return _without_gp(model, data, config), _no_fit(details, data)
    gp, report = fit(gp, key=keys[3], config=config.fit)
    model = _with_gp(model, gp, _spreads(gp, data, registry), reference)
    for turn in range(config.rounds):
        law = step_law(model)
        data, info = _smooth(
            model, runs, law, jax.random.split(keys[4 + turn], lanes), config.n_particles
        )
        passes.append(_mean_nis(info, runs))
        gp, reference = _gp_on(data, gp, config, registry)
        gp, report = fit(gp, key=keys[3], config=config.fit)
        model = _with_gp(model, gp, _spreads(gp, data, registry), reference)
    details["rows"] = int(np.asarray(data.steps).sum())
    return model, report._replace(details=details)


def untrained_model(mech: Any) -> HybridStateSpaceModel:
    """The mechanism before any data of the clone: its rates may be off by a quarter.

    Args:
        mech: Mechanistic model.

    Returns:
        A model without a process whose forecasts say how little is known.
    """
    state, controls = jnp.asarray(_TYPICAL_STATE), jnp.asarray(_TYPICAL_CONTROLS)
    prior = prior_step(mech, state, controls, jnp.asarray(HOURS_PER_DAY))
    offset = jnp.asarray(_CELLS_OFFSET)
    scale = jnp.maximum(jnp.abs(prior.rates), 0.02 * (state + 0.1) / HOURS_PER_DAY)
    basis = ResidualBasis(scale / (offset + prior.reference), offset, jnp.ones(_N))
    a = float(HybridConfig().persistence)
    spread = jnp.full(_N, _UNTRAINED_ERROR * np.sqrt((1.0 + a) / (1.0 - a)))
    return HybridStateSpaceModel(
        mech, None, basis=basis, limits=Limits(), process_sd=spread, assay=AssayNoise(floor=_FLOOR)
    )


def _registry(trajectories: list[Trajectory], config: HybridConfig) -> CloneRegistry | None:
    """Clones of a campaign; None if there is one, or if they are not to be told apart."""
    names = tuple(dict.fromkeys(t.clone_id for t in trajectories))
    if len(names) < 2 or config.embedding_dim == 0:
        return None
    return CloneRegistry.from_names(names)


def _new_family(registry: CloneRegistry, mech: Any, is_movable: bool) -> CloneFamily:
    """Clones that all have the mechanism's own constants."""
    start = jnp.zeros(N_CONSTANTS)
    if is_movable:
        start = start.at[-1].set(4.0 if float(mech.kinetics.consumes_lactate) > 0.5 else -4.0)
    many = jnp.broadcast_to(start[None, :], (registry.n_clones, N_CONSTANTS))
    closed = jnp.zeros((registry.n_clones, N_CONSTANTS, N_CONSTANTS))
    quiet = jnp.zeros((registry.n_clones, _N))
    return CloneFamily(
        registry, mech, many, start, closed, jnp.zeros(N_CONSTANTS), quiet, is_calibrated=is_movable
    )


def _calibrated(
    model: HybridStateSpaceModel, mech: Any, data: _Smoothed, runs: RunArrays
) -> tuple[HybridStateSpaceModel, list[CalibrationInfo]]:
    """The model with constants moved: one set, or one per clone."""
    intervals = _intervals(model, data, runs)
    if model.embedding is None:
        moved, info = calibrate(mech, model.basis, intervals)
        return eqx.tree_at(lambda m: m.mech_model, model, moved), [info]
    clones = jnp.repeat(jnp.asarray(runs.clone), data.steps.shape[1])
    family, infos = calibrate_family(
        mech, model.basis, intervals, clones, registry=model.embedding.registry
    )
    model = eqx.tree_at(lambda m: m.embedding, model, family)
    return at_clone(model, jnp.asarray(PRIOR_CLONE, float)), infos


def _fresh_sd(data: _Smoothed, config: HybridConfig) -> np.ndarray:
    """What is new of a drifting residual each interval, from its spread."""
    steps = np.asarray(data.steps)
    square = (np.asarray(data.targets) ** 2 + np.asarray(data.variance))[steps]
    fresh = np.sqrt(1.0 - float(config.persistence) ** 2) * np.sqrt(np.mean(square, axis=0))
    return np.maximum(fresh, 1e-3)


@eqx.filter_jit
def _priors(model: HybridStateSpaceModel, data: _Smoothed, dt_h: Array, clones: Array) -> Prior:
    """The mechanism's interval at every smoothed state (runs, intervals)."""
    inputs = data.inputs
    if not model.use_mechanism:
        return jax.vmap(jax.vmap(flat_prior))(inputs[..., :_N])

    def run(rows: Array, dts: Array, clone: Array) -> Prior:
        mech = at_clone(model, clone).mech_model
        return jax.vmap(lambda r, dt: prior_step(mech, r[:_N], r[_N : _N + 6], dt))(rows, dts)

    return jax.vmap(run)(inputs, dt_h, clones)


def _intervals(model: HybridStateSpaceModel, data: _Smoothed, runs: RunArrays) -> Intervals:
    """Smoothed rates of every interval, flat."""
    dt = jnp.diff(runs.times_h, axis=1)
    prior = _priors(model, data, dt, jnp.asarray(runs.clone))
    rates = prior.rates + data.targets * model.basis.unit(prior)
    flat = jax.tree.map(
        lambda leaf: leaf.reshape(-1, *leaf.shape[2:]),
        (data.inputs[..., :_N], data.inputs[..., _N : _N + 6], rates, dt, data.steps),
    )
    return Intervals(*flat)


def _retarget(
    before: HybridStateSpaceModel, after: HybridStateSpaceModel, data: _Smoothed, runs: RunArrays
) -> _Smoothed:
    """The same rates as residuals of another mechanism."""
    dt = jnp.diff(runs.times_h, axis=1)
    clones = jnp.asarray(runs.clone)
    old, new = _priors(before, data, dt, clones), _priors(after, data, dt, clones)
    unit_old, unit_new = before.basis.unit(old), after.basis.unit(new)
    rates = old.rates + data.targets * unit_old
    return data._replace(
        targets=(rates - new.rates) / unit_new,
        variance=data.variance * (unit_old / unit_new) ** 2,
    )


def _without_gp(
    model: HybridStateSpaceModel, data: _Smoothed, config: HybridConfig
) -> HybridStateSpaceModel:
    """The mechanism alone; what it leaves counts as process noise.

    The error of a mechanism persists from day to day. White noise that leads to the same
    spread over many days is larger by `sqrt((1 + a) / (1 - a))`.
    """
    a = float(config.persistence)
    steps = np.asarray(data.steps)
    spread = np.sqrt(np.mean((np.asarray(data.targets) ** 2)[steps], axis=0))
    # that of a day, told for the interval the model's noise refers to
    share = np.sqrt(HOURS_PER_DAY / float(model.dt_hours))
    sd = jnp.asarray(spread * np.sqrt((1.0 + a) / (1.0 - a)) * share)
    if model.embedding is not None:
        model = _with_noise(model, jnp.broadcast_to(sd, model.embedding.process_sd.shape))
    return eqx.tree_at(
        lambda m: (m.gp, m.process_sd, m.function_sd, m.base_rows),
        model,
        (None, sd, jnp.zeros(_N), jnp.zeros((), int)),
    )


def _no_fit(details: dict[str, Any], data: _Smoothed) -> FitReport:
    """Report of a fit in which no process was searched for."""
    nothing = jnp.full((), jnp.nan)
    return FitReport(
        evidence=jnp.zeros(0),
        final=nothing,
        log_evidence=nothing,
        restarts=jnp.zeros(0),
        n_iterations=jnp.zeros((), int),
        converged=True,
        result=Result.SUCCESS,
        condition_number=nothing,
        optimiser="none",
        at_bounds=(),
        details={**details, "rows": int(np.asarray(data.steps).sum())},
    )


def _blank_rows(runs: RunArrays, registry: CloneRegistry | None) -> _Smoothed:
    face = _filled(np.asarray(runs.face), np.asarray(runs.times_h))
    states = to_balanced(jnp.asarray(face))[:, :-1]
    ends = [runs.times_h[:, :-1] / HOURS_PER_DAY]
    if registry is not None:
        ends.insert(0, jnp.broadcast_to(jnp.asarray(runs.clone)[:, None], ends[0].shape))
    inputs = jnp.concatenate([states, runs.controls[:, :-1], jnp.stack(ends, axis=2)], axis=2)
    nothing = jnp.zeros_like(states)
    return _Smoothed(inputs, nothing, nothing + 1.0, runs.mask[:, 1:] & runs.mask[:, :-1])


class _Spreads(NamedTuple):
    process: np.ndarray
    function: np.ndarray
    by_clone: np.ndarray | None
    """Process noise of each clone (K, 9)."""


def _spreads(gp: MultiTaskRateGP, data: _Smoothed, registry: CloneRegistry | None) -> _Spreads:
    """Process noise, and what more a run nobody has seen must be granted.

    An unseen run's error persists from day to day, while the filter adds it as if it were
    fresh each day. The white noise of equal long-run variance is larger by
    `(1 + a) / (1 - a)`, with `a` the day-to-day correlation of the leave-run-out errors.
    """
    steps = np.asarray(data.steps)
    run_of_row = np.broadcast_to(np.arange(steps.shape[0])[:, None], steps.shape)[steps]
    error, predicted = leave_run_out(gp, run_of_row)
    process = _process_sd(gp)
    unseen = np.maximum(np.mean(error**2, axis=0) - process**2, np.asarray(_function_sd(gp)) ** 2)
    inside = run_of_row[1:] == run_of_row[:-1]
    lagged = np.mean((error[1:] * error[:-1])[inside], axis=0) / np.mean(error**2, axis=0)
    persistence = np.clip(np.nan_to_num(lagged), 0.0, 0.7)
    function = np.sqrt(unseen * (1.0 + persistence) / (1.0 - persistence))
    if registry is None:
        return _Spreads(process, function, None)
    # a clone with few runs among clones with many: its own left-out runs say how sure to be
    clone = np.asarray(data.inputs)[..., -2][steps].round().astype(int)
    more = np.zeros((registry.n_clones, _N))
    for k in np.unique(clone):
        mine = clone == k
        n_runs = np.unique(run_of_row[mine]).size
        missed = np.mean(error[mine] ** 2 - predicted[mine], axis=0)
        more[k] = np.maximum(missed, 0.0) * n_runs / (n_runs + _SHRINK_RUNS)
    return _Spreads(process, function, np.sqrt(process[None, :] ** 2 + more))


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
        mine, index = clone_of(fitted, run)
        beliefs = assimilate_run(mine, run, key=k, n_particles=n_particles, length=length)
        parts.append(_rows(mine, run_arrays(run, length=length, clone=index), beliefs))
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
    family = model.embedding
    if family is not None:
        more = jnp.maximum(family.process_sd**2 - jnp.asarray(_process_sd(present)) ** 2, 0.0)
        family = eqx.tree_at(lambda f: f.process_sd, family, jnp.sqrt(sd**2 + more))
        model = eqx.tree_at(lambda m: m.embedding, model, family)
        sd = family.noise(model.clone)
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
